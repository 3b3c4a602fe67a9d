//! What one trigger remembers between observations: its streak, its latch, its count.
//!
//! Does not know of other triggers or of runs; see [`super::TriggerState`].

use falaj_event::EventTime;
use serde::{Deserialize, Serialize};

use super::{Observation, Suppression, TriggerCondition, TriggerDecision, TriggerRule, WindowRef};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memory {
    /// The drifted windows in a row, the newest `fire_after` of them.
    streak: Vec<WindowRef>,
    /// Calm windows in a row.
    calm: u32,
    /// Fired, and not calm since.
    latched: bool,
    /// A suppression was reported already.
    reported: bool,
    last_fired: Option<EventTime>,
    /// Labels since the last run was asked for.
    pub(super) labels: u64,
    labels_since: Option<EventTime>,
}

/// What an observation means for one trigger.
pub(super) enum Level {
    /// Nothing.
    Silent,
    /// Well inside the bounds.
    Calm,
    /// The condition holds for long enough.
    Alarm { windows: Vec<WindowRef>, reason: String },
}

enum Reading {
    Bad(String),
    Between,
    Good,
}

impl Memory {
    pub(super) fn level(
        &mut self,
        rule: &TriggerRule,
        observation: &Observation,
        (anchor, now): (EventTime, EventTime),
    ) -> Level {
        match &rule.condition {
            TriggerCondition::Labels { count } => self.count_labels(*count, observation, now),
            TriggerCondition::Schedule { every_us } => tick(*every_us, anchor, now),
            _ => {
                let Some((window, reading)) = read(&rule.condition, observation) else {
                    return Level::Silent;
                };
                self.take_window(rule, window, reading)
            }
        }
    }

    fn take_window(&mut self, rule: &TriggerRule, window: &WindowRef, reading: Reading) -> Level {
        match reading {
            Reading::Good => {
                self.streak.clear();
                Level::Calm
            }
            Reading::Between => {
                self.streak.clear();
                self.calm = 0;
                Level::Silent
            }
            Reading::Bad(reason) => {
                self.calm = 0;
                let keep = rule.fire_after.max(1) as usize;
                self.streak.push(window.clone());
                let excess = self.streak.len().saturating_sub(keep);
                self.streak.drain(..excess);
                if self.streak.len() < keep {
                    return Level::Silent;
                }
                Level::Alarm { windows: self.streak.clone(), reason }
            }
        }
    }

    fn count_labels(&mut self, needed: u64, observation: &Observation, now: EventTime) -> Level {
        if let Observation::Labels { count, at } = observation {
            if self.labels == 0 {
                self.labels_since = Some(*at);
            }
            self.labels = self.labels.saturating_add(*count);
        }
        if needed == 0 || self.labels < needed {
            return Level::Silent;
        }
        let from = self.labels_since.unwrap_or(now);
        let window = WindowRef { series: "labels".to_owned(), from, to: now.saturating_add(1) };
        let reason = format!("{} labels since the last run, of {needed}", self.labels);
        Level::Alarm { windows: vec![window], reason }
    }

    /// Takes a calm window; whether that cleared the latch.
    pub(super) fn calm_down(&mut self, rule: &TriggerRule) -> bool {
        self.calm = self.calm.saturating_add(1);
        self.reported = false;
        let cleared = self.latched && self.calm >= rule.clear_after.max(1);
        self.latched = self.latched && !cleared;
        cleared
    }

    /// `None` where nothing holds the trigger back; otherwise what to say about it.
    pub(super) fn hold(
        &mut self,
        rule: &TriggerRule,
        in_flight: Option<&str>,
        now: EventTime,
        windows: &[WindowRef],
    ) -> Option<Option<TriggerDecision>> {
        if self.latched && !self.may_repeat(rule, now) {
            return Some(None);
        }
        let why = match (in_flight, self.cool_until(rule).filter(|until| now < *until)) {
            (Some(run), _) => Suppression::RunInFlight { run: run.to_owned() },
            (None, Some(until)) => Suppression::CoolDown { until },
            (None, None) => return None,
        };
        if std::mem::replace(&mut self.reported, true) {
            return Some(None);
        }
        let (trigger, windows) = (rule.name.clone(), windows.to_vec());
        Some(Some(TriggerDecision::Suppressed { trigger, at: now, windows, why }))
    }

