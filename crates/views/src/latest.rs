//! The `latest` column family: getting the rows of some keys, out of the row cache where they are
//! there, walking all of them, and what a stored row is at some `T`.
//!
//! Does not know what is done with the rows found.

use std::ops::Range;

use falaj_event::foretold::Foretold;
use falaj_event::{LogTime, ViewId};
use rocksdb::DBPinnableSlice;

use crate::error::ViewError;
use crate::format::{self, Family, HEAD_BYTES, StoredRow};
use crate::read::{RowRef, Snapshot};

/// A stored row at `at`; its columns are put into `scratch`. `None` where it is damaged.
pub(crate) fn row_at<'r>(
    t: LogTime,
    row: StoredRow<'r>,
    at: LogTime,
    scratch: &'r mut Vec<u8>,
) -> Option<RowRef<'r>> {
    let StoredRow { latest_event_time, foretold, columns } = row;
    let foretold = Foretold { bytes: foretold, from: latest_event_time };
    scratch.clear();
    foretold.apply(columns, at, scratch)?;
    Some(RowRef { t, latest_event_time, columns: scratch })
}

impl<'s> Snapshot<'s> {
    /// Hands the newest rows of `keys`, as they are at `at`, to `visit`; nothing for a key without a
    /// row or with one that was set after `at`.
    pub(crate) fn newest_at<K: AsRef<[u8]>>(
        &self,
        view: ViewId,
        keys: &[K],
        at: LogTime,
        mut visit: impl FnMut(usize, Option<RowRef<'_>>),
    ) -> Result<(), ViewError> {
        self.store().view(view)?;
        let cache = &self.store().row_cache;
        let length = |key: &K| HEAD_BYTES + key.as_ref().len();
        let mut names = Vec::with_capacity(keys.iter().map(length).sum());
        keys.iter().for_each(|key| format::push_latest_key(view, key.as_ref(), &mut names));
        let mut rest = names.as_slice();
        let (mut rows, mut missing) = (Vec::new(), Vec::new());
        let mut places: Vec<(&[u8], Option<Cached>)> = Vec::with_capacity(keys.len());
        for key in keys {
            let (name, others) = rest.split_at(length(key));
            rest = others;
            let start = rows.len();
            let t = cache.get(name, at, &mut rows);
            if t.is_none() {
                missing.push(name);
            }
            places.push((name, t.map(|t| Cached { t, row: start..rows.len() })));
        }
        let (mut values, mut scratch) = (self.values(&missing)?.into_iter(), Vec::new());
        for (index, (name, cached)) in places.into_iter().enumerate() {
            let value = if cached.is_none() { values.next().flatten() } else { None };
            let row = match (cached, value.as_deref()) {
                (Some(Cached { t, row }), _) => {
                    let row = format::split_history_value(&rows[row])
                        .and_then(|row| row_at(t, row, at, &mut scratch));
                    Some(row.ok_or_else(|| self.damaged_row(name))?)
                }
                (None, Some(value)) => {
                    if let (Some((t, _)), Some(read_at)) =
                        (format::split_latest_value(value), self.t())
                    {
                        cache.enter(name, t, &value[size_of::<LogTime>()..], read_at);
                    }
                    self.latest_row(name, value, at, &mut scratch)?
                }
                (None, None) => None,
            };
            visit(index, row);
        }
        Ok(())
    }

    /// What is stored under these names, in their order.
    fn values(&self, names: &[&[u8]]) -> Result<Vec<Option<DBPinnableSlice<'s>>>, ViewError> {
        let (store, options) = (self.store(), self.options());
        let latest = store.family(Family::Latest)?;
        let values = match names {
            [] => return Ok(Vec::new()),
            [name] => vec![store.db.get_pinned_cf_opt(latest, name, options)],
            _ => store.db.batched_multi_get_cf_opt(latest, names.iter().copied(), false, options),
        };
        let fault = |error| store.fault("reading rows", error);
        values.into_iter().map(|value| value.map_err(fault)).collect()
    }

    /// The row of a `latest` value at `at`; `None` where it was set after that.
    pub(crate) fn latest_row<'r>(
        &self,
        stored: &[u8],
        value: &'r [u8],
        at: LogTime,
        scratch: &'r mut Vec<u8>,
    ) -> Result<Option<RowRef<'r>>, ViewError> {
        let row = format::split_latest_value(value).and_then(|(t, row)| match t > at {
            true => Some(None),
            false => Some(Some(row_at(t, row, at, scratch)?)),
        });
        row.ok_or_else(|| self.damaged_row(stored))
    }

    pub(crate) fn damaged_row(&self, name: &[u8]) -> ViewError {
        self.store().damaged(Family::Latest, name, "the value is not a row")
    }
}

/// A row that the cache has: which epoch set it, and where its bytes are.
struct Cached {
    t: LogTime,
    row: Range<usize>,
}

/// Walks the newest rows of a view.
pub(crate) struct LatestCursor<'a, 's> {
    snapshot: &'a Snapshot<'s>,
    at: LogTime,
    scratch: Vec<u8>,
    iterator: rocksdb::DBRawIterator<'s>,
    head: Vec<u8>,
    seek: Vec<u8>,
}

impl<'a, 's> LatestCursor<'a, 's> {
    /// A cursor for rows at `at`.
    pub(crate) fn new(snapshot: &'a Snapshot<'s>, at: LogTime) -> Result<Self, ViewError> {
        let store = snapshot.store();
        let latest = store.family(Family::Latest)?;
        let iterator = store.db.raw_iterator_cf_opt(latest, snapshot.read_options());
        let (head, seek, scratch) = Default::default();
        Ok(Self { snapshot, at, scratch, iterator, head, seek })
    }

    /// Visits the rows of one partition, those after the key `after`, `limit` at most; returns how many
    /// there were.
    pub(crate) fn visit_partition(
        &mut self,
        view: ViewId,
        partition: u8,
        after: Option<&[u8]>,
        limit: usize,
        visit: &mut impl FnMut(&[u8], RowRef<'_>),
    ) -> Result<usize, ViewError> {
        if limit == 0 {
            return Ok(0);
        }
        format::head(partition, view, &mut self.head);
        self.seek.clone_from(&self.head);
        if let Some(after) = after {
            self.seek.extend_from_slice(after);
            self.seek.push(0);
        }
        self.iterator.seek(&self.seek);
        let mut count = 0;
        while let Some((stored, value)) = self.iterator.item() {
            let Some(key) = stored.strip_prefix(self.head.as_slice()) else { return Ok(count) };
            let scratch = &mut self.scratch;
            if let Some(row) = self.snapshot.latest_row(stored, value, self.at, scratch)? {
                visit(key, row);
                count += 1;
            }
            if count == limit {
                return Ok(count);
            }
            self.iterator.next();
        }
        let store = self.snapshot.store();
        self.iterator.status().map_err(|error| store.fault("reading rows", error))?;
        Ok(count)
    }
}
