//! The shape of one feature stream: which views and columns, which keys, which answer schema.
//!
//! Why it exists: everything that is the same for all requests of a stream is worked out once. It
//! knows no transport.
//!
//! # Answer columns
//! The key columns as the request names them; then the value columns, called `column` when one view
//! is read and `view.column` when several are; then `__status`, a fixed-size list of one uint8 per
//! value column in the same order ([`crate::backend::ValueStatus`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, FixedSizeListArray, RecordBatch, RecordBatchOptions, UInt8Array, new_empty_array,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use falaj_event::LogTime;
use falaj_event::convert::{convert, convertible};

use crate::backend::{
    BackendError, Catalog, LookupResponse, ViewInfo, ViewSelection, status_field,
};
use crate::wire::StatusCounts;

/// Longest wait that a request may ask for.
const MAX_WAIT: Duration = Duration::from_secs(600);
/// How long to wait for `min_t` when the request does not say.
const DEFAULT_WAIT: Duration = Duration::from_secs(10);

/// The settled shape of one stream.
#[derive(Debug)]
pub struct LookupPlan {
    /// What is looked up, for [`crate::backend::LookupRequest::views`].
    pub views: Arc<[ViewSelection]>,
    /// The schema of every answer.
    pub schema: SchemaRef,
    /// The keys as the backend gets them: per column its place in the request and its type.
    key_sources: Vec<usize>,
    key_schema: SchemaRef,
    /// Leading columns of `key_schema` that the answer repeats.
    echoed: usize,
    values: usize,
}

impl LookupPlan {
    /// Settles the shape: `path` is `["features", VIEW or VIEW.COLUMN, …]`, `keys` the schema of the
    /// requests.
    ///
    /// # Errors
    /// Names what is unknown or missing, with names that are near.
    pub fn new(catalog: &Catalog, path: &[String], keys: &Schema) -> Result<Self, BackendError> {
        let wanted = selections(catalog, path)?;
        let mut key_fields: Vec<Field> = Vec::new();
        let mut key_sources: Vec<usize> = Vec::new();
        let mut extra: Vec<(usize, Field)> = Vec::new();
        let mut owner: BTreeMap<usize, usize> = BTreeMap::new();
        for (view, _) in &wanted {
            for source in key_places(view, keys)? {
                let declared = view.schema.field(view.key[source.0]).clone().with_nullable(true);
                match owner.get(&source.1) {
                    None => {
                        owner.insert(source.1, key_fields.len());
                        key_sources.push(source.1);
                        key_fields.push(declared);
                    }
                    Some(place) if key_fields[*place].data_type() == declared.data_type() => {}
                    Some(_) => extra.push((source.1, declared)),
                }
            }
        }
        refuse_strangers(keys, &owner, &wanted)?;
        let echoed = key_fields.len();
        for (source, field) in extra {
            key_sources.push(source);
            key_fields.push(field);
        }
        let several = wanted.len() > 1;
        let mut fields: Vec<Field> = key_fields[..echoed].to_vec();
        let mut views = Vec::with_capacity(wanted.len());
        for (view, columns) in wanted {
            for column in &columns {
                let field = view.schema.field(*column);
                let name = match several {
                    true => format!("{}.{}", view.name, field.name()),
                    false => field.name().clone(),
                };
                fields.push(Field::new(name, field.data_type().clone(), true));
            }
            let key_columns = key_places(&view, keys)?
                .into_iter()
                .map(|(key, source)| {
                    let data_type = view.schema.field(view.key[key]).data_type();
                    place_of(&key_sources, &key_fields, source, data_type)
                })
                .collect::<Result<Vec<_>, _>>()?;
            views.push(ViewSelection { view, columns, key_columns });
        }
        let values = fields.len() - echoed;
        fields.push(status_field(values));
        Ok(Self {
            views: views.into(),
            schema: Arc::new(Schema::new(fields)),
            key_sources,
            key_schema: Arc::new(Schema::new(key_fields)),
            echoed,
            values,
        })
    }

