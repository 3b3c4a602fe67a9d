//! Parquet files, written and read as this program does everywhere.
//!
//! Does not know what the rows are.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

/// A writer of a new file; `close` it to make the file whole.
///
/// # Errors
/// When the file cannot be made or a type has no place in Parquet.
pub fn writer(path: &Path, schema: SchemaRef) -> Result<ArrowWriter<File>> {
    let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    Ok(ArrowWriter::try_new(file, schema, Some(properties))?)
}

/// A file's batches of at most `rows` rows each.
///
/// # Errors
/// When the file cannot be read or is no Parquet.
pub fn reader(path: &Path, rows: usize) -> Result<ParquetRecordBatchReader> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(|builder| builder.with_batch_size(rows).build())
        .with_context(|| format!("{}: reading Parquet", path.display()))
}

/// Writes one batch as a file.
///
/// # Errors
/// As [`writer`].
pub fn write(path: &Path, batch: &RecordBatch) -> Result<()> {
    let mut writer = writer(path, batch.schema())?;
    writer.write(batch)?;
    writer.close()?;
    Ok(())
}

/// Number of rows of a Parquet file.
///
/// # Errors
/// When it cannot be read.
pub fn rows(path: &Path) -> Result<u64> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)
        .with_context(|| format!("{}: reading Parquet", path.display()))?;
    Ok(u64::try_from(builder.metadata().file_metadata().num_rows())?)
}
