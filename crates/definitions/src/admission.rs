//! The checks that need `T` and the events before: skew, uniqueness over time, deletes of keys that
//! have no row.
//!
//! Deterministic: the answer is a function of the events admitted so far, in order, and of `T`. State
//! is rebuilt from the log at start with [`AdmissionState::observe`]; [`AdmissionState::needs`] says
//! how much of it must be read.
//!
//! Memory: 128 bits of SHA-256 stand for a value. A table topic holds one per live key (about 30
//! bytes each with the set's slack), a `unique_within` column one per event of the window (about 50
//! bytes each, its place in the order of expiry included): a column with 1,000 events per second and
//! `unique_within = "1 day"` takes about 4 GB, with an hour 180 MB. Two values that share 128 bits
//! would be taken for one: with 10^12 values the chance is below 10^-14, and nobody can aim for it.
//!
//! Does not know the log or how an epoch closes.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use falaj_event::cells::{Cells, UnsupportedArrowType};
use falaj_event::hash::domain_hash;
use falaj_event::{LogTime, Op, TopicId, TopicKind};

use crate::expectations::Rule;
use crate::reasons::{Reason, ReasonCode, RowReasons};
use crate::text::{format_duration, format_timestamp, show};
use crate::topics::TopicDefinition;

/// What of a topic's events must be observed before the first [`AdmissionState::admit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// None.
    Nothing,
    /// Those of epochs with `T` no more than this before the next one. Microseconds.
    Recent(u64),
    /// All of them.
    Everything,
}

/// What was admitted so far, as far as later decisions need it.
#[derive(Debug, Default)]
pub struct AdmissionState {
    topics: BTreeMap<TopicId, TopicState>,
}

#[derive(Debug)]
struct TopicState {
    definition: Arc<TopicDefinition>,
    /// The keys that have a row; of table topics only.
    keys: Option<HashSet<u128>>,
    unique: Vec<UniqueColumn>,
}

#[derive(Debug)]
struct UniqueColumn {
    column: usize,
    window_us: u64,
    seen: HashSet<u128>,
    /// The members of `seen` by the `T` that brought them.
    order: VecDeque<(u64, Vec<u128>)>,
}

fn fingerprint(canonical: &[u8]) -> u128 {
    let digest = domain_hash(b"falaj.admission.v1", &[canonical]);
    digest.0.first_chunk::<16>().map_or(0, |bytes| u128::from_be_bytes(*bytes))
}

