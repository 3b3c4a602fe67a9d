//! The database: opening it, and typed reads of its column families. Everything read is decoded
//! and named when it does not fit.
//!
//! Does not know which epochs are published, nor what to check at open.

use std::path::{Path, PathBuf};

use falaj_event::{LogTime, ProducerId, TopicId};
use falaj_log::{BlockId, EpochEntry, LogError};
use rocksdb::{ColumnFamily, DB, DBPinnableSlice, DBRawIterator, WriteBatch};

use crate::error::{damaged, rocks};
use crate::keys::{self, OffsetRow, ProducerRow};
use crate::options::{self, Options};

/// A key and its value.
pub(crate) type Row<'a> = (&'a [u8], &'a [u8]);
/// A key and its value, kept.
pub(crate) type OwnedRow = (Vec<u8>, Vec<u8>);

/// A row of `places`.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    bytes: [u8; 12],
    /// The epoch that committed the block.
    pub(crate) epoch: u64,
}

pub(crate) struct Store {
    db: DB,
    path: PathBuf,
    write: rocksdb::WriteOptions,
}

impl Store {
    /// Opens without writing anything.
    pub(crate) fn read_only(path: &Path, options: &Options) -> Result<Self, LogError> {
        let db = DB::open_cf_descriptors_read_only(
            &options::database(options, false),
            path,
            options::families(options),
            false,
        )
        .map_err(rocks("reading the store", path))?;
        Ok(Self { db, path: path.to_owned(), write: options::write(options) })
    }

    /// Opens for appending.
    pub(crate) fn writable(path: &Path, options: &Options, create: bool) -> Result<Self, LogError> {
        let db = DB::open_cf_descriptors(
            &options::database(options, create),
            path,
            options::families(options),
        )
        .map_err(rocks("opening the store", path))?;
        Ok(Self { db, path: path.to_owned(), write: options::write(options) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn family(&self, name: &str) -> Result<&ColumnFamily, LogError> {
        self.db.cf_handle(name).ok_or_else(|| {
            damaged(self.path.display().to_string(), format!("column family {name} is missing"))
        })
    }

    pub(crate) fn write(&self, batch: WriteBatch) -> Result<(), LogError> {
        self.db.write_opt(batch, &self.write).map_err(rocks("committing", &self.path))
    }

    /// Moves everything from memory into table files.
    pub(crate) fn flush(&self) -> Result<(), LogError> {
        let families =
            keys::FAMILIES.iter().map(|name| self.family(name)).collect::<Result<Vec<_>, _>>()?;
        let mut wait = rocksdb::FlushOptions::default();
        wait.set_wait(true);
        self.db.flush_cfs_opt(&families, &wait).map_err(rocks("flushing", &self.path))
    }

    pub(crate) fn get(
        &self,
        family: &str,
        key: &[u8],
    ) -> Result<Option<DBPinnableSlice<'_>>, LogError> {
        self.db
            .get_pinned_cf_opt(self.family(family)?, key, &options::read(false))
            .map_err(rocks("reading", &self.path))
    }

    /// An iterator that is not positioned yet.
    pub(crate) fn iterator(&self, family: &str, scan: bool) -> Result<Rows<'_>, LogError> {
        let iterator = self.db.raw_iterator_cf_opt(self.family(family)?, options::read(scan));
        Ok(Rows { iterator, store: self })
    }

    /// The row at the greatest key `<= key`.
    pub(crate) fn at_or_before(
        &self,
        family: &str,
        key: &[u8],
    ) -> Result<Option<OwnedRow>, LogError> {
        let mut rows = self.iterator(family, false)?;
        rows.iterator.seek_for_prev(key);
        Ok(rows.current()?.map(|(key, value)| (key.to_vec(), value.to_vec())))
    }

    /// The last row.
    pub(crate) fn last(&self, family: &str) -> Result<Option<OwnedRow>, LogError> {
        let mut rows = self.iterator(family, false)?;
        rows.iterator.seek_to_last();
        Ok(rows.current()?.map(|(key, value)| (key.to_vec(), value.to_vec())))
    }

    pub(crate) fn number(&self, family: &str, key: &[u8]) -> Result<Option<u64>, LogError> {
        let Some(value) = self.get(family, key)? else { return Ok(None) };
        match keys::number(&value) {
            Some(number) => Ok(Some(number)),
            None => Err(damaged(format!("a row of {family}"), "its value is not a number")),
        }
    }

    pub(crate) fn entry(&self, epoch: u64) -> Result<Option<EpochEntry>, LogError> {
        match self.get(keys::EPOCHS, &epoch.to_be_bytes())? {
            Some(bytes) => decode_entry(epoch, &bytes).map(Some),
            None => Ok(None),
        }
    }

    /// Where the block lies, as a row of `places`, when an epoch `<= newest` names it.
    pub(crate) fn place(
        &self,
        topic: TopicId,
        partition: u32,
        id: BlockId,
        newest: u64,
    ) -> Result<Option<Place>, LogError> {
        let key = keys::place_key(topic, partition, id);
        let Some(place) = self.get(keys::PLACES, &key)? else { return Ok(None) };
        let bytes: [u8; 12] = place.as_ref().try_into().map_err(|_| {
            let named = format!("block {id:?} of topic {topic:?} partition {partition}");
            damaged(named, "its row in places has not 12 bytes")
        })?;
        let epoch = keys::u64_at(&bytes, 0).unwrap_or(u64::MAX);
        Ok((epoch <= newest).then_some(Place { bytes, epoch }))
    }

    /// The bytes of the block at a place.
    pub(crate) fn body(
        &self,
        place: &Place,
        id: BlockId,
    ) -> Result<Option<DBPinnableSlice<'_>>, LogError> {
        self.get(keys::BLOCKS, &keys::block_key(&place.bytes, id))
    }

