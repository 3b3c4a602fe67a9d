//! One behaviour per test: identity, refusals, replays, waiting, folding in parts, damage.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use falaj_event::foretold::Foretelling;
use falaj_event::{
    EpochChanges, Hash256, LogTime, RowChange, StateChange, Value, ViewRow, encoding,
};

use super::kit::*;
use crate::{
    Family, Options, Progress, RebuildReason, StoreProgress, ViewError, ViewStore, format,
};

fn progress(epoch: u64, t: u64) -> Progress {
    Progress { epoch, t: LogTime(t) }
}

#[test]
fn the_stored_bytes_are_the_documented_ones() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), &small());
    let mut changes = epoch(0, 0x0a0b, &[(1, 2, Some(3)), (1, 4, None)]);
    changes.checkpoint = Some(vec![StateChange { key: vec![9, 8], value: Some(vec![7]) }]);
    store.apply(&changes).unwrap();
    let entries = |family: Family| -> Vec<(Vec<u8>, Vec<u8>)> {
        store
            .db
            .full_iterator_cf(store.family(family).unwrap(), rocksdb::IteratorMode::Start)
            .map(|entry| entry.unwrap())
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect()
    };
    // Key 2 is an int64: tag 03 and the sign-flipped integer; its hash ends in the partition.
    let two = [3, 0x80, 0, 0, 0, 0, 0, 0, 2];
    let four = [3, 0x80, 0, 0, 0, 0, 0, 0, 4];
    let name = |key: &[u8]| [&[falaj_event::logical_partition(key)][..], &[1; 8], key].concat();
    // Latest event time 3 - 1000, then uint64 3 (tag 4, 1 byte) and the string "xxx" (tag 8).
    // Nothing is foretold.
    let row = [
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfc, 0x1b][..],
        &[0],
        &[0x14, 3, 8, b'x', b'x', b'x', 0, 0],
    ]
    .concat();
    let t = [0, 0, 0, 0, 0, 0, 0x0a, 0x0b];
    let complement = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf5, 0xf4];
    assert_eq!(entries(Family::Latest), [(name(&two), [&t[..], &row].concat())]);
    let mut history = vec![
        ([&name(&two)[..], &complement].concat(), row),
        ([&name(&four)[..], &complement].concat(), vec![]),
    ];
    history.sort();
    assert_eq!(entries(Family::History), history);
    assert_eq!(entries(Family::Operator), [(vec![9, 8], vec![7])]);
    let reached = [&[0; 8][..], &t].concat();
    let views = [
        [&[0; 8][..], &(2 * HOUR_US).to_be_bytes()].concat(),
        [&[1; 8][..], &(30 * HOUR_US).to_be_bytes()].concat(),
        [&[2; 8][..], &[0xff; 8]].concat(),
    ]
    .concat();
    assert_eq!(
        entries(Family::Progress),
        [
            (b"begins".to_vec(), reached.clone()),
            (b"format".to_vec(), vec![0, 0, 0, 4]),
            (b"operator".to_vec(), reached.clone()),
            (b"plan".to_vec(), vec![5; 32]),
            (b"rows".to_vec(), reached),
            (b"views".to_vec(), views),
        ]
    );
}

#[test]
fn epochs_must_follow_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), &small());
    let refused = |changes| store.apply(&changes).unwrap_err();
    assert!(matches!(refused(epoch(1, 10, &[])), ViewError::Gap { expected: 0, got: 1 }));
    store.apply(&epoch(0, 10, &[(0, 1, Some(1))])).unwrap();
    assert!(matches!(refused(epoch(2, 30, &[])), ViewError::Gap { expected: 1, got: 2 }));
    assert!(matches!(refused(epoch(1, 10, &[])), ViewError::WrongTime { epoch: 1, at: 0, .. }));
    assert!(matches!(refused(epoch(0, 11, &[])), ViewError::WrongTime { epoch: 0, .. }));
    let unknown = refused(epoch(1, 20, &[(0, 1, Some(2)), (9, 1, None)]));
    assert!(matches!(unknown, ViewError::UnknownView { view: found } if found == view(9)));
    // A refused list changes nothing, its good beginning included.
    let before = digest(&store);
    let list = [epoch(1, 20, &[(0, 1, Some(2))]), epoch(3, 40, &[])];
    assert!(matches!(store.apply_all(&list), Err(ViewError::Gap { expected: 2, got: 3 })));
    assert_eq!(digest(&store), before);
    assert_eq!(store.progress().rows, Some(progress(0, 10)));
}

