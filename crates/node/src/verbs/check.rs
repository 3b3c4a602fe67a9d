//! `falaj check`: are the definitions right, and what do they cost?

use anyhow::{Result, bail};
use falaj_definitions::catalog::Catalog;
use falaj_definitions::pipelines::{InputOrigin, Pipeline};
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
                "pipelines": catalog.pipelines,
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
    catalog.pipelines.iter().for_each(|pipeline| print_pipeline(pipeline));
    println!(
        "\n{} topics, {} views and {} model pipelines are right",
        count(catalog.topics.iter().filter(|topic| !topic.schema.derived).count() as u64),
        count(reports.len() as u64),
        count(catalog.pipelines.len() as u64)
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

/// What a pipeline learns, from what, and what its versions must meet.
fn print_pipeline(pipeline: &Pipeline) {
    let label = &pipeline.label;
    println!(
        "\nmodel pipeline {} ({}, {}): foretells {}.{} of {} as of {}, known within {}",
        pipeline.name,
        pipeline.task.as_str(),
        pipeline.trainer.kind.as_str(),
        label.topic,
        label.column,
        pipeline.entity.join(", "),
        label.observed_at,
        falaj_definitions::text::format_duration(label.delay_us),
    );
    let mut inputs = table(["input", "type", "read as", "from"]);
    for input in &pipeline.signature.inputs {
        let origin = match &input.origin {
            InputOrigin::View { view, column } => format!("{view}.{column}"),
            InputOrigin::Request if input.nullable => "the request, if given".to_owned(),
            InputOrigin::Request => "the request".to_owned(),
        };
        let column_type = input.column_type.to_string();
        inputs.add_row([&input.name, &column_type, input.kind.as_str(), &origin]);
    }
    println!("{inputs}");
    let named = |pairs: Vec<(&str, String)>| -> String {
        let words: Vec<String> = pairs.iter().map(|(name, of)| format!("{name} {of}")).collect();
        words.join(", ")
    };
    let signature = &pipeline.signature;
    let outputs = signature.outputs.iter();
    println!(
        "  signature {}: ({}; {} inputs) -> ({})",
        &signature.hash().to_string()[..12],
        named(signature.keys.iter().map(|(name, of)| (name.as_str(), of.to_string())).collect()),
        signature.inputs.len(),
        named(outputs.map(|out| (out.name.as_str(), out.column_type.to_string())).collect()),
    );
    let gates = gate_lines(pipeline);
    match gates.is_empty() {
        true => println!("  gates: none; any version that trains may serve"),
        false => println!("  gates: {}", gates.join("; ")),
    }
    let is_watched = |name: &String| pipeline.monitors.columns.contains(name);
    let names = signature.inputs.iter().map(|input| &input.name);
    let unwatched: Vec<&str> = names.filter(|name| !is_watched(name)).map(String::as_str).collect();
    if !unwatched.is_empty() {
        println!("  not watched for drift: {}", unwatched.join(", "));
    }
    if let Some(kpi) = &pipeline.kpi {
        println!("  kpi {}: {}", kpi.name, kpi.sql);
    }
}

/// Every gate as a phrase.
fn gate_lines(pipeline: &Pipeline) -> Vec<String> {
    let gates = &pipeline.gates;
    let mut lines: Vec<String> =
        gates.metrics.iter().map(|gate| format!("{} {}", gate.metric, gate.bound)).collect();
    if let Some(champion) = &gates.champion {
        lines.push(format!(
            "{} no worse than the champion's by {}",
            champion.metric, champion.delta
        ));
    }
    lines.extend(gates.slices.iter().map(|slice| {
        format!(
            "{} {} for each {} of at least {} rows",
            slice.metric,
            slice.bound,
            slice.column,
            count(u64::from(slice.minimum_support))
        )
    }));
    if let Some(calibration) = &gates.calibration {
        lines.push(format!("calibration error <= {}", calibration.at_most));
    }
    if let Some(us) = gates.latency_p99_us {
        lines.push(format!("p99 <= {}", falaj_definitions::text::format_duration(us)));
    }
    if let Some(bound) = gates.kpi {
        lines.push(format!("kpi {bound}"));
    }
    if gates.approvals > 0 {
        lines.push(format!("{} approvals", gates.approvals));
    }
    lines
}
