//! The core of a node: vault, log, schemas, sequencer, view store and pump, opened in the one order that
//! is right, and closed in reverse.
//!
//! Knows no door and no verb. Rules about topics, views or epochs live in the crates below.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, bail};
use falaj_dataflow::EngineError;
use falaj_definitions::catalog::{Catalog, DefinitionKind};
use falaj_definitions::diagnostics::SourceFile;
use falaj_definitions::evolution::compare;
use falaj_definitions::expectations::Checks;
use falaj_definitions::pipelines::{OUTCOMES_SUFFIX, PREDICTIONS_SUFFIX};
use falaj_definitions::plan::ViewPlan;
use falaj_definitions::topics::{parse_topic, rejected_topic};
use falaj_event::hash::domain_hash;
use falaj_event::{Hash256, TopicSchema};
use falaj_log::reader::ReadOptions;
use falaj_log::sequencer::Options as SequencerOptions;
use falaj_log::{ClockMode, Log, Parts, Reader, Schemas, Sequencer, SequencerHandle, SystemClock};
use falaj_vault::Vault;
use falaj_views::{Opened, ViewError, ViewMeta, ViewStore};

use crate::admission::Doorkeeper;
use crate::baseline::{self, Beginning};
use crate::declarations;
use crate::endpoint::DataDirectory;
use crate::inbox::Inboxes;
use crate::place::{self, LogPlace, OpenLog};
use crate::pump::{Pump, PumpOptions, PumpParts, wall_clock_us};

/// How to open a core.
#[derive(Clone, Debug)]
pub struct CoreOptions {
    /// Data directory; made when it is not there.
    pub data: DataDirectory,
    /// Where the log is; `None`: where the data directory says.
    pub log: Option<LogPlace>,
    /// How `T` is chosen.
    pub clock: ClockMode,
    /// How epochs reach the views.
    pub pump: PumpOptions,
    /// The sequencer's limits; its clock and definitions are set here.
    pub sequencer: SequencerOptions,
    /// The program that is started as `PROGRAM trainer --job FOLDER`; `None`: this one.
    pub trainer: Option<PathBuf>,
}

impl CoreOptions {
    /// Defaults on this data directory.
    pub fn new(data: impl AsRef<Path>, clock: ClockMode) -> Self {
        Self {
            data: DataDirectory(data.as_ref().to_owned()),
            log: None,
            clock,
            pump: PumpOptions::default(),
            sequencer: SequencerOptions::default(),
            trainer: None,
        }
    }
}

/// An open core.
pub struct Core {
    /// Its options.
    pub options: CoreOptions,
    /// The definitions in force.
    pub catalog: Arc<Catalog>,
    /// What a row alone decides, by topic.
    pub checks: BTreeMap<String, Checks>,
    /// Keys.
    pub vault: Arc<Vault>,
    /// The log.
    pub log: Arc<dyn Log>,
    /// Reads the log with personal values sealed.
    pub reader: Arc<Reader>,
    /// Every version of every topic's schema.
    pub schemas: Arc<Schemas>,
    /// Appends.
    pub sequencer: SequencerHandle,
    /// Materialised views.
    pub store: Arc<ViewStore>,
    /// Why the state is rebuilt from the log, where it is.
    pub rebuilding: Option<String>,
    pump: Mutex<Option<Pump>>,
    inboxes: Mutex<Option<Inboxes>>,
}

