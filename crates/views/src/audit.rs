//! Equality of state: the digest of everything stored, and where two stores differ.
//!
//! The digest is SHA-256 over the entries of all column families, in the order of
//! [`Family::ALL`] and of their keys, each written as
//!
//! | bytes | content |
//! | --- | --- |
//! | 4 | length of the family's name, big-endian |
//! | … | the family's name |
//! | 8 | length of the key, big-endian |
//! | … | the key |
//! | 8 | length of the value, big-endian |
//! | … | the value |
//!
//! after the tag `falaj.state.v1` and a zero byte. Reading everything also verifies the checksum of
//! every block.
//!
//! Does not know why stores differ.

use std::cmp::Ordering;
use std::fmt;

use falaj_event::{Hash256, LogTime, ViewId, ids::hex};
use rocksdb::DBRawIterator;
use sha2::{Digest, Sha256};

use crate::error::ViewError;
use crate::format::{self, Family, HEAD_BYTES};
use crate::read::Snapshot;
use crate::store::{Progress, ViewStore};

const TAG: &[u8] = b"falaj.state.v1\0";
/// Entries between two calls of a progress callback.
const ENTRIES_PER_REPORT: u64 = 1 << 15;
const READAHEAD_BYTES: usize = 2 << 20;

/// What one column family holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyDigest {
    /// Which.
    pub family: Family,
    /// Number of entries.
    pub entries: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// SHA-256 over the tag and this family's entries, written as in the whole digest.
    pub digest: Hash256,
}

/// The digest of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDigest {
    /// SHA-256 over all entries.
    pub digest: Hash256,
    /// The same per column family, in audit order.
    pub families: Vec<FamilyDigest>,
    /// The epoch that was read.
    pub progress: Option<Progress>,
}

/// How far an audit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigestProgress {
    /// The column family being read.
    pub family: Family,
    /// Entries read so far, over all families.
    pub entries: u64,
    /// Bytes of keys and values read so far.
    pub bytes: u64,
    /// About how many entries there are.
    pub estimated_entries: u64,
}

/// An entry that two stores do not share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where.
    pub family: Family,
    /// The stored key.
    pub key: Vec<u8>,
    /// The value in this store, if any.
    pub here: Option<Vec<u8>>,
    /// The value in the other store, if any.
    pub there: Option<Vec<u8>>,
    /// The entry in words: view, partition, key, `T`.
    pub description: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |value: &Option<Vec<u8>>| match value {
            Some(value) => hex(value),
            None => "absent".to_owned(),
        };
        write!(f, "{}: here {}, there {}", self.description, side(&self.here), side(&self.there))
    }
}

/// What a comparison of two stores found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Entries compared.
    pub entries: u64,
    /// Number of entries that differ.
    pub differing: u64,
    /// The first of them, in audit order.
    pub first: Vec<Difference>,
}

impl Comparison {
    /// Whether the stores are equal, entry for entry.
    pub fn is_equal(&self) -> bool {
        self.differing == 0
    }
}

impl ViewStore {
    /// The digest of everything stored, at one epoch; writers may go on. `report` is called now and
    /// then.
    ///
    /// # Errors
    /// Damage or a storage failure.
    pub fn digest(&self, report: &mut dyn FnMut(DigestProgress)) -> Result<StateDigest, ViewError> {
        let snapshot = self.snapshot()?;
        let mut progress = DigestProgress {
            family: Family::Latest,
            entries: 0,
            bytes: 0,
            estimated_entries: self.estimated_entries()?,
        };
        let mut whole = Sha256::new_with_prefix(TAG);
        let mut families = Vec::with_capacity(Family::ALL.len());
        for family in Family::ALL {
            progress.family = family;
            report(progress);
            let before = progress;
            let mut part = Sha256::new_with_prefix(TAG);
            let mut entries = Entries::new(&snapshot, family)?;
            while let Some((key, value)) = entries.current()? {
                add_entry(&mut whole, family, key, value);
                add_entry(&mut part, family, key, value);
                progress.entries += 1;
                progress.bytes += length(key) + length(value);
                if progress.entries.is_multiple_of(ENTRIES_PER_REPORT) {
                    report(progress);
                }
                entries.iterator.next();
            }
            families.push(FamilyDigest {
                family,
                entries: progress.entries - before.entries,
                bytes: progress.bytes - before.bytes,
                digest: Hash256(part.finalize().into()),
            });
        }
        report(progress);
        Ok(StateDigest {
            digest: Hash256(whole.finalize().into()),
            families,
            progress: snapshot.progress(),
        })
    }

    /// Gives every entry to `visit`, in audit order and as the table above writes it, at one epoch.
    ///
    /// # Errors
    /// Damage or a storage failure.
    pub fn for_each_entry(&self, visit: &mut dyn FnMut(&[u8])) -> Result<(), ViewError> {
        let snapshot = self.snapshot()?;
        let mut written = Written::default();
        for family in Family::ALL {
            let mut entries = Entries::new(&snapshot, family)?;
            while let Some((key, value)) = entries.current()? {
                written.0.clear();
                add_entry(&mut written, family, key, value);
                visit(&written.0);
                entries.iterator.next();
            }
        }
        Ok(())
    }

