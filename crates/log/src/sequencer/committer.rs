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
use super::ahead::Ahead;
use super::intake::Intake;
use crate::close::ClosedEpoch;
use crate::contract::LogError;
use crate::queue::Queue;
use crate::submission::SubmitError;

/// An epoch to write, or nothing to write, and who waits for it.
pub(super) struct Job {
    pub(super) closed: Option<ClosedEpoch>,
    pub(super) intakes: Vec<Intake>,
}

impl Job {
    /// The answers, once everything is durable that they tell of.
    fn answer(self) {
        let Self { closed, intakes } = self;
        let entry = closed.as_ref().map(|closed| &closed.entry);
        let producers = entry.map_or(&[][..], |entry| &entry.producers);
        for intake in intakes {
            let ranges = closed.as_ref().and_then(|closed| closed.ranges.get(intake.segment));
            let ranges = ranges.map_or(&[][..], Vec::as_slice);
            let ack = intake.ack(entry.map(|entry| &entry.record), producers, ranges);
            intake.reply.send(Ok(ack));
        }
    }
}

/// Tells everybody that the sequencer has stopped.
pub(super) fn refuse(intakes: Vec<Intake>, reason: &Arc<str>) {
    for intake in intakes {
        intake.reply.send(Err(SubmitError::Poisoned { reason: Arc::clone(reason) }));
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
            if let Some(reason) = &stopped {
                refuse(job.intakes, reason);
                continue;
            }
            let written = catch_unwind(AssertUnwindSafe(|| self.write(&mut job)))
                .unwrap_or_else(|panic| Err(Stop(panic_text(&*panic))));
            let reason = match written {
                Ok(()) => match catch_unwind(AssertUnwindSafe(|| job.answer())) {
                    Ok(()) => continue,
                    Err(panic) => self.stop(panic_text(&*panic)),
                },
                Err(Stop(reason)) => {
                    // The queue first: whoever is told must find the sequencer stopped.
                    let reason = self.stop(reason);
                    refuse(job.intakes, &reason);
                    reason
                }
            };
            stopped = Some(reason);
        }
    }

    fn stop(&self, reason: String) -> Arc<str> {
        let reason: Arc<str> = reason.into();
        self.queue.poison(&reason);
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
