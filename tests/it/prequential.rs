//! The Electricity stream (Harries, 1999), predicted before it is learnt: every half-hour is asked about
//! through the door, then its row with the label is produced, and the platform trains again when the
//! stream drifts.
//!
//! # Protocol
//! As river's, whose figures stand beside: the model is shown a half-hour's seven columns, says whether
//! the price is above its mean of the last day, and is told afterwards. What it knows besides (labels
//! and prices of half-hours before) it reads from a view, at the `T` of the half-hour before: the test
//! asserts that no prediction was made at or after the event that it is about. Until the first version
//! serves nothing is predicted, and nothing of that counts.
//!
//! Figures are the platform's own: `electricity_model.outcomes`, as the watch wrote them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, BooleanArray, Float64Array, StringArray, TimestampMicrosecondArray};
use arrow::record_batch::RecordBatch;
use falaj_gateway::Client;
use falaj_gateway::wire::{PredictOptions, ProduceOptions, ReadTicket};
use falaj_node::json::batch_json;
use falaj_node::serve::Node;
use serde_json::{Value as Json, json};

const TOPIC: &str = r#"
name = "electricity"
description = "Half-hourly prices and demand in New South Wales, and whether the price is high."
kind = "event"
key = ["market"]
event_time = "at"
columns = [
  { name = "market", type = "string" },
  { name = "at", type = "timestamp" },
  { name = "asked_at", type = "timestamp" },
  { name = "period", type = "float64" },
  { name = "nswprice", type = "float64" },
  { name = "nswdemand", type = "float64" },
  { name = "vicprice", type = "float64" },
  { name = "vicdemand", type = "float64" },
  { name = "transfer", type = "float64" },
  { name = "high", type = "bool" },
  { name = "prediction_id", type = "string", nullable = true },
]
"#;

const VIEW: &str = "
-- owner: tests
-- description: The market as it was up to the last half-hour that is known.
-- retain: 4000 days
CREATE VIEW market AS
SELECT market,
       high                             AS last_high,
       nswprice                         AS last_price,
       nswdemand                        AS last_demand,
       avg(nswprice)          OVER hours AS price_3h,
       count(*) FILTER (WHERE high) OVER hours AS highs_3h,
       avg(nswprice)          OVER day   AS price_24h,
       min(nswprice)          OVER day   AS least_price_24h,
       max(nswprice)          OVER day   AS greatest_price_24h,
       stddev(nswprice)       OVER day   AS price_spread_24h,
       count(*) FILTER (WHERE high) OVER day AS highs_24h,
       avg(nswdemand)         OVER day   AS demand_24h
FROM electricity
WINDOW hours AS (PARTITION BY market ORDER BY at RANGE BETWEEN INTERVAL '165 minutes' PRECEDING AND CURRENT ROW),
       day   AS (PARTITION BY market ORDER BY at RANGE BETWEEN INTERVAL '1425 minutes' PRECEDING AND CURRENT ROW);
";

const PIPELINE: &str = r#"
[pipeline]
name = "electricity_model"
task = "binary"
entity = ["market"]
description = "Is the price of this half-hour above its mean of the last day?"

[label]
topic = "electricity"
column = "high"
observed_at = "asked_at"
delay = "1 hour"
prediction_id = "prediction_id"
within = "100 ms"

[[features]]
view = "market"
columns = ["last_high", "last_price", "last_demand", "price_3h", "highs_3h", "price_24h", "least_price_24h", "greatest_price_24h", "price_spread_24h", "highs_24h", "demand_24h"]

[[request]]
name = "period"
type = "float64"

[[request]]
name = "nswprice"
type = "float64"

[[request]]
name = "nswdemand"
type = "float64"

[[request]]
name = "vicprice"
type = "float64"

[[request]]
name = "vicdemand"
type = "float64"

[[request]]
name = "transfer"
type = "float64"

[trainer]
kind = "mlp"
hidden = [64, 32]
epochs = 20
batch_size = 128
learning_rate = 0.003
early_stopping = 5
calibration = "temperature"
seed = 7

[split]
train = 0.8
validation = 0.1
test = 0.1

[training]
mode = "as_known"
history = "120 days"
min_rows = 500

[gates]
metrics.auc = 0.6

[monitors]
window = "7 days"
min_rows = 100
tests = ["psi", "ks", "missing_rate"]
detectors = ["adwin"]
metrics = ["accuracy", "kappa", "log_loss"]
metric_windows = ["7 days"]

[retrain]
drift = 2
labels = 2_000
cool_down = "7 days"
"#;

const HALF_HOUR: i64 = 30 * 60 * 1_000_000;
const START: i64 = 831_254_400_000_000; // 1996-05-05T00:00:00Z
/// Half-hours before the first version is asked for.
const FIRST: usize = 4 * 7 * 48;
/// Half-hours between two looks at what the platform decided.
const LOOK: usize = 48;
/// Rows that are streamed where `FALAJ_SLOW` is not set; all of them otherwise.
const BRIEFLY: usize = 6_000;

