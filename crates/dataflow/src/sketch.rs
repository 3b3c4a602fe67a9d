//! Replay-safe sketches: equal inputs give equal states and equal bytes, whatever the order.
//!
//! Knows hashes and numbers only: no columns and no windows.

mod distinct;
mod quantile;

pub use distinct::HyperLogLog;
pub use quantile::QuantileBuckets;

/// Bytes that no sketch writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the canonical bytes of a sketch")]
pub struct BadSketch;

#[cfg(test)]
mod tests;
