//! The last stage of a view: results of keys to output rows in canonical bytes.
//!
//! Why it exists: most output columns are results passed on as they are. Those are copied; only what is computed goes through columns and the vectorised program, where all
//! results of an epoch are gathered first. Does not know where results come from.

use std::sync::Arc;

use falaj_definitions::plan::{Shape, ViewPlan};
use falaj_definitions::program::Evaluated;
use falaj_event::encoding::{TAG_ERROR, decode_value};
use falaj_event::foretold::Foretelling;
use falaj_event::{EventTime, KeyBytes, RowChange, Value, ViewId, ViewRow};

use crate::aggregate::Selector;
use crate::columns::{Columns, Computed};
use crate::error::EngineError;
use crate::group::Given;
use crate::metrics::Metrics;
use crate::values::{ValueList, Values};

/// Runs a view's `finish` program: [`Self::give`] it the results of an epoch, then [`Self::finish`].
pub(crate) struct Finisher {
    plan: Arc<ViewPlan>,
    rules: Rules,
    gathered: Gathered,
    rows: Rows,
}

/// How rows come from results.
struct Rules {
    columns: Columns,
    /// How many of the columns that the program reads are the key's cells.
    key_width: usize,
    key_cells: Selector,
    /// For each output column, the column that it passes on.
    passed: Vec<Option<usize>>,
    /// Which columns a computation reads.
    read: Vec<bool>,
    computes: bool,
    having: Option<usize>,
    outputs: usize,
    /// For each value of a result, the output columns that pass it on, where nothing is computed.
    passing: Vec<Vec<usize>>,
    /// An output row is the key's columns and then the values, all of them in order.
    is_plain: bool,
}

/// Results that wait for the program.
#[derive(Default)]
struct Gathered {
    results: Vec<Gathering>,
    keys: Vec<u8>,
    values: ValueList,
}

/// One of them: where its key begins, and what it is.
struct Gathering {
    key: usize,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Row(EventTime),
    Later(EventTime),
    Gone,
}

/// Rows under construction.
#[derive(Default)]
struct Rows {
    changes: Vec<RowChange>,
    /// The columns written last, and those before them.
    columns: Vec<u8>,
    before: Vec<u8>,
    foretold: Vec<u8>,
    telling: Option<Foretelling>,
    ranges: Vec<(u32, u32)>,
    /// Output columns.
    changed: Vec<usize>,
    failures: usize,
}

/// A key's cells and values, one column after the other.
struct Source<'a> {
    key: &'a [u8],
    ranges: &'a [(u32, u32)],
    values: Values<'a>,
}

