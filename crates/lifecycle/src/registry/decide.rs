//! From a command to the events that carry it out, or to the refusal that says why not.
//!
//! Pure: the same state and command give the same answer. Does not append anything, and takes the
//! caller's word for what it observed (readiness, counts, reports).

use falaj_event::LogTime;

use super::version::person;
use super::{
    Actor, CHALLENGER, CHAMPION, ModelChange, ModelEvent, PipelineRules, PipelineState,
    PromotionEvidence, Refusal, RegistryState, RequestCause, Stage, TrainedModel, VersionNumber,
    VersionState,
};
use crate::gates::GateReport;
use crate::guardrails::GuardrailBreach;
use crate::serving::ServingPolicy;

/// What somebody wants of a pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// The pipeline.
    pub pipeline: String,
    /// Who wants it.
    pub actor: Actor,
    /// The `T` of the cause. An event never goes back behind the pipeline's last one: it then
    /// carries that one's `T`.
    pub at: LogTime,
    /// Why, in words; ends up in the event.
    pub reason: String,
    /// What.
    pub action: Action,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Declare the pipeline or change its rules. No event where they are in force already.
    Declare {
        /// The rules.
        rules: PipelineRules,
    },
    /// Ask for a training run. Refused while one is in flight.
    Request {
        /// The run's name.
        run: String,
        /// Why.
        cause: RequestCause,
    },
    /// The run begins, or resumes.
    StartTraining {
        /// The version.
        version: VersionNumber,
        /// Where it runs.
        hardware: String,
    },
    /// The run ended with an artifact.
    FinishTraining {
        /// The version.
        version: VersionNumber,
        /// What it made.
        model: TrainedModel,
    },
    /// The run, or its evaluation, broke or was cancelled.
    Fail {
        /// The version.
        version: VersionNumber,
        /// What went wrong.
        error: String,
    },
    /// Enter the verdict of the gates: validated where all passed, otherwise rejected.
    Evaluate {
        /// The version.
        version: VersionNumber,
        /// The gates, evaluated by the rules in force.
        report: GateReport,
    },
    /// Approve, as a person.
    Approve {
        /// The version.
        version: VersionNumber,
    },
    /// Take an approval back.
    WithdrawApproval {
        /// The version.
        version: VersionNumber,
    },
    /// Turn a version down that has not served.
    Reject {
        /// The version.
        version: VersionNumber,
    },
    /// Let it score beside the champion; a version already in shadow is retired first.
    Shadow {
        /// The version.
        version: VersionNumber,
    },
    /// Make it the champion.
    Promote {
        /// The version.
        version: VersionNumber,
        /// What is known about it.
        evidence: PromotionEvidence,
    },
    /// Put an earlier champion back. Rules and the platform may only go to the nearest one.
    Rollback {
        /// The version; `None` for the champion before this one.
        to: Option<VersionNumber>,
        /// The guardrail that broke, where one did.
        breach: Option<GuardrailBreach>,
        /// What is known about the version to go to.
        evidence: PromotionEvidence,
    },
    /// Take a version out of waiting, shadow or service. The champion takes a person.
    Retire {
        /// The version.
        version: VersionNumber,
    },
    /// Share requests out differently. No event where it is so already.
    SetPolicy {
        /// The policy.
        policy: ServingPolicy,
    },
    /// Point an alias at a version, or remove it.
    SetAlias {
        /// The alias.
        alias: String,
        /// The version, or `None` to remove it.
        version: Option<VersionNumber>,
    },
}

impl RegistryState {
    /// The events that carry `command` out, in order; they are to be appended together, and each
    /// is accepted by [`RegistryState::apply`].
    ///
    /// # Errors
    /// The [`Refusal`] that names what stands in the way.
    pub fn decide(&self, command: &Command) -> Result<Vec<ModelEvent>, Refusal> {
        let found = self.pipelines.get(&command.pipeline);
        let at = found.map_or(command.at, |state| state.last_at.max(command.at));
        let draft = Draft { command, at };
        if let Action::Declare { rules } = &command.action {
            return Ok(declare(&draft, found, rules));
        }
        let state = found.ok_or_else(|| Refusal::UnknownPipeline(command.pipeline.clone()))?;
        let events = state.carry_out(&draft)?;
        let mut trial = Self::default();
        trial.pipelines.insert(command.pipeline.clone(), state.clone());
        for event in &events {
            trial.apply(event)?;
        }
        Ok(events)
    }
}

