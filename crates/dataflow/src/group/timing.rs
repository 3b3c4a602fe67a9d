//! What an event costs, beside a hand-written operator for the same five aggregates and windows:
//! `FALAJ_TIMING=hops cargo test --release -p falaj-dataflow timing -- --nocapture`
//! (or `int64`, `float64`, `exact`: those whose name contains it).

use std::collections::{BTreeMap, HashMap, VecDeque};

use falaj_definitions::plan::{AggregateCall, AggregateFunction, Frame};
use falaj_event::encoding::{encode_f64, encode_int};
use falaj_event::{ColumnType, EventOrder, LogTime};

use super::{Given, GroupCore, GroupPlan};

const SECOND: u64 = 1_000_000;
const WINDOWS: [(u64, u64); 3] = [
    (300 * SECOND, 10 * SECOND),
    (3_600 * SECOND, 120 * SECOND),
    (86_400 * SECOND, 3_600 * SECOND),
];
const KEYS: u64 = 100_000;
const LOADED: u64 = 1_800_000;
const MEASURED: u64 = 300_000;
const BATCH: u64 = 1_000;
const SPACING_US: u64 = SECOND / 20;

fn mix(number: u64) -> u64 {
    let mixed = (number ^ number >> 31).wrapping_mul(0x7fb5_d329_728e_a185);
    (mixed ^ mixed >> 27).wrapping_mul(0x81da_def4_bc2d_d44d) >> 16
}

/// Nanoseconds that this thread has run.
fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

fn plan(input_type: &ColumnType, exact: bool, foretells: bool) -> GroupPlan {
    let float = *input_type == ColumnType::Float64;
    let sum =
        if float { ColumnType::Float64 } else { ColumnType::Decimal { precision: 38, scale: 0 } };
    let mut aggregates = Vec::new();
    for (preceding_us, hop_us) in WINDOWS {
        for (function, output_type) in [
            (AggregateFunction::Count, ColumnType::Int64),
            (AggregateFunction::Sum, sum.clone()),
            (AggregateFunction::Avg, ColumnType::Float64),
            (AggregateFunction::Min, input_type.clone()),
            (AggregateFunction::Max, input_type.clone()),
        ] {
            aggregates.push(AggregateCall {
                function,
                input: Some(0),
                input_type: input_type.clone(),
                filter: None,
                frame: Frame::Range { preceding_us, hop_us: if exact { 1 } else { hop_us } },
                output_type,
            });
        }
    }
    GroupPlan { bare: vec![], aggregates, retractable: false, horizon_us: None, foretells }
}

fn measure(name: &str, mut step: impl FnMut(u64, &[(u64, i64)]) -> usize) -> f64 {
    let (mut rows, mut begun) = (0, 0);
    for batch in 0..(LOADED + MEASURED) / BATCH {
        if batch * BATCH == LOADED {
            (rows, begun) = (0, cpu_ns());
        }
        let events: Vec<(u64, i64)> = (0..BATCH)
            .map(|index| mix(batch * BATCH + index))
            .map(|roll| (roll % KEYS, (roll >> 20) as i64 % 100_000))
            .collect();
        rows += step((batch + 1) * BATCH * SPACING_US, &events);
    }
    let cost = (cpu_ns() - begun) as f64 / MEASURED as f64 / 1000.0;
    println!("{name:24} {cost:6.2} µs/event  {:.2} rows/event", rows as f64 / MEASURED as f64);
    cost
}

fn interpreted(name: &str, input_type: &ColumnType, exact: bool, foretells: bool) -> f64 {
    let mut core = GroupCore::new(plan(input_type, exact, foretells), b"timing");
    let (mut key, mut cells, mut offset) = (Vec::new(), Vec::new(), 0);
    let cost = measure(name, |t, events| {
        let keys: Vec<Vec<u8>> = events
            .iter()
            .map(|(id, _)| {
                let mut key = Vec::new();
                encode_int(*id as i64, &mut key);
                key
            })
            .collect();
        core.expect(keys.iter().map(Vec::as_slice));
        for (index, (id, value)) in events.iter().enumerate() {
            key.clear();
            cells.clear();
            encode_int(*id as i64, &mut key);
            match input_type {
                ColumnType::Float64 => encode_f64(*value as f64 / 100.0, &mut cells),
                _ => encode_int(*value, &mut cells),
            }
            offset += 1;
            let event_time = (t - (BATCH - 1 - index as u64) * SPACING_US) as i64;
            let order = EventOrder { event_time, t: LogTime(t), partition: 0, offset };
            core.update(&key, order, &cells, 1).unwrap();
        }
        let mut rows = 0;
        core.advance_each(LogTime(t), |key, given| {
            rows += usize::from(matches!(given, Given::Row(..)));
            std::hint::black_box((key, given));
        });
        rows
    });
    let stats = core.stats();
    println!(
        "{:24} {} keys, {} tiles, {} bytes per key",
        "",
        stats.keys,
        stats.tiles,
        stats.bytes / stats.keys
    );
    cost
}