impl Core {
    /// Opens everything in `options.data` under `catalog`.
    ///
    /// # Errors
    /// Says which part does not open and why: damage, another process, incompatible definitions.
    pub fn open(options: CoreOptions, catalog: Arc<Catalog>) -> Result<Self> {
        let data = &options.data;
        std::fs::create_dir_all(&data.0)
            .with_context(|| format!("creating the data directory {}", data.0.display()))?;
        let OpenLog { log, cluster, term } = open_log(&options, &catalog)?;
        let vault = Arc::new(Vault::open(&data.vault()).context("opening the vault")?);
        let schemas = Arc::new(Schemas::new());
        for topic in catalog.topics.iter() {
            schemas.insert(Arc::clone(&topic.schema));
        }
        let reader = Arc::new(Reader::new(
            Arc::clone(&log),
            Arc::clone(&vault),
            schemas.clone(),
            ReadOptions::default(),
        ));
        let definitions_topic = catalog
            .topics
            .get(declarations::TOPIC)
            .map(|topic| Arc::clone(&topic.schema))
            .context("the catalog lacks falaj.definitions")?;
        let declared = declarations::read(&reader, &definitions_topic)?;
        admit_versions(&declared, &catalog, &schemas)?;
        let doorkeeper = Doorkeeper::restore(&catalog, &reader)?;
        let sequencer = start_sequencer(&options, &catalog, (&log, term), &vault, doorkeeper)?;
        let opening = Opening { options: &options, catalog: &catalog, log: &log, reader: &reader };
        let (store, pump, rebuilding) = opening.views()?;
        // Only now: a start that is refused declares nothing.
        declare(&declared, &catalog, &definitions_topic, &log, &sequencer)?;
        let inboxes = cluster.map(|log| Inboxes::start(&log, &catalog, &sequencer)).transpose()?;
        let checks = catalog
            .topics
            .iter()
            .map(|topic| (topic.schema.name.clone(), Checks::new(Arc::clone(topic))));
        let core = Self {
            options,
            checks: checks.collect(),
            catalog,
            vault,
            log,
            reader,
            schemas,
            sequencer,
            store,
            rebuilding,
            pump: Mutex::new(Some(pump)),
            inboxes: Mutex::new(inboxes),
        };
        Ok(core)
    }

    /// Runs `body` with the pump, if it runs.
    pub fn with_pump<R>(&self, body: impl FnOnce(Option<&Pump>) -> R) -> R {
        body(self.pump.lock().unwrap_or_else(PoisonError::into_inner).as_ref())
    }

