//! The log as it will be once what is closed is committed.
//!
//! Why it exists: an epoch is closed while the one before it is being written, and must find in that
//! one what it will find in the log: offsets and the sequences of producers. Should writing fail, the
//! sequencer stops and nothing that was closed on top of it is written.
//!
//! Does not know who closes and who writes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use falaj_event::{ProducerId, TopicId};

use crate::contract::{Log, LogError, ProducerOutcome};
use crate::epoch::EpochEntry;

/// See the module's documentation.
pub(crate) struct Ahead {
    log: Arc<dyn Log>,
    /// Closed and perhaps not committed yet, the oldest first.
    closed: Mutex<VecDeque<Arc<EpochEntry>>>,
}

impl Ahead {
    pub(crate) fn new(log: Arc<dyn Log>) -> Self {
        Self { log, closed: Mutex::default() }
    }

    fn entries(&self) -> MutexGuard<'_, VecDeque<Arc<EpochEntry>>> {
        // Nothing panics halfway through a change.
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log itself.
    pub(crate) fn log(&self) -> &dyn Log {
        &*self.log
    }

    /// Takes note of the next epoch.
    pub(crate) fn closed(&self, entry: Arc<EpochEntry>) {
        self.entries().push_back(entry);
    }

    /// Forgets the oldest epoch, which the log has now.
    pub(crate) fn committed(&self) {
        self.entries().pop_front();
    }

    /// The offset that the next event of this partition will have.
    pub(crate) fn next_offset(&self, topic: TopicId, partition: u32) -> u64 {
        let of = |entry: &Arc<EpochEntry>| {
            let mut parts = entry.partitions.iter();
            parts.find(|part| (part.topic, part.partition) == (topic, partition)).cloned()
        };
        // Not held while the log is asked, which may take long.
        let found = self.entries().iter().rev().find_map(of);
        match found {
            Some(part) => part.first_offset + u64::from(part.count),
            None => self.log.next_offset(topic, partition),
        }
    }

    /// As [`Log::producer`].
    pub(crate) fn producer(
        &self,
        producer: ProducerId,
        sequence: u64,
    ) -> Result<Option<ProducerOutcome>, LogError> {
        let of = |entry: &Arc<EpochEntry>| {
            let mut runs = entry.producers.iter();
            let run = runs.find(|run| run.producer == producer && run.covers(sequence))?;
            Some(ProducerOutcome { epoch: entry.record.epoch, t: entry.record.t, entry: *run })
        };
        let found = self.entries().iter().rev().find_map(of);
        match found {
            Some(outcome) => Ok(Some(outcome)),
            None => self.log.producer(producer, sequence),
        }
    }

    /// As [`Log::last_sequence`].
    pub(crate) fn last_sequence(&self, producer: ProducerId) -> Result<Option<u64>, LogError> {
        let of = |entry: &Arc<EpochEntry>| {
            let runs = entry.producers.iter().filter(|run| run.producer == producer);
            runs.map(|run| run.last_sequence()).max()
        };
        let newest = self.entries().iter().filter_map(of).max();
        Ok(newest.max(self.log.last_sequence(producer)?))
    }
}
