//! Cuts: which blocks are condemned, and their removal.
//!
//! Does not know why a topic is cut, nor who may still need it.

use std::collections::BTreeMap;

use falaj_event::TopicId;
use falaj_log::LogError;
use rocksdb::WriteBatch;

use crate::error::damaged;
use crate::keys;
use crate::store::Store;

/// The first epoch whose blocks are kept, of topics that were cut.
pub(crate) type Cuts = BTreeMap<TopicId, u64>;

/// Blocks that are deleted in one write.
const BLOCKS_PER_WRITE: usize = 1_024;

/// The cuts of a store.
pub(crate) fn read(store: &Store) -> Result<Cuts, LogError> {
    let prefix = b"cut.";
    let mut cuts = Cuts::new();
    let mut rows = store.iterator(keys::META, false)?;
    rows.iterator.seek(prefix);
    while let Some((key, value)) = rows.current()? {
        if !key.starts_with(prefix) {
            break;
        }
        let topic = keys::topic_at(key, prefix.len()).filter(|_| key.len() == prefix.len() + 16);
        match topic.zip(keys::number(value)) {
            Some((topic, first_kept)) => cuts.insert(topic, first_kept),
            None => return Err(damaged("the cuts", "a row has not the documented length")),
        };
        rows.iterator.next();
    }
    Ok(cuts)
}

/// Makes the cut a fact; nothing is removed yet.
pub(crate) fn condemn(store: &Store, topic: TopicId, first_kept: u64) -> Result<(), LogError> {
    mark(store, &keys::cut_key(topic), first_kept)
}

fn mark(store: &Store, key: &[u8], first_kept: u64) -> Result<(), LogError> {
    let mut batch = WriteBatch::default();
    batch.put_cf(store.family(keys::META)?, key, first_kept.to_be_bytes());
    store.write(batch)
}

/// Removes what is condemned of `topic` and not removed yet. Safe to repeat.
pub(crate) fn sweep(store: &Store, topic: TopicId, first_kept: u64) -> Result<(), LogError> {
    let swept = store.number(keys::META, &keys::swept_key(topic))?.unwrap_or(0);
    if swept >= first_kept {
        return Ok(());
    }
    let blocks = store.family(keys::BLOCKS)?;
    let mut batch = WriteBatch::default();
    for epoch in swept..first_kept {
        let missing = || damaged(format!("the entry of epoch {epoch}"), "it is missing");
        let entry = store.entry(epoch)?.ok_or_else(missing)?;
        let mut ordinal = 0;
        for part in &entry.partitions {
            for block in &part.blocks {
                if part.topic == topic {
                    batch.delete_cf(blocks, keys::block_key(&keys::place(epoch, ordinal), *block));
                }
                ordinal += 1;
            }
        }
        if batch.len() >= BLOCKS_PER_WRITE {
            store.write(std::mem::take(&mut batch))?;
        }
    }
    store.write(batch)?;
    mark(store, &keys::swept_key(topic), first_kept)?;
    store.reclaim(keys::BLOCKS, &swept.to_be_bytes(), &first_kept.to_be_bytes())
}
