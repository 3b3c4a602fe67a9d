//! The store against a model of ordered maps: random epochs, batchings, flushes, crashes.

use std::collections::BTreeMap;

use falaj_event::{EpochChanges, Hash256, LogTime, ViewId, logical_partition};
use proptest::prelude::*;

use super::kit::*;
use crate::{Options, Progress, RowRead, ViewError, ViewStore};

type Versions = BTreeMap<u64, Option<(i64, Vec<u8>)>>;

/// Every version of every row, by view, partition and key; nothing is ever folded.
#[derive(Default)]
struct Model {
    rows: BTreeMap<(ViewId, u8, Vec<u8>), Versions>,
    times: Vec<u64>,
}

impl Model {
    fn apply(&mut self, changes: &EpochChanges) {
        self.times.push(changes.t.0);
        for change in &changes.rows {
            let place = (change.view, logical_partition(&change.key), change.key.to_vec());
            let row = change.row.as_ref().map(|row| (row.latest_event_time, row.columns.clone()));
            self.rows.entry(place).or_default().insert(changes.t.0, row);
        }
    }

    fn row_at(versions: &Versions, t: u64) -> Option<RowRead> {
        let (at, row) = versions.range(..=t).next_back()?;
        row.as_ref().map(|(latest_event_time, columns)| RowRead {
            t: LogTime(*at),
            latest_event_time: *latest_event_time,
            columns: columns.clone(),
        })
    }

    fn rows_at(&self, view: ViewId, t: u64) -> Vec<(Vec<u8>, RowRead)> {
        self.rows
            .iter()
            .filter(|((of, ..), _)| *of == view)
            .filter_map(|((_, _, key), versions)| Some((key.clone(), Self::row_at(versions, t)?)))
            .collect()
    }

    /// What `history` should hold of a partition after its last fold with this cutoff.
    fn folded(versions: &Versions, cutoff: u64) -> Vec<u64> {
        let newest = versions.range(..=cutoff).next_back();
        let kept = newest.filter(|(_, row)| row.is_some()).map(|(t, _)| *t);
        kept.into_iter().chain(versions.range(cutoff + 1..).map(|(t, _)| *t)).collect()
    }
}

#[derive(Clone, Debug)]
struct Plan {
    epochs: Vec<EpochChanges>,
    actions: Vec<Action>,
    batch_bytes: usize,
}

#[derive(Clone, Debug)]
enum Action {
    Apply { count: usize, together: bool },
    Flush,
    Crash,
    Reopen,
}

fn epochs() -> impl Strategy<Value = Vec<EpochChanges>> {
    let step = prop_oneof![
        4 => 1_u64..50,
        4 => 1_000_000_u64..90_000_000,
        3 => HOUR_US / 5..HOUR_US * 2,
        1 => HOUR_US * 20..HOUR_US * 200,
    ];
    let rows =
        prop::collection::vec((0_u8..3, 0_u64..7, prop::option::weighted(0.8, 0_u64..9999)), 0..12);
    let entries = prop::collection::btree_map(0_u64..9, prop::option::of(any::<u64>()), 0..5);
    prop::collection::vec((step, rows, entries), 1..40).prop_map(|parts| {
        let mut t = 500 * HOUR_US;
        let build = |(number, (step, rows, entries)): (usize, (u64, Vec<_>, BTreeMap<u64, _>))| {
            t += step;
            let mut changes = epoch(number as u64, t, &rows);
            if number % 3 == 2 {
                let mut entries: Vec<_> =
                    entries.into_iter().map(|(n, value)| state(n, value)).collect();
                entries.sort_by(|a, b| a.key.cmp(&b.key));
                changes.checkpoint = Some(entries);
            }
            changes
        };
        parts.into_iter().enumerate().map(build).collect()
    })
}

fn plans() -> impl Strategy<Value = Plan> {
    let action = prop_oneof![
        6 => (1_usize..9, any::<bool>()).prop_map(|(count, together)| Action::Apply { count, together }),
        2 => Just(Action::Flush),
        1 => Just(Action::Crash),
        1 => Just(Action::Reopen),
    ];
    let batch_bytes = prop_oneof![Just(1_usize), Just(400), Just(4 << 20)];
    (epochs(), prop::collection::vec(action, 0..25), batch_bytes)
        .prop_map(|(epochs, actions, batch_bytes)| Plan { epochs, actions, batch_bytes })
}

