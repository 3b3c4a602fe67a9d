//! Giving out rows.
//!
//! Does not know how state changes.

use falaj_event::EventTime;
use falaj_event::encoding::{TAG_ERROR, TAG_NULL};

use crate::aggregate::{Event, Object, Seen, Slots};
use crate::group::key::KeyState;
use crate::group::plan::{Compiled, Place};
use crate::group::{Given, GroupCore, WARM_TOGETHER};
#[cfg(test)]
use crate::group::{GroupOutput, GroupRow};
use crate::values::ValueList;

/// The slots of a frame filled for one row.
struct Filled {
    words: Vec<u64>,
    objects: Vec<Object>,
}

impl KeyState {
    /// Appends the values of the key's row and returns its latest event time, if it has events.
    pub(super) fn row(&self, plan: &Compiled, values: &mut ValueList) -> Option<EventTime> {
        let latest_event_time = match self.latest {
            Some(latest) => latest,
            None => self.permanent.max(self.events.last_time())?,
        };
        self.push_bare(plan, values);
        let rows: Vec<Filled> = self.fill_rows(plan);
        for (place, output) in &plan.calls {
            let seen = match *place {
                Place::Window { grid, window } => {
                    let grid = &plan.grids[grid];
                    self.seen_totals(&grid.windows[window], grid.shape())
                }
                Place::Lifetime { grid: index } => {
                    let (grid, ring) = (&plan.grids[index], &self.rings[index]);
                    if ring.len() == 0 {
                        let objects = &Filled::new(&grid.layout).objects;
                        let nothing = Seen { words: grid.layout.empty(), objects };
                        values.push_with(|out| output.encode(nothing, out));
                        continue;
                    }
                    ring.seen(grid.shape(), 0)
                }
                Place::Rows { frame } => {
                    Seen { words: &rows[frame].words, objects: &rows[frame].objects }
                }
            };
            values.push_with(|out| output.encode(seen, out));
        }
        Some(latest_event_time)
    }

    fn push_bare(&self, plan: &Compiled, values: &mut ValueList) {
        if plan.bare.is_empty() {
            return;
        }
        let (before, mut ranges) = (values.len(), Vec::new());
        self.events.latest(1, |_, cells| {
            let found = plan.selector.ranges(cells, &mut ranges).is_some();
            for column in &plan.bare {
                let range = ranges.get(*column).filter(|_| found);
                let cell = range.map(|(from, to)| &cells[*from as usize..*to as usize]);
                values.push_encoded(cell.unwrap_or(&[TAG_ERROR]));
            }
        });
        (values.len()..before + plan.bare.len()).for_each(|_| values.push_encoded(&[TAG_NULL]));
    }

    /// Folds every ROWS frame over the latest events.
    fn fill_rows(&self, plan: &Compiled) -> Vec<Filled> {
        let mut ranges = Vec::new();
        let mut parsed = Vec::new();
        let frames = plan.rows.iter().map(|frame| {
            let mut filled = Filled::new(&frame.layout);
            self.events.latest(frame.events, |order, cells| {
                if plan.selector.ranges(cells, &mut ranges).is_some() {
                    parsed.clear();
                    parsed.extend(plan.lanes.iter().map(|lane| lane.parse(cells, &ranges)));
                    let event = Event { parsed: &parsed, cells, order };
                    frame.layout.add(&mut filled.slots(), &event);
                }
            });
            filled
        });
        frames.collect()
    }
}

impl Filled {
    fn new(layout: &crate::aggregate::Layout) -> Self {
        let objects = (0..layout.objects()).map(|_| None).collect();
        Self { words: layout.empty().to_vec(), objects }
    }

    fn slots(&mut self) -> Slots<'_> {
        Slots { words: &mut self.words, objects: &mut self.objects }
    }
}

impl GroupCore {
    /// As [`Self::advance_each`], collected.
    #[cfg(test)]
    pub fn advance(&mut self, t: falaj_event::LogTime) -> Vec<GroupOutput> {
        let mut outputs: Vec<GroupOutput> = Vec::new();
        self.advance_each(t, |key, given| {
            let row = match given {
                Given::Row(latest_event_time, values) => {
                    Some(GroupRow { latest_event_time, values: values.to_vec() })
                }
                Given::Gone => None,
                Given::Later(time, values, _) => {
                    outputs.last_mut().unwrap().later.push((time, values.to_vec()));
                    return;
                }
            };
            outputs.push(GroupOutput { key: key.into(), row, later: Vec::new() });
        });
        outputs
    }

    /// Hands the rows of the touched keys to `each`, ascending by key. Keys without events are
    /// forgotten.
    pub(super) fn give_touched(&mut self, mut each: impl FnMut(&[u8], Given<'_>)) {
        let mut touched = std::mem::take(&mut self.touched);
        let keys = &self.keys;
        let key_of = |id: &u32| keys[*id as usize].as_ref().map(|state| state.key.as_slice());
        // The first bytes settle nearly every comparison without a visit to the key.
        let mut sorted: Vec<(u128, u32)> =
            touched.drain(..).map(|id| (head(key_of(&id).unwrap_or_default()), id)).collect();
        self.touched = touched;
        sorted.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| key_of(&a.1).cmp(&key_of(&b.1))));
        let mut values = ValueList::default();
        let mut warm = std::mem::take(&mut self.scratch.warm);
        for some in sorted.chunks(WARM_TOGETHER) {
            warm.clear();
            warm.extend(some.iter().map(|(_, id)| *id));
            self.warm(&warm);
            warm.iter().for_each(|id| self.give(*id, &mut values, &mut each));
        }
        self.scratch.warm = warm;
    }

    /// Hands out the row of a touched key.
    fn give(&mut self, id: u32, values: &mut ValueList, each: &mut impl FnMut(&[u8], Given<'_>)) {
        self.settle(id);
        let Some(state) = self.keys[id as usize].as_mut() else { return };
        state.touched = false;
        values.clear();
        let latest = state.row(&self.plan, values);
        let known = std::mem::replace(&mut state.emitted, latest.is_some());
        match latest {
            Some(latest) => each(&state.key, Given::Row(latest, values.all())),
            None if known => each(&state.key, Given::Gone),
            None => {}
        }
        if latest.is_none() {
            self.forget(id);
        } else if self.plan.foretells {
            let key = state.key.clone();
            let ahead = &mut self.scratch.ahead;
            state.foretell(&self.plan, self.now, ahead, values, |time, values, new| {
                each(&key, Given::Later(time, values, new));
            });
            self.queue(id);
            self.mark_dirty(id);
        }
    }

    /// Every row there is, ascending by key.
    #[cfg(test)]
    pub fn snapshot_rows(&self) -> Vec<GroupOutput> {
        let mut outputs: Vec<GroupOutput> = self
            .keys
            .iter()
            .flatten()
            .filter_map(|state| {
                let (mut state, mut values) = (state.clone(), ValueList::default());
                state.settle(&self.plan, self.now, &mut Vec::new(), |_, _, _| {});
                let latest_event_time = state.row(&self.plan, &mut values)?;
                let row = Some(GroupRow { latest_event_time, values: values.all().to_vec() });
                Some(GroupOutput { key: state.key, row, later: Vec::new() })
            })
            .collect();
        outputs.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        outputs
    }
}

/// The first 16 bytes of a key, as a number that orders as they do.
fn head(key: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    let length = key.len().min(16);
    bytes[..length].copy_from_slice(&key[..length]);
    u128::from_be_bytes(bytes)
}
