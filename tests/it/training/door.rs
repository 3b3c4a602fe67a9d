//! Training sets through a node's door: the three modes, late and bulk labels, differences, and what is
//! refused.

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::UInt8Type;
use falaj_gateway::Client;
use falaj_gateway::backend::ValueStatus;
use falaj_gateway::wire::{LookupOptions, ProduceOptions, ReadTicket};

use super::*;

const ORDERS: &str = "name = \"orders\"\nkey = [\"customer\"]\nevent_time = \"at\"\npartitions = 3\n\
    columns = [\n  { name = \"customer\", type = \"string\" },\n  { name = \"at\", type = \"timestamp\" },\n  \
    { name = \"amount\", type = \"int64\" },\n]\n";
const OUTCOMES: &str = "name = \"outcomes\"\nkey = [\"customer\"]\nevent_time = \"known_at\"\npartitions = 2\n\
    columns = [\n  { name = \"customer\", type = \"string\" },\n  { name = \"known_at\", type = \"timestamp\" },\n  \
    { name = \"ordered_at\", type = \"timestamp\" },\n  { name = \"amount\", type = \"int64\" },\n  \
    { name = \"returned\", type = \"bool\" },\n]\n";
const VIEW: &str = "-- ttl: 1 day\nCREATE VIEW activity AS SELECT customer, count(*) OVER hour AS orders_1h, \
    sum(amount) OVER hour AS spent_1h, max(amount) OVER ever AS most FROM orders WINDOW hour AS (PARTITION BY \
    customer ORDER BY at RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW), ever AS (PARTITION BY \
    customer ORDER BY at RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)";
const PIPELINE: &str = "[pipeline]\nname = \"returns\"\ntask = \"binary\"\nentity = \"customer\"\n[label]\n\
    topic = \"outcomes\"\ncolumn = \"returned\"\nobserved_at = \"ordered_at\"\n[[features]]\nview = \"activity\"\n\
    [[request]]\nname = \"amount\"\ntype = \"int64\"\n[trainer]\nkind = \"linear\"\n[training]\nmax_rows = 4\n";

const MINUTE: i64 = 60_000_000;
const START: i64 = 1_700_000_000_000_000;

fn catalog() -> Arc<Catalog> {
    let texts = [
        ("topics/orders.toml", ORDERS),
        ("topics/outcomes.toml", OUTCOMES),
        ("activity.sql", VIEW),
        ("dataflows/returns.toml", PIPELINE),
    ];
    kit::node::catalog(&texts).unwrap()
}

fn strings(values: impl Iterator<Item = &'static str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn times(minutes: impl Iterator<Item = i64>) -> ArrayRef {
    let times = minutes.map(|minute| START + minute * MINUTE);
    Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
}

/// (customer, minute, amount)
fn orders(rows: &[(&'static str, i64, i64)]) -> RecordBatch {
    let amounts: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2)));
    RecordBatch::try_from_iter([
        ("customer", strings(rows.iter().map(|row| row.0))),
        ("at", times(rows.iter().map(|row| row.1))),
        ("amount", amounts),
    ])
    .unwrap()
}

/// (customer, minute observed, minute known, returned)
fn outcomes(rows: &[(&'static str, i64, i64, bool)]) -> RecordBatch {
    let flags: ArrayRef = Arc::new(rows.iter().map(|row| Some(row.3)).collect::<BooleanArray>());
    let amounts: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1)));
    RecordBatch::try_from_iter([
        ("customer", strings(rows.iter().map(|row| row.0))),
        ("known_at", times(rows.iter().map(|row| row.2))),
        ("ordered_at", times(rows.iter().map(|row| row.1))),
        ("amount", amounts),
        ("returned", flags),
    ])
    .unwrap()
}

async fn produce(client: &Client, topic: &str, batch: RecordBatch, sequence: u64) -> u64 {
    let options = ProduceOptions {
        producer: Some(topic.into()),
        sequence: Some(sequence),
        ..ProduceOptions::default()
    };
    let acks = client.produce(topic, &[batch], &options).await.unwrap();
    assert_eq!(acks[0].rejected_count, 0);
    acks[0].t.unwrap().0
}

/// Every row as (customer, [orders_1h, spent_1h, most] with NULL as -1, their statuses).
type Row = (String, [i128; 3], [u8; 3]);

async fn set(client: &Client, ticket: &ReadTicket) -> (Vec<Row>, serde_json::Value) {
    let reading = client.read(ticket).await.unwrap();
    let metadata = reading.metadata().clone();
    let mut rows = Vec::new();
    for batch in reading.collect().await.unwrap() {
        let value = |name: &str, row: usize| {
            let column = batch.column_by_name(name).unwrap();
            match falaj_event::cells::Cells::new(column.as_ref()).unwrap().value(row) {
                Value::Int(value) => i128::from(value),
                Value::Decimal(value, 0) => value,
                Value::Null => -1,
                other => panic!("{name}: {other:?}"),
            }
        };
        let statuses = batch.column_by_name("__status").unwrap().as_fixed_size_list();
        for row in 0..batch.num_rows() {
            let own = statuses.value(row);
            let own = own.as_primitive::<UInt8Type>();
            let customer = batch.column_by_name("customer").unwrap().as_string::<i32>().value(row);
            rows.push((
                customer.to_owned(),
                ["orders_1h", "spent_1h", "most"].map(|name| value(name, row)),
                [own.value(0), own.value(1), own.value(2)],
            ));
        }
    }
    (rows, metadata)
}

