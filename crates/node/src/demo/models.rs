//! The model loop of the demo: the first version is trained, the till asks before each payment, and what
//! the platform does about the drift is waited for.
//!
//! Goes through the client alone, like any till or operator. Knows the pipeline `fraud`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use falaj_event::LogTime;
use falaj_gateway::Client;
use falaj_gateway::client::ClientError;
use falaj_gateway::wire::PredictOptions;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use serde_json::{Value as Json, json};
use tokio::sync::{mpsc, oneshot};

use super::rows::{customer_id, merchant_id};
use super::simulation::Payment;

/// The pipeline of the demo.
pub const PIPELINE: &str = "fraud";
/// The till asks about one payment in so many.
const ONE_IN: u64 = 3;
/// How long a request may wait for its features.
const FEATURE_WAIT_MS: u64 = 60_000;
/// How long a training run may take.
const RUN_WAIT: Duration = Duration::from_secs(300);

/// What the till saw.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Rows with a score.
    pub scored: u64,
    /// Rows without.
    pub errors: u64,
    /// The first reason of a row without a score.
    pub error: Option<String>,
    /// Latency of requests, microseconds.
    pub latency: Histogram<u64>,
    /// Ids of predictions, some of them, oldest first.
    pub ids: Vec<String>,
    /// Versions that answered.
    pub versions: Vec<u32>,
}

/// Payments that are about to be made, and what the till has seen of the log.
pub struct Question {
    /// The payments.
    pub payments: Vec<Payment>,
    /// The greatest `T` that was acknowledged: features are read there or later.
    pub seen: Option<LogTime>,
    /// Told when the till has its answer.
    pub answered: oneshot::Sender<()>,
}

/// Whether the till asks about a payment.
pub fn is_asked(payment: &Payment) -> bool {
    payment.flaw.is_none() && payment.number.is_multiple_of(ONE_IN)
}

/// A till that asks beside the stream.
pub struct Till {
    questions: mpsc::Sender<Question>,
    asked: Arc<Mutex<Asked>>,
    task: tokio::task::JoinHandle<Result<()>>,
}

impl Till {
    /// Opens a prediction stream.
    ///
    /// # Errors
    /// When no histogram can be made.
    pub fn start(client: Client) -> Result<Self> {
        let (questions, queue) = mpsc::channel(1);
        let asked = Arc::new(Mutex::new(Asked {
            scored: 0,
            errors: 0,
            error: None,
            latency: Histogram::new(3)?,
            ids: Vec::new(),
            versions: Vec::new(),
        }));
        let task = tokio::spawn(ask(client, queue, Arc::clone(&asked)));
        Ok(Self { questions, asked, task })
    }

    /// Where payments are handed in.
    pub fn sender(&self) -> mpsc::Sender<Question> {
        self.questions.clone()
    }

    /// Ends the stream, and gives what was seen.
    ///
    /// # Errors
    /// When a request failed.
    pub async fn stop(self) -> Result<Asked> {
        drop(self.questions);
        self.task.await??;
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(asked.clone())
    }
}

impl Asked {
    /// Takes in what another till saw later.
    ///
    /// # Errors
    /// When the histograms do not fit, which they do.
    pub fn add(&mut self, later: Self) -> Result<()> {
        self.scored += later.scored;
        self.errors += later.errors;
        self.error = self.error.take().or(later.error);
        self.latency.add(later.latency)?;
        self.ids.extend(later.ids);
        for version in later.versions {
            if !self.versions.contains(&version) {
                self.versions.push(version);
            }
        }
        Ok(())
    }
}

async fn ask(
    client: Client,
    mut queue: mpsc::Receiver<Question>,
    asked: Arc<Mutex<Asked>>,
) -> Result<()> {
    let mut stream = None;
    while let Some(Question { payments, seen, answered }) = queue.recv().await {
        let chosen: Vec<&Payment> = payments.iter().filter(|payment| is_asked(payment)).collect();
        let rows = questions(&chosen)?;
        // What the till has sent is in its own features: they are no older than its last batch.
        let options = PredictOptions {
            min_t: seen.map(|t| t.0),
            timeout_ms: Some(FEATURE_WAIT_MS),
            ..PredictOptions::default()
        };
        if stream.is_none() {
            stream = Some(client.predictions(PIPELINE, rows.schema().as_ref()).await?);
        }
        let Some(stream) = &mut stream else { continue };
        let mut started = Instant::now();
        let answer = loop {
            match stream.predict(&rows, &options).await {
                // A node that was just started says so until its views are there.
                Err(ClientError::Request(error)) if error["code"] == "unavailable" => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    started = Instant::now();
                }
                answer => break answer?,
            }
        };
        let latency_us = u64::try_from(started.elapsed().as_micros())?;
        // Whoever waits may have gone away.
        let _ = answered.send(());
        let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.latency.record(latency_us.max(1))?;
        asked.errors += answer.metadata.errors;
        asked.scored += answer.metadata.rows - answer.metadata.errors;
        if let Some(version) = answer.metadata.model_version
            && !asked.versions.contains(&version)
        {
            asked.versions.push(version);
        }
        for row in 0..answer.batch.num_rows() {
            match answer.prediction_id(row) {
                Some(id) if row == 0 => asked.ids.push(id.to_owned()),
                Some(_) => {}
                None => {
                    let error = answer.error(row).map(str::to_owned);
                    asked.error = asked.error.take().or(error);
                }
            }
        }
    }
    Ok(())
}

