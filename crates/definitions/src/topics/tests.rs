//! Every way in which a topic's file can be right or wrong, with places.

use falaj_event::{Classification, ColumnType, TopicKind, Value};

use super::*;
use crate::expectations::Rule;

const GOOD: &str = r#"name = "payments"
key = ["customer_id"]
event_time = "paid_at"
subject = "customer_id"
partitions = 4
classification = "confidential"
jurisdictions = ["AE", "AE-DIFC"]
retention = "30 days"
skew = "1 min"
version = 2

[[columns]]
name = "customer_id"
type = "string"

[[columns]]
name = "paid_at"
type = "timestamp"

[[columns]]
name = "amount"
type = "decimal(12,2)"
between = [0.01, "99.5"]
unique_within = "1 day"

[[columns]]
name = "phone"
type = "string"
nullable = true
pii = true
matches = '\+\d+'

[[columns]]
name = "status"
type = "string"
nullable = true
not_null = true
since = 2
one_of = ["ok", "bad"]
"#;

fn parse_text(text: &str) -> Result<TopicDefinition, Diagnostics> {
    parse_topic(&SourceFile::new("topics/t.toml", text))
}

/// The findings for `GOOD` with one replacement, as `line:column code message | help`.
fn findings(from: &str, to: &str) -> Vec<String> {
    assert!(GOOD.contains(from), "{from}");
    described(&GOOD.replacen(from, to, 1))
}

fn described(text: &str) -> Vec<String> {
    let found = parse_text(text).unwrap_err();
    found
        .iter()
        .map(|d| {
            let help = d.help.clone().unwrap_or_default();
            format!("{}:{} {} {} | {help}", d.line, d.column, d.code, d.message)
        })
        .collect()
}

#[track_caller]
fn one(from: &str, to: &str, starts: &str, contains: &str) {
    let found = findings(from, to);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with(starts), "{}", found[0]);
    assert!(found[0].contains(contains), "{}", found[0]);
}

#[test]
fn a_good_topic_is_read_whole() {
    let topic = parse_text(GOOD).unwrap();
    let schema = &topic.schema;
    assert_eq!(
        (schema.name.as_str(), schema.version, schema.kind),
        ("payments", 2, TopicKind::Event)
    );
    assert_eq!(
        (schema.key.as_slice(), schema.event_time, schema.subject),
        ([0].as_slice(), 1, Some(0))
    );
    assert_eq!((schema.partitions, schema.derived), (4, false));
    assert_eq!(topic.jurisdictions, ["AE", "AE-DIFC"]);
    assert_eq!(topic.retention_us, Some(30 * 86_400_000_000));
    assert_eq!(topic.skew_us, 60_000_000);
    let names: Vec<&str> = schema.columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["customer_id", "paid_at", "amount", "phone", "status"]);
    assert_eq!(schema.columns[2].column_type, ColumnType::Decimal { precision: 12, scale: 2 });
    assert_eq!(schema.columns[2].classification, Classification::Confidential);
    assert_eq!(schema.columns[3].classification, Classification::Restricted, "pii is guarded most");
    assert_eq!(schema.columns[4].since_version, 2);
    let rules: Vec<(usize, &Rule)> =
        topic.expectations.iter().map(|e| (e.column, &e.rule)).collect();
    assert!(matches!(
        rules[0],
        (2, Rule::Between(least, greatest))
            if *least == Value::Decimal(1, 2) && *greatest == Value::Decimal(9_950, 2)
    ));
    assert!(matches!(rules[1], (2, Rule::UniqueWithin(86_400_000_000))));
    assert!(matches!(rules[2], (3, Rule::Matches(text, regex))
        if text == r"\+\d+" && regex.is_match("+971") && !regex.is_match("x+971")));
    assert!(matches!(rules[3], (4, Rule::NotNull)));
    assert!(matches!(rules[4], (4, Rule::OneOf(values)) if values.len() == 2));
    assert_eq!(rules.len(), 5);
    assert_eq!(topic.hash, parse_text(GOOD).unwrap().hash);
    assert_ne!(topic.hash, parse_text(&GOOD.replace("1 min", "2 min")).unwrap().hash);
}

