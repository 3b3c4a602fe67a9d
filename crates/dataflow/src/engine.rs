//! The engine: plans in, epochs in, changes of views and operator state out.
//!
//! Why it exists: it owns the worker threads and what passes between them and their caller. What it
//! puts out for an epoch is a pure function of the log up to that epoch, its `T` and the plans:
//! independent of the number of workers, the epochs in flight and restarts from checkpoints. It
//! knows neither log nor storage.

mod build;
mod census;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use falaj_definitions::plan::ViewPlan;
use falaj_event::{EpochChanges, LogTime, StateChange};
use timely::communication::WorkerGuards;
use timely::scheduling::activate::SyncActivations;

use crate::error::EngineError;
use crate::metrics::{Metrics, MetricsSnapshot};
use crate::sink::Desk;
use crate::source::EpochInput;

/// How to run an engine.
#[derive(Clone, Debug)]
pub struct Options {
    /// Worker threads, at least 1. Best one less than there are cores.
    pub workers: usize,
    /// A checkpoint is due at every epoch whose number this divides; at least 1.
    pub checkpoint_every: u64,
    /// Epochs that may be submitted and not yet taken; at least 1.
    pub max_epochs_in_flight: usize,
    /// The views, each after those that it reads.
    pub plans: Vec<Arc<ViewPlan>>,
    /// The checkpoint to go on from; `None` for an empty log.
    pub resume: Option<Resume>,
}

/// A checkpoint: all state entries of all checkpoints up to it, newest per key.
#[derive(Clone, Debug, Default)]
pub struct Resume {
    /// Number of the epoch that it was taken at.
    pub epoch: u64,
    /// That epoch's `T`.
    pub t: LogTime,
    /// Keys and values, in any order; a key at most once.
    pub state: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A running engine.
///
/// One thread submits epochs in log order and another takes their changes in the same order; a
/// single thread may do both as long as it never submits more than
/// [`Options::max_epochs_in_flight`] epochs ahead of those that it has taken.
pub struct Engine {
    desk: Arc<Desk>,
    metrics: Arc<Metrics>,
    links: Vec<Link>,
    progress: Mutex<Progress>,
    checkpoint_every: u64,
    guards: Mutex<Option<WorkerGuards<()>>>,
}

/// How far the caller has come.
struct Progress {
    /// The last `T` that was submitted or resumed from.
    last: Option<u64>,
    /// The census, until a checkpoint has it.
    census: Option<StateChange>,
}

/// Commands to one worker.
#[derive(Default)]
struct Queue(Mutex<VecDeque<Command>>);

enum Command {
    Epoch { input: Arc<EpochInput>, previous: Option<u64>, checkpoint: bool },
    Stop,
}

impl Queue {
    fn push(&self, command: Command) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(command);
    }

    fn pop(&self) -> Option<Command> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

struct Link {
    queue: Arc<Queue>,
    wake: SyncActivations,
}

impl Link {
    fn send(&self, command: Command) {
        self.queue.push(command);
        // A worker that is gone has reported why.
        let _ = self.wake.activate_batch(std::iter::empty());
    }
}

impl Engine {
    /// Starts the workers and builds the dataflow in each of them.
    ///
    /// # Errors
    /// A plan that cannot be executed, a state that no version has written, or threads that do not
    /// start.
    pub fn start(options: Options) -> Result<Self, EngineError> {
        let workers = options.workers.max(1);
        let desk = Arc::new(Desk::new(options.max_epochs_in_flight));
        let metrics = Arc::new(Metrics::new(options.plans.iter().map(|plan| plan.id)));
        let queues: Vec<Arc<Queue>> = (0..workers).map(|_| Arc::default()).collect();
        let (built, reports) = mpsc::channel();
        let progress = Progress {
            last: options.resume.as_ref().map(|resume| resume.t.0),
            census: census::take(&options.plans, options.resume.as_ref())?,
        };
        let crew = worker::Crew {
            desk: Arc::clone(&desk),
            metrics: Arc::clone(&metrics),
            queues: queues.clone(),
            plans: options.plans,
            resume: options.resume,
            built: Mutex::new(built),
        };
        let mut config = timely::Config::process(workers);
        differential_dataflow::configure(
            &mut config.worker,
            &differential_dataflow::Config::default().idle_merge_effort(Some(IDLE_MERGE_EFFORT)),
        );
        let guards = timely::execute(config, move |worker| crew.work(worker))
            .map_err(EngineError::Runtime)?;
        let mut engine = Self {
            desk,
            metrics,
            links: Vec::new(),
            progress: Mutex::new(progress),
            checkpoint_every: options.checkpoint_every.max(1),
            guards: Mutex::new(Some(guards)),
        };
        let mut wakes: Vec<(usize, SyncActivations)> = reports.into_iter().take(workers).collect();
        wakes.sort_unstable_by_key(|(index, _)| *index);
        let link = |((_, wake), queue)| Link { queue, wake };
        engine.links = wakes.into_iter().zip(queues).map(link).collect();
        match engine.desk.failure() {
            Some(failure) => Err(failure),
            None => Ok(engine),
        }
    }

