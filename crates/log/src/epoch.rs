//! The epoch record and the tables that it commits to: permanent bytes.
//!
//! Integers are big-endian. A reader of one format version reads all older ones.
//!
//! # Epoch record (the Merkle leaf; 176 bytes in version 1)
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic `46 4c 4a 45` ("FLJE") |
//! | 4 | 1 | format version, 1 |
//! | 5 | 1 | clock mode: 0 wall, 1 event |
//! | 6 | 2 | length of the extension fields, 0 to 4096 |
//! | 8 | 8 | term |
//! | 16 | 8 | epoch number |
//! | 24 | 8 | `T`, microseconds since 1970 UTC |
//! | 32 | 8 | wall clock at close, microseconds since 1970 UTC |
//! | 40 | 8 | number of events |
//! | 48 | 32 | hash of the definitions in force |
//! | 80 | 32 | hash of the previous record; zeros for epoch 0 |
//! | 112 | 32 | RFC 6962 root over the encoded partition entries |
//! | 144 | 32 | producers hash: `domain_hash("falaj.producers.v1", [producer table])` |
//! | 176 | n | extension fields: tag (2), length (2), payload; tags ascend; unknown ones are skipped |
//!
//! A record's hash is `domain_hash("falaj.epoch.v1", [all its bytes])`.
//!
//! # Partition entry (a leaf of the partition table's tree)
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 16 | topic id |
//! | 16 | 4 | partition |
//! | 20 | 8 | offset of the first event |
//! | 28 | 4 | number of events |
//! | 32 | 32 | RFC 6962 root whose leaves are the 32-byte event hashes in offset order |
//! | 64 | 2 | number of blocks, b |
//! | 66 | 2 | length of the extension fields |
//! | 68 | 16 b | block ids |
//! | 68 + 16 b | n | extension fields, as above |
//!
//! # Producer table
//! Number of entries (4), bytes per entry (2, at least 48; what lies beyond 48 is skipped), entries:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 16 | producer id |
//! | 16 | 16 | topic id |
//! | 32 | 8 | first sequence |
//! | 40 | 4 | number of sequences |
//! | 44 | 4 | how many of them were accepted: all or none |
//!
//! # Epoch entry (what a log stores)
//! Length of the record (4), record, number of partition entries (4), for each its length (4) and
//! its bytes, producer table to the end.
//!
//! Does not know how an epoch is assembled (see the sequencer) or stored.

use std::sync::OnceLock;

use falaj_event::hash::domain_hash;
use falaj_event::{Hash256, LogTime, ProducerId, TopicId};

use crate::bytes::{Cursor, Extensions, FormatError};
use crate::contract::BlockId;
use crate::merkle;

const MAGIC: &[u8; 4] = b"FLJE";
const VERSION: u8 = 1;
const RECORD_BYTES: usize = 176;
const PARTITION_BYTES: usize = 68;
const PRODUCER_BYTES: u16 = 48;

/// How `T` was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ClockMode {
    /// `T = max(T_prev + 1, wall clock at close)`.
    Wall = 0,
    /// `T = max(T_prev + 1, greatest event_time of the epoch's non-derived events)`.
    Event = 1,
}

/// The record of one epoch: the Merkle leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochRecord {
    /// Fencing term of the sequencer that wrote it.
    pub term: u64,
    /// Number, dense from 0.
    pub epoch: u64,
    /// Logical time.
    pub t: LogTime,
    /// How `t` was chosen.
    pub clock: ClockMode,
    /// Wall clock at close, microseconds since 1970 UTC. Informative.
    pub wall_clock_us: u64,
    /// Hash of the definitions in force.
    pub definitions: Hash256,
    /// Hash of the previous record's bytes; zeros for epoch 0.
    pub previous: Hash256,
    /// RFC 6962 root over the encoded partition entries.
    pub partitions_root: Hash256,
    /// Hash of the encoded producer table.
    pub producers_hash: Hash256,
    /// Number of events in the epoch.
    pub events: u64,
    /// Fields of later format versions; empty in what this version writes.
    pub extensions: Extensions,
}

