//! Guardrails: figures of the serving version that, once broken, take it out again.
//!
//! A fold over closed windows with hysteresis: a guardrail breaks after so many windows in a row and
//! mends after so many good ones. No data counts as neither. Does not know how a window was
//! measured, nor how a rollback is carried out: see [`crate::registry::Action::Rollback`].

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use falaj_event::LogTime;
use serde::{Deserialize, Serialize};

use crate::registry::VersionNumber;
use crate::triggers::WindowRef;

/// One guardrail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardrailRule {
    /// Its name.
    pub name: String,
    /// The figure that it watches: `error_rate`, `latency_p99_us`, `auc`, `kpi`, …
    pub figure: String,
    /// The least value that is well.
    #[serde(default)]
    pub minimum: Option<f64>,
    /// The greatest value that is well.
    #[serde(default)]
    pub maximum: Option<f64>,
    /// Rows below which a window says nothing.
    #[serde(default)]
    pub minimum_support: u64,
    /// Bad windows in a row that break it; at least 1.
    #[serde(default = "one")]
    pub break_after: u32,
    /// Good windows in a row that mend it; at least 1.
    #[serde(default = "one")]
    pub mend_after: u32,
    /// Roll back when it breaks within this many microseconds of the promotion; later, or where it
    /// is `None`, a break is reported only.
    #[serde(default)]
    pub rollback_within_us: Option<u64>,
}

fn one() -> u32 {
    1
}

/// A closed window of one figure of one version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuardrailWindow {
    /// Which window.
    pub window: WindowRef,
    /// The version that it measures.
    pub version: VersionNumber,
    /// The figure.
    pub figure: String,
    /// Its value; `None` where nothing could be measured.
    pub value: Option<f64>,
    /// Rows behind it.
    pub support: u64,
    /// The `T` at which the window closed.
    pub at: LogTime,
}

/// A guardrail that broke, with what broke it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuardrailBreach {
    /// The guardrail.
    pub guardrail: String,
    /// The figure.
    pub figure: String,
    /// Its last value.
    pub value: f64,
    /// The rule in words.
    pub rule: String,
    /// The windows that broke it, oldest first.
    pub windows: Vec<WindowRef>,
}

impl fmt::Display for GuardrailBreach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, figure, value, rule) = (&self.guardrail, &self.figure, self.value, &self.rule);
        write!(f, "guardrail {name} broke: {figure} = {value}, not {rule}")?;
        write!(f, ", {} windows in a row", self.windows.len())
    }
}

/// What follows from a window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum GuardrailDecision {
    /// Take the version out now.
    RollBack {
        /// The version.
        version: VersionNumber,
        /// Why.
        breach: GuardrailBreach,
    },
    /// Tell somebody; the version stays.
    Report {
        /// The version.
        version: VersionNumber,
        /// Why.
        breach: GuardrailBreach,
    },
    /// A broken guardrail is well again.
    Mended {
        /// The version.
        version: VersionNumber,
        /// The guardrail.
        guardrail: String,
    },
}

/// What the guardrails remember, per version and guardrail. Serialisable; equal after a replay of
/// the same windows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GuardrailState {
    memory: BTreeMap<VersionNumber, BTreeMap<String, Memory>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Memory {
    bad: Vec<WindowRef>,
    good: u32,
    broken: bool,
}

impl GuardrailState {
    /// Takes one window in and says what follows. `promoted_at` is since when the version serves.
    ///
    /// Only windows that begin at or after `promoted_at` are judged: older ones measure another
    /// version's work.
    pub fn observe(
        &mut self,
        rules: &[GuardrailRule],
        promoted_at: LogTime,
        window: &GuardrailWindow,
    ) -> Vec<GuardrailDecision> {
        if window.window.from < promoted_at.as_event_time() {
            return Vec::new();
        }
        let memory = self.memory.entry(window.version).or_default();
        let mut decisions = Vec::new();
        for rule in rules.iter().filter(|rule| rule.figure == window.figure) {
            let own = memory.entry(rule.name.clone()).or_default();
            decisions.extend(own.take(rule, promoted_at, window));
        }
        decisions
    }

    /// The names of a version's guardrails that are broken now.
    pub fn broken(&self, version: VersionNumber) -> impl Iterator<Item = &str> {
        let of_version = self.memory.get(&version).into_iter().flatten();
        of_version.filter(|(_, memory)| memory.broken).map(|(name, _)| name.as_str())
    }

    /// Forgets a version that no longer serves.
    pub fn forget(&mut self, version: VersionNumber) {
        self.memory.remove(&version);
    }
}

impl Memory {
    fn take(
        &mut self,
        rule: &GuardrailRule,
        promoted_at: LogTime,
        window: &GuardrailWindow,
    ) -> Option<GuardrailDecision> {
        let value = window.value.filter(|_| window.support >= rule.minimum_support)?;
        let version = window.version;
        if rule.holds(value) {
            self.bad.clear();
            self.good = self.good.saturating_add(1);
            if self.broken && self.good >= rule.mend_after.max(1) {
                self.broken = false;
                return Some(GuardrailDecision::Mended { version, guardrail: rule.name.clone() });
            }
            return None;
        }
        self.good = 0;
        if self.broken {
            return None;
        }
        self.bad.push(window.window.clone());
        if self.bad.len() < rule.break_after.max(1) as usize {
            return None;
        }
        self.broken = true;
        let breach = GuardrailBreach {
            guardrail: rule.name.clone(),
            figure: rule.figure.clone(),
            value,
            rule: rule.words(),
            windows: std::mem::take(&mut self.bad),
        };
        let age_us = window.at.0.saturating_sub(promoted_at.0);
        let young = rule.rollback_within_us.is_some_and(|limit| age_us <= limit);
        Some(if young {
            GuardrailDecision::RollBack { version, breach }
        } else {
            GuardrailDecision::Report { version, breach }
        })
    }
}

impl GuardrailRule {
    /// Whether `value` is well. A value that is not a number never is.
    pub fn holds(&self, value: f64) -> bool {
        !value.is_nan()
            && self.minimum.is_none_or(|minimum| value >= minimum)
            && self.maximum.is_none_or(|maximum| value <= maximum)
    }

    fn words(&self) -> String {
        match (self.minimum, self.maximum) {
            (Some(minimum), None) => format!("at least {minimum}"),
            (None, Some(maximum)) => format!("at most {maximum}"),
            (Some(minimum), Some(maximum)) => format!("between {minimum} and {maximum}"),
            (None, None) => "a number".to_owned(),
        }
    }
}
