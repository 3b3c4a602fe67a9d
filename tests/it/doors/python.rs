//! A plain pyarrow client against the doors: nothing of ours on its side but the example.

use std::ffi::OsStr;
use std::process::Command;

use serde_json::Value as Json;

use super::backend::{self, FIRST_T, serve};

/// Runs the example; its output is one JSON value per line.
fn run(python: &OsStr, served: &backend::Served, arguments: &[&str]) -> (bool, Vec<Json>, String) {
    let output = Command::new(python)
        .arg(kit::root().join("tools/python/falaj_flight.py"))
        .args(arguments)
        .env("FALAJ_URL", &served.options.url)
        .env("FALAJ_CA", served.handle().ca_path().unwrap())
        .env("FALAJ_TOKEN_FILE", served.directory.path().join("token"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.success(), lines, String::from_utf8(output.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_example_produces_looks_up_scans_and_reads() {
    let Some(python) = std::env::var_os("FALAJ_PYTHON") else {
        println!("skipped: FALAJ_PYTHON names no python with the pyarrow package");
        return;
    };
    let served = serve().await;
    let ok = |arguments: &[&str]| {
        let (ok, lines, errors) = run(&python, &served, arguments);
        assert!(ok, "{arguments:?}: {errors}");
        lines
    };
    assert_eq!(ok(&["list"]).len(), 6);
    assert_eq!(ok(&["list", "topics/pay"])[0]["key"][0], "card");

    let events = served.directory.path().join("events.ndjson");
    let lines = (0..2500).map(|number| {
        let card = format!("c{}", number % 7);
        format!("{{\"card\":\"{card}\",\"amount\":0.5,\"at\":\"1970-01-01T00:00:00.001Z\"}}\n")
    });
    std::fs::write(&events, lines.collect::<String>()).unwrap();
    let events = events.to_str().unwrap();
    let produce = ["produce", "payments", events, "--producer", "till", "--sequence", "0"];
    let acks = ok(&produce);
    assert_eq!(acks.len(), 3);
    assert_eq!(acks[2]["accepted"], 500);
    assert_eq!(acks[0]["t"], FIRST_T);
    let again = ok(&produce);
    assert_eq!((&again[2]["t"], &again[2]["duplicates"]), (&acks[2]["t"], &Json::from(500)));

    let keys = "{\"card\": [\"c0\", \"nobody\"]}";
    let rows = ok(&["lookup", "card_totals", "--keys", keys]);
    assert_eq!(rows[0]["t"], FIRST_T + 2);
    assert_eq!((&rows[1]["count"], &rows[1]["total"]), (&358.into(), &179.0.into()));
    assert_eq!(rows[2]["count"], "NOT_FOUND");
    let as_of = FIRST_T.to_string();
    let rows = ok(&["lookup", "card_totals.count", "--keys", keys, "--as-of", &as_of]);
    assert_eq!((&rows[1]["count"], &rows[0]["t"]), (&143.into(), &FIRST_T.into()));
    let rows = ok(&["scan", "card_counts", "--as-of", &as_of]);
    assert_eq!((rows.len(), &rows[0]["rows"], &rows[1]["count"]), (8, &7.into(), &143.into()));
    let rows = ok(&["tail", "payments", "--limit", "5"]);
    assert_eq!((rows.len(), &rows[4]["__offset"]), (5, &4.into()));
    assert_eq!(ok(&["action", "status"])[0]["ready"], true);

    let (fine, _, errors) = run(&python, &served, &["lookup", "card_total", "--keys", keys]);
    assert!(!fine && errors.contains("did you mean `card_totals`"), "{errors}");
    let (fine, _, errors) = run(&python, &served, &["produce", "payment", events]);
    assert!(!fine && errors.contains("did you mean `payments`"), "{errors}");
}
