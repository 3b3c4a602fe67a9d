//! What becomes of predictions: labels that arrive later are joined to them, and both are watched in
//! windows.
//!
//! Why it exists: outcomes and drift windows are derived events, and a rebuild must derive the same
//! ones. Everything here is a fold over epochs in log order: it takes predictions and labels as they
//! were committed and gives what follows from them at each `T`. It does no I/O, knows no clock, no
//! topic and no model.

pub mod errors;
pub mod figures;
pub mod fold;
pub mod join;
pub mod judge;
pub mod metrics;
pub mod outcome;
pub mod reference;
pub mod row;
pub mod served;
pub mod settings;
#[cfg(test)]
mod testing;
pub mod values;
pub mod windows;

pub use fold::Monitor;
pub use join::{JoinRule, Joined, Joiner, Label};
pub use judge::{Actual, Judgement, Task, judge};
pub use outcome::Outcome;
pub use reference::{HeldOut, ReferenceError, ReferenceRows, ReferenceSet};
pub use row::{DriftRow, Finding, RowKind, Window};
pub use settings::MonitorSettings;
pub use windows::Closed;

use std::sync::Arc;

use falaj_event::{LogTime, Value};

/// A logged prediction, as far as watching it goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// Its id.
    pub id: Arc<str>,
    /// Canonical bytes of the entity's key.
    pub key: Arc<[u8]>,
    /// `T_r`: when it was made.
    pub t: LogTime,
    /// The model version that made it.
    pub version: u32,
    /// Whether a caller was answered with it, or it was made in shadow.
    pub served: bool,
    /// The probability of the positive class (binary) or of the label (multiclass), or the value.
    pub score: f64,
    /// Multiclass: a probability per class.
    pub scores: Arc<[f64]>,
    /// The class as text; empty for regression.
    pub predicted: Arc<str>,
    /// The model's inputs in signature order; empty where they were erased.
    pub inputs: Arc<[Value]>,
    /// Values of the entity's key columns.
    pub keys: Arc<[Value]>,
}
