//! What state costs: bytes on disk and in memory, bytes per key, bytes of history per key per day.
//!
//! Does not know limits or whom to warn.

use falaj_event::{LogTime, ViewId};

use crate::error::ViewError;
use crate::format::{self, Family};
use crate::history::HistoryCursor;
use crate::store::ViewStore;

const DAY_US: f64 = 86_400e6;
const PARTITIONS: u16 = 256;

/// What one column family occupies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilySize {
    /// Which.
    pub family: Family,
    /// Bytes of live table files.
    pub disk_bytes: u64,
    /// Bytes of memtables.
    pub memory_bytes: u64,
    /// About how many entries there are.
    pub estimated_entries: u64,
}

/// What the store occupies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSizes {
    /// Per column family, in audit order.
    pub families: Vec<FamilySize>,
    /// Bytes of the block cache in use.
    pub cache_bytes: u64,
    /// Bytes that compactions still have to rewrite.
    pub pending_compaction_bytes: u64,
}

/// What one view stores, before compression, extrapolated from some logical partitions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ViewSize {
    /// Keys that have a row.
    pub keys: u64,
    /// Bytes of their keys and values in `latest`.
    pub latest_bytes: u64,
    /// Versions in `history`.
    pub versions: u64,
    /// Bytes of their keys and values.
    pub history_bytes: u64,
    /// The oldest and the newest `T` of any version seen.
    pub span: Option<(LogTime, LogTime)>,
}

impl ViewSize {
    /// Bytes of `latest` per key.
    pub fn latest_bytes_per_key(&self) -> f64 {
        ratio(self.latest_bytes, self.keys)
    }

    /// Bytes of `history` per key per day of `T`; 0 where history spans no time.
    pub fn history_bytes_per_key_day(&self) -> f64 {
        let days = self.span.map_or(0.0, |(oldest, newest)| (newest.0 - oldest.0) as f64 / DAY_US);
        if days > 0.0 { ratio(self.history_bytes, self.keys) / days } else { 0.0 }
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl ViewStore {
    /// What the store occupies; cheap.
    ///
    /// # Errors
    /// When RocksDB does not say.
    pub fn sizes(&self) -> Result<StoreSizes, ViewError> {
        use rocksdb::properties as p;
        let mut families = Vec::with_capacity(Family::ALL.len());
        let mut pending_compaction_bytes = 0;
        for family in Family::ALL {
            pending_compaction_bytes +=
                self.property(family, p::ESTIMATE_PENDING_COMPACTION_BYTES)?;
            families.push(FamilySize {
                family,
                disk_bytes: self.property(family, p::LIVE_SST_FILES_SIZE)?,
                memory_bytes: self.property(family, p::SIZE_ALL_MEM_TABLES)?,
                estimated_entries: self.property(family, p::ESTIMATE_NUM_KEYS)?,
            });
        }
        let cache_bytes = self.property(Family::Latest, p::BLOCK_CACHE_USAGE)?;
        Ok(StoreSizes { families, cache_bytes, pending_compaction_bytes })
    }

    /// What `view` stores, measured by reading `partitions` (1 to 256) of its logical partitions,
    /// evenly spread, and multiplied up.
    ///
    /// # Errors
    /// [`ViewError::UnknownView`], damage or a storage failure.
    pub fn view_size(&self, view: ViewId, partitions: u16) -> Result<ViewSize, ViewError> {
        let partitions = partitions.clamp(1, PARTITIONS);
        let snapshot = self.snapshot()?;
        self.view(view)?;
        let mut size =
            ViewSize { keys: 0, latest_bytes: 0, versions: 0, history_bytes: 0, span: None };
        let mut options = snapshot.read_options();
        options.fill_cache(false);
        let mut history = HistoryCursor::new(self, options)?;
        let mut options = snapshot.read_options();
        options.fill_cache(false);
        let mut latest = self.db.raw_iterator_cf_opt(self.family(Family::Latest)?, options);
        let mut head = Vec::new();
        for index in 0..partitions {
            let partition =
                (u32::from(index) * u32::from(PARTITIONS) / u32::from(partitions)).to_le_bytes()[0];
            format::head(partition, view, &mut head);
            latest.seek(&head);
            while let Some((key, value)) = latest.item().filter(|(key, _)| key.starts_with(&head)) {
                size.keys += 1;
                size.latest_bytes += (key.len() + value.len()) as u64;
                latest.next();
            }
            latest.status().map_err(|error| self.fault("measuring", error))?;
            measure_history(&mut history, partition, view, &mut size)?;
        }
        let scale = |n: u64| n * u64::from(PARTITIONS) / u64::from(partitions);
        size.keys = scale(size.keys);
        size.latest_bytes = scale(size.latest_bytes);
        size.versions = scale(size.versions);
        size.history_bytes = scale(size.history_bytes);
        Ok(size)
    }

    pub(crate) fn property(
        &self,
        family: Family,
        name: &rocksdb::properties::PropName,
    ) -> Result<u64, ViewError> {
        let value = self
            .db
            .property_int_value_cf(self.family(family)?, name)
            .map_err(|error| self.fault("measuring", error))?;
        Ok(value.unwrap_or(0))
    }
}

fn measure_history(
    history: &mut HistoryCursor<'_>,
    partition: u8,
    view: ViewId,
    size: &mut ViewSize,
) -> Result<(), ViewError> {
    let mut more = history.start(partition, view, None)?;
    while more {
        while let Some((t, value)) = history.version()? {
            let key = history.stored_key().map_or(0, <[u8]>::len);
            size.versions += 1;
            size.history_bytes += (key + value.len()) as u64;
            let (oldest, newest) = size.span.unwrap_or((t, t));
            size.span = Some((oldest.min(t), newest.max(t)));
            history.step();
        }
        more = history.next_key()?;
    }
    Ok(())
}