/// What an epoch appended to one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionEntry {
    /// Topic.
    pub topic: TopicId,
    /// Partition.
    pub partition: u32,
    /// Offset of the first event.
    pub first_offset: u64,
    /// Number of events, at least 1.
    pub count: u32,
    /// The blocks that hold them, in order (one unless a log cannot coalesce).
    pub blocks: Vec<BlockId>,
    /// RFC 6962 root over the event hashes.
    pub events_root: Hash256,
    /// Fields of later format versions; empty in what this version writes.
    pub extensions: Extensions,
}

/// A run of one producer's sequences that an epoch carried and that shared one fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerEntry {
    /// Who.
    pub producer: ProducerId,
    /// The topic that it produced to.
    pub topic: TopicId,
    /// First sequence of the run.
    pub first_sequence: u64,
    /// Number of sequences in the run, at least 1.
    pub count: u32,
    /// How many of them were accepted: `count`, or 0 when they went to the rejected topic.
    pub accepted: u32,
}

/// An epoch as it is appended: the record and the tables that it commits to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochEntry {
    /// The record.
    pub record: EpochRecord,
    /// Partition table, sorted by (topic, partition).
    pub partitions: Vec<PartitionEntry>,
    /// Producer table, sorted by (producer, first sequence), runs disjoint.
    pub producers: Vec<ProducerEntry>,
}

/// The topic that epoch records themselves make up; never in an epoch's own table.
pub fn epochs_topic() -> TopicId {
    static ID: OnceLock<TopicId> = OnceLock::new();
    *ID.get_or_init(|| TopicId::of("falaj.epochs"))
}

impl EpochRecord {
    /// The permanent bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(RECORD_BYTES + self.extensions.as_bytes().len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[VERSION, self.clock as u8]);
        out.extend_from_slice(&self.extensions.length().to_be_bytes());
        for field in [self.term, self.epoch, self.t.0, self.wall_clock_us, self.events] {
            out.extend_from_slice(&field.to_be_bytes());
        }
        for hash in [&self.definitions, &self.previous, &self.partitions_root, &self.producers_hash]
        {
            out.extend_from_slice(&hash.0);
        }
        out.extend_from_slice(self.extensions.as_bytes());
        out
    }

    /// Reads the permanent bytes.
    ///
    /// # Errors
    /// Names the byte at which they stop being a record.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new("epoch record", bytes);
        cursor.magic(MAGIC, VERSION)?;
        let clock = match cursor.u8()? {
            0 => ClockMode::Wall,
            1 => ClockMode::Event,
            other => return Err(cursor.fail(format!("clock mode {other} is unknown"))),
        };
        let extension_bytes = usize::from(cursor.u16()?);
        let (term, epoch, t) = (cursor.u64()?, cursor.u64()?, LogTime(cursor.u64()?));
        let (wall_clock_us, events) = (cursor.u64()?, cursor.u64()?);
        let definitions = Hash256(cursor.take()?);
        let previous = Hash256(cursor.take()?);
        let partitions_root = Hash256(cursor.take()?);
        let producers_hash = Hash256(cursor.take()?);
        let extensions = Extensions::decode(cursor.slice(extension_bytes)?)?;
        cursor.end()?;
        Ok(Self {
            term,
            epoch,
            t,
            clock,
            wall_clock_us,
            definitions,
            previous,
            partitions_root,
            producers_hash,
            events,
            extensions,
        })
    }

    /// What the next record names as its predecessor.
    pub fn hash(&self) -> Hash256 {
        domain_hash(b"falaj.epoch.v1", &[&self.encode()])
    }
}

impl PartitionEntry {
    /// The permanent bytes: a leaf of the partition table's tree.
    pub fn encode(&self) -> Vec<u8> {
        let extensions = self.extensions.as_bytes();
        let length = PARTITION_BYTES + 16 * self.blocks.len() + extensions.len();
        let mut out = Vec::with_capacity(length);
        out.extend_from_slice(&self.topic.0);
        out.extend_from_slice(&self.partition.to_be_bytes());
        out.extend_from_slice(&self.first_offset.to_be_bytes());
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(&self.events_root.0);
        let blocks = u16::try_from(self.blocks.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&blocks.to_be_bytes());
        out.extend_from_slice(&self.extensions.length().to_be_bytes());
        for block in &self.blocks {
            out.extend_from_slice(&block.0);
        }
        out.extend_from_slice(extensions);
        out
    }

