//! `falaj train`: ask for a run and follow it through its gates.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use falaj_gateway::wire::ReadTicket;
use indicatif::ProgressBar;
use serde_json::{Value as Json, json};

use super::Session;
use super::text::{bar, batch_json, spinner, table};
use crate::cli::Train;

/// Asks, follows, and prints the verdict.
///
/// # Errors
/// When the node cannot be asked, the run fails, or its model does not pass.
pub async fn run(options: Train, as_json: bool) -> Result<()> {
    let session = Session::open_existing(&options.connection).await?;
    let outcome = ask(&session, &options, as_json).await;
    session.close().await?;
    outcome
}

async fn ask(session: &Session, options: &Train, as_json: bool) -> Result<()> {
    let body = json!({ "pipeline": options.pipeline, "reason": options.reason });
    let asked = session.client.json_action("model_train", &body).await?;
    if options.no_wait {
        match as_json {
            true => println!("{asked}"),
            false => println!("run {} makes version {}", asked["run"], asked["version"]),
        }
        return Ok(());
    }
    let version = asked["version"].as_u64().unwrap_or_default();
    let run = asked["run"].as_str().unwrap_or_default().to_owned();
    let told = follow(session, &options.pipeline, &run, version, as_json).await?;
    match as_json {
        true => println!("{told}"),
        false => print(&options.pipeline, &told),
    }
    verdict(&options.pipeline, &told)
}

/// An error where a version did not pass.
pub(super) fn verdict(pipeline: &str, version: &Json) -> Result<()> {
    match version["stage"].as_str() {
        Some(stage @ ("failed" | "rejected")) => bail!(
            "version {} of {pipeline} is {stage}; `falaj models {pipeline} history` says why",
            version["version"]
        ),
        _ => Ok(()),
    }
}

/// Follows a run until its version serves, waits for a person, or has ended.
pub(super) async fn follow(
    session: &Session,
    pipeline: &str,
    run: &str,
    version: u64,
    quiet: bool,
) -> Result<Json> {
    let progress = if quiet { ProgressBar::hidden() } else { spinner("waiting for its turn") };
    let mut epochs: Option<ProgressBar> = None;
    let mut seen = 0_u64;
    let mut settled: Option<Instant> = None;
    loop {
        for report in reports(session, run, &mut seen).await? {
            show(&report, &progress, &mut epochs, quiet);
        }
        let all = session.client.json_action("models", &json!({ "pipeline": pipeline })).await?;
        let found = all["versions"].as_array().into_iter().flatten();
        let found = found.into_iter().find(|one| one["version"].as_u64() == Some(version)).cloned();
        let found = found.unwrap_or(Json::Null);
        let done = match found["stage"].as_str() {
            Some("serving" | "failed" | "rejected" | "retired") => true,
            // Promotion follows at once unless it waits for somebody.
            Some("shadow") => settled.get_or_insert_with(Instant::now).elapsed() > SETTLE,
            _ => false,
        };
        if done {
            progress.finish_and_clear();
            if let Some(bar) = epochs {
                bar.finish_and_clear();
            }
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

/// How long a version in shadow is watched for its promotion.
const SETTLE: Duration = Duration::from_secs(3);

/// Reports of a run from offset `from` of their topic on, which has one partition; moves `from`
/// behind what was read.
async fn reports(session: &Session, run: &str, from: &mut u64) -> Result<Vec<Json>> {
    let ticket = ReadTicket {
        partition: Some(0),
        from_offset: Some(*from),
        ..ReadTicket::topic("falaj.runs")
    };
    let mut reading = session.client.read(&ticket).await?;
    let mut reports = Vec::new();
    while let Some(batch) = reading.next().await? {
        *from += batch.num_rows() as u64;
        for row in batch_json(&batch)? {
            if row["run"] == run {
                let detail = row["detail"].as_str().unwrap_or_default();
                reports.push(serde_json::from_str::<Json>(detail)?);
            }
        }
    }
    Ok(reports)
}

fn show(report: &Json, progress: &ProgressBar, epochs: &mut Option<ProgressBar>, quiet: bool) {
    if quiet {
        return;
    }
    match report["event"].as_str() {
        Some("started") => {
            progress.println(format!(
                "training on {} rows ({} to validate, {} to test) with {}",
                report["rows"]["train"],
                report["rows"]["validation"],
                report["rows"]["test"],
                report["trainer"].as_str().unwrap_or_default(),
            ));
            if let Some(why) = report["restarted"].as_str() {
                progress.println(why);
            }
            *epochs = Some(bar(report["epochs"].as_u64().unwrap_or(1), "epochs"));
        }
        Some("epoch") => {
            if let Some(bar) = epochs {
                bar.set_position(report["epoch"].as_u64().unwrap_or_default());
                bar.set_message(format!(
                    "loss {:.4}, validation {:.4}",
                    report["train_loss"].as_f64().unwrap_or(f64::NAN),
                    report["validation_loss"].as_f64().unwrap_or(f64::NAN)
                ));
            }
        }
        Some("finished") => progress.set_message("judging it by its gates"),
        _ => {}
    }
}

pub(super) fn print(pipeline: &str, version: &Json) {
    println!(
        "{pipeline} version {}: {}",
        version["version"],
        version["stage"].as_str().unwrap_or_default()
    );
    gates(version);
}

/// Prints a version's gates.
pub fn gates(version: &Json) {
    let Some(outcomes) = version["gates"].as_array() else { return };
    let mut rows = table(["gate", "value", "rule", "verdict"]);
    for outcome in outcomes {
        let value = outcome["value"].as_f64().map_or_else(|| "–".into(), |v| format!("{v:.4}"));
        rows.add_row([
            outcome["figure"].as_str().unwrap_or_default().to_owned(),
            value,
            outcome["rule"].as_str().unwrap_or_default().to_owned(),
            outcome["verdict"].as_str().unwrap_or_default().to_owned(),
        ]);
    }
    println!("{rows}");
}