/// The digest after each number of epochs, applied one by one without any restart.
fn reference(epochs: &[EpochChanges]) -> Vec<Hash256> {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), &small());
    let mut digests = vec![digest(&store)];
    for changes in epochs {
        store.apply(changes).unwrap();
        digests.push(digest(&store));
    }
    digests
}

/// Where the engine goes on after opening: behind the operator progress.
fn resume(store: &ViewStore) -> usize {
    store.progress().operator.map_or(0, |at| at.epoch as usize + 1)
}

fn applied(store: &ViewStore) -> usize {
    store.progress().rows.map_or(0, |at| at.epoch as usize + 1)
}

fn reopen(path: &std::path::Path, options: &Options, store: ViewStore) -> ViewStore {
    drop(store);
    open(path, options)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 300, ..ProptestConfig::default() })]

    /// Batching, restarts and crashes never show: after any of them the store is the exact image of
    /// some epoch, and in the end it equals the store that met none.
    #[test]
    fn contents_do_not_depend_on_batching_restarts_or_crashes(plan in plans()) {
        let digests = reference(&plan.epochs);
        let directory = tempfile::tempdir().unwrap();
        let options = Options { batch_bytes: plan.batch_bytes, ..crashing() };
        let mut store = open(directory.path(), &options);
        let mut next = 0;
        let mut flushed = 0;
        for action in &plan.actions {
            match action {
                Action::Apply { count, together } => {
                    let end = (next + count).min(plan.epochs.len());
                    let part = &plan.epochs[next..end];
                    if *together {
                        store.apply_all(part).unwrap();
                    } else {
                        for changes in part {
                            store.apply(changes).unwrap();
                        }
                    }
                    next = end;
                }
                Action::Flush => {
                    store.flush().unwrap();
                    flushed = applied(&store);
                }
                Action::Crash => {
                    let before = applied(&store);
                    store = reopen(directory.path(), &options, store);
                    prop_assert!((flushed..=before).contains(&applied(&store)));
                    next = resume(&store);
                }
                Action::Reopen => {
                    let before = applied(&store);
                    store.close().unwrap();
                    store = open(directory.path(), &options);
                    flushed = before;
                    prop_assert_eq!(applied(&store), before);
                    next = resume(&store);
                }
            }
            if next >= applied(&store) {
                prop_assert_eq!(digest(&store), digests[applied(&store)]);
            }
            prop_assert!(next <= applied(&store));
        }
        store.apply_all(&plan.epochs[next..]).unwrap();
        prop_assert_eq!(Some(&digest(&store)), digests.last());
    }

    /// Every read at every retained `T` equals the model, at each epoch.
    #[test]
    fn reads_equal_the_model(epochs in epochs(), together in 1_usize..6) {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path(), &small());
        let mut model = Model::default();
        for part in epochs.chunks(together) {
            for changes in part {
                model.apply(changes);
            }
            store.apply_all(part).unwrap();
            store.flush().unwrap();
            check_reads(&store, &model);
        }
    }

    /// History holds exactly what the last fold of each partition leaves.
    #[test]
    fn history_is_folded_as_documented(epochs in epochs()) {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path(), &small());
        let mut model = Model::default();
        for changes in &epochs {
            model.apply(changes);
        }
        store.apply_all(&epochs).unwrap();
        for ((view, partition, key), versions) in &model.rows {
            let retain = metas().iter().find(|meta| meta.id == *view).unwrap().retain_us;
            let slot = (retain / 16).max(HOUR_US).div_ceil(256);
            // The fold of a partition: at each step that leaves a slot whose number is, modulo 256,
            // 255 minus the partition.
            let cutoff = model.times.windows(2).rev().find_map(|step| {
                let last = step[1] / slot;
                let due = (step[0] / slot..last)
                    .take(256)
                    .any(|slot| 255 - slot % 256 == u64::from(*partition));
                (due && step[0] > retain).then(|| step[0] - retain)
            });
            let expected = match cutoff {
                Some(cutoff) => Model::folded(versions, cutoff),
                None => versions.keys().copied().collect(),
            };
            prop_assert_eq!(stored_versions(&store, *view, key), expected);
        }
    }
}

