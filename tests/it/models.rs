//! The model loop of one node, through its doors: train, gate, serve, judge, replay, roll back; and
//! trainers that die.

/// Models of other tools, as files.
mod files;
/// What takes a version out again.
mod guardrails;
/// Several classes.
mod multiclass;
/// Models of other tools.
mod onnx;
/// Whose word it takes.
mod quorum;
/// Derived rows that are refused.
mod refused;
/// Batch scoring.
mod scoring;
/// Training on what was served.
mod served;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use falaj_definitions::catalog::Catalog;
use falaj_gateway::Client;
use falaj_gateway::client::PredictAnswer;
use falaj_gateway::wire::{PredictOptions, ProduceOptions, ReadTicket};
use falaj_node::json::batch_json;
use falaj_node::serve::Node;
use serde_json::{Value as Json, json};

use crate::end_to_end::{TOPIC, VIEW, orders};

const VERDICTS: &str = r#"
name = "verdicts"
description = "Whether an order was bad."
kind = "event"
key = ["customer"]
event_time = "known_at"

[[columns]]
name = "customer"
type = "string"
description = "Who."

[[columns]]
name = "known_at"
type = "timestamp"
description = "When it was known."

[[columns]]
name = "ordered_at"
type = "timestamp"
description = "When it was ordered."

[[columns]]
name = "amount"
type = "int64"
description = "How much."

[[columns]]
name = "bad"
type = "bool"
description = "Whether it was bad."

[[columns]]
name = "prediction_id"
type = "string"
nullable = true
description = "The prediction that it judges."
"#;

const PIPELINE: &str = r#"
[pipeline]
name = "risk"
task = "binary"
entity = ["customer"]
description = "Is this order bad?"

[label]
topic = "verdicts"
column = "bad"
observed_at = "ordered_at"
delay = "1 day"
prediction_id = "prediction_id"
within = "1 minute"

[[features]]
view = "customer_orders"
columns = ["orders_1h", "amount_1h", "orders"]

[[request]]
name = "amount"
type = "int64"

[trainer]
kind = "linear"
epochs = 6
batch_size = 64
learning_rate = 0.05
calibration = "none"

[training]
min_rows = 100

[gates]
metrics.auc = AUC

[monitors]
window = "1 day"
min_rows = 5

[kpi]
name = "saved"
sql = "sum(CASE WHEN predicted AND actual THEN amount ELSE 0 END)"
"#;

const START: i64 = 1_700_000_000_000_000;
const MINUTE: i64 = 60_000_000;

/// The trainer's process: the node starts this very binary.
#[test]
fn trainer_process() {
    let Ok(job) = std::env::var("FALAJ_TEST_JOB") else { return };
    let options = falaj_node::cli::Trainer { job: PathBuf::from(job), detached: false };
    falaj_node::verbs::trainer::run(&options).unwrap();
}

fn script(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("trainer.sh");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A script that runs this binary as the trainer's process.
pub fn real_trainer(folder: &Path) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let text = format!(
        "#!/bin/sh\nFALAJ_TEST_JOB=\"$3\" exec '{}' --exact models::trainer_process --nocapture\n",
        program.display()
    );
    script(folder, &text)
}

fn catalog(auc: &str) -> Arc<Catalog> {
    catalog_of(&PIPELINE.replace("AUC", auc))
}

fn catalog_of(pipeline: &str) -> Arc<Catalog> {
    kit::node::catalog(&[
        ("orders.toml", TOPIC),
        ("verdicts.toml", VERDICTS),
        ("customer_orders.sql", VIEW),
        ("dataflows/risk.toml", pipeline),
    ])
    .unwrap()
}

async fn start(data: &Path, catalog: &Arc<Catalog>, trainer: PathBuf) -> (Node, Client) {
    let mut options = kit::node::options(data);
    options.core.trainer = Some(trainer);
    let node = Node::start(options, Arc::clone(catalog)).await.unwrap();
    let client = node.client().await.unwrap();
    (node, client)
}

