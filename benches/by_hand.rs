//! The baseline of feature maintenance: the same five aggregates over the same three windows, written
//! by hand for this one case: types, windows and functions known to the compiler, one thread, no
//! dataflow. It does the same work as far as what comes out needs it: sums that cannot overflow, late
//! events, events that leave as soon as they must, and each changed row, with its latest event time, in
//! the bytes that views store. It cannot be resumed: there are no checkpoints.
//!
//! Does not know the engine; what it computes is compared with the engine's rows.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use falaj_event::encoding::{encode_decimal, encode_f64, encode_int, encode_value};
use falaj_event::{KeyBytes, RowChange, Value, ViewId, ViewRow};

use crate::workload::WINDOWS;

/// Bytes of an encoded meter.
const KEY_BYTES: usize = 9;

/// Count, sum, minimum and maximum of some values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    count: i64,
    sum: i128,
    min: i64,
    max: i64,
}

const NONE: Totals = Totals { count: 0, sum: 0, min: i64::MAX, max: i64::MIN };

impl Totals {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    fn encode(&self, out: &mut Vec<u8>) {
        encode_int(self.count, out);
        if self.count == 0 {
            (0..4).for_each(|_| encode_value(&Value::Null, out));
            return;
        }
        encode_decimal(self.sum, 0, out);
        encode_f64(self.sum as f64 / self.count as f64, out);
        encode_int(self.min, out);
        encode_int(self.max, out);
    }
}

/// One changed row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Which meter's.
    pub meter: i64,
    /// Event time of its latest event.
    pub latest_event_time: i64,
    /// Per window.
    pub totals: [Totals; 3],
}

struct Meter {
    tiles: [VecDeque<(u64, Totals)>; 3],
    totals: [Totals; 3],
    latest_event_time: i64,
    touched_at: u64,
}

impl Meter {
    fn row(&self, meter: i64) -> Row {
        Row { meter, latest_event_time: self.latest_event_time, totals: self.totals }
    }
}

impl Default for Meter {
    fn default() -> Self {
        let (tiles, totals) = (Default::default(), [NONE; 3]);
        Self { tiles, totals, latest_event_time: i64::MIN, touched_at: 0 }
    }
}

/// One multiplication: keys are small integers.
#[derive(Default)]
struct OneMultiplication(u64);

impl Hasher for OneMultiplication {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_i64(&mut self, number: i64) {
        self.write_u64(number.cast_unsigned());
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}

/// The whole state.
#[derive(Default)]
pub struct ByHand {
    meters: HashMap<i64, Meter, BuildHasherDefault<OneMultiplication>>,
    leaving: BTreeMap<u64, Vec<(i64, u8)>>,
    touched: Vec<i64>,
}

impl ByHand {
    /// Takes one epoch of events, none dated after `t`, and gives the changed rows in
    /// order of their key.
    pub fn epoch(&mut self, t: u64, meters: &[i64], times: &[i64], values: &[i64]) -> Vec<Row> {
        self.touched.clear();
        self.expire(t);
        for ((meter, time), value) in meters.iter().zip(times).zip(values) {
            self.add(t, *meter, time.cast_unsigned(), *value);
        }
        self.touched.sort_unstable();
        let meters = &self.meters;
        self.touched.iter().filter_map(|id| Some(meters.get(id)?.row(*id))).collect()
    }

    /// A meter's row, encoded as views store it.
    pub fn encoded(row: &Row) -> Vec<u8> {
        let mut out = Vec::with_capacity(200);
        encode_int(row.meter, &mut out);
        row.totals.iter().for_each(|totals| totals.encode(&mut out));
        out
    }

    /// A meter's row as the engine puts it out; it begins with its key.
    pub fn change(row: &Row) -> RowChange {
        let (latest_event_time, columns) = (row.latest_event_time, Self::encoded(row));
        let key = KeyBytes::from_slice(&columns[..KEY_BYTES]);
        let row = Some(ViewRow { latest_event_time, columns, foretold: Vec::new() });
        RowChange { view: ViewId([0; 8]), key, row }
    }

    /// Number of meters.
    pub fn meters(&self) -> usize {
        self.meters.len()
    }

    /// A meter's row now.
    pub fn row(&self, meter: i64) -> Option<Row> {
        self.meters.get(&meter).map(|state| state.row(meter))
    }

    fn expire(&mut self, t: u64) {
        while let Some(entry) = self.leaving.first_entry().filter(|entry| *entry.key() <= t) {
            for (id, window) in entry.remove() {
                let window = usize::from(window);
                let Some(meter) = self.meters.get_mut(&id) else { continue };
                let (tiles, totals) = (&mut meter.tiles[window], &mut meter.totals[window]);
                let mut again = false;
                while let Some((tile, gone)) = tiles.front() {
                    if leaves_at(*tile, window) > t {
                        break;
                    }
                    totals.count -= gone.count;
                    totals.sum -= gone.sum;
                    again |= gone.min <= totals.min || gone.max >= totals.max;
                    tiles.pop_front();
                }
                if again {
                    let mut extremes = NONE;
                    tiles.iter().for_each(|(_, tile)| extremes.add(tile));
                    (totals.min, totals.max) = (extremes.min, extremes.max);
                }
                if meter.touched_at != t {
                    meter.touched_at = t;
                    self.touched.push(id);
                }
            }
        }
    }

    fn add(&mut self, t: u64, id: i64, time: u64, value: i64) {
        let meter = self.meters.entry(id).or_default();
        let one = Totals { count: 1, sum: i128::from(value), min: value, max: value };
        meter.latest_event_time = meter.latest_event_time.max(time.cast_signed());
        for (window, (_, hop)) in WINDOWS.iter().enumerate() {
            let tile = time / hop;
            if leaves_at(tile, window) <= t {
                continue;
            }
            let tiles = &mut meter.tiles[window];
            let after = tiles.iter().rev().take_while(|(have, _)| *have > tile).count();
            let at = tiles.len() - after;
            match at.checked_sub(1).and_then(|before| tiles.get_mut(before)) {
                Some((have, totals)) if *have == tile => totals.add(&one),
                _ => {
                    tiles.insert(at, (tile, one));
                    let window_number = window.to_le_bytes()[0];
                    let leaving = self.leaving.entry(leaves_at(tile, window)).or_default();
                    leaving.push((id, window_number));
                }
            }
            meter.totals[window].add(&one);
        }
        if meter.touched_at != t {
            meter.touched_at = t;
            self.touched.push(id);
        }
    }
}

fn leaves_at(tile: u64, window: usize) -> u64 {
    let (length, hop) = WINDOWS[window];
    (tile + 1) * hop + length
}
