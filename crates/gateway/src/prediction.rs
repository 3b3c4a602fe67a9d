//! The shape of one prediction stream: which model, which inputs, which answer schema.
//!
//! Why it exists: everything that is the same for all requests of a stream is worked out once. It
//! knows no transport, no model arithmetic and no log.
//!
//! # Request columns
//! The entity's key columns and the request-time features that the pipeline declares, by name, in any
//! order; and, if the caller has ids of its own, `prediction_id` (string): labels that arrive later
//! find the prediction by it. Without it the node gives one.
//!
//! # Answer columns
//! `prediction_id`, the key columns, `score` (the probability of the positive class, of the label, or
//! the predicted value), `label` (the class, NULL for regression), `scores` (models of more than two
//! classes only: one probability per class in the order of the signature), `model_version`, and
//! `error`: why the row has no score, NULL where it has one.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use falaj_event::LogTime;
use falaj_event::convert::{convert, convertible};

use crate::backend::{BackendError, Catalog, Identity};

/// Name of the optional column of the caller's own ids.
pub const PREDICTION_ID: &str = "prediction_id";

/// A model pipeline as the doors show it.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// The pipeline's name: what callers predict with, whichever version serves it.
    pub name: String,
    /// The entity's key columns, in key order.
    pub keys: SchemaRef,
    /// The request-time features, in declared order.
    pub request: SchemaRef,
    /// The classes by the signature; empty for regression.
    pub classes: Vec<String>,
    /// What people should know (description, owner, task, features, …): a JSON object.
    pub details: serde_json::Value,
}

impl ModelInfo {
    /// Key columns, then request-time features: the columns of [`PredictRequest::inputs`].
    pub fn input_schema(&self) -> SchemaRef {
        let fields = self.keys.fields().iter().chain(self.request.fields());
        let nullable = fields.map(|field| Arc::new(field.as_ref().clone().with_nullable(true)));
        Arc::new(Schema::new(nullable.collect::<Vec<_>>()))
    }

    /// The schema of every answer (see the module's documentation).
    pub fn answer_schema(&self) -> SchemaRef {
        let mut fields = vec![Arc::new(Field::new(PREDICTION_ID, DataType::Utf8, true))];
        let keys = self.keys.fields().iter();
        fields.extend(keys.map(|field| Arc::new(field.as_ref().clone().with_nullable(true))));
        fields.push(Arc::new(Field::new("score", DataType::Float64, true)));
        fields.push(Arc::new(Field::new("label", DataType::Utf8, true)));
        if self.classes.len() > 2 {
            let item = Arc::new(Field::new("item", DataType::Float64, true));
            fields.push(Arc::new(Field::new("scores", DataType::List(item), true)));
        }
        fields.push(Arc::new(Field::new("model_version", DataType::UInt32, true)));
        fields.push(Arc::new(Field::new("error", DataType::Utf8, true)));
        Arc::new(Schema::new(fields))
    }
}

/// Rows to be scored.
#[derive(Clone, Debug)]
pub struct PredictRequest {
    /// The pipeline, from the current catalog.
    pub model: Arc<ModelInfo>,
    /// One row per prediction, of the schema [`ModelInfo::input_schema`].
    pub inputs: RecordBatch,
    /// The caller's ids, one per row, NULL where the node is to give one.
    pub ids: Option<StringArray>,
    /// Rows with a value that its declared type cannot hold (NULL in `inputs`), with the reason;
    /// ordered by row, at most one per row.
    pub misfits: Vec<(usize, String)>,
    /// Read features at the greatest epoch `T` at or before this one instead of the newest.
    pub as_of: Option<LogTime>,
    /// Wait until the features are at this `T`.
    pub min_t: Option<LogTime>,
    /// When to give up waiting.
    pub deadline: Option<Instant>,
    /// Who asks.
    pub identity: Identity,
}

/// Scores, row by row of the request.
#[derive(Clone, Debug)]
pub struct PredictResponse {
    /// The `T_r` of all features.
    pub t: LogTime,
    /// `T` of the epoch that carries the prediction events, where it was waited for.
    pub logged_t: Option<LogTime>,
    /// The version that answered.
    pub model_version: u32,
    /// Of the schema [`ModelInfo::answer_schema`].
    pub batch: RecordBatch,
    /// Rows without a score.
    pub errors: u64,
}

