//! A guardrail breaks, and the version before comes back by itself: on errors, on latency, on what the
//! predictions are worth.

use super::files::{breaking, logistic};
use super::onnx::{BIAS, WEIGHTS, register};
use super::*;

const GUARDRAIL: &str = r#"
[[monitors.guardrails]]
metric = "METRIC"
BOUND
window = "10 minutes"
minimum_support = 5

[[retrain.floors]]
metric = "METRIC"
BOUND
window = "10 minutes"

[retrain]
cool_down = "1 second"
"#;

/// A node whose version 1 serves and whose version 2, of this file, has taken over.
async fn two_versions(folder: &Path, metric: &str, bound: &str, second: &[u8]) -> (Node, Client) {
    let guardrail = GUARDRAIL.replace("METRIC", metric).replace("BOUND", bound);
    let pipeline = PIPELINE
        .replace("metrics.auc = AUC", "metrics.log_loss = { at_most = 100.0 }")
        .replace(
            "CASE WHEN predicted AND actual THEN amount ELSE 0 END",
            "CASE WHEN predicted = actual THEN 1 ELSE -1 END",
        )
        .replace("[monitors]\n", "[monitors]\nestimate = false\ndetectors = []\n")
        + &guardrail;
    let catalog = catalog_of(&pipeline);
    let trainer = script(folder, "#!/bin/sh\nexit 1\n");
    let (node, client) = start(&folder.join("data"), &catalog, trainer).await;
    produce(&client, 0..300).await;
    judge(&client, 0..300, false).await;
    register(&client, "risk", &logistic(&WEIGHTS, BIAS)).await.unwrap();
    until(&client, "serving", |state| state["champion"] == 1).await;
    register(&client, "risk", second).await.unwrap();
    until(&client, "serving", |state| state["champion"] == 2).await;
    // On to a window that begins after the promotion.
    produce(&client, 320..321).await;
    (node, client)
}

/// Asks about orders, ten at a time, until version 2 was taken out; gives the event that did it.
async fn taken_out(client: &Client, amount: i64, judged: bool) -> Json {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut number = 321;
    loop {
        produce(client, number..number + 10).await;
        let all: Vec<_> = (number..number + 10).map(order).collect();
        let ids: Vec<String> = (number..number + 10).map(|number| format!("o{number}")).collect();
        let asked: Vec<_> = all
            .iter()
            .zip(&ids)
            .map(|((who, ..), id)| (Some(id.as_str()), who.as_str(), Some(amount)))
            .collect();
        predict(client, &asked).await;
        if judged {
            judge(client, number..number + 10, true).await;
        }
        // Serving writes its figures down twice a second.
        tokio::time::sleep(Duration::from_millis(700)).await;
        number += 10;
        let state = models(client).await;
        let events = state["events"].as_array().unwrap();
        if let Some(event) = events.iter().find(|event| event["kind"] == "rolled_back") {
            assert_eq!((&state["champion"], &event["version"]), (&json!(1), &json!(2)));
            return event.clone();
        }
        assert!(Instant::now() < deadline, "{state:#}");
    }
}

/// The floor on the same figure asks for another version.
async fn asked_for_another(client: &Client, metric: &str) {
    let state = until(client, "asked for", |state| {
        state["versions"].as_array().is_some_and(|versions| versions.len() > 2)
    });
    let trigger = state.await["versions"][2]["trigger"].as_str().unwrap_or_default().to_owned();
    assert!(trigger.starts_with(&format!("floor {metric}@")), "{trigger}");
}

fn told(event: &Json, metric: &str) {
    let actor = event["actor"].as_str().unwrap();
    assert!(actor.starts_with(&format!("rule:{metric}@")), "{event:#}");
    let windows = event["detail"]["breach"]["windows"].as_array().unwrap();
    assert_eq!(windows.len(), 1, "the window that broke it: {event:#}");
    assert!(event["reason"].as_str().unwrap().contains(metric), "{event:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_fails_to_score_is_taken_out() {
    let folder = tempfile::tempdir().unwrap();
    // Right on all rows held out, and not a number beyond an amount of 2000.
    let second = breaking(&WEIGHTS, BIAS, &[0.0, 0.0, 0.0, 1.0], 2_001.0);
    let (node, client) = two_versions(folder.path(), "error_rate", "at_most = 0.2", &second).await;
    let event = taken_out(&client, 5_000, false).await;
    told(&event, "error_rate");
    asked_for_another(&client, "error_rate").await;
    assert_eq!(event["detail"]["breach"]["value"].as_f64(), Some(1.0));
    let figures = rows(&client, "falaj.serving").await;
    let of_second: Vec<&Json> = figures.iter().filter(|row| row["version"] == 2).collect();
    let sum = |name: &str| of_second.iter().map(|row| row[name].as_u64().unwrap()).sum::<u64>();
    assert!(sum("rows") >= 10 && sum("rows") == sum("errors"), "{of_second:?}");
    let drift = rows(&client, "falaj.drift").await;
    let row = drift.iter().find(|row| row["subject"] == "error_rate").unwrap();
    assert_eq!((row["value"].as_f64(), &row["alarm"]), (Some(1.0), &json!(true)), "{row:#}");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_takes_too_long_is_taken_out() {
    let folder = tempfile::tempdir().unwrap();
    let second = logistic(&WEIGHTS, BIAS);
    // No request is that fast; version 1 has nothing before it, and stays.
    let (node, client) =
        two_versions(folder.path(), "latency_p99_us", "at_most = 0.001", &second).await;
    let event = taken_out(&client, 50, false).await;
    told(&event, "latency_p99_us");
    asked_for_another(&client, "latency_p99_us").await;
    let figures = rows(&client, "falaj.serving").await;
    assert!(figures.iter().any(|row| row["latency_p99_us"].as_f64().unwrap() > 0.0));
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_costs_money_is_taken_out() {
    let folder = tempfile::tempdir().unwrap();
    // The opposite of what the first one says.
    let second = logistic(&WEIGHTS.map(|weight| -weight), -BIAS);
    let (node, client) = two_versions(folder.path(), "kpi", "at_least = 0", &second).await;
    let event = taken_out(&client, 0, true).await;
    told(&event, "kpi");
    asked_for_another(&client, "kpi").await;
    assert!(event["detail"]["breach"]["value"].as_f64().unwrap() < 0.0, "{event:#}");
    node.stop().await.unwrap();
}
