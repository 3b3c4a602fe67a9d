//! Recovery: a node that was killed, and a state that was deleted.
//!
//! Measured, each in a process of its own: a node is filled over Flight (epochs of 1,000 events) and
//! killed (SIGKILL) right after the last acknowledgement; it is opened again, and the time from the process's start until the
//! views have caught up with the log is taken, per million events in the log, with the events that
//! had to be replayed; then `state/` is removed and rebuilt from the log. Peak memory is the greatest
//! resident size of the process (VmHWM). The baseline is reading and decoding the same log without an
//! engine behind it.
//!
//! Limit: of a reopen, what was not yet flushed of the state (the view store has no write-ahead log, so
//! at most its memtables) and the log's write-ahead files; of a rebuild, one pass over the log
//! (decryption, decompression) and then the same computation and writes as when the events came.
//!
//! Not measured: the machine's crash (the page cache survives a killed process), cold disks.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use falaj_gateway::wire::ProduceOptions;
use falaj_log::{ClockMode, ReadOptions};
use falaj_node::core::{Core, CoreOptions};
use falaj_node::pump::source_topics;
use harness::Scale;
use harness::measure::peak_resident_bytes;
use harness::report::{Table, Target};
use harness::workload::{self, START_US};
use serde_json::{Value as Json, json};

/// What a process of this bench is to do; absent in the one that was started by hand.
const ROLE: &str = "FALAJ_BENCH_ROLE";
const HOME: &str = "FALAJ_BENCH_HOME";
const EVENTS: &str = "FALAJ_BENCH_EVENTS";

const CARDS: u64 = 100_000;
const EVENTS_PER_BATCH: u64 = 1_000;
const READY: &str = "acknowledged";
const WAIT: Duration = Duration::from_secs(1_800);

/// Fills the node, says so, and waits to be killed.
async fn fill(home: &Path, events: u64) -> Result<()> {
    let catalog = workload::payments_catalog(true)?;
    let node = kit::node::start(home, &catalog).await?;
    let client = node.client().await?;
    let time = |number: u64| START_US + number * 1_000;
    let schema = workload::payments(0, 1, CARDS, time)?.schema();
    let mut stream = client.producer("payments", &schema).await?;
    for first in (0..events).step_by(EVENTS_PER_BATCH as usize) {
        let batch = workload::payments(first, EVENTS_PER_BATCH, CARDS, time)?;
        let ack = stream.send_and_wait(&batch, &ProduceOptions::default()).await?;
        ensure!(ack.accepted == EVENTS_PER_BATCH, "not all was accepted: {ack:?}");
    }
    println!("{READY}");
    tokio::time::sleep(WAIT).await;
    bail!("nobody killed this process")
}

fn open(home: &Path, until: Option<u64>) -> Result<Core> {
    let mut options = CoreOptions::new(home, ClockMode::Event);
    options.pump.until = until;
    Core::open(options, workload::payments_catalog(true)?)
}

/// Opens and waits until the views are where the log is.
fn catch_up(home: &Path) -> Result<Json> {
    let started = Instant::now();
    let core = open(home, None)?;
    let opened = started.elapsed().as_secs_f64();
    let tail = core.log.tail().context("the log is empty")?.record.t;
    core.store.wait_for(tail, Instant::now() + WAIT)?;
    let caught_up = started.elapsed().as_secs_f64();
    let replayed = core.with_pump(|pump| pump.map_or(0, |pump| pump.state().events()));
    let said = json!({
        "opened": opened,
        "seconds": caught_up,
        "events": replayed,
        "peak": peak_resident_bytes()?,
    });
    core.close()?;
    Ok(said)
}

