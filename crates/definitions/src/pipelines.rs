//! Model pipelines as declared in `dataflows/**/*.toml`: what is learned, from which features, how it
//! is trained, gated, served, watched and retrained.
//!
//! Why it exists: the whole life of a model is one text under version control; what it derives (the
//! signature, the hash) is what training, serving and replay agree on. The format of the files is
//! described in `dataflows/README.md`. Knows topics and views by their plans; neither models nor the
//! log.

pub mod derived;
mod features;
mod gates;
mod kpi;
mod label;
mod metrics;
mod monitors;
mod parse;
mod read;
mod settings;
#[cfg(test)]
mod tests;
mod trainer;
mod types;

pub use derived::{OUTCOMES_SUFFIX, PREDICTIONS_SUFFIX};
pub use metrics::{Direction, METRICS, Metric};
pub use parse::{PIPELINE_VERSION, parse_pipeline};
pub use settings::{
    Acknowledgement, Action, Bound, Calibration, CalibrationGate, ChampionGate, ClassWeight,
    Correction, Gate, Gates, Guardrail, Kpi, MetricFloor, Monitors, Policy, Precision, Promotion,
    Retrain, Serving, SliceGate, Split, Trainer, TrainerKind, Training, TrainingMode,
};
pub use types::{
    ClassValue, FeatureSet, FeedbackJoin, InputKind, InputOrigin, Label, Pipeline, RequestFeature,
    Signature, SignatureInput, SignatureOutput, Task,
};
