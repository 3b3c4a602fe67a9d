//! What one epoch changes in views and operator state: the only thing that passes from the engine
//! to the view store.
//!
//! Does not know how changes are computed or stored.

use crate::ids::{EventTime, LogTime, ViewId};

/// One row of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewRow {
    /// The event time of the key's latest event; `ttl` counts from it.
    pub latest_event_time: EventTime,
    /// All output columns of the view in order (key columns too), in canonical encoding
    /// ([`crate::encoding`]).
    pub columns: Vec<u8>,
}

/// A row that an epoch set or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowChange {
    /// The view.
    pub view: ViewId,
    /// The canonical encoding of the view's key columns.
    pub key: Vec<u8>,
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
