//! `falaj check`: are the definitions right, and what do they cost?

use anyhow::{Result, bail};
use falaj_definitions::catalog::Catalog;
use falaj_definitions::report::{ViewReport, report};
use serde_json::json;

use super::text::{count, table};
use crate::cli::Check;

/// Checks a directory of definitions and prints findings, topics and views.
///
/// # Errors
/// When anything is wrong.
pub fn run(options: &Check, as_json: bool) -> Result<()> {
    let catalog = match Catalog::load(&options.definitions) {
        Ok(catalog) => catalog,
        Err(findings) if as_json => {
            println!("{}", json!({ "ok": false, "findings": findings }));
            bail!("{} is not right", options.definitions.display());
        }
        Err(findings) => {
            eprintln!("{findings}");
            bail!("{} is not right", options.definitions.display());
        }
    };
    let reports: Vec<_> = catalog.views.iter().map(|view| report(view)).collect();
    if as_json {
        println!(
            "{}",
            json!({
                "ok": true,
                "hash": catalog.hash,
                "topics": catalog.topics.names().collect::<Vec<_>>(),
                "views": reports,
                "findings": catalog.findings,
            })
        );
        return Ok(());
    }
    if !catalog.findings.is_empty() {
        eprintln!("{}", catalog.findings);
    }
    let mut topics = table(["topic", "kind", "version", "key", "columns", "partitions"]);
    for topic in catalog.topics.iter().filter(|topic| !topic.schema.derived) {
        let schema = &topic.schema;
        let key: Vec<_> =
            schema.key.iter().map(|index| schema.columns[*index].name.as_str()).collect();
        topics.add_row([
            schema.name.clone(),
            format!("{:?}", schema.kind).to_lowercase(),
            schema.version.to_string(),
            key.join(", "),
            schema.columns.len().to_string(),
            schema.partitions.to_string(),
        ]);
    }
    println!("{topics}");
    reports.iter().for_each(print);
    println!(
        "\n{} topics and {} views are right",
        count(catalog.topics.iter().filter(|topic| !topic.schema.derived).count() as u64),
        count(reports.len() as u64)
    );
    Ok(())
}

fn print(report: &ViewReport) {
    let joins = match report.joins.is_empty() {
        true => String::new(),
        false => format!(" with {}", report.joins.join(", ")),
    };
    let per_key = match report.bytes_per_key {
        Some(bytes) => format!("about {} bytes per key", count(bytes)),
        None => "grows with the number of events".to_owned(),
    };
    println!(
        "\nview {} over {}{joins}, by {}: state {per_key}{}",
        report.name,
        report.source,
        report.key.join(", "),
        if report.retractable_input { "; its input can change" } else { "" }
    );
    let mut features = table(["feature", "type", "class", "frame", "state per key"]);
    for feature in &report.features {
        features.add_row([
            feature.name.as_str(),
            feature.column_type.as_str(),
            feature.class,
            &feature.frames.join(", "),
            &feature.state.formula,
        ]);
    }
    println!("{features}");
    for proposal in &report.proposals {
        println!("  proposal: {proposal}");
    }
}
