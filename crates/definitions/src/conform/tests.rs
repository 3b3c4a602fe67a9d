//! Batches as other Arrow users make them.

use std::sync::Arc;

use arrow::array::{
    BooleanArray, Date64Array, Decimal128Array, DictionaryArray, FixedSizeListArray, Float32Array,
    Float64Array, Int8Array, Int32Array, Int64Array, LargeStringArray, NullArray, StringArray,
    StringViewArray, TimestampMillisecondArray, TimestampNanosecondArray, UInt64Array,
};
use arrow::datatypes::{Field, Int8Type};
use falaj_event::Value;
use falaj_event::cells::batch_cells;

use super::*;
use crate::diagnostics::SourceFile;
use crate::topics::parse_topic;

fn checks(kind: &str, column: &str) -> Checks {
    let key = if kind == "table" { "primary_key" } else { "key" };
    let text = format!(
        "name = \"t\"\nkind = \"{kind}\"\n{key} = \"k\"\nevent_time = \"at\"\ncolumns = [\n\
         {{ name = \"k\", type = \"string\" }},\n{{ name = \"at\", type = \"timestamp\" }},\n{column}\n]"
    );
    let file = SourceFile::new("t.toml", text);
    Checks::new(Arc::new(parse_topic(&file).unwrap_or_else(|found| panic!("{found}"))))
}

fn with(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true)))
        .unwrap()
}

/// The third column's values after conforming, and the rows that were refused with their reasons.
fn converted(column_type: &str, array: ArrayRef) -> (Vec<Value>, Vec<(u32, String)>) {
    let checks =
        checks("event", &format!("{{ name = \"x\", type = \"{column_type}\", nullable = true }}"));
    let rows = array.len();
    let batch = with(vec![
        ("x", array),
        ("at", Arc::new(TimestampNanosecondArray::from(vec![0; rows]))),
        ("k", Arc::new(LargeStringArray::from(vec!["a"; rows]))),
    ]);
    let checked = conform(&checks, &batch).unwrap();
    let cells = batch_cells(&checked.batch).unwrap();
    let values = (0..checked.batch.num_rows()).map(|row| cells[2].value(row)).collect();
    let refused = checked.rejected.iter().map(|row| (row.position, row.reasons[0].text.clone()));
    (values, refused.collect())
}

fn ints(values: &[i64]) -> Vec<Value> {
    values.iter().map(|v| Value::Int(*v)).collect()
}

#[test]
fn integers_fit_or_are_refused() {
    let (values, refused) = converted("int32", Arc::new(Int64Array::from(vec![1, i64::MAX, -7])));
    assert_eq!(values, ints(&[1, -7]));
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].0, 1);
    assert_eq!(
        refused[0].1,
        "x = 9223372036854775807 does not fit int32: no cast from Int64 keeps it as it is"
    );
    let (values, refused) = converted("int64", Arc::new(UInt64Array::from(vec![5, u64::MAX])));
    assert_eq!((values, refused.len()), (ints(&[5]), 1));
    let (values, refused) =
        converted("uint8", Arc::new(Int64Array::from(vec![Some(255), Some(-1), None])));
    assert_eq!((values, refused.len()), (vec![Value::UInt(255), Value::Null], 1));
}

#[test]
fn floats_fit_or_are_refused() {
    let floats = Float64Array::from(vec![Some(3.0), Some(2.5), Some(f64::NAN), Some(1e300), None]);
    let (values, refused) = converted("int64", Arc::new(floats));
    assert_eq!(values, [Value::Int(3), Value::Null]);
    assert_eq!(refused.iter().map(|r| r.0).collect::<Vec<_>>(), [1, 2, 3]);
    let (values, refused) =
        converted("float32", Arc::new(Float64Array::from(vec![0.1, 1e300, f64::INFINITY])));
    assert_eq!(values, [Value::Float32(0.1), Value::Float32(f32::INFINITY)], "rounded as declared");
    assert_eq!(refused.len(), 1);
    let (values, _) = converted("float64", Arc::new(Float32Array::from(vec![0.5])));
    assert_eq!(values, [Value::Float64(0.5)]);
    let (values, refused) =
        converted("float64", Arc::new(Int64Array::from(vec![1 << 53, (1 << 53) + 1])));
    assert_eq!((values, refused.len()), (vec![Value::Float64(9_007_199_254_740_992.0)], 1));
}

#[test]
fn decimals_fit_or_are_refused() {
    let decimals =
        Decimal128Array::from(vec![12_500, 12_501]).with_precision_and_scale(10, 3).unwrap();
    let (values, refused) = converted("decimal(9,2)", Arc::new(decimals));
    assert_eq!((values, refused.len()), (vec![Value::Decimal(1_250, 2)], 1));
    let (values, refused) = converted("decimal(3,1)", Arc::new(Int32Array::from(vec![7, 100])));
    assert_eq!((values, refused.len()), (vec![Value::Decimal(70, 1)], 1));
}

#[test]
fn strings_of_every_layout_are_taken() {
    let expected = [Value::String("a".into()), Value::Null];
    let layouts: [ArrayRef; 4] = [
        Arc::new(StringArray::from(vec![Some("a"), None])),
        Arc::new(LargeStringArray::from(vec![Some("a"), None])),
        Arc::new(StringViewArray::from(vec![Some("a"), None])),
        Arc::new(DictionaryArray::<Int8Type>::new(
            Int8Array::from(vec![Some(1), None]),
            Arc::new(LargeStringArray::from(vec!["b", "a"])),
        )),
    ];
    for layout in layouts {
        assert_eq!(converted("string", layout), (expected.to_vec(), Vec::new()));
    }
    assert_eq!(converted("string", Arc::new(NullArray::new(2))).0, [Value::Null, Value::Null]);
}

