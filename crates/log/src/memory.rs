//! A log in memory: the contract with nothing else, for tests and simulations. It loses everything
//! when it is dropped.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use falaj_event::{LogTime, ProducerId, TopicId};

use crate::contract::{
    BlockId, BlockLocation, Log, LogError, ProducerOutcome, StagedBlock, check_continues,
    wait_until_grown,
};
use crate::epoch::{EpochEntry, ProducerEntry};

type BlockKey = (TopicId, u32, BlockId);

#[derive(Default)]
struct State {
    entries: Vec<Arc<EpochEntry>>,
    staged: HashMap<BlockKey, Arc<[u8]>>,
    /// Committed blocks with their epoch.
    blocks: HashMap<BlockKey, (u64, Arc<[u8]>)>,
    /// The first epoch whose blocks are kept, of topics that were cut.
    cuts: HashMap<TopicId, u64>,
    /// Blocks that were cut.
    removed: HashSet<BlockKey>,
    /// Per partition, by first offset: the epoch that appended there.
    offsets: BTreeMap<(TopicId, u32), BTreeMap<u64, u64>>,
    /// By first sequence of a run: the epoch that carried it.
    producers: BTreeMap<(ProducerId, u64), (u64, ProducerEntry)>,
}

impl State {
    fn next_offset(&self, topic: TopicId, partition: u32) -> u64 {
        let last = self.offsets.get(&(topic, partition)).and_then(|of| of.last_key_value());
        last.and_then(|(_, epoch)| self.entry(*epoch)?.partition(topic, partition))
            .map_or(0, |entry| entry.end_offset())
    }

    fn entry(&self, epoch: u64) -> Option<&Arc<EpochEntry>> {
        self.entries.get(usize::try_from(epoch).ok()?)
    }
}

/// A log in memory.
#[derive(Default)]
pub struct MemoryLog {
    state: Mutex<State>,
    grown: Condvar,
}

impl MemoryLog {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for MemoryLog {
    fn append(&self, blocks: Vec<StagedBlock>) -> Result<(), LogError> {
        let mut state = self.state();
        for block in blocks {
            state.staged.insert((block.topic, block.partition, block.id), block.bytes);
        }
        Ok(())
    }

    fn commit(&self, entry: &EpochEntry) -> Result<(), LogError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let tail = state.entries.last().map(Arc::as_ref);
        check_continues(entry, tail, |topic, partition| state.next_offset(topic, partition))?;
        let named = || {
            entry.partitions.iter().flat_map(|partition| {
                partition.blocks.iter().map(|block| (partition.topic, partition.partition, *block))
            })
        };
        if let Some((topic, partition, block)) = named().find(|key| !state.staged.contains_key(key))
        {
            return Err(LogError::MissingBlock { topic, partition, block });
        }
        let epoch = entry.record.epoch;
        for key in named() {
            state.blocks.extend(state.staged.remove(&key).map(|bytes| (key, (epoch, bytes))));
        }
        for partition in &entry.partitions {
            let offsets = state.offsets.entry((partition.topic, partition.partition)).or_default();
            offsets.insert(partition.first_offset, epoch);
        }
        for run in &entry.producers {
            state.producers.insert((run.producer, run.first_sequence), (epoch, *run));
        }
        state.entries.push(Arc::new(entry.clone()));
        self.grown.notify_all();
        Ok(())
    }

    fn tail(&self) -> Option<Arc<EpochEntry>> {
        self.state().entries.last().cloned()
    }

    fn entry(&self, epoch: u64) -> Result<Option<Arc<EpochEntry>>, LogError> {
        Ok(self.state().entry(epoch).cloned())
    }

    fn entry_at(&self, t: LogTime) -> Result<Option<Arc<EpochEntry>>, LogError> {
        let state = self.state();
        let after = state.entries.partition_point(|entry| entry.record.t <= t);
        Ok(after.checked_sub(1).and_then(|index| state.entries.get(index).cloned()))
    }

    fn block(&self, topic: TopicId, partition: u32, id: BlockId) -> Result<Arc<[u8]>, LogError> {
        let (state, key) = (self.state(), (topic, partition, id));
        match state.blocks.get(&key) {
            Some((_, bytes)) => Ok(Arc::clone(bytes)),
            None if state.removed.contains(&key) => {
                let first_kept = state.cuts.get(&topic).copied().unwrap_or(0);
                Err(LogError::Cut { topic, first_kept })
            }
            None => Err(LogError::MissingBlock { topic, partition, block: id }),
        }
    }

    fn next_offset(&self, topic: TopicId, partition: u32) -> u64 {
        self.state().next_offset(topic, partition)
    }

    fn locate(
        &self,
        topic: TopicId,
        partition: u32,
        offset: u64,
    ) -> Result<Option<BlockLocation>, LogError> {
        let state = self.state();
        let at = state
            .offsets
            .get(&(topic, partition))
            .and_then(|offsets| offsets.range(..=offset).next_back().map(|(_, epoch)| *epoch));
        let located = at.and_then(|epoch| {
            let entry = state.entry(epoch)?;
            let part = entry.partition(topic, partition)?;
            (offset < part.end_offset()).then(|| BlockLocation {
                epoch,
                t: entry.record.t,
                blocks: part.blocks.clone(),
                first_offset: part.first_offset,
                count: part.count,
            })
        });
        Ok(located)
    }

    fn producer(
        &self,
        producer: ProducerId,
        sequence: u64,
    ) -> Result<Option<ProducerOutcome>, LogError> {
        let state = self.state();
        let before = state.producers.range((producer, 0)..=(producer, sequence)).next_back();
        let covering = before.filter(|(_, (_, entry))| entry.covers(sequence));
        Ok(covering.and_then(|(_, (epoch, entry))| {
            let t = state.entry(*epoch)?.record.t;
            Some(ProducerOutcome { epoch: *epoch, t, entry: *entry })
        }))
    }

    fn last_sequence(&self, producer: ProducerId) -> Result<Option<u64>, LogError> {
        let state = self.state();
        let last = state.producers.range((producer, 0)..=(producer, u64::MAX)).next_back();
        Ok(last.map(|(_, (_, entry))| entry.last_sequence()))
    }

    fn cut(&self, topic: TopicId, first_kept: u64) -> Result<u64, LogError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let newest = state.entries.last().map_or(0, |tail| tail.record.epoch);
        let before = state.cuts.get(&topic).copied().unwrap_or(0);
        let first_kept = first_kept.min(newest).max(before);
        if first_kept > 0 {
            state.cuts.insert(topic, first_kept);
        }
        let removed = &mut state.removed;
        state.blocks.retain(|key, (epoch, _)| {
            let kept = key.0 != topic || *epoch >= first_kept;
            if !kept {
                removed.insert(*key);
            }
            kept
        });
        Ok(first_kept)
    }

    fn first_kept(&self, topic: TopicId) -> u64 {
        self.state().cuts.get(&topic).copied().unwrap_or(0)
    }

    fn wait_beyond(&self, epoch: Option<u64>, timeout: Duration) -> Option<u64> {
        let newest = |state: &State| state.entries.last().map(|entry| entry.record.epoch);
        wait_until_grown(self.state(), &self.grown, newest, epoch, timeout)
    }
}
