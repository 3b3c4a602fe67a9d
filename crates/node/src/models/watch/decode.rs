//! Rows of predictions and labels as the monitors take them.
//!
//! Knows columns by name; does not know what becomes of the rows.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use falaj_definitions::catalog::Catalog;
use falaj_definitions::pipelines::{FeedbackJoin, Pipeline};
use falaj_event::encoding::{decode_row, encode_row};
use falaj_event::{LogTime, Op, TopicKind, TopicSchema, Value};
use falaj_log::PartitionEvents;
use falaj_monitor::{Label, Prediction};

use crate::models::outcomes::actual;
use crate::models::rows::RowReader;

/// The topics of one pipeline, and how its labels are read.
pub struct Topics {
    /// `NAME.predictions`.
    pub predictions: Arc<TopicSchema>,
    /// The label's topic.
    pub labels: Arc<TopicSchema>,
    /// `NAME.outcomes`.
    pub outcomes: Arc<TopicSchema>,
    /// The label's column in its topic.
    pub label_column: usize,
    entity: Vec<usize>,
    observed_at: usize,
    prediction_id: Option<usize>,
    inputs: usize,
}

impl Topics {
    /// Those of `pipeline`.
    ///
    /// # Errors
    /// When the catalog lacks one: a defect, for the pipeline was checked.
    pub fn of(pipeline: &Pipeline, catalog: &Catalog) -> Result<Self> {
        let topic = |name: &str| {
            let found = catalog.topics.get(name).with_context(|| format!("no topic {name}"))?;
            Ok::<_, anyhow::Error>(Arc::clone(&found.schema))
        };
        let labels = topic(&pipeline.label.topic)?;
        let column = |name: &str| {
            let found = labels.column_index(name);
            found.with_context(|| format!("topic {} has no column {name}", labels.name))
        };
        let prediction_id = match &pipeline.label.join {
            FeedbackJoin::PredictionId { column: name, .. } => Some(column(name)?),
            FeedbackJoin::KeyAndTime { .. } => None,
        };
        Ok(Self {
            predictions: topic(&pipeline.predictions_name())?,
            outcomes: topic(&pipeline.outcomes_name())?,
            label_column: column(&pipeline.label.column)?,
            entity: pipeline.entity.iter().map(|name| column(name)).collect::<Result<_>>()?,
            observed_at: column(&pipeline.label.observed_at)?,
            prediction_id,
            inputs: pipeline.signature.inputs.len(),
            labels,
        })
    }

    /// The predictions of one partition of an epoch, in order.
    ///
    /// # Errors
    /// When a row is not what this program writes.
    pub fn read_predictions(
        &self,
        pipeline: &Pipeline,
        events: &PartitionEvents,
    ) -> Result<Vec<Prediction>> {
        let rows = RowReader::new(&events.topic, &events.batch)?;
        (0..rows.rows()).map(|row| self.prediction(pipeline, &rows, row)).collect()
    }

    fn prediction(
        &self,
        pipeline: &Pipeline,
        rows: &RowReader<'_>,
        row: usize,
    ) -> Result<Prediction> {
        let keys = pipeline.entity.iter().map(|name| rows.value(row, name));
        let keys = keys.collect::<Result<Vec<_>>>()?;
        let inputs = match rows.value(row, "inputs")? {
            Value::Binary(bytes) => {
                let values = decode_row(&bytes).context("the inputs of a prediction")?;
                if values.len() != self.inputs {
                    // Made under another signature: nothing can be told about its inputs.
                    Vec::new()
                } else {
                    values
                }
            }
            _ => Vec::new(),
        };
        let number = |value: Value| match value {
            Value::Float64(number) => Ok(number),
            other => bail!("{other:?} is no score"),
        };
        let scores = match self.predictions.column_index("scores") {
            Some(_) => match rows.value(row, "scores")? {
                Value::List(items) => {
                    items.iter().cloned().map(number).collect::<Result<Vec<f64>>>()?
                }
                _ => Vec::new(),
            },
            None => Vec::new(),
        };
        let version = rows.number(row, "model_version")?.context("a prediction has a version")?;
        Ok(Prediction {
            id: rows.text(row, "prediction_id")?,
            key: encode_row(&keys).into(),
            t: rows.moment(row, "t")?,
            version: u32::try_from(version)?,
            served: rows.value(row, "served")? == Value::Bool(true),
            score: number(rows.value(row, "score")?)?,
            scores: scores.into(),
            predicted: match rows.value(row, "predicted")? {
                Value::String(class) => class,
                _ => "".into(),
            },
            inputs: inputs.into(),
            keys: keys.into(),
        })
    }

    /// The labels of one partition of an epoch, in order. A row without a truth judges nothing: in a
    /// table it takes back what its key said before.
    ///
    /// # Errors
    /// When a row cannot be read.
    pub fn read_labels(&self, pipeline: &Pipeline, events: &PartitionEvents) -> Result<Vec<Label>> {
        let cells = falaj_event::cells::batch_cells(&events.batch)?;
        let mut labels = Vec::with_capacity(events.len());
        for (row, op) in events.ops.iter().enumerate() {
            let values: Vec<Value> = cells.iter().map(|cell| cell.value(row)).collect();
            let id = events.event_id(row).context("an event has an id")?;
            let known = *op != Op::Delete && actual(pipeline, &values[self.label_column]).is_some();
            let is_table = self.labels.kind == TopicKind::Table;
            if !known && !is_table {
                continue;
            }
            let name = match is_table {
                true => encode_row(self.labels.key.iter().map(|column| &values[*column])),
                false => id.to_bytes().to_vec(),
            };
            let observed_at = match values[self.observed_at] {
                Value::Timestamp(micros) => LogTime(u64::try_from(micros).unwrap_or(0)),
                _ => LogTime(0),
            };
            let prediction_id = self.prediction_id.and_then(|column| match &values[column] {
                Value::String(id) => Some(Arc::clone(id)),
                _ => None,
            });
            labels.push(Label {
                name: name.into(),
                op: if known { Op::Upsert } else { Op::Delete },
                prediction_id,
                key: encode_row(self.entity.iter().map(|column| &values[*column])).into(),
                observed_at,
                row: values.into(),
            });
        }
        Ok(labels)
    }
}
