//! The vocabulary of Falaj: logical time, identities, topic schemas, typed values and the two
//! permanent encodings built on them (canonical bytes and event hashes).
//!
//! Why it exists: every other crate speaks in these words, and the bytes defined here are stored
//! for ever. It does no I/O, knows no clock, no log, no engine and no file format of definitions.

pub mod cells;
pub mod changes;
pub mod convert;
pub mod encoding;
pub mod foretold;
pub mod hash;
pub mod ids;
pub mod packing;
pub mod schema;
pub mod types;
pub mod value;

pub use changes::{EpochChanges, KeyBytes, RowChange, StateChange, ViewRow};
pub use hash::{Hash256, event_hash, key_hash, logical_partition, partition_of};
pub use ids::{EventId, EventOrder, EventTime, LogTime, Op, ProducerId, TopicId, ViewId};
pub use schema::{Classification, Column, TopicKind, TopicSchema};
pub use types::ColumnType;
pub use value::Value;
