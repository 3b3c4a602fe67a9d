//! Feature maintenance: count, sum, avg, min and max over 5 minutes, 1 hour and 24 hours (hops of 10
//! seconds, 2 minutes, 1 hour) for 100,000 keys.
//!
//! Measured: processor time (all threads, `/proc/self/task/*/schedstat`) from an epoch of 1,000 decoded
//! events to its row changes, for the engine alone and with the view store's writes (rows, history, a
//! checkpoint of operator state every half million events, flushes and compactions), after a warm-up that fills
//! all windows, so that events leave as fast as they come. Latency is the wall time of one epoch, in
//! the process's own pace, submitted and taken one by one; hop boundaries are among them, the hourly
//! ones too; beside it stands the processor time that the epoch's own threads took for it, which other
//! work on the machine cannot distort. The baseline is the same computation written by hand
//! ([`harness::by_hand`]), with the same rows put out in the same bytes; what both compute is compared
//! byte for byte, for all keys.
//!
//! The engine puts a row out when an event comes, with what time will make of it; by hand a row is put
//! out whenever it changes.
//!
//! Limit: memory. An event touches three tiles and the totals of a key that is not in any cache, and
//! every row is written three times: into a memtable for the newest value, into one for the history,
//! and into table files; by hand, the first of these is all there is.
//!
//! Not measured: the log, decoding, joins, late events, more than one worker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use falaj_dataflow::{Engine, EpochInput, Options, TopicInput};
use falaj_definitions::plan::ViewPlan;
use falaj_event::{EpochChanges, LogTime, Op, StateChange, TopicSchema, ViewId};
use falaj_node::core::{plan_set_hash, view_metas};
use falaj_node::pump::{PumpOptions, Rhythm};
use falaj_views::ViewStore;
use harness::Scale;
use harness::by_hand::{ByHand, Row};
use harness::measure::{
    Latencies, Stopwatch, parts, processor_time, processor_time_by_thread, resident_bytes,
};
use harness::report::{Table, Target};
use harness::workload::{self, START_US};

const EVENTS_PER_EPOCH: u64 = 1_000;
/// The warm-up must fill the longest window, hop included.
const WARM_US: u64 = 25 * 3_600_000_000;

/// Epochs from one checkpoint to the next, as in a node.
fn checkpoint_every() -> u64 {
    PumpOptions::default().checkpoint_work / (EVENTS_PER_EPOCH + Rhythm::PER_EPOCH)
}

/// What is fed.
struct Load {
    topic: Arc<TopicSchema>,
    plan: Arc<ViewPlan>,
    meters: u64,
    warm_epochs: u64,
    measured_epochs: u64,
}

impl Load {
    fn new(scale: Scale) -> Result<Self> {
        let (topic, plan) = workload::meter_plan()?;
        let meters = scale.size(100_000, 200);
        Ok(Self {
            topic,
            plan,
            meters,
            warm_epochs: (18 * meters).div_ceil(EVENTS_PER_EPOCH),
            // At full scale, two checkpoints are among them, and some compactions of each kind.
            measured_epochs: scale.size(2 * checkpoint_every(), 2),
        })
    }

    fn batch(&self, epoch: u64) -> Result<RecordBatch> {
        let first = epoch * EVENTS_PER_EPOCH;
        let spacing_us = WARM_US / (self.warm_epochs * EVENTS_PER_EPOCH);
        workload::readings(&self.topic, first, EVENTS_PER_EPOCH, self.meters, spacing_us)
    }

    fn input(&self, epoch: u64) -> Result<EpochInput> {
        let batch = self.batch(epoch)?;
        let topic = TopicInput {
            topic: Arc::clone(&self.topic),
            partition: 0,
            first_offset: epoch * EVENTS_PER_EPOCH,
            ops: vec![Op::Insert; batch.num_rows()],
            batch,
        };
        let t = t_of(&topic.batch);
        Ok(EpochInput { epoch, t: LogTime(t), topics: vec![topic] })
    }

    fn measured(&self) -> std::ops::Range<u64> {
        self.warm_epochs..self.warm_epochs + self.measured_epochs
    }

