//! The bytes of `state/`: four column families, their keys and values.
//!
//! All integers are big-endian. `partition` is the key's logical partition
//! ([`falaj_event::logical_partition`]); `view` is the 8-byte [`ViewId`]; `key` is the canonical
//! encoding of the view's key columns, which is self-delimiting: no key of a view is a proper prefix
//! of another one.
//!
//! **`latest`**: the row of each key that has one.
//!
//! | part | bytes | content |
//! | --- | --- | --- |
//! | key | 1 | partition |
//! | | 8 | view |
//! | | … | key |
//! | value | 8 | `T` of the epoch that set the row |
//! | | … | the row, as in `history` |
//!
//! **`history`**: every change of a row within the view's `retain`, newest first.
//!
//! | part | bytes | content |
//! | --- | --- | --- |
//! | key | 1 | partition |
//! | | 8 | view |
//! | | … | key |
//! | | 8 | bitwise complement of `T` |
//! | value | 0 | the row was removed at `T`; or |
//! | | 8 | event time of the key's latest event, two's complement |
//! | | varint | length of what is foretold, in groups of seven bits, the lowest first |
//! | | … | what the passing of time will make of the columns ([`falaj_event::foretold`]) |
//! | | … | columns, packed ([`falaj_event::packing`]) |
//!
//! **`operator`**: operator state as of the operator progress; keys (which begin with a partition)
//! and values are the engine's.
//!
//! **`progress`**: a function of the log and the definitions, like everything else.
//!
//! | key | value |
//! | --- | --- |
//! | `format` | 4 bytes: version of this table, [`FORMAT_VERSION`] |
//! | `plan` | 32 bytes: hash of the plan set |
//! | `views` | for each view, by id: id (8), `retain` in microseconds (8) |
//! | `rows` | epoch (8), `T` (8) up to which `latest` and `history` are complete |
//! | `operator` | epoch (8), `T` (8) up to which `operator` is complete |
//! | `begins` | epoch (8), `T` (8) of the first epoch that was applied |
//!
//! Does not know RocksDB.

use falaj_event::encoding::{read_varint, write_varint};
use falaj_event::packing::pack_row;
use falaj_event::{EventTime, LogTime, ViewId, ViewRow, logical_partition};

use crate::store::{Progress, ViewMeta};

/// Version of the stored bytes; a store of another version is rebuilt.
pub const FORMAT_VERSION: u32 = 4;

/// Bytes before the view's key: partition and view.
pub(crate) const HEAD_BYTES: usize = 9;
/// Bytes after the view's key in `history`.
pub(crate) const TIME_BYTES: usize = 8;

/// `progress` keys.
pub(crate) const KEY_FORMAT: &[u8] = b"format";
pub(crate) const KEY_PLAN: &[u8] = b"plan";
pub(crate) const KEY_VIEWS: &[u8] = b"views";
pub(crate) const KEY_ROWS: &[u8] = b"rows";
pub(crate) const KEY_OPERATOR: &[u8] = b"operator";
pub(crate) const KEY_BEGINS: &[u8] = b"begins";

/// A column family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// The newest rows.
    Latest,
    /// All retained versions of rows.
    History,
    /// Operator state.
    Operator,
    /// Progress and identity of the store.
    Progress,
}

impl Family {
    /// All families, in the order in which they are audited.
    pub const ALL: [Self; 4] = [Self::Latest, Self::History, Self::Operator, Self::Progress];

    /// The name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::History => "history",
            Self::Operator => "operator",
            Self::Progress => "progress",
        }
    }
}

/// Overwrites `out` with partition and view.
pub(crate) fn head(partition: u8, view: ViewId, out: &mut Vec<u8>) {
    out.clear();
    push_head(partition, view, out);
}

/// Appends partition and view.
pub(crate) fn push_head(partition: u8, view: ViewId, out: &mut Vec<u8>) {
    out.push(partition);
    out.extend_from_slice(&view.0);
}

/// Appends a `latest` key to `out`.
pub(crate) fn push_latest_key(view: ViewId, key: &[u8], out: &mut Vec<u8>) {
    out.push(logical_partition(key));
    out.extend_from_slice(&view.0);
    out.extend_from_slice(key);
}

/// Appends the time of a `history` key.
pub(crate) fn push_time(t: LogTime, out: &mut Vec<u8>) {
    out.extend_from_slice(&(!t.0).to_be_bytes());
}

