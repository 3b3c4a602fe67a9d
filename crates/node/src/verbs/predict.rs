//! `falaj predict`: ask a model for a few rows.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::datatypes::{DataType, Field};
use falaj_gateway::Client;
use falaj_gateway::client::PredictAnswer;
use falaj_gateway::wire::PredictOptions;
use serde_json::{Value as Json, json};

use super::text::{batch_json, keys, table, time};
use super::{Session, describe};
use crate::cli::Predict;

/// Asks and prints scores.
///
/// # Errors
/// When the node cannot be asked, or no row has a score.
pub async fn run(options: Predict, as_json: bool) -> Result<()> {
    let session = Session::open_existing(&options.connection).await?;
    let outcome = ask(&session.client, &options).await;
    session.close().await?;
    let answer = outcome?;
    let metadata = &answer.metadata;
    if as_json {
        let rows = batch_json(&answer.batch)?;
        println!("{}", json!({ "metadata": metadata, "rows": rows }));
    } else {
        print(&answer)?;
    }
    if metadata.rows > 0 && metadata.errors == metadata.rows {
        bail!("no row has a score");
    }
    Ok(())
}

async fn ask(client: &Client, options: &Predict) -> Result<PredictAnswer> {
    let fields = inputs(client, &options.model).await?;
    let rows = keys(&options.rows, &fields)?;
    let mut stream = client.predictions(&options.model, rows.schema().as_ref()).await?;
    Ok(stream.predict(&rows, &PredictOptions::default()).await?)
}

/// What a model is asked with: keys and request features.
///
/// # Errors
/// When there is no such model.
pub async fn inputs(client: &Client, model: &str) -> Result<Vec<Arc<Field>>> {
    let entry = describe(client, model).await?;
    if entry["kind"] != "model" {
        bail!("`{model}` is a {}, not a model", entry["kind"].as_str().unwrap_or_default());
    }
    let columns = |list: &Json| list.as_array().cloned().unwrap_or_default();
    let mut fields = Vec::new();
    for column in columns(&entry["key"]).into_iter().chain(columns(&entry["request"])) {
        let name = column["name"].as_str().context("a column has a name")?.to_owned();
        let data_type: DataType =
            column["type"].as_str().context("a column has a type")?.parse()?;
        fields.push(Arc::new(Field::new(name, data_type, true)));
    }
    Ok(fields)
}

fn print(answer: &PredictAnswer) -> Result<()> {
    let mut rows = table(["prediction", "score", "label", "version", "error"]);
    let version = answer.metadata.model_version.map(|version| version.to_string());
    for row in 0..answer.batch.num_rows() {
        rows.add_row([
            answer.prediction_id(row).unwrap_or("–").to_owned(),
            answer.score(row).map_or_else(|| "–".into(), |score| format!("{score:.6}")),
            answer.label(row).unwrap_or("–").to_owned(),
            version.clone().unwrap_or_default(),
            answer.error(row).unwrap_or_default().to_owned(),
        ]);
    }
    println!("{rows}");
    if let Some(t) = answer.metadata.t {
        println!("features at T = {} ({})", t.0, time(t.as_event_time()));
    }
    Ok(())
}
