//! Monitoring one pipeline: a fold over epochs in the order of the log.
//!
//! `epoch` is called once per epoch, with the predictions and judgements that it carries; time passes
//! in epochs without any as well. What comes out is a function of the log, of the settings and of the
//! versions' references (which the log names by their hash), so a replay gives the same rows, however
//! often the fold was stopped and begun again from the start. Memory is bounded by the windows that
//! are open. Does not know triggers, guardrails, topics or the registry.

use std::collections::BTreeMap;
use std::sync::Arc;

use falaj_event::LogTime;

use crate::errors::{ErrorStreams, error_of};
use crate::figures::OpenFigures;
use crate::kept::Kept;
use crate::reference::ReferenceSet;
use crate::row::Finding;
use crate::settings::MonitorSettings;
use crate::windows::{Closed, DriftWindows};
use crate::{Outcome, Prediction};

#[cfg(test)]
mod tests;

/// The monitors of one pipeline. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Monitor {
    references: BTreeMap<u32, Arc<ReferenceSet>>,
    drift: DriftWindows,
    figures: Vec<OpenFigures>,
    errors: ErrorStreams,
    /// Alarms of detectors since the last drift window closed, by version.
    detected: BTreeMap<u32, u64>,
    drift_window_us: u64,
    drift_index: Option<u64>,
}

impl Monitor {
    /// Nothing seen yet.
    pub fn new(settings: MonitorSettings) -> Self {
        let settings = Arc::new(settings);
        let of = |windows: &crate::settings::FigureWindows| {
            OpenFigures::new(Arc::clone(&settings), windows.clone())
        };
        Self {
            references: BTreeMap::new(),
            drift: DriftWindows::new(Arc::clone(&settings)),
            figures: settings.figures.iter().map(of).collect(),
            errors: ErrorStreams::new(Arc::clone(&settings)),
            detected: BTreeMap::new(),
            drift_window_us: settings.window_us.max(1),
            drift_index: None,
        }
    }

    /// Appends what it has seen, but for the references.
    pub fn save(&self, out: &mut Vec<u8>) {
        self.drift.save(out);
        self.figures.iter().for_each(|figures| figures.save(out));
        self.errors.save(out);
        self.detected.put(out);
        self.drift_index.put(out);
    }

    /// What [`Monitor::save`] wrote, under the same settings and with the references that it had;
    /// `None` where `bytes` hold no such thing.
    pub fn restore(
        settings: MonitorSettings,
        references: BTreeMap<u32, Arc<ReferenceSet>>,
        bytes: &mut &[u8],
    ) -> Option<Self> {
        let settings = Arc::new(settings);
        let of = |version| references.get(&version).cloned();
        let drift = DriftWindows::restore(Arc::clone(&settings), of, bytes)?;
        let mut figures = Vec::with_capacity(settings.figures.len());
        for windows in &settings.figures {
            let settings = Arc::clone(&settings);
            figures.push(OpenFigures::restore(settings, windows.clone(), bytes)?);
        }
        Some(Self {
            references,
            drift,
            figures,
            errors: ErrorStreams::restore(Arc::clone(&settings), bytes)?,
            detected: Kept::take(bytes)?,
            drift_window_us: settings.window_us.max(1),
            drift_index: Kept::take(bytes)?,
        })
    }

    /// The references that it was given.
    pub fn references(&self) -> &BTreeMap<u32, Arc<ReferenceSet>> {
        &self.references
    }

    /// Gives a version's reference: before the first epoch that carries a prediction of it. Without
    /// one its inputs and scores are not watched, and its figures have no limits but declared ones.
    pub fn set_reference(&mut self, version: u32, reference: Arc<ReferenceSet>) {
        self.references.insert(version, reference);
    }

    /// Forgets the references of versions that make no predictions any more.
    pub fn forget(&mut self, version: u32) {
        self.references.remove(&version);
    }

    /// Takes one epoch: what closes at its `T`, in a fixed order (drift windows, figures by length of
    /// window, detectors; versions ascending), then its predictions and judgements in log order.
    pub fn epoch(
        &mut self,
        t: LogTime,
        predictions: &[Prediction],
        outcomes: &[Outcome],
    ) -> Closed {
        let mut closed = self.advance(t);
        for prediction in predictions {
            let reference = self.references.get(&prediction.version);
            self.drift.add(t, prediction, reference);
            for figures in &mut self.figures {
                figures.predicted(t, prediction);
            }
        }
        for outcome in outcomes {
            for figures in &mut self.figures {
                figures.judged(t, outcome);
            }
            let error = outcome.judgement.as_ref().and_then(error_of);
            if let Some(error) = error.filter(|_| outcome.first && outcome.prediction.served) {
                let raised = self.errors.take(t, outcome.prediction.version, error);
                let alarms = raised.rows.len() as u64;
                if alarms > 0 {
                    *self.detected.entry(outcome.prediction.version).or_default() += alarms;
                }
                closed.extend(raised);
            }
        }
        closed
    }

    fn advance(&mut self, t: LogTime) -> Closed {
        let mut closed = self.drift.advance(t);
        for finding in &mut closed.findings {
            if let Finding::Drift { version, detected, .. } = finding {
                *detected = self.detected.get(version).copied().unwrap_or(0);
            }
        }
        let index = t.0 / self.drift_window_us;
        if self.drift_index.replace(index).is_some_and(|before| before < index) {
            self.detected.clear();
        }
        for figures in &mut self.figures {
            closed.extend(figures.advance(t, |version| self.references.get(&version).cloned()));
        }
        closed
    }
}
