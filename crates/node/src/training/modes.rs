//! The three modes: each gives the features of all label rows.
//!
//! Does not know what is done with them.

use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use falaj_dataflow::EpochInput;
use falaj_dataflow::training::{Asked, Events, Options, Progress, TrainingError, as_corrected};
use falaj_definitions::pipelines::{Pipeline, TrainingMode};
use falaj_definitions::plan::ViewPlan;
use falaj_event::{EventTime, LogTime, TopicId, Value, ViewRow};
use falaj_log::{ReadOptions, Reader};
use falaj_views::{Snapshot, ViewError};

use super::answers::{Answer, Features};
use super::{Labels, served};
use crate::core::Core;
use crate::pump::epoch_input;

/// What every mode works on.
pub(super) struct Work<'a> {
    pub core: &'a Core,
    pub pipeline: &'a Pipeline,
    pub labels: &'a Labels,
    /// The last epoch that is seen.
    pub epoch: u64,
    pub progress: &'a mut dyn FnMut(Progress),
}

impl Work<'_> {
    /// The features of every label row.
    pub(super) fn features(&mut self, mode: TrainingMode) -> Result<Features> {
        match mode {
            TrainingMode::AsCorrected => self.as_corrected(),
            TrainingMode::AsKnown => self.as_known(),
            TrainingMode::AsServed => self.as_served(),
        }
    }

    fn plans(&self) -> Result<Vec<Arc<ViewPlan>>> {
        let plan = |name: &str| {
            let plan = self.core.catalog.view(name).cloned();
            plan.with_context(|| format!("there is no view `{name}`"))
        };
        self.pipeline.features.iter().map(|set| plan(&set.view)).collect()
    }

    fn as_corrected(&mut self) -> Result<Features> {
        let plans = self.plans()?;
        let keys = self
            .pipeline
            .features
            .iter()
            .map(|set| self.labels.keys(&set.key))
            .collect::<Result<Vec<_>>>()?;
        let asked: Vec<Asked<'_>> =
            plans.iter().zip(&keys).map(|(plan, keys)| Asked { plan, keys }).collect();
        let events = LogEvents { reader: &self.core.reader, until: self.epoch };
        let at = &self.labels.observed_at;
        let rows = as_corrected(&asked, at, &events, &Options::default(), self.progress)?;
        let mut features = Features::new(at.len());
        for ((plan, set), rows) in plans.iter().zip(&self.pipeline.features).zip(rows) {
            let answer = |(row, at): (Option<ViewRow>, &EventTime)| match row {
                Some(row) => Answer::Row { row, t: *at },
                None => Answer::Absent,
            };
            let answers: Vec<Answer> = rows.into_iter().zip(at).map(answer).collect();
            features.add(plan, set, &answers)?;
        }
        Ok(features)
    }

    fn as_known(&self) -> Result<Features> {
        let snapshot = self.core.store.snapshot()?;
        let moments = self.known_at(&snapshot)?;
        let mut features = Features::new(self.labels.len());
        for (plan, set) in self.plans()?.iter().zip(&self.pipeline.features) {
            let keys = self.labels.keys(&set.key)?;
            let answers = keys
                .iter()
                .zip(&moments)
                .map(|(key, t)| known(&snapshot, plan, key.as_deref(), *t))
                .collect::<Result<Vec<_>>>()?;
            features.add(plan, set, &answers)?;
        }
        Ok(features)
    }

    /// For every label, the greatest epoch's `T` at or before its moment; `None` before the first.
    fn known_at(&self, snapshot: &Snapshot<'_>) -> Result<Vec<Option<LogTime>>> {
        let newest = snapshot.t().context("nothing has been computed yet")?;
        let last = self.core.log.entry(self.epoch)?.context("the last epoch is missing")?;
        let bound = last.record.t.min(newest);
        let find = |at: &EventTime| -> Result<Option<LogTime>> {
            let Ok(at) = u64::try_from(*at) else { return Ok(None) };
            let entry = self.core.log.entry_at(LogTime(at).min(bound))?;
            Ok(entry.map(|entry| entry.record.t))
        };
        self.labels.observed_at.iter().map(find).collect()
    }

    fn as_served(&self) -> Result<Features> {
        let rows = served::read(self.core, self.pipeline, self.labels, self.epoch)?;
        ensure!(rows.len() == self.labels.len(), "one prediction or none per label");
        let mut features = Features::new(self.labels.len());
        let mut place = 0;
        for (plan, set) in self.plans()?.iter().zip(&self.pipeline.features) {
            for (name, column) in set.names.iter().zip(&set.columns) {
                let output = plan.output.iter().find(|output| output.name == *column);
                let output =
                    output.with_context(|| format!("view `{}` has no `{column}`", plan.name))?;
                let value = |row: &Option<super::ServedRow>| -> Option<Value> {
                    row.as_ref()?.values.get(place).cloned()
                };
                let values: Vec<Option<Value>> = rows.iter().map(value).collect();
                features.add_values(name, &output.column_type, &values)?;
                place += 1;
            }
        }
        Ok(features)
    }
}

/// The row of `key` at `t` as the views have it.
fn known(
    snapshot: &Snapshot<'_>,
    plan: &ViewPlan,
    key: Option<&[u8]>,
    t: Option<LogTime>,
) -> Result<Answer> {
    let (Some(key), Some(t)) = (key, t) else { return Ok(Answer::Absent) };
    match snapshot.get_as_of(plan.id, key, t) {
        Ok(Some(row)) => Ok(Answer::Row {
            row: ViewRow {
                latest_event_time: row.latest_event_time,
                columns: row.columns,
                foretold: Vec::new(),
            },
            t: t.as_event_time(),
        }),
        Ok(None) => Ok(Answer::Absent),
        Err(ViewError::NotRetained { .. } | ViewError::NotYet { .. }) => Ok(Answer::Unavailable),
        Err(error) => Err(error.into()),
    }
}

/// The log up to an epoch, without what retention has cut from it.
pub struct LogEvents<'a> {
    /// Reads it.
    pub reader: &'a Reader,
    /// The last epoch that is given.
    pub until: u64,
}

impl Events for LogEvents<'_> {
    fn scan(
        &self,
        topics: &[TopicId],
        each: &mut dyn FnMut(EpochInput) -> Result<ControlFlow<()>, TrainingError>,
    ) -> Result<(), TrainingError> {
        let reader = self.reader.with_options(ReadOptions {
            topics: Some(topics.iter().copied().collect()),
            skip_cut: true,
            ..ReadOptions::default()
        });
        for epoch in 0..=self.until {
            let events =
                reader.epoch(epoch).map_err(|error| TrainingError::Source(Box::new(error)))?;
            let Some(events) = events.filter(|events| !events.topics.is_empty()) else { continue };
            if each(epoch_input(events))?.is_break() {
                break;
            }
        }
        Ok(())
    }
}
