//! Label rows from the log: the events of an event topic, or the current rows of a table, in log order.
//!
//! Does not know features.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::{Array, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::record_batch::RecordBatch;
use falaj_definitions::pipelines::Training;
use falaj_event::cells::{Cells, batch_cells};
use falaj_event::{EventTime, Op, TopicKind, TopicSchema};
use falaj_log::{ReadOptions, Reader};

/// Label rows.
#[derive(Clone, Debug)]
pub struct Labels {
    /// The columns of the label's topic that are not personal data.
    pub batch: RecordBatch,
    /// The moment of each row, microseconds since 1970 UTC.
    pub observed_at: Vec<EventTime>,
}

impl Labels {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.observed_at.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.observed_at.is_empty()
    }

    /// Canonical bytes of the columns `names` of every row; `None` where one is NULL.
    ///
    /// # Errors
    /// When there is no such column.
    pub fn keys(&self, names: &[String]) -> Result<Vec<Option<Vec<u8>>>> {
        let columns: Vec<Cells<'_>> = names
            .iter()
            .map(|name| {
                let column = self.batch.column_by_name(name);
                let column = column.with_context(|| format!("labels have no column `{name}`"))?;
                Ok(Cells::new(column.as_ref())?)
            })
            .collect::<Result<_>>()?;
        let key = |row: usize| {
            if columns.iter().any(|column| column.is_null(row)) {
                return None;
            }
            let mut bytes = Vec::with_capacity(columns.len() * 12);
            columns.iter().for_each(|column| column.encode(row, &mut bytes));
            Some(bytes)
        };
        Ok((0..self.len()).map(key).collect())
    }

    /// The rows that a pipeline trains on: those of its history, of them the newest `max_rows`; in
    /// the order in which they stand.
    ///
    /// # Errors
    /// When rows cannot be taken.
    pub fn chosen(self, training: &Training) -> Result<Self> {
        let newest = self.observed_at.iter().copied().max().unwrap_or(i64::MIN);
        let oldest = training
            .history_us
            .map_or(i64::MIN, |us| newest.saturating_sub(i64::try_from(us).unwrap_or(i64::MAX)));
        let mut rows: Vec<u32> = (0..self.len() as u32)
            .filter(|row| self.observed_at[*row as usize] >= oldest)
            .collect();
        let most = training.max_rows.map_or(usize::MAX, |rows| rows as usize);
        if rows.len() > most {
            rows.sort_by_key(|row| (self.observed_at[*row as usize], *row));
            rows.drain(..rows.len() - most);
            rows.sort_unstable();
        }
        if rows.len() == self.len() {
            return Ok(self);
        }
        let observed_at = rows.iter().map(|row| self.observed_at[*row as usize]).collect();
        let batch = take_record_batch(&self.batch, &UInt32Array::from(rows))?;
        Ok(Self { batch, observed_at })
    }
}

/// Reads the labels of `topic` up to epoch `until`, with `observed_at` from the column of that name.
///
/// # Errors
/// When the log cannot be read, or a moment is missing.
pub fn read(
    reader: &Reader,
    topic: &Arc<TopicSchema>,
    observed_at: &str,
    until: u64,
) -> Result<Labels> {
    let reader = reader.with_options(ReadOptions {
        topics: Some([topic.id()].into()),
        skip_cut: true,
        ..ReadOptions::default()
    });
    let mut batches = Vec::new();
    let mut ops = Vec::new();
    for epoch in 0..=until {
        let events = reader.epoch(epoch)?.with_context(|| format!("epoch {epoch} is missing"))?;
        for part in events.topics {
            ops.extend(part.ops);
            batches.push(part.batch);
        }
    }
    let schema = batches.first().map_or_else(|| topic.stored_schema(), RecordBatch::schema);
    let mut rows = concat_batches(&schema, &batches)?;
    if topic.kind == TopicKind::Table {
        rows = take_record_batch(&rows, &current(topic, &rows, &ops)?)?;
    }
    let readable: Vec<usize> =
        (0..topic.columns.len()).filter(|index| !topic.columns[*index].pii).collect();
    let batch = rows.project(&readable)?;
    let times = batch.column_by_name(observed_at).context("labels have no such moment")?;
    let observed_at = match Cells::new(times.as_ref())? {
        Cells::Timestamp(times) if times.null_count() == 0 => times.values().to_vec(),
        _ => bail!("`{observed_at}` of topic `{}` is not a timestamp in every row", topic.name),
    };
    Ok(Labels { batch, observed_at })
}

/// The newest row of every primary key, deleted ones left out, in log order.
fn current(topic: &TopicSchema, rows: &RecordBatch, ops: &[Op]) -> Result<UInt32Array> {
    let cells = batch_cells(rows)?;
    let mut newest: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    for (row, op) in ops.iter().enumerate() {
        let mut key = Vec::new();
        topic.key.iter().for_each(|column| cells[*column].encode(row, &mut key));
        match op {
            Op::Delete => newest.remove(&key),
            _ => newest.insert(key, u32::try_from(row)?),
        };
    }
    let mut rows: Vec<u32> = newest.into_values().collect();
    rows.sort_unstable();
    Ok(rows.into())
}
