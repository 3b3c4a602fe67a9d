//! What the tests share: small views, keys, epochs and stores in temporary directories.

use std::path::Path;

use falaj_event::{
    EpochChanges, Hash256, LogTime, RowChange, StateChange, ViewId, ViewRow, encoding,
    logical_partition,
};

use crate::{Opened, Options, RebuildReason, ViewMeta, ViewStore};

pub const HOUR_US: u64 = 3_600_000_000;
pub const PLAN: Hash256 = Hash256([5; 32]);

pub fn view(index: u8) -> ViewId {
    ViewId([index; 8])
}

/// Three views: short, longer and endless retention.
pub fn metas() -> Vec<ViewMeta> {
    [2 * HOUR_US, 30 * HOUR_US, u64::MAX]
        .into_iter()
        .enumerate()
        .map(|(index, retain_us)| ViewMeta {
            id: view(index as u8),
            name: format!("view_{index}"),
            retain_us,
        })
        .collect()
}

/// The canonical key of number `n`: an int for even, a string of varying length for odd numbers.
pub fn key(n: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if n.is_multiple_of(2) {
        encoding::encode_int(n as i64, &mut bytes);
    } else {
        encoding::encode_string(&"k".repeat(n as usize % 7), &mut bytes);
        encoding::encode_int(n as i64, &mut bytes);
    }
    bytes
}

pub fn row(payload: u64) -> ViewRow {
    let mut columns = Vec::new();
    encoding::encode_uint(payload, &mut columns);
    encoding::encode_string(&"x".repeat(payload as usize % 50), &mut columns);
    ViewRow { latest_event_time: payload as i64 - 1000, columns, foretold: Vec::new() }
}

/// An epoch with rows sorted as the engine sorts them; later duplicates of a key are dropped.
pub fn epoch(number: u64, t: u64, rows: &[(u8, u64, Option<u64>)]) -> EpochChanges {
    let mut rows: Vec<RowChange> = rows
        .iter()
        .map(|&(view_index, n, payload)| RowChange {
            view: view(view_index),
            key: key(n).into(),
            row: payload.map(row),
        })
        .collect();
    rows.sort_by(|a, b| (a.view, &a.key).cmp(&(b.view, &b.key)));
    rows.dedup_by(|a, b| a.view == b.view && a.key == b.key);
    EpochChanges { epoch: number, t: LogTime(t), rows, checkpoint: None }
}

pub fn state(n: u64, value: Option<u64>) -> StateChange {
    let name = key(n);
    let mut key = vec![logical_partition(&name)];
    key.extend(name);
    StateChange { key, value: value.map(|value| value.to_be_bytes().to_vec()) }
}

pub fn small() -> Options {
    Options { memtable_bytes: 1 << 20, block_cache_bytes: 1 << 20, ..Options::default() }
}

/// Options of a store that falls back when it is dropped.
pub fn crashing() -> Options {
    Options { flush_on_drop: false, ..small() }
}

pub fn open(path: &Path, options: &Options) -> ViewStore {
    match ViewStore::open(path, options, &metas(), PLAN).unwrap() {
        Opened::Ready(store) => *store,
        Opened::Rebuild(reason) => panic!("must be usable, but {reason}"),
    }
}

pub fn rebuild_reason(path: &Path, metas: &[ViewMeta], plan: Hash256) -> Option<RebuildReason> {
    match ViewStore::open(path, &small(), metas, plan).unwrap() {
        Opened::Ready(_) => None,
        Opened::Rebuild(reason) => Some(reason),
    }
}

impl ViewStore {
    /// Whether the newest row of a key is in the row cache.
    pub fn is_cached(&self, view: ViewId, key: &[u8]) -> bool {
        let mut name = Vec::new();
        crate::format::push_latest_key(view, key, &mut name);
        self.row_cache.get(&name, LogTime(u64::MAX), &mut Vec::new()).is_some()
    }
}

pub fn digest(store: &ViewStore) -> Hash256 {
    store.digest(&mut |_| {}).unwrap().digest
}
