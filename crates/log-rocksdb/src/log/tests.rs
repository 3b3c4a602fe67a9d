//! The embedded log: the contract's suite, and what the directory may and may not look like.

use std::fs;

use falaj_event::Hash256;
use falaj_log::bytes::Extensions;
use falaj_log::conformance::{ReopenableLog, run};
use falaj_log::epoch::{encode_producers, partitions_root, producers_hash};
use falaj_log::{ClockMode, EpochRecord, PartitionEntry, ProducerEntry};
use tempfile::TempDir;

use super::*;
use crate::options::{Fsync, Verify};

struct OnDisk {
    home: TempDir,
    log: Option<Arc<RocksLog>>,
}

impl OnDisk {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let log = Some(Arc::new(RocksLog::open(home.path(), quick()).unwrap()));
        Self { home, log }
    }
}

impl ReopenableLog for OnDisk {
    fn log(&self) -> Arc<dyn Log> {
        Arc::clone(self.log.as_ref().unwrap()) as Arc<dyn Log>
    }

    fn reopen(&mut self) -> bool {
        let log = self.log.take().unwrap();
        assert_eq!(Arc::strong_count(&log), 1, "the suite still holds the log");
        drop(log);
        self.log = Some(Arc::new(RocksLog::open(self.home.path(), full()).unwrap()));
        true
    }
}

fn quick() -> Options {
    Options { fsync: Fsync::Never, write_buffer_bytes: 1 << 20, ..Options::default() }
}

fn full() -> Options {
    Options { verify: Verify::Full, ..quick() }
}

#[test]
fn the_embedded_log_conforms() {
    run(|| Box::new(OnDisk::new()));
}

fn topic() -> TopicId {
    TopicId::of("payments")
}

fn producer() -> ProducerId {
    ProducerId([3; 16])
}

fn body(epoch: u64) -> Vec<u8> {
    (0..600u64).map(|i| (i * 7 + epoch * 13) as u8).collect()
}

fn block_id(epoch: u64) -> BlockId {
    let mut id = [0xAB; 16];
    id[..8].copy_from_slice(&epoch.to_be_bytes());
    BlockId(id)
}

/// The entry that continues `log`: two events in one block, two sequences.
fn next(log: &dyn Log) -> EpochEntry {
    let tail = log.tail();
    let epoch = tail.as_ref().map_or(0, |tail| tail.record.epoch + 1);
    let partitions = vec![PartitionEntry {
        topic: topic(),
        partition: 0,
        first_offset: log.next_offset(topic(), 0),
        count: 2,
        blocks: vec![block_id(epoch)],
        events_root: Hash256([1; 32]),
        extensions: Extensions::default(),
    }];
    let producers = vec![ProducerEntry {
        producer: producer(),
        topic: topic(),
        first_sequence: epoch * 2,
        count: 2,
        accepted: 2,
    }];
    let record = EpochRecord {
        term: 1,
        epoch,
        t: LogTime(1000 + epoch * 10),
        clock: ClockMode::Event,
        wall_clock_us: 0,
        definitions: Hash256::default(),
        previous: tail.map_or_else(Hash256::default, |tail| tail.record.hash()),
        partitions_root: partitions_root(&partitions),
        producers_hash: producers_hash(&encode_producers(&producers)),
        events: 2,
        extensions: Extensions::default(),
    };
    EpochEntry { record, partitions, producers }
}

fn grow(log: &RocksLog, epochs: u64) {
    for _ in 0..epochs {
        let entry = next(log);
        let epoch = entry.record.epoch;
        let bytes = body(epoch).into();
        log.append(vec![StagedBlock { topic: topic(), partition: 0, id: block_id(epoch), bytes }])
            .unwrap();
        log.commit(&entry).unwrap();
    }
}

fn holds(log: &RocksLog, epochs: u64) {
    assert_eq!(log.tail().map(|tail| tail.record.epoch), epochs.checked_sub(1));
    assert_eq!(log.next_offset(topic(), 0), epochs * 2);
    for epoch in 0..epochs {
        let entry = log.entry(epoch).unwrap().unwrap();
        assert_eq!(entry.record.epoch, epoch);
        assert_eq!(log.block(topic(), 0, block_id(epoch)).unwrap().as_ref(), body(epoch));
        let located = log.locate(topic(), 0, epoch * 2 + 1).unwrap().unwrap();
        assert_eq!((located.epoch, located.first_offset), (epoch, epoch * 2));
        let t = LogTime(1000 + epoch * 10 + 9);
        assert_eq!(log.entry_at(t).unwrap().unwrap().record.epoch, epoch);
        assert_eq!(log.producer(producer(), epoch * 2 + 1).unwrap().unwrap().epoch, epoch);
    }
    assert_eq!(log.entry(epochs).unwrap(), None);
    assert_eq!(log.last_sequence(producer()).unwrap(), (epochs * 2).checked_sub(1));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        if item.file_type().unwrap().is_dir() {
            copy(&item.path(), &to.join(item.file_name()));
        } else {
            fs::copy(item.path(), to.join(item.file_name())).unwrap();
        }
    }
}

