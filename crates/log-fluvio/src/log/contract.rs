//! The contract's operations over the handle.
//!
//! Does not know connections, attempts or threads.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use falaj_event::{LogTime, ProducerId, TopicId};
use falaj_log::epoch::epochs_topic;
use falaj_log::{
    BlockId, BlockLocation, EpochEntry, Log, LogError, ProducerEntry, ProducerOutcome, StagedBlock,
};

use super::{FluvioLog, Staged};
use crate::blocks::{Address, Stored};
use crate::error::{ClusterError, damaged};
use crate::follower::State;
use crate::wire::{self, EpochsRecord};
use crate::writer::Outgoing;

impl Log for FluvioLog {
    fn append(&self, blocks: Vec<StagedBlock>) -> Result<(), LogError> {
        let mut outgoing = Vec::with_capacity(blocks.len());
        for block in &blocks {
            let topic = self.topic(block.topic)?;
            if block.partition >= topic.partitions {
                let (topic, address) = (topic.name.to_string(), self.options.controller.clone());
                let why = format!("partition {} is not declared", block.partition);
                return Err(ClusterError::Topic { topic, address, why }.while_doing("appending"));
            }
            outgoing.push(Outgoing {
                topic: Arc::clone(&topic.name),
                partition: block.partition,
                key: wire::block_key(block.partition, block.id).to_vec(),
                value: Arc::clone(&block.bytes),
            });
        }
        let places = self.send(outgoing, "appending blocks")?;
        let mut writing = self.writing();
        for (block, place) in blocks.into_iter().zip(places) {
            let key = (block.topic, block.partition, block.id);
            writing.staged.insert(key, Staged { place, bytes: block.bytes });
        }
        Ok(())
    }

    fn commit(&self, entry: &EpochEntry) -> Result<(), LogError> {
        let doing = "committing an epoch";
        let mut guard = self.writing();
        let writing = &mut *guard;
        if writing.failed {
            let address = self.options.controller.clone();
            return Err(ClusterError::Failed { address }.while_doing(doing));
        }
        {
            let state = self.view.state();
            if let Some(why) = &state.broken {
                return Err(self.broken(why));
            }
            state.fold.check(entry)?;
        }
        let places = self.places(writing, entry)?;
        writing.failed = true;
        let at = self.send_epochs(wire::entry_key(&places), entry.encode().into(), doing)?;
        self.folded_beyond(at, doing)?;
        let outcome = self.outcome(entry);
        writing.failed = false;
        outcome?;
        if let Some(memory) = &self.memory {
            memory.remember(&entry.record)?;
        }
        self.unstage(writing, entry);
        Ok(())
    }

    fn tail(&self) -> Option<Arc<EpochEntry>> {
        self.view.state().fold.tail().cloned()
    }

    fn entry(&self, epoch: u64) -> Result<Option<Arc<EpochEntry>>, LogError> {
        let at = {
            let state = self.view.state();
            let newest = state.fold.tail().map(|tail| tail.record.epoch);
            let Some(behind) = newest.and_then(|newest| newest.checked_sub(epoch)) else {
                return Ok(None);
            };
            let index = usize::try_from(behind)
                .ok()
                .and_then(|behind| state.recent.len().checked_sub(behind + 1));
            if let Some(entry) = index.and_then(|index| state.recent.get(index)) {
                return Ok(Some(Arc::clone(entry)));
            }
            state.fold.at(epoch)
        };
        let Some(at) = at else { return Ok(None) };
        let place = || format!("the entry of epoch {epoch} at offset {at} of {}", self.epochs);
        let address = Address { topic: epochs_topic(), partition: 0, offset: at };
        let Stored { key, value } = self.read(&self.epochs, address)?;
        match wire::decode(&key, &value).map_err(|why| damaged(place(), why))? {
            EpochsRecord::Entry { entry, .. } if entry.record.epoch == epoch => {
                Ok(Some(Arc::new(*entry)))
            }
            _ => Err(damaged(place(), "it is another record")),
        }
    }

    fn entry_at(&self, t: LogTime) -> Result<Option<Arc<EpochEntry>>, LogError> {
        let epoch = self.view.state().fold.epoch_at(t);
        epoch.map_or(Ok(None), |epoch| self.entry(epoch))
    }

