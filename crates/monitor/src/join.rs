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

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use falaj_event::{LogTime, Op, Value};

use crate::Prediction;

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

/// A label and its number in log order: of several, the newest holds.
#[derive(Clone, Debug)]
struct Waiting {
    number: u64,
    label: Arc<Label>,
}

/// A label and the numbers of the predictions that it judges.
type Judging = (Arc<Label>, BTreeSet<u64>);

/// The fold. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Joiner {
    rule: JoinRule,
    next: u64,
    predictions: BTreeMap<u64, Arc<Prediction>>,
    by_id: BTreeMap<Arc<str>, BTreeSet<u64>>,
    by_key: BTreeMap<Arc<[u8]>, BTreeSet<Place>>,
    /// Labels that wait: for a prediction of their id, or for their time.
    waiting: BTreeMap<Arc<[u8]>, Waiting>,
    /// `observed_at + within` of waiting labels without an id, with their numbers.
    due: BTreeSet<(LogTime, u64, Arc<[u8]>)>,
    waiting_by_id: BTreeMap<Arc<str>, BTreeMap<u64, Arc<[u8]>>>,
    /// What each label judges.
    judged: BTreeMap<Arc<[u8]>, Judging>,
    /// The label that holds for each judged prediction.
    holder: BTreeMap<u64, Arc<[u8]>>,
    expiry: BTreeSet<(LogTime, u64)>,
    label_expiry: BTreeSet<(LogTime, Arc<[u8]>)>,
}

impl Joiner {
    /// Knows nothing yet.
    pub fn new(rule: JoinRule) -> Self {
        Self {
            rule,
            next: 0,
            predictions: BTreeMap::new(),
            by_id: BTreeMap::new(),
            by_key: BTreeMap::new(),
            waiting: BTreeMap::new(),
            due: BTreeSet::new(),
            waiting_by_id: BTreeMap::new(),
            judged: BTreeMap::new(),
            holder: BTreeMap::new(),
            expiry: BTreeSet::new(),
            label_expiry: BTreeSet::new(),
        }
    }

    /// Number of predictions that a label may still judge.
    pub fn open_predictions(&self) -> usize {
        self.predictions.len()
    }