/// A closed log of `epochs` epochs.
fn closed(epochs: u64) -> TempDir {
    let home = tempfile::tempdir().unwrap();
    grow(&RocksLog::open(home.path(), quick()).unwrap(), epochs);
    home
}

#[test]
fn entries_beyond_the_recent_ones_are_read_from_the_store() {
    let home = tempfile::tempdir().unwrap();
    let epochs = RECENT_ENTRIES as u64 + 300;
    let log = RocksLog::open(home.path(), quick()).unwrap();
    grow(&log, epochs);
    holds(&log, epochs);
    log.flush().unwrap();
    holds(&log, epochs);
    drop(log);
    let log = RocksLog::open(home.path(), full()).unwrap();
    holds(&log, epochs);
    grow(&log, 3);
    holds(&log, epochs + 3);
}

#[test]
fn a_second_process_is_refused_and_told_which_directory() {
    let home = closed(1);
    let first = RocksLog::open(home.path(), quick()).unwrap();
    let error = RocksLog::open(home.path(), quick()).unwrap_err();
    let LogError::Storage { source, .. } = &error else { panic!("{error}") };
    assert!(
        matches!(source.downcast_ref(), Some(StoreError::InUse { path }) if path == home.path())
    );
    assert!(error.to_string().contains(&home.path().display().to_string()));
    drop(first);
    RocksLog::open(home.path(), quick()).unwrap();
}

#[test]
fn a_commit_that_was_not_acknowledged_counts_once_it_is_found() {
    let home = closed(3);
    let acknowledged = fs::read(home.path().join("acknowledged")).unwrap();
    grow(&RocksLog::open(home.path(), quick()).unwrap(), 1);
    fs::write(home.path().join("acknowledged"), acknowledged).unwrap();
    holds(&RocksLog::open(home.path(), quick()).unwrap(), 4);
    let slots = Slots::open(&home.path().join("acknowledged"), Fsync::Never).unwrap();
    assert_eq!(slots.newest().epochs, 4);
}

