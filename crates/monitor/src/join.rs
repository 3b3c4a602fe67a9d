//! Labels find the predictions that they judge: by id, or by key and time.
//!
//! # Rules
//! * A label with a prediction's id judges every prediction of that id (a served one and those made
//!   in shadow beside it), as soon as both are known.
//! * A label without an id judges, per model version, the entity's prediction nearest to the label's
//!   `observed_at`, the later one of two as near, at most `within_us` away. It waits until no nearer
//!   one can come: the first epoch with `T > observed_at + within_us`.
//! * A label that is corrected judges the same predictions again; one that is deleted takes its
//!   judgement back. Of several labels of one prediction, the newest in log order holds.
//! * A prediction is forgotten `within_us + delay_us` after it was made, a waiting label as long after
//!   its `observed_at`.
//!
//! So the result is a function of the log alone: of epochs, in order, and of nothing else. Does not
//! know topics or what a label means.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use falaj_event::{LogTime, Op, Value};

use crate::Prediction;
use crate::kept::{Kept, kept};

/// How labels find predictions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinRule {
    /// Greatest distance between a prediction and `observed_at`, for labels without an id.
    /// Microseconds.
    pub within_us: u64,
    /// The longest time until a label comes. Microseconds.
    pub delay_us: u64,
}

/// One label event.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// Canonical bytes of what names the label: the primary key of a table topic, the event's id
    /// otherwise. A label of the same name replaces this one.
    pub name: Arc<[u8]>,
    /// Insert or upsert, or delete.
    pub op: Op,
    /// The id of the prediction that it judges, where it says so.
    pub prediction_id: Option<Arc<str>>,
    /// Canonical bytes of the entity's key.
    pub key: Arc<[u8]>,
    /// The moment that it is about.
    pub observed_at: LogTime,
    /// The label row's values, all columns in order.
    pub row: Arc<[Value]>,
}

/// A judgement to be written (or, for [`Op::Delete`], taken back) at this epoch's `T`.
#[derive(Clone, Debug, PartialEq)]
pub struct Joined {
    /// Upsert or delete.
    pub op: Op,
    /// The prediction.
    pub prediction: Arc<Prediction>,
    /// The label.
    pub label: Arc<Label>,
    /// Whether the prediction had no judgement before.
    pub first: bool,
}

/// A prediction's place in time: `T_r`, and its number in log order.
type Place = (LogTime, u64);

/// A label's number in log order, and its name.
type Numbered = (u64, Arc<[u8]>);

/// A prediction that a label may still judge.
#[derive(Clone, Debug)]
struct Open {
    prediction: Arc<Prediction>,
    /// The label that holds.
    holder: Option<Arc<[u8]>>,
}

/// A label that may still judge a prediction, and its number in log order: of several, the newest
/// holds.
#[derive(Clone, Debug)]
struct Known {
    number: u64,
    label: Arc<Label>,
    /// The numbers of the predictions that it judges, ascending.
    judges: Vec<u64>,
}

kept!(Open { prediction, holder });
kept!(Known { number, label, judges });

/// Something of this number that is forgotten once `T` is beyond a moment; the earliest on top of a
/// heap.
type Expiry<N> = Reverse<(LogTime, N)>;

/// The fold. See the module's documentation. Maps are only looked up in, never walked: their order
/// decides nothing. Cost per prediction and label: a few lookups; memory: what is still open.
#[derive(Clone, Debug)]
pub struct Joiner {
    rule: JoinRule,
    next: u64,
    predictions: HashMap<u64, Open>,
    /// Numbers, ascending.
    by_id: HashMap<Arc<str>, Vec<u64>>,
    /// Places, ascending.
    by_key: HashMap<Arc<[u8]>, VecDeque<Place>>,
    labels: HashMap<Arc<[u8]>, Known>,
    /// `observed_at + within` of labels without an id that wait for their time, with their numbers.
    due: BTreeSet<(LogTime, u64, Arc<[u8]>)>,
    /// Labels that name a prediction, by that, with their numbers, ascending.
    labels_by_id: HashMap<Arc<str>, Vec<Numbered>>,
    expiry: BinaryHeap<Expiry<u64>>,
    /// With the label's number: of one that came later, another entry tells.
    label_expiry: BinaryHeap<Expiry<Numbered>>,
}

impl Joiner {
    /// Knows nothing yet.
    pub fn new(rule: JoinRule) -> Self {
        Self {
            rule,
            next: 0,
            predictions: HashMap::new(),
            by_id: HashMap::new(),
            by_key: HashMap::new(),
            labels: HashMap::new(),
            due: BTreeSet::new(),
            labels_by_id: HashMap::new(),
            expiry: BinaryHeap::new(),
            label_expiry: BinaryHeap::new(),
        }
    }