#[test]
fn instants_and_dates_of_every_unit_are_taken() {
    let nanos = TimestampNanosecondArray::from(vec![Some(1_000), Some(1_001), None, Some(-1_000)]);
    let (values, refused) = converted("timestamp", Arc::new(nanos));
    assert_eq!(values, [Value::Timestamp(1), Value::Null, Value::Timestamp(-1)]);
    assert_eq!(refused.len(), 1);
    let zoned =
        TimestampMillisecondArray::from(vec![Some(1), Some(i64::MAX)]).with_timezone("+04:00");
    let (values, refused) = converted("timestamp", Arc::new(zoned));
    assert_eq!(values, [Value::Timestamp(1_000)], "a zone names an instant, it does not move it");
    assert_eq!(refused.len(), 1);
    let dates = Date64Array::from(vec![86_400_000, 86_400_001]);
    let (values, refused) = converted("date", Arc::new(dates));
    assert_eq!((values, refused.len()), (vec![Value::Date(1)], 1));
}

#[test]
fn lists_are_converted_item_by_item() {
    let items = Int64Array::from(vec![Some(1), Some(2), Some(300), None, Some(5), Some(6)]);
    let field = Arc::new(Field::new("element", DataType::Int64, true));
    let lists =
        FixedSizeListArray::new(field, 2, Arc::new(items), Some(vec![true, true, false].into()));
    let (values, refused) = converted("list<int8>", Arc::new(lists));
    assert_eq!(values, [Value::List(ints(&[1, 2]).into()), Value::Null]);
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].0, 1);
}

#[test]
fn wrong_columns_are_all_named() {
    let checks =
        checks("event", "{ name = \"x\", type = \"int64\" },\n{ name = \"y\", type = \"bool\" }");
    let batch = with(vec![
        ("k", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
        ("att", Arc::new(Int64Array::from(vec![1]))),
        ("x", Arc::new(BooleanArray::from(vec![true]))),
    ]);
    let error = conform(&checks, &batch).unwrap_err().to_string();
    for part in [
        "topic `t`",
        "column `k` is Int64, which is no string",
        "there is no column `att`; did you mean `at`?",
        "column `x` is Boolean, which is no int64",
        "column `at` (timestamp) is missing",
        "column `y` (bool) is missing",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn bad_rows_are_refused_alone_with_every_reason_and_as_they_came() {
    let checks = checks(
        "event",
        "{ name = \"x\", type = \"int8\", between = [0, 5] },\n{ name = \"y\", type = \"string\", one_of = [\"u\"] }",
    );
    let batch = with(vec![
        ("k", Arc::new(StringArray::from(vec![Some("a"), Some("b"), None, Some("d")])) as ArrayRef),
        ("at", Arc::new(TimestampNanosecondArray::from(vec![0; 4]))),
        ("x", Arc::new(Int64Array::from(vec![Some(1), Some(999), Some(9), None]))),
        ("y", Arc::new(StringViewArray::from(vec!["u", "v", "u", "u"]))),
    ]);
    let checked = conform(&checks, &batch).unwrap();
    assert_eq!(checked.positions, [0]);
    let told: Vec<Vec<&str>> = checked
        .rejected
        .iter()
        .map(|row| row.reasons.iter().map(|reason| reason.code.as_str()).collect())
        .collect();
    assert_eq!(
        told,
        [vec!["out_of_range", "not_one_of"], vec!["null", "not_between"], vec!["null"]]
    );
    assert_eq!(checked.rejected[0].row, r#"{"k":"b","at":"1970-01-01T00:00:00","x":999,"y":"v"}"#);
}

#[test]
fn operations_are_read_and_deletes_may_lack_columns() {
    let checks = checks("table", "{ name = \"x\", type = \"int64\" }");
    let keys: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
    let times: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![0; 3]));
    let ops: ArrayRef = Arc::new(StringViewArray::from(vec![Some("delete"), None, Some("oops")]));
    let xs: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(1), Some(1)]));
    let batch = with(vec![("k", keys.clone()), ("at", times.clone()), ("__op", ops), ("x", xs)]);
    let checked = conform(&checks, &batch).unwrap();
    assert_eq!(checked.ops, [Op::Delete, Op::Upsert]);
    assert_eq!(checked.rejected[0].reasons[0].code, ReasonCode::WrongOperation);

    let deletes: ArrayRef = Arc::new(StringArray::from(vec!["delete"; 3]));
    let batch = with(vec![("k", keys.clone()), ("at", times.clone()), ("__op", deletes)]);
    let checked = conform(&checks, &batch).unwrap();
    assert_eq!((checked.batch.num_columns(), checked.positions.len()), (3, 3));
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1; 3]));
    let batch = with(vec![("k", keys), ("at", times), ("__op", numbers)]);
    assert!(conform(&checks, &batch).unwrap_err().to_string().contains("`__op` is Int64"));
}

#[test]
fn a_batch_of_the_topic_passes_as_it_is() {
    let checks = checks("event", "{ name = \"x\", type = \"list<string>\", nullable = true }");
    let schema = loose_schema(&checks.topic().schema);
    let empty = RecordBatch::new_empty(schema);
    assert_eq!(conform(&checks, &empty).unwrap().batch, empty);
}
