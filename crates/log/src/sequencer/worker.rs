//! The sequencer's thread: effects around the pure decisions of [`crate::close`] and
//! [`crate::dedup`]. What it closes is written by another thread ([`super::committer`]).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use falaj_event::{Hash256, LogTime};
use falaj_vault::{Random, Vault};

use super::committer::{Job, panic_text};
use super::intake::{Intake, segments};
use super::{Options, Parts, Stop, WallClock};
use crate::admission::{Admission, Candidate, Closing, Refusal};
use crate::ahead::Ahead;
use crate::clock::{Reach, choose_t};
use crate::close::{ClosedEpoch, EpochInputs, close_epoch, row_count};
use crate::contract::LogError;
use crate::dedup::{Claim, ClaimError, EpochClaims, Known, Newest, producer_table};
use crate::epoch::{ClockMode, EpochEntry};
use crate::queue::{Gathered, Pending, Queue};
use crate::submission::{Origin, PreparedRejections, Rejections, SubmitError, event_times};

pub(super) struct Worker {
    ahead: Arc<Ahead>,
    jobs: SyncSender<Job>,
    vault: Arc<Vault>,
    admission: Box<dyn Admission>,
    clock: Arc<dyn WallClock>,
    random: Arc<dyn Random>,
    queue: Arc<Queue>,
    mode: ClockMode,
    term: u64,
    tick: Option<Duration>,
    definitions: Hash256,
    /// The epoch closed last.
    tail: Option<Arc<EpochEntry>>,
    newest: Newest,
}

impl Worker {
    pub(super) fn new(
        options: &Options,
        parts: Parts,
        ahead: Arc<Ahead>,
        queue: Arc<Queue>,
        jobs: SyncSender<Job>,
    ) -> Result<Self, LogError> {
        let tail = ahead.log().tail();
        let current = tail.as_ref().map_or(0, |tail| tail.record.term);
        let term = options.term.unwrap_or(current + 1);
        if term < current {
            return Err(LogError::Fenced { current, got: term });
        }
        Ok(Self {
            ahead,
            jobs,
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

    /// Closes epochs until the queue ends; then lets `committer` end, and waits for it.
    pub(super) fn run(mut self, committer: JoinHandle<()>) {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.serve()));
        let stopped = match outcome {
            Ok(outcome) => outcome.err().map(|Stop(reason)| reason),
            Err(panic) => Some(panic_text(&*panic)),
        };
        if let Some(reason) = stopped {
            // A reply may panic.
            let _ = catch_unwind(AssertUnwindSafe(|| self.queue.poison(&reason.into())));
        }
        drop(self);
        // It has caught its own panics, and told of them.
        let _ = committer.join();
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

    /// Closes one epoch and hands it over; returns whether there was anything to write. Answers that
    /// tell of older epochs only go the same way: those may still be on theirs.
    fn epoch(&mut self, pending: Vec<Pending>, ticked: bool) -> Result<bool, Stop> {
        let mut job = Job::default();
        let outcome = self.take(pending, &mut job).and_then(|()| {
            let is_due = ticked || job.intakes.iter().any(Intake::has_news);
            is_due.then(|| self.close(&mut job.intakes)).transpose()
        });
        match outcome {
            Ok(closed) => job.closed = closed,
            Err(Stop(reason)) => {
                let reason: Arc<str> = reason.into();
                // The queue first: whoever is told must find the sequencer stopped.
                self.queue.poison(&reason);
                job.stop(&reason);
                return Err(Stop(reason.to_string()));
            }
        }
        let is_new = job.closed.is_some();
        let sent = self.jobs.send(job);
        sent.map_err(|_| Stop("the thread that writes epochs is gone".to_owned()))?;
        Ok(is_new)
    }

    /// Tells new sequences from old ones, and what cannot be taken from what can.
    fn take(&mut self, pending: Vec<Pending>, job: &mut Job) -> Result<(), Stop> {
        let mut claims = EpochClaims::default();
        let mut pending = pending.into_iter();
        while let Some(one) = pending.next() {
            let Origin::Producer { producer, first_sequence, sequences } = one.prepared.origin
            else {
                job.intakes.push(Intake::new(one, None, Known::default()));
                continue;
            };
            let topic = one.prepared.schema.id();
            let claim = Claim { producer, topic, first_sequence, count: sequences };
            match claims.claim(&self.ahead, &mut self.newest, claim) {
                Ok(known) => job.intakes.push(Intake::new(one, Some(claim), known)),
                Err(ClaimError::Refused(error)) => job.refused.push((one.reply, error)),
                Err(ClaimError::Log(error)) => {
                    let all = std::iter::once(one).chain(pending);
                    job.refused.extend(all.map(|one| (one.reply, SubmitError::Closed)));
                    return Err(Stop::because("reading a producer's sequences")(&error));
                }
            }
        }
        Ok(())
    }

    fn close(&mut self, intakes: &mut [Intake]) -> Result<ClosedEpoch, Stop> {
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
        let ahead = &*self.ahead;
        let closed = close_epoch(EpochInputs {
            term: self.term,
            t,
            clock: self.mode,
            wall_clock_us,
            definitions: self.definitions,
            tail,
            segments,
            producers: producer_table(runs),
            random: &*self.random,
            next_offset: &|topic, partition| ahead.next_offset(topic, partition),
        })
        .map_err(|error| Stop::because("closing an epoch")(&error))?;
        let entry = Arc::new(closed.entry.clone());
        self.newest.closed(&entry);
        self.admission.closed(&entry.record);
        self.ahead.closed(Arc::clone(&entry));
        self.tail = Some(entry);
        Ok(closed)
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
}
