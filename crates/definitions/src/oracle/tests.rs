//! The oracle against answers worked out by hand and by a naive loop, and every view in the repository.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::array_value_to_string;

use super::*;
use crate::sql::tests::{CARD_HOURLY, topics};

const HOUR: i64 = 3_600_000_000;
const START: i64 = 20_000 * 24 * HOUR;

/// (event time in hours after the start, T in hours, offset, card, merchant, amount in cents, fee)
type Payment = (f64, f64, i64, &'static str, &'static str, i128, Option<f64>);

const PAYMENTS: &[Payment] = &[
    (0.0, 0.0, 0, "a", "m1", 1000, Some(1.0)),
    (0.5, 0.5, 1, "a", "m2", 2000, None),
    (1.0, 1.0, 2, "b", "m1", 500, Some(2.5)),
    (1.2, 1.2, 3, "a", "m1", 4000, Some(0.5)),
    (0.9, 1.5, 4, "a", "m2", 100, Some(4.0)),
    (1.5, 1.5, 5, "a", "m3", 700, Some(0.25)),
    (5.0, 5.0, 6, "a", "m1", 9999, Some(9.0)),
];

/// (event time, T, offset, merchant, category, risk, op)
type Merchant = (f64, f64, i64, &'static str, Option<&'static str>, f64, &'static str);

const MERCHANTS: &[Merchant] = &[
    (-1.0, -1.0, 0, "m1", Some("food"), 0.1, "upsert"),
    (-1.0, -1.0, 1, "m2", Some("fuel"), 0.2, "upsert"),
    (0.7, 0.7, 2, "m1", Some("gold"), 0.9, "upsert"),
    (1.0, 1.0, 3, "m2", None, 0.0, "delete"),
];

fn at(hours: f64) -> i64 {
    #[allow(clippy::cast_possible_truncation)]
    let micros = (hours * HOUR as f64).round() as i64;
    START + micros
}

fn times(values: impl Iterator<Item = f64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values.map(at)).with_timezone("UTC"))
}

