//! The demo's claims, each checked against what the node says and what the simulation knows.
//!
//! A claim that does not hold is a line of the table with its evidence, not an early end.

use std::collections::HashSet;

use anyhow::{Context, Result};
use arrow::array::AsArray;
use falaj_event::ids::hex;
use falaj_gateway::Client;
use falaj_gateway::wire::{LookupOptions, ReadTicket};
use serde_json::{Value as Json, json};

use super::Line;
use super::lookups::{Sample, customer_view, key};
use super::rows::TOPICS;
use super::simulation::{Flaw, Happening, Simulation};
use super::stream::Streamer;
use crate::backend::rows::key_bytes;
use crate::verbs::text::{count, duration, spinner, time};

const PAYMENTS: usize = 2;

/// Checks every claim.
///
/// # Errors
/// When the node cannot be asked.
pub async fn run(
    client: &Client,
    simulation: &Simulation,
    happenings: &[Happening],
    streamer: &Streamer<'_>,
    reopened_us: u64,
) -> Result<Vec<Line>> {
    let bar = spinner("checking");
    let step = |what: &str| bar.set_message(what.to_owned());
    let mut lines = vec![streamed(streamer)];
    step("checking that every acknowledged event is in the log, once");
    lines.push(events_are_there_once(client, streamer).await?);
    lines.push(malformed_are_told(client, happenings, streamer).await?);
    lines.push(survived_the_kill(streamer, reopened_us));
    lines.push(retry_is_recognised(client, streamer).await?);
    step("waiting for the views");
    lines.push(own_writes_are_read(client, streamer).await?);
    lines.push(lookups_were_fast(streamer));
    step("reading old answers again, as of their T");
    lines.push(answers_read_the_same(client, &streamer.tally().samples).await?);
    step("verifying every block, hash and root of the log");
    lines.push(log_is_verified(client).await?);
    step("rebuilding the state from the log");
    lines.push(state_is_rebuilt(client).await?);
    step("replaying a key at an old epoch");
    lines.push(replay_is_equal(client, simulation, streamer).await?);
    bar.finish_and_clear();
    Ok(lines)
}

fn line(claim: &str, holds: bool, evidence: String) -> Line {
    Line { claim: claim.to_owned(), evidence, holds }
}

fn streamed(streamer: &Streamer<'_>) -> Line {
    let tally = streamer.tally();
    let (mut accepted, mut rejected) = (0, 0);
    for topic in 0..TOPICS.len() {
        let (good, bad, _) = tally.sums(streamer, topic);
        accepted += good;
        rejected += bad;
    }
    let rate = (accepted + rejected) as f64 / tally.seconds.max(1e-9);
    let status = &tally.status;
    let evidence = format!(
        "{} events in {:.0} s: {} events/s in {} epochs, readable {} after commit (p99 {})",
        count(accepted + rejected),
        tally.seconds,
        count(rate as u64),
        count(status["epochs"].as_u64().unwrap_or_default()),
        duration(status["freshness_us_p50"].as_u64().unwrap_or_default()),
        duration(status["freshness_us_p99"].as_u64().unwrap_or_default()),
    );
    line(
        "events streamed through Flight, each batch durable before its acknowledgement",
        accepted > 0,
        evidence,
    )
}

/// Rows of a topic, and how many different values `column` has in them.
async fn scan_topic(client: &Client, topic: &str, column: &str) -> Result<(u64, u64)> {
    let mut reading = client.read(&ReadTicket::topic(topic)).await?;
    let (mut rows, mut seen) = (0, HashSet::new());
    while let Some(batch) = reading.next().await? {
        rows += batch.num_rows() as u64;
        let values = batch.column_by_name(column).context("the column is declared")?;
        seen.extend(values.as_string::<i32>().iter().flatten().map(str::to_owned));
    }
    Ok((rows, seen.len() as u64))
}

async fn events_are_there_once(client: &Client, streamer: &Streamer<'_>) -> Result<Line> {
    let (accepted, _, duplicates) = streamer.tally().sums(streamer, PAYMENTS);
    // What a killed node had appended without telling is acknowledged as a duplicate afterwards.
    let expected = accepted + duplicates;
    let (rows, ids) = scan_topic(client, TOPICS[PAYMENTS], "payment_id").await?;
    Ok(line(
        "every acknowledged payment is in the log, once",
        rows == expected && ids == rows,
        format!(
            "{} acknowledged, {} in the log, {} different ids",
            count(expected),
            count(rows),
            count(ids)
        ),
    ))
}

async fn malformed_are_told(
    client: &Client,
    happenings: &[Happening],
    streamer: &Streamer<'_>,
) -> Result<Line> {
    let flawed = |happening: &&Happening| matches!(happening, Happening::Payment(payment) if payment.flaw.is_some());
    let sent = happenings.iter().filter(flawed).count() as u64;
    let missing = happenings.iter().filter(|happening| {
        matches!(happening, Happening::Payment(payment) if payment.flaw == Some(Flaw::MissingCustomer))
    });
    let missing = missing.count();
    let (_, rejected, _) = streamer.tally().sums(streamer, PAYMENTS);
    let info = client.info(&["topics", "payments.rejected"]).await?;
    let kept = u64::try_from(info.total_records).unwrap_or(0);
    Ok(line(
        "malformed payments are kept in payments.rejected with every reason; their neighbours pass",
        kept == sent && rejected <= sent,
        format!("{} sent ({} without a customer), {} kept", count(sent), missing, count(kept)),
    ))
}

