//! How fast rows are written and read: run by hand, with figures on standard output.
//!
//! `FALAJ_MEASURE=1 cargo test --release -p falaj-views throughput -- --nocapture`

use std::time::Instant;

use falaj_event::{EpochChanges, LogTime, RowChange, ViewRow, encoding};

use super::kit::*;
use crate::{Options, ViewStore};

const KEYS: u64 = 100_000;
const T0: u64 = 500 * HOUR_US;

/// CPU seconds of this process over all threads, from `/proc`; 10 ms steps.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn key_of(n: u64) -> Vec<u8> {
    let mut key = Vec::new();
    encoding::encode_int((n % KEYS) as i64, &mut key);
    key
}

/// An epoch of `rows` rows of 15 numeric columns (135 bytes) over uniformly drawn keys.
fn epoch_of(number: u64, rows: u64, view_index: u8) -> EpochChanges {
    let mut columns = Vec::new();
    let mut rows: Vec<RowChange> = (0..rows)
        .map(|n| {
            let seed = mix(number * rows + n);
            columns.clear();
            for column in 0..15 {
                encoding::encode_f64((mix(seed + column) % 100_000) as f64 / 100.0, &mut columns);
            }
            let columns = columns.clone();
            let latest_event_time = (T0 + number) as i64;
            let row = ViewRow { latest_event_time, columns, foretold: Vec::new() };
            RowChange { view: view(view_index), key: key_of(seed).into(), row: Some(row) }
        })
        .collect();
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    rows.dedup_by(|a, b| a.key == b.key);
    EpochChanges { epoch: number, t: LogTime(T0 + number * 50_000), rows, checkpoint: None }
}

fn measure_writes(name: &str, rows_per_epoch: u64, together: usize, total: u64, options: &Options) {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), options);
    let (mut cpu, mut wall, mut rows, mut slowest) = (0.0, 0.0, 0, 0.0_f64);
    let mut number = 0;
    while rows < total {
        let part: Vec<_> =
            (0..together as u64).map(|n| epoch_of(number + n, rows_per_epoch, 0)).collect();
        number += together as u64;
        rows += part.iter().map(|changes| changes.rows.len() as u64).sum::<u64>();
        let before = (cpu_seconds(), Instant::now());
        store.apply_all(&part).unwrap();
        let took = before.1.elapsed().as_secs_f64();
        cpu += cpu_seconds() - before.0;
        wall += took;
        slowest = slowest.max(took);
    }
    let before = (cpu_seconds(), Instant::now());
    store.flush().unwrap();
    store.db.wait_for_compact(&rocksdb::WaitForCompactOptions::default()).unwrap();
    let rest = (cpu_seconds() - before.0, before.1.elapsed().as_secs_f64());
    let sizes = store.sizes().unwrap();
    let disk: u64 = sizes.families.iter().map(|family| family.disk_bytes).sum();
    println!(
        "{name}: {rows} rows of {rows_per_epoch} per epoch, {together} together: {:.0} rows/s wall, \
         {:.0} rows/s per core of CPU in apply and background ({:.2} us each); with the last flush \
         and compactions {:.0}; slowest apply {:.1} ms; {:.0} disk bytes per row",
        rows as f64 / wall,
        rows as f64 / cpu,
        cpu / rows as f64 * 1e6,
        rows as f64 / (cpu + rest.0),
        slowest * 1e3,
        disk as f64 / rows as f64,
    );
    measure_reads(&store);
}

fn measure_reads(store: &ViewStore) {
    let snapshot = store.snapshot().unwrap();
    let rounds = 2_000;
    let mut keys: Vec<Vec<Vec<u8>>> = Vec::new();
    for round in 0..rounds {
        keys.push((0..100).map(|n| key_of(mix(round * 1_000 + n))).collect());
    }
    let timed = |name: &str, calls: u64, per_call: u64, read: &mut dyn FnMut(usize)| {
        let mut times: Vec<f64> = Vec::new();
        for call in 0..calls {
            let start = Instant::now();
            read(call as usize);
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times[(part * (times.len() - 1) as f64) as usize];
        println!(
            "  {name}: p50 {:.1} us, p99 {:.1} us, {:.2} us per key",
            at(0.5),
            at(0.99),
            at(0.5) / per_call as f64
        );
    };
    timed("snapshot + get of 1", rounds, 1, &mut |n| {
        let snapshot = store.snapshot().unwrap();
        std::hint::black_box(snapshot.get(view(0), &keys[n][0]).unwrap());
    });
    timed("multi_get of 100", rounds, 100, &mut |n| {
        std::hint::black_box(snapshot.multi_get(view(0), &keys[n]).unwrap());
    });
    let t = snapshot.t().unwrap();
    let past = LogTime(T0 + (t.0 - T0) / 2);
    timed("multi_get_as_of of 100, half way back", 200, 100, &mut |n| {
        std::hint::black_box(snapshot.multi_get_as_of(view(0), &keys[n], past).unwrap());
    });
    let start = Instant::now();
    let now = snapshot.scan_with(view(0), None, None, usize::MAX, |_, _| {}).unwrap();
    let newest = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let then = snapshot.scan_with(view(0), Some(past), None, usize::MAX, |_, _| {}).unwrap();
    println!(
        "  scan: {:.0} rows/s; as of half way back: {:.0} rows/s",
        now as f64 / newest,
        then as f64 / start.elapsed().as_secs_f64()
    );
    let start = Instant::now();
    let digest = store.digest(&mut |_| {}).unwrap();
    let entries: u64 = digest.families.iter().map(|family| family.entries).sum();
    let bytes: u64 = digest.families.iter().map(|family| family.bytes).sum();
    let took = start.elapsed().as_secs_f64();
    println!(
        "  digest: {:.0} entries/s, {:.0} MB/s",
        entries as f64 / took,
        bytes as f64 / took / 1e6
    );
}

#[test]
fn throughput() {
    if std::env::var_os("FALAJ_MEASURE").is_none() {
        return;
    }
    let total = std::env::var("FALAJ_ROWS").map_or(1_000_000, |text| text.parse().unwrap());
    let memtables = std::env::var("FALAJ_MEMTABLES").unwrap_or("64".into());
    for megabytes in memtables.split(',') {
        let options = Options {
            memtable_bytes: megabytes.parse::<usize>().unwrap() << 20,
            ..Options::default()
        };
        let name = format!("memtables {megabytes} MiB");
        measure_writes(&name, 1_000, 1, total, &options);
        measure_writes(&name, 10_000, 1, total, &options);
        measure_writes(&name, 100, 50, total, &options);
    }
}
