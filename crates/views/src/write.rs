//! Applying epochs: one atomic batch of rows, history, operator state and progress.
//!
//! Does not know how changes are computed, nor what a fold removes (see `fold`).

use std::ops::Range;

use falaj_event::{EpochChanges, LogTime, RowChange, logical_partition};
use rocksdb::WriteBatch;

use crate::error::ViewError;
use crate::format::{self, Family};
use crate::store::{Progress, StoreProgress, ViewStore, locked};

/// The right to write; whoever holds the lock around it is the only writer.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    /// Where the keys and values of rows are in `bytes`.
    places: Vec<(Range<usize>, Range<usize>)>,
    /// The first epoch that was ever applied: no version is older.
    pub(crate) begins: Option<Progress>,
}

/// A changed row on its way into a batch.
struct Slot<'a> {
    partition: u8,
    t: LogTime,
    row: &'a RowChange,
}

impl ViewStore {
    /// Applies one epoch atomically: its rows and row progress, and at a checkpoint its operator
    /// state and operator progress. An epoch at or below the row progress is replayed: its rows are
    /// skipped, its checkpoint is applied if it is above the operator progress.
    ///
    /// # Errors
    /// [`ViewError::Gap`], [`ViewError::WrongTime`] or [`ViewError::UnknownView`], and nothing was
    /// written; or a storage failure, after which the store must be reopened.
    pub fn apply(&self, changes: &EpochChanges) -> Result<StoreProgress, ViewError> {
        self.apply_all(std::slice::from_ref(changes))
    }

    /// Applies consecutive epochs with the same final contents as one by one, in as few batches as
    /// [`crate::Options::batch_bytes`] allows. Readers see the progress after each batch only.
    ///
    /// # Errors
    /// As [`ViewStore::apply`]; all epochs are checked before any is written.
    pub fn apply_all(&self, epochs: &[EpochChanges]) -> Result<StoreProgress, ViewError> {
        let mut writer = locked(&self.writer);
        self.check(epochs)?;
        let mut batch = WriteBatch::default();
        let mut bytes = 0;
        let mut start = 0;
        let mut previous = self.progress().rows;
        let Some(first) = epochs.first() else { return Ok(self.progress()) };
        let first = Progress { epoch: first.epoch, t: first.t };
        let begins = writer.begins.get_or_insert(first).t;
        for (index, changes) in epochs.iter().enumerate() {
            if let Some(before) = previous.filter(|rows| changes.epoch > rows.epoch)
                && self.fold_is_due(begins, before.t, changes.t)
            {
                // What is folded must be in the database, not in a pending batch.
                self.write(&mut writer, &epochs[start..index], &mut batch)?;
                (start, bytes) = (index, 0);
                self.fold(begins, before.t, changes.t, &mut batch)?;
            }
            previous = previous.max(Some(Progress { epoch: changes.epoch, t: changes.t }));
            bytes += size_of_changes(changes);
            if bytes >= self.batch_bytes {
                self.write(&mut writer, &epochs[start..=index], &mut batch)?;
                (start, bytes) = (index + 1, 0);
            }
        }
        self.write(&mut writer, &epochs[start..], &mut batch)?;
        Ok(self.progress())
    }

    /// Refuses epochs that do not follow, and rows of views that the store does not have.
    fn check(&self, epochs: &[EpochChanges]) -> Result<(), ViewError> {
        let mut rows = self.progress().rows;
        for changes in epochs {
            let wrong_time = |at: Progress| ViewError::WrongTime {
                epoch: changes.epoch,
                got: changes.t,
                at: at.epoch,
                t: at.t,
            };
            let expected = rows.map_or(0, |rows| rows.epoch + 1);
            if changes.epoch > expected {
                return Err(ViewError::Gap { expected, got: changes.epoch });
            }
            match rows {
                Some(at) if changes.epoch.cmp(&at.epoch) != changes.t.cmp(&at.t) => {
                    return Err(wrong_time(at));
                }
                _ => {}
            }
            let mut known = None;
            for row in &changes.rows {
                if known != Some(row.view) {
                    known = Some(self.view(row.view)?.id);
                }
            }
            rows = rows.max(Some(Progress { epoch: changes.epoch, t: changes.t }));
        }
        Ok(())
    }

