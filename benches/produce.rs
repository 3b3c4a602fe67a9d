//! Durable produce over Flight, beside raw RocksDB.
//!
//! Measured: one client on one open `DoPut` stream (TLS on) sends batches of 1,000 events of 100 bytes
//! to a node in this process and has up to 64 of them under way; an acknowledgement means that the
//! epoch is synced. Per round, in turns with it, the same bytes go into plain RocksDB: one value per
//! event, one synced write per epoch that the node closed in this round, with the same batches in it,
//! and the two syncs that an epoch costs in the log (its write and its acknowledgement slot).
//!
//! Limit: the disk's sync. An epoch cannot be acknowledged faster than one write and two syncs, so
//! events per second are at most (events per epoch) ÷ (that time); everything else (TLS, Arrow decode,
//! checks, sealing, hashing: one SHA-256 per event) is processor time that overlaps with it.
//!
//! Not measured: views (the topic has none), several producers, a network. Client and node share the
//! cores.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use falaj_gateway::Client;
use falaj_gateway::wire::ProduceOptions;
use harness::Scale;
use harness::measure::{Latencies, median, parts, processor_time_by_thread};
use harness::report::{Table, Target};
use harness::workload::{self, PAYMENT_BYTES, START_US};
use rocksdb::{DB, WriteBatch, WriteOptions};
use tokio::sync::Semaphore;

const EVENTS_PER_BATCH: u64 = 1_000;
/// As many as the node takes in before it answers.
const BATCHES_UNDER_WAY: usize = 64;
const CARDS: u64 = 100_000;

/// The same settings as the log's where they matter here: its memtables, no compression.
struct Raw {
    db: DB,
    slots: File,
    next_key: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    PerEvent,
    PerBatch,
}

impl Raw {
    fn open(path: &Path) -> Result<Self> {
        let mut options = rocksdb::Options::default();
        options.create_if_missing(true);
        options.set_write_buffer_size(64 << 20);
        options.set_compression_type(rocksdb::DBCompressionType::None);
        let slots = File::create(path.join("slots"))?;
        slots.write_all_at(&[0; 8192], 0)?;
        slots.sync_all()?;
        Ok(Self { db: DB::open(&options, path.join("raw"))?, slots, next_key: 0 })
    }

    /// Writes the batches in groups of these sizes, each group durably; gives the seconds.
    fn write(
        &mut self,
        rows: &[Vec<Vec<u8>>],
        groups: &[usize],
        shape: Shape,
        slot: bool,
    ) -> Result<f64> {
        let mut durable = WriteOptions::default();
        durable.set_sync(true);
        let started = Instant::now();
        let mut rest = rows;
        for group in groups {
            let (now, later) = rest.split_at(*group);
            rest = later;
            let mut batch = WriteBatch::default();
            for events in now {
                match shape {
                    Shape::PerEvent => events.iter().for_each(|event| self.put(&mut batch, event)),
                    Shape::PerBatch => self.put(&mut batch, &events.concat()),
                }
            }
            self.db.write_opt(batch, &durable)?;
            if slot {
                self.slots.write_all_at(&[7; 88], 4096 * (self.next_key % 2))?;
                self.slots.sync_data()?;
            }
        }
        Ok(started.elapsed().as_secs_f64())
    }

    fn put(&mut self, batch: &mut WriteBatch, value: &[u8]) {
        batch.put(self.next_key.to_be_bytes(), value);
        self.next_key += 1;
    }
}

/// The bytes of each event: its columns one after the other.
fn bytes_of(batch: &RecordBatch) -> Result<Vec<Vec<u8>>> {
    let text = |name: &str| batch.column_by_name(name).map(|column| column.as_string::<i32>());
    let (cards, merchants) = (text("card").context("card")?, text("merchant").context("merchant")?);
    let references = text("reference").context("reference")?;
    let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
    let amounts = batch.column(2).as_primitive::<Int64Type>();
    let row = |row: usize| {
        let mut bytes = Vec::with_capacity(PAYMENT_BYTES);
        bytes.extend_from_slice(cards.value(row).as_bytes());
        bytes.extend_from_slice(&times.value(row).to_be_bytes());
        bytes.extend_from_slice(&amounts.value(row).to_be_bytes());
        bytes.extend_from_slice(merchants.value(row).as_bytes());
        bytes.extend_from_slice(references.value(row).as_bytes());
        bytes
    };
    Ok((0..cards.len()).map(row).collect())
}

