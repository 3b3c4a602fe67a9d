//! What the passing of time alone will make of a view's row: the changes that come when events leave
//! windows, told in advance, so that nothing has to be written when they come.
//!
//! A row as of some `T` stands until another row of its key is put out. Its columns at any `T` in
//! between are its own columns with all changes up to that `T` applied. Changes are in order of time,
//! each:
//!
//! | part | content |
//! | --- | --- |
//! | varint | microseconds since the change before, or since the row's latest event time |
//! | varint | number of runs of changed columns |
//! | per run: varint | columns to skip after the run before |
//! | varint | number of columns |
//! | … | their new values, packed ([`crate::packing`]) |
//!
//! Does not know why a column changes.

use smallvec::SmallVec;

use crate::encoding::{cells, read_varint, write_varint};
use crate::ids::{EventTime, LogTime};
use crate::packing::{pack_row, packed_cells, packed_len, unpack_cell, unpack_row};

/// Writes what is foretold of one row.
#[derive(Clone, Copy, Debug)]
pub struct Foretelling {
    last: EventTime,
}

impl Foretelling {
    /// Of a row with this latest event time.
    pub fn new(latest_event_time: EventTime) -> Self {
        Self { last: latest_event_time }
    }

    /// Appends that the columns `before` become `after`, both in canonical encoding, at `time`, which
    /// grows from call to call. Nothing is written where they are equal.
    pub fn push(&mut self, time: EventTime, before: &[u8], after: &[u8], out: &mut Vec<u8>) {
        if before == after {
            return;
        }
        write_varint(time.abs_diff(self.last), out);
        self.last = time;
        let mut runs: Vec<Run> = Vec::new();
        let (mut start, mut same) = (0, 0);
        for (before, after) in cells(before).zip(cells(after)) {
            let end = start + after.len();
            match runs.last_mut() {
                _ if before == after => same += 1,
                Some(run) if same == 0 => (run.columns, run.end) = (run.columns + 1, end),
                _ => {
                    runs.push(Run { skipped: same, columns: 1, start, end });
                    same = 0;
                }
            }
            start = end;
        }
        write_varint(runs.len() as u64, out);
        for run in runs {
            write_varint(run.skipped, out);
            write_varint(run.columns, out);
            pack_row(&after[run.start..run.end], out);
        }
    }

    /// As [`Self::push`] where it is known which columns change: `columns` are their indexes,
    /// ascending, and `value` has the new value of each, in canonical encoding.
    pub fn push_columns<'v>(
        &mut self,
        time: EventTime,
        columns: &[usize],
        value: impl Fn(usize) -> &'v [u8],
        out: &mut Vec<u8>,
    ) {
        if columns.is_empty() {
            return;
        }
        write_varint(time.abs_diff(self.last), out);
        self.last = time;
        let runs = || columns.chunk_by(|a, b| a + 1 == *b);
        write_varint(runs().count() as u64, out);
        let mut next = 0;
        for run in runs() {
            write_varint((run[0] - next) as u64, out);
            write_varint(run.len() as u64, out);
            run.iter().for_each(|column| pack_row(value(*column), out));
            next = run[0] + run.len();
        }
    }
}

/// Neighbouring columns that change.
struct Run {
    skipped: u64,
    columns: u64,
    start: usize,
    end: usize,
}

/// Columns of a row that is read without an allocation.
const MOST_IN_PLACE: usize = 32;

/// What is foretold of one row.
#[derive(Clone, Copy, Debug)]
pub struct Foretold<'a> {
    /// The bytes that [`Foretelling`] wrote.
    pub bytes: &'a [u8],
    /// The row's latest event time.
    pub from: EventTime,
}