impl Source<'_> {
    fn key_cell(&self, column: usize) -> Option<&[u8]> {
        let (from, to) = self.ranges.get(column)?;
        self.key.get(*from as usize..*to as usize)
    }

    fn value(&self, column: usize) -> Value {
        match self.key_cell(column) {
            Some(cell) => decode_value(cell).map_or(Value::Error, |(value, _)| value),
            None => self.values.value(column - self.ranges.len()),
        }
    }

    /// Appends the cell; whether it is the mark of an error.
    fn encode(&self, column: usize, out: &mut Vec<u8>) -> bool {
        if let Some(cell) = self.key_cell(column) {
            out.extend_from_slice(cell);
            return false;
        }
        let value = self.values.encoded(column - self.ranges.len());
        out.extend_from_slice(value);
        *value == [TAG_ERROR]
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
        let mut passing = vec![Vec::new(); columns.width() - key_width];
        for (output, column) in passed.iter().enumerate().take(plan.output.len()) {
            if let Some(column) = column.and_then(|column| column.checked_sub(key_width)) {
                passing[column].push(output);
            }
        }
        let in_order = passed.iter().enumerate().all(|(output, column)| *column == Some(output));
        let is_plain = in_order
            && plan.having.is_none()
            && plan.output.len() == columns.width()
            && matches!(plan.shape, Shape::Keyed { .. });
        let rules = Rules {
            columns,
            key_width,
            key_cells: Selector::new(key_width),
            computes: passed.iter().any(Option::is_none),
            passed,
            read,
            having: plan.having,
            outputs: plan.output.len(),
            passing,
            is_plain,
        };
        let (gathered, rows) = (Gathered::default(), Rows::default());
        Ok(Self { plan: Arc::clone(plan), rules, gathered, rows })
    }

    /// The view.
    pub(crate) fn view(&self) -> ViewId {
        self.plan.id
    }

    /// Takes a result: the values that `finish` reads after the key's columns (all of them, in a view
    /// that computes rows one by one). What comes later follows the row that it is foretold of.
    pub(crate) fn give(&mut self, key: &[u8], given: &Given<'_>) -> Result<(), EngineError> {
        let (kind, values) = match *given {
            Given::Row(time, values) => (Kind::Row(time), values),
            Given::Later(time, values, new) if !self.rules.computes => {
                self.rows.foretell(&self.rules, time, values, new);
                return Ok(());
            }
            Given::Later(time, values, _) => (Kind::Later(time), values),
            Given::Gone => (Kind::Gone, Values::NONE),
        };
        if self.rules.computes {
            self.gathered.results.push(Gathering { key: self.gathered.keys.len(), kind });
            self.gathered.keys.extend_from_slice(key);
            self.gathered.values.extend(values);
            return Ok(());
        }
        let Self { plan, rules, rows, .. } = self;
        rows.add(plan.id, rules, Finding { key, kind, values }, None)
    }

    /// The changed rows of the view, in the order in which their results were given.
    pub(crate) fn finish(&mut self, metrics: &Metrics) -> Result<Vec<RowChange>, EngineError> {
        if self.rules.computes {
            self.compute()?;
        }
        self.rows.end_row();
        Metrics::count(&metrics.expression_errors, std::mem::take(&mut self.rows.failures));
        Ok(std::mem::take(&mut self.rows.changes))
    }

    /// Runs the program over what was gathered, and adds its rows.
    fn compute(&mut self) -> Result<(), EngineError> {
        let Self { plan, rules, rows, gathered } = self;
        if gathered.results.is_empty() {
            return Ok(());
        }
        let evaluated = rules.evaluate(gathered)?;
        let computed = Computed::new(&evaluated, rules.columns.place())?;
        let mut row = 0;
        for result in gathered.iter(rules.width()) {
            let cells = Some((&computed, row));
            row += usize::from(!matches!(result.kind, Kind::Gone));
            rows.add(plan.id, rules, result, cells)?;
        }
        gathered.results.clear();
        gathered.keys.clear();
        gathered.values.clear();
        Ok(())
    }
}

/// One result.
struct Finding<'a> {
    key: &'a [u8],
    kind: Kind,
    values: Values<'a>,
}

impl Gathered {
    /// The results, with `width` values for each row.
    fn iter(&self, width: usize) -> impl Iterator<Item = Finding<'_>> {
        let ends = self.results.iter().skip(1).map(|next| next.key).chain([self.keys.len()]);
        let mut values = self.values.all();
        self.results.iter().zip(ends).map(move |(result, end)| {
            let own = if matches!(result.kind, Kind::Gone) { 0 } else { width };
            let (own, rest) = values.split_at(own);
            values = rest;
            Finding { key: &self.keys[result.key..end], kind: result.kind, values: own }
        })
    }
}

impl Rules {
    /// How many values a result has.
    fn width(&self) -> usize {
        self.columns.width() - self.key_width
    }

