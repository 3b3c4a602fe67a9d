//! Freshness: from an acknowledgement in the producer's hands to the rows being readable.
//!
//! Measured: first the maximum load (payments produced over Flight as fast as they are acknowledged
//! *and* readable, through a view of 10 features), then, at half of that, paced evenly, per batch of
//! 200 events: the time between the acknowledgement's arrival in the client and the view store's
//! progress passing the acknowledged `T` (zero where it was first), and, seen from outside, how long a
//! lookup with `min_t` = that `T` takes. Its baseline is a lookup on the same stream, at the same
//! load, of what is readable already. The node runs on the wall clock, as `falaj up` does.
//!
//! Limit: an epoch is decoded from the log once (decryption, decompression), computed by the engine
//! and written to memtables, each in a thread of its own: three hand-overs behind the commit, which
//! the acknowledgement's way through gRPC and TLS hides in part.
//!
//! Not measured: several views, a network. Client and node share the cores.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use falaj_event::LogTime;
use falaj_gateway::Client;
use falaj_gateway::wire::{LookupOptions, ProduceOptions};
use falaj_log::ClockMode;
use falaj_node::core::Core;
use falaj_node::pump::wall_clock_us;
use falaj_node::serve::Node;
use harness::Scale;
use harness::measure::Latencies;
use harness::report::{Table, Target};
use harness::workload;
use tokio::sync::mpsc;

const CARDS: u64 = 10_000;
const EVENTS_PER_BATCH: u64 = 200;
const WAIT: Duration = Duration::from_secs(120);

fn batch(first: u64) -> Result<arrow::array::RecordBatch> {
    let now = wall_clock_us();
    workload::payments(first, EVENTS_PER_BATCH, CARDS, |_| now)
}

/// Events per second that are acknowledged and readable, everything going as fast as it can.
async fn maximum(core: &Core, client: &Client, batches: u64) -> Result<f64> {
    let all = (0..batches).map(|n| batch(n * EVENTS_PER_BATCH)).collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    let acks = client.produce("payments", &all, &ProduceOptions::default()).await?;
    let newest = acks.last().and_then(|ack| ack.t).context("nothing was acknowledged")?;
    let accepted: u64 = acks.iter().map(|ack| ack.accepted).sum();
    ensure!(accepted == batches * EVENTS_PER_BATCH, "{accepted} events were accepted");
    let store = Arc::clone(&core.store);
    tokio::task::spawn_blocking(move || store.wait_for(newest, Instant::now() + WAIT)).await??;
    Ok(accepted as f64 / started.elapsed().as_secs_f64())
}

/// When the view store passed which `T`.
type Passed = Arc<Mutex<Vec<(LogTime, Instant)>>>;

struct Probes {
    waiting: Latencies,
    plain: Latencies,
}

/// Looks up at `min_t` for each `T` that comes, and once more without it.
async fn probe(client: Client, mut times: mpsc::Receiver<LogTime>) -> Result<Probes> {
    let mut probes = Probes { waiting: Latencies::new()?, plain: Latencies::new()? };
    let keys = workload::card_keys(0..1)?;
    let mut stream = client.features(&["card_features"], &keys.schema()).await?;
    while let Some(t) = times.recv().await {
        let options =
            LookupOptions { min_t: Some(t.0), timeout_ms: Some(60_000), ..Default::default() };
        let started = Instant::now();
        let answer = stream.lookup(&keys, &options).await?;
        probes.waiting.record(started.elapsed());
        ensure!(answer.t >= t.0, "the answer is older than what was asked for");
        let started = Instant::now();
        stream.lookup(&keys, &LookupOptions::default()).await?;
        probes.plain.record(started.elapsed());
    }
    Ok(probes)
}

