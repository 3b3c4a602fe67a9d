//! Retention: which events a topic no longer keeps, and cutting them from the log behind a baseline.
//!
//! A topic's `retention` says for how long after its epoch's `T` an event is kept, measured back from
//! the newest `T`. Tables are never cut, because their rows are read as long as they stand, and an
//! event stays at least as long as `unique_within` must remember it. Nothing is cut that the newest
//! baseline does not stand in for. Does not know how a log removes anything.

use anyhow::{Context, Result};
use falaj_definitions::expectations::Rule;
use falaj_definitions::topics::TopicDefinition;
use falaj_event::{LogTime, TopicKind};
use falaj_log::Log;
use falaj_log::baseline::may_cut;
use serde_json::{Value as Json, json};

use crate::baseline;
use crate::core::Core;

/// What a topic's retention lets go.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Due {
    topic: String,
    id: falaj_event::TopicId,
    /// The first epoch that would stay.
    first_kept: u64,
    /// Events below it that are still there.
    events: u64,
}

/// How long after its epoch's `T` an event of the topic is kept; `None`: for ever.
fn kept_us(topic: &TopicDefinition) -> Option<u64> {
    if topic.schema.kind == TopicKind::Table {
        return None;
    }
    let remembered = topic.expectations.iter().filter_map(|expectation| match expectation.rule {
        Rule::UniqueWithin(within_us) => Some(within_us),
        _ => None,
    });
    Some(topic.retention_us?.max(remembered.max().unwrap_or(0)))
}

/// The first epoch with `T` no more than `kept_us` before `newest`.
fn first_within(log: &dyn Log, newest: LogTime, kept_us: u64) -> Result<u64> {
    let oldest = newest.0.saturating_sub(kept_us);
    let Some(before) = oldest.checked_sub(1) else { return Ok(0) };
    Ok(log.entry_at(LogTime(before))?.map_or(0, |entry| entry.record.epoch + 1))
}

fn events_between(log: &dyn Log, topic: falaj_event::TopicId, from: u64, to: u64) -> Result<u64> {
    let mut events = 0;
    for epoch in from..to {
        let entry = log.entry(epoch)?.with_context(|| format!("epoch {epoch} is missing"))?;
        let of = entry.partitions.iter().filter(|part| part.topic == topic);
        events += of.map(|part| u64::from(part.count)).sum::<u64>();
    }
    Ok(events)
}

/// What could go from every topic, were nothing above `limit` needed.
fn due(core: &Core, limit: u64) -> Result<Vec<Due>> {
    let log = core.log.as_ref();
    let Some(tail) = log.tail() else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for topic in core.catalog.topics.iter() {
        let Some(kept_us) = kept_us(topic) else { continue };
        let id = topic.schema.id();
        let first_kept = first_within(log, tail.record.t, kept_us)?.min(limit);
        let events = events_between(log, id, log.first_kept(id), first_kept)?;
        if events > 0 {
            found.push(Due { topic: topic.schema.name.clone(), id, first_kept, events });
        }
    }
    Ok(found)
}

fn described(due: &[Due]) -> Json {
    due.iter()
        .map(|due| {
            json!({ "topic": due.topic, "first_kept_epoch": due.first_kept, "events": due.events })
        })
        .collect()
}

/// Lets go what the topics' retention no longer keeps: takes a baseline, logs it, cuts the log behind
/// it, and removes older baselines. Nothing happens where nothing is due.
///
/// # Errors
/// When there is no state to take a baseline of, or something cannot be written; what was cut by then
/// stays cut, and the next run goes on.
pub fn run(core: &Core, dry_run: bool) -> Result<Json> {
    let wanted = due(core, u64::MAX)?;
    if dry_run || wanted.is_empty() {
        return Ok(
            json!({ "dry_run": dry_run, "due": described(&wanted), "cut": [], "baseline": null }),
        );
    }
    let taken = baseline::take(core).context("taking a baseline")?;
    let all = baseline::logged(&core.reader, &core.catalog)?;
    let cut = due(core, taken.reads_from)?;
    for due in &cut {
        may_cut(&all, due.first_kept)?;
        core.log.cut(due.id, due.first_kept).with_context(|| format!("cutting `{}`", due.topic))?;
    }
    let trusted = &taken.logged.baseline;
    baseline::keep_only(&core.options.data, trusted)?;
    Ok(json!({
        "dry_run": false,
        "due": described(&wanted),
        "cut": described(&cut),
        "baseline": {
            "name": trusted.name.to_string(),
            "epoch": trusted.epoch,
            "t": trusted.t,
            "rows": trusted.rows,
            "bytes": trusted.bytes,
            "state_digest": trusted.state_digest.to_string(),
            "location": trusted.location,
            "logged_in_epoch": taken.logged.logged_in,
        },
    }))
}
