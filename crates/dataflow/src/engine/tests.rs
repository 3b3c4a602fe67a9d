//! The engine against an oracle that recomputes every view from scratch, for all kinds of views at
//! once, whatever the workers, the epochs in flight and the restarts.

mod kit;
mod sql;
mod timing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use falaj_definitions::plan::{AggregateFunction as F, Frame, JoinKind, Shape, Source, ViewPlan};
use falaj_event::{ColumnType, EpochChanges, LogTime, Op, Value, ViewId};

use self::kit::{
    Contents, Event, Log, LogWriter, Oracle, PlanOf, SECOND, call, fold, input_of, merchants,
    payments, run, text,
};
use crate::{Engine, EngineError, Options, Resume};

const INT: ColumnType = ColumnType::Int64;

fn range(preceding: i64, hop: i64) -> Frame {
    Frame::Range {
        preceding_us: u64::try_from(preceding * SECOND).unwrap(),
        hop_us: u64::try_from(hop).unwrap(),
    }
}

/// Windows per account over the event topic alone.
fn by_account() -> Arc<ViewPlan> {
    let aggregates = vec![
        call(F::CountRows, None, ColumnType::Bool, range(60, 1)),
        call(F::Sum, Some(1), INT, range(60, 10 * SECOND)),
        call(F::Min, Some(1), INT, range(30, 1)),
        call(F::Max, Some(1), INT, range(60, 10 * SECOND)),
        call(F::Last, Some(1), INT, Frame::Lifetime),
        call(F::CountRows, None, ColumnType::Bool, Frame::Lifetime),
    ];
    PlanOf {
        name: "by_account",
        source: Source::Topic(payments()),
        joins: vec![],
        prepare: vec![0, 2, 4],
        predicate: Some(2),
        key: vec![0],
        shape: Shape::Keyed { bare: vec![1], aggregates },
        finish: vec![0, 1, 2, 3, 4, 5, 6, 7],
        having: None,
        horizon: None,
    }
    .build()
}

/// What a payment's merchant says about it, per account.
fn joined(name: &'static str, kind: JoinKind, horizon: bool) -> Arc<ViewPlan> {
    let frame = range(60, 10 * SECOND);
    let mut aggregates = vec![
        call(F::Count, Some(1), ColumnType::String, frame),
        call(F::Sum, Some(2), INT, frame),
        call(F::Min, Some(2), INT, frame),
        call(F::Max, Some(2), INT, range(20, 1)),
        call(F::CountRows, None, ColumnType::Bool, frame),
    ];
    if !horizon {
        aggregates.push(call(F::Sum, Some(2), INT, Frame::Lifetime));
    }
    PlanOf {
        name,
        source: Source::Topic(payments()),
        joins: vec![(kind, merchants(), 1)],
        prepare: vec![0, 6, 7],
        predicate: None,
        key: vec![0],
        finish: (0..=aggregates.len()).collect(),
        shape: Shape::Keyed { bare: vec![], aggregates },
        having: None,
        horizon: horizon.then_some(70 * SECOND),
    }
    .build()
}

/// Keyed by a joined column: payments move between categories.
fn by_category() -> Arc<ViewPlan> {
    let aggregates = vec![
        call(F::CountRows, None, ColumnType::Bool, Frame::Lifetime),
        call(F::Sum, Some(1), INT, range(60, 1)),
        call(F::First, Some(1), INT, Frame::Lifetime),
        call(F::Last, Some(1), INT, Frame::Lifetime),
    ];
    PlanOf {
        name: "by_category",
        source: Source::Topic(payments()),
        joins: vec![(JoinKind::Left, merchants(), 1)],
        prepare: vec![6, 2],
        predicate: None,
        key: vec![0],
        shape: Shape::Keyed { bare: vec![], aggregates },
        finish: vec![0, 1, 2, 3, 4],
        having: None,
        horizon: None,
    }
    .build()
}

/// Over the table topic itself.
fn categories() -> Arc<ViewPlan> {
    let aggregates = vec![
        call(F::CountRows, None, ColumnType::Bool, Frame::Lifetime),
        call(F::Min, Some(1), INT, Frame::Lifetime),
        call(F::Max, Some(1), INT, range(60, 10 * SECOND)),
        call(F::Last, Some(1), INT, Frame::Lifetime),
    ];
    PlanOf {
        name: "categories",
        source: Source::Topic(merchants()),
        joins: vec![],
        prepare: vec![1, 2],
        predicate: None,
        key: vec![0],
        shape: Shape::Keyed { bare: vec![], aggregates },
        finish: vec![0, 1, 2, 3, 4],
        having: None,
        horizon: None,
    }
    .build()
}

