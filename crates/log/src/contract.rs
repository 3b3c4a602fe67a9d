//! The `Log` contract: what every log (in memory, embedded, Fluvio) promises, and what none does.
//!
//! # Operations
//! [`Log::append`] stages sealed blocks; [`Log::commit`] appends the epoch entry that names them.
//! The two may be one write (embedded) or several (Fluvio): between them a block is invisible.
//! [`Log::cut`] removes a topic's old blocks for good.
//!
//! # Guarantees
//! * **Atomicity**: after `commit` returned `Ok`, and after any crash that follows, the entry and
//!   every block that it names are readable; after a crash before that, either all of them or none.
//! * **Order**: entries have dense numbers from 0, strictly increasing `T`, and each names the hash
//!   of its predecessor; a commit that does not continue the tail is refused and changes nothing.
//! * **Time**: an entry's `T` is what the sequencer chose by the rule of its clock mode ([`crate::clock`]):
//!   from the `T` before, and either the wall clock or how far the epoch's events may move an event
//!   clock. A log stores it and never chooses.
//! * **Offsets** exist only through entries: dense from 0 per (topic, partition).
//! * **Integrity**: bytes come back exactly as they were written, or an error names what is damaged.
//! * **Fencing**: an entry whose term is below the tail's is refused.
//! * **Cuts leave the proof**: what a cut removes are blocks. Every entry stays, and with it the chain
//!   of record hashes, `T`, offsets, event roots and producers' sequences, so what was cut can still
//!   be proved by whoever kept it, is never appended again, and is named when it is asked for. A cut
//!   is durable when it returns, never goes back, and holds after any crash whole or not at all; the
//!   space comes back later.
//!
//! # Not guaranteed
//! * Staged blocks that no entry names may vanish at any time, or stay as unreachable garbage.
//! * Nothing is promised about two processes that open one embedded log: the second is refused.
//! * No meaning: blocks are opaque bytes here, and whether anything still needs them is the caller's
//!   to know (see [`crate::baseline::may_cut`]).
//!
//! # Failure
//! An error from `commit` leaves the outcome unknown until the log is reopened; the caller must not
//! continue on the same handle. Every other error leaves the log as it was.

use std::sync::{Arc, Condvar, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use falaj_event::{Hash256, LogTime, ProducerId, TopicId};

use crate::epoch::EpochEntry;

/// A block's random 128-bit id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub [u8; 16]);

/// A sealed block on its way into the log.
#[derive(Clone, Debug)]
pub struct StagedBlock {
    /// Its topic.
    pub topic: TopicId,
    /// Its partition.
    pub partition: u32,
    /// Its id, unique for ever.
    pub id: BlockId,
    /// Header and sealed body.
    pub bytes: Arc<[u8]>,
}

/// Where an offset lives: what one epoch appended to its partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockLocation {
    /// The epoch that committed it.
    pub epoch: u64,
    /// That epoch's `T`.
    pub t: LogTime,
    /// The blocks, in order (one unless a log cannot coalesce).
    pub blocks: Vec<BlockId>,
    /// Offset of the first event in them.
    pub first_offset: u64,
    /// Number of events in them together.
    pub count: u32,
}

/// What became of a producer's sequence range (see [`crate::epoch::ProducerEntry`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerOutcome {
    /// The epoch that carried it.
    pub epoch: u64,
    /// That epoch's `T`.
    pub t: LogTime,
    /// The entry that covers the asked sequence.
    pub entry: crate::epoch::ProducerEntry,
}

/// Append-only storage of blocks and epoch entries. See the module's documentation for the contract.
pub trait Log: Send + Sync + 'static {
    /// Stages blocks for the next commit.
    ///
    /// # Errors
    /// When storage fails; nothing is staged then.
    fn append(&self, blocks: Vec<StagedBlock>) -> Result<(), LogError>;

    /// Appends `entry`, which names staged blocks, durably. Wakes waiting readers.
    ///
    /// # Errors
    /// [`LogError::Malformed`], [`LogError::NotTheTail`], [`LogError::Fenced`],
    /// [`LogError::MissingBlock`] (nothing changed; see [`check_continues`]) or a storage failure (outcome unknown until reopened).
    fn commit(&self, entry: &EpochEntry) -> Result<(), LogError>;

    /// The newest entry; `None` on an empty log.
    fn tail(&self) -> Option<Arc<EpochEntry>>;

    /// The entry with this number.
    ///
    /// # Errors
    /// When the stored bytes are damaged.
    fn entry(&self, epoch: u64) -> Result<Option<Arc<EpochEntry>>, LogError>;

    /// The newest entry with `T <= t`.
    ///
    /// # Errors
    /// When the stored bytes are damaged.
    fn entry_at(&self, t: LogTime) -> Result<Option<Arc<EpochEntry>>, LogError>;

    /// The bytes of a committed block.
    ///
    /// # Errors
    /// [`LogError::Cut`], [`LogError::MissingBlock`], or damage.
    fn block(&self, topic: TopicId, partition: u32, id: BlockId) -> Result<Arc<[u8]>, LogError>;

    /// The offset that the next event of this partition will have.
    fn next_offset(&self, topic: TopicId, partition: u32) -> u64;

    /// The blocks of the epoch that appended `offset`; `None` at or beyond [`Log::next_offset`].
    ///
    /// # Errors
    /// When the stored bytes are damaged.
    fn locate(
        &self,
        topic: TopicId,
        partition: u32,
        offset: u64,
    ) -> Result<Option<BlockLocation>, LogError>;

    /// What became of this producer's `sequence`, if any committed entry covers it.
    ///
    /// # Errors
    /// When the stored bytes are damaged.
    fn producer(
        &self,
        producer: ProducerId,
        sequence: u64,
    ) -> Result<Option<ProducerOutcome>, LogError>;

    /// The greatest sequence of this producer in any committed entry.
    ///
    /// # Errors
    /// When the stored bytes are damaged.
    fn last_sequence(&self, producer: ProducerId) -> Result<Option<u64>, LogError>;

    /// Removes for good the blocks that epochs below `first_kept` appended to `topic`, and returns the
    /// first epoch whose blocks of it are kept now: the newest epoch always is, and what an earlier
    /// cut removed stays so. Commits and reads may go on meanwhile.
    ///
    /// # Errors
    /// When storage fails: the cut may have happened or not, which [`Log::first_kept`] tells after the
    /// log was reopened.
    fn cut(&self, topic: TopicId, first_kept: u64) -> Result<u64, LogError>;

    /// The first epoch whose blocks of `topic` are kept; 0 where nothing was cut.
    fn first_kept(&self, topic: TopicId) -> u64;

    /// Blocks until an entry with a number above `epoch` (`None`: any entry) exists or `timeout`
    /// has passed; returns the tail's number.
    fn wait_beyond(&self, epoch: Option<u64>, timeout: Duration) -> Option<u64>;
}