#[test]
fn replayed_rows_are_skipped_and_missing_checkpoints_are_applied() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), &small());
    store.apply(&epoch(0, 10, &[(0, 1, Some(1))])).unwrap();
    store.apply(&epoch(1, 20, &[(0, 1, Some(2))])).unwrap();
    // Had it been applied, the row of epoch 0 would be seen.
    let mut replayed = epoch(0, 10, &[(0, 1, Some(77))]);
    replayed.checkpoint = Some(vec![state(1, Some(1))]);
    let reached = store.apply(&replayed).unwrap();
    let expected = StoreProgress { rows: Some(progress(1, 20)), operator: Some(progress(0, 10)) };
    assert_eq!(reached, expected);
    replayed.checkpoint = Some(vec![state(1, Some(999))]);
    store.apply(&replayed).unwrap();
    let entries: Vec<_> = store.operator_state().unwrap().map(Result::unwrap).collect();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].0.to_vec(), state(1, None).key);
    assert_eq!(entries[0].1.to_vec(), 1_u64.to_be_bytes());
    let snapshot = store.snapshot().unwrap();
    let row_2 = snapshot.get(view(0), &key(1)).unwrap().unwrap();
    assert_eq!((row_2.t, row_2.columns), (LogTime(20), row(2).columns));
    let row_1 = snapshot.get_as_of(view(0), &key(1), LogTime(19)).unwrap().unwrap();
    assert_eq!((row_1.t, row_1.columns), (LogTime(10), row(1).columns));
}

#[test]
fn other_definitions_formats_and_layouts_ask_for_a_rebuild() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/state");
    open(&path, &small()).close().unwrap();
    assert_eq!(rebuild_reason(&path, &metas(), PLAN), None);
    let other = Hash256([6; 32]);
    let reason = RebuildReason::PlanSet { found: PLAN, expected: other };
    assert_eq!(rebuild_reason(&path, &metas(), other), Some(reason.clone()));
    let mut shorter = metas();
    shorter[1].retain_us -= 1;
    assert_eq!(rebuild_reason(&path, &shorter, PLAN), Some(RebuildReason::Views));
    assert_eq!(rebuild_reason(&path, &metas()[..2], PLAN), Some(RebuildReason::Views));
    let mut renamed = metas();
    renamed[0].name = "another name".into();
    assert_eq!(rebuild_reason(&path, &renamed, PLAN), None);

    let store = open(&path, &small());
    store.apply(&epoch(0, 5, &[(0, 1, Some(1))])).unwrap();
    store.close().unwrap();
    let (store, found) = ViewStore::open_or_reset(&path, &small(), &metas(), other).unwrap();
    assert_eq!(found, Some(reason));
    assert_eq!(store.progress(), StoreProgress::default());
    assert_eq!(store.snapshot().unwrap().get(view(0), &key(1)).unwrap(), None);
    let progress = store.family(Family::Progress).unwrap();
    store.db.put_cf(progress, format::KEY_FORMAT, 99_u32.to_be_bytes()).unwrap();
    drop(store);
    let reason = rebuild_reason(&path, &metas(), other);
    assert_eq!(reason, Some(RebuildReason::Format { found: Some(99) }));
    let mut foreign = rocksdb::Options::default();
    foreign.create_if_missing(true);
    ViewStore::destroy(&path).unwrap();
    assert!(!path.exists());
    rocksdb::DB::open_cf(&foreign, &path, ["default"])
        .unwrap()
        .create_cf("tiles", &foreign)
        .unwrap();
    let reason = rebuild_reason(&path, &metas(), PLAN);
    assert_eq!(reason, Some(RebuildReason::Format { found: None }));
}

