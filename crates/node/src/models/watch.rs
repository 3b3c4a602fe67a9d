//! The watch: follows the log, joins labels to predictions, keeps the monitors, and decides.
//!
//! One thread reads every epoch in order, from the first event of the registry on, and folds it into
//! each pipeline's state. What follows is appended as derived events (outcomes, rows of `falaj.drift`)
//! or handed to whoever acts on it (runs to start, versions to take out).
//!
//! # Exactly once
//! * **Events.** All that one cause gives on one topic is one submission. At the start, each derived
//!   topic's last event says how far the log got; causes up to there are folded and not emitted. So a
//!   restart, or a fold from the start after all state was lost, appends nothing twice and leaves
//!   nothing out.
//! * **Runs.** A firing counts as answered once the registry holds a request that came after it. While
//!   the fold catches up with the log nothing is fired; what is unanswered at its end is fired then, so
//!   a crash between firing and request fires again, and one after the request does not. A firing that
//!   nobody answers is given up after the pipeline's cool-down (at least a minute of `T`).
//! * **Rollbacks** likewise, until the version no longer serves. Reports and the rest are told while
//!   following, and when catching up only for causes that `falaj.drift` does not reach.
//!
//! An error ends the watch and is kept for the status; the log goes on, and the next start catches up.

pub mod decode;
pub mod emit;
pub mod pipeline;
pub mod served;
pub mod settings;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use falaj_definitions::catalog::Catalog;
use falaj_event::{LogTime, TopicSchema};
use falaj_lifecycle::triggers::Suppression;
use falaj_lifecycle::{Firing, GuardrailBreach, RegistryState, VersionNumber};
use falaj_log::{EpochEvents, Log, PiiMode, ReadOptions, Reader, SequencerHandle};
use falaj_monitor::ReferenceSet;
use serde_json::{Value as Json, json};

use super::registry;
use super::rows::RowReader;
use emit::{Emitter, drift_submission, outcome_submission};
use pipeline::{Given, PipelineWatch};

/// Name of the topic of scores and alarms.
pub const DRIFT_TOPIC: &str = "falaj.drift";

/// Gives what a version was trained on, by pipeline, version and the artifact's id; `None` where
/// nothing was kept: its inputs are not watched then.
pub type References =
    Arc<dyn Fn(&str, VersionNumber, &str) -> Result<Option<Arc<ReferenceSet>>> + Send + Sync>;

/// What the watch wants done or known.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Start a run.
    Fire {
        /// The pipeline.
        pipeline: String,
        /// Why, and the windows that caused it.
        firing: Firing,
    },
    /// Take the version out.
    RollBack {
        /// The pipeline.
        pipeline: String,
        /// The version that serves.
        version: VersionNumber,
        /// The guardrail that broke.
        breach: GuardrailBreach,
    },
    /// A guardrail broke; the version stays.
    Report {
        /// The pipeline.
        pipeline: String,
        /// The version that serves.
        version: VersionNumber,
        /// The guardrail that broke.
        breach: GuardrailBreach,
    },
    /// A broken guardrail is well again.
    Mended {
        /// The pipeline.
        pipeline: String,
        /// The version that serves.
        version: VersionNumber,
        /// The guardrail.
        guardrail: String,
    },
    /// A trigger would fire, and may not.
    Suppressed {
        /// The pipeline.
        pipeline: String,
        /// The trigger.
        trigger: String,
        /// What stands in the way.
        why: Suppression,
    },
    /// A trigger that fired is armed again.
    Cleared {
        /// The pipeline.
        pipeline: String,
        /// The trigger.
        trigger: String,
    },
}

impl Decision {
    /// Whether the registry answers it: such a decision waits until the fold has caught up.
    fn is_answered(&self) -> bool {
        matches!(self, Self::Fire { .. } | Self::RollBack { .. })
    }
}

/// What the watch connects.
pub struct WatchParts {
    /// Where epochs come from.
    pub log: Arc<dyn Log>,
    /// Decodes them.
    pub reader: Arc<Reader>,
    /// Where derived events go.
    pub sequencer: SequencerHandle,
    /// Pipelines and topics.
    pub catalog: Arc<Catalog>,
    /// What versions were trained on.
    pub references: References,
    /// Told what to do. Called on the watch's thread, which waits meanwhile.
    pub decide: Arc<dyn Fn(Decision) + Send + Sync>,
}

