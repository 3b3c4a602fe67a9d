//! One slot operator: how a value enters, leaves and merges.
//!
//! Group operators subtract. Semigroup operators (min, max, first, last, lists, registers) are only
//! ever folded; they say when what leaves may have decided their value.

use std::collections::BTreeMap;

use falaj_event::key_hash;

use crate::aggregate::heap::{Encoded, Heap, insert_greatest};
use crate::aggregate::input::{Event, Parsed, Repr};
use crate::aggregate::numbers::{nearest_f64, term};
use crate::aggregate::slots::{ORDER_WORDS, Seen, Slots, order_words};
use crate::sketch::{HyperLogLog, QuantileBuckets};

/// What a slot keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Σx of 64-bit integers: one i128, which 2^63 of them cannot overflow.
    IntegerSum,
    /// Σx, exact.
    Sum,
    /// Σx², exact.
    Squares,
    /// Number of true inputs.
    Trues,
    /// How often each value occurs.
    Counts,
    /// Quantile buckets.
    Buckets,
    /// The least value.
    Min,
    /// The greatest value.
    Max,
    /// The value of the first event.
    First,
    /// The value of the last event.
    Last,
    /// The n greatest values.
    Greatest(u32),
    /// The n latest values.
    Latest(u32),
    /// HyperLogLog registers.
    Registers,
}

impl Kind {
    /// Whether the slot can be subtracted from.
    pub(crate) fn is_group(self) -> bool {
        matches!(
            self,
            Self::IntegerSum
                | Self::Sum
                | Self::Squares
                | Self::Trues
                | Self::Counts
                | Self::Buckets
        )
    }

    /// Words and objects of a slot over a column of `repr`.
    pub(crate) fn size(self, repr: Repr) -> (usize, usize) {
        let (value_words, boxed) = repr.words();
        match self {
            Self::IntegerSum => (2, 0),
            Self::Sum | Self::Squares => (3, 1),
            Self::Trues => (1, 0),
            Self::Min | Self::Max => (value_words, usize::from(boxed)),
            Self::First | Self::Last => (ORDER_WORDS + value_words, usize::from(boxed)),
            Self::Counts
            | Self::Buckets
            | Self::Greatest(_)
            | Self::Latest(_)
            | Self::Registers => (0, 1),
        }
    }
}

/// A slot in a layout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Op {
    pub(crate) kind: Kind,
    pub(crate) repr: Repr,
    /// First word.
    pub(crate) at: usize,
    /// Its object, if it has one.
    pub(crate) object: usize,
    /// Word of the lane's number of inputs.
    pub(crate) count_at: usize,
}

impl Op {
    /// Adds a present value.
    #[inline]
    pub(crate) fn add(&self, slots: &mut Slots<'_>, parsed: &Parsed, event: &Event<'_>) {
        match self.kind {
            Kind::IntegerSum => self.change_integer(slots, integer(self.repr, parsed)),
            Kind::Sum => {
                let term = term(self.repr, parsed);
                slots.with_sum(self.at, self.object, |sum| sum.add(term, false));
            }
            Kind::Min | Kind::Max => self.add_extreme(slots, parsed, event),
            Kind::Squares => {
                let term = term(self.repr, parsed).squared();
                slots.with_sum(self.at, self.object, |sum| sum.add(term, false));
            }
            Kind::Trues => slots.words[self.at] += parsed.word,
            Kind::First | Kind::Last => {
                let order = order_words(event.order);
                if self.takes(slots.seen(), &order) {
                    slots.words[self.at..self.at + ORDER_WORDS].copy_from_slice(&order);
                    self.put_value(slots, self.at + ORDER_WORDS, parsed, event);
                }
            }
            _ => self.add_to_object(slots, parsed, event),
        }
    }

    fn add_to_object(&self, slots: &mut Slots<'_>, parsed: &Parsed, event: &Event<'_>) {
        let encoded = event.encoded(parsed);
        let heap = slots.objects[self.object].get_or_insert_with(|| Box::new(self.empty_heap()));
        match (self.kind, heap.as_mut()) {
            (Kind::Counts, Heap::Counts(counts)) => match counts.get_mut(encoded) {
                Some(count) => *count += 1,
                None => {
                    counts.insert(encoded.into(), 1);
                }
            },
            (Kind::Buckets, Heap::Buckets(buckets)) => buckets.add(nearest_f64(self.repr, parsed)),
            (Kind::Registers, Heap::Registers(registers)) => registers.add(key_hash(encoded)),
            (Kind::Greatest(n), Heap::Greatest(list)) => {
                insert_greatest(list, encoded.into(), n as usize);
            }
            (Kind::Latest(n), Heap::Latest(list)) => {
                insert_greatest(list, (*event.order, encoded.into()), n as usize);
            }
            _ => {}
        }
    }

