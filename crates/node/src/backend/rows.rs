//! Stored view rows to Arrow columns and statuses, and Arrow keys to canonical key bytes.
//!
//! Pure; does not know where rows are stored or who asked.

use arrow::record_batch::RecordBatch;
use falaj_event::cells::Cells;
use falaj_event::encoding::{decode_value, encoded_len};
use falaj_event::value::to_array;
use falaj_event::{ColumnType, Value};
use falaj_gateway::backend::{BackendError, ValueStatus, ViewInfo, ViewRows};

/// Room for a string of 22 bytes.
const KEY_CELL_BYTES: usize = 24;

/// The canonical key bytes of each row of `keys`; `None` where a key column is NULL.
///
/// # Errors
/// When a key column's Arrow type carries no column type.
pub fn key_bytes(
    keys: &RecordBatch,
    key_columns: &[usize],
) -> Result<Vec<Option<Vec<u8>>>, BackendError> {
    let cells: Vec<Cells<'_>> = key_columns
        .iter()
        .map(|index| Cells::new(keys.column(*index).as_ref()))
        .collect::<Result<_, _>>()
        .map_err(|error| BackendError::invalid(format!("keys: {error}")))?;
    Ok((0..keys.num_rows())
        .map(|row| {
            if cells.iter().any(|column| column.is_null(row)) {
                return None;
            }
            let mut bytes = Vec::with_capacity(cells.len() * KEY_CELL_BYTES);
            for column in &cells {
                column.encode(row, &mut bytes);
            }
            Some(bytes)
        })
        .collect())
}

/// Whether a row of a view with this ttl has expired, looked at from `at` (microseconds since 1970
/// UTC): its latest event is older than the ttl.
pub fn is_expired(ttl_us: Option<u64>, latest_event_time: i64, at: i64) -> bool {
    let age = i128::from(at) - i128::from(latest_event_time);
    ttl_us.is_some_and(|ttl| age > i128::from(ttl))
}

/// Columns under construction.
pub struct Table<'a> {
    view: &'a ViewInfo,
    columns: &'a [usize],
    types: Vec<ColumnType>,
    /// Columns of the view that are wanted, ascending, and as which of `columns`.
    wanted: Vec<(usize, usize)>,
    values: Vec<Vec<Value>>,
    statuses: Vec<u8>,
    rows: usize,
}

fn damaged(view: &ViewInfo, why: &str) -> BackendError {
    let message = format!("a stored row of view {} is damaged: {why}", view.name);
    BackendError::Damaged { message }
}

impl<'a> Table<'a> {
    /// A table of these columns of `view`.
    ///
    /// # Errors
    /// When a column's Arrow type carries no column type.
    pub fn new(
        view: &'a ViewInfo,
        columns: &'a [usize],
        rows: usize,
    ) -> Result<Self, BackendError> {
        let types = columns
            .iter()
            .map(|index| {
                let field = view.schema.field(*index);
                ColumnType::from_arrow(field.data_type()).ok_or_else(|| {
                    BackendError::internal(format!("column {} has no column type", field.name()))
                })
            })
            .collect::<Result<_, _>>()?;
        let mut wanted: Vec<_> = columns.iter().enumerate().map(|(out, at)| (*at, out)).collect();
        wanted.sort_unstable();
        Ok(Self {
            view,
            columns,
            types,
            wanted,
            values: columns.iter().map(|_| Vec::with_capacity(rows)).collect(),
            statuses: Vec::with_capacity(rows * columns.len()),
            rows: 0,
        })
    }

    /// Appends the row that `stored` encodes.
    ///
    /// # Errors
    /// When its bytes are not a row of this view.
    pub fn push(&mut self, stored: &[u8], expired: bool) -> Result<(), BackendError> {
        let first = self.statuses.len();
        self.statuses.resize(first + self.columns.len(), ValueStatus::NotFound as u8);
        let (mut found, mut rest, mut wanted) = (0, stored, self.wanted.as_slice());
        let damaged = |why: &str| damaged(self.view, why);
        let nothing =
            |rest: &[u8]| damaged(&format!("byte {} begins no value", stored.len() - rest.len()));
        while !rest.is_empty() {
            let outs = wanted.iter().take_while(|(column, _)| *column == found).count();
            let (outs, others) = wanted.split_at(outs);
            wanted = others;
            let hidden = expired && !self.view.key.contains(&found);
            let length = match outs.split_last() {
                Some((last, others)) if !hidden => {
                    let (value, length) = decode_value(rest).map_err(|error| {
                        encoded_len(rest).map_or(nothing(rest), |_| damaged(&error.to_string()))
                    })?;
                    let (value, status) = match value {
                        Value::Null => (Value::Null, ValueStatus::Null),
                        Value::Error => (Value::Null, ValueStatus::Error),
                        value => (value, ValueStatus::Present),
                    };
                    for (_, out) in others {
                        self.values[*out].push(value.clone());
                    }
                    self.values[last.1].push(value);
                    outs.iter().for_each(|(_, out)| self.statuses[first + out] = status as u8);
                    length
                }
                _ => {
                    for (_, out) in outs {
                        self.values[*out].push(Value::Null);
                        self.statuses[first + out] = ValueStatus::Expired as u8;
                    }
                    let length = encoded_len(rest).filter(|length| *length <= rest.len());
                    length.ok_or_else(|| nothing(rest))?
                }
            };
            found += 1;
            rest = &rest[length..];
        }
        let width = self.view.schema.fields().len();
        if found != width {
            let why = format!("{found} columns instead of {width}; rebuild state/");
            return Err(damaged(&why));
        }
        self.rows += 1;
        Ok(())
    }

