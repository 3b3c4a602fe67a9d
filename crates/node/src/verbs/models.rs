//! `falaj models`: versions and their history; approval, promotion, rollback.

use std::path::Path;

use anyhow::{Context, Result, bail};
use falaj_model::artifact::hex;
use serde_json::{Value as Json, json};

use super::Session;
use super::text::{table, time};
use super::train::{follow, gates, print, verdict};
use crate::cli::{ModelAction, Models};

/// Shows or changes.
///
/// # Errors
/// When the node cannot be asked, or it refuses.
pub async fn run(options: Models, as_json: bool) -> Result<()> {
    let session = Session::open_existing(&options.connection).await?;
    let outcome = ask(&session, &options, as_json).await;
    session.close().await?;
    let answer = outcome?;
    if as_json {
        println!("{answer}");
        return match (&options.pipeline, &options.action) {
            (Some(pipeline), Some(ModelAction::Register { .. })) => verdict(pipeline, &answer),
            _ => Ok(()),
        };
    }
    match (&options.pipeline, &options.action) {
        (None, _) => overview(&answer),
        (Some(_), None) => show(&answer),
        (Some(_), Some(ModelAction::History)) => history(&answer),
        (Some(_), Some(ModelAction::Card { to, .. })) => write_card(&answer, to)?,
        (Some(pipeline), Some(ModelAction::Register { .. })) => registered(pipeline, &answer)?,
        (Some(_), Some(_)) => told(&answer),
    }
    Ok(())
}

async fn ask(session: &Session, options: &Models, quiet: bool) -> Result<Json> {
    let Some(pipeline) = &options.pipeline else {
        return Ok(session.client.json_action("models", &json!({})).await?);
    };
    let on = |version: &crate::cli::OnVersion| json!({ "pipeline": pipeline, "version": version.version, "reason": version.reason });
    let (action, body) = match &options.action {
        None | Some(ModelAction::History) => ("models", json!({ "pipeline": pipeline })),
        Some(ModelAction::Register { onnx, reason, no_wait }) => {
            let file =
                std::fs::read(onnx).with_context(|| format!("reading {}", onnx.display()))?;
            let body = json!({ "pipeline": pipeline, "onnx": hex(&file), "reason": reason });
            let asked = session.client.json_action("model_register", &body).await?;
            if *no_wait {
                return Ok(asked);
            }
            let version = asked["version"].as_u64().unwrap_or_default();
            let run = asked["run"].as_str().unwrap_or_default();
            return follow(session, pipeline, run, version, quiet).await;
        }
        Some(ModelAction::Approve(version)) => ("model_approve", on(version)),
        Some(ModelAction::Withdraw(version)) => ("model_withdraw", on(version)),
        Some(ModelAction::Reject(version)) => ("model_reject", on(version)),
        Some(ModelAction::Promote(version)) => ("model_promote", on(version)),
        Some(ModelAction::Retire(version)) => ("model_retire", on(version)),
        Some(ModelAction::Cancel) => ("model_cancel", json!({ "pipeline": pipeline })),
        Some(ModelAction::Rollback { version, reason }) => (
            "model_rollback",
            json!({ "pipeline": pipeline, "version": version, "reason": reason }),
        ),
        Some(ModelAction::Alias { alias, version }) => {
            ("model_alias", json!({ "pipeline": pipeline, "alias": alias, "version": version }))
        }
        Some(ModelAction::Card { version, .. }) => {
            ("model_card", json!({ "pipeline": pipeline, "version": version }))
        }
    };
    Ok(session.client.json_action(action, &body).await?)
}

fn moment(t: &Json) -> String {
    t.as_i64().map(time).unwrap_or_default()
}

fn text(value: &Json) -> String {
    match value {
        Json::Null => "–".to_owned(),
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn overview(answer: &Json) {
    let mut rows = table(["model", "champion", "challenger", "versions"]);
    for model in answer.as_array().into_iter().flatten() {
        rows.add_row([
            text(&model["pipeline"]),
            text(&model["champion"]),
            text(&model["challenger"]),
            model["versions"].as_array().map_or(0, Vec::len).to_string(),
        ]);
    }
    println!("{rows}");
}

fn show(model: &Json) {
    println!(
        "{}: champion {}, challenger {}",
        text(&model["pipeline"]),
        text(&model["champion"]),
        text(&model["challenger"])
    );
    let mut rows = table(["version", "stage", "since", "asked for by", "figures"]);
    for version in model["versions"].as_array().into_iter().flatten() {
        let figures = version["metrics"].as_object().into_iter().flatten();
        let figures: Vec<String> = figures
            .filter(|(name, _)| FIGURES.contains(&name.as_str()))
            .map(|(name, value)| format!("{name} {:.4}", value.as_f64().unwrap_or(f64::NAN)))
            .collect();
        rows.add_row([
            text(&version["version"]),
            text(&version["stage"]),
            moment(&version["since"]),
            format!("{} ({})", text(&version["requested_by"]), text(&version["trigger"])),
            figures.join(", "),
        ]);
    }
    println!("{rows}");
    if let Some(newest) = model["versions"].as_array().and_then(|versions| versions.last()) {
        gates(newest);
    }
}

/// The figures that fit into a line.
const FIGURES: [&str; 5] = ["auc", "log_loss", "accuracy", "rmse", "r2"];

fn history(model: &Json) {
    let mut rows = table(["when (T)", "version", "what", "who", "why"]);
    for event in model["events"].as_array().into_iter().flatten() {
        rows.add_row([
            moment(&event["at"]),
            text(&event["version"]),
            text(&event["kind"]),
            text(&event["actor"]),
            text(&event["reason"]),
        ]);
    }
    println!("{rows}");
    let mut served = table(["champion", "challenger", "from", "until", "why"]);
    for span in model["served"].as_array().into_iter().flatten() {
        served.add_row([
            text(&span["champion"]),
            text(&span["challenger"]),
            moment(&span["from"]),
            moment(&span["until"]),
            text(&span["reason"]),
        ]);
    }
    println!("{served}");
}

/// The verdict of a registered model; only its names, where it was not waited for.
fn registered(pipeline: &str, answer: &Json) -> Result<()> {
    if answer["stage"].is_null() {
        println!("run {} makes version {}", answer["run"], answer["version"]);
        return Ok(());
    }
    print(pipeline, answer);
    verdict(pipeline, answer)
}

fn told(answer: &Json) {
    for event in answer["events"].as_array().into_iter().flatten() {
        println!("version {}: {}", text(&event["version"]), text(&event["kind"]));
    }
    if answer["cancelled"] == true {
        println!("the run was ended");
    }
}

fn write_card(answer: &Json, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("creating {}", to.display()))?;
    let write = |name: &str, content: &str| {
        // Names come from the node: nothing may be written elsewhere.
        if name.contains(['/', '\\']) || name.starts_with('.') {
            bail!("the node named a file `{name}`");
        }
        let path = to.join(name);
        std::fs::write(&path, content).with_context(|| format!("writing {}", path.display()))
    };
    write("card.md", answer["markdown"].as_str().unwrap_or_default())?;
    for (name, svg) in answer["plots"].as_object().into_iter().flatten() {
        write(name, svg.as_str().unwrap_or_default())?;
    }
    println!("{}", to.join("card.md").display());
    Ok(())
}
