//! The sweep of views over events: the events of the keys that are asked for, gathered from the log,
//! and one walk per key.
//!
//! Does not know tables that change under a view (see [`super::replay`]).

use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use falaj_definitions::plan::{Source, ViewPlan};
use falaj_event::{EventOrder, EventTime, LogTime, TopicId, ViewRow, key_hash};
use hashbrown::HashMap;

use super::versions::{Joiner, Tables, event_times, order_of};
use super::{Job, MOST_SLICES, Meter, TrainingError};
use crate::error::EngineError;
use crate::finish::Finisher;
use crate::group::{Given, GroupPlan, Sweep, SweepKey};
use crate::metrics::Metrics;
use crate::row::Bytes;
use crate::source::{EpochInput, TopicInput};
use crate::values::Values;
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
    let asked = gathered.iter().filter(|view| !view.questions.keys.is_empty());
    let topics: BTreeSet<TopicId> = asked.map(|view| view.questions.topic).collect();
    let topics: Vec<TopicId> = topics.into_iter().collect();
    if topics.is_empty() {
        return Ok(true);
    }
    let (mut fits, mut waiting, mut rows) = (true, Vec::new(), 0);
    job.events.scan(&topics, &mut |input: EpochInput| {
        meter.read(&input);
        rows += input.topics.iter().map(|part| part.ops.len()).sum::<usize>();
        waiting.push(input);
        if rows < ROWS_AT_ONCE {
            return Ok(ControlFlow::Continue(()));
        }
        rows = 0;
        take(&mut gathered, &std::mem::take(&mut waiting))?;
        let held: usize = gathered.iter().map(Gathered::bytes).sum();
        fits = held <= job.options.memory_bytes || slice.modulus >= MOST_SLICES;
        Ok(if fits { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    take(&mut gathered, &waiting)?;
    let held: usize = gathered.iter().map(Gathered::bytes).sum();
    if !fits || (held > job.options.memory_bytes && slice.modulus < MOST_SLICES) {
        return Ok(false);
    }
    for view in gathered {
        let (index, asked) = (view.index, view.questions.numbers.len());
        for (question, row) in view.sweep(job)? {
            answers[index][question as usize] = row;
        }
        meter.now.done += asked;
        meter.tell();
    }
    Ok(true)
}

/// Rows that are read before they are spread over threads.
const ROWS_AT_ONCE: usize = 1 << 17;

/// Fewer rows than this are not worth a thread.
const ROWS_WORTH_A_THREAD: usize = 4_096;

/// Keeps what the questions can see of some epochs' events, a share of them on each thread.
fn take(gathered: &mut [Gathered<'_>], inputs: &[EpochInput]) -> Result<(), TrainingError> {
    let rows = |input: &EpochInput| input.topics.iter().map(|part| part.ops.len()).sum::<usize>();
    let total: usize = inputs.iter().map(rows).sum();
    let threads = gathered.first().map_or(1, |view| view.parts.len());
    let wanted = threads.min(total / ROWS_WORTH_A_THREAD).max(1);
    let mut shares: Vec<Vec<&EpochInput>> = vec![Vec::new(); wanted];
    let mut before = 0;
    for input in inputs {
        shares[before * wanted / total.max(1)].push(input);
        before += rows(input);
    }
    let mut workers: Vec<Vec<(&Questions<'_>, &mut Part<'_>)>> = Vec::new();
    workers.resize_with(wanted, Vec::new);
    for view in gathered {
        let Gathered { questions, parts, .. } = view;
        for (worker, part) in workers.iter_mut().zip(parts) {
            worker.push((questions, part));
        }
    }
    let work = |views: Vec<(&Questions<'_>, &mut Part<'_>)>, share: &[&EpochInput]| {
        let metrics = Metrics::new([]);
        for (questions, part) in views {
            for input in share {
                for topic in input.topics.iter().filter(|t| t.topic.id() == questions.topic) {
                    part.add(questions, topic, input, &metrics)?;
                }
            }
        }
        Ok::<(), EngineError>(())
    };
    if wanted == 1 {
        let only = workers.pop().unwrap_or_default();
        return Ok(work(only, &shares[0])?);
    }
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = workers
            .into_iter()
            .zip(&shares)
            .map(|(views, share)| scope.spawn(move || work(views, share)))
            .collect();
        for thread in threads {
            thread.join().map_err(|_| TrainingError::Panicked)??;
        }
        Ok(())
    })
}

/// An event of an asked key: where its cells lie.
#[derive(Clone, Copy, Debug)]
struct Entry {
    key: u32,
    length: u32,
    /// Number of the part in the highest 16 bits, place in its cells below.
    at: u64,
    order: EventOrder,
}

const PLACE_BITS: u32 = 48;

/// A key that is asked for.
#[derive(Clone, Debug)]
struct Key {
    bytes: Bytes,
    /// Its questions, in `Questions::numbers`.
    questions: Range<usize>,
    first: EventTime,
    last: EventTime,
}

/// What is asked of one view.
struct Questions<'a> {
    plan: &'a Arc<ViewPlan>,
    topic: TopicId,
    horizon_us: Option<i64>,
    latest: EventTime,
    ids: HashMap<Bytes, u32>,
    keys: Vec<Key>,
    /// Numbers of questions, by key and time.
    numbers: Vec<u32>,
}

impl<'a> Questions<'a> {
    /// Sorts the questions by key (in the order in which keys are first asked for) and time.
    fn new(job: &Job<'a>, index: usize, slice: Slice) -> Result<Self, EngineError> {
        let plan = job.views[index].plan;
        let Source::Topic(topic) = &plan.source else {
            let why = "only views over events are swept".to_owned();
            return Err(EngineError::Plan { view: plan.name.clone(), why });
        };
        let mut new = Self {
            plan,
            topic: topic.id(),
            horizon_us: plan.horizon_us.map(|us| i64::try_from(us).unwrap_or(i64::MAX)),
            latest: i64::MIN,
            ids: HashMap::new(),
            keys: Vec::new(),
            numbers: Vec::new(),
        };
        let mut asked: Vec<(u32, EventTime, u32)> = Vec::new();
        for (question, key) in job.views[index].keys.iter().enumerate() {
            let Some(key) = key.as_ref().filter(|key| slice.has(key)) else { continue };
            let id = new.intern(key);
            let (at, own) = (job.at[question], &mut new.keys[id as usize]);
            own.first = own.first.min(at);
            own.last = own.last.max(at);
            new.latest = new.latest.max(at);
            asked.push((id, at, question as u32));
        }
        asked.sort_unstable();
        let mut from = 0;
        for same in asked.chunk_by(|a, b| a.0 == b.0) {
            new.keys[same[0].0 as usize].questions = from..from + same.len();
            from += same.len();
        }
        new.numbers = asked.into_iter().map(|(_, _, question)| question).collect();
        Ok(new)
    }

    fn intern(&mut self, key: &[u8]) -> u32 {
        if let Some(id) = self.ids.get(key) {
            return *id;
        }
        let (id, bytes) = (self.keys.len() as u32, Bytes::from_slice(key));
        self.ids.insert(bytes.clone(), id);
        self.keys.push(Key { bytes, questions: 0..0, first: i64::MAX, last: i64::MIN });
        id
    }
}

/// What one thread has gathered for one view.
struct Part<'a> {
    number: u64,
    preparer: Preparer,
    joiner: Joiner<'a>,
    entries: Vec<Entry>,
    cells: Vec<u8>,
    /// Of keys, the latest event that is before every frame of every question.
    before: HashMap<u32, EventTime>,
}

