//! View stores in temporary directories, fed by the engine as the node feeds them.
//!
//! Does not know what the views mean.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use falaj_dataflow::Resume;
use falaj_definitions::catalog::Catalog;
use falaj_event::{LogTime, ViewId};
use falaj_node::core::view_metas;
use falaj_views::{Options, StateDigest, ViewStore};

use crate::engine::{Rows, Run, drive};
use crate::history::History;

/// Opens the state of `catalog`'s views in `path`. A store that is dropped without `flush` falls back
/// to what happened to be on disk, as if its process had been killed.
///
/// # Errors
/// When it cannot be opened.
pub fn open(path: &Path, catalog: &Catalog, flush: bool) -> Result<ViewStore> {
    let options = Options { flush_on_drop: flush, memtable_bytes: 4 << 20, ..Options::default() };
    let metas = view_metas(&catalog.views);
    Ok(ViewStore::open_or_reset(path, &options, &metas, catalog.hash)?.0)
}

/// Where the engine goes on from.
///
/// # Errors
/// When the state cannot be read.
pub fn resume(store: &ViewStore) -> Result<Option<Resume>> {
    let Some(progress) = store.progress().operator else { return Ok(None) };
    let mut state = Vec::new();
    for entry in store.operator_state()? {
        let (key, value) = entry?;
        state.push((key.into_vec(), value.into_vec()));
    }
    Ok(Some(Resume { epoch: progress.epoch, t: progress.t, state }))
}

/// Brings `store` from its last checkpoint to the epoch before `until`, writing `together` epochs at
/// a time.
///
/// # Errors
/// When the engine or the store fails.
pub fn advance(
    store: &ViewStore,
    catalog: &Arc<Catalog>,
    history: &History,
    run: Run,
    together: usize,
    until: u64,
) -> Result<()> {
    let resume = resume(store)?;
    let mut waiting = Vec::new();
    drive(&catalog.views, history, run, resume, until, |changes| {
        waiting.push(changes);
        if waiting.len() >= together {
            store.apply_all(&waiting)?;
            waiting.clear();
        }
        Ok(())
    })?;
    if !waiting.is_empty() {
        store.apply_all(&waiting)?;
    }
    Ok(())
}

/// The digest of all state.
///
/// # Errors
/// When it cannot be read.
pub fn digest(store: &ViewStore) -> Result<StateDigest> {
    Ok(store.digest(&mut |_| {})?)
}

/// A view's rows, now or as of `as_of`, an epoch's `T`.
///
/// # Errors
/// When they cannot be read.
pub fn rows(store: &ViewStore, view: ViewId, as_of: Option<LogTime>) -> Result<Rows> {
    let rows = store.snapshot()?.scan(view, as_of, None, usize::MAX)?;
    Ok(rows
        .into_iter()
        .map(|row| (row.key, (row.row.latest_event_time, row.row.columns)))
        .collect())
}