fn export(topic: &str, columns: Vec<(&str, ArrayRef)>, log: Vec<(f64, i64, &str)>) -> RecordBatch {
    let schema = Arc::clone(&topics().get(topic).unwrap().schema);
    let rows = log.len();
    let mut fields = Vec::new();
    let mut arrays: Vec<ArrayRef> = Vec::new();
    for column in &schema.columns {
        let given = columns
            .iter()
            .find(|(name, _)| *name == column.name)
            .map(|(_, array)| Arc::clone(array));
        let data_type = if column.pii { DataType::Binary } else { column.column_type.to_arrow() };
        arrays.push(given.unwrap_or_else(|| new_null_array(&data_type, rows)));
        fields.push(Field::new(&column.name, data_type, true));
    }
    arrays.push(Arc::new(log.iter().map(|(t, ..)| Some(at(*t))).collect::<Int64Array>()));
    arrays.push(Arc::new(Int64Array::from(vec![0; rows])));
    arrays.push(Arc::new(log.iter().map(|(_, offset, _)| Some(*offset)).collect::<Int64Array>()));
    arrays.push(Arc::new(log.iter().map(|(.., op)| Some(*op)).collect::<StringArray>()));
    for (name, data_type) in [
        ("__t", DataType::Int64),
        ("__partition", DataType::Int64),
        ("__offset", DataType::Int64),
        ("__op", DataType::Utf8),
    ] {
        fields.push(Field::new(name, data_type, true));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

fn payments() -> RecordBatch {
    let text = |f: fn(&Payment) -> &'static str| -> ArrayRef {
        Arc::new(PAYMENTS.iter().map(|p| Some(f(p))).collect::<StringArray>())
    };
    let ids: Vec<String> = (0..PAYMENTS.len()).map(|i| format!("p{i}")).collect();
    let amounts = Decimal128Array::from_iter_values(PAYMENTS.iter().map(|p| p.5))
        .with_precision_and_scale(12, 2)
        .unwrap();
    export(
        "payments",
        vec![
            ("event_time", times(PAYMENTS.iter().map(|p| p.0))),
            ("payment_id", Arc::new(StringArray::from(ids))),
            ("card_id", text(|p| p.3)),
            ("merchant_id", text(|p| p.4)),
            ("amount", Arc::new(amounts)),
            ("fee", Arc::new(PAYMENTS.iter().map(|p| p.6).collect::<Float64Array>())),
            (
                "quantity",
                Arc::new(PAYMENTS.iter().map(|p| i32::try_from(p.2).ok()).collect::<Int32Array>()),
            ),
            (
                "approved",
                Arc::new(PAYMENTS.iter().map(|p| Some(p.5 > 600)).collect::<BooleanArray>()),
            ),
        ],
        PAYMENTS.iter().map(|p| (p.1, p.2, "insert")).collect(),
    )
}

fn merchants() -> RecordBatch {
    export(
        "merchants",
        vec![
            ("merchant_id", Arc::new(MERCHANTS.iter().map(|m| Some(m.3)).collect::<StringArray>())),
            ("event_time", times(MERCHANTS.iter().map(|m| m.0))),
            ("category", Arc::new(MERCHANTS.iter().map(|m| m.4).collect::<StringArray>())),
            ("risk", Arc::new(MERCHANTS.iter().map(|m| Some(m.5)).collect::<Float64Array>())),
        ],
        MERCHANTS.iter().map(|m| (m.1, m.2, m.6)).collect(),
    )
}

/// The oracle's rows at `hours`, printed and sorted.
fn rows(sql: &str, hours: f64) -> Vec<String> {
    let views = BTreeMap::from([
        ("v".to_owned(), sql.to_owned()),
        ("card_hourly".to_owned(), CARD_HOURLY.to_owned()),
    ]);
    crate::sql::tests::planned(sql);
    let made = oracle("v", &views, &topics(), LogTime(u64::try_from(at(hours)).unwrap())).unwrap();
    let tables = [("payments", payments()), ("merchants", merchants())];
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let batches = runtime
        .block_on(run::run(&made.sql, &tables))
        .unwrap_or_else(|error| panic!("{error}\n{}", made.sql));
    let mut rows = Vec::new();
    for batch in &batches {
        assert_eq!(batch.num_columns(), made.columns.len());
        for row in 0..batch.num_rows() {
            let cell = |column: &ArrayRef| {
                if column.is_null(row) {
                    "-".to_owned()
                } else {
                    array_value_to_string(column, row).unwrap()
                }
            };
            rows.push(batch.columns().iter().map(cell).collect::<Vec<_>>().join(" "));
        }
    }
    rows.sort();
    rows
}

#[test]
fn windows_hold_what_is_known_and_young_enough() {
    let sql = "CREATE VIEW v AS SELECT card_id, count(*) OVER w AS n, sum(amount) OVER w AS s, max(fee) OVER w AS f FROM payments WINDOW w AS (PARTITION BY card_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW)";
    assert_eq!(
        rows(sql, 1.0),
        ["a 2 30.00 1.0", "b 1 5.00 2.5"],
        "left edge included, the late event not known yet"
    );
    assert_eq!(rows(sql, 1.25), ["a 2 60.00 0.5", "b 1 5.00 2.5"]);
    assert_eq!(rows(sql, 1.5), ["a 4 68.00 4.0", "b 1 5.00 2.5"], "the late event joins");
    assert_eq!(rows(sql, 4.0), ["a 0 - -", "b 0 - -"], "keys stay when their windows are empty");
}

#[test]
fn a_hop_keeps_events_to_the_end_of_their_slot() {
    let sql = "-- hop: 30 minutes\nCREATE VIEW v AS SELECT card_id, count(*) OVER w AS n FROM payments WINDOW w AS (PARTITION BY card_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW)";
    assert_eq!(rows(sql, 1.25), ["a 3", "b 1"], "0:00 leaves at 0:30 + 1:00");
    assert_eq!(rows(sql, 1.5), ["a 4", "b 1"]);
    assert_eq!(rows(sql, 1.99), ["a 4", "b 1"]);
    assert_eq!(rows(sql, 2.0), ["a 2", "b 1"]);
}

#[test]
fn rows_frames_and_bare_columns_follow_the_latest_event() {
    let sql = "CREATE VIEW v AS SELECT card_id, amount, payment_id AS p, sum(amount) OVER w AS s, last_n(fee, 2) OVER (PARTITION BY card_id) AS l, first_value(fee IGNORE NULLS) OVER w AS f FROM payments WINDOW w AS (PARTITION BY card_id ORDER BY event_time ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)";
    assert_eq!(rows(sql, 1.25), ["a 40.00 p3 60.00 [0.5, 1.0] 0.5", "b 5.00 p2 5.00 [2.5] 2.5"]);
    assert_eq!(rows(sql, 1.5), ["a 7.00 p5 47.00 [0.25, 0.5] 0.5", "b 5.00 p2 5.00 [2.5] 2.5"]);
}

#[test]
fn groups_are_lifetime_with_having_and_expressions() {
    let sql = "CREATE VIEW v AS SELECT card_id AS c, EXTRACT(HOUR FROM event_time) % 2 AS h, count(*) AS n, count(DISTINCT merchant_id) AS m, bool_and(approved) AS ok, top_n(amount, 2) AS t FROM payments GROUP BY card_id, EXTRACT(HOUR FROM event_time) % 2 HAVING count(*) > 1";
    assert_eq!(rows(sql, 6.0), ["a 0 3 2 false [20.00, 10.00]", "a 1 3 2 true [99.99, 40.00]"]);
}

#[test]
fn left_joins_are_reactive_and_asof_joins_are_not() {
    let left = "CREATE VIEW v AS SELECT p.card_id, sum(p.amount) FILTER (WHERE m.category = 'gold') OVER w AS gold, count(m.category) OVER w AS known FROM payments p LEFT JOIN merchants m ON p.merchant_id = m.merchant_id WINDOW w AS (PARTITION BY p.card_id ORDER BY p.event_time RANGE INTERVAL '1 day' PRECEDING)";
    assert_eq!(rows(left, 0.6), ["a - 2"]);
    assert_eq!(rows(left, 0.8), ["a 10.00 2"], "the past is gold too");
    assert_eq!(rows(left, 1.2), ["a 50.00 2", "b 5.00 1"], "m2 is deleted");
    let as_of = left
        .replace("LEFT JOIN", "ASOF LEFT JOIN")
        .replace("= m.merchant_id", "= m.merchant_id AND p.event_time >= m.event_time");
    assert_eq!(rows(&as_of, 0.8), ["a - 2"]);
    assert_eq!(rows(&as_of, 1.2), ["a 40.00 3", "b 5.00 1"]);
    assert_eq!(rows(&as_of, 1.5), ["a 40.00 4", "b 5.00 1"], "0.9 met m2 before it was deleted");
}

#[test]
fn tables_are_their_newest_rows() {
    let sql = "CREATE VIEW v AS SELECT merchant_id, category FROM merchants";
    assert_eq!(rows(sql, 0.6), ["m1 food", "m2 fuel"]);
    assert_eq!(rows(sql, 2.0), ["m1 gold"]);
}

#[test]
fn views_over_views_nest() {
    let sql = "CREATE VIEW v AS SELECT card_id, n + 1 AS m, total FROM card_hourly WHERE n > 1";
    assert_eq!(rows(sql, 1.5), ["a 5 68.00"], "card_hourly has hops of a minute");
    let grouped = "CREATE VIEW v AS SELECT n, count(*) AS cards, max(total) AS top FROM card_hourly GROUP BY n";
    assert_eq!(rows(grouped, 1.5), ["1 1 5.00", "4 1 68.00"]);
}

#[test]
fn literals_that_meet_floats_are_floats() {
    let sql = "CREATE VIEW v AS SELECT card_id, last_value(CASE WHEN approved THEN fee * 0.1 ELSE 0.5 END IGNORE NULLS) AS l, sum(amount * 1.5) AS a, coalesce(avg(fee), -2.5) AS f, max(2.0e0) AS e, count(*) FILTER (WHERE fee BETWEEN 0.5 AND 1) AS n FROM payments GROUP BY card_id";
    let views = BTreeMap::from([("v".to_owned(), sql.to_owned())]);
    crate::sql::tests::planned(sql);
    let made = oracle_sql("v", &views, &topics(), LogTime(0)).unwrap();
    for part in [
        r#"CASE WHEN "payments__approved" THEN "payments__fee" * CAST('0.1' AS DOUBLE) ELSE CAST('0.5' AS DOUBLE) END"#,
        r#"sum("payments__amount" * 1.5)"#,
        r#"coalesce(g."__a2", -CAST('2.5' AS DOUBLE))"#,
        r#"max(CAST('2.0e0' AS DOUBLE))"#,
        r#"("payments__fee" BETWEEN CAST('0.5' AS DOUBLE) AND CAST('1' AS DOUBLE))"#,
    ] {
        assert!(made.contains(part), "{part}\n{made}");
    }
    // 7.1000000000000005 has no decimal of 15 places.
    let kept = "CREATE VIEW v AS SELECT card_id, last_value(CASE WHEN approved THEN fee * 7.1000000000000005 ELSE 0.0 END IGNORE NULLS) AS l FROM payments GROUP BY card_id";
    assert_eq!(rows(kept, 0.0), ["a 7.1000000000000005"]);
}

#[test]
fn columns_of_views_are_known_for_floats() {
    let views = BTreeMap::from(
        [
            ("base", "SELECT card_id, avg(fee) AS mean, max(fee) AS most, count(*) AS n, sum(amount) AS a FROM payments GROUP BY card_id"),
            ("rows", "SELECT card_id, mean * 0.1 AS tenth, coalesce(most, 0.5) AS most, n * 0.5 AS half, a * 0.5 AS b FROM base"),
            ("top", "SELECT most AS m, max(tenth) + 0.25 AS x, most + 0.75 AS y, max(half) + 0.5 AS z FROM rows GROUP BY most"),
        ]
        .map(|(name, select)| (name.to_owned(), format!("CREATE VIEW {name} AS {select}"))),
    );
    let made = oracle_sql("top", &views, &topics(), LogTime(0)).unwrap();
    for part in [
        r#""base__mean" * CAST('0.1' AS DOUBLE) AS "tenth""#,
        r#"coalesce("base__most", CAST('0.5' AS DOUBLE)) AS "most""#,
        r#""base__n" * 0.5 AS "half""#,
        r#""base__a" * 0.5 AS "b""#,
        r#"g."__a0" + CAST('0.25' AS DOUBLE) AS "x""#,
        r#"g."__k0" + CAST('0.75' AS DOUBLE) AS "y""#,
        r#"g."__a1" + 0.5 AS "z""#,
    ] {
        assert!(made.contains(part), "{part}\n{made}");
    }
}

#[test]
fn comparisons_say_what_is_exact() {
    let sql = "CREATE VIEW v AS SELECT card_id, count(*) AS n, sum(amount) AS a, sum(fee) AS f, avg(quantity) AS q, approx_distinct(merchant_id) AS d, ln(CAST(count(*) AS DOUBLE)) AS l, max(fee) AS x FROM payments GROUP BY card_id";
    let views = BTreeMap::from([("v".to_owned(), sql.to_owned())]);
    let made = oracle("v", &views, &topics(), LogTime(0)).unwrap();
    let numeric = Comparison::Numeric(TOLERANCE);
    let found: Vec<Comparison> = made.columns.iter().map(|(_, comparison)| *comparison).collect();
    let exact = Comparison::Exact;
    assert_eq!(found, [exact, exact, exact, numeric, numeric, Comparison::Skip, numeric, exact]);
    assert_eq!(made.topics, ["payments"]);
    assert_eq!(
        oracle("w", &views, &topics(), LogTime(0)),
        Err(OracleError::Unknown("w".to_owned()))
    );
}

#[test]
fn instants_are_civil_dates() {
    assert_eq!(
        instant_signed(0),
        "CAST('1970-01-01 00:00:00.000000+00:00' AS TIMESTAMP WITH TIME ZONE)"
    );
    assert_eq!(
        instant_signed(951_827_696_123_456),
        "CAST('2000-02-29 12:34:56.123456+00:00' AS TIMESTAMP WITH TIME ZONE)"
    );
    assert_eq!(
        instant_signed(-1),
        "CAST('1969-12-31 23:59:59.999999+00:00' AS TIMESTAMP WITH TIME ZONE)"
    );
}

#[test]
fn every_view_in_the_repository_has_an_oracle_that_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let catalog =
        crate::catalog::Catalog::load(&root).unwrap_or_else(|findings| panic!("{findings}"));
    let mut views = BTreeMap::new();
    for entry in std::fs::read_dir(root.join("dataflows/payments")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "sql") {
            continue;
        }
        let text = std::fs::read_to_string(path).unwrap();
        views.insert(crate::sql::view_name(&text).unwrap(), text);
    }
    assert!(views.len() >= 6);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for name in views.keys() {
        let made = oracle(name, &views, &catalog.topics, LogTime(1_767_225_600_000_000)).unwrap();
        let tables: Vec<(&str, RecordBatch)> = made
            .topics
            .iter()
            .map(|topic| {
                let schema = catalog.topics.get(topic).unwrap().schema.stored_schema();
                let mut fields: Vec<Field> = schema
                    .fields()
                    .iter()
                    .map(|field| field.as_ref().clone().with_nullable(true))
                    .collect();
                fields.extend(
                    ["__t", "__partition", "__offset"]
                        .map(|name| Field::new(name, DataType::Int64, true)),
                );
                fields.push(Field::new("__op", DataType::Utf8, true));
                (topic.as_str(), RecordBatch::new_empty(Arc::new(Schema::new(fields))))
            })
            .collect();
        runtime
            .block_on(run::run(&made.sql, &tables))
            .unwrap_or_else(|error| panic!("{name}: {error}\n{}", made.sql));
    }
}
