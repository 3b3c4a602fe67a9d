//! The newest rows of keys that were asked for, where they are found at once.
//!
//! Why it exists: what was written lately lies in a skip list, a dozen places in memory one after the
//! other for each key that is looked for. Keys that are asked for are mostly asked for again; their rows
//! are kept here and replaced when they change. Nothing is here that the database does not have, and
//! what was never asked for costs nothing.
//!
//! An entry is the newest row of its key *as of every epoch that has been written*: the writer brings
//! entries up to date before it writes, and a reader enters a row only where no newer epoch than the
//! one that it read at has begun. So a reader may use an entry that was set at or before the `T` that it
//! reads, and must ask the database otherwise.
//!
//! Does not know what a row is, nor how the database is read.

use std::hash::BuildHasher;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use falaj_event::LogTime;
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::store::locked;

/// Locks: enough that readers on all cores seldom meet.
const SHARDS: usize = 64;
/// What an entry takes beside its key and row, about.
const ENTRY_BYTES: usize = 96;

/// See the module's documentation.
pub(crate) struct RowCache {
    shards: Vec<Mutex<Shard>>,
    hasher: DefaultHashBuilder,
    /// The newest epoch whose rows are being written, or were.
    begun: AtomicU64,
    /// Anything was ever entered.
    used: AtomicBool,
    shard_bytes: usize,
}

/// Two generations: what is used moves to the young one; when that is full it becomes the old one, and
/// the old one is forgotten.
#[derive(Default)]
struct Shard {
    young: HashTable<Entry>,
    old: HashTable<Entry>,
    young_bytes: usize,
}

struct Entry {
    hash: u64,
    key: Box<[u8]>,
    /// The epoch that set the row.
    t: LogTime,
    row: Vec<u8>,
}

impl RowCache {
    /// A cache of about this many bytes; none with 0.
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: DefaultHashBuilder::default(),
            begun: AtomicU64::new(0),
            used: AtomicBool::new(false),
            shard_bytes: bytes / SHARDS / 2,
        }
    }

    /// Appends the row of `key` to `out` and says which epoch set it, where it is known to be the one
    /// that `key` has at `at`.
    pub(crate) fn get(&self, key: &[u8], at: LogTime, out: &mut Vec<u8>) -> Option<LogTime> {
        if !self.used.load(Ordering::Relaxed) {
            return None;
        }
        let hash = self.hasher.hash_one(key);
        let mut shard = locked(self.shard(hash));
        if let Some(entry) = shard.young.find(hash, |entry| *entry.key == *key) {
            return entry.read(at, out);
        }
        let entry = shard.old.find_entry(hash, |entry| *entry.key == *key).ok()?.remove().0;
        let found = entry.read(at, out);
        shard.enter(entry, self.shard_bytes);
        found
    }

    /// Enters the row that `key` has in a snapshot of `read_at`, set at `t`.
    pub(crate) fn enter(&self, key: &[u8], t: LogTime, row: &[u8], read_at: LogTime) {
        if self.shard_bytes == 0 {
            return;
        }
        // Before the look at `begun`: a writer that this look does not see sees this.
        self.used.store(true, Ordering::SeqCst);
        let hash = self.hasher.hash_one(key);
        let mut shard = locked(self.shard(hash));
        if self.begun.load(Ordering::SeqCst) > read_at.0 || shard.find(hash, key).is_some() {
            return;
        }
        shard.enter(Entry { hash, key: key.into(), t, row: row.to_vec() }, self.shard_bytes);
    }

    /// Says that the rows of epochs up to `t` are about to be written; whether they must be
    /// [replaced](Self::replace) here before they are.
    pub(crate) fn begin(&self, t: LogTime) -> bool {
        self.begun.fetch_max(t.0, Ordering::SeqCst);
        self.used.load(Ordering::SeqCst)
    }

    /// Replaces the row of `key`, if it is here, by the one that `t` sets; forgets it where `t` removes
    /// the row.
    pub(crate) fn replace(&self, key: &[u8], t: LogTime, row: Option<&[u8]>) {
        let hash = self.hasher.hash_one(key);
        let mut shard = locked(self.shard(hash));
        match row {
            Some(row) => {
                let Some((entry, is_young)) = shard.find(hash, key) else { return };
                let before = entry.row.len();
                entry.t = t;
                entry.row.clear();
                entry.row.extend_from_slice(row);
                if is_young {
                    shard.young_bytes = (shard.young_bytes + row.len()).saturating_sub(before);
                }
            }
            None => shard.forget(hash, key),
        }
    }

    /// The lowest bits choose the shard: tables use the highest ones.
    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        &self.shards[hash as usize % SHARDS]
    }
}

