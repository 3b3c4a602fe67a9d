//! Where the workers' parts of an epoch become one: the desk between worker threads, the thread that
//! submits epochs and the thread that takes results.
//!
//! Does not know what is in a part, nor how it was made.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use falaj_event::{EpochChanges, LogTime, RowChange, StateChange};

use crate::context::{Part, append};
use crate::error::EngineError;

/// See the module's documentation.
pub(crate) struct Desk {
    inner: Mutex<Inner>,
    changed: Condvar,
    failed: AtomicBool,
    most_in_flight: usize,
}

#[derive(Default)]
struct Inner {
    /// Epochs submitted and not taken, by `T`.
    epochs: BTreeMap<u64, Assembly>,
    failure: Option<EngineError>,
}

struct Assembly {
    epoch: u64,
    missing: usize,
    rows: Vec<RowChange>,
    checkpoint: Option<Vec<StateChange>>,
}

impl Desk {
    pub(crate) fn new(most_in_flight: usize) -> Self {
        Self {
            inner: Mutex::default(),
            changed: Condvar::new(),
            failed: AtomicBool::new(false),
            most_in_flight: most_in_flight.max(1),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing here panics halfway through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is room for one more epoch and opens it; `checkpoint` is what a checkpoint
    /// begins with, if one is due.
    pub(crate) fn open(
        &self,
        epoch: u64,
        t: u64,
        checkpoint: Option<Vec<StateChange>>,
        workers: usize,
    ) -> Result<(), EngineError> {
        let mut inner = self.lock();
        loop {
            if let Some(failure) = &inner.failure {
                return Err(failure.clone());
            }
            if inner.epochs.len() < self.most_in_flight {
                break;
            }
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        let assembly = Assembly { epoch, missing: workers, rows: Vec::new(), checkpoint };
        inner.epochs.insert(t, assembly);
        Ok(())
    }

    /// A worker hands in its part; whether the epoch is complete now.
    pub(crate) fn hand_in(&self, t: u64, part: Part) -> bool {
        let mut inner = self.lock();
        let Some(assembly) = inner.epochs.get_mut(&t) else { return false };
        append(&mut assembly.rows, part.rows);
        if let Some(checkpoint) = &mut assembly.checkpoint {
            append(checkpoint, part.state);
        }
        assembly.missing = assembly.missing.saturating_sub(1);
        let complete = assembly.missing == 0;
        if complete {
            self.changed.notify_all();
        }
        complete
    }

    /// Takes the oldest epoch when every worker has handed in its part; `None` when that does not
    /// happen within `timeout`.
    pub(crate) fn take(&self, timeout: Duration) -> Result<Option<EpochChanges>, EngineError> {
        let mut inner = self.lock();
        loop {
            if let Some(entry) = inner.epochs.first_entry()
                && entry.get().missing == 0
            {
                let (t, assembly) = entry.remove_entry();
                drop(inner);
                self.changed.notify_all();
                return Ok(Some(assembly.complete(t)));
            }
            if let Some(failure) = &inner.failure {
                return Err(failure.clone());
            }
            let (guard, waited) =
                self.changed.wait_timeout(inner, timeout).unwrap_or_else(PoisonError::into_inner);
            inner = guard;
            let ready = inner.epochs.first_key_value().is_some_and(|(_, first)| first.missing == 0);
            if waited.timed_out() && !ready && inner.failure.is_none() {
                return Ok(None);
            }
        }
    }

    /// Remembers the first failure and wakes everybody who waits.
    pub(crate) fn fail(&self, error: EngineError) {
        self.lock().failure.get_or_insert(error);
        self.failed.store(true, Ordering::SeqCst);
        self.changed.notify_all();
    }

    /// Whether workers are to stop.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    pub(crate) fn failure(&self) -> Option<EngineError> {
        self.lock().failure.clone()
    }
}

impl Assembly {
    /// Sorted, so that it does not matter which worker came first.
    fn complete(self, t: u64) -> EpochChanges {
        let mut rows = self.rows;
        rows.sort_unstable_by(|a, b| (a.view, &a.key).cmp(&(b.view, &b.key)));
        let checkpoint = self.checkpoint.map(|mut state| {
            state.sort_unstable_by(|a, b| a.key.cmp(&b.key));
            state
        });
        EpochChanges { epoch: self.epoch, t: LogTime(t), rows, checkpoint }
    }
}
