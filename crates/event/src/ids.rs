//! Identities and coordinates: logical time `T`, event ids, operations, the total event order.
//!
//! Does not know how they are stored or who assigns them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::hash::{Hash256, domain_hash};

/// An event's own time: microseconds since 1970-01-01T00:00:00Z, possibly negative.
pub type EventTime = i64;

/// `T`, the logical time of an epoch: microseconds since 1970-01-01T00:00:00Z, strictly increasing
/// along one log.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct LogTime(pub u64);

impl LogTime {
    /// The same instant on the event-time axis, saturating at `i64::MAX`.
    pub fn as_event_time(self) -> EventTime {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

impl fmt::Display for LogTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What an event does to the row it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Op {
    /// A new fact on an event topic.
    Insert = 0,
    /// Replaces the row of the same primary key on a table topic, or creates it.
    Upsert = 1,
    /// Removes the row of the same primary key from a table topic.
    Delete = 2,
}

impl Op {
    /// The operation of a stored byte, or `None` for a byte no version has written.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Insert),
            1 => Some(Self::Upsert),
            2 => Some(Self::Delete),
            _ => None,
        }
    }
}

/// Names a topic in stored bytes: the first 16 bytes of a domain-separated SHA-256 of its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// The id of the topic called `name`; a pure function of the name.
    pub fn of(name: &str) -> Self {
        let digest = domain_hash(b"falaj.topic.v1", &[name.as_bytes()]);
        let mut id = [0; 16];
        id.copy_from_slice(&digest.0[..16]);
        Self(id)
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// Names one version of one view in `state/`: the first 8 bytes of its definition hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewId(pub [u8; 8]);

impl ViewId {
    /// The id of the view whose whole definition hashes to `definition`.
    pub fn of(definition: &Hash256) -> Self {
        let mut id = [0; 8];
        id.copy_from_slice(&definition.0[..8]);
        Self(id)
    }
}

impl fmt::Debug for ViewId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// A producer's stable 128-bit identity, chosen by the producer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub [u8; 16]);

impl ProducerId {
    /// A producer id from a human-chosen name: the first 16 bytes of its domain-separated hash.
    pub fn from_name(name: &str) -> Self {
        let digest = domain_hash(b"falaj.producer.v1", &[name.as_bytes()]);
        let mut id = [0; 16];
        id.copy_from_slice(&digest.0[..16]);
        Self(id)
    }
}

impl fmt::Debug for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// An event's identity, unique within a deployment.
///
/// Stored as 33 bytes: `0x00 ‖ producer id (16) ‖ sequence (u64 big-endian) ‖ 8 zero bytes`, or
/// `0x01 ‖ SHA-256 (32)` for an event that the platform derived itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventId {
    /// Given by a producer: its id and its own counter, which never repeats.
    Producer {
        /// Who produced it.
        producer: ProducerId,
        /// The producer's counter.
        sequence: u64,
    },
    /// Derived: SHA-256 of (definition hash, cause `T`, key, ordinal).
    Derived(Hash256),
}

/// Length of a stored [`EventId`] in bytes.
pub const EVENT_ID_BYTES: usize = 33;

impl EventId {
    /// The id of the `ordinal`-th event that `definition` derives for `key` from the epoch `cause`.
    pub fn derived(definition: &Hash256, cause: LogTime, key: &[u8], ordinal: u32) -> Self {
        Self::Derived(domain_hash(
            b"falaj.derived.v1",
            &[&definition.0, &cause.0.to_be_bytes(), key, &ordinal.to_be_bytes()],
        ))
    }

    /// The stored form.
    pub fn to_bytes(&self) -> [u8; EVENT_ID_BYTES] {
        let mut bytes = [0; EVENT_ID_BYTES];
        match self {
            Self::Producer { producer, sequence } => {
                bytes[1..17].copy_from_slice(&producer.0);
                bytes[17..25].copy_from_slice(&sequence.to_be_bytes());
            }
            Self::Derived(hash) => {
                bytes[0] = 1;
                bytes[1..].copy_from_slice(&hash.0);
            }
        }
        bytes
    }

    /// Reads the stored form; `None` where it is not one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first()?;
        match (tag, rest.len()) {
            (0, 32) => {
                let (producer, tail) = rest.split_first_chunk::<16>()?;
                let (sequence, zeros) = tail.split_first_chunk::<8>()?;
                zeros.iter().all(|byte| *byte == 0).then_some(Self::Producer {
                    producer: ProducerId(*producer),
                    sequence: u64::from_be_bytes(*sequence),
                })
            }
            (1, 32) => Some(Self::Derived(Hash256(rest.try_into().ok()?))),
            _ => None,
        }
    }
}

/// The total order of events: (event_time, `T`, partition, offset). It settles `first`, `last`,
/// ROWS frames and every tie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventOrder {
    /// The event's own time.
    pub event_time: EventTime,
    /// The epoch that it was appended in.
    pub t: LogTime,
    /// Its partition.
    pub partition: u32,
    /// Its offset in the partition.
    pub offset: u64,
}

/// Lower-case hexadecimal of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_ids_survive_the_stored_form() {
        let ids = [
            EventId::Producer { producer: ProducerId::from_name("till-7"), sequence: u64::MAX },
            EventId::derived(&Hash256([7; 32]), LogTime(9), b"key", 3),
        ];
        for id in ids {
            assert_eq!(EventId::from_bytes(&id.to_bytes()), Some(id));
        }
        assert_eq!(EventId::from_bytes(&[2; 33]), None);
        assert_eq!(EventId::from_bytes(&[0; 12]), None);
        let mut padded =
            EventId::Producer { producer: ProducerId([1; 16]), sequence: 1 }.to_bytes();
        padded[32] = 1;
        assert_eq!(EventId::from_bytes(&padded), None);
    }

    #[test]
    fn derived_ids_differ_by_every_part() {
        let base = EventId::derived(&Hash256([1; 32]), LogTime(1), b"k", 0);
        assert_ne!(base, EventId::derived(&Hash256([2; 32]), LogTime(1), b"k", 0));
        assert_ne!(base, EventId::derived(&Hash256([1; 32]), LogTime(2), b"k", 0));
        assert_ne!(base, EventId::derived(&Hash256([1; 32]), LogTime(1), b"l", 0));
        assert_ne!(base, EventId::derived(&Hash256([1; 32]), LogTime(1), b"k", 1));
    }

    #[test]
    fn the_total_order_compares_event_time_first() {
        let order = |event_time, t, partition, offset| EventOrder {
            event_time,
            t: LogTime(t),
            partition,
            offset,
        };
        assert!(order(1, 9, 9, 9) < order(2, 0, 0, 0));
        assert!(order(1, 1, 9, 9) < order(1, 2, 0, 0));
        assert!(order(1, 1, 1, 9) < order(1, 1, 2, 0));
        assert!(order(1, 1, 1, 1) < order(1, 1, 1, 2));
    }
}
