//! What is verified before a log is opened.
//!
//! Does not know how it is opened or appended to; sees a store and the acknowledgement.

use std::collections::HashMap;
use std::sync::Arc;

use falaj_event::{Hash256, LogTime, TopicId};
use falaj_log::{EpochEntry, LogError, PartitionEntry};

use crate::cut::{self, Cuts};
use crate::error::{StoreError, damaged};
use crate::keys::{self, OffsetRow, ProducerRow};
use crate::options::Verify;
use crate::slots::Acknowledged;
use crate::store::{Store, decode_entry};

pub(crate) type NextOffsets = HashMap<(TopicId, u32), u64>;

/// What a verified log ends with.
#[derive(Default)]
pub(crate) struct End {
    pub(crate) tail: Option<Arc<EpochEntry>>,
    pub(crate) next_offsets: NextOffsets,
    pub(crate) cuts: Cuts,
}

impl End {
    pub(crate) fn acknowledged(&self) -> Acknowledged {
        self.tail.as_ref().map_or_else(Acknowledged::default, |tail| Acknowledged {
            epochs: tail.record.epoch + 1,
            t: tail.record.t,
            record: tail.record.hash(),
        })
    }
}

/// Verifies `store` as far as `verify` says and finds its end.
pub(crate) fn check(
    store: &Store,
    acknowledged: &Acknowledged,
    verify: Verify,
) -> Result<End, LogError> {
    format(store)?;
    let tail = tail(store)?;
    against_acknowledged(store, tail.as_ref(), acknowledged)?;
    let Some(tail) = tail else {
        return empty(store).map(|()| End::default());
    };
    let newest = tail.record.epoch;
    let cuts = cuts(store, newest)?;
    let next_offsets = match verify {
        Verify::Tail => {
            let from = store.number(keys::META, keys::VERIFIED_KEY)?.unwrap_or(0).min(newest);
            chain(store, from, newest, |_| Ok(()))?;
            newest_offsets(store, newest)?
        }
        Verify::Full => everything(store, newest, &cuts)?,
    };
    Ok(End { tail: Some(Arc::new(tail)), next_offsets, cuts })
}

fn cuts(store: &Store, newest: u64) -> Result<Cuts, LogError> {
    let cuts = cut::read(store)?;
    match cuts.iter().find(|(_, first_kept)| **first_kept > newest) {
        None => Ok(cuts),
        Some((topic, first_kept)) => Err(damaged(
            format!("the cut of topic {topic:?}"),
            format!("it keeps epochs from {first_kept} on, but the newest is {newest}"),
        )),
    }
}

fn format(store: &Store) -> Result<(), LogError> {
    let place = || falaj_rocks_files::described(store.path());
    let stored = store.get(keys::META, keys::FORMAT_KEY)?;
    let found = stored
        .as_deref()
        .filter(|value| value.len() == 4)
        .and_then(|value| keys::u32_at(value, 0))
        .ok_or_else(|| damaged(place(), "its format version is missing"))?;
    if found == keys::FORMAT {
        return Ok(());
    }
    let path = store.path().to_owned();
    Err(StoreError::Version { path, found, supported: keys::FORMAT }.while_doing("opening"))
}

fn tail(store: &Store) -> Result<Option<EpochEntry>, LogError> {
    let Some((key, value)) = store.last(keys::EPOCHS)? else { return Ok(None) };
    let epoch = keys::number(&key)
        .ok_or_else(|| damaged("the last key of epochs", "it is not a number"))?;
    decode_entry(epoch, &value).map(Some)
}

fn against_acknowledged(
    store: &Store,
    tail: Option<&EpochEntry>,
    acknowledged: &Acknowledged,
) -> Result<(), LogError> {
    let Some(epoch) = acknowledged.epochs.checked_sub(1) else { return Ok(()) };
    let found = tail.map(|tail| tail.record.epoch);
    if found.is_none_or(|found| found < epoch) {
        return Err(LogError::Truncated { found, acknowledged: epoch, t: acknowledged.t });
    }
    let entry = store.entry(epoch)?;
    let hash = entry.map(|entry| entry.record.hash());
    if hash == Some(acknowledged.record) {
        return Ok(());
    }
    Err(damaged(
        format!("the entry of epoch {epoch}"),
        "it is missing or its record is not the acknowledged one",
    ))
}

