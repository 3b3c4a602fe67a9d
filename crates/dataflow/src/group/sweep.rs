//! One key after the other, each from its first event to its last question: what a view's row was at
//! any moments, from events that are all known, by the same tiles, totals and slots.
//!
//! Why it exists: a training set asks for rows at many moments that have nothing to do with epochs. A
//! key's events and questions are merged by time, so each event enters and leaves once however many
//! questions there are, and keys need nothing of each other. Does not know where events come from.

use falaj_event::{EventOrder, EventTime};

use crate::aggregate::Event;
use crate::error::EngineError;
use crate::group::key::KeyState;
use crate::group::plan::Compiled;
use crate::group::{GroupError, GroupPlan, Scratch};
use crate::values::{ValueList, Values};

/// The operator of one view, for one thread.
pub(crate) struct Sweep {
    plan: Compiled,
    horizon_us: Option<u64>,
    scratch: Scratch,
}

/// What is known and asked of one key.
pub(crate) struct SweepKey<'a> {
    /// Its canonical encoding.
    pub(crate) key: &'a [u8],
    /// Event time of the latest of its events that are left out of `events` because no question can
    /// see more of them.
    pub(crate) before: Option<EventTime>,
    /// The moments asked for, ascending.
    pub(crate) at: &'a [EventTime],
}

impl Sweep {
    pub(crate) fn new(plan: &GroupPlan) -> Self {
        Self { plan: Compiled::new(plan), horizon_us: plan.horizon_us, scratch: Scratch::default() }
    }

    /// Calls `each` for every question of `asked`, in order, with the key's latest event time and
    /// values as they were just before that moment: over the `events` (ascending by order, cells as
    /// in [`GroupPlan::cell_columns`]) with an event time below it, frames evaluated at it. `None`
    /// when there is no such event.
    ///
    /// # Errors
    /// When cells are not what the plan describes, or of `each`.
    pub(crate) fn key<'a>(
        &mut self,
        asked: &SweepKey<'_>,
        events: impl Iterator<Item = (&'a EventOrder, &'a [u8])>,
        mut each: impl FnMut(usize, Option<(EventTime, Values<'_>)>) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        for window in self.plan.grids.iter_mut().flat_map(|grid| &mut grid.windows) {
            window.limit = i64::MIN;
        }
        let mut state = KeyState::new(asked.key, &self.plan);
        state.latest = asked.before;
        let mut events = events.peekable();
        let mut values = ValueList::default();
        for (index, at) in asked.at.iter().enumerate() {
            self.step(&mut state, *at);
            while let Some((order, cells)) = events.next_if(|(order, _)| order.event_time < *at) {
                self.enter(&mut state, order, cells, *at)?;
            }
            values.clear();
            let latest = state.row(&self.plan, &mut values);
            each(index, latest.map(|latest| (latest, values.all())))?;
        }
        Ok(())
    }

    /// Takes out what has left by `now`.
    fn step(&mut self, state: &mut KeyState, now: EventTime) {
        self.plan.grids.iter_mut().for_each(|grid| grid.step(now));
        state.settle(&self.plan, now, &mut self.scratch.stale, |_, _, _| {});
    }

    fn enter(
        &mut self,
        state: &mut KeyState,
        order: &EventOrder,
        cells: &[u8],
        now: EventTime,
    ) -> Result<(), EngineError> {
        state.latest = state.latest.max(Some(order.event_time));
        let leaves = self
            .horizon_us
            .map(|us| order.event_time.saturating_add(i64::try_from(us).unwrap_or(i64::MAX)));
        if leaves.is_some_and(|leaves| leaves <= now) {
            return Ok(());
        }
        let Scratch { ranges, parsed, .. } = &mut self.scratch;
        if self.plan.selector.ranges(cells, ranges).is_none() {
            let key = falaj_event::ids::hex(&state.key);
            return Err(EngineError::rows("a training set", GroupError::Cells { key }));
        }
        parsed.clear();
        parsed.extend(self.plan.lanes.iter().map(|lane| lane.parse(cells, ranges)));
        state.add(&self.plan, &Event { parsed, cells, order });
        if self.plan.keep > 0 {
            state.events.keep_recent(*order, cells, self.plan.keep);
        }
        Ok(())
    }
}
