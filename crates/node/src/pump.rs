//! The pump: epochs from the log into the engine, changes from the engine into the view store.
//!
//! Two threads: the feeder reads and submits, the applier takes and writes; the engine's bound on
//! epochs in flight is the only queue between them. When one of them fails, both stop and the failure
//! is kept for whoever asks. Knows no view and no door.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use falaj_dataflow::{
    Engine, EngineError, EpochInput, MetricsSnapshot, Options as EngineOptions, Resume, TopicInput,
};
use falaj_definitions::plan::ViewPlan;
use falaj_event::EpochChanges;
use falaj_log::{EpochEvents, Log, ReadOptions, Reader};
use falaj_views::{Progress, ViewStore};
use hdrhistogram::Histogram;

/// How epochs reach the views.
#[derive(Clone, Debug)]
pub struct PumpOptions {
    /// Engine worker threads.
    pub workers: usize,
    /// Operator state is written when the epochs since the last time hold this much work (see
    /// [`Rhythm`]); what a restart replays is bounded by it.
    pub checkpoint_work: u64,
    /// Epochs between log and views.
    pub epochs_in_flight: usize,
    /// Stop after this epoch; `None`: go on for ever.
    pub until: Option<u64>,
    /// Compute from the events that are kept where others were cut; otherwise that is a failure.
    pub skip_cut: bool,
}

impl Default for PumpOptions {
    fn default() -> Self {
        Self {
            workers: 1,
            checkpoint_work: 1 << 20,
            epochs_in_flight: 64,
            until: None,
            skip_cut: false,
        }
    }
}

/// When operator state is written: once the epochs since the last time add up to a given work, an
/// epoch counting as its events and [`Self::PER_EPOCH`] more, about what an empty one costs to replay.
///
/// Where checkpoints fall is part of the state, so the sum is over what the log holds alone, and it
/// begins anew at each checkpoint, which is where a restart goes on.
#[derive(Clone, Copy, Debug)]
pub struct Rhythm {
    every: u64,
    work: u64,
}

impl Rhythm {
    /// What an epoch counts for besides its events.
    pub const PER_EPOCH: u64 = 16;

    /// Begins after a checkpoint, or before the first epoch.
    pub fn new(every: u64) -> Self {
        Self { every, work: 0 }
    }

    /// Whether a checkpoint is due at the next epoch, which holds this many events.
    pub fn due(&mut self, events: u64) -> bool {
        self.work = self.work.saturating_add(events).saturating_add(Self::PER_EPOCH);
        let due = self.work >= self.every;
        if due {
            self.work = 0;
        }
        due
    }
}

/// What the pump knows of itself.
#[derive(Debug)]
pub struct PumpState {
    stop: AtomicBool,
    done: AtomicBool,
    failure: Mutex<Option<String>>,
    events: AtomicU64,
    applied_epochs: AtomicU64,
    freshness_us: Mutex<Option<Histogram<u64>>>,
}

impl PumpState {
    fn new() -> Self {
        Self {
            stop: AtomicBool::new(false),
            done: AtomicBool::new(false),
            failure: Mutex::new(None),
            events: AtomicU64::new(0),
            applied_epochs: AtomicU64::new(0),
            freshness_us: Mutex::new(Histogram::new(3).ok()),
        }
    }

    /// Why the pump has stopped, if it failed.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether `until` was reached.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// Events that were fed to the engine.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Epochs whose changes are readable.
    pub fn applied_epochs(&self) -> u64 {
        self.applied_epochs.load(Ordering::Relaxed)
    }

    /// Time from an epoch's close to its rows being readable: (p50, p99) in microseconds over all
    /// epochs so far; `None` before the first. Measured on the wall clock that closed the epoch, so
    /// it says nothing while the pump catches up with an old log.
    pub fn freshness_us(&self) -> Option<(u64, u64)> {
        let guard = self.freshness_us.lock().unwrap_or_else(PoisonError::into_inner);
        let histogram = guard.as_ref().filter(|histogram| !histogram.is_empty())?;
        Some((histogram.value_at_quantile(0.5), histogram.value_at_quantile(0.99)))
    }

    /// Forgets what [`Self::freshness_us`] has seen.
    pub fn reset_freshness(&self) {
        let mut guard = self.freshness_us.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(histogram) = guard.as_mut() {
            histogram.reset();
        }
    }

