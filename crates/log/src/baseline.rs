//! Baselines: the logged snapshots below which the log may be cut.
//!
//! A baseline is a derived event on `falaj.baselines`, so it is sealed, hashed and Merkle-committed
//! like every other: it says that a snapshot of every view and table, as they were at the end of one
//! epoch, lies at a place and has a digest. Rebuild and replay of what was cut start there and name
//! the baseline that they trust.
//!
//! # Columns of `falaj.baselines`
//! | column | type | meaning |
//! | --- | --- | --- |
//! | `baseline` | binary, key | content hash of the snapshot: its name ([`snapshot_name`]) |
//! | `t` | timestamp, event time | `T_b`, the `T` of the epoch |
//! | `epoch` | uint64 | the epoch whose end the snapshot shows |
//! | `rows`, `bytes` | uint64 | its size |
//! | `root` | binary | RFC 6962 root over its rows in key order ([`SnapshotRoot`]) |
//! | `state_digest` | binary | SHA-256 of the ordered stream of (column family, key, value) |
//! | `location` | string | where it lies, relative to the data directory |
//! | `definitions` | binary | hash of the definitions that the views were built from |
//! | `wall_clock` | timestamp | when it was complete; informative |
//!
//! The epoch's record needs no naming: the event is itself in a later epoch of the same hash chain.
//!
//! Does not know how snapshots are made, moved or restored.

use arrow::array::Array;
use arrow::record_batch::RecordBatch;
use falaj_event::cells::Cells;
use falaj_event::hash::domain_hash;
use falaj_event::{EventId, Hash256, LogTime, TopicSchema, Value};

use crate::contract::{Log, LogError};
use crate::schemas::{TypedRowError, typed_rows};

/// The topic of baselines.
pub const BASELINES_TOPIC: &str = "falaj.baselines";

/// A snapshot of every view and table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Baseline {
    /// Content hash of the snapshot: its name.
    pub name: Hash256,
    /// The epoch whose end it shows.
    pub epoch: u64,
    /// That epoch's `T`.
    pub t: LogTime,
    /// Number of rows.
    pub rows: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// RFC 6962 root over its rows in key order.
    pub root: Hash256,
    /// SHA-256 of the ordered stream of (column family, key, value).
    pub state_digest: Hash256,
    /// Where it lies, relative to the data directory.
    pub location: String,
    /// Hash of the definitions in force.
    pub definitions: Hash256,
    /// When it was complete, microseconds since 1970 UTC. Informative.
    pub wall_clock_us: u64,
}

impl Baseline {
    fn column(&self, name: &str) -> Option<Value> {
        let hash = |hash: &Hash256| Value::Binary(hash.0.as_slice().into());
        Some(match name {
            "baseline" => hash(&self.name),
            "t" => Value::Timestamp(self.t.as_event_time()),
            "epoch" => Value::UInt(self.epoch),
            "rows" => Value::UInt(self.rows),
            "bytes" => Value::UInt(self.bytes),
            "root" => hash(&self.root),
            "state_digest" => hash(&self.state_digest),
            "location" => Value::String(self.location.as_str().into()),
            "definitions" => hash(&self.definitions),
            "wall_clock" => Value::Timestamp(LogTime(self.wall_clock_us).as_event_time()),
            _ => return None,
        })
    }

    /// The id of the event that records it: a baseline of one epoch is recorded once.
    pub fn event_id(&self) -> EventId {
        EventId::derived(&self.definitions, self.t, BASELINES_TOPIC.as_bytes(), 0)
    }

    /// One row of the topic `falaj.baselines`; columns that later versions add are NULL.
    ///
    /// # Errors
    /// When `schema` does not declare the columns above.
    pub fn to_batch(&self, schema: &TopicSchema) -> Result<RecordBatch, TypedRowError> {
        typed_rows(schema, 1, |name, _| self.column(name))
    }

