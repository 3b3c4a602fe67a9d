//! Replay: one key's row at an old `T`, recomputed from raw events, beside what was served.
//!
//! Uses nothing of the present state for the recomputation; where retention has cut the log, it begins
//! with the newest baseline and names it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use falaj_dataflow::{Engine, Options as EngineOptions, Resume};
use falaj_definitions::plan::{Source, ViewPlan};
use falaj_event::encoding::decode_row;
use falaj_event::{LogTime, ViewRow};
use falaj_log::baseline::Baseline;
use falaj_log::reader::ReadOptions;
use serde_json::{Value as Json, json};

use crate::audit::{self, trusted};
use crate::baseline;
use crate::core::Core;
use crate::json::value_json;
use crate::pump::{epoch_input, resume, source_topics};

/// Recomputes the row of `key` in `view` at the greatest epoch `T <= at` (default: the newest) and
/// compares it, bit for bit, with the stored one.
///
/// # Errors
/// An unknown view, or a log that cannot be read. A difference is an answer, not an error.
pub fn replay(core: &Core, view: &str, key: &[u8], at: Option<LogTime>) -> Result<Json> {
    let plans = with_inputs(&core.catalog.views, view)
        .with_context(|| format!("there is no view called `{view}`"))?;
    let plan = plans.last().context("a view reads at least itself")?;
    let asked = match at {
        Some(at) => at,
        None => core.store.progress().rows.context("nothing has been computed yet")?.t,
    };
    let entry = core.log.entry_at(asked)?.context("the log has no epoch at or before that T")?;
    let (epoch, t) = (entry.record.epoch, entry.record.t);
    let start = start(core, &plans, key, epoch)?;
    let from = start.baseline.as_ref().map(trusted);
    let (row, events) = recompute(core, start, plan, key, epoch, t)?;
    let served = core.store.snapshot()?.get_as_of(plan.id, key, t);
    let verdict = match (&served, &row) {
        (Ok(None), None) => "EQUAL",
        (Ok(Some(stored)), Some(row))
            if stored.columns == row.columns
                && stored.latest_event_time == row.latest_event_time =>
        {
            "EQUAL"
        }
        (Ok(_), _) => "MISMATCH",
        (Err(falaj_views::ViewError::NotRetained { .. }), _) => "NOT_RETAINED",
        (Err(_), _) => bail!("{}", served.err().map(|error| error.to_string()).unwrap_or_default()),
    };
    let served_row = served.ok().flatten().map(|row| row.columns);
    Ok(json!({
        "view": view,
        "asked": asked,
        "t": t,
        "epoch": epoch,
        "events_replayed": events,
        "baseline": from,
        "verdict": verdict,
        "recomputed": row.map(|row| named(plan, &row.columns)).transpose()?,
        "served": served_row.map(|columns| named(plan, &columns)).transpose()?,
        "definition": plan.hash,
    }))
}

/// The view and all views that it reads, in dependency order.
pub(crate) fn with_inputs(views: &[Arc<ViewPlan>], name: &str) -> Option<Vec<Arc<ViewPlan>>> {
    let mut wanted = BTreeSet::new();
    let mut next = Some(Arc::clone(views.iter().find(|view| view.name == name)?));
    while let Some(view) = next {
        next = match &view.source {
            Source::View(input) => Some(Arc::clone(input)),
            Source::Topic(_) => None,
        };
        wanted.insert(view.id);
    }
    Some(views.iter().filter(|view| wanted.contains(&view.id)).cloned().collect())
}

/// What a replay begins with.
struct Start {
    plans: Vec<Arc<ViewPlan>>,
    resume: Option<Resume>,
    /// The key's row there.
    row: Option<ViewRow>,
    baseline: Option<Baseline>,
}

/// Nothing, or the newest baseline where events that the views read are cut from the log.
fn start(core: &Core, plans: &[Arc<ViewPlan>], key: &[u8], until: u64) -> Result<Start> {
    if baseline::whole_from(core.log.as_ref(), plans) == 0 {
        return Ok(Start { plans: plans.to_vec(), resume: None, row: None, baseline: None });
    }
    let view = plans.last().context("a view reads at least itself")?.id;
    let folder = tempfile::Builder::new().prefix("replay.").tempdir_in(&core.options.data.0)?;
    let (store, baseline) = audit::begin(core, &folder.path().join("state"))?;
    if let Some(baseline) = baseline.as_ref().filter(|baseline| until < baseline.epoch) {
        bail!(
            "raw events below T {} are cut from the log by retention; replay from there on, or read \
             what was served then (`falaj features --as-of`)",
            baseline.t
        );
    }
    let row = store.snapshot()?.stored(view, key)?;
    // The baseline's operator state is that of all views together.
    Ok(Start { plans: core.catalog.views.clone(), resume: resume(&store)?, row, baseline })
}

/// The row of `key` in the last of `plans` at the epoch `epoch`, whose time is `t`, and how many events
/// it was recomputed from.
///
/// # Errors
/// When the log cannot be read that far back.
pub(crate) fn row_at(
    core: &Core,
    plans: &[Arc<ViewPlan>],
    key: &[u8],
    epoch: u64,
    t: LogTime,
) -> Result<(Option<ViewRow>, u64)> {
    let view = plans.last().context("a view reads at least itself")?;
    recompute(core, start(core, plans, key, epoch)?, view, key, epoch, t)
}

fn recompute(
    core: &Core,
    start: Start,
    view: &ViewPlan,
    key: &[u8],
    until: u64,
    t: LogTime,
) -> Result<(Option<ViewRow>, u64)> {
    let Start { plans, resume, mut row, .. } = start;
    let first = resume.as_ref().map_or(0, |resume| resume.epoch + 1);
    let reader = core.reader.with_options(ReadOptions {
        topics: Some(source_topics(&plans).into_iter().collect()),
        ..ReadOptions::default()
    });
    let engine = Engine::start(EngineOptions {
        workers: 1,
        checkpoint_every: u64::MAX,
        max_epochs_in_flight: IN_FLIGHT,
        plans,
        resume,
    })?;
    let (mut events, mut taken) = (0, first);
    let take = |wait: Duration, row: &mut Option<ViewRow>| -> Result<bool> {
        let Some(changes) = engine.take(wait)? else { return Ok(false) };
        for change in changes.rows {
            if change.view == view.id && change.key.as_slice() == key {
                *row = change.row;
            }
        }
        Ok(true)
    };
    for epoch in first..=until {
        let input = reader.epoch(epoch)?.with_context(|| format!("epoch {epoch} is missing"))?;
        events += input.topics.iter().map(|part| part.len() as u64).sum::<u64>();
        if epoch - taken >= IN_FLIGHT as u64 {
            while !take(Duration::from_millis(100), &mut row)? {}
            taken += 1;
        }
        engine.submit(epoch_input(input))?;
    }
    while taken <= until {
        taken += u64::from(take(Duration::from_millis(100), &mut row)?);
    }
    engine.stop()?;
    // A row says what the passing of time makes of it; what is asked for is the row at `t`.
    if let Some(row) = &mut row {
        row.columns = row.columns_at(t).context("a row that was just computed is damaged")?;
    }
    Ok((row, events))
}

const IN_FLIGHT: usize = 32;

fn named(plan: &ViewPlan, columns: &[u8]) -> Result<Json> {
    let values = decode_row(columns)?;
    let pairs = plan.output.iter().zip(&values);
    Ok(Json::Object(
        pairs.map(|(column, value)| (column.name.clone(), value_json(value))).collect(),
    ))
}
