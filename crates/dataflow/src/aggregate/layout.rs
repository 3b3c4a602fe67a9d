//! Where the slots of a frame's aggregates lie, and the walks over them.
//!
//! Does not know how a single slot changes (see `ops`).

use std::ops::Range;

use falaj_definitions::plan::{AggregateCall, AggregateFunction};
use falaj_event::encoding::write_varint;

use crate::aggregate::BadAccumulator;
use crate::aggregate::input::{Event, Lane, Presence, Repr};
use crate::aggregate::integers::Integers;
use crate::aggregate::ops::{Kind, Op};
use crate::aggregate::render::Output;
use crate::aggregate::slots::{Seen, Slots};

/// The slots of one lane: the number of inputs, the number of errors, then the operators.
#[derive(Clone, Debug)]
struct LaneSlots {
    lane: usize,
    at: usize,
    ops: Range<usize>,
    integers: Option<Integers>,
    /// Behind its last word.
    end: usize,
}

/// The slots of one frame (or of all windows over one hop grid).
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    lanes: Vec<LaneSlots>,
    ops: Vec<Op>,
    objects: usize,
    empty: Vec<u64>,
}

fn kinds_of(call: &AggregateCall) -> Vec<Kind> {
    let exact_integers = matches!(Repr::of(&call.input_type), Repr::Int | Repr::UInt);
    let sum = if exact_integers { Kind::IntegerSum } else { Kind::Sum };
    match call.function {
        AggregateFunction::CountRows | AggregateFunction::Count => vec![],
        AggregateFunction::CountDistinct => vec![Kind::Counts],
        AggregateFunction::Sum | AggregateFunction::Avg => vec![sum],
        AggregateFunction::Min => vec![Kind::Min],
        AggregateFunction::Max => vec![Kind::Max],
        AggregateFunction::Variance { .. } | AggregateFunction::Stddev { .. } => {
            vec![sum, Kind::Squares]
        }
        AggregateFunction::First => vec![Kind::First],
        AggregateFunction::Last => vec![Kind::Last],
        AggregateFunction::LastN(n) => vec![Kind::Latest(n)],
        AggregateFunction::TopN(n) => vec![Kind::Greatest(n)],
        AggregateFunction::ApproxDistinct => vec![Kind::Registers],
        AggregateFunction::ApproxQuantile(_) => vec![Kind::Buckets],
        AggregateFunction::BoolAnd | AggregateFunction::BoolOr => vec![Kind::Trues],
    }
}

/// Adds `kind` to a lane's kinds; lists of different length share the longest.
fn share(kinds: &mut Vec<Kind>, kind: Kind) {
    for have in kinds.iter_mut() {
        match (have, kind) {
            (Kind::Latest(have), Kind::Latest(wanted))
            | (Kind::Greatest(have), Kind::Greatest(wanted)) => {
                *have = (*have).max(wanted);
                return;
            }
            (have, kind) if *have == kind => return,
            _ => {}
        }
    }
    kinds.push(kind);
}

impl Layout {
    /// Lays out the slots of `calls`, each with the number of its lane in `lanes`, and says where
    /// each call finds its answer.
    pub(crate) fn compile(
        calls: &[(&AggregateCall, usize)],
        lanes: &[Lane],
    ) -> (Self, Vec<Output>) {
        let mut wanted: Vec<(usize, Vec<Kind>)> = Vec::new();
        for (call, lane) in calls {
            let at = wanted.iter().position(|have| have.0 == *lane).unwrap_or_else(|| {
                wanted.push((*lane, Vec::new()));
                wanted.len() - 1
            });
            kinds_of(call).into_iter().for_each(|kind| share(&mut wanted[at].1, kind));
        }
        let mut layout = Self::default();
        for (lane, kinds) in wanted {
            layout.push_lane(lane, lanes[lane].repr, &kinds);
        }
        let outputs = calls
            .iter()
            .filter_map(|(call, lane)| {
                let slots = layout.lanes.iter().find(|slots| slots.lane == *lane)?;
                Some(Output::new(call, slots.at, &layout.ops[slots.ops.clone()], lanes[*lane].repr))
            })
            .collect();
        (layout, outputs)
    }