/// Acknowledgements of paced batches, as they arrive.
async fn paced(
    client: &Client,
    batches: u64,
    pace: Duration,
    probes: mpsc::Sender<LogTime>,
) -> Result<Vec<(LogTime, Instant)>> {
    let schema = batch(0)?.schema();
    let (mut sender, mut receiver) = client.producer("payments", &schema).await?.split();
    let sending = async {
        let mut ticks = tokio::time::interval(pace);
        for number in 0..batches {
            ticks.tick().await;
            sender.send(&batch(number * EVENTS_PER_BATCH)?, &ProduceOptions::default()).await?;
        }
        drop(sender);
        anyhow::Ok(())
    };
    let receiving = async {
        let mut acks = Vec::new();
        while let Some(ack) = receiver.receive().await? {
            let t = ack.t.context("a batch was refused")?;
            acks.push((t, Instant::now()));
            // One probe at a time: while it waits, later batches are not probed.
            let _ = probes.try_send(t);
        }
        drop(probes);
        anyhow::Ok(acks)
    };
    Ok(tokio::try_join!(sending, receiving)?.1)
}

/// How long after each acknowledgement its rows were readable.
fn ages(acks: &[(LogTime, Instant)], passed: &[(LogTime, Instant)]) -> Result<Latencies> {
    let mut ages = Latencies::new()?;
    for (t, acknowledged) in acks {
        let index = passed.partition_point(|(reached, _)| reached < t);
        let (_, readable) = passed.get(index).context("an epoch never became readable")?;
        ages.record(readable.saturating_duration_since(*acknowledged));
    }
    Ok(ages)
}

async fn start(folder: &std::path::Path) -> Result<Node> {
    let mut options = kit::node::options(folder);
    options.core.clock = ClockMode::Wall;
    Node::start(options, workload::payments_catalog(true)?).await
}

async fn run(scale: Scale) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = start(folder.path()).await?;
    let client = node.client().await?;
    let core = Arc::clone(node.core());
    let mut table = Table::new("freshness: acknowledged to readable", scale);
    maximum(&core, &client, scale.size(200, 2)).await?;
    let maximum = maximum(&core, &client, scale.size(1_000, 4)).await?;

    let pace = Duration::from_secs_f64(EVENTS_PER_BATCH as f64 / (maximum / 2.0));
    let seconds = if scale.measured { 15.0 } else { 0.2 };
    let batches = ((seconds / pace.as_secs_f64()) as u64).clamp(4, 20_000);
    let passed: Passed = Arc::default();
    let seen = Arc::clone(&passed);
    let watch = core.store.watch(move |progress| {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push((progress.t, Instant::now()));
    });
    let (send, receive) = mpsc::channel(1);
    let probing = tokio::spawn(probe(client.clone(), receive));
    let started = Instant::now();
    let acks = paced(&client, batches, pace, send).await?;
    let rate = (batches * EVENTS_PER_BATCH) as f64 / started.elapsed().as_secs_f64();
    let probes = probing.await??;
    let newest = acks.last().context("no acknowledgement")?.0;
    let store = Arc::clone(&core.store);
    tokio::task::spawn_blocking(move || store.wait_for(newest, Instant::now() + WAIT)).await??;
    // Who waits may be told before who watches.
    let seen_last = || {
        let passed = passed.lock().unwrap_or_else(PoisonError::into_inner);
        passed.last().is_some_and(|(t, _)| *t >= newest)
    };
    let deadline = Instant::now() + WAIT;
    while !seen_last() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    core.store.unwatch(watch);
    let passed = passed.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let ages = ages(&acks, &passed)?;

    table.figure("maximum: acknowledged and readable", maximum, "events/s", Target::Stated);
    table.ratio("load while measuring, against it", rate, maximum, "events/s", Target::Stated);
    for (quantile, at) in [("p50", 0.5), ("p99", 0.99)] {
        let name = format!("acknowledged to readable in the store, {quantile}");
        table.figure(&name, ages.at(at), "s", Target::Stated);
        let name =
            format!("lookup that waits for it (min_t), against one that need not, {quantile}");
        table.ratio(&name, probes.waiting.at(at), probes.plain.at(at), "s", Target::Stated);
    }
    table.note(format!(
        "{} acknowledgements, {} of them probed",
        acks.len(),
        probes.waiting.count()
    ));
    table.note(
        "limit: three hand-overs between threads behind the commit (log reader, engine, view writer)",
    );
    table.print();
    drop(core);
    drop(client);
    node.stop().await
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(Scale::from_environment()))
}
