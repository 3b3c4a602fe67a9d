//! The log on a cluster against the log in the data directory: appends and end-to-end freshness, one
//! after the other in one run.
//!
//! Measured, for each log, on a node without doors: the greatest rate at which payments are
//! acknowledged, in batches of 1,000, eight of them under way; how long one batch of 200 waits for its
//! acknowledgement when nothing else is under way; from handing that batch over to its rows being
//! readable through a view of 10 features; and how much processor time the node and the programs of the
//! cluster used for the appends, which tells what saturates first. The embedded log fsyncs, a cluster
//! does not: the comparison is of what each promises.
//!
//! What saturates first is the processor of the node: it spends ten times what the SPU spends on an
//! event (encoding, sealing, hashing and the views; see the figures in CHANGELOG.md).
//!
//! `tools/fluvio start`, then `FALAJ_FLUVIO=127.0.0.1:9003 cargo bench -p falaj-benches --bench cluster`.
//! Needs a cluster on this machine, whose controller FALAJ_FLUVIO names. Not measured: replicas, a
//! network between node and cluster.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use falaj_event::{Op, ProducerId};
use falaj_log::{Ack, ClockMode, Ops, Origin, Submission, SubmitError};
use falaj_node::core::{Core, CoreOptions};
use falaj_node::place::{ClusterPlace, LogPlace};
use falaj_node::pump::wall_clock_us;
use harness::Scale;
use harness::measure::{Latencies, processor_time};
use harness::report::{Table, Target};
use harness::workload;

const CARDS: u64 = 10_000;
const LARGE: u64 = 1_000;
const SMALL: u64 = 200;
const UNDER_WAY: usize = 8;
const WAIT: Duration = Duration::from_secs(120);

/// What one log did.
struct Outcome {
    events_per_second: f64,
    node_us_per_event: f64,
    cluster_us_per_event: f64,
    acknowledged: Latencies,
    readable: Latencies,
}

struct Producer<'a> {
    core: &'a Core,
    next: u64,
}

impl Producer<'_> {
    fn send(&mut self, rows: u64) -> Result<Receiver<Result<Ack, SubmitError>>> {
        let topic = self.core.catalog.topics.get("payments").context("payments is declared")?;
        let now = wall_clock_us();
        let batch = workload::payments(self.next, rows, CARDS, |_| now)?;
        let (send, receive) = channel();
        self.core.sequencer.submit(Submission {
            schema: std::sync::Arc::clone(&topic.schema),
            origin: Origin::Producer {
                producer: ProducerId::from_name("bench"),
                first_sequence: self.next,
                sequences: u32::try_from(rows)?,
            },
            ops: Ops::All(Op::Insert),
            batch,
            positions: None,
            rejected: None,
            reply: Box::new(move |outcome| {
                // The receiver waits for it.
                let _ = send.send(outcome);
            }),
        });
        self.next += rows;
        Ok(receive)
    }

    /// Appends as fast as it is acknowledged; events per second.
    fn fast(&mut self, batches: u64) -> Result<f64> {
        let mut waiting = VecDeque::new();
        let started = Instant::now();
        for _ in 0..batches {
            if waiting.len() == UNDER_WAY {
                settle(waiting.pop_front(), LARGE)?;
            }
            waiting.push_back(self.send(LARGE)?);
        }
        while let Some(oldest) = waiting.pop_front() {
            settle(Some(oldest), LARGE)?;
        }
        Ok((batches * LARGE) as f64 / started.elapsed().as_secs_f64())
    }
}

fn settle(waiting: Option<Receiver<Result<Ack, SubmitError>>>, rows: u64) -> Result<Ack> {
    let ack = waiting.context("nothing is under way")?.recv()??;
    ensure!(u64::from(ack.accepted) == rows, "{} of {rows} were accepted", ack.accepted);
    Ok(ack)
}

/// Processor time of the cluster's programs on this machine.
fn cluster_time() -> Duration {
    let mut ticks = 0;
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some((name, rest)) = stat.split_once(") ") else { continue };
        if name.ends_with("(fluvio-run") {
            let fields: Vec<u64> =
                rest.split(' ').skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
            ticks += fields.iter().sum::<u64>();
        }
    }
    // A tick is a hundredth of a second on Linux.
    Duration::from_millis(ticks * 10)
}

fn measure(log: LogPlace, scale: Scale) -> Result<Outcome> {
    let folder = tempfile::tempdir()?;
    let mut options = CoreOptions::new(folder.path(), ClockMode::Wall);
    options.log = Some(log);
    let core = Core::open(options, workload::payments_catalog(true)?)?;
    let mut producer = Producer { core: &core, next: 0 };
    producer.fast(scale.size(100, 2))?;
    let batches = scale.size(600, 4);
    let (node, cluster) = (processor_time()?, cluster_time());
    let events_per_second = producer.fast(batches)?;
    let per_event = |spent: Duration| spent.as_secs_f64() * 1e6 / (batches * LARGE) as f64;
    let node_us_per_event = per_event(processor_time()? - node);
    let cluster_us_per_event = per_event(cluster_time().saturating_sub(cluster));

    let (mut acknowledged, mut readable) = (Latencies::new()?, Latencies::new()?);
    for _ in 0..scale.size(400, 3) {
        std::thread::sleep(Duration::from_millis(5));
        let started = Instant::now();
        let ack = settle(Some(producer.send(SMALL)?), SMALL)?;
        acknowledged.record(started.elapsed());
        core.store.wait_for(ack.t, Instant::now() + WAIT)?;
        readable.record(started.elapsed());
    }
    core.close()?;
    Ok(Outcome {
        events_per_second,
        node_us_per_event,
        cluster_us_per_event,
        acknowledged,
        readable,
    })
}

fn main() -> Result<()> {
    let Ok(controller) = std::env::var("FALAJ_FLUVIO") else {
        println!("skipped: FALAJ_FLUVIO does not name a cluster's controller");
        return Ok(());
    };
    let scale = Scale::from_environment();
    let deployment = format!("bench-{:x}", std::process::id());
    let place = ClusterPlace { controller, deployment, replication: 1, tls: None };
    let embedded = measure(LogPlace::Embedded, scale)?;
    let cluster = measure(LogPlace::Fluvio(place), scale)?;

    let mut table = Table::new("the log: on a cluster, against embedded", scale);
    let rates = (cluster.events_per_second, embedded.events_per_second);
    table.ratio("appended and acknowledged", rates.0, rates.1, "events/s", Target::Stated);
    for (quantile, at) in [("p50", 0.5), ("p99", 0.99)] {
        let (mine, theirs) = (cluster.acknowledged.at(at), embedded.acknowledged.at(at));
        let name = format!("200 events until acknowledged, {quantile}");
        table.ratio(&name, mine, theirs, "s", Target::Stated);
        let (mine, theirs) = (cluster.readable.at(at), embedded.readable.at(at));
        let name = format!("200 events until readable as features, {quantile}");
        table.ratio(&name, mine, theirs, "s", Target::Stated);
    }
    let spent = (cluster.node_us_per_event, embedded.node_us_per_event);
    table.ratio(
        "processor time of the node, views included",
        spent.0,
        spent.1,
        "µs/event",
        Target::Stated,
    );
    let of_cluster = cluster.cluster_us_per_event;
    table.figure("processor time of the cluster", of_cluster, "µs/event", Target::Stated);
    table.note("the embedded log fsyncs each epoch; the SPU acknowledges what its system has");
    table.print();
    Ok(())
}
