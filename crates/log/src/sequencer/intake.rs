//! One submission on its way through an epoch: what of it is new, what was refused, and the answer.
//!
//! Does not know threads or the log.

use falaj_event::LogTime;

use crate::admission::Candidate;
use crate::close::{Segment, rejection_segment, row_count, segment_of};
use crate::dedup::{Claim, Known, fate_runs, resolve_same_epoch};
use crate::epoch::{EpochRecord, ProducerEntry};
use crate::queue::{Pending, ReplyOnce};
use crate::submission::{
    Ack, AppendedRange, Duplicates, Prepared, PreparedRejections, RejectedRow, position_of,
};

/// A submission in the epoch that is being closed.
pub(super) struct Intake {
    pub(super) prepared: Prepared,
    pub(super) reply: ReplyOnce,
    claim: Option<Claim>,
    known: Known,
    /// First row of the batch that is new.
    pub(super) first_row: usize,
    /// What the admission refused: rows counted from `first_row`, with reasons.
    pub(super) refused: Vec<u32>,
    pub(super) reasons: Vec<Vec<String>>,
    pub(super) refused_rejections: Option<PreparedRejections>,
    /// Its rows' segment.
    pub(super) segment: usize,
}

impl Intake {
    pub(super) fn new(pending: Pending, claim: Option<Claim>, known: Known) -> Self {
        let Pending { prepared, reply, .. } = pending;
        let first_row = match &prepared.positions {
            Some(positions) => positions.partition_point(|position| *position < known.new_from),
            None => prepared.batch.num_rows().min(known.new_from as usize),
        };
        Self {
            prepared,
            reply,
            claim,
            known,
            first_row,
            refused: Vec::new(),
            reasons: Vec::new(),
            refused_rejections: None,
            segment: 0,
        }
    }

    pub(super) fn has_news(&self) -> bool {
        (self.known.new_from as usize) < self.prepared.origin.rows()
    }

    pub(super) fn moves_t(&self) -> bool {
        self.claim.is_some() && !self.prepared.schema.derived
    }

    pub(super) fn candidate(&self) -> Candidate<'_> {
        let rows = self.prepared.batch.num_rows() - self.first_row;
        Candidate {
            schema: &self.prepared.schema,
            origin: &self.prepared.origin,
            batch: self.prepared.batch.slice(self.first_row, rows),
            ops: &self.prepared.ops,
            positions: self.prepared.positions.as_deref(),
            first_row: self.first_row,
        }
    }

    pub(super) fn refused_position(&self, row: u32) -> u32 {
        position_of(self.prepared.positions.as_deref(), self.first_row + row as usize)
    }

    /// New rejected rows, those of the caller and those of the admission, ascending.
    fn rejected(&self) -> Vec<RejectedRow> {
        let told = |positions: &[u32], reasons: &[Vec<String>]| -> Vec<RejectedRow> {
            let pairs = positions.iter().zip(reasons);
            pairs
                .filter(|(position, _)| **position >= self.known.new_from)
                .map(|(position, reasons)| RejectedRow {
                    position: *position,
                    reasons: reasons.clone(),
                })
                .collect()
        };
        let mut all = (self.prepared.rejected.as_ref())
            .map(|rejections| told(&rejections.positions, &rejections.reasons))
            .unwrap_or_default();
        let refused: Vec<u32> =
            self.refused.iter().map(|row| self.refused_position(*row)).collect();
        all.extend(told(&refused, &self.reasons));
        all.sort_by_key(|row| row.position);
        all
    }

    pub(super) fn runs(&self) -> Vec<ProducerEntry> {
        let Some(claim) = self.claim else { return Vec::new() };
        let rejected: Vec<u32> = self.rejected().iter().map(|row| row.position).collect();
        fate_runs(claim, self.known.new_from, &rejected)
    }

    /// The answer, once the epoch is durable.
    pub(super) fn ack(
        &self,
        entry: Option<&EpochRecord>,
        producers: &[ProducerEntry],
        appended: &[(u32, u64, u32)],
    ) -> Ack {
        let mut duplicates = self.known.durable.clone();
        if let (Some(claim), Some(entry)) = (self.claim, entry) {
            let same = &self.known.same_epoch;
            duplicates.extend(resolve_same_epoch(claim, same, producers, entry.epoch, entry.t));
        }
        let mut rejected = self.rejected();
        let new_rows = row_count(self.prepared.origin.rows()) - self.known.new_from;
        let mut accepted = new_rows - row_count(rejected.len());
        for old in &duplicates {
            accepted += old.accepted;
            if old.accepted == 0 {
                let positions = old.position..old.position + old.count;
                rejected.extend(
                    positions.map(|position| RejectedRow { position, reasons: Vec::new() }),
                );
            }
        }
        rejected.sort_by_key(|row| row.position);
        let newest = duplicates.iter().max_by_key(|old| old.epoch);
        let (epoch, t) = match (entry, newest) {
            (Some(entry), _) if new_rows > 0 => (entry.epoch, entry.t),
            (_, Some(Duplicates { epoch, t, .. })) => (*epoch, *t),
            (Some(entry), None) => (entry.epoch, entry.t),
            (None, None) => (0, LogTime::default()),
        };
        let appended = appended
            .iter()
            .map(|(partition, first_offset, count)| AppendedRange {
                partition: *partition,
                first_offset: *first_offset,
                count: *count,
            })
            .collect();
        Ack { t, epoch, appended, accepted, rejected, duplicates }
    }
}

/// All rows of the epoch; tells each intake which segment its own rows are.
pub(super) fn segments(
    intakes: &mut [Intake],
    t: LogTime,
) -> Result<Vec<Segment>, arrow::error::ArrowError> {
    let mut segments = Vec::with_capacity(intakes.len());
    for intake in intakes.iter_mut() {
        intake.segment = segments.len();
        segments.push(segment_of(&intake.prepared, intake.first_row, &intake.refused)?);
    }
    for intake in intakes.iter() {
        let rejections = [&intake.prepared.rejected, &intake.refused_rejections];
        for rejections in rejections.into_iter().flatten() {
            segments.push(rejection_segment(rejections, intake.known.new_from, t)?);
        }
    }
    Ok(segments)
}