/// What the watch knows of itself.
#[derive(Debug, Default)]
pub struct WatchState {
    stop: AtomicBool,
    failure: Mutex<Option<String>>,
    /// The number of epochs folded, counted from the log's first.
    epochs: AtomicU64,
    t: AtomicU64,
    caught_up: AtomicBool,
    predictions: AtomicU64,
    labels: AtomicU64,
    outcomes: AtomicU64,
    rows: AtomicU64,
    alarms: AtomicU64,
    waiting: Mutex<(usize, usize)>,
}

impl WatchState {
    /// Why the watch has stopped, if it failed.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The `T` of the newest epoch that was folded.
    pub fn t(&self) -> LogTime {
        LogTime(self.t.load(Ordering::Acquire))
    }

    /// Epochs folded, counted from the log's first: the number of the next one.
    pub fn next_epoch(&self) -> u64 {
        self.epochs.load(Ordering::Acquire)
    }

    /// Whether the fold has reached the log's end as it was at the start.
    pub fn has_caught_up(&self) -> bool {
        self.caught_up.load(Ordering::Acquire)
    }

    /// For people. Counts are of this start of the watch.
    pub fn status(&self) -> Json {
        let (predictions, labels) = *self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "t": self.t(),
            "epoch": self.next_epoch().checked_sub(1),
            "caught_up": self.has_caught_up(),
            "failure": self.failure(),
            "predictions": count(&self.predictions),
            "labels": count(&self.labels),
            "outcomes": count(&self.outcomes),
            "scores": count(&self.rows),
            "alarms": count(&self.alarms),
            "predictions_waiting": predictions,
            "labels_waiting": labels,
        })
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// A running watch.
pub struct Watch {
    state: Arc<WatchState>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts following.
    ///
    /// # Errors
    /// When the log cannot be read, or the catalog lacks a topic.
    pub fn start(parts: WatchParts) -> Result<Self> {
        let state = Arc::new(WatchState::default());
        let follower = Follower::new(parts, Arc::clone(&state))?;
        let kept = Arc::clone(&state);
        let body = move || {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| follower.run()));
            let failure = match outcome {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error,
                Err(_) => anyhow!("the watch's thread panicked"),
            };
            let mut slot = kept.failure.lock().unwrap_or_else(PoisonError::into_inner);
            *slot = Some(format!("{failure:#}"));
        };
        let thread = std::thread::Builder::new().name("falaj-watch".to_owned()).spawn(body);
        Ok(Self { state, thread: Some(thread.context("starting the watch's thread")?) })
    }

    /// What it knows of itself.
    pub fn state(&self) -> &Arc<WatchState> {
        &self.state
    }

    /// Stops. What was emitted and is not durable yet is emitted again at the next start.
    ///
    /// # Errors
    /// Why it had failed.
    pub fn stop(mut self) -> Result<()> {
        self.halt();
        self.state.failure().map_or(Ok(()), |failure| Err(anyhow!(failure)))
    }

    fn halt(&mut self) {
        self.state.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.halt();
    }
}

struct Follower {
    log: Arc<dyn Log>,
    reader: Reader,
    references: References,
    decide: Arc<dyn Fn(Decision) + Send + Sync>,
    models: Arc<TopicSchema>,
    drift: Arc<TopicSchema>,
    registry: RegistryState,
    pipelines: Vec<PipelineWatch>,
    emitter: Emitter,
    state: Arc<WatchState>,
    next: u64,
    /// Epochs before this one were there at the start.
    live_from: u64,
    live: bool,
}

impl Follower {
    fn new(parts: WatchParts, state: Arc<WatchState>) -> Result<Self> {
        let topic = |name: &str| {
            let found = parts.catalog.topics.get(name).with_context(|| format!("no {name}"))?;
            Ok::<_, anyhow::Error>(Arc::clone(&found.schema))
        };
        let (models, drift) = (topic(registry::TOPIC)?, topic(DRIFT_TOPIC)?);
        let pipelines = parts.catalog.pipelines.iter();
        let pipelines = pipelines
            .map(|pipeline| PipelineWatch::new(pipeline, &parts.catalog))
            .collect::<Result<Vec<_>>>()?;
        let mut topics: BTreeSet<_> = pipelines.iter().flat_map(PipelineWatch::reads).collect();
        topics.insert(models.id());
        let derived = pipelines.iter().map(|watch| &watch.topics.outcomes).chain([&drift]);
        let emitter = Emitter::open(parts.sequencer, &parts.reader, derived)?;
        let live_from = parts.log.tail().map_or(0, |tail| tail.record.epoch + 1);
        let mut next = live_from;
        for partition in 0..models.partitions {
            if let Some(first) = parts.log.locate(models.id(), partition, 0)? {
                next = next.min(first.epoch);
            }
        }
        let options = ReadOptions {
            topics: Some(topics),
            pii: PiiMode::Plain,
            skip_cut: true,
            ..ReadOptions::default()
        };
        state.epochs.store(next, Ordering::Release);
        Ok(Self {
            reader: parts.reader.with_options(options),
            log: parts.log,
            references: parts.references,
            decide: parts.decide,
            models,
            drift,
            registry: RegistryState::default(),
            pipelines,
            emitter,
            state,
            next,
            live_from,
            live: false,
        })
    }