struct Row {
    /// Period, price and demand in New South Wales, price and demand in Victoria, transfer.
    columns: [f64; 6],
    high: bool,
}

const NAMES: [&str; 6] = ["period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer"];

fn read(path: &std::path::Path) -> Vec<Row> {
    let text = std::fs::read_to_string(path).unwrap();
    let row = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let columns = std::array::from_fn(|column| fields[column].parse().unwrap());
        Row { columns, high: fields[6].trim() == "1" }
    };
    text.lines().skip(1).map(row).collect()
}

fn id(row: usize) -> String {
    format!("p{row}")
}

fn at(row: usize) -> i64 {
    START + i64::try_from(row).unwrap() * HALF_HOUR
}

/// What is known when the question is asked.
fn inputs(rows: &[Row]) -> Vec<(&'static str, ArrayRef)> {
    let column = |index: usize| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.columns[index])))
    };
    (0..NAMES.len()).map(|index| (NAMES[index], column(index))).collect()
}

fn question(row: &Row, number: usize) -> RecordBatch {
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("prediction_id", Arc::new(StringArray::from(vec![id(number)]))),
        ("market", Arc::new(StringArray::from(vec!["NSW"]))),
    ];
    columns.extend(inputs(std::slice::from_ref(row)));
    RecordBatch::try_from_iter(columns).unwrap()
}