#[test]
fn defaults_are_the_documented_ones() {
    let topic = parse_text(
        "name = \"t\"\nkey = \"k\"\nevent_time = \"at\"\n\
         columns = [{ name = \"k\", type = \"int8\" }, { name = \"at\", type = \"timestamp\" }]",
    )
    .unwrap();
    assert_eq!((topic.schema.version, topic.schema.partitions), (1, 1));
    assert_eq!(topic.schema.kind, TopicKind::Event);
    assert_eq!((topic.skew_us, topic.retention_us), (DEFAULT_SKEW_US, None));
    assert_eq!(topic.max_gap_us, Some(DEFAULT_MAX_GAP_US));
    let with =
        |gap: &str| parse_text(&GOOD.replace("skew =", &format!("max_gap = \"{gap}\"\nskew =")));
    assert_eq!(with("3 days").unwrap().max_gap_us, Some(3 * 86_400_000_000));
    assert_eq!(with("forever").unwrap().max_gap_us, None);
    one("skew", "max_gap = \"0 s\"\nskew", "9:11 bad-value no event could move the clock", "");
    assert_eq!(topic.schema.columns[0].classification, Classification::Internal);
    assert!(!topic.schema.columns[0].nullable && topic.jurisdictions.is_empty());
}

#[test]
fn unknown_fields_are_named_with_the_nearest() {
    one(
        "partitions",
        "partition",
        "5:1 unknown-field a topic has no field `partition`",
        "`partitions`?",
    );
    one("nullable", "nulable", "29:1 unknown-field a column has no field `nulable`", "`nullable`?");
    one("skew = ", "colour = ", "9:1 unknown-field", "its fields are name, kind,");
}

#[test]
fn wrong_types_and_values_are_placed_on_the_value() {
    one(
        "partitions = 4",
        "partitions = \"4\"",
        "5:14 wrong-type `partitions` must be a whole number",
        "a string",
    );
    one("partitions = 4", "partitions = 0", "5:14 out-of-range", "between 1 and 1024");
    one("partitions = 4", "partitions = 0x7fffffffffffffffffff", "5:14 out-of-range", "");
    one("[\"AE\", \"AE-DIFC\"]", "[\"AE\", 7]", "7:24 wrong-type", "must be a string");
    one("\"AE-DIFC\"", "\"Dubai\"", "7:24 bad-value `Dubai` is not a jurisdiction", "ISO 3166");
    one(
        "\"confidential\"",
        "\"secret\"",
        "6:18 bad-value there is no classification `secret`",
        "restricted",
    );
    one("\"30 days\"", "\"1 year\"", "8:13 bad-duration `year` has no fixed length", "forever");
    one("\"1 min\"", "60", "9:8 wrong-type `skew` must be a string", "");
    one("nullable = true", "nullable = 1", "29:12 wrong-type", "true or false");
    one(
        "key = [\"customer_id\"]",
        "kind = \"tabel\"\nkey = [\"customer_id\"]",
        "2:8 bad-value",
        "`table`?",
    );
    one("\"decimal(12,2)\"", "\"money\"", "22:8 unknown-type unknown type `money`", "");
    one("\"timestamp\"", "\"int\"", "18:8 unknown-type", "did you mean `int64`?");
    one("skew", "description = \"\"\nskew", "9:15 empty", "`description` is empty");
    one("skew", "derived = true\nskew", "9:11 reserved only the platform", "");
    one("skew", "format = \"avro\"\nskew", "9:10 bad-value there is no format `avro`", "json");
    one("skew", "format = \"json\"\nskew", "9:10 pii-inbox column `phone` is personal data", "");
}

#[test]
fn broken_toml_is_placed() {
    let found = findings("partitions = 4", "partitions 4");
    assert!(found[0].starts_with("5:1"), "{found:?}");
    assert!(found.iter().all(|d| d.contains("bad-toml")), "{found:?}");
    let twice = findings("skew = \"1 min\"", "skew = \"1 min\"\nskew = \"2 min\"");
    assert!(twice[0].starts_with("10:1 bad-toml"), "{twice:?}");
}

