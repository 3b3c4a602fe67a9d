//! What one epoch changes in views and operator state: the only thing that passes from the engine
//! to the view store.
//!
//! Does not know how changes are computed or stored.

use smallvec::SmallVec;

use crate::foretold;
use crate::ids::{EventTime, LogTime, ViewId};
use crate::packing::pack_row;

/// A key's canonical encoding; a string of 19 bytes or two integers lie in place.
pub type KeyBytes = SmallVec<[u8; 24]>;

/// One row of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewRow {
    /// The event time of the key's latest event; `ttl` counts from it.
    pub latest_event_time: EventTime,
    /// All output columns of the view in order (key columns too), in canonical encoding
    /// ([`crate::encoding`]).
    pub columns: Vec<u8>,
    /// What the passing of time alone will make of the columns ([`crate::foretold`]); empty where a
    /// row says so again whenever it changes.
    pub foretold: Vec<u8>,
}

impl ViewRow {
    /// The columns at `t`, which must be that of the row's epoch or a later one at which the row
    /// still stands; `None` where what is foretold is damaged.
    pub fn columns_at(&self, t: LogTime) -> Option<Vec<u8>> {
        if self.foretold.is_empty() {
            return Some(self.columns.clone());
        }
        let (mut packed, mut columns) = (Vec::new(), Vec::new());
        pack_row(&self.columns, &mut packed);
        let foretold = foretold::Foretold { bytes: &self.foretold, from: self.latest_event_time };
        foretold.apply(&packed, t, &mut columns)?;
        Some(columns)
    }
}

/// A row that an epoch set or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowChange {
    /// The view.
    pub view: ViewId,
    /// The canonical encoding of the view's key columns.
    pub key: KeyBytes,
    /// The new row; `None` when the key has no row any more.
    pub row: Option<ViewRow>,
}

/// A piece of operator state that changed since the last checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// The group key's logical partition followed by an operator-defined key.
    pub key: Vec<u8>,
    /// The new bytes; `None` when the entry is gone.
    pub value: Option<Vec<u8>>,
}

/// All that one epoch changes. Rows are at most one per (view, key); entries are sorted by
/// (view, key) and by state key, so equal logs give equal values whatever the workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochChanges {
    /// The epoch's number.
    pub epoch: u64,
    /// The epoch's `T`.
    pub t: LogTime,
    /// Changed rows.
    pub rows: Vec<RowChange>,
    /// Present at checkpoint epochs only: operator state that changed since the previous one.
    pub checkpoint: Option<Vec<StateChange>>,
}