fn event(row: &Row, number: usize, is_asked: bool) -> RecordBatch {
    let moment = |micros: i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values([micros]).with_timezone("UTC"))
    };
    let ids = vec![is_asked.then(|| id(number))];
    let mut columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("market", Arc::new(StringArray::from(vec!["NSW"])), false),
        ("at", moment(at(number)), false),
        ("asked_at", moment(at(number) - 1_000_000), false),
        ("high", Arc::new(BooleanArray::from(vec![row.high])), false),
        ("prediction_id", Arc::new(StringArray::from(ids)), true),
    ];
    let inputs = inputs(std::slice::from_ref(row));
    columns.extend(inputs.into_iter().map(|(name, array)| (name, array, false)));
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// Waits until the watch has read the whole log and no version is on its way.
async fn settle(node: &Node, client: &Client) -> Json {
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        let tail = node.core().log.tail().map(|tail| tail.record.epoch);
        let status = node.models().status();
        assert_eq!(status["watch"]["failure"], Json::Null);
        let body = json!({ "pipeline": "electricity_model" });
        let state = client.json_action("models", &body).await.unwrap();
        let moving = ["requested", "training", "trained", "validated", "shadow"];
        let versions = state["versions"].as_array().cloned().unwrap_or_default();
        let stage = |version: &Json| version["stage"].as_str().unwrap_or_default().to_owned();
        let is_moving = versions.iter().any(|version| moving.contains(&stage(version).as_str()));
        if status["watch"]["epoch"].as_u64() == tail && !is_moving {
            return state;
        }
        assert!(Instant::now() < deadline, "the loop does not come to rest: {state:#}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Accuracy, Cohen's kappa and mean log loss of `(predicted, actual, log loss)`.
#[derive(Clone, Copy, Debug)]
struct Figures {
    rows: usize,
    accuracy: f64,
    kappa: f64,
    log_loss: f64,
}

fn figures(judged: &[(bool, bool, f64)]) -> Figures {
    let n = judged.len() as f64;
    let share = |of: &dyn Fn(&(bool, bool, f64)) -> bool| {
        judged.iter().filter(|row| of(row)).count() as f64 / n
    };
    let accuracy = share(&|row| row.0 == row.1);
    let (said, was) = (share(&|row| row.0), share(&|row| row.1));
    let by_chance = said * was + (1.0 - said) * (1.0 - was);
    let log_loss = judged.iter().map(|row| row.2).sum::<f64>() / n;
    let kappa = (accuracy - by_chance) / (1.0 - by_chance);
    Figures { rows: judged.len(), accuracy, kappa, log_loss }
}

/// Streams the rows: each is asked about, then produced. Returns what the registry says at the end.
async fn stream(node: &Node, client: &Client, rows: &[Row]) -> Json {
    let (question_schema, event_schema) = (question(&rows[0], 0), event(&rows[0], 0, false));
    let mut predictions =
        client.predictions("electricity_model", question_schema.schema().as_ref()).await.unwrap();
    let mut producer = client.producer("electricity", &event_schema.schema()).await.unwrap();
    let produce = ProduceOptions::default();
    let mut seen = None;
    let mut serves = false;
    let mut state = Json::Null;
    for (number, row) in rows.iter().enumerate() {
        if number == FIRST {
            let body = json!({ "pipeline": "electricity_model", "reason": "the first" });
            client.json_action("model_train", &body).await.unwrap();
        }
        if number >= FIRST && number.is_multiple_of(LOOK) {
            state = settle(node, client).await;
            serves = state["champion"].is_u64();
        }
        if serves {
            let options = PredictOptions { min_t: seen, ..PredictOptions::default() };
            let answer = predictions.predict(&question(row, number), &options).await.unwrap();
            assert_eq!(answer.metadata.errors, 0, "row {number}: {:?}", answer.error(0));
            // Everything that was used was known before the half-hour that is asked about.
            assert!(answer.metadata.t.is_some_and(|t| t.as_event_time() < at(number)));
        }
        let ack = producer.send_and_wait(&event(row, number, serves), &produce).await.unwrap();
        assert_eq!(ack.accepted, 1, "row {number}: {ack:?}");
        seen = ack.t.map(|t| t.0);
    }
    settle(node, client).await;
    state
}

async fn outcomes(client: &Client) -> Vec<Json> {
    let ticket = ReadTicket::topic("electricity_model.outcomes");
    let batches = client.read(&ticket).await.unwrap().collect().await.unwrap();
    batches.iter().flat_map(|batch| batch_json(batch).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_is_predicted_before_it_is_learnt() {
    let Some(path) = kit::shared_data("electricity/electricity.csv") else { return };
    let is_slow = std::env::var_os("FALAJ_SLOW").is_some();
    let mut rows = read(&path);
    rows.truncate(if is_slow { usize::MAX } else { BRIEFLY });
    let folder = tempfile::tempdir().unwrap();
    let catalog = kit::node::catalog(&[
        ("electricity.toml", TOPIC),
        ("market.sql", VIEW),
        ("dataflows/electricity.toml", PIPELINE),
    ])
    .unwrap();
    let mut options = kit::node::options(&folder.path().join("data"));
    options.core.trainer = Some(crate::models::real_trainer(folder.path()));
    let node = Node::start(options, catalog).await.unwrap();
    let client = node.client().await.unwrap();
    let began = Instant::now();
    let state = stream(&node, &client, &rows).await;
    let seconds = began.elapsed().as_secs_f64();

    // What a version said in shadow is judged as well; what counts is what was answered.
    let mut judged = outcomes(&client).await;
    judged.retain(|outcome| outcome["served"] == true);
    let row_of = |outcome: &Json| -> usize {
        outcome["prediction_id"].as_str().unwrap()[1..].parse().unwrap()
    };
    let own: Vec<(bool, bool, f64)> = judged
        .iter()
        .map(|outcome| {
            let truth = rows[row_of(outcome)].high;
            assert_eq!(outcome["actual"], truth);
            (outcome["predicted"] == true, truth, outcome["log_loss"].as_f64().unwrap())
        })
        .collect();
    let first = judged.iter().map(row_of).min().expect("nothing was judged");
    assert_eq!(own.len(), rows.len() - first, "every prediction is judged, once");
    let model = figures(&own);
    // The honest bar: what was last is again. Over the same rows; its log loss is that of the share of
    // rows for which it holds.
    let stays = |row: &usize| rows[*row].high == rows[*row - 1].high;
    let share = (first..rows.len()).filter(stays).count() as f64 / own.len() as f64;
    let same: Vec<(bool, bool, f64)> = (first..rows.len())
        .map(|row| {
            let right = stays(&row);
            (rows[row - 1].high, rows[row].high, -(if right { share } else { 1.0 - share }).ln())
        })
        .collect();
    let unchanged = figures(&same);
    let events = state["events"].as_array().cloned().unwrap_or_default();
    let count = |kind: &str, actor: &str| {
        let of = events.iter().filter(|event| event["kind"] == kind);
        of.filter(|event| event["actor"].as_str().is_some_and(|who| who.starts_with(actor))).count()
    };
    println!(
        "electricity, {} rows predicted in {seconds:.0} s; {} runs by drift, {} by errors, {} by labels, {} promoted",
        model.rows,
        count("requested", "rule:drift"),
        count("requested", "rule:detector"),
        count("requested", "rule:labels"),
        count("promoted", ""),
    );
    for (name, found) in [("this platform", model), ("no change", unchanged)] {
        println!(
            "{name:14} accuracy {:.2} %  kappa {:.3}  log loss {:.3}",
            100.0 * found.accuracy,
            found.kappa,
            found.log_loss
        );
    }
    assert!(count("requested", "rule:") > 0, "nothing was retrained");
    assert!(model.accuracy > unchanged.accuracy + 0.01, "{model:?} does not beat {unchanged:?}");
    assert!(model.kappa > unchanged.kappa && model.log_loss < unchanged.log_loss, "{model:?}");
    if is_slow {
        // Measured: 95.0 %; no change: 85.3 %; river's adaptive random forest: 85.9 %.
        assert!(model.accuracy > 0.94 && model.kappa > 0.88, "{model:?}");
    }
    drop(client);
    node.stop().await.unwrap();
}