#[test]
fn a_manifest_that_rocksdb_would_read_for_ever_asks_for_a_rebuild() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    open(&path, &small()).close().unwrap();
    let current = std::fs::read_to_string(path.join("CURRENT")).unwrap();
    let manifest = path.join(current.trim());
    let mut bytes = std::fs::read(&manifest).unwrap();
    bytes[6] = 77;
    std::fs::write(&manifest, bytes).unwrap();
    let Some(RebuildReason::Unreadable { place, .. }) = rebuild_reason(&path, &metas(), PLAN)
    else {
        panic!("it must be seen");
    };
    assert!(place.contains("MANIFEST") && place.ends_with("byte 0"), "{place}");
    let (store, found) = ViewStore::open_or_reset(&path, &small(), &metas(), PLAN).unwrap();
    assert!(found.is_some());
    store.apply(&epoch(0, 5, &[(0, 1, Some(1))])).unwrap();
}

#[test]
fn a_copy_is_what_the_store_was() {
    let directory = tempfile::tempdir().unwrap();
    let (path, copy) = (directory.path().join("state"), directory.path().join("copy"));
    let store = open(&path, &small());
    let rows: Vec<_> = (0..300).map(|n| (0, n, Some(n))).collect();
    let mut first = epoch(0, 10, &rows);
    first.checkpoint = Some(vec![state(1, Some(1)), state(2, Some(2))]);
    store.apply(&first).unwrap();
    let at_copy = digest(&store);
    let mut entries = Vec::new();
    store.for_each_entry(&mut |entry| entries.push(entry.to_vec())).unwrap();
    store.copy_to(&copy).unwrap();
    let second = epoch(1, 20, &[(0, 3, None), (1, 3, Some(9))]);
    store.apply(&second).unwrap();
    let at_end = digest(&store);
    drop(store);
    ViewStore::destroy(&path).unwrap();
    // Twice: a store made of a copy leaves the copy alone.
    for _ in 0..2 {
        ViewStore::begin_from(&copy, &path).unwrap();
        let store = open(&path, &small());
        assert_eq!(digest(&store), at_copy);
        let mut again = Vec::new();
        store.for_each_entry(&mut |entry| again.push(entry.to_vec())).unwrap();
        assert_eq!(again, entries);
        store.apply(&second).unwrap();
        assert_eq!(digest(&store), at_end);
        drop(store);
        ViewStore::destroy(&path).unwrap();
    }
    assert!(ViewStore::begin_from(&path, &copy.join("x")).is_err());
    // The table of the digest, written out: names, lengths, bytes.
    let longest = entries.iter().map(Vec::len).max().unwrap();
    assert!(longest > 20 && entries.iter().any(|entry| entry[4..].starts_with(b"latest")));
}

#[test]
fn a_second_handle_and_duplicate_views_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), &small());
    let second = ViewStore::open(directory.path(), &small(), &metas(), PLAN).unwrap_err();
    assert!(
        matches!(&second, ViewError::Locked { path, .. } if path == directory.path()),
        "{second}"
    );
    assert!(matches!(ViewStore::destroy(directory.path()), Err(ViewError::Locked { .. })));
    drop(store);
    let mut twice = metas();
    twice[2].id = twice[0].id;
    let error = ViewStore::open(directory.path(), &small(), &twice, PLAN).unwrap_err();
    assert!(error.to_string().contains("`view_0` and `view_2`"), "{error}");
}

#[test]
fn readers_wait_for_their_writes_until_the_deadline() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(directory.path(), &small()));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    store.apply(&epoch(0, 10, &[])).unwrap();
    let watch = store.watch(move |at| sink.lock().unwrap().push(at));
    let soon = Instant::now() + Duration::from_millis(20);
    let late = store.wait_for(LogTime(11), soon).unwrap_err();
    assert!(
        matches!(late, ViewError::NotYet { asked: LogTime(11), progress: Some(at) } if at == progress(0, 10))
    );
    assert!(Instant::now() >= soon);
    assert_eq!(store.wait_for(LogTime(10), soon).unwrap(), progress(0, 10));
    let waiter = {
        let store = Arc::clone(&store);
        std::thread::spawn(move || {
            let reached =
                store.wait_for(LogTime(21), Instant::now() + Duration::from_secs(60)).unwrap();
            // What is awaited is readable.
            (reached, store.snapshot().unwrap().get(view(0), &key(1)).unwrap().is_some())
        })
    };
    store.apply(&epoch(1, 20, &[])).unwrap();
    store.apply(&epoch(2, 30, &[(0, 1, Some(1))])).unwrap();
    assert_eq!(waiter.join().unwrap(), (progress(2, 30), true));
    store.unwatch(watch);
    store.apply(&epoch(3, 40, &[])).unwrap();
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen, [progress(0, 10), progress(1, 20), progress(2, 30)]);
}

