//! Walking the `history` column family key by key.
//!
//! Why it exists: as-of reads, scans and folds all need "the newest version at or below a time",
//! and then "the next key"; both must cost little for keys with few versions and for keys with many.
//! Does not know what is done with the versions found.

use falaj_event::{LogTime, ViewId};
use rocksdb::{DBRawIterator, ReadOptions};

use crate::error::ViewError;
use crate::format::{self, Family, TIME_BYTES, split_history_key};
use crate::store::ViewStore;

/// Steps that are tried before a seek: stepping within a block is much cheaper than seeking.
const STEPS_BEFORE_SEEK: usize = 8;

/// A cursor over one logical partition of one view.
pub(crate) struct HistoryCursor<'s> {
    store: &'s ViewStore,
    iterator: DBRawIterator<'s>,
    /// partition ‖ view ‖ key of the key that the cursor stands on.
    name: Vec<u8>,
    head: Vec<u8>,
    seek: Vec<u8>,
}

impl<'s> HistoryCursor<'s> {
    /// A cursor that stands nowhere yet; `options` decides about snapshot and cache.
    pub(crate) fn new(store: &'s ViewStore, mut options: ReadOptions) -> Result<Self, ViewError> {
        options.set_total_order_seek(true);
        let iterator = store.db.raw_iterator_cf_opt(store.family(Family::History)?, options);
        Ok(Self { store, iterator, name: Vec::new(), head: Vec::new(), seek: Vec::new() })
    }

    /// Moves to the first key of (`partition`, `view`), or to the first one greater than `after`.
    /// False when there is none.
    pub(crate) fn start(
        &mut self,
        partition: u8,
        view: ViewId,
        after: Option<&[u8]>,
    ) -> Result<bool, ViewError> {
        format::head(partition, view, &mut self.head);
        self.seek.clone_from(&self.head);
        if let Some(after) = after {
            self.seek.extend_from_slice(after);
            // One byte longer than the oldest possible version of `after`.
            self.seek.extend_from_slice(&[0xff; TIME_BYTES + 1]);
        }
        self.iterator.seek(&self.seek);
        self.enter_key()
    }

    /// The view's key that the cursor stands on.
    pub(crate) fn key(&self) -> &[u8] {
        &self.name[self.head.len()..]
    }

    /// Moves to the newest version of the current key with `T <= t`, which must not be above the
    /// current version. False when there is none; the cursor then stands beyond the key.
    pub(crate) fn descend_to(&mut self, t: LogTime) -> Result<bool, ViewError> {
        for _ in 0..STEPS_BEFORE_SEEK {
            match self.version()? {
                None => return Ok(false),
                Some((at, _)) if at <= t => return Ok(true),
                Some(_) => self.iterator.next(),
            }
        }
        self.leap_to(t)
    }

    /// As [`Self::descend_to`] where there are likely many versions in between.
    pub(crate) fn leap_to(&mut self, t: LogTime) -> Result<bool, ViewError> {
        self.seek.clone_from(&self.name);
        format::push_time(t, &mut self.seek);
        self.iterator.seek(&self.seek);
        Ok(self.version()?.is_some())
    }

    /// The version of the current key that the cursor stands on: `T` and stored value; `None` when
    /// it stands beyond the key.
    pub(crate) fn version(&self) -> Result<Option<(LogTime, &[u8])>, ViewError> {
        let Some((stored, value)) = self.iterator.item() else {
            return self.ended().map(|()| None);
        };
        match split_history_key(stored) {
            Some((name, t)) if name == self.name => Ok(Some((t, value))),
            _ => Ok(None),
        }
    }

    /// The whole stored key that the cursor stands on.
    pub(crate) fn stored_key(&self) -> Option<&[u8]> {
        self.iterator.key()
    }

    /// Moves one version down; it may leave the current key.
    pub(crate) fn step(&mut self) {
        self.iterator.next();
    }

    /// Moves to the first version of the next key of the same partition and view. False at the end.
    pub(crate) fn next_key(&mut self) -> Result<bool, ViewError> {
        for _ in 0..STEPS_BEFORE_SEEK {
            if self.version()?.is_none() {
                return self.enter_key();
            }
            self.iterator.next();
        }
        self.seek.clone_from(&self.name);
        self.seek.extend_from_slice(&[0xff; TIME_BYTES + 1]);
        self.iterator.seek(&self.seek);
        self.enter_key()
    }

    fn enter_key(&mut self) -> Result<bool, ViewError> {
        let Some(stored) = self.iterator.key() else {
            return self.ended().map(|()| false);
        };
        if !stored.starts_with(&self.head) {
            return Ok(false);
        }
        let Some((name, _)) = split_history_key(stored) else {
            return Err(self.store.damaged(Family::History, stored, "too short"));
        };
        self.name.clear();
        self.name.extend_from_slice(name);
        Ok(true)
    }

    fn ended(&self) -> Result<(), ViewError> {
        self.iterator.status().map_err(|error| self.store.fault("reading history", error))
    }
}
