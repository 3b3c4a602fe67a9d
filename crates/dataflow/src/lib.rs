//! The dataflow engine: view plans and epochs in, changes of rows and of operator state out.
//!
//! Why it exists: one definition of a feature is kept up to date incrementally, on timely and
//! differential dataflow, with results that depend on the log and `T` alone. The only crate that
//! names those two. It knows neither log nor storage nor SQL: plans come from the definitions
//! crate, epochs from its caller, and changes go to whoever stores them.

mod aggregate;
mod columns;
mod context;
mod delay;
mod engine;
mod error;
mod exact;
mod finish;
mod group;
mod join;
mod metrics;
mod row;
mod sink;
mod sketch;
mod source;
mod state;
mod table;
pub mod training;
mod values;
mod view;

pub use engine::{Engine, Options, Resume};
pub use error::EngineError;
pub use metrics::{Metrics, MetricsSnapshot, ViewMetrics};
pub use source::{EpochInput, TopicInput};