    fn empty_heap(&self) -> Heap {
        match self.kind {
            Kind::Counts => Heap::Counts(BTreeMap::new()),
            Kind::Buckets => Heap::Buckets(QuantileBuckets::default()),
            Kind::Registers => Heap::Registers(HyperLogLog::default()),
            Kind::Latest(_) => Heap::Latest(Vec::new()),
            _ => Heap::Greatest(Vec::new()),
        }
    }

    #[inline]
    fn change_integer(&self, slots: &mut Slots<'_>, value: i128) {
        let sum = slots.seen().wide(self.at).cast_signed().wrapping_add(value);
        slots.set_wide(self.at, sum.cast_unsigned());
    }

    #[inline]
    fn add_extreme(&self, slots: &mut Slots<'_>, parsed: &Parsed, event: &Event<'_>) {
        let least = self.kind == Kind::Min;
        match self.repr {
            Repr::Decimal(_) => self.take_extreme_wide(slots, parsed.wide),
            Repr::Bytes => {
                let encoded = event.encoded(parsed);
                let beats = slots.seen().bytes(self.object).is_none_or(|have| match least {
                    true => encoded < have,
                    false => encoded > have,
                });
                if beats {
                    slots.objects[self.object] = Some(Box::new(Heap::Bytes(encoded.into())));
                }
            }
            _ => self.take_extreme_word(slots, parsed.word),
        }
    }

    #[inline]
    fn take_extreme_word(&self, slots: &mut Slots<'_>, word: u64) {
        let have = &mut slots.words[self.at];
        *have = if self.kind == Kind::Min { (*have).min(word) } else { (*have).max(word) };
    }

    fn take_extreme_wide(&self, slots: &mut Slots<'_>, wide: u128) {
        let have = slots.seen().wide(self.at);
        slots.set_wide(
            self.at,
            if self.kind == Kind::Min { have.min(wide) } else { have.max(wide) },
        );
    }

    /// Whether an order comes before the first one held, or after the last.
    fn takes(&self, seen: Seen<'_>, order: &[u64]) -> bool {
        let have = seen.order(self.at);
        match self.kind {
            Kind::First => have[2] == 0 || order < have,
            _ => order > have,
        }
    }

    fn put_value(&self, slots: &mut Slots<'_>, at: usize, parsed: &Parsed, event: &Event<'_>) {
        match self.repr {
            Repr::Decimal(_) => slots.set_wide(at, parsed.wide),
            Repr::Bytes => {
                let encoded: Encoded = event.encoded(parsed).into();
                slots.objects[self.object] = Some(Box::new(Heap::Bytes(encoded)));
            }
            _ => slots.words[at] = parsed.word,
        }
    }

    /// Takes a present value back from a group slot.
    pub(crate) fn remove(&self, slots: &mut Slots<'_>, parsed: &Parsed, event: &Event<'_>) {
        match self.kind {
            Kind::IntegerSum => self.change_integer(slots, -integer(self.repr, parsed)),
            Kind::Sum => {
                let term = term(self.repr, parsed);
                slots.with_sum(self.at, self.object, |sum| sum.add(term, true));
            }
            Kind::Squares => {
                let term = term(self.repr, parsed).squared();
                slots.with_sum(self.at, self.object, |sum| sum.add(term, true));
            }
            Kind::Trues => slots.words[self.at] = slots.words[self.at].saturating_sub(parsed.word),
            Kind::Counts => {
                if let Some(Heap::Counts(counts)) = slots.objects[self.object].as_deref_mut() {
                    lower(counts, event.encoded(parsed), 1);
                }
            }
            Kind::Buckets => {
                if let Some(Heap::Buckets(buckets)) = slots.objects[self.object].as_deref_mut() {
                    buckets.subtract(nearest_f64(self.repr, parsed));
                }
            }
            _ => {}
        }
    }