#[test]
fn names_are_checked() {
    one("name = \"payments\"", "name = \"falaj.x\"", "1:8 reserved-name", "belong to the platform");
    one("name = \"payments\"", "name = \"Pay-ments\"", "1:8 bad-name", "not a topic name");
    one("name = \"amount\"", "name = \"__amount\"", "21:8 bad-name", "belong to the platform");
    one("name = \"amount\"", "name = \"2nd\"", "21:8 bad-name", "beginning with no digit");
    one("name = \"amount\"", "name = \"phone\"", "27:8 duplicate-name", "on line 21");
    one("name = \"payments\"\n", "", "1:1 missing-field this topic has no `name`", "");
    one("name = \"amount\"\n", "", "20:1 missing-field this column has no `name`", "");
}

#[test]
fn keys_event_times_and_subjects_are_checked() {
    one(
        "key = [\"customer_id\"]",
        "key = [\"custmer_id\"]",
        "2:8 unknown-column",
        "`customer_id`?",
    );
    one("key = [\"customer_id\"]", "key = []", "2:7 empty", "names no column");
    one(
        "key = [\"customer_id\"]",
        "key = [\"customer_id\", \"customer_id\"]",
        "2:23 duplicate-name",
        "",
    );
    one("key = [\"customer_id\"]", "key = [\"status\"]", "2:8 nullable-key", "");
    one("key = [\"customer_id\"]\n", "", "1:1 missing-field this topic has no `key`", "partition");
    one("key = ", "primary_key = [\"customer_id\"]\nkey = ", "2:15 wrong-field", "only tables");
    let pii = GOOD
        .replace("nullable = true\npii", "pii")
        .replace("key = [\"customer_id\"]", "key = [\"phone\"]");
    assert!(described(&pii)[0].starts_with("2:8 pii-key key column `phone` is personal data"));
    let list = GOOD.replace(
        "\"string\"\n\n[[columns]]\nname = \"paid_at\"",
        "\"list<string>\"\n\n[[columns]]\nname = \"paid_at\"",
    );
    assert!(described(&list).iter().any(|d| d.starts_with("2:8 bad-key-type")));
    one(
        "event_time = \"paid_at\"\n",
        "",
        "1:1 missing-field this topic has no `event_time`",
        "timestamp",
    );
    one(
        "event_time = \"paid_at\"",
        "event_time = \"customer_id\"",
        "3:14 bad-event-time",
        "type string, not timestamp",
    );
    one("\"timestamp\"", "\"timestamp\"\nnullable = true", "3:14 bad-event-time", "nullable");
    one("subject = \"customer_id\"\n", "", "26:8 missing-subject column `phone`", "subject = ");
    one("subject = \"customer_id\"", "subject = \"phone\"", "4:11 bad-subject", "random reference");
    one("subject = \"customer_id\"", "subject = \"nobody\"", "4:11 unknown-column", "");
    one(
        "key = [\"customer_id\"]",
        "kind = \"table\"\nprimary_key = [\"customer_id\"]",
        "25:17 wrong-rule",
        "table",
    );
}

#[test]
fn versions_of_columns_are_checked() {
    one("since = 2", "since = 3", "38:9 bad-version", "version = 3");
    let bound = GOOD.replace("nullable = true\nnot_null = true\nsince", "since");
    assert!(described(&bound)[0].starts_with("36:9 bad-version"), "{:?}", described(&bound));
    let early = GOOD.replace("since = 2\n", "").replace("pii = true", "since = 2\npii = true");
    assert!(described(&early)[0].starts_with("35:8 bad-version"), "{:?}", described(&early));
}