impl Part<'_> {
    /// Keeps what the questions can see of a batch.
    fn add(
        &mut self,
        questions: &Questions<'_>,
        part: &TopicInput,
        input: &EpochInput,
        metrics: &Metrics,
    ) -> Result<(), EngineError> {
        let times = event_times(part)?;
        if questions.keys.is_empty() || times.iter().all(|time| *time >= questions.latest) {
            return Ok(());
        }
        let batch = self.joiner.join(&part.batch, times)?;
        let Self { number, preparer, entries, cells, before, .. } = self;
        preparer.batch(&batch, None, metrics, |row, key, own| {
            let Some(&id) = questions.ids.get(key) else { return };
            let (event_time, known) = (times[row], &questions.keys[id as usize]);
            if event_time >= known.last {
                return;
            }
            let horizon_us = questions.horizon_us;
            if horizon_us.is_some_and(|us| event_time.saturating_add(us) <= known.first) {
                let latest = before.entry(id).or_insert(event_time);
                *latest = event_time.max(*latest);
                return;
            }
            let order = order_of(part, input, row, event_time);
            let at = *number << PLACE_BITS | cells.len() as u64;
            entries.push(Entry { key: id, length: own.len() as u32, at, order });
            cells.extend_from_slice(own);
        })
    }
}

/// One view's events of one slice of keys.
struct Gathered<'a> {
    index: usize,
    questions: Questions<'a>,
    parts: Vec<Part<'a>>,
}

impl<'a> Gathered<'a> {
    fn new(
        job: &Job<'a>,
        index: usize,
        slice: Slice,
        tables: &'a Tables,
    ) -> Result<Self, TrainingError> {
        let questions = Questions::new(job, index, slice)?;
        let part = |number: usize| {
            Ok(Part {
                number: number as u64,
                preparer: Preparer::new(questions.plan)?,
                joiner: Joiner::new(questions.plan, tables)?,
                entries: Vec::new(),
                cells: Vec::new(),
                before: HashMap::new(),
            })
        };
        let threads = job.options.threads.clamp(1, 1 << (64 - PLACE_BITS));
        let parts = (0..threads).map(part).collect::<Result<_, EngineError>>()?;
        Ok(Self { index, questions, parts })
    }