/// The settled shape of one stream.
#[derive(Debug)]
pub struct PredictPlan {
    /// The pipeline.
    pub model: Arc<ModelInfo>,
    /// The schema of every answer.
    pub schema: SchemaRef,
    inputs: SchemaRef,
    sources: Vec<usize>,
    id_source: Option<usize>,
}

impl PredictPlan {
    /// Settles the shape: `path` is `["predict", MODEL]`, `sent` the schema of the requests.
    ///
    /// # Errors
    /// Names what is unknown, missing or of another type.
    pub fn new(catalog: &Catalog, path: &[String], sent: &Schema) -> Result<Self, BackendError> {
        let [_, name] = path else {
            return Err(BackendError::invalid(format!(
                "the descriptor path {path:?} names no model: use [\"predict\", MODEL]"
            )));
        };
        let model = catalog.models.get(name).ok_or_else(|| {
            BackendError::unknown("model", name, catalog.models.keys().map(String::as_str))
        })?;
        let inputs = model.input_schema();
        let sources = inputs
            .fields()
            .iter()
            .map(|field| source_of(model, sent, field))
            .collect::<Result<Vec<_>, _>>()?;
        let id_source = match sent.column_with_name(PREDICTION_ID) {
            Some((index, field)) if convertible(field.data_type(), &DataType::Utf8) => Some(index),
            Some((_, field)) => {
                return Err(BackendError::invalid(format!(
                    "column `{PREDICTION_ID}` is text, and the stream sends {}",
                    field.data_type()
                )));
            }
            None => None,
        };
        let known = |index: &usize| sources.contains(index) || id_source == Some(*index);
        if let Some(stranger) = (0..sent.fields().len()).find(|index| !known(index)) {
            return Err(BackendError::invalid(format!(
                "column `{}` is no input of model `{name}`; send {} and, if you have ids, \
                 `{PREDICTION_ID}`",
                sent.field(stranger).name(),
                names(&inputs)
            )));
        }
        let schema = model.answer_schema();
        Ok(Self { model: Arc::clone(model), schema, inputs, sources, id_source })
    }

    /// One request's inputs and ids, of the declared types, and the rows that do not fit them.
    ///
    /// # Errors
    /// When no value of a column can be taken over.
    #[allow(clippy::type_complexity)]
    pub fn inputs(
        &self,
        request: &RecordBatch,
    ) -> Result<(RecordBatch, Option<StringArray>, Vec<(usize, String)>), BackendError> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.sources.len());
        let mut misfits = std::collections::BTreeMap::<usize, String>::new();
        for (source, field) in self.sources.iter().zip(self.inputs.fields()) {
            let sent = request.column(*source);
            let converted = convert(sent, field.data_type()).map_err(|error| {
                BackendError::invalid(format!("input `{}`: {error}", field.name()))
            })?;
            for row in converted.misfits {
                misfits.entry(row).or_insert_with(|| {
                    format!("input `{}` does not fit {}", field.name(), field.data_type())
                });
            }
            columns.push(converted.array);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(request.num_rows()));
        let inputs = RecordBatch::try_new_with_options(Arc::clone(&self.inputs), columns, &options)
            .map_err(|error| BackendError::invalid(error.to_string()))?;
        let ids = match self.id_source {
            None => None,
            Some(source) => {
                let converted =
                    convert(request.column(source), &DataType::Utf8).map_err(|error| {
                        BackendError::invalid(format!("column `{PREDICTION_ID}`: {error}"))
                    })?;
                Some(converted.array.as_string::<i32>().clone())
            }
        };
        Ok((inputs, ids, misfits.into_iter().collect()))
    }

    /// The batch of an answer that is an error.
    pub fn empty(&self) -> RecordBatch {
        RecordBatch::new_empty(Arc::clone(&self.schema))
    }
}