/// Splits a `history` key into (partition ‖ view ‖ key) and `T`; `None` where it is too short.
pub(crate) fn split_history_key(stored: &[u8]) -> Option<(&[u8], LogTime)> {
    let (name, time) = stored.split_last_chunk::<TIME_BYTES>()?;
    (name.len() >= HEAD_BYTES).then_some((name, LogTime(!u64::from_be_bytes(*time))))
}

/// A stored row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredRow<'v> {
    pub(crate) latest_event_time: EventTime,
    pub(crate) foretold: &'v [u8],
    /// Packed.
    pub(crate) columns: &'v [u8],
}

/// Splits a `latest` value into `T` and row.
pub(crate) fn split_latest_value(stored: &[u8]) -> Option<(LogTime, StoredRow<'_>)> {
    let (t, rest) = stored.split_first_chunk::<8>()?;
    Some((LogTime(u64::from_be_bytes(*t)), split_history_value(rest)?))
}

/// Splits a `history` value that is not a removal.
pub(crate) fn split_history_value(stored: &[u8]) -> Option<StoredRow<'_>> {
    let (event_time, mut rest) = stored.split_first_chunk::<8>()?;
    let length = usize::try_from(read_varint(&mut rest)?).ok()?;
    let (foretold, columns) = rest.split_at_checked(length)?;
    Some(StoredRow { latest_event_time: EventTime::from_be_bytes(*event_time), foretold, columns })
}

/// Appends a `history` value.
pub(crate) fn push_row(row: &ViewRow, out: &mut Vec<u8>) {
    out.extend_from_slice(&row.latest_event_time.to_be_bytes());
    write_varint(row.foretold.len() as u64, out);
    out.extend_from_slice(&row.foretold);
    pack_row(&row.columns, out);
}

/// A value of `rows` or `operator`.
pub(crate) fn progress_value(progress: Progress) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&progress.epoch.to_be_bytes());
    bytes[8..].copy_from_slice(&progress.t.0.to_be_bytes());
    bytes
}

/// Reads [`progress_value`].
pub(crate) fn parse_progress(bytes: &[u8]) -> Option<Progress> {
    let (epoch, t) = bytes.split_first_chunk::<8>()?;
    Some(Progress {
        epoch: u64::from_be_bytes(*epoch),
        t: LogTime(u64::from_be_bytes(t.try_into().ok()?)),
    })
}

/// The value of `views`; `views` must be sorted by id.
pub(crate) fn views_value<'a>(views: impl Iterator<Item = &'a ViewMeta>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for view in views {
        bytes.extend_from_slice(&view.id.0);
        bytes.extend_from_slice(&view.retain_us.to_be_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_bytes_are_read_back() {
        let view = ViewId([1, 2, 3, 4, 5, 6, 7, 8]);
        let mut key = Vec::new();
        push_latest_key(view, b"", &mut key);
        assert_eq!(key, [0xc2, 1, 2, 3, 4, 5, 6, 7, 8]);
        push_time(LogTime(0x0102), &mut key);
        assert_eq!(key[9..], [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xfd]);
        assert_eq!(split_history_key(&key), Some((&key[..9], LogTime(0x0102))));
        assert_eq!(split_history_key(&key[1..]), None);

        let mut value = vec![0, 0, 0, 0, 0, 0, 0, 9];
        let row = ViewRow { latest_event_time: -2, columns: vec![0x00], foretold: vec![7, 8] };
        push_row(&row, &mut value);
        let row = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 2, 7, 8, 0x00];
        assert_eq!(value[8..], row);
        let row = StoredRow { latest_event_time: -2, foretold: &[7, 8], columns: &[0] };
        assert_eq!(split_latest_value(&value), Some((LogTime(9), row)));
        assert_eq!(split_history_value(&value[8..]), Some(row));
        assert_eq!(split_history_value(b""), None);
        assert_eq!(split_latest_value(&value[..18]), None);

        let progress = Progress { epoch: 7, t: LogTime(300) };
        let bytes = [0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 1, 44];
        assert_eq!(progress_value(progress), bytes);
        assert_eq!(parse_progress(&bytes), Some(progress));
        assert_eq!(parse_progress(&bytes[..15]), None);

        let metas = [ViewMeta { id: view, name: "v".into(), retain_us: 256 }];
        assert_eq!(views_value(metas.iter()), [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 1, 0]);
    }
}
