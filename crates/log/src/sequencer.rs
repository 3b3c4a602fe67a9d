//! The sequencer: one per deployment, it turns submissions into epochs.
//!
//! It gathers what arrived (group commit: everything that came while earlier epochs were being
//! written, up to the limits), chooses `T`, asks the admission, closes the epoch
//! ([`crate::close`]) and hands it to the committer, a thread that seals and writes it and only then answers,
//! while the next one is gathered and closed. After a failed write the log's state is unknown: the
//! sequencer stops, writes nothing that was closed on top of it, answers everything with
//! [`SubmitError::Poisoned`], and a new one continues at the log's tail.
//!
//! Does not know topics' rules, files or sockets; clock and randomness are given to it.

use std::fmt;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::record_batch::RecordBatch;
use falaj_event::{Hash256, TopicSchema};
use falaj_vault::{Random, Vault};

use crate::admission::Admission;
use crate::ahead::Ahead;
use crate::contract::{Log, LogError};
use crate::epoch::ClockMode;
use crate::queue::{Command, Limits, Pending, Queue, ReplyOnce};
use crate::submission::{Ack, Ops, Origin, Submission, SubmitError};

mod committer;
mod intake;
mod worker;

use committer::Committer;
use worker::Worker;

/// Why the sequencer must stop.
struct Stop(String);

impl Stop {
    fn because(doing: &str) -> impl Fn(&dyn fmt::Display) -> Self {
        let doing = doing.to_owned();
        move |error| Self(format!("{doing}: {error}"))
    }
}

/// Where the wall clock comes from.
pub trait WallClock: Send + Sync + 'static {
    /// Microseconds since 1970 UTC; need not be monotonic.
    fn now_us(&self) -> u64;
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    fn now_us(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

/// How epochs are cut.
#[derive(Clone, Debug)]
pub struct Options {
    /// How `T` is chosen.
    pub clock: ClockMode,
    /// Fencing term; `None` takes over: one above the log's tail. A term below the tail's is
    /// refused.
    pub term: Option<u64>,
    /// How long an epoch waits for more after its first submission arrived, in microseconds. Time
    /// spent behind the previous epoch counts.
    pub linger_us: u64,
    /// An epoch closes when it holds this many rows (a submission is never split).
    pub max_epoch_events: usize,
    /// An epoch closes when it holds this many bytes in memory.
    pub max_epoch_bytes: usize,
    /// In wall mode an epoch is closed at least this often, even an empty one, in microseconds.
    pub tick_us: u64,
    /// Hash of the definitions in force.
    pub definitions: Hash256,
    /// Submitting waits while the queue holds this many rows.
    pub max_queue_events: usize,
    /// Submitting waits while the queue holds this many bytes in memory.
    pub max_queue_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clock: ClockMode::Wall,
            term: None,
            linger_us: 2_000,
            max_epoch_events: 20_000,
            max_epoch_bytes: 16 << 20,
            tick_us: 1_000_000,
            definitions: Hash256::default(),
            max_queue_events: 200_000,
            max_queue_bytes: 128 << 20,
        }
    }
}

/// What the sequencer works with.
pub struct Parts {
    /// The log; nobody else commits to it.
    pub log: Arc<dyn Log>,
    /// Keys.
    pub vault: Arc<Vault>,
    /// Decides at close.
    pub admission: Box<dyn Admission>,
    /// Wall clock.
    pub clock: Arc<dyn WallClock>,
    /// Source of block ids and salt seeds ([`Vault::random`] in production).
    pub random: Arc<dyn Random>,
}

