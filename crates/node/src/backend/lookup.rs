//! Features by key and whole views: from a request of the door to one snapshot of the view store.
//!
//! Does not know Flight or how rows came about.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, FixedSizeListArray, UInt8Array};
use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;
use falaj_event::{LogTime, ViewId};
use falaj_gateway::backend::{
    BackendError, BatchStream, LookupRequest, LookupResponse, Scan, ScanRequest, ValueStatus,
    ViewRows, ViewSelection,
};
use falaj_log::Log;
use falaj_views::{RowRead, RowRef, Snapshot, ViewError, ViewStore};

use super::rows::{Table, is_expired, key_bytes};

/// How an error of the view store reads at the door.
pub fn view_error(error: ViewError) -> BackendError {
    match error {
        ViewError::NotRetained { asked, oldest, .. } => BackendError::NotRetained { asked, oldest },
        ViewError::NotYet { asked, progress } => BackendError::NotYet {
            wanted: asked,
            reached: progress.map_or(LogTime(0), |progress| progress.t),
        },
        ViewError::Damaged { .. } => BackendError::Damaged { message: error.to_string() },
        other => BackendError::internal(other.to_string()),
    }
}

/// Waits until the views have reached `min_t`.
///
/// # Errors
/// [`BackendError::NotYet`] at the deadline.
pub async fn wait(
    store: &Arc<ViewStore>,
    min_t: Option<LogTime>,
    deadline: Option<Instant>,
) -> Result<(), BackendError> {
    let Some(min_t) = min_t else { return Ok(()) };
    if store.progress().rows.is_some_and(|progress| progress.t >= min_t) {
        return Ok(());
    }
    let deadline = deadline.unwrap_or_else(|| Instant::now() + DEFAULT_WAIT);
    let store = Arc::clone(store);
    tokio::task::spawn_blocking(move || store.wait_for(min_t, deadline))
        .await
        .map_err(|error| BackendError::internal(error.to_string()))?
        .map(|_| ())
        .map_err(view_error)
}

/// How long a request without a deadline waits for its `min_t`.
const DEFAULT_WAIT: std::time::Duration = std::time::Duration::from_secs(30);

/// Answers a lookup from one snapshot.
///
/// # Errors
/// Of the store, or of keys that are not the views'.
pub fn lookup(
    store: &ViewStore,
    log: &dyn Log,
    request: &LookupRequest,
) -> Result<LookupResponse, BackendError> {
    let snapshot = store.snapshot().map_err(view_error)?;
    let t = read_time(&snapshot, log, request.as_of)?;
    let mut views = Vec::with_capacity(request.views.len());
    for selection in request.views.iter() {
        let keys = key_bytes(&request.keys, &selection.key_columns)?;
        views.push(view_rows(&snapshot, selection, &keys, t, request.as_of.is_some())?);
    }
    Ok(LookupResponse { t, views })
}

/// `T_r`: the snapshot's, or the greatest epoch `T` at or before `as_of`.
///
/// # Errors
/// When the views are not there yet, or the log cannot be read.
pub fn read_time(
    snapshot: &Snapshot<'_>,
    log: &dyn Log,
    as_of: Option<LogTime>,
) -> Result<LogTime, BackendError> {
    let newest = snapshot.t().unwrap_or_default();
    match as_of {
        Some(asked) if asked < newest => {
            let entry = log
                .entry_at(asked)
                .map_err(|error| BackendError::Damaged { message: error.to_string() })?;
            Ok(entry.map_or(LogTime(0), |entry| entry.record.t))
        }
        Some(asked) if asked > newest => {
            Err(BackendError::NotYet { wanted: asked, reached: newest })
        }
        _ => Ok(newest),
    }
}

/// The answer for one view: columns in requested order, rows aligned to `keys`.
fn view_rows(
    snapshot: &Snapshot<'_>,
    selection: &ViewSelection,
    keys: &[Option<Vec<u8>>],
    t: LogTime,
    is_past: bool,
) -> Result<ViewRows, BackendError> {
    let view = &selection.view;
    let absent = match snapshot.progress() {
        Some(_) => ValueStatus::NotFound,
        None => ValueStatus::Unavailable,
    };
    let mut table = Table::new(view, &selection.columns, keys.len())?;
    read_rows(snapshot, view.id, keys, is_past.then_some(t), |_, row| match row {
        Some(row) => {
            let expired = is_expired(view.ttl_us, row.latest_event_time, t.as_event_time());
            table.push(row.columns, expired)
        }
        None => {
            table.push_absent(absent);
            Ok(())
        }
    })?;
    table.finish()
}