/// Groups the accounts by their lifetime count.
fn over_accounts(accounts: &Arc<ViewPlan>) -> Arc<ViewPlan> {
    let aggregates = vec![
        call(F::CountRows, None, ColumnType::Bool, Frame::Lifetime),
        call(F::Max, Some(1), INT, Frame::Lifetime),
        call(F::Last, Some(1), INT, Frame::Lifetime),
    ];
    PlanOf {
        name: "over_accounts",
        source: Source::View(Arc::clone(accounts)),
        joins: vec![],
        prepare: vec![7, 2],
        predicate: None,
        key: vec![0],
        shape: Shape::Keyed { bare: vec![], aggregates },
        finish: vec![0, 1, 2, 3],
        having: None,
        horizon: None,
    }
    .build()
}

/// Per merchant, keeping only merchants with a good last payment; and, row for row, what the table
/// says of them.
fn merchant_views() -> [Arc<ViewPlan>; 2] {
    let aggregates = vec![call(F::Sum, Some(1), INT, range(60, 1))];
    let below = PlanOf {
        name: "by_merchant",
        source: Source::Topic(payments()),
        joins: vec![],
        prepare: vec![1, 2, 4],
        predicate: None,
        key: vec![0],
        shape: Shape::Keyed { bare: vec![2], aggregates },
        finish: vec![0, 2, 1],
        having: Some(2),
        horizon: None,
    }
    .build();
    let above = PlanOf {
        name: "merchant_rows",
        source: Source::View(Arc::clone(&below)),
        joins: vec![(JoinKind::Left, merchants(), 0)],
        prepare: vec![0, 1, 3, 4],
        predicate: None,
        key: vec![0],
        shape: Shape::PerRow,
        finish: vec![0, 3, 2, 1],
        having: None,
        horizon: None,
    }
    .build();
    [below, above]
}

fn all_plans() -> Vec<Arc<ViewPlan>> {
    let accounts = by_account();
    let over = over_accounts(&accounts);
    let [below, above] = merchant_views();
    vec![
        accounts,
        joined("left_horizon", JoinKind::Left, true),
        joined("left_lifetime", JoinKind::Left, false),
        joined("asof_horizon", JoinKind::AsOf, true),
        joined("asof_lifetime", JoinKind::AsOf, false),
        by_category(),
        categories(),
        over,
        below,
        above,
    ]
}

/// A small deterministic generator (Knuth's MMIX multiplier).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Late, future-dated and tied events; merchants that come, change and go.
fn random_log(seed: u64, epochs: u64) -> Log {
    let (payments, merchants) = (payments(), merchants());
    let mut dice = Dice(seed);
    let mut writer = LogWriter::default();
    let mut t = 1_000 * SECOND;
    for _ in 0..epochs {
        t += 1 + i64::try_from(dice.roll(8) * dice.roll(3)).unwrap() * SECOND;
        writer.epoch(u64::try_from(t).unwrap());
        for _ in 0..dice.roll(7) {
            let shift = match dice.roll(10) {
                0 => i64::try_from(dice.roll(20)).unwrap(),
                1..=3 => -i64::try_from(dice.roll(100)).unwrap(),
                _ => 0,
            };
            let merchant = match dice.roll(12) {
                0 => Value::Null,
                _ => text(&format!("m{}", dice.roll(5))),
            };
            let cells = vec![
                text(&format!("a{}", dice.roll(6))),
                merchant,
                Value::Int(i64::try_from(dice.roll(100)).unwrap() - 30),
                Value::Timestamp(t + shift * SECOND),
                Value::Bool(dice.roll(4) > 0),
            ];
            writer.append(&payments, Op::Insert, cells);
        }
        for _ in 0..dice.roll(4) / 2 {
            let cells = vec![
                text(&format!("m{}", dice.roll(5))),
                text(&format!("c{}", dice.roll(3))),
                Value::Int(i64::try_from(dice.roll(50)).unwrap()),
                Value::Timestamp(t + (i64::try_from(dice.roll(60)).unwrap() - 50) * SECOND),
            ];
            let op = if dice.roll(4) == 0 { Op::Delete } else { Op::Upsert };
            writer.append(&merchants, op, cells);
        }
    }
    writer.log
}

