//! `falaj training-set`: the rows that a model pipeline learns from, as Parquet.

use anyhow::{Context, Result};
use falaj_gateway::wire::ReadTicket;
use serde_json::{Value as Json, json};

use super::Session;
use super::text::{bar, count, log_time, spinner, table};
use crate::cli::{SetMode, TrainingSet};
use crate::parquet_file;

/// Writes the file.
///
/// # Errors
/// When the node cannot be asked, the set cannot be computed, or the file cannot be written.
pub async fn run(options: TrainingSet, json: bool) -> Result<()> {
    let session = Session::open_existing(&options.connection).await?;
    let outcome = write(&session, &options, json).await;
    session.close().await?;
    outcome
}

async fn write(session: &Session, options: &TrainingSet, json: bool) -> Result<()> {
    let mode = options.mode.map(|mode| match mode {
        SetMode::AsCorrected => "as_corrected",
        SetMode::AsKnown => "as_known",
        SetMode::AsServed => "as_served",
    });
    let ticket = ReadTicket {
        mode: mode.map(str::to_owned),
        until: options.until.as_deref().map(log_time).transpose()?.map(|t| t.0),
        all: options.all,
        compare: options.compare_modes,
        ..ReadTicket::training_set(&options.pipeline)
    };
    let waiting = spinner("computing features at every label's moment");
    let reading = session.client.read(&ticket).await;
    waiting.finish_and_clear();
    let mut reading = reading?;
    let metadata = reading.metadata().clone();
    // Written beside and renamed, so that a file of this name is always whole.
    let path = &options.out;
    let temporary = path.with_extension("parquet.part");
    let mut writer = parquet_file::writer(&temporary, reading.schema().clone())?;
    let progress = bar(metadata["rows"].as_u64().unwrap_or(0), &options.pipeline);
    let mut rows = 0;
    while let Some(batch) = reading.next().await? {
        rows += batch.num_rows() as u64;
        writer.write(&batch)?;
        progress.set_position(rows);
    }
    writer.close()?;
    progress.finish_and_clear();
    std::fs::rename(&temporary, path).with_context(|| format!("writing {}", path.display()))?;
    if json {
        println!("{}", json!({ "rows": rows, "file": path, "set": metadata }));
        return Ok(());
    }
    println!(
        "{} rows of {} {} in {}",
        count(rows),
        options.pipeline,
        metadata["mode"].as_str().unwrap_or_default(),
        path.display()
    );
    for comparison in metadata["differences"].as_array().into_iter().flatten() {
        print(comparison);
    }
    Ok(())
}

/// One pair of modes, feature by feature.
fn print(comparison: &Json) {
    if let Some(why) = comparison["unavailable"].as_str() {
        println!("\nbeside {}: {why}", comparison["mode"].as_str().unwrap_or_default());
        return;
    }
    println!(
        "\nbeside {}: {} of {} rows differ",
        comparison["mode"].as_str().unwrap_or_default(),
        count(comparison["differing_rows"].as_u64().unwrap_or(0)),
        count(comparison["rows"].as_u64().unwrap_or(0)),
    );
    if let Some(without) = comparison["rows_without"].as_u64().filter(|rows| *rows > 0) {
        println!("{} labels judge no prediction that was logged", count(without));
    }
    let mut features = table([
        "feature",
        "differ",
        "only here",
        "only there",
        "mean |difference|",
        "greatest",
        "smape",
    ]);
    let number =
        |value: &Json| value.as_f64().map_or("-".to_owned(), |value| format!("{value:.6}"));
    let whole = |value: &Json| count(value.as_u64().unwrap_or(0));
    for feature in comparison["features"].as_array().into_iter().flatten() {
        features.add_row([
            feature["name"].as_str().unwrap_or_default().to_owned(),
            whole(&feature["mismatch"]),
            whole(&feature["right_null"]),
            whole(&feature["left_null"]),
            number(&feature["mean_absolute"]),
            number(&feature["greatest_absolute"]),
            number(&feature["smape"]),
        ]);
    }
    println!("{features}");
}
