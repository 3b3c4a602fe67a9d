//! Refused rows on their way to `<topic>.rejected`, from whichever side of the sequencer they come.
//!
//! Does not decide what is refused, and does not know the columns of rejected topics (see
//! `falaj_definitions::rejections`).

use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::record_batch::RecordBatch;
use falaj_definitions::catalog::Catalog;
use falaj_definitions::reasons::{Reason, RejectedRow};
use falaj_definitions::rejections::{Rejection, rejected_batch};
use falaj_definitions::rows::row_json;
use falaj_event::cells::Cells;
use falaj_event::{EventId, TopicSchema, Value};

use crate::pump::wall_clock_us;

/// Refused rows of one batch.
#[derive(Debug, Default)]
pub struct Refused {
    rows: Vec<RejectedRow>,
}

impl From<Vec<RejectedRow>> for Refused {
    fn from(rows: Vec<RejectedRow>) -> Self {
        Self { rows }
    }
}

impl Refused {
    /// Adds row `row` of a topic's batch, which is refused for these reasons. `original` is the row
    /// as it came, where it is not what the batch holds.
    ///
    /// # Errors
    /// When the batch holds a type that no topic has, or too many rows.
    pub fn add(
        &mut self,
        schema: &TopicSchema,
        batch: &RecordBatch,
        row: usize,
        reasons: Vec<Reason>,
        original: Option<&str>,
    ) -> Result<()> {
        let subject = match schema.subject {
            Some(index) => Cells::new(batch.column(index).as_ref())?.value(row),
            None => Value::Null,
        };
        let text = original.map_or_else(|| row_json(batch, row), str::to_owned);
        let position = u32::try_from(row)?;
        self.rows.push(RejectedRow { position, reasons, subject, row: text });
        Ok(())
    }

    /// Adds a line that could not be read as a row at all.
    ///
    /// # Errors
    /// When there are too many.
    pub fn add_line(&mut self, text: String, reasons: Vec<Reason>) -> Result<()> {
        let position = u32::try_from(self.rows.len())?;
        self.rows.push(RejectedRow { position, reasons, subject: Value::Null, row: text });
        Ok(())
    }

    /// Positions of the refused rows.
    pub fn positions(&self) -> Vec<u32> {
        self.rows.iter().map(|row| row.position).collect()
    }

    /// The reasons in words, row by row.
    pub fn reasons(&self) -> Vec<Vec<String>> {
        let told =
            |row: &RejectedRow| row.reasons.iter().map(|reason| reason.text.clone()).collect();
        self.rows.iter().map(told).collect()
    }

    /// The rejected topic of `source` and the rows for it; `event_id` gives the id that the event at a
    /// position would have had.
    ///
    /// # Errors
    /// When the topic rejects nothing (it is the platform's own), or the rows do not fit.
    pub fn batch(
        &self,
        catalog: &Catalog,
        source: &TopicSchema,
        event_id: impl Fn(u32) -> EventId,
    ) -> Result<(Arc<TopicSchema>, RecordBatch)> {
        let topic = catalog
            .topics
            .rejected(&source.name)
            .with_context(|| format!("topic `{}` has no rejected topic", source.name))?;
        let rows: Vec<Rejection<'_>> = self
            .rows
            .iter()
            .map(|row| Rejection { event_id: event_id(row.position), row })
            .collect();
        let now = i64::try_from(wall_clock_us())?;
        // The event time is the epoch's T, which the sequencer fills in.
        let batch = rejected_batch(&topic.schema, source.version, 0, now, &rows)?;
        Ok((Arc::clone(&topic.schema), batch))
    }
}
