//! Predictions on an open Flight stream: latency beside a bare gRPC echo, throughput beside the log.
//!
//! Latency: wall time from one row in the client to its decoded answer (10 features of one view read at
//! one snapshot, an MLP 10-64-32-1, the prediction handed to the log with `ack = "fast"`), with one
//! request under way, against a server that answers with the same bytes without reading the request
//! ([`harness::echo`]): same TLS, same settings, same client. The two are asked in turns.
//!
//! Throughput: rows per second of several streams, each with a request of 1,000 rows under way and
//! answered when its events are durable, against the same rows, as the topic has them, handed to the
//! log in batches of 1,000 with as many of them under way. Both in the same node, in turns: views and
//! watch see the same events either way. The ratio is the median of the rounds'.
//!
//! Limit: latency, a round trip of two messages over loopback TLS (four thread wake-ups, four records
//! sealed and opened); throughput, the log (seal, hash and write about 300 bytes a row), beside which
//! scoring a row costs 0.2 µs and reading its features a few.
//!
//! Not measured: a network, clients on other machines (here they share the node's cores).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use arrow::array::RecordBatch;
use falaj_event::{Hash256, Op, TopicSchema};
use falaj_gateway::Client;
use falaj_gateway::client::PredictStream;
use falaj_gateway::wire::{PredictOptions, ProduceOptions, ReadTicket};
use falaj_log::{Ops, Origin, Submission};
use falaj_node::serve::Node;
use harness::Scale;
use harness::echo::{BareStream, Beside, Times, encoded};
use harness::measure::median;
use harness::report::{Table, Target};
use harness::workload::{self, PIPELINES, SECOND_US, START_US, mix};
use serde_json::json;

const JOB: &str = "FALAJ_BENCH_JOB";
const EVENTS_PER_CARD: u64 = 10;
const EVENTS_PER_BATCH: u64 = 1_000;
const STREAMS: u64 = 16;

fn time(number: u64) -> u64 {
    START_US + number * SECOND_US / 10
}