#[derive(Clone, Copy)]
struct Five {
    count: u64,
    sum: i128,
    min: i64,
    max: i64,
}

const NONE: Five = Five { count: 0, sum: 0, min: i64::MAX, max: i64::MIN };

impl Five {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }
}

#[derive(Default)]
struct ByHand {
    rings: [VecDeque<(u64, Five)>; 3],
    totals: [Option<Five>; 3],
    touched: u64,
}

/// The same by hand: types, windows and functions known to the compiler; rows are plain structs.
fn by_hand() -> f64 {
    let mut keys: HashMap<u64, ByHand> = HashMap::new();
    let mut wheel: BTreeMap<u64, Vec<(u64, usize)>> = BTreeMap::new();
    measure("by hand (integers)", |t, events| {
        let mut touched = Vec::new();
        while let Some(entry) = wheel.first_entry().filter(|entry| *entry.key() <= t) {
            for (id, window) in entry.remove() {
                let state = keys.get_mut(&id).unwrap();
                let (ring, total) = (&mut state.rings[window], &mut state.totals[window]);
                let total = total.get_or_insert(NONE);
                let mut again = false;
                while let Some((tile, five)) = ring.front() {
                    let (length, hop) = WINDOWS[window];
                    if (tile + 1) * hop + length > t {
                        break;
                    }
                    total.count -= five.count;
                    total.sum -= five.sum;
                    again |= five.min <= total.min || five.max >= total.max;
                    ring.pop_front();
                }
                if again {
                    (total.min, total.max) =
                        ring.iter().fold((i64::MAX, i64::MIN), |(min, max), (_, five)| {
                            (min.min(five.min), max.max(five.max))
                        });
                }
                if state.touched != t {
                    state.touched = t;
                    touched.push(id);
                }
            }
        }
        for (index, (id, value)) in events.iter().enumerate() {
            let event_time = t - (BATCH - 1 - index as u64) * SPACING_US;
            let state = keys.entry(*id).or_default();
            let one = Five { count: 1, sum: i128::from(*value), min: *value, max: *value };
            for (window, (length, hop)) in WINDOWS.iter().enumerate() {
                let (tile, ring) = (event_time / hop, &mut state.rings[window]);
                match ring.back_mut() {
                    Some((last, five)) if *last == tile => five.add(&one),
                    _ => {
                        ring.push_back((tile, one));
                        wheel.entry((tile + 1) * hop + length).or_default().push((*id, window));
                    }
                }
                state.totals[window].get_or_insert(NONE).add(&one);
            }
            if state.touched != t {
                state.touched = t;
                touched.push(*id);
            }
        }
        touched.sort_unstable();
        let rows: Vec<(u64, [Option<Five>; 3])> =
            touched.iter().map(|id| (*id, keys[id].totals)).collect();
        std::hint::black_box(&rows).len()
    })
}

#[test]
fn timing() {
    if std::env::var_os("FALAJ_TIMING").is_none() {
        return;
    }
    let base = by_hand();
    for (name, input_type, exact, foretells) in [
        ("int64, hops, foretold", ColumnType::Int64, false, true),
        ("int64, hops", ColumnType::Int64, false, false),
        ("float64, hops", ColumnType::Float64, false, false),
        ("int64, exact", ColumnType::Int64, true, false),
    ] {
        if std::env::var("FALAJ_TIMING").is_ok_and(|wanted| !name.contains(&wanted)) {
            continue;
        }
        let cost = interpreted(name, &input_type, exact, foretells);
        println!("{:24} {:.2}x the operator by hand", "", cost / base);
    }
}
