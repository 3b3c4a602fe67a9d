//! Names of column families, keys and small values (the byte tables stand in the crate's page).
//!
//! Does not know when they are written.

use falaj_event::{LogTime, ProducerId, TopicId};
use falaj_log::{BlockId, ProducerEntry};

pub(crate) const EPOCHS: &str = "epochs";
pub(crate) const TIMES: &str = "times";
pub(crate) const OFFSETS: &str = "offsets";
pub(crate) const BLOCKS: &str = "blocks";
pub(crate) const PLACES: &str = "places";
pub(crate) const PRODUCERS: &str = "producers";
pub(crate) const META: &str = "default";

/// Every column family of the store.
pub(crate) const FAMILIES: [&str; 7] = [META, EPOCHS, TIMES, OFFSETS, BLOCKS, PLACES, PRODUCERS];

pub(crate) const FORMAT_KEY: &[u8] = b"format";
pub(crate) const VERIFIED_KEY: &[u8] = b"verified";
pub(crate) const FORMAT: u32 = 1;

/// The key of a topic's cut.
pub(crate) fn cut_key(topic: TopicId) -> [u8; 20] {
    join(&[b"cut.", &topic.0])
}

/// The key of how far a topic's cut has been carried out.
pub(crate) fn swept_key(topic: TopicId) -> [u8; 22] {
    join(&[b"swept.", &topic.0])
}

/// Two fields, or more, one after the other.
fn join<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut out = [0; N];
    let mut at = 0;
    for part in parts {
        out[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    out
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_be_bytes(field.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(field.try_into().ok()?))
}

pub(crate) fn topic_at(bytes: &[u8], at: usize) -> Option<TopicId> {
    Some(TopicId(bytes.get(at..at.checked_add(16)?)?.try_into().ok()?))
}

/// A value or key that is one number.
pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    if bytes.len() == 8 { u64_at(bytes, 0) } else { None }
}

pub(crate) fn partition_prefix(topic: TopicId, partition: u32) -> [u8; 20] {
    join(&[&topic.0, &partition.to_be_bytes()])
}

pub(crate) fn offset_key(topic: TopicId, partition: u32, first_offset: u64) -> [u8; 28] {
    join(&[&topic.0, &partition.to_be_bytes(), &first_offset.to_be_bytes()])
}

/// What an epoch appended at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetRow {
    pub(crate) epoch: u64,
    pub(crate) count: u32,
}

impl OffsetRow {
    pub(crate) fn encode(self) -> [u8; 12] {
        join(&[&self.epoch.to_be_bytes(), &self.count.to_be_bytes()])
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let row = Self { epoch: u64_at(bytes, 0)?, count: u32_at(bytes, 8)? };
        (bytes.len() == 12).then_some(row)
    }
}

pub(crate) fn place_key(topic: TopicId, partition: u32, block: BlockId) -> [u8; 36] {
    join(&[&topic.0, &partition.to_be_bytes(), &block.0])
}

/// The key of the block whose row in `places` holds `place`.
pub(crate) fn block_key(place: &[u8; 12], block: BlockId) -> [u8; 28] {
    join(&[place, &block.0])
}

/// The `ordinal`-th block that `epoch` names.
pub(crate) fn place(epoch: u64, ordinal: u32) -> [u8; 12] {
    join(&[&epoch.to_be_bytes(), &ordinal.to_be_bytes()])
}

pub(crate) fn producer_key(producer: ProducerId, sequence: u64) -> [u8; 24] {
    join(&[&producer.0, &sequence.to_be_bytes()])
}

/// What became of a run of sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerRow {
    pub(crate) epoch: u64,
    pub(crate) t: LogTime,
    pub(crate) entry: ProducerEntry,
}

impl ProducerRow {
    pub(crate) fn encode(&self) -> [u8; 40] {
        join(&[
            &self.epoch.to_be_bytes(),
            &self.t.0.to_be_bytes(),
            &self.entry.topic.0,
            &self.entry.count.to_be_bytes(),
            &self.entry.accepted.to_be_bytes(),
        ])
    }

    pub(crate) fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        if key.len() != 24 || value.len() != 40 {
            return None;
        }
        Some(Self {
            epoch: u64_at(value, 0)?,
            t: LogTime(u64_at(value, 8)?),
            entry: ProducerEntry {
                producer: ProducerId(key.get(..16)?.try_into().ok()?),
                topic: topic_at(value, 16)?,
                first_sequence: u64_at(key, 16)?,
                count: u32_at(value, 32)?,
                accepted: u32_at(value, 36)?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_documented_bytes() {
        let topic = TopicId([7; 16]);
        assert_eq!(offset_key(topic, 1, 2)[16..], [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(place(3, 4), [0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4]);
        let row = OffsetRow { epoch: 5, count: 6 };
        assert_eq!(row.encode(), [0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 6]);
        assert_eq!(OffsetRow::decode(&row.encode()), Some(row));
        assert_eq!(OffsetRow::decode(&row.encode()[1..]), None);
        let row = ProducerRow {
            epoch: 1,
            t: LogTime(2),
            entry: ProducerEntry {
                producer: ProducerId([9; 16]),
                topic,
                first_sequence: 3,
                count: 4,
                accepted: 0,
            },
        };
        let key = producer_key(ProducerId([9; 16]), 3);
        assert_eq!(ProducerRow::decode(&key, &row.encode()), Some(row));
        assert_eq!(ProducerRow::decode(&key[1..], &row.encode()), None);
        assert_eq!(number(&[0; 9]), None);
    }
}
