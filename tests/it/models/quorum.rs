//! A version that needs two persons' word: the first does not promote it, nor does the same one twice.

use falaj_gateway::client::ClientError;
use falaj_gateway::persons::token_of;

use super::files::logistic;
use super::onnx::{BIAS, WEIGHTS, register};
use super::*;

/// `falaj models risk approve 1`, with this person's token.
async fn approve(node: &Node, data: &Path, who: &str) -> Result<Json, ClientError> {
    let (_, token) = token_of(&data.join("persons"), who).unwrap();
    // A new token counts within a second.
    let deadline = Instant::now() + Duration::from_secs(10);
    let client = node.client_as(Some(&token)).await.unwrap();
    while client.action("status").await.is_err() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let body = json!({ "pipeline": "risk", "version": 1, "reason": format!("{who} looked at it") });
    client.json_action("model_approve", &body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_persons_must_approve() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = PIPELINE.replace("metrics.auc = AUC", "metrics.auc = 0.8\napprovals = 2");
    let catalog = catalog_of(&pipeline);
    let trainer = script(folder.path(), "#!/bin/sh\nexit 1\n");
    let data = folder.path().join("data");
    let (node, client) = start(&data, &catalog, trainer).await;
    produce(&client, 0..400).await;
    judge(&client, 0..400, false).await;
    register(&client, "risk", &logistic(&WEIGHTS, BIAS)).await.unwrap();
    until(&client, "in shadow", |state| state["versions"][0]["stage"] == "shadow").await;

    let by_hand = json!({ "pipeline": "risk", "version": 1 });
    let refused = client.json_action("model_promote", &by_hand).await.unwrap_err().to_string();
    assert!(refused.contains("has 0 of 2 approvals"), "{refused}");
    // Whoever asked for the version has no say in it.
    let own = client.json_action("model_approve", &by_hand).await.unwrap_err().to_string();
    assert!(own.contains("local"), "{own}");

    approve(&node, &data, "amal").await.unwrap();
    let again = approve(&node, &data, "amal").await.unwrap_err().to_string();
    assert!(again.contains("amal"), "{again}");
    // The runs are looked at twice a second: one word is not enough, however long one waits.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let state = models(&client).await;
    assert_eq!(
        (&state["champion"], &state["versions"][0]["stage"]),
        (&Json::Null, &json!("shadow"))
    );
    assert_eq!(state["versions"][0]["approvals"].as_array().unwrap().len(), 1);
    let refused = client.json_action("model_promote", &by_hand).await.unwrap_err().to_string();
    assert!(refused.contains("has 1 of 2 approvals"), "{refused}");

    approve(&node, &data, "badr").await.unwrap();
    let state = until(&client, "serving", |state| state["champion"] == 1).await;
    let approvals = state["versions"][0]["approvals"].as_array().unwrap();
    let who: Vec<&str> = approvals.iter().map(|one| one["approver"].as_str().unwrap()).collect();
    assert_eq!(who, ["amal", "badr"]);
    let events = state["events"].as_array().unwrap().iter();
    let told = events.filter(|event| event["kind"] == "approved");
    let told: Vec<_> = told.map(|event| (&event["actor"], &event["reason"])).collect();
    assert_eq!(told[1], (&json!("person:badr"), &json!("badr looked at it")));
    node.stop().await.unwrap();
}
