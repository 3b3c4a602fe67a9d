//! What random views reach too rarely: the ends of time, counters, bytes that are not ours.

use falaj_definitions::plan::{AggregateCall, AggregateFunction, Frame};
use falaj_event::encoding::encode_row;
use falaj_event::{ColumnType, EventOrder, LogTime, Value};

use super::{GroupCore, GroupError, GroupPlan};

fn plan(frames: &[Frame], retractable: bool) -> GroupPlan {
    let aggregates = frames.iter().flat_map(|frame| {
        [AggregateFunction::Sum, AggregateFunction::Min].map(|function| AggregateCall {
            function,
            input: Some(3),
            input_type: ColumnType::Int64,
            filter: None,
            frame: *frame,
            output_type: match function {
                AggregateFunction::Sum => ColumnType::Decimal { precision: 38, scale: 0 },
                _ => ColumnType::Int64,
            },
        })
    });
    GroupPlan {
        bare: vec![],
        aggregates: aggregates.collect(),
        retractable,
        horizon_us: None,
        foretells: false,
    }
}

fn range(preceding_us: u64, hop_us: u64) -> Frame {
    Frame::Range { preceding_us, hop_us }
}

fn order(event_time: i64, t: u64, offset: u64) -> EventOrder {
    EventOrder { event_time, t: LogTime(t), partition: 0, offset }
}

fn int(value: i64) -> Vec<u8> {
    encode_row([&Value::Int(value)])
}

fn give(core: &mut GroupCore, event_time: i64, t: u64, value: i64) {
    core.update(b"\x00", order(event_time, t, value.unsigned_abs()), &int(value), 1).unwrap();
}

/// The values of the only key.
fn values(core: &GroupCore) -> Vec<Value> {
    core.snapshot_rows().pop().unwrap().row.unwrap().values
}

fn sum_and_min(sum: i128, min: i64) -> Vec<Value> {
    vec![Value::Decimal(sum, 0), Value::Int(min)]
}

#[test]
fn an_event_leaves_just_after_its_window() {
    let mut core = GroupCore::new(plan(&[range(10, 1)], false), b"");
    give(&mut core, 5, 5, 7);
    core.advance(LogTime(5));
    // 15 − 10 <= 5
    assert!(core.advance(LogTime(15)).is_empty());
    assert_eq!(values(&core), sum_and_min(7, 7));
    assert_eq!(core.advance(LogTime(16)).len(), 1);
    assert_eq!(values(&core), [Value::Null, Value::Null]);
}

#[test]
fn a_hop_keeps_an_event_to_the_end_of_its_tile() {
    let mut core = GroupCore::new(plan(&[range(10, 4)], false), b"");
    // Tile [-4, 0) leaves at 0 + 10; tile [4, 8) at 8 + 10.
    give(&mut core, -1, 5, 3);
    give(&mut core, 5, 5, 7);
    core.advance(LogTime(5));
    core.advance(LogTime(9));
    assert_eq!(values(&core), sum_and_min(10, 3));
    core.advance(LogTime(10));
    assert_eq!(values(&core), sum_and_min(7, 7));
    core.advance(LogTime(17));
    assert_eq!(values(&core), sum_and_min(7, 7));
    core.advance(LogTime(18));
    assert_eq!(values(&core), [Value::Null, Value::Null]);
}

#[test]
fn the_ends_of_time_are_times() {
    let frames = [
        range(u64::MAX, 1),
        range(0, u64::MAX),
        range(u64::MAX, u64::MAX),
        range(1, 7),
        Frame::Lifetime,
    ];
    for retractable in [false, true] {
        let mut core = GroupCore::new(plan(&frames, retractable), b"");
        give(&mut core, i64::MIN + 1, 0, 1);
        give(&mut core, i64::MIN + 2, 0, 2);
        core.advance(LogTime(0));
        give(&mut core, i64::MAX, u64::MAX, 4);
        core.advance(LogTime(u64::MAX));
        let values = values(&core);
        // A window of 2^64 − 1 µs reaches from i64::MAX back to i64::MIN.
        assert_eq!(values[..2], sum_and_min(7, 1));
        assert_eq!(values[6..8], sum_and_min(4, 4));
        assert_eq!(values[8..], sum_and_min(7, 1));
        core.checkpoint();
    }
}

#[test]
fn late_events_are_counted_and_still_count_where_they_can() {
    let mut core =
        GroupCore::new(plan(&[range(10, 1), range(1_000, 1), Frame::Lifetime], false), b"");
    give(&mut core, 100, 100, 5);
    core.advance(LogTime(100));
    give(&mut core, 50, 101, 2);
    core.advance(LogTime(101));
    let expected = [sum_and_min(5, 5), sum_and_min(7, 2), sum_and_min(7, 2)].concat();
    assert_eq!(values(&core), expected);
    assert_eq!(core.stats().late, 1);
}

