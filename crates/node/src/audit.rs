//! Audits: the digest of all state, a rebuild of the state beside the present one, and a full
//! verification of the log.
//!
//! Knows no verb and no door; progress goes to a callback.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use falaj_log::baseline::Baseline;
use falaj_views::ViewStore;
use serde_json::{Value as Json, json};

use crate::baseline::{self, Beginning};
use crate::core::{Core, plan_set_hash, view_metas};
use crate::pump::PumpOptions;

/// Called with (done, all).
pub type Report<'a> = &'a mut dyn FnMut(u64, u64);

/// The digest of all state, taken between two epochs.
///
/// # Errors
/// When the state cannot be read.
pub fn state(core: &Core) -> Result<Json> {
    core.with_views_at_rest(|| digest(&core.store))
}

fn digest(store: &ViewStore) -> Result<Json> {
    let digest = store.digest(&mut |_| {})?;
    let progress = store.progress();
    Ok(json!({
        "digest": digest.digest.to_string(),
        "epoch": progress.rows.map(|progress| progress.epoch),
        "t": progress.rows.map(|progress| progress.t),
        "families": digest.families.iter().map(|family| json!({
            "name": family.family.name(),
            "entries": family.entries,
            "bytes": family.bytes,
            "digest": family.digest.to_string(),
        })).collect::<Vec<_>>(),
    }))
}

/// Rebuilds the state from the log beside the present one, and compares them entry for entry.
///
/// # Errors
/// When either cannot be read, or the views had stopped. A difference is an answer, not an error.
pub fn rebuild(core: &Core, report: Report<'_>) -> Result<Json> {
    core.with_views_at_rest(|| {
        let Some(progress) = core.store.progress().rows else {
            bail!("nothing has been computed yet: there is no state to compare with");
        };
        let beside = core.options.data.0.join("state.rebuilt");
        ViewStore::destroy(&beside)?;
        let started = std::time::Instant::now();
        let outcome = rebuild_into(core, &beside, progress.epoch, report)
            .and_then(|(store, from)| compare(core, &store, from.as_ref(), started));
        ViewStore::destroy(&beside).context("removing the rebuilt state")?;
        outcome
    })
}

fn rebuild_into(
    core: &Core,
    beside: &std::path::Path,
    until: u64,
    report: Report<'_>,
) -> Result<(Arc<ViewStore>, Option<Baseline>)> {
    let (store, baseline) = begin(core, beside)?;
    let store = Arc::new(store);
    let at = baseline.as_ref().map_or(0, |baseline| baseline.epoch + 1);
    let options = PumpOptions { until: Some(until), ..core.options.pump.clone() };
    let pump = core.new_pump(options, &store)?;
    pump.wait_done(|state| report(at + state.applied_epochs(), until + 1))?;
    pump.stop()?;
    Ok((store, baseline))
}

/// A store to rebuild in: empty, or the newest baseline where the log is cut.
///
/// # Errors
/// When the log is cut and no baseline stands in for what is missing.
pub fn begin(core: &Core, beside: &std::path::Path) -> Result<(ViewStore, Option<Baseline>)> {
    let plans = &core.catalog.views;
    let whole_from = baseline::whole_from(core.log.as_ref(), plans);
    if whole_from > 0 {
        let baselines = baseline::logged(&core.reader, &core.catalog)?;
        let data = &core.options.data;
        let beginning = Beginning { data, baselines: &baselines, plans, whole_from };
        let (store, baseline) = beginning.begin(beside)?;
        return Ok((store, Some(baseline)));
    }
    let options = falaj_views::Options::default();
    let metas = view_metas(plans);
    let opened = ViewStore::open_or_reset(beside, &options, &metas, plan_set_hash(plans))?;
    Ok((opened.0, None))
}

fn compare(
    core: &Core,
    rebuilt: &ViewStore,
    from: Option<&Baseline>,
    started: std::time::Instant,
) -> Result<Json> {
    let seconds = started.elapsed().as_secs_f64();
    let comparison = core.store.compare(rebuilt, 5)?;
    let present = digest(&core.store)?;
    let again = digest(rebuilt)?;
    Ok(json!({
        "equal": comparison.is_equal() && present["digest"] == again["digest"],
        "present": present,
        "rebuilt": again,
        "differences": comparison.first.iter().map(|found| found.to_string()).collect::<Vec<_>>(),
        "baseline": from.map(trusted),
        "seconds": seconds,
    }))
}

/// The baseline that an answer rests on.
pub fn trusted(baseline: &Baseline) -> Json {
    json!({
        "name": baseline.name.to_string(),
        "epoch": baseline.epoch,
        "t": baseline.t,
        "state_digest": baseline.state_digest.to_string(),
    })
}

/// Verifies the log: every epoch's tables, chain, blocks, event hashes and roots. Of events that were
/// cut, only the roots are there to be chained.
///
/// # Errors
/// Names the first thing that does not fit.
pub fn log(core: &Core, report: Report<'_>) -> Result<Json> {
    let Some(tail) = core.log.tail() else {
        return Ok(json!({ "epochs": 0, "events": 0 }));
    };
    let all = tail.record.epoch + 1;
    let (mut events, mut cut) = (0, 0);
    for epoch in 0..all {
        core.reader.verify_epoch(epoch)?;
        let entry = core.log.entry(epoch)?.with_context(|| format!("epoch {epoch} is missing"))?;
        events += entry.record.events;
        let gone = entry.partitions.iter().filter(|part| epoch < core.log.first_kept(part.topic));
        cut += gone.map(|part| u64::from(part.count)).sum::<u64>();
        report(epoch + 1, all);
    }
    Ok(json!({
        "epochs": all,
        "events": events,
        "events_cut": cut,
        "t": tail.record.t,
        "head": tail.record.hash().to_string(),
        "verified": true,
    }))
}
