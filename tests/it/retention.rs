//! Retention: old events are cut behind a baseline, and everything else is as if they were there.

use std::path::Path;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use falaj_definitions::catalog::Catalog;
use falaj_event::TopicId;
use falaj_gateway::Client;
use falaj_gateway::wire::{ProduceOptions, ReadTicket};
use falaj_log::Log;
use falaj_log_rocksdb::RocksLog;
use falaj_node::endpoint::DataDirectory;
use falaj_node::migrate::{compare, copy};
use falaj_node::place::LogPlace;
use falaj_node::pump::PumpOptions;
use falaj_node::serve::{Node, NodeOptions};
use serde_json::{Value as Json, json};

use crate::end_to_end::{TOPIC, VIEW, orders};

const DAY: i64 = 24 * 60;
const DAYS: i64 = 60;
const KEPT_DAYS: i64 = 10;

fn catalog(view: &str) -> Arc<Catalog> {
    let topic = TOPIC.replace("partitions = 3", "partitions = 3\nretention = \"10 days\"");
    kit::node::catalog(&[("orders.toml", &topic), ("customer_orders.sql", view)]).unwrap()
}

fn options(data: &Path) -> NodeOptions {
    let mut options = kit::node::options(data);
    options.core.pump = PumpOptions { checkpoint_work: 100, ..PumpOptions::default() };
    options
}

/// An open node with a client.
struct Bench {
    node: Node,
    client: Client,
}

impl Bench {
    async fn open(options: NodeOptions, catalog: &Arc<Catalog>) -> Self {
        let node = Node::start(options, Arc::clone(catalog)).await.unwrap();
        let client = node.client().await.unwrap();
        Self { node, client }
    }

    async fn ask(&self, action: &str, body: Json) -> Json {
        self.client.json_action(action, &body).await.unwrap()
    }

    /// The digest of all state once the views are level with the log.
    async fn digest(&self) -> Json {
        let core = self.node.core();
        let tail = core.log.tail().unwrap().record.t;
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        core.store.wait_for(tail, deadline).unwrap();
        self.ask("audit_state", Json::Null).await
    }

    async fn pay(&self, day: i64) -> u64 {
        let rows = [("a", day * DAY, 5), ("b", day * DAY + 3, day + 1)];
        let sequence = u64::try_from(day * 2).unwrap();
        let options = ProduceOptions {
            producer: Some("till".into()),
            sequence: Some(sequence),
            ..Default::default()
        };
        let acks = self.client.produce("orders", &[orders(&rows)], &options).await.unwrap();
        assert_eq!(acks[0].rejected_count, 0);
        acks[0].t.unwrap().0
    }

    async fn read(&self, ticket: &ReadTicket) -> Result<usize, String> {
        let batches = match self.client.read(ticket).await {
            Ok(stream) => stream.collect().await,
            Err(error) => Err(error),
        };
        let batches = batches.map_err(|error| error.to_string())?;
        Ok(batches.iter().map(RecordBatch::num_rows).sum())
    }

    async fn replay(&self, at: Option<u64>) -> Result<Json, String> {
        let key = falaj_event::encoding::encode_row(&[falaj_event::Value::String("a".into())]);
        let key = falaj_event::ids::hex(&key);
        let body = json!({ "view": "customer_orders", "key": key, "at": at });
        self.client.json_action("replay", &body).await.map_err(|error| error.to_string())
    }

    async fn close(self) {
        drop(self.client);
        self.node.stop().await.unwrap();
    }
}

/// A node whose topic keeps ten of sixty days; gives the `T` of the first and the last payment.
async fn sixty_days(options: NodeOptions) -> (Bench, u64, u64) {
    let bench = Bench::open(options, &catalog(VIEW)).await;
    let first = bench.pay(0).await;
    let mut last = first;
    for day in 1..DAYS {
        last = bench.pay(day).await;
    }
    bench.digest().await;
    (bench, first, last)
}