#[test]
fn cells_and_entries_that_are_not_ours_are_named() {
    let mut core = GroupCore::new(plan(&[range(10, 1)], false), b"");
    for cells in [vec![], vec![0x03, 1], [int(1), int(2)].concat(), vec![0x77]] {
        let error = core.update(b"\x00", order(1, 1, 1), &cells, 1).unwrap_err();
        assert_eq!(error, GroupError::Cells { key: "00".into() });
    }
    assert!(core.advance(LogTime(1)).is_empty());
    assert_eq!(core.stats().keys, 0);
    for (key, value) in [
        (&[][..], &[][..]),
        (&[9, 0], &[]),
        (&[0, 0], &[1, 2]),
        (&[0, 0], &[0; 20]),
        (&[1, 0, 0], &[0; 4]),
        (&[1, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0], &[0; 4]),
    ] {
        let mut core = GroupCore::new(plan(&[range(10, 1)], false), b"");
        let error = core.restore([(key, value)].into_iter()).unwrap_err();
        assert!(matches!(error, GroupError::Entry { .. }), "{key:?}");
    }
}

#[test]
fn an_append_only_view_refuses_retractions() {
    let mut core = GroupCore::new(plan(&[range(10, 1)], false), b"");
    give(&mut core, 1, 1, 1);
    core.update(b"\x00", order(1, 1, 1), &int(1), -1).unwrap();
    core.advance(LogTime(1));
    assert_eq!(values(&core), sum_and_min(1, 1));
    assert_eq!(core.stats().invalid_retractions, 1);
}

#[test]
fn a_key_at_rest_costs_no_checkpoint() {
    // Few tiles lie in the key's own entry; many have entries of their own.
    for (preceding_us, entries) in [(10, 1), (10_000, 2)] {
        let mut core = GroupCore::new(plan(&[range(preceding_us, 1)], false), b"p");
        give(&mut core, 1, 1, 1);
        core.advance(LogTime(1));
        assert_eq!(core.checkpoint().len(), entries);
        core.advance(LogTime(5));
        assert!(core.checkpoint().is_empty());
        core.advance(LogTime(preceding_us + 2));
        let changes = core.checkpoint();
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].value.is_none(), entries > 1, "the tile that left");
        assert!(core.checkpoint().is_empty());
    }
}

fn foretelling(frames: &[Frame]) -> GroupCore {
    GroupCore::new(GroupPlan { foretells: true, ..plan(frames, false) }, b"p")
}

#[test]
fn a_row_says_what_time_will_make_of_it() {
    let mut core = foretelling(&[range(10, 1), range(100, 50)]);
    give(&mut core, 1, 1, 4);
    give(&mut core, 2, 3, 9);
    let outputs = core.advance(LogTime(3));
    let gone = [Value::Null, Value::Null];
    let later = |short: &[Value], long: &[Value]| [short, long].concat();
    let both = sum_and_min(13, 4);
    assert_eq!(outputs[0].row.as_ref().unwrap().values, later(&both, &both));
    assert_eq!(
        outputs[0].later,
        [
            (12, later(&sum_and_min(9, 9), &both)),
            (13, later(&gone, &both)),
            (150, later(&gone, &gone)),
        ]
    );
    // Nothing more is said, and the state is tidied some time after.
    assert!(core.advance(LogTime(500)).is_empty());
    assert!(core.advance(LogTime(4_000_000_000)).is_empty());
    assert_eq!(core.stats().tiles, 0);
    core.checkpoint();
    assert!(core.advance(LogTime(9_000_000_000)).is_empty());
    assert!(core.checkpoint().is_empty());
}

#[test]
fn rows_foretell_no_more_than_is_likely_to_come_true() {
    let mut core = foretelling(&[range(1_000, 1)]);
    for time in 1..=20 {
        give(&mut core, time, time.cast_unsigned(), time);
    }
    let first = core.advance(LogTime(20)).pop().unwrap();
    let last_told = first.later.last().unwrap().0;
    assert!(first.later.len() < 20 && last_told > 1_001);
    // Before what was told ends, the row is given again, whatever the epochs.
    let again = core.advance(LogTime(last_told.cast_unsigned() + 1)).pop().unwrap();
    assert_eq!(again.key, first.key);
    // A key that is busy foretells little: the next event is near.
    let time = last_told + 2;
    give(&mut core, time, time.cast_unsigned(), 1);
    let busy = core.advance(LogTime(time.cast_unsigned())).pop().unwrap();
    assert!(busy.later.iter().all(|(at, _)| *at <= time + 8), "{:?}", busy.later);
}

/// A tile that loses all of its events at once, one of which was in it twice.
#[test]
fn a_row_that_was_there_twice_leaves_at_once() {
    let call = |function| AggregateCall {
        function,
        input: Some(3),
        input_type: ColumnType::Int64,
        filter: None,
        frame: range(100, 1),
        output_type: ColumnType::Int64,
    };
    let aggregates = [AggregateFunction::First, AggregateFunction::Last].map(call).to_vec();
    let plan = GroupPlan { aggregates, ..plan(&[], true) };
    for (twice, other) in [(5, 6), (6, 5)] {
        let mut core = GroupCore::new(plan.clone(), b"");
        let place = |event_time| order(event_time, 7, event_time.cast_unsigned());
        core.update(b"\x00", place(twice), &int(1), 2).unwrap();
        core.update(b"\x00", place(other), &int(2), 1).unwrap();
        core.advance(LogTime(7));
        core.update(b"\x00", place(twice), &int(1), -2).unwrap();
        core.advance(LogTime(8));
        assert_eq!(values(&core), [Value::Int(2), Value::Int(2)]);
    }
}
