//! Walking the `latest` column family, and what a stored row is at some `T`.
//!
//! Does not know what is done with the rows found.

use falaj_event::foretold::Foretold;
use falaj_event::{LogTime, ViewId};

use crate::error::ViewError;
use crate::format::{self, Family, StoredRow};
use crate::read::{RowRef, Snapshot};

/// A stored row at `at`; its changed columns are put into `scratch`. `None` where it is damaged.
pub(crate) fn row_at<'r>(
    t: LogTime,
    row: StoredRow<'r>,
    at: LogTime,
    scratch: &'r mut Vec<u8>,
) -> Option<RowRef<'r>> {
    let StoredRow { latest_event_time, foretold, columns } = row;
    let foretold = Foretold { bytes: foretold, from: latest_event_time };
    let columns = match foretold.apply(columns, at, scratch)? {
        true => scratch,
        false => columns,
    };
    Some(RowRef { t, latest_event_time, columns })
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