/// A log without entries has no rows at all.
fn empty(store: &Store) -> Result<(), LogError> {
    for family in keys::FAMILIES.into_iter().filter(|family| *family != keys::META) {
        if store.last(family)?.is_some() {
            return Err(damaged(
                format!("column family {family}"),
                "it has rows, but there is no epoch entry: the log's entries are lost",
            ));
        }
    }
    Ok(())
}

/// Walks the entries `from..=newest` in order: dense, chained by hash, `T` rising, terms not falling.
fn chain(
    store: &Store,
    from: u64,
    newest: u64,
    mut visit: impl FnMut(&EpochEntry) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let mut rows = store.iterator(keys::EPOCHS, true)?;
    rows.iterator.seek(from.to_be_bytes());
    let mut previous: Option<EpochEntry> = None;
    for expected in from..=newest {
        let missing = || damaged(format!("the entry of epoch {expected}"), "it is missing");
        let (key, value) = rows.current()?.ok_or_else(missing)?;
        if key != expected.to_be_bytes() {
            return Err(missing());
        }
        let entry = decode_entry(expected, value)?;
        follows(&entry, previous.as_ref())?;
        visit(&entry)?;
        previous = Some(entry);
        rows.iterator.next();
    }
    match rows.current()? {
        None => Ok(()),
        Some(_) => Err(damaged("column family epochs", "it has rows beyond the last entry")),
    }
}

fn follows(entry: &EpochEntry, previous: Option<&EpochEntry>) -> Result<(), LogError> {
    let record = &entry.record;
    let wrong = match previous.map(|previous| &previous.record) {
        None if record.epoch == 0 && record.previous != Hash256::default() => {
            Some("it is the first epoch but names a predecessor")
        }
        None => None,
        Some(before) if record.previous != before.hash() => {
            Some("it does not name the hash of the entry before it")
        }
        Some(before) if record.t <= before.t => Some("its T is not above the one before it"),
        Some(before) if record.term < before.term => Some("its term is below the one before it"),
        Some(_) => None,
    };
    match wrong {
        None => Ok(()),
        Some(why) => Err(damaged(format!("the entry of epoch {}", record.epoch), why)),
    }
}

/// The end of every partition, from the offsets index, each checked against its entry.
fn newest_offsets(store: &Store, newest: u64) -> Result<NextOffsets, LogError> {
    let mut ends = NextOffsets::new();
    let mut rows = store.iterator(keys::OFFSETS, false)?;
    rows.iterator.seek_to_first();
    while let Some((key, _)) = rows.current()? {
        let Some((topic, partition)) = keys::topic_at(key, 0).zip(keys::u32_at(key, 16)) else {
            return Err(damaged("column family offsets", "a key has not the documented length"));
        };
        let place = || format!("the offsets of topic {topic:?} partition {partition}");
        let (first, row) = store
            .offset_row(topic, partition, u64::MAX)?
            .ok_or_else(|| damaged(place(), "its last row cannot be found"))?;
        if row.epoch > newest {
            return Err(damaged(place(), format!("they name epoch {}, which is lost", row.epoch)));
        }
        let entry = store.entry(row.epoch)?;
        let part = entry.as_ref().and_then(|entry| entry.partition(topic, partition));
        match part.filter(|part| part.first_offset == first && part.count == row.count) {
            Some(part) => ends.insert((topic, partition), part.end_offset()),
            None => return Err(damaged(place(), "the last row does not match its epoch's entry")),
        };
        rows.iterator.seek(keys::offset_key(topic, partition, u64::MAX));
        if rows
            .current()?
            .is_some_and(|(key, _)| key == keys::offset_key(topic, partition, u64::MAX))
        {
            rows.iterator.next();
        }
    }
    Ok(ends)
}

/// Rows that the entries say must exist, per index.
#[derive(Default)]
struct Expected {
    times: u64,
    offsets: u64,
    places: u64,
    /// Without those that a cut has removed already.
    blocks: u64,
    producers: u64,
}