    fn fail(&self, error: &anyhow::Error) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert_with(|| format!("{error:#}"));
        self.stop.store(true, Ordering::Release);
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// A running pump.
pub struct Pump {
    state: Arc<PumpState>,
    engine: Arc<Engine>,
    threads: Vec<JoinHandle<()>>,
}

/// What the pump connects.
pub struct PumpParts {
    /// Where epochs come from.
    pub log: Arc<dyn Log>,
    /// Decodes them.
    pub reader: Arc<Reader>,
    /// Where changes go.
    pub store: Arc<ViewStore>,
    /// The views, in dependency order.
    pub plans: Vec<Arc<ViewPlan>>,
}

impl Pump {
    /// Starts the engine from the store's last checkpoint and both threads.
    ///
    /// # Errors
    /// When the checkpoint cannot be read or the engine does not start.
    pub fn start(parts: PumpParts, options: PumpOptions) -> Result<Self> {
        let resume = resume(&parts.store)?;
        let first = resume.as_ref().map_or(0, |resume| resume.epoch + 1);
        let engine = Arc::new(Engine::start(EngineOptions {
            workers: options.workers,
            // The feeder decides.
            checkpoint_every: u64::MAX,
            max_epochs_in_flight: options.epochs_in_flight,
            plans: parts.plans.clone(),
            resume,
        })?);
        let state = Arc::new(PumpState::new());
        let feeder = Feeder {
            log: Arc::clone(&parts.log),
            reader: parts.reader.with_options(ReadOptions {
                topics: Some(source_topics(&parts.plans).into_iter().collect()),
                skip_cut: options.skip_cut,
                ..ReadOptions::default()
            }),
            engine: Arc::clone(&engine),
            state: Arc::clone(&state),
            rhythm: Rhythm::new(options.checkpoint_work),
            next: first,
            until: options.until,
        };
        let applier = Applier {
            live_from: parts.log.tail().map_or(0, |tail| tail.record.epoch + 1),
            log: Arc::clone(&parts.log),
            store: parts.store,
            engine: Arc::clone(&engine),
            state: Arc::clone(&state),
            until: options.until,
            next: first,
        };
        let threads = vec![
            spawn("falaj-feeder", &state, &engine, move || feeder.run())?,
            spawn("falaj-applier", &state, &engine, move || applier.run())?,
        ];
        Ok(Self { state, engine, threads })
    }

    /// What the pump knows of itself.
    pub fn state(&self) -> &Arc<PumpState> {
        &self.state
    }

    /// The engine's counters.
    pub fn metrics(&self) -> MetricsSnapshot {
        self.engine.metrics()
    }

    /// Stops both threads and the engine. Epochs under way are dropped: the log has them.
    ///
    /// # Errors
    /// Why the pump had failed.
    pub fn stop(mut self) -> Result<()> {
        self.halt();
        match self.state.failure() {
            Some(failure) => Err(anyhow!(failure)),
            None => Ok(()),
        }
    }

    /// Waits until `until` is applied.
    ///
    /// # Errors
    /// Why the pump failed before.
    pub fn wait_done(&self, mut report: impl FnMut(&PumpState)) -> Result<()> {
        while !self.state.is_done() {
            if let Some(failure) = self.state.failure() {
                return Err(anyhow!(failure));
            }
            report(&self.state);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn halt(&mut self) {
        self.state.stop.store(true, Ordering::Release);
        // Wakes a feeder that waits for room and an applier that waits for changes.
        self.engine.close();
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing more to give; its failure is kept in the state.
            let _ = thread.join();
        }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.halt();
    }
}

/// Runs a thread whose failure stops the other one too. An engine that was closed because the pump
/// is stopping is no failure.
fn spawn(
    name: &str,
    state: &Arc<PumpState>,
    engine: &Arc<Engine>,
    run: impl FnOnce() -> Result<()> + Send + 'static,
) -> Result<JoinHandle<()>> {
    let (state, engine) = (Arc::clone(state), Arc::clone(engine));
    let body = move || {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        let failure = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(error)) if state.is_stopping() && is_closed(&error) => return,
            Ok(Err(error)) => error,
            Err(_) => anyhow!("a pump thread panicked"),
        };
        state.fail(&failure);
        engine.close();
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(body).context("starting a thread")
}

fn is_closed(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<EngineError>(), Some(EngineError::Stopped))
}

/// What an engine goes on from; `None` where the store has no checkpoint yet.
///
/// # Errors
/// When the store cannot be read.
pub fn resume(store: &ViewStore) -> Result<Option<Resume>> {
    let Some(Progress { epoch, t }) = store.progress().operator else { return Ok(None) };
    let mut state = Vec::new();
    for entry in store.operator_state()? {
        let (key, value) = entry?;
        state.push((key.into_vec(), value.into_vec()));
    }
    Ok(Some(Resume { epoch, t, state }))
}

/// Names of the topics that any plan reads.
pub fn source_topics(plans: &[Arc<ViewPlan>]) -> Vec<falaj_event::TopicId> {
    use falaj_definitions::plan::Source;
    let mut topics = Vec::new();
    for plan in plans {
        if let Source::Topic(topic) = &plan.source {
            topics.push(topic.id());
        }
        topics.extend(plan.joins.iter().map(|join| join.table.id()));
    }
    topics.sort_unstable();
    topics.dedup();
    topics
}