    /// Adds a part that has inputs.
    #[inline]
    pub(crate) fn merge(&self, slots: &mut Slots<'_>, source: Seen<'_>) {
        match self.kind {
            Kind::IntegerSum => self.change_integer(slots, source.wide(self.at).cast_signed()),
            Kind::Sum | Kind::Squares => self.merge_sum(slots, source, false),
            Kind::Trues => slots.words[self.at] += source.words[self.at],
            Kind::Min | Kind::Max => match self.repr {
                Repr::Decimal(_) => self.take_extreme_wide(slots, source.wide(self.at)),
                Repr::Bytes => self.merge_bytes(slots, source),
                _ => self.take_extreme_word(slots, source.words[self.at]),
            },
            Kind::First | Kind::Last => {
                let order = source.order(self.at);
                if order[2] != 0 && self.takes(slots.seen(), order) {
                    let end = self.at + self.kind.size(self.repr).0;
                    slots.words[self.at..end].copy_from_slice(&source.words[self.at..end]);
                    if self.repr == Repr::Bytes {
                        slots.objects[self.object].clone_from(&source.objects[self.object]);
                    }
                }
            }
            _ => self.merge_object(slots, source),
        }
    }

    fn merge_sum(&self, slots: &mut Slots<'_>, source: Seen<'_>, subtract: bool) {
        let inline = source.inline(self.at);
        let spill = match source.objects[self.object].as_deref() {
            Some(Heap::Spill(spill)) => Some(spill.as_ref()),
            _ => None,
        };
        slots.with_sum(self.at, self.object, |sum| sum.merge_parts(inline, spill, subtract));
    }

    fn merge_bytes(&self, slots: &mut Slots<'_>, source: Seen<'_>) {
        let Some(theirs) = source.bytes(self.object) else { return };
        let beats = slots.seen().bytes(self.object).is_none_or(|ours| match self.kind {
            Kind::Min => theirs < ours,
            _ => theirs > ours,
        });
        if beats {
            slots.objects[self.object] = Some(Box::new(Heap::Bytes(theirs.into())));
        }
    }

    fn merge_object(&self, slots: &mut Slots<'_>, source: Seen<'_>) {
        let Some(theirs) = source.objects[self.object].as_deref() else { return };
        let Some(ours) = slots.objects[self.object].as_deref_mut() else {
            slots.objects[self.object] = Some(Box::new(theirs.clone()));
            return;
        };
        match (self.kind, ours, theirs) {
            (Kind::Counts, Heap::Counts(ours), Heap::Counts(theirs)) => {
                for (value, count) in theirs {
                    match ours.get_mut(value) {
                        Some(have) => *have += count,
                        None => {
                            ours.insert(value.clone(), *count);
                        }
                    }
                }
            }
            (_, Heap::Buckets(ours), Heap::Buckets(theirs)) => ours.merge(theirs, false),
            (_, Heap::Registers(ours), Heap::Registers(theirs)) => ours.merge(theirs),
            (Kind::Greatest(n), Heap::Greatest(ours), Heap::Greatest(theirs)) => {
                theirs.iter().for_each(|value| insert_greatest(ours, value.clone(), n as usize));
            }
            (Kind::Latest(n), Heap::Latest(ours), Heap::Latest(theirs)) => {
                theirs.iter().for_each(|value| insert_greatest(ours, value.clone(), n as usize));
            }
            _ => {}
        }
    }

    /// Subtracts a part that has inputs from a group slot.
    pub(crate) fn subtract(&self, slots: &mut Slots<'_>, source: Seen<'_>) {
        match self.kind {
            Kind::IntegerSum => self.change_integer(slots, -source.wide(self.at).cast_signed()),
            Kind::Sum | Kind::Squares => self.merge_sum(slots, source, true),
            Kind::Trues => {
                slots.words[self.at] = slots.words[self.at].saturating_sub(source.words[self.at]);
            }
            _ => match (
                slots.objects[self.object].as_deref_mut(),
                source.objects[self.object].as_deref(),
            ) {
                (Some(Heap::Counts(ours)), Some(Heap::Counts(theirs))) => {
                    theirs.iter().for_each(|(value, count)| lower(ours, value, *count));
                }
                (Some(Heap::Buckets(ours)), Some(Heap::Buckets(theirs))) => {
                    ours.merge(theirs, true);
                }
                _ => {}
            },
        }
    }

