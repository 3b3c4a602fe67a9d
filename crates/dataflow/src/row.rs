//! The one row type that flows between operators, and its packed forms.
//!
//! Why it exists: one concrete type (row, `u64` time, `isize` difference) keeps the engine's generic
//! dependencies compiled once. It does not know what the bytes mean to a plan.

use falaj_event::{EventOrder, LogTime};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use timely::dataflow::Stream;

/// Canonical bytes, inline when short.
pub(crate) type Bytes = SmallVec<[u8; 24]>;

/// A row on its way: `key` decides where it is processed, `order` is the event's place in the total
/// order, `cells` the canonical encoding of its columns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) key: Bytes,
    pub(crate) order: EventOrder,
    pub(crate) cells: Bytes,
}

/// A row, the `T` at which it changes, and by how much.
pub(crate) type Change = (Row, u64, isize);

/// A stream of changes.
pub(crate) type Rows<'scope> = Stream<'scope, u64, Vec<Change>>;

/// Length of a packed [`EventOrder`].
pub(crate) const ORDER_BYTES: usize = 28;

/// `order` in 28 bytes that compare as it does.
pub(crate) fn pack_order(order: &EventOrder) -> [u8; ORDER_BYTES] {
    let mut out = [0; ORDER_BYTES];
    let event_time = order.event_time.cast_unsigned() ^ (1 << 63);
    out[..8].copy_from_slice(&event_time.to_be_bytes());
    out[8..16].copy_from_slice(&order.t.0.to_be_bytes());
    out[16..20].copy_from_slice(&order.partition.to_be_bytes());
    out[20..].copy_from_slice(&order.offset.to_be_bytes());
    out
}

/// Reads what [`pack_order`] wrote, and the bytes behind it.
pub(crate) fn unpack_order(bytes: &[u8]) -> Option<(EventOrder, &[u8])> {
    let (event_time, rest) = bytes.split_first_chunk::<8>()?;
    let (t, rest) = rest.split_first_chunk::<8>()?;
    let (partition, rest) = rest.split_first_chunk::<4>()?;
    let (offset, rest) = rest.split_first_chunk::<8>()?;
    let order = EventOrder {
        event_time: (u64::from_be_bytes(*event_time) ^ (1 << 63)).cast_signed(),
        t: LogTime(u64::from_be_bytes(*t)),
        partition: u32::from_be_bytes(*partition),
        offset: u64::from_be_bytes(*offset),
    };
    Some((order, rest))
}

/// `key` and `cells` in one: the key's length (u32 big-endian), the key, the cells.
pub(crate) fn pack_pair(key: &[u8], cells: &[u8], out: &mut impl Extend<u8>) {
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    out.extend(length.to_be_bytes());
    out.extend(key.iter().copied());
    out.extend(cells.iter().copied());
}

/// Reads what [`pack_pair`] wrote.
pub(crate) fn unpack_pair(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_orders_compare_and_come_back() {
        let order = |event_time, t, partition, offset| EventOrder {
            event_time,
            t: LogTime(t),
            partition,
            offset,
        };
        let orders = [
            order(i64::MIN, 0, 0, 0),
            order(-1, 9, 1, 1),
            order(0, 1, 0, 7),
            order(0, 1, 1, 0),
            order(0, 2, 0, 0),
            order(i64::MAX, u64::MAX, u32::MAX, u64::MAX),
        ];
        for pair in orders.windows(2) {
            assert!(pack_order(&pair[0]) < pack_order(&pair[1]));
        }
        for one in orders {
            let mut bytes = pack_order(&one).to_vec();
            bytes.extend(b"rest");
            assert_eq!(unpack_order(&bytes), Some((one, b"rest".as_slice())));
        }
        assert_eq!(unpack_order(&[0; 27]), None);
    }

    #[test]
    fn packed_pairs_come_back() {
        let mut bytes = Vec::new();
        pack_pair(b"key", b"cells", &mut bytes);
        assert_eq!(unpack_pair(&bytes), Some((b"key".as_slice(), b"cells".as_slice())));
        assert_eq!(unpack_pair(&[0, 0, 0, 9, 1]), None);
    }
}
