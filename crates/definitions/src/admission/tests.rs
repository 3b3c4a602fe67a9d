//! Decisions at close, and that they are the same after a restart.

use falaj_event::ColumnType;
use falaj_event::Value;
use falaj_event::value::to_array;

use super::*;
use crate::diagnostics::SourceFile;
use crate::topics::parse_topic;

const SECOND: u64 = 1_000_000;

fn topic(kind: &str) -> Arc<TopicDefinition> {
    let (key, unique) = match kind {
        "table" => ("primary_key", ""),
        _ => ("key", ", unique_within = \"10 s\""),
    };
    let text = format!(
        "name = \"t\"\nkind = \"{kind}\"\n{key} = \"k\"\nevent_time = \"at\"\nskew = \"1 s\"\ncolumns = [\n\
         {{ name = \"k\", type = \"string\" }},\n{{ name = \"at\", type = \"timestamp\" }},\n\
         {{ name = \"id\", type = \"int64\", nullable = true{unique} }},\n]"
    );
    Arc::new(
        parse_topic(&SourceFile::new("t.toml", text)).unwrap_or_else(|found| panic!("{found}")),
    )
}

fn batch(rows: &[(&str, i64, Option<i64>)]) -> RecordBatch {
    let column =
        |column_type: ColumnType, values: Vec<Value>| to_array(&column_type, &values).unwrap();
    let ids = rows.iter().map(|row| row.2.map_or(Value::Null, Value::Int)).collect();
    let columns = [
        ("k", column(ColumnType::String, rows.iter().map(|r| Value::String(r.0.into())).collect())),
        ("at", column(ColumnType::Timestamp, rows.iter().map(|r| Value::Timestamp(r.1)).collect())),
        ("id", column(ColumnType::Int64, ids)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true)))
        .unwrap()
}

fn refused(found: &[RowReasons]) -> Vec<(usize, ReasonCode)> {
    found.iter().flat_map(|row| row.reasons.iter().map(|reason| (row.row, reason.code))).collect()
}

#[test]
fn events_beyond_the_skew_are_refused() {
    let topic = topic("event");
    let id = topic.schema.id();
    let mut state = AdmissionState::new([&topic]);
    let t = LogTime(100 * SECOND);
    let rows = batch(&[("a", 101_000_000, None), ("a", 101_000_001, None), ("a", -5, None)]);
    let found = state.admit(id, t, |_| Op::Insert, &rows).unwrap();
    assert_eq!(refused(&found), [(1, ReasonCode::TooFarAhead)]);
    assert_eq!(
        found[0].reasons[0].text,
        "at = 1970-01-01T00:01:41.000001Z is after T = 1970-01-01T00:01:40Z by more than 1 second"
    );
    let absurd = batch(&[("a", 401 * 86_400_000_000, None)]);
    let found = state.admit(id, t, |_| Op::Insert, &absurd).unwrap();
    assert_eq!(refused(&found), [(0, ReasonCode::TooFarAhead)]);
    assert!(
        found[0].reasons[0].text.ends_with("a silence of more than 400 days (max_gap)"),
        "{found:?}"
    );
}

#[test]
fn repeats_are_refused_within_the_window_only() {
    let topic = topic("event");
    let id = topic.schema.id();
    let mut state = AdmissionState::new([&topic]);
    let mut at = |seconds: u64, rows: &[(&str, i64, Option<i64>)]| {
        let found =
            state.admit(id, LogTime(seconds * SECOND), |_| Op::Insert, &batch(rows)).unwrap();
        refused(&found)
    };
    let repeated = ReasonCode::NotUnique;
    assert_eq!(
        at(1, &[("a", 0, Some(7)), ("b", 0, Some(7)), ("b", 0, None), ("b", 0, None)]),
        [(1, repeated)]
    );
    assert_eq!(
        at(11, &[("a", 0, Some(7))]),
        [(0, repeated)],
        "the refused repeat did not renew it"
    );
    assert_eq!(at(12, &[("a", 0, Some(7))]), [], "10 seconds have passed");
    assert_eq!(at(13, &[("a", i64::MAX, Some(8))]), [(0, ReasonCode::TooFarAhead)]);
    assert_eq!(at(13, &[("a", 0, Some(8))]), [], "a refused row leaves nothing behind");
    assert_eq!(state.held(), 2);
    assert_eq!(state.needs(id), Needs::Recent(10 * SECOND));
}

