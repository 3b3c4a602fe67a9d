//! The epoch record and the tables that it commits to: permanent bytes.
//!
//! Does not know how an epoch is assembled (see the sequencer) or stored.

use falaj_event::{Hash256, LogTime, ProducerId, TopicId};

use crate::contract::BlockId;

/// How `T` was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ClockMode {
    /// `T = max(T_prev + 1, wall clock at close)`.
    Wall = 0,
    /// `T = max(T_prev + 1, greatest event_time of the epoch's non-derived events)`.
    Event = 1,
}

/// The fixed-size record of one epoch: the Merkle leaf.
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
    /// SHA-256 of the encoded producer table.
    pub producers_hash: Hash256,
    /// Number of events in the epoch.
    pub events: u64,
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
    /// Number of events.
    pub count: u32,
    /// The blocks that hold them, in order (one unless a log cannot coalesce).
    pub blocks: Vec<BlockId>,
    /// RFC 6962 root over the event hashes.
    pub events_root: Hash256,
}

/// A range of one producer's sequences that an epoch carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerEntry {
    /// Who.
    pub producer: ProducerId,
    /// The topic that it produced to.
    pub topic: TopicId,
    /// First sequence of the range.
    pub first_sequence: u64,
    /// Number of sequences in the range.
    pub count: u32,
    /// How many of them were accepted (the others went to the rejected topic).
    pub accepted: u32,
}

/// An epoch as it is appended: the record and the tables that it commits to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochEntry {
    /// The record.
    pub record: EpochRecord,
    /// Partition table, sorted by (topic, partition).
    pub partitions: Vec<PartitionEntry>,
    /// Producer table, sorted by (producer, first sequence).
    pub producers: Vec<ProducerEntry>,
}
