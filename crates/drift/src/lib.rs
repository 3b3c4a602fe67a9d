//! Drift: whether what a model sees now still looks like what it was trained on.
//!
//! Why it exists: one place for the arithmetic of drift, without clock, log or threads, so that a
//! score is recomputed from the events alone and is the same bits everywhere. Sums run in a fixed
//! order, transcendental functions come from the pinned `libm`, and randomness is a counter with a
//! seed that the caller passes in. It knows no windows, no topics and no models: summaries, samples
//! and error streams come in, scores and alarms go out.
//!
//! Cost: an event costs one bin search, one sketch bucket and one sample comparison per watched
//! column ([`NumericSummary::add`]), or one map entry ([`CategorySummary::add`]); everything else is
//! paid at the close of a window. A detector costs O(1) per value, ADWIN O(log n) amortised, KSWIN
//! one Kolmogorov-Smirnov test of its small windows.

pub mod alarm;
pub mod bins;
pub mod cbpe;
pub mod chi_square;
pub mod classifier;
pub mod correction;
pub mod detectors;
pub mod distance;
mod error;
pub mod exact;
pub mod kolmogorov;
pub mod random;
pub mod reconstruction;
pub mod reference;
pub mod sample;
pub mod samples;
pub mod score;
pub mod sequential;
pub mod sketch;
pub mod special;
pub mod summary;

pub use alarm::{AlarmChange, AlarmPolicy, AlarmState, Spread, Threshold};
pub use bins::BinDefinition;
pub use distance::ZeroRule;
pub use error::DriftError;
pub use random::CounterRandom;
pub use reference::{ColumnReference, JudgedScore, ReferenceOptions};
pub use score::{Metric, Score, score, score_all};
pub use summary::{CategorySummary, ColumnSummary, NumericSummary};
