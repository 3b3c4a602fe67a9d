//! `falaj score`: a file of rows, or all keys of a view at one `T`, through a model, part by part, through
//! the same door as any caller's.
//!
//! Parts that are whole are left alone, so a scoring that was interrupted goes on where it was. Every
//! score is a prediction event like any other.

mod source;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::{ArrayRef, RecordBatch, StringArray, new_null_array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use falaj_gateway::client::PredictStream;
use falaj_gateway::prediction::PREDICTION_ID;
use falaj_gateway::wire::PredictOptions;
use serde_json::json;

use super::Session;
use super::predict::inputs;
use super::text::{bar, count, table};
use crate::cli::Score;
use crate::parquet_file;
use source::Source;

/// Rows of one part.
const PART_ROWS: usize = 50_000;

/// Scores the file.
///
/// # Errors
/// When the node cannot be asked, or a file cannot be read or written.
pub async fn run(options: Score, as_json: bool) -> Result<()> {
    let session = Session::open_existing(&options.connection).await?;
    let outcome = score(&session, &options, as_json).await;
    session.close().await?;
    outcome
}

#[derive(Default)]
struct Tally {
    rows: u64,
    errors: u64,
    kept: u64,
    first_error: Option<String>,
}

async fn score(session: &Session, options: &Score, as_json: bool) -> Result<()> {
    let wanted = inputs(&session.client, &options.model).await?;
    let schema = request_schema(&wanted);
    std::fs::create_dir_all(&options.to)
        .with_context(|| format!("creating {}", options.to.display()))?;
    let mut source = Source::open(session, options, &wanted).await?;
    let asking = PredictOptions { as_of: source.as_of(), ..PredictOptions::default() };
    let mut stream = session.client.predictions(&options.model, &schema).await?;
    let progress = bar(source.rows(), &options.model);
    let (mut tally, mut number, mut first) = (Tally::default(), 0, 0_u64);
    while let Some(batch) = source.next(PART_ROWS).await? {
        let path = options.to.join(format!("part-{number:05}.parquet"));
        if path.exists() {
            tally.kept += batch.num_rows() as u64;
        } else {
            let rows = questions(&batch, &schema, &source, first)?;
            let size = options.batch as usize;
            part(&mut stream, &rows, &asking, size, &path, &mut tally).await?;
        }
        number += 1;
        first += batch.num_rows() as u64;
        progress.set_position(first);
    }
    progress.finish_and_clear();
    report(options, &source, &tally, as_json);
    Ok(())
}

fn request_schema(wanted: &[Arc<Field>]) -> SchemaRef {
    let id = Arc::new(Field::new(PREDICTION_ID, DataType::Utf8, true));
    Arc::new(Schema::new(std::iter::once(id).chain(wanted.iter().cloned()).collect::<Vec<_>>()))
}

/// The model's inputs of a batch; ids are the file's own, or the source's name and the row's number.
fn questions(
    batch: &RecordBatch,
    schema: &SchemaRef,
    source: &Source,
    first: u64,
) -> Result<RecordBatch> {
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        match batch.column_by_name(field.name()) {
            Some(column) => {
                let column = arrow::compute::cast(column, field.data_type());
                columns.push(column.with_context(|| format!("column `{}`", field.name()))?);
            }
            None if field.name() == PREDICTION_ID => {
                let name = source.name();
                let ids = (0..batch.num_rows() as u64).map(|row| format!("{name}-{}", first + row));
                columns.push(Arc::new(StringArray::from_iter_values(ids)));
            }
            None if source.leaves_out(field.name()) => {
                columns.push(new_null_array(field.data_type(), batch.num_rows()));
            }
            None => {
                bail!("the file has no column `{}`, which the model is asked with", field.name())
            }
        }
    }
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// Scores one part; its file appears when it is whole.
async fn part(
    stream: &mut PredictStream,
    rows: &RecordBatch,
    asking: &PredictOptions,
    batch_rows: usize,
    path: &Path,
    tally: &mut Tally,
) -> Result<()> {
    let mut answers = Vec::new();
    let mut from = 0;
    while from < rows.num_rows() {
        let slice = rows.slice(from, batch_rows.min(rows.num_rows() - from));
        from += slice.num_rows();
        let answer = stream.predict(&slice, asking).await?;
        tally.rows += answer.metadata.rows;
        tally.errors += answer.metadata.errors;
        for row in 0..answer.batch.num_rows() {
            if tally.first_error.is_none() {
                tally.first_error = answer.error(row).map(str::to_owned);
            }
        }
        answers.push(answer.batch);
    }
    let Some(first) = answers.first() else { return Ok(()) };
    let all = concat_batches(&first.schema(), &answers)?;
    let draft: PathBuf = path.with_extension("parquet.part");
    parquet_file::write(&draft, &all)?;
    std::fs::rename(&draft, path).with_context(|| format!("writing {}", path.display()))
}

fn report(options: &Score, source: &Source, tally: &Tally, as_json: bool) {
    if as_json {
        let told = json!({
            "rows": tally.rows,
            "errors": tally.errors,
            "kept": tally.kept,
            "first_error": tally.first_error,
            "to": options.to,
            "as_of": source.as_of(),
        });
        println!("{told}");
        return;
    }
    let mut rows = table(["", "rows"]);
    rows.add_row(["scored".to_owned(), count(tally.rows - tally.errors)]);
    rows.add_row(["without a score".to_owned(), count(tally.errors)]);
    rows.add_row(["scored before".to_owned(), count(tally.kept)]);
    println!("{rows}\n{}", options.to.display());
    if let Some(error) = &tally.first_error {
        println!("the first row without a score: {error}");
    }
}