    /// Submits the next epoch. Waits while [`Options::max_epochs_in_flight`] epochs are under way.
    ///
    /// # Errors
    /// [`EngineError::NotAscending`] (nothing changed), or why the engine has failed.
    pub fn submit(&self, input: EpochInput) -> Result<(), EngineError> {
        let checkpoint = input.epoch.is_multiple_of(self.checkpoint_every);
        self.submit_with(input, checkpoint)
    }

    /// As [`Self::submit`], the caller deciding whether a checkpoint is due at this epoch. Only a
    /// decision that is a function of the log makes the stored state one.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub fn submit_with(&self, input: EpochInput, checkpoint: bool) -> Result<(), EngineError> {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let (epoch, t) = (input.epoch, input.t.0);
        if let Some(last) = progress.last.filter(|last| *last >= t) {
            return Err(EngineError::NotAscending { epoch, t, last });
        }
        let first = checkpoint.then(|| progress.census.clone().into_iter().collect());
        self.desk.open(epoch, t, first, self.links.len())?;
        if checkpoint {
            progress.census = None;
        }
        let previous = progress.last.replace(t);
        let input = Arc::new(input);
        for link in &self.links {
            link.send(Command::Epoch { input: Arc::clone(&input), previous, checkpoint });
        }
        Ok(())
    }

    /// Takes the changes of the oldest epoch that has not been taken: all of them, when every
    /// worker is done with it. `None` when that does not happen within `timeout`.
    ///
    /// # Errors
    /// Why the engine has failed. Epochs that were complete before are returned first.
    pub fn take(&self, timeout: Duration) -> Result<Option<EpochChanges>, EngineError> {
        self.desk.take(timeout)
    }

    /// The engine's counters.
    pub fn metrics(&self) -> MetricsSnapshot {
        self.metrics.snapshot()
    }

    /// Makes every call that waits, and every later one, return [`EngineError::Stopped`] once the
    /// complete epochs are taken; [`Self::stop`] may follow.
    pub fn close(&self) {
        self.desk.fail(EngineError::Stopped);
    }

    /// Stops the workers. Epochs under way are dropped; nothing expires.
    ///
    /// # Errors
    /// Why the engine had failed.
    pub fn stop(mut self) -> Result<(), EngineError> {
        self.shut();
        match self.desk.failure() {
            Some(EngineError::Stopped) | None => Ok(()),
            Some(failure) => Err(failure),
        }
    }

    fn shut(&mut self) {
        self.desk.fail(EngineError::Stopped);
        self.links.iter().for_each(|link| link.send(Command::Stop));
        let guards = self.guards.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(guards) = guards {
            for (index, joined) in guards.join().into_iter().enumerate() {
                if let Err(message) = joined {
                    self.desk.fail(EngineError::Panicked { worker: index, message });
                }
            }
        }
    }
}

/// Records that an idle arrangement may merge per turn.
const IDLE_MERGE_EFFORT: isize = 1000;

impl Drop for Engine {
    fn drop(&mut self) {
        self.shut();
    }
}
