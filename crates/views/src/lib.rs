//! Materialised views and operator state in RocksDB: what the engine computes, kept so that it can
//! be read at the newest `T`, read as of an older one, resumed from, and proved equal to a rebuild.
//!
//! Why it exists: the one owner of `state/`. The log is the truth, so nothing here is durable by
//! itself: there is no write-ahead log, all column families are flushed atomically, and after a
//! crash the store is the exact image of some earlier epoch from which the engine catches up.
//!
//! It does not know how rows are computed, what their columns mean, where the log is, or who reads.
//!
//! * [`ViewStore::apply`] writes one epoch as one atomic batch; replayed epochs are skipped.
//! * [`ViewStore::snapshot`] pins one `T` over all views; [`Snapshot`] reads at it.
//! * [`ViewStore::digest`] and [`ViewStore::compare`] say whether two stores are equal and, if not,
//!   where they first differ.
//! * [`ViewStore::copy_to`] and [`ViewStore::begin_from`] make and use copies of a whole store.
//!
//! The stored bytes are described in [`mod@format`].

pub mod audit;
mod copy;
pub mod error;
mod fold;
pub mod format;
mod history;
mod latest;
pub mod options;
pub mod read;
mod row_cache;
pub mod sizes;
pub mod store;
mod write;

pub use audit::{Comparison, Difference, DigestProgress, FamilyDigest, StateDigest};
pub use error::ViewError;
pub use format::Family;
pub use options::Options;
pub use read::{RowRead, RowRef, ScanRow, Snapshot, Version};
pub use sizes::{FamilySize, StoreSizes, ViewSize};
pub use store::{
    Opened, OperatorState, Progress, RebuildReason, StoreProgress, ViewMeta, ViewStore, WatchId,
};

#[cfg(test)]
mod tests;
