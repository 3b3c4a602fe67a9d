//! What the operators of one worker share: the epochs under way, what they have produced, and the
//! loop that runs an operator once per epoch, in order.
//!
//! Why it exists: windows expire at epochs' `T` and nowhere else, so every operator must see every
//! `T` even if no row comes. A worker registers an epoch here before it lets its inputs pass that
//! epoch's `T`; an operator whose frontier has passed `T` on all workers therefore finds it here.
//! It does not know plans.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use falaj_event::{RowChange, StateChange, logical_partition};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{Exchange, ParallelizationContract, Pipeline};
use timely::dataflow::operators::generic::operator::Operator;

use crate::error::EngineError;
use crate::metrics::Metrics;
use crate::row::{Change, Row, Rows};

/// One epoch as the operators see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tick {
    /// Its `T`.
    pub(crate) t: u64,
    /// The `T` before it; `None` for the first.
    pub(crate) previous: Option<u64>,
    /// Operator state that changed is to be written.
    pub(crate) checkpoint: bool,
    /// Not an epoch but the moment that state was restored at: restored rows flow, nothing is put
    /// out.
    pub(crate) hydrate: bool,
}

impl Tick {
    /// `T` on the event-time axis.
    pub(crate) fn now(&self) -> i64 {
        i64::try_from(self.t).unwrap_or(i64::MAX)
    }
}

/// What one worker produced for one epoch.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub(crate) rows: Vec<RowChange>,
    pub(crate) state: Vec<StateChange>,
}

/// See the module's documentation.
pub(crate) struct Context {
    ticks: RefCell<BTreeMap<u64, Tick>>,
    parts: RefCell<BTreeMap<u64, Part>>,
    failure: RefCell<Option<EngineError>>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Context {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Rc<Self> {
        Rc::new(Self {
            ticks: RefCell::default(),
            parts: RefCell::default(),
            failure: RefCell::default(),
            metrics,
        })
    }

    pub(crate) fn register(&self, tick: Tick) {
        self.ticks.borrow_mut().insert(tick.t, tick);
    }

    /// The first epoch after `done` whose `T` is below `bound`.
    fn next_tick(&self, done: Option<u64>, bound: u64) -> Option<Tick> {
        let from = done.map_or(0, |t| t.saturating_add(1));
        if from >= bound {
            return None;
        }
        self.ticks.borrow().range(from..bound).next().map(|(_, tick)| *tick)
    }

    /// Forgets an epoch that every operator has done and returns what they produced for it.
    pub(crate) fn finish(&self, t: u64) -> Part {
        self.ticks.borrow_mut().remove(&t);
        self.parts.borrow_mut().remove(&t).unwrap_or_default()
    }

    pub(crate) fn emit_rows(&self, tick: &Tick, rows: Vec<RowChange>) {
        if !tick.hydrate && !rows.is_empty() {
            append(&mut self.parts.borrow_mut().entry(tick.t).or_default().rows, rows);
        }
    }

    pub(crate) fn emit_state(&self, tick: &Tick, state: Vec<StateChange>) {
        append(&mut self.parts.borrow_mut().entry(tick.t).or_default().state, state);
    }

    /// Remembers the first failure; the worker stops at its next turn.
    pub(crate) fn fail(&self, error: EngineError) {
        self.failure.borrow_mut().get_or_insert(error);
    }

    /// The value, or its failure remembered.
    pub(crate) fn check<V: Default>(&self, result: Result<V, EngineError>) -> V {
        result.unwrap_or_else(|error| {
            self.fail(error);
            V::default()
        })
    }

    pub(crate) fn failure(&self) -> Option<EngineError> {
        self.failure.borrow().clone()
    }
}

/// Appends `more`, which mostly is all that there is and large.
pub(crate) fn append<T>(all: &mut Vec<T>, more: Vec<T>) {
    match all.is_empty() {
        true => *all = more,
        false => all.extend(more),
    }
}

/// Which worker processes a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// The one that owns the logical partition of the row's key.
    Key,
    /// The one that it is on.
    Here,
}

/// What an operator does at one epoch: all rows that change at its `T`, in no particular order, in;
/// changes at that `T` out.
pub(crate) type Logic = Box<dyn FnMut(&Tick, Vec<(Row, isize)>, &mut Vec<Change>)>;

/// An operator that runs `logic` once per epoch, in order, when all that precedes is complete.
pub(crate) fn each_tick<'scope>(
    rows: Rows<'scope>,
    route: Route,
    name: &str,
    context: &Rc<Context>,
    logic: Logic,
) -> Rows<'scope> {
    match route {
        Route::Key => {
            let place = |(row, _, _): &Change| u64::from(logical_partition(&row.key));
            run_each_tick(rows, Exchange::new(place), name, Rc::clone(context), logic)
        }
        Route::Here => run_each_tick(rows, Pipeline, name, Rc::clone(context), logic),
    }
}

fn run_each_tick<'scope>(
    rows: Rows<'scope>,
    pact: impl ParallelizationContract<u64, Vec<Change>>,
    name: &str,
    context: Rc<Context>,
    mut logic: Logic,
) -> Rows<'scope> {
    rows.unary_frontier::<CapacityContainerBuilder<Vec<Change>>, _, _, _>(
        pact,
        name,
        move |capability, _| {
            // Held for ever at the frontier: an expiry may put rows out at any later `T`.
            let mut capability = Some(capability);
            let mut pending = Pending::default();
            let mut done = None;
            let mut changes = Vec::new();
            move |(input, frontier), output| {
                input.for_each(|_, data| pending.add(data.drain(..)));
                let Some(bound) = frontier.frontier().first().copied() else {
                    capability = None;
                    return;
                };
                let Some(held) = capability.as_mut() else { return };
                while let Some(tick) = context.next_tick(done, bound) {
                    let rows = pending.take(tick.t);
                    #[cfg(test)]
                    assert!(rows.is_empty() || tick.t != PANIC_AT, "told to panic");
                    logic(&tick, rows, &mut changes);
                    if !changes.is_empty() {
                        held.downgrade(&tick.t);
                        output.session(&*held).give_container(&mut changes);
                        changes.clear();
                    }
                    done = Some(tick.t);
                }
                if *held.time() < bound {
                    held.downgrade(&bound);
                }
            }
        },
    )
}

/// The `T` at which an operator that has rows panics in tests.
#[cfg(test)]
pub(crate) const PANIC_AT: u64 = 0xDEAD_BEEF;

/// Rows by the `T` at which they change.
#[derive(Default)]
struct Pending(Vec<(u64, Vec<(Row, isize)>)>);

impl Pending {
    fn add(&mut self, changes: impl Iterator<Item = Change>) {
        for (row, t, diff) in changes {
            match self.0.last_mut() {
                Some((last, rows)) if *last == t => rows.push((row, diff)),
                _ => match self.0.binary_search_by_key(&t, |(t, _)| *t) {
                    Ok(at) => self.0[at].1.push((row, diff)),
                    Err(at) => self.0.insert(at, (t, vec![(row, diff)])),
                },
            }
        }
    }

    fn take(&mut self, t: u64) -> Vec<(Row, isize)> {
        match self.0.binary_search_by_key(&t, |(t, _)| *t) {
            Ok(at) => self.0.remove(at).1,
            Err(_) => Vec::new(),
        }
    }
}

/// Adds up the changes of equal rows and drops those that cancel.
pub(crate) fn consolidate(rows: &mut Vec<(Row, isize)>) {
    if rows.len() > 1 {
        differential_dataflow::consolidation::consolidate(rows);
    }
}