#[test]
fn deletes_need_a_row() {
    let topic = topic("table");
    let id = topic.schema.id();
    let mut state = AdmissionState::new([&topic]);
    let rows =
        batch(&[("a", 0, None), ("a", 0, None), ("a", 0, None), ("b", 0, None), ("a", 0, None)]);
    let ops = [Op::Delete, Op::Upsert, Op::Delete, Op::Delete, Op::Upsert];
    let found = state.admit(id, LogTime(1), |row| ops[row], &rows).unwrap();
    assert_eq!(refused(&found), [(0, ReasonCode::MissingKey), (3, ReasonCode::MissingKey)]);
    assert_eq!(found[1].reasons[0].text, "there is no row with key \"b\" to delete");
    assert_eq!(state.held(), 1);
    assert_eq!(state.needs(id), Needs::Everything);
}

/// One epoch's rows, drawn.
type Row = (&'static str, i64, Option<i64>);

fn drawn(kind: &str, draw: &mut impl FnMut(u64) -> u64) -> (Vec<Op>, Vec<Row>) {
    let keys = ["a", "b", "c", "d"];
    let count = draw(6);
    let row = |draw: &mut dyn FnMut(u64) -> u64| {
        let number = i64::try_from(draw(40)).unwrap();
        let op = match (kind, draw(2)) {
            ("event", _) => Op::Insert,
            (_, 0) => Op::Delete,
            _ => Op::Upsert,
        };
        (op, (keys[usize::try_from(draw(4)).unwrap()], 0, Some(number)))
    };
    (0..count).map(|_| row(draw)).unzip()
}

#[test]
fn observing_the_log_gives_the_same_decisions() {
    for kind in ["event", "table"] {
        let topic = topic(kind);
        let id = topic.schema.id();
        let mut live = AdmissionState::new([&topic]);
        let mut log: Vec<(LogTime, Vec<Op>, RecordBatch)> = Vec::new();
        let mut seed = 7u64;
        let mut draw = |bound: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % bound
        };
        let mut refusals = 0;
        for epoch in 1..200u64 {
            let t = LogTime(epoch * SECOND);
            let (ops, rows) = drawn(kind, &mut draw);
            let mut restarted = AdmissionState::new([&topic]);
            let from = match restarted.needs(id) {
                Needs::Recent(us) => t.0.saturating_sub(us),
                _ => 0,
            };
            for (at, ops, rows) in log.iter().filter(|entry| entry.0.0 >= from) {
                restarted.observe(id, *at, |row| ops[row], rows).unwrap();
            }
            let offered = batch(&rows);
            let decided = live.admit(id, t, |row| ops[row], &offered).unwrap();
            assert_eq!(
                decided,
                restarted.admit(id, t, |row| ops[row], &offered).unwrap(),
                "{epoch}"
            );
            refusals += decided.len();
            let out: Vec<usize> = decided.iter().map(|row| row.row).collect();
            let kept: Vec<usize> = (0..rows.len()).filter(|row| !out.contains(row)).collect();
            let kept_rows: Vec<_> = kept.iter().map(|row| rows[*row]).collect();
            log.push((t, kept.iter().map(|row| ops[*row]).collect(), batch(&kept_rows)));
        }
        assert!(live.held() > 0 && refusals > 50, "{kind}: {refusals}");
    }
}

#[test]
fn a_new_version_keeps_what_is_known() {
    let topic = topic("event");
    let id = topic.schema.id();
    let mut state = AdmissionState::new([&topic]);
    state.admit(id, LogTime(1), |_| Op::Insert, &batch(&[("a", 0, Some(1))])).unwrap();
    state.declare(&topic);
    let found = state.admit(id, LogTime(2), |_| Op::Insert, &batch(&[("a", 0, Some(1))])).unwrap();
    assert_eq!(refused(&found), [(0, ReasonCode::NotUnique)]);
    let unknown = TopicId::of("other");
    assert_eq!(state.needs(unknown), Needs::Nothing);
    assert!(
        state
            .admit(unknown, LogTime(3), |_| Op::Insert, &batch(&[("a", 0, None)]))
            .unwrap()
            .is_empty()
    );
}