const PRESENT: u8 = ValueStatus::Present as u8;

#[tokio::test(flavor = "multi_thread")]
async fn modes_differ_where_events_came_late() {
    let home = tempfile::tempdir().unwrap();
    let node = kit::node::start(home.path(), &catalog()).await.unwrap();
    let client = node.client().await.unwrap();
    produce(&client, "orders", orders(&[("a", 0, 10), ("b", 1, 7)]), 0).await;
    let t30 = produce(&client, "orders", orders(&[("a", 30, 5)]), 2).await;
    // Of minute 20, but known only at minute 40.
    produce(&client, "orders", orders(&[("a", 40, 1), ("a", 20, 100)]), 3).await;
    let labels = [
        ("a", 35, 100, true),
        ("a", 30, 101, false),
        ("b", 90, 102, false),
        ("nobody", 35, 103, true),
        ("a", 35, 104, false),
        ("a", 41, 3_000, false),
    ];
    let t = produce(&client, "outcomes", outcomes(&labels), 0).await;
    let wait =
        ReadTicket { min_t: Some(t), timeout_ms: Some(60_000), ..ReadTicket::view("activity") };
    client.read(&wait).await.unwrap().collect().await.unwrap();

    let all = ReadTicket { all: true, compare: true, ..ReadTicket::training_set("returns") };
    let (corrected, metadata) = set(&client, &all).await;
    let absent = [ValueStatus::NotFound as u8; 3];
    let empty = [PRESENT, ValueStatus::Null as u8, PRESENT];
    let expected: Vec<Row> = vec![
        ("a".into(), [3, 115, 100], [PRESENT; 3]),
        // The order of minute 30 itself is not before minute 30.
        ("a".into(), [2, 110, 100], [PRESENT; 3]),
        ("b".into(), [0, -1, 7], empty),
        ("nobody".into(), [-1; 3], absent),
        ("a".into(), [3, 115, 100], [PRESENT; 3]),
        ("a".into(), [4, 116, 100], [PRESENT; 3]),
    ];
    let sorted = |rows: &[Row]| {
        let mut rows = rows.to_vec();
        rows.sort();
        rows
    };
    assert_eq!(sorted(&corrected), sorted(&expected), "one row per label, duplicates too");

    let known = ReadTicket { mode: Some("as_known".into()), ..all.clone() };
    let (known, _) = set(&client, &known).await;
    assert_eq!(known.len(), labels.len());
    let at_35 = (String::from("a"), [2, 15, 10], [PRESENT; 3]);
    assert_eq!(
        known.iter().filter(|row| **row == at_35).count(),
        3,
        "as the views stood: {known:?}"
    );
    // As known equals what a lookup at that moment answers.
    let keys = RecordBatch::try_from_iter([("customer", strings(["a"].into_iter()))]).unwrap();
    let mut stream = client.features(&["activity"], &keys.schema()).await.unwrap();
    let as_of = u64::try_from(START + 35 * MINUTE).unwrap();
    let options = LookupOptions { as_of: Some(as_of), ..LookupOptions::default() };
    let answer = stream.lookup(&keys, &options).await.unwrap();
    assert_eq!(answer.t, t30);
    let spent = answer.batch.column_by_name("spent_1h").unwrap();
    assert_eq!(spent.as_primitive::<arrow::datatypes::Decimal128Type>().value(0), 15);

    // The difference is reported per feature; predictions there are none.
    let differences = metadata["differences"].as_array().unwrap();
    assert_eq!(differences[0]["mode"], "as_known");
    assert_eq!(differences[0]["rows"], 6);
    assert!(differences[0]["differing_rows"].as_u64().unwrap() >= 2);
    let spent = &differences[0]["features"][1];
    assert_eq!(
        (spent["name"].as_str(), &spent["greatest_absolute"]),
        (Some("spent_1h"), &100.0.into())
    );
    assert!(differences[1]["unavailable"].as_str().unwrap().contains("no predictions"));

    // The pipeline's own choice: the newest four by moment; the same set for the same log.
    let own = ReadTicket::training_set("returns");
    let (rows, metadata) = set(&client, &own).await;
    assert_eq!((rows.len(), &metadata["rows"]), (4, &4.into()));
    assert_eq!(rows, set(&client, &own).await.0);
    // What came after `until` is not there: no labels yet.
    let early = ReadTicket { until: Some(t30), all: true, ..ReadTicket::training_set("returns") };
    assert_eq!(set(&client, &early).await.0, []);
    for (ticket, why) in [
        (ReadTicket::training_set("retruns"), "retruns"),
        (ReadTicket { mode: Some("as_wished".into()), ..own.clone() }, "as_corrected"),
        (ReadTicket { as_of: Some(3), ..own.clone() }, "until"),
        (ReadTicket { view: Some("activity".into()), ..own.clone() }, "either"),
    ] {
        let Err(error) = client.read(&ticket).await else { panic!("{ticket:?} was answered") };
        assert!(error.to_string().contains(why), "{error}");
    }
    drop(stream);
    drop(client);
    node.stop().await.unwrap();
}
