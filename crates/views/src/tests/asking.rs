//! Readers that ask for the same keys again and again while epochs are written: with a row cache that
//! holds all of them, one that holds few, and none, each answer is that of its snapshot's `T`.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use falaj_event::LogTime;

use super::kit::*;
use crate::{Options, RowRead, ViewStore};

const KEYS: u64 = 60;
const EPOCHS: u64 = 1_500;

fn t_of(epoch: u64) -> u64 {
    10 * (epoch + 1)
}

/// What an epoch does to a key, if anything: the payload that it sets, or a removal.
fn change(epoch: u64, key: u64) -> Option<Option<u64>> {
    let changes = epoch.is_multiple_of(key % 7 + 1);
    changes.then(|| (epoch % 11 != key % 11).then_some(epoch * 100 + key))
}

fn expected(epoch: u64, key: u64) -> Option<RowRead> {
    let set = (0..=epoch).rev().find(|epoch| change(*epoch, key).is_some())?;
    let row = row(change(set, key)??);
    let (t, latest_event_time) = (LogTime(t_of(set)), row.latest_event_time);
    Some(RowRead { t, latest_event_time, columns: row.columns })
}

fn write(store: &ViewStore) {
    let epochs: Vec<_> = (0..EPOCHS)
        .map(|number| {
            let rows: Vec<_> = (0..KEYS)
                .filter_map(|key| change(number, key).map(|payload| (2, key, payload)))
                .collect();
            epoch(number, t_of(number), &rows)
        })
        .collect();
    // One by one and several at once, as in a rebuild.
    for (index, some) in epochs.chunks(50).enumerate() {
        match index % 2 {
            0 => some.iter().for_each(|epoch| assert!(store.apply(epoch).is_ok())),
            _ => assert!(store.apply_all(some).is_ok()),
        }
    }
}

/// Asks until the writer is done and once more; returns how many rows were compared.
fn ask(store: &ViewStore, done: &AtomicBool, mut dice: u64) -> usize {
    let mut roll = |sides: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % sides
    };
    let mut compared = 0;
    loop {
        let last = done.load(Ordering::SeqCst);
        let snapshot = store.snapshot().unwrap();
        // Some snapshots are asked again when the store has gone on.
        for _ in 0..1 + roll(20) {
            let Some(at) = snapshot.progress() else { break };
            let keys: Vec<u64> = (0..1 + roll(8)).map(|_| roll(KEYS)).collect();
            let names: Vec<Vec<u8>> = keys.iter().map(|n| key(*n)).collect();
            let past = at.epoch - roll(at.epoch.min(3) + 1);
            let now = snapshot.multi_get(view(2), &names).unwrap();
            let then = snapshot.multi_get_as_of(view(2), &names, LogTime(t_of(past))).unwrap();
            for (index, key) in keys.into_iter().enumerate() {
                assert_eq!(now[index], expected(at.epoch, key), "{key} at {}", at.epoch);
                assert_eq!(then[index], expected(past, key), "{key} as of {past}");
                compared += 2;
            }
        }
        if last {
            return compared;
        }
    }
}

#[test]
fn every_answer_is_of_its_snapshot() {
    for row_cache_bytes in [1 << 20, 64 * 2 * 500, 0] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path(), &Options { row_cache_bytes, ..small() });
        let (done, compared) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for dice in 1..=2 {
                let (store, done, compared) = (&store, &done, &compared);
                scope.spawn(move || {
                    compared.fetch_add(ask(store, done, dice), Ordering::SeqCst);
                });
            }
            write(&store);
            done.store(true, Ordering::SeqCst);
        });
        assert!(compared.into_inner() > 1_000);
        let held = (0..KEYS).filter(|n| store.is_cached(view(2), &key(*n))).count();
        match row_cache_bytes {
            0 => assert_eq!(held, 0),
            _ => assert!(held > 0),
        }
    }
}
