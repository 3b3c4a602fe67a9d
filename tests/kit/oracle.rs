//! Compares a view's rows with its oracle: portable SQL run from scratch over the exported events.
//!
//! Does not know how the rows came about.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType;
use falaj_definitions::catalog::Catalog;
use falaj_definitions::oracle::{self, Comparison};
use falaj_definitions::plan::{OutputColumn, ViewPlan};
use falaj_event::cells::Cells;
use falaj_event::encoding::{decode_row, encode_row};
use falaj_event::{ColumnType, LogTime, Value};
use tokio::runtime::Runtime;

use crate::duckdb::DuckDb;
use crate::engine::Rows;
use crate::history::History;

/// Who runs the SQL.
enum Runner {
    /// In this process.
    DataFusion(Runtime),
    /// Another program altogether.
    DuckDb(DuckDb),
}

/// Oracles over one history.
pub struct SqlOracle {
    runner: Runner,
    catalog: Arc<Catalog>,
    texts: BTreeMap<String, String>,
    tables: BTreeMap<String, RecordBatch>,
}

/// A view's rows by key, as values.
type Table = BTreeMap<Vec<u8>, Vec<Value>>;

impl SqlOracle {
    /// Exports every topic of `catalog` that `history` writes or views read.
    ///
    /// # Errors
    /// When no runtime starts.
    pub fn new(catalog: &Arc<Catalog>, history: &History) -> Result<Self> {
        let texts =
            catalog.definitions.iter().map(|d| (d.name.clone(), d.text.to_string())).collect();
        let is_read = |name: &str| !name.starts_with("falaj.") && !name.ends_with(".rejected");
        let own = catalog.topics.iter().filter(|topic| is_read(&topic.schema.name));
        let tables = own.map(|topic| (topic.schema.name.clone(), history.exported(&topic.schema)));
        Ok(Self {
            runner: Runner::DataFusion(tokio::runtime::Builder::new_current_thread().build()?),
            catalog: Arc::clone(catalog),
            texts,
            tables: tables.collect(),
        })
    }

    /// The same, run in DuckDB over Parquet files.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn in_duckdb(mut self, python: PathBuf) -> Result<Self> {
        self.runner = Runner::DuckDb(DuckDb::new(python, &self.tables)?);
        Ok(self)
    }

    /// Runs any SQL over the exported events. Its columns have these types.
    ///
    /// # Errors
    /// When the SQL engine refuses or fails.
    pub fn query(&self, sql: &str, columns: &[OutputColumn]) -> Result<Vec<RecordBatch>> {
        match &self.runner {
            Runner::DataFusion(runtime) => {
                let tables: Vec<(&str, RecordBatch)> = self
                    .tables
                    .iter()
                    .map(|(name, batch)| (name.as_str(), batch.clone()))
                    .collect();
                runtime.block_on(oracle::run::run(sql, &tables)).context(sql.to_owned())
            }
            Runner::DuckDb(duckdb) => duckdb.query(sql, columns),
        }
    }

    /// Compares `found` with the oracle of `view` at `t`: the same keys, exact columns bit for bit,
    /// numeric ones within their tolerance.
    ///
    /// # Errors
    /// The first difference, with the oracle's SQL; or why there is no oracle.
    pub fn check(&self, view: &ViewPlan, t: LogTime, found: &Rows) -> Result<()> {
        let made = oracle::oracle(&view.name, &self.texts, &self.catalog.topics, t)?;
        self.compare(view, &made, found).with_context(|| format!("the oracle's SQL:\n{}", made.sql))
    }

    fn compare(&self, view: &ViewPlan, made: &oracle::Oracle, found: &Rows) -> Result<()> {
        let names = view.output.iter().map(|column| &column.name);
        ensure!(
            names.eq(made.columns.iter().map(|(name, _)| name)),
            "other columns than the view's"
        );
        let expected = table(view, &self.query(&made.sql, &view.output)?)?;
        let found = decoded(view, found)?;
        for (key, expected) in &expected {
            let Some(found) = found.get(key) else {
                bail!("the view lacks the row {expected:?}");
            };
            for (index, (name, comparison)) in made.columns.iter().enumerate() {
                let (found, expected) = (&found[index], &expected[index]);
                if !agrees(found, expected, *comparison) {
                    let key = decode_row(key)?;
                    bail!(
                        "column `{name}` of key {key:?}: the view has {found:?}, its oracle {expected:?} ({comparison:?})"
                    );
                }
            }
        }
        match found.iter().find(|(key, _)| !expected.contains_key(*key)) {
            Some((_, row)) => bail!("the view has a row that its oracle has not: {row:?}"),
            None => Ok(()),
        }
    }
}

