//! The registry's state: a fold over its events.
//!
//! [`RegistryState::apply`] accepts exactly the events that the table of transitions allows, so a
//! damaged or forged history is noticed where it departs from it. Does not decide anything.

use std::collections::BTreeMap;

use falaj_event::LogTime;
use serde::{Deserialize, Serialize};

use super::history::{Approval, ServedSpan};
use super::version::VersionState;
use super::{
    CHALLENGER, CHAMPION, ModelChange, ModelEvent, PipelineRules, Refusal, RequestCause, Stage,
    VersionNumber,
};
use crate::serving::ServingPolicy;

/// Every pipeline's versions. Serialisable: a snapshot is this value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RegistryState {
    pub(super) pipelines: BTreeMap<String, PipelineState>,
}

/// One pipeline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PipelineState {
    /// The rules in force.
    pub rules: PipelineRules,
    /// The serving policy in force.
    pub policy: ServingPolicy,
    /// The versions, by number.
    pub versions: BTreeMap<VersionNumber, VersionState>,
    /// The version that serves.
    pub champion: Option<VersionNumber>,
    /// The version in shadow.
    pub challenger: Option<VersionNumber>,
    /// Aliases other than champion and challenger.
    pub aliases: BTreeMap<String, VersionNumber>,
    /// The champions that a rollback would return to, the nearest last.
    pub predecessors: Vec<VersionNumber>,
    /// What served when; the last span is open.
    pub served: Vec<ServedSpan>,
    /// Every event of the pipeline, in order.
    pub events: Vec<ModelEvent>,
    /// The `T` of the last event.
    pub last_at: LogTime,
}

impl RegistryState {
    /// A pipeline's state.
    pub fn pipeline(&self, name: &str) -> Option<&PipelineState> {
        self.pipelines.get(name)
    }

    /// Every pipeline, by name.
    pub fn pipelines(&self) -> impl Iterator<Item = (&str, &PipelineState)> {
        self.pipelines.iter().map(|(name, state)| (name.as_str(), state))
    }

    /// The state after all of `events`, from nothing.
    ///
    /// # Errors
    /// The refusal of the first event that does not follow from those before it.
    pub fn replay<'a>(events: impl IntoIterator<Item = &'a ModelEvent>) -> Result<Self, Refusal> {
        let mut state = Self::default();
        for event in events {
            state.apply(event)?;
        }
        Ok(state)
    }

    /// Takes one event in.
    ///
    /// # Errors
    /// A [`Refusal`] where the event does not follow from the state; the state is then unchanged.
    pub fn apply(&mut self, event: &ModelEvent) -> Result<(), Refusal> {
        if let ModelChange::RulesDeclared { rules } = &event.change {
            let found = self.pipelines.get(&event.pipeline);
            if let Some(state) = found {
                state.check_order(event)?;
            }
            about_pipeline(event)?;
            let state = self.pipelines.entry(event.pipeline.clone()).or_default();
            state.rules = rules.clone();
            state.record(event);
            return Ok(());
        }
        let state = self
            .pipelines
            .get_mut(&event.pipeline)
            .ok_or_else(|| Refusal::UnknownPipeline(event.pipeline.clone()))?;
        state.check_order(event)?;
        state.take(event)?;
        state.record(event);
        Ok(())
    }
}

impl PipelineState {
    /// The number that the next request gets.
    pub fn next_version(&self) -> VersionNumber {
        self.versions.last_key_value().map_or(1, |(last, _)| last.saturating_add(1))
    }

    /// The version whose run occupies the pipeline.
    pub fn in_flight(&self) -> Option<(VersionNumber, Stage)> {
        let found = self.versions.iter().rev().find(|(_, version)| version.stage.in_flight());
        found.map(|(number, version)| (*number, version.stage))
    }

    /// The version that an alias names now, `champion` and `challenger` included.
    pub fn alias(&self, alias: &str) -> Option<VersionNumber> {
        match alias {
            CHAMPION => self.champion,
            CHALLENGER => self.challenger,
            other => self.aliases.get(other).copied(),
        }
    }

    pub(super) fn version(
        &self,
        pipeline: &str,
        number: VersionNumber,
    ) -> Result<&VersionState, Refusal> {
        self.versions.get(&number).ok_or_else(|| Refusal::UnknownVersion {
            pipeline: pipeline.to_owned(),
            version: number,
        })
    }

    fn check_order(&self, event: &ModelEvent) -> Result<(), Refusal> {
        if event.at < self.last_at {
            return Err(Refusal::OutOfOrder { at: event.at.0, last: self.last_at.0 });
        }
        Ok(())
    }

