//! [`RocksLog`]: the contract over the store, the acknowledgement and what is kept in memory.
//!
//! Does not know what is checked at open, nor RocksDB's settings.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use falaj_event::{LogTime, ProducerId, TopicId};
use falaj_log::contract::{check_continues, wait_until_grown};
use falaj_log::{BlockId, BlockLocation, EpochEntry, Log, LogError, ProducerOutcome, StagedBlock};
use rocksdb::WriteBatch;

use crate::check::{self, End, NextOffsets};
use crate::cut::{self, Cuts};
use crate::error::{StoreError, damaged, file};
use crate::keys::{self, OffsetRow, ProducerRow};
use crate::options::Options;
use crate::slots::Slots;
use crate::store::Store;

type BlockKey = (TopicId, u32, BlockId);

/// How many of the newest entries are kept decoded: readers mostly follow the tail.
const RECENT_ENTRIES: usize = 1024;
/// How often the mark of what is verified and in table files moves on, in epochs.
const MARK_EVERY: u64 = 1 << 14;

/// What readers may see.
struct Published {
    tail: Option<Arc<EpochEntry>>,
    /// The newest entries, ending with the tail.
    recent: VecDeque<Arc<EpochEntry>>,
    next_offsets: NextOffsets,
    cuts: Cuts,
}

/// The one writer's side.
struct Writer {
    staged: HashMap<BlockKey, Arc<[u8]>>,
    slots: Slots,
    /// An earlier commit failed: its outcome is unknown.
    failed: bool,
}

/// The embedded log. One process at a time; every method may be called from any thread.
pub struct RocksLog {
    store: Store,
    path: PathBuf,
    writer: Mutex<Writer>,
    published: Mutex<Published>,
    grown: Condvar,
    /// Held while a topic is cut.
    cutting: Mutex<()>,
    /// Held for as long as the log is open.
    _lock: File,
}

impl RocksLog {
    /// Opens the log in the directory `path`, or makes it there.
    ///
    /// # Errors
    /// [`LogError::Storage`] with [`StoreError::InUse`] when another process has it open;
    /// [`LogError::Truncated`] or [`LogError::Damaged`] when it is not what was written, naming the
    /// epoch or the file; nothing is changed on disk then.
    pub fn open(path: &Path, options: Options) -> Result<Self, LogError> {
        std::fs::create_dir_all(path).map_err(file("creating the log", path))?;
        let lock = lock(path)?;
        let (store_path, slots_path) = (path.join("store"), path.join("acknowledged"));
        let (store, slots, end) = if slots_path.exists() {
            reopen(&store_path, &slots_path, &options)?
        } else {
            create(&store_path, &slots_path, &options)?
        };
        let log = Self {
            store,
            path: path.to_owned(),
            published: Mutex::new(Published {
                recent: end.tail.iter().cloned().collect(),
                tail: end.tail,
                next_offsets: end.next_offsets,
                cuts: end.cuts,
            }),
            writer: Mutex::new(Writer { staged: HashMap::new(), slots, failed: false }),
            grown: Condvar::new(),
            cutting: Mutex::default(),
            _lock: lock,
        };
        // What a crash left of a cut.
        let cuts = log.published().cuts.clone();
        cuts.into_iter().try_for_each(|(topic, kept)| cut::sweep(&log.store, topic, kept))?;
        log.mark_verified()?;
        Ok(log)
    }

    /// The log's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves what is only in the write-ahead log into table files, for example before a copy.
    ///
    /// # Errors
    /// When storage fails; the log is as it was.
    pub fn flush(&self) -> Result<(), LogError> {
        self.store.flush()
    }

    fn published(&self) -> MutexGuard<'_, Published> {
        // Nothing panics while it holds the lock halfway through a change.
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers how far the chain is verified and in table files, so that the next open need not
    /// walk it from the beginning.
    fn mark_verified(&self) -> Result<(), LogError> {
        let Some(epoch) = self.store.flushed_epoch()? else { return Ok(()) };
        let mut batch = WriteBatch::default();
        batch.put_cf(self.store.family(keys::META)?, keys::VERIFIED_KEY, epoch.to_be_bytes());
        self.store.write(batch)
    }

