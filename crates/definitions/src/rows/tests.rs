//! What is read, what is refused and why, and round trips.

use falaj_event::ColumnType;
use falaj_event::cells::batch_cells;

use super::*;
use crate::diagnostics::SourceFile;
use crate::topics::parse_topic;

const EVERY_TYPE: [(&str, &str); 20] = [
    ("b", "bool"),
    ("i8", "int8"),
    ("i16", "int16"),
    ("i32", "int32"),
    ("i64", "int64"),
    ("u8", "uint8"),
    ("u16", "uint16"),
    ("u32", "uint32"),
    ("u64", "uint64"),
    ("f32", "float32"),
    ("f64", "float64"),
    ("dec", "decimal(38,6)"),
    ("s", "string"),
    ("bin", "binary"),
    ("d", "date"),
    ("ts", "timestamp"),
    ("li", "list<int64>"),
    ("ls", "list<string>"),
    ("ld", "list<decimal(9,2)>"),
    ("lt", "list<timestamp>"),
];

fn topic(kind: &str, columns: &str) -> Arc<TopicDefinition> {
    let key = if kind == "table" { "primary_key" } else { "key" };
    let text = format!(
        "name = \"t\"\nkind = \"{kind}\"\n{key} = \"k\"\nevent_time = \"at\"\nsubject = \"k\"\ncolumns = [\n\
         {{ name = \"k\", type = \"string\" }},\n{{ name = \"at\", type = \"timestamp\" }},\n{columns}\n]"
    );
    Arc::new(
        parse_topic(&SourceFile::new("t.toml", text)).unwrap_or_else(|found| panic!("{found}")),
    )
}

fn every_type() -> Arc<TopicDefinition> {
    let columns = EVERY_TYPE.map(|(name, column_type)| {
        format!("{{ name = \"{name}\", type = \"{column_type}\", nullable = true }},")
    });
    topic("event", &columns.join("\n"))
}

fn parse(topic: &Arc<TopicDefinition>, lines: &[&str]) -> Checked {
    let mut parser = RowParser::new(Arc::clone(topic));
    lines.iter().for_each(|line| parser.push_json(line));
    assert_eq!(parser.len(), lines.len());
    let checked = parser.finish().unwrap();
    assert!(parser.is_empty());
    checked
}

fn reasons(row: &crate::reasons::RejectedRow) -> Vec<String> {
    row.reasons.iter().map(ToString::to_string).collect()
}

/// The value of one field, or the reasons against it.
fn field(column: &str, raw: &str) -> Result<Value, Vec<String>> {
    let topic = every_type();
    let line = format!("{{\"k\":\"a\",\"at\":0,\"{column}\":{raw}}}");
    let checked = parse(&topic, &[&line]);
    if let Some(row) = checked.rejected.first() {
        assert_eq!((row.row.as_str(), &row.subject), (line.as_str(), &Value::String("a".into())));
        return Err(reasons(row));
    }
    let cells = batch_cells(&checked.batch).unwrap();
    Ok(cells[topic.schema.column_index(column).unwrap()].value(0))
}

