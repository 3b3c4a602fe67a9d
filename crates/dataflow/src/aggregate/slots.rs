//! Views of a tile, a total or a lifetime value as words and objects.
//!
//! Does not know what the words mean.

use falaj_event::EventOrder;

use crate::aggregate::heap::{Heap, Object};
use crate::exact::{ExactSum, Inline};

/// Slots to change.
pub(crate) struct Slots<'a> {
    pub(crate) words: &'a mut [u64],
    pub(crate) objects: &'a mut [Object],
}

/// Slots to read.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) words: &'a [u64],
    pub(crate) objects: &'a [Object],
}

/// Words of an order.
pub(crate) const ORDER_WORDS: usize = 4;

/// An order as words that compare as it does; never all zero, which stands for no order.
pub(crate) fn order_words(order: &EventOrder) -> [u64; ORDER_WORDS] {
    [
        order.event_time.cast_unsigned() ^ 1 << 63,
        order.t.0,
        u64::from(order.partition) + 1,
        order.offset,
    ]
}

impl Slots<'_> {
    pub(crate) fn seen(&self) -> Seen<'_> {
        Seen { words: self.words, objects: self.objects }
    }

    #[inline]
    pub(crate) fn set_wide(&mut self, at: usize, value: u128) {
        self.words[at] = value as u64;
        self.words[at + 1] = (value >> 64) as u64;
    }

    /// Changes an exact sum in place.
    #[inline]
    pub(crate) fn with_sum(
        &mut self,
        at: usize,
        object: usize,
        change: impl FnOnce(&mut ExactSum),
    ) {
        let inline = self.seen().inline(at);
        let spill = match self.objects[object].take().map(|heap| *heap) {
            Some(Heap::Spill(spill)) => Some(spill),
            _ => None,
        };
        let mut sum = ExactSum::from_parts(inline, spill);
        change(&mut sum);
        let (inline, spill) = sum.into_parts();
        self.set_wide(at, inline.mantissa.cast_unsigned());
        self.words[at + 2] = i64::from(inline.exponent).cast_unsigned();
        if let Some(spill) = spill {
            self.objects[object] = Some(Box::new(Heap::Spill(spill)));
        }
    }
}

impl Seen<'_> {
    #[inline]
    pub(crate) fn wide(&self, at: usize) -> u128 {
        u128::from(self.words[at]) | u128::from(self.words[at + 1]) << 64
    }

    #[inline]
    pub(crate) fn inline(&self, at: usize) -> Inline {
        Inline {
            mantissa: self.wide(at).cast_signed(),
            exponent: self.words[at + 2].cast_signed() as i32,
        }
    }

    pub(crate) fn sum(&self, at: usize, object: usize) -> ExactSum {
        let spill = match self.objects[object].as_deref() {
            Some(Heap::Spill(spill)) => Some(spill.clone()),
            _ => None,
        };
        ExactSum::from_parts(self.inline(at), spill)
    }

    pub(crate) fn order(&self, at: usize) -> &[u64] {
        &self.words[at..at + ORDER_WORDS]
    }

    pub(crate) fn bytes(&self, object: usize) -> Option<&[u8]> {
        match self.objects[object].as_deref() {
            Some(Heap::Bytes(bytes)) => Some(bytes),
            _ => None,
        }
    }
}
