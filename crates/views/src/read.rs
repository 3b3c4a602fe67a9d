//! Reading: a snapshot pins one `T` over all views; rows are got, listed and read as of the past.
//!
//! A row says what time will make of it, so a row is read at a `T`: the snapshot's, or that of an
//! earlier epoch. Which epochs there were is for the caller to know.
//!
//! Does not know schemas, `ttl` or who may read; it returns the bytes of rows and when they were set.

use std::fmt;

use falaj_event::packing::unpack_row;
use falaj_event::{EventTime, LogTime, ViewId, ViewRow};
use rocksdb::ReadOptions;

use crate::error::ViewError;
use crate::format::{self, Family, HEAD_BYTES};
use crate::history::HistoryCursor;
use crate::latest::{LatestCursor, row_at};
use crate::store::{Progress, ViewMeta, ViewStore};

/// A row, borrowed from the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowRef<'r> {
    /// The `T` of the epoch that set the row.
    pub t: LogTime,
    /// The event time of the key's latest event.
    pub latest_event_time: EventTime,
    /// All output columns, canonical encoding.
    pub columns: &'r [u8],
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowRead {
    /// The `T` of the epoch that set the row.
    pub t: LogTime,
    /// The event time of the key's latest event.
    pub latest_event_time: EventTime,
    /// All output columns, canonical encoding.
    pub columns: Vec<u8>,
}

impl RowRef<'_> {
    /// The row with bytes of its own.
    pub fn to_owned(self) -> RowRead {
        RowRead {
            t: self.t,
            latest_event_time: self.latest_event_time,
            columns: self.columns.to_vec(),
        }
    }
}

impl RowRead {
    /// The row, borrowed.
    pub fn borrowed(&self) -> RowRef<'_> {
        RowRef { t: self.t, latest_event_time: self.latest_event_time, columns: &self.columns }
    }
}

/// A row of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanRow {
    /// The canonical encoding of the view's key columns.
    pub key: Vec<u8>,
    /// The row.
    pub row: RowRead,
}

/// What became of a key at some `T`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The `T` of the epoch that set or removed the row.
    pub t: LogTime,
    /// The row; `None` when it was removed.
    pub row: Option<RowRead>,
}

/// All views at one `T`. Cheap to take; holds old versions of entries for as long as it lives.
pub struct Snapshot<'s> {
    store: &'s ViewStore,
    pinned: rocksdb::Snapshot<'s>,
    options: ReadOptions,
    progress: Option<Progress>,
}

impl fmt::Debug for Snapshot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("progress", &self.progress).finish_non_exhaustive()
    }
}

impl<'s> Snapshot<'s> {
    pub(crate) fn new(store: &'s ViewStore) -> Result<Self, ViewError> {
        let pinned = store.db.snapshot();
        let mut options = ReadOptions::default();
        options.set_snapshot(&pinned);
        let progress = store.progress_entry(format::KEY_ROWS, &options)?;
        Ok(Self { store, pinned, options, progress })
    }

    /// The epoch that is read; `None` before the first one.
    pub fn progress(&self) -> Option<Progress> {
        self.progress
    }

    /// `T_r`, the `T` that is read; `None` before the first epoch.
    pub fn t(&self) -> Option<LogTime> {
        self.progress.map(|progress| progress.t)
    }

    /// The oldest `T` as of which `view` can be read here.
    ///
    /// # Errors
    /// [`ViewError::UnknownView`].
    pub fn oldest(&self, view: ViewId) -> Result<LogTime, ViewError> {
        let view = self.store.view(view)?;
        Ok(self.oldest_of(view))
    }

    fn oldest_of(&self, view: &ViewMeta) -> LogTime {
        LogTime(self.t().unwrap_or_default().0.saturating_sub(view.retain_us))
    }

    /// The row of `key`, or `None` when it has none.
    ///
    /// # Errors
    /// [`ViewError::UnknownView`], damage or a storage failure.
    pub fn get(&self, view: ViewId, key: &[u8]) -> Result<Option<RowRead>, ViewError> {
        let mut found = None;
        self.multi_get_with(view, &[key], |_, row| found = row.map(RowRef::to_owned))?;
        Ok(found)
    }

    /// The row of `key` as it was set, with what is foretold of it: what a replay goes on from.
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub fn stored(&self, view: ViewId, key: &[u8]) -> Result<Option<ViewRow>, ViewError> {
        self.store.view(view)?;
        let latest = self.store.family(Family::Latest)?;
        let mut stored = Vec::with_capacity(HEAD_BYTES + key.len());
        format::push_latest_key(view, key, &mut stored);
        let value = self
            .store
            .db
            .get_pinned_cf_opt(latest, &stored, &self.options)
            .map_err(|error| self.store.fault("reading rows", error))?;
        let Some(value) = value else { return Ok(None) };
        let mut columns = Vec::new();
        let row = format::split_latest_value(&value)
            .and_then(|(_, row)| unpack_row(row.columns, &mut columns).map(|()| row))
            .ok_or_else(|| self.damaged_row(&stored))?;
        let foretold = row.foretold.to_vec();
        Ok(Some(ViewRow { latest_event_time: row.latest_event_time, columns, foretold }))
    }

