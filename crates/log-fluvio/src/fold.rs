//! Which records of the epochs topic count: the whole decision, without effects.
//!
//! Every reader of one epochs topic folds the same records in the same order and so comes to the same
//! log. It does not know sockets, threads or the cluster.

use std::collections::HashMap;
use std::sync::Arc;

use falaj_event::{LogTime, ProducerId, TopicId};
use falaj_log::contract::check_continues;
use falaj_log::{BlockId, EpochEntry, LogError};

use crate::error::damaged;
use crate::index::Index;
pub use crate::index::Place;
use crate::wire::{self, EpochsRecord};

/// What became of a record.
#[derive(Debug)]
pub enum Folded {
    /// An entry that counts: the new tail.
    Entry(Arc<EpochEntry>),
    /// A claim that counts: the term below which entries count no more.
    Claim {
        /// The term.
        term: u64,
        /// Who claimed it.
        claimant: [u8; 16],
    },
    /// A cut that counts.
    Cut {
        /// The topic.
        topic: TopicId,
        /// The first epoch whose blocks are kept.
        first_kept: u64,
    },
    /// A record without effect, and why.
    Ignored(LogError),
    /// Somebody else's record, or one that was folded before.
    Nothing,
}

/// The log as far as it was read.
#[derive(Debug, Default)]
pub struct Fold {
    next: u64,
    term: u64,
    tail: Option<Arc<EpochEntry>>,
    index: Index,
    cuts: HashMap<TopicId, u64>,
    ignored: u64,
}

impl Fold {
    /// Nothing was read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Offset of the record that comes next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The highest term that was claimed or used.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// The newest entry that counts.
    pub fn tail(&self) -> Option<&Arc<EpochEntry>> {
        self.tail.as_ref()
    }

    /// How many entries and claims did not count: those of fenced sequencers, and repetitions.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Folds the record at `offset` of `topic` (for messages).
    ///
    /// # Errors
    /// [`LogError::Damaged`] when records are missing or are not what was written. The fold is then as
    /// it was.
    pub fn fold(
        &mut self,
        topic: &str,
        offset: u64,
        key: &[u8],
        value: &[u8],
    ) -> Result<Folded, LogError> {
        if offset < self.next {
            return Ok(Folded::Nothing);
        }
        let place = || format!("offset {offset} of the Fluvio topic {topic}");
        if offset > self.next {
            let why = format!("the records from offset {} on before it are missing", self.next);
            return Err(damaged(place(), why));
        }
        let record = wire::decode(key, value).map_err(|why| damaged(place(), why))?;
        let folded = match record {
            EpochsRecord::Foreign => Folded::Nothing,
            EpochsRecord::Claim { term, claimant } if term > self.term => {
                self.term = term;
                Folded::Claim { term, claimant }
            }
            EpochsRecord::Claim { term, .. } => {
                self.ignored += 1;
                Folded::Ignored(LogError::Fenced { current: self.term, got: term })
            }
            EpochsRecord::Cut { term, topic, first_kept } if term >= self.term => {
                let first_kept = self.cut_at(topic, first_kept);
                self.cuts.insert(topic, first_kept);
                Folded::Cut { topic, first_kept }
            }
            EpochsRecord::Cut { term, .. } => {
                self.ignored += 1;
                Folded::Ignored(LogError::Fenced { current: self.term, got: term })
            }
            EpochsRecord::Entry { entry, places } => match self.check(&entry) {
                Ok(()) => self.accept(offset, *entry, &places),
                Err(LogError::NotTheTail { expected, got, .. }) if got > expected => {
                    // No writer appends an entry before it has seen its predecessor count.
                    let why = format!("epoch {got} is there, but epoch {expected} is missing");
                    return Err(damaged(place(), why));
                }
                Err(refusal) => {
                    self.ignored += 1;
                    Folded::Ignored(refusal)
                }
            },
        };
        self.next = offset + 1;
        Ok(folded)
    }

    fn accept(&mut self, offset: u64, entry: EpochEntry, places: &[u64]) -> Folded {
        self.index.push(offset, &entry, places);
        self.term = self.term.max(entry.record.term);
        let entry = Arc::new(entry);
        self.tail = Some(Arc::clone(&entry));
        Folded::Entry(entry)
    }

    /// Whether an entry would count now.
    ///
    /// # Errors
    /// As [`check_continues`]; [`LogError::Fenced`] also below a claimed term.
    pub fn check(&self, entry: &EpochEntry) -> Result<(), LogError> {
        if entry.record.term < self.term {
            return Err(LogError::Fenced { current: self.term, got: entry.record.term });
        }
        check_continues(entry, self.tail.as_deref(), |topic, partition| {
            self.index.next_offset(topic, partition)
        })
    }

    /// Offset in the epochs topic of an epoch's entry.
    pub fn at(&self, epoch: u64) -> Option<u64> {
        self.index.at(epoch)
    }

    /// The newest epoch with `T <= t`.
    pub fn epoch_at(&self, t: LogTime) -> Option<u64> {
        self.index.epoch_at(t)
    }

    /// The offset that the next event of this partition will have.
    pub fn next_offset(&self, topic: TopicId, partition: u32) -> u64 {
        self.index.next_offset(topic, partition)
    }

    /// The epoch that appended this offset.
    pub fn locate(&self, topic: TopicId, partition: u32, offset: u64) -> Option<u64> {
        self.index.locate(topic, partition, offset)
    }

    /// The first epoch whose blocks of `topic` are kept; 0 where nothing was cut.
    pub fn first_kept(&self, topic: TopicId) -> u64 {
        self.cuts.get(&topic).copied().unwrap_or(0)
    }

    /// What a cut at `first_kept` would keep: the newest epoch always, and nothing that was cut.
    pub fn cut_at(&self, topic: TopicId, first_kept: u64) -> u64 {
        let newest = self.tail.as_ref().map_or(0, |tail| tail.record.epoch);
        first_kept.min(newest).max(self.first_kept(topic))
    }

    /// Where a committed block is, or was before it was cut.
    pub fn block(&self, topic: TopicId, partition: u32, block: BlockId) -> Option<Place> {
        self.index.block(topic, partition, block)
    }

    /// The epoch of the producer's last run that begins at or before `sequence`.
    pub fn producer(&self, producer: ProducerId, sequence: u64) -> Option<u64> {
        self.index.producer(producer, sequence)
    }
}

#[cfg(test)]
mod tests;
