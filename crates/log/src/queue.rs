//! The bounded queue between callers and the sequencer's thread: back-pressure, group commit and
//! the end of a sequencer.
//!
//! Does not know what an epoch is beyond the limits of one gathering.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use falaj_event::Hash256;

use crate::submission::{Ack, Prepared, Reply, SubmitError};

/// A reply that is given exactly once, whatever happens to its owner.
pub(crate) struct ReplyOnce(Option<Reply>);

impl ReplyOnce {
    pub(crate) fn new(reply: Reply) -> Self {
        Self(Some(reply))
    }

    pub(crate) fn send(mut self, outcome: Result<Ack, SubmitError>) {
        if let Some(reply) = self.0.take() {
            reply(outcome);
        }
    }
}

impl Drop for ReplyOnce {
    fn drop(&mut self) {
        if let Some(reply) = self.0.take() {
            reply(Err(SubmitError::Poisoned { reason: "its thread ended".into() }));
        }
    }
}

/// A checked submission that waits for its epoch.
pub(crate) struct Pending {
    pub prepared: Prepared,
    pub reply: ReplyOnce,
    pub arrived: Instant,
}

impl Pending {
    fn rows(&self) -> usize {
        self.prepared.origin.rows()
    }
}

/// Submissions that may not be torn apart.
pub(crate) struct Command {
    /// Definitions in force from the epoch of `pending` on.
    pub definitions: Option<Hash256>,
    pub pending: Vec<Pending>,
}

impl Command {
    fn rows(&self) -> usize {
        self.pending.iter().map(Pending::rows).sum()
    }

    fn bytes(&self) -> usize {
        self.pending.iter().map(|one| one.prepared.bytes).sum()
    }
}

/// Sizes of one gathering and of the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub linger: Duration,
    pub epoch_rows: usize,
    pub epoch_bytes: usize,
    pub queue_rows: usize,
    pub queue_bytes: usize,
}

/// What one epoch is made from.
#[derive(Default)]
pub(crate) struct Gathered {
    pub definitions: Option<Hash256>,
    pub pending: Vec<Pending>,
    /// Nothing will come after this.
    pub last: bool,
}

#[derive(Default)]
struct State {
    commands: VecDeque<Command>,
    rows: usize,
    bytes: usize,
    rotations: usize,
    closing: bool,
    poisoned: Option<Arc<str>>,
}

pub(crate) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    room: Condvar,
    limits: Limits,
}

impl Queue {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), room: Condvar::new(), limits }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room_in(&self, state: &State) -> bool {
        state.commands.is_empty()
            || (state.rows < self.limits.queue_rows && state.bytes < self.limits.queue_bytes)
    }

    pub(crate) fn has_room(&self) -> bool {
        self.has_room_in(&self.state())
    }

    /// Puts a command at the end; waits for room unless `even_if_full`. A refused command's replies
    /// are given.
    pub(crate) fn push(&self, command: Command, even_if_full: bool) {
        let mut state = self.state();
        while !even_if_full
            && !state.closing
            && state.poisoned.is_none()
            && !self.has_room_in(&state)
        {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let refusal = match (&state.poisoned, state.closing) {
            (Some(reason), _) => Some(SubmitError::Poisoned { reason: Arc::clone(reason) }),
            (None, true) => Some(SubmitError::Closed),
            (None, false) => None,
        };
        if let Some(error) = refusal {
            drop(state);
            return refuse(command, &error);
        }
        state.rows += command.rows();
        state.bytes += command.bytes();
        state.rotations += usize::from(command.definitions.is_some());
        state.commands.push_back(command);
        self.arrived.notify_one();
    }

    /// No submission is taken any more; what is queued will be.
    pub(crate) fn close(&self) {
        self.state().closing = true;
        self.arrived.notify_all();
        self.room.notify_all();
    }

    /// Why the sequencer stopped, if it did.
    pub(crate) fn poisoned(&self) -> Option<Arc<str>> {
        self.state().poisoned.clone()
    }

    /// Refuses everything, now and later. The first reason stays: others follow from it.
    pub(crate) fn poison(&self, reason: &Arc<str>) {
        let mut state = self.state();
        let reason = Arc::clone(state.poisoned.get_or_insert_with(|| Arc::clone(reason)));
        let commands = std::mem::take(&mut state.commands);
        drop(state);
        self.room.notify_all();
        self.arrived.notify_all();
        for command in commands {
            refuse(command, &SubmitError::Poisoned { reason: Arc::clone(&reason) });
        }
    }

    /// Waits for what makes up the next epoch, or until `tick_at`.
    pub(crate) fn gather(&self, tick_at: Option<Instant>) -> Gathered {
        let mut state = self.state();
        loop {
            let now = Instant::now();
            let first = state.commands.front();
            let linger_end = first.map(|command| match command.pending.first() {
                Some(first) => first.arrived + self.limits.linger,
                None => now,
            });
            let full = state.rows >= self.limits.epoch_rows
                || state.bytes >= self.limits.epoch_bytes
                || state.rotations > 0
                || state.closing
                || state.poisoned.is_some();
            let wake_at = [linger_end, tick_at].into_iter().flatten().min();
            if full || wake_at.is_some_and(|at| at <= now) {
                return self.drain(state);
            }
            state = match wake_at {
                Some(at) => {
                    let waited = self.arrived.wait_timeout(state, at - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn drain(&self, mut state: MutexGuard<'_, State>) -> Gathered {
        let mut gathered = Gathered::default();
        let (mut rows, mut bytes) = (0, 0);
        while rows < self.limits.epoch_rows && bytes < self.limits.epoch_bytes {
            let Some(command) = state.commands.pop_front() else { break };
            if command.definitions.is_some() {
                if !gathered.pending.is_empty() {
                    // The events before it belong to an epoch under the old definitions.
                    state.commands.push_front(command);
                    break;
                }
                state.rotations -= 1;
                gathered.definitions = command.definitions;
            }
            rows += command.rows();
            bytes += command.bytes();
            gathered.pending.extend(command.pending);
        }
        state.rows -= rows;
        state.bytes -= bytes;
        gathered.last = state.poisoned.is_some() || state.closing && state.commands.is_empty();
        self.room.notify_all();
        gathered
    }
}

fn refuse(command: Command, error: &SubmitError) {
    for one in command.pending {
        one.reply.send(Err(error.clone()));
    }
}