/// Why a sequencer did not start.
#[derive(Debug, thiserror::Error)]
pub enum SequencerError {
    /// The log belongs to a later sequencer.
    #[error(transparent)]
    Log(#[from] LogError),
    /// No thread.
    #[error("the sequencer's thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// The sequencer stopped on its own.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the sequencer stopped: {0}")]
pub struct Stopped(pub Arc<str>);

/// Starts sequencers.
#[derive(Debug)]
pub struct Sequencer;

impl Sequencer {
    /// Starts a sequencer that continues at the log's tail.
    ///
    /// # Errors
    /// [`LogError::Fenced`] for a term below the tail's; no thread.
    pub fn spawn(options: Options, parts: Parts) -> Result<SequencerHandle, SequencerError> {
        let limits = Limits {
            linger: Duration::from_micros(options.linger_us),
            epoch_rows: options.max_epoch_events.max(1),
            epoch_bytes: options.max_epoch_bytes.max(1),
            queue_rows: options.max_queue_events.max(1),
            queue_bytes: options.max_queue_bytes.max(1),
        };
        let queue = Arc::new(Queue::new(limits));
        let vault = Arc::clone(&parts.vault);
        let ahead = Arc::new(Ahead::new(Arc::clone(&parts.log)));
        // An epoch is handed over when the one before it is written: more would only wait.
        let (jobs, closed) = mpsc::sync_channel(0);
        let worker = Worker::new(&options, parts, Arc::clone(&ahead), Arc::clone(&queue), jobs)?;
        let term = worker.term();
        let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let committer = Committer { ahead, vault: Arc::clone(&vault), queue: Arc::clone(&queue) };
        let committer = named("falaj-committer").spawn(move || committer.run(closed))?;
        let committer_id = committer.thread().id();
        let thread = named("falaj-sequencer").spawn(move || worker.run(committer))?;
        let thread = Mutex::new(Some(thread));
        let inner = Inner { queue, vault, term, thread, committer: committer_id };
        Ok(SequencerHandle { inner: Arc::new(inner) })
    }
}

struct Inner {
    queue: Arc<Queue>,
    vault: Arc<Vault>,
    term: u64,
    thread: Mutex<Option<JoinHandle<()>>>,
    committer: ThreadId,
}

impl Inner {
    fn stop(&self) {
        self.queue.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let current = std::thread::current().id();
        // A reply may let go of the last handle; its thread cannot wait for itself.
        if let Some(thread) = thread
            && thread.thread().id() != current
            && self.committer != current
        {
            // A panic on that thread has already poisoned the queue.
            let _ = thread.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Submits to a running sequencer. Cheap to clone; when the last clone goes, the sequencer finishes
/// what is queued and ends.
#[derive(Clone)]
pub struct SequencerHandle {
    inner: Arc<Inner>,
}

impl fmt::Debug for SequencerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SequencerHandle").field("term", &self.inner.term).finish_non_exhaustive()
    }
}

impl SequencerHandle {
    /// Checks, seals personal values and queues; waits while the queue is full. Every outcome,
    /// errors included, goes to the submission's reply.
    pub fn submit(&self, submission: Submission) {
        self.enqueue(submission, false);
    }

    /// As [`Self::submit`], without waiting.
    ///
    /// # Errors
    /// Gives the submission back when the queue is full; its reply is not called then.
    pub fn try_submit(&self, submission: Submission) -> Result<(), Box<Submission>> {
        if !self.inner.queue.has_room() {
            return Err(Box::new(submission));
        }
        self.enqueue(submission, true);
        Ok(())
    }

    fn enqueue(&self, submission: Submission, even_if_full: bool) {
        if let Some(pending) = self.prepare(submission) {
            let command = Command { definitions: None, pending: vec![pending] };
            self.inner.queue.push(command, even_if_full);
        }
    }

    fn prepare(&self, submission: Submission) -> Option<Pending> {
        let (prepared, reply) = submission.prepare(&self.inner.vault);
        let reply = ReplyOnce::new(reply);
        match prepared {
            Ok(prepared) => Some(Pending { prepared, reply, arrived: Instant::now() }),
            Err(error) => {
                reply.send(Err(error));
                None
            }
        }
    }

    /// Submits a batch without rejected rows and waits until it is durable.
    ///
    /// # Errors
    /// As the reply of a [`Submission`].
    pub fn append(
        &self,
        schema: &Arc<TopicSchema>,
        origin: Origin,
        ops: Ops,
        batch: RecordBatch,
    ) -> Result<Ack, SubmitError> {
        let (send, receive) = mpsc::channel();
        self.submit(Submission {
            schema: Arc::clone(schema),
            origin,
            ops,
            batch,
            positions: None,
            rejected: None,
            reply: Box::new(move |outcome| {
                let _ = send.send(outcome);
            }),
        });
        receive.recv().unwrap_or(Err(SubmitError::Closed))
    }

    /// Puts definitions into force: epochs of submissions made before this call carry the old
    /// hash, the next epoch and all later ones the new hash. `events` (those of
    /// `falaj.definitions`) are in the first epoch that carries it. When one of them is malformed
    /// nothing changes, and all of them are refused.
    pub fn rotate_definitions(&self, definitions: Hash256, events: Vec<Submission>) {
        let topic = events.first().map_or_else(String::new, |event| event.schema.name.clone());
        let wanted = events.len();
        let pending: Vec<_> = events.into_iter().filter_map(|event| self.prepare(event)).collect();
        if pending.len() < wanted {
            let why = "another event of the same change was refused".to_owned();
            let error = SubmitError::Malformed { topic, why };
            pending.into_iter().for_each(|one| one.reply.send(Err(error.clone())));
            return;
        }
        let command = Command { definitions: Some(definitions), pending };
        self.inner.queue.push(command, false);
    }

    /// The term that this sequencer writes under.
    pub fn term(&self) -> u64 {
        self.inner.term
    }

    /// Why the sequencer stopped on its own; `None` while it runs.
    pub fn stopped(&self) -> Option<Stopped> {
        self.inner.queue.poisoned().map(Stopped)
    }

    /// Takes no more submissions, appends what is queued and ends the thread. May be called again.
    ///
    /// # Errors
    /// When the sequencer had stopped on its own.
    pub fn shutdown(&self) -> Result<(), Stopped> {
        self.inner.stop();
        self.stopped().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests;
