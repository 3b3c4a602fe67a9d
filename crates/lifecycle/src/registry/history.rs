//! Questions about the past: what served when, who approved it, why.
//!
//! Does not know how a question was asked; answers borrow from the state.

use falaj_event::LogTime;
use serde::{Deserialize, Serialize};

use super::{Actor, ModelEvent, PipelineState, Stage, VersionNumber};
use crate::serving::ServingPolicy;

/// One person's word for a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The person.
    pub approver: String,
    /// When.
    pub at: LogTime,
    /// What they said.
    pub comment: String,
}

/// A stretch of `T` during which serving did not change: from `from`, up to but not including
/// `until`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServedSpan {
    /// Its first `T`.
    pub from: LogTime,
    /// The `T` at which something else served; `None` while it lasts.
    pub until: Option<LogTime>,
    /// The champion.
    pub champion: Option<VersionNumber>,
    /// The version in shadow.
    pub challenger: Option<VersionNumber>,
    /// How requests were shared out.
    pub policy: ServingPolicy,
    /// Who opened the span.
    pub actor: Actor,
    /// Why.
    pub reason: String,
    /// The kind of the event that opened it.
    pub kind: String,
}

impl PipelineState {
    /// What served at `at`, or `None` before anything was ever to serve. Of several changes within
    /// one `T`, the last counts.
    pub fn served_at(&self, at: LogTime) -> Option<&ServedSpan> {
        let after = self.served.partition_point(|span| span.from <= at);
        after.checked_sub(1).and_then(|index| self.served.get(index))
    }

    /// Every span in which `version` was the champion, in order.
    pub fn reigns(&self, version: VersionNumber) -> impl Iterator<Item = &ServedSpan> {
        self.served.iter().filter(move |span| span.champion == Some(version))
    }

    /// Every event about `version`, in order; a promotion or rollback that replaced or restored it
    /// included.
    pub fn history(&self, version: VersionNumber) -> impl Iterator<Item = &ModelEvent> {
        self.events.iter().filter(move |event| event.concerns(version))
    }

    /// Where `version` stood at `at`; `None` before it was requested.
    pub fn stage_at(&self, version: VersionNumber, at: LogTime) -> Option<Stage> {
        let stages = &self.versions.get(&version)?.stages;
        let after = stages.partition_point(|change| change.at <= at);
        after.checked_sub(1).and_then(|index| stages.get(index)).map(|change| change.stage)
    }
}

impl ModelEvent {
    /// Whether the event is about `version`, as its subject or as the other side of a swap.
    pub fn concerns(&self, version: VersionNumber) -> bool {
        use super::ModelChange::{Promoted, RolledBack};
        let other = match &self.change {
            Promoted { replaced, .. } => *replaced,
            RolledBack { to, .. } => Some(*to),
            _ => None,
        };
        self.version == Some(version) || other == Some(version)
    }
}
