//! The last stage of a view: results of keys to output rows in canonical bytes.
//!
//! Why it exists: most output columns are results passed on as they are. Those are encoded straight
//! from values; only what is computed goes through columns and the vectorised program. Does not know
//! where results come from.

use std::sync::Arc;

use falaj_definitions::plan::{Shape, ViewPlan};
use falaj_definitions::program::Evaluated;
use falaj_event::encoding::{decode_value, encode_value};
use falaj_event::{EventTime, RowChange, Value, ViewId, ViewRow};

use crate::aggregate::Selector;
use crate::columns::{Columns, Computed};
use crate::error::EngineError;
use crate::metrics::Metrics;
use crate::row::Bytes;

/// What is known of a key.
pub(crate) struct Keyed {
    /// The canonical key.
    pub(crate) key: Bytes,
    /// The latest event time and the values that `finish` reads after the key's columns (all of
    /// them, in a view that computes rows one by one); `None` when the key has no row any more.
    pub(crate) row: Option<(EventTime, Vec<Value>)>,
}

/// Runs a view's `finish` program.
pub(crate) struct Finisher {
    plan: Arc<ViewPlan>,
    columns: Columns,
    /// How many of the columns that the program reads are the key's cells.
    key_width: usize,
    key_cells: Selector,
    /// For each output column, the column that it passes on.
    passed: Vec<Option<usize>>,
    /// Which columns a computation reads.
    read: Vec<bool>,
    computes: bool,
}

/// A key's cells and values, one column after the other.
struct Source<'a> {
    key: &'a [u8],
    ranges: &'a [(u32, u32)],
    values: &'a [Value],
}

impl Source<'_> {
    fn key_cell(&self, column: usize) -> Option<&[u8]> {
        let (from, to) = self.ranges.get(column)?;
        self.key.get(*from as usize..*to as usize)
    }

    fn value(&self, column: usize) -> Value {
        match self.key_cell(column) {
            Some(cell) => decode_value(cell).map_or(Value::Error, |(value, _)| value),
            None => self.values[column - self.ranges.len()].clone(),
        }
    }

    /// Appends the cell; whether it is the mark of an error.
    fn encode(&self, column: usize, out: &mut Vec<u8>) -> bool {
        if let Some(cell) = self.key_cell(column) {
            out.extend_from_slice(cell);
            return false;
        }
        let value = &self.values[column - self.ranges.len()];
        encode_value(value, out);
        matches!(value, Value::Error)
    }
}

impl Finisher {
    pub(crate) fn new(plan: &Arc<ViewPlan>) -> Result<Self, EngineError> {
        let columns = Columns::of(&plan.finish, format!("view `{}` finish", plan.name))?;
        let key_width = match plan.shape {
            Shape::Keyed { .. } => plan.key.len(),
            Shape::PerRow => 0,
        };
        let passed = plan.finish.passed_columns();
        let mut read = vec![false; columns.width()];
        let computed = passed.iter().enumerate().filter(|(_, passed)| passed.is_none());
        for column in computed.flat_map(|(output, _)| plan.finish.reads(output)) {
            if let Some(read) = read.get_mut(*column) {
                *read = true;
            }
        }
        Ok(Self {
            plan: Arc::clone(plan),
            columns,
            key_width,
            key_cells: Selector::new(key_width),
            computes: passed.iter().any(Option::is_none),
            passed,
            read,
        })
    }

    /// The view.
    pub(crate) fn view(&self) -> ViewId {
        self.plan.id
    }

    /// The changed rows of the view, in the order of `results`.
    pub(crate) fn finish(
        &self,
        results: Vec<Keyed>,
        metrics: &Metrics,
    ) -> Result<Vec<RowChange>, EngineError> {
        let evaluated = if self.computes { Some(self.evaluate(&results)?) } else { None };
        let computed = match &evaluated {
            Some(evaluated) => Some(Computed::new(evaluated, self.columns.place())?),
            None => None,
        };
        let (mut ranges, mut at, mut failures) = (Vec::new(), 0, 0);
        let mut changes = Vec::with_capacity(results.len());
        for result in results {
            let mut row = None;
            if let Some((latest_event_time, values)) = &result.row {
                let source = self.source(&result.key, values, &mut ranges)?;
                let columns = self.encode(&source, computed.as_ref(), at, &mut failures);
                row = columns
                    .map(|columns| ViewRow { latest_event_time: *latest_event_time, columns });
                at += 1;
            }
            changes.push(RowChange { view: self.plan.id, key: result.key.into_vec(), row });
        }
        Metrics::count(&metrics.expression_errors, failures);
        Ok(changes)
    }

    fn source<'a>(
        &self,
        key: &'a [u8],
        values: &'a [Value],
        ranges: &'a mut Vec<(u32, u32)>,
    ) -> Result<Source<'a>, EngineError> {
        ranges.clear();
        let found = self.key_width == 0 || self.key_cells.ranges(key, ranges).is_some();
        if !found || self.key_width + values.len() != self.columns.width() {
            let why = "a result of another width";
            return Err(EngineError::rows(self.columns.place(), why));
        }
        Ok(Source { key, ranges, values })
    }

    fn evaluate(&self, results: &[Keyed]) -> Result<Evaluated, EngineError> {
        let rows = results.iter().filter(|result| result.row.is_some()).count();
        let mut columns: Vec<Option<Vec<Value>>> =
            self.read.iter().map(|read| read.then(|| Vec::with_capacity(rows))).collect();
        let mut ranges = Vec::new();
        for result in results {
            let Some((_, values)) = &result.row else { continue };
            let source = self.source(&result.key, values, &mut ranges)?;
            for (index, column) in columns.iter_mut().enumerate() {
                if let Some(column) = column {
                    column.push(source.value(index));
                }
            }
        }
        self.columns.evaluate(columns, rows)
    }

    /// The output row; `None` where HAVING says that there is none.
    fn encode(
        &self,
        source: &Source<'_>,
        computed: Option<&Computed<'_>>,
        row: usize,
        failures: &mut usize,
    ) -> Option<Vec<u8>> {
        if let Some(having) = self.plan.having {
            let holds = match (self.passed[having], computed) {
                (Some(column), _) => source.value(column) == Value::Bool(true),
                (None, Some(computed)) => computed.is_true(having, row),
                (None, None) => false,
            };
            if !holds {
                return None;
            }
        }
        let mut bytes = Vec::with_capacity(16 * self.plan.output.len());
        for output in 0..self.plan.output.len() {
            let failed = match (self.passed[output], computed) {
                (Some(column), _) => source.encode(column, &mut bytes),
                (None, Some(computed)) => {
                    computed.encode(output, row, &mut bytes);
                    computed.is_error(output, row)
                }
                (None, None) => false,
            };
            *failures += usize::from(failed);
        }
        Some(bytes)
    }
}
