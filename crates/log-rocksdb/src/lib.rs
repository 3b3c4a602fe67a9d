//! The embedded log: [`falaj_log::Log`] on RocksDB.
//!
//! Why it exists: one machine needs atomic commits over all topics, checksums and crash recovery,
//! and RocksDB gives them. It does not know what blocks hold, nor topics, schemas or keys.
//!
//! # The directory
//! | name | what |
//! | --- | --- |
//! | `store/` | the RocksDB database |
//! | `acknowledged` | the newest acknowledged epoch, in two slots (see [`slots`]) |
//! | `lock` | held while a process has the log open |
//!
//! # Column families (integers big-endian)
//! | name | key | value |
//! | --- | --- | --- |
//! | `default` | `format` | version u32, 1 |
//! | `default` | `verified` | epoch u64 up to which the chain was verified and is in table files |
//! | `default` | `cut.`, topic (16) | first epoch u64 whose blocks of the topic are kept |
//! | `default` | `swept.`, topic (16) | the same, once all blocks before it are removed |
//! | `epochs` | epoch u64 | the entry's permanent bytes |
//! | `times` | `T` u64 | epoch u64 |
//! | `offsets` | topic (16), partition u32, first offset u64 | epoch u64, count u32 |
//! | `blocks` | epoch u64, ordinal u32, block id (16) | the block |
//! | `places` | topic (16), partition u32, block id (16) | epoch u64, ordinal u32 |
//! | `producers` | producer (16), first sequence u64 | epoch u64, `T` u64, topic (16), count u32, accepted u32 |
//!
//! An epoch is one write batch over all of them. Everything but `epochs` and `blocks` follows from
//! those two and is checked against them when the log is verified in full. Blocks and entries are
//! keyed by epoch, so that their files are moved, never rewritten, by compaction.
//!
//! # Cuts
//! A cut is its row in `default`, written with a sync; then the rows of `blocks` that it condemns are
//! deleted, and then `swept` is written. What a crash leaves condemned is deleted at the next open.
//! Nothing else is ever deleted: entries, offsets, places and producers of cut epochs stay.
//!
//! # Recovery
//! The write-ahead log is replayed with RocksDB's `kTolerateCorruptedTailRecords`: only that mode
//! refuses a checksum mismatch wherever it is, and yet opens after a crash that cut the last write
//! short (`kAbsoluteConsistency` refuses that too; `kPointInTimeRecovery`, the default, silently
//! goes back to before the damage). What it lets pass is found here: a tail that was cut although it
//! was acknowledged by the slots, a hole by the chain of record hashes.
//!
//! Everything is checked on a read-only handle first, because opening RocksDB for writing deletes
//! files that a damaged MANIFEST does not name any more.

mod check;
mod cut;
mod error;
mod keys;
mod log;
mod options;
pub mod slots;
mod store;

pub use error::StoreError;
pub use log::RocksLog;
pub use options::{Fsync, Options, Verify};