/// The times of all stored versions of a key, oldest first, as they lie in `history`.
fn stored_versions(store: &ViewStore, view: ViewId, key: &[u8]) -> Vec<u64> {
    let mut name = Vec::new();
    crate::format::push_latest_key(view, key, &mut name);
    let family = store.family(crate::Family::History).unwrap();
    let mut times: Vec<u64> = store
        .db
        .full_iterator_cf(family, rocksdb::IteratorMode::Start)
        .map(|entry| entry.unwrap().0)
        .filter_map(|stored| {
            let (found, t) = crate::format::split_history_key(&stored)?;
            (found == name).then_some(t.0)
        })
        .collect();
    times.reverse();
    times
}

fn check_reads(store: &ViewStore, model: &Model) {
    let snapshot = store.snapshot().unwrap();
    let newest = *model.times.last().unwrap();
    let progress = Progress { epoch: model.times.len() as u64 - 1, t: LogTime(newest) };
    assert_eq!(snapshot.progress(), Some(progress));
    for meta in metas() {
        let oldest = newest.saturating_sub(meta.retain_us);
        assert_eq!(snapshot.oldest(meta.id).unwrap(), LogTime(oldest));
        let keys: Vec<Vec<u8>> = (0..8).map(key).collect();
        let none = Versions::new();
        let versions = |key: &Vec<u8>| {
            model.rows.get(&(meta.id, logical_partition(key), key.clone())).unwrap_or(&none)
        };
        let expected: Vec<_> =
            keys.iter().map(|key| Model::row_at(versions(key), newest)).collect();
        assert_eq!(snapshot.multi_get(meta.id, &keys).unwrap(), expected);
        for (key, row) in keys.iter().zip(expected) {
            assert_eq!(snapshot.get(meta.id, key).unwrap(), row);
        }
        // At every retained epoch, just before it, and at the oldest readable time.
        let mut times: Vec<u64> = model.times.iter().flat_map(|t| [*t, t - 1]).collect();
        times.push(oldest);
        times.retain(|t| *t >= oldest);
        for t in times {
            let expected: Vec<_> = keys.iter().map(|key| Model::row_at(versions(key), t)).collect();
            let at = LogTime(t);
            assert_eq!(snapshot.multi_get_as_of(meta.id, &keys, at).unwrap(), expected, "at {t}");
            let scanned: Vec<_> = snapshot
                .scan(meta.id, Some(at), None, usize::MAX)
                .unwrap()
                .into_iter()
                .map(|found| (found.key, found.row))
                .collect();
            assert_eq!(scanned, model.rows_at(meta.id, t), "at {t}");
        }
        check_paging(store, model, meta.id, oldest, newest);
        let too_old = LogTime(oldest.wrapping_sub(1));
        match snapshot.get_as_of(meta.id, &keys[0], too_old) {
            Err(ViewError::NotRetained { oldest: named, .. }) => assert_eq!(named.0, oldest),
            Err(ViewError::NotYet { .. }) => assert_eq!(oldest, 0),
            other => panic!("{other:?}"),
        }
        let beyond = snapshot.get_as_of(meta.id, &keys[0], LogTime(newest + 1));
        assert!(matches!(beyond, Err(ViewError::NotYet { .. })));
        for key in &keys {
            let found = snapshot.versions(meta.id, key, LogTime(newest)).unwrap();
            let times: Vec<u64> = found.iter().map(|version| version.t.0).collect();
            let all = versions(key);
            let expected: Vec<u64> = all.range(oldest + 1..).map(|(t, _)| *t).rev().collect();
            assert_eq!(times[..expected.len()], expected);
            assert!(times.len() <= expected.len() + 1);
        }
    }
}

/// Pages of any size put together are the whole scan, now and in the past.
fn check_paging(store: &ViewStore, model: &Model, view: ViewId, oldest: u64, newest: u64) {
    let snapshot = store.snapshot().unwrap();
    for (as_of, t) in [(None, newest), (Some(LogTime(oldest)), oldest)] {
        let expected = model.rows_at(view, t);
        for limit in [1, 3] {
            let mut found = Vec::new();
            loop {
                let after = found.last().map(|(key, _): &(Vec<u8>, _)| key.clone());
                let page = snapshot.scan(view, as_of, after.as_deref(), limit).unwrap();
                assert!(page.len() <= limit);
                if page.is_empty() {
                    break;
                }
                found.extend(page.into_iter().map(|found| (found.key, found.row)));
            }
            assert_eq!(found, expected);
        }
        assert_eq!(snapshot.scan(view, as_of, None, 0).unwrap(), []);
    }
}
