//! The sweep of views over events: the events of the keys that are asked for, gathered from the log,
//! and one walk per key.
//!
//! Does not know tables that change under a view (see [`super::replay`]).

use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use falaj_definitions::plan::{Source, ViewPlan};
use falaj_event::{EventOrder, EventTime, TopicId, Value, ViewRow, key_hash};
use hashbrown::HashMap;

use super::versions::{Joiner, Tables, event_times, order_of};
use super::{Job, MOST_SLICES, Meter, TrainingError};
use crate::error::EngineError;
use crate::finish::Finisher;
use crate::group::{Given, GroupPlan, Sweep, SweepKey};
use crate::metrics::Metrics;
use crate::row::Bytes;
use crate::source::{EpochInput, TopicInput};
use crate::view::Preparer;

/// The keys whose hash has one remainder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    pub modulus: u64,
    pub remainder: u64,
}

impl Slice {
    fn has(self, key: &[u8]) -> bool {
        key_hash(key) % self.modulus == self.remainder
    }

    /// The same keys in two parts.
    pub(super) fn halves(self) -> [Self; 2] {
        let modulus = self.modulus * 2;
        [self.remainder + self.modulus, self.remainder].map(|remainder| Self { modulus, remainder })
    }
}

/// Answers the questions whose keys are in `slice`; says whether their events fitted. Where they did
/// not, nothing has been answered.
pub(super) fn run(
    job: &Job<'_>,
    swept: &[usize],
    slice: Slice,
    tables: &Tables,
    answers: &mut [Vec<Option<ViewRow>>],
    meter: &mut Meter<'_>,
) -> Result<bool, TrainingError> {
    let mut gathered = Vec::with_capacity(swept.len());
    for &index in swept {
        gathered.push(Gathered::new(job, index, slice, tables)?);
    }
    let topics: BTreeSet<TopicId> =
        gathered.iter().filter(|view| !view.keys.is_empty()).map(|view| view.topic).collect();
    let topics: Vec<TopicId> = topics.into_iter().collect();
    if topics.is_empty() {
        return Ok(true);
    }
    let metrics = Metrics::new([]);
    let mut fits = true;
    job.events.scan(&topics, &mut |input: EpochInput| {
        meter.read(&input);
        for part in &input.topics {
            for view in gathered.iter_mut().filter(|view| view.topic == part.topic.id()) {
                view.add(part, &input, &metrics)?;
            }
        }
        let held: usize = gathered.iter().map(Gathered::bytes).sum();
        fits = held <= job.options.memory_bytes || slice.modulus >= MOST_SLICES;
        Ok(if fits { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    if !fits {
        return Ok(false);
    }
    for view in gathered {
        let (index, asked) = (view.index, view.questions.len());
        for (question, row) in view.sweep(job)? {
            answers[index][question as usize] = row;
        }
        meter.now.done += asked;
        meter.tell();
    }
    Ok(true)
}

/// An event of an asked key: where its cells lie.
#[derive(Clone, Copy, Debug)]
struct Entry {
    key: u32,
    length: u32,
    at: u64,
    order: EventOrder,
}

/// A key that is asked for.
#[derive(Clone, Debug)]
struct Key {
    bytes: Bytes,
    /// Its questions, in `Gathered::questions`.
    questions: Range<usize>,
    /// Its events, in `Gathered::entries` once they are sorted.
    events: Range<usize>,
    first: EventTime,
    last: EventTime,
    /// The latest event that is before every frame of every question.
    before: Option<EventTime>,
}

/// One view's events of one slice of keys.
struct Gathered<'a> {
    index: usize,
    plan: &'a Arc<ViewPlan>,
    topic: TopicId,
    preparer: Preparer,
    joiner: Joiner<'a>,
    horizon_us: Option<i64>,
    latest: EventTime,
    ids: HashMap<Bytes, u32>,
    keys: Vec<Key>,
    /// Numbers of questions, by key and time.
    questions: Vec<u32>,
    entries: Vec<Entry>,
    cells: Vec<u8>,
}

impl<'a> Gathered<'a> {
    fn new(
        job: &Job<'a>,
        index: usize,
        slice: Slice,
        tables: &'a Tables,
    ) -> Result<Self, TrainingError> {
        let plan = job.views[index].plan;
        let Source::Topic(topic) = &plan.source else {
            let why = "only views over events are swept".to_owned();
            return Err(EngineError::Plan { view: plan.name.clone(), why }.into());
        };
        let mut view = Self {
            index,
            plan,
            topic: topic.id(),
            preparer: Preparer::new(plan)?,
            joiner: Joiner::new(plan, tables)?,
            horizon_us: plan.horizon_us.map(|us| i64::try_from(us).unwrap_or(i64::MAX)),
            latest: i64::MIN,
            ids: HashMap::new(),
            keys: Vec::new(),
            questions: Vec::new(),
            entries: Vec::new(),
            cells: Vec::new(),
        };
        view.ask(job, slice);
        Ok(view)
    }

    /// Sorts the questions by key (in the order in which keys are first asked for) and time.
    fn ask(&mut self, job: &Job<'_>, slice: Slice) {
        let mut asked: Vec<(u32, EventTime, u32)> = Vec::new();
        for (question, key) in job.views[self.index].keys.iter().enumerate() {
            let Some(key) = key.as_ref().filter(|key| slice.has(key)) else { continue };
            let id = match self.ids.get(key.as_slice()) {
                Some(id) => *id,
                None => {
                    let id = self.keys.len() as u32;
                    self.ids.insert(Bytes::from_slice(key), id);
                    self.keys.push(Key {
                        bytes: Bytes::from_slice(key),
                        questions: 0..0,
                        events: 0..0,
                        first: i64::MAX,
                        last: i64::MIN,
                        before: None,
                    });
                    id
                }
            };
            let (at, own) = (job.at[question], &mut self.keys[id as usize]);
            own.first = own.first.min(at);
            own.last = own.last.max(at);
            self.latest = self.latest.max(at);
            asked.push((id, at, question as u32));
        }
        asked.sort_unstable();
        let mut from = 0;
        for same in asked.chunk_by(|a, b| a.0 == b.0) {
            self.keys[same[0].0 as usize].questions = from..from + same.len();
            from += same.len();
        }
        self.questions = asked.into_iter().map(|(_, _, question)| question).collect();
    }

    fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.cells.capacity()
    }

    /// Keeps what the questions can see of a batch.
    fn add(
        &mut self,
        part: &TopicInput,
        input: &EpochInput,
        metrics: &Metrics,
    ) -> Result<(), EngineError> {
        let times = event_times(part)?;
        let latest = self.latest;
        if self.keys.is_empty() || times.iter().all(|time| *time >= latest) {
            return Ok(());
        }
        let batch = self.joiner.join(&part.batch, times)?;
        let Self { preparer, ids, keys, entries, cells, horizon_us, .. } = self;
        preparer.batch(&batch, None, metrics, |row, key, own| {
            let Some(&id) = ids.get(key) else { return };
            let (event_time, known) = (times[row], &mut keys[id as usize]);
            if event_time >= known.last {
                return;
            }
            if horizon_us.is_some_and(|us| event_time.saturating_add(us) <= known.first) {
                known.before = known.before.max(Some(event_time));
                return;
            }
            let order = order_of(part, input, row, event_time);
            let (at, length) = (cells.len() as u64, own.len() as u32);
            entries.push(Entry { key: id, length, at, order });
            cells.extend_from_slice(own);
        })
    }

    /// Walks all keys, spread over threads, and gives every question's answer.
    fn sweep(mut self, job: &Job<'_>) -> Result<Vec<(u32, Option<ViewRow>)>, TrainingError> {
        self.entries.sort_unstable_by(|a, b| (a.key, &a.order).cmp(&(b.key, &b.order)));
        let mut from = 0;
        for same in self.entries.chunk_by(|a, b| a.key == b.key) {
            self.keys[same[0].key as usize].events = from..from + same.len();
            from += same.len();
        }
        let shares = self.shares(job.options.threads.max(1));
        if let [all] = shares.as_slice() {
            return Ok(self.walk(job.at, all.clone())?);
        }
        let (view, at) = (&self, job.at);
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                shares.into_iter().map(|share| scope.spawn(move || view.walk(at, share))).collect();
            let mut answers = Vec::with_capacity(view.questions.len());
            for thread in threads {
                answers.extend(thread.join().map_err(|_| TrainingError::Panicked)??);
            }
            Ok(answers)
        })
    }

    /// Ranges of keys with about as many events and questions each.
    fn shares(&self, threads: usize) -> Vec<Range<usize>> {
        let work = |key: &Key| key.events.len() + 2 * key.questions.len();
        let total: usize = self.keys.iter().map(work).sum();
        let most = total / threads + 1;
        let (mut shares, mut from, mut load) = (Vec::new(), 0, 0);
        for (index, key) in self.keys.iter().enumerate() {
            load += work(key);
            if load >= most {
                shares.push(from..index + 1);
                (from, load) = (index + 1, 0);
            }
        }
        if from < self.keys.len() || shares.is_empty() {
            shares.push(from..self.keys.len());
        }
        shares
    }

    fn walk(
        &self,
        moments: &[EventTime],
        keys: Range<usize>,
    ) -> Result<Vec<(u32, Option<ViewRow>)>, EngineError> {
        let mut sweep = Sweep::new(&GroupPlan::of(self.plan));
        let mut out = Answers::new(self.plan)?;
        let mut at = Vec::new();
        for key in &self.keys[keys] {
            let questions = &self.questions[key.questions.clone()];
            at.clear();
            at.extend(questions.iter().map(|question| moments[*question as usize]));
            let events = self.entries[key.events.clone()].iter().map(|entry| {
                let start = entry.at as usize;
                (&entry.order, &self.cells[start..start + entry.length as usize])
            });
            let asked = SweepKey { key: &key.bytes, before: key.before, at: &at };
            sweep.key(&asked, events, |index, row| out.push(questions[index], &key.bytes, row))?;
            out.finish_if_many()?;
        }
        out.finish()
    }
}