fn check_against_oracle(plans: &[Arc<ViewPlan>], log: &Log, changes: &[EpochChanges]) {
    let mut oracle = Oracle::default();
    let mut contents: BTreeMap<ViewId, Contents> = BTreeMap::new();
    let mut events: Vec<&Event> = Vec::new();
    assert_eq!(log.len(), changes.len());
    for (epoch, ((t, new), changes)) in log.iter().zip(changes).enumerate() {
        events.extend(new);
        fold(&mut contents, changes);
        assert_eq!((changes.epoch, changes.t), (epoch as u64, LogTime(*t)));
        assert_eq!(changes.checkpoint.is_some(), epoch % 4 == 0);
        for plan in plans {
            let expected = oracle.at(plan, &events, *t);
            let found = contents.entry(plan.id).or_default();
            assert_eq!(*found, expected, "view {} at epoch {epoch}, T {t}", plan.name);
        }
    }
}

#[test]
fn every_view_equals_its_recomputation_at_every_epoch() {
    let plans = all_plans();
    for seed in 0..4 {
        let log = random_log(seed, 80);
        let changes = run(&plans, &log, 1, 1, None).unwrap();
        check_against_oracle(&plans, &log, &changes);
    }
}

#[test]
fn changes_do_not_depend_on_workers_or_epochs_in_flight() {
    let plans = all_plans();
    let log = random_log(11, 60);
    let reference = run(&plans, &log, 1, 1, None).unwrap();
    for (workers, in_flight) in [(1, 7), (2, 1), (2, 16), (3, 5)] {
        let other = run(&plans, &log, workers, in_flight, None).unwrap();
        assert_eq!(other, reference, "{workers} workers, {in_flight} epochs in flight");
    }
}

/// All state entries after the checkpoint of `epoch`.
fn state_at(changes: &[EpochChanges], epoch: u64) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut state = BTreeMap::new();
    for change in
        changes.iter().filter(|c| c.epoch <= epoch).flat_map(|c| c.checkpoint.iter().flatten())
    {
        match &change.value {
            Some(value) => state.insert(change.key.clone(), value.clone()),
            None => state.remove(&change.key),
        };
    }
    state
}

#[test]
fn a_restart_from_any_checkpoint_continues_bit_for_bit() {
    let plans = all_plans();
    let log = random_log(5, 61);
    let reference = run(&plans, &log, 2, 3, None).unwrap();
    for (epoch, workers) in [(0, 1), (4, 2), (20, 3), (36, 1), (56, 2)] {
        let t = reference[usize::try_from(epoch).unwrap()].t;
        let state = state_at(&reference, epoch);
        let resume = Resume { epoch, t, state: state.clone().into_iter().collect() };
        let continued = run(&plans, &log, workers, 4, Some(resume)).unwrap();
        let expected = &reference[usize::try_from(epoch).unwrap() + 1..];
        for (found, expected) in continued.iter().zip(expected) {
            assert_eq!(found.rows, expected.rows, "rows of {} after {epoch}", found.epoch);
        }
        let mut whole = reference[..=usize::try_from(epoch).unwrap()].to_vec();
        whole.extend(continued);
        assert_eq!(state_at(&whole, 60), state_at(&reference, 60), "state after {epoch}");
    }
}

#[test]
fn a_future_event_enters_when_its_time_comes_and_survives_a_restart() {
    let plans = vec![by_account()];
    let mut writer = LogWriter::default();
    let base = 1_000 * SECOND;
    let pay = |writer: &mut LogWriter, at: i64, amount: i64| {
        let cells =
            vec![text("a"), text("m"), Value::Int(amount), Value::Timestamp(at), Value::Bool(true)];
        writer.append(&payments(), Op::Insert, cells);
    };
    for step in 0..12 {
        writer.epoch(u64::try_from(base + step * SECOND).unwrap());
        if step == 0 {
            pay(&mut writer, base + 6 * SECOND, 7);
        }
    }
    let changes = run(&plans, &writer.log, 2, 2, None).unwrap();
    let touched: Vec<u64> =
        changes.iter().filter(|c| !c.rows.is_empty()).map(|c| c.epoch).collect();
    assert_eq!(touched, [6]);
    check_against_oracle(&plans, &writer.log, &changes);
    let state = state_at(&changes, 4);
    assert_eq!(state.len(), 2, "the census and the event that waits are the whole state");
    let resume = Resume { epoch: 4, t: changes[4].t, state: state.into_iter().collect() };
    assert_eq!(run(&plans, &writer.log, 1, 2, Some(resume)).unwrap(), changes[5..]);
}