    fn record(&mut self, event: &ModelEvent) {
        self.last_at = event.at;
        self.events.push(event.clone());
    }

    fn take(&mut self, event: &ModelEvent) -> Result<(), Refusal> {
        match &event.change {
            ModelChange::ServingPolicySet { policy } => {
                about_pipeline(event)?;
                policy.check()?;
                self.policy = policy.clone();
                self.open_span(event);
                Ok(())
            }
            ModelChange::AliasSet { alias } => self.take_alias(event, alias),
            ModelChange::Requested { run, cause } => self.take_request(event, run, cause),
            _ => {
                let number = about_version(event)?;
                self.version(&event.pipeline, number)?;
                self.take_of_version(event, number)
            }
        }
    }

    fn take_alias(&mut self, event: &ModelEvent, alias: &str) -> Result<(), Refusal> {
        if alias == CHAMPION || alias == CHALLENGER {
            return Err(Refusal::ReservedAlias(alias.to_owned()));
        }
        match event.version {
            Some(number) => {
                self.version(&event.pipeline, number)?;
                self.aliases.insert(alias.to_owned(), number);
            }
            None => {
                self.aliases.remove(alias);
            }
        }
        Ok(())
    }

    fn take_request(
        &mut self,
        event: &ModelEvent,
        run: &str,
        cause: &RequestCause,
    ) -> Result<(), Refusal> {
        let number = about_version(event)?;
        if let Some((version, stage)) = self.in_flight() {
            return Err(Refusal::RunInFlight { version, stage });
        }
        let next = self.next_version();
        if number != next {
            return Err(Refusal::VersionGap { named: number, next });
        }
        let mut version = VersionState {
            stage: Stage::Requested,
            run: run.to_owned(),
            requested_by: event.actor.clone(),
            cause: cause.clone(),
            attempts: 0,
            model: None,
            report: None,
            approvals: Vec::new(),
            shadow_since: None,
            has_served: false,
            stages: Vec::new(),
        };
        version.note(event, Stage::Requested);
        self.versions.insert(number, version);
        Ok(())
    }

    fn take_of_version(
        &mut self,
        event: &ModelEvent,
        number: VersionNumber,
    ) -> Result<(), Refusal> {
        match &event.change {
            ModelChange::TrainingStarted { attempt, .. } => {
                self.enter(event, number, Stage::Training)?.attempts = *attempt;
            }
            ModelChange::Trained { model } => {
                self.enter(event, number, Stage::Trained)?.model = Some(model.clone());
            }
            ModelChange::Validated { report } => {
                if !report.passed() {
                    let problem = "carries a gate that failed";
                    return Err(Refusal::Malformed { kind: event.change.kind(), problem });
                }
                self.enter(event, number, Stage::Validated)?.report = Some(report.clone());
            }
            ModelChange::Rejected { report } => {
                let version = self.enter(event, number, Stage::Rejected)?;
                if report.is_some() {
                    version.report = report.clone();
                }
                self.leave_shadow(event, number);
            }
            ModelChange::Failed { .. } => {
                self.enter(event, number, Stage::Failed)?;
            }
            ModelChange::Approved {} => self.take_approval(event, number)?,
            ModelChange::ApprovalWithdrawn {} => self.take_withdrawal(event, number)?,
            ModelChange::ShadowStarted {} => self.take_shadow(event, number)?,
            ModelChange::Promoted { replaced, evidence } => {
                let candidate = self.version(&event.pipeline, number)?;
                self.check_promotion(number, candidate, evidence, event.at)?;
                self.take_promotion(event, number, *replaced)?;
            }
            ModelChange::RolledBack { to, .. } => self.take_rollback(event, number, *to)?,
            ModelChange::Retired {} => self.take_retirement(event, number)?,
            ModelChange::RulesDeclared { .. }
            | ModelChange::Requested { .. }
            | ModelChange::ServingPolicySet { .. }
            | ModelChange::AliasSet { .. } => {}
        }
        Ok(())
    }

    /// Moves a version to `stage`, or refuses and leaves everything as it was.
    fn enter(
        &mut self,
        event: &ModelEvent,
        number: VersionNumber,
        stage: Stage,
    ) -> Result<&mut VersionState, Refusal> {
        let version = self.versions.get_mut(&number).ok_or_else(|| Refusal::UnknownVersion {
            pipeline: event.pipeline.clone(),
            version: number,
        })?;
        if !version.stage.may_become(stage) {
            let from = version.stage;
            return Err(Refusal::IllegalTransition { version: number, from, to: stage });
        }
        version.note(event, stage);
        Ok(version)
    }