#[test]
fn a_snapshot_stays_at_its_t_over_all_views() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), &small());
    assert_eq!(store.snapshot().unwrap().t(), None);
    let early = store.snapshot().unwrap().get_as_of(view(0), &key(1), LogTime(0));
    assert!(matches!(early, Err(ViewError::NotYet { progress: None, .. })));
    store.apply(&epoch(0, 500 * HOUR_US, &[(0, 1, Some(1)), (1, 1, Some(1))])).unwrap();
    let snapshot = store.snapshot().unwrap();
    let later = [(0, 1, Some(2)), (1, 1, None), (1, 3, Some(4))];
    store.apply(&epoch(1, 900 * HOUR_US, &later)).unwrap();
    store.apply(&epoch(2, 1900 * HOUR_US, &[])).unwrap();
    store.flush().unwrap();
    assert_eq!(snapshot.t(), Some(LogTime(500 * HOUR_US)));
    for index in [0, 1] {
        let found = snapshot.get(view(index), &key(1)).unwrap().unwrap();
        assert_eq!(found.columns, row(1).columns);
        let at = LogTime(500 * HOUR_US);
        assert_eq!(snapshot.get_as_of(view(index), &key(1), at).unwrap(), Some(found));
    }
    assert_eq!(snapshot.get(view(1), &key(3)).unwrap(), None);
    assert!(matches!(snapshot.get(view(7), &key(3)), Err(ViewError::UnknownView { .. })));
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&snapshot);
    shared(&store);
}

/// A large fold is written in parts ahead of its epoch. Readers meanwhile see nothing of it, and a
/// crash in between leaves nothing behind.
#[test]
fn a_fold_in_parts_is_invisible_and_survives_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let start = 500 * HOUR_US;
    let mut epochs: Vec<_> = (0..40)
        .map(|n| {
            epoch(n, start + n * HOUR_US, &[(0, n % 5, Some(n)), (0, 6, (n < 3).then_some(n))])
        })
        .collect();
    epochs.push(epoch(40, start + 300 * HOUR_US, &[]));
    let reference = open(other.path(), &small());
    reference.apply_all(&epochs).unwrap();

    let options = Options { batch_bytes: 1, ..crashing() };
    let store = open(directory.path(), &options);
    store.apply_all(&epochs[..40]).unwrap();
    store.flush().unwrap();
    let oldest = store.snapshot().unwrap().oldest(view(0)).unwrap();
    let read = |store: &ViewStore| {
        let snapshot = store.snapshot().unwrap();
        (0..8).map(|n| snapshot.get_as_of(view(0), &key(n), oldest).unwrap()).collect::<Vec<_>>()
    };
    let before = read(&store);
    let size_before = store.view_size(view(0), 256).unwrap();
    let mut batch = rocksdb::WriteBatch::default();
    store.fold(epochs[0].t, epochs[39].t, epochs[40].t, &mut batch).unwrap();
    assert!(batch.is_empty(), "each part must have been written");
    assert_eq!(read(&store), before);
    let size = store.view_size(view(0), 256).unwrap();
    assert!(size.versions < size_before.versions && size.keys == size_before.keys);
    store.flush().unwrap();
    drop(store);
    let store = open(directory.path(), &options);
    assert_eq!(store.progress().rows.unwrap().epoch, 39);
    assert_eq!(read(&store), before);
    store.apply_all(&epochs).unwrap();
    assert_eq!(digest(&store), digest(&reference));
}

