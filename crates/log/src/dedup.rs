//! Exactly-once: which sequences of a submission are new and what became of the others.
//!
//! What earlier epochs carried is the log's to tell ([`Ahead::producer`]); only the newest
//! sequences are cached. Does not know rows, nor how durable the epochs before this one are.

use std::collections::{BTreeMap, HashMap};

use falaj_event::{LogTime, ProducerId, TopicId};

use crate::ahead::Ahead;
use crate::contract::LogError;
use crate::epoch::{EpochEntry, ProducerEntry};
use crate::submission::{Duplicates, SubmitError};

/// Producers whose newest sequence is remembered; the log knows the others.
const CACHED_PRODUCERS: usize = 100_000;

/// Newest sequences across epochs.
#[derive(Default)]
pub(crate) struct Newest(HashMap<ProducerId, Option<u64>>);

impl Newest {
    fn of(&mut self, log: &Ahead, producer: ProducerId) -> Result<Option<u64>, LogError> {
        if let Some(newest) = self.0.get(&producer) {
            return Ok(*newest);
        }
        if self.0.len() >= CACHED_PRODUCERS {
            self.0.clear();
        }
        let newest = log.last_sequence(producer)?;
        self.0.insert(producer, newest);
        Ok(newest)
    }

    /// Takes note of what a closed epoch carries.
    pub(crate) fn closed(&mut self, entry: &EpochEntry) {
        for run in &entry.producers {
            let newest = self.0.entry(run.producer).or_default();
            *newest = (*newest).max(Some(run.last_sequence()));
        }
    }
}

/// A submission's sequences.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub producer: ProducerId,
    pub topic: TopicId,
    pub first_sequence: u64,
    /// At least 1.
    pub count: u32,
}

/// What is known of a claim before its epoch is closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// Positions below this one are duplicates, the others are new.
    pub new_from: u32,
    /// Duplicates of earlier epochs.
    pub durable: Vec<Duplicates>,
    /// Duplicates of submissions of the epoch that is being closed: first position and count.
    pub same_epoch: Vec<(u32, u32)>,
}

#[derive(Debug)]
pub(crate) enum ClaimError {
    Refused(SubmitError),
    Log(LogError),
}

impl From<LogError> for ClaimError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

/// The claims of one epoch, in order.
#[derive(Default)]
pub(crate) struct EpochClaims {
    /// By first sequence: topic and last sequence.
    runs: BTreeMap<(ProducerId, u64), (TopicId, u64)>,
}

impl EpochClaims {
    fn newest(&self, producer: ProducerId) -> Option<u64> {
        let last = self.runs.range((producer, 0)..=(producer, u64::MAX)).next_back();
        last.map(|(_, (_, last))| *last)
    }

    fn covering(&self, producer: ProducerId, sequence: u64) -> Option<(TopicId, u64)> {
        let before = self.runs.range((producer, 0)..=(producer, sequence)).next_back();
        before.map(|(_, run)| *run).filter(|(_, last)| *last >= sequence)
    }

    /// Says which positions of `claim` are new and takes them.
    pub(crate) fn claim(
        &mut self,
        log: &Ahead,
        newest: &mut Newest,
        claim: Claim,
    ) -> Result<Known, ClaimError> {
        let Claim { producer, topic, first_sequence, count } = claim;
        let end = first_sequence + u64::from(count);
        let newest = self.newest(producer).max(newest.of(log, producer)?);
        let mut known = Known::default();
        let old_end = newest.map_or(first_sequence, |newest| end.min(newest.saturating_add(1)));
        let mut at = first_sequence;
        while at < old_end {
            let position = position(first_sequence, at);
            let (found, last) = if let Some((found, last)) = self.covering(producer, at) {
                let last = last.min(old_end - 1);
                known.same_epoch.push((position, run_length(at, last)));
                (found, last)
            } else if let Some(outcome) = log.producer(producer, at)? {
                let last = outcome.entry.last_sequence().min(old_end - 1);
                let (epoch, t) = (outcome.epoch, outcome.t);
                known.durable.push(duplicates(position, at, last, &outcome.entry, epoch, t));
                (outcome.entry.topic, last)
            } else {
                return Err(ClaimError::Refused(SubmitError::SequenceNotRecorded {
                    producer,
                    sequence: at,
                    last: newest.unwrap_or_default(),
                }));
            };
            if found != topic {
                return Err(ClaimError::Refused(SubmitError::SequenceOfOtherTopic {
                    producer,
                    sequence: at,
                    topic: found,
                }));
            }
            at = last + 1;
        }
        known.new_from = position(first_sequence, at);
        if at < end {
            self.runs.insert((producer, at), (topic, end - 1));
        }
        Ok(known)
    }
}