    /// Appends what it knows, but for the rule.
    pub fn save(&self, out: &mut Vec<u8>) {
        self.next.put(out);
        self.predictions.put(out);
        self.by_id.put(out);
        self.by_key.put(out);
        self.labels.put(out);
        self.due.put(out);
        self.labels_by_id.put(out);
        self.expiry.put(out);
        self.label_expiry.put(out);
    }

    /// What [`Joiner::save`] wrote, under the same rule; `None` where `bytes` hold no such thing.
    pub fn restore(rule: JoinRule, bytes: &mut &[u8]) -> Option<Self> {
        Some(Self {
            rule,
            next: Kept::take(bytes)?,
            predictions: Kept::take(bytes)?,
            by_id: Kept::take(bytes)?,
            by_key: Kept::take(bytes)?,
            labels: Kept::take(bytes)?,
            due: Kept::take(bytes)?,
            labels_by_id: Kept::take(bytes)?,
            expiry: Kept::take(bytes)?,
            label_expiry: Kept::take(bytes)?,
        })
    }

    /// Number of predictions that a label may still judge.
    pub fn open_predictions(&self) -> usize {
        self.predictions.len()
    }

    /// Number of labels that wait.
    pub fn waiting_labels(&self) -> usize {
        self.labels.len()
    }

    /// Takes one epoch: its predictions and labels in log order, and gives the judgements that follow
    /// at its `T`. Epochs without either matter too: time passes in them.
    pub fn epoch(
        &mut self,
        t: LogTime,
        predictions: impl IntoIterator<Item = Prediction>,
        labels: impl IntoIterator<Item = Label>,
    ) -> Vec<Joined> {
        let mut out = Vec::new();
        for prediction in predictions {
            self.add_prediction(Arc::new(prediction), &mut out);
        }
        for label in labels {
            self.add_label(t, Arc::new(label), &mut out);
        }
        self.settle(t, &mut out);
        self.forget(t);
        out
    }

    fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    fn add_prediction(&mut self, prediction: Arc<Prediction>, out: &mut Vec<Joined>) {
        let number = self.number();
        self.by_id.entry(Arc::clone(&prediction.id)).or_default().push(number);
        let places = self.by_key.entry(Arc::clone(&prediction.key)).or_default();
        let place = (prediction.t, number);
        places.insert(places.partition_point(|other| *other < place), place);
        self.expiry.push(Reverse((self.expires(prediction.t), number)));
        let waiting = self.labels_by_id.get(&prediction.id).cloned().unwrap_or_default();
        self.predictions.insert(number, Open { prediction, holder: None });
        for (_, name) in waiting {
            if let Some(label) = self.labels.get(&name).map(|known| Arc::clone(&known.label)) {
                self.judge(&label, &[number], out);
            }
        }
    }

    fn add_label(&mut self, t: LogTime, label: Arc<Label>, out: &mut Vec<Joined>) {
        // What an earlier label of this name judged is judged again where the new one still reaches it.
        let before = self.withdraw(&label.name);
        if label.op == Op::Delete {
            for number in before {
                self.take_back(number, &label.name, out);
            }
            return;
        }
        let number = self.number();
        let expires = self.expires(label.observed_at);
        self.label_expiry.push(Reverse((expires, (number, Arc::clone(&label.name)))));
        let known = Known { number, label: Arc::clone(&label), judges: Vec::new() };
        self.labels.insert(Arc::clone(&label.name), known);
        let found = match &label.prediction_id {
            Some(id) => {
                let names = self.labels_by_id.entry(Arc::clone(id)).or_default();
                names.push((number, Arc::clone(&label.name)));
                self.by_id.get(id).cloned().unwrap_or_default()
            }
            None => {
                let due = self.due_at(&label);
                if due >= t {
                    self.due.insert((due, number, Arc::clone(&label.name)));
                    Vec::new()
                } else {
                    self.nearest(&label)
                }
            }
        };
        for number in before.into_iter().filter(|number| !found.contains(number)) {
            self.take_back(number, &label.name, out);
        }
        self.judge(&label, &found, out);
    }

    fn due_at(&self, label: &Label) -> LogTime {
        LogTime(label.observed_at.0.saturating_add(self.rule.within_us))
    }

    /// Judges by labels whose time has come.
    fn settle(&mut self, t: LogTime, out: &mut Vec<Joined>) {
        while self.due.first().is_some_and(|(due, ..)| *due < t) {
            let Some((_, _, name)) = self.due.pop_first() else { return };
            if let Some(label) = self.labels.get(&name).map(|known| Arc::clone(&known.label)) {
                let found = self.nearest(&label);
                self.judge(&label, &found, out);
            }
        }
    }

