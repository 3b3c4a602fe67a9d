//! Baselines: copies of the state that rebuilds and replays begin with once the log below is cut.
//!
//! A baseline is a folder `baselines/EPOCH` in the data directory and an event on `falaj.baselines`
//! that commits to it. Taking one, finding those that the log names, and beginning with one, its
//! digest checked, is all that is known here; when to take one and what to cut stands in
//! [`crate::compact`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use falaj_definitions::catalog::Catalog;
use falaj_definitions::plan::ViewPlan;
use falaj_event::{EventId, Op, TopicSchema};
use falaj_log::baseline::{BASELINES_TOPIC, Baseline, LoggedBaseline, SnapshotRoot, snapshot_name};
use falaj_log::{Log, Ops, Origin, Reader, Submission};
use falaj_views::{Opened, Progress, ViewStore};

use crate::core::{Core, plan_set_hash, view_metas};
use crate::endpoint::DataDirectory;
use crate::pump::{source_topics, wall_clock_us};

/// The first epoch that a store which has come this far still reads.
pub fn reads_from(operator: Option<Progress>) -> u64 {
    operator.map_or(0, |operator| operator.epoch + 1)
}

/// The first epoch from which on the log holds everything that these views read; below it events
/// of one of their topics are cut.
pub fn whole_from(log: &dyn Log, plans: &[Arc<ViewPlan>]) -> u64 {
    source_topics(plans).into_iter().map(|topic| log.first_kept(topic)).max().unwrap_or(0)
}

fn schema_of(catalog: &Catalog) -> Result<&Arc<TopicSchema>> {
    let topic = catalog.topics.get(BASELINES_TOPIC);
    topic.map(|topic| &topic.schema).context("the catalog lacks falaj.baselines")
}

/// The baselines that the log names, oldest first.
///
/// # Errors
/// When the log cannot be read, or an event is not what this program writes.
pub fn logged(reader: &Reader, catalog: &Catalog) -> Result<Vec<LoggedBaseline>> {
    let schema = schema_of(catalog)?;
    let mut found = Vec::new();
    for partition in 0..schema.partitions {
        for (record, events) in reader.range(schema.id(), partition, 0, usize::MAX)? {
            for row in 0..events.len() {
                let baseline = Baseline::from_batch(&events.batch, row)?;
                found.push(LoggedBaseline { baseline, logged_in: record.epoch });
            }
        }
    }
    found.sort_by_key(|logged| (logged.baseline.epoch, logged.logged_in));
    Ok(found)
}

/// A baseline that was just taken, and the first epoch that going on from it reads.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The baseline and the epoch that logs it.
    pub logged: LoggedBaseline,
    /// The first epoch that must be kept for it.
    pub reads_from: u64,
}

/// Takes a baseline of the state as it is, and logs it. Lookups go on meanwhile; the views are not
/// brought up to date while the copy is made and hashed.
///
/// # Errors
/// When there is no state to go on from yet, or something cannot be written.
pub fn take(core: &Core) -> Result<Taken> {
    let known = logged(&core.reader, &core.catalog)?;
    let (baseline, reads_from) = core.with_views_at_rest(|| snapshot(core, &known))?;
    let already = known.into_iter().find(|logged| logged.baseline == baseline);
    let logged = match already {
        Some(logged) => logged,
        None => LoggedBaseline { logged_in: record(core, &baseline)?, baseline },
    };
    Ok(Taken { logged, reads_from })
}

fn snapshot(core: &Core, known: &[LoggedBaseline]) -> Result<(Baseline, u64)> {
    let progress = core.store.progress();
    let rows = progress.rows.context("nothing has been computed yet: there is no state to keep")?;
    let reads_from = reads_from(progress.operator);
    let location = format!("baselines/{}", rows.epoch);
    let folder = core.options.data.0.join(&location);
    let same = known.iter().find(|logged| logged.baseline.location == location);
    if let Some(same) = same.filter(|_| folder.is_dir()) {
        return Ok((same.baseline.clone(), reads_from));
    }
    let partial = core.options.data.0.join(format!("{location}.partial"));
    // What a crash left.
    for left in [&partial, &folder] {
        ViewStore::destroy(left)?;
    }
    std::fs::create_dir_all(core.options.data.baselines()).context("making the baselines")?;
    core.store.copy_to(&partial)?;
    let mut root = SnapshotRoot::default();
    core.store.for_each_entry(&mut |row| root.push(row))?;
    let state_digest = core.store.digest(&mut |_| {})?.digest;
    let baseline = Baseline {
        name: snapshot_name(rows.epoch, &state_digest, &root.root()),
        epoch: rows.epoch,
        t: rows.t,
        rows: root.rows(),
        bytes: root.bytes(),
        root: root.root(),
        state_digest,
        location,
        definitions: core.catalog.hash,
        wall_clock_us: wall_clock_us(),
    };
    std::fs::rename(&partial, &folder).context("naming the baseline")?;
    let parent = std::fs::File::open(core.options.data.baselines());
    parent.and_then(|parent| parent.sync_all()).context("making the baseline durable")?;
    Ok((baseline, reads_from))
}