    /// The rows of `keys`, in the order of `keys`.
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub fn multi_get<K: AsRef<[u8]>>(
        &self,
        view: ViewId,
        keys: &[K],
    ) -> Result<Vec<Option<RowRead>>, ViewError> {
        let mut rows = Vec::with_capacity(keys.len());
        self.multi_get_with(view, keys, |_, row| rows.push(row.map(RowRef::to_owned)))?;
        Ok(rows)
    }

    /// Hands the rows of `keys`, with their positions and in the order of `keys`, to `visit`
    /// without copying them.
    ///
    /// # Errors
    /// As [`Snapshot::get`]; `visit` may have been called for some keys.
    pub fn multi_get_with<K: AsRef<[u8]>>(
        &self,
        view: ViewId,
        keys: &[K],
        visit: impl FnMut(usize, Option<RowRef<'_>>),
    ) -> Result<(), ViewError> {
        self.newest_at(view, keys, self.t().unwrap_or_default(), visit)
    }

    /// The row of a `history` value that was set at `t`, at `at`; `None` for a removal.
    fn history_row<'r>(
        &self,
        t: LogTime,
        stored: &[u8],
        value: &'r [u8],
        at: LogTime,
        scratch: &'r mut Vec<u8>,
    ) -> Result<Option<RowRef<'r>>, ViewError> {
        if value.is_empty() {
            return Ok(None);
        }
        let row = format::split_history_value(value).and_then(|row| row_at(t, row, at, scratch));
        let row = row
            .ok_or_else(|| self.store.damaged(Family::History, stored, "the value is not a row"))?;
        Ok(Some(row))
    }

    /// The row that `key` had at `t`, which must be an epoch's `T`: between two epochs no event
    /// leaves a window, but a row cannot tell where epochs are.
    ///
    /// # Errors
    /// [`ViewError::NotYet`] when `t` is beyond this snapshot, [`ViewError::NotRetained`] when it is
    /// older than the view's `retain`; and as [`Snapshot::get`].
    pub fn get_as_of(
        &self,
        view: ViewId,
        key: &[u8],
        t: LogTime,
    ) -> Result<Option<RowRead>, ViewError> {
        Ok(self.multi_get_as_of(view, &[key], t)?.pop().flatten())
    }

    /// The rows that `keys` had at `t`, an epoch's `T`, in the order of `keys`.
    ///
    /// # Errors
    /// As [`Snapshot::get_as_of`].
    pub fn multi_get_as_of<K: AsRef<[u8]>>(
        &self,
        view: ViewId,
        keys: &[K],
        t: LogTime,
    ) -> Result<Vec<Option<RowRead>>, ViewError> {
        let is_newest = self.check_as_of(view, t)?;
        let mut rows = Vec::with_capacity(keys.len());
        let mut older = Vec::new();
        // A newest row that is old enough is the answer; only the others need history.
        self.newest_at(view, keys, t, |index, row| match row {
            Some(row) => rows.push(Some(row.to_owned())),
            None => {
                rows.push(None);
                older.push(index);
            }
        })?;
        if is_newest || older.is_empty() {
            return Ok(rows);
        }
        let mut options = self.read_options();
        options.set_prefix_same_as_start(true);
        let history = self.store.family(Family::History)?;
        let mut iterator = self.store.db.raw_iterator_cf_opt(history, options);
        let (mut seek, mut scratch) = (Vec::new(), Vec::new());
        for index in older {
            seek.clear();
            format::push_latest_key(view, keys[index].as_ref(), &mut seek);
            let name = seek.len();
            format::push_time(t, &mut seek);
            iterator.seek(&seek);
            iterator.status().map_err(|error| self.store.fault("reading history", error))?;
            let Some((stored, value)) = iterator.item() else { continue };
            if let Some((found, at)) = format::split_history_key(stored)
                && found == &seek[..name]
            {
                let row = self.history_row(at, stored, value, t, &mut scratch)?;
                rows[index] = row.map(RowRef::to_owned);
            }
        }
        Ok(rows)
    }

    /// Rows of `view`, now or as of `as_of` (an epoch's `T`), in the order of (logical partition, key), beginning
    /// after the key `after` (at the first one without it), `limit` at most. To go on, pass the last
    /// key received.
    ///
    /// # Errors
    /// As [`Snapshot::get_as_of`].
    pub fn scan(
        &self,
        view: ViewId,
        as_of: Option<LogTime>,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<ScanRow>, ViewError> {
        let mut rows = Vec::new();
        self.scan_with(view, as_of, after, limit, |key, row| {
            rows.push(ScanRow { key: key.to_vec(), row: row.to_owned() });
        })?;
        Ok(rows)
    }

    /// As [`Snapshot::scan`], handing keys and rows to `visit` without copying them; returns how many
    /// there were.
    ///
    /// # Errors
    /// As [`Snapshot::get_as_of`]; `visit` may have been called.
    pub fn scan_with(
        &self,
        view: ViewId,
        as_of: Option<LogTime>,
        after: Option<&[u8]>,
        limit: usize,
        mut visit: impl FnMut(&[u8], RowRef<'_>),
    ) -> Result<usize, ViewError> {
        let is_newest = match as_of {
            Some(t) => self.check_as_of(view, t)?,
            None => self.store.view(view).map(|_| true)?,
        };
        let first = after.map_or(0, falaj_event::logical_partition);
        let mut count = 0;
        if is_newest {
            let mut cursor = LatestCursor::new(self, as_of.or(self.t()).unwrap_or_default())?;
            for partition in first..=u8::MAX {
                let after = after.filter(|_| partition == first);
                let left = limit - count;
                count += cursor.visit_partition(view, partition, after, left, &mut visit)?;
            }
        } else {
            let t = as_of.unwrap_or_default();
            let mut cursor = HistoryCursor::new(self.store, self.read_options())?;
            for partition in first..=u8::MAX {
                let after = after.filter(|_| partition == first);
                let mut more = count < limit && cursor.start(partition, view, after)?;
                while more {
                    count += usize::from(self.visit_version(&mut cursor, t, &mut visit)?);
                    more = count < limit && cursor.next_key()?;
                }
            }
        }
        Ok(count)
    }

    /// Visits the version of the cursor's key at `t`; false when it had no row.
    fn visit_version(
        &self,
        cursor: &mut HistoryCursor<'_>,
        t: LogTime,
        visit: &mut impl FnMut(&[u8], RowRef<'_>),
    ) -> Result<bool, ViewError> {
        if !cursor.descend_to(t)? {
            return Ok(false);
        }
        let Some((at, value)) = cursor.version()? else { return Ok(false) };
        let mut scratch = Vec::new();
        let row = self.history_row(at, cursor.key(), value, t, &mut scratch)?;
        if let Some(row) = row {
            visit(cursor.key(), row);
        }
        Ok(row.is_some())
    }

    /// All versions of `key` that a read as of any retained `T` up to `t` can meet, newest first, each
    /// as it was when it was set.
    ///
    /// # Errors
    /// As [`Snapshot::get_as_of`].
    pub fn versions(
        &self,
        view: ViewId,
        key: &[u8],
        t: LogTime,
    ) -> Result<Vec<Version>, ViewError> {
        self.check_as_of(view, t)?;
        let oldest = self.oldest(view)?;
        let mut options = self.read_options();
        options.set_prefix_same_as_start(true);
        let history = self.store.family(Family::History)?;
        let mut iterator = self.store.db.raw_iterator_cf_opt(history, options);
        let mut seek = Vec::new();
        format::push_latest_key(view, key, &mut seek);
        let name = seek.len();
        format::push_time(t, &mut seek);
        iterator.seek(&seek);
        let (mut versions, mut scratch) = (Vec::new(), Vec::new());
        while let Some((stored, value)) = iterator.item() {
            match format::split_history_key(stored) {
                Some((found, at)) if found == &seek[..name] => {
                    let row = self.history_row(at, stored, value, at, &mut scratch)?;
                    let row = row.map(RowRef::to_owned);
                    versions.push(Version { t: at, row });
                    if at <= oldest {
                        break;
                    }
                }
                _ => break,
            }
            iterator.next();
        }
        iterator.status().map_err(|error| self.store.fault("reading history", error))?;
        Ok(versions)
    }

    /// Whether `t` is this snapshot's own `T`; refuses what cannot be read.
    fn check_as_of(&self, view: ViewId, t: LogTime) -> Result<bool, ViewError> {
        let view = self.store.view(view)?;
        if self.t().is_none_or(|newest| t > newest) {
            return Err(ViewError::NotYet { asked: t, progress: self.progress });
        }
        let oldest = self.oldest_of(view);
        if t < oldest {
            return Err(ViewError::NotRetained { view: view.name.clone(), asked: t, oldest });
        }
        Ok(self.t() == Some(t))
    }

    /// Options of another reader of this snapshot.
    pub(crate) fn read_options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.pinned);
        options
    }

    pub(crate) fn options(&self) -> &ReadOptions {
        &self.options
    }

    pub(crate) fn store(&self) -> &'s ViewStore {
        self.store
    }
}