/// What every event of one command has in common.
struct Draft<'a> {
    command: &'a Command,
    at: LogTime,
}

impl Draft<'_> {
    fn event(&self, version: Option<VersionNumber>, change: ModelChange) -> ModelEvent {
        ModelEvent {
            pipeline: self.command.pipeline.clone(),
            version,
            at: self.at,
            actor: self.command.actor.clone(),
            reason: self.command.reason.clone(),
            change,
        }
    }

    fn one(&self, version: VersionNumber, change: ModelChange) -> Vec<ModelEvent> {
        vec![self.event(Some(version), change)]
    }
}

fn declare(
    draft: &Draft<'_>,
    found: Option<&PipelineState>,
    rules: &PipelineRules,
) -> Vec<ModelEvent> {
    if found.is_some_and(|state| state.rules == *rules) {
        return Vec::new();
    }
    vec![draft.event(None, ModelChange::RulesDeclared { rules: rules.clone() })]
}

impl PipelineState {
    fn carry_out(&self, draft: &Draft<'_>) -> Result<Vec<ModelEvent>, Refusal> {
        let events = match &draft.command.action {
            Action::Declare { .. } => Vec::new(),
            Action::Request { run, cause } => {
                let change = ModelChange::Requested { run: run.clone(), cause: cause.clone() };
                draft.one(self.next_version(), change)
            }
            Action::StartTraining { version, hardware } => {
                let attempt = self.find(draft, *version)?.attempts.saturating_add(1);
                let hardware = hardware.clone();
                draft.one(*version, ModelChange::TrainingStarted { attempt, hardware })
            }
            Action::FinishTraining { version, model } => {
                check_digest(&model.artifact_sha256)?;
                draft.one(*version, ModelChange::Trained { model: model.clone() })
            }
            Action::Fail { version, error } => {
                draft.one(*version, ModelChange::Failed { error: error.clone() })
            }
            Action::Evaluate { version, report } => evaluate(draft, *version, report),
            Action::Approve { version } => draft.one(*version, ModelChange::Approved {}),
            Action::WithdrawApproval { version } => {
                draft.one(*version, ModelChange::ApprovalWithdrawn {})
            }
            Action::Reject { version } => {
                draft.one(*version, ModelChange::Rejected { report: None })
            }
            Action::Shadow { version } => self.shadow(draft, *version)?,
            Action::Promote { version, evidence } => self.promote(draft, *version, evidence)?,
            Action::Rollback { to, breach, evidence } => {
                self.roll_back(draft, *to, breach.as_ref(), evidence)?
            }
            Action::Retire { version } => self.retire(draft, *version)?,
            Action::SetPolicy { policy } => self.set_policy(draft, policy)?,
            Action::SetAlias { alias, version } => self.set_alias(draft, alias, *version)?,
        };
        Ok(events)
    }

    fn find(&self, draft: &Draft<'_>, number: VersionNumber) -> Result<&VersionState, Refusal> {
        self.version(&draft.command.pipeline, number)
    }

    fn shadow(
        &self,
        draft: &Draft<'_>,
        version: VersionNumber,
    ) -> Result<Vec<ModelEvent>, Refusal> {
        let from = self.find(draft, version)?.stage;
        if !from.may_become(Stage::Shadow) {
            return Err(Refusal::IllegalTransition { version, from, to: Stage::Shadow });
        }
        let superseded = self.challenger.map(|old| {
            let mut event = draft.event(Some(old), ModelChange::Retired {});
            event.reason = format!("superseded by version {version}: {}", event.reason);
            event
        });
        let started = draft.event(Some(version), ModelChange::ShadowStarted {});
        Ok(superseded.into_iter().chain([started]).collect())
    }

    fn promote(
        &self,
        draft: &Draft<'_>,
        version: VersionNumber,
        evidence: &PromotionEvidence,
    ) -> Result<Vec<ModelEvent>, Refusal> {
        let candidate = self.find(draft, version)?;
        self.check_promotion(version, candidate, evidence, draft.at)?;
        let replaced = self.champion;
        let evidence = evidence.clone();
        Ok(draft.one(version, ModelChange::Promoted { replaced, evidence }))
    }