/// Reads every byte: the whole chain, every block, and both directions of every index.
fn everything(store: &Store, newest: u64, cuts: &Cuts) -> Result<NextOffsets, LogError> {
    let mut ends = NextOffsets::new();
    let mut expected = Expected::default();
    chain(store, 0, newest, |entry| {
        let (epoch, t) = (entry.record.epoch, entry.record.t);
        if store.number(keys::TIMES, &t.0.to_be_bytes())? != Some(epoch) {
            return Err(damaged(
                format!("the times at T {t}"),
                format!("epoch {epoch} is missing"),
            ));
        }
        expected.times += 1;
        let mut ordinal = 0;
        for part in &entry.partitions {
            let is_cut = cuts.get(&part.topic).is_some_and(|first_kept| epoch < *first_kept);
            let found = partition(store, epoch, part, is_cut, &mut ordinal)?;
            continues(epoch, part, &mut ends)?;
            expected.offsets += 1;
            expected.blocks += found;
        }
        expected.places += u64::from(ordinal);
        expected.producers += entry.producers.len() as u64;
        producers(store, epoch, t, entry)
    })?;
    for (family, rows) in [
        (keys::TIMES, expected.times),
        (keys::OFFSETS, expected.offsets),
        (keys::PLACES, expected.places),
        (keys::BLOCKS, expected.blocks),
        (keys::PRODUCERS, expected.producers),
    ] {
        count(store, family, rows)?;
    }
    Ok(ends)
}

fn place_of(epoch: u64, part: &PartitionEntry) -> String {
    format!("epoch {epoch}, topic {:?} partition {}", part.topic, part.partition)
}

/// Offsets of a partition are dense.
fn continues(epoch: u64, part: &PartitionEntry, ends: &mut NextOffsets) -> Result<(), LogError> {
    let next = ends.entry((part.topic, part.partition)).or_default();
    if part.first_offset != *next {
        let why = format!("it begins at offset {}, not {next}", part.first_offset);
        return Err(damaged(place_of(epoch, part), why));
    }
    *next = part.end_offset();
    Ok(())
}

/// Checks the rows of what an epoch appended to a partition; returns how many of its blocks are
/// there, which is all of them unless they are cut.
fn partition(
    store: &Store,
    epoch: u64,
    part: &PartitionEntry,
    is_cut: bool,
    ordinal: &mut u32,
) -> Result<u64, LogError> {
    let (topic, partition) = (part.topic, part.partition);
    let key = keys::offset_key(topic, partition, part.first_offset);
    let row = OffsetRow { epoch, count: part.count };
    if store.get(keys::OFFSETS, &key)?.as_deref() != Some(row.encode().as_slice()) {
        return Err(damaged(place_of(epoch, part), "its row in offsets is missing or wrong"));
    }
    let mut found = 0;
    for block in &part.blocks {
        let key = keys::place_key(topic, partition, *block);
        let row = keys::place(epoch, *ordinal);
        if store.get(keys::PLACES, &key)?.as_deref() != Some(row.as_slice()) {
            let why = format!("block {block:?} is missing in places");
            return Err(damaged(place_of(epoch, part), why));
        }
        match store.get(keys::BLOCKS, &keys::block_key(&row, *block))? {
            Some(_) => found += 1,
            None if is_cut => {}
            None => {
                let named = format!("block {block:?} of topic {topic:?} partition {partition}");
                let why = "its row in places names a row of blocks that is missing";
                return Err(damaged(named, why));
            }
        }
        *ordinal += 1;
    }
    Ok(found)
}

fn producers(store: &Store, epoch: u64, t: LogTime, entry: &EpochEntry) -> Result<(), LogError> {
    for run in &entry.producers {
        let key = keys::producer_key(run.producer, run.first_sequence);
        let row = ProducerRow { epoch, t, entry: *run };
        if store.get(keys::PRODUCERS, &key)?.as_deref() != Some(row.encode().as_slice()) {
            return Err(damaged(
                format!("the sequences of producer {:?}", run.producer),
                format!("sequence {} of epoch {epoch} is missing or wrong", run.first_sequence),
            ));
        }
    }
    Ok(())
}

fn count(store: &Store, family: &str, expected: u64) -> Result<(), LogError> {
    let mut rows = store.iterator(family, true)?;
    rows.iterator.seek_to_first();
    let mut found = 0;
    while rows.current()?.is_some() {
        found += 1;
        rows.iterator.next();
    }
    if found == expected {
        return Ok(());
    }
    Err(damaged(
        format!("column family {family}"),
        format!("it has {found} rows where the entries name {expected}"),
    ))
}
