//! Tests of [`super`].

use arrow::array::{Float64Array, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::datatypes::Field;
use falaj_event::{Classification, Column, ColumnType, TopicSchema};

use super::*;

fn topic(kind: TopicKind) -> TopicInfo {
    let column = |name: &str, column_type, nullable| Column {
        name: name.to_owned(),
        column_type,
        nullable,
        pii: false,
        classification: Classification::Internal,
        since_version: 1,
    };
    let schema = TopicSchema {
        name: "payments".to_owned(),
        version: 1,
        kind,
        columns: vec![
            column("card", ColumnType::String, false),
            column("count", ColumnType::Int16, true),
            column("at", ColumnType::Timestamp, false),
            column("note", ColumnType::String, true),
        ],
        key: vec![0],
        event_time: 2,
        subject: None,
        partitions: 4,
        derived: false,
    };
    TopicInfo::new(schema, Json::Null)
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
        .unwrap()
}

fn cards(rows: usize) -> ArrayRef {
    Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("c{row}"))))
}

fn times(rows: usize) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from_iter_values((0..rows).map(|row| row as i64)))
}

#[test]
fn columns_are_ordered_converted_and_filled_up() {
    let sent = batch(vec![
        ("at", times(2)),
        ("count", Arc::new(Int64Array::from(vec![Some(5), None]))),
        ("card", cards(2)),
    ]);
    let arrivals = Arrivals::new(&topic(TopicKind::Event), &sent.schema()).unwrap();
    let arrival = arrivals.take(&sent).unwrap();
    let names: Vec<_> = arrival.batch.schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["card", "count", "at", "note"]);
    assert_eq!(arrival.batch.column(1).data_type(), &DataType::Int16);
    assert_eq!(arrival.batch.column(3).null_count(), 2);
    assert!(arrival.ops.is_none() && arrival.misfits.is_empty());
}

#[test]
fn a_row_that_does_not_fit_leaves_its_neighbours_alone() {
    let sent = batch(vec![
        ("card", cards(3)),
        ("count", Arc::new(Float64Array::from(vec![1.0, 1.5, 99_999.0]))),
        ("at", times(3)),
        ("__op", Arc::new(StringArray::from(vec![None, Some("insert"), Some("destroy")]))),
    ]);
    let arrivals = Arrivals::new(&topic(TopicKind::Event), &sent.schema()).unwrap();
    let arrival = arrivals.take(&sent).unwrap();
    assert_eq!(arrival.ops, Some(vec![Op::Insert; 3]));
    let rows: Vec<usize> = arrival.misfits.iter().map(|misfit| misfit.row).collect();
    assert_eq!(rows, [1, 2]);
    assert_eq!(arrival.misfits[0].reasons, ["`count` = 1.5 does not fit Int16"]);
    assert_eq!(arrival.misfits[1].reasons.len(), 2);
    let original: Json = serde_json::from_str(&arrival.misfits[0].original).unwrap();
    assert_eq!(original["card"], "c1");
    assert_eq!(original["count"], 1.5);
    assert_eq!(original["__op"], "insert");
}

#[test]
fn operations_default_by_kind() {
    let sent = batch(vec![
        ("card", cards(2)),
        ("at", times(2)),
        ("__op", Arc::new(StringArray::from(vec![None, Some("delete")]))),
    ]);
    let arrivals = Arrivals::new(&topic(TopicKind::Table), &sent.schema()).unwrap();
    assert_eq!(arrivals.take(&sent).unwrap().ops, Some(vec![Op::Upsert, Op::Delete]));
}

#[test]
fn what_no_row_can_satisfy_is_refused_before_any_row() {
    let topic = topic(TopicKind::Event);
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let cases = [
        (vec![text("card"), text("cuont"), text("at")], "did you mean `count`"),
        (vec![text("card"), text("at")], "`at` of topic `payments` is timestamp"),
        (vec![text("card")], "no column `at`"),
        (vec![text("card"), text("card")], "two columns called `card`"),
        (vec![text("__t")], "no column called `__t`"),
    ];
    for (fields, expected) in cases {
        let error = Arrivals::new(&topic, &Schema::new(fields)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
