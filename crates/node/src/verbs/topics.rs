//! `falaj topics`: what can be produced to and read.

use anyhow::Result;
use serde_json::Value as Json;

use super::text::{count, table};
use super::{Session, describe};
use crate::cli::Topics;

/// Lists topics and views, or describes one.
///
/// # Errors
/// When the node cannot be asked, or there is no such thing.
pub async fn run(options: Topics, json: bool) -> Result<()> {
    let session = Session::open_existing(&options.connection).await?;
    let outcome = match &options.name {
        Some(name) => one(&session, name, json).await,
        None => all(&session, options.all, json).await,
    };
    session.close().await?;
    outcome
}

async fn all(session: &Session, system: bool, json: bool) -> Result<()> {
    let catalog: Vec<Json> = serde_json::from_str(&session.client.action("catalog").await?)?;
    let wanted = |entry: &&Json| system || entry["kind"] == "view" || entry["writable"] == true;
    let wanted: Vec<&Json> = catalog.iter().filter(wanted).collect();
    if json {
        println!("{}", serde_json::to_string(&wanted)?);
        return Ok(());
    }
    let mut rows = table(["name", "kind", "key", "columns", "events", "what it is"]);
    for entry in wanted {
        let name = entry["name"].as_str().unwrap_or_default();
        let door = if entry["kind"] == "view" { "features" } else { "topics" };
        let records = session.client.info(&[door, name]).await?.total_records;
        let kind = match (entry["kind"].as_str(), entry["table"].as_bool()) {
            (Some("topic"), Some(true)) => "table topic",
            (Some(kind), _) => kind,
            _ => "",
        };
        rows.add_row([
            name.to_owned(),
            kind.to_owned(),
            list(&entry["key"]),
            entry["columns"].as_array().map_or(0, Vec::len).to_string(),
            u64::try_from(records).map(count).unwrap_or_default(),
            entry["details"]["description"].as_str().unwrap_or_default().to_owned(),
        ]);
    }
    println!("{rows}");
    Ok(())
}

async fn one(session: &Session, name: &str, json: bool) -> Result<()> {
    let entry = describe(&session.client, name).await?;
    if json {
        println!("{entry}");
        return Ok(());
    }
    println!("{} {name}", entry["kind"].as_str().unwrap_or_default());
    if let Some(text) = entry["details"]["description"].as_str() {
        println!("  {text}");
    }
    println!("  key: {}", list(&entry["key"]));
    let described = entry["details"]["columns"].as_array();
    let mut rows = table(["column", "type", "marks", "description"]);
    for column in described.or(entry["columns"].as_array()).into_iter().flatten() {
        let mut marks = Vec::new();
        if column["nullable"] == true {
            marks.push("nullable");
        }
        if column["pii"] == true {
            marks.push("personal");
        }
        rows.add_row([
            column["name"].as_str().unwrap_or_default(),
            column["type"].as_str().unwrap_or_default(),
            &marks.join(", "),
            column["description"].as_str().unwrap_or_default(),
        ]);
    }
    println!("{rows}");
    if let Some(sql) = entry["details"]["sql"].as_str() {
        println!("\n{}", sql.trim());
    }
    Ok(())
}

fn list(value: &Json) -> String {
    let items = value.as_array().into_iter().flatten().filter_map(Json::as_str);
    items.collect::<Vec<_>>().join(", ")
}
