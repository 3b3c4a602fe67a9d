//! Answers about views, row by row, as typed columns with a status per value.
//!
//! Does not know where answers come from.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow::array::{ArrayRef, FixedSizeListArray, UInt8Array};
use arrow::datatypes::{DataType, Field};
use falaj_definitions::pipelines::FeatureSet;
use falaj_definitions::plan::ViewPlan;
use falaj_event::encoding::decode_row;
use falaj_event::value::to_array;
use falaj_event::{ColumnType, Value, ViewRow};
use falaj_gateway::backend::ValueStatus;

use crate::backend::rows::is_expired;

/// A view's answer for one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The row, and the `T` that it is looked at from.
    Row {
        /// The row.
        row: ViewRow,
        /// Microseconds since 1970 UTC.
        t: i64,
    },
    /// The key had no row.
    Absent,
    /// The history does not reach back so far.
    Unavailable,
}

/// Features of all label rows.
#[derive(Clone, Debug, Default)]
pub struct Features {
    /// Names in the signature.
    pub names: Vec<String>,
    /// One column each.
    pub arrays: Vec<ArrayRef>,
    /// [`ValueStatus`] of every value, column by column.
    pub statuses: Vec<Vec<u8>>,
    rows: usize,
}

impl Features {
    /// No features of `rows` labels.
    pub fn new(rows: usize) -> Self {
        Self { rows, ..Self::default() }
    }

    /// Number of label rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Adds the columns that `set` takes of `plan`, from one answer per label.
    ///
    /// # Errors
    /// When a row is not one of the view.
    pub fn add(&mut self, plan: &ViewPlan, set: &FeatureSet, answers: &[Answer]) -> Result<()> {
        ensure!(answers.len() == self.rows, "view `{}` has another number of answers", plan.name);
        let places: Vec<usize> = set
            .columns
            .iter()
            .map(|name| {
                let place = plan.output.iter().position(|column| column.name == *name);
                place.with_context(|| format!("view `{}` has no column `{name}`", plan.name))
            })
            .collect::<Result<_>>()?;
        let mut values: Vec<Vec<Value>> = vec![Vec::with_capacity(self.rows); places.len()];
        let mut statuses: Vec<Vec<u8>> = vec![Vec::with_capacity(self.rows); places.len()];
        for answer in answers {
            let (cells, whole) = read(plan, answer)?;
            for (index, place) in places.iter().enumerate() {
                let (value, status) = match (whole, cells.get(*place)) {
                    (Some(status), _) => (Value::Null, status),
                    (None, Some(Value::Error)) => (Value::Null, ValueStatus::Error),
                    (None, Some(Value::Null) | None) => (Value::Null, ValueStatus::Null),
                    (None, Some(value)) => (value.clone(), ValueStatus::Present),
                };
                values[index].push(value);
                statuses[index].push(status as u8);
            }
        }
        for ((place, name), values) in places.iter().zip(&set.names).zip(&values) {
            self.push(name, &plan.output[*place].column_type, values)?;
        }
        self.statuses.extend(statuses);
        Ok(())
    }

    /// Adds a column; its statuses are added by the caller.
    fn push(&mut self, name: &str, column_type: &ColumnType, values: &[Value]) -> Result<()> {
        let array = to_array(column_type, values).with_context(|| format!("feature `{name}`"))?;
        self.names.push(name.to_owned());
        self.arrays.push(array);
        Ok(())
    }

    /// Adds a column of plain values, whose statuses follow from them: NULL means `absent`.
    ///
    /// # Errors
    /// When a value is not of the type.
    pub fn add_values(
        &mut self,
        name: &str,
        column_type: &ColumnType,
        values: &[Option<Value>],
    ) -> Result<()> {
        let (plain, statuses): (Vec<Value>, Vec<u8>) = values
            .iter()
            .map(|value| match value {
                None => (Value::Null, ValueStatus::NotFound as u8),
                Some(Value::Error) => (Value::Null, ValueStatus::Error as u8),
                Some(Value::Null) => (Value::Null, ValueStatus::Null as u8),
                Some(value) => (value.clone(), ValueStatus::Present as u8),
            })
            .unzip();
        self.push(name, column_type, &plain)?;
        self.statuses.push(statuses);
        Ok(())
    }

    /// The column `__status`: per row, one status per feature.
    ///
    /// # Errors
    /// When there are too many features.
    pub fn status_array(&self) -> Result<ArrayRef> {
        let width = self.names.len();
        let mut all = Vec::with_capacity(self.rows * width);
        for row in 0..self.rows {
            all.extend(self.statuses.iter().map(|column| column[row]));
        }
        let item = Arc::new(Field::new("item", DataType::UInt8, false));
        let list = FixedSizeListArray::try_new(
            item,
            i32::try_from(width)?,
            Arc::new(UInt8Array::from(all)),
            None,
        )?;
        Ok(Arc::new(list))
    }
}

/// The row's cells; or the status that every value of it has.
fn read(plan: &ViewPlan, answer: &Answer) -> Result<(Vec<Value>, Option<ValueStatus>)> {
    let (row, t) = match answer {
        Answer::Row { row, t } => (row, *t),
        Answer::Absent => return Ok((Vec::new(), Some(ValueStatus::NotFound))),
        Answer::Unavailable => return Ok((Vec::new(), Some(ValueStatus::Unavailable))),
    };
    if is_expired(plan.ttl_us, row.latest_event_time, t) {
        return Ok((Vec::new(), Some(ValueStatus::Expired)));
    }
    let cells = decode_row(&row.columns).with_context(|| format!("a row of `{}`", plan.name))?;
    ensure!(cells.len() == plan.output.len(), "a row of `{}` has another width", plan.name);
    Ok((cells, None))
}
