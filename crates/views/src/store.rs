//! The store itself: opening and identity, progress and waiting for it, flushing, operator state.
//!
//! Does not know how epochs are written (see `write`) nor how rows are read (see [`crate::read`]).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use falaj_event::{Hash256, LogTime, ViewId};
use rocksdb::{
    ColumnFamily, DB, FlushOptions, IteratorMode, ReadOptions, WriteBatch, WriteOptions,
};

use crate::error::{ViewError, storage};
use crate::format::{self, Family};
use crate::options::{self, Options};
use crate::read::Snapshot;
use crate::row_cache::RowCache;
use crate::write::Writer;

/// What the store must know of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewMeta {
    /// The id in stored bytes.
    pub id: ViewId,
    /// The name, for messages.
    pub name: String,
    /// For how long back from the newest `T` the view can be read. Microseconds.
    pub retain_us: u64,
}

/// An epoch and its `T`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Progress {
    /// The epoch's number.
    pub epoch: u64,
    /// The epoch's `T`.
    pub t: LogTime,
}

/// How far the store is. After a crash both may be older than before, and `operator <= rows`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreProgress {
    /// Rows are complete up to here; reads see this. `None` before the first epoch.
    pub rows: Option<Progress>,
    /// Operator state is complete up to here; the engine resumes after it. `None` before the first
    /// checkpoint.
    pub operator: Option<Progress>,
}

/// What opening found.
#[derive(Debug)]
pub enum Opened {
    /// A usable store, possibly empty.
    Ready(Box<ViewStore>),
    /// The directory holds the state of something else: [`ViewStore::destroy`] it, open again and
    /// replay the log.
    Rebuild(RebuildReason),
}

/// Why existing state cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RebuildReason {
    /// Written in another version of the stored bytes.
    Format {
        /// The version found; `None` where it cannot be told.
        found: Option<u32>,
    },
    /// Computed by other definitions or another engine version.
    PlanSet {
        /// The plan set found.
        found: Hash256,
        /// The plan set asked for.
        expected: Hash256,
    },
    /// Same plan set, but another list of views or other retention.
    Views,
    /// Damaged so that RocksDB would never stop reading it.
    Unreadable {
        /// The file and the byte.
        place: String,
        /// What does not fit.
        why: String,
    },
}

impl fmt::Display for RebuildReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format { found: Some(found) } => {
                let expected = format::FORMAT_VERSION;
                write!(f, "it is in format {found}; this program writes format {expected}")
            }
            Self::Format { found: None } => f.write_str("it is in a format of another program"),
            Self::PlanSet { found, expected } => {
                write!(f, "it was computed by plan set {found}; the plan set is now {expected}")
            }
            Self::Views => f.write_str("the list of views or their retention has changed"),
            Self::Unreadable { place, why } => write!(f, "{place} is damaged: {why}"),
        }
    }
}

/// Names a watcher of progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchId(u64);

type Watcher = Box<dyn Fn(Progress) + Send + Sync>;

#[derive(Default)]
struct Watchers {
    next: u64,
    active: BTreeMap<WatchId, Watcher>,
}

/// Materialised views and operator state. One writer at a time; readers never wait for it.
pub struct ViewStore {
    pub(crate) db: DB,
    pub(crate) path: PathBuf,
    pub(crate) views: BTreeMap<ViewId, ViewMeta>,
    pub(crate) batch_bytes: usize,
    pub(crate) write_options: WriteOptions,
    pub(crate) writer: Mutex<Writer>,
    pub(crate) row_cache: RowCache,
    progress: Mutex<StoreProgress>,
    advanced: Condvar,
    watchers: Mutex<Watchers>,
}