    /// Stage, approval, time and predictions in shadow, readiness: in the order in which they are
    /// won. `Retired → Serving` is a rollback's, so the table of transitions is not enough here.
    pub(super) fn check_promotion(
        &self,
        version: VersionNumber,
        candidate: &VersionState,
        evidence: &PromotionEvidence,
        at: LogTime,
    ) -> Result<(), Refusal> {
        if candidate.stage != Stage::Shadow {
            let from = candidate.stage;
            return Err(Refusal::IllegalTransition { version, from, to: Stage::Serving });
        }
        let have = u32::try_from(candidate.approvals.len()).unwrap_or(u32::MAX);
        let need = self.rules.approval.quorum;
        if have < need {
            return Err(Refusal::ApprovalMissing { version, have, need });
        }
        let rules = self.rules.promotion;
        let have_us = candidate.shadow_since.map_or(0, |since| at.0.saturating_sub(since.0));
        if have_us < rules.minimum_shadow_us {
            let need_us = rules.minimum_shadow_us;
            return Err(Refusal::ShadowTooShort { version, have_us, need_us });
        }
        if evidence.shadow_predictions < rules.minimum_shadow_predictions {
            let (have, need) = (evidence.shadow_predictions, rules.minimum_shadow_predictions);
            return Err(Refusal::ShadowTooFew { version, have, need });
        }
        if evidence.ready { Ok(()) } else { Err(Refusal::NotReady(version)) }
    }

    fn roll_back(
        &self,
        draft: &Draft<'_>,
        to: Option<VersionNumber>,
        breach: Option<&GuardrailBreach>,
        evidence: &PromotionEvidence,
    ) -> Result<Vec<ModelEvent>, Refusal> {
        let none = || Refusal::NoPredecessor(draft.command.pipeline.clone());
        let from = self.champion.ok_or_else(none)?;
        let nearest = self.predecessors.last().copied();
        let target = to.or(nearest).ok_or_else(none)?;
        if Some(target) != nearest {
            person(&draft.command.actor, "a rollback past the nearest champion")?;
        }
        if !self.find(draft, target)?.has_served {
            return Err(Refusal::NeverServed(target));
        }
        if !evidence.ready {
            return Err(Refusal::NotReady(target));
        }
        let change = ModelChange::RolledBack {
            to: target,
            breach: breach.cloned(),
            evidence: evidence.clone(),
        };
        Ok(draft.one(from, change))
    }

    fn retire(
        &self,
        draft: &Draft<'_>,
        version: VersionNumber,
    ) -> Result<Vec<ModelEvent>, Refusal> {
        if self.champion == Some(version) {
            person(&draft.command.actor, "retiring the champion")?;
        }
        Ok(draft.one(version, ModelChange::Retired {}))
    }

    fn set_policy(
        &self,
        draft: &Draft<'_>,
        policy: &ServingPolicy,
    ) -> Result<Vec<ModelEvent>, Refusal> {
        policy.check()?;
        if *policy == self.policy {
            return Ok(Vec::new());
        }
        Ok(vec![draft.event(None, ModelChange::ServingPolicySet { policy: policy.clone() })])
    }

    fn set_alias(
        &self,
        draft: &Draft<'_>,
        alias: &str,
        version: Option<VersionNumber>,
    ) -> Result<Vec<ModelEvent>, Refusal> {
        if alias == CHAMPION || alias == CHALLENGER {
            return Err(Refusal::ReservedAlias(alias.to_owned()));
        }
        if self.aliases.get(alias).copied() == version {
            return Ok(Vec::new());
        }
        Ok(vec![draft.event(version, ModelChange::AliasSet { alias: alias.to_owned() })])
    }
}

fn evaluate(draft: &Draft<'_>, version: VersionNumber, report: &GateReport) -> Vec<ModelEvent> {
    let report = report.clone();
    if report.passed() {
        return draft.one(version, ModelChange::Validated { report });
    }
    let failures = report.failures().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let mut event = draft.event(Some(version), ModelChange::Rejected { report: Some(report) });
    event.reason =
        if event.reason.is_empty() { failures } else { format!("{}: {failures}", event.reason) };
    vec![event]
}

fn check_digest(digest: &str) -> Result<(), Refusal> {
    let hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if digest.len() == 64 && digest.bytes().all(hexadecimal) {
        return Ok(());
    }
    Err(Refusal::BadValue {
        what: "artifact_sha256".to_owned(),
        value: format!("{digest:?}"),
        rule: "it is 64 lower-case hexadecimal digits",
    })
}