    /// One request's keys, of the declared types.
    ///
    /// # Errors
    /// Names the first key that its type cannot hold.
    pub fn keys(&self, request: &RecordBatch) -> Result<RecordBatch, BackendError> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.key_sources.len());
        for (source, field) in self.key_sources.iter().zip(self.key_schema.fields()) {
            let converted =
                convert(request.column(*source), field.data_type()).map_err(|error| {
                    BackendError::invalid(format!("key `{}`: {error}", field.name()))
                })?;
            if let Some(row) = converted.misfits.first() {
                return Err(BackendError::invalid(format!(
                    "key `{}` of row {row} does not fit {}",
                    field.name(),
                    field.data_type()
                )));
            }
            columns.push(converted.array);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(request.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.key_schema), columns, &options)
            .map_err(|error| BackendError::invalid(error.to_string()))
    }

    /// Puts keys, values and statuses into one batch.
    ///
    /// # Errors
    /// When what the backend found is not what was asked for: a defect behind the door.
    pub fn answer(
        &self,
        keys: &RecordBatch,
        found: LookupResponse,
    ) -> Result<(LogTime, StatusCounts, RecordBatch), BackendError> {
        let rows = keys.num_rows();
        let defect = |what: &str| BackendError::internal(format!("a lookup's answer {what}"));
        if found.views.len() != self.views.len() {
            return Err(defect("has another number of views"));
        }
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        columns.extend(keys.columns().iter().take(self.echoed).cloned());
        for (selection, view) in self.views.iter().zip(&found.views) {
            let width = selection.columns.len();
            if view.columns.len() != width
                || view.columns.iter().any(|column| column.len() != rows)
                || view.statuses.len() != rows * width
            {
                return Err(defect("has another shape"));
            }
            columns.extend(view.columns.iter().cloned());
        }
        let statuses = self.merge_statuses(found.views.into_iter().map(|view| view.statuses), rows);
        let counts = StatusCounts::of(&statuses).ok_or_else(|| defect("has an unknown status"))?;
        columns.push(status_array(statuses, self.values, rows)?);
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|error| defect(&format!("does not fit the schema: {error}")))?;
        Ok((found.t, counts, batch))
    }

    fn merge_statuses(&self, mut parts: impl Iterator<Item = Vec<u8>>, rows: usize) -> Vec<u8> {
        if self.views.len() == 1 {
            return parts.next().unwrap_or_default();
        }
        let parts: Vec<Vec<u8>> = parts.collect();
        let mut merged = Vec::with_capacity(rows * self.values);
        for row in 0..rows {
            for (selection, part) in self.views.iter().zip(&parts) {
                let width = selection.columns.len();
                merged.extend_from_slice(&part[row * width..(row + 1) * width]);
            }
        }
        merged
    }

    /// The batch of an answer that is an error.
    pub fn empty(&self) -> RecordBatch {
        RecordBatch::new_empty(Arc::clone(&self.schema))
    }
}

/// When a request that came at `now` gives up waiting for `min_t`.
pub fn deadline(timeout_ms: Option<u64>, now: Instant) -> Option<Instant> {
    now.checked_add(timeout_ms.map_or(DEFAULT_WAIT, Duration::from_millis).min(MAX_WAIT))
}

/// The `__status` column of `rows` rows with `values` value columns each.
///
/// # Errors
/// When the lengths do not fit.
pub fn status_array(
    statuses: Vec<u8>,
    values: usize,
    rows: usize,
) -> Result<ArrayRef, BackendError> {
    let DataType::FixedSizeList(item, width) = status_field(values).data_type().clone() else {
        return Err(BackendError::internal("the status column is a list"));
    };
    if rows == 0 {
        return Ok(new_empty_array(&DataType::FixedSizeList(item, width)));
    }
    let statuses = Arc::new(UInt8Array::from(statuses));
    FixedSizeListArray::try_new_with_length(item, width, statuses, None, rows)
        .map(|array| Arc::new(array) as ArrayRef)
        .map_err(|error| BackendError::internal(format!("the status column: {error}")))
}

type Wanted = Vec<(Arc<ViewInfo>, Vec<usize>)>;