    /// Empties the slot.
    pub(crate) fn reset(&self, slots: &mut Slots<'_>) {
        let (words, objects) = self.kind.size(self.repr);
        let fill = if self.kind == Kind::Min { u64::MAX } else { 0 };
        slots.words[self.at..self.at + words].fill(fill);
        if objects > 0 {
            slots.objects[self.object] = None;
        }
    }

    /// Whether a semigroup slot's value may rest on this event.
    pub(crate) fn decided_by(&self, seen: Seen<'_>, parsed: &Parsed, event: &Event<'_>) -> bool {
        match (self.kind, self.repr) {
            (Kind::Min | Kind::Max, Repr::Decimal(_)) => seen.wide(self.at) == parsed.wide,
            (Kind::Min | Kind::Max, Repr::Bytes) => {
                seen.bytes(self.object) == Some(event.encoded(parsed))
            }
            (Kind::Min | Kind::Max, _) => seen.words[self.at] == parsed.word,
            (Kind::First | Kind::Last, _) => seen.order(self.at) == order_words(event.order),
            _ => match seen.objects[self.object].as_deref() {
                Some(Heap::Greatest(list)) => {
                    list.last().is_some_and(|least| event.encoded(parsed) >= least.as_ref())
                }
                Some(Heap::Latest(list)) => {
                    list.last().is_some_and(|oldest| *event.order >= oldest.0)
                }
                _ => true,
            },
        }
    }

    /// Whether a semigroup slot's value may rest on this part, which has inputs.
    pub(crate) fn decided_by_part(&self, seen: Seen<'_>, source: Seen<'_>) -> bool {
        match (self.kind, self.repr) {
            (Kind::Min | Kind::Max, Repr::Decimal(_)) => seen.wide(self.at) == source.wide(self.at),
            (Kind::Min | Kind::Max, Repr::Bytes) => {
                seen.bytes(self.object) == source.bytes(self.object)
            }
            (Kind::Min | Kind::Max, _) => seen.words[self.at] == source.words[self.at],
            (Kind::First | Kind::Last, _) => seen.order(self.at) == source.order(self.at),
            _ => {
                match (seen.objects[self.object].as_deref(), source.objects[self.object].as_deref())
                {
                    (Some(Heap::Greatest(ours)), Some(Heap::Greatest(theirs))) => {
                        ours.last() <= theirs.first()
                    }
                    (Some(Heap::Latest(ours)), Some(Heap::Latest(theirs))) => {
                        ours.last() <= theirs.first()
                    }
                    _ => true,
                }
            }
        }
    }

    /// Folds a slot anew over `parts` in order of time.
    pub(crate) fn refold<'a>(
        &self,
        slots: &mut Slots<'_>,
        parts: impl DoubleEndedIterator<Item = Seen<'a>>,
    ) {
        self.reset(slots);
        let mut parts = parts.filter(|part| part.words[self.count_at] > 0);
        match self.kind {
            // Tiles do not overlap in time, so the first (last) one decides.
            Kind::First => parts.next().into_iter().for_each(|part| self.merge(slots, part)),
            Kind::Last => parts.next_back().into_iter().for_each(|part| self.merge(slots, part)),
            Kind::Latest(n) => {
                while let Some(part) = parts.next_back() {
                    self.merge(slots, part);
                    if matches!(slots.objects[self.object].as_deref(),
                        Some(Heap::Latest(list)) if list.len() >= n as usize)
                    {
                        break;
                    }
                }
            }
            Kind::Min if self.is_one_word() => {
                let words = parts.map(|part| part.words[self.at]);
                slots.words[self.at] = words.fold(u64::MAX, u64::min);
            }
            Kind::Max if self.is_one_word() => {
                let words = parts.map(|part| part.words[self.at]);
                slots.words[self.at] = words.fold(0, u64::max);
            }
            _ => parts.for_each(|part| self.merge(slots, part)),
        }
    }

    fn is_one_word(&self) -> bool {
        !matches!(self.repr, Repr::Decimal(_) | Repr::Bytes)
    }
}

fn lower(counts: &mut BTreeMap<Encoded, u64>, value: &[u8], by: u64) {
    if let Some(count) = counts.get_mut(value) {
        *count = count.saturating_sub(by);
        if *count == 0 {
            counts.remove(value);
        }
    }
}

#[inline]
fn integer(repr: Repr, parsed: &Parsed) -> i128 {
    match repr {
        Repr::Int => i128::from((parsed.word ^ 1 << 63).cast_signed()),
        _ => i128::from(parsed.word),
    }
}