#[test]
fn unequal_stores_are_told_apart_by_name() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [left, right] = directories.each_ref().map(|directory| open(directory.path(), &small()));
    left.apply(&epoch(0, 10, &[(0, 1, Some(1)), (1, 2, Some(1))])).unwrap();
    right.apply(&epoch(0, 10, &[(0, 1, Some(1)), (1, 2, Some(1))])).unwrap();
    let mut reports = 0;
    let ours = left.digest(&mut |_| reports += 1).unwrap();
    assert!(reports >= 4);
    assert_eq!(ours, right.digest(&mut |_| {}).unwrap());
    assert_eq!(ours.progress, Some(progress(0, 10)));
    let counts: Vec<u64> = ours.families.iter().map(|family| family.entries).collect();
    assert_eq!(counts, [2, 2, 0, 5]);
    let same = left.compare(&right, 10).unwrap();
    assert!(same.is_equal() && same.entries == 9);

    left.apply(&epoch(1, 20, &[(0, 1, Some(1)), (1, 2, Some(2))])).unwrap();
    right.apply(&epoch(1, 20, &[(0, 1, Some(1)), (1, 2, Some(3)), (1, 4, None)])).unwrap();
    let theirs = right.digest(&mut |_| {}).unwrap();
    let ours = left.digest(&mut |_| {}).unwrap();
    let equal: Vec<bool> =
        ours.families.iter().zip(&theirs.families).map(|(a, b)| a == b).collect();
    assert_eq!(equal, [false, false, true, true]);
    assert_ne!(ours.digest, theirs.digest);
    let differences = left.compare(&right, 2).unwrap();
    assert_eq!((differences.differing, differences.first.len()), (3, 2));
    let first = &differences.first[0];
    assert!(first.description.starts_with("latest of view `view_1`, partition "), "{first}");
    assert!(first.description.contains("key 038000000000000002"), "{first}");
    let removed = left.compare(&right, 9).unwrap().first;
    let removed = removed.iter().find(|entry| entry.here.is_none()).unwrap();
    assert!(removed.description.ends_with(", T 20"), "{removed}");
    assert_eq!(removed.there, Some(vec![]));
}

#[test]
fn a_flipped_byte_in_a_table_is_named_and_never_served() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), &small());
    let rows: Vec<_> = (0..400).map(|n| (0, n, Some(n))).collect();
    store.apply(&epoch(0, 10, &rows)).unwrap();
    store.close().unwrap();
    let files: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    let tables = files.iter().filter(|path| path.extension().is_some_and(|it| it == "sst"));
    assert!(tables.clone().count() >= 3);
    for table in tables {
        // A store that was opened may rewrite its tables at any time: each gets a copy of its own.
        let copy = tempfile::tempdir().unwrap();
        for file in &files {
            std::fs::copy(file, copy.path().join(file.file_name().unwrap())).unwrap();
        }
        let mut bad = std::fs::read(table).unwrap();
        bad[20] ^= 0x10;
        std::fs::write(copy.path().join(table.file_name().unwrap()), &bad).unwrap();
        let found =
            ViewStore::open(copy.path(), &small(), &metas(), PLAN).and_then(
                |opened| match opened {
                    crate::Opened::Ready(store) => store.digest(&mut |_| {}).map(|_| ()),
                    crate::Opened::Rebuild(reason) => panic!("{reason}"),
                },
            );
        match found {
            Err(ViewError::Damaged { file, .. }) => {
                assert_eq!(file.file_name(), table.file_name(), "{}", file.display());
            }
            other => panic!("{}: {other:?}", table.display()),
        }
    }
    open(directory.path(), &small());
}

#[test]
fn sizes_count_what_is_stored() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), &small());
    let day = 24 * HOUR_US;
    store.apply(&epoch(0, day, &[(2, 2, Some(0)), (2, 4, Some(0))])).unwrap();
    store.apply(&epoch(1, 2 * day, &[(2, 2, Some(0))])).unwrap();
    let size = store.view_size(view(2), 256).unwrap();
    // 9 + 9 bytes of key; nothing foretold; columns: 1 byte uint64, 3 bytes empty string.
    let (latest, version) = (18 + 17 + 4, 26 + 9 + 4);
    assert_eq!((size.keys, size.latest_bytes), (2, 2 * latest));
    assert_eq!((size.versions, size.history_bytes), (3, 3 * version));
    assert!((size.latest_bytes_per_key() - latest as f64).abs() < 1e-9);
    assert!((size.history_bytes_per_key_day() - 1.5 * version as f64).abs() < 1e-9);
    assert_eq!(store.view_size(view(0), 256).unwrap().history_bytes_per_key_day(), 0.0);
    store.flush().unwrap();
    let sizes = store.sizes().unwrap();
    assert!(sizes.families[0].disk_bytes > 0 && sizes.families[1].disk_bytes > 0);
    assert_eq!(sizes.families[0].estimated_entries, 3 - 1);
}