/// Results on their way through the view's last stage.
struct Answers {
    finisher: Finisher,
    metrics: Metrics,
    /// The questions of the results given to it, in order.
    questions: Vec<u32>,
    done: Vec<(u32, Option<ViewRow>)>,
}

/// Results that are finished together.
const BATCH: usize = 2_048;

impl Answers {
    fn new(plan: &Arc<ViewPlan>) -> Result<Self, EngineError> {
        Ok(Self {
            finisher: Finisher::new(plan)?,
            metrics: Metrics::new([]),
            questions: Vec::new(),
            done: Vec::new(),
        })
    }

    fn push(
        &mut self,
        question: u32,
        key: &[u8],
        row: Option<(EventTime, &[Value])>,
    ) -> Result<(), EngineError> {
        match row {
            Some((latest, values)) => {
                self.questions.push(question);
                self.finisher.give(key, &Given::Row(latest, values))
            }
            None => {
                self.done.push((question, None));
                Ok(())
            }
        }
    }

    fn finish_if_many(&mut self) -> Result<(), EngineError> {
        if self.questions.len() >= BATCH { self.run() } else { Ok(()) }
    }

    fn run(&mut self) -> Result<(), EngineError> {
        let rows = self.finisher.finish(&self.metrics)?;
        let questions = self.questions.drain(..);
        self.done.extend(questions.zip(rows).map(|(question, change)| (question, change.row)));
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<(u32, Option<ViewRow>)>, EngineError> {
        self.run()?;
        Ok(self.done)
    }
}
