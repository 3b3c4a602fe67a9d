//! The last decision about rows: the definitions' rules, applied when an epoch closes.
//!
//! Knows how to carry candidates to the rules and refusals back; no rule is here.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Result;
use falaj_definitions::admission::{AdmissionState, Needs};
use falaj_definitions::catalog::Catalog;
use falaj_event::{LogTime, TopicId};
use falaj_log::admission::AdmissionError;
use falaj_log::reader::{ReadOptions, Reader};
use falaj_log::{Admission, Candidate, Closing, Refusal};

use crate::rejected::Refused;

/// Applies the stateful rules of all topics.
pub struct Doorkeeper {
    catalog: Arc<Catalog>,
    state: AdmissionState,
}

impl Doorkeeper {
    /// Rebuilds what the rules must remember from the log.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn restore(catalog: &Arc<Catalog>, reader: &Reader) -> Result<Self> {
        let mut state = AdmissionState::new(catalog.topics.iter());
        let Some(tail) = reader.log().tail() else {
            return Ok(Self { catalog: Arc::clone(catalog), state });
        };
        let mut everything: BTreeSet<TopicId> = BTreeSet::new();
        let mut recent: BTreeSet<TopicId> = BTreeSet::new();
        let mut longest = 0;
        for topic in catalog.topics.schemas() {
            match state.needs(topic.id()) {
                Needs::Nothing => {}
                Needs::Everything => drop(everything.insert(topic.id())),
                Needs::Recent(window_us) => {
                    recent.insert(topic.id());
                    longest = longest.max(window_us);
                }
            }
        }
        let from = LogTime(tail.record.t.0.saturating_sub(longest));
        let first_recent = match from.0.checked_sub(1) {
            Some(before) => {
                reader.log().entry_at(LogTime(before))?.map_or(0, |entry| entry.record.epoch + 1)
            }
            None => 0,
        };
        observe(&mut state, reader, everything, 0)?;
        observe(&mut state, reader, recent, first_recent)?;
        Ok(Self { catalog: Arc::clone(catalog), state })
    }
}

fn observe(
    state: &mut AdmissionState,
    reader: &Reader,
    topics: BTreeSet<TopicId>,
    first: u64,
) -> Result<()> {
    if topics.is_empty() {
        return Ok(());
    }
    // Tables are never cut; of a topic whose values must be unique only what is kept can be remembered.
    let options = ReadOptions { topics: Some(topics), skip_cut: true, ..ReadOptions::default() };
    let reader = reader.with_options(options);
    for events in reader.epochs(first) {
        let events = events?;
        for part in &events.topics {
            state.observe(part.topic.id(), events.record().t, |row| part.ops[row], &part.batch)?;
        }
    }
    Ok(())
}

impl Admission for Doorkeeper {
    fn max_gap_us(&self, topic: TopicId) -> Option<u64> {
        self.state.max_gap_us(topic)
    }

    fn admit(
        &mut self,
        closing: &Closing,
        candidates: &[Candidate<'_>],
    ) -> Result<Vec<Refusal>, AdmissionError> {
        let mut refusals = Vec::new();
        for (index, candidate) in candidates.iter().enumerate() {
            let topic = candidate.schema.id();
            let refused =
                self.state.admit(topic, closing.t, |row| candidate.op(row), &candidate.batch)?;
            if refused.is_empty() {
                continue;
            }
            let mut rejected = Refused::default();
            for found in refused {
                rejected.add(candidate.schema, &candidate.batch, found.row, found.reasons, None)?;
            }
            let (rows, reasons) = (rejected.positions(), rejected.reasons());
            if self.catalog.topics.rejected(&candidate.schema.name).is_none() {
                // One of the platform's own topics: whoever appends is told, and the rest goes on.
                refusals.push(Refusal { candidate: index, rows, reasons, rejected: None });
                continue;
            }
            let id = |row: u32| candidate.event_id(usize::try_from(row).unwrap_or(usize::MAX));
            let rejected = rejected.batch(&self.catalog, candidate.schema, id)?;
            refusals.push(Refusal { candidate: index, rows, reasons, rejected: Some(rejected) });
        }
        Ok(refusals)
    }
}