    fn block(&self, topic: TopicId, partition: u32, id: BlockId) -> Result<Arc<[u8]>, LogError> {
        let (place, first_kept) = {
            let state = self.view.state();
            (state.fold.block(topic, partition, id), state.fold.first_kept(topic))
        };
        let place = place.ok_or(LogError::MissingBlock { topic, partition, block: id })?;
        if place.epoch < first_kept {
            return Err(LogError::Cut { topic, first_kept });
        }
        let place = place.offset;
        let name = &self.topic(topic)?.name;
        let Stored { key, value } = self.read(name, Address { topic, partition, offset: place })?;
        if wire::block_of_key(&key) != Some(id) || wire::partition_of_key(&key) != partition {
            let place = format!("offset {place} of partition {partition} of {name}");
            return Err(damaged(place, format!("it does not hold block {id:?}")));
        }
        Ok(value)
    }

    fn next_offset(&self, topic: TopicId, partition: u32) -> u64 {
        self.view.state().fold.next_offset(topic, partition)
    }

    fn locate(
        &self,
        topic: TopicId,
        partition: u32,
        offset: u64,
    ) -> Result<Option<BlockLocation>, LogError> {
        let epoch = self.view.state().fold.locate(topic, partition, offset);
        let Some(entry) = epoch.map_or(Ok(None), |epoch| self.entry(epoch))? else {
            return Ok(None);
        };
        Ok(entry.partition(topic, partition).map(|part| BlockLocation {
            epoch: entry.record.epoch,
            t: entry.record.t,
            blocks: part.blocks.clone(),
            first_offset: part.first_offset,
            count: part.count,
        }))
    }

    fn producer(
        &self,
        producer: ProducerId,
        sequence: u64,
    ) -> Result<Option<ProducerOutcome>, LogError> {
        let epoch = self.view.state().fold.producer(producer, sequence);
        let Some(entry) = epoch.map_or(Ok(None), |epoch| self.entry(epoch))? else {
            return Ok(None);
        };
        let mut runs = entry.producers.iter();
        let run = runs.find(|run| run.producer == producer && run.covers(sequence));
        Ok(run.map(|run| ProducerOutcome {
            epoch: entry.record.epoch,
            t: entry.record.t,
            entry: *run,
        }))
    }

    fn last_sequence(&self, producer: ProducerId) -> Result<Option<u64>, LogError> {
        let epoch = self.view.state().fold.producer(producer, u64::MAX);
        let Some(entry) = epoch.map_or(Ok(None), |epoch| self.entry(epoch))? else {
            return Ok(None);
        };
        let runs = entry.producers.iter().filter(|run| run.producer == producer);
        Ok(runs.map(ProducerEntry::last_sequence).max())
    }

    fn cut(&self, topic: TopicId, first_kept: u64) -> Result<u64, LogError> {
        let doing = "cutting a topic";
        let (wanted, before, current) = {
            let state = self.view.state();
            let fold = &state.fold;
            (fold.cut_at(topic, first_kept), fold.first_kept(topic), fold.term())
        };
        if wanted == before {
            return Ok(before);
        }
        let term = match self.claimed.load(Ordering::SeqCst) {
            0 => current,
            claimed => claimed,
        };
        let at = self.send_epochs(wire::cut_key(term, topic, wanted), Arc::from([]), doing)?;
        self.folded_beyond(at, doing)?;
        let state = self.view.state();
        match state.fold.first_kept(topic) {
            kept if kept >= wanted => Ok(kept),
            _ => Err(LogError::Fenced { current: state.fold.term(), got: term }),
        }
    }

    fn first_kept(&self, topic: TopicId) -> u64 {
        self.view.state().fold.first_kept(topic)
    }

    fn wait_beyond(&self, epoch: Option<u64>, timeout: Duration) -> Option<u64> {
        let newest = |state: &State| state.fold.tail().map(|tail| tail.record.epoch);
        let deadline = Instant::now().checked_add(timeout);
        let found =
            self.view.wait_for(deadline, |state| newest(state).filter(|tail| Some(*tail) > epoch));
        found.or_else(|| newest(&self.view.state()))
    }
}