    /// Adds `epochs` to `batch`, writes it, leaves it empty and publishes the progress.
    fn write(
        &self,
        writer: &mut Writer,
        epochs: &[EpochChanges],
        batch: &mut WriteBatch,
    ) -> Result<(), ViewError> {
        let mut progress = self.progress();
        let is_new =
            |changes: &&EpochChanges| progress.rows.is_none_or(|rows| changes.epoch > rows.epoch);
        let fresh: Vec<&EpochChanges> = epochs.iter().filter(is_new).collect();
        if batch.is_empty() {
            let bytes = fresh.iter().map(|changes| size_of_changes(changes)).sum();
            *batch = WriteBatch::with_capacity_bytes(bytes);
        }
        self.add_rows(writer, &fresh, batch)?;
        self.add_checkpoints(epochs, &mut progress, batch)?;
        if let (None, Some(begins)) = (progress.rows, writer.begins) {
            let value = format::progress_value(begins);
            batch.put_cf(self.family(Family::Progress)?, format::KEY_BEGINS, value);
        }
        if let Some(last) = fresh.last() {
            let rows = Progress { epoch: last.epoch, t: last.t };
            progress.rows = Some(rows);
            let value = format::progress_value(rows);
            batch.put_cf(self.family(Family::Progress)?, format::KEY_ROWS, value);
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.db
            .write_opt(std::mem::take(batch), &self.write_options)
            .map_err(|error| self.fault("writing an epoch", error))?;
        self.publish(progress);
        Ok(())
    }

    /// Adds the rows of new epochs in the order of the stored keys: sequential inserts are cheap.
    fn add_rows(
        &self,
        writer: &mut Writer,
        epochs: &[&EpochChanges],
        batch: &mut WriteBatch,
    ) -> Result<(), ViewError> {
        let (latest, history) = (self.family(Family::Latest)?, self.family(Family::History)?);
        let slots = in_stored_order(epochs);
        let Writer { bytes, places, .. } = writer;
        bytes.clear();
        places.clear();
        places.extend(slots.iter().map(|slot| slot.encode(bytes)));
        let newest = epochs.last().map_or(LogTime(0), |changes| changes.t);
        let is_cached = self.row_cache.begin(newest);
        for (index, (slot, (key, value))) in slots.iter().zip(places.iter()).enumerate() {
            let is_superseded = slots.get(index + 1).is_some_and(|next| {
                next.partition == slot.partition
                    && next.row.view == slot.row.view
                    && next.row.key == slot.row.key
            });
            if is_superseded {
                continue;
            }
            let key = &bytes[key.start..key.end - format::TIME_BYTES];
            let value = slot.row.row.is_some().then(|| &bytes[value.clone()]);
            if is_cached {
                let row = value.and_then(|value| value.get(size_of::<LogTime>()..));
                self.row_cache.replace(key, slot.t, row);
            }
            match value {
                Some(value) => batch.put_cf(latest, key, value),
                None => batch.delete_cf(latest, key),
            }
        }
        for (key, value) in places.iter() {
            let row = bytes[value.clone()].get(size_of::<LogTime>()..).unwrap_or_default();
            batch.put_cf(history, &bytes[key.clone()], row);
        }
        Ok(())
    }

    fn add_checkpoints(
        &self,
        epochs: &[EpochChanges],
        progress: &mut StoreProgress,
        batch: &mut WriteBatch,
    ) -> Result<(), ViewError> {
        let operator = self.family(Family::Operator)?;
        for changes in epochs {
            let Some(entries) = &changes.checkpoint else { continue };
            if progress.operator.is_some_and(|at| changes.epoch <= at.epoch) {
                continue;
            }
            for entry in entries {
                match &entry.value {
                    Some(value) => batch.put_cf(operator, &entry.key, value),
                    None => batch.delete_cf(operator, &entry.key),
                }
            }
            let reached = Progress { epoch: changes.epoch, t: changes.t };
            progress.operator = Some(reached);
            let value = format::progress_value(reached);
            batch.put_cf(self.family(Family::Progress)?, format::KEY_OPERATOR, value);
        }
        Ok(())
    }
}

impl Slot<'_> {
    /// Appends the `history` key, which begins with the `latest` key, and the `latest` value, which
    /// ends with the `history` value (all of it empty when the row is removed); says where they are.
    fn encode(&self, bytes: &mut Vec<u8>) -> (Range<usize>, Range<usize>) {
        let start = bytes.len();
        format::push_head(self.partition, self.row.view, bytes);
        bytes.extend_from_slice(&self.row.key);
        format::push_time(self.t, bytes);
        let middle = bytes.len();
        if let Some(row) = &self.row.row {
            bytes.extend_from_slice(&self.t.0.to_be_bytes());
            format::push_row(row, bytes);
        }
        (start..middle, middle..bytes.len())
    }
}

fn in_stored_order<'a>(epochs: &[&'a EpochChanges]) -> Vec<Slot<'a>> {
    let count = epochs.iter().map(|changes| changes.rows.len()).sum();
    let mut slots = Vec::with_capacity(count);
    for changes in epochs {
        slots.extend(changes.rows.iter().map(|row| Slot {
            partition: logical_partition(&row.key),
            t: changes.t,
            row,
        }));
    }
    // Stable: the rows of one epoch come sorted by view and key, epochs come in order of time.
    if epochs.len() <= 1 {
        slots.sort_by_key(|slot| slot.partition);
    } else {
        slots.sort_by(|a, b| {
            (a.partition, a.row.view, &a.row.key).cmp(&(b.partition, b.row.view, &b.row.key))
        });
    }
    slots
}

/// About how many bytes a batch needs for `changes`.
fn size_of_changes(changes: &EpochChanges) -> usize {
    /// Record tags, lengths, partition, view, times and event times of both entries of a row.
    const ROW_OVERHEAD: usize = 64;
    const ENTRY_OVERHEAD: usize = 8;
    const PROGRESS: usize = 64;
    let rows = changes.rows.iter().map(|change| {
        let row = change.row.as_ref().map_or(0, |row| row.columns.len() + row.foretold.len());
        ROW_OVERHEAD + 2 * change.key.len() + 2 * row
    });
    let entries =
        changes.checkpoint.iter().flatten().map(|entry| {
            ENTRY_OVERHEAD + entry.key.len() + entry.value.as_ref().map_or(0, Vec::len)
        });
    PROGRESS + rows.sum::<usize>() + entries.sum::<usize>()
}
