//! A history read back from a real log.
//!
//! Does not know who wrote it.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result};
use falaj_event::cells::batch_cells;
use falaj_event::{EventOrder, TopicId, Value};
use falaj_log::{ReadOptions, Reader};

use crate::history::{Epoch, Event, History, event_time};

/// All events of `topics` in the log behind `reader`, personal values sealed, every block checked
/// against the roots of its epoch.
///
/// # Errors
/// When the log cannot be read or fails a check.
pub fn history(reader: &Reader, topics: BTreeSet<TopicId>) -> Result<History> {
    let options = ReadOptions { topics: Some(topics), verify: true, ..ReadOptions::default() };
    let reader = reader.with_options(options);
    let mut history = History::default();
    while let Some(found) = reader.epoch(history.epochs.len() as u64)? {
        let (number, t) = (found.record().epoch, found.record().t);
        let mut events = Vec::new();
        for part in found.topics {
            let cells = batch_cells(&part.batch).context("columns of the log")?;
            for (row, op) in part.ops.iter().enumerate() {
                let cells: Vec<Value> = cells.iter().map(|column| column.value(row)).collect();
                let order = EventOrder {
                    event_time: event_time(&part.topic, &cells),
                    t,
                    partition: part.partition,
                    offset: part.first_offset + row as u64,
                };
                events.push(Event { topic: Arc::clone(&part.topic), op: *op, order, cells });
            }
        }
        history.epochs.push(Epoch { number, t, events });
    }
    Ok(history)
}
