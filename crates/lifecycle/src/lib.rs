//! The lifecycle of models as pure state machines: registry, gates, promotion and rollback, serving
//! policy, guardrails, retrain triggers and the queue of training runs.
//!
//! Why it exists: what may happen to a model, and who says so, is decided here and nowhere else, from
//! facts that are passed in, so that every decision is replayed from the log alone. It does no I/O,
//! knows no clock, no log and no statistics: scores and figures arrive as plain numbers, times as
//! logical or event time.

pub mod gates;
pub mod guardrails;
pub mod queue;
pub mod registry;
pub mod serving;
pub mod triggers;

pub use gates::{Evidence, GateOutcome, GateReport, GateRules, Verdict};
pub use guardrails::{
    GuardrailBreach, GuardrailDecision, GuardrailRule, GuardrailState, GuardrailWindow,
};
pub use queue::{QueuedRun, RunNeeds, RunningRun, Slots, Start, next_runs};
pub use registry::{
    Action, Actor, Command, ModelChange, ModelEvent, PipelineRules, PipelineState, Refusal,
    RegistryState, ServedSpan, Stage, VersionNumber, VersionState,
};
pub use serving::{Route, ServingPolicy};
pub use triggers::{
    Firing, Observation, TriggerCondition, TriggerDecision, TriggerRule, TriggerState, WindowRef,
};
