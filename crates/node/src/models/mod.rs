//! The model loop of a node: the registry, training runs, what serves, and what is logged of it.
//!
//! `ModelLoop::start → ModelLoop::stop`. What is decided stands in `falaj_lifecycle`, how a model is
//! trained and scored in `falaj_model`, what becomes of predictions in `falaj_monitor`; here they are
//! put together with the log.

mod artifacts;
pub mod evaluate;
pub mod figures;
pub mod job;
pub mod kpi;
pub mod ledger;
pub mod onnx;
pub mod outcomes;
pub mod predictor;
mod reference;
pub mod registry;
pub mod replay;
pub mod rows;
pub mod rules;
mod runs;
pub mod serving;
pub mod watch;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use falaj_definitions::pipelines::{Pipeline, Promotion, Task};
use falaj_event::LogTime;
use falaj_gateway::backend::{BackendError, PredictRequest, PredictResponse};
use falaj_lifecycle::registry::PromotionEvidence;
use falaj_lifecycle::{
    Action, Actor, Command, Firing, ModelEvent, RegistryState, Stage, VersionNumber,
};
use serde_json::{Value as Json, json};

pub use artifacts::Artifacts;
use ledger::Ledger;
use predictor::Predictor;
use registry::{CommandError, Registry};
use serving::{Loaded, ServingSet};
use watch::checkpoint::Checkpoints;
use watch::{Decision, Watch, WatchParts};

use crate::backend::actions::from_hex;
use crate::core::Core;