/// The rows of a result, cast to the view's column types.
fn table(view: &ViewPlan, batches: &[RecordBatch]) -> Result<Table> {
    let mut rows = Table::new();
    for batch in batches {
        let mut arrays = Vec::new();
        for (column, array) in view.output.iter().zip(batch.columns()) {
            let cast = carried(array, &column.column_type)
                .with_context(|| format!("column `{}` of the oracle", column.name))?;
            arrays.push(cast);
        }
        let cells =
            arrays.iter().map(|array| Cells::new(array.as_ref())).collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let values: Vec<Value> = cells.iter().map(|cells| cells.value(row)).collect();
            let key = encode_row(view.output_key.iter().map(|&column| &values[column]));
            if let Some(twice) = rows.insert(key, values) {
                bail!("the oracle has two rows for one key: {twice:?}");
            }
        }
    }
    Ok(rows)
}

/// `array` as the carrier of `column_type`. An exact number stays exact.
fn carried(array: &ArrayRef, column_type: &ColumnType) -> Result<ArrayRef> {
    let wanted = column_type.to_arrow();
    let (from, to) = (array.data_type(), &wanted);
    ensure!(!from.is_floating() || to.is_floating() || is_decimal(to), "a float became {to}");
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let cast = cast_with_options(array, &wanted, &strict)?;
    if from.is_integer() || is_decimal(from) && is_decimal(to) {
        let back = cast_with_options(&cast, from, &strict)?;
        ensure!(back.as_ref() == array.as_ref(), "{from} does not fit {to}");
    }
    Ok(cast)
}

fn is_decimal(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Decimal128(..))
}

fn decoded(view: &ViewPlan, rows: &Rows) -> Result<Table> {
    let mut table = Table::new();
    for (key, (_, columns)) in rows {
        let values = decode_row(columns)?;
        ensure!(values.len() == view.output.len(), "a row of another width: {values:?}");
        let named = encode_row(view.output_key.iter().map(|&column| &values[column]));
        ensure!(named == *key, "the row {values:?} stands under another key");
        table.insert(named, values);
    }
    Ok(table)
}

/// Whether the view's value agrees with its oracle's.
fn agrees(found: &Value, expected: &Value, comparison: Comparison) -> bool {
    match comparison {
        Comparison::Skip => true,
        Comparison::Exact => found == expected,
        Comparison::Numeric(relative) => match (found, expected) {
            (Value::List(found), Value::List(expected)) => {
                let mut pairs = found.iter().zip(expected.iter());
                found.len() == expected.len() && pairs.all(|(a, b)| agrees(a, b, comparison))
            }
            _ => match (number(found), number(expected)) {
                (Some((a, unit)), Some((b, _))) => near(a, b, relative, unit),
                _ => found == expected,
            },
        },
    }
}

/// A number and the unit that its type rounds it to.
fn number(value: &Value) -> Option<(f64, f64)> {
    Some(match value {
        Value::Int(v) => (*v as f64, 0.0),
        Value::UInt(v) => (*v as f64, 0.0),
        Value::Float32(v) => (f64::from(*v), f64::from(f32::EPSILON) * f64::from(v.abs())),
        Value::Float64(v) => (*v, 0.0),
        Value::Decimal(v, scale) => {
            let unit = 10f64.powi(-i32::from(*scale));
            (*v as f64 * unit, unit)
        }
        _ => return None,
    })
}

/// What a SQL engine's own sums of floats leave when terms of this size cancel.
const RESIDUE: f64 = 1e-8;

fn near(a: f64, b: f64, relative: f64, unit: f64) -> bool {
    let same = a == b || a.is_nan() && b.is_nan();
    same || (a - b).abs() <= relative * a.abs().max(b.abs()) + unit + RESIDUE
}
