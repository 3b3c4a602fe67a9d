//! Folding history that is older than a view's `retain`.
//!
//! Why it works as it does: contents must be a function of the log, and no epoch may be slow. So
//! time is cut into intervals per view ([`interval_us`]), each interval into 256 slots, one per
//! logical partition; an epoch that leaves a slot folds that slot's partition, in its own batch. A
//! fold keeps, of each key, the newest version at or below `T_previous - retain` unless that is a
//! removal, and deletes all older ones. `T_previous` is what readers see until the batch is written,
//! so the part of a large fold that is written ahead of its epoch is invisible to them, and a crash
//! in between is repaired when the epoch is applied again.
//!
//! Does not know why a view retains what it retains.

use falaj_event::LogTime;
use rocksdb::{ReadOptions, WriteBatch};

use crate::error::ViewError;
use crate::format::Family;
use crate::history::HistoryCursor;
use crate::store::{ViewMeta, ViewStore};

const PARTITIONS: u64 = 256;
const HOUR_US: u64 = 3_600_000_000;
/// Versions outlive `retain` by at most this part of it (or an hour).
const INTERVALS_PER_RETAIN: u64 = 16;

/// How often each partition of a view with this retention is folded.
fn interval_us(retain_us: u64) -> u64 {
    (retain_us / INTERVALS_PER_RETAIN).max(HOUR_US).next_multiple_of(PARTITIONS)
}

/// What a fold of `view` keeps the newest version at or below of.
fn keep_from(view: &ViewMeta, before: LogTime) -> LogTime {
    LogTime(before.0.saturating_sub(view.retain_us))
}

/// The partitions of `view` whose fold falls into an epoch at `now` that follows one at `before`; none
/// where no version is as old as what a fold keeps, since history `begins` later.
fn due_partitions(
    view: &ViewMeta,
    begins: LogTime,
    before: LogTime,
    now: LogTime,
) -> impl Iterator<Item = u8> {
    let slot_us = interval_us(view.retain_us) / PARTITIONS;
    let (left, entered) = (before.0 / slot_us, now.0 / slot_us);
    let is_young = before.0 <= view.retain_us || keep_from(view, before) < begins;
    let count = if is_young { 0 } else { (entered - left).min(PARTITIONS) };
    // Slot numbers run downwards through the partitions; which way does not matter.
    (left..left + count).map(|slot| !slot.to_le_bytes()[0])
}

impl ViewStore {
    /// Whether an epoch at `now` that follows one at `before` folds anything.
    pub(crate) fn fold_is_due(&self, begins: LogTime, before: LogTime, now: LogTime) -> bool {
        self.views.values().any(|view| due_partitions(view, begins, before, now).next().is_some())
    }

    /// Adds to `batch` the deletes of an epoch at `now` that follows one at `before`; whenever the
    /// batch is full it is written and emptied.
    pub(crate) fn fold(
        &self,
        begins: LogTime,
        before: LogTime,
        now: LogTime,
        batch: &mut WriteBatch,
    ) -> Result<(), ViewError> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let mut cursor = HistoryCursor::new(self, options)?;
        for view in self.views.values() {
            let keep_from = keep_from(view, before);
            for partition in due_partitions(view, begins, before, now) {
                let mut more = cursor.start(partition, view.id, None)?;
                while more {
                    self.fold_key(&mut cursor, keep_from, batch)?;
                    more = cursor.next_key()?;
                }
            }
        }
        Ok(())
    }

    fn fold_key(
        &self,
        cursor: &mut HistoryCursor<'_>,
        keep_from: LogTime,
        batch: &mut WriteBatch,
    ) -> Result<(), ViewError> {
        let history = self.family(Family::History)?;
        if !cursor.leap_to(keep_from)? {
            return Ok(());
        }
        let mut is_newest = true;
        while let Some((_, value)) = cursor.version()? {
            let is_removal = value.is_empty();
            if let Some(stored) = cursor.stored_key().filter(|_| !is_newest || is_removal) {
                batch.delete_cf(history, stored);
                if batch.size_in_bytes() >= self.batch_bytes {
                    self.db
                        .write_opt(std::mem::take(batch), &self.write_options)
                        .map_err(|error| self.fault("folding history", error))?;
                }
            }
            is_newest = false;
            cursor.step();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use falaj_event::ViewId;

    use super::*;

    fn view(retain_us: u64) -> ViewMeta {
        ViewMeta { id: ViewId([0; 8]), name: "v".into(), retain_us }
    }

    #[test]
    fn every_partition_is_folded_once_per_interval_however_time_is_cut() {
        let view = view(5);
        let interval = interval_us(5);
        for step in [interval / 256, interval / 100, interval / 7, 1 + interval / 256 * 3] {
            let start = 10 * interval + 12345;
            let mut counts = [0; 256];
            let mut before = start;
            while before < start + interval {
                let now = (before + step).min(start + interval);
                for partition in due_partitions(&view, LogTime(0), LogTime(before), LogTime(now)) {
                    counts[usize::from(partition)] += 1;
                }
                before = now;
            }
            assert_eq!(counts, [1; 256], "step {step}");
        }
    }

    #[test]
    fn a_long_pause_folds_each_partition_once() {
        let interval = interval_us(0);
        let (begins, before, now) = (LogTime(0), LogTime(interval), LogTime(9 * interval));
        let due: Vec<u8> = due_partitions(&view(0), begins, before, now).collect();
        assert_eq!(due.len(), 256);
        assert_eq!(due.iter().collect::<std::collections::BTreeSet<_>>().len(), 256);
    }

    #[test]
    fn nothing_is_due_before_anything_is_older_than_the_retention() {
        let retain = 40 * HOUR_US;
        let count = |begins, before, now| {
            due_partitions(&view(retain), LogTime(begins), LogTime(before), LogTime(now)).count()
        };
        assert_eq!(count(0, 1, retain), 0);
        let (begins, hours) = (1_000 * HOUR_US, 10 * HOUR_US);
        assert_eq!(count(begins, begins + retain - 1, begins + retain + hours), 0);
        assert_ne!(count(begins, begins + retain, begins + retain + hours), 0);
        assert_eq!(interval_us(retain) % PARTITIONS, 0);
        assert!(interval_us(u64::MAX / 2) > HOUR_US);
    }
}