    /// Per version, the entity's prediction nearest to the label's moment: their numbers, ascending.
    fn nearest(&self, label: &Label) -> Vec<u64> {
        let mut best: BTreeMap<u32, (u64, Reverse<Place>)> = BTreeMap::new();
        let from = (LogTime(label.observed_at.0.saturating_sub(self.rule.within_us)), 0);
        let to = (self.due_at(label), u64::MAX);
        let Some(places) = self.by_key.get(&label.key) else { return Vec::new() };
        let first = places.partition_point(|place| *place < from);
        for place in places.range(first..).take_while(|place| **place <= to) {
            let Some(open) = self.predictions.get(&place.1) else { continue };
            let distance = open.prediction.t.0.abs_diff(label.observed_at.0);
            let candidate = (distance, Reverse(*place));
            let held = best.entry(open.prediction.version).or_insert(candidate);
            *held = candidate.min(*held);
        }
        let mut numbers: Vec<u64> = best.into_values().map(|(_, Reverse(place))| place.1).collect();
        numbers.sort_unstable();
        numbers
    }

    fn judge(&mut self, label: &Arc<Label>, numbers: &[u64], out: &mut Vec<Joined>) {
        for number in numbers {
            let Some(open) = self.predictions.get_mut(number) else { continue };
            let before = open.holder.replace(Arc::clone(&label.name));
            let first = before.is_none();
            let prediction = Arc::clone(&open.prediction);
            if let Some(before) = before.filter(|before| *before != label.name)
                && let Some(known) = self.labels.get_mut(&before)
            {
                known.judges.retain(|judged| judged != number);
            }
            if let Some(known) = self.labels.get_mut(&label.name)
                && let Err(place) = known.judges.binary_search(number)
            {
                known.judges.insert(place, *number);
            }
            out.push(Joined { op: Op::Upsert, prediction, label: Arc::clone(label), first });
        }
    }

    /// Forgets a label, and gives the numbers of what it judged, ascending.
    fn withdraw(&mut self, name: &Arc<[u8]>) -> Vec<u64> {
        let Some(Known { number, label, judges }) = self.labels.remove(name) else {
            return Vec::new();
        };
        match &label.prediction_id {
            None => {
                self.due.remove(&(self.due_at(&label), number, Arc::clone(name)));
            }
            Some(id) => {
                if let Some(names) = self.labels_by_id.get_mut(id) {
                    names.retain(|(known, _)| *known != number);
                    if names.is_empty() {
                        self.labels_by_id.remove(id);
                    }
                }
            }
        }
        judges
    }

    fn take_back(&mut self, number: u64, name: &Arc<[u8]>, out: &mut Vec<Joined>) {
        let Some(open) = self.predictions.get_mut(&number) else { return };
        if open.holder.as_ref() != Some(name) {
            return;
        }
        open.holder = None;
        let prediction = Arc::clone(&open.prediction);
        let label = Label {
            name: Arc::clone(name),
            op: Op::Delete,
            prediction_id: None,
            key: Arc::clone(&prediction.key),
            observed_at: prediction.t,
            row: Arc::from([]),
        };
        out.push(Joined { op: Op::Delete, prediction, label: Arc::new(label), first: false });
    }

    fn expires(&self, from: LogTime) -> LogTime {
        LogTime(from.0.saturating_add(self.rule.within_us).saturating_add(self.rule.delay_us))
    }

    fn forget(&mut self, t: LogTime) {
        while let Some(Reverse((_, number))) = pop_before(&mut self.expiry, t) {
            let Some(Open { prediction, holder }) = self.predictions.remove(&number) else {
                continue;
            };
            if let Some(numbers) = self.by_id.get_mut(&prediction.id) {
                numbers.retain(|known| *known != number);
                if numbers.is_empty() {
                    self.by_id.remove(&prediction.id);
                }
            }
            if let Some(places) = self.by_key.get_mut(&prediction.key) {
                if let Ok(place) = places.binary_search(&(prediction.t, number)) {
                    places.remove(place);
                }
                if places.is_empty() {
                    self.by_key.remove(&prediction.key);
                }
            }
            if let Some(known) = holder.and_then(|name| self.labels.get_mut(&name)) {
                known.judges.retain(|judged| *judged != number);
            }
        }
        while let Some(Reverse((_, (number, name)))) = pop_before(&mut self.label_expiry, t) {
            if self.labels.get(&name).is_none_or(|known| known.number != number) {
                continue;
            }
            // Its predictions outlive it by at most `within_us`; what was judged stands.
            for judged in self.withdraw(&name) {
                if let Some(open) = self.predictions.get_mut(&judged) {
                    open.holder = None;
                }
            }
        }
    }
}

fn pop_before<N: Ord>(heap: &mut BinaryHeap<Expiry<N>>, t: LogTime) -> Option<Expiry<N>> {
    heap.peek().is_some_and(|Reverse((at, _))| *at < t).then(|| heap.pop()).flatten()
}

#[cfg(test)]
mod tests;
