//! Replay of a prediction: its features recomputed from raw events, its model loaded by hash, its score
//! computed again, beside what was logged.
//!
//! Uses nothing of the materialised state. A difference is an answer, not an error.

use anyhow::{Context, Result, bail};
use falaj_event::encoding::{decode_row, encode_row, encode_value};
use falaj_event::ids::hex;
use falaj_event::{LogTime, Value};
use falaj_log::reader::{PiiMode, ReadOptions};
use serde_json::{Value as Json, json};

use super::predictor::{Predictor, decode_inputs, inputs_hash};
use super::rows::RowReader;
use super::serving::score;
use super::{ModelLoop, loaded};
use crate::backend::rows::is_expired;
use crate::json::value_json;

/// A logged prediction.
struct Logged {
    t: LogTime,
    version: u32,
    artifact: String,
    served: bool,
    keys: Vec<Value>,
    /// Canonical bytes; `None` where they were erased.
    inputs: Option<Vec<u8>>,
    inputs_hash: Vec<u8>,
    score: f64,
    predicted: Option<String>,
}

/// Replays the prediction called `id`: the served one, or the one that `version` made.
///
/// # Errors
/// When there is no such prediction, or the log or the artifact cannot be read.
pub fn replay(models: &ModelLoop, pipeline: &str, id: &str, version: Option<u32>) -> Result<Json> {
    let predictor = models.predictor(pipeline)?;
    let logged = find(models, predictor, id, version)?
        .with_context(|| format!("{pipeline} has no prediction `{id}` in the log"))?;
    let (inputs, events) = recompute(models, predictor, &logged)?;
    let artifact = models.artifacts().get(&logged.artifact)?;
    let model = loaded(&predictor.pipeline, logged.version, &artifact)?;
    let threshold = predictor.pipeline.serving.threshold;
    let mut scratch = model.scorer.scratch();
    let scored = score(&model, predictor.names(), &inputs, threshold, &mut scratch);
    let bytes = encode_row(&inputs);
    let hash_equal = inputs_hash(id, &bytes).as_slice() == logged.inputs_hash;
    let score_equal =
        scored.as_ref().is_ok_and(|scored| scored.score.to_bits() == logged.score.to_bits());
    let differences = match &logged.inputs {
        Some(before) => differences(predictor, before, &inputs)?,
        None => Vec::new(),
    };
    let verdict = match (hash_equal && score_equal, logged.inputs.is_some()) {
        (true, true) => "EQUAL",
        (true, false) => "EQUAL_EXCEPT_ERASED",
        (false, _) => "MISMATCH",
    };
    Ok(json!({
        "verdict": verdict,
        "pipeline": pipeline,
        "prediction_id": id,
        "t": logged.t,
        "model_version": logged.version,
        "artifact": logged.artifact,
        "served": logged.served,
        "key": named_keys(predictor, &logged.keys),
        "events_replayed": events,
        "inputs": named(predictor, &inputs),
        "inputs_equal": hash_equal,
        "inputs_erased": logged.inputs.is_none(),
        "differences": differences,
        "score": { "logged": logged.score, "recomputed": scored.as_ref().ok().map(|s| s.score) },
        "score_equal": score_equal,
        "label": {
            "logged": logged.predicted,
            "recomputed": scored.as_ref().ok().and_then(|scored| scored.predicted.clone()),
        },
        "error": scored.err(),
    }))
}

fn find(
    models: &ModelLoop,
    predictor: &Predictor,
    id: &str,
    version: Option<u32>,
) -> Result<Option<Logged>> {
    let core = models.core();
    let name = predictor.pipeline.predictions_name();
    let topic = core.catalog.topics.get(&name).with_context(|| format!("no {name}"))?;
    let schema = &topic.schema;
    let reader = core.reader.with_options(ReadOptions {
        topics: Some([schema.id()].into()),
        pii: PiiMode::Plain,
        verify: true,
        skip_cut: true,
    });
    let mut found = None;
    for partition in 0..schema.partitions {
        for (_, events) in reader.range(schema.id(), partition, 0, usize::MAX)? {
            let rows = RowReader::new(schema, &events.batch)?;
            for row in 0..rows.rows() {
                if *rows.text(row, "prediction_id")? != *id {
                    continue;
                }
                let logged = logged(predictor, &rows, row)?;
                let wanted = version.map_or(logged.served, |version| version == logged.version);
                if wanted && found.is_none() {
                    found = Some(logged);
                }
            }
        }
    }
    Ok(found)
}

