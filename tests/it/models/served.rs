//! Training on what was served: rows are what prediction events hold, and a pipeline of that mode trains
//! on them.

use arrow::array::{Array, AsArray};
use falaj_event::Value;
use falaj_event::cells::Cells;
use falaj_event::encoding::decode_row;

use super::files::logistic;
use super::onnx::{BIAS, WEIGHTS, register};
use super::*;

const FEATURES: [&str; 3] = ["orders_1h", "amount_1h", "orders"];

async fn set(client: &Client, mode: &str) -> RecordBatch {
    let ticket = ReadTicket { mode: Some(mode.to_owned()), ..ReadTicket::training_set("risk") };
    let batches = client.read(&ticket).await.unwrap().collect().await.unwrap();
    arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap()
}

/// The inputs of every served prediction, by id.
async fn logged(client: &Client) -> std::collections::BTreeMap<String, Vec<Value>> {
    let ticket = ReadTicket::topic("risk.predictions");
    let batches = client.read(&ticket).await.unwrap().collect().await.unwrap();
    let mut found = std::collections::BTreeMap::new();
    for batch in batches {
        let column = |name: &str| batch.column_by_name(name).unwrap().clone();
        let (ids, inputs, served) = (column("prediction_id"), column("inputs"), column("served"));
        for row in (0..batch.num_rows()).filter(|row| served.as_boolean().value(*row)) {
            let values = decode_row(inputs.as_binary::<i32>().value(row)).unwrap();
            found.insert(ids.as_string::<i32>().value(row).to_owned(), values);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_learns_from_what_it_served() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = PIPELINE
        .replace("metrics.auc = AUC", "metrics.auc = 0.7")
        .replace("[training]\n", "[training]\nmode = \"as_served\"\n");
    let catalog = catalog_of(&pipeline);
    let trainer = real_trainer(folder.path());
    let (node, client) = start(&folder.path().join("data"), &catalog, trainer).await;
    produce(&client, 0..300).await;
    judge(&client, 0..300, false).await;

    // Nothing was served yet: there is nothing to learn from, and the run says so.
    train(&client).await;
    let state = until(&client, "failed", |state| state["versions"][0]["stage"] == "failed").await;
    let error = state["events"].as_array().unwrap().last().unwrap()["detail"].to_string();
    assert!(error.contains("no predictions have been logged"), "{error}");

    // A model made elsewhere serves first; its gates need held-out rows, which are as served, too.
    let _ = register(&client, "risk", &logistic(&WEIGHTS, BIAS)).await.unwrap();
    let state = until(&client, "failed", |state| state["versions"][1]["stage"] == "failed").await;
    assert_eq!(state["champion"], Json::Null);
    node.stop().await.unwrap();

    // So the pipeline begins as corrected, and changes its mode once it has served.
    let first = catalog_of(&PIPELINE.replace("metrics.auc = AUC", "metrics.auc = 0.7"));
    let trainer = real_trainer(folder.path());
    let (node, client) = start(&folder.path().join("data"), &first, trainer).await;
    register(&client, "risk", &logistic(&WEIGHTS, BIAS)).await.unwrap();
    until(&client, "serving", |state| state["champion"] == 3).await;
    for number in 300..420 {
        produce(&client, number..number + 1).await;
        let (who, _, amount, _) = order(number);
        let id = format!("o{number}");
        predict(&client, &[(Some(id.as_str()), who.as_str(), Some(amount))]).await;
    }
    judge(&client, 300..420, true).await;
    node.stop().await.unwrap();

    let trainer = real_trainer(folder.path());
    let (node, client) = start(&folder.path().join("data"), &catalog, trainer).await;
    let logged = logged(&client).await;
    assert_eq!(logged.len(), 120);
    let set = set(&client, "as_served").await;
    assert_eq!(set.num_rows(), 420, "a row per label");
    let ids = set.column_by_name("prediction_id").unwrap().as_string::<i32>().clone();
    let mut compared = 0;
    for row in 0..set.num_rows() {
        let values = ids.is_valid(row).then(|| &logged[ids.value(row)]);
        for (place, name) in FEATURES.iter().enumerate() {
            let cells = Cells::new(set.column_by_name(name).unwrap().as_ref()).unwrap();
            let expected = values.map_or(Value::Null, |values| values[place].clone());
            assert_eq!(cells.value(row), expected, "row {row}, {name}");
            compared += usize::from(values.is_some());
        }
    }
    assert_eq!(compared, 3 * 120);

    train(&client).await;
    let state = until(&client, "trained", |state| state["champion"] == 4).await;
    let card = json!({ "pipeline": "risk", "version": 4 });
    let card = client.json_action("model_card", &card).await.unwrap();
    assert!(card["markdown"].as_str().unwrap().contains("as_served"), "{state:#}");
    let started = rows(&client, "falaj.runs").await;
    let started = started.iter().rfind(|row| row["kind"] == "started").unwrap();
    let started: Json = serde_json::from_str(started["detail"].as_str().unwrap()).unwrap();
    let of = |name: &str| started["rows"][name].as_u64().unwrap();
    assert_eq!(of("train") + of("validation") + of("test"), 120, "only what was served");
    node.stop().await.unwrap();
}