    fn events(&self) -> f64 {
        (self.measured_epochs * EVENTS_PER_EPOCH) as f64
    }
}

fn t_of(batch: &RecordBatch) -> u64 {
    let times = batch.column(1).as_primitive::<TimestampMicrosecondType>().values();
    times.last().map_or(START_US, |time| time.cast_unsigned())
}

/// What one way of doing it cost.
struct Cost {
    seconds_per_event: f64,
    /// The same in epochs without a checkpoint, of the threads that an epoch waits for.
    between_checkpoints: f64,
    rows_per_event: f64,
    /// Wall time per epoch.
    epochs: Latencies,
    /// Processor time per epoch, of the threads that it waits for.
    worked: Latencies,
    /// Of `epochs`, the ones with a checkpoint.
    checkpoints: Latencies,
    checkpoint_bytes: usize,
    /// Which threads the time went to.
    threads: String,
    last: Rows,
}

/// Runs the engine, with writes where there is a store.
fn engine(load: &Load, store: Option<&ViewStore>, memory: &mut Option<f64>) -> Result<Cost> {
    let resident = resident_bytes()?;
    let engine = Engine::start(Options {
        workers: 1,
        checkpoint_every: checkpoint_every(),
        max_epochs_in_flight: 8,
        plans: vec![Arc::clone(&load.plan)],
        resume: None,
    })?;
    let take = || -> Result<EpochChanges> {
        let changes = engine.take(Duration::from_secs(120))?.context("an epoch takes too long")?;
        if let Some(store) = store {
            store.apply(&changes)?;
        }
        Ok(changes)
    };
    for epoch in 0..load.warm_epochs {
        engine.submit(load.input(epoch)?)?;
        if epoch >= 4 {
            take()?;
        }
    }
    (0..load.warm_epochs.min(4)).try_for_each(|_| take().map(|_| ()))?;
    let grown = resident_bytes()?.saturating_sub(resident);
    memory.get_or_insert(grown as f64 / load.meters as f64);

    let inputs = load.measured().map(|epoch| load.input(epoch)).collect::<Result<Vec<_>>>()?;
    let (mut epochs, mut checkpoints) = (Latencies::new()?, Latencies::new()?);
    let (mut rows, mut last, mut checkpoint_bytes) = (0, None, 0);
    let mut worked = Latencies::new()?;
    let (mut between, mut without) = (Duration::ZERO, 0);
    // Flushes and compactions have threads of their own, which no epoch waits for.
    let mut foreground = Stopwatch::of_threads(|name| !name.starts_with("rocksdb"))?;
    let before = processor_time_by_thread()?;
    for input in inputs {
        let started = Instant::now();
        engine.submit(input)?;
        let changes = take()?;
        epochs.record(started.elapsed());
        let lap = foreground.lap()?;
        worked.record(lap);
        if let Some(entries) = &changes.checkpoint {
            checkpoints.record(started.elapsed());
            let bytes =
                |entry: &StateChange| entry.key.len() + entry.value.as_ref().map_or(0, Vec::len);
            checkpoint_bytes += entries.iter().map(bytes).sum::<usize>();
        } else {
            (between, without) = (between + lap, without + EVENTS_PER_EPOCH);
        }
        rows += changes.rows.len();
        last = Some(changes);
    }
    if let Some(store) = store {
        store.flush()?;
    }
    let after = processor_time_by_thread()?;
    let spent = after.values().sum::<Duration>().saturating_sub(before.values().sum());
    engine.stop()?;
    Ok(Cost {
        seconds_per_event: spent.as_secs_f64() / load.events(),
        between_checkpoints: between.as_secs_f64() / without as f64,
        rows_per_event: rows as f64 / load.events(),
        epochs,
        worked,
        checkpoints,
        checkpoint_bytes,
        threads: parts(&before, &after),
        last: rows_of(last.context("no epoch")?)?,
    })
}

/// Meter, latest event time and encoded columns of each changed row.
type Rows = Vec<(i64, i64, Vec<u8>)>;

