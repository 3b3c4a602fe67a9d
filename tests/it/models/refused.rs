//! A derived row that cannot be taken is refused like any other: on the topic's `.rejected`, with its
//! reason, and everything else goes on.

use falaj_event::{Hash256, LogTime, Op, Value};
use falaj_log::Ops;
use falaj_node::models::rows::{derived, moment, text};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_derived_row_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let trainer = script(folder.path(), "#!/bin/sh\nexit 1\n");
    let (node, client) = start(&folder.path().join("data"), &catalog("0.8"), trainer).await;
    produce(&client, 0..10).await;
    let core = Arc::clone(node.core());
    let schema = Arc::clone(&core.catalog.topics.get("risk.outcomes").unwrap().schema);
    let whole = |id: &str| {
        vec![
            ("prediction_id", text(id)),
            ("model", text("1")),
            ("t", moment(LogTime(START as u64))),
            ("predicted_at", moment(LogTime(START as u64))),
            ("served", Value::Bool(true)),
            ("score", Value::Float64(0.5)),
            ("customer", text("c1")),
        ]
    };
    let rows_of = vec![whole("there"), whole("never"), whole("too")];
    let keys = ["a", "b", "c"].map(|key| key.as_bytes().to_vec());
    let definition = Hash256::default();
    let mut made = derived(&schema, &definition, LogTime(START as u64), &keys, rows_of).unwrap();
    // Nothing was ever written under the second key.
    made.ops = Ops::Each(vec![Op::Upsert, Op::Delete, Op::Upsert]);
    let (batch, origin) = (made.batch, made.origin);
    let append = tokio::task::spawn_blocking(move || {
        core.sequencer.append(&schema, origin, made.ops, batch)
    });
    let ack = append.await.unwrap().unwrap();
    assert_eq!((ack.accepted, ack.rejected.len(), ack.rejected[0].position), (2, 1, 1));
    assert!(ack.rejected[0].reasons[0].contains("no row with key"), "{ack:?}");

    assert_eq!(rows(&client, "risk.outcomes").await.len(), 2);
    let refused = rows(&client, "risk.outcomes.rejected").await;
    assert_eq!(refused.len(), 1);
    assert!(refused[0]["reasons"][0].as_str().unwrap().contains("no row with key"), "{refused:?}");
    // The sequencer is well: it takes the next events, and another start reads all of it.
    produce(&client, 10..20).await;
    node.stop().await.unwrap();
    let trainer = script(folder.path(), "#!/bin/sh\nexit 1\n");
    let (node, client) = start(&folder.path().join("data"), &catalog("0.8"), trainer).await;
    assert_eq!(rows(&client, "risk.outcomes.rejected").await, refused);
    node.stop().await.unwrap();
}