/// One order a minute by one of 20 customers; large ones are bad, but for some noise.
fn order(number: i64) -> (String, i64, i64, bool) {
    let amount = 1 + (number * 7_919) % 1_000;
    let noise = (number * 104_729) % 17 == 0;
    (format!("c{}", number % 20), number, amount, (amount > 600) != noise)
}

async fn produce(client: &Client, numbers: std::ops::Range<i64>) {
    let rows: Vec<_> = numbers.clone().map(order).collect();
    let rows: Vec<(&str, i64, i64)> =
        rows.iter().map(|(who, at, amount, _)| (who.as_str(), *at, *amount)).collect();
    let acks = client.produce("orders", &[orders(&rows)], &ProduceOptions::default()).await;
    assert_eq!(acks.unwrap()[0].accepted, rows.len() as u64);
}

async fn judge(client: &Client, numbers: std::ops::Range<i64>, with_ids: bool) {
    let rows: Vec<_> = numbers.clone().map(order).collect();
    let moments = |shift: i64| -> ArrayRef {
        let times = rows.iter().map(|row| START + (row.1 + shift) * MINUTE);
        Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
    };
    let ids = rows.iter().map(|row| with_ids.then(|| format!("o{}", row.1)));
    let batch = RecordBatch::try_from_iter([
        (
            "customer",
            Arc::new(rows.iter().map(|r| Some(r.0.clone())).collect::<StringArray>()) as ArrayRef,
        ),
        ("known_at", moments(30)),
        ("ordered_at", moments(0)),
        ("amount", Arc::new(rows.iter().map(|row| row.2).collect::<Int64Array>())),
        ("bad", Arc::new(rows.iter().map(|row| Some(row.3)).collect::<BooleanArray>())),
        ("prediction_id", Arc::new(ids.collect::<StringArray>())),
    ])
    .unwrap();
    let acks = client.produce("verdicts", &[batch], &ProduceOptions::default()).await.unwrap();
    assert_eq!(acks[0].accepted, rows.len() as u64, "{acks:?}");
}

async fn models(client: &Client) -> Json {
    client.json_action("models", &json!({ "pipeline": "risk" })).await.unwrap()
}