/// What became of same-epoch duplicates, once the epoch's producer table is known.
pub(crate) fn resolve_same_epoch(
    claim: Claim,
    same_epoch: &[(u32, u32)],
    producers: &[ProducerEntry],
    epoch: u64,
    t: LogTime,
) -> Vec<Duplicates> {
    let mut resolved = Vec::new();
    for (first, count) in same_epoch {
        let mut at = claim.first_sequence + u64::from(*first);
        let end = at + u64::from(*count);
        let start = producers
            .partition_point(|run| (run.producer, run.last_sequence()) < (claim.producer, at));
        for run in &producers[start..] {
            if at >= end || run.producer != claim.producer || !run.covers(at) {
                break;
            }
            let last = run.last_sequence().min(end - 1);
            let position = position(claim.first_sequence, at);
            resolved.push(duplicates(position, at, last, run, epoch, t));
            at = last + 1;
        }
    }
    resolved
}

fn duplicates(
    position: u32,
    first: u64,
    last: u64,
    run: &ProducerEntry,
    epoch: u64,
    t: LogTime,
) -> Duplicates {
    let count = run_length(first, last);
    // A run shares one fate, so a part of it does too.
    let accepted = if run.accepted > 0 { count } else { 0 };
    Duplicates { position, count, accepted, epoch, t }
}

fn position(first_sequence: u64, sequence: u64) -> u32 {
    u32::try_from(sequence - first_sequence).unwrap_or(u32::MAX)
}

fn run_length(first: u64, last: u64) -> u32 {
    u32::try_from(last - first + 1).unwrap_or(u32::MAX)
}

/// One submission's new positions as runs that share one fate. `rejected` ascends and holds
/// positions from `new_from` on only.
pub(crate) fn fate_runs(claim: Claim, new_from: u32, rejected: &[u32]) -> Vec<ProducerEntry> {
    let mut runs = Vec::new();
    let mut push = |from: u32, to: u32, accepted: bool| {
        if from < to {
            runs.push(ProducerEntry {
                producer: claim.producer,
                topic: claim.topic,
                first_sequence: claim.first_sequence + u64::from(from),
                count: to - from,
                accepted: if accepted { to - from } else { 0 },
            });
        }
    };
    let mut at = new_from;
    for position in rejected {
        push(at, *position, true);
        push(*position, position + 1, false);
        at = position + 1;
    }
    push(at, claim.count, true);
    runs
}

/// The producer table: sorted, adjacent runs of one fate and topic merged.
pub(crate) fn producer_table(mut runs: Vec<ProducerEntry>) -> Vec<ProducerEntry> {
    runs.sort_unstable_by_key(|run| (run.producer, run.first_sequence));
    let mut table: Vec<ProducerEntry> = Vec::with_capacity(runs.len());
    for run in runs {
        if let Some(last) = table.last_mut()
            && (last.producer, last.topic) == (run.producer, run.topic)
            && last.last_sequence() + 1 == run.first_sequence
            && (last.accepted > 0) == (run.accepted > 0)
            && let Some(count) = last.count.checked_add(run.count)
        {
            last.count = count;
            last.accepted += run.accepted;
            continue;
        }
        table.push(run);
    }
    table
}

#[cfg(test)]
mod tests;
