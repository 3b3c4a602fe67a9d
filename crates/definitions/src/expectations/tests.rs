//! Every rule on every type that can have it.

use falaj_event::value::to_array;
use falaj_event::{ColumnType, Value};

use super::*;
use crate::diagnostics::SourceFile;
use crate::rows::loose_schema;
use crate::topics::parse_topic;

fn checks(kind: &str, columns: &str) -> Checks {
    let key = if kind == "table" { "primary_key" } else { "key" };
    let text = format!(
        "name = \"t\"\nkind = \"{kind}\"\n{key} = \"k\"\nevent_time = \"at\"\nsubject = \"k\"\ncolumns = [\n\
         {{ name = \"k\", type = \"string\" }},\n{{ name = \"at\", type = \"timestamp\" }},\n{columns}\n]"
    );
    let file = SourceFile::new("t.toml", text);
    Checks::new(Arc::new(parse_topic(&file).unwrap_or_else(|found| panic!("{found}"))))
}

/// A batch whose key is `a` and whose event time is 0, with these values in the third column.
fn batch(checks: &Checks, values: &[Value]) -> RecordBatch {
    let schema = &checks.topic().schema;
    let columns = schema.columns.iter().enumerate().map(|(index, column)| {
        let filled = match index {
            0 => vec![Value::String("a".into()); values.len()],
            1 => vec![Value::Timestamp(0); values.len()],
            _ => values.to_vec(),
        };
        to_array(&column.column_type, &filled).unwrap()
    });
    RecordBatch::try_new(loose_schema(schema), columns.collect()).unwrap()
}

/// `row: text` of all reasons.
fn told(column: &str, values: &[Value]) -> Vec<String> {
    let checks = checks("event", column);
    let found = checks.check(|_| Op::Insert, &batch(&checks, values)).unwrap();
    let all = found.iter().flat_map(|row| row.reasons.iter().map(|r| format!("{}: {r}", row.row)));
    all.collect()
}

#[test]
fn between_is_inclusive() {
    let int = |v: i64| Value::Int(v);
    let column = "{ name = \"x\", type = \"int64\", nullable = true, between = [1, 10_000_000] }";
    let rows = [int(-5), int(1), int(10_000_000), int(10_000_001), Value::Null, int(0)];
    assert_eq!(
        told(column, &rows),
        [
            "0: x = -5 is not between 1 and 10000000",
            "3: x = 10000001 is not between 1 and 10000000",
            "5: x = 0 is not between 1 and 10000000",
        ]
    );
}

#[test]
fn between_is_for_every_ordered_type() {
    let int = |v: i64| Value::Int(v);
    let seconds = "[1970-01-01T00:00:00Z, 1970-01-01T00:00:01Z]";
    let types = [
        ("int8", "[-1, 1]", int(-1), int(2)),
        ("int16", "[-1, 1]", int(1), int(-2)),
        ("int32", "[-1, 1]", int(0), int(2)),
        ("uint8", "[1, 2]", Value::UInt(2), Value::UInt(0)),
        ("uint16", "[1, 2]", Value::UInt(1), Value::UInt(3)),
        ("uint32", "[1, 2]", Value::UInt(1), Value::UInt(3)),
        ("uint64", "[1, 2]", Value::UInt(1), Value::UInt(u64::MAX)),
        ("float32", "[0, 0.5]", Value::Float32(0.5), Value::Float32(f32::NAN)),
        ("float64", "[0, 0.5]", Value::Float64(-0.0), Value::Float64(f64::INFINITY)),
        ("decimal(9,2)", "[0, 1.25]", Value::Decimal(125, 2), Value::Decimal(126, 2)),
        ("date", "[1970-01-02, 1970-01-03]", Value::Date(2), Value::Date(0)),
        ("timestamp", seconds, Value::Timestamp(0), Value::Timestamp(-1)),
    ];
    for (column_type, bounds, good, bad) in types {
        let column = format!("{{ name = \"x\", type = \"{column_type}\", between = {bounds} }}");
        let found = told(&column, &[good, bad]);
        assert_eq!(found.len(), 1, "{column_type}: {found:?}");
        assert!(found[0].starts_with("1: x = "), "{found:?}");
    }
}