fn logged(predictor: &Predictor, rows: &RowReader<'_>, row: usize) -> Result<Logged> {
    let bytes = |column: &str| -> Result<Option<Vec<u8>>> {
        Ok(match rows.value(row, column)? {
            Value::Binary(bytes) => Some(bytes.to_vec()),
            _ => None,
        })
    };
    let score = match rows.value(row, "score")? {
        Value::Float64(score) => score,
        other => bail!("a prediction's score is {other:?}"),
    };
    let keys = predictor.pipeline.signature.keys.iter();
    Ok(Logged {
        t: rows.moment(row, "t")?,
        version: u32::try_from(rows.number(row, "model_version")?.unwrap_or_default())?,
        artifact: hex(&bytes("artifact")?.unwrap_or_default()),
        served: matches!(rows.value(row, "served")?, Value::Bool(true)),
        keys: keys.map(|(name, _)| rows.value(row, name)).collect::<Result<_>>()?,
        inputs: bytes("inputs")?,
        inputs_hash: bytes("inputs_hash")?.unwrap_or_default(),
        score,
        predicted: match rows.value(row, "predicted")? {
            Value::String(class) => Some(class.to_string()),
            _ => None,
        },
    })
}

/// The inputs from raw events up to the prediction's `T_r`. Request-time features are facts of the
/// prediction itself: they are taken from what it logged.
fn recompute(
    models: &ModelLoop,
    predictor: &Predictor,
    logged: &Logged,
) -> Result<(Vec<Value>, u64)> {
    let core = models.core();
    let pipeline = &predictor.pipeline;
    let entry = core.log.entry_at(logged.t)?.context("the log has no epoch at or before T_r")?;
    let mut inputs = Vec::with_capacity(predictor.names().len());
    let mut events = 0;
    for set in &pipeline.features {
        let plans = crate::replay::with_inputs(&core.catalog.views, &set.view)
            .with_context(|| format!("there is no view called `{}`", set.view))?;
        let plan = plans.last().context("a view reads at least itself")?;
        let mut key = Vec::new();
        for column in &set.key {
            let place = pipeline.signature.keys.iter().position(|(name, _)| name == column);
            let value = place.and_then(|place| logged.keys.get(place));
            encode_value(value.with_context(|| format!("no key `{column}`"))?, &mut key);
        }
        let epoch = entry.record.epoch;
        let (row, replayed) = crate::replay::row_at(core, &plans, &key, epoch, entry.record.t)?;
        events += replayed;
        let values = row.as_ref().map(|row| decode_row(&row.columns)).transpose()?;
        let at = entry.record.t.as_event_time();
        let expired =
            row.as_ref().is_some_and(|row| is_expired(plan.ttl_us, row.latest_event_time, at));
        for column in &set.columns {
            let index = plan.output.iter().position(|found| found.name == *column);
            let index = index.with_context(|| format!("no column `{column}`"))?;
            let value = values.as_ref().and_then(|values| values.get(index)).cloned();
            inputs.push(value.filter(|_| !expired).unwrap_or(Value::Null));
        }
    }
    let given = pipeline.request.len();
    match &logged.inputs {
        Some(bytes) => {
            let before = decode_inputs(bytes, predictor.names().len())?;
            inputs.extend_from_slice(&before[before.len() - given..]);
        }
        None => inputs.extend((0..given).map(|_| Value::Null)),
    }
    Ok((inputs, events))
}

fn differences(predictor: &Predictor, before: &[u8], after: &[Value]) -> Result<Vec<Json>> {
    let before = decode_inputs(before, predictor.names().len())?;
    let same = |a: &Value, b: &Value| encode_row([a]) == encode_row([b]);
    Ok(predictor
        .names()
        .iter()
        .zip(before.iter().zip(after))
        .filter(|(_, (before, after))| !same(before, after))
        .map(|(name, (before, after))| {
            json!({ "input": name, "logged": value_json(before), "recomputed": value_json(after) })
        })
        .collect())
}

fn named(predictor: &Predictor, values: &[Value]) -> Json {
    let pairs = predictor.names().iter().zip(values);
    pairs
        .map(|(name, value)| (name.clone(), value_json(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn named_keys(predictor: &Predictor, values: &[Value]) -> Json {
    let pairs = predictor.pipeline.signature.keys.iter().zip(values);
    pairs
        .map(|((name, _), value)| (name.clone(), value_json(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
