//! `falaj compact`: what retention no longer keeps, cut from the log.

use anyhow::Result;
use serde_json::{Value as Json, json};

use super::Session;
use super::text::{count, spinner, table, time};
use crate::cli::Compact;

/// Cuts, or says what would be cut.
///
/// # Errors
/// When the node cannot be asked, or a baseline cannot be taken.
pub async fn run(options: Compact, as_json: bool) -> Result<()> {
    let session = Session::open_existing(&options.connection).await?;
    let bar = spinner("taking a baseline and cutting the log behind it");
    let body = json!({ "dry_run": options.dry_run });
    let answer = session.client.json_action("compact", &body).await;
    bar.finish_and_clear();
    session.close().await?;
    let answer = answer?;
    match as_json {
        true => println!("{answer}"),
        false => print(&answer),
    }
    Ok(())
}

fn print(answer: &Json) {
    let (list, done) = match answer["dry_run"] == true {
        true => (&answer["due"], "would be cut"),
        false => (&answer["cut"], "cut"),
    };
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    if list.is_empty() {
        println!("nothing is due: every topic's retention still keeps all of its events");
        return;
    }
    let mut rows = table(["topic", done, "kept from epoch"]);
    for topic in list {
        rows.add_row([
            topic["topic"].as_str().unwrap_or_default().to_owned(),
            format!("{} events", count(topic["events"].as_u64().unwrap_or_default())),
            count(topic["first_kept_epoch"].as_u64().unwrap_or_default()),
        ]);
    }
    println!("{rows}");
    let baseline = &answer["baseline"];
    if let Some(location) = baseline["location"].as_str() {
        println!(
            "baseline {location}: {} entries, {} bytes, as of {}\n  state digest {}",
            count(baseline["rows"].as_u64().unwrap_or_default()),
            count(baseline["bytes"].as_u64().unwrap_or_default()),
            time(baseline["t"].as_i64().unwrap_or_default()),
            baseline["state_digest"].as_str().unwrap_or_default()
        );
    }
}
