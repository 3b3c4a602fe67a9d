//! Several classes, declared in another order than a model sorts them in, one of them never seen: scores
//! come in the declared order, for gates and callers alike.

use arrow::array::{AsArray, Float64Array};
use arrow::datatypes::Float64Type;

use super::*;

const TOPIC: &str = r#"
name = "sizes"
key = ["who"]
event_time = "at"
columns = [
  { name = "who", type = "string" },
  { name = "at", type = "timestamp" },
  { name = "weight", type = "float64" },
  { name = "size", type = "string" },
]
"#;

const SIZES: &str = r#"
[pipeline]
name = "size"
task = "multiclass"
entity = ["who"]

[label]
topic = "sizes"
column = "size"
classes = ["small", "never", "large", "medium"]

[[request]]
name = "weight"
type = "float64"

[trainer]
kind = "linear"
epochs = 40
batch_size = 32
learning_rate = 0.1
early_stopping = 0

[gates]
metrics.accuracy = 0.8
metrics.log_loss = 0.6
metrics.macro_f1 = 0.7

[monitors]
estimate = false
"#;

fn size(weight: f64) -> &'static str {
    match weight {
        weight if weight < 10.0 => "small",
        weight if weight < 20.0 => "medium",
        _ => "large",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn classes_have_the_declared_order() {
    let folder = tempfile::tempdir().unwrap();
    let catalog =
        kit::node::catalog(&[("sizes.toml", TOPIC), ("dataflows/size.toml", SIZES)]).unwrap();
    let trainer = real_trainer(folder.path());
    let (node, client) = start(&folder.path().join("data"), &catalog, trainer).await;
    let weights: Vec<f64> = (0..600).map(|row| f64::from(row * 7_919 % 3_000) / 100.0).collect();
    let who: Vec<String> = (0..600).map(|row| format!("w{row}")).collect();
    let at = (0..600).map(|row| START + row * MINUTE);
    let batch = RecordBatch::try_from_iter([
        ("who", Arc::new(StringArray::from(who)) as ArrayRef),
        ("at", Arc::new(TimestampMicrosecondArray::from_iter_values(at).with_timezone("UTC"))),
        ("weight", Arc::new(Float64Array::from(weights.clone()))),
        (
            "size",
            Arc::new(weights.iter().map(|weight| Some(size(*weight))).collect::<StringArray>()),
        ),
    ])
    .unwrap();
    client.produce("sizes", &[batch], &ProduceOptions::default()).await.unwrap();
    client.json_action("model_train", &json!({ "pipeline": "size" })).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let state = client.json_action("models", &json!({ "pipeline": "size" })).await.unwrap();
        if state["champion"] == 1 {
            break;
        }
        let stage = state["versions"][0]["stage"].as_str();
        assert!(!matches!(stage, Some("rejected" | "failed")), "{state:#}");
        assert!(Instant::now() < deadline, "{state:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let asked = RecordBatch::try_from_iter([
        ("prediction_id", Arc::new(StringArray::from(vec!["a", "b"])) as ArrayRef),
        ("who", Arc::new(StringArray::from(vec!["x", "y"]))),
        ("weight", Arc::new(Float64Array::from(vec![1.0, 29.0]))),
    ])
    .unwrap();
    let mut stream = client.predictions("size", asked.schema().as_ref()).await.unwrap();
    let answer = stream.predict(&asked, &PredictOptions::default()).await.unwrap();
    assert_eq!((answer.label(0), answer.label(1)), (Some("small"), Some("large")), "{answer:?}");
    let scores = answer.batch.column_by_name("scores").unwrap().as_list::<i32>().clone();
    for (row, best) in [(0, 0), (1, 2)] {
        let own = scores.value(row).as_primitive::<Float64Type>().values().to_vec();
        assert_eq!((own.len(), own[1]), (4, 0.0), "a class that was never seen: {own:?}");
        assert!((own.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{own:?}");
        assert!(own.iter().all(|score| *score <= own[best]), "{own:?}");
        assert_eq!(answer.score(row), Some(own[best]));
    }
    let replay = json!({ "pipeline": "size", "id": "b" });
    let replayed = client.json_action("replay_prediction", &replay).await.unwrap();
    assert_eq!(replayed["verdict"], "EQUAL", "{replayed:#}");
    node.stop().await.unwrap();
}