/// The trainer's program: this one, told by the environment.
fn trainer(folder: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("trainer.sh");
    let program = std::env::current_exe()?;
    std::fs::write(&path, format!("#!/bin/sh\n{JOB}=\"$3\" exec '{}'\n", program.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Payments and verdicts, and a model of each pipeline that serves.
async fn prepare(client: &Client, cards: u64) -> Result<()> {
    let mut newest = None;
    for first in (0..EVENTS_PER_CARD * cards).step_by(EVENTS_PER_BATCH as usize) {
        let payments = workload::payments(first, EVENTS_PER_BATCH, cards, time)?;
        let verdicts = workload::verdicts(first..first + EVENTS_PER_BATCH, cards, time)?;
        client.produce("payments", &[payments], &ProduceOptions::default()).await?;
        let acks = client.produce("verdicts", &[verdicts], &ProduceOptions::default()).await?;
        newest = acks.last().and_then(|ack| ack.t);
    }
    let keys = workload::card_keys(0..1)?;
    let options = falaj_gateway::wire::LookupOptions {
        min_t: newest.map(|t| t.0),
        timeout_ms: Some(300_000),
        ..Default::default()
    };
    client.features(&["card_features"], &keys.schema()).await?.lookup(&keys, &options).await?;
    for (pipeline, _) in PIPELINES {
        let body = json!({ "pipeline": pipeline, "reason": "to be measured" });
        client.json_action("model_train", &body).await?;
        let deadline = Instant::now() + Duration::from_secs(300);
        loop {
            let state = client.json_action("models", &json!({ "pipeline": pipeline })).await?;
            if state["champion"] == 1 {
                break;
            }
            if Instant::now() > deadline || state["versions"][0]["stage"] == "failed" {
                bail!("{pipeline} never served: {state:#}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

struct Doors {
    node: PredictStream,
    echo: PredictStream,
    bare: BareStream,
}

async fn ask(doors: &mut Doors, requests: u64, cards: u64) -> Result<Times> {
    let mut times = Times::new()?;
    let options = PredictOptions::default();
    let warm = requests / 10;
    for request in 0..requests + warm {
        let keys = workload::card_keys([card(request, cards)].into_iter())?;
        let message = encoded(&keys)?;
        let node = async { Ok(doors.node.predict(&keys, &options).await?) };
        let echo = async { Ok(doors.echo.predict(&keys, &options).await?) };
        let answer = times.ask(request >= warm, node, echo, doors.bare.ask(message)).await?;
        ensure!(answer.score(0).is_some_and(f64::is_finite), "no score: {:?}", answer.error(0));
    }
    Ok(times)
}

/// The card of an event, so that each has at least one.
fn card(request: u64, cards: u64) -> u64 {
    mix(request % (EVENTS_PER_CARD * cards)) % cards
}

async fn latency(
    table: &mut Table,
    beside: &Beside,
    client: &Client,
    cards: u64,
    requests: u64,
) -> Result<()> {
    let name = PIPELINES[0].0;
    let sample = workload::card_keys(0..1)?;
    let bare = beside.answering_as(&["predict", name], &sample).await?;
    let mut doors = Doors {
        node: client.predictions(name, &sample.schema()).await?,
        echo: beside.echo_client.predictions(name, &sample.schema()).await?,
        bare,
    };
    let times = ask(&mut doors, requests, cards).await?;
    times.report(table, "one row, ack = \"fast\"", [Target::Stated, Target::AtMost(2.0)]);
    Ok(())
}

/// Rows per second of durable predictions, `requests` of 1,000 rows on each stream.
async fn predicted(client: &Client, cards: u64, round: u64, requests: u64) -> Result<f64> {
    let name = PIPELINES[1].0;
    let schema = workload::card_keys(0..1)?.schema();
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(client.predictions(name, &schema).await?);
    }
    let started = Instant::now();
    let asking = streams.into_iter().zip(0..).map(|(mut stream, number): (_, u64)| async move {
        for request in 0..requests {
            let first = ((round * STREAMS + number) * requests + request) * EVENTS_PER_BATCH;
            let numbers = (first..first + EVENTS_PER_BATCH).map(|number| card(number, cards));
            let keys = workload::card_keys(numbers)?;
            let answer = stream.predict(&keys, &PredictOptions::default()).await?;
            ensure!(answer.metadata.errors == 0, "rows have no score: {:?}", answer.error(0));
            ensure!(answer.metadata.logged_t.is_some(), "an answer came before its events");
        }
        anyhow::Ok(())
    });
    let tasks: Vec<_> = asking.map(tokio::spawn).collect();
    for task in tasks {
        task.await??;
    }
    let rows = STREAMS * requests * EVENTS_PER_BATCH;
    Ok(rows as f64 / started.elapsed().as_secs_f64())
}

/// Rows per second of the same events, handed to the log as they are.
async fn appended(node: &Node, events: &Events, round: u64, requests: u64) -> Result<f64> {
    let started = Instant::now();
    let appending = (0..STREAMS).map(|stream| async move {
        for request in 0..requests {
            let number = (round * STREAMS + stream) * requests + request;
            let batch = events.batches[number as usize % events.batches.len()].clone();
            let id = |row: usize| {
                let mut id = [0xff; 32];
                id[..8].copy_from_slice(&number.to_le_bytes());
                id[8..16].copy_from_slice(&(row as u64).to_le_bytes());
                Hash256(id)
            };
            let (reply, told) = tokio::sync::oneshot::channel();
            node.core().sequencer.submit(Submission {
                schema: Arc::clone(&events.schema),
                origin: Origin::Derived((0..batch.num_rows()).map(id).collect()),
                ops: Ops::All(Op::Insert),
                batch,
                positions: None,
                rejected: None,
                reply: Box::new(move |outcome| drop(reply.send(outcome))),
            });
            told.await.context("the log has stopped")??;
        }
        anyhow::Ok(())
    });
    futures::future::try_join_all(appending).await?;
    let rows = STREAMS * requests * EVENTS_PER_BATCH;
    Ok(rows as f64 / started.elapsed().as_secs_f64())
}

/// Prediction events in batches of 1,000, with their declared columns.
struct Events {
    schema: Arc<TopicSchema>,
    batches: Vec<RecordBatch>,
}

impl Events {
    async fn read(node: &Node, client: &Client) -> Result<Self> {
        let name = format!("{}.predictions", PIPELINES[1].0);
        let topic = node.core().catalog.topics.get(&name).context("the predictions' topic")?;
        let read = client.read(&ReadTicket::topic(&name)).await?.collect().await?;
        let mut batches = Vec::new();
        for batch in read {
            let wanted = topic.schema.columns.iter().map(|column| {
                batch.schema().index_of(&column.name).context("a column of the predictions")
            });
            let batch = batch.project(&wanted.collect::<Result<Vec<_>>>()?)?;
            let whole = batch.num_rows() as u64 / EVENTS_PER_BATCH;
            let at = |part: u64| (part * EVENTS_PER_BATCH) as usize;
            batches.extend((0..whole).map(|part| batch.slice(at(part), at(1))));
        }
        ensure!(!batches.is_empty(), "no {EVENTS_PER_BATCH} predictions came together");
        Ok(Self { schema: Arc::clone(&topic.schema), batches })
    }
}

async fn throughput(
    table: &mut Table,
    node: &Node,
    client: &Client,
    cards: u64,
    scale: Scale,
) -> Result<()> {
    let requests = scale.size(8, 1);
    predicted(client, cards, 0, requests).await?;
    let events = Events::read(node, client).await?;
    let (mut own, mut log, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=scale.size(5, 1) {
        own.push(predicted(client, cards, round, requests).await?);
        log.push(appended(node, &events, round, requests).await?);
        ratios.extend(own.last().zip(log.last()).map(|(own, log)| own / log));
    }
    let name = "rows, ack = \"durable\", 16 streams of 1,000, against the log alone";
    let (own, log, ratio) = (median(own), median(log), median(ratios));
    table.paired(name, own, log, ratio, "rows/s", Target::AtLeast(0.8));
    Ok(())
}

async fn run(scale: Scale) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut options = kit::node::options(&folder.path().join("node"));
    options.core.trainer = Some(trainer(folder.path())?);
    let node = Node::start(options, workload::risk_catalog()?).await?;
    let client = node.client().await?;
    let cards = scale.size(10_000, 200);
    prepare(&client, cards).await?;
    let beside = Beside::start(&node, folder.path()).await?;
    let mut table = Table::new("predict: 10 features, MLP 64-32-1, on open streams", scale);
    latency(&mut table, &beside, &client, cards, scale.size(8_000, 20)).await?;
    throughput(&mut table, &node, &client, cards, scale).await?;
    table.note("limit: a round trip over loopback TLS; the log's own rows per second");
    table.print();
    drop(beside);
    drop(client);
    node.stop().await
}

fn main() -> Result<()> {
    if let Ok(job) = std::env::var(JOB) {
        let options = falaj_node::cli::Trainer { job: PathBuf::from(job), detached: false };
        return falaj_node::verbs::trainer::run(&options);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(Scale::from_environment()))
}