impl AdmissionState {
    /// Knows no events yet.
    pub fn new<'a>(topics: impl IntoIterator<Item = &'a Arc<TopicDefinition>>) -> Self {
        let mut state = Self::default();
        topics.into_iter().for_each(|topic| state.declare(topic));
        state
    }

    /// Adds a topic, or takes its new version: what is known of unchanged columns is kept.
    pub fn declare(&mut self, topic: &Arc<TopicDefinition>) {
        let id = topic.schema.id();
        let mut before = self.topics.remove(&id);
        let mut unique = Vec::new();
        for expectation in &topic.expectations {
            let Rule::UniqueWithin(window_us) = expectation.rule else {
                continue;
            };
            let column = expectation.column;
            let known = before.as_mut().and_then(|before| {
                let at = before.unique.iter().position(|known| known.column == column)?;
                Some(before.unique.swap_remove(at))
            });
            unique.push(match known {
                Some(known) => UniqueColumn { window_us, ..known },
                None => {
                    UniqueColumn { column, window_us, seen: HashSet::new(), order: VecDeque::new() }
                }
            });
        }
        let keys = (topic.schema.kind == TopicKind::Table)
            .then(|| before.and_then(|before| before.keys).unwrap_or_default());
        self.topics.insert(id, TopicState { definition: Arc::clone(topic), keys, unique });
    }

    /// What of a topic's events must be observed at start.
    pub fn needs(&self, topic: TopicId) -> Needs {
        let Some(topic) = self.topics.get(&topic) else {
            return Needs::Nothing;
        };
        if topic.keys.is_some() {
            return Needs::Everything;
        }
        let longest = topic.unique.iter().map(|unique| unique.window_us).max();
        longest.map_or(Needs::Nothing, Needs::Recent)
    }

    /// The longest silence after which an event of `topic` moves an event clock; `None`: any.
    pub fn max_gap_us(&self, topic: TopicId) -> Option<u64> {
        self.topics.get(&topic)?.definition.max_gap_us
    }

    /// Decides, row by row in order, which rows of `batch` (declared columns and types) may enter the
    /// epoch that closes at `t`. What may enter is remembered at once, so an epoch that then does not
    /// come to be leaves this state unusable: rebuild it. Topics that were not declared are let pass.
    ///
    /// # Errors
    /// When a column is of a type that no topic has.
    pub fn admit(
        &mut self,
        topic: TopicId,
        t: LogTime,
        ops: impl Fn(usize) -> Op,
        batch: &RecordBatch,
    ) -> Result<Vec<RowReasons>, UnsupportedArrowType> {
        let Some(topic) = self.topics.get_mut(&topic) else {
            return Ok(Vec::new());
        };
        topic.expire(t);
        let rows = Rows::new(topic, batch)?;
        let mut refused = Vec::new();
        for row in 0..batch.num_rows() {
            let reasons = topic.judge(&rows, t, ops(row), row);
            if reasons.is_empty() {
                topic.remember(&rows, t, ops(row), row);
            } else {
                refused.push(RowReasons { row, reasons });
            }
        }
        Ok(refused)
    }

    /// Remembers rows that were admitted at `t`, read back from the log in order. Columns that an
    /// older version lacks may be missing at the end of `batch`.
    ///
    /// # Errors
    /// When a column is of a type that no topic has.
    pub fn observe(
        &mut self,
        topic: TopicId,
        t: LogTime,
        ops: impl Fn(usize) -> Op,
        batch: &RecordBatch,
    ) -> Result<(), UnsupportedArrowType> {
        let Some(topic) = self.topics.get_mut(&topic) else {
            return Ok(());
        };
        topic.expire(t);
        let rows = Rows::new(topic, batch)?;
        for row in 0..batch.num_rows() {
            topic.remember(&rows, t, ops(row), row);
        }
        Ok(())
    }

    /// Number of values held, over all topics: keys with a row and values within their windows.
    pub fn held(&self) -> usize {
        self.topics
            .values()
            .map(|topic| {
                let keys = topic.keys.as_ref().map_or(0, HashSet::len);
                keys + topic.unique.iter().map(|unique| unique.seen.len()).sum::<usize>()
            })
            .sum()
    }
}

/// The cells that decide, downcast once per batch.
struct Rows<'a> {
    event_time: Option<Cells<'a>>,
    key: Vec<Cells<'a>>,
    unique: Vec<Option<Cells<'a>>>,
}

impl<'a> Rows<'a> {
    fn new(topic: &TopicState, batch: &'a RecordBatch) -> Result<Self, UnsupportedArrowType> {
        let cells = |index: usize| {
            batch.columns().get(index).map(|array| Cells::new(array.as_ref())).transpose()
        };
        let schema = &topic.definition.schema;
        let key = match topic.keys.is_some() {
            true => {
                let key = schema.key.iter().filter_map(|index| cells(*index).transpose());
                key.collect::<Result<_, _>>()?
            }
            false => Vec::new(),
        };
        let unique =
            topic.unique.iter().map(|unique| cells(unique.column)).collect::<Result<_, _>>()?;
        Ok(Self { event_time: cells(schema.event_time)?, key, unique })
    }

    fn key(&self, row: usize) -> u128 {
        let mut bytes = Vec::new();
        self.key.iter().for_each(|cells| cells.encode(row, &mut bytes));
        fingerprint(&bytes)
    }