#[test]
fn a_crash_falls_back_to_the_last_flush_in_all_families_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), &crashing());
    let mut flushed = epoch(0, 10, &[(0, 1, Some(1))]);
    flushed.checkpoint = Some(vec![state(1, Some(1))]);
    store.apply(&flushed).unwrap();
    store.flush().unwrap();
    let at_flush = digest(&store);
    let mut lost = epoch(1, 20, &[(0, 1, Some(2)), (1, 2, Some(2))]);
    lost.checkpoint = Some(vec![state(1, None), state(2, Some(2))]);
    store.apply(&lost).unwrap();
    let at_crash = digest(&store);
    drop(store);
    let store = open(directory.path(), &crashing());
    let reached = StoreProgress { rows: Some(progress(0, 10)), operator: Some(progress(0, 10)) };
    assert_eq!(store.progress(), reached);
    assert_eq!(digest(&store), at_flush);
    store.apply(&lost).unwrap();
    assert_eq!(digest(&store), at_crash);
    // Dropped with flushing, the same store keeps everything.
    drop(store);
    let store = open(directory.path(), &small());
    store.apply(&lost).unwrap();
    drop(store);
    assert_eq!(digest(&open(directory.path(), &crashing())), at_crash);
}

#[test]
fn a_row_becomes_what_was_foretold_of_it_wherever_it_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), &small());
    let columns = |n: i64| encoding::encode_row(&[Value::Int(n), Value::Int(7)]);
    // Of key 2: 1, from 15 on 2, from 20 on 3; replaced at 30 by 4, from 35 on 5.
    let foretold = |changes: &[(i64, i64, i64)]| {
        let (mut bytes, mut telling) = (Vec::new(), Foretelling::new(9));
        for (time, before, after) in changes {
            telling.push(*time, &columns(*before), &columns(*after), &mut bytes);
        }
        bytes
    };
    let change = |n: i64, foretold: Vec<u8>| RowChange {
        view: view(1),
        key: key(2).into(),
        row: Some(ViewRow { latest_event_time: 9, columns: columns(n), foretold }),
    };
    let apply = |number, t, rows| {
        let changes = EpochChanges { epoch: number, t: LogTime(t), rows, checkpoint: None };
        store.apply(&changes).unwrap();
    };
    let expected = |t| match t {
        10..15 => 1,
        15..20 => 2,
        20..30 => 3,
        30..35 => 4,
        _ => 5,
    };
    let mut epochs = vec![];
    for (number, t) in [10, 14, 15, 19, 20, 29, 30, 34, 35, 50].into_iter().enumerate() {
        let rows = match t {
            10 => vec![change(1, foretold(&[(15, 1, 2), (20, 2, 3)]))],
            30 => vec![change(4, foretold(&[(35, 4, 5)]))],
            _ => vec![],
        };
        apply(number as u64, t, rows);
        epochs.push(t);
        let snapshot = store.snapshot().unwrap();
        let newest = columns(expected(t));
        assert_eq!(snapshot.get(view(1), &key(2)).unwrap().unwrap().columns, newest);
        let two = snapshot.multi_get(view(1), &[key(4), key(2)]).unwrap();
        assert_eq!(two[0], None);
        assert_eq!(two[1].as_ref().unwrap().columns, newest);
        assert_eq!(snapshot.scan(view(1), None, None, 9).unwrap()[0].row.columns, newest);
        for past in &epochs {
            let then = Some(LogTime(*past));
            let row = snapshot.get_as_of(view(1), &key(2), LogTime(*past)).unwrap().unwrap();
            assert_eq!(row.columns, columns(expected(*past)), "{past} at {t}");
            assert_eq!(row.latest_event_time, 9);
            assert_eq!(snapshot.scan(view(1), then, None, 9).unwrap()[0].row, row);
        }
    }
    let mut damaged = change(1, foretold(&[(60, 1, 2)]));
    damaged.row.as_mut().unwrap().foretold.pop();
    apply(10, 60, vec![damaged]);
    let error = store.snapshot().unwrap().get(view(1), &key(2)).unwrap_err();
    assert!(matches!(error, ViewError::Damaged { .. }), "{error}");
}