#[test]
fn epochs_out_of_order_are_refused_and_nothing_changes() {
    let options = Options {
        workers: 1,
        checkpoint_every: 1,
        max_epochs_in_flight: 4,
        plans: vec![by_account()],
        resume: None,
    };
    let engine = Engine::start(options).unwrap();
    engine.submit(input_of(0, 10, &[])).unwrap();
    let refused = engine.submit(input_of(1, 10, &[])).unwrap_err();
    assert_eq!(refused, EngineError::NotAscending { epoch: 1, t: 10, last: 10 });
    engine.submit(input_of(1, 11, &[])).unwrap();
    for t in [10, 11] {
        assert_eq!(engine.take(Duration::from_secs(20)).unwrap().unwrap().t, LogTime(t));
    }
    assert_eq!(engine.take(Duration::from_millis(1)).unwrap(), None);
    engine.stop().unwrap();
}

#[test]
fn a_stopped_engine_expires_nothing() {
    let log = random_log(3, 10);
    let changes = run(&[by_account()], &log, 2, 10, None).unwrap();
    assert_eq!(changes.len(), 10);
}

#[test]
fn rows_that_do_not_fit_their_topic_are_named() {
    let log = random_log(3, 4);
    let (t, events) = log.iter().find(|(_, events)| !events.is_empty()).unwrap();
    let options = Options {
        workers: 2,
        checkpoint_every: 1,
        max_epochs_in_flight: 4,
        plans: vec![by_account()],
        resume: None,
    };
    let engine = Engine::start(options).unwrap();
    let mut input = input_of(0, *t, events);
    input.topics.iter_mut().for_each(|topic| topic.ops.clear());
    engine.submit(input).unwrap();
    let error = engine.take(Duration::from_secs(20)).unwrap_err();
    assert!(
        matches!(&error, EngineError::Rows { place, .. } if place.contains("payments")),
        "{error}"
    );
    assert_eq!(engine.submit(input_of(1, t + 1, &[])).unwrap_err(), error);
    assert_eq!(engine.stop().unwrap_err(), error);
}

#[test]
fn a_panic_in_one_worker_stops_all_and_is_reported() {
    let t = crate::context::PANIC_AT;
    let mut writer = LogWriter::default();
    writer.epoch(t);
    let cells = vec![text("a"), text("m"), Value::Int(1), Value::Timestamp(0), Value::Bool(true)];
    writer.append(&payments(), Op::Insert, cells);
    for workers in [1, 2] {
        let error = run(&all_plans(), &writer.log, workers, 1, None).unwrap_err();
        let EngineError::Panicked { message, .. } = &error else { panic!("{error}") };
        assert!(message.contains("told to panic"), "{message}");
    }
}

#[test]
fn a_state_that_does_not_belong_to_the_plans_is_refused() {
    let log = random_log(3, 6);
    let accounts = by_account();
    let changes = run(&[Arc::clone(&accounts)], &log, 1, 1, None).unwrap();
    let resume = |state: BTreeMap<Vec<u8>, Vec<u8>>| {
        Some(Resume { epoch: 4, t: changes[4].t, state: state.into_iter().collect() })
    };
    let state = state_at(&changes, 4);
    let refused = |plans: &[Arc<ViewPlan>], state| {
        let error = run(plans, &log, 2, 1, resume(state)).unwrap_err();
        assert!(matches!(error, EngineError::State { .. }), "{error}");
        error.to_string()
    };
    assert!(run(&[Arc::clone(&accounts)], &log, 2, 1, resume(state.clone())).is_ok());
    assert!(refused(&[accounts.clone(), by_category()], state.clone()).contains("`by_category`"));
    // Nothing read this view when the state was written: its rows are not there to be read.
    let read = [accounts.clone(), over_accounts(&accounts)];
    assert!(refused(&read, state.clone()).contains("`by_account`"));
    refused(std::slice::from_ref(&accounts), BTreeMap::new());
    let mut foreign = state;
    foreign.insert(b"\0?x".to_vec(), vec![]);
    assert!(refused(&[accounts], foreign).contains("003f78"));
}

#[test]
fn closing_wakes_a_submitter_that_waits() {
    let options = Options {
        workers: 1,
        checkpoint_every: 1,
        max_epochs_in_flight: 1,
        plans: vec![by_account()],
        resume: None,
    };
    let engine = Engine::start(options).unwrap();
    engine.submit(input_of(0, 10, &[])).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| engine.submit(input_of(1, 11, &[])));
        std::thread::sleep(Duration::from_millis(50));
        engine.close();
        assert_eq!(waiting.join().unwrap(), Err(EngineError::Stopped));
    });
    engine.stop().unwrap();
}
