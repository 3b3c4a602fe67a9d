//! `falaj features`: look keys up.

use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::datatypes::{Field, SchemaRef};
use falaj_gateway::Client;
use falaj_gateway::backend::{STATUS_COLUMN, ValueStatus};
use falaj_gateway::client::FeatureAnswer;
use falaj_gateway::wire::LookupOptions;
use serde_json::{Value as Json, json};

use super::text::{batch_json, keys, log_time, table, time};
use super::{Session, describe};
use crate::cli::Features;

/// Looks features up and prints values with their statuses.
///
/// # Errors
/// When the node cannot be asked, or a key is not one of the views.
pub async fn run(options: Features, json: bool) -> Result<()> {
    let session = Session::open_existing(&options.connection).await?;
    let outcome = look_up(&session.client, &options).await;
    session.close().await?;
    let answer = outcome?;
    match json {
        true => println!("{}", to_json(&answer)?),
        false => print(&answer)?,
    }
    Ok(())
}

/// The key fields of a view, in key order.
///
/// # Errors
/// When there is no such view.
pub async fn key_fields(client: &Client, view: &str) -> Result<Vec<Arc<Field>>> {
    let schema: SchemaRef = client.columns(&["features", view]).await?;
    let entry = describe(client, view).await?;
    let names = entry["key"].as_array().context("a view has a key")?;
    names
        .iter()
        .map(|name| {
            let name = name.as_str().unwrap_or_default();
            Ok(Arc::new(schema.field_with_name(name)?.clone()))
        })
        .collect()
}

async fn look_up(client: &Client, options: &Features) -> Result<FeatureAnswer> {
    let mut fields: Vec<Arc<Field>> = Vec::new();
    for view in &options.views {
        for field in key_fields(client, view).await? {
            if !fields.iter().any(|known| known.name() == field.name()) {
                fields.push(field);
            }
        }
    }
    let keys = keys(&options.keys, &fields)?;
    let time = |text: &Option<String>| text.as_deref().map(log_time).transpose();
    let asked = LookupOptions {
        as_of: time(&options.as_of)?.map(|t| t.0),
        min_t: time(&options.min_t)?.map(|t| t.0),
        ..LookupOptions::default()
    };
    let features: Vec<String> = match options.columns.is_empty() {
        true => options.views.clone(),
        false => options
            .views
            .iter()
            .flat_map(|view| options.columns.iter().map(move |column| format!("{view}.{column}")))
            .collect(),
    };
    let mut stream = client.features(&features, keys.schema().as_ref()).await?;
    Ok(stream.lookup(&keys, &asked).await?)
}

/// Names of the value columns and their position among all columns.
fn value_columns(answer: &FeatureAnswer) -> Vec<(usize, String)> {
    let schema = answer.batch.schema();
    let keys = schema.fields().len() - 1 - value_count(answer);
    let fields = schema.fields().iter().enumerate().skip(keys);
    fields
        .filter(|(_, field)| field.name() != STATUS_COLUMN)
        .map(|(index, field)| (index, field.name().clone()))
        .collect()
}

fn value_count(answer: &FeatureAnswer) -> usize {
    use arrow::array::AsArray;
    answer
        .batch
        .column_by_name(STATUS_COLUMN)
        .and_then(|column| column.as_fixed_size_list_opt())
        .and_then(|list| usize::try_from(list.value_length()).ok())
        .unwrap_or(0)
}

fn to_json(answer: &FeatureAnswer) -> Result<Json> {
    let values = value_columns(answer);
    let shown: Vec<usize> = (0..answer.batch.num_columns() - 1).collect();
    let rows = batch_json(&answer.batch.project(&shown)?)?;
    let rows: Vec<Json> = rows
        .into_iter()
        .enumerate()
        .map(|(row, json)| {
            let statuses: serde_json::Map<String, Json> = values
                .iter()
                .enumerate()
                .map(|(value, (_, name))| (name.clone(), json!(status(answer, row, value).name())))
                .collect();
            json!({ "values": json, "status": statuses })
        })
        .collect();
    Ok(json!({ "t": answer.t, "rows": rows }))
}

fn status(answer: &FeatureAnswer, row: usize, value: usize) -> ValueStatus {
    answer.status(row, value).unwrap_or(ValueStatus::Unavailable)
}

fn print(answer: &FeatureAnswer) -> Result<()> {
    let values = value_columns(answer);
    let shown: Vec<usize> = (0..answer.batch.num_columns() - 1).collect();
    let rows = batch_json(&answer.batch.project(&shown)?)?;
    let schema = answer.batch.schema();
    for (row, json) in rows.iter().enumerate() {
        let keys = shown.iter().filter(|index| !values.iter().any(|(value, _)| value == *index));
        let keys: Vec<String> = keys
            .map(|index| schema.field(*index).name())
            .map(|name| format!("{name} = {}", plain(&json[name.as_str()])))
            .collect();
        println!("{}", keys.join(", "));
        let mut features = table(["feature", "value", "status"]);
        for (value, (_, name)) in values.iter().enumerate() {
            features.add_row([
                name.clone(),
                plain(&json[name.as_str()]),
                status(answer, row, value).name().to_uppercase(),
            ]);
        }
        println!("{features}");
    }
    let at = i64::try_from(answer.t).unwrap_or(i64::MAX);
    println!("T = {} ({})", answer.t, time(at));
    Ok(())
}

fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Null => String::new(),
        other => other.to_string(),
    }
}