    /// Reads the permanent bytes.
    ///
    /// # Errors
    /// Names the byte at which they stop being a partition entry.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new("partition entry", bytes);
        let topic = TopicId(cursor.take()?);
        let (partition, first_offset, count) = (cursor.u32()?, cursor.u64()?, cursor.u32()?);
        let events_root = Hash256(cursor.take()?);
        let block_count = usize::from(cursor.u16()?);
        let extension_bytes = usize::from(cursor.u16()?);
        let mut blocks = Vec::with_capacity(block_count.min(bytes.len() / 16));
        for _ in 0..block_count {
            blocks.push(BlockId(cursor.take()?));
        }
        let extensions = Extensions::decode(cursor.slice(extension_bytes)?)?;
        cursor.end()?;
        Ok(Self { topic, partition, first_offset, count, blocks, events_root, extensions })
    }

    /// The offset after its last event.
    pub fn end_offset(&self) -> u64 {
        self.first_offset.saturating_add(u64::from(self.count))
    }
}

impl ProducerEntry {
    /// The run's last sequence.
    pub fn last_sequence(&self) -> u64 {
        self.first_sequence.saturating_add(u64::from(self.count.saturating_sub(1)))
    }

    /// Whether the run covers `sequence`.
    pub fn covers(&self, sequence: u64) -> bool {
        (self.first_sequence..=self.last_sequence()).contains(&sequence)
    }
}

/// The root that a record states over its partition table.
pub fn partitions_root(partitions: &[PartitionEntry]) -> Hash256 {
    merkle::root(partitions.iter().map(PartitionEntry::encode))
}