    fn batch(&self, entry: &EpochEntry, blocks: &[Arc<[u8]>]) -> Result<WriteBatch, LogError> {
        let store = &self.store;
        let mut batch = WriteBatch::default();
        let (epoch, t) = (entry.record.epoch, entry.record.t);
        batch.put_cf(store.family(keys::EPOCHS)?, epoch.to_be_bytes(), entry.encode());
        batch.put_cf(store.family(keys::TIMES)?, t.0.to_be_bytes(), epoch.to_be_bytes());
        let (offsets, places) = (store.family(keys::OFFSETS)?, store.family(keys::PLACES)?);
        let (bodies, producers) = (store.family(keys::BLOCKS)?, store.family(keys::PRODUCERS)?);
        let mut bytes = blocks.iter().zip(0u32..);
        for part in &entry.partitions {
            let key = keys::offset_key(part.topic, part.partition, part.first_offset);
            let row = OffsetRow { epoch, count: part.count };
            batch.put_cf(offsets, key, row.encode());
            for (block, (body, ordinal)) in part.blocks.iter().zip(&mut bytes) {
                let place = keys::place(epoch, ordinal);
                batch.put_cf(places, keys::place_key(part.topic, part.partition, *block), place);
                batch.put_cf(bodies, keys::block_key(&place, *block), body);
            }
        }
        for run in &entry.producers {
            let row = ProducerRow { epoch, t, entry: *run };
            let key = keys::producer_key(run.producer, run.first_sequence);
            batch.put_cf(producers, key, row.encode());
        }
        Ok(batch)
    }

    fn publish(&self, entry: &EpochEntry) {
        let entry = Arc::new(entry.clone());
        let mut published = self.published();
        for part in &entry.partitions {
            published.next_offsets.insert((part.topic, part.partition), part.end_offset());
        }
        if published.recent.len() == RECENT_ENTRIES {
            published.recent.pop_front();
        }
        published.recent.push_back(Arc::clone(&entry));
        published.tail = Some(entry);
        self.grown.notify_all();
    }

    /// The newest epoch that readers may see.
    fn newest(&self) -> Option<u64> {
        self.published().tail.as_ref().map(|tail| tail.record.epoch)
    }

    /// A published entry, which therefore must be there.
    fn published_entry(&self, epoch: u64) -> Result<Arc<EpochEntry>, LogError> {
        self.entry(epoch)?
            .ok_or_else(|| damaged(format!("the entry of epoch {epoch}"), "it is missing"))
    }
}

fn lock(path: &Path) -> Result<File, LogError> {
    let name = path.join("lock");
    let opened = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&name)
        .map_err(file("locking the log", &name))?;
    match opened.try_lock() {
        Ok(()) => Ok(opened),
        Err(TryLockError::WouldBlock) => {
            Err(StoreError::InUse { path: path.to_owned() }.while_doing("locking the log"))
        }
        Err(TryLockError::Error(source)) => Err(file("locking the log", &name)(source)),
    }
}

fn refuse_unreadable(store_path: &Path) -> Result<(), LogError> {
    match falaj_rocks_files::unreadable(store_path) {
        Some(damage) => Err(damaged(damage.place, damage.why)),
        None => Ok(()),
    }
}

/// Opens a log that was made before: first without writing, to check it.
fn reopen(
    store_path: &Path,
    slots_path: &Path,
    options: &Options,
) -> Result<(Store, Slots, End), LogError> {
    let mut slots = Slots::open(slots_path, options.fsync)?;
    refuse_unreadable(store_path)?;
    let end = {
        let store = Store::read_only(store_path, options)?;
        check::check(&store, slots.newest(), options.verify)?
    };
    let store = Store::writable(store_path, options, false)?;
    let found = store.last(keys::EPOCHS)?.map(|(key, _)| key);
    let expected = end.tail.as_ref().map(|tail| tail.record.epoch.to_be_bytes().to_vec());
    if found != expected {
        let why = "opened for writing, it ends elsewhere than opened for reading";
        return Err(damaged(store_path.display().to_string(), why));
    }
    // A commit that crashed after its write and before its acknowledgement did happen.
    if end.acknowledged().epochs > slots.newest().epochs {
        slots.acknowledge(end.acknowledged())?;
    }
    Ok((store, slots, end))
}

