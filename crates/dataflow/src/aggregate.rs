//! Accumulators of aggregate functions: which slots a frame's aggregates need, how an event enters
//! them, how they merge and subtract, and what they answer.
//!
//! Aggregates over the same input and filter form a *lane* and share its slots: sum, avg and count
//! of one column keep one exact sum and one count. The slots of all lanes of a frame lie in one flat
//! array of words, with a parallel array of [`Object`]s for what does not fit words; a tile, a running
//! total and a lifetime value all have this one form.
//!
//! Does not know keys, tiles or time.

mod bytes;
mod heap;
mod input;
mod integers;
mod layout;
mod numbers;
mod ops;
mod render;
mod slots;

pub(crate) use bytes::{order_bytes, read_order, read_signed, take, write_signed};
pub(crate) use heap::Object;
pub(crate) use input::{Event, Lane, Parsed, Selector};
pub(crate) use layout::{Layout, read_varint};
pub(crate) use render::Output;
pub(crate) use slots::{Seen, Slots};

/// Bytes of a state entry that this version does not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the canonical bytes of an accumulator")]
pub struct BadAccumulator;

impl From<crate::exact::BadBytes> for BadAccumulator {
    fn from(_: crate::exact::BadBytes) -> Self {
        Self
    }
}

impl From<crate::sketch::BadSketch> for BadAccumulator {
    fn from(_: crate::sketch::BadSketch) -> Self {
        Self
    }
}

#[cfg(test)]
mod tests;
