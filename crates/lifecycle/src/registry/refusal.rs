//! Why the registry says no: each refusal names what stood in the way and what would remove it.
//!
//! Does not know who is told, or how.

use thiserror::Error;

use super::{Stage, VersionNumber};

/// A command or an event that the registry does not accept.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Refusal {
    /// The pipeline was never declared.
    #[error("pipeline {0:?} is not declared: declare it in dataflows/ first")]
    UnknownPipeline(String),
    /// The pipeline has no such version.
    #[error("{pipeline} has no version {version}")]
    UnknownVersion {
        /// The pipeline.
        pipeline: String,
        /// The version that was named.
        version: VersionNumber,
    },
    /// An event that is about a version names none, or the other way round.
    #[error("an event of kind {kind} {problem}")]
    Malformed {
        /// The event's kind.
        kind: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The stages do not allow it.
    #[error("version {version} is {from} and cannot become {to}")]
    IllegalTransition {
        /// The version.
        version: VersionNumber,
        /// Where it stands.
        from: Stage,
        /// Where it was to go.
        to: Stage,
    },
    /// The stages do not allow this action, which changes no stage.
    #[error("version {version} is {stage}: {action} needs it validated or in shadow")]
    WrongStage {
        /// The version.
        version: VersionNumber,
        /// Where it stands.
        stage: Stage,
        /// What was asked for.
        action: &'static str,
    },
    /// One run per pipeline.
    #[error("version {version} is {stage}: one run per pipeline; wait for it or cancel it")]
    RunInFlight {
        /// The version whose run is in flight.
        version: VersionNumber,
        /// Where it stands.
        stage: Stage,
    },
    /// An event that claims a version number which is not the next.
    #[error("a request names version {named}, but the next is {next}")]
    VersionGap {
        /// The number in the event.
        named: VersionNumber,
        /// The number that it should have.
        next: VersionNumber,
    },
    /// Too few approvals.
    #[error("version {version} has {have} of {need} approvals: falaj models approve")]
    ApprovalMissing {
        /// The version.
        version: VersionNumber,
        /// Approvals that stand.
        have: u32,
        /// The quorum.
        need: u32,
    },
    /// The same person, twice.
    #[error("{0} has approved this version already")]
    AlreadyApproved(String),
    /// Nothing to withdraw.
    #[error("{0} has not approved this version")]
    NotApproved(String),
    /// The requester may not approve.
    #[error("{0} requested this version and may not approve it: another person must")]
    SelfApproval(String),
    /// Rules and the platform may not do this.
    #[error("{action} takes a person, not {actor}")]
    PersonRequired {
        /// What was asked for.
        action: &'static str,
        /// Who asked.
        actor: String,
    },
    /// Traffic moves only to a model that is loaded and warmed.
    #[error("version {0} is not loaded and warmed yet: no traffic moves to it")]
    NotReady(VersionNumber),
    /// Too short in shadow.
    #[error("version {version} was in shadow for {have_us} µs of {need_us} µs")]
    ShadowTooShort {
        /// The version.
        version: VersionNumber,
        /// Time in shadow.
        have_us: u64,
        /// The least time.
        need_us: u64,
    },
    /// Too few predictions in shadow.
    #[error("version {version} made {have} of {need} predictions in shadow")]
    ShadowTooFew {
        /// The version.
        version: VersionNumber,
        /// Predictions made.
        have: u64,
        /// The least number.
        need: u64,
    },
    /// Nothing to roll back to, or from.
    #[error("{0} has no earlier champion to roll back to")]
    NoPredecessor(String),
    /// A rollback goes to a version that has served.
    #[error("version {0} has never served: promote it instead")]
    NeverServed(VersionNumber),
    /// A swap that names another champion than the one that serves.
    #[error("the event replaces version {named:?}, but {champion:?} serves")]
    StaleChampion {
        /// The champion that the event names.
        named: Option<VersionNumber>,
        /// The champion there is.
        champion: Option<VersionNumber>,
    },
    /// The two aliases that only the registry moves.
    #[error("the alias {0:?} moves by promotion and rollback only")]
    ReservedAlias(String),
    /// A value that makes no sense.
    #[error("{what} is {value}: {rule}")]
    BadValue {
        /// Which value.
        what: String,
        /// What it is.
        value: String,
        /// What it should be.
        rule: &'static str,
    },
    /// An event dated before the one it follows.
    #[error("an event at {at} follows one at {last}: events of a pipeline never go back")]
    OutOfOrder {
        /// Its `T`.
        at: u64,
        /// The `T` before it.
        last: u64,
    },
}
