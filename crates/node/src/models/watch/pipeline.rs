//! One pipeline's fold: its predictions, labels and registry events in, outcomes, scores and decisions
//! out, epoch by epoch.
//!
//! A pure function of the log (and of what the log names by its hash): nothing here asks a clock, and
//! nothing is emitted from here. See [`super`] for what is emitted and when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, Result};
use falaj_definitions::catalog::Catalog;
use falaj_definitions::pipelines::Pipeline;
use falaj_event::{LogTime, TopicId, Value};
use falaj_lifecycle::{
    Firing, GuardrailBreach, GuardrailDecision, GuardrailRule, GuardrailState, GuardrailWindow,
    ModelChange, ModelEvent, Observation, RegistryState, Stage, TriggerDecision, TriggerRule,
    TriggerState, VersionNumber, WindowRef,
};
use falaj_log::EpochEvents;
use falaj_monitor::{
    DriftRow, Finding, Joiner, Label, Monitor, MonitorSettings, Outcome, Prediction, Window,
};

use super::decode::Topics;
use super::served::ServedWatch;
use super::settings::{
    DETECTOR_ALARMS, figure_name, guardrail_rules, join_rule, monitor_settings, trigger_rules,
};
use super::{Decision, References};
use crate::models::outcomes::actual;

/// References that are kept; those of older versions are read again when they are needed.
const MOST_REFERENCES: usize = 6;
/// A run that was asked for and never requested is given up after this long, at least.
const LEAST_PATIENCE_US: u64 = 60_000_000;

/// What an epoch gave.
#[derive(Default)]
pub struct Given {
    /// Outcomes to write, in order.
    pub outcomes: Vec<Outcome>,
    /// Rows of `falaj.drift`, in order.
    pub rows: Vec<DriftRow>,
    /// What is to be done.
    pub decisions: Vec<Decision>,
    /// Predictions and labels that the epoch carried.
    pub counts: (u64, u64),
}

/// The fold of one pipeline.
pub struct PipelineWatch {
    /// The pipeline.
    pub pipeline: Arc<Pipeline>,
    /// Its topics.
    pub topics: Topics,
    settings: MonitorSettings,
    joiner: Joiner,
    monitor: Monitor,
    served: ServedWatch,
    triggers: TriggerState,
    trigger_rules: Vec<TriggerRule>,
    guardrails: GuardrailState,
    guardrail_rules: Vec<GuardrailRule>,
    /// The artifacts of trained versions.
    artifacts: BTreeMap<VersionNumber, String>,
    /// Versions whose reference was asked for.
    referenced: BTreeSet<VersionNumber>,
    /// Judged predictions whose outcome was not written, for the model does not know the class.
    unjudged: BTreeSet<(Arc<str>, VersionNumber)>,
    /// A firing that no request has answered.
    pending: Option<Firing>,
    /// A rollback that has not happened.
    rollback: Option<(VersionNumber, GuardrailBreach)>,
}

impl PipelineWatch {
    /// Knows nothing yet.
    ///
    /// # Errors
    /// When the pipeline does not fit the catalog.
    pub fn new(pipeline: &Arc<Pipeline>, catalog: &Catalog) -> Result<Self> {
        let settings = monitor_settings(pipeline);
        Ok(Self {
            topics: Topics::of(pipeline, catalog)?,
            joiner: Joiner::new(join_rule(pipeline)),
            monitor: Monitor::new(settings.clone()),
            served: ServedWatch::new(pipeline, catalog)?,
            settings,
            triggers: TriggerState::default(),
            trigger_rules: trigger_rules(pipeline),
            guardrails: GuardrailState::default(),
            guardrail_rules: guardrail_rules(pipeline),
            artifacts: BTreeMap::new(),
            referenced: BTreeSet::new(),
            unjudged: BTreeSet::new(),
            pending: None,
            rollback: None,
            pipeline: Arc::clone(pipeline),
        })
    }

    /// The topics that it reads.
    pub fn reads(&self) -> [TopicId; 3] {
        [self.topics.predictions.id(), self.topics.labels.id(), self.served.reads()]
    }

    /// Predictions that wait for labels, and labels that wait.
    pub fn waiting(&self) -> (usize, usize) {
        (self.joiner.open_predictions(), self.joiner.waiting_labels())
    }

    /// What was decided and has not been carried out as far as the log says.
    pub fn unanswered(&self, registry: &RegistryState) -> Vec<Decision> {
        let name = &self.pipeline.name;
        let mut decisions = Vec::new();
        if let Some(firing) = &self.pending {
            decisions.push(Decision::Fire { pipeline: name.clone(), firing: firing.clone() });
        }
        let champion = registry.pipeline(name).and_then(|state| state.champion);
        if let Some((version, breach)) = &self.rollback
            && champion == Some(*version)
        {
            let (pipeline, version, breach) = (name.clone(), *version, breach.clone());
            decisions.push(Decision::RollBack { pipeline, version, breach });
        }
        decisions
    }