#[test]
fn rules_must_fit_their_columns() {
    one(
        "one_of = [\"ok\", \"bad\"]",
        "between = [\"a\", \"b\"]",
        "39:11 wrong-rule",
        "numbers, dates",
    );
    one("[0.01, \"99.5\"]", "[0.01]", "23:11 bad-value", "two bounds");
    one(
        "[0.01, \"99.5\"]",
        "[2, 1]",
        "23:11 bad-value nothing is between 2.00 and 1.00",
        "smaller",
    );
    one("[0.01, \"99.5\"]", "[0.001, 1]", "23:12 wrong-type", "more than 2 digits");
    one("[0.01, \"99.5\"]", "5", "23:11 wrong-type", "two bounds");
    one("\"1 day\"", "\"0 s\"", "24:17 bad-value", "");
    one("\"1 day\"", "\"soon\"", "24:17 bad-value", "whole number");
    one("matches = '\\+\\d+'", "matches = '(['", "31:11 bad-pattern", "regular expression");
    one("matches = '\\+\\d+'", "matches = 'a)(b'", "31:11 bad-pattern", "");
    one("matches = '\\+\\d+'", "unique_within = \"1 day\"", "31:17 bad-value", "personal data");
    one("[\"ok\", \"bad\"]", "[\"ok\", \"ok\"]", "39:10 bad-value `one_of` names \"ok\" twice", "");
    one("[\"ok\", \"bad\"]", "[]", "39:10 bad-value", "allows nothing");
    one("[\"ok\", \"bad\"]", "[\"ok\", 3]", "39:17 wrong-type", "must be a string");
    one(
        "between = [0.01, \"99.5\"]",
        "matches = \"x\"",
        "23:11 wrong-rule `matches` cannot be asked",
        "strings",
    );
}

#[test]
fn literals_fit_every_type() {
    for (column_type, bounds) in [
        ("int8", "[-128, 127]"),
        ("int16", "[0x10, 0o77]"),
        ("int32", "[-2_000_000_000, 5]"),
        ("int64", "[-9223372036854775808, 9223372036854775807]"),
        ("uint8", "[0, 255]"),
        ("uint16", "[0, 65535]"),
        ("uint32", "[1, 2]"),
        ("uint64", "[0, 9223372036854775807]"),
        ("float32", "[-1.5, 2]"),
        ("float64", "[-inf, 1e300]"),
        ("decimal(38,10)", "[\"-1.0000000001\", 7]"),
        ("date", "[2020-01-01, \"2030-12-31\"]"),
        ("timestamp", "[2020-01-01T00:00:00Z, \"2030-12-31T00:00:00+04:00\"]"),
    ] {
        let text = GOOD.replace("decimal(12,2)", column_type).replace("[0.01, \"99.5\"]", bounds);
        assert!(parse_text(&text).is_ok(), "{column_type}: {:?}", described(&text));
    }
    for (column_type, bounds) in [
        ("int8", "[-129, 127]"),
        ("uint8", "[-1, 2]"),
        ("uint64", "[0, 18446744073709551616]"),
        ("int64", "[0, 1.0]"),
        ("float64", "[nan, 1]"),
        ("date", "[2020-01-01T00:00:00Z, 2030-12-31]"),
        ("timestamp", "[2020-01-01T00:00:00, 2030-12-31T00:00:00Z]"),
    ] {
        let text = GOOD.replace("decimal(12,2)", column_type).replace("[0.01, \"99.5\"]", bounds);
        let found = described(&text);
        assert!(found.len() == 1 && found[0].starts_with("23:1"), "{column_type}: {found:?}");
    }
}

#[test]
fn all_findings_are_reported_at_once() {
    let text = GOOD
        .replace("partitions", "partition")
        .replace("\"paid_at\"\nsubject", "\"paid\"\nsubject")
        .replace("[0.01, \"99.5\"]", "[2, 1]");
    let found = described(&text);
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(
        found[0].starts_with("3:14")
            && found[1].starts_with("5:1")
            && found[2].starts_with("23:11")
    );
}