    fn take_approval(&mut self, event: &ModelEvent, number: VersionNumber) -> Result<(), Refusal> {
        let self_approval = self.rules.approval.self_approval;
        let version = self.version(&event.pipeline, number)?;
        let approver = version.check_approval(number, &event.actor, self_approval)?;
        let approval = Approval { approver, at: event.at, comment: event.reason.clone() };
        if let Some(version) = self.versions.get_mut(&number) {
            version.approvals.push(approval);
        }
        Ok(())
    }

    fn take_withdrawal(
        &mut self,
        event: &ModelEvent,
        number: VersionNumber,
    ) -> Result<(), Refusal> {
        let version = self.version(&event.pipeline, number)?;
        let position = version.check_withdrawal(number, &event.actor)?;
        if let Some(version) = self.versions.get_mut(&number) {
            version.approvals.remove(position);
        }
        Ok(())
    }

    fn take_shadow(&mut self, event: &ModelEvent, number: VersionNumber) -> Result<(), Refusal> {
        if let Some(version) = self.challenger {
            return Err(Refusal::IllegalTransition {
                version,
                from: Stage::Shadow,
                to: Stage::Shadow,
            });
        }
        self.enter(event, number, Stage::Shadow)?.shadow_since = Some(event.at);
        self.challenger = Some(number);
        self.open_span(event);
        Ok(())
    }

    fn take_promotion(
        &mut self,
        event: &ModelEvent,
        number: VersionNumber,
        replaced: Option<VersionNumber>,
    ) -> Result<(), Refusal> {
        if replaced != self.champion {
            return Err(Refusal::StaleChampion { named: replaced, champion: self.champion });
        }
        self.enter(event, number, Stage::Serving)?.has_served = true;
        if let Some(old) = replaced {
            self.enter(event, old, Stage::Retired)?;
            self.predecessors.push(old);
        }
        self.champion = Some(number);
        self.challenger = None;
        self.open_span(event);
        Ok(())
    }

    fn take_rollback(
        &mut self,
        event: &ModelEvent,
        number: VersionNumber,
        to: VersionNumber,
    ) -> Result<(), Refusal> {
        if self.champion != Some(number) {
            return Err(Refusal::StaleChampion { named: Some(number), champion: self.champion });
        }
        let target = self.version(&event.pipeline, to)?;
        if !target.has_served {
            return Err(Refusal::NeverServed(to));
        }
        if target.stage != Stage::Retired {
            let from = target.stage;
            return Err(Refusal::IllegalTransition { version: to, from, to: Stage::Serving });
        }
        self.enter(event, number, Stage::Retired)?;
        self.enter(event, to, Stage::Serving)?;
        // Back along the line of champions; a version off that line is a step forward again.
        match self.predecessors.iter().rposition(|earlier| *earlier == to) {
            Some(position) => self.predecessors.truncate(position),
            None => self.predecessors.push(number),
        }
        self.champion = Some(to);
        self.open_span(event);
        Ok(())
    }

    fn take_retirement(
        &mut self,
        event: &ModelEvent,
        number: VersionNumber,
    ) -> Result<(), Refusal> {
        self.enter(event, number, Stage::Retired)?;
        if self.champion == Some(number) {
            self.champion = None;
            self.open_span(event);
        }
        self.leave_shadow(event, number);
        Ok(())
    }

    fn leave_shadow(&mut self, event: &ModelEvent, number: VersionNumber) {
        if self.challenger == Some(number) {
            self.challenger = None;
            self.open_span(event);
        }
    }

    fn open_span(&mut self, event: &ModelEvent) {
        if let Some(last) = self.served.last_mut() {
            last.until = Some(event.at);
        }
        self.served.push(ServedSpan {
            from: event.at,
            until: None,
            champion: self.champion,
            challenger: self.challenger,
            policy: self.policy.clone(),
            actor: event.actor.clone(),
            reason: event.reason.clone(),
            kind: event.change.kind().to_owned(),
        });
    }
}

fn about_version(event: &ModelEvent) -> Result<VersionNumber, Refusal> {
    event.version.ok_or(Refusal::Malformed {
        kind: event.change.kind(),
        problem: "names no version, and is about one",
    })
}

fn about_pipeline(event: &ModelEvent) -> Result<(), Refusal> {
    if event.version.is_none() {
        return Ok(());
    }
    Err(Refusal::Malformed {
        kind: event.change.kind(),
        problem: "names a version, and is about the pipeline",
    })
}
