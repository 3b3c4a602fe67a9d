//! Training runs at work: a process each, its reports on `falaj.runs`, its model through the gates.
//!
//! What starts next is the lifecycle's decision; here processes are started, listened to and ended. A
//! run that was interrupted, with its node or alone, goes on from its last checkpoint; one that fails
//! leaves a failed version and no model. Does not know how a model is trained.

mod process;

use std::collections::BTreeMap;
use std::process::Child;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use arrow::array::{Array, ArrayRef, BooleanArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use falaj_definitions::pipelines::{Pipeline, Task};
use falaj_event::LogTime;
use falaj_event::cells::Cells;
use falaj_lifecycle::queue::{QueuedRun, RunNeeds, RunningRun, Slots, next_runs};
use falaj_lifecycle::registry::{RequestCause, TrainedModel};
use falaj_lifecycle::{Action, Actor, Stage, VersionNumber, WindowRef};
use falaj_model::artifact::Artifact;
use falaj_model::artifact::manifest::{Provenance, ViewReference};
use falaj_model::train::events::RowCounts;

use super::evaluate::{TestRows, evidence};
use super::job::{Folder, Job, replace};
use super::outcomes::{class_text, is_positive};
use super::predictor::classes;
use super::registry::CommandError;
use super::serving::Loaded;
use super::{ModelLoop, loaded, onnx, reference, rules};
use process::train;

/// Runs at work at once on the CPU.
const CPU_SLOTS: u32 = 1;
/// A waiting run gains one step of priority per this much of `T`.
const AGEING_US: u64 = 600_000_000;
/// How often the runs are looked at where nothing wakes them.
const TICK: Duration = Duration::from_millis(500);

/// The runs of one node.
#[derive(Default)]
pub struct Runs {
    state: Mutex<State>,
    signal: Condvar,
}

#[derive(Default)]
struct State {
    stopping: bool,
    woken: bool,
    /// By run.
    at_work: BTreeMap<String, AtWork>,
    threads: Vec<JoinHandle<()>>,
}

struct AtWork {
    pipeline: String,
    child: Option<Child>,
    cancelled_by: Option<Actor>,
}

impl Runs {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the runs looked at now.
    pub fn wake(&self) {
        self.lock().woken = true;
        self.signal.notify_all();
    }

    /// Ends all processes; their runs go on at the next start.
    pub fn stop(&self) {
        let threads = {
            let mut state = self.lock();
            state.stopping = true;
            for run in state.at_work.values_mut() {
                end(&mut run.child);
            }
            std::mem::take(&mut state.threads)
        };
        self.signal.notify_all();
        for thread in threads {
            // What it had to say is in the registry.
            let _ = thread.join();
        }
    }

    /// Ends the run of a pipeline; its version fails. Says whether there was one at work.
    pub fn cancel(&self, pipeline: &str, actor: Actor) -> bool {
        let mut state = self.lock();
        let found = state.at_work.values_mut().find(|run| run.pipeline == pipeline);
        let Some(run) = found else { return false };
        run.cancelled_by = Some(actor);
        end(&mut run.child);
        true
    }
}

fn end(child: &mut Option<Child>) {
    if let Some(child) = child {
        // A process that is gone needs no end.
        let _ = child.kill();
    }
}

/// Starts the thread that looks after the runs.
///
/// # Errors
/// When a thread cannot be started.
pub(super) fn start(all: &Arc<ModelLoop>) -> Result<JoinHandle<()>> {
    let weak = Arc::downgrade(all);
    std::thread::Builder::new()
        .name("falaj-runs".to_owned())
        .spawn(move || look_after(&weak))
        .context("starting the thread of runs")
}

fn look_after(all: &Weak<ModelLoop>) {
    while let Some(all) = all.upgrade() {
        if all.is_stopping() {
            return;
        }
        // A failure of the log is in the sequencer's status.
        let _ = all.write_figures();
        all.promote_waiting();
        for (pipeline, version) in all.at_stage(&[Stage::Validated]) {
            let action = Action::Shadow { version };
            // Refused only where somebody was faster.
            let _ = all.carry_out(&pipeline, Actor::Platform, "its gates passed", action);
        }
        start_next(&all);
        let state = all.runs.lock();
        let waited = all.runs.signal.wait_timeout_while(state, TICK, |state| !state.woken);
        if let Ok((mut state, _)) = waited {
            state.woken = false;
        }
    }
}

/// What waits: requested, interrupted, or trained and not judged.
fn waiting(all: &ModelLoop) -> Vec<(QueuedRun, VersionNumber)> {
    let stages = [Stage::Requested, Stage::Training, Stage::Trained];
    let mut queue = Vec::new();
    for (pipeline, version) in all.at_stage(&stages) {
        let Some(declared) = all.core.catalog.pipeline(&pipeline) else { continue };
        let found = all.registry(|state| {
            let found = state.pipeline(&pipeline)?.versions.get(&version)?;
            Some((found.run.clone(), found.stages.first().map(|change| change.at)?))
        });
        let Some((run, queued_at)) = found else { continue };
        if all.runs.lock().at_work.contains_key(&run) {
            continue;
        }
        let priority = i32::try_from(declared.trainer.priority).unwrap_or(i32::MAX);
        let needs = RunNeeds::default();
        queue.push((QueuedRun { run, pipeline, priority, queued_at, needs }, version));
    }
    queue
}

fn start_next(all: &Arc<ModelLoop>) {
    let queue = waiting(all);
    let queued: Vec<QueuedRun> = queue.iter().map(|(run, _)| run.clone()).collect();
    let running: Vec<RunningRun> = {
        let state = all.runs.lock();
        let at_work = state.at_work.values();
        at_work.map(|run| RunningRun { pipeline: run.pipeline.clone(), gpu: false }).collect()
    };
    let slots = Slots { cpu: CPU_SLOTS, ageing_us: AGEING_US, ..Slots::default() };
    for start in next_runs(&queued, &running, slots, all.now()) {
        let Some((run, version)) = queue.iter().find(|(run, _)| run.run == start.run) else {
            continue;
        };
        spawn(all, run.clone(), *version);
    }
}

fn spawn(all: &Arc<ModelLoop>, run: QueuedRun, version: VersionNumber) {
    let mut state = all.runs.lock();
    if state.stopping {
        return;
    }
    let at_work = AtWork { pipeline: run.pipeline.clone(), child: None, cancelled_by: None };
    state.at_work.insert(run.run.clone(), at_work);
    let own = Arc::clone(all);
    let name = run.run.clone();
    let thread = std::thread::Builder::new().name("falaj-run".to_owned()).spawn(move || {
        let outcome = carry_through(&own, &run, version);
        let ended = own.runs.lock().at_work.remove(&run.run);
        let by = ended.and_then(|run| run.cancelled_by);
        if let (Err(error), false) = (outcome, own.is_stopping()) {
            let (actor, told) = match by {
                Some(actor) => (actor, "cancelled".to_owned()),
                None => (Actor::Platform, format!("{error:#}")),
            };
            let action = Action::Fail { version, error: told };
            // Refused only where the version has gone further than its run, which then stands.
            let _ = own.carry_out(&run.pipeline, actor, "its run ended", action);
        }
        own.runs.wake();
    });
    match thread {
        Ok(thread) => {
            state.threads.retain(|thread| !thread.is_finished());
            state.threads.push(thread);
        }
        Err(_) => {
            // Tried again at the next look.
            state.at_work.remove(&name);
        }
    }
}

/// A run from where it stands to its verdict.
fn carry_through(all: &Arc<ModelLoop>, run: &QueuedRun, version: VersionNumber) -> Result<()> {
    let pipeline = all.core.catalog.pipeline(&run.pipeline).context("the pipeline is gone")?;
    let folder = Folder(all.core.options.data.runs().join(&run.run));
    let stage =
        all.registry(|state| Some(state.pipeline(&run.pipeline)?.versions.get(&version)?.stage));
    let candidate = if stage == Some(Stage::Trained) {
        Candidate::kept(all, pipeline, version, &folder)?
    } else {
        if !folder.job().exists() {
            prepare(all, pipeline, run, version, &folder)?;
        }
        // A registered file, or the artifact of a run that was interrupted behind its end.
        let is_made = folder.artifact().exists();
        let hardware = match is_made {
            true => "none: its artifact is there".to_owned(),
            false => format!("{} CPU threads", threads()),
        };
        let action = Action::StartTraining { version, hardware };
        all.carry_out(&run.pipeline, Actor::Platform, "its turn came", action)?;
        if !is_made {
            train(all, run, version, &folder)?;
        }
        finish(all, pipeline, version, &folder)?
    };
    judge(all, pipeline, &candidate)?;
    // The folder's rows are personal data; nothing needs them any more.
    std::fs::remove_dir_all(&folder.0).with_context(|| format!("removing {}", folder.0.display()))
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn prepare(
    all: &ModelLoop,
    pipeline: &Pipeline,
    run: &QueuedRun,
    version: VersionNumber,
    folder: &Folder,
) -> Result<()> {
    let (rows, epochs) = crate::training::rows(&all.core, pipeline)
        .with_context(|| format!("making the training set of {}", pipeline.name))?;
    let views = pipeline.features.iter().map(|set| ViewReference {
        name: set.view.clone(),
        definition: falaj_event::ids::hex(&set.view_hash.0),
    });
    let job = Job {
        run: run.run.clone(),
        pipeline: pipeline.name.clone(),
        version,
        spec: rules::job_spec(pipeline),
        provenance: Provenance {
            run: run.run.clone(),
            epochs,
            mode: pipeline.training.mode.as_str().to_owned(),
            views: views.collect(),
            pipeline: falaj_event::ids::hex(&pipeline.hash.0),
            git_commit: option_env!("FALAJ_GIT_COMMIT").unwrap_or_default().to_owned(),
            code_version: env!("CARGO_PKG_VERSION").to_owned(),
        },
    };
    folder.write(&job, &labelled(pipeline, rows)?)
}

/// The rows with the truth as trainers take it, in the column [`rules::LABEL`].
fn labelled(pipeline: &Pipeline, rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    rows.into_iter()
        .map(|batch| {
            let column = batch
                .column_by_name(&pipeline.label.column)
                .with_context(|| format!("the rows have no `{}`", pipeline.label.column))?;
            let cells = Cells::new(column.as_ref())?;
            let values = (0..batch.num_rows()).map(|row| cells.value(row));
            let labels: ArrayRef = match pipeline.task {
                Task::Binary => Arc::new(
                    values
                        .map(|value| (!value.is_null()).then(|| is_positive(pipeline, &value)))
                        .collect::<BooleanArray>(),
                ),
                Task::Multiclass => {
                    // A class that is not declared is no truth that can be learned.
                    let declared = classes(pipeline);
                    let class = |value| class_text(pipeline, &value);
                    let known = values.map(|value| class(value).filter(|c| declared.contains(c)));
                    Arc::new(known.collect::<StringArray>())
                }
                Task::Regression => cast(column, &DataType::Float64)?,
            };
            let mut fields = batch.schema().fields().to_vec();
            fields.push(Arc::new(Field::new(rules::LABEL, labels.data_type().clone(), true)));
            let mut columns = batch.columns().to_vec();
            columns.push(labels);
            Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
        })
        .collect()
}

/// A trained version with the rows of its training set: read once, for reference and gates alike.
struct Candidate {
    loaded: Loaded,
    rows: Vec<RecordBatch>,
    /// How the labelled rows are divided: the last ones are held out for the gates.
    counts: RowCounts,
}

impl Candidate {
    fn new(
        pipeline: &Pipeline,
        version: VersionNumber,
        artifact: &Artifact,
        folder: &Folder,
    ) -> Result<Self> {
        let rows = folder.read_rows()?;
        let told = artifact.manifest().report.rows;
        let counts = match told.train {
            // A model of another tool: what it was trained on is not known, the rows held out are.
            0 => onnx::counts(pipeline, &rows)?,
            _ => told,
        };
        Ok(Self { loaded: loaded(pipeline, version, artifact)?, rows, counts })
    }

    /// How many rows are held out for the gates.
    fn held_out(&self) -> usize {
        if self.counts.test > 0 { self.counts.test } else { self.counts.validation }
    }

    /// The candidate of a run that was interrupted between its end and its verdict.
    fn kept(
        all: &ModelLoop,
        pipeline: &Pipeline,
        version: VersionNumber,
        folder: &Folder,
    ) -> Result<Self> {
        let id = all.registry(|state| {
            let found = state.pipeline(&pipeline.name)?.versions.get(&version)?;
            Some(found.model.as_ref()?.artifact_sha256.clone())
        });
        let artifact = all.artifacts.get(&id.context("the version has no model")?)?;
        Self::new(pipeline, version, &artifact, folder)
    }
}

/// Takes the artifact in and tells the registry.
fn finish(
    all: &ModelLoop,
    pipeline: &Pipeline,
    version: VersionNumber,
    folder: &Folder,
) -> Result<Candidate> {
    let path = folder.artifact();
    let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let artifact = Artifact::from_bytes(&bytes, None)?;
    let manifest = artifact.manifest();
    let epochs = manifest.provenance.epochs.map(|(from, to)| (LogTime(from), LogTime(to)));
    let lineage = BTreeMap::from([
        ("pipeline".to_owned(), manifest.provenance.pipeline.clone()),
        ("code".to_owned(), manifest.provenance.code_version.clone()),
        ("commit".to_owned(), manifest.provenance.git_commit.clone()),
        ("mode".to_owned(), manifest.provenance.mode.clone()),
        ("seed".to_owned(), manifest.job.seed.to_string()),
    ]);
    let model = TrainedModel {
        artifact_sha256: artifact.id().to_owned(),
        trained_on: epochs,
        metrics: manifest.report.test.0.clone(),
        lineage,
    };
    let candidate = Candidate::new(pipeline, version, &artifact, folder)?;
    let Candidate { loaded, rows, counts } = &candidate;
    let reference = reference::make(pipeline, *counts, loaded, rows)?;
    let id = all.artifacts.put(artifact)?;
    replace(&reference::path(&all.core.options.data.models(), &id), &reference.to_bytes())?;
    let action = Action::FinishTraining { version, model };
    all.carry_out(&pipeline.name, Actor::Platform, "its run ended with a model", action)?;
    Ok(candidate)
}

/// Measures a trained version and enters the verdict of the gates.
fn judge(all: &ModelLoop, pipeline: &Pipeline, candidate: &Candidate) -> Result<()> {
    let (gates, champion) = all
        .registry(|state| {
            let state = state.pipeline(&pipeline.name)?;
            Some((state.rules.gates.clone(), state.champion))
        })
        .context("the registry does not know the pipeline")?;
    let test = TestRows::new(&candidate.rows, candidate.held_out())?;
    let champion = champion.map(|number| all.load(&pipeline.name, number)).transpose()?;
    let own = &candidate.loaded;
    let evidence = evidence(pipeline, &all.core.catalog, own, champion.as_deref(), &test)?;
    let version = own.version;
    let report = gates.evaluate(&evidence);
    let actor = Actor::Rule("gates".to_owned());
    let action = Action::Evaluate { version, report };
    all.carry_out(&pipeline.name, actor, "", action)?;
    Ok(())
}

impl ModelLoop {
    /// Asks for a training run (called `run`, or by version and time); gives its name and the version
    /// that it will make.
    ///
    /// # Errors
    /// The registry's refusal: a run is in flight already, …
    pub fn request(
        &self,
        pipeline: &str,
        actor: Actor,
        trigger: &str,
        windows: Vec<WindowRef>,
        reason: &str,
        run: Option<String>,
    ) -> Result<(String, VersionNumber), CommandError> {
        let next =
            self.registry(|state| state.pipeline(pipeline).map_or(1, |state| state.next_version()));
        let run = run.unwrap_or_else(|| format!("{pipeline}-{next}-{}", self.now().0));
        let cause = RequestCause { trigger: trigger.to_owned(), windows };
        let action = Action::Request { run: run.clone(), cause };
        let events = self.carry_out(pipeline, actor, reason, action)?;
        let version = events.first().and_then(|event| event.version).unwrap_or(next);
        Ok((run, version))
    }

    /// Ends the run of a pipeline, and gives up its version.
    ///
    /// # Errors
    /// When there is none in flight.
    pub fn cancel(&self, pipeline: &str, actor: Actor) -> Result<(), CommandError> {
        if self.runs.cancel(pipeline, actor.clone()) {
            return Ok(());
        }
        let waiting = self.registry(|state| state.pipeline(pipeline)?.in_flight());
        let Some((version, _)) = waiting else {
            return Err(CommandError::Log(anyhow::anyhow!("{pipeline} has no run in flight")));
        };
        let action = Action::Fail { version, error: "cancelled".to_owned() };
        self.carry_out(pipeline, actor, "cancelled before its turn came", action)?;
        Ok(())
    }
}
