//! The registry of model versions: its words, and the events that are its only truth.
//!
//! A version moves `requested → training → trained → validated → shadow → serving → retired`, or ends
//! `rejected` or `failed`. The state is a fold over [`ModelEvent`]s; [`RegistryState::decide`] turns a
//! [`Command`] into events or into a [`Refusal`] that names its reason. Does not know how events are
//! stored, nor how a figure was measured.

mod decide;
mod history;
mod refusal;
mod state;
#[cfg(test)]
mod tests;
mod version;

use std::collections::BTreeMap;
use std::fmt;

use falaj_event::LogTime;
use serde::{Deserialize, Serialize};

use crate::gates::{GateReport, GateRules};
use crate::guardrails::GuardrailBreach;
use crate::serving::ServingPolicy;
use crate::triggers::WindowRef;

pub use decide::{Action, Command};
pub use history::{Approval, ServedSpan};
pub use refusal::Refusal;
pub use state::{PipelineState, RegistryState};
pub use version::{StageChange, VersionState};

/// The number of a model version within its pipeline: 1, 2, 3, … in the order of requests.
pub type VersionNumber = u32;

/// The name of the alias that the serving version holds; it moves by promotion and rollback only.
pub const CHAMPION: &str = "champion";
/// The name of the alias that the newest version in shadow holds; it moves by the registry only.
pub const CHALLENGER: &str = "challenger";

/// Where a version stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// A run was asked for and waits for its turn.
    Requested,
    /// Its run is at work (or was interrupted and will resume).
    Training,
    /// An artifact exists; its gates have not been evaluated.
    Trained,
    /// Every gate passed.
    Validated,
    /// It scores beside the champion, with the share of traffic that the serving policy gives it.
    Shadow,
    /// It is the champion.
    Serving,
    /// It served or waited, and no longer does. It may serve again by a rollback only.
    Retired,
    /// A gate or a person turned it down. Final.
    Rejected,
    /// Its run ended without an artifact, or its evaluation broke. Final.
    Failed,
}

impl Stage {
    /// Whether the registry may move a version from `self` to `next`: the whole table of legal
    /// transitions. `Training → Training` is a run that resumes; `Retired → Serving` is a rollback.
    pub fn may_become(self, next: Self) -> bool {
        use Stage::{
            Failed, Rejected, Requested, Retired, Serving, Shadow, Trained, Training, Validated,
        };
        matches!(
            (self, next),
            (Requested, Training | Failed)
                | (Training, Training | Trained | Failed)
                | (Trained, Validated | Rejected | Failed)
                | (Validated, Shadow | Rejected | Retired)
                | (Shadow, Serving | Rejected | Retired)
                | (Serving, Retired)
                | (Retired, Serving)
        )
    }

    /// Whether a version at this stage still occupies its pipeline's one run.
    pub fn in_flight(self) -> bool {
        matches!(self, Self::Requested | Self::Training | Self::Trained)
    }

    /// The stage's name, as in events and command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Training => "training",
            Self::Trained => "trained",
            Self::Validated => "validated",
            Self::Shadow => "shadow",
            Self::Serving => "serving",
            Self::Retired => "retired",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who caused an event. Drawn and read as `person:NAME`, `rule:NAME` or `platform`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Actor {
    /// A person, by the identity of their certificate or token.
    Person(String),
    /// A declared rule: a trigger, a gate, a guardrail.
    Rule(String),
    /// The platform itself, carrying out what was decided (a run that starts, ends or breaks).
    Platform,
}

impl Actor {
    /// The person's name, where it is one.
    pub fn person(&self) -> Option<&str> {
        match self {
            Self::Person(name) => Some(name),
            Self::Rule(_) | Self::Platform => None,
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Person(name) => write!(f, "person:{name}"),
            Self::Rule(name) => write!(f, "rule:{name}"),
            Self::Platform => f.write_str("platform"),
        }
    }
}

impl From<Actor> for String {
    fn from(actor: Actor) -> Self {
        actor.to_string()
    }
}

impl TryFrom<String> for Actor {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.split_once(':') {
            Some(("person", name)) if !name.is_empty() => Ok(Self::Person(name.to_owned())),
            Some(("rule", name)) if !name.is_empty() => Ok(Self::Rule(name.to_owned())),
            None if text == "platform" => Ok(Self::Platform),
            _ => Err(format!("{text:?} is no actor: write person:NAME, rule:NAME or platform")),
        }
    }
}

/// What a pipeline's file declares about gates, approval and promotion. Recorded as an event, so
/// that the rules in force at any `T` are known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PipelineRules {
    /// What a trained version must fulfil.
    pub gates: GateRules,
    /// Whose word is needed before a version serves.
    pub approval: ApprovalRules,
    /// How long a version must have been in shadow before it serves.
    pub promotion: PromotionRules,
}