#[test]
fn one_of_and_matches() {
    let text = |v: &str| Value::String(v.into());
    let column = "{ name = \"x\", type = \"string\", nullable = true, one_of = [\"b\", \"a\"] }";
    assert_eq!(
        told(column, &[text("a"), text("c"), Value::Null, text("")]),
        ["1: x = \"c\" is not one of \"a\", \"b\"", "3: x = \"\" is not one of \"a\", \"b\""]
    );
    let column = "{ name = \"x\", type = \"int16\", one_of = [3, -1] }";
    assert_eq!(told(column, &[Value::Int(3), Value::Int(2)]), ["1: x = 2 is not one of -1, 3"]);
    let column = "{ name = \"x\", type = \"decimal(5,1)\", one_of = [2.5] }";
    assert_eq!(told(column, &[Value::Decimal(25, 1), Value::Decimal(20, 1)]).len(), 1);
    let column = "{ name = \"x\", type = \"string\", matches = \"a|bc\" }";
    assert_eq!(
        told(column, &[text("a"), text("bc"), text("abc"), text("a\n")]),
        ["2: x = \"abc\" does not match a|bc", "3: x = \"a\\n\" does not match a|bc"]
    );
}

#[test]
fn missing_values_are_refused_where_there_must_be_one() {
    let null = [Value::Null, Value::Bool(true)];
    assert_eq!(told("{ name = \"x\", type = \"bool\" }", &null), ["0: x is missing or NULL"]);
    assert!(told("{ name = \"x\", type = \"bool\", nullable = true }", &null).is_empty());
    let bound = "{ name = \"x\", type = \"bool\", nullable = true, not_null = true }";
    assert_eq!(told(bound, &null), ["0: x is missing or NULL"]);
}

#[test]
fn several_reasons_against_one_row_are_all_told() {
    let column = "{ name = \"x\", type = \"string\", one_of = [\"aa\"], matches = \"a+\" }";
    assert_eq!(told(column, &[Value::String("b".into())]).len(), 2);
}

#[test]
fn personal_values_are_not_repeated() {
    let column = "{ name = \"x\", type = \"string\", pii = true, matches = \"\\\\d+\" }";
    assert_eq!(told(column, &[Value::String("Aisha".into())]), ["0: x does not match \\d+"]);
}

#[test]
fn deletes_carry_only_key_and_event_time() {
    let column = "{ name = \"x\", type = \"int64\", between = [0, 1] }";
    let checks = checks("table", column);
    let rows = batch(&checks, &[Value::Null, Value::Null, Value::Int(7), Value::Int(1)]);
    let ops = [Op::Delete, Op::Upsert, Op::Delete, Op::Insert];
    let found = checks.check(|row| ops[row], &rows).unwrap();
    let codes: Vec<_> = found.iter().map(|row| (row.row, row.reasons[0].code)).collect();
    assert_eq!(codes, [(1, ReasonCode::Null), (3, ReasonCode::WrongOperation)]);
    assert_eq!(found[1].reasons.len(), 1);

    let mut columns = rows.columns().to_vec();
    columns[1] = to_array(&ColumnType::Timestamp, &vec![Value::Null; 4]).unwrap();
    let timeless = RecordBatch::try_new(rows.schema(), columns).unwrap();
    let found = checks.check(|_| Op::Delete, &timeless).unwrap();
    assert_eq!(found.len(), 4, "a delete happened at some time");
}

#[test]
fn event_topics_take_inserts_only() {
    let checks = checks("event", "{ name = \"x\", type = \"bool\" }");
    let rows = batch(&checks, &[Value::Bool(true), Value::Bool(true)]);
    for op in [Op::Upsert, Op::Delete] {
        let found = checks.check(|_| op, &rows).unwrap();
        assert!(found.len() == 2 && found[0].reasons[0].code == ReasonCode::WrongOperation);
    }
    assert!(checks.check(|_| Op::Insert, &rows).unwrap().is_empty());
}
