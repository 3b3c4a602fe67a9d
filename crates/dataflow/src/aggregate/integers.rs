//! The walk over a lane of integers that keeps nothing but their sum, least and greatest.
//!
//! Why it exists: such lanes are the commonest, and what they do to an accumulator is a dozen
//! instructions; asking each slot in turn what it is costs many times that. Does the same as the walk
//! over the slots in `layout`, and knows nothing of time or keys.

use std::ops::Range;

use crate::aggregate::input::Repr;
use crate::aggregate::ops::{Kind, Op};
use crate::aggregate::slots::{Seen, Slots};

/// Where the slots of such a lane lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Integers {
    signed: bool,
    sum: Option<usize>,
    least: Option<Extreme>,
    greatest: Option<Extreme>,
}

/// A least or greatest value.
#[derive(Clone, Copy, Debug)]
struct Extreme {
    at: usize,
    /// The operator's number in its layout.
    op: usize,
}

impl Integers {
    /// Of a lane with these operators of a layout's `ops`, if it is such a lane.
    pub(crate) fn of(ops: &[Op], own: Range<usize>) -> Option<Self> {
        let repr = ops.get(own.start)?.repr;
        let signed = match repr {
            Repr::Int => true,
            Repr::UInt => false,
            _ => return None,
        };
        let mut lane = Self { signed, sum: None, least: None, greatest: None };
        for op in own {
            let at = ops[op].at;
            match ops[op].kind {
                Kind::IntegerSum => lane.sum = Some(at),
                Kind::Min => lane.least = Some(Extreme { at, op }),
                Kind::Max => lane.greatest = Some(Extreme { at, op }),
                _ => return None,
            }
        }
        Some(lane)
    }

    /// Adds the value whose order-preserving bits are `word`.
    #[inline]
    pub(crate) fn add(&self, slots: &mut Slots<'_>, word: u64) {
        if let Some(at) = self.sum {
            let value = match self.signed {
                true => i128::from((word ^ 1 << 63).cast_signed()),
                false => i128::from(word),
            };
            add_wide(slots, at, value);
        }
        if let Some(Extreme { at, .. }) = self.least {
            slots.words[at] = slots.words[at].min(word);
        }
        if let Some(Extreme { at, .. }) = self.greatest {
            slots.words[at] = slots.words[at].max(word);
        }
    }

    /// Adds a part that has inputs.
    #[inline]
    pub(crate) fn merge(&self, slots: &mut Slots<'_>, part: Seen<'_>) {
        if let Some(at) = self.sum {
            add_wide(slots, at, part.wide(at).cast_signed());
        }
        if let Some(Extreme { at, .. }) = self.least {
            slots.words[at] = slots.words[at].min(part.words[at]);
        }
        if let Some(Extreme { at, .. }) = self.greatest {
            slots.words[at] = slots.words[at].max(part.words[at]);
        }
    }

    /// Subtracts a part that has inputs and is not all that there is; appends to `stale` the
    /// operators whose value may rest on it.
    #[inline]
    pub(crate) fn subtract(&self, slots: &mut Slots<'_>, part: Seen<'_>, stale: &mut Vec<usize>) {
        if let Some(at) = self.sum {
            add_wide(slots, at, part.wide(at).cast_signed().wrapping_neg());
        }
        for Extreme { at, op } in [self.least, self.greatest].into_iter().flatten() {
            if slots.words[at] == part.words[at] && !stale.contains(&op) {
                stale.push(op);
            }
        }
    }
}

#[inline]
fn add_wide(slots: &mut Slots<'_>, at: usize, value: i128) {
    let sum = slots.seen().wide(at).cast_signed().wrapping_add(value);
    slots.set_wide(at, sum.cast_unsigned());
}