    /// Reads a row of the topic back.
    ///
    /// # Errors
    /// Names the column that is missing or holds something else.
    pub fn from_batch(batch: &RecordBatch, row: usize) -> Result<Self, TypedRowError> {
        let value = |name: &str| {
            let column = batch.column_by_name(name).filter(|column| row < column.len());
            let cells = column.and_then(|column| Cells::new(column.as_ref()).ok());
            cells.map_or(Value::Null, |cells| cells.value(row))
        };
        let wrong = |name: &str, found: &Value| TypedRowError::Column {
            topic: BASELINES_TOPIC.to_owned(),
            column: name.to_owned(),
            why: format!("{found:?} is not its value"),
        };
        let number = |name: &str| match value(name) {
            Value::UInt(number) => Ok(number),
            other => Err(wrong(name, &other)),
        };
        let hash = |name: &str| match value(name) {
            Value::Binary(bytes) => (<[u8; 32]>::try_from(&*bytes).map(Hash256))
                .map_err(|_| wrong(name, &Value::Binary(bytes))),
            other => Err(wrong(name, &other)),
        };
        let time = |name: &str| match value(name) {
            Value::Timestamp(at) => {
                u64::try_from(at).map_err(|_| wrong(name, &Value::Timestamp(at)))
            }
            other => Err(wrong(name, &other)),
        };
        let location = match value("location") {
            Value::String(location) => location.to_string(),
            other => return Err(wrong("location", &other)),
        };
        Ok(Self {
            name: hash("baseline")?,
            epoch: number("epoch")?,
            t: LogTime(time("t")?),
            rows: number("rows")?,
            bytes: number("bytes")?,
            root: hash("root")?,
            state_digest: hash("state_digest")?,
            location,
            definitions: hash("definitions")?,
            wall_clock_us: time("wall_clock")?,
        })
    }

    /// Whether the log holds the epoch that this baseline shows, at the same `T`.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn is_of(&self, log: &dyn Log) -> Result<bool, LogError> {
        Ok(log.entry(self.epoch)?.is_some_and(|entry| entry.record.t == self.t))
    }
}

/// The `root` of a snapshot whose rows come one by one, in key order.
#[derive(Debug, Default)]
pub struct SnapshotRoot {
    tree: falaj_proof::Frontier,
    bytes: u64,
}

impl SnapshotRoot {
    /// Adds the next row, as it stands in the stream that `state_digest` is of.
    pub fn push(&mut self, row: &[u8]) {
        self.tree.push(falaj_proof::leaf_hash(row));
        self.bytes += row.len() as u64;
    }

    /// Number of rows so far.
    pub fn rows(&self) -> u64 {
        self.tree.size()
    }

    /// Their bytes together.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The root over them.
    pub fn root(&self) -> Hash256 {
        Hash256(self.tree.root())
    }
}

/// The name of a snapshot of the end of `epoch`: what its contents hash to.
pub fn snapshot_name(epoch: u64, state_digest: &Hash256, root: &Hash256) -> Hash256 {
    domain_hash(b"falaj.baseline.v1", &[&epoch.to_be_bytes(), &state_digest.0, &root.0])
}

/// A baseline and the epoch that logs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedBaseline {
    /// The baseline.
    pub baseline: Baseline,
    /// The epoch that carries its event; above the baseline's own.
    pub logged_in: u64,
}

/// Why the log may not be cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CutRefused {
    /// No baseline shows the end of what would go.
    #[error(
        "the log cannot be cut below epoch {first_kept}: the newest usable baseline shows {newest:?}; \
         take one of epoch {} or later first",
        first_kept.saturating_sub(1)
    )]
    NoBaseline {
        /// The first epoch that would stay.
        first_kept: u64,
        /// The epoch of the newest usable baseline.
        newest: Option<u64>,
    },
}

