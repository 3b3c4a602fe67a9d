//! Exact arithmetic behind sum, avg, variance and stddev: results are the real-number result rounded
//! once, so they do not depend on order, batching or workers, and a retraction really cancels.
//!
//! Knows numbers only: no columns, no windows, no NULLs.

mod limbs;
mod round;
mod sum;

pub use round::ratio_to_f64;
pub use sum::{BadBytes, ExactSum, Inline, Moments, Spill, Term, variance};

#[cfg(test)]
pub(crate) mod reference;
#[cfg(test)]
mod tests;
