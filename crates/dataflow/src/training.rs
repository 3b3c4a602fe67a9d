//! Training sets *as corrected*: what the rows of views were at given moments, from everything that is
//! known now and happened before them.
//!
//! Why it exists: a model is trained on rows as they would be served at a label's moment, had every
//! event come in time. A row asked for at moment `q` is the view's row at `T = q` over the events with
//! `event_time < q`, whatever epoch brought them; so no event at or after `q` can change it.
//!
//! Views over events (ASOF joins included) are swept key by key ([`Sweep`](crate::group)); views that
//! react to changing tables or to other views are replayed through the engine, one step per moment.
//! Both run the plan's own programs and accumulators, so a feature has one meaning. Results depend on
//! the events and the questions alone: not on threads, memory or the order of questions. Knows neither
//! log nor labels.

mod gather;
mod replay;
#[cfg(test)]
mod tests;
mod versions;

use std::ops::ControlFlow;
use std::sync::Arc;

use falaj_definitions::plan::{JoinKind, Shape, Source, ViewPlan};
use falaj_event::{EventTime, TopicId, TopicKind, ViewRow};

use crate::error::EngineError;
use crate::source::EpochInput;
use gather::Slice;

/// Where events come from.
pub trait Events {
    /// Hands every epoch's events of `topics` to `each`, in log order, from the beginning; stops
    /// early when `each` says so. Called several times, and gives the same events every time.
    ///
    /// # Errors
    /// When events cannot be read, or of `each`.
    fn scan(
        &self,
        topics: &[TopicId],
        each: &mut dyn FnMut(EpochInput) -> Result<ControlFlow<()>, TrainingError>,
    ) -> Result<(), TrainingError>;
}

/// What is asked of one view.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The view.
    pub plan: &'a Arc<ViewPlan>,
    /// The canonical key of each question; `None`: a key that is not there.
    pub keys: &'a [Option<Vec<u8>>],
}

/// Bounds of the work.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads over which keys are spread. At least 1.
    pub threads: usize,
    /// Bytes of events that are held at once. Where there are more, keys are cut into slices by hash
    /// and the log is scanned once per slice.
    pub memory_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: 1 << 30,
        }
    }
}

/// How far the work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Answers given, over all views.
    pub done: usize,
    /// Answers to give.
    pub total: usize,
    /// Events read, repeated scans counted again.
    pub events: u64,
}

/// Why there is no training set.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// The engine refused a plan or rows.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The events could not be read.
    #[error("reading events: {0}")]
    Source(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A view over tables or views whose input does not fit.
    #[error(
        "the events that {views} read need more than the {bound} bytes that are allowed: give more \
         memory, or leave out features that react to changing tables"
    )]
    Memory {
        /// The views.
        views: String,
        /// [`Options::memory_bytes`].
        bound: usize,
    },
    /// Keys and moments of different number.
    #[error("view `{view}` is asked for {keys} keys at {moments} moments: give one key per moment")]
    Questions {
        /// The view.
        view: String,
        /// Keys given.
        keys: usize,
        /// Moments given.
        moments: usize,
    },
    /// A thread panicked.
    #[error("a thread of the sweep panicked")]
    Panicked,
}

/// Most slices that keys are cut into: one slice then holds the events of few keys, and is processed
/// whatever it takes.
const MOST_SLICES: u64 = 1 << 14;

/// For every view, the row of each key just before each moment, in the order of the questions; `None`
/// where no event of that key had happened, or HAVING leaves the key out.
///
/// # Errors
/// When events cannot be read, do not fit, or are not what the plans describe.
pub fn as_corrected(
    views: &[Asked<'_>],
    at: &[EventTime],
    events: &dyn Events,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Vec<Option<ViewRow>>>, TrainingError> {
    if let Some(asked) = views.iter().find(|asked| asked.keys.len() != at.len()) {
        return Err(TrainingError::Questions {
            view: asked.plan.name.clone(),
            keys: asked.keys.len(),
            moments: at.len(),
        });
    }
    let mut answers: Vec<Vec<Option<ViewRow>>> =
        views.iter().map(|_| vec![None; at.len()]).collect();
    let mut meter =
        Meter { now: Progress { done: 0, total: views.len() * at.len(), events: 0 }, progress };
    let (swept, replayed): (Vec<usize>, Vec<usize>) =
        (0..views.len()).partition(|&index| is_swept(views[index].plan));
    let job = Job { views, at, events, options };
    if !swept.is_empty() && !at.is_empty() {
        let versions = versions::read(&job, &swept, &mut meter)?;
        let mut slices = vec![Slice { modulus: 1, remainder: 0 }];
        while let Some(slice) = slices.pop() {
            let done = gather::run(&job, &swept, slice, &versions, &mut answers, &mut meter)?;
            if !done {
                slices.extend(slice.halves());
            }
        }
    }
    if !replayed.is_empty() && !at.is_empty() {
        replay::run(&job, &replayed, &mut answers, &mut meter)?;
    }
    meter.now.done = meter.now.total;
    meter.tell();
    Ok(answers)
}

/// Whether a view's prepared rows, once known, never change: then keys can be swept one by one.
fn is_swept(plan: &ViewPlan) -> bool {
    let events = matches!(&plan.source, Source::Topic(topic) if topic.kind == TopicKind::Event);
    let keyed = matches!(plan.shape, Shape::Keyed { .. });
    events && keyed && plan.joins.iter().all(|join| join.kind == JoinKind::AsOf)
}

/// What all parts of the work share.
struct Job<'a> {
    views: &'a [Asked<'a>],
    at: &'a [EventTime],
    events: &'a dyn Events,
    options: &'a Options,
}

/// Tells how far the work is.
struct Meter<'a> {
    now: Progress,
    progress: &'a mut dyn FnMut(Progress),
}

impl Meter<'_> {
    fn tell(&mut self) {
        (self.progress)(self.now);
    }

    fn read(&mut self, input: &EpochInput) {
        let rows: usize = input.topics.iter().map(|part| part.ops.len()).sum();
        self.now.events += rows as u64;
    }
}