/// Why a node does not start.
async fn refused(data: &Path, view: &str) -> String {
    match Node::start(options(data), catalog(view)).await {
        Ok(_) => panic!("it must be refused"),
        Err(error) => format!("{error:#}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_lets_go_is_cut_behind_a_baseline() {
    let folder = tempfile::tempdir().unwrap();
    lets_go_behind_a_baseline(folder.path(), options(folder.path())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_on_a_cluster_lets_go_as_well() {
    let Some(place) = crate::fluvio::cluster("cut") else { return };
    let LogPlace::Fluvio(cluster) = place.clone() else { panic!("a cluster") };
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path());
    options.core.log = Some(place);
    lets_go_behind_a_baseline(folder.path(), options).await;

    // What was cut stays cut wherever the log goes.
    let data = DataDirectory(folder.path().to_owned());
    let source = falaj_node::place::open_cluster(&data, &cluster, &catalog(VIEW)).unwrap();
    let copied = RocksLog::open(&folder.path().join("copy"), Default::default()).unwrap();
    copy(&source, &copied, &mut |_, _| {}).unwrap();
    compare(&source, &copied, &mut |_, _| {}).unwrap();
    let orders = TopicId::of("orders");
    assert!(copied.first_kept(orders) > 0);
    assert_eq!(copied.first_kept(orders), source.first_kept(orders));
}

async fn lets_go_behind_a_baseline(data: &Path, options: NodeOptions) {
    let (bench, first, last) = sixty_days(options.clone()).await;
    let dry = bench.ask("compact", json!({ "dry_run": true })).await;
    assert_eq!(dry["due"][0]["topic"], "orders", "{dry}");
    assert_eq!(bench.read(&ReadTicket::topic("orders")).await, Ok(2 * DAYS as usize));

    let log = bench.ask("audit_log", Json::Null).await;
    let done = bench.ask("compact", json!({})).await;
    assert_eq!(done["cut"][0]["topic"], "orders", "{done}");
    let cut = done["cut"][0]["events"].as_u64().unwrap();
    assert!((80..=2 * (DAYS - KEPT_DAYS) as u64).contains(&cut), "{done}");
    let again = bench.ask("compact", json!({})).await;
    assert!(again["cut"].as_array().unwrap().iter().all(|due| due["events"].as_u64() < Some(20)));

    // The chain and what is left of it verify; the head of what was there before still leads to them.
    let after = bench.ask("audit_log", Json::Null).await;
    assert_eq!(after["verified"], true);
    assert!(after["events_cut"].as_u64() >= Some(cut));
    assert!(after["epochs"].as_u64() > log["epochs"].as_u64());
    let old = bench.node.core().log.entry(log["epochs"].as_u64().unwrap() - 1).unwrap().unwrap();
    assert_eq!(log["head"], old.record.hash().to_string());

    // Reading from the beginning says what is gone; from the first kept T on it reads.
    let refused = bench.read(&ReadTicket::topic("orders")).await.unwrap_err();
    assert!(refused.contains("retained"), "{refused}");
    let mut ticket = ReadTicket::topic("orders");
    ticket.from_t = Some(last - 5 * 86_400_000_000);
    assert!(bench.read(&ticket).await.unwrap() >= 10);

    // A retry of what was cut is answered as ever and appends nothing.
    assert_eq!(bench.pay(0).await, first);

    // Replays begin with the baseline, and what lies before it is refused.
    bench.pay(DAYS).await;
    let state = bench.digest().await;
    let replay = bench.replay(None).await.unwrap();
    assert_eq!(replay["verdict"], "EQUAL", "{replay}");
    assert!(replay["baseline"]["epoch"].is_u64(), "{replay}");
    assert_eq!(replay["recomputed"]["orders"], DAYS + 1, "{replay}");
    let refused = bench.replay(Some(first)).await.unwrap_err();
    assert!(refused.contains("cut from the log"), "{refused}");

    // A rebuild equals the state, entry for entry, and names the baseline that it trusts.
    let rebuilt = bench.ask("audit_rebuild", Json::Null).await;
    assert_eq!(rebuilt["equal"], true, "{rebuilt}");
    assert!(rebuilt["baseline"]["state_digest"].is_string(), "{rebuilt}");
    assert_eq!(rebuilt["present"]["digest"], state["digest"]);
    bench.close().await;

    // So does a node whose state was deleted.
    std::fs::remove_dir_all(data.join("state")).unwrap();
    let bench = Bench::open(options, &catalog(VIEW)).await;
    assert!(bench.node.core().rebuilding.as_ref().unwrap().contains("baseline of epoch"));
    assert_eq!(bench.digest().await["digest"], state["digest"]);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_baseline_that_fits_nothing_is_made_up() {
    let folder = tempfile::tempdir().unwrap();
    let (bench, ..) = sixty_days(options(folder.path())).await;
    bench.ask("compact", json!({})).await;
    let state = bench.digest().await;
    bench.close().await;
    // Other views cannot see what was cut; the state of the old ones is not touched.
    let wider = VIEW.replace("'1 hour'", "'2 hours'");
    let wider = wider.as_str();
    let text = refused(folder.path(), wider).await;
    assert!(text.contains("--accept-cut") && text.contains("plan set"), "{text}");
    let bench = Bench::open(options(folder.path()), &catalog(VIEW)).await;
    assert_eq!(bench.digest().await["digest"], state["digest"]);
    bench.close().await;

    // Unless that is accepted: then they hold what the kept events give.
    let mut accepting = options(folder.path());
    accepting.core.pump.skip_cut = true;
    let bench = Bench::open(accepting, &catalog(wider)).await;
    assert!(bench.node.core().rebuilding.as_ref().unwrap().contains("without the events"));
    bench.digest().await;
    let replay = bench.replay(None).await;
    assert!(replay.is_err_and(|text| text.contains("no baseline stands in")));
    // A baseline of the new views makes them whole again, and later starts need no consent.
    for day in DAYS..DAYS + 30 {
        bench.pay(day).await;
    }
    bench.digest().await;
    let done = bench.ask("compact", json!({})).await;
    assert!(done["baseline"]["epoch"].is_u64(), "{done}");
    let state = bench.digest().await;
    let rebuilt = bench.ask("audit_rebuild", Json::Null).await;
    assert_eq!(rebuilt["equal"], true, "{rebuilt}");
    bench.close().await;
    std::fs::remove_dir_all(folder.path().join("state")).unwrap();
    let bench = Bench::open(options(folder.path()), &catalog(wider)).await;
    assert_eq!(bench.digest().await["digest"], state["digest"]);
    bench.close().await;

    // A baseline whose bytes are not what the log commits to is not begun with.
    std::fs::remove_dir_all(folder.path().join("state")).unwrap();
    let baselines = folder.path().join("baselines");
    let baseline = std::fs::read_dir(&baselines).unwrap().next().unwrap().unwrap().path();
    let table = std::fs::read_dir(&baseline).unwrap().map(|file| file.unwrap().path());
    let table = table.filter(|file| file.extension().is_some_and(|it| it == "sst"));
    let table = table.max_by_key(|file| file.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&table).unwrap();
    bytes[20] ^= 1;
    std::fs::remove_file(&table).unwrap();
    std::fs::write(&table, bytes).unwrap();
    let text = refused(folder.path(), wider).await;
    assert!(text.contains("no baseline stands in") && text.contains("baselines/"), "{text}");
}