    fn bytes(&self) -> usize {
        let bytes =
            |part: &Part<'_>| part.entries.capacity() * size_of::<Entry>() + part.cells.capacity();
        self.parts.iter().map(bytes).sum()
    }

    /// Walks all keys, spread over threads, and gives every question's answer.
    fn sweep(mut self, job: &Job<'_>) -> Result<Vec<(u32, Option<ViewRow>)>, TrainingError> {
        let (mut entries, ends) = self.by_key();
        let mut walks = Vec::new();
        let mut rest = entries.as_mut_slice();
        let mut from = 0;
        for share in self.shares(&ends, job.options.threads.max(1)) {
            let end = ends[share.end - 1];
            let (own, later) = rest.split_at_mut(end - from);
            walks.push(Walk { view: &self, ends: &ends, keys: share, first: from, entries: own });
            (rest, from) = (later, end);
        }
        let at = job.at;
        if walks.len() <= 1 {
            return Ok(walks.pop().map_or(Ok(Vec::new()), |walk| walk.run(at))?);
        }
        let asked = self.questions.numbers.len();
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                walks.into_iter().map(|walk| scope.spawn(move || walk.run(at))).collect();
            let mut answers = Vec::with_capacity(asked);
            for thread in threads {
                answers.extend(thread.join().map_err(|_| TrainingError::Panicked)??);
            }
            Ok(answers)
        })
    }

    /// All entries by key, and where each key's end.
    fn by_key(&mut self) -> (Vec<Entry>, Vec<usize>) {
        let mut ends = vec![0usize; self.questions.keys.len()];
        for entry in self.parts.iter().flat_map(|part| &part.entries) {
            ends[entry.key as usize] += 1;
        }
        let mut next = Vec::with_capacity(ends.len());
        let mut total = 0;
        for end in &mut ends {
            next.push(total);
            total += *end;
            *end = total;
        }
        let order = EventOrder { event_time: 0, t: LogTime(0), partition: 0, offset: 0 };
        let mut entries = vec![Entry { key: 0, length: 0, at: 0, order }; total];
        for part in &mut self.parts {
            for entry in std::mem::take(&mut part.entries) {
                let place = &mut next[entry.key as usize];
                entries[*place] = entry;
                *place += 1;
            }
        }
        (entries, ends)
    }

    /// Ranges of keys with about as many events and questions each.
    fn shares(&self, ends: &[usize], threads: usize) -> Vec<Range<usize>> {
        let keys = &self.questions.keys;
        let work = |index: usize| {
            let begin = if index == 0 { 0 } else { ends[index - 1] };
            ends[index] - begin + 2 * keys[index].questions.len()
        };
        let total: usize = (0..keys.len()).map(work).sum();
        let most = total / threads + 1;
        let (mut shares, mut from, mut load) = (Vec::new(), 0, 0);
        for index in 0..keys.len() {
            load += work(index);
            if load >= most {
                shares.push(from..index + 1);
                (from, load) = (index + 1, 0);
            }
        }
        if from < keys.len() {
            shares.push(from..keys.len());
        }
        shares
    }
}

/// One thread's keys and their events.
struct Walk<'a, 'v> {
    view: &'a Gathered<'v>,
    ends: &'a [usize],
    keys: Range<usize>,
    /// Number of the first of `entries`.
    first: usize,
    entries: &'a mut [Entry],
}

impl Walk<'_, '_> {
    fn run(self, moments: &[EventTime]) -> Result<Vec<(u32, Option<ViewRow>)>, EngineError> {
        let Questions { plan, keys, numbers, .. } = &self.view.questions;
        let mut sweep = Sweep::new(&GroupPlan::of(plan));
        let mut out = Answers::new(plan)?;
        let (mut at, mut from) = (Vec::new(), self.first);
        for index in self.keys {
            let (key, end) = (&keys[index], self.ends[index]);
            let own = &mut self.entries[from - self.first..end - self.first];
            from = end;
            // Mostly in order already: events come in order of time.
            own.sort_by_key(|entry| entry.order);
            let questions = &numbers[key.questions.clone()];
            at.clear();
            at.extend(questions.iter().map(|question| moments[*question as usize]));
            let events = own.iter().map(|entry| (&entry.order, self.view.cells(entry)));
            let before = self.view.before(index as u32);
            let asked = SweepKey { key: &key.bytes, before, at: &at };
            sweep.key(&asked, events, |index, row| out.push(questions[index], &key.bytes, row))?;
            out.finish_if_many()?;
        }
        out.finish()
    }
}

impl Gathered<'_> {
    fn cells(&self, entry: &Entry) -> &[u8] {
        let part = &self.parts[(entry.at >> PLACE_BITS) as usize];
        let start = (entry.at & ((1 << PLACE_BITS) - 1)) as usize;
        &part.cells[start..start + entry.length as usize]
    }

    fn before(&self, key: u32) -> Option<EventTime> {
        self.parts.iter().filter_map(|part| part.before.get(&key).copied()).max()
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
        row: Option<(EventTime, Values<'_>)>,
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
