//! When to retrain: drift, a figure out of bounds, enough new labels, a schedule in event time, or a
//! person.
//!
//! A fold over observations in event time, with hysteresis (so many windows to fire, so many to
//! clear), a cool-down, and one run in flight per pipeline. Every firing cites the windows that
//! caused it. The same observations give the same decisions and the same state. Does not know how a
//! score was computed: it sees which columns alarm, and plain figures.

mod memory;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use falaj_event::EventTime;
use serde::{Deserialize, Serialize};

use crate::registry::Actor;
use memory::{Level, Memory};

/// A closed window, as cited by the events that it causes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WindowRef {
    /// The series that it belongs to: a monitor's name, `labels`, `schedule`.
    pub series: String,
    /// Its first instant, in event time.
    pub from: EventTime,
    /// The instant after its last, in event time.
    pub to: EventTime,
}

/// What makes a trigger fire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "on", rename_all = "snake_case", deny_unknown_fields)]
pub enum TriggerCondition {
    /// Columns in alarm, as a share of those watched.
    Drift {
        /// The share at and above which a window counts as drifted; at least one column must alarm.
        minimum_share: f64,
        /// The share below which a window counts as calm; `None`: the same.
        #[serde(default)]
        calm_share: Option<f64>,
        /// The columns that count; empty for all.
        #[serde(default)]
        columns: Vec<String>,
    },
    /// A figure out of bounds: a metric below its floor, a loss above its ceiling.
    Metric {
        /// The figure.
        metric: String,
        /// The least value that is well.
        #[serde(default)]
        minimum: Option<f64>,
        /// The greatest value that is well.
        #[serde(default)]
        maximum: Option<f64>,
        /// How far inside the bounds a window must be to count as calm, in the figure's units.
        #[serde(default)]
        margin: f64,
        /// Rows below which a window says nothing.
        #[serde(default)]
        minimum_support: u64,
    },
    /// So many labels since the last run was asked for.
    Labels {
        /// How many.
        count: u64,
    },
    /// So long since the last run began, whoever asked for it; before the first, since the pipeline
    /// was declared (see [`Observation::Declared`]). One that finds a run in flight or the cool-down
    /// running is made up for afterwards, once.
    Schedule {
        /// The time between runs, in microseconds of event time; above 0.
        every_us: i64,
    },
}

/// One trigger of a pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TriggerRule {
    /// Its name, distinct within the pipeline.
    pub name: String,
    /// When it fires.
    #[serde(flatten)]
    pub condition: TriggerCondition,
    /// Drifted windows in a row before it fires; at least 1.
    #[serde(default = "one")]
    pub fire_after: u32,
    /// Calm windows in a row before it may fire again; at least 1.
    #[serde(default = "one")]
    pub clear_after: u32,
    /// The least distance of two firings, in microseconds of event time.
    #[serde(default)]
    pub cooldown_us: u64,
    /// Fire again without calm windows once this long has passed since the last firing, in
    /// microseconds of event time; `None`: never.
    #[serde(default)]
    pub repeat_after_us: Option<u64>,
}

fn one() -> u32 {
    1
}

/// What the triggers are told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Observation {
    /// A drift window closed.
    Drift {
        /// Which.
        window: WindowRef,
        /// The columns watched.
        watched: Vec<String>,
        /// Those of them in alarm, after correction for their number.
        alarmed: Vec<String>,
    },
    /// A window of a figure closed.
    Metric {
        /// Which.
        window: WindowRef,
        /// The figure.
        metric: String,
        /// Its value; `None` where nothing could be measured.
        value: Option<f64>,
        /// Rows behind it.
        support: u64,
    },
    /// Labels arrived.
    Labels {
        /// How many.
        count: u64,
        /// The latest of their event times.
        at: EventTime,
    },
    /// Event time went on.
    Time {
        /// To here.
        at: EventTime,
    },
    /// The pipeline was declared. Schedules count from the first time; without one, from the first
    /// observation.
    Declared {
        /// When.
        at: EventTime,
    },
    /// A person asks for a run.
    Manual {
        /// Who.
        actor: Actor,
        /// Why.
        reason: String,
        /// When.
        at: EventTime,
    },
    /// A run that no trigger asked for began.
    RunStarted {
        /// Its name.
        run: String,
        /// When.
        at: EventTime,
    },
    /// A run ended, was refused or was cancelled.
    RunEnded {
        /// Its name.
        run: String,
        /// Whether it ended in a new version: drift and metrics then start afresh. After a failure
        /// a condition that persists fires again when the cool-down is over.
        succeeded: bool,
        /// When.
        at: EventTime,
    },
}

impl Observation {
    /// The event time of the observation: for a window, its end.
    pub fn at(&self) -> EventTime {
        match self {
            Self::Drift { window, .. } | Self::Metric { window, .. } => window.to,
            Self::Labels { at, .. }
            | Self::Time { at }
            | Self::Declared { at }
            | Self::Manual { at, .. }
            | Self::RunStarted { at, .. }
            | Self::RunEnded { at, .. } => *at,
        }
    }
}