    /// The fingerprint of a unique column's value; `None` where it is NULL.
    fn unique(&self, index: usize, row: usize) -> Option<u128> {
        let cells = self.unique.get(index)?.as_ref()?;
        if cells.is_null(row) {
            return None;
        }
        let mut bytes = Vec::new();
        cells.encode(row, &mut bytes);
        Some(fingerprint(&bytes))
    }
}

impl TopicState {
    fn judge(&self, rows: &Rows<'_>, t: LogTime, op: Op, row: usize) -> Vec<Reason> {
        let columns = &self.definition.schema.columns;
        let mut reasons: Vec<Reason> = self.ahead(rows, t, row).into_iter().collect();
        if op == Op::Delete
            && let Some(keys) = &self.keys
            && !keys.contains(&rows.key(row))
        {
            let shown: Vec<String> = rows.key.iter().map(|cells| show(&cells.value(row))).collect();
            let text = format!("there is no row with key {} to delete", shown.join(", "));
            reasons.push(Reason::row(ReasonCode::MissingKey, text));
        }
        for (index, unique) in self.unique.iter().enumerate() {
            let repeated =
                rows.unique(index, row).is_some_and(|value| unique.seen.contains(&value));
            if repeated && let Some(Some(cells)) = rows.unique.get(index) {
                let name = &columns[unique.column].name;
                let text = format!(
                    "{name} = {} was accepted before, within {}",
                    show(&cells.value(row)),
                    format_duration(unique.window_us)
                );
                reasons.push(Reason::of(ReasonCode::NotUnique, name, text));
            }
        }
        reasons
    }

    fn ahead(&self, rows: &Rows<'_>, t: LogTime, row: usize) -> Option<Reason> {
        let Some(Cells::Timestamp(times)) = &rows.event_time else {
            return None;
        };
        let event_time = times.value(row);
        let ahead = i128::from(event_time) - i128::from(t.0);
        if ahead <= i128::from(self.definition.skew_us) {
            return None;
        }
        let name = &self.definition.schema.columns[self.definition.schema.event_time].name;
        let mut text = format!(
            "{name} = {} is after T = {} by more than {}",
            format_timestamp(event_time),
            format_timestamp(t.as_event_time()),
            format_duration(self.definition.skew_us)
        );
        if let Some(gap) = self.definition.max_gap_us.filter(|gap| ahead > i128::from(*gap)) {
            let gap = format_duration(gap);
            text.push_str(&format!(
                "; no event is expected after a silence of more than {gap} (max_gap)"
            ));
        }
        Some(Reason::of(ReasonCode::TooFarAhead, name, text))
    }

    fn remember(&mut self, rows: &Rows<'_>, t: LogTime, op: Op, row: usize) {
        if let Some(keys) = &mut self.keys {
            match op {
                Op::Delete => keys.remove(&rows.key(row)),
                Op::Insert | Op::Upsert => keys.insert(rows.key(row)),
            };
        }
        for (index, unique) in self.unique.iter_mut().enumerate() {
            if let Some(value) = rows.unique(index, row) {
                unique.insert(t.0, value);
            }
        }
    }

    fn expire(&mut self, t: LogTime) {
        self.unique.iter_mut().for_each(|unique| unique.expire(t.0));
    }
}

impl UniqueColumn {
    fn insert(&mut self, t: u64, value: u128) {
        if !self.seen.insert(value) {
            return;
        }
        match self.order.back_mut() {
            Some((last, values)) if *last == t => values.push(value),
            _ => self.order.push_back((t, vec![value])),
        }
    }

    fn expire(&mut self, t: u64) {
        while let Some((at, _)) = self.order.front()
            && t.saturating_sub(*at) > self.window_us
        {
            for value in self.order.pop_front().map(|(_, values)| values).unwrap_or_default() {
                self.seen.remove(&value);
            }
        }
    }
}
