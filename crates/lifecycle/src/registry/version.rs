//! One model version: where it stands, what it is, who spoke for it.
//!
//! Does not know its pipeline or the other versions.

use falaj_event::LogTime;
use serde::{Deserialize, Serialize};

use super::history::Approval;
use super::{Actor, ModelEvent, Refusal, RequestCause, Stage, TrainedModel, VersionNumber};
use crate::gates::GateReport;

/// One model version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionState {
    /// Where it stands.
    pub stage: Stage,
    /// The name of its run.
    pub run: String,
    /// Who requested it.
    pub requested_by: Actor,
    /// Why it was requested.
    pub cause: RequestCause,
    /// How often its run began.
    pub attempts: u32,
    /// What the run made.
    pub model: Option<TrainedModel>,
    /// Its gates, once evaluated.
    pub report: Option<GateReport>,
    /// The approvals that stand, in order.
    pub approvals: Vec<Approval>,
    /// Since when it is in shadow.
    pub shadow_since: Option<LogTime>,
    /// Whether it has ever been the champion.
    pub has_served: bool,
    /// Every change of its stage, in order.
    pub stages: Vec<StageChange>,
}

/// One change of stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageChange {
    /// When.
    pub at: LogTime,
    /// The stage from then on.
    pub stage: Stage,
    /// Who caused it.
    pub actor: Actor,
    /// Why.
    pub reason: String,
}

impl VersionState {
    pub(super) fn note(&mut self, event: &ModelEvent, stage: Stage) {
        self.stage = stage;
        self.stages.push(StageChange {
            at: event.at,
            stage,
            actor: event.actor.clone(),
            reason: event.reason.clone(),
        });
    }

    /// The name of the person who may approve now, or why they may not.
    pub(super) fn check_approval(
        &self,
        number: VersionNumber,
        actor: &Actor,
        self_approval: bool,
    ) -> Result<String, Refusal> {
        self.check_votable(number, "an approval")?;
        let name = person(actor, "an approval")?;
        if !self_approval && self.requested_by == *actor {
            return Err(Refusal::SelfApproval(name.to_owned()));
        }
        if self.approvals.iter().any(|approval| approval.approver == name) {
            return Err(Refusal::AlreadyApproved(name.to_owned()));
        }
        Ok(name.to_owned())
    }

    /// Where the approval that `actor` may withdraw stands, or why they may not.
    pub(super) fn check_withdrawal(
        &self,
        number: VersionNumber,
        actor: &Actor,
    ) -> Result<usize, Refusal> {
        self.check_votable(number, "a withdrawal")?;
        let name = person(actor, "a withdrawal")?;
        let found = self.approvals.iter().position(|approval| approval.approver == name);
        found.ok_or_else(|| Refusal::NotApproved(name.to_owned()))
    }

    fn check_votable(&self, version: VersionNumber, action: &'static str) -> Result<(), Refusal> {
        if matches!(self.stage, Stage::Validated | Stage::Shadow) {
            return Ok(());
        }
        Err(Refusal::WrongStage { version, stage: self.stage, action })
    }
}

pub(super) fn person<'a>(actor: &'a Actor, action: &'static str) -> Result<&'a str, Refusal> {
    actor.person().ok_or_else(|| Refusal::PersonRequired { action, actor: actor.to_string() })
}
