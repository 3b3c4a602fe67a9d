//! DuckDB, as an engine that shares no line with ours: it runs in a Python interpreter that has the
//! `duckdb` package and reads the exported events from Parquet files.
//!
//! Does not know what the SQL means.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use arrow::array::RecordBatch;
use falaj_definitions::plan::OutputColumn;
use falaj_event::ColumnType;
use falaj_node::parquet_file;
use tempfile::TempDir;

/// Reads `table.parquet` files of a folder as tables, runs the SQL of one file and writes the result.
const PROGRAM: &str = "\
import duckdb, pathlib, sys
folder = pathlib.Path(sys.argv[1])
database = duckdb.connect()
database.execute(\"SET TimeZone = 'UTC'\")
for file in sorted((folder / 'tables').glob('*.parquet')):
    database.execute(f\"CREATE TABLE \\\"{file.stem}\\\" AS SELECT * FROM read_parquet('{file}')\")
sql = (folder / 'query.sql').read_text()
database.execute(f\"COPY ({sql}) TO '{folder / 'result.parquet'}' (FORMAT PARQUET)\")
";

/// The interpreter that `FALAJ_DUCKDB` names, or one on the path that has the package; otherwise says
/// that the test is skipped.
pub fn python() -> Option<PathBuf> {
    let named = std::env::var_os("FALAJ_DUCKDB").map(PathBuf::from);
    let python = named.clone().unwrap_or_else(|| PathBuf::from("python3"));
    let has = Command::new(&python).args(["-c", "import duckdb"]).output();
    if has.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    assert!(named.is_none(), "FALAJ_DUCKDB names an interpreter without the duckdb package");
    println!("skipped: FALAJ_DUCKDB names no python with the duckdb package");
    None
}

/// Tables in files, and the interpreter.
pub struct DuckDb {
    python: PathBuf,
    folder: TempDir,
}

impl DuckDb {
    /// Writes the tables.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn new(python: PathBuf, tables: &BTreeMap<String, RecordBatch>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("tables"))?;
        for (name, batch) in tables {
            let file = format!("{}.parquet", falaj_definitions::oracle::table_name(name));
            let file = folder.path().join("tables").join(file);
            parquet_file::write(&file, batch)?;
        }
        Ok(Self { python, folder })
    }

    /// Runs one query, whose columns have these types.
    ///
    /// # Errors
    /// What DuckDB says, with the SQL.
    pub fn query(&self, sql: &str, columns: &[OutputColumn]) -> Result<Vec<RecordBatch>> {
        // DuckDB's 128-bit integers have no place in Parquet; as decimals they are exact.
        let carried: Vec<String> = columns
            .iter()
            .map(|column| match &column.column_type {
                ColumnType::Decimal { precision, scale } => format!(
                    "CAST(\"{0}\" AS DECIMAL({precision}, {scale})) AS \"{0}\"",
                    column.name
                ),
                _ => format!("\"{}\"", column.name),
            })
            .collect();
        let wrapped = format!("SELECT {} FROM ({sql}) AS oracle", carried.join(", "));
        std::fs::write(self.folder.path().join("query.sql"), &wrapped)?;
        let output = Command::new(&self.python)
            .args(["-c", PROGRAM])
            .arg(self.folder.path())
            .output()
            .context("running python")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "DuckDB: {said}\n{wrapped}");
        let batches = parquet_file::reader(&self.folder.path().join("result.parquet"), 4_096)?;
        Ok(batches.collect::<Result<_, _>>()?)
    }
}