impl Entry {
    fn read(&self, at: LogTime, out: &mut Vec<u8>) -> Option<LogTime> {
        (self.t <= at).then(|| {
            out.extend_from_slice(&self.row);
            self.t
        })
    }

    fn bytes(&self) -> usize {
        self.key.len() + self.row.len() + ENTRY_BYTES
    }
}

impl Shard {
    /// The entry of a key, and whether it is in the young generation.
    fn find(&mut self, hash: u64, key: &[u8]) -> Option<(&mut Entry, bool)> {
        let Self { young, old, .. } = self;
        match young.find_mut(hash, |entry| *entry.key == *key) {
            Some(entry) => Some((entry, true)),
            None => Some((old.find_mut(hash, |entry| *entry.key == *key)?, false)),
        }
    }

    fn forget(&mut self, hash: u64, key: &[u8]) {
        let Self { young, old, young_bytes } = self;
        if let Ok(entry) = young.find_entry(hash, |entry| *entry.key == *key) {
            *young_bytes = young_bytes.saturating_sub(entry.remove().0.bytes());
        } else if let Ok(entry) = old.find_entry(hash, |entry| *entry.key == *key) {
            entry.remove();
        }
    }

    /// Makes an entry, which is in neither generation, the youngest.
    fn enter(&mut self, entry: Entry, most_bytes: usize) {
        let bytes = entry.bytes();
        if bytes > most_bytes {
            return;
        }
        if self.young_bytes + bytes > most_bytes {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes;
        self.young.insert_unique(entry.hash, entry, |entry| entry.hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(cache: &RowCache, key: &[u8], at: u64) -> Option<(u64, Vec<u8>)> {
        let mut out = Vec::new();
        cache.get(key, LogTime(at), &mut out).map(|t| (t.0, out))
    }

    #[test]
    fn a_row_is_given_only_from_the_epoch_on_that_set_it() {
        let cache = RowCache::new(1 << 20);
        assert!(!cache.begin(LogTime(4)));
        cache.enter(b"key", LogTime(3), b"three", LogTime(4));
        assert_eq!(get(&cache, b"key", 2), None);
        assert_eq!(get(&cache, b"key", 3), Some((3, b"three".to_vec())));
        assert!(cache.begin(LogTime(9)));
        cache.replace(b"key", LogTime(9), Some(b"nine"));
        cache.replace(b"other", LogTime(9), Some(b"never asked for"));
        assert_eq!(get(&cache, b"key", 8), None);
        assert_eq!(get(&cache, b"key", 9), Some((9, b"nine".to_vec())));
        assert_eq!(get(&cache, b"other", 9), None);
        cache.begin(LogTime(10));
        cache.replace(b"key", LogTime(10), None);
        assert_eq!(get(&cache, b"key", 10), None);
    }

    #[test]
    fn a_row_that_may_be_outdated_is_not_entered() {
        let cache = RowCache::new(1 << 20);
        cache.begin(LogTime(5));
        cache.enter(b"key", LogTime(3), b"three", LogTime(4));
        assert_eq!(get(&cache, b"key", 9), None);
        cache.enter(b"key", LogTime(5), b"five", LogTime(5));
        // What is here is newer than what a slower reader found.
        cache.enter(b"key", LogTime(3), b"three", LogTime(5));
        assert_eq!(get(&cache, b"key", 5), Some((5, b"five".to_vec())));
        let none = RowCache::new(0);
        none.enter(b"key", LogTime(3), b"three", LogTime(4));
        assert_eq!(get(&none, b"key", 9), None);
    }

    #[test]
    fn what_is_asked_for_stays_and_the_rest_is_forgotten() {
        let cache = RowCache::new(1 << 20);
        let row = [7; 1_000];
        cache.enter(b"asked for", LogTime(1), &row, LogTime(1));
        for number in 0..20_000u32 {
            cache.enter(&number.to_be_bytes(), LogTime(1), &row, LogTime(1));
            assert!(get(&cache, b"asked for", 1).is_some(), "{number}");
        }
        let held = (0..20_000u32).filter(|n| get(&cache, &n.to_be_bytes(), 1).is_some()).count();
        assert!((100..1_100).contains(&held), "{held} rows of 1,000 bytes in a mebibyte");
        let bytes = |shard: &Mutex<Shard>| {
            let shard = locked(shard);
            let young: usize = shard.young.iter().map(Entry::bytes).sum();
            assert_eq!(shard.young_bytes, young);
            young + shard.old.iter().map(Entry::bytes).sum::<usize>()
        };
        let all: usize = cache.shards.iter().map(bytes).sum();
        assert!(all <= 1 << 20, "{all} bytes");
    }
}