    /// Number of labels that wait.
    pub fn waiting_labels(&self) -> usize {
        self.waiting.len()
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

    fn add_prediction(&mut self, prediction: Arc<Prediction>, out: &mut Vec<Joined>) {
        let number = self.next;
        self.next += 1;
        self.by_id.entry(Arc::clone(&prediction.id)).or_default().insert(number);
        self.by_key.entry(Arc::clone(&prediction.key)).or_default().insert((prediction.t, number));
        self.expiry.insert((self.expires(prediction.t), number));
        let waiting = self.waiting_by_id.get(&prediction.id).cloned().unwrap_or_default();
        self.predictions.insert(number, prediction);
        for name in waiting.into_values() {
            if let Some(waiting) = self.waiting.get(&name).cloned() {
                self.judge(&waiting.label, [number], out);
            }
        }
    }

    fn add_label(&mut self, t: LogTime, label: Arc<Label>, out: &mut Vec<Joined>) {
        let before = self.withdraw(&label.name);
        if label.op == Op::Delete {
            for number in before.into_iter().flat_map(|(_, numbers)| numbers) {
                self.take_back(number, &label.name, out);
            }
            return;
        }
        // What an earlier label of this name judged is judged again where the new one still reaches it.
        let mut orphans: BTreeSet<u64> =
            before.into_iter().flat_map(|(_, numbers)| numbers).collect();
        self.label_expiry.insert((self.expires(label.observed_at), Arc::clone(&label.name)));
        let number = self.next;
        self.next += 1;
        let waiting = Waiting { number, label: Arc::clone(&label) };
        self.waiting.insert(Arc::clone(&label.name), waiting);
        let found = match &label.prediction_id {
            Some(id) => {
                let names = self.waiting_by_id.entry(Arc::clone(id)).or_default();
                names.insert(number, Arc::clone(&label.name));
                self.by_id.get(id).cloned().unwrap_or_default()
            }
            None => {
                let due = LogTime(label.observed_at.0.saturating_add(self.rule.within_us));
                if due >= t {
                    self.due.insert((due, number, Arc::clone(&label.name)));
                    BTreeSet::new()
                } else {
                    self.nearest(&label)
                }
            }
        };
        orphans.retain(|number| !found.contains(number));
        for number in orphans {
            self.take_back(number, &label.name, out);
        }
        self.judge(&label, found, out);
    }

    /// Judges by labels whose time has come.
    fn settle(&mut self, t: LogTime, out: &mut Vec<Joined>) {
        while self.due.first().is_some_and(|(due, ..)| *due < t) {
            let Some((_, _, name)) = self.due.pop_first() else { return };
            if let Some(Waiting { label, .. }) = self.waiting.get(&name).cloned() {
                let found = self.nearest(&label);
                self.judge(&label, found, out);
            }
        }
    }

    /// Per version, the entity's prediction nearest to the label's moment.
    fn nearest(&self, label: &Label) -> BTreeSet<u64> {
        let mut best: BTreeMap<u32, (u64, std::cmp::Reverse<Place>, u64)> = BTreeMap::new();
        let from = LogTime(label.observed_at.0.saturating_sub(self.rule.within_us));
        let to = LogTime(label.observed_at.0.saturating_add(self.rule.within_us));
        let places = self.by_key.get(&label.key);
        for place in places.into_iter().flat_map(|all| all.range((from, 0)..=(to, u64::MAX))) {
            let Some(prediction) = self.predictions.get(&place.1) else { continue };
            let distance = prediction.t.0.abs_diff(label.observed_at.0);
            let candidate = (distance, std::cmp::Reverse(*place), place.1);
            let held = best.entry(prediction.version).or_insert(candidate);
            *held = candidate.min(*held);
        }
        best.into_values().map(|(_, _, number)| number).collect()
    }

    fn judge(
        &mut self,
        label: &Arc<Label>,
        numbers: impl IntoIterator<Item = u64>,
        out: &mut Vec<Joined>,
    ) {
        for number in numbers {
            let Some(prediction) = self.predictions.get(&number) else { continue };
            let before = self.holder.insert(number, Arc::clone(&label.name));
            let first = before.is_none();
            if let Some(before) = before
                && before != label.name
                && let Some((_, numbers)) = self.judged.get_mut(&before)
            {
                numbers.remove(&number);
            }
            let entry = self
                .judged
                .entry(Arc::clone(&label.name))
                .or_insert_with(|| (Arc::clone(label), BTreeSet::new()));
            entry.1.insert(number);
            out.push(Joined {
                op: Op::Upsert,
                prediction: Arc::clone(prediction),
                label: Arc::clone(label),
                first,
            });
        }
    }

    /// Forgets a label, and gives what it judged.
    fn withdraw(&mut self, name: &Arc<[u8]>) -> Option<Judging> {
        if let Some(Waiting { number, label }) = self.waiting.remove(name) {
            self.label_expiry.remove(&(self.expires(label.observed_at), Arc::clone(name)));
            let due = LogTime(label.observed_at.0.saturating_add(self.rule.within_us));
            self.due.remove(&(due, number, Arc::clone(name)));
            if let Some(id) = &label.prediction_id
                && let Some(names) = self.waiting_by_id.get_mut(id)
            {
                names.remove(&number);
                if names.is_empty() {
                    self.waiting_by_id.remove(id);
                }
            }
        }
        self.judged.remove(name)
    }

    fn take_back(&mut self, number: u64, name: &Arc<[u8]>, out: &mut Vec<Joined>) {
        if self.holder.get(&number) != Some(name) {
            return;
        }
        self.holder.remove(&number);
        let Some(prediction) = self.predictions.get(&number) else { return };
        let label = Label {
            name: Arc::clone(name),
            op: Op::Delete,
            prediction_id: None,
            key: Arc::clone(&prediction.key),
            observed_at: prediction.t,
            row: Arc::from([]),
        };
        out.push(Joined {
            op: Op::Delete,
            prediction: Arc::clone(prediction),
            label: Arc::new(label),
            first: false,
        });
    }

    fn expires(&self, from: LogTime) -> LogTime {
        LogTime(from.0.saturating_add(self.rule.within_us).saturating_add(self.rule.delay_us))
    }

    fn forget(&mut self, t: LogTime) {
        while let Some((at, number)) = self.expiry.first().copied().filter(|(at, _)| *at < t) {
            self.expiry.remove(&(at, number));
            let Some(prediction) = self.predictions.remove(&number) else { continue };
            remove_from(&mut self.by_id, &prediction.id, &number);
            remove_from(&mut self.by_key, &prediction.key, &(prediction.t, number));
            if let Some(name) = self.holder.remove(&number)
                && let Some((_, numbers)) = self.judged.get_mut(&name)
            {
                numbers.remove(&number);
            }
        }
        while let Some((at, name)) = self.label_expiry.first().cloned().filter(|(at, _)| *at < t) {
            self.label_expiry.remove(&(at, Arc::clone(&name)));
            if self.withdraw(&name).is_some_and(|(_, numbers)| !numbers.is_empty()) {
                // Its predictions outlive it by at most `within_us`; what was judged stands.
                self.holder.retain(|_, holder| *holder != name);
            }
        }
    }
}

fn remove_from<K: Ord + Clone, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(values) = map.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            map.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