    fn push_lane(&mut self, lane: usize, repr: Repr, kinds: &[Kind]) {
        let at = self.empty.len();
        self.empty.extend([0, 0]);
        let first = self.ops.len();
        for kind in kinds {
            let (words, objects) = kind.size(repr);
            self.ops.push(Op {
                kind: *kind,
                repr,
                at: self.empty.len(),
                object: self.objects,
                count_at: at,
            });
            let fill = if *kind == Kind::Min { u64::MAX } else { 0 };
            self.empty.extend(std::iter::repeat_n(fill, words));
            self.objects += objects;
        }
        let ops = first..self.ops.len();
        let integers = Integers::of(&self.ops, ops.clone());
        self.lanes.push(LaneSlots { lane, at, ops, integers, end: self.empty.len() });
    }

    /// The words of an accumulator that has seen nothing.
    pub(crate) fn empty(&self) -> &[u64] {
        &self.empty
    }

    /// Whether an accumulator is a few words that are cheap to copy: what time will do to it can be
    /// worked out ahead.
    pub(crate) fn is_small(&self) -> bool {
        let small = |op: &Op| match op.kind {
            Kind::IntegerSum | Kind::Sum | Kind::Squares | Kind::Trues => true,
            Kind::Min | Kind::Max | Kind::First | Kind::Last => true,
            Kind::Counts | Kind::Buckets | Kind::Registers => false,
            Kind::Greatest(_) | Kind::Latest(_) => false,
        };
        self.ops.iter().all(small)
    }

    /// Number of objects beside the words.
    pub(crate) fn objects(&self) -> usize {
        self.objects
    }

    /// Adds one event.
    #[inline]
    pub(crate) fn add(&self, slots: &mut Slots<'_>, event: &Event<'_>) {
        for lane in &self.lanes {
            let parsed = &event.parsed[lane.lane];
            match parsed.presence {
                Presence::Absent => continue,
                Presence::Error => {
                    slots.words[lane.at + 1] += 1;
                    continue;
                }
                Presence::Present => {}
            }
            slots.words[lane.at] += 1;
            if let Some(integers) = &lane.integers {
                integers.add(slots, parsed.word);
                continue;
            }
            for op in &self.ops[lane.ops.clone()] {
                op.add(slots, parsed, event);
            }
        }
    }

    /// Takes one event back from the slots that are groups, and appends to `stale` the operators
    /// that have to be folded anew because the event may have decided their value.
    pub(crate) fn remove(&self, slots: &mut Slots<'_>, event: &Event<'_>, stale: &mut Vec<usize>) {
        for lane in &self.lanes {
            let parsed = &event.parsed[lane.lane];
            match parsed.presence {
                Presence::Absent => continue,
                Presence::Error => {
                    slots.words[lane.at + 1] = slots.words[lane.at + 1].saturating_sub(1);
                    continue;
                }
                Presence::Present => {}
            }
            slots.words[lane.at] = slots.words[lane.at].saturating_sub(1);
            let emptied = slots.words[lane.at] == 0;
            for index in lane.ops.clone() {
                let op = &self.ops[index];
                if emptied {
                    op.reset(slots);
                } else if op.kind.is_group() {
                    op.remove(slots, parsed, event);
                } else if op.decided_by(slots.seen(), parsed, event) && !stale.contains(&index) {
                    stale.push(index);
                }
            }
        }
    }

    /// Adds all of `source`.
    pub(crate) fn merge(&self, slots: &mut Slots<'_>, source: Seen<'_>) {
        for lane in &self.lanes {
            let count = source.words[lane.at];
            slots.words[lane.at] += count;
            slots.words[lane.at + 1] += source.words[lane.at + 1];
            if count == 0 {
                continue;
            }
            if let Some(integers) = &lane.integers {
                integers.merge(slots, source);
                continue;
            }
            for op in &self.ops[lane.ops.clone()] {
                op.merge(slots, source);
            }
        }
    }

