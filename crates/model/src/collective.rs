//! Ranks that add up their numbers, in the order of the ranks, so that everybody has the same sum.
//!
//! Here: the contract, one rank alone, and the threads of one process. NCCL is behind the same trait
//! where there are several GPUs. Does not know what the numbers are.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Why ranks could not add up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CollectiveError {
    /// Another rank failed or left; nobody waits for it.
    #[error("another rank has left the group")]
    Left,
    /// Ranks brought different numbers of values.
    #[error("rank {rank} brought {given} values where the others brought {expected}")]
    Length {
        /// The rank.
        rank: usize,
        /// What it brought.
        given: usize,
        /// What the others brought.
        expected: usize,
    },
    /// The transport failed.
    #[error("the transport between ranks failed: {0}")]
    Transport(String),
}

/// A rank's end of a group.
pub trait Collective: Send {
    /// This rank, from 0.
    fn rank(&self) -> usize;
    /// Number of ranks.
    fn ranks(&self) -> usize;
    /// Replaces `values` by the sum over all ranks, added up in ascending order of rank; every rank
    /// gets the same bits. All ranks must call it, with equally many values.
    ///
    /// # Errors
    /// [`CollectiveError`]; the group is then unusable.
    fn all_reduce(&self, values: &mut [f32]) -> Result<(), CollectiveError>;
}

/// The only rank.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn ranks(&self) -> usize {
        1
    }

    fn all_reduce(&self, _values: &mut [f32]) -> Result<(), CollectiveError> {
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Round {
    number: u64,
    brought: Vec<Option<Vec<f32>>>,
    sum: Arc<Vec<f32>>,
    failed: Option<CollectiveError>,
}

#[derive(Debug)]
struct Group {
    round: Mutex<Round>,
    changed: Condvar,
}

/// One rank among the threads of this process. A rank that is dropped ends the group, so that no
/// other waits for it.
#[derive(Debug)]
pub struct ThreadRank {
    group: Arc<Group>,
    rank: usize,
    ranks: usize,
}

/// A group of `ranks` threads: one end for each.
pub fn thread_group(ranks: usize) -> Vec<ThreadRank> {
    let round = Round { brought: vec![None; ranks], ..Round::default() };
    let group = Arc::new(Group { round: Mutex::new(round), changed: Condvar::new() });
    (0..ranks).map(|rank| ThreadRank { group: Arc::clone(&group), rank, ranks }).collect()
}

fn add_up(brought: &mut [Option<Vec<f32>>]) -> Result<Vec<f32>, CollectiveError> {
    let mut sum: Vec<f32> = Vec::new();
    for (rank, part) in brought.iter_mut().enumerate() {
        let part = part.take().unwrap_or_default();
        if rank == 0 {
            sum = part;
            continue;
        }
        if part.len() != sum.len() {
            let (given, expected) = (part.len(), sum.len());
            return Err(CollectiveError::Length { rank, given, expected });
        }
        for (total, value) in sum.iter_mut().zip(part) {
            *total += value;
        }
    }
    Ok(sum)
}

impl Collective for ThreadRank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.ranks
    }

    fn all_reduce(&self, values: &mut [f32]) -> Result<(), CollectiveError> {
        let mut round = self.group.round.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = &round.failed {
            return Err(error.clone());
        }
        let own = round.number;
        round.brought[self.rank] = Some(values.to_vec());
        if round.brought.iter().all(Option::is_some) {
            match add_up(&mut round.brought) {
                Ok(sum) => {
                    round.sum = Arc::new(sum);
                    round.number += 1;
                }
                Err(error) => round.failed = Some(error),
            }
            self.group.changed.notify_all();
        }
        while round.number == own && round.failed.is_none() {
            round = self.group.changed.wait(round).unwrap_or_else(PoisonError::into_inner);
        }
        // A rank may leave right after a round; those who were in it still have its sum.
        if round.number == own {
            return Err(round.failed.clone().unwrap_or(CollectiveError::Left));
        }
        let sum = Arc::clone(&round.sum);
        drop(round);
        if sum.len() != values.len() {
            return Err(CollectiveError::Left);
        }
        values.copy_from_slice(&sum);
        Ok(())
    }
}

impl Drop for ThreadRank {
    fn drop(&mut self) {
        let mut round = self.group.round.lock().unwrap_or_else(PoisonError::into_inner);
        round.failed.get_or_insert(CollectiveError::Left);
        drop(round);
        self.group.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_added_in_the_order_of_ranks() {
        // (1 + 1e8) − 1e8 is 0 in float32, 1 in any order that starts with the large ones.
        let parts = [1.0f32, 1e8, -1e8];
        for _ in 0..50 {
            let sums: Vec<f32> = std::thread::scope(|scope| {
                let ranks = thread_group(3);
                let handles: Vec<_> = ranks
                    .into_iter()
                    .map(|rank| {
                        scope.spawn(move || {
                            let mut values = [parts[rank.rank()]];
                            rank.all_reduce(&mut values).expect("a sum");
                            values[0]
                        })
                    })
                    .collect();
                handles.into_iter().map(|handle| handle.join().expect("a rank")).collect()
            });
            assert_eq!(sums, [0.0; 3]);
        }
    }

    #[test]
    fn nobody_waits_for_a_rank_that_left() {
        let mut ranks = thread_group(2);
        drop(ranks.pop());
        assert_eq!(ranks[0].all_reduce(&mut [1.0]), Err(CollectiveError::Left));
    }
}
