//! The demo's claims about the model loop, each checked against what the log says.
//!
//! A claim that does not hold is a line of the table with its evidence, not an early end.

use anyhow::Result;
use falaj_gateway::Client;
use falaj_gateway::wire::ReadTicket;
use serde_json::Value as Json;

use super::Line;
use super::models::{Asked, PIPELINE, registry, replay};
use super::simulation::Simulation;
use crate::json::batch_json;
use crate::verbs::text::{count, duration, time};

/// Checks every claim.
///
/// # Errors
/// When the node cannot be asked.
pub async fn run(client: &Client, simulation: &Simulation, asked: &Asked) -> Result<Vec<Line>> {
    let state = registry(client).await?;
    let drift = rows(client, "falaj.drift").await?;
    let predictions = rows(client, &format!("{PIPELINE}.predictions")).await?;
    let outcomes = rows(client, &format!("{PIPELINE}.outcomes")).await?;
    Ok(vec![
        first_version(&state),
        answered(asked, &predictions),
        judged(&predictions, &outcomes),
        detected(simulation, &drift, &predictions),
        retrained(simulation, &state),
        recovered(simulation, &outcomes),
        replayed(client, asked).await?,
    ])
}

async fn rows(client: &Client, topic: &str) -> Result<Vec<Json>> {
    let mut reading = client.read(&ReadTicket::topic(topic)).await?;
    let mut all = Vec::new();
    while let Some(batch) = reading.next().await? {
        all.extend(batch_json(&batch)?);
    }
    Ok(all)
}

fn line(claim: &str, holds: bool, evidence: String) -> Line {
    Line { claim: claim.to_owned(), evidence, holds }
}

fn events<'a>(state: &'a Json, kind: &str) -> Vec<&'a Json> {
    let all = state["events"].as_array().into_iter().flatten();
    all.filter(|event| event["kind"] == kind).collect()
}

fn first_version(state: &Json) -> Line {
    let first = state["versions"].as_array().and_then(|versions| versions.first());
    let first = first.unwrap_or(&Json::Null);
    let gates = first["gates"].as_array().map_or(0, Vec::len);
    let passed = first["gates"].as_array().into_iter().flatten();
    let failed = passed.filter(|gate| gate["verdict"] == "failed").count();
    line(
        "a first model is trained on point-in-time features, passes its gates and serves",
        gates > 0 && failed == 0 && !events(state, "promoted").is_empty(),
        format!(
            "AUC {:.3}, log loss {:.3} on its test rows; {gates} gates, {failed} failed",
            first["metrics"]["auc"].as_f64().unwrap_or(f64::NAN),
            first["metrics"]["log_loss"].as_f64().unwrap_or(f64::NAN),
        ),
    )
}

fn answered(asked: &Asked, predictions: &[Json]) -> Line {
    let served = predictions.iter().filter(|row| row["served"] == true).count() as u64;
    let told = match &asked.error {
        Some(error) => format!("; {} without a score ({error})", count(asked.errors)),
        None => String::new(),
    };
    line(
        "predictions are durable events before they are answered",
        asked.scored > 0 && served >= asked.scored,
        format!(
            "{} scored, {} in the log; a request with features as of the till's last batch p50 {}, p99 {}{told}",
            count(asked.scored),
            count(served),
            duration(asked.latency.value_at_quantile(0.5)),
            duration(asked.latency.value_at_quantile(0.99)),
        ),
    )
}

fn judged(predictions: &[Json], outcomes: &[Json]) -> Line {
    let ids: std::collections::BTreeSet<_> =
        outcomes.iter().map(|row| row["prediction_id"].to_string()).collect();
    line(
        "labels that come days later find their predictions",
        !outcomes.is_empty(),
        format!(
            "{} of {} predictions are judged",
            count(ids.len() as u64),
            count(predictions.iter().filter(|row| row["served"] == true).count() as u64)
        ),
    )
}

fn micros(value: &Json) -> i64 {
    use arrow::compute::kernels::cast_utils::Parser;
    use arrow::datatypes::TimestampMicrosecondType;
    match value {
        Json::Number(number) => number.as_i64().unwrap_or_default(),
        Json::String(text) => TimestampMicrosecondType::parse(text).unwrap_or_default(),
        _ => 0,
    }
}

/// Alarms of single tests that the claim lets pass before the drift.
const MOST_EARLY: usize = 5;

