//! `falaj replay`: a row again, from raw events.

use anyhow::{Result, bail};
use falaj_event::ids::hex;
use serde_json::{Value as Json, json};

use super::Session;
use super::features::key_fields;
use super::text::{count, keys, log_time, spinner, table, time};
use crate::backend::rows::key_bytes;
use crate::cli::Replay;

/// Replays and prints the verdict.
///
/// # Errors
/// When the node cannot be asked, or the replayed row is not the one that was served.
pub async fn run(options: Replay, as_json: bool) -> Result<()> {
    let session = Session::open_existing(&options.connection).await?;
    let outcome = ask(&session, &options).await;
    session.close().await?;
    let answer = outcome?;
    match as_json {
        true => println!("{answer}"),
        false if options.prediction.is_some() => print_prediction(&answer),
        false => print(&options, &answer),
    }
    if answer["verdict"] == "MISMATCH" {
        bail!("what was replayed is not what was served");
    }
    Ok(())
}

async fn ask(session: &Session, options: &Replay) -> Result<Json> {
    if let Some(id) = &options.prediction {
        let bar = spinner("replaying raw events");
        let body = json!({ "pipeline": options.view, "id": id });
        let answer = session.client.json_action("replay_prediction", &body).await;
        bar.finish_and_clear();
        return Ok(answer?);
    }
    let fields = key_fields(&session.client, &options.view).await?;
    let key = options.key.clone().unwrap_or_default();
    let batch = keys(&[key], &fields)?;
    let columns: Vec<usize> = (0..fields.len()).collect();
    let key = key_bytes(&batch, &columns)?.pop().flatten().unwrap_or_default();
    let at = options.at.as_deref().map(log_time).transpose()?;
    let bar = spinner("replaying raw events");
    let body = json!({ "view": options.view, "key": hex(&key), "at": at });
    let answer = session.client.json_action("replay", &body).await;
    bar.finish_and_clear();
    Ok(answer?)
}

fn print_prediction(answer: &Json) {
    let at = answer["t"].as_i64().unwrap_or_default();
    println!(
        "prediction {} by {} version {} at T = {at} ({}), recomputed from {} events",
        answer["prediction_id"].as_str().unwrap_or_default(),
        answer["pipeline"].as_str().unwrap_or_default(),
        answer["model_version"],
        time(at),
        count(answer["events_replayed"].as_u64().unwrap_or_default())
    );
    let mut inputs = table(["input", "recomputed"]);
    for (name, value) in answer["inputs"].as_object().into_iter().flatten() {
        inputs.add_row([name.clone(), value.to_string()]);
    }
    println!("{inputs}");
    for difference in answer["differences"].as_array().into_iter().flatten() {
        println!(
            "{}: logged {}, recomputed {}",
            difference["input"], difference["logged"], difference["recomputed"]
        );
    }
    println!(
        "score: logged {}, recomputed {}",
        answer["score"]["logged"], answer["score"]["recomputed"]
    );
    println!("{}", answer["verdict"].as_str().unwrap_or_default());
}

fn print(options: &Replay, answer: &Json) {
    let at = answer["t"].as_i64().unwrap_or_default();
    println!(
        "{} at T = {at} ({}), recomputed from {} events",
        options.view,
        time(at),
        count(answer["events_replayed"].as_u64().unwrap_or_default())
    );
    let mut rows = table(["column", "recomputed", "served"]);
    let names = [&answer["recomputed"], &answer["served"]].into_iter().find_map(Json::as_object);
    for name in names.into_iter().flat_map(|row| row.keys()) {
        rows.add_row([
            name.clone(),
            answer["recomputed"][name].to_string(),
            answer["served"][name].to_string(),
        ]);
    }
    println!("{rows}\n{}", answer["verdict"].as_str().unwrap_or_default());
}