    /// Takes an event of the registry that has been applied to `registry`.
    pub fn registry_event(&mut self, registry: &RegistryState, event: &ModelEvent) {
        if event.pipeline != self.pipeline.name {
            return;
        }
        let at = event.at.as_event_time();
        match (&event.change, event.version) {
            (ModelChange::Requested { run, .. }, _) => {
                self.pending = None;
                if self.triggers.in_flight() != Some(run) {
                    let run = run.clone();
                    self.observe_silently(&Observation::RunStarted { run, at });
                }
            }
            (ModelChange::Trained { model }, Some(version)) => {
                self.artifacts.insert(version, model.artifact_sha256.clone());
            }
            (ModelChange::Promoted { replaced, .. }, _) => {
                self.rollback = None;
                if let Some(replaced) = replaced {
                    self.guardrails.forget(*replaced);
                }
            }
            (ModelChange::RolledBack { .. }, Some(version)) => {
                self.rollback = None;
                self.guardrails.forget(version);
            }
            _ => {}
        }
        let Some(version) = event.version else { return };
        let state = registry.pipeline(&event.pipeline);
        let Some(found) = state.and_then(|state| state.versions.get(&version)) else { return };
        if !found.stage.in_flight() && self.triggers.in_flight() == Some(&found.run) {
            let succeeded = !matches!(found.stage, Stage::Failed | Stage::Rejected);
            let run = found.run.clone();
            self.observe_silently(&Observation::RunEnded { run, succeeded, at });
        }
    }

    fn observe_silently(&mut self, observation: &Observation) {
        // Neither a run's beginning nor its end decides anything.
        let _ = self.triggers.observe(&self.pipeline.name, &self.trigger_rules, observation);
    }

    /// Takes one epoch, whose registry events have been taken.
    ///
    /// # Errors
    /// When a row cannot be read, or a reference is damaged.
    pub fn epoch(
        &mut self,
        registry: &RegistryState,
        references: &References,
        events: &EpochEvents,
    ) -> Result<Given> {
        let t = events.record().t;
        let (predictions, labels) = self.read(events)?;
        for version in predictions.iter().map(|prediction| prediction.version) {
            self.refer(version, references)?;
        }
        let counts = (predictions.len() as u64, labels.len() as u64);
        let judging = labels.iter().filter(|label| label.op != falaj_event::Op::Delete).count();
        let joined = self.joiner.epoch(t, predictions.iter().cloned(), labels);
        let judged: Vec<Outcome> = joined
            .iter()
            .map(|joined| {
                let value = joined.label.row.get(self.topics.label_column);
                let truth = value.and_then(|value: &Value| actual(&self.pipeline, value));
                Outcome::of(&self.settings.task, truth, joined)
            })
            .collect();
        let mut closed = self.monitor.epoch(t, &predictions, &judged);
        closed.extend(self.served.epoch(t, &self.topics, events, &judged)?);
        let decisions = self.decide(registry, t, judging as u64, &closed.findings);
        let outcomes = judged.into_iter().filter(|outcome| self.is_written(outcome)).collect();
        Ok(Given { outcomes, rows: closed.rows, decisions, counts })
    }

    fn read(&self, events: &EpochEvents) -> Result<(Vec<Prediction>, Vec<Label>)> {
        let (mut predictions, mut labels) = (Vec::new(), Vec::new());
        let [of_predictions, of_labels, _] = self.reads();
        for part in &events.topics {
            let id = part.topic.id();
            if id == of_predictions {
                predictions.extend(self.topics.read_predictions(&self.pipeline, part)?);
            }
            if id == of_labels {
                labels.extend(self.topics.read_labels(&self.pipeline, part)?);
            }
        }
        Ok((predictions, labels))
    }

    /// Gives the monitor a version's reference, the first time that the version predicts.
    fn refer(&mut self, version: VersionNumber, references: &References) -> Result<()> {
        if self.referenced.contains(&version) {
            return Ok(());
        }
        let Some(artifact) = self.artifacts.get(&version) else { return Ok(()) };
        let name = &self.pipeline.name;
        let found = references(name, version, artifact)
            .with_context(|| format!("the reference of {name}, version {version}"))?;
        if let Some(found) = found {
            self.monitor.set_reference(version, found);
        }
        self.referenced.insert(version);
        while self.referenced.len() > MOST_REFERENCES {
            if let Some(oldest) = self.referenced.pop_first() {
                self.monitor.forget(oldest);
            }
        }
        Ok(())
    }

    /// Whether an outcome is to be written: a judgement that was never written is not taken back.
    fn is_written(&mut self, outcome: &Outcome) -> bool {
        let key = (Arc::clone(&outcome.prediction.id), outcome.prediction.version);
        if outcome.actual.is_some() {
            self.unjudged.remove(&key);
            return true;
        }
        let taken_back = outcome.label.row.is_empty();
        let was_written = match taken_back {
            true => !self.unjudged.remove(&key),
            false => !outcome.first && !self.unjudged.contains(&key),
        };
        if !taken_back {
            self.unjudged.insert(key);
        }
        was_written
    }