/// An epoch of the log as the engine takes it.
pub fn epoch_input(events: EpochEvents) -> EpochInput {
    let (epoch, t) = (events.record().epoch, events.record().t);
    let topics = events.topics.into_iter().map(|part| TopicInput {
        topic: part.topic,
        partition: part.partition,
        first_offset: part.first_offset,
        ops: part.ops,
        batch: part.batch,
    });
    EpochInput { epoch, t, topics: topics.collect() }
}

struct Feeder {
    log: Arc<dyn Log>,
    reader: Reader,
    engine: Arc<Engine>,
    state: Arc<PumpState>,
    rhythm: Rhythm,
    next: u64,
    until: Option<u64>,
}

impl Feeder {
    fn run(mut self) -> Result<()> {
        while !self.state.is_stopping() && self.until.is_none_or(|until| self.next <= until) {
            let Some(events) = self.reader.epoch(self.next)? else {
                self.log.wait_beyond(self.next.checked_sub(1), Duration::from_millis(100));
                continue;
            };
            let count = events.topics.iter().map(|part| part.batch.num_rows() as u64).sum();
            let checkpoint = self.rhythm.due(count);
            self.engine.submit_with(epoch_input(events), checkpoint)?;
            self.state.events.fetch_add(count, Ordering::Relaxed);
            self.next += 1;
        }
        Ok(())
    }
}

struct Applier {
    log: Arc<dyn Log>,
    /// Epochs before this one were there at the start; their age is no freshness.
    live_from: u64,
    store: Arc<ViewStore>,
    engine: Arc<Engine>,
    state: Arc<PumpState>,
    until: Option<u64>,
    next: u64,
}

/// Epochs that are written together when the applier is behind.
const EPOCHS_PER_WRITE: usize = 64;

impl Applier {
    fn run(mut self) -> Result<()> {
        while self.until.is_none_or(|until| self.next <= until) {
            let Some(first) = self.engine.take(Duration::from_millis(50))? else {
                if self.state.is_stopping() {
                    return Ok(());
                }
                continue;
            };
            let mut epochs = vec![first];
            while epochs.len() < EPOCHS_PER_WRITE {
                match self.engine.take(Duration::ZERO)? {
                    Some(next) => epochs.push(next),
                    None => break,
                }
            }
            self.apply(&epochs)?;
        }
        self.state.done.store(true, Ordering::Release);
        Ok(())
    }

    fn apply(&mut self, epochs: &[EpochChanges]) -> Result<()> {
        self.store.apply_all(epochs)?;
        self.next += epochs.len() as u64;
        self.state.applied_epochs.fetch_add(epochs.len() as u64, Ordering::Relaxed);
        for changes in epochs.iter().filter(|changes| changes.epoch >= self.live_from) {
            if let Some(entry) = self.log.entry(changes.epoch)? {
                self.state.observe_freshness(entry.record.wall_clock_us);
            }
        }
        Ok(())
    }
}

/// Microseconds of the wall clock since 1970 UTC.
pub fn wall_clock_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

impl PumpState {
    /// Notes that rows of an epoch that was closed at `closed_us` are readable now.
    pub fn observe_freshness(&self, closed_us: u64) {
        let age = wall_clock_us().saturating_sub(closed_us).max(1);
        let mut guard = self.freshness_us.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(histogram) = guard.as_mut() {
            // It grows with the values, which are far below what it can hold.
            let _ = histogram.record(age);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Rhythm;

    /// The epochs, counted from `first`, at which a checkpoint is due.
    fn due(every: u64, events: &[u64], first: usize) -> Vec<usize> {
        let mut rhythm = Rhythm::new(every);
        (first..events.len()).filter(|epoch| rhythm.due(events[*epoch])).collect()
    }

    #[test]
    fn checkpoints_follow_the_work_and_not_the_restarts() {
        let events: Vec<u64> = (0..400).map(|epoch| epoch * 7919 % 97).collect();
        let all = due(1_000, &events, 0);
        assert!(all.len() > 20);
        for (index, checkpoint) in all.iter().enumerate() {
            assert_eq!(due(1_000, &events, checkpoint + 1), all[index + 1..]);
        }
        let work = |epochs: &[u64]| epochs.iter().map(|e| e + Rhythm::PER_EPOCH).sum::<u64>();
        for pair in all.windows(2) {
            let replayed = work(&events[pair[0] + 1..=pair[1]]);
            assert!((1_000..1_000 + 97 + Rhythm::PER_EPOCH).contains(&replayed), "{replayed}");
        }
        assert_eq!(due(1_000, &[0; 200], 0), [62, 125, 188], "empty epochs count a little");
        assert_eq!(due(1, &[0; 3], 0), [0, 1, 2]);
        assert_eq!(due(10, &[u64::MAX, u64::MAX], 0), [0, 1]);
    }
}