/// Human approval: how many, and of whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApprovalRules {
    /// Distinct persons who must approve before promotion; 0 asks for none.
    pub quorum: u32,
    /// Whether the person who requested the run counts as an approver of it.
    pub self_approval: bool,
}

/// The least that a version must show in shadow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PromotionRules {
    /// Time in shadow, in microseconds of `T`.
    pub minimum_shadow_us: u64,
    /// Predictions made in shadow.
    pub minimum_shadow_predictions: u64,
}

/// Why a run was requested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestCause {
    /// The trigger's name, or `manual`.
    pub trigger: String,
    /// The windows that made it fire; empty for a manual request.
    pub windows: Vec<WindowRef>,
}

/// What a finished run hands to the registry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainedModel {
    /// SHA-256 of the artifact, 64 lower-case hexadecimal digits.
    pub artifact_sha256: String,
    /// The least and greatest `T` of the training set.
    pub trained_on: Option<(LogTime, LogTime)>,
    /// Named figures of the run (losses, validation metrics).
    pub metrics: BTreeMap<String, f64>,
    /// Where it comes from: view hashes, commit, code version, seed, hardware.
    pub lineage: BTreeMap<String, String>,
}

/// What was known when a version was promoted or put in place by a rollback.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromotionEvidence {
    /// Whether the model is loaded and warmed wherever traffic will reach it.
    pub ready: bool,
    /// Predictions it made in shadow.
    pub shadow_predictions: u64,
}

/// One event of the registry: a row of the system topic `falaj.models`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelEvent {
    /// The pipeline.
    pub pipeline: String,
    /// The version; `None` where the event is about the pipeline as a whole.
    pub version: Option<VersionNumber>,
    /// The `T` of its cause; never decreases along a pipeline's events.
    pub at: LogTime,
    /// Who caused it.
    pub actor: Actor,
    /// Why, in words.
    pub reason: String,
    /// What changed.
    #[serde(flatten)]
    pub change: ModelChange,
}

/// What an event changed. `kind` and `detail` are columns of the topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "detail", rename_all = "snake_case")]
pub enum ModelChange {
    /// The pipeline's rules, from now on.
    RulesDeclared {
        /// The rules.
        rules: PipelineRules,
    },
    /// A run was asked for; the version exists from here on.
    Requested {
        /// The run's name.
        run: String,
        /// Why.
        cause: RequestCause,
    },
    /// The run began, or began again after an interruption.
    TrainingStarted {
        /// 1 for the first time, one more for each resumption.
        attempt: u32,
        /// Where it runs, in words.
        hardware: String,
    },
    /// The run ended with an artifact.
    Trained {
        /// What it made.
        model: TrainedModel,
    },
    /// Every gate passed.
    Validated {
        /// The gates, one by one.
        report: GateReport,
    },
    /// Turned down by its gates or by a person.
    Rejected {
        /// The gates, where they are the reason.
        report: Option<GateReport>,
    },
    /// Ended without an artifact, or could not be evaluated.
    Failed {
        /// What went wrong.
        error: String,
    },
    /// A person approved the version.
    Approved {},
    /// A person took their approval back.
    ApprovalWithdrawn {},
    /// It scores beside the champion from now on, and is the challenger.
    ShadowStarted {},
    /// It became the champion, and the version that was is retired: one event, one swap.
    Promoted {
        /// The champion that it replaced.
        replaced: Option<VersionNumber>,
        /// What was known.
        evidence: PromotionEvidence,
    },
    /// The champion was taken out, and an earlier one put back: one event, one swap.
    RolledBack {
        /// The version that serves again.
        to: VersionNumber,
        /// The guardrail that broke, where one did.
        breach: Option<GuardrailBreach>,
        /// What was known.
        evidence: PromotionEvidence,
    },
    /// It no longer waits, scores or serves.
    Retired {},
    /// How requests are shared out, from now on.
    ServingPolicySet {
        /// The policy.
        policy: ServingPolicy,
    },
    /// An alias other than champion and challenger was moved, or removed where the event names no
    /// version.
    AliasSet {
        /// The alias.
        alias: String,
    },
}

impl ModelChange {
    /// The event's kind, as in the `kind` column.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RulesDeclared { .. } => "rules_declared",
            Self::Requested { .. } => "requested",
            Self::TrainingStarted { .. } => "training_started",
            Self::Trained { .. } => "trained",
            Self::Validated { .. } => "validated",
            Self::Rejected { .. } => "rejected",
            Self::Failed { .. } => "failed",
            Self::Approved {} => "approved",
            Self::ApprovalWithdrawn {} => "approval_withdrawn",
            Self::ShadowStarted {} => "shadow_started",
            Self::Promoted { .. } => "promoted",
            Self::RolledBack { .. } => "rolled_back",
            Self::Retired {} => "retired",
            Self::ServingPolicySet { .. } => "serving_policy_set",
            Self::AliasSet { .. } => "alias_set",
        }
    }
}
