//! The same through a whole node: produced over Flight, sequenced, sealed, read back from the log,
//! the node stopped and started on the way.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use falaj_definitions::catalog::Catalog;
use falaj_event::Op;
use falaj_gateway::Client;
use falaj_gateway::wire::ProduceOptions;
use falaj_node::core::Core;
use falaj_node::demo::rows::{TOPICS, batch, op_of, topic_of};
use falaj_node::demo::simulation::{Happening, Simulation, SimulationOptions};
use falaj_node::pump::PumpOptions;
use falaj_node::serve::{Node, NodeOptions};
use kit::check::equal;
use kit::oracle::SqlOracle;
use kit::state;

fn options(data: &Path) -> NodeOptions {
    let mut options = kit::node::options(data);
    options.core.pump = PumpOptions { checkpoint_work: 200, ..PumpOptions::default() };
    options
}

/// Runs of happenings of one topic and operation, in order of arrival, `most` in each.
fn batches(happenings: &[Happening], most: usize) -> Vec<&[Happening]> {
    let same = |a: &Happening, b: &Happening| topic_of(a) == topic_of(b) && op_of(a) == op_of(b);
    happenings.chunk_by(same).flat_map(|run| run.chunks(most)).collect()
}

/// Appends; returns how many rows were rejected.
async fn produce(client: &Client, catalog: &Catalog, batches: &[&[Happening]]) -> u64 {
    let mut rejected = 0;
    for happenings in batches {
        let name = TOPICS[topic_of(&happenings[0])];
        let op = op_of(&happenings[0]);
        let schema = catalog.topics.get(name).unwrap().schema.arrow_schema();
        let rows = batch(&schema, &happenings.iter().collect::<Vec<_>>()).unwrap();
        let options = ProduceOptions { op: (op != Op::Insert).then_some(op), ..Default::default() };
        for ack in client.produce(name, &[rows], &options).await.unwrap() {
            rejected += ack.rejected_count;
        }
    }
    rejected
}

/// Every retained view at some epochs, read from the store as of their `T`, against both oracles.
fn compare(core: &Core, every: u64) -> (u64, u64) {
    let topics: BTreeSet<_> =
        TOPICS.iter().map(|name| core.catalog.topics.get(name).unwrap().schema.id()).collect();
    let history = kit::logged::history(&core.reader, topics).unwrap();
    let sql = SqlOracle::new(&core.catalog, &history).unwrap();
    let last = history.epochs.len() as u64 - 1;
    let (mut rows, mut queries) = (0, 0);
    for epoch in history.epochs.iter().filter(|epoch| epoch.number % 4 == 0 || epoch.number == last)
    {
        let events = history.until(epoch.t);
        for view in &core.catalog.views {
            if core.store.snapshot().unwrap().oldest(view.id).unwrap() > epoch.t {
                continue;
            }
            let found = state::rows(&core.store, view.id, Some(epoch.t)).unwrap();
            let expected = kit::reference::rows(view, &events, epoch.t);
            equal(&found, &expected).unwrap_or_else(|error| {
                panic!("{} at epoch {}: {error:?}", view.name, epoch.number)
            });
            rows += found.len() as u64;
            if epoch.number % every == 0 {
                sql.check(view, epoch.t, &found).unwrap_or_else(|error| panic!("{error:?}"));
                queries += 1;
            }
        }
    }
    (rows, queries)
}

/// The state of this log, built by other workers and epochs in flight, is the node's, entry for entry.
fn rebuilt_with(core: &Core, workers: usize, epochs_in_flight: usize) {
    let last = core.log.tail().unwrap().record.epoch;
    core.with_views_at_rest(|| {
        let folder = tempfile::tempdir()?;
        let (store, _) = falaj_views::ViewStore::open_or_reset(
            folder.path(),
            &falaj_views::Options::default(),
            &falaj_node::core::view_metas(&core.catalog.views),
            falaj_node::core::plan_set_hash(&core.catalog.views),
        )?;
        let store = Arc::new(store);
        let until = Some(last);
        let options = PumpOptions { workers, epochs_in_flight, until, ..core.options.pump.clone() };
        let pump = core.new_pump(options, &store)?;
        pump.wait_done(|_| {})?;
        pump.stop()?;
        let comparison = core.store.compare(&store, 3)?;
        let first: Vec<String> = comparison.first.iter().map(ToString::to_string).collect();
        assert!(comparison.is_equal(), "{workers} workers: {first:#?}");
        assert_eq!(state::digest(&core.store)?.digest, state::digest(&store)?.digest);
        Ok(())
    })
    .unwrap();
}

async fn caught_up(node: &Node) {
    let t = node.core().log.tail().unwrap().record.t;
    let store = Arc::clone(&node.core().store);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    tokio::task::spawn_blocking(move || store.wait_for(t, deadline).map(drop))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_views_equal_their_oracles_and_its_log_has_one_state() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = kit::node::own_catalog().unwrap();
    let base = SimulationOptions::default();
    let simulation = SimulationOptions {
        seed: 3,
        payments: 700,
        days: 20,
        customers: 40,
        merchants: 12,
        ..base
    };
    let happenings = Simulation::new(simulation).happenings();
    let flawed = |h: &&Happening| matches!(h, Happening::Payment(p) if p.flaw.is_some());
    let flawed = happenings.iter().filter(flawed).count() as u64;
    let batches = batches(&happenings, 17);
    let mut rejected = 0;
    for part in batches.chunks(batches.len().div_ceil(3)) {
        let node = Node::start(options(folder.path()), Arc::clone(&catalog)).await.unwrap();
        let client = node.client().await.unwrap();
        rejected += produce(&client, &catalog, part).await;
        drop(client);
        node.stop().await.unwrap();
    }
    assert_eq!(rejected, flawed, "what is malformed, and nothing else, is rejected");

    let node = Node::start(options(folder.path()), Arc::clone(&catalog)).await.unwrap();
    caught_up(&node).await;
    let core = Arc::clone(node.core());
    let checked = tokio::task::spawn_blocking(move || {
        for (workers, in_flight) in [(1, 1), (2, 5), (2, 64)] {
            rebuilt_with(&core, workers, in_flight);
        }
        compare(&core, 20)
    });
    let (rows, queries) = checked.await.unwrap();
    println!("through a node: {rows} rows equal the reference, {queries} SQL results agree");
    assert!(rows > 500 && queries > 9, "{rows} rows, {queries} queries");
    node.stop().await.unwrap();
}