/// The model loop of one node.
pub struct ModelLoop {
    core: Arc<Core>,
    registry: Registry,
    artifacts: Artifacts,
    predictors: BTreeMap<String, Arc<Predictor>>,
    loaded: Mutex<BTreeMap<String, Arc<Loaded>>>,
    ledger: Mutex<Option<Ledger>>,
    runs: runs::Runs,
    watch: Mutex<Option<Watch>>,
    /// The log's last epoch at the start: predictions wait until the views are there.
    caught_up_at: Option<u64>,
    stopping: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl ModelLoop {
    /// Reads the registry, declares the pipelines' rules, loads what serves, and goes on with what was
    /// under way.
    ///
    /// # Errors
    /// When the registry or an artifact that serves cannot be read.
    pub fn start(core: Arc<Core>) -> Result<Arc<Self>> {
        let schema = core.catalog.topics.get(registry::TOPIC).context("no falaj.models")?;
        let registry = Registry::open(
            Arc::clone(&schema.schema),
            Arc::clone(&core.log),
            &core.reader,
            core.sequencer.clone(),
        )?;
        let term = core.sequencer.term();
        let predictors = core
            .catalog
            .pipelines
            .iter()
            .map(|pipeline| {
                let predictor = Predictor::new(pipeline, &core.catalog, term)?;
                Ok((pipeline.name.clone(), Arc::new(predictor)))
            })
            .collect::<Result<_>>()?;
        let (ledger, thread) = Ledger::start(core.sequencer.clone())?;
        let all = Arc::new(Self {
            registry,
            artifacts: Artifacts::new(core.options.data.models(), Arc::clone(&core.vault)),
            predictors,
            loaded: Mutex::default(),
            ledger: Mutex::new(Some(ledger)),
            runs: runs::Runs::default(),
            watch: Mutex::default(),
            caught_up_at: core.log.tail().map(|tail| tail.record.epoch),
            stopping: AtomicBool::new(false),
            threads: Mutex::new(vec![thread]),
            core,
        });
        for pipeline in &all.core.catalog.pipelines {
            all.declare(pipeline)?;
            all.refresh(&pipeline.name)?;
        }
        let thread = runs::start(&all)?;
        all.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        if !all.core.catalog.pipelines.is_empty() {
            let watch = all.start_watch().context("starting the watch over predictions")?;
            *all.watch.lock().unwrap_or_else(PoisonError::into_inner) = Some(watch);
        }
        Ok(all)
    }

    fn start_watch(self: &Arc<Self>) -> Result<Watch> {
        let folder = self.core.options.data.models();
        let weak = Arc::downgrade(self);
        Watch::start(WatchParts {
            log: Arc::clone(&self.core.log),
            reader: Arc::clone(&self.core.reader),
            sequencer: self.core.sequencer.clone(),
            catalog: Arc::clone(&self.core.catalog),
            references: Arc::new(move |_, _, id| reference::read(&folder, id)),
            checkpoints: Some(Checkpoints::new(
                &self.core.options.data.watch(),
                self.core.catalog.hash,
            )),
            decide: Arc::new(move |decision| {
                if let Some(all) = weak.upgrade() {
                    all.answer(decision);
                }
            }),
        })
    }

    /// Does what the watch over predictions asks for. The registry's refusal is an answer, too: it
    /// holds what was done already.
    fn answer(&self, decision: Decision) {
        match decision {
            Decision::Fire { pipeline, firing } => {
                let Firing { trigger, run, actor, windows, reason, .. } = firing;
                let _ = self.request(&pipeline, actor, &trigger, windows, &reason, Some(run));
            }
            Decision::RollBack { pipeline, breach, .. } => {
                let actor = Actor::Rule(breach.guardrail.clone());
                let reason = breach.to_string();
                let _ = self.roll_back(&pipeline, None, actor, &reason, Some(breach));
            }
            // They stand on `falaj.drift`, where people and programs read them.
            Decision::Report { .. }
            | Decision::Mended { .. }
            | Decision::Suppressed { .. }
            | Decision::Cleared { .. } => {}
        }
    }

    /// Ends runs (they go on at the next start), logs what is queued, and ends all threads.
    pub fn stop(&self) {
        self.stopping.store(true, std::sync::atomic::Ordering::Release);
        // A sequencer that has stopped takes nothing more.
        let _ = self.write_figures();
        // Its failure was in the status for whoever asked.
        drop(self.watch.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.runs.stop();
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).take();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A thread that panicked has nothing more to give; its failure is in the runs' state.
            let _ = thread.join();
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(std::sync::atomic::Ordering::Acquire)
    }

    /// What is behind the loop.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Where artifacts are.
    pub fn artifacts(&self) -> &Artifacts {
        &self.artifacts
    }

    /// Looks at the registry.
    pub fn registry<R>(&self, look: impl FnOnce(&RegistryState) -> R) -> R {
        self.registry.with(look)
    }

    /// The pipeline called `name`.
    ///
    /// # Errors
    /// Names those there are.
    pub fn predictor(&self, name: &str) -> Result<&Arc<Predictor>, BackendError> {
        self.predictors.get(name).ok_or_else(|| {
            BackendError::unknown("model", name, self.predictors.keys().map(String::as_str))
        })
    }

    /// All pipelines.
    pub fn predictors(&self) -> impl Iterator<Item = &Arc<Predictor>> {
        self.predictors.values()
    }

    fn declare(&self, pipeline: &Pipeline) -> Result<()> {
        let reason = format!("declared in {}", pipeline.file.display());
        let rules = rules::pipeline_rules(pipeline);
        self.carry_out(&pipeline.name, Actor::Platform, &reason, Action::Declare { rules })?;
        let policy = rules::serving_policy(pipeline);
        self.carry_out(&pipeline.name, Actor::Platform, &reason, Action::SetPolicy { policy })?;
        Ok(())
    }

    /// Carries out a command and lets what serves follow from it. Blocks on the log.
    ///
    /// # Errors
    /// The registry's refusal, or why nothing was appended.
    pub fn carry_out(
        &self,
        pipeline: &str,
        actor: Actor,
        reason: &str,
        action: Action,
    ) -> Result<Vec<ModelEvent>, CommandError> {
        let command = Command {
            pipeline: pipeline.to_owned(),
            actor,
            at: self.registry.now(),
            reason: reason.to_owned(),
            action,
        };
        let events = self.registry.command(&command)?;
        if !events.is_empty() {
            self.refresh(pipeline).map_err(CommandError::Log)?;
            self.runs.wake();
        }
        Ok(events)
    }

    /// Loads and warms a version, so that traffic can move to it.
    ///
    /// # Errors
    /// When its artifact cannot be read, or does not predict.
    pub fn load(&self, pipeline: &str, version: VersionNumber) -> Result<Arc<Loaded>> {
        let id = self
            .registry
            .with(|state| {
                let found = state.pipeline(pipeline)?.versions.get(&version)?;
                Some(found.model.as_ref()?.artifact_sha256.clone())
            })
            .with_context(|| format!("{pipeline} has no trained version {version}"))?;
        let key = format!("{pipeline} {version} {id}");
        if let Some(found) = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Arc::clone(found));
        }
        let artifact = self.artifacts.get(&id)?;
        let predictor = self.predictors.get(pipeline);
        let predictor = predictor.with_context(|| format!("there is no pipeline `{pipeline}`"))?;
        let loaded = Arc::new(loaded(&predictor.pipeline, version, &artifact)?);
        evaluate::warm(predictor, &loaded)?;
        let mut all = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(key, Arc::clone(&loaded));
        Ok(loaded)
    }

    /// Lets what serves a pipeline follow from the registry: everything is loaded before the swap.
    fn refresh(&self, pipeline: &str) -> Result<()> {
        let Some(predictor) = self.predictors.get(pipeline) else { return Ok(()) };
        let Some((champion, challenger, policy)) = self.registry.with(|state| {
            let state = state.pipeline(pipeline)?;
            Some((state.champion, state.challenger, state.policy.clone()))
        }) else {
            return Ok(());
        };
        let load = |version: Option<VersionNumber>| {
            version.map(|version| self.load(pipeline, version)).transpose()
        };
        let set = ServingSet { champion: load(champion)?, challenger: load(challenger)?, policy };
        let serves: Vec<u32> =
            set.champion.iter().chain(&set.challenger).map(|loaded| loaded.version).collect();
        predictor.slot.set(set);
        // What neither serves nor waits is let go of; a rollback loads it again before it swaps.
        let prefix = format!("{pipeline} ");
        self.loaded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|key, loaded| !key.starts_with(&prefix) || serves.contains(&loaded.version));
        Ok(())
    }

    /// Promotes what waits in shadow, as far as its pipeline wants that done without a command.
    fn promote_waiting(&self) {
        for pipeline in &self.core.catalog.pipelines {
            if pipeline.retrain.promotion != Promotion::Automatic {
                continue;
            }
            let waiting = self.registry.with(|state| state.pipeline(&pipeline.name)?.challenger);
            if let Some(version) = waiting {
                // A refusal (an approval is missing, too short in shadow) is asked again later.
                let _ = self.promote(&pipeline.name, version, Actor::Platform, "its gates passed");
            }
        }
    }

    /// Makes a version the champion, once it is loaded and warmed.
    ///
    /// # Errors
    /// The registry's refusal, or why the version is not ready.
    pub fn promote(
        &self,
        pipeline: &str,
        version: VersionNumber,
        actor: Actor,
        reason: &str,
    ) -> Result<Vec<ModelEvent>, CommandError> {
        let ready = self.load(pipeline, version).map_err(CommandError::Log);
        let evidence = PromotionEvidence { ready: ready.is_ok(), shadow_predictions: 0 };
        let events =
            self.carry_out(pipeline, actor, reason, Action::Promote { version, evidence })?;
        ready.map(|_| events)
    }

    /// Puts an earlier champion back, once it is loaded and warmed.
    ///
    /// # Errors
    /// The registry's refusal, or why the version is not ready.
    pub fn roll_back(
        &self,
        pipeline: &str,
        to: Option<VersionNumber>,
        actor: Actor,
        reason: &str,
        breach: Option<falaj_lifecycle::GuardrailBreach>,
    ) -> Result<Vec<ModelEvent>, CommandError> {
        let target = self
            .registry
            .with(|state| to.or_else(|| state.pipeline(pipeline)?.predecessors.last().copied()));
        let ready = target.map(|version| self.load(pipeline, version)).transpose();
        let evidence =
            PromotionEvidence { ready: ready.is_ok() && target.is_some(), shadow_predictions: 0 };
        let action = Action::Rollback { to, breach, evidence };
        let events = self.carry_out(pipeline, actor, reason, action)?;
        ready.map(|_| events).map_err(CommandError::Log)
    }

    /// Answers a request for predictions.
    ///
    /// # Errors
    /// When the whole request has no answer.
    pub async fn predict(&self, request: PredictRequest) -> Result<PredictResponse, BackendError> {
        let predictor = Arc::clone(self.predictor(&request.model.name)?);
        let store = &self.core.store;
        self.check_caught_up()?;
        crate::backend::lookup::wait(store, request.min_t, request.deadline).await?;
        let (mut response, events) = predictor.predict(store, self.core.log.as_ref(), &request)?;
        if events.names.is_empty() {
            return Ok(response);
        }
        let (reply, logged) = tokio::sync::oneshot::channel();
        let entry = predictor.entry(response.t, events, reply);
        self.log_predictions(entry).await?;
        if predictor.is_durable() {
            let stopping =
                || BackendError::unavailable("the node is stopping; ask again when it is back");
            let limit = Duration::from_micros(predictor.pipeline.serving.timeout_us);
            let late = |_| {
                BackendError::unavailable(format!(
                    "the predictions are not durable after {limit:?} (the pipeline's timeout); they \
                     may still be: look for their ids, or ask again with ids of your own"
                ))
            };
            let outcome = tokio::time::timeout(limit, logged).await.map_err(late)?;
            let outcome = outcome.map_err(|_| stopping())?;
            let t = outcome.map_err(|message| BackendError::Unavailable { message })?;
            response.logged_t = Some(t);
        }
        Ok(response)
    }

    /// A node that was restarted has features of the past until its views have caught up: a score of
    /// those would be a wrong one.
    fn check_caught_up(&self) -> Result<(), BackendError> {
        let Some(wanted) = self.caught_up_at else { return Ok(()) };
        let reached = self.core.store.progress().rows.map(|progress| progress.epoch);
        if reached.is_some_and(|reached| reached >= wanted) {
            return Ok(());
        }
        Err(BackendError::unavailable(format!(
            "the views are catching up with the log after a start (epoch {} of {wanted}); ask again",
            reached.map_or(0, |reached| reached + 1)
        )))
    }

    async fn log_predictions(&self, entry: ledger::Entry) -> Result<(), BackendError> {
        let ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let ledger = ledger.ok_or_else(|| BackendError::unavailable("the node is stopping"))?;
        let Err(entry) = ledger.try_append(entry) else { return Ok(()) };
        tokio::task::spawn_blocking(move || ledger.append(*entry))
            .await
            .map_err(|error| BackendError::internal(error.to_string()))?
            .map_err(|error| BackendError::unavailable(error.to_string()))
    }

    /// The state of all pipelines for people, as JSON.
    pub fn status(&self) -> Json {
        let watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let watch = watch.as_ref().map(|watch| watch.state().status());
        json!({ "pipelines": self.pipelines_status(), "watch": watch })
    }

    fn pipelines_status(&self) -> Json {
        self.registry.with(|state| {
            state
                .pipelines()
                .map(|(name, pipeline)| {
                    let told = json!({
                        "champion": pipeline.champion,
                        "challenger": pipeline.challenger,
                        "in_flight": pipeline.in_flight().map(|(version, stage)| {
                            json!({ "version": version, "stage": stage })
                        }),
                        "versions": pipeline.versions.len(),
                    });
                    (name.to_owned(), told)
                })
                .collect::<serde_json::Map<_, _>>()
                .into()
        })
    }

    /// The newest committed `T`.
    pub fn now(&self) -> LogTime {
        self.registry.now()
    }

    /// Versions at a stage, by pipeline.
    fn at_stage(&self, wanted: &[Stage]) -> Vec<(String, VersionNumber)> {
        self.registry.with(|state| {
            let mut found = Vec::new();
            for (name, pipeline) in state.pipelines() {
                let versions = pipeline.versions.iter();
                found.extend(
                    versions
                        .filter(|(_, version)| wanted.contains(&version.stage))
                        .map(|(number, _)| (name.to_owned(), *number)),
                );
            }
            found
        })
    }
}

/// An artifact as a version of `pipeline`, ready to predict.
///
/// # Errors
/// When it does not predict, or not for this pipeline.
pub fn loaded(
    pipeline: &Pipeline,
    version: VersionNumber,
    artifact: &falaj_model::artifact::Artifact,
) -> Result<Loaded> {
    let digest = from_hex(artifact.id()).and_then(|bytes| bytes.try_into().ok());
    let digest = digest.context("an artifact's id is 64 hexadecimal digits")?;
    let declared = match pipeline.task {
        Task::Multiclass => predictor::classes(pipeline),
        Task::Binary | Task::Regression => Vec::new(),
    };
    Loaded::new(version, digest, artifact.scorer()?, declared)
}