    fn source<'a>(
        &self,
        key: &'a [u8],
        values: Values<'a>,
        ranges: &'a mut Vec<(u32, u32)>,
    ) -> Result<Source<'a>, EngineError> {
        ranges.clear();
        let found = self.key_width == 0 || self.key_cells.ranges(key, ranges).is_some();
        if !found || self.width() != values.len() {
            let why = "a result of another width";
            return Err(EngineError::rows(self.columns.place(), why));
        }
        Ok(Source { key, ranges, values })
    }

    fn evaluate(&self, gathered: &Gathered) -> Result<Evaluated, EngineError> {
        let mut columns: Vec<Option<Vec<Value>>> =
            self.read.iter().map(|read| read.then(Vec::new)).collect();
        let (mut ranges, mut rows) = (Vec::new(), 0);
        for result in gathered.iter(self.width()) {
            if matches!(result.kind, Kind::Gone) {
                continue;
            }
            rows += 1;
            let source = self.source(result.key, result.values, &mut ranges)?;
            for (index, column) in columns.iter_mut().enumerate() {
                if let Some(column) = column {
                    column.push(source.value(index));
                }
            }
        }
        self.columns.evaluate(columns, rows)
    }

    /// Writes the output row; says whether there is one (HAVING) and how many cells failed.
    fn encode(
        &self,
        source: &Source<'_>,
        computed: Option<(&Computed<'_>, usize)>,
        bytes: &mut Vec<u8>,
    ) -> (bool, usize) {
        bytes.clear();
        if let Some(values) = source.values.joined().filter(|_| self.is_plain) {
            bytes.extend_from_slice(source.key);
            bytes.extend_from_slice(values);
            return (true, source.values.errors());
        }
        if let Some(having) = self.having {
            let holds = match (self.passed[having], computed) {
                (Some(column), _) => source.value(column) == Value::Bool(true),
                (None, Some((computed, row))) => computed.is_true(having, row),
                (None, None) => false,
            };
            if !holds {
                return (false, 0);
            }
        }
        let mut failures = 0;
        for output in 0..self.outputs {
            let failed = match (self.passed[output], computed) {
                (Some(column), _) => source.encode(column, bytes),
                (None, Some((computed, row))) => {
                    computed.encode(output, row, bytes);
                    computed.is_error(output, row)
                }
                (None, None) => false,
            };
            failures += usize::from(failed);
        }
        (true, failures)
    }
}

impl Rows {
    fn add(
        &mut self,
        view: ViewId,
        rules: &Rules,
        result: Finding<'_>,
        computed: Option<(&Computed<'_>, usize)>,
    ) -> Result<(), EngineError> {
        if let Kind::Gone = result.kind {
            self.end_row();
            let key = KeyBytes::from_slice(result.key);
            self.changes.push(RowChange { view, key, row: None });
            return Ok(());
        }
        std::mem::swap(&mut self.before, &mut self.columns);
        let source = rules.source(result.key, result.values, &mut self.ranges)?;
        let (holds, failures) = rules.encode(&source, computed, &mut self.columns);
        match result.kind {
            Kind::Later(time) => {
                if let Some(telling) = &mut self.telling {
                    telling.push(time, &self.before, &self.columns, &mut self.foretold);
                }
            }
            Kind::Row(latest_event_time) => {
                self.end_row();
                self.failures += failures;
                let columns = self.columns.clone();
                let row =
                    holds.then_some(ViewRow { latest_event_time, columns, foretold: Vec::new() });
                self.telling = holds.then(|| Foretelling::new(latest_event_time));
                let key = KeyBytes::from_slice(result.key);
                self.changes.push(RowChange { view, key, row });
            }
            Kind::Gone => {}
        }
        Ok(())
    }

    /// Adds what will come of the row added last: `new` are the values that change.
    fn foretell(&mut self, rules: &Rules, time: EventTime, values: Values<'_>, new: &[usize]) {
        let Self { telling: Some(telling), changed, foretold, .. } = self else { return };
        changed.clear();
        changed.extend(new.iter().flat_map(|value| &rules.passing[*value]));
        changed.sort_unstable();
        let value = |output: usize| {
            values.encoded(rules.passed[output].map_or(usize::MAX, |at| at - rules.key_width))
        };
        telling.push_columns(time, changed, value, foretold);
    }

    /// Gives the row added last what was foretold of it.
    fn end_row(&mut self) {
        if self.foretold.is_empty() {
            return;
        }
        if let Some(row) = self.changes.last_mut().and_then(|change| change.row.as_mut()) {
            row.foretold = self.foretold.clone();
        }
        self.foretold.clear();
    }
}