fn source_of(model: &ModelInfo, sent: &Schema, field: &Field) -> Result<usize, BackendError> {
    let Some((index, found)) = sent.column_with_name(field.name()) else {
        let inputs = names(&model.input_schema());
        return Err(BackendError::invalid(format!(
            "model `{}` is asked with {inputs}, and the stream has no column `{}`",
            model.name,
            field.name()
        )));
    };
    if !convertible(found.data_type(), field.data_type()) {
        return Err(BackendError::invalid(format!(
            "input `{}` of model `{}` is {}, and the stream sends {}",
            field.name(),
            model.name,
            field.data_type(),
            found.data_type()
        )));
    }
    Ok(index)
}

fn names(schema: &Schema) -> String {
    let names: Vec<String> =
        schema.fields().iter().map(|field| format!("`{}`", field.name())).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;
    use std::collections::BTreeMap;

    fn catalog() -> Catalog {
        let model = ModelInfo {
            name: "fraud".into(),
            keys: Arc::new(Schema::new(vec![Field::new("customer_id", DataType::Utf8, false)])),
            request: Arc::new(Schema::new(vec![Field::new("amount", DataType::Int32, false)])),
            classes: vec!["false".into(), "true".into()],
            details: serde_json::Value::Null,
        };
        Catalog {
            models: BTreeMap::from([("fraud".into(), Arc::new(model))]),
            ..Catalog::default()
        }
    }

    fn path(name: &str) -> Vec<String> {
        vec!["predict".into(), name.into()]
    }

    fn schema(columns: &[(&str, DataType)]) -> Schema {
        Schema::new(
            columns
                .iter()
                .map(|(name, data_type)| Field::new(*name, data_type.clone(), true))
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn inputs_are_found_by_name_and_misfits_are_named() {
        let sent = schema(&[
            ("amount", DataType::Int64),
            (PREDICTION_ID, DataType::Utf8),
            ("customer_id", DataType::Utf8),
        ]);
        let plan = PredictPlan::new(&catalog(), &path("fraud"), &sent).unwrap();
        let batch = RecordBatch::try_new(
            Arc::new(sent),
            vec![
                Arc::new(Int64Array::from(vec![7, i64::MAX])),
                Arc::new(StringArray::from(vec![Some("a"), None])),
                Arc::new(StringArray::from(vec!["CUS-1", "CUS-2"])),
            ],
        )
        .unwrap();
        let (inputs, ids, misfits) = plan.inputs(&batch).unwrap();
        assert_eq!(inputs.schema(), plan.model.input_schema());
        assert_eq!(inputs.column(0).as_string::<i32>().value(1), "CUS-2");
        assert!(inputs.column(1).is_null(1));
        assert_eq!(ids.unwrap().value(0), "a");
        assert_eq!(misfits.len(), 1);
        assert!(misfits[0].0 == 1 && misfits[0].1.contains("`amount`"), "{misfits:?}");
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let refusal = |sent: Schema, name: &str| {
            PredictPlan::new(&catalog(), &path(name), &sent).unwrap_err().to_string()
        };
        let whole = [("customer_id", DataType::Utf8), ("amount", DataType::Int64)];
        assert!(refusal(schema(&whole), "fruad").contains("fraud"));
        assert!(refusal(schema(&whole[..1]), "fraud").contains("no column `amount`"));
        let more = [whole[0].clone(), whole[1].clone(), ("extra", DataType::Utf8)];
        assert!(refusal(schema(&more), "fraud").contains("`extra` is no input"));
        let wrong = [whole[0].clone(), ("amount", DataType::Utf8)];
        assert!(refusal(schema(&wrong), "fraud").contains("`amount` of model"));
        let ids = [whole[0].clone(), whole[1].clone(), (PREDICTION_ID, DataType::Float64)];
        assert!(refusal(schema(&ids), "fraud").contains("is text"));
    }

    #[test]
    fn answers_list_scores_for_more_than_two_classes_only() {
        let model = catalog().models["fraud"].as_ref().clone();
        assert!(model.answer_schema().column_with_name("scores").is_none());
        let many = ModelInfo { classes: vec!["a".into(), "b".into(), "c".into()], ..model };
        assert!(many.answer_schema().column_with_name("scores").is_some());
    }
}
