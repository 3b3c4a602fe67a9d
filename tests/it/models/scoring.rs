//! Batch scoring over all keys of a view: at one `T`, in parts, and on from where it was interrupted.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, UInt32Type};
use falaj_node::cli::{Connection, Score};

use super::onnx::register;
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_scored_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let pipeline = PIPELINE
        .replace("metrics.auc = AUC", "metrics.log_loss = { at_most = 100.0 }")
        .replace("type = \"int64\"\n", "type = \"int64\"\noptional = true\n")
        .replace("sum(CASE WHEN predicted AND actual THEN amount ELSE 0 END)", "count(*)");
    let catalog = catalog_of(&pipeline);
    let trainer = script(folder.path(), "#!/bin/sh\nexit 1\n");
    let (node, client) = start(&data, &catalog, trainer).await;
    produce(&client, 0..100).await;
    produce(&client, 100..300).await;
    judge(&client, 0..300, false).await;
    // The number of orders ever, as a share of a thousand: what a key's score at a `T` must be.
    let file = super::files::line(&[0.0, 0.0, 0.001, 0.0]);
    register(&client, "risk", &file).await.unwrap();
    until(&client, "serving", |state| state["champion"] == 1).await;
    let before = rows(&client, "risk.predictions").await.len();

    let to = folder.path().join("scores");
    let options = |at: Option<String>| Score {
        model: "risk".to_owned(),
        from: None,
        view: Some("customer_orders".to_owned()),
        at,
        to: to.clone(),
        batch: 7,
        connection: Connection {
            data: data.clone(),
            definitions: ".".into(),
            url: Some(node.server().url()),
            ca: node.server().ca_path().map(Path::to_owned),
            token_file: Some(data.join("token")),
        },
    };
    // As of the 100th order, five of each of twenty customers.
    let at = (START + 99 * MINUTE).to_string();
    falaj_node::verbs::score::run(options(Some(at.clone())), true).await.unwrap();
    let part = to.join("part-00000.parquet");
    let scores = || {
        let reader = falaj_node::parquet_file::reader(&part, 1_000).unwrap();
        let all: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
        arrow::compute::concat_batches(&all[0].schema(), &all).unwrap()
    };
    let first = scores();
    assert_eq!(first.num_rows(), 20);
    let values = first.column_by_name("score").unwrap().as_primitive::<Float64Type>().clone();
    assert!(values.iter().all(|score| (score.unwrap() - 0.005).abs() < 1e-6), "{values:?}");
    let versions = first.column_by_name("model_version").unwrap();
    assert!(versions.as_primitive::<UInt32Type>().iter().all(|version| version == Some(1)));
    let logged = rows(&client, "risk.predictions").await;
    assert_eq!(logged.len(), before + 20, "every score is an event");
    assert!(logged.iter().all(|row| row["t"] == logged[0]["t"]), "at one T");

    // A part that is there is left alone; one that is gone is made again, at the same T.
    falaj_node::verbs::score::run(options(None), true).await.unwrap();
    assert_eq!(rows(&client, "risk.predictions").await.len(), before + 20);
    produce(&client, 301..302).await;
    std::fs::remove_file(&part).unwrap();
    falaj_node::verbs::score::run(options(None), true).await.unwrap();
    assert_eq!(scores(), first);

    // Another view's or another T's scores do not mix with these.
    let other = falaj_node::verbs::score::run(options(Some(START.to_string())), true).await;
    assert!(other.unwrap_err().to_string().contains("give another folder"));
    let id = first.column_by_name("prediction_id").unwrap().as_string::<i32>().value(3).to_owned();
    let replay = json!({ "pipeline": "risk", "id": id });
    let replayed = client.json_action("replay_prediction", &replay).await.unwrap();
    assert_eq!(replayed["verdict"], "EQUAL", "{replayed:#}");
    assert!(first.column_by_name("error").unwrap().null_count() == 20);
    node.stop().await.unwrap();
}
