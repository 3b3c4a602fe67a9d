//! What the predictions that labels judge were made with, from the log.
//!
//! A label that names its prediction takes the served one of that id; one that does not, the entity's
//! served prediction nearest to its moment, the later one of two as near, within the pipeline's
//! distance. Does not know what a model makes of the values.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use falaj_definitions::pipelines::{FeedbackJoin, Pipeline};
use falaj_event::cells::Cells;
use falaj_event::encoding::{decode_row, encode_row};
use falaj_event::{LogTime, Value};
use falaj_log::{PiiMode, ReadOptions};

use super::Labels;
use crate::core::Core;
use crate::models::rows::RowReader;

/// The inputs of a served prediction, as values in signature order; empty where they were erased or
/// belong to another signature.
type Inputs = Arc<[Value]>;

/// Served predictions by what labels know of them.
#[derive(Default)]
struct Logged {
    by_id: HashMap<Arc<str>, Inputs>,
    by_key: HashMap<Vec<u8>, BTreeMap<LogTime, Inputs>>,
}

/// For every label row, in order, the inputs that its prediction was made with; `None` where there is
/// no such prediction, or what it was made with is gone.
///
/// # Errors
/// When the log holds no predictions up to `epoch`, or one cannot be read.
pub(super) fn inputs(
    core: &Core,
    pipeline: &Pipeline,
    labels: &Labels,
    epoch: u64,
) -> Result<Vec<Option<Inputs>>> {
    let logged = read(core, pipeline, epoch)?;
    ensure!(
        !logged.by_key.is_empty(),
        "no predictions have been logged: train as_corrected or as_known until some are"
    );
    let within_us = match &pipeline.label.join {
        FeedbackJoin::PredictionId { within_us, .. } | FeedbackJoin::KeyAndTime { within_us } => {
            *within_us
        }
    };
    let ids = match &pipeline.label.join {
        FeedbackJoin::PredictionId { column, .. } => {
            let found = labels.batch.column_by_name(column);
            Some(found.with_context(|| format!("labels have no column `{column}`"))?)
        }
        FeedbackJoin::KeyAndTime { .. } => None,
    };
    let ids = ids.map(|column| Cells::new(column.as_ref())).transpose()?;
    let keys = labels.keys(&pipeline.entity)?;
    let find = |row: usize| match ids.as_ref().map(|ids| ids.value(row)) {
        Some(Value::String(id)) => logged.by_id.get(&id).cloned(),
        _ => {
            let at = LogTime(u64::try_from(labels.observed_at[row]).unwrap_or(0));
            nearest(logged.by_key.get(keys[row].as_ref()?)?, at, within_us)
        }
    };
    Ok((0..labels.len()).map(|row| find(row).filter(|inputs| !inputs.is_empty())).collect())
}

fn nearest(made: &BTreeMap<LogTime, Inputs>, at: LogTime, within_us: u64) -> Option<Inputs> {
    let before = made.range(..at).next_back();
    let after = made.range(at..).next();
    let found = before.into_iter().chain(after).min_by_key(|(t, _)| {
        let later_first = std::cmp::Reverse(**t);
        (t.0.abs_diff(at.0), later_first)
    });
    found.filter(|(t, _)| t.0.abs_diff(at.0) <= within_us).map(|(_, inputs)| Arc::clone(inputs))
}

fn read(core: &Core, pipeline: &Pipeline, epoch: u64) -> Result<Logged> {
    let name = format!("{}.predictions", pipeline.name);
    let topic = core.catalog.topics.get(&name).with_context(|| format!("no topic {name}"))?;
    let schema = &topic.schema;
    let reader = core.reader.with_options(ReadOptions {
        topics: Some([schema.id()].into()),
        pii: PiiMode::Plain,
        skip_cut: true,
        ..ReadOptions::default()
    });
    let width = pipeline.signature.inputs.len();
    let mut logged = Logged::default();
    for partition in 0..schema.partitions {
        for (found_in, events) in reader.range(schema.id(), partition, 0, usize::MAX)? {
            if found_in.epoch > epoch {
                continue;
            }
            let rows = RowReader::new(schema, &events.batch)?;
            for row in 0..rows.rows() {
                if rows.value(row, "served")? != Value::Bool(true) {
                    continue;
                }
                let inputs = match rows.value(row, "inputs")? {
                    Value::Binary(bytes) => decode_row(&bytes).context("a prediction's inputs")?,
                    _ => Vec::new(),
                };
                let inputs: Inputs = match inputs.len() == width {
                    true => inputs.into(),
                    false => Arc::from([]),
                };
                let keys = pipeline.entity.iter().map(|name| rows.value(row, name));
                let key = encode_row(&keys.collect::<Result<Vec<_>>>()?);
                let made = logged.by_key.entry(key).or_default();
                made.insert(rows.moment(row, "t")?, Arc::clone(&inputs));
                logged.by_id.insert(rows.text(row, "prediction_id")?, inputs);
            }
        }
    }
    Ok(logged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_without_an_id_takes_the_nearest_prediction_within_reach() {
        let of = |value: i64| -> Inputs { Arc::from([Value::Int(value)]) };
        let made =
            BTreeMap::from([(LogTime(10), of(1)), (LogTime(20), of(2)), (LogTime(50), of(3))]);
        assert_eq!(nearest(&made, LogTime(12), 5), Some(of(1)));
        // The later one of two as near.
        assert_eq!(nearest(&made, LogTime(15), 5), Some(of(2)));
        assert_eq!(nearest(&made, LogTime(30), 5), None);
        assert_eq!(nearest(&made, LogTime(60), 10), Some(of(3)));
    }
}