fn detected(simulation: &Simulation, drift: &[Json], predictions: &[Json]) -> Line {
    let from = simulation.drift_us();
    let claim =
        format!("injected drift is detected, with at most {MOST_EARLY} false alarms before it");
    let tests = || drift.iter().filter(|row| row["kind"] == "drift");
    let end = |row: &Json| micros(&row["window_end"]);
    let before: Vec<&Json> = tests().filter(|row| end(row) <= from).collect();
    let windows: std::collections::BTreeSet<i64> = before.iter().map(|row| end(row)).collect();
    let early = before.iter().filter(|row| row["alarm"] == true).count();
    let noise = format!(
        "{early} false alarms in {} tests of the {} windows before it",
        count(before.len() as u64),
        windows.len()
    );
    let alarms = tests().filter(|row| row["alarm"] == true);
    let Some(first) = alarms.map(end).filter(|at| *at > from).min() else {
        return line(&claim, false, format!("it was not detected; {noise}"));
    };
    let between = predictions
        .iter()
        .filter(|row| row["served"] == true && (from..first).contains(&micros(&row["t"])))
        .count();
    line(
        &claim,
        early <= MOST_EARLY,
        format!(
            "injected at {}, first alarm at {} after {} predictions; {noise}",
            time(from),
            time(first),
            count(between as u64)
        ),
    )
}

fn retrained(simulation: &Simulation, state: &Json) -> Line {
    let promoted = events(state, "promoted");
    let after =
        promoted.iter().filter(|event| micros(&event["at"]) > simulation.drift_us()).count();
    let asked = events(state, "requested");
    let by_rule = asked
        .iter()
        .find(|event| event["actor"].as_str().is_some_and(|actor| actor.starts_with("rule:")));
    line(
        "it is retrained, gated and promoted by rule",
        after > 0 && by_rule.is_some(),
        format!(
            "{} runs asked for, {} promoted after the drift; {}",
            asked.len(),
            after,
            by_rule.map_or("none by rule".to_owned(), |event| {
                format!(
                    "version {} by {} at {}",
                    event["version"],
                    event["actor"].as_str().unwrap_or_default(),
                    time(micros(&event["at"]))
                )
            })
        ),
    )
}

/// Mean log loss of served predictions made in `[from, to)`.
fn loss(outcomes: &[Json], from: i64, to: i64) -> (f64, usize) {
    let of = outcomes
        .iter()
        .filter(|row| row["served"] == true && (from..to).contains(&micros(&row["predicted_at"])));
    let losses: Vec<f64> = of.filter_map(|row| row["log_loss"].as_f64()).collect();
    (losses.iter().sum::<f64>() / losses.len().max(1) as f64, losses.len())
}

/// Judged predictions that a day needs to be told.
const LEAST_A_DAY: usize = 30;
const DAY_US: i64 = 86_400_000_000;

fn recovered(simulation: &Simulation, outcomes: &[Json]) -> Line {
    let drift = simulation.drift_us();
    let (before, _) = loss(outcomes, 0, drift);
    let end = simulation.start_us() + simulation.span_us();
    let days: Vec<f64> = (0..(end - drift) / DAY_US)
        .map(|day| loss(outcomes, drift + day * DAY_US, drift + (day + 1) * DAY_US))
        .filter(|(_, rows)| *rows >= LEAST_A_DAY)
        .map(|(loss, _)| loss)
        .collect();
    let worst = days.iter().copied().fold(f64::NAN, f64::max);
    let last = days.last().copied().unwrap_or(f64::NAN);
    line(
        "and the model is better again",
        last < worst,
        format!(
            "log loss by day: {before:.3} before the drift, {worst:.3} on the worst day after it, {last:.3} on \
             the last that is judged"
        ),
    )
}

async fn replayed(client: &Client, asked: &Asked) -> Result<Line> {
    let claim = "a prediction is recomputed from raw events and its model's hash, bit for bit";
    let Some(id) = asked.ids.get(asked.ids.len() / 2) else {
        return Ok(line(claim, false, "there is no prediction".to_owned()));
    };
    let answer = replay(client, id).await?;
    Ok(line(
        claim,
        answer["verdict"] == "EQUAL",
        format!(
            "{id}: {} from {} events, score {}",
            answer["verdict"].as_str().unwrap_or_default(),
            count(answer["events_replayed"].as_u64().unwrap_or_default()),
            answer["score"]["recomputed"]
        ),
    ))
}
