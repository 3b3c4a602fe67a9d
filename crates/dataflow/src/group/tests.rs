//! The operator against the naive recomputation of every row at every `T`, bit for bit.

use std::collections::BTreeMap;

use falaj_definitions::plan::{AggregateCall, AggregateFunction, Frame};
use falaj_event::encoding::encode_row;
use falaj_event::{ColumnType, StateChange, Value, logical_partition};
use proptest::prelude::*;

use super::naive::{self, NaiveEvent};
use super::*;

/// A generator of its own, so that a failing case is one number.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.roll(choices.len() as u64) as usize].clone()
    }
}

const MONEY: ColumnType = ColumnType::Decimal { precision: 12, scale: 2 };
const WIDE: ColumnType = ColumnType::Decimal { precision: 38, scale: 6 };

fn columns() -> Vec<ColumnType> {
    vec![
        ColumnType::Bool,
        ColumnType::Int64,
        ColumnType::UInt32,
        ColumnType::Float64,
        ColumnType::Float32,
        MONEY,
        WIDE,
        ColumnType::String,
        ColumnType::Date,
        ColumnType::Timestamp,
        ColumnType::Bool,
    ]
}

fn value(dice: &mut Dice, column_type: &ColumnType) -> Value {
    if dice.chance(10) {
        return Value::Null;
    }
    if dice.chance(1) {
        return Value::Error;
    }
    let small = dice.roll(9) as i64 - 4;
    match column_type {
        ColumnType::Bool => Value::Bool(dice.chance(60)),
        ColumnType::Int64 if dice.chance(5) => Value::Int(dice.of(&[i64::MIN, i64::MAX])),
        ColumnType::Int64 => Value::Int(small),
        ColumnType::UInt32 => Value::UInt(small.unsigned_abs()),
        ColumnType::Float64 if dice.chance(2) => {
            Value::Float64(dice.of(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]))
        }
        ColumnType::Float64 => Value::Float64(
            dice.of(&[0.1, 0.2, -0.3, 1e16, -1e16, 1e-300, 5e-324, 1e300, -0.0, 0.0, 12.34, 3.0]),
        ),
        ColumnType::Float32 => Value::Float32(dice.of(&[0.1f32, -2.5, 1e30, 1e-40, 7.0])),
        ColumnType::Decimal { precision: 38, .. } if dice.chance(20) => {
            Value::Decimal(dice.of(&[10i128.pow(38) - 1, 1 - 10i128.pow(38)]), 6)
        }
        ColumnType::Decimal { scale, .. } => Value::Decimal(i128::from(small) * 37, *scale),
        ColumnType::Date => Value::Date(small as i32),
        ColumnType::Timestamp => Value::Timestamp(small),
        _ => Value::String(dice.of(&["", "a", "b\0c", "zebra", "zebra\u{1F993}"]).into()),
    }
}

fn function(dice: &mut Dice, input: &ColumnType) -> AggregateFunction {
    let n = dice.roll(4) as u32 + 1;
    let sample = dice.chance(50);
    let mut choices = vec![
        AggregateFunction::Count,
        AggregateFunction::CountDistinct,
        AggregateFunction::Min,
        AggregateFunction::Max,
        AggregateFunction::First,
        AggregateFunction::Last,
        AggregateFunction::LastN(n),
        AggregateFunction::TopN(n),
        AggregateFunction::ApproxDistinct,
    ];
    match input {
        ColumnType::Bool => choices.extend([AggregateFunction::BoolAnd, AggregateFunction::BoolOr]),
        ColumnType::String | ColumnType::Date | ColumnType::Timestamp => {}
        _ => choices.extend([
            AggregateFunction::Sum,
            AggregateFunction::Avg,
            AggregateFunction::Sum,
            AggregateFunction::Avg,
            AggregateFunction::Variance { sample },
            AggregateFunction::Stddev { sample },
            AggregateFunction::ApproxQuantile(dice.of(&[0.0, 0.25, 0.5, 0.99, 1.0])),
        ]),
    }
    dice.of(&choices)
}