#[test]
fn every_type_is_read_exactly() {
    let big = "123456789012345678901234567890.123456";
    for (column, raw, value) in [
        ("b", "true", Value::Bool(true)),
        ("i8", "-128", Value::Int(-128)),
        ("i32", "5.0", Value::Int(5)),
        ("i64", "9223372036854775807", Value::Int(i64::MAX)),
        ("i64", "\"-9223372036854775808\"", Value::Int(i64::MIN)),
        ("u64", "18446744073709551615", Value::UInt(u64::MAX)),
        ("u8", "2e2", Value::UInt(200)),
        ("f32", "0.1", Value::Float32(0.1)),
        ("f64", "1e-3", Value::Float64(0.001)),
        ("f64", "\"NaN\"", Value::Float64(f64::NAN)),
        ("f64", "\"-Infinity\"", Value::Float64(f64::NEG_INFINITY)),
        ("dec", big, Value::Decimal(123_456_789_012_345_678_901_234_567_890_123_456, 6)),
        ("dec", "\"-0.1\"", Value::Decimal(-100_000, 6)),
        ("s", r#""a\"\\\u00e9,}]""#, Value::String("a\"\\é,}]".into())),
        ("bin", "\"Zm9v\"", Value::Binary(b"foo".as_slice().into())),
        ("bin", "\"0xff\"", Value::Binary([255].into())),
        ("d", "\"2026-01-31\"", Value::Date(20_484)),
        ("ts", "\"1970-01-01T04:00:00+04:00\"", Value::Timestamp(0)),
        ("ts", "-1", Value::Timestamp(-1)),
        ("li", "[1, null , -2]", Value::List([Value::Int(1), Value::Null, Value::Int(-2)].into())),
        ("li", "[]", Value::List([].into())),
        (
            "ls",
            r#"["a,b", "]"]"#,
            Value::List(["a,b", "]"].map(|s| Value::String(s.into())).into()),
        ),
        ("ld", "[1.25]", Value::List([Value::Decimal(125, 2)].into())),
        ("s", "null", Value::Null),
        ("li", "null", Value::Null),
    ] {
        assert_eq!(field(column, raw), Ok(value), "{column} {raw}");
    }
}

#[test]
fn values_that_do_not_fit_are_told_exactly() {
    let instant =
        "an instant such as \"2026-01-31T08:15:00Z\", or whole microseconds since 1970 UTC";
    for (column, raw, told) in [
        ("i8", "128", "int8: it is not between -128 and 127"),
        ("i32", "1.5", "int32: it has more than 0 digits after the point"),
        ("u16", "-1", "uint16: it is not between 0 and 65535"),
        ("u64", "18446744073709551616", "uint64: it is not between 0 and 18446744073709551615"),
        ("i64", "true", "int64: expected a whole number"),
        ("i64", "\"many\"", "int64: expected a whole number"),
        ("i64", "{\"a\": [1]}", "int64: expected a whole number"),
        ("f64", "1e999", "float64: it is too large"),
        ("f32", "1e39", "float32: it is too large"),
        ("f64", "\"inf\"", "float64: expected a number"),
        ("dec", "0.1234567", "decimal(38,6): it has more than 6 digits after the point"),
        ("s", "5", "string: expected a string"),
        ("b", "1", "bool: expected true or false"),
        ("bin", "\"?\"", "binary: it is neither base64 nor 0x and hexadecimal digits"),
        ("d", "\"2026-02-30\"", "date: expected a date such as \"2026-01-31\""),
        (
            "ts",
            "\"2026-01-01T00:00:00\"",
            "timestamp: it has no offset from UTC: end it with Z or +04:00",
        ),
        ("ts", "1.5", &format!("timestamp: expected {instant}")),
        ("li", "3", "list<int64>: expected a list"),
    ] {
        let told = format!("{column} = {raw} does not fit {told}");
        assert_eq!(field(column, raw), Err(vec![told]), "{column} {raw}");
    }
    assert_eq!(
        field("li", "[1, \"x\"]").unwrap_err(),
        [
            "li = [1, \"x\"] is not a list<int64>: item 1 does not fit int64: expected a whole number"
        ]
    );
    let long = field("i64", &format!("\"{}\"", "x".repeat(5_000))).unwrap_err();
    assert!(long[0].len() < 200, "messages stay short");
}

#[test]
fn bad_rows_do_not_take_neighbours_with_them() {
    let topic = topic("event", "{ name = \"n\", type = \"int64\", between = [0, 9] }");
    let lines = [
        r#"{"k":"a","at":1,"n":1}"#,
        r#"{"k":"b","at":2,"n":"#,
        "[1]",
        r#"{"k":"c","at":3,"n":12}"#,
        r#"{"k":"d","at":4,"n":"many","colour":1}"#,
        r#"{"k":"e","at":5,"n":5}"#,
        "",
        r#"{"k":"f","at":6,"n":5,"n":6}"#,
        r#"{"kk":"f","at":null,"n":-1}"#,
    ];
    let checked = parse(&topic, &lines);
    assert_eq!(checked.positions, [0, 5]);
    assert_eq!(checked.ops, [Op::Insert; 2]);
    assert_eq!(checked.batch.num_rows(), 2);
    let positions: Vec<u32> = checked.rejected.iter().map(|row| row.position).collect();
    assert_eq!(positions, [1, 2, 3, 4, 6, 7, 8]);
    let told: Vec<Vec<String>> = checked.rejected.iter().map(reasons).collect();
    assert!(told[0][0].starts_with("the row cannot be read: it is not JSON: EOF"), "{told:?}");
    assert_eq!(told[0].len(), 1, "a row that cannot be read lacks nothing: {told:?}");
    assert_eq!(told[1], ["the row cannot be read: it is not an object"]);
    assert_eq!(told[2], ["n = 12 is not between 0 and 9"]);
    assert_eq!(
        told[3],
        ["n = \"many\" does not fit int64: expected a whole number", "there is no column `colour`"]
    );
    assert!(told[4][0].starts_with("the row cannot be read"));
    assert_eq!(told[5], ["field `n` stands there twice"]);
    assert_eq!(
        told[6],
        [
            "there is no column `kk`; did you mean `k`?",
            "k is missing or NULL",
            "at is missing or NULL",
            "n = -1 is not between 0 and 9",
        ]
    );
    assert_eq!(checked.rejected[2].row, lines[3]);
    assert_eq!(checked.rejected[2].subject, Value::String("c".into()));
    assert_eq!(checked.rejected[0].subject, Value::Null);
}

#[test]
fn tables_upsert_unless_told_otherwise() {
    let topic = topic("table", "{ name = \"n\", type = \"int64\" }");
    let checked = parse(
        &topic,
        &[
            r#"{"k":"a","at":1,"n":1}"#,
            r#"{"k":"a","at":2,"__op":"delete"}"#,
            r#"{"k":"a","at":3,"n":1,"__op":"upsert"}"#,
            r#"{"k":"a","at":3,"n":1,"__op":"insert"}"#,
            r#"{"k":"a","at":3,"n":1,"__op":"drop"}"#,
            r#"{"k":"a","__op":"delete"}"#,
        ],
    );
    assert_eq!(checked.ops, [Op::Upsert, Op::Delete, Op::Upsert]);
    let told: Vec<String> = checked.rejected.iter().map(|row| row.reasons[0].to_string()).collect();
    assert_eq!(
        told,
        [
            "a table topic takes upserts and deletes, not an insert",
            "__op = \"drop\" is not insert, upsert or delete",
            "at is missing or NULL",
        ]
    );
}

#[test]
fn personal_values_are_kept_out_of_reasons() {
    let topic = topic("event", "{ name = \"p\", type = \"int64\", pii = true }");
    let checked = parse(&topic, &[r#"{"k":"a","at":1,"p":"Aisha"}"#]);
    assert_eq!(
        checked.rejected[0].reasons[0].text,
        "p does not fit int64: expected a whole number"
    );
}

#[test]
fn csv_records() {
    let columns = "{ name = \"n\", type = \"int64\", nullable = true },\n\
        { name = \"s\", type = \"string\", nullable = true },\n\
        { name = \"b\", type = \"bool\", nullable = true },\n\
        { name = \"l\", type = \"list<int8>\", nullable = true },\n\
        { name = \"m\", type = \"decimal(9,2)\", nullable = true }";
    let topic = topic("event", columns);
    let names = ["k", "at", "n", " s", "b", "l", "m"];
    let header = CsvHeader::new(&topic.schema, names).unwrap();
    let mut parser = RowParser::new(Arc::clone(&topic));
    parser.push_record(
        &header,
        ["a", "2026-01-01T00:00:00Z", " 7 ", "x y ", "TRUE", "[1, 2]", "1.5"],
    );
    parser.push_record(&header, ["", "17", "", "", "", "", ""]);
    parser.push_record(&header, ["a", "17", "1"]);
    parser.push_record(&header, ["a", "17", "x", "", "1", "(", "1.555"]);
    let checked = parser.finish().unwrap();
    assert_eq!(checked.positions, [0, 1]);
    let cells = batch_cells(&checked.batch).unwrap();
    let row = |row: usize| cells.iter().map(|cells| cells.value(row)).collect::<Vec<_>>();
    assert_eq!(
        row(0)[2..],
        [
            Value::Int(7),
            Value::String("x y ".into()),
            Value::Bool(true),
            Value::List([Value::Int(1), Value::Int(2)].into()),
            Value::Decimal(150, 2),
        ]
    );
    assert_eq!((&row(1)[0], &row(1)[1]), (&Value::String("".into()), &Value::Timestamp(17)));
    assert!(row(1)[2..].iter().all(Value::is_null));
    assert_eq!(reasons(&checked.rejected[0]), ["the record has 3 fields, but the header has 7"]);
    assert_eq!(checked.rejected[0].row, r#"["a","17","1"]"#);
    assert_eq!(checked.rejected[1].reasons.len(), 4);
    assert!(checked.rejected[1].row.contains("\"m\":\"1.555\""), "{}", checked.rejected[1].row);
}

#[test]
fn csv_headers_name_everything_unknown() {
    let topic = topic("event", "{ name = \"number\", type = \"int64\" }");
    assert!(CsvHeader::new(&topic.schema, ["__op", "number"]).is_ok());
    let error = CsvHeader::new(&topic.schema, ["k", "k", "numbr", "whatever"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the header does not fit topic `t`: column `k` stands there twice; there is no column \
         `numbr`; did you mean `number`?; there is no column `whatever`"
    );
}

#[test]
fn parsed_json_values_are_taken_too() {
    let topic = topic("event", "{ name = \"n\", type = \"int64\" }");
    let mut parser = RowParser::new(topic);
    parser.push_value(&serde_json::json!({"k": "a", "at": 1, "n": 3}));
    parser.push_value(&serde_json::json!([1, 2]));
    let checked = parser.finish().unwrap();
    assert_eq!((checked.positions, checked.rejected.len()), (vec![0], 1));
    let empty = parser.finish().unwrap();
    assert_eq!((empty.batch.num_rows(), empty.rejected.len()), (0, 0));
}

fn drawn(column_type: &ColumnType, bits: &mut impl FnMut() -> u64) -> Value {
    let random = bits();
    if random.is_multiple_of(7) {
        return Value::Null;
    }
    let signed = random.cast_signed();
    match column_type {
        ColumnType::Bool => Value::Bool(random.is_multiple_of(2)),
        ColumnType::Int8 => Value::Int(signed >> 56),
        ColumnType::Int16 => Value::Int(signed >> 48),
        ColumnType::Int32 => Value::Int(signed >> 32),
        ColumnType::Int64 => Value::Int(signed),
        ColumnType::UInt8 => Value::UInt(random >> 56),
        ColumnType::UInt16 => Value::UInt(random >> 48),
        ColumnType::UInt32 => Value::UInt(random >> 32),
        ColumnType::UInt64 => Value::UInt(random),
        ColumnType::Float32 => Value::Float32(f32::from_bits((random >> 32) as u32)),
        ColumnType::Float64 => Value::Float64(f64::from_bits(random)),
        ColumnType::Decimal { precision, scale } => {
            Value::Decimal(i128::from(signed) % 10i128.pow(u32::from(*precision)), *scale)
        }
        ColumnType::String => {
            let letters = ['a', '"', '\\', '\n', 'é', '\u{1f42a}', ',', '}'];
            let text: String = (0..random % 5).map(|_| letters[(bits() % 8) as usize]).collect();
            Value::String(text.into())
        }
        ColumnType::Binary => Value::Binary(random.to_le_bytes()[..(random % 8) as usize].into()),
        ColumnType::Date => Value::Date((signed >> 44) as i32),
        ColumnType::Timestamp => Value::Timestamp(signed >> (random % 16)),
        ColumnType::List(item) => Value::List((0..random % 4).map(|_| drawn(item, bits)).collect()),
    }
}

/// Values drawn from a seed, written as JSON and read back.
#[test]
fn rows_survive_json() {
    let topic = every_type();
    let mut seed = 11u64;
    let mut bits = || {
        seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed ^ (mixed >> 27)
    };
    for _ in 0..500 {
        let columns = topic.schema.columns.iter();
        let mut values: Vec<Value> =
            columns.map(|column| drawn(&column.column_type, &mut bits)).collect();
        values[0] = Value::String("k".into());
        values[1] = Value::Timestamp(bits().cast_signed());
        let arrays = topic.schema.columns.iter().zip(&values).map(|(column, value)| {
            to_array(&column.column_type, std::slice::from_ref(value)).unwrap()
        });
        let batch = RecordBatch::try_new(loose_schema(&topic.schema), arrays.collect()).unwrap();
        let written = row_json(&batch, 0);
        let checked = parse(&topic, &[&written]);
        assert!(checked.rejected.is_empty(), "{written}: {:?}", checked.rejected);
        let read = batch_cells(&checked.batch).unwrap();
        for (cells, value) in read.iter().zip(&values) {
            assert_eq!(&cells.value(0), value, "{written}");
        }
    }
}

/// Cut and spoilt lines: refused or read, never a panic.
#[test]
fn spoilt_lines_never_panic() {
    let topic = every_type();
    let line = r#"{"k":"a\u00e9","at":"2026-01-01T00:00:00Z","li":[1,[2]],"dec":-1.5e3,"s":null,"ls":["x\\",{}]}"#;
    let mut lines: Vec<String> = Vec::new();
    for at in (0..line.len()).filter(|at| line.is_char_boundary(*at)) {
        let (head, tail) = line.split_at(at);
        lines.push(head.to_owned());
        for spoil in ["\"", "\\", "{", "]", ",", ":", "é", "\0", "1e9"] {
            lines.push(format!("{head}{spoil}{tail}"));
            lines.push(format!("{head}{spoil}{}", tail.get(1..).unwrap_or_default()));
        }
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let checked = parse(&topic, &lines);
    assert_eq!(checked.positions.len() + checked.rejected.len(), lines.len());
    assert!(checked.rejected.iter().all(|row| !row.reasons.is_empty()));
}