fn questions(payments: &[&Payment]) -> Result<RecordBatch> {
    let texts = |of: &dyn Fn(&Payment) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(payments.iter().map(|payment| of(payment))))
    };
    let amounts = payments.iter().map(|payment| payment.amount_fils);
    let present = payments.iter().map(|payment| Some(payment.channel != "online"));
    let risks = payments.iter().map(|payment| payment.device_risk);
    Ok(RecordBatch::try_from_iter([
        ("prediction_id", texts(&|payment| format!("PAY-{:010}", payment.number))),
        ("customer_id", texts(&|payment| customer_id(payment.customer))),
        ("merchant_id", texts(&|payment| merchant_id(payment.merchant))),
        ("amount_fils", Arc::new(Int64Array::from_iter_values(amounts)) as ArrayRef),
        ("channel", texts(&|payment| payment.channel.to_owned())),
        ("card_present", Arc::new(present.collect::<BooleanArray>()) as ArrayRef),
        ("device_risk", Arc::new(Float64Array::from_iter_values(risks)) as ArrayRef),
    ])?)
}

/// What the registry says of the pipeline.
///
/// # Errors
/// When the node cannot be asked.
pub async fn registry(client: &Client) -> Result<Json> {
    Ok(client.json_action("models", &json!({ "pipeline": PIPELINE })).await?)
}

/// Asks for the first version and waits until it serves.
///
/// # Errors
/// When its run fails or it does not pass its gates.
pub async fn train_first(client: &Client, bar: &ProgressBar) -> Result<()> {
    let body = json!({ "pipeline": PIPELINE, "reason": "the demo's first version" });
    // A rule may have been faster: its run is the one that is waited for then.
    let asked = client.json_action("model_train", &body).await;
    settle(client, bar).await?;
    if let (Err(error), Some(_)) = (asked, registry(client).await?["champion"].as_u64()) {
        bar.println(format!("the first version was trained by rule ({error})"));
    }
    let state = registry(client).await?;
    match state["champion"].as_u64() {
        Some(_) => Ok(()),
        None => bail!("the first version of {PIPELINE} does not serve: {}", last_words(&state)),
    }
}

fn last_words(state: &Json) -> String {
    let last = state["events"].as_array().and_then(|events| events.last());
    last.map_or_else(String::new, |event| {
        format!("{}: {} {}", event["kind"], event["reason"], event["detail"])
    })
}

/// Waits until no run is in flight and nothing waits for its promotion.
///
/// # Errors
/// When that takes too long.
pub async fn settle(client: &Client, bar: &ProgressBar) -> Result<()> {
    let deadline = Instant::now() + RUN_WAIT;
    loop {
        let state = registry(client).await?;
        let moving = ["requested", "training", "trained", "validated", "shadow"];
        let versions = state["versions"].as_array().cloned().unwrap_or_default();
        let waiting = versions
            .iter()
            .find(|version| version["stage"].as_str().is_some_and(|stage| moving.contains(&stage)));
        let Some(waiting) = waiting else { return Ok(()) };
        bar.set_message(format!(
            "version {} of {PIPELINE}: {}",
            waiting["version"],
            waiting["stage"].as_str().unwrap_or_default()
        ));
        if Instant::now() > deadline {
            bail!("version {} of {PIPELINE} did not get anywhere", waiting["version"]);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Replays one prediction from raw events.
///
/// # Errors
/// When the node cannot be asked.
pub async fn replay(client: &Client, id: &str) -> Result<Json> {
    let body = json!({ "pipeline": PIPELINE, "id": id });
    client.json_action("replay_prediction", &body).await.context("replaying a prediction")
}