fn survived_the_kill(streamer: &Streamer<'_>, reopened_us: u64) -> Line {
    let tally = streamer.tally();
    let whole = tally.acks.iter().all(Option::is_some);
    line(
        "the node was killed (SIGKILL) under load and reopened; unacknowledged batches were sent again",
        whole,
        format!(
            "open again in {}; {} rows sent again, {} of them were already in the log",
            duration(reopened_us),
            count(tally.resent_rows),
            count(tally.resent_duplicates)
        ),
    )
}

async fn retry_is_recognised(client: &Client, streamer: &Streamer<'_>) -> Result<Line> {
    let index = streamer.first_batch(PAYMENTS).context("there are payments")?;
    let original = streamer.tally().acks[index].clone().context("it was acknowledged")?;
    let again = streamer.send_again(client, index).await?;
    let holds = again.t == original.t && again.accepted == 0 && again.duplicates > 0;
    Ok(line(
        "a batch sent twice is appended once and answered with its original T",
        holds,
        format!("T {} both times, {} duplicates", original.t.unwrap_or_default(), again.duplicates),
    ))
}

async fn own_writes_are_read(client: &Client, streamer: &Streamer<'_>) -> Result<Line> {
    let newest =
        streamer.tally().acks.iter().flatten().filter_map(|ack| ack.t).max().unwrap_or_default();
    let view = customer_view(client).await?;
    let mut stream = client.features(&[&view], key("")?.schema().as_ref()).await?;
    let options = LookupOptions {
        min_t: Some(newest.0),
        timeout_ms: Some(120_000),
        ..LookupOptions::default()
    };
    let answer = stream.lookup(&key("CUS-000000")?, &options).await?;
    Ok(line(
        "a read that asks for min_T sees one's own last write",
        answer.t >= newest.0,
        format!("asked for {newest}, read at {}", answer.t),
    ))
}

fn lookups_were_fast(streamer: &Streamer<'_>) -> Line {
    let tally = streamer.tally();
    line(
        "features were looked up on an open Flight stream all the while",
        tally.lookups.len() > 100,
        format!(
            "{} lookups under load: p50 {}, p99 {}",
            count(tally.lookups.len()),
            duration(tally.lookup_us(0.5)),
            duration(tally.lookup_us(0.99))
        ),
    )
}

async fn answers_read_the_same(client: &Client, samples: &[Sample]) -> Result<Line> {
    let (mut same, mut streams) = (0, std::collections::BTreeMap::new());
    for sample in samples {
        if !streams.contains_key(&sample.view) {
            let stream = client.features(&[&sample.view], key("")?.schema().as_ref()).await?;
            streams.insert(sample.view.clone(), stream);
        }
        let Some(stream) = streams.get_mut(&sample.view) else { continue };
        let options = LookupOptions { as_of: Some(sample.t), ..LookupOptions::default() };
        let again = stream.lookup(&key(&sample.customer)?, &options).await?;
        same += usize::from(again.batch == sample.batch && again.t == sample.t);
    }
    Ok(line(
        "answers given under load, before and after the kill, read the same as of their T",
        same == samples.len() && !samples.is_empty(),
        format!("{same} of {} bit for bit", samples.len()),
    ))
}

async fn log_is_verified(client: &Client) -> Result<Line> {
    let log = client.json_action("audit_log", &Json::Null).await?;
    Ok(line(
        "the log is whole: chain of epochs, every block, event hash and Merkle root",
        log["verified"] == true,
        format!(
            "{} epochs, {} events",
            count(log["epochs"].as_u64().unwrap_or_default()),
            count(log["events"].as_u64().unwrap_or_default())
        ),
    ))
}

async fn state_is_rebuilt(client: &Client) -> Result<Line> {
    let rebuilt = client.json_action("audit_rebuild", &Json::Null).await?;
    let entries = |side: &str| -> u64 {
        let families = rebuilt[side]["families"].as_array();
        families.into_iter().flatten().filter_map(|family| family["entries"].as_u64()).sum()
    };
    let digest = rebuilt["present"]["digest"].as_str().unwrap_or_default();
    Ok(line(
        "state/ rebuilt from the log is equal, entry for entry",
        rebuilt["equal"] == true,
        format!(
            "{} and {} entries, digest {}…, {:.1} s",
            count(entries("present")),
            count(entries("rebuilt")),
            digest.get(..16).unwrap_or(digest),
            rebuilt["seconds"].as_f64().unwrap_or_default()
        ),
    ))
}

async fn replay_is_equal(
    client: &Client,
    simulation: &Simulation,
    streamer: &Streamer<'_>,
) -> Result<Line> {
    let view = customer_view(client).await?;
    let sample = streamer.tally().samples.first().context(
        "no lookup found a customer while events were streamed: stream more of them (--events)",
    )?;
    let bytes = key_bytes(&key(&sample.customer)?, &[0])?.pop().flatten().unwrap_or_default();
    // A moment between epochs, just before behaviour drifts.
    let at = u64::try_from(simulation.drift_us()).unwrap_or_default().saturating_sub(1);
    let body = json!({ "view": view, "key": hex(&bytes), "at": at });
    let replay = client.json_action("replay", &body).await?;
    let t = replay["t"].as_i64().unwrap_or_default();
    Ok(line(
        "a key replayed from raw events at an old epoch gives what was served then",
        replay["verdict"] == "EQUAL",
        format!(
            "{} {} at {} from {} events: {}",
            view,
            sample.customer,
            time(t),
            count(replay["events_replayed"].as_u64().unwrap_or_default()),
            replay["verdict"].as_str().unwrap_or_default()
        ),
    ))
}