#[test]
fn system_topics_are_clean_and_derived() {
    let topics = system_topics().unwrap();
    let names: Vec<&str> = topics.iter().map(|t| t.schema.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "falaj.baselines",
            "falaj.definitions",
            "falaj.drift",
            "falaj.epochs",
            "falaj.models",
            "falaj.runs"
        ]
    );
    assert!(topics.iter().all(|topic| topic.schema.derived && topic.retention_us.is_none()));
    assert!(topics.iter().all(|topic| !topic.description.is_empty()));
    assert!(topics.iter().all(|t| t.column_descriptions.iter().all(|text| !text.is_empty())));
    assert!(topics.iter().all(|topic| is_embedded(&topic.text)));
    assert!(!is_embedded(GOOD));
    assert!(topics.iter().all(|topic| rejected_topic(topic).unwrap().is_none()));
}

#[test]
fn rejected_topics_follow_their_source() {
    let source = parse_text(GOOD).unwrap();
    let rejected = rejected_topic(&source).unwrap().unwrap();
    let column = |topic: &TopicDefinition, name: &str| {
        topic.schema.column_index(name).map(|index| topic.schema.columns[index].clone())
    };
    assert_eq!(rejected.schema.name, "payments.rejected");
    assert!(rejected.schema.derived && rejected.schema.version == 2);
    assert_eq!(rejected.schema.columns[rejected.schema.event_time].name, "t");
    assert_eq!(rejected.schema.subject, rejected.schema.column_index("subject"));
    assert!(column(&rejected, "row").unwrap().pii);
    assert_eq!(rejected.retention_us, source.retention_us);

    let by_number = parse_text(&GOOD.replacen("\"string\"", "\"int64\"", 1)).unwrap();
    let by_number = rejected_topic(&by_number).unwrap().unwrap();
    assert_eq!(column(&by_number, "subject").unwrap().column_type, ColumnType::Int64);

    let plain = GOOD.replace("subject = \"customer_id\"\n", "").replace("pii = true\n", "");
    let plain = rejected_topic(&parse_text(&plain).unwrap()).unwrap().unwrap();
    assert_eq!(plain.schema.subject, None);
    assert!(column(&plain, "subject").is_none() && column(&plain, "row").unwrap().pii);
    assert_eq!(plain.column_descriptions.len(), plain.schema.columns.len());
    assert_ne!(plain.hash, rejected.hash);
    assert!(rejected_topic(&rejected).unwrap().is_none());
    let stored = parse_stored("payments", GOOD).unwrap();
    assert_eq!((stored.schema, stored.hash), (source.schema, source.hash));
    let system = system_topics().unwrap();
    let epochs = system.iter().find(|topic| topic.schema.name == "falaj.epochs").unwrap();
    assert_eq!(parse_stored("falaj.epochs", &epochs.text).unwrap().schema, epochs.schema);
}

/// Every byte of a good file cut, doubled, or replaced: an answer or findings in the file, never a
/// panic.
#[test]
fn mutated_files_never_panic() {
    let check = |text: &str| {
        if let Err(found) = parse_text(text) {
            assert!(!found.is_empty(), "refused without a reason:\n{text}");
            let lines = u32::try_from(text.lines().count()).unwrap() + 1;
            for finding in &found {
                assert!(finding.line >= 1 && finding.line <= lines, "{finding}");
                assert!(finding.column >= 1);
                let _ = finding.to_string();
            }
        }
    };
    let replacements = ["\"", "[", "]", "=", "\n", "é", "#", "{", "0", ",", "\0", "[[", "'''"];
    for at in (0..GOOD.len()).filter(|at| GOOD.is_char_boundary(*at)) {
        let (head, tail) = GOOD.split_at(at);
        let rest = tail.get(1..).unwrap_or_default();
        check(head);
        check(tail);
        check(&format!("{head}{rest}"));
        for replacement in replacements {
            check(&format!("{head}{replacement}{tail}"));
            check(&format!("{head}{replacement}{rest}"));
        }
    }
    let lines: Vec<&str> = GOOD.lines().collect();
    for (a, _) in lines.iter().enumerate() {
        for b in 0..lines.len() {
            let mut swapped = lines.clone();
            swapped.swap(a, b);
            check(&swapped.join("\n"));
        }
    }
}