/// Views and columns that a path names, views in order of first appearance.
fn selections(catalog: &Catalog, path: &[String]) -> Result<Wanted, BackendError> {
    let Some(("features", names)) = path.split_first().map(|(door, rest)| (door.as_str(), rest))
    else {
        return Err(BackendError::invalid(format!(
            "the descriptor path {path:?} is no door: use [\"features\", VIEW or VIEW.COLUMN, …]"
        )));
    };
    if names.is_empty() {
        return Err(BackendError::invalid("the descriptor path names no view"));
    }
    let mut wanted: Wanted = Vec::new();
    for name in names {
        let (view, columns) = selection(catalog, name)?;
        match wanted.iter_mut().find(|(other, _)| other.name == view.name) {
            None => wanted.push((view, columns)),
            Some((_, chosen)) => {
                for column in columns {
                    if !chosen.contains(&column) {
                        chosen.push(column);
                    }
                }
            }
        }
    }
    Ok(wanted)
}

fn selection(catalog: &Catalog, name: &str) -> Result<(Arc<ViewInfo>, Vec<usize>), BackendError> {
    if let Some(view) = catalog.views.get(name) {
        return Ok((Arc::clone(view), view.value_columns()));
    }
    let split = name
        .rsplit_once('.')
        .and_then(|(view, column)| catalog.views.get(view).map(|view| (Arc::clone(view), column)));
    let Some((view, column)) = split else {
        return Err(unknown_view(catalog, name));
    };
    let index = column_of(&view, column)?;
    Ok((view, vec![index]))
}

/// The error for a view that the catalog does not have.
pub fn unknown_view(catalog: &Catalog, name: &str) -> BackendError {
    BackendError::unknown("view", name, catalog.views.keys().map(String::as_str))
}

/// The index of a view's column.
///
/// # Errors
/// Names the columns that are near.
pub fn column_of(view: &ViewInfo, column: &str) -> Result<usize, BackendError> {
    view.schema.column_with_name(column).map(|(index, _)| index).ok_or_else(|| {
        let columns = view.schema.fields().iter().map(|field| field.name().as_str());
        BackendError::unknown("column", column, columns)
    })
}

/// For each key column of `view` (by number) its place in the request.
fn key_places(view: &ViewInfo, keys: &Schema) -> Result<Vec<(usize, usize)>, BackendError> {
    let mut places = Vec::with_capacity(view.key.len());
    for (number, column) in view.key.iter().enumerate() {
        let declared = view.schema.field(*column);
        let Some((place, sent)) = keys.column_with_name(declared.name()) else {
            return Err(BackendError::invalid(format!(
                "view `{}` is looked up by {}, and the stream has no column `{}`",
                view.name,
                key_names(view),
                declared.name()
            )));
        };
        if !convertible(sent.data_type(), declared.data_type()) {
            return Err(BackendError::invalid(format!(
                "key `{}` of view `{}` is {}, and the stream sends {}",
                declared.name(),
                view.name,
                declared.data_type(),
                sent.data_type()
            )));
        }
        places.push((number, place));
    }
    Ok(places)
}

fn key_names(view: &ViewInfo) -> String {
    let names: Vec<String> =
        view.key.iter().map(|column| format!("`{}`", view.schema.field(*column).name())).collect();
    names.join(", ")
}

fn refuse_strangers(
    keys: &Schema,
    used: &BTreeMap<usize, usize>,
    wanted: &Wanted,
) -> Result<(), BackendError> {
    let stranger = (0..keys.fields().len()).find(|index| !used.contains_key(index));
    let Some(stranger) = stranger else { return Ok(()) };
    let name = keys.field(stranger).name();
    let known = wanted.iter().map(|(view, _)| key_names(view)).collect::<Vec<_>>().join(", ");
    Err(BackendError::invalid(format!(
        "column `{name}` is no key of these views; send {known} only"
    )))
}

fn place_of(
    sources: &[usize],
    fields: &[Field],
    source: usize,
    data_type: &DataType,
) -> Result<usize, BackendError> {
    sources
        .iter()
        .zip(fields)
        .position(|(other, field)| *other == source && field.data_type() == data_type)
        .ok_or_else(|| BackendError::internal("a key column was lost"))
}

#[cfg(test)]
mod tests;
