//! The life of one worker thread: build, take commands, step, hand in, stop.
//!
//! Does not know plans beyond handing them to the builder.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use falaj_definitions::plan::ViewPlan;
use timely::dataflow::operators::probe::Handle as Probe;
use timely::scheduling::activate::SyncActivations;
use timely::worker::Worker;

use super::{Command, Queue, Resume};
use crate::context::{Context, Tick};
use crate::error::EngineError;
use crate::metrics::Metrics;
use crate::sink::Desk;
use crate::source::{EpochInput, Sources};

/// What all workers start from.
pub(super) struct Crew {
    pub(super) desk: Arc<Desk>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) queues: Vec<Arc<Queue>>,
    pub(super) plans: Vec<Arc<ViewPlan>>,
    pub(super) resume: Option<Resume>,
    pub(super) built: Mutex<Sender<(usize, SyncActivations)>>,
}

/// A parked worker looks around this often in case a wake-up was lost with a worker that died.
const PARKED_AT_MOST: Duration = Duration::from_millis(500);

impl Crew {
    /// Runs one worker until it is told to stop or somebody fails. A panic is reported and ends
    /// every worker; none is left waiting.
    pub(super) fn work(&self, worker: &mut Worker) {
        let index = worker.index();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.live(worker))) {
            let message = message_of(panic.as_ref());
            self.desk.fail(EngineError::Panicked { worker: index, message });
        }
        // Closing inputs would complete every future time; dropping dataflows completes nothing.
        let clear =
            || worker.installed_dataflows().into_iter().for_each(|d| worker.drop_dataflow(d));
        if let Err(panic) = catch_unwind(AssertUnwindSafe(clear)) {
            let message = message_of(panic.as_ref());
            self.desk.fail(EngineError::Panicked { worker: index, message });
        }
    }

    fn live(&self, worker: &mut Worker) {
        let index = worker.index();
        let report = Report {
            index,
            wake: worker.activations().borrow().sync(),
            built: self.built.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        let context = Context::new(Arc::clone(&self.metrics));
        let probe = Probe::new();
        let built =
            super::build::build(worker, &self.plans, self.resume.as_ref(), &context, &probe);
        let sources = match built {
            Ok(sources) => sources,
            Err(error) => return self.desk.fail(error),
        };
        let mut life = Life { crew: self, context, probe, sources, under_way: BTreeMap::new() };
        if let Some(resume) = &self.resume {
            life.hydrate(worker, resume.t.0);
        }
        drop(report);
        life.run(worker, &self.queues[index]);
        // The dataflow goes first, then its inputs: the other way round everything would expire.
        worker.installed_dataflows().into_iter().for_each(|d| worker.drop_dataflow(d));
    }
}

/// Tells the engine that this worker is built, or has failed to be, when dropped.
struct Report {
    index: usize,
    wake: SyncActivations,
    built: Sender<(usize, SyncActivations)>,
}

impl Drop for Report {
    fn drop(&mut self) {
        let _ = self.built.send((self.index, self.wake.clone()));
    }
}

struct Life<'a> {
    crew: &'a Crew,
    context: Rc<Context>,
    probe: Probe<u64>,
    sources: Sources,
    /// Epochs that this worker has let in and not handed in, by `T`; `false` for hydration.
    under_way: BTreeMap<u64, bool>,
}

impl Life<'_> {
    fn run(&mut self, worker: &mut Worker, queue: &Queue) {
        loop {
            while let Some(command) = queue.pop() {
                match command {
                    Command::Stop => return,
                    Command::Epoch { input, previous, checkpoint } => {
                        self.let_in(&input, previous, checkpoint);
                    }
                }
            }
            worker.step_or_park(Some(PARKED_AT_MOST));
            self.hand_in();
            if let Some(error) = self.context.failure() {
                self.crew.desk.fail(error);
            }
            if self.crew.desk.has_failed() {
                return;
            }
        }
    }

    /// Every worker lets every epoch in, so that no frontier passes an epoch that some worker has
    /// not heard of.
    fn let_in(&mut self, input: &EpochInput, previous: Option<u64>, checkpoint: bool) {
        let t = input.t.0;
        self.context.register(Tick { t, previous, checkpoint, hydrate: false });
        self.under_way.insert(t, true);
        let fed = self.sources.feed(input, &self.crew.metrics);
        self.context.check(fed);
        self.sources.pass(t);
    }

    fn hydrate(&mut self, worker: &mut Worker, t: u64) {
        let tick = Tick { t, previous: None, checkpoint: false, hydrate: true };
        self.context.register(tick);
        self.under_way.insert(t, false);
        self.sources.pass(t);
        while self.probe.less_equal(&t) && !self.crew.desk.has_failed() {
            worker.step_or_park(Some(PARKED_AT_MOST));
        }
        self.hand_in();
    }

    /// Hands in what the dataflow is done with on every worker.
    fn hand_in(&mut self) {
        while let Some((&t, &counts)) = self.under_way.first_key_value() {
            if self.probe.less_equal(&t) || self.context.failure().is_some() {
                return;
            }
            self.under_way.remove(&t);
            let part = self.context.finish(t);
            if counts && self.crew.desk.hand_in(t, part) {
                Metrics::count(&self.crew.metrics.epochs, 1);
            }
        }
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