impl Foretold<'_> {
    /// Appends, in canonical encoding, what the packed `columns` have become at `t`; `None` where any
    /// of the bytes are damaged.
    pub fn apply(&self, columns: &[u8], t: LogTime, out: &mut Vec<u8>) -> Option<()> {
        let (mut rest, mut time) = (self.bytes, self.from);
        let mut now: SmallVec<[&[u8]; MOST_IN_PLACE]> = SmallVec::new();
        while !rest.is_empty() {
            time = time.checked_add_unsigned(read_varint(&mut rest)?)?;
            if time > t.as_event_time() {
                break;
            }
            if now.is_empty() {
                now.extend(packed_cells(columns));
            }
            let mut at = 0usize;
            for _ in 0..read_varint(&mut rest)? {
                at = at.checked_add(usize::try_from(read_varint(&mut rest)?).ok()?)?;
                for _ in 0..read_varint(&mut rest)? {
                    let (value, behind) = rest.split_at_checked(packed_len(rest)?)?;
                    *now.get_mut(at)? = value;
                    (at, rest) = (at + 1, behind);
                }
            }
        }
        if now.is_empty() {
            return unpack_row(columns, out);
        }
        now.iter().try_for_each(|value| unpack_cell(value, out))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Value;
    use crate::encoding::encode_row;

    fn at(bytes: &[u8], columns: &[u8], t: u64) -> Option<Vec<u8>> {
        let (mut packed, mut out) = (Vec::new(), Vec::new());
        pack_row(columns, &mut packed);
        Foretold { bytes, from: -5 }.apply(&packed, LogTime(t), &mut out)?;
        Some(out)
    }

    #[test]
    fn the_documented_bytes() {
        let row = |values: [i64; 5]| encode_row(&values.map(Value::Int));
        let (first, second) = (row([1, 2, 3, 4, 5]), row([1, 0, 3, 0, 0]));
        let (mut bytes, mut telling) = (Vec::new(), Foretelling::new(-5));
        telling.push(10, &first, &first, &mut bytes);
        telling.push(300, &first, &second, &mut bytes);
        let expected = "b102 02 01 01 03 01 02 03 03".replace(' ', "");
        assert_eq!(crate::ids::hex(&bytes), expected);
        let (mut same, mut telling) = (Vec::new(), Foretelling::new(-5));
        telling.push_columns(10, &[], |_| &[], &mut same);
        let zero = row([0; 5]);
        telling.push_columns(300, &[1, 3, 4], |_| &zero[..9], &mut same);
        assert_eq!(same, bytes);
        assert_eq!(at(&bytes, &first, 299), Some(first.clone()));
        assert_eq!(at(&bytes, &first, 300), Some(second));
        assert_eq!(at(&bytes[..bytes.len() - 1], &first, 300), None);
        assert_eq!(at(&bytes, &first[..9], 300), None);
    }

    proptest! {
        #[test]
        fn columns_are_what_was_foretold(
            rows in prop::collection::vec(prop::collection::vec(0i64..3, 6), 1..8),
            gaps in prop::collection::vec(1i64..1_000_000_000, 8),
        ) {
            let rows: Vec<Vec<u8>> = rows
                .iter()
                .map(|row| encode_row(&row.iter().map(|n| match n {
                    0 => Value::Null,
                    1 => Value::Int(7),
                    _ => Value::String("a\0b".into()),
                }).collect::<Vec<_>>()))
                .collect();
            let (mut bytes, mut telling) = (Vec::new(), Foretelling::new(-5));
            let mut times = vec![0];
            for (pair, gap) in rows.windows(2).zip(&gaps) {
                let time = times[times.len() - 1] + gap;
                telling.push(time, &pair[0], &pair[1], &mut bytes);
                times.push(time);
            }
            for (row, time) in rows.iter().zip(&times) {
                prop_assert_eq!(&at(&bytes, &rows[0], time.cast_unsigned()).unwrap(), row);
            }
            for (row, time) in rows.iter().zip(&times[1..]) {
                prop_assert_eq!(&at(&bytes, &rows[0], time.cast_unsigned() - 1).unwrap(), row);
            }
        }

        #[test]
        fn no_bytes_panic(bytes in any::<Vec<u8>>(), columns in any::<Vec<u8>>(), t in any::<u64>()) {
            let _ = at(&bytes, &columns, t);
        }
    }
}