    fn run(mut self) -> Result<()> {
        while !self.state.is_stopping() {
            self.emitter.check()?;
            if self.next >= self.live_from && !self.live {
                self.go_live();
            }
            let Some(events) = self.reader.epoch(self.next)? else {
                self.log.wait_beyond(self.next.checked_sub(1), Duration::from_millis(50));
                continue;
            };
            let epoch = self.next;
            self.epoch(&events).with_context(|| format!("epoch {epoch}"))?;
            self.next += 1;
            self.state.t.store(events.record().t.0, Ordering::Release);
            self.state.epochs.store(self.next, Ordering::Release);
        }
        Ok(())
    }

    /// The fold has caught up: what is still unanswered is asked for again.
    fn go_live(&mut self) {
        self.live = true;
        self.state.caught_up.store(true, Ordering::Release);
        for watch in &self.pipelines {
            for decision in watch.unanswered(&self.registry) {
                (self.decide)(decision);
            }
        }
    }

    fn epoch(&mut self, events: &EpochEvents) -> Result<()> {
        let t = events.record().t;
        self.registry_events(events)?;
        let mut rows = Vec::new();
        for watch in &mut self.pipelines {
            let Given { outcomes, rows: own, decisions, counts } =
                watch.epoch(&self.registry, &self.references, events)?;
            self.state.predictions.fetch_add(counts.0, Ordering::Relaxed);
            self.state.labels.fetch_add(counts.1, Ordering::Relaxed);
            if !outcomes.is_empty() && !self.emitter.is_there(&watch.topics.outcomes, t) {
                self.state.outcomes.fetch_add(outcomes.len() as u64, Ordering::Relaxed);
                let topics = &watch.topics;
                let submission = outcome_submission(
                    &watch.pipeline,
                    &topics.outcomes,
                    &topics.labels,
                    topics.label_column,
                    t,
                    &outcomes,
                )?;
                self.emitter.append(t, submission)?;
            }
            rows.extend(own.into_iter().map(|row| (Arc::clone(&watch.pipeline), row)));
            let told = self.live || !self.emitter.is_there(&self.drift, t);
            for decision in decisions {
                let due = if decision.is_answered() { self.live } else { told };
                if due {
                    (self.decide)(decision);
                }
            }
        }
        if !rows.is_empty() && !self.emitter.is_there(&self.drift, t) {
            self.state.rows.fetch_add(rows.len() as u64, Ordering::Relaxed);
            let alarms = rows.iter().filter(|(_, row)| row.alarm).count() as u64;
            self.state.alarms.fetch_add(alarms, Ordering::Relaxed);
            let found: Vec<_> =
                rows.iter().map(|(pipeline, row)| (&**pipeline, row.clone())).collect();
            let submission = drift_submission(&self.drift, t, &found)?;
            self.emitter.append(t, submission)?;
        }
        let waiting = self.pipelines.iter().map(PipelineWatch::waiting);
        let waiting = waiting.fold((0, 0), |all, own| (all.0 + own.0, all.1 + own.1));
        *self.state.waiting.lock().unwrap_or_else(PoisonError::into_inner) = waiting;
        Ok(())
    }

    fn registry_events(&mut self, events: &EpochEvents) -> Result<()> {
        for part in events.topics.iter().filter(|part| part.topic.id() == self.models.id()) {
            let rows = RowReader::new(&part.topic, &part.batch)?;
            for row in 0..rows.rows() {
                let event = registry::decode(&rows, row)?;
                self.registry.apply(&event).with_context(|| {
                    let kind = event.change.kind();
                    format!(
                        "{}: event {kind} of {} does not follow",
                        registry::TOPIC,
                        event.pipeline
                    )
                })?;
                for watch in &mut self.pipelines {
                    watch.registry_event(&self.registry, &event);
                }
            }
        }
        Ok(())
    }
}
