//! The sequencer's thread: effects around the pure decisions of [`crate::close`] and
//! [`crate::dedup`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use falaj_event::{Hash256, LogTime};
use falaj_vault::{Random, Vault};

use super::{Options, Parts, WallClock};
use crate::admission::{Admission, Candidate, Closing, Refusal};
use crate::clock::{Reach, choose_t};
use crate::close::{ClosedEpoch, EpochInputs, Segment, close_epoch, rejection_segment, segment_of};
use crate::contract::{Log, LogError};
use crate::dedup::{
    Claim, ClaimError, EpochClaims, Known, Newest, fate_runs, producer_table, resolve_same_epoch,
};
use crate::epoch::{ClockMode, EpochEntry, EpochRecord, ProducerEntry};
use crate::queue::{Gathered, Pending, Queue, ReplyOnce};
use crate::submission::{
    Ack, AppendedRange, Duplicates, Origin, Prepared, PreparedRejections, RejectedRow, Rejections,
    SubmitError, event_times, position_of,
};

/// Why the sequencer must stop.
struct Stop(String);

impl Stop {
    fn because(doing: &str) -> impl Fn(&dyn std::fmt::Display) -> Self {
        let doing = doing.to_owned();
        move |error| Self(format!("{doing}: {error}"))
    }
}

/// A submission in the epoch that is being closed.
struct Intake {
    prepared: Prepared,
    reply: ReplyOnce,
    claim: Option<Claim>,
    known: Known,
    /// First row of the batch that is new.
    first_row: usize,
    /// What the admission refused: rows counted from `first_row`, with reasons.
    refused: Vec<u32>,
    reasons: Vec<Vec<String>>,
    refused_rejections: Option<PreparedRejections>,
    /// Its rows' segment.
    segment: usize,
}