#[test]
fn a_log_that_lost_its_end_is_refused_by_epoch() {
    let home = closed(3);
    let older = tempfile::tempdir().unwrap();
    copy(&home.path().join("store"), older.path());
    grow(&RocksLog::open(home.path(), quick()).unwrap(), 2);
    fs::remove_dir_all(home.path().join("store")).unwrap();
    copy(older.path(), &home.path().join("store"));
    match RocksLog::open(home.path(), quick()) {
        Err(LogError::Truncated { found: Some(2), acknowledged: 4, t: LogTime(1040) }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_logs_store_is_refused() {
    let (home, other) = (closed(3), tempfile::tempdir().unwrap());
    {
        let log = RocksLog::open(other.path(), quick()).unwrap();
        let mut entry = next(&log);
        entry.record.wall_clock_us = 1;
        let bytes = body(0).into();
        log.append(vec![StagedBlock { topic: topic(), partition: 0, id: block_id(0), bytes }])
            .unwrap();
        log.commit(&entry).unwrap();
        grow(&log, 2);
    }
    fs::remove_dir_all(home.path().join("store")).unwrap();
    copy(&other.path().join("store"), &home.path().join("store"));
    let error = RocksLog::open(home.path(), quick()).unwrap_err();
    assert!(error.to_string().contains("epoch 2"), "{error}");
}

#[test]
fn missing_files_are_refused_and_nothing_is_deleted() {
    for lost in ["acknowledged", "store/CURRENT", "store"] {
        for flushed in [true, false] {
            let home = closed(5);
            if flushed {
                RocksLog::open(home.path(), quick()).unwrap().flush().unwrap();
            }
            let path = home.path().join(lost);
            if path.is_dir() {
                fs::remove_dir_all(&path).unwrap();
            } else {
                fs::remove_file(&path).unwrap();
            }
            let error = RocksLog::open(home.path(), quick()).unwrap_err();
            assert!(matches!(error, LogError::Damaged { .. }), "{lost}: {error}");
            if lost == "store/CURRENT" {
                let any = |wanted: &str| {
                    let files = fs::read_dir(home.path().join("store")).unwrap();
                    files
                        .filter(|f| f.as_ref().unwrap().path().extension() == Some(wanted.as_ref()))
                        .count()
                };
                assert!(any("sst") + any("log") > 0);
            }
        }
    }
}

/// Changes the store behind the log's back.
fn tamper(home: &TempDir, change: impl FnOnce(&Store, &mut WriteBatch)) {
    let store = Store::writable(&home.path().join("store"), &quick(), false).unwrap();
    let mut batch = WriteBatch::default();
    change(&store, &mut batch);
    store.write(batch).unwrap();
}

fn refused(home: &TempDir, options: Options, named: &str) {
    match RocksLog::open(home.path(), options) {
        Err(error @ (LogError::Damaged { .. } | LogError::MissingBlock { .. })) => {
            assert!(error.to_string().contains(named), "{error}");
        }
        other => panic!("{named}: {other:?}"),
    }
}

#[test]
fn a_hole_in_the_chain_is_refused_at_every_open() {
    let home = closed(9);
    tamper(&home, |store, batch| {
        batch.delete_cf(store.family(keys::EPOCHS).unwrap(), 4u64.to_be_bytes());
    });
    refused(&home, quick(), "epoch 4");
    refused(&home, full(), "epoch 4");
}

#[test]
fn what_was_verified_before_is_not_walked_again_unless_asked() {
    let home = closed(9);
    // Opening marks what it verified; the mark is durable with the next write.
    grow(&RocksLog::open(home.path(), quick()).unwrap(), 1);
    tamper(&home, |store, batch| {
        batch.delete_cf(store.family(keys::EPOCHS).unwrap(), 4u64.to_be_bytes());
    });
    let log = RocksLog::open(home.path(), quick()).unwrap();
    assert!(
        matches!(log.entry(4), Err(LogError::Damaged { place, .. }) if place.contains("epoch 4"))
    );
    drop(log);
    refused(&home, full(), "epoch 4");
}

#[test]
fn every_index_is_checked_in_full() {
    type Change = fn(&Store, &mut WriteBatch);
    let changes: [(&str, Change); 8] = [
        ("times", |store, batch| {
            batch.delete_cf(store.family(keys::TIMES).unwrap(), 1030u64.to_be_bytes());
        }),
        ("times", |store, batch| {
            batch.put_cf(store.family(keys::TIMES).unwrap(), 1u64.to_be_bytes(), [0; 8]);
        }),
        ("offsets", |store, batch| {
            batch.delete_cf(store.family(keys::OFFSETS).unwrap(), keys::offset_key(topic(), 0, 4));
        }),
        ("places", |store, batch| {
            let key = keys::place_key(topic(), 0, block_id(2));
            batch.put_cf(store.family(keys::PLACES).unwrap(), key, keys::place(1, 0));
        }),
        ("places", |store, batch| {
            let key = keys::place_key(topic(), 1, block_id(2));
            batch.put_cf(store.family(keys::PLACES).unwrap(), key, keys::place(1, 0));
        }),
        ("blocks", |store, batch| {
            let key = keys::block_key(&keys::place(2, 0), block_id(2));
            batch.delete_cf(store.family(keys::BLOCKS).unwrap(), key);
        }),
        ("sequences", |store, batch| {
            let key = keys::producer_key(producer(), 4);
            batch.put_cf(store.family(keys::PRODUCERS).unwrap(), key, [0; 40]);
        }),
        ("producers", |store, batch| {
            let key = keys::producer_key(producer(), 99);
            batch.put_cf(store.family(keys::PRODUCERS).unwrap(), key, [0; 40]);
        }),
    ];
    for (named, change) in changes {
        let home = closed(6);
        tamper(&home, change);
        refused(&home, full(), named);
    }
}

#[test]
fn a_newer_format_is_named_as_such() {
    let home = closed(1);
    tamper(&home, |store, batch| {
        let meta = store.family(keys::META).unwrap();
        batch.put_cf(meta, keys::FORMAT_KEY, 2u32.to_be_bytes());
    });
    let error = RocksLog::open(home.path(), quick()).unwrap_err();
    assert!(error.to_string().contains("failed while opening"), "{error}");
    let LogError::Storage { source, .. } = error else { panic!() };
    assert!(matches!(source.downcast_ref(), Some(StoreError::Version { found: 2, .. })));
}

#[test]
fn a_failed_commit_ends_the_handle() {
    let home = tempfile::tempdir().unwrap();
    let log = RocksLog::open(home.path(), quick()).unwrap();
    grow(&log, 2);
    log.writer().slots.fail_writes();
    let entry = next(&log);
    let bytes: Arc<[u8]> = body(2).into();
    let block = StagedBlock { topic: topic(), partition: 0, id: block_id(2), bytes };
    log.append(vec![block]).unwrap();
    assert!(matches!(log.commit(&entry), Err(LogError::Storage { .. })));
    // Not acknowledged, so not shown.
    holds(&log, 2);
    assert!(matches!(log.block(topic(), 0, block_id(2)), Err(LogError::MissingBlock { .. })));
    let error = log.commit(&entry).unwrap_err();
    assert!(error.to_string().contains("reopen"), "{error}");
    drop(log);
    // The write itself had succeeded: reopening tells.
    holds(&RocksLog::open(home.path(), full()).unwrap(), 3);
}

#[test]
fn a_crash_during_the_first_start_leaves_nothing_in_the_way() {
    let home = closed(0);
    fs::remove_file(home.path().join("acknowledged")).unwrap();
    grow(&RocksLog::open(home.path(), quick()).unwrap(), 1);
}