impl fmt::Debug for ViewStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ViewStore")
            .field("path", &self.path)
            .field("progress", &self.progress())
            .finish_non_exhaustive()
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ViewStore {
    /// Opens the store in directory `path`, creating it where there is none. `views` are all views
    /// that will ever be applied or read through this handle; `plan_set_hash` is the hash of
    /// everything that decides their contents.
    ///
    /// # Errors
    /// [`ViewError::Locked`], [`ViewError::Damaged`], [`ViewError::DuplicateView`] or a failure of
    /// the file system.
    pub fn open(
        path: &Path,
        options: &Options,
        views: &[ViewMeta],
        plan_set_hash: Hash256,
    ) -> Result<Opened, ViewError> {
        let views = by_id(views)?;
        std::fs::create_dir_all(path).map_err(|source| ViewError::Storage {
            doing: "creating its directory",
            source: Box::new(source),
        })?;
        let database = options::database(options)?;
        if path.join("CURRENT").exists()
            && let Some(falaj_rocks_files::Damage { place, why }) =
                falaj_rocks_files::unreadable(path)
        {
            return Ok(Opened::Rebuild(RebuildReason::Unreadable { place, why }));
        }
        if has_foreign_families(path, &database)? {
            return Ok(Opened::Rebuild(RebuildReason::Format { found: None }));
        }
        let db = DB::open_cf_descriptors(&database, path, options::families(options))
            .map_err(|error| storage(path, "opening", error))?;
        let store = Self {
            db,
            path: path.to_owned(),
            views,
            batch_bytes: options.batch_bytes,
            write_options: options::write(),
            writer: Mutex::default(),
            row_cache: RowCache::new(options.row_cache_bytes),
            progress: Mutex::default(),
            advanced: Condvar::new(),
            watchers: Mutex::default(),
        };
        if let Some(reason) = store.check_identity(plan_set_hash)? {
            return Ok(Opened::Rebuild(reason));
        }
        let begins = store.progress_entry(format::KEY_BEGINS, &ReadOptions::default())?;
        locked(&store.writer).begins = begins;
        *locked(&store.progress) = store.read_progress(&ReadOptions::default())?;
        Ok(Opened::Ready(Box::new(store)))
    }

    /// Opens the store, first destroying state of other definitions or another format; the reason
    /// is returned where that happened.
    ///
    /// # Errors
    /// As [`ViewStore::open`].
    pub fn open_or_reset(
        path: &Path,
        options: &Options,
        views: &[ViewMeta],
        plan_set_hash: Hash256,
    ) -> Result<(Self, Option<RebuildReason>), ViewError> {
        let reason = match Self::open(path, options, views, plan_set_hash)? {
            Opened::Ready(store) => return Ok((*store, None)),
            Opened::Rebuild(reason) => reason,
        };
        Self::destroy(path)?;
        match Self::open(path, options, views, plan_set_hash)? {
            Opened::Ready(store) => Ok((*store, Some(reason))),
            Opened::Rebuild(reason) => Err(ViewError::Damaged {
                file: path.to_owned(),
                why: format!("it was removed and yet {reason}"),
            }),
        }
    }

    /// Removes the store in directory `path`, which no handle may hold. Nothing is lost that the
    /// log does not bring back.
    ///
    /// # Errors
    /// [`ViewError::Locked`], or a failure of the file system.
    pub fn destroy(path: &Path) -> Result<(), ViewError> {
        if !path.exists() {
            return Ok(());
        }
        DB::destroy(&rocksdb::Options::default(), path)
            .map_err(|error| storage(path, "removing it", error))?;
        match std::fs::remove_dir_all(path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(ViewError::Storage { doing: "removing it", source: Box::new(source) })
            }
            _ => Ok(()),
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The views, by id.
    pub fn views(&self) -> impl Iterator<Item = &ViewMeta> {
        self.views.values()
    }

    /// How far rows and operator state are.
    pub fn progress(&self) -> StoreProgress {
        *locked(&self.progress)
    }

    /// Waits until rows are complete up to `min_t` and returns how far they are then.
    ///
    /// # Errors
    /// [`ViewError::NotYet`] when `deadline` comes first.
    pub fn wait_for(&self, min_t: LogTime, deadline: Instant) -> Result<Progress, ViewError> {
        let mut progress = locked(&self.progress);
        loop {
            match progress.rows {
                Some(rows) if rows.t >= min_t => return Ok(rows),
                rows => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(ViewError::NotYet { asked: min_t, progress: rows });
                    }
                    progress = self
                        .advanced
                        .wait_timeout(progress, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                }
            }
        }
    }

    /// Calls `watcher` with the row progress now (when there is any) and after each write, in
    /// increasing order, on the writer's thread: it must return quickly and not call the store.
    pub fn watch(&self, watcher: impl Fn(Progress) + Send + Sync + 'static) -> WatchId {
        let mut watchers = locked(&self.watchers);
        if let Some(rows) = self.progress().rows {
            watcher(rows);
        }
        let id = WatchId(watchers.next);
        watchers.next += 1;
        watchers.active.insert(id, Box::new(watcher));
        id
    }

    /// Ends a watch.
    pub fn unwatch(&self, id: WatchId) {
        locked(&self.watchers).active.remove(&id);
    }

    /// Pins the newest `T` over all views for reading.
    ///
    /// # Errors
    /// When the stored progress cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot<'_>, ViewError> {
        Snapshot::new(self)
    }

    /// All entries of operator state, in key order, as of the operator progress.
    pub fn operator_state(&self) -> Result<OperatorState<'_>, ViewError> {
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        options.fill_cache(false);
        let family = self.family(Family::Operator)?;
        let inner = self.db.iterator_cf_opt(family, options, IteratorMode::Start);
        Ok(OperatorState { store: self, inner })
    }

    /// Writes everything applied so far to disk, so that a later crash falls back no further.
    ///
    /// # Errors
    /// When storage fails.
    pub fn flush(&self) -> Result<(), ViewError> {
        let mut families = Vec::with_capacity(Family::ALL.len());
        for family in Family::ALL {
            families.push(self.family(family)?);
        }
        self.db
            .flush_cfs_opt(&families, &FlushOptions::default())
            .map_err(|error| self.fault("flushing", error))
    }

    /// Flushes and closes.
    ///
    /// # Errors
    /// When storage fails; the store is closed all the same.
    pub fn close(self) -> Result<(), ViewError> {
        self.flush()
    }

    pub(crate) fn family(&self, family: Family) -> Result<&ColumnFamily, ViewError> {
        self.db.cf_handle(family.name()).ok_or_else(|| ViewError::Damaged {
            file: self.path.clone(),
            why: format!("column family `{}` is missing", family.name()),
        })
    }

    pub(crate) fn fault(&self, doing: &'static str, error: rocksdb::Error) -> ViewError {
        storage(&self.path, doing, error)
    }

    pub(crate) fn damaged(&self, family: Family, key: &[u8], why: &str) -> ViewError {
        ViewError::Damaged {
            file: self.path.clone(),
            why: format!("{} entry {}: {why}", family.name(), falaj_event::ids::hex(key)),
        }
    }

    pub(crate) fn view(&self, view: ViewId) -> Result<&ViewMeta, ViewError> {
        self.views.get(&view).ok_or(ViewError::UnknownView { view })
    }

    /// Makes `progress` visible: called after the batch that reached it has been written.
    pub(crate) fn publish(&self, progress: StoreProgress) {
        *locked(&self.progress) = progress;
        self.advanced.notify_all();
        if let Some(rows) = progress.rows {
            for watcher in locked(&self.watchers).active.values() {
                watcher(rows);
            }
        }
    }

    pub(crate) fn read_progress(&self, options: &ReadOptions) -> Result<StoreProgress, ViewError> {
        Ok(StoreProgress {
            rows: self.progress_entry(format::KEY_ROWS, options)?,
            operator: self.progress_entry(format::KEY_OPERATOR, options)?,
        })
    }

    pub(crate) fn progress_entry(
        &self,
        key: &[u8],
        options: &ReadOptions,
    ) -> Result<Option<Progress>, ViewError> {
        self.db
            .get_pinned_cf_opt(self.family(Family::Progress)?, key, options)
            .map_err(|error| self.fault("reading progress", error))?
            .map(|value| {
                format::parse_progress(&value)
                    .ok_or_else(|| self.damaged(Family::Progress, key, "not an epoch and a T"))
            })
            .transpose()
    }

    /// Compares the stored identity with what is wanted, or writes it into an empty store.
    fn check_identity(&self, plan_set: Hash256) -> Result<Option<RebuildReason>, ViewError> {
        let read = |key: &[u8]| {
            self.db
                .get_cf(self.family(Family::Progress)?, key)
                .map_err(|error| self.fault("reading its identity", error))
        };
        let views = format::views_value(self.views.values());
        let Some(version) = read(format::KEY_FORMAT)? else {
            return self.initialise(plan_set, &views).map(|()| None);
        };
        if version != format::FORMAT_VERSION.to_be_bytes() {
            let found = version.try_into().ok().map(u32::from_be_bytes);
            return Ok(Some(RebuildReason::Format { found }));
        }
        let found = read(format::KEY_PLAN)?.and_then(|bytes| bytes.try_into().ok()).map(Hash256);
        let Some(found) = found else {
            return Err(self.damaged(Family::Progress, format::KEY_PLAN, "not a plan set's hash"));
        };
        if found != plan_set {
            return Ok(Some(RebuildReason::PlanSet { found, expected: plan_set }));
        }
        Ok((read(format::KEY_VIEWS)?.as_deref() != Some(&views)).then_some(RebuildReason::Views))
    }

    fn initialise(&self, plan_set: Hash256, views: &[u8]) -> Result<(), ViewError> {
        for family in Family::ALL {
            let mut entries = self.db.iterator_cf(self.family(family)?, IteratorMode::Start);
            if let Some(entry) = entries.next() {
                let (key, _) = entry.map_err(|error| self.fault("looking for entries", error))?;
                return Err(self.damaged(family, &key, "the store has no format version"));
            }
        }
        let progress = self.family(Family::Progress)?;
        let mut batch = WriteBatch::default();
        batch.put_cf(progress, format::KEY_FORMAT, format::FORMAT_VERSION.to_be_bytes());
        batch.put_cf(progress, format::KEY_PLAN, plan_set.0);
        batch.put_cf(progress, format::KEY_VIEWS, views);
        self.db
            .write_opt(batch, &self.write_options)
            .map_err(|error| self.fault("writing its identity", error))
    }
}