/// What one round over Flight took.
struct Produced {
    seconds: f64,
    processor_seconds: f64,
    /// Which threads it went to.
    threads: String,
    /// Batches per epoch, in order.
    groups: Vec<usize>,
}

async fn produce(
    client: &Client,
    batches: &[RecordBatch],
    first_sequence: u64,
    latencies: &mut Latencies,
) -> Result<Produced> {
    let schema = batches.first().context("no batches")?.schema();
    let (mut sender, mut receiver) = client.producer("payments", &schema).await?.split();
    let room = Semaphore::new(BATCHES_UNDER_WAY);
    let sent = Mutex::new(VecDeque::new());
    let (before, started) = (processor_time_by_thread()?, Instant::now());
    let sending = async {
        let mut options = ProduceOptions { producer: Some("bench".into()), ..Default::default() };
        for (index, batch) in batches.iter().enumerate() {
            room.acquire().await?.forget();
            options.sequence = Some(first_sequence + index as u64 * EVENTS_PER_BATCH);
            sent.lock().map(|mut sent| sent.push_back(Instant::now())).ok();
            sender.send(batch, &options).await?;
        }
        drop(sender);
        anyhow::Ok(())
    };
    let mut groups = Vec::new();
    let receiving = async {
        let mut newest = None;
        while let Some(ack) = receiver.receive().await? {
            ensure!(ack.accepted == EVENTS_PER_BATCH, "not all was accepted: {ack:?}");
            let began = sent.lock().ok().and_then(|mut sent| sent.pop_front());
            latencies.record(began.context("an answer too many")?.elapsed());
            if ack.epoch != newest {
                newest = ack.epoch;
                groups.push(0);
            }
            groups.last_mut().into_iter().for_each(|count| *count += 1);
            room.add_permits(1);
        }
        anyhow::Ok(())
    };
    tokio::try_join!(sending, receiving)?;
    let seconds = started.elapsed().as_secs_f64();
    let after = processor_time_by_thread()?;
    let spent = after.values().sum::<Duration>().saturating_sub(before.values().sum());
    let (processor_seconds, threads) = (spent.as_secs_f64(), parts(&before, &after));
    ensure!(groups.iter().sum::<usize>() == batches.len(), "a batch was not acknowledged");
    Ok(Produced { seconds, processor_seconds, threads, groups })
}

/// How long syncs of small writes take: what the machine's disk allows.
fn syncs(path: &Path, count: u64) -> Result<Latencies> {
    let file = File::create(path.join("sync"))?;
    file.write_all_at(&vec![0; 1 << 20], 0)?;
    file.sync_all()?;
    let mut latencies = Latencies::new()?;
    for number in 0..count {
        let started = Instant::now();
        file.write_all_at(&number.to_be_bytes(), (number % 256) * 4096)?;
        file.sync_data()?;
        latencies.record(started.elapsed());
    }
    Ok(latencies)
}

/// One batch at a time: the latency of an acknowledgement without a queue before it.
async fn one_by_one(
    client: &Client,
    batches: &[RecordBatch],
    first_sequence: u64,
) -> Result<Latencies> {
    let mut latencies = Latencies::new()?;
    let schema = batches.first().context("no batches")?.schema();
    let mut stream = client.producer("payments", &schema).await?;
    for (index, batch) in batches.iter().enumerate() {
        let options = ProduceOptions {
            producer: Some("bench".into()),
            sequence: Some(first_sequence + index as u64 * EVENTS_PER_BATCH),
            ..Default::default()
        };
        let started = Instant::now();
        stream.send_and_wait(batch, &options).await?;
        latencies.record(started.elapsed());
    }
    Ok(latencies)
}

/// Seconds of each round.
#[derive(Default)]
struct Rounds {
    node: Vec<f64>,
    processor: Vec<f64>,
    raw: Vec<f64>,
    raw_one_sync: Vec<f64>,
    raw_per_batch: Vec<f64>,
    batches_per_epoch: Vec<f64>,
    threads: String,
}