    fn may_repeat(&self, rule: &TriggerRule, now: EventTime) -> bool {
        let Some(distance_us) = rule.repeat_after_us else { return false };
        self.last_fired.is_some_and(|last| now >= later(last, distance_us))
    }

    fn cool_until(&self, rule: &TriggerRule) -> Option<EventTime> {
        self.last_fired.map(|last| later(last, rule.cooldown_us))
    }

    pub(super) fn fired(&mut self, rule: &TriggerRule, now: EventTime) {
        self.last_fired = Some(now);
        self.reported = false;
        self.streak.clear();
        self.calm = 0;
        match rule.condition {
            TriggerCondition::Schedule { .. } | TriggerCondition::Labels { .. } => {}
            TriggerCondition::Drift { .. } | TriggerCondition::Metric { .. } => {
                self.latched = true;
            }
        }
    }

    /// The run is over: a success starts drift and metrics afresh, a failure only lifts the latch,
    /// so that the cool-down alone keeps a persisting condition from firing.
    pub(super) fn rearm(&mut self, succeeded: bool) {
        self.latched = false;
        self.reported = false;
        if succeeded {
            self.streak.clear();
            self.calm = 0;
        }
    }
}

fn later(time: EventTime, distance_us: u64) -> EventTime {
    time.saturating_add(i64::try_from(distance_us).unwrap_or(i64::MAX))
}

fn tick(every_us: i64, anchor: EventTime, now: EventTime) -> Level {
    let due = anchor.saturating_add(every_us);
    if every_us <= 0 || now < due {
        return Level::Silent;
    }
    let window = WindowRef { series: "schedule".to_owned(), from: anchor, to: due };
    Level::Alarm { windows: vec![window], reason: format!("scheduled for {due}") }
}

fn read<'a>(
    condition: &TriggerCondition,
    observation: &'a Observation,
) -> Option<(&'a WindowRef, Reading)> {
    match (condition, observation) {
        (
            TriggerCondition::Drift { minimum_share, calm_share, columns },
            Observation::Drift { window, watched, alarmed },
        ) => {
            let counts = |name: &&String| columns.is_empty() || columns.contains(name);
            let all = watched.iter().filter(counts).count();
            let bad: Vec<&str> = alarmed.iter().filter(counts).map(String::as_str).collect();
            if all == 0 {
                return None;
            }
            let share = bad.len() as f64 / all as f64;
            let reading = if !bad.is_empty() && share >= *minimum_share {
                Reading::Bad(format!("{} of {all} columns drifted: {}", bad.len(), bad.join(", ")))
            } else if bad.is_empty() || share < calm_share.unwrap_or(*minimum_share) {
                Reading::Good
            } else {
                Reading::Between
            };
            Some((window, reading))
        }
        (
            TriggerCondition::Metric { metric, minimum, maximum, margin, minimum_support },
            Observation::Metric { window, metric: measured, value, support },
        ) if metric == measured && support >= minimum_support => {
            let value = (*value)?;
            Some((window, read_metric(metric, value, *minimum, *maximum, *margin)))
        }
        _ => None,
    }
}

fn read_metric(
    metric: &str,
    value: f64,
    minimum: Option<f64>,
    maximum: Option<f64>,
    margin: f64,
) -> Reading {
    if value.is_nan() {
        return Reading::Bad(format!("{metric} is not a number"));
    }
    if let Some(floor) = minimum.filter(|floor| value < *floor) {
        return Reading::Bad(format!("{metric} = {value} is below {floor}"));
    }
    if let Some(ceiling) = maximum.filter(|ceiling| value > *ceiling) {
        return Reading::Bad(format!("{metric} = {value} is above {ceiling}"));
    }
    let clear_of_floor = minimum.is_none_or(|floor| value >= floor + margin);
    let clear_of_ceiling = maximum.is_none_or(|ceiling| value <= ceiling - margin);
    if clear_of_floor && clear_of_ceiling { Reading::Good } else { Reading::Between }
}