fn by_id(views: &[ViewMeta]) -> Result<BTreeMap<ViewId, ViewMeta>, ViewError> {
    let mut map: BTreeMap<ViewId, ViewMeta> = BTreeMap::new();
    for view in views {
        if let Some(first) = map.insert(view.id, view.clone()) {
            return Err(ViewError::DuplicateView {
                view: view.id,
                first: first.name,
                second: view.name.clone(),
            });
        }
    }
    Ok(map)
}

/// Whether the directory holds a database with column families that this format does not have.
fn has_foreign_families(path: &Path, database: &rocksdb::Options) -> Result<bool, ViewError> {
    if !path.join("CURRENT").exists() {
        return Ok(false);
    }
    let found = DB::list_cf(database, path).map_err(|error| storage(path, "opening", error))?;
    Ok(found.iter().any(|name| {
        name != rocksdb::DEFAULT_COLUMN_FAMILY_NAME
            && Family::ALL.iter().all(|family| family.name() != name)
    }))
}

/// The entries of operator state; see [`ViewStore::operator_state`].
pub struct OperatorState<'s> {
    store: &'s ViewStore,
    inner: rocksdb::DBIterator<'s>,
}

impl fmt::Debug for OperatorState<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorState").finish_non_exhaustive()
    }
}

impl Iterator for OperatorState<'_> {
    type Item = Result<(Box<[u8]>, Box<[u8]>), ViewError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.inner.next()?;
        Some(entry.map_err(|error| self.store.fault("reading operator state", error)))
    }
}