impl Rounds {
    fn report(&self, table: &mut Table, events: f64) {
        let rate = |seconds: &[f64]| median(seconds.iter().map(|s| events / s).collect());
        let against =
            |raw: &[f64]| median(self.node.iter().zip(raw).map(|(node, raw)| raw / node).collect());
        let node = rate(&self.node);
        for (name, raw, target) in [
            ("produce, against RocksDB with the same two syncs", &self.raw, Target::AtLeast(0.5)),
            ("… with one sync per epoch", &self.raw_one_sync, Target::Stated),
            ("… with one value per batch", &self.raw_per_batch, Target::Stated),
        ] {
            table.paired(name, node, rate(raw), against(raw), "events/s", target);
        }
        let per_core = rate(&self.processor);
        table.figure(
            "produce per core-second, client included",
            per_core,
            "events/s",
            Target::Stated,
        );
        table.note(format!("processor time of a round by thread: {}", self.threads));
        let epochs = median(self.batches_per_epoch.clone());
        table.figure("batches per epoch", epochs, "batches", Target::Stated);
    }
}

async fn run(scale: Scale) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let catalog = workload::payments_catalog(false)?;
    let node = kit::node::start(&folder.path().join("node"), &catalog).await?;
    let client = node.client().await?;
    let mut raw = Raw::open(folder.path())?;
    let mut table = Table::new("produce: durable, over Flight", scale);
    let batches_per_round = scale.size(150, 3);
    let (mut rounds, mut latencies, mut number) = (Rounds::default(), Latencies::new()?, 0);
    let mut make = |count: u64| -> Result<Vec<RecordBatch>> {
        let first = number;
        number += count * EVENTS_PER_BATCH;
        let time = |n: u64| START_US + n * 100;
        let starts = (first..number).step_by(EVENTS_PER_BATCH as usize);
        starts.map(|first| workload::payments(first, EVENTS_PER_BATCH, CARDS, time)).collect()
    };
    let mut sequence = 0;
    for round in 0..scale.size(7, 2) {
        let batches = make(batches_per_round)?;
        let rows: Vec<Vec<Vec<u8>>> = batches.iter().map(bytes_of).collect::<Result<_>>()?;
        let mut unused = Latencies::new()?;
        let warm = round == 0;
        let kept = if warm { &mut unused } else { &mut latencies };
        let produced = produce(&client, &batches, sequence, kept).await?;
        sequence += batches_per_round * EVENTS_PER_BATCH;
        let two = raw.write(&rows, &produced.groups, Shape::PerEvent, true)?;
        let one = raw.write(&rows, &produced.groups, Shape::PerEvent, false)?;
        let coarse = raw.write(&rows, &produced.groups, Shape::PerBatch, true)?;
        if !warm {
            rounds.node.push(produced.seconds);
            rounds.processor.push(produced.processor_seconds);
            rounds.raw.push(two);
            rounds.raw_one_sync.push(one);
            rounds.raw_per_batch.push(coarse);
            let epochs = produced.groups.len() as f64;
            rounds.batches_per_epoch.push(batches_per_round as f64 / epochs);
            rounds.threads = produced.threads;
        }
    }
    rounds.report(&mut table, (batches_per_round * EVENTS_PER_BATCH) as f64);
    let alone = one_by_one(&client, &make(scale.size(100, 2))?, sequence).await?;
    let sync = syncs(folder.path(), scale.size(100, 2))?;
    for (name, latencies) in [("64 batches under way", &latencies), ("one at a time", &alone)] {
        for (quantile, at) in [("p50", 0.5), ("p99", 0.99)] {
            let name = format!("acknowledgement {quantile}, {name}, against one sync");
            table.ratio(&name, latencies.at(at), sync.at(at), "s", Target::Stated);
        }
    }
    table.note(format!(
        "limit: one write and two syncs per epoch; a sync of 8 bytes takes {:.2} ms (p50), so that \
         an epoch of one batch takes at least {:.2} ms",
        sync.at(0.5) * 1e3,
        sync.at(0.5) * 2e3
    ));
    table.print();
    drop(client);
    node.stop().await
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(Scale::from_environment()))
}
