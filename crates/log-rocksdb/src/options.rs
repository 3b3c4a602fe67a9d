//! What a caller chooses, and the RocksDB settings that follow from it.
//!
//! Does not know paths or data.

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, LogLevel,
    ReadOptions, WriteOptions,
};

use crate::keys;

/// When a commit is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fsync {
    /// When `commit` returns: the write-ahead log and the acknowledgement are synced.
    #[default]
    EachCommit,
    /// Whenever the operating system writes it: a crash of the process loses nothing, a crash of
    /// the machine may lose the newest epochs (and is then reported, not hidden). For loads that
    /// can be repeated.
    Never,
}

/// How much is checked before the log is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// The acknowledgement, the chain of all epochs that were not verified before, the newest
    /// offset of every partition.
    #[default]
    Tail,
    /// Everything: every byte of every block, entry and index, and that they agree.
    Full,
}

/// Settings of one open log. Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// When a commit is durable.
    pub fsync: Fsync,
    /// How much is checked at open.
    pub verify: Verify,
    /// Blocks kept in memory before they go into a table file; bounds the replay after a crash.
    pub write_buffer_bytes: usize,
    /// Cache of what is read back.
    pub block_cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            fsync: Fsync::default(),
            verify: Verify::default(),
            write_buffer_bytes: 64 << 20,
            block_cache_bytes: 32 << 20,
        }
    }
}

const BLOCKS_FILE_BYTES: u64 = 256 << 20;
const INDEX_BUFFER_BYTES: usize = 16 << 20;
const OPEN_FILES: i32 = 1024;
const INFO_LOGS: usize = 4;

/// Options of the whole database.
pub(crate) fn database(options: &Options, create: bool) -> rocksdb::Options {
    let mut out = rocksdb::Options::default();
    out.create_if_missing(create);
    out.create_missing_column_families(create);
    out.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    out.set_track_and_verify_wals_in_manifest(true);
    // A recycled file's old records look like a tail.
    out.set_recycle_log_file_num(0);
    out.set_paranoid_checks(true);
    // All families move into table files together, so none can be ahead of another.
    out.set_atomic_flush(true);
    out.set_max_total_wal_size(4 * options.write_buffer_bytes.max(INDEX_BUFFER_BYTES) as u64);
    out.set_max_background_jobs(2);
    out.set_max_open_files(OPEN_FILES);
    out.set_bytes_per_sync(1 << 20);
    out.set_keep_log_file_num(INFO_LOGS);
    out.set_log_level(LogLevel::Warn);
    out.set_stats_dump_period_sec(0);
    out
}

/// All column families with their options.
pub(crate) fn families(options: &Options) -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(options.block_cache_bytes);
    keys::FAMILIES
        .iter()
        .map(|name| ColumnFamilyDescriptor::new(*name, family(name, options, &cache)))
        .collect()
}

fn family(name: &str, options: &Options, cache: &Cache) -> rocksdb::Options {
    let mut out = rocksdb::Options::default();
    // Blocks are compressed before they are sealed; indexes are small.
    out.set_compression_type(DBCompressionType::None);
    // Old epochs must not be rewritten merely because they are old.
    out.set_ttl(0);
    out.set_periodic_compaction_seconds(0);
    out.set_paranoid_checks(true);
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    if name == keys::BLOCKS {
        out.set_write_buffer_size(options.write_buffer_bytes);
        out.set_target_file_size_base(BLOCKS_FILE_BYTES);
    } else {
        out.set_write_buffer_size(INDEX_BUFFER_BYTES.min(options.write_buffer_bytes));
        table.set_block_size(16 << 10);
    }
    if name == keys::PLACES {
        table.set_bloom_filter(10.0, false);
    }
    out.set_block_based_table_factory(&table);
    out
}

pub(crate) fn write(options: &Options) -> WriteOptions {
    let mut out = WriteOptions::default();
    out.set_sync(options.fsync == Fsync::EachCommit);
    out
}

/// Reads that verify checksums; `scan` leaves the cache as it is and reads ahead.
pub(crate) fn read(scan: bool) -> ReadOptions {
    let mut out = ReadOptions::default();
    out.set_verify_checksums(true);
    if scan {
        out.fill_cache(false);
        out.set_readahead_size(2 << 20);
    }
    out
}
