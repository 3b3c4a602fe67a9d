//! Feature lookup on an open Flight stream, beside a bare gRPC echo.
//!
//! Measured: wall time from a batch of keys in the client to a decoded answer of 10 features per key,
//! with one request under way, against a server that answers the same requests with the same bytes
//! without reading them ([`harness::echo`]): same TLS, same settings, same client. A second baseline
//! is the echo without any Arrow in the client. The three are asked in turns, so that whatever else
//! the machine does touches all of them alike.
//!
//! Limit: two messages over a loopback TLS connection, that is, four wake-ups of a thread and four
//! records sealed and opened; reading one key is a few microseconds beside that.
//!
//! Not measured: a network, many streams at once, views that change meanwhile, cold caches.

use anyhow::{Context, Result, ensure};
use arrow::array::RecordBatch;
use falaj_gateway::Client;
use falaj_gateway::client::FeatureStream;
use falaj_gateway::wire::{LookupOptions, ProduceOptions};
use harness::Scale;
use harness::echo::{BareStream, Beside, Times, encoded};
use harness::report::{Table, Target};
use harness::workload::{self, SECOND_US, START_US, mix};

const VIEW: &str = "card_features";
const FEATURES: u64 = 10;
const EVENTS_PER_CARD: u64 = 10;
const EVENTS_PER_BATCH: u64 = 1_000;

/// Puts some events behind every card, and waits until the view has them.
async fn fill(client: &Client, cards: u64) -> Result<()> {
    let time = |number: u64| START_US + number * SECOND_US / 100;
    let starts = (0..EVENTS_PER_CARD * cards).step_by(EVENTS_PER_BATCH as usize);
    let batches = starts
        .map(|first| workload::payments(first, EVENTS_PER_BATCH, cards, time))
        .collect::<Result<Vec<_>>>()?;
    let acks = client.produce("payments", &batches, &ProduceOptions::default()).await?;
    let newest = acks.last().and_then(|ack| ack.t).context("nothing was acknowledged")?;
    let keys = workload::card_keys(0..1)?;
    let options =
        LookupOptions { min_t: Some(newest.0), timeout_ms: Some(300_000), ..Default::default() };
    client.features(&[VIEW], &keys.schema()).await?.lookup(&keys, &options).await?;
    Ok(())
}

/// What the three are asked through.
struct Doors {
    node: FeatureStream,
    echo: FeatureStream,
    bare: BareStream,
}

/// Streams on which `keys` are asked for; the echoes give what the node gives for them.
async fn doors(beside: &Beside, client: &Client, keys: &RecordBatch) -> Result<Doors> {
    let bare = beside.answering_as(&["features", VIEW], keys).await?;
    Ok(Doors {
        node: client.features(&[VIEW], &keys.schema()).await?,
        echo: beside.echo_client.features(&[VIEW], &keys.schema()).await?,
        bare,
    })
}

async fn ask(doors: &mut Doors, requests: u64, keys_each: u64, cards: u64) -> Result<Times> {
    let mut times = Times::new()?;
    let options = LookupOptions::default();
    let warm = requests / 10;
    for request in 0..requests + warm {
        // Numbers of events, so that every card has at least one.
        let numbers = (0..keys_each)
            .map(|n| mix((request * keys_each + n) % (EVENTS_PER_CARD * cards)) % cards);
        let keys = workload::card_keys(numbers)?;
        let message = encoded(&keys)?;
        let node = async { Ok(doors.node.lookup(&keys, &options).await?) };
        let echo = async { Ok(doors.echo.lookup(&keys, &options).await?) };
        let answer = times.ask(request >= warm, node, echo, doors.bare.ask(message)).await?;
        ensure!(answer.batch.num_rows() as u64 == keys_each, "rows are missing");
        let found = answer.counts.present + answer.counts.null;
        ensure!(found == keys_each * FEATURES, "a card was not found: {:?}", answer.counts);
    }
    Ok(times)
}

async fn run(scale: Scale) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let catalog = workload::payments_catalog(true)?;
    let node = kit::node::start(&folder.path().join("node"), &catalog).await?;
    let client = node.client().await?;
    let cards = scale.size(10_000, 200);
    fill(&client, cards).await?;
    let beside = Beside::start(&node, folder.path()).await?;
    let mut table = Table::new("lookup: 10 features on an open stream", scale);
    for (keys_each, requests, limit, name) in [
        (1, scale.size(8_000, 20), 1.5, "10 features of 1 key"),
        (100, scale.size(3_000, 10), 3.0, "10 features of 100 keys"),
    ] {
        let sample = workload::card_keys((0..keys_each).map(|n| mix(n) % cards))?;
        let mut doors = doors(&beside, &client, &sample).await?;
        let times = ask(&mut doors, requests, keys_each, cards).await?;
        times.report(&mut table, name, [Target::AtMost(limit), Target::AtMost(limit)]);
    }
    table.note(
        "limit: a round trip of two messages over loopback TLS (four thread wake-ups, four records \
         sealed and opened)",
    );
    table.print();
    drop(beside);
    drop(client);
    node.stop().await
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(Scale::from_environment()))
}
