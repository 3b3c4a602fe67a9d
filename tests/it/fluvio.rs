//! A node whose log is on a Fluvio cluster, and logs that move between a cluster and a data directory.
//! The cluster is the one whose controller `FALAJ_FLUVIO` names.

use std::path::Path;
use std::sync::Arc;

use falaj_gateway::wire::ProduceOptions;
use falaj_log::{Log, MemoryLog};
use falaj_log_rocksdb::RocksLog;
use falaj_node::cli::{Cli, ClusterArgs, Migrate, Verb};
use falaj_node::migrate::{compare, copy};
use falaj_node::place::{ClusterPlace, LogPlace};
use falaj_node::serve::Node;
use serde_json::{Value as Json, json};

use crate::end_to_end::{TOPIC, VIEW, orders};

/// A place on the cluster that no other test uses.
fn cluster(name: &str) -> Option<LogPlace> {
    let Ok(controller) = std::env::var("FALAJ_FLUVIO") else {
        println!("skipped: FALAJ_FLUVIO does not name a cluster's controller");
        return None;
    };
    let deployment = format!("{name}-{:x}", std::process::id());
    Some(LogPlace::Fluvio(ClusterPlace { controller, deployment, replication: 1, tls: None }))
}

/// Definitions as files.
fn definitions(folder: &Path) -> std::path::PathBuf {
    let folder = folder.join("definitions");
    for (name, text) in [("topics/orders.toml", TOPIC), ("dataflows/customer_orders.sql", VIEW)] {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

async fn start(folder: &Path, log: Option<LogPlace>) -> Node {
    let catalog = falaj_node::verbs::load(&definitions(folder)).unwrap();
    let mut options = kit::node::options(&folder.join("data"));
    options.core.log = log;
    Node::start(options, catalog).await.unwrap()
}

async fn produce(node: &Node, from: u64, count: u64) {
    let client = node.client().await.unwrap();
    let mut t = None;
    for sequence in from..from + count {
        let customer = ["ali", "noor", "sara"][sequence as usize % 3];
        let batch = orders(&[(customer, sequence as i64, 7), ("all", sequence as i64, 9)]);
        let options = ProduceOptions {
            producer: Some("till".into()),
            sequence: Some(sequence * 2),
            ..Default::default()
        };
        let told = client.produce("orders", &[batch], &options).await.unwrap();
        assert_eq!(told[0].accepted, 2);
        t = told[0].t;
    }
    let t = t.unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while node.core().store.progress().rows.is_none_or(|progress| progress.t < t) {
        assert!(std::time::Instant::now() < deadline, "the views do not follow");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// The digest of the state, the head of the verified log, and whether a rebuild gives the same state.
async fn audit(node: &Node) -> (Json, Json) {
    let client = node.client().await.unwrap();
    let state: Json = client.json_action("audit_state", &Json::Null).await.unwrap();
    let log: Json = client.json_action("audit_log", &Json::Null).await.unwrap();
    let rebuilt: Json = client.json_action("audit_rebuild", &Json::Null).await.unwrap();
    assert_eq!(log["verified"], json!(true));
    assert_eq!(rebuilt["equal"], json!(true), "{rebuilt}");
    (state["digest"].clone(), json!([log["epochs"], log["events"], log["head"]]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_runs_on_a_cluster() {
    let Some(place) = cluster("node") else { return };
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), Some(place.clone())).await;
    produce(&node, 0, 30).await;
    let before = audit(&node).await;
    node.stop().await.unwrap();

    // The directory remembers where its log is.
    let node = start(folder.path(), None).await;
    assert_eq!(audit(&node).await, before);
    produce(&node, 30, 5).await;
    node.stop().await.unwrap();
    assert!(!folder.path().join("data/log").exists(), "nothing is kept in the directory");

    // The state is a view of the log: it can go.
    std::fs::remove_dir_all(folder.path().join("data/state")).unwrap();
    let node = start(folder.path(), Some(place)).await;
    produce(&node, 35, 1).await;
    audit(&node).await;
    node.stop().await.unwrap();
}

async fn migrate(folder: &Path, to: &LogPlace) -> anyhow::Result<()> {
    let options = Migrate {
        to: to.clone(),
        cluster: ClusterArgs::default(),
        data: folder.join("data"),
        definitions: folder.join("definitions"),
    };
    falaj_node::verbs::run(Cli { json: true, verb: Verb::Migrate(options) }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_moves_to_a_cluster_and_back() {
    let Some(place) = cluster("move") else { return };
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), None).await;
    produce(&node, 0, 20).await;
    let embedded = audit(&node).await;
    assert!(migrate(folder.path(), &place).await.unwrap_err().to_string().contains("running"));
    node.stop().await.unwrap();

    migrate(folder.path(), &place).await.unwrap();
    let node = start(folder.path(), None).await;
    let on_cluster = audit(&node).await;
    assert_eq!(on_cluster, embedded, "the same state, the same head");
    produce(&node, 20, 20).await;
    let grown = audit(&node).await;
    node.stop().await.unwrap();

    migrate(folder.path(), &LogPlace::Embedded).await.unwrap();
    let node = start(folder.path(), None).await;
    assert_eq!(audit(&node).await, grown);
    produce(&node, 40, 3).await;
    node.stop().await.unwrap();
    let said = migrate(folder.path(), &LogPlace::Embedded).await.unwrap_err().to_string();
    assert!(said.contains("already"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), None).await;
    produce(&node, 0, 10).await;
    node.stop().await.unwrap();
    let open = |name: &str| {
        RocksLog::open(&folder.path().join(name), falaj_log_rocksdb::Options::default()).unwrap()
    };
    let embedded = open("data/log");
    let memory = MemoryLog::new();
    let copied = copy(&embedded, &memory, &mut |_, _| {}).unwrap();
    assert_eq!((copied.epochs, copied.copied), (copied.epochs, copied.epochs));
    assert!(copied.epochs > 5 && copied.bytes > 1_000);
    compare(&embedded, &memory, &mut |_, _| {}).unwrap();

    let again = open("again");
    copy(&memory, &again, &mut |_, _| {}).unwrap();
    compare(&embedded, &again, &mut |_, _| {}).unwrap();
    // Nothing is left to copy the second time.
    assert_eq!(copy(&memory, &again, &mut |_, _| {}).unwrap().copied, 0);

    let other_folder = tempfile::tempdir().unwrap();
    let node = start(other_folder.path(), None).await;
    produce(&node, 0, 3).await;
    node.stop().await.unwrap();
    let other: Arc<dyn Log> = Arc::new(
        RocksLog::open(
            &other_folder.path().join("data/log"),
            falaj_log_rocksdb::Options::default(),
        )
        .unwrap(),
    );
    let said = copy(&*other, &again, &mut |_, _| {}).unwrap_err().to_string();
    assert!(said.contains("not the beginning of this one"), "{said}");
    assert!(compare(&*other, &again, &mut |_, _| {}).is_err());
}

/// As any Fluvio producer: JSON records to an inbox.
async fn write_inbox(place: &LogPlace, records: &[String]) {
    let LogPlace::Fluvio(place) = place else { panic!("a cluster") };
    let options = falaj_log_fluvio::Options::new(&place.controller, &place.deployment, vec![]);
    let name = falaj_log_fluvio::inbox_name(&place.deployment, "orders");
    let records: Vec<(u32, Vec<u8>)> = (0..)
        .zip(records)
        .map(|(at, text): (u32, _)| (at % 3, text.clone().into_bytes()))
        .collect();
    tokio::task::spawn_blocking(move || falaj_log_fluvio::produce(&options, &name, &records))
        .await
        .unwrap()
        .unwrap();
}

async fn count(node: &Node, topic: &str) -> u64 {
    let topic = &node.core().catalog.topics.get(topic).unwrap().schema;
    (0..topic.partitions).map(|at| node.core().log.next_offset(topic.id(), at)).sum()
}

async fn wait_for(node: &Node, accepted: u64, rejected: u64) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let counts = (count(node, "orders").await, count(node, "orders.rejected").await);
        if counts == (accepted, rejected) {
            return;
        }
        let late = std::time::Instant::now() > deadline;
        assert!(!late && counts.0 <= accepted && counts.1 <= rejected, "{counts:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_events_come_through_an_inbox_once() {
    let Some(place) = cluster("inbox") else { return };
    let folder = tempfile::tempdir().unwrap();
    let with_inbox = TOPIC.replacen("partitions = 3", "partitions = 3\nformat = \"json\"", 1);
    let catalog =
        kit::node::catalog(&[("orders.toml", &with_inbox), ("customer_orders.sql", VIEW)]).unwrap();
    let open = || async {
        let mut options = kit::node::options(&folder.path().join("data"));
        options.core.log = Some(place.clone());
        Node::start(options, Arc::clone(&catalog)).await.unwrap()
    };
    let good = |at: u64| {
        format!(
            r#"{{"customer": "ali", "at": "2026-01-01T00:00:{:02}Z", "amount": {at}}}"#,
            at % 60
        )
    };
    let node = open().await;
    let mut records: Vec<String> = (1..=20).map(good).collect();
    records.push(r#"{"customer": "ali", "at": "2026-01-01T00:00:00Z", "amount": -1}"#.into());
    records.push("not JSON".into());
    write_inbox(&place, &records).await;
    wait_for(&node, 20, 2).await;
    node.stop().await.unwrap();

    // What came while the node was away is taken when it is back; nothing is taken twice.
    write_inbox(&place, &(21..=30).map(good).collect::<Vec<_>>()).await;
    let node = open().await;
    wait_for(&node, 30, 2).await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    wait_for(&node, 30, 2).await;
    node.stop().await.unwrap();
}
