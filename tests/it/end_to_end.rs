//! One node through its Flight door: produce, reject, look up, as of, retry, restart, audit, replay.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Decimal128Type, Int64Type};
use arrow::record_batch::RecordBatch;
use falaj_gateway::Client;
use falaj_gateway::backend::ValueStatus;
use falaj_gateway::wire::{LookupOptions, ProduceOptions, ReadTicket};
use serde_json::{Value as Json, json};

pub const TOPIC: &str = r#"
name = "orders"
description = "Orders."
kind = "event"
key = ["customer"]
event_time = "at"
partitions = 3

[[columns]]
name = "customer"
type = "string"
description = "Who."

[[columns]]
name = "at"
type = "timestamp"
description = "When."

[[columns]]
name = "amount"
type = "int64"
between = [1, 1000000]
description = "How much."
"#;

pub const VIEW: &str = "
-- owner: tests
-- description: What a customer orders.
-- ttl: 1 day
CREATE VIEW customer_orders AS
SELECT customer,
       count(*)     OVER hour AS orders_1h,
       sum(amount)  OVER hour AS amount_1h,
       max(amount)  OVER hour AS largest_1h,
       count(*)     OVER ever AS orders
FROM orders
WINDOW hour AS (PARTITION BY customer ORDER BY at RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW),
       ever AS (PARTITION BY customer ORDER BY at RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW);
";

const MINUTE: i64 = 60_000_000;
const START: i64 = 1_700_000_000_000_000;

pub fn orders(rows: &[(&str, i64, i64)]) -> RecordBatch {
    let customer: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)));
    let at = rows.iter().map(|row| START + row.1 * MINUTE);
    let at: ArrayRef =
        Arc::new(TimestampMicrosecondArray::from_iter_values(at).with_timezone("UTC"));
    let amount: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2)));
    RecordBatch::try_from_iter([("customer", customer), ("at", at), ("amount", amount)]).unwrap()
}

fn numbered(sequence: u64) -> ProduceOptions {
    ProduceOptions { producer: Some("test".into()), sequence: Some(sequence), ..Default::default() }
}

struct Row {
    t: u64,
    orders_1h: Option<i64>,
    amount_1h: Option<i128>,
    orders: Option<i64>,
    status: ValueStatus,
}

async fn look_up(client: &Client, customer: &str, options: LookupOptions) -> Row {
    let keys: ArrayRef = Arc::new(StringArray::from(vec![customer]));
    let keys = RecordBatch::try_from_iter([("customer", keys)]).unwrap();
    let mut stream = client.features(&["customer_orders"], &keys.schema()).await.unwrap();
    let answer = stream.lookup(&keys, &options).await.unwrap();
    let int = |name: &str| {
        let column = answer.batch.column_by_name(name).unwrap();
        let column = column.as_primitive::<Int64Type>();
        (!arrow::array::Array::is_null(column, 0)).then(|| column.value(0))
    };
    let amount = answer.batch.column_by_name("amount_1h").unwrap();
    assert_eq!(amount.data_type(), &DataType::Decimal128(38, 0));
    let amount = amount.as_primitive::<Decimal128Type>();
    Row {
        t: answer.t,
        orders_1h: int("orders_1h"),
        amount_1h: (!arrow::array::Array::is_null(amount, 0)).then(|| amount.value(0)),
        orders: int("orders"),
        status: answer.status(0, 0).unwrap(),
    }
}

fn at_least(t: u64) -> LookupOptions {
    LookupOptions { min_t: Some(t), timeout_ms: Some(30_000), ..Default::default() }
}