async fn until(client: &Client, what: &str, done: impl Fn(&Json) -> bool) -> Json {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let state = models(client).await;
        if done(&state) {
            return state;
        }
        assert!(Instant::now() < deadline, "never {what}: {state:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn rows(client: &Client, topic: &str) -> Vec<Json> {
    let batches = client.read(&ReadTicket::topic(topic)).await.unwrap().collect().await.unwrap();
    batches.iter().flat_map(|batch| batch_json(batch).unwrap()).collect()
}

fn question(rows: &[(Option<&str>, &str, Option<i64>)]) -> RecordBatch {
    RecordBatch::try_from_iter([
        (
            "prediction_id",
            Arc::new(rows.iter().map(|row| row.0).collect::<StringArray>()) as ArrayRef,
        ),
        ("customer", Arc::new(rows.iter().map(|row| Some(row.1)).collect::<StringArray>())),
        ("amount", Arc::new(rows.iter().map(|row| row.2).collect::<Int64Array>())),
    ])
    .unwrap()
}

async fn predict(client: &Client, rows: &[(Option<&str>, &str, Option<i64>)]) -> PredictAnswer {
    let batch = question(rows);
    let mut stream = client.predictions("risk", batch.schema().as_ref()).await.unwrap();
    stream.predict(&batch, &PredictOptions::default()).await.unwrap()
}

async fn train(client: &Client) -> u64 {
    let body = json!({ "pipeline": "risk", "reason": "a test" });
    let asked = client.json_action("model_train", &body).await.unwrap();
    asked["version"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_loop_closes() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let catalog = catalog("0.8");
    let trainer = real_trainer(folder.path());
    let (node, client) = start(&data, &catalog, trainer.clone()).await;
    produce(&client, 0..600).await;
    judge(&client, 0..600, false).await;

    let early = question(&[(None, "c1", Some(1))]);
    let mut stream = client.predictions("risk", early.schema().as_ref()).await.unwrap();
    let refused = stream.predict(&early, &PredictOptions::default()).await.unwrap_err();
    assert!(refused.to_string().contains("falaj train risk"), "{refused}");

    assert_eq!(train(&client).await, 1);
    let again = client.json_action("model_train", &json!({ "pipeline": "risk" })).await;
    assert!(again.unwrap_err().to_string().contains("one run per pipeline"));
    let state = until(&client, "serving", |state| state["champion"] == 1).await;
    let first = &state["versions"][0];
    assert!(first["metrics"]["auc"].as_f64().unwrap() > 0.8, "{first:#}");
    assert!(first["gates"].as_array().unwrap().iter().any(|gate| gate["figure"] == "auc"));
    let reports = rows(&client, "falaj.runs").await;
    let kinds: Vec<&str> = reports.iter().map(|row| row["kind"].as_str().unwrap()).collect();
    assert_eq!((kinds[0], *kinds.last().unwrap()), ("started", "finished"), "{kinds:?}");

    // Rows that cannot be scored say why; their neighbours are scored and logged.
    let asked = [
        (Some("o590"), "c10", Some(990)),
        (None, "c11", Some(3)),
        (None, "nobody", Some(3)),
        (None, "c12", None),
    ];
    let answer = predict(&client, &asked).await;
    assert_eq!((answer.metadata.rows, answer.metadata.errors), (4, 2));
    assert!(answer.score(0).unwrap() > 0.5 && answer.score(1).unwrap() < 0.5, "{answer:?}");
    assert_eq!((answer.label(0), answer.label(1)), (Some("true"), Some("false")));
    assert!(answer.error(2).unwrap().contains("unknown entity"));
    assert!(answer.error(3).unwrap().contains("`amount` is missing"));
    assert_eq!(answer.prediction_id(0), Some("o590"));
    let logged = rows(&client, "risk.predictions").await;
    assert_eq!(logged.len(), 2, "durable before the answer");
    assert!(answer.metadata.logged_t.is_some());

    // The label finds its prediction, and the views over outcomes follow.
    judge(&client, 590..591, true).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    let outcomes = loop {
        produce(&client, 600..601).await;
        let outcomes = rows(&client, "risk.outcomes").await;
        if !outcomes.is_empty() || Instant::now() > deadline {
            break outcomes;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(outcomes[0]["prediction_id"], "o590", "{outcomes:?}");
    assert_eq!(outcomes[0]["predicted"], true);

    let replay = json!({ "pipeline": "risk", "id": "o590" });
    let replayed = client.json_action("replay_prediction", &replay).await.unwrap();
    assert_eq!(replayed["verdict"], "EQUAL", "{replayed:#}");

    // As served: the label's row has the features that its prediction was made with, which are those
    // that replay has recomputed; a label that names no prediction of its own may have none.
    let ticket = ReadTicket { mode: Some("as_served".into()), ..ReadTicket::training_set("risk") };
    let served = client.read(&ticket).await.unwrap().collect().await.unwrap();
    let readable = |batch: &RecordBatch| {
        let schema = batch.schema();
        let is_told = |column: &usize| schema.field(*column).name() != "__status";
        let columns: Vec<usize> = (0..batch.num_columns()).filter(is_told).collect();
        batch_json(&batch.project(&columns).unwrap()).unwrap()
    };
    let served: Vec<Json> = served.iter().flat_map(readable).collect();
    let of_prediction = served.iter().find(|row| row["prediction_id"] == "o590").unwrap();
    for name in ["orders_1h", "amount_1h", "orders"] {
        assert_eq!(of_prediction[name], replayed["inputs"][name], "{name}: {of_prediction:#}");
    }
    assert!(served.iter().any(|row| row["prediction_id"].is_null() && row["orders"].is_null()));

    // A second version takes over; the first comes back by one command.
    assert_eq!(train(&client).await, 2);
    until(&client, "swapped", |state| state["champion"] == 2).await;
    assert_eq!(predict(&client, &asked[..1]).await.metadata.model_version, Some(2));
    let back = json!({ "pipeline": "risk", "reason": "the first was better" });
    client.json_action("model_rollback", &back).await.unwrap();
    assert_eq!(predict(&client, &asked[..1]).await.metadata.model_version, Some(1));
    let before = models(&client).await;
    node.stop().await.unwrap();

    // All of it is in the log: another start knows it.
    let (node, client) = start(&data, &catalog, trainer).await;
    let after = models(&client).await;
    assert_eq!((&after["champion"], &after["served"]), (&json!(1), &before["served"]));
    let replayed = client.json_action("replay_prediction", &replay).await.unwrap();
    assert_eq!(replayed["verdict"], "EQUAL", "{replayed:#}");
    let card = json!({ "pipeline": "risk", "version": 1 });
    let card = client.json_action("model_card", &card).await.unwrap();
    assert!(card["markdown"].as_str().unwrap().contains("risk"));
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_misses_a_gate_is_rejected_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = catalog("0.9999");
    let trainer = real_trainer(folder.path());
    let (node, client) = start(&folder.path().join("data"), &catalog, trainer).await;
    produce(&client, 0..400).await;
    judge(&client, 0..400, false).await;
    train(&client).await;
    let state = until(&client, "judged", |state| state["versions"][0]["stage"] == "rejected").await;
    assert_eq!(state["champion"], Json::Null);
    let events = state["events"].as_array().unwrap();
    let reason = events.last().unwrap()["reason"].as_str().unwrap();
    assert!(reason.contains("auc") && reason.contains("0.9999"), "{reason}");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trainer_that_is_killed_leaves_a_failed_version_and_no_model() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let trainer = script(folder.path(), "#!/bin/sh\nkill -9 $$\n");
    let (node, client) = start(&data, &catalog("0.5"), trainer).await;
    produce(&client, 0..200).await;
    judge(&client, 0..200, false).await;
    train(&client).await;
    let state = until(&client, "failed", |state| state["versions"][0]["stage"] == "failed").await;
    let error = state["events"].as_array().unwrap().last().unwrap()["detail"].to_string();
    assert!(error.contains("signal: 9"), "{error}");
    assert_eq!(state["champion"], Json::Null);
    assert!(!data.join("models").exists(), "nothing is kept of it");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_cancelled_and_a_run_is_taken_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let catalog = catalog("0.5");
    let sleeper = script(folder.path(), "#!/bin/sh\nexec sleep 600\n");
    let (node, client) = start(&data, &catalog, sleeper).await;
    produce(&client, 0..200).await;
    judge(&client, 0..200, false).await;
    train(&client).await;
    until(&client, "training", |state| state["versions"][0]["stage"] == "training").await;
    client.json_action("model_cancel", &json!({ "pipeline": "risk" })).await.unwrap();
    let state = until(&client, "failed", |state| state["versions"][0]["stage"] == "failed").await;
    let last = state["events"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        (&last["actor"], &last["detail"]["error"]),
        (&json!("person:local"), &json!("cancelled"))
    );

    // The node goes away with a run at work, and takes it up when it is back.
    train(&client).await;
    until(&client, "training", |state| state["versions"][1]["stage"] == "training").await;
    node.stop().await.unwrap();
    let trainer = real_trainer(folder.path());
    let (node, client) = start(&data, &catalog, trainer).await;
    let state = until(&client, "serving", |state| state["champion"] == 2).await;
    let starts = state["events"].as_array().unwrap().iter();
    assert_eq!(starts.filter(|e| e["kind"] == "training_started" && e["version"] == 2).count(), 2);
    node.stop().await.unwrap();
}