    /// Appends a row of NULLs.
    pub fn push_absent(&mut self, status: ValueStatus) {
        for out in &mut self.values {
            out.push(Value::Null);
            self.statuses.push(status as u8);
        }
        self.rows += 1;
    }

    /// Number of rows so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The columns and statuses.
    ///
    /// # Errors
    /// When a value is not of its column's type.
    pub fn finish(self) -> Result<ViewRows, BackendError> {
        let arrays = self.columns.iter().zip(&self.types).zip(&self.values);
        let columns = arrays.map(|((index, column_type), values)| {
            to_array(column_type, values).map_err(|error| {
                let column = self.view.schema.field(*index).name();
                let message = format!("view {}, column {column}: {error}", self.view.name);
                BackendError::Damaged { message }
            })
        });
        Ok(ViewRows { columns: columns.collect::<Result<_, _>>()?, statuses: self.statuses })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use arrow::array::{Array, AsArray, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use falaj_event::ViewId;
    use falaj_event::encoding::encode_row;
    use falaj_gateway::backend::ViewSelection;

    fn selection(ttl_us: Option<u64>) -> ViewSelection {
        let schema = Schema::new(vec![
            Field::new("customer", DataType::Utf8, false),
            Field::new("n", DataType::Int64, true),
            Field::new("ratio", DataType::Float64, true),
        ]);
        let view = ViewInfo {
            name: "v".into(),
            id: ViewId([0; 8]),
            schema: Arc::new(schema),
            key: vec![0],
            ttl_us,
            details: serde_json::json!({}),
        };
        ViewSelection { view: Arc::new(view), columns: vec![1, 2, 1, 0], key_columns: vec![0] }
    }

    #[test]
    fn statuses_tell_what_became_of_every_value() {
        use ValueStatus::{Error, Expired, NotFound, Present, Unavailable};
        let stored = encode_row(&[Value::String("a".into()), Value::Int(7), Value::Error]);
        let answer = |ttl_us, absent| {
            let selection = selection(ttl_us);
            let mut table = Table::new(&selection.view, &selection.columns, 2).unwrap();
            table.push(&stored, is_expired(selection.view.ttl_us, 100, 5_000)).unwrap();
            table.push_absent(absent);
            table.finish().unwrap()
        };
        let found = answer(None, NotFound);
        let bytes =
            |statuses: &[ValueStatus]| statuses.iter().map(|s| *s as u8).collect::<Vec<_>>();
        assert_eq!(
            found.statuses,
            bytes(&[Present, Error, Present, Present, NotFound, NotFound, NotFound, NotFound])
        );
        assert_eq!(found.columns[2].as_primitive::<Int64Type>().value(0), 7);
        assert!(found.columns[1].is_null(0));

        let expired = answer(Some(4_899), NotFound);
        assert_eq!(expired.statuses[..4], bytes(&[Expired, Expired, Expired, Present]));
        assert!(expired.columns[0].is_null(0));
        let alive = answer(Some(4_900), Unavailable);
        assert_eq!(alive.statuses[..4], bytes(&[Present, Error, Present, Present]));
        assert_eq!(alive.statuses[4], Unavailable as u8);
    }

    #[test]
    fn keys_with_null_name_nothing() {
        let batch = RecordBatch::try_from_iter([
            ("a", Arc::new(StringArray::from(vec![Some("x"), None])) as Arc<dyn Array>),
            ("b", Arc::new(Int64Array::from(vec![Some(1), Some(2)])) as Arc<dyn Array>),
        ])
        .unwrap();
        let keys = key_bytes(&batch, &[1, 0]).unwrap();
        assert_eq!(keys[0], Some(encode_row(&[Value::Int(1), Value::String("x".into())])));
        assert_eq!(keys[1], None);
    }

    #[test]
    fn a_row_of_another_shape_is_never_served() {
        let selection = selection(None);
        let refusal = |stored: &[u8]| {
            let mut table = Table::new(&selection.view, &selection.columns, 1).unwrap();
            table.push(stored, false).unwrap_err().to_string()
        };
        assert!(refusal(&encode_row(&[Value::Int(1)])).contains("1 columns instead of 3"));
        assert!(refusal(&[0x00, 0x00, 0x77]).contains("byte 2 begins no value"));
        assert!(refusal(&[0x00, 0x02, 7]).contains("a bool is 00 or 01"));
    }
}