/// Makes a log. The acknowledgement file comes last: without it, nothing was ever acknowledged.
fn create(
    store_path: &Path,
    slots_path: &Path,
    options: &Options,
) -> Result<(Store, Slots, End), LogError> {
    let lost =
        || damaged(slots_path.display().to_string(), "it is missing, although the log has data");
    let has_tables = std::fs::read_dir(store_path).is_ok_and(|mut files| {
        files.any(|file| file.is_ok_and(|file| file.path().extension().is_some_and(|e| e == "sst")))
    });
    if store_path.join("CURRENT").exists() {
        refuse_unreadable(store_path)?;
    } else if has_tables {
        // Without CURRENT, RocksDB would begin anew and delete them.
        return Err(lost());
    }
    let store = Store::writable(store_path, options, true)?;
    if store.last(keys::EPOCHS)?.is_some() {
        return Err(lost());
    }
    let mut batch = WriteBatch::default();
    let meta = store.family(keys::META)?;
    batch.put_cf(meta, keys::FORMAT_KEY, keys::FORMAT.to_be_bytes());
    store.write(batch)?;
    let slots = Slots::create(slots_path, options.fsync)?;
    Ok((store, slots, End::default()))
}

impl Log for RocksLog {
    fn append(&self, blocks: Vec<StagedBlock>) -> Result<(), LogError> {
        let mut writer = self.writer();
        for block in blocks {
            writer.staged.insert((block.topic, block.partition, block.id), block.bytes);
        }
        Ok(())
    }

    fn commit(&self, entry: &EpochEntry) -> Result<(), LogError> {
        let mut guard = self.writer();
        let writer = &mut *guard;
        if writer.failed {
            let path = self.path.clone();
            return Err(StoreError::Failed { path }.while_doing("committing"));
        }
        {
            let published = self.published();
            check_continues(entry, published.tail.as_deref(), |topic, partition| {
                published.next_offsets.get(&(topic, partition)).copied().unwrap_or(0)
            })?;
        }
        let mut blocks = Vec::new();
        for part in &entry.partitions {
            for block in &part.blocks {
                let (topic, partition) = (part.topic, part.partition);
                match writer.staged.get(&(topic, partition, *block)) {
                    Some(bytes) => blocks.push(Arc::clone(bytes)),
                    None => {
                        return Err(LogError::MissingBlock { topic, partition, block: *block });
                    }
                }
            }
        }
        let batch = self.batch(entry, &blocks)?;
        writer.failed = true;
        self.store.write(batch)?;
        let end = End { tail: Some(Arc::new(entry.clone())), ..End::default() };
        writer.slots.acknowledge(end.acknowledged())?;
        writer.failed = false;
        for part in &entry.partitions {
            for block in &part.blocks {
                writer.staged.remove(&(part.topic, part.partition, *block));
            }
        }
        self.publish(entry);
        if entry.record.epoch % MARK_EVERY == MARK_EVERY - 1 {
            // Only an optimisation of the next open, and this epoch is durable already.
            let _ = self.mark_verified();
        }
        Ok(())
    }

    fn tail(&self) -> Option<Arc<EpochEntry>> {
        self.published().tail.clone()
    }

    fn entry(&self, epoch: u64) -> Result<Option<Arc<EpochEntry>>, LogError> {
        {
            let published = self.published();
            let Some(newest) = published.tail.as_ref().map(|tail| tail.record.epoch) else {
                return Ok(None);
            };
            let Some(behind) = newest.checked_sub(epoch) else { return Ok(None) };
            let index = usize::try_from(behind)
                .ok()
                .and_then(|behind| published.recent.len().checked_sub(behind + 1));
            if let Some(entry) = index.and_then(|index| published.recent.get(index)) {
                return Ok(Some(Arc::clone(entry)));
            }
        }
        match self.store.entry(epoch)? {
            Some(entry) => Ok(Some(Arc::new(entry))),
            None => Err(damaged(format!("the entry of epoch {epoch}"), "it is missing")),
        }
    }