/// Hands the row of each of `keys`, now or as of an epoch's `T`, to `visit`, in the order of `keys`;
/// a key that is `None` has no row.
///
/// # Errors
/// Of the store, and the first of `visit`.
pub fn read_rows(
    snapshot: &Snapshot<'_>,
    view: ViewId,
    keys: &[Option<Vec<u8>>],
    as_of: Option<LogTime>,
    mut visit: impl FnMut(usize, Option<RowRef<'_>>) -> Result<(), BackendError>,
) -> Result<(), BackendError> {
    let known: Vec<&[u8]> = keys.iter().flatten().map(Vec::as_slice).collect();
    let mut places = keys.iter().enumerate();
    let mut outcome = Ok(());
    let mut take = |found: Option<RowRef<'_>>| {
        for (place, key) in places.by_ref() {
            if outcome.is_ok() {
                outcome = visit(place, found.filter(|_| key.is_some()));
            }
            if key.is_some() {
                break;
            }
        }
    };
    match as_of {
        Some(t) => {
            let found = snapshot.multi_get_as_of(view, &known, t).map_err(view_error)?;
            found.iter().for_each(|row| take(row.as_ref().map(RowRead::borrowed)));
        }
        None => snapshot.multi_get_with(view, &known, |_, row| take(row)).map_err(view_error)?,
    }
    outcome?;
    places.try_for_each(|(place, _)| visit(place, None))
}

/// Starts a scan: batches are read on a blocking thread, a few ahead of the reader.
///
/// # Errors
/// When the snapshot cannot be taken or the time cannot be read.
pub fn scan(
    store: &Arc<ViewStore>,
    log: &Arc<dyn Log>,
    request: ScanRequest,
) -> Result<Scan, BackendError> {
    let t = {
        let snapshot = store.snapshot().map_err(view_error)?;
        read_time(&snapshot, log.as_ref(), request.as_of)?
    };
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let store = Arc::clone(store);
    tokio::task::spawn_blocking(move || {
        let outcome =
            scan_batches(&store, &request, t, |batch| sender.blocking_send(Ok(batch)).is_ok());
        if let Err(error) = outcome {
            // A reader that is gone needs no error.
            let _ = sender.blocking_send(Err(error));
        }
    });
    let batches: BatchStream = Box::pin(futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|batch| (batch, receiver))
    }));
    Ok(Scan { t, batches })
}

/// Reads all rows at `t`, handing batches to `give` until it says no.
fn scan_batches(
    store: &ViewStore,
    request: &ScanRequest,
    t: LogTime,
    mut give: impl FnMut(RecordBatch) -> bool,
) -> Result<(), BackendError> {
    let snapshot = store.snapshot().map_err(view_error)?;
    let view = &request.view;
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = snapshot
            .scan(view.id, Some(t), after.as_deref(), request.batch_rows)
            .map_err(view_error)?;
        let mut table = Table::new(view, &request.columns, rows.len())?;
        for found in &rows {
            let expired = is_expired(view.ttl_us, found.row.latest_event_time, t.as_event_time());
            table.push(&found.row.columns, expired)?;
        }
        let last = rows.last().map(|row| row.key.clone());
        let full = rows.len() == request.batch_rows;
        if !rows.is_empty() && !give(with_statuses(table, request)?) {
            return Ok(());
        }
        match last.filter(|_| full) {
            Some(key) => after = Some(key),
            None => return Ok(()),
        }
    }
}

fn with_statuses(table: Table<'_>, request: &ScanRequest) -> Result<RecordBatch, BackendError> {
    let rows = table.finish()?;
    let width = i32::try_from(request.columns.len())
        .map_err(|_| BackendError::invalid("too many columns"))?;
    let item = Arc::new(Field::new("item", DataType::UInt8, false));
    let statuses: ArrayRef = Arc::new(
        FixedSizeListArray::try_new(item, width, Arc::new(UInt8Array::from(rows.statuses)), None)
            .map_err(|error| BackendError::internal(error.to_string()))?,
    );
    let mut columns = rows.columns;
    columns.push(statuses);
    RecordBatch::try_new(request.schema(), columns)
        .map_err(|error| BackendError::internal(error.to_string()))
}