fn meter_of(key: &[u8]) -> Result<i64> {
    match falaj_event::encoding::decode_value(key)? {
        (falaj_event::Value::Int(meter), _) => Ok(meter),
        _ => anyhow::bail!("a key is no integer"),
    }
}

fn rows_of(changes: EpochChanges) -> Result<Rows> {
    let row = |change: falaj_event::RowChange| {
        let row = change.row.context("a meter lost its row")?;
        Ok((meter_of(&change.key)?, row.latest_event_time, row.columns))
    };
    changes.rows.into_iter().map(row).collect()
}

/// All rows that the store has at its newest `T`.
fn stored_rows(store: &ViewStore, view: ViewId) -> Result<Rows> {
    let mut rows = Vec::new();
    store.snapshot()?.scan_with(view, None, None, usize::MAX, |key, row| {
        rows.push((key.to_vec(), row.latest_event_time, row.columns.to_vec()));
    })?;
    let row = |(key, time, columns): (Vec<u8>, i64, Vec<u8>)| Ok((meter_of(&key)?, time, columns));
    rows.into_iter().map(row).collect()
}

/// The same by hand; `finish` is what is done with a changed row.
fn by_hand<Out>(load: &Load, finish: impl Fn(&Row) -> Out) -> Result<(Cost, ByHand)> {
    let mut state = ByHand::default();
    let mut step = |batch: &RecordBatch| {
        let meters = batch.column(0).as_primitive::<Int64Type>().values();
        let times = batch.column(1).as_primitive::<TimestampMicrosecondType>().values();
        let values = batch.column(2).as_primitive::<Int64Type>().values();
        let rows = state.epoch(t_of(batch), meters, times, values);
        std::hint::black_box(rows.iter().map(&finish).collect::<Vec<_>>());
        rows.len()
    };
    for epoch in 0..load.warm_epochs {
        step(&load.batch(epoch)?);
    }
    let batches = load.measured().map(|epoch| load.batch(epoch)).collect::<Result<Vec<_>>>()?;
    let (mut epochs, mut worked, mut rows) = (Latencies::new()?, Latencies::new()?, 0);
    let mut foreground = Stopwatch::of_threads(|name| !name.starts_with("rocksdb"))?;
    let before = processor_time()?;
    for batch in &batches {
        let started = Instant::now();
        rows += step(batch);
        epochs.record(started.elapsed());
        worked.record(foreground.lap()?);
    }
    let spent = (processor_time()? - before).as_secs_f64();
    let cost = Cost {
        seconds_per_event: spent / load.events(),
        between_checkpoints: spent / load.events(),
        rows_per_event: rows as f64 / load.events(),
        epochs,
        worked,
        checkpoints: Latencies::new()?,
        checkpoint_bytes: 0,
        threads: String::new(),
        last: Vec::new(),
    };
    Ok((cost, state))
}

/// Both computed the same.
fn check(rows: &Rows, by_hand: &ByHand) -> Result<()> {
    ensure!(!rows.is_empty(), "there is nothing to compare");
    for (meter, latest_event_time, columns) in rows {
        let row = by_hand.row(*meter).with_context(|| format!("meter {meter} is unknown"))?;
        let expected = ByHand::encoded(&row);
        ensure!(*columns == expected, "meter {meter}: {columns:?} and by hand {expected:?}");
        ensure!(*latest_event_time == row.latest_event_time, "meter {meter}: its latest event");
    }
    Ok(())
}

fn latencies(table: &mut Table, name: &str, cost: &Cost, by_hand: &Cost, p99: Target) {
    for (kind, own, base, p99) in [
        ("processor time", &cost.worked, &by_hand.worked, p99),
        ("wall time", &cost.epochs, &by_hand.epochs, Target::Stated),
    ] {
        for (quantile, at, target) in [("p50", 0.5, Target::Stated), ("p99", 0.99, p99)] {
            let name = format!("epoch of 1,000, {name}, {kind}, {quantile}");
            table.ratio(&name, own.at(at), base.at(at), "s", target);
        }
        let name = format!("epoch of 1,000, {name}, {kind}, longest");
        table.ratio(&name, own.longest(), base.longest(), "s", Target::Stated);
    }
}