fn output_type(function: AggregateFunction, input: &ColumnType) -> ColumnType {
    let float = matches!(input, ColumnType::Float32 | ColumnType::Float64);
    match (function, input) {
        (AggregateFunction::Sum | AggregateFunction::Avg, _) if float => ColumnType::Float64,
        (AggregateFunction::Sum, ColumnType::Decimal { scale, .. }) => {
            ColumnType::Decimal { precision: 38, scale: *scale }
        }
        (AggregateFunction::Sum, _) => ColumnType::Decimal { precision: 38, scale: 0 },
        (AggregateFunction::Avg, ColumnType::Decimal { precision, scale }) => {
            ColumnType::Decimal { precision: (precision + 4).min(38), scale: (scale + 4).min(38) }
        }
        (AggregateFunction::Avg, _) => ColumnType::Float64,
        // Nothing else is decided by the output type.
        _ => input.clone(),
    }
}

/// A random plan over `columns()`.
fn plan(dice: &mut Dice, retractable: bool) -> GroupPlan {
    let types = columns();
    let ranges_only = dice.chance(60);
    let frame = |dice: &mut Dice| match dice.roll(if ranges_only { 6 } else { 8 }) {
        6 => Frame::Lifetime,
        7 => Frame::Rows { preceding: dice.roll(4) },
        _ => Frame::Range {
            preceding_us: dice.of(&[0, 1, 7, 30, 31, 100]),
            hop_us: dice.of(&[1, 1, 7, 10, 60]),
        },
    };
    let mut aggregates: Vec<AggregateCall> = (0..dice.roll(7) + 1)
        .map(|_| {
            let column = dice.roll(types.len() as u64 - 1) as usize;
            let function = function(dice, &types[column]);
            AggregateCall {
                function,
                input: Some(column),
                input_type: types[column].clone(),
                filter: dice.chance(30).then_some(types.len() - 1),
                frame: frame(dice),
                output_type: output_type(function, &types[column]),
            }
        })
        .collect();
    aggregates.push(AggregateCall {
        function: AggregateFunction::CountRows,
        input: None,
        input_type: ColumnType::Bool,
        filter: dice.chance(30).then_some(types.len() - 1),
        frame: frame(dice),
        output_type: ColumnType::Int64,
    });
    let bare = if ranges_only { vec![] } else { vec![7, 3] };
    let longest = aggregates.iter().map(|call| match call.frame {
        Frame::Range { preceding_us, hop_us } => Some(preceding_us + hop_us),
        _ => None,
    });
    let horizon_us = longest.collect::<Option<Vec<u64>>>().and_then(|all| all.into_iter().max());
    let horizon_us = horizon_us.filter(|_| retractable && ranges_only);
    GroupPlan { bare, aggregates, retractable, horizon_us, foretells: dice.chance(60) }
}

const PREFIX: &[u8] = b"Gview";

/// An operator with the store that its checkpoints go to.
struct Stored {
    core: GroupCore,
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Stored {
    fn new(plan: &GroupPlan) -> Self {
        Self { core: GroupCore::new(plan.clone(), PREFIX), entries: BTreeMap::new() }
    }

    fn checkpoint(&mut self) {
        let changes = self.core.checkpoint();
        assert!(changes.is_sorted_by(|a, b| a.key < b.key));
        for StateChange { key, value } in changes {
            assert_eq!(&key[1..1 + PREFIX.len()], PREFIX);
            match value {
                Some(value) => self.entries.insert(key, value),
                None => self.entries.remove(&key),
            };
        }
    }
}

/// A row, and what was foretold of it.
type Told = (GroupRow, Vec<(EventTime, Vec<Value>)>);

/// One run: the naive events, the operator, one that restarts, one that never wrote before the end.
struct Run {
    dice: Dice,
    plan: GroupPlan,
    now: i64,
    offset: u64,
    events: BTreeMap<Vec<u8>, Vec<NaiveEvent>>,
    /// Given since the last step: what is taken back before it is visible never was.
    fresh: Vec<(Vec<u8>, NaiveEvent)>,
    steady: Stored,
    restarted: Stored,
    lazy: Stored,
    /// The rows given out, with what was foretold of them.
    table: BTreeMap<Vec<u8>, Told>,
    invalid: u64,
}

impl Run {
    fn new(seed: u64, retractable: bool) -> Self {
        let mut dice = Dice(seed | 1);
        let plan = plan(&mut dice, retractable);
        Self {
            steady: Stored::new(&plan),
            restarted: Stored::new(&plan),
            lazy: Stored::new(&plan),
            now: dice.roll(300) as i64,
            dice,
            plan,
            offset: 0,
            events: BTreeMap::new(),
            fresh: Vec::new(),
            table: BTreeMap::new(),
            invalid: 0,
        }
    }