    /// Compares this store with `other`, entry for entry, and describes the first `limit`
    /// differences.
    ///
    /// # Errors
    /// Damage or a storage failure in either store.
    pub fn compare(&self, other: &Self, limit: usize) -> Result<Comparison, ViewError> {
        let (here, there) = (self.snapshot()?, other.snapshot()?);
        let mut result = Comparison::default();
        for family in Family::ALL {
            let mut ours = Entries::new(&here, family)?;
            let mut theirs = Entries::new(&there, family)?;
            loop {
                let (left, right) = (ours.current()?, theirs.current()?);
                let order = match (left, right) {
                    (None, None) => break,
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                    (Some((left, _)), Some((right, _))) => left.cmp(right),
                };
                let left = left.filter(|_| order.is_le());
                let right = right.filter(|_| order.is_ge());
                result.entries += 1;
                if left != right {
                    result.differing += 1;
                    if result.first.len() < limit {
                        result.first.push(self.difference(family, left, right));
                    }
                }
                if order.is_le() {
                    ours.iterator.next();
                }
                if order.is_ge() {
                    theirs.iterator.next();
                }
            }
        }
        Ok(result)
    }

    fn difference(
        &self,
        family: Family,
        here: Option<Entry<'_>>,
        there: Option<Entry<'_>>,
    ) -> Difference {
        let key = here.or(there).map(|(key, _)| key).unwrap_or_default();
        Difference {
            family,
            key: key.to_vec(),
            here: here.map(|(_, value)| value.to_vec()),
            there: there.map(|(_, value)| value.to_vec()),
            description: self.describe(family, key),
        }
    }

    /// An entry's key in words.
    fn describe(&self, family: Family, stored: &[u8]) -> String {
        let name = family.name();
        let (row, t) = match family {
            Family::Latest => (stored, None),
            Family::History => match format::split_history_key(stored) {
                Some((row, t)) => (row, Some(t)),
                None => (stored, None),
            },
            Family::Progress => return format!("{name} `{}`", String::from_utf8_lossy(stored)),
            Family::Operator => return format!("{name} {}", hex(stored)),
        };
        let Some((head, key)) = row.split_first_chunk::<HEAD_BYTES>() else {
            return format!("{name} {}", hex(stored));
        };
        let [partition, id @ ..] = *head;
        let view = ViewId(id);
        let view =
            self.views.get(&view).map_or_else(|| format!("{view:?}"), |meta| meta.name.clone());
        let at = |t: LogTime| format!(", T {t}");
        let at = t.map(at).unwrap_or_default();
        format!("{name} of view `{view}`, partition {partition}, key {}{at}", hex(key))
    }

    pub(crate) fn estimated_entries(&self) -> Result<u64, ViewError> {
        let mut sum = 0;
        for family in Family::ALL {
            sum += self.property(family, rocksdb::properties::ESTIMATE_NUM_KEYS)?;
        }
        Ok(sum)
    }
}

/// A stored key and its value.
type Entry<'e> = (&'e [u8], &'e [u8]);

/// The entries of one column family at a snapshot.
struct Entries<'s> {
    store: &'s ViewStore,
    iterator: DBRawIterator<'s>,
}

impl<'s> Entries<'s> {
    fn new(snapshot: &Snapshot<'s>, family: Family) -> Result<Self, ViewError> {
        let store = snapshot.store();
        let mut options = snapshot.read_options();
        options.set_total_order_seek(true);
        options.fill_cache(false);
        options.set_verify_checksums(true);
        options.set_readahead_size(READAHEAD_BYTES);
        let mut iterator = store.db.raw_iterator_cf_opt(store.family(family)?, options);
        iterator.seek_to_first();
        Ok(Self { store, iterator })
    }

    fn current(&self) -> Result<Option<Entry<'_>>, ViewError> {
        let item = self.iterator.item();
        if item.is_none() {
            self.iterator.status().map_err(|error| self.store.fault("auditing", error))?;
        }
        Ok(item)
    }
}

/// Takes an entry's bytes.
trait Sink {
    fn add(&mut self, bytes: &[u8]);
}

impl Sink for Sha256 {
    fn add(&mut self, bytes: &[u8]) {
        self.update(bytes);
    }
}

/// An entry as it is written.
#[derive(Default)]
struct Written(Vec<u8>);

impl Sink for Written {
    fn add(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

fn add_entry(sink: &mut impl Sink, family: Family, key: &[u8], value: &[u8]) {
    let name = family.name().as_bytes();
    sink.add(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_be_bytes());
    sink.add(name);
    sink.add(&length(key).to_be_bytes());
    sink.add(key);
    sink.add(&length(value).to_be_bytes());
    sink.add(value);
}

fn length(bytes: &[u8]) -> u64 {
    bytes.len() as u64
}