impl Intake {
    fn new(pending: Pending, claim: Option<Claim>, known: Known) -> Self {
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

    fn has_news(&self) -> bool {
        (self.known.new_from as usize) < self.prepared.origin.rows()
    }

    fn moves_t(&self) -> bool {
        self.claim.is_some() && !self.prepared.schema.derived
    }

    fn candidate(&self) -> Candidate<'_> {
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

    fn refused_position(&self, row: u32) -> u32 {
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

    fn runs(&self) -> Vec<ProducerEntry> {
        let Some(claim) = self.claim else { return Vec::new() };
        let rejected: Vec<u32> = self.rejected().iter().map(|row| row.position).collect();
        fate_runs(claim, self.known.new_from, &rejected)
    }

    /// The answer, once the epoch is durable.
    fn ack(
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

fn row_count(rows: usize) -> u32 {
    u32::try_from(rows).unwrap_or(u32::MAX)
}

pub(super) struct Worker {
    log: Arc<dyn Log>,
    vault: Arc<Vault>,
    admission: Box<dyn Admission>,
    clock: Arc<dyn WallClock>,
    random: Arc<dyn Random>,
    queue: Arc<Queue>,
    mode: ClockMode,
    term: u64,
    tick: Option<Duration>,
    definitions: Hash256,
    tail: Option<Arc<EpochEntry>>,
    newest: Newest,
}

impl Worker {
    pub(super) fn new(
        options: &Options,
        parts: Parts,
        queue: Arc<Queue>,
    ) -> Result<Self, LogError> {
        let tail = parts.log.tail();
        let current = tail.as_ref().map_or(0, |tail| tail.record.term);
        let term = options.term.unwrap_or(current + 1);
        if term < current {
            return Err(LogError::Fenced { current, got: term });
        }
        Ok(Self {
            log: parts.log,
            vault: parts.vault,
            admission: parts.admission,
            clock: parts.clock,
            random: parts.random,
            queue,
            mode: options.clock,
            term,
            tick: (options.clock == ClockMode::Wall)
                .then(|| Duration::from_micros(options.tick_us.max(1))),
            definitions: options.definitions,
            tail,
            newest: Newest::default(),
        })
    }

    pub(super) fn term(&self) -> u64 {
        self.term
    }

    pub(super) fn run(mut self) {
        let queue = Arc::clone(&self.queue);
        let outcome = catch_unwind(AssertUnwindSafe(|| self.serve()));
        let reason: Arc<str> = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(Stop(reason))) => reason.into(),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                format!("its thread panicked: {}", text.unwrap_or("no message")).into()
            }
        };
        queue.poison(&reason);
    }

    fn serve(&mut self) -> Result<(), Stop> {
        let mut last_close = Instant::now();
        loop {
            let tick_at = self.tick.map(|tick| last_close + tick);
            let Gathered { definitions, pending, last } = self.queue.gather(tick_at);
            if let Some(definitions) = definitions {
                self.definitions = definitions;
            }
            let ticked = tick_at.is_some_and(|at| at <= Instant::now());
            if (!pending.is_empty() || ticked) && self.epoch(pending, ticked)? {
                last_close = Instant::now();
            }
            if last {
                return Ok(());
            }
        }
    }

    /// Closes and writes one epoch and answers; returns whether there was anything to write.
    fn epoch(&mut self, pending: Vec<Pending>, ticked: bool) -> Result<bool, Stop> {
        let mut intakes = self.take(pending)?;
        let outcome = match ticked || intakes.iter().any(Intake::has_news) {
            true => self.write(&mut intakes).map(Some),
            false => Ok(None),
        };
        let closed = match outcome {
            Ok(closed) => closed,
            Err(Stop(reason)) => {
                let reason: Arc<str> = reason.into();
                // The queue first: whoever is told must find the sequencer stopped.
                self.queue.poison(&reason);
                for intake in intakes {
                    intake.reply.send(Err(SubmitError::Poisoned { reason: Arc::clone(&reason) }));
                }
                return Err(Stop(reason.to_string()));
            }
        };
        let entry = closed.as_ref().map(|closed| &closed.entry);
        let producers = entry.map_or(&[][..], |entry| &entry.producers);
        for intake in intakes {
            let ranges = closed.as_ref().and_then(|closed| closed.ranges.get(intake.segment));
            let ranges = ranges.map_or(&[][..], Vec::as_slice);
            let ack = intake.ack(entry.map(|entry| &entry.record), producers, ranges);
            intake.reply.send(Ok(ack));
        }
        Ok(closed.is_some())
    }

    /// Tells new sequences from old ones; answers those that cannot be taken.
    fn take(&mut self, pending: Vec<Pending>) -> Result<Vec<Intake>, Stop> {
        let mut claims = EpochClaims::default();
        let mut intakes = Vec::with_capacity(pending.len());
        for one in pending {
            let Origin::Producer { producer, first_sequence, sequences } = one.prepared.origin
            else {
                intakes.push(Intake::new(one, None, Known::default()));
                continue;
            };
            let topic = one.prepared.schema.id();
            let claim = Claim { producer, topic, first_sequence, count: sequences };
            match claims.claim(&*self.log, &mut self.newest, claim) {
                Ok(known) => intakes.push(Intake::new(one, Some(claim), known)),
                Err(ClaimError::Refused(error)) => one.reply.send(Err(error)),
                Err(ClaimError::Log(error)) => {
                    return Err(Stop::because("reading a producer's sequences")(&error));
                }
            }
        }
        Ok(intakes)
    }

    fn write(&mut self, intakes: &mut [Intake]) -> Result<ClosedEpoch, Stop> {
        let wall_clock_us = self.clock.now_us();
        let tail = self.tail.clone();
        let tail = tail.as_deref().map(|tail| &tail.record);
        let previous = tail.map(|tail| tail.t);
        let t = choose_t(self.mode, previous, wall_clock_us, self.reached(intakes, previous));
        let epoch = tail.map_or(0, |tail| tail.epoch + 1);
        self.admit(intakes, &Closing { epoch, t, clock: self.mode })?;
        let segments =
            segments(intakes, t).map_err(|error| Stop::because("cutting rows")(&error))?;
        let runs = intakes.iter().flat_map(Intake::runs).collect();
        let log = &*self.log;
        let closed = close_epoch(EpochInputs {
            term: self.term,
            t,
            clock: self.mode,
            wall_clock_us,
            definitions: self.definitions,
            tail,
            segments,
            producers: producer_table(runs),
            vault: &self.vault,
            random: &*self.random,
            next_offset: &|topic, partition| log.next_offset(topic, partition),
        })
        .map_err(|error| Stop::because("closing an epoch")(&error))?;
        self.commit(closed)
    }

    /// How far the events of `intakes` move an event clock.
    fn reached(&self, intakes: &[Intake], previous: Option<LogTime>) -> Option<i64> {
        if self.mode == ClockMode::Wall {
            return None;
        }
        let mut reach = Reach::after(previous);
        for intake in intakes.iter().filter(|intake| intake.moves_t()) {
            let schema = &intake.prepared.schema;
            let batch = intake.candidate().batch;
            let times = event_times(batch.column(schema.event_time)).unwrap_or_default();
            reach.add(times, self.admission.max_gap_us(schema.id()));
        }
        reach.reached()
    }

    fn admit(&mut self, intakes: &mut [Intake], closing: &Closing) -> Result<(), Stop> {
        let candidates: Vec<Candidate<'_>> = intakes.iter().map(Intake::candidate).collect();
        let refusals = self
            .admission
            .admit(closing, &candidates)
            .map_err(|error| Stop::because("admitting rows")(&error))?;
        drop(candidates);
        for refusal in refusals {
            let Refusal { candidate, rows, reasons, rejected } = refusal;
            let wrong = || Stop(format!("the admission refused impossible rows of {candidate}"));
            let intake = intakes.get_mut(candidate).ok_or_else(wrong)?;
            let count = row_count(intake.prepared.batch.num_rows() - intake.first_row);
            let fit = rows.is_sorted_by(|a, b| a < b) && rows.last().is_none_or(|row| *row < count);
            if !fit || reasons.len() != rows.len() || !intake.refused.is_empty() {
                return Err(wrong());
            }
            if let Some((schema, batch)) = rejected {
                let positions = rows.iter().map(|row| intake.refused_position(*row)).collect();
                let rejections =
                    Rejections { schema, batch, rows: rows.clone(), reasons: reasons.clone() };
                let origin = &intake.prepared.origin;
                let sealed = PreparedRejections::new(&self.vault, origin, rejections, positions)
                    .map_err(|error| Stop::because("sealing refused rows")(&error))?;
                intake.refused_rejections = Some(sealed);
            }
            (intake.refused, intake.reasons) = (rows, reasons);
        }
        Ok(())
    }

    fn commit(&mut self, mut closed: ClosedEpoch) -> Result<ClosedEpoch, Stop> {
        let doing = format!("writing epoch {}", closed.entry.record.epoch);
        let stop = |error: LogError| Stop::because(&doing)(&error);
        self.log.append(std::mem::take(&mut closed.blocks)).map_err(stop)?;
        self.log.commit(&closed.entry).map_err(stop)?;
        self.newest.committed(&closed.entry);
        self.admission.committed(&closed.entry.record);
        self.tail = Some(Arc::new(closed.entry.clone()));
        Ok(closed)
    }
}

/// All rows of the epoch; tells each intake which segment its own rows are.
fn segments(intakes: &mut [Intake], t: LogTime) -> Result<Vec<Segment>, arrow::error::ArrowError> {
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