    fn give(&mut self, key: &[u8], event: &NaiveEvent, diff: isize) {
        let cells = encode_row(&event.1);
        for _ in 0..diff {
            self.fresh.push((key.to_vec(), event.clone()));
        }
        for stored in [&mut self.steady, &mut self.restarted, &mut self.lazy] {
            stored.core.update(key, event.0, &cells, diff).unwrap();
        }
    }

    fn past_horizon(&self, event: &NaiveEvent) -> bool {
        self.plan.horizon_us.is_some_and(|h| event.0.event_time + h as i64 <= self.now)
    }

    fn insert(&mut self) {
        let key = encode_row([&Value::Int(self.dice.roll(3) as i64), &Value::String("k\0".into())]);
        let back = self.dice.of(&[0, 0, 1, 5, 30, 100, 400]);
        let event_time = self.now - self.dice.roll(back + 1) as i64;
        self.offset += 1;
        let order = EventOrder {
            event_time,
            t: LogTime(self.now as u64),
            partition: self.dice.roll(2) as u32,
            offset: self.offset,
        };
        let types = columns();
        let cells: Vec<Value> =
            self.plan.cells().iter().map(|column| value(&mut self.dice, &types[*column])).collect();
        let event = (order, cells);
        let times = if self.dice.chance(3) { 2 } else { 1 };
        for _ in 0..times {
            self.events.entry(key.clone()).or_default().push(event.clone());
        }
        self.give(&key, &event, times);
    }

    fn retract(&mut self) {
        let keys: Vec<Vec<u8>> = self.events.keys().cloned().collect();
        if keys.is_empty() {
            return;
        }
        let key = self.dice.of(&keys);
        let at = self.dice.roll(self.events[&key].len() as u64) as usize;
        let event = self.events[&key][at].clone();
        let given = (key.clone(), event.clone());
        let fresh = self.fresh.iter().position(|have| *have == given);
        let past = fresh.is_none() && self.past_horizon(&event);
        if let Some(at) = fresh {
            self.fresh.remove(at);
        }
        self.give(&key, &event, -1);
        if !past {
            let list = self.events.get_mut(&key).unwrap();
            list.remove(at);
            if list.is_empty() {
                self.events.remove(&key);
            }
        }
        // An order names one row, once or several times over.
        let list = self.events.get(&key);
        let alone = list.is_none_or(|list| list.iter().all(|have| have.0 != event.0));
        if self.dice.chance(40) && !past && alone {
            // An update: the same event with other cells.
            let types = columns();
            let cells = self.plan.cells();
            let cells = cells.iter().map(|column| value(&mut self.dice, &types[*column])).collect();
            let event = (event.0, cells);
            self.give(&key, &event, 1);
            self.events.entry(key).or_default().push(event);
        }
    }

    fn retract_nothing(&mut self) {
        self.offset += 1;
        let order = EventOrder {
            event_time: self.now,
            t: LogTime(self.now as u64),
            partition: 9,
            offset: self.offset,
        };
        let cells = self.plan.cells().iter().map(|_| Value::Null).collect();
        let key = encode_row([&Value::Int(self.dice.roll(5) as i64), &Value::String("k\0".into())]);
        self.give(&key, &(order, cells), -1);
        self.invalid += 1;
    }

    fn step(&mut self) {
        self.now += self.dice.roll(self.dice.0 % 60 + 1) as i64 + 1;
        for _ in 0..self.dice.roll(5) {
            self.insert();
        }
        if self.plan.retractable {
            for _ in 0..self.dice.roll(3) {
                self.retract();
            }
            if self.dice.chance(5) {
                self.retract_nothing();
            }
        }
        let t = LogTime(self.now as u64);
        let outputs = self.steady.core.advance(t);
        assert_eq!(self.restarted.core.advance(t), outputs, "after a restart");
        assert_eq!(self.lazy.core.advance(t), outputs);
        assert!(outputs.is_sorted_by(|a, b| a.key < b.key));
        for output in outputs {
            match output.row {
                Some(row) => self.table.insert(output.key.to_vec(), (row, output.later)),
                None => self.table.remove(output.key.as_slice()),
            };
        }
        self.fresh.clear();
        self.compare();
        self.store();
    }