fn main() -> Result<()> {
    let scale = Scale::from_environment();
    let load = Load::new(scale)?;
    let mut table = Table::new("maintenance: 5 aggregates over 3 windows", scale);
    let mut memory = None;
    let alone = engine(&load, None, &mut memory)?;

    let folder = tempfile::tempdir()?;
    let plans = [Arc::clone(&load.plan)];
    let (store, _) = ViewStore::open_or_reset(
        folder.path(),
        &falaj_views::Options::default(),
        &view_metas(&plans),
        plan_set_hash(&plans),
    )?;
    let mut with_store_memory = None;
    let written = engine(&load, Some(&store), &mut with_store_memory)?;
    let size = store.view_size(load.plan.id, 16)?;
    let disk: u64 = store.sizes()?.families.iter().map(|family| family.disk_bytes).sum();
    let stored = stored_rows(&store, load.plan.id)?;
    drop(store);

    let (bare, state) = by_hand(&load, |row| *row)?;
    check(&alone.last, &state)?;
    check(&written.last, &state)?;
    check(&stored, &state)?;
    ensure!(stored.len() == state.meters(), "{} of {} meters", stored.len(), state.meters());
    drop((state, stored));
    let (encoding, _) = by_hand(&load, ByHand::change)?;

    let rate = |cost: &Cost| 1.0 / cost.seconds_per_event;
    let (own, base) = (1.0 / alone.between_checkpoints, 1.0 / encoding.between_checkpoints);
    let name = "engine between checkpoints, against by hand";
    table.ratio(name, own, base, "events/core-s", Target::AtLeast(0.5));
    let mut rates = |name: &str, cost: &Cost, base: &Cost, target| {
        table.ratio(name, rate(cost), rate(base), "events/core-s", target);
    };
    rates("engine, checkpoints included, against by hand", &alone, &encoding, Target::Stated);
    rates("engine, against by hand without the rows' bytes", &alone, &bare, Target::Stated);
    let first_step = Target::FigureAtLeast(100_000.0, "100,000 events/core-s");
    rates("engine and RocksDB writes, against by hand", &written, &encoding, first_step);
    rates("engine and RocksDB writes, against the engine", &written, &alone, Target::Stated);
    let (put_out, changes) = (alone.rows_per_event, encoding.rows_per_event);
    table.ratio("rows put out per event", put_out, changes, "rows", Target::Stated);
    latencies(&mut table, "engine", &alone, &encoding, Target::Stated);
    let p99 = Target::FigureAtMost(0.01, "10 ms");
    latencies(&mut table, "with writes", &written, &encoding, p99);
    let memory = memory.unwrap_or(f64::NAN);
    table.figure("memory per key, engine (resident)", memory, "bytes", Target::Stated);
    let history = size.history_bytes_per_key_day();
    table.figure("history per key per day, before compression", history, "bytes", Target::Stated);
    let newest = size.latest_bytes_per_key();
    table.figure("newest row per key, before compression", newest, "bytes", Target::Stated);
    let on_disk = disk as f64 / load.meters as f64;
    table.figure("table files per key, all of it", on_disk, "bytes", Target::Stated);
    table.note(format!(
        "{} keys, {} events per key and day; 1,000 events are {:.0} s of event time, so that every \
         epoch passes hop boundaries",
        load.meters,
        18 * 24 / 25,
        WARM_US as f64 / load.warm_epochs as f64 / 1e6
    ));
    for (name, cost) in [("alone", &alone), ("with writes", &written)] {
        table.note(format!(
            "{name}: processor time by thread: {}; {} checkpoints among the epochs, {:.1} MiB, the \
             longest {:.0} ms",
            cost.threads,
            cost.checkpoints.count(),
            cost.checkpoint_bytes as f64 / f64::from(1 << 20),
            cost.checkpoints.longest() * 1e3
        ));
    }
    table.note(
        "limit: three cache misses of state per event, and three copies of each changed row \
         (newest, history, table file)",
    );
    table.print();
    Ok(())
}
