//! Columns of training rows on their way into a reference: numbers, and names as codes.
//!
//! Does not know chunks or tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use falaj_drift::{
    BinDefinition, CategorySummary, ColumnSummary, CounterRandom, DriftError, NumericSummary,
};
use falaj_event::Value;

use super::NAMES;
use super::matrix::Encoding;

/// Bins of a numeric column: equal shares of the reference.
const BINS: usize = 10;
/// Draws the samples of references.
const SAMPLE_STREAM: u64 = 0x5245_4645_5245_4E43;

/// One column.
pub(super) enum Column {
    Numbers(Vec<Option<f64>>),
    Names(Names),
}

/// Names as codes in order of appearance.
#[derive(Default)]
pub(super) struct Names {
    names: Vec<Arc<str>>,
    codes: BTreeMap<Arc<str>, u32>,
    rows: Vec<Option<u32>>,
}

impl Names {
    pub(super) fn add(&mut self, name: Option<&str>) {
        let code = name.map(|name| match self.codes.get(name) {
            Some(code) => *code,
            None => {
                let (code, name) = (self.names.len() as u32, Arc::<str>::from(name));
                self.names.push(Arc::clone(&name));
                self.codes.insert(name, code);
                code
            }
        });
        self.rows.push(code);
    }

    pub(super) fn name(&self, row: usize) -> Option<&str> {
        let code = self.rows.get(row).copied().flatten()?;
        self.names.get(code as usize).map(|name| &**name)
    }

    /// The names of these rows, the most frequent first, those as frequent by name.
    pub(super) fn by_frequency(&self, rows: &[usize]) -> Vec<(usize, &str)> {
        let mut sizes = vec![0; self.names.len()];
        for row in rows {
            if let Some(code) = self.rows.get(*row).copied().flatten() {
                sizes[code as usize] += 1;
            }
        }
        let all = sizes.into_iter().zip(&self.names).map(|(size, name)| (size, &**name));
        let mut found: Vec<(usize, &str)> = all.filter(|(size, _)| *size > 0).collect();
        found.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        found
    }
}

/// A summary over the column's bins (or its most frequent names) that counts nothing yet.
pub(super) fn empty_summary(column: &Column, order: &[usize]) -> Result<ColumnSummary, DriftError> {
    match column {
        Column::Numbers(rows) => {
            let values = order.iter().filter_map(|row| rows[*row]);
            let mut sorted: Vec<f64> = values.filter(|value| value.is_finite()).collect();
            sorted.sort_unstable_by(f64::total_cmp);
            let range = sorted.first().copied().zip(sorted.last().copied());
            // A column that is always missing has one bin, and can only come to be present.
            let bins = match sorted.is_empty() {
                true => BinDefinition::Cuts { cuts: Vec::new(), origin: "no values".to_owned() },
                false => BinDefinition::quantiles(&sorted, BINS)?,
            };
            Ok(ColumnSummary::Numeric(NumericSummary::new(bins, range, 0)))
        }
        Column::Names(names) => {
            let mut names = names.by_frequency(order);
            names.truncate(NAMES);
            // Zero counts keep the places: a chunk counts the same names as the whole.
            let mut summary = CategorySummary::new(names.len());
            summary.counts = names.into_iter().map(|(_, name)| (name.to_string(), 0)).collect();
            Ok(ColumnSummary::Category(summary))
        }
    }
}

pub(super) fn with_sample(empty: &ColumnSummary, sample: usize) -> ColumnSummary {
    match empty {
        ColumnSummary::Numeric(summary) => ColumnSummary::Numeric(summary.empty_like(sample)),
        ColumnSummary::Category(summary) => ColumnSummary::Category(summary.clone()),
    }
}

pub(super) fn add_row(summary: &mut ColumnSummary, column: &Column, row: usize, place: u64) {
    match (summary, column) {
        (ColumnSummary::Numeric(summary), Column::Numbers(rows)) => {
            summary.add(sample_hash(place), rows[row]);
        }
        (ColumnSummary::Category(summary), Column::Names(names)) => summary.add(names.name(row)),
        _ => {}
    }
}

pub(super) fn encoded(columns: &[&Column], encodings: &[Encoding], row: usize) -> Vec<f64> {
    let mut out = Vec::new();
    for (column, encoding) in columns.iter().zip(encodings) {
        let value = match column {
            Column::Numbers(rows) => rows[row].map_or(Value::Null, Value::Float64),
            Column::Names(names) => {
                names.name(row).map_or(Value::Null, |name| Value::String(name.into()))
            }
        };
        encoding.encode(&value, &mut out);
    }
    out
}

pub(super) fn sample_hash(place: u64) -> u64 {
    CounterRandom::new(0, SAMPLE_STREAM).at(place)
}