    fn entry_at(&self, t: LogTime) -> Result<Option<Arc<EpochEntry>>, LogError> {
        let Some(tail) = self.tail() else { return Ok(None) };
        if tail.record.t <= t {
            return Ok(Some(tail));
        }
        let Some(epoch) = self.store.epoch_at(t)? else { return Ok(None) };
        let entry = self.published_entry(epoch)?;
        if entry.record.t > t {
            let why = format!("epoch {epoch} has T {}, which is later", entry.record.t);
            return Err(damaged(format!("the times at T {t}"), why));
        }
        Ok(Some(entry))
    }

    fn block(&self, topic: TopicId, partition: u32, id: BlockId) -> Result<Arc<[u8]>, LogError> {
        let missing = LogError::MissingBlock { topic, partition, block: id };
        let Some(newest) = self.newest() else { return Err(missing) };
        let Some(place) = self.store.place(topic, partition, id, newest)? else {
            return Err(missing);
        };
        let body = self.store.body(&place, id)?;
        // Asked after the read: a block that was there is whole, one that is not may be cut by now.
        let first_kept = self.first_kept(topic);
        match body {
            _ if place.epoch < first_kept => Err(LogError::Cut { topic, first_kept }),
            Some(bytes) => Ok(Arc::from(bytes.as_ref())),
            None => Err(damaged(
                format!("block {id:?} of topic {topic:?} partition {partition}"),
                "its row in places names a row of blocks that is missing",
            )),
        }
    }

    fn next_offset(&self, topic: TopicId, partition: u32) -> u64 {
        self.published().next_offsets.get(&(topic, partition)).copied().unwrap_or(0)
    }

    fn locate(
        &self,
        topic: TopicId,
        partition: u32,
        offset: u64,
    ) -> Result<Option<BlockLocation>, LogError> {
        if offset >= self.next_offset(topic, partition) {
            return Ok(None);
        }
        let place = || format!("offset {offset} of topic {topic:?} partition {partition}");
        let (_, row) = self
            .store
            .offset_row(topic, partition, offset)?
            .ok_or_else(|| damaged(place(), "no epoch is known to have appended it"))?;
        let entry = self.published_entry(row.epoch)?;
        let covering = entry
            .partition(topic, partition)
            .filter(|part| (part.first_offset..part.end_offset()).contains(&offset));
        match covering {
            Some(part) => Ok(Some(BlockLocation {
                epoch: row.epoch,
                t: entry.record.t,
                blocks: part.blocks.clone(),
                first_offset: part.first_offset,
                count: part.count,
            })),
            None => {
                Err(damaged(place(), format!("the entry of epoch {} does not hold it", row.epoch)))
            }
        }
    }

    fn producer(
        &self,
        producer: ProducerId,
        sequence: u64,
    ) -> Result<Option<ProducerOutcome>, LogError> {
        let Some(newest) = self.newest() else { return Ok(None) };
        let row = self.store.producer_row(producer, sequence, newest)?;
        Ok(row.filter(|row| row.entry.covers(sequence)).map(|row| ProducerOutcome {
            epoch: row.epoch,
            t: row.t,
            entry: row.entry,
        }))
    }

    fn last_sequence(&self, producer: ProducerId) -> Result<Option<u64>, LogError> {
        let Some(newest) = self.newest() else { return Ok(None) };
        let row = self.store.producer_row(producer, u64::MAX, newest)?;
        Ok(row.map(|row| row.entry.last_sequence()))
    }

    fn cut(&self, topic: TopicId, first_kept: u64) -> Result<u64, LogError> {
        let _cutting = self.cutting.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.first_kept(topic);
        let first_kept = first_kept.min(self.newest().unwrap_or(0));
        if first_kept > before {
            cut::condemn(&self.store, topic, first_kept)?;
            self.published().cuts.insert(topic, first_kept);
            cut::sweep(&self.store, topic, first_kept)?;
        }
        Ok(first_kept.max(before))
    }

    fn first_kept(&self, topic: TopicId) -> u64 {
        self.published().cuts.get(&topic).copied().unwrap_or(0)
    }

    fn wait_beyond(&self, epoch: Option<u64>, timeout: Duration) -> Option<u64> {
        let newest = |published: &Published| published.tail.as_ref().map(|tail| tail.record.epoch);
        wait_until_grown(self.published(), &self.grown, newest, epoch, timeout)
    }
}

impl std::fmt::Debug for RocksLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksLog").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
