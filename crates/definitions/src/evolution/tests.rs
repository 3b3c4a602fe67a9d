//! Every change that can be declared.

use falaj_event::cells::batch_cells;
use falaj_event::value::to_array;
use falaj_event::{ColumnType, Value};

use super::*;
use crate::diagnostics::SourceFile;
use crate::topics::parse_topic;

const V1: &str = r#"name = "t"
key = "k"
event_time = "at"
subject = "k"
partitions = 2
[[columns]]
name = "k"
type = "string"
[[columns]]
name = "at"
type = "timestamp"
[[columns]]
name = "x"
type = "int32"
[[columns]]
name = "p"
type = "string"
pii = true
nullable = true
"#;

fn schema(text: &str) -> TopicSchema {
    let topic =
        parse_topic(&SourceFile::new("t.toml", text)).unwrap_or_else(|found| panic!("{found}"));
    TopicSchema::clone(&topic.schema)
}

fn v2() -> String {
    format!(
        "version = 2\n{V1}[[columns]]\nname = \"y\"\ntype = \"float64\"\nnullable = true\nsince = 2\n"
    )
}

#[track_caller]
fn refused(from: &str, to: &str, contains: &[&str]) {
    assert!(V1.contains(from), "{from}");
    let error = compare(&schema(V1), &schema(&V1.replacen(from, to, 1))).unwrap_err();
    assert_eq!(error.reasons.len(), contains.len(), "{error}");
    for (reason, part) in error.reasons.iter().zip(contains) {
        assert!(reason.contains(part), "{part}: {error}");
    }
}

#[test]
fn the_same_schema_is_unchanged_whatever_else_changes() {
    assert_eq!(compare(&schema(V1), &schema(V1)), Ok(Change::Unchanged));
    let other =
        V1.replace("type = \"int32\"", "type = \"int32\"\nbetween = [0, 1]\ndescription = \"x\"");
    let other = format!("skew = \"1 s\"\nretention = \"1 day\"\n{other}");
    assert_eq!(compare(&schema(V1), &schema(&other)), Ok(Change::Unchanged));
}

#[test]
fn nullable_columns_may_be_added_at_the_end() {
    let change = compare(&schema(V1), &schema(&v2()));
    assert_eq!(change, Ok(Change::Added { version: 2, columns: vec!["y".into()] }));
    let v3 = v2().replace("version = 2", "version = 3")
        + "[[columns]]\nname = \"z\"\ntype = \"bool\"\nnullable = true\nsince = 3\n";
    assert!(compare(&schema(&v2()), &schema(&v3)).is_ok());
    let error = compare(&schema(V1), &schema(&v3)).unwrap_err();
    assert!(error.to_string().contains("cannot change from version 1 to 3"), "{error}");
}

#[test]
fn versions_must_say_what_happened() {
    let unsaid = v2().replace("version = 2\n", "").replace("since = 2\n", "");
    let error = compare(&schema(V1), &schema(&unsaid)).unwrap_err();
    assert_eq!(
        error.reasons,
        ["new column `y` must say `since = 2`", "columns were added: write `version = 2`"]
    );
    let bumped = format!("version = 2\n{V1}");
    let error = compare(&schema(V1), &schema(&bumped)).unwrap_err();
    assert_eq!(error.reasons, ["no column was added: leave `version = 1`"]);
    let back = compare(&schema(&v2()), &schema(V1)).unwrap_err();
    assert!(back.reasons.iter().any(|reason| reason.contains("`y` was removed")), "{back}");
    let required = unsaid.replace("type = \"float64\"\nnullable = true", "type = \"float64\"");
    let error = compare(&schema(V1), &schema(&required)).unwrap_err();
    assert!(error.reasons[0].contains("is not nullable, but old events lack it"), "{error}");
}

#[test]
fn everything_else_is_refused_with_its_reason() {
    refused("\"int32\"", "\"int64\"", &["changed its type from int32 to int64"]);
    refused("\"int32\"", "\"int32\"\nnullable = true", &["`x` became nullable"]);
    refused("pii = true\nnullable = true", "pii = true", &["`p` is no longer nullable"]);
    refused("pii = true\n", "", &["`p` is no longer personal data"]);
    refused("\"int32\"", "\"int32\"\npii = true", &["`x` became personal data"]);
    refused("partitions = 2", "partitions = 4", &["partitions changed from 2 to 4"]);
    refused("key = \"k\"", "key = [\"k\", \"x\"]", &["key changed from `k` to `k, x`"]);
    refused("subject = \"k\"", "subject = \"x\"", &["subject changed from `k` to `x`"]);
}

#[test]
fn kinds_names_and_places_are_refused() {
    let table = V1.replace("key = \"k\"", "kind = \"table\"\nprimary_key = \"k\"");
    let error = compare(&schema(V1), &schema(&table)).unwrap_err();
    assert_eq!(error.reasons, ["its kind changed from event to table"]);
    let renamed = V1.replace("name = \"t\"", "name = \"u\"");
    assert!(
        compare(&schema(V1), &schema(&renamed)).unwrap_err().to_string().contains("another topic")
    );
    let removed = V1.replace("[[columns]]\nname = \"x\"\ntype = \"int32\"\n", "");
    let error = compare(&schema(V1), &schema(&removed)).unwrap_err();
    assert!(error.reasons.iter().any(|reason| reason.contains("`x` was removed")), "{error}");
    let moved = removed + "[[columns]]\nname = \"x\"\ntype = \"int32\"\n";
    let error = compare(&schema(V1), &schema(&moved)).unwrap_err();
    assert!(error.reasons.iter().any(|reason| reason.contains("`x` moved")), "{error}");
    let time = V1
        .replace("event_time = \"at\"", "event_time = \"w\"")
        .replace("name = \"at\"", "name = \"w\"");
    let error = compare(&schema(V1), &schema(&time)).unwrap_err();
    assert!(
        error.reasons.iter().any(|r| r.contains("event time changed from `at` to `w`")),
        "{error}"
    );
}

#[test]
fn old_rows_read_null_where_columns_came_later() {
    let (old, new) = (schema(V1), schema(&v2()));
    let values = [Value::String("a".into()), Value::Timestamp(1), Value::Int(2), Value::Null];
    let arrays = old.columns.iter().zip(&values);
    let arrays = arrays.map(|(c, v)| to_array(&c.column_type, std::slice::from_ref(v)).unwrap());
    let batch = RecordBatch::try_new(loose_schema(&old), arrays.collect()).unwrap();
    let adapted = adapt(&batch, &old, &new).unwrap();
    let cells = batch_cells(&adapted).unwrap();
    assert_eq!(adapted.num_columns(), 5);
    assert_eq!((cells[2].value(0), cells[4].value(0)), (Value::Int(2), Value::Null));
    assert_eq!(new.columns[4].column_type, ColumnType::Float64);
    assert!(adapt(&adapted, &old, &new).is_err(), "five columns are not version 1");
}