    /// Subtracts `source` where slots are groups, and appends to `stale` the operators that have to
    /// be folded anew because `source` may have decided their value.
    pub(crate) fn subtract(&self, slots: &mut Slots<'_>, source: Seen<'_>, stale: &mut Vec<usize>) {
        for lane in &self.lanes {
            let count = source.words[lane.at];
            slots.words[lane.at + 1] =
                slots.words[lane.at + 1].saturating_sub(source.words[lane.at + 1]);
            if count == 0 {
                continue;
            }
            slots.words[lane.at] = slots.words[lane.at].saturating_sub(count);
            let emptied = slots.words[lane.at] == 0;
            if let Some(integers) = &lane.integers {
                match emptied {
                    true => {
                        let own = lane.at + 2..lane.end;
                        slots.words[own.clone()].copy_from_slice(&self.empty[own]);
                    }
                    false => integers.subtract(slots, source, stale),
                }
                continue;
            }
            for index in lane.ops.clone() {
                let op = &self.ops[index];
                if emptied {
                    op.reset(slots);
                } else if op.kind.is_group() {
                    op.subtract(slots, source);
                } else if op.decided_by_part(slots.seen(), source) && !stale.contains(&index) {
                    stale.push(index);
                }
            }
        }
    }

    /// Folds operator `index` anew over `parts`, which are in order of time.
    pub(crate) fn refold<'a>(
        &self,
        index: usize,
        slots: &mut Slots<'_>,
        parts: impl DoubleEndedIterator<Item = Seen<'a>>,
    ) {
        self.ops[index].refold(slots, parts);
    }

    /// Folds the operators `stale` anew over single events, which are in order of time.
    pub(crate) fn readd(&self, stale: &[usize], slots: &mut Slots<'_>, event: &Event<'_>) {
        for index in stale {
            let op = &self.ops[*index];
            let Some(lane) = self.lanes.iter().find(|lane| lane.ops.contains(index)) else {
                continue;
            };
            let parsed = &event.parsed[lane.lane];
            if parsed.presence == Presence::Present {
                op.add(slots, parsed, event);
            }
        }
    }

    /// Empties one operator.
    pub(crate) fn reset(&self, index: usize, slots: &mut Slots<'_>) {
        self.ops[index].reset(slots);
    }

    /// Appends the canonical bytes of an accumulator: per lane the numbers of inputs and errors as
    /// varints and, when there are inputs, each operator's bytes.
    pub(crate) fn write(&self, seen: Seen<'_>, out: &mut Vec<u8>) {
        for lane in &self.lanes {
            write_varint(seen.words[lane.at], out);
            write_varint(seen.words[lane.at + 1], out);
            if seen.words[lane.at] > 0 {
                self.ops[lane.ops.clone()].iter().for_each(|op| op.write(seen, out));
            }
        }
    }

    /// Reads an accumulator into empty slots.
    pub(crate) fn read(
        &self,
        slots: &mut Slots<'_>,
        bytes: &mut &[u8],
    ) -> Result<(), BadAccumulator> {
        for lane in &self.lanes {
            slots.words[lane.at] = read_varint(bytes)?;
            slots.words[lane.at + 1] = read_varint(bytes)?;
            if slots.words[lane.at] > 0 {
                for op in &self.ops[lane.ops.clone()] {
                    op.read(slots, bytes)?;
                }
            }
        }
        Ok(())
    }
}

/// As [`falaj_event::encoding::read_varint`].
pub(crate) fn read_varint(bytes: &mut &[u8]) -> Result<u64, BadAccumulator> {
    falaj_event::encoding::read_varint(bytes).ok_or(BadAccumulator)
}
