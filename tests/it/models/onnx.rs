//! Models of other tools, through the doors: registered, judged, served, scored and replayed.

use super::files::logistic;
use super::*;

/// The signature: three features of the view, then the amount. Amounts above 600 are bad.
pub const WEIGHTS: [f32; 4] = [0.0, 0.0, 0.0, 0.02];
pub const BIAS: f32 = -12.0;

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub async fn register(client: &Client, pipeline: &str, file: &[u8]) -> Result<u64, String> {
    let body = json!({ "pipeline": pipeline, "onnx": hex(file), "reason": "made elsewhere" });
    let asked = client.json_action("model_register", &body).await;
    asked.map(|asked| asked["version"].as_u64().unwrap()).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_onnx_file_is_a_candidate_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let catalog = catalog("0.8");
    // Nothing is trained here: the trainer would fail.
    let trainer = script(folder.path(), "#!/bin/sh\nexit 1\n");
    let (node, client) = start(&data, &catalog, trainer.clone()).await;
    produce(&client, 0..400).await;
    judge(&client, 0..400, false).await;

    let wrong = register(&client, "risk", &logistic(&[1.0; 3], 0.0)).await.unwrap_err();
    assert!(wrong.contains("3 columns") && wrong.contains("orders_1h"), "{wrong}");
    let wrong = register(&client, "risk", b"no model").await.unwrap_err();
    assert!(wrong.contains("cannot be used"), "{wrong}");
    assert_eq!(models(&client).await["versions"], json!([]), "what does not fit leaves no trace");

    // One that is worse than the gate is turned down by name.
    assert_eq!(register(&client, "risk", &logistic(&[0.0, 0.0, 0.0, -1.0], 0.0)).await, Ok(1));
    until(&client, "turned down", |state| state["versions"][0]["stage"] == "rejected").await;

    assert_eq!(register(&client, "risk", &logistic(&WEIGHTS, BIAS)).await, Ok(2));
    let state = until(&client, "serving", |state| state["champion"] == 2).await;
    assert_eq!(state["versions"][1]["trigger"], "registered");
    let gates = state["versions"][1]["gates"].as_array().unwrap();
    let rows = gates.iter().find(|gate| gate["figure"] == "rows").unwrap();
    assert_eq!(rows["value"], 60.0, "the pipeline's share of test rows");
    let kinds = state["events"].as_array().unwrap().iter().filter(|event| event["version"] == 2);
    let kinds: Vec<&str> = kinds.map(|event| event["kind"].as_str().unwrap()).collect();
    let stages =
        ["requested", "training_started", "trained", "validated", "shadow_started", "promoted"];
    assert_eq!(kinds, stages);

    let asked = [(Some("a"), "c1", Some(990)), (Some("b"), "c2", Some(5))];
    let answer = predict(&client, &asked).await;
    assert_eq!((answer.label(0), answer.label(1)), (Some("true"), Some("false")), "{answer:?}");
    let expected = 1.0 / (1.0 + (-(0.02_f64 * 990.0 - 12.0)).exp());
    assert!((answer.score(0).unwrap() - expected).abs() < 1e-6, "{answer:?}");
    let replay = json!({ "pipeline": "risk", "id": "a" });
    let replayed = client.json_action("replay_prediction", &replay).await.unwrap();
    assert_eq!(replayed["verdict"], "EQUAL", "{replayed:#}");
    node.stop().await.unwrap();

    let (node, client) = start(&data, &catalog, trainer).await;
    let again = predict(&client, &[(Some("c"), "c1", Some(990))]).await;
    assert_eq!(again.score(0), answer.score(0), "it is there after a start");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn exported_models_are_served_as_their_runtime_has_them() {
    let Some(folder) = kit::shared_data("onnx") else { return };
    // A dense graph, and trees.
    for name in ["mlp_bin", "lgbm_bin"] {
        let read =
            |extension: &str| std::fs::read(folder.join(name).with_extension(extension)).unwrap();
        let cases: Json = serde_json::from_slice(&read("json")).unwrap();
        serves(&read("onnx"), &cases).await;
    }
}

/// A pipeline of request features only, whose labels are what the model says.
async fn serves(file: &[u8], cases: &Json) {
    let rows: Vec<Vec<f64>> = serde_json::from_value(cases["x"].clone()).unwrap();
    let labels: Vec<f64> = serde_json::from_value(cases["outs"][0].clone()).unwrap();
    let shares: Vec<Vec<f64>> = serde_json::from_value(cases["outs"][1].clone()).unwrap();
    let width = rows[0].len();
    let features = |each: &dyn Fn(usize) -> String| (0..width).map(each).collect::<String>();
    let topic = format!(
        "name = \"truths\"\nkey = [\"who\"]\nevent_time = \"at\"\ncolumns = [\n\
         {{ name = \"who\", type = \"string\" }},\n{{ name = \"at\", type = \"timestamp\" }},\n\
         {{ name = \"bad\", type = \"bool\" }},\n{}]\n",
        features(&|at| format!("{{ name = \"f{at}\", type = \"float64\" }},\n"))
    );
    let pipeline = format!(
        "[pipeline]\nname = \"other\"\ntask = \"binary\"\nentity = [\"who\"]\n\
         [label]\ntopic = \"truths\"\ncolumn = \"bad\"\n{}\n[trainer]\nkind = \"linear\"\n\
         [gates]\nmetrics.auc = 0.99\n",
        features(&|at| format!("[[request]]\nname = \"f{at}\"\ntype = \"float64\"\n"))
    );
    let catalog = kit::node::catalog(&[
        ("truths.toml", topic.as_str()),
        ("dataflows/other.toml", pipeline.as_str()),
    ])
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let trainer = script(folder.path(), "#!/bin/sh\nexit 1\n");
    let (node, client) = start(&folder.path().join("data"), &catalog, trainer).await;
    let times = |count: usize| -> ArrayRef {
        let all = (0..count as i64).map(|at| START + at * MINUTE);
        Arc::new(TimestampMicrosecondArray::from_iter_values(all).with_timezone("UTC"))
    };
    let columns = |count: usize| -> Vec<(String, ArrayRef)> {
        let column = |feature: usize| -> ArrayRef {
            let all = (0..count).map(|row| rows[row % rows.len()][feature]);
            Arc::new(arrow::array::Float64Array::from_iter_values(all))
        };
        (0..width).map(|feature| (format!("f{feature}"), column(feature))).collect()
    };
    let who = |count: usize| -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..count).map(|row| format!("w{row}"))))
    };
    let count = 160;
    let bad = (0..count).map(|row| Some(labels[row % labels.len()] > 0.5));
    let mut batch: Vec<(String, ArrayRef)> = vec![
        ("who".to_owned(), who(count)),
        ("at".to_owned(), times(count)),
        ("bad".to_owned(), Arc::new(bad.collect::<BooleanArray>())),
    ];
    batch.extend(columns(count));
    let batch = RecordBatch::try_from_iter(batch).unwrap();
    let acks = client.produce("truths", &[batch], &ProduceOptions::default()).await.unwrap();
    assert_eq!(acks[0].accepted, count as u64);
    register(&client, "other", file).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let state = client.json_action("models", &json!({ "pipeline": "other" })).await.unwrap();
        if state["champion"] == 1 {
            break;
        }
        assert!(Instant::now() < deadline, "{state:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let ids = (0..rows.len()).map(|row| format!("p{row}"));
    let mut asked: Vec<(String, ArrayRef)> = vec![
        ("prediction_id".to_owned(), Arc::new(StringArray::from_iter_values(ids))),
        ("who".to_owned(), who(rows.len())),
    ];
    asked.extend(columns(rows.len()));
    let asked = RecordBatch::try_from_iter(asked).unwrap();
    let mut stream = client.predictions("other", asked.schema().as_ref()).await.unwrap();
    let answer = stream.predict(&asked, &PredictOptions::default()).await.unwrap();
    for (row, (label, share)) in labels.iter().zip(&shares).enumerate() {
        let score = answer.score(row).unwrap();
        assert!((score - share[1]).abs() <= 2e-6, "row {row}: {score} {}", share[1]);
        assert_eq!(answer.label(row), Some(if *label > 0.5 { "true" } else { "false" }));
    }
    let replay = json!({ "pipeline": "other", "id": "p3" });
    let replayed = client.json_action("replay_prediction", &replay).await.unwrap();
    assert_eq!(replayed["verdict"], "EQUAL", "{replayed:#}");
    node.stop().await.unwrap();
}