    /// Every key, touched or not, is what the naive recomputation says, by outputs and by snapshot.
    fn compare(&self) {
        let expected: BTreeMap<Vec<u8>, GroupRow> = self
            .events
            .iter()
            .filter_map(|(key, events)| {
                Some((key.clone(), naive::row(&self.plan, events, self.now)?))
            })
            .collect();
        let now = |(key, (row, later)): (&Vec<u8>, &Told)| {
            assert!(later.is_sorted_by(|a, b| a.0 < b.0));
            let come = later.iter().rfind(|(time, _)| *time <= self.now);
            let values = come.map_or(&row.values, |(_, values)| values).clone();
            (key.clone(), GroupRow { latest_event_time: row.latest_event_time, values })
        };
        let table: BTreeMap<Vec<u8>, GroupRow> = self.table.iter().map(now).collect();
        assert_eq!(table, expected, "at {} of {:#?}", self.now, self.plan.aggregates);
        let rows = self.steady.core.snapshot_rows().into_iter();
        let snapshot: BTreeMap<Vec<u8>, GroupRow> =
            rows.map(|output| (output.key.to_vec(), output.row.unwrap())).collect();
        assert_eq!(snapshot, expected);
    }

    fn store(&mut self) {
        if self.dice.chance(30) {
            self.steady.checkpoint();
        }
        if self.dice.chance(10) {
            self.restart();
        }
    }

    fn restart(&mut self) {
        self.restarted.checkpoint();
        let mut core = GroupCore::new(self.plan.clone(), PREFIX);
        let own = 1 + PREFIX.len();
        // Any order will do.
        let entries = self.restarted.entries.iter().rev();
        core.restore(entries.map(|(key, value)| (&key[own..], value.as_slice()))).unwrap();
        if self.plan.retractable {
            for (key, events) in &self.events {
                for event in events.iter().filter(|event| !self.past_horizon(event)) {
                    core.update(key, event.0, &encode_row(&event.1), 1).unwrap();
                }
            }
        }
        core.advance(LogTime(self.now as u64));
        assert_eq!(core.snapshot_rows(), self.steady.core.snapshot_rows());
        assert!(core.checkpoint().is_empty() || self.plan.retractable);
        self.restarted.core = core;
    }

    fn finish(mut self) {
        for stored in [&mut self.steady, &mut self.restarted, &mut self.lazy] {
            stored.checkpoint();
        }
        assert_eq!(self.steady.entries, self.restarted.entries);
        assert_eq!(self.steady.entries, self.lazy.entries);
        for key in self.steady.entries.keys() {
            let group_key = key.get(2 + PREFIX.len()..).unwrap();
            // An int (9 bytes) and a string with an escaped zero (6).
            let group_key = &group_key[..15];
            assert_eq!(key[0], logical_partition(group_key));
        }
        assert_eq!(self.steady.core.stats().invalid_retractions, self.invalid);
        assert_eq!(self.steady.core.stats().keys, self.events.len());
    }
}

fn run(seed: u64, retractable: bool) {
    let mut run = Run::new(seed, retractable);
    for _ in 0..60 {
        run.step();
    }
    run.finish();
}

/// Many more with `FALAJ_SLOW`.
fn cases() -> u32 {
    if std::env::var_os("FALAJ_SLOW").is_some() { 20_000 } else { 150 }
}

/// Both occurrences of a row that decides what is first are taken back in one step.
#[test]
fn occurrences_that_leave_together_are_forgotten_together() {
    run(180_804_971_360_987_516, true);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn append_only_views_are_their_meaning(seed in any::<u64>()) {
        run(seed, false);
    }

    #[test]
    fn retractable_views_are_their_meaning(seed in any::<u64>()) {
        run(seed, true);
    }
}
