//! Runs the engine over a history and keeps what it says.
//!
//! Does not know what is right.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use falaj_dataflow::{Engine, Options, Resume};
use falaj_definitions::plan::ViewPlan;
use falaj_event::{EpochChanges, LogTime, ViewId, ViewRow};

use crate::history::History;

/// How to run the engine.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Worker threads.
    pub workers: usize,
    /// Epochs submitted and not yet taken.
    pub in_flight: usize,
    /// Checkpoints are taken at epochs that this divides.
    pub checkpoint_every: u64,
}

impl Default for Run {
    fn default() -> Self {
        Self { workers: 2, in_flight: 4, checkpoint_every: 5 }
    }
}

/// A view's rows by key: the latest event time and the canonical encoding of all columns.
pub type Rows = BTreeMap<Vec<u8>, (i64, Vec<u8>)>;

/// Feeds the epochs from `resume` up to `until` (exclusive) and hands their changes to `apply` in
/// order.
///
/// # Errors
/// When the engine or `apply` fails, or an epoch takes more than two minutes.
pub fn drive(
    plans: &[Arc<ViewPlan>],
    history: &History,
    run: Run,
    resume: Option<Resume>,
    until: u64,
    mut apply: impl FnMut(EpochChanges) -> Result<()>,
) -> Result<()> {
    let from = resume.as_ref().map_or(0, |resume| resume.epoch + 1);
    let engine = Engine::start(Options {
        workers: run.workers,
        checkpoint_every: run.checkpoint_every,
        max_epochs_in_flight: run.in_flight,
        plans: plans.to_vec(),
        resume,
    })?;
    let mut take = || -> Result<()> {
        let changes = engine.take(Duration::from_secs(120))?;
        apply(changes.context("no epoch within two minutes")?)
    };
    let mut under_way = 0;
    for epoch in from..until {
        if under_way == run.in_flight {
            take()?;
            under_way -= 1;
        }
        engine.submit(history.input(epoch))?;
        under_way += 1;
    }
    for _ in 0..under_way {
        take()?;
    }
    engine.stop()?;
    Ok(())
}

/// The changes of every epoch of `history`.
///
/// # Errors
/// As [`drive`].
pub fn changes(plans: &[Arc<ViewPlan>], history: &History, run: Run) -> Result<Vec<EpochChanges>> {
    let mut all = Vec::new();
    drive(plans, history, run, None, history.epochs.len() as u64, |changes| {
        all.push(changes);
        Ok(())
    })?;
    Ok(all)
}

/// The rows of all views, folded from changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    t: LogTime,
    rows: BTreeMap<ViewId, BTreeMap<Vec<u8>, ViewRow>>,
}

impl Contents {
    /// Applies one epoch.
    pub fn apply(&mut self, changes: &EpochChanges) {
        self.t = changes.t;
        for change in &changes.rows {
            let view = self.rows.entry(change.view).or_default();
            match &change.row {
                Some(row) => view.insert(change.key.to_vec(), row.clone()),
                None => view.remove(change.key.as_slice()),
            };
        }
    }

    /// The rows of one view at the `T` of the epoch applied last.
    ///
    /// # Errors
    /// When a row is damaged.
    pub fn of(&self, view: ViewId) -> Result<Rows> {
        let rows = self.rows.get(&view).into_iter().flatten();
        rows.map(|(key, row)| {
            let columns = row.columns_at(self.t).context("what a row foretells is damaged")?;
            Ok((key.clone(), (row.latest_event_time, columns)))
        })
        .collect()
    }
}