/// Reads and decodes what the views read, and does nothing with it.
fn scan(home: &Path) -> Result<Json> {
    let core = open(home, Some(0))?;
    let topics = source_topics(&core.catalog.views).into_iter().collect();
    let reader =
        core.reader.with_options(ReadOptions { topics: Some(topics), ..ReadOptions::default() });
    let last = core.log.tail().context("the log is empty")?.record.epoch;
    let started = Instant::now();
    let mut events = 0;
    for epoch in 0..=last {
        let read = reader.epoch(epoch)?.context("an epoch is missing")?;
        events += read.topics.iter().map(|part| part.batch.num_rows()).sum::<usize>();
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(json!({ "seconds": seconds, "events": events, "peak": peak_resident_bytes()? }))
}

fn child(role: &str) -> Result<()> {
    let home = std::env::var_os(HOME).context("no home was given")?;
    let home = Path::new(&home);
    let said = match role {
        "fill" => {
            let events = std::env::var(EVENTS)?.parse()?;
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            return runtime.block_on(fill(home, events));
        }
        "open" => catch_up(home)?,
        "scan" => scan(home)?,
        other => bail!("no such role: {other}"),
    };
    println!("{said}");
    Ok(())
}

fn spawn(role: &str, home: &Path, events: u64) -> Result<Child> {
    Command::new(std::env::current_exe()?)
        .env(ROLE, role)
        .env(HOME, home)
        .env(EVENTS, events.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting a process of this bench")
}

/// Runs a role to its end and gives what it said.
fn run(role: &str, home: &Path) -> Result<Json> {
    let output = spawn(role, home, 0)?.wait_with_output()?;
    ensure!(output.status.success(), "{role} ended with {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    let last = text.lines().last().with_context(|| format!("{role} said nothing"))?;
    Ok(serde_json::from_str(last)?)
}

/// Fills a node and kills it as soon as everything is acknowledged.
fn fill_and_kill(home: &Path, events: u64) -> Result<()> {
    let mut process = spawn("fill", home, events)?;
    let mut line = String::new();
    let out = process.stdout.take().context("the process has no output")?;
    BufReader::new(out).read_line(&mut line)?;
    process.kill()?;
    process.wait()?;
    ensure!(line.trim() == READY, "the node was not filled");
    Ok(())
}

fn number(said: &Json, name: &str) -> Result<f64> {
    said[name].as_f64().with_context(|| format!("{name} is missing in {said}"))
}

fn main() -> Result<()> {
    if let Ok(role) = std::env::var(ROLE) {
        return child(&role);
    }
    let scale = Scale::from_environment();
    let events = scale.size(1_000_000, 2_000);
    let millions = events as f64 / 1e6;
    let folder = tempfile::tempdir()?;
    let home = folder.path().join("node");
    let mut table = Table::new("recovery: killed, reopened, rebuilt", scale);
    fill_and_kill(&home, events)?;
    let reopened = run("open", &home)?;
    let scanned = run("scan", &home)?;
    let whole = number(&scanned, "events")?;
    ensure!(whole == events as f64, "{whole} of {events} acknowledged events are in the log");
    std::fs::remove_dir_all(home.join("state"))?;
    let rebuilt = run("open", &home)?;
    ensure!(number(&rebuilt, "events")? == whole, "the rebuild did not read the whole log");

    let per_million =
        |said: &Json, name: &str| Ok::<f64, anyhow::Error>(number(said, name)? / millions);
    let scan_seconds = per_million(&scanned, "seconds")?;
    let seconds = "s per million events";
    for (name, figure) in [
        ("reopen and catch up, against a scan of the log", per_million(&reopened, "seconds")?),
        ("… of this, until the node is open", per_million(&reopened, "opened")?),
        ("rebuild of state/, against a scan of the log", per_million(&rebuilt, "seconds")?),
    ] {
        table.ratio(name, figure, scan_seconds, seconds, Target::Stated);
    }
    let rate = |said: &Json| Ok::<f64, anyhow::Error>(whole / number(said, "seconds")?);
    table.ratio(
        "rebuild of state/, rate",
        rate(&rebuilt)?,
        rate(&scanned)?,
        "events/s",
        Target::Stated,
    );
    let replayed = number(&reopened, "events")?;
    table.ratio("replayed at the reopen, of all", replayed, whole, "events", Target::Stated);
    let scan_peak = number(&scanned, "peak")?;
    for (name, said) in [("reopen, peak memory", &reopened), ("rebuild, peak memory", &rebuilt)] {
        table.ratio(name, number(said, "peak")?, scan_peak, "MiB", Target::Stated);
    }
    table.note(format!("{events} events of {CARDS} cards, 10 features over 2 windows"));
    table.note(
        "limit: a reopen replays what the view store had not flushed; a rebuild is one pass over the \
         log and the same computation and writes as when the events came",
    );
    table.print();
    Ok(())
}