/// [`Log::wait_beyond`] for logs in one process: `grown` is notified when the state behind `guard`, of
/// which `newest` tells the tail's number, has grown.
pub fn wait_until_grown<S>(
    mut guard: MutexGuard<'_, S>,
    grown: &Condvar,
    newest: impl Fn(&S) -> Option<u64>,
    epoch: Option<u64>,
    timeout: Duration,
) -> Option<u64> {
    let deadline = Instant::now().checked_add(timeout);
    loop {
        let newest = newest(&guard);
        let left = deadline.map_or(timeout, |at| at.saturating_duration_since(Instant::now()));
        if newest > epoch || left.is_zero() {
            return newest;
        }
        let woken = grown.wait_timeout(guard, left);
        guard = woken.unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// What every log checks before it commits `entry` after `tail`, given the partitions' next offsets.
/// Whether the named blocks are there is left to the log.
///
/// # Errors
/// [`LogError::Malformed`], [`LogError::Fenced`] or [`LogError::NotTheTail`].
pub fn check_continues(
    entry: &EpochEntry,
    tail: Option<&EpochEntry>,
    next_offset: impl Fn(TopicId, u32) -> u64,
) -> Result<(), LogError> {
    let record = &entry.record;
    let expected = tail.map_or(0, |tail| tail.record.epoch + 1);
    let refuse = |why: String| Err(LogError::NotTheTail { expected, got: record.epoch, why });
    if let Some(tail) = tail.filter(|tail| record.term < tail.record.term) {
        return Err(LogError::Fenced { current: tail.record.term, got: record.term });
    }
    if record.epoch != expected {
        return refuse("its number".into());
    }
    if let Some(tail) = tail.filter(|tail| record.t <= tail.record.t) {
        return refuse(format!("its T {} is not above {}", record.t, tail.record.t));
    }
    if record.previous != tail.map_or_else(Hash256::default, |tail| tail.record.hash()) {
        return refuse("the hash of its predecessor".into());
    }
    entry.check().map_err(|why| LogError::Malformed { epoch: record.epoch, why })?;
    for partition in &entry.partitions {
        let next = next_offset(partition.topic, partition.partition);
        if partition.first_offset != next {
            return refuse(format!(
                "partition {} of topic {:?} begins at offset {}, not {next}",
                partition.partition, partition.topic, partition.first_offset
            ));
        }
    }
    Ok(())
}

/// Why a log refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The entry does not continue the tail.
    #[error("epoch {got} does not continue the log, whose next epoch is {expected}: {why}")]
    NotTheTail {
        /// The number that would continue the log.
        expected: u64,
        /// The number that was offered.
        got: u64,
        /// Which link is broken: number, T, previous hash or offsets.
        why: String,
    },
    /// The entry's tables are not what its record commits to.
    #[error("epoch {epoch} is not well formed: {why}")]
    Malformed {
        /// Its number.
        epoch: u64,
        /// What is wrong.
        why: String,
    },
    /// Another sequencer with a higher term has taken over.
    #[error("term {got} is fenced off: the log is at term {current}; stop this sequencer")]
    Fenced {
        /// The tail's term.
        current: u64,
        /// The offered term.
        got: u64,
    },
    /// An entry names a block that is not there.
    #[error("block {block:?} of topic {topic:?} partition {partition} is not in the log")]
    MissingBlock {
        /// Topic.
        topic: TopicId,
        /// Partition.
        partition: u32,
        /// Block.
        block: BlockId,
    },
    /// A block that was removed by [`Log::cut`].
    #[error(
        "events of topic {topic:?} below epoch {first_kept} were cut from the log by its retention; \
         their hashes and roots are kept"
    )]
    Cut {
        /// Topic.
        topic: TopicId,
        /// The first epoch whose events are kept.
        first_kept: u64,
    },
    /// Bytes that are not what was written.
    #[error("{place} is damaged: {why}")]
    Damaged {
        /// File, epoch, topic, partition, block or byte: as exactly as is known.
        place: String,
        /// What does not fit.
        why: String,
    },
    /// The log ends before what was acknowledged.
    #[error(
        "the log ends at epoch {found:?} but epoch {acknowledged} (T {t}) was acknowledged: events \
         are missing; restore the log directory from a copy, do not write to it"
    )]
    Truncated {
        /// The newest entry found.
        found: Option<u64>,
        /// The newest entry that was acknowledged.
        acknowledged: u64,
        /// Its `T`.
        t: LogTime,
    },
    /// The storage below failed.
    #[error("the log's storage failed while {doing}: {source}")]
    Storage {
        /// The operation.
        doing: &'static str,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
