//! The last decision about rows, taken when an epoch closes and `T` and the order are known: what
//! is implemented elsewhere (skew beyond `T`, uniqueness over time, deletes of missing keys).
//!
//! Does not know any rule.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use falaj_event::{EventId, LogTime, Op, TopicId, TopicSchema};

use crate::epoch::{ClockMode, EpochRecord};
use crate::submission::{Ops, Origin, position_of};

/// The epoch that is being closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Its number.
    pub epoch: u64,
    /// Its `T`.
    pub t: LogTime,
    /// How `t` was chosen.
    pub clock: ClockMode,
}

/// Rows of one submission that will be appended unless they are refused now. Candidates, and rows
/// in them, are in the order in which they will be appended.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// The topic, in the version that the batch was made under.
    pub schema: &'a Arc<TopicSchema>,
    /// Source and ids.
    pub origin: &'a Origin,
    /// Rows in declared types, under [`crate::schemas::row_schema`].
    pub batch: RecordBatch,
    pub(crate) ops: &'a Ops,
    pub(crate) positions: Option<&'a [u32]>,
    /// Rows of the submission's batch that come before `batch`.
    pub(crate) first_row: usize,
}

impl Candidate<'_> {
    /// Operation of a row of `batch`.
    pub fn op(&self, row: usize) -> Op {
        self.ops.get(self.first_row + row)
    }

    /// Position of a row of `batch` in its source's batch.
    pub fn position(&self, row: usize) -> u32 {
        position_of(self.positions, self.first_row + row)
    }

    /// Event id of a row of `batch`.
    pub fn event_id(&self, row: usize) -> EventId {
        self.origin.event_id(self.position(row))
    }
}

/// Rows of one candidate that must not be appended.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Index of the candidate.
    pub candidate: usize,
    /// Rows of its batch, ascending.
    pub rows: Vec<u32>,
    /// Every reason, per row.
    pub reasons: Vec<Vec<String>>,
    /// The rejected topic and one row for it per refused row, in declared types (the event-time
    /// column is overwritten with `T`); `None` where the topic has none.
    pub rejected: Option<(Arc<TopicSchema>, RecordBatch)>,
}

/// An admission that could not decide. The sequencer stops.
pub type AdmissionError = Box<dyn std::error::Error + Send + Sync>;

/// Decides at close which rows are refused.
pub trait Admission: Send + 'static {
    /// Refuses rows of `candidates`, at most one refusal per candidate. What it remembers of the
    /// rows that it lets pass becomes true only with [`Admission::closed`].
    ///
    /// # Errors
    /// When it cannot decide; nothing is appended then and the sequencer stops.
    fn admit(
        &mut self,
        closing: &Closing,
        candidates: &[Candidate<'_>],
    ) -> Result<Vec<Refusal>, AdmissionError>;

    /// The longest silence after which an event of `topic` still moves an event clock, in
    /// microseconds; `None`: any. Asked before `T` is chosen (see [`crate::clock`]).
    fn max_gap_us(&self, topic: TopicId) -> Option<u64> {
        let _ = topic;
        None
    }

    /// The epoch of the last [`Admission::admit`] is closed (epochs without candidates too): it will be
    /// durable before any that comes after it, or the sequencer stops.
    fn closed(&mut self, record: &EpochRecord) {
        let _ = record;
    }
}

/// Refuses nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct AdmitAll;

impl Admission for AdmitAll {
    fn admit(
        &mut self,
        _closing: &Closing,
        _candidates: &[Candidate<'_>],
    ) -> Result<Vec<Refusal>, AdmissionError> {
        Ok(Vec::new())
    }
}