/// Appends the baseline's event; returns its epoch.
fn record(core: &Core, baseline: &Baseline) -> Result<u64> {
    let schema = schema_of(&core.catalog)?;
    let EventId::Derived(id) = baseline.event_id() else { bail!("a baseline's event is derived") };
    let (send, receive) = std::sync::mpsc::channel();
    core.sequencer.submit(Submission {
        schema: Arc::clone(schema),
        origin: Origin::Derived(vec![id]),
        ops: Ops::All(Op::Insert),
        batch: baseline.to_batch(schema)?,
        positions: None,
        rejected: None,
        reply: Box::new(move |outcome| {
            // The receiver waits below.
            let _ = send.send(outcome);
        }),
    });
    Ok(receive.recv().context("the sequencer is gone")??.epoch)
}

/// Removes the folders of all baselines but this one.
///
/// # Errors
/// A failed file operation.
pub fn keep_only(data: &DataDirectory, baseline: &Baseline) -> Result<()> {
    let kept = data.0.join(&baseline.location);
    for folder in std::fs::read_dir(data.baselines()).context("listing the baselines")? {
        let folder = folder.context("listing the baselines")?.path();
        if folder != kept {
            ViewStore::destroy(&folder)?;
        }
    }
    Ok(())
}

/// Which state to begin with, and where.
#[derive(Clone, Debug)]
pub struct Beginning<'a> {
    /// Where baselines lie.
    pub data: &'a DataDirectory,
    /// Those that the log names.
    pub baselines: &'a [LoggedBaseline],
    /// The views to go on with.
    pub plans: &'a [Arc<ViewPlan>],
    /// The first epoch from which on the log is whole for them.
    pub whole_from: u64,
}

impl Beginning<'_> {
    /// Makes the newest usable baseline a store in the directory `to`, opens it and checks its digest.
    /// Whatever is in `to` is removed first.
    ///
    /// # Errors
    /// When there is none, with what is wrong with each; a failed file operation.
    pub fn begin(&self, to: &Path) -> Result<(ViewStore, Baseline)> {
        let mut reasons = Vec::new();
        for logged in self.baselines.iter().rev() {
            let baseline = &logged.baseline;
            ViewStore::destroy(to)?;
            match self.open(baseline, to)? {
                Ok(store) => return Ok((store, baseline.clone())),
                Err(why) => reasons.push(format!("baseline {}: {why}", baseline.location)),
            }
        }
        ViewStore::destroy(to)?;
        if reasons.is_empty() {
            reasons.push("the log names none".to_owned());
        }
        bail!(
            "events below epoch {} were cut from the log and no baseline stands in for them: {}",
            self.whole_from,
            reasons.join("; ")
        )
    }

    fn open(&self, baseline: &Baseline, to: &Path) -> Result<Result<ViewStore, String>> {
        let folder: PathBuf = self.data.0.join(&baseline.location);
        if !folder.is_dir() {
            return Ok(Err("its folder is gone".to_owned()));
        }
        ViewStore::begin_from(&folder, to)?;
        let opened = ViewStore::open(
            to,
            &falaj_views::Options::default(),
            &view_metas(self.plans),
            plan_set_hash(self.plans),
        );
        let store = match opened {
            Ok(Opened::Ready(store)) => *store,
            Ok(Opened::Rebuild(reason)) => return Ok(Err(reason.to_string())),
            Err(error) => return Ok(Err(error.to_string())),
        };
        if reads_from(store.progress().operator) < self.whole_from {
            return Ok(Err("it is older than the cut".to_owned()));
        }
        match store.digest(&mut |_| {}) {
            Ok(found) if found.digest == baseline.state_digest => Ok(Ok(store)),
            Ok(found) => Ok(Err(format!(
                "its digest is {}, but the log commits to {}",
                found.digest, baseline.state_digest
            ))),
            Err(error) => Ok(Err(error.to_string())),
        }
    }
}