    /// Gives back the space of deleted rows between two keys.
    pub(crate) fn reclaim(&self, family: &str, from: &[u8], to: &[u8]) -> Result<(), LogError> {
        self.db.compact_range_cf(self.family(family)?, Some(from), Some(to));
        Ok(())
    }

    /// What was appended at the greatest first offset `<= offset`.
    pub(crate) fn offset_row(
        &self,
        topic: TopicId,
        partition: u32,
        offset: u64,
    ) -> Result<Option<(u64, OffsetRow)>, LogError> {
        let key = keys::offset_key(topic, partition, offset);
        let prefix = keys::partition_prefix(topic, partition);
        let Some((key, value)) = self.at_or_before(keys::OFFSETS, &key)? else { return Ok(None) };
        if key.get(..prefix.len()) != Some(prefix.as_slice()) {
            return Ok(None);
        }
        let first = keys::u64_at(&key, prefix.len()).filter(|_| key.len() == 28);
        match first.zip(OffsetRow::decode(&value)) {
            Some(row) => Ok(Some(row)),
            None => Err(damaged(
                format!("the offsets of topic {topic:?} partition {partition}"),
                "a row has not the documented length",
            )),
        }
    }

    /// The producer's run with the greatest first sequence `<= sequence` of an epoch `<= newest`.
    pub(crate) fn producer_row(
        &self,
        producer: ProducerId,
        sequence: u64,
        newest: u64,
    ) -> Result<Option<ProducerRow>, LogError> {
        let mut rows = self.iterator(keys::PRODUCERS, false)?;
        rows.iterator.seek_for_prev(keys::producer_key(producer, sequence));
        while let Some((key, value)) = rows.current()? {
            if key.get(..16) != Some(producer.0.as_slice()) {
                return Ok(None);
            }
            let row = ProducerRow::decode(key, value).ok_or_else(|| {
                damaged(
                    format!("the sequences of producer {producer:?}"),
                    "a row has not the documented length",
                )
            })?;
            if row.epoch <= newest {
                return Ok(Some(row));
            }
            rows.iterator.prev();
        }
        Ok(None)
    }

    /// The newest epoch with `T <= t`, of whatever is stored.
    pub(crate) fn epoch_at(&self, t: LogTime) -> Result<Option<u64>, LogError> {
        let Some((key, value)) = self.at_or_before(keys::TIMES, &t.0.to_be_bytes())? else {
            return Ok(None);
        };
        match (key.len(), keys::number(&value)) {
            (8, Some(epoch)) => Ok(Some(epoch)),
            _ => Err(damaged(format!("the times at T {t}"), "a row has not the documented length")),
        }
    }

    /// The greatest epoch that is in table files, not only in the write-ahead log.
    pub(crate) fn flushed_epoch(&self) -> Result<Option<u64>, LogError> {
        let files = self.db.live_files().map_err(rocks("listing files", &self.path))?;
        Ok(files
            .iter()
            .filter(|file| file.column_family_name == keys::EPOCHS)
            .filter_map(|file| keys::number(file.end_key.as_deref()?))
            .max())
    }
}

/// Decodes an entry and checks that it is the one that was asked for.
pub(crate) fn decode_entry(epoch: u64, bytes: &[u8]) -> Result<EpochEntry, LogError> {
    let place = || format!("the entry of epoch {epoch}");
    let entry = EpochEntry::decode(bytes).map_err(|error| damaged(place(), error.to_string()))?;
    if entry.record.epoch != epoch {
        let why = format!("it is the entry of epoch {}", entry.record.epoch);
        return Err(damaged(place(), why));
    }
    Ok(entry)
}

/// Rows of one column family in key order.
pub(crate) struct Rows<'a> {
    pub(crate) iterator: DBRawIterator<'a>,
    store: &'a Store,
}

impl Rows<'_> {
    /// The row under the iterator; `None` at the end. Damage ends an iterator too, so every end is
    /// asked why.
    pub(crate) fn current(&self) -> Result<Option<Row<'_>>, LogError> {
        match self.iterator.item() {
            Some(row) => Ok(Some(row)),
            None => {
                self.iterator.status().map_err(rocks("reading", &self.store.path))?;
                Ok(None)
            }
        }
    }
}
