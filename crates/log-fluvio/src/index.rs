//! What a handle remembers of the whole log, compactly: where each epoch, offset, producer's run and
//! block is. Follows from the epochs topic alone and is rebuilt from it at open.

use std::collections::{BTreeMap, HashMap};

use falaj_event::{LogTime, ProducerId, TopicId};
use falaj_log::{BlockId, EpochEntry};

/// Where an epoch's entry is.
#[derive(Clone, Copy, Debug)]
struct EpochRow {
    t: LogTime,
    /// Offset in the epochs topic.
    at: u64,
}

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its offset in the Fluvio topic.
    pub offset: u64,
    /// The epoch that committed it.
    pub epoch: u64,
}

/// What one partition holds.
#[derive(Debug, Default)]
struct PartitionIndex {
    next_offset: u64,
    /// First offset and epoch of each entry that touched it, ascending.
    runs: Vec<(u64, u64)>,
    /// Its committed blocks.
    blocks: HashMap<BlockId, Place>,
}

/// The index.
#[derive(Debug, Default)]
pub(crate) struct Index {
    epochs: Vec<EpochRow>,
    partitions: HashMap<(TopicId, u32), PartitionIndex>,
    producers: BTreeMap<(ProducerId, u64), u64>,
}

impl Index {
    /// Adds the next entry, found at `at` of the epochs topic.
    pub(crate) fn push(&mut self, at: u64, entry: &EpochEntry, places: &[u64]) {
        let epoch = entry.record.epoch;
        self.epochs.push(EpochRow { t: entry.record.t, at });
        let mut places = places.iter();
        for part in &entry.partitions {
            let index = self.partitions.entry((part.topic, part.partition)).or_default();
            index.next_offset = part.end_offset();
            index.runs.push((part.first_offset, epoch));
            for (block, offset) in part.blocks.iter().zip(places.by_ref()) {
                index.blocks.insert(*block, Place { offset: *offset, epoch });
            }
        }
        for run in &entry.producers {
            self.producers.insert((run.producer, run.first_sequence), epoch);
        }
    }

    /// Offset in the epochs topic of an epoch's entry.
    pub(crate) fn at(&self, epoch: u64) -> Option<u64> {
        self.epochs.get(usize::try_from(epoch).ok()?).map(|row| row.at)
    }

    /// The newest epoch with `T <= t`.
    pub(crate) fn epoch_at(&self, t: LogTime) -> Option<u64> {
        let after = self.epochs.partition_point(|row| row.t <= t);
        after.checked_sub(1).map(|index| index as u64)
    }

    pub(crate) fn next_offset(&self, topic: TopicId, partition: u32) -> u64 {
        self.partitions.get(&(topic, partition)).map_or(0, |of| of.next_offset)
    }

    /// The epoch that appended this offset.
    pub(crate) fn locate(&self, topic: TopicId, partition: u32, offset: u64) -> Option<u64> {
        let of = self.partitions.get(&(topic, partition)).filter(|of| offset < of.next_offset)?;
        let after = of.runs.partition_point(|(first, _)| *first <= offset);
        of.runs.get(after.checked_sub(1)?).map(|(_, epoch)| *epoch)
    }

    /// Where a committed block is, or was before it was cut.
    pub(crate) fn block(&self, topic: TopicId, partition: u32, block: BlockId) -> Option<Place> {
        self.partitions.get(&(topic, partition))?.blocks.get(&block).copied()
    }

    /// The epoch of the producer's last run that begins at or before `sequence`.
    pub(crate) fn producer(&self, producer: ProducerId, sequence: u64) -> Option<u64> {
        let before = self.producers.range((producer, 0)..=(producer, sequence)).next_back();
        before.map(|(_, epoch)| *epoch)
    }
}
