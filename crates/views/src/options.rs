//! Tuning of the store, none of which changes its contents.
//!
//! Does not know what is stored, only how each column family is used.

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompactionStyle, DBCompressionType,
    DataBlockIndexType, LogLevel, SliceTransform, UniversalCompactOptions, WriteOptions,
};

use crate::error::ViewError;
use crate::format::{Family, HEAD_BYTES, TIME_BYTES};

/// How much memory and how many threads the store may use. The contents never depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of memtables over all column families before they are flushed together. More of it
    /// writes overwritten rows to disk less often, but makes each insert dearer.
    pub memtable_bytes: usize,
    /// Bytes of the cache of table blocks, filters and indexes.
    pub block_cache_bytes: usize,
    /// Bytes of rows that were asked for and are kept at hand, apart from the caches of tables.
    pub row_cache_bytes: usize,
    /// Background threads for flushes and compactions.
    pub background_jobs: i32,
    /// Bytes of one write when several epochs are applied at once, or when a fold is so large that
    /// it is written in parts.
    pub batch_bytes: usize,
    /// Whether dropping the store flushes it. Without it a dropped store falls back, like one whose
    /// process was killed, to what happened to be flushed.
    pub flush_on_drop: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memtable_bytes: 24 << 20,
            block_cache_bytes: 64 << 20,
            row_cache_bytes: 64 << 20,
            background_jobs: 2,
            batch_bytes: 4 << 20,
            flush_on_drop: true,
        }
    }
}

/// Options of the database as a whole.
pub(crate) fn database(options: &Options) -> Result<rocksdb::Options, ViewError> {
    let flush = format!("avoid_flush_during_shutdown={}", !options.flush_on_drop);
    let mut db = rocksdb::Options::default().get_options_from_string(flush).map_err(|source| {
        ViewError::Storage { doing: "setting its options", source: Box::new(source) }
    })?;
    db.create_if_missing(true);
    db.create_missing_column_families(true);
    db.set_atomic_flush(true);
    db.set_paranoid_checks(true);
    db.set_max_background_jobs(options.background_jobs);
    db.set_db_write_buffer_size(options.memtable_bytes);
    // One writer: nothing to gain from concurrent inserts or from spinning for a write group.
    db.set_allow_concurrent_memtable_write(false);
    db.set_enable_write_thread_adaptive_yield(false);
    db.set_bytes_per_sync(1 << 20);
    db.set_log_level(LogLevel::Warn);
    db.set_keep_log_file_num(2);
    db.set_stats_dump_period_sec(0);
    Ok(db)
}

/// Writes go to memtables only: the log is what makes them durable.
pub(crate) fn write() -> WriteOptions {
    let mut write = WriteOptions::default();
    write.disable_wal(true);
    write
}

/// The four column families, sharing one cache.
pub(crate) fn families(options: &Options) -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_hyper_clock_cache(options.block_cache_bytes, 0);
    Family::ALL
        .into_iter()
        .map(|family| {
            ColumnFamilyDescriptor::new(family.name(), self::family(family, options, &cache))
        })
        .collect()
}

fn family(family: Family, options: &Options, cache: &Cache) -> rocksdb::Options {
    let mut cf = rocksdb::Options::default();
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    // The whole budget for each: the database-wide limit flushes them together.
    cf.set_write_buffer_size(options.memtable_bytes);
    cf.set_max_write_buffer_number(4);
    match family {
        Family::Latest => {
            // Point reads of whole keys.
            table.set_bloom_filter(10.0, false);
            table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
            table.set_block_size(4 << 10);
            // Small, and rewritten all the time: compressed only where it is large.
            cf.set_compression_per_level(&compression(2));
        }
        Family::History => {
            // Seeks to the newest version of one key at or below a time.
            table.set_bloom_filter(10.0, false);
            table.set_whole_key_filtering(false);
            table.set_block_size(16 << 10);
            // Runs on their way to the last level are rewritten soon: compressing them is in vain.
            cf.set_compression_per_level(&compression(LEVELS - 1));
            // Every flush holds all of the key space: levels would be rewritten with each of them.
            cf.set_compaction_style(DBCompactionStyle::Universal);
            // What is read as of the past looks into each run; what is written is rewritten less.
            cf.set_level_zero_file_num_compaction_trigger(MOST_RUNS);
            cf.set_universal_compaction_options(&universal());
            cf.set_prefix_extractor(SliceTransform::create(
                "falaj.history.v1",
                name_of_history_key,
                Some(is_history_key),
            ));
        }
        Family::Operator => {
            // Read from end to end only.
            table.set_block_size(32 << 10);
            cf.set_compression_per_level(&compression(2));
        }
        Family::Progress => {}
    }
    cf.set_block_based_table_factory(&table);
    cf
}

/// Runs of history before some of them are merged.
const MOST_RUNS: i32 = 8;

/// Runs of about the same size are merged when there are some of them.
fn universal() -> UniversalCompactOptions {
    let mut options = UniversalCompactOptions::default();
    options.set_min_merge_width(4);
    options.set_size_ratio(10);
    options
}

const LEVELS: usize = 7;

/// LZ4 on all levels below the `plain` newest ones.
fn compression(plain: usize) -> Vec<DBCompressionType> {
    let level =
        |level| if level < plain { DBCompressionType::None } else { DBCompressionType::Lz4 };
    (0..LEVELS).map(level).collect()
}

fn name_of_history_key(key: &[u8]) -> &[u8] {
    &key[..key.len().saturating_sub(TIME_BYTES)]
}

fn is_history_key(key: &[u8]) -> bool {
    key.len() >= HEAD_BYTES + TIME_BYTES
}