/// The permanent bytes of a producer table.
pub fn encode_producers(producers: &[ProducerEntry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(6 + producers.len() * usize::from(PRODUCER_BYTES));
    out.extend_from_slice(&count_field(producers.len()).to_be_bytes());
    out.extend_from_slice(&PRODUCER_BYTES.to_be_bytes());
    for entry in producers {
        out.extend_from_slice(&entry.producer.0);
        out.extend_from_slice(&entry.topic.0);
        out.extend_from_slice(&entry.first_sequence.to_be_bytes());
        out.extend_from_slice(&entry.count.to_be_bytes());
        out.extend_from_slice(&entry.accepted.to_be_bytes());
    }
    out
}

/// The hash that a record states over its encoded producer table.
pub fn producers_hash(table: &[u8]) -> Hash256 {
    domain_hash(b"falaj.producers.v1", &[table])
}

fn count_field(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn decode_producers(cursor: &mut Cursor<'_>) -> Result<Vec<ProducerEntry>, FormatError> {
    let count = cursor.u32()? as usize;
    let entry_bytes = cursor.u16()?;
    if entry_bytes < PRODUCER_BYTES {
        return Err(cursor.fail(format!("producer entries of {entry_bytes} bytes are too short")));
    }
    if count.saturating_mul(usize::from(entry_bytes)) != cursor.left() {
        return Err(cursor.fail(format!("{count} producer entries do not fill the rest")));
    }
    let mut producers = Vec::with_capacity(count);
    for _ in 0..count {
        producers.push(ProducerEntry {
            producer: ProducerId(cursor.take()?),
            topic: TopicId(cursor.take()?),
            first_sequence: cursor.u64()?,
            count: cursor.u32()?,
            accepted: cursor.u32()?,
        });
        cursor.slice(usize::from(entry_bytes - PRODUCER_BYTES))?;
    }
    Ok(producers)
}

impl EpochEntry {
    /// The permanent bytes.
    pub fn encode(&self) -> Vec<u8> {
        let record = self.record.encode();
        let mut out = Vec::with_capacity(record.len() + 12 + self.partitions.len() * 88);
        out.extend_from_slice(&count_field(record.len()).to_be_bytes());
        out.extend_from_slice(&record);
        out.extend_from_slice(&count_field(self.partitions.len()).to_be_bytes());
        for partition in &self.partitions {
            let bytes = partition.encode();
            out.extend_from_slice(&count_field(bytes.len()).to_be_bytes());
            out.extend_from_slice(&bytes);
        }
        out.extend_from_slice(&encode_producers(&self.producers));
        out
    }

    /// Reads the permanent bytes and checks the tables against the record.
    ///
    /// # Errors
    /// Names the byte that no writer wrote, or the commitment that does not hold.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new("epoch entry", bytes);
        let record_bytes = cursor.count(1)?;
        let record = EpochRecord::decode(cursor.slice(record_bytes)?)?;
        let count = cursor.count(4 + PARTITION_BYTES)?;
        let mut partitions = Vec::with_capacity(count);
        let mut leaves = Vec::with_capacity(count);
        for _ in 0..count {
            let length = cursor.count(1)?;
            let leaf = cursor.slice(length)?;
            partitions.push(PartitionEntry::decode(leaf)?);
            leaves.push(leaf);
        }
        if merkle::root(leaves) != record.partitions_root {
            return Err(cursor.fail("the partition table does not have the record's root"));
        }
        if producers_hash(&bytes[cursor.at()..]) != record.producers_hash {
            return Err(cursor.fail("the producer table does not have the record's hash"));
        }
        let producers = decode_producers(&mut cursor)?;
        let entry = Self { record, partitions, producers };
        entry.check_shape().map_err(|why| cursor.fail(why))?;
        Ok(entry)
    }

    /// Checks that the tables are what the record commits to and that they are well formed.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        self.check_shape()?;
        if partitions_root(&self.partitions) != self.record.partitions_root {
            return Err("the partition table does not have the record's root".into());
        }
        if producers_hash(&encode_producers(&self.producers)) != self.record.producers_hash {
            return Err("the producer table does not have the record's hash".into());
        }
        Ok(())
    }

    fn check_shape(&self) -> Result<(), String> {
        let mut events = 0_u64;
        for entry in &self.partitions {
            let name = || format!("partition {} of topic {:?}", entry.partition, entry.topic);
            if entry.topic == epochs_topic() {
                return Err("falaj.epochs is in its own partition table".into());
            }
            if entry.count == 0 || entry.blocks.is_empty() || entry.blocks.len() > 0xFFFF {
                return Err(format!("{}: no events or no blocks, or too many", name()));
            }
            if entry.first_offset.checked_add(u64::from(entry.count)).is_none() {
                return Err(format!("{}: offsets overflow", name()));
            }
            events += u64::from(entry.count);
        }
        if !self.partitions.is_sorted_by(|a, b| (a.topic, a.partition) < (b.topic, b.partition)) {
            return Err("the partition table is not sorted by (topic, partition)".into());
        }
        if events != self.record.events {
            return Err(format!("{events} events in the tables, {} stated", self.record.events));
        }
        for entry in &self.producers {
            let whole = entry.accepted == entry.count || entry.accepted == 0;
            let end = entry.first_sequence.checked_add(u64::from(entry.count));
            if entry.count == 0 || !whole || end.is_none() {
                return Err(format!("producer {:?}: an impossible run {entry:?}", entry.producer));
            }
        }
        let apart = |a: &ProducerEntry, b: &ProducerEntry| {
            a.producer < b.producer
                || (a.producer == b.producer && a.last_sequence() < b.first_sequence)
        };
        if !self.producers.is_sorted_by(apart) {
            return Err("the producer table is not sorted or its runs overlap".into());
        }
        Ok(())
    }

    /// What this epoch appended to one partition.
    pub fn partition(&self, topic: TopicId, partition: u32) -> Option<&PartitionEntry> {
        self.partitions
            .binary_search_by_key(&(topic, partition), |entry| (entry.topic, entry.partition))
            .ok()
            .and_then(|index| self.partitions.get(index))
    }
}

#[cfg(test)]
pub(crate) mod tests;
