//! The thread that seals and writes closed epochs, in order, and answers their submissions.
//!
//! Why it is a thread of its own: sealing, writing and syncing one epoch takes about as long as
//! hashing the next. Does not know how an epoch is closed.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use falaj_vault::Vault;

use super::Stop;
use super::intake::Intake;
use crate::ahead::Ahead;
use crate::close::ClosedEpoch;
use crate::contract::LogError;
use crate::queue::{Queue, ReplyOnce};
use crate::submission::SubmitError;

/// An epoch to write, or nothing to write, and who waits for it.
#[derive(Default)]
pub(super) struct Job {
    pub(super) closed: Option<ClosedEpoch>,
    pub(super) intakes: Vec<Intake>,
    /// Whom to tell that their submission cannot be taken. What that rests on may be an epoch that is
    /// not durable yet, so they wait as well.
    pub(super) refused: Vec<(ReplyOnce, SubmitError)>,
}

impl Job {
    /// The answers, once everything is durable that they tell of.
    fn answer(self) {
        let Self { closed, intakes, refused } = self;
        let entry = closed.as_ref().map(|closed| &closed.entry);
        let producers = entry.map_or(&[][..], |entry| &entry.producers);
        for intake in intakes {
            let ranges = closed.as_ref().and_then(|closed| closed.ranges.get(intake.segment));
            let ranges = ranges.map_or(&[][..], Vec::as_slice);
            let ack = intake.ack(entry.map(|entry| &entry.record), producers, ranges);
            intake.reply.send(Ok(ack));
        }
        refused.into_iter().for_each(|(reply, error)| reply.send(Err(error)));
    }

    /// Tells everybody that the sequencer has stopped.
    pub(super) fn stop(self, reason: &Arc<str>) {
        let intakes = self.intakes.into_iter().map(|intake| intake.reply);
        for reply in intakes.chain(self.refused.into_iter().map(|(reply, _)| reply)) {
            reply.send(Err(SubmitError::Poisoned { reason: Arc::clone(reason) }));
        }
    }
}

/// What a thread that panicked said.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("its thread panicked: {}", text.unwrap_or("no message"))
}

pub(super) struct Committer {
    pub(super) ahead: Arc<Ahead>,
    pub(super) vault: Arc<Vault>,
    pub(super) queue: Arc<Queue>,
}

impl Committer {
    /// Goes on until the other end hangs up. After a failure nothing more is written: what was closed
    /// on top of it does not follow the log's tail.
    pub(super) fn run(self, jobs: Receiver<Job>) {
        let mut stopped: Option<Arc<str>> = None;
        for mut job in jobs {
            let written = match &stopped {
                Some(reason) => Err(Stop(reason.to_string())),
                None => catch_unwind(AssertUnwindSafe(|| self.write(&mut job)))
                    .unwrap_or_else(|panic| Err(Stop(panic_text(&*panic)))),
            };
            let answered = catch_unwind(AssertUnwindSafe(|| match written {
                Ok(()) => {
                    job.answer();
                    None
                }
                Err(Stop(reason)) => {
                    let reason: Arc<str> = reason.into();
                    // The queue first: whoever is told must find the sequencer stopped.
                    self.queue.poison(&reason);
                    job.stop(&reason);
                    Some(reason)
                }
            }));
            stopped = answered.unwrap_or_else(|panic| Some(self.panicked(&*panic))).or(stopped);
        }
    }

    /// A reply has panicked.
    fn panicked(&self, panic: &(dyn Any + Send)) -> Arc<str> {
        let reason: Arc<str> = panic_text(panic).into();
        // So may those that are told now.
        let _ = catch_unwind(AssertUnwindSafe(|| self.queue.poison(&reason)));
        reason
    }

    fn write(&self, job: &mut Job) -> Result<(), Stop> {
        let Some(closed) = &mut job.closed else { return Ok(()) };
        let doing = format!("writing epoch {}", closed.entry.record.epoch);
        let stop = |error: LogError| Stop::because(&doing)(&error);
        let blocks = std::mem::take(&mut closed.blocks).into_iter();
        let blocks = blocks.map(|block| block.seal(&self.vault)).collect::<Result<Vec<_>, _>>();
        let log = self.ahead.log();
        log.append(blocks.map_err(|error| Stop::because(&doing)(&error))?).map_err(stop)?;
        log.commit(&closed.entry).map_err(stop)?;
        self.ahead.committed();
        Ok(())
    }
}