/// A trigger that fired: the request for one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firing {
    /// The trigger, or `manual`.
    pub trigger: String,
    /// The name of the run that it asks for: a function of trigger and time.
    pub run: String,
    /// Who asks.
    pub actor: Actor,
    /// When.
    pub at: EventTime,
    /// The windows that caused it, oldest first.
    pub windows: Vec<WindowRef>,
    /// Why, in words.
    pub reason: String,
}

/// Why a trigger that would fire does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "because", rename_all = "snake_case")]
pub enum Suppression {
    /// It fired too short a time ago.
    CoolDown {
        /// The event time from which it may fire.
        until: EventTime,
    },
    /// The pipeline has a run in flight.
    RunInFlight {
        /// Which.
        run: String,
    },
}

/// What follows from an observation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TriggerDecision {
    /// Start a run.
    Fire(Firing),
    /// A trigger would fire but may not. Said once until it fires or calms down.
    Suppressed {
        /// The trigger.
        trigger: String,
        /// When.
        at: EventTime,
        /// The windows that would have caused it.
        windows: Vec<WindowRef>,
        /// What stands in the way.
        why: Suppression,
    },
    /// A trigger that fired is calm again, and armed.
    Cleared {
        /// The trigger.
        trigger: String,
        /// When.
        at: EventTime,
    },
}

/// What one pipeline's triggers remember. Serialisable; equal after a replay of the same
/// observations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerState {
    in_flight: Option<String>,
    now: Option<EventTime>,
    /// When the last run began, or the pipeline was declared.
    anchor: Option<EventTime>,
    memories: BTreeMap<String, Memory>,
}

impl TriggerState {
    /// The run in flight, if any.
    pub fn in_flight(&self) -> Option<&str> {
        self.in_flight.as_deref()
    }

    /// The greatest event time observed.
    pub fn now(&self) -> Option<EventTime> {
        self.now
    }

    /// Takes one observation in and says what follows, in the order of the rules. `pipeline` names
    /// the runs that are asked for.
    pub fn observe(
        &mut self,
        pipeline: &str,
        rules: &[TriggerRule],
        observation: &Observation,
    ) -> Vec<TriggerDecision> {
        let now = self.now.map_or(observation.at(), |now| now.max(observation.at()));
        self.now = Some(now);
        let anchor = *self.anchor.get_or_insert(now);
        match observation {
            Observation::Declared { .. } => return Vec::new(),
            Observation::RunStarted { run, .. } => {
                self.begin(run.clone(), now);
                return Vec::new();
            }
            Observation::RunEnded { run, succeeded, .. } => {
                self.end(run, *succeeded);
                return Vec::new();
            }
            Observation::Manual { actor, reason, .. } => {
                return vec![self.ask(pipeline, actor, reason, now)];
            }
            _ => {}
        }
        let mut decisions = Vec::new();
        for rule in rules {
            decisions.extend(self.consider(pipeline, rule, observation, (anchor, now)));
        }
        decisions
    }

    fn begin(&mut self, run: String, now: EventTime) {
        self.in_flight = Some(run);
        self.anchor = Some(now);
        // A run reads every label there is, whoever asked for it.
        for memory in self.memories.values_mut() {
            memory.labels = 0;
        }
    }

    fn end(&mut self, run: &str, succeeded: bool) {
        if self.in_flight.as_deref() != Some(run) {
            return;
        }
        self.in_flight = None;
        for memory in self.memories.values_mut() {
            memory.rearm(succeeded);
        }
    }

    fn ask(
        &mut self,
        pipeline: &str,
        actor: &Actor,
        reason: &str,
        at: EventTime,
    ) -> TriggerDecision {
        let trigger = "manual".to_owned();
        if let Some(run) = self.in_flight.clone() {
            let why = Suppression::RunInFlight { run };
            return TriggerDecision::Suppressed { trigger, at, windows: Vec::new(), why };
        }
        let run = run_name(pipeline, &trigger, at);
        self.begin(run.clone(), at);
        TriggerDecision::Fire(Firing {
            trigger,
            run,
            actor: actor.clone(),
            at,
            windows: Vec::new(),
            reason: reason.to_owned(),
        })
    }

    fn consider(
        &mut self,
        pipeline: &str,
        rule: &TriggerRule,
        observation: &Observation,
        (anchor, now): (EventTime, EventTime),
    ) -> Option<TriggerDecision> {
        let memory = self.memories.entry(rule.name.clone()).or_default();
        match memory.level(rule, observation, (anchor, now)) {
            Level::Silent => None,
            Level::Calm => memory
                .calm_down(rule)
                .then(|| TriggerDecision::Cleared { trigger: rule.name.clone(), at: now }),
            Level::Alarm { windows, reason } => {
                if let Some(decision) = memory.hold(rule, self.in_flight.as_deref(), now, &windows)
                {
                    return decision;
                }
                memory.fired(rule, now);
                let run = run_name(pipeline, &rule.name, now);
                self.begin(run.clone(), now);
                let actor = Actor::Rule(rule.name.clone());
                let trigger = rule.name.clone();
                Some(TriggerDecision::Fire(Firing {
                    trigger,
                    run,
                    actor,
                    at: now,
                    windows,
                    reason,
                }))
            }
        }
    }
}

fn run_name(pipeline: &str, trigger: &str, at: EventTime) -> String {
    format!("{pipeline}.{trigger}.{at}")
}
