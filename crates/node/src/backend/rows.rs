//! Stored view rows to Arrow columns and statuses, and Arrow keys to canonical key bytes.
//!
//! Pure; does not know where rows are stored or who asked.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;
use falaj_event::cells::Cells;
use falaj_event::encoding::decode_row;
use falaj_event::value::to_array;
use falaj_event::{ColumnType, LogTime, Value};
use falaj_gateway::backend::{BackendError, ValueStatus, ViewInfo, ViewRows, ViewSelection};

/// A stored row of a view, as far as a reader needs it.
pub struct StoredRow {
    /// Event time of the key's latest event.
    pub latest_event_time: i64,
    /// Canonical encoding of all output columns.
    pub columns: Vec<u8>,
}

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
            let mut bytes = Vec::with_capacity(cells.len() * 12);
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

/// Builds the answer for one view: columns in requested order, rows aligned to `rows`.
///
/// # Errors
/// When stored bytes are not a row of this view.
pub fn view_rows(
    selection: &ViewSelection,
    rows: &[Option<StoredRow>],
    t: LogTime,
    available: bool,
) -> Result<ViewRows, BackendError> {
    let view = &selection.view;
    let mut table = Table::new(view, &selection.columns, rows.len())?;
    for row in rows {
        match row {
            Some(row) => {
                let expired = is_expired(view.ttl_us, row.latest_event_time, t.as_event_time());
                table.push(row, expired)?;
            }
            None if available => table.push_absent(ValueStatus::NotFound),
            None => table.push_absent(ValueStatus::Unavailable),
        }
    }
    table.finish()
}

/// Columns under construction.
pub struct Table<'a> {
    view: &'a ViewInfo,
    columns: &'a [usize],
    types: Vec<ColumnType>,
    values: Vec<Vec<Value>>,
    statuses: Vec<u8>,
    rows: usize,
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
        Ok(Self {
            view,
            columns,
            types,
            values: columns.iter().map(|_| Vec::with_capacity(rows)).collect(),
            statuses: Vec::with_capacity(rows * columns.len()),
            rows: 0,
        })
    }

    /// Appends a stored row.
    ///
    /// # Errors
    /// When its bytes are not a row of this view.
    pub fn push(&mut self, row: &StoredRow, expired: bool) -> Result<(), BackendError> {
        let cells = decode_row(&row.columns).map_err(|error| BackendError::Damaged {
            message: format!("a stored row of view {} is damaged: {error}", self.view.name),
        })?;
        if cells.len() != self.view.schema.fields().len() {
            return Err(BackendError::Damaged {
                message: format!(
                    "a stored row of view {} has {} columns instead of {}; rebuild state/",
                    self.view.name,
                    cells.len(),
                    self.view.schema.fields().len()
                ),
            });
        }
        for (out, index) in self.values.iter_mut().zip(self.columns) {
            let (value, status) = match cells[*index].clone() {
                _ if expired && !self.view.key.contains(index) => {
                    (Value::Null, ValueStatus::Expired)
                }
                Value::Null => (Value::Null, ValueStatus::Null),
                Value::Error => (Value::Null, ValueStatus::Error),
                value => (value, ValueStatus::Present),
            };
            out.push(value);
            self.statuses.push(status as u8);
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
        let mut arrays = Vec::with_capacity(self.columns.len());
        let mut fields = Vec::with_capacity(self.columns.len());
        for ((index, column_type), values) in self.columns.iter().zip(&self.types).zip(&self.values)
        {
            let field: Field = self.view.schema.field(*index).clone().with_nullable(true);
            let array = to_array(column_type, values).map_err(|error| BackendError::Damaged {
                message: format!("view {}, column {}: {error}", self.view.name, field.name()),
            })?;
            fields.push(Arc::new(field));
            arrays.push(array);
        }
        let options =
            arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(self.rows));
        let schema = Arc::new(Schema::new(fields));
        let batch = RecordBatch::try_new_with_options(schema, arrays, &options)
            .map_err(|error| BackendError::internal(error.to_string()))?;
        Ok(ViewRows { batch, statuses: self.statuses })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Int64Type};
    use falaj_event::ViewId;
    use falaj_event::encoding::encode_row;

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
        let row = StoredRow {
            latest_event_time: 100,
            columns: encode_row(&[Value::String("a".into()), Value::Int(7), Value::Error]),
        };
        let rows = [Some(row), None];
        let found = view_rows(&selection(None), &rows, LogTime(5_000), true).unwrap();
        use ValueStatus::{Error, Expired, NotFound, Null, Present, Unavailable};
        let bytes =
            |statuses: &[ValueStatus]| statuses.iter().map(|s| *s as u8).collect::<Vec<_>>();
        assert_eq!(
            found.statuses,
            bytes(&[Present, Error, Present, Present, NotFound, NotFound, NotFound, NotFound])
        );
        assert_eq!(found.batch.column(2).as_primitive::<Int64Type>().value(0), 7);
        assert!(found.batch.column(1).is_null(0));

        let expired = view_rows(&selection(Some(4_899)), &rows, LogTime(5_000), true).unwrap();
        assert_eq!(expired.statuses[..4], bytes(&[Expired, Expired, Expired, Present]));
        assert!(expired.batch.column(0).is_null(0));
        let alive = view_rows(&selection(Some(4_900)), &rows, LogTime(5_000), false).unwrap();
        assert_eq!(alive.statuses[..4], bytes(&[Present, Error, Present, Present]));
        assert_eq!(alive.statuses[4], Unavailable as u8);
        let _ = Null;
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
        let rows =
            [Some(StoredRow { latest_event_time: 0, columns: encode_row(&[Value::Int(1)]) })];
        let error = view_rows(&selection(None), &rows, LogTime(1), true).err().unwrap();
        assert!(error.to_string().contains("1 columns instead of 3"), "{error}");
    }
}