    /// Runs `body` while nothing is written to the views. Appends go on; the views catch up after.
    ///
    /// # Errors
    /// Of `body`, or when the pump had failed or does not start again.
    pub fn with_views_at_rest<R>(&self, body: impl FnOnce() -> Result<R>) -> Result<R> {
        let mut guard = self.pump.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pump) = guard.take() {
            pump.stop().context("the views had stopped")?;
        }
        let outcome = body();
        *guard = Some(self.new_pump(self.options.pump.clone(), &self.store)?);
        outcome
    }

    /// A pump from this log into `store`.
    ///
    /// # Errors
    /// When the engine does not start.
    pub fn new_pump(&self, options: PumpOptions, store: &Arc<ViewStore>) -> Result<Pump> {
        let parts = PumpParts {
            log: Arc::clone(&self.log),
            reader: Arc::clone(&self.reader),
            store: Arc::clone(store),
            plans: self.catalog.views.clone(),
        };
        Pump::start(parts, options)
    }

    /// Appends what is queued, lets the views catch up with the log, and stops.
    ///
    /// # Errors
    /// When a part had failed.
    pub fn close(self) -> Result<()> {
        drop(self.inboxes.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.sequencer.shutdown()?;
        let tail = self.log.tail().map(|tail| tail.record.t);
        if let Some(t) = tail.filter(|_| self.with_pump(|pump| pump.is_some())) {
            let deadline = std::time::Instant::now() + CLOSE_WAIT;
            while self.store.progress().rows.is_none_or(|progress| progress.t < t)
                && self.with_pump(|pump| pump.is_some_and(|pump| pump.state().failure().is_none()))
                && std::time::Instant::now() < deadline
            {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
        let pump = self.pump.lock().unwrap_or_else(PoisonError::into_inner).take();
        let stopped = pump.map_or(Ok(()), Pump::stop);
        self.store.flush()?;
        stopped
    }
}

/// How long closing waits for the views; they catch up at the next start otherwise.
const CLOSE_WAIT: std::time::Duration = std::time::Duration::from_secs(20);

/// Opens the log where the options, or the data directory, say it is.
fn open_log(options: &CoreOptions, catalog: &Catalog) -> Result<OpenLog> {
    let data = &options.data;
    let place = place::resolve(data, options.log.as_ref())?;
    let open = place::open(data, &place, catalog)?;
    if place != LogPlace::Embedded {
        place::store(data, &place)?;
    }
    Ok(open)
}

/// Checks each declared topic against what the log holds, and makes its older versions readable.
fn admit_versions(
    declared: &declarations::Declared,
    catalog: &Catalog,
    schemas: &Schemas,
) -> Result<()> {
    let mut refusals = Vec::new();
    let topics = declared.history.iter().filter(|old| old.kind == DefinitionKind::Topic);
    for old in topics {
        let Some(new) = catalog.topics.get(&old.name) else { continue };
        let before = if is_of_pipeline(&old.name) {
            Arc::new(serde_json::from_str::<TopicSchema>(&old.text).with_context(|| {
                format!("a stored definition of `{}` is not readable", old.name)
            })?)
        } else if new.schema.derived {
            continue;
        } else {
            let file = SourceFile::new(format!("{} in the log", old.name), &*old.text);
            let before = parse_topic(&file).map_err(|found| {
                anyhow!("a stored definition of `{}` is not readable: {found}", old.name)
            })?;
            if before.schema.version < new.schema.version
                && let Ok(Some(rejected)) = rejected_topic(&before)
            {
                schemas.insert(rejected.schema);
            }
            before.schema
        };
        if before.version < new.schema.version {
            schemas.insert(Arc::clone(&before));
        }
        let is_newest = declared.current.get(&(old.kind, old.name.clone())) == Some(old);
        if let Err(refusal) = compare(&before, &new.schema)
            && is_newest
        {
            refusals.push(format!("topic `{}` ({}): {refusal}", old.name, new.file.display()));
        }
    }
    match refusals.is_empty() {
        true => Ok(()),
        false => bail!(
            "the log holds events that the definitions no longer fit:\n  {}",
            refusals.join("\n  ")
        ),
    }
}

/// Whether a topic follows from a model pipeline; its stored definition is its schema.
fn is_of_pipeline(name: &str) -> bool {
    name.ends_with(PREDICTIONS_SUFFIX) || name.ends_with(OUTCOMES_SUFFIX)
}

fn start_sequencer(
    options: &CoreOptions,
    catalog: &Catalog,
    (log, term): (&Arc<dyn Log>, Option<u64>),
    vault: &Arc<Vault>,
    doorkeeper: Doorkeeper,
) -> Result<SequencerHandle> {
    let in_force = log.tail().map(|tail| tail.record.definitions);
    let sequencer = SequencerOptions {
        clock: options.clock,
        definitions: in_force.unwrap_or(catalog.hash),
        term,
        ..options.sequencer.clone()
    };
    let parts = Parts {
        log: Arc::clone(log),
        vault: Arc::clone(vault),
        admission: Box::new(doorkeeper),
        clock: Arc::new(SystemClock),
        random: Arc::clone(vault.random()),
    };
    Ok(Sequencer::spawn(sequencer, parts)?)
}

/// Appends what the log does not declare yet and puts the catalog's hash into force.
fn declare(
    declared: &declarations::Declared,
    catalog: &Catalog,
    topic: &Arc<TopicSchema>,
    log: &Arc<dyn Log>,
    sequencer: &SequencerHandle,
) -> Result<()> {
    let changes = declarations::decide(&declared.current, &declarations::of_catalog(catalog));
    if changes.is_empty() {
        return Ok(());
    }
    let cause = log.tail().map(|tail| tail.record.t).unwrap_or_default();
    let mut submission =
        declarations::submission(&changes, topic, catalog.hash, cause, wall_clock_us())?;
    let (send, receive) = std::sync::mpsc::channel();
    submission.reply = Box::new(move |outcome| {
        // The receiver is gone only when opening has failed already.
        let _ = send.send(outcome);
    });
    sequencer.rotate_definitions(catalog.hash, vec![submission]);
    receive.recv().context("the sequencer is gone")??;
    Ok(())
}

/// The hash of everything that decides what the state contains; its version counts the rules of where
/// checkpoints fall.
pub fn plan_set_hash(views: &[Arc<ViewPlan>]) -> Hash256 {
    let hashes: Vec<&[u8]> = views.iter().map(|view| view.hash.0.as_slice()).collect();
    domain_hash(b"falaj.plan-set.v2", &hashes)
}

/// What the view store must know of the views.
pub fn view_metas(views: &[Arc<ViewPlan>]) -> Vec<ViewMeta> {
    views
        .iter()
        .map(|view| ViewMeta { id: view.id, name: view.name.clone(), retain_us: view.retain_us })
        .collect()
}

/// What views are opened from.
struct Opening<'a> {
    options: &'a CoreOptions,
    catalog: &'a Catalog,
    log: &'a Arc<dyn Log>,
    reader: &'a Arc<Reader>,
}

impl Opening<'_> {
    /// Opens the view store and starts the pump. State that the engine cannot go on from is removed
    /// and made again from the log, or from a baseline where the log is cut; the reason is given where
    /// that happens.
    fn views(&self) -> Result<(Arc<ViewStore>, Pump, Option<String>)> {
        let state = self.options.data.state();
        let (store, reason) =
            self.store().with_context(|| format!("opening the state in {}", state.display()))?;
        let store = Arc::new(store);
        let error = match self.pump(&store) {
            Ok(pump) => return Ok((store, pump, reason)),
            Err(error) => error,
        };
        if !matches!(error.downcast_ref::<EngineError>(), Some(EngineError::State { .. })) {
            return Err(error);
        }
        drop(store);
        let reason = format!("{error:#}");
        let (store, from) = self.again(&reason)?;
        let store = Arc::new(store);
        let pump = self.pump(&store)?;
        Ok((store, pump, Some(format!("{reason}{from}"))))
    }

    fn pump(&self, store: &Arc<ViewStore>) -> Result<Pump> {
        let parts = PumpParts {
            log: Arc::clone(self.log),
            reader: Arc::clone(self.reader),
            store: Arc::clone(store),
            plans: self.catalog.views.clone(),
        };
        Pump::start(parts, self.options.pump.clone())
    }

    fn open(&self) -> Result<Opened> {
        Ok(ViewStore::open(
            &self.options.data.state(),
            &falaj_views::Options::default(),
            &view_metas(&self.catalog.views),
            plan_set_hash(&self.catalog.views),
        )?)
    }

    /// The state as it is, or made again where it cannot be used.
    fn store(&self) -> Result<(ViewStore, Option<String>)> {
        let whole_from = baseline::whole_from(self.log.as_ref(), &self.catalog.views);
        let reason = match self.open() {
            Err(error) if is_damage(&error) => format!("{error:#}"),
            Err(error) => return Err(error),
            Ok(Opened::Ready(store))
                if baseline::reads_from(store.progress().operator) >= whole_from
                    || self.options.pump.skip_cut =>
            {
                return Ok((*store, None));
            }
            Ok(Opened::Ready(_)) => "it is older than what was cut from the log".to_owned(),
            Ok(Opened::Rebuild(reason)) => reason.to_string(),
        };
        let (store, from) = self.again(&reason)?;
        Ok((store, Some(format!("{reason}{from}"))))
    }

    /// State that the log brings back: empty, or a baseline where the log is cut. What is there is
    /// removed once its replacement is known. Says what it begins with.
    fn again(&self, reason: &str) -> Result<(ViewStore, String)> {
        let data = &self.options.data;
        let whole_from = baseline::whole_from(self.log.as_ref(), &self.catalog.views);
        let mut from = String::new();
        if whole_from > 0 {
            let beside = data.0.join("state.restored");
            let baselines = baseline::logged(self.reader, self.catalog)?;
            let plans = &self.catalog.views;
            let beginning = Beginning { data, baselines: &baselines, plans, whole_from };
            match beginning.begin(&beside) {
                Ok((store, baseline)) => {
                    drop(store);
                    ViewStore::destroy(&data.state())?;
                    std::fs::rename(&beside, data.state())
                        .context("putting a baseline in place")?;
                    from = format!(", from the baseline of epoch {} on", baseline.epoch);
                }
                Err(_) if self.options.pump.skip_cut => {
                    ViewStore::destroy(&data.state())?;
                    from = format!(", without the events that were cut below epoch {whole_from}");
                }
                Err(error) => {
                    return Err(error.context(format!(
                        "the state must be made again ({reason}), and cannot be: put back the \
                         definitions that it was made with, or start once with `falaj up --accept-cut` \
                         to compute the views from the events that are kept"
                    )));
                }
            }
        } else {
            ViewStore::destroy(&data.state())?;
        }
        match self.open()? {
            Opened::Ready(store) => Ok((*store, from)),
            Opened::Rebuild(again) => bail!("the state was removed and yet {again}"),
        }
    }
}

fn is_damage(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<ViewError>(), Some(ViewError::Damaged { .. }))
}