/// Whether all epochs below `first_kept` may be removed, and the baseline that the rest then rests on.
///
/// A baseline permits it when it shows `first_kept - 1` or a later epoch, so that nothing between it
/// and what stays is lost, and when the event that logs it stays itself. Of several the newest is
/// given. Cutting nothing (`first_kept` 0) needs none. The caller has checked the snapshot's digest.
///
/// # Errors
/// [`CutRefused::NoBaseline`].
pub fn may_cut(
    baselines: &[LoggedBaseline],
    first_kept: u64,
) -> Result<Option<&LoggedBaseline>, CutRefused> {
    let Some(last_removed) = first_kept.checked_sub(1) else { return Ok(None) };
    let usable = |logged: &&LoggedBaseline| {
        logged.logged_in > logged.baseline.epoch && logged.logged_in >= first_kept
    };
    let newest = baselines.iter().filter(usable).max_by_key(|logged| logged.baseline.epoch);
    match newest {
        Some(logged) if logged.baseline.epoch >= last_removed => Ok(Some(logged)),
        other => Err(CutRefused::NoBaseline {
            first_kept,
            newest: other.map(|logged| logged.baseline.epoch),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{column, payments};

    fn topic() -> TopicSchema {
        TopicSchema {
            name: BASELINES_TOPIC.into(),
            columns: vec![
                column("baseline", "binary", false),
                column("t", "timestamp", false),
                column("epoch", "uint64", false),
                column("rows", "uint64", false),
                column("bytes", "uint64", false),
                column("root", "binary", false),
                column("state_digest", "binary", false),
                column("location", "string", false),
                column("definitions", "binary", false),
                column("wall_clock", "timestamp", false),
                column("added_later", "string", true),
            ],
            key: vec![0],
            event_time: 1,
            subject: None,
            derived: true,
            ..payments(1)
        }
    }

    fn baseline(epoch: u64, logged_in: u64) -> LoggedBaseline {
        let baseline = Baseline {
            name: Hash256([1; 32]),
            epoch,
            t: LogTime(epoch * 10),
            rows: 17,
            bytes: 4096,
            root: Hash256([4; 32]),
            state_digest: Hash256([3; 32]),
            location: format!("baselines/{epoch}"),
            definitions: Hash256([2; 32]),
            wall_clock_us: 99,
        };
        LoggedBaseline { baseline, logged_in }
    }

    #[test]
    fn baselines_survive_their_topic() {
        let baseline = baseline(41, 43).baseline;
        let batch = baseline.to_batch(&topic()).unwrap();
        assert_eq!(Baseline::from_batch(&batch, 0).unwrap(), baseline);
        assert!(Baseline::from_batch(&batch, 1).is_err());
        let error = Baseline::from_batch(&batch.project(&[0, 1, 2]).unwrap(), 0).unwrap_err();
        assert!(error.to_string().contains("location"), "{error}");
        let mut wrong = topic();
        wrong.columns[2].column_type = "int64".parse().unwrap();
        assert!(baseline.to_batch(&wrong).unwrap_err().to_string().contains("`epoch`"));
    }

    #[test]
    fn a_snapshot_is_committed_to_row_by_row() {
        let mut root = SnapshotRoot::default();
        assert_eq!(root.root().0, falaj_proof::empty_root());
        for row in [b"one".as_slice(), b"two", b"three"] {
            root.push(row);
        }
        let rows = [b"one".as_slice(), b"two", b"three"];
        let tree = falaj_proof::MerkleTree::from_leaves(rows);
        assert_eq!((root.rows(), root.bytes(), root.root().0), (3, 11, tree.root()));
        let name = snapshot_name(4, &Hash256([1; 32]), &root.root());
        assert_ne!(name, snapshot_name(5, &Hash256([1; 32]), &root.root()));
        assert_ne!(name, snapshot_name(4, &Hash256([2; 32]), &root.root()));
    }

    #[test]
    fn nothing_is_cut_without_a_baseline() {
        assert_eq!(may_cut(&[], 0), Ok(None));
        assert_eq!(may_cut(&[], 1), Err(CutRefused::NoBaseline { first_kept: 1, newest: None }));
        let both = [baseline(10, 12), baseline(20, 23)];
        for (first_kept, trusted) in [(1, 20), (11, 20), (21, 20)] {
            let logged = may_cut(&both, first_kept).unwrap().unwrap();
            assert_eq!(logged.baseline.epoch, trusted, "first kept {first_kept}");
        }
        let refused = may_cut(&both, 22).unwrap_err();
        assert_eq!(refused, CutRefused::NoBaseline { first_kept: 22, newest: Some(20) });
        assert!(refused.to_string().contains("take one of epoch 21 or later"));
        // Its own event would be cut away.
        assert!(may_cut(&[baseline(30, 12)], 11).is_err());
        assert_eq!(may_cut(&both[..1], 11).unwrap(), Some(&both[0]));
    }
}