    /// Lets triggers and guardrails see what happened.
    fn decide(
        &mut self,
        registry: &RegistryState,
        t: LogTime,
        labels: u64,
        findings: &[Finding],
    ) -> Vec<Decision> {
        let at = t.as_event_time();
        let champion = self.champion(registry);
        let mut decisions = Vec::new();
        self.lose_patience(t);
        if labels > 0 {
            self.observe(&Observation::Labels { count: labels, at }, &mut decisions);
        }
        for finding in findings {
            let Some((serving, promoted_at)) = champion else { break };
            self.finding(finding, serving, promoted_at, t, &mut decisions);
        }
        self.observe(&Observation::Time { at }, &mut decisions);
        decisions
    }

    /// The version that serves, and since when.
    fn champion(&self, registry: &RegistryState) -> Option<(VersionNumber, LogTime)> {
        let state = registry.pipeline(&self.pipeline.name)?;
        let champion = state.champion?;
        let reign = state.served.iter().rev().take_while(|span| span.champion == Some(champion));
        Some((champion, reign.last().map_or(LogTime(0), |span| span.from)))
    }

    fn lose_patience(&mut self, t: LogTime) {
        let patience = self.pipeline.retrain.cool_down_us.max(LEAST_PATIENCE_US);
        let waited = self
            .pending
            .as_ref()
            .map(|firing| u64::try_from(t.as_event_time().saturating_sub(firing.at)).unwrap_or(0));
        if waited.is_some_and(|waited| waited > patience)
            && let Some(Firing { run, .. }) = self.pending.take()
        {
            let at = t.as_event_time();
            self.observe_silently(&Observation::RunEnded { run, succeeded: false, at });
        }
    }

    fn finding(
        &mut self,
        finding: &Finding,
        serving: VersionNumber,
        promoted_at: LogTime,
        t: LogTime,
        decisions: &mut Vec<Decision>,
    ) {
        let alarms = |window: &Window, count: u64| Observation::Metric {
            window: reference(DETECTOR_ALARMS, window),
            metric: DETECTOR_ALARMS.to_owned(),
            value: Some(count as f64),
            support: 1,
        };
        match finding {
            Finding::Drift { version, window, watched, alarmed, detected }
                if *version == serving =>
            {
                let drift = Observation::Drift {
                    window: reference("drift", window),
                    watched: watched.clone(),
                    alarmed: alarmed.clone(),
                };
                self.observe(&drift, decisions);
                self.observe(&alarms(window, *detected), decisions);
            }
            Finding::Detector { version, window, .. } if *version == serving => {
                self.observe(&alarms(window, 1), decisions);
            }
            Finding::Figure { version, window, figure, value, support } if *version == serving => {
                let name = figure_name(figure, window.end.0.saturating_sub(window.start.0));
                let (value, support) = (*value, *support);
                let window = reference(&name, window);
                let metric = name.clone();
                let observed =
                    Observation::Metric { window: window.clone(), metric, value, support };
                self.observe(&observed, decisions);
                let version = *version;
                let window =
                    GuardrailWindow { window, version, figure: name, value, support, at: t };
                self.guard(&window, promoted_at, decisions);
            }
            _ => {}
        }
    }

    fn observe(&mut self, observation: &Observation, decisions: &mut Vec<Decision>) {
        let name = &self.pipeline.name;
        for decision in self.triggers.observe(name, &self.trigger_rules, observation) {
            let pipeline = name.clone();
            decisions.push(match decision {
                TriggerDecision::Fire(firing) => {
                    self.pending = Some(firing.clone());
                    Decision::Fire { pipeline, firing }
                }
                TriggerDecision::Suppressed { trigger, why, .. } => {
                    Decision::Suppressed { pipeline, trigger, why }
                }
                TriggerDecision::Cleared { trigger, .. } => Decision::Cleared { pipeline, trigger },
            });
        }
    }

    fn guard(
        &mut self,
        window: &GuardrailWindow,
        promoted_at: LogTime,
        decisions: &mut Vec<Decision>,
    ) {
        for decision in self.guardrails.observe(&self.guardrail_rules, promoted_at, window) {
            let pipeline = self.pipeline.name.clone();
            decisions.push(match decision {
                GuardrailDecision::RollBack { version, breach } => {
                    self.rollback = Some((version, breach.clone()));
                    Decision::RollBack { pipeline, version, breach }
                }
                GuardrailDecision::Report { version, breach } => {
                    Decision::Report { pipeline, version, breach }
                }
                GuardrailDecision::Mended { version, guardrail } => {
                    Decision::Mended { pipeline, version, guardrail }
                }
            });
        }
    }
}

fn reference(series: &str, window: &Window) -> WindowRef {
    WindowRef {
        series: series.to_owned(),
        from: window.start.as_event_time(),
        to: window.end.as_event_time(),
    }
}