fn as_of(t: u64) -> LookupOptions {
    LookupOptions { as_of: Some(t), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_in_features_out_replayable() {
    let folder = tempfile::tempdir().unwrap();
    let catalog =
        kit::node::catalog(&[("orders.toml", TOPIC), ("customer_orders.sql", VIEW)]).unwrap();
    let node = kit::node::start(folder.path(), &catalog).await.unwrap();
    let client = node.client().await.unwrap();

    let first = client
        .produce("orders", &[orders(&[("a", 0, 10), ("b", 1, 20), ("a", 2, 5)])], &numbered(0))
        .await
        .unwrap();
    assert_eq!((first[0].accepted, first[0].rejected_count), (3, 0));
    let t1 = first[0].t.unwrap().0;
    let row = look_up(&client, "a", at_least(t1)).await;
    assert_eq!((row.orders_1h, row.amount_1h, row.orders), (Some(2), Some(15), Some(2)));
    assert_eq!((row.t, row.status), (t1, ValueStatus::Present));

    // A bad row is told why; its neighbours pass.
    let second = client
        .produce("orders", &[orders(&[("a", 30, 100), ("a", 31, -4), ("c", 31, 7)])], &numbered(3))
        .await
        .unwrap();
    assert_eq!((second[0].accepted, second[0].rejected_count), (2, 1));
    assert_eq!(second[0].rejected[0].row, 1);
    assert!(second[0].rejected[0].reasons[0].contains("amount"), "{:?}", second[0].rejected);
    let rejected =
        client.read(&ReadTicket::topic("orders.rejected")).await.unwrap().collect().await.unwrap();
    assert_eq!(rejected.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);

    // A retry is answered with the original T and appends nothing.
    let again = client
        .produce("orders", &[orders(&[("a", 0, 10), ("b", 1, 20), ("a", 2, 5)])], &numbered(0))
        .await
        .unwrap();
    assert_eq!((again[0].t.unwrap().0, again[0].accepted, again[0].duplicates), (t1, 0, 3));

    // An hour later the window has moved on; a late event joins the windows that still cover it.
    let third = client.produce("orders", &[orders(&[("b", 75, 1)])], &numbered(6)).await.unwrap();
    let t3 = third[0].t.unwrap().0;
    let row = look_up(&client, "a", at_least(t3)).await;
    assert_eq!((row.orders_1h, row.amount_1h, row.orders), (Some(1), Some(100), Some(3)));
    let late = client.produce("orders", &[orders(&[("a", 20, 3)])], &numbered(7)).await.unwrap();
    let t4 = late[0].t.unwrap().0;
    let row = look_up(&client, "a", at_least(t4)).await;
    assert_eq!((row.orders_1h, row.amount_1h, row.orders), (Some(2), Some(103), Some(4)));
    // The past is as it was.
    let row = look_up(&client, "a", as_of(t1)).await;
    assert_eq!((row.t, row.orders_1h, row.amount_1h), (t1, Some(2), Some(15)));
    let row = look_up(&client, "c", as_of(t1)).await;
    assert_eq!((row.status, row.orders), (ValueStatus::NotFound, None));

    // A day and more later the view's ttl is over.
    let last =
        client.produce("orders", &[orders(&[("b", 60 * 24 + 40, 1)])], &numbered(8)).await.unwrap();
    let row = look_up(&client, "a", at_least(last[0].t.unwrap().0)).await;
    assert_eq!((row.status, row.orders_1h), (ValueStatus::Expired, None));

    let state = client.json_action("audit_state", &Json::Null).await.unwrap();
    let rebuilt = client.json_action("audit_rebuild", &Json::Null).await.unwrap();
    assert_eq!(rebuilt["equal"], true, "{rebuilt}");
    assert_eq!(rebuilt["present"]["digest"], state["digest"]);
    let log = client.json_action("audit_log", &Json::Null).await.unwrap();
    assert_eq!(log["verified"], true);
    let key =
        falaj_event::ids::hex(&falaj_event::encoding::encode_row(&[falaj_event::Value::String(
            "a".into(),
        )]));
    for t in [t1, t3, t4] {
        let body = json!({ "view": "customer_orders", "key": key, "at": t });
        let replay = client.json_action("replay", &body).await.unwrap();
        assert_eq!(replay["verdict"], "EQUAL", "{replay}");
    }
    drop(client);
    node.stop().await.unwrap();

    // Reopened, everything is as it was, and nothing is appended.
    let node = kit::node::start(folder.path(), &catalog).await.unwrap();
    let client = node.client().await.unwrap();
    let row = look_up(&client, "a", as_of(t4)).await;
    assert_eq!((row.orders_1h, row.amount_1h, row.orders), (Some(2), Some(103), Some(4)));
    let reopened = client.json_action("audit_log", &Json::Null).await.unwrap();
    assert_eq!(reopened["events"], log["events"]);
    let state_again = client.json_action("audit_state", &Json::Null).await.unwrap();
    assert_eq!(state_again["digest"], state["digest"]);
    drop(client);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_state_comes_back_equal() {
    let folder = tempfile::tempdir().unwrap();
    let catalog =
        kit::node::catalog(&[("orders.toml", TOPIC), ("customer_orders.sql", VIEW)]).unwrap();
    let node = kit::node::start(folder.path(), &catalog).await.unwrap();
    let client = node.client().await.unwrap();
    let mut sequence = 0;
    for step in 0..40 {
        let customer = ["a", "b", "c"][step % 3];
        let minute = i64::try_from(step).unwrap() * 7;
        client
            .produce(
                "orders",
                &[orders(&[(customer, minute, 5), ("d", minute - 3, 2)])],
                &numbered(sequence),
            )
            .await
            .unwrap();
        sequence += 2;
    }
    let tail = node.core().log.tail().unwrap().record.t.0;
    look_up(&client, "a", at_least(tail)).await;
    let before = client.json_action("audit_state", &Json::Null).await.unwrap();
    drop(client);
    node.stop().await.unwrap();
    std::fs::remove_dir_all(folder.path().join("state")).unwrap();
    let node = kit::node::start(folder.path(), &catalog).await.unwrap();
    let client = node.client().await.unwrap();
    look_up(&client, "a", at_least(tail)).await;
    let after = client.json_action("audit_state", &Json::Null).await.unwrap();
    assert_eq!(before["digest"], after["digest"]);
    drop(client);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_evolves_by_nullable_columns_only() {
    let folder = tempfile::tempdir().unwrap();
    let first =
        kit::node::catalog(&[("orders.toml", TOPIC), ("customer_orders.sql", VIEW)]).unwrap();
    let node = kit::node::start(folder.path(), &first).await.unwrap();
    let client = node.client().await.unwrap();
    client.produce("orders", &[orders(&[("a", 0, 10)])], &numbered(0)).await.unwrap();
    drop(client);
    node.stop().await.unwrap();

    let wider = TOPIC.replace("name = \"orders\"", "name = \"orders\"\nversion = 2")
        + "\n[[columns]]\nname = \"coupon\"\ntype = \"string\"\nnullable = true\nsince = 2\ndescription = \"Coupon.\"\n";
    let second =
        kit::node::catalog(&[("orders.toml", &wider), ("customer_orders.sql", VIEW)]).unwrap();
    let node = kit::node::start(folder.path(), &second).await.unwrap();
    let client = node.client().await.unwrap();
    let read = client.read(&ReadTicket::topic("orders")).await.unwrap().collect().await.unwrap();
    assert_eq!(read[0].column_by_name("coupon").unwrap().null_count(), 1);
    let changes = client
        .read(&ReadTicket::topic("falaj.definitions"))
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    let changed: Vec<String> = changes
        .iter()
        .flat_map(|batch| {
            let names = batch.column_by_name("name").unwrap().as_string::<i32>();
            let actions = batch.column_by_name("action").unwrap().as_string::<i32>();
            names
                .iter()
                .zip(actions.iter())
                .map(|(n, a)| format!("{} {}", a.unwrap(), n.unwrap()))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(changed.contains(&"added orders".to_owned()), "{changed:?}");
    assert!(changed.contains(&"changed orders".to_owned()), "{changed:?}");
    drop(client);
    node.stop().await.unwrap();

    let broken = TOPIC
        .replace("type = \"int64\"", "type = \"int32\"")
        .replace("name = \"orders\"", "name = \"orders\"\nversion = 3");
    let third = kit::node::catalog(&[("orders.toml", &broken)]).unwrap();
    let Err(error) = kit::node::start(folder.path(), &third).await else {
        panic!("it must be refused")
    };
    let text = format!("{error:#}");
    assert!(text.contains("orders") && text.contains("amount"), "{text}");
}
