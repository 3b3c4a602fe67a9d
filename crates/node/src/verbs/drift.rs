//! `falaj drift`: what monitoring found in the newest windows, how it went before, and why.
//!
//! Reads `falaj.drift`; knows its columns, not how a score is made.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, TimestampMicrosecondType, UInt32Type, UInt64Type};
use arrow::record_batch::RecordBatch;
use falaj_gateway::wire::ReadTicket;
use serde_json::{Value as Json, json};

use super::Session;
use super::text::{count, duration, log_time, table, time};
use crate::cli::Drift;

/// Windows that a sparkline shows.
const SPARK_WINDOWS: usize = 24;

/// One row of the topic.
#[derive(Clone, Debug, PartialEq)]
struct Found {
    version: u32,
    window: (i64, i64),
    kind: String,
    subject: String,
    slice: Option<String>,
    test: String,
    value: Option<f64>,
    p_value: Option<f64>,
    threshold: Option<f64>,
    alarm: bool,
    rows: u64,
    detail: String,
}

/// A series of windows of one length: what was measured, of what.
type Series<'a> = (u32, usize, &'a str, &'a str, &'a str, i64);

/// Prints the newest windows of a pipeline.
///
/// # Errors
/// When the node cannot be asked, or nothing was measured yet.
pub async fn run(options: Drift, as_json: bool) -> Result<()> {
    let session = Session::open_existing(&options.connection).await?;
    let outcome = read(&session, &options).await;
    session.close().await?;
    let mut rows = outcome?;
    rows.retain(|row| wanted(&options, row));
    let newest = rows.iter().map(|row| row.version).max();
    let Some(version) = options.version.or(newest) else {
        bail!(
            "nothing was measured of {} yet: a window must close first, and its version needs a reference",
            options.pipeline
        );
    };
    rows.retain(|row| row.version == version);
    let lines = series(&rows);
    let lines: Vec<&Vec<&Found>> = lines
        .values()
        .filter(|line| !options.alarms || line.last().is_some_and(|row| row.alarm))
        .collect();
    if as_json {
        println!("{}", Json::from(lines.iter().map(|line| to_json(line)).collect::<Vec<_>>()));
        return Ok(());
    }
    print(&lines);
    if options.explain {
        explain(&lines);
    }
    Ok(())
}

fn wanted(options: &Drift, row: &Found) -> bool {
    options.version.is_none_or(|version| row.version == version)
        && options.subject.as_ref().is_none_or(|subject| row.subject == *subject)
        && (options.slices || row.slice.is_none())
}

async fn read(session: &Session, options: &Drift) -> Result<Vec<Found>> {
    let from_t = options.from.as_deref().map(log_time).transpose()?.map(|t| t.0);
    let ticket = ReadTicket {
        from_t: Some(from_t.unwrap_or(0)),
        follow: false,
        ..ReadTicket::topic(crate::models::watch::DRIFT_TOPIC)
    };
    let mut reading = session.client.read(&ticket).await?;
    let mut found = Vec::new();
    while let Some(batch) = reading.next().await? {
        add(&mut found, &batch, &options.pipeline)?;
    }
    Ok(found)
}

fn add(found: &mut Vec<Found>, batch: &RecordBatch, pipeline: &str) -> Result<()> {
    let column = |name: &str| {
        batch.column_by_name(name).with_context(|| format!("falaj.drift has no column {name}"))
    };
    let text = |name: &str| {
        let texts = column(name)?.as_string_opt::<i32>();
        texts.with_context(|| format!("falaj.drift: {name} is no text"))
    };
    let number = |name: &str| {
        let numbers = column(name)?.as_primitive_opt::<Float64Type>();
        numbers.with_context(|| format!("falaj.drift: {name} is no number"))
    };
    let moment = |name: &str| {
        let moments = column(name)?.as_primitive_opt::<TimestampMicrosecondType>();
        moments.with_context(|| format!("falaj.drift: {name} is no moment"))
    };
    let (pipelines, kinds, subjects) = (text("pipeline")?, text("kind")?, text("subject")?);
    let (slices, tests, details) = (text("slice")?, text("test")?, text("detail")?);
    let (values, p_values, thresholds) =
        (number("value")?, number("p_value")?, number("threshold")?);
    let (starts, ends) = (moment("window_start")?, moment("window_end")?);
    let versions = column("version")?.as_primitive_opt::<UInt32Type>().context("version")?;
    let counts = column("rows")?.as_primitive_opt::<UInt64Type>().context("rows")?;
    let alarms = column("alarm")?.as_boolean_opt().context("alarm")?;
    for row in (0..batch.num_rows()).filter(|row| pipelines.value(*row) == pipeline) {
        let given = |of: &arrow::array::Float64Array| of.is_valid(row).then(|| of.value(row));
        found.push(Found {
            version: versions.value(row),
            window: (starts.value(row), ends.value(row)),
            kind: kinds.value(row).to_owned(),
            subject: subjects.value(row).to_owned(),
            slice: slices.is_valid(row).then(|| slices.value(row).to_owned()),
            test: tests.value(row).to_owned(),
            value: given(values),
            p_value: given(p_values),
            threshold: given(thresholds),
            alarm: alarms.value(row),
            rows: counts.value(row),
            detail: details.value(row).to_owned(),
        });
    }
    Ok(())
}

/// Rows by series, the windows of each in order. Detectors have one series whatever the time between
/// their alarms.
fn series(rows: &[Found]) -> BTreeMap<Series<'_>, Vec<&Found>> {
    let mut lines: BTreeMap<Series<'_>, Vec<&Found>> = BTreeMap::new();
    for row in rows {
        let kinds = ["drift", "estimate", "performance", "detector"];
        let kind = kinds.iter().position(|kind| *kind == row.kind).unwrap_or(kinds.len());
        let length = if row.kind == "detector" { 0 } else { row.window.1 - row.window.0 };
        let slice = row.slice.as_deref().unwrap_or_default();
        let key = (row.version, kind, row.subject.as_str(), slice, row.test.as_str(), length);
        lines.entry(key).or_default().push(row);
    }
    lines.values_mut().for_each(|line| line.sort_by_key(|row| row.window));
    lines
}

fn to_json(line: &[&Found]) -> Json {
    let Some(newest) = line.last() else { return Json::Null };
    let detail: Json = serde_json::from_str(&newest.detail).unwrap_or(Json::Null);
    let window =
        |row: &&Found| json!({ "end": row.window.1, "value": row.value, "alarm": row.alarm });
    json!({
        "version": newest.version,
        "kind": newest.kind,
        "subject": newest.subject,
        "slice": newest.slice,
        "test": newest.test,
        "window": { "start": newest.window.0, "end": newest.window.1 },
        "value": newest.value,
        "threshold": newest.threshold,
        "p_value": newest.p_value,
        "alarm": newest.alarm,
        "rows": newest.rows,
        "detail": detail,
        "values": tail(line).map(window).collect::<Vec<_>>(),
    })
}

fn tail<'a>(line: &'a [&'a Found]) -> impl Iterator<Item = &'a &'a Found> {
    line[line.len().saturating_sub(SPARK_WINDOWS)..].iter()
}

fn print(lines: &[&Vec<&Found>]) {
    let mut shown = table([
        "measured",
        "subject",
        "test",
        "value",
        "limit",
        "p",
        "rows",
        "",
        "newest windows",
        "until",
    ]);
    for line in lines {
        let Some(newest) = line.last() else { continue };
        let subject = match &newest.slice {
            Some(slice) => format!("{} [{slice}]", newest.subject),
            None => newest.subject.clone(),
        };
        let length = u64::try_from(newest.window.1 - newest.window.0).unwrap_or(0);
        let measured = match newest.kind.as_str() {
            "detector" => newest.kind.clone(),
            kind => format!("{kind}, {}", span(length)),
        };
        let values: Vec<Option<f64>> = tail(line).map(|row| row.value).collect();
        shown.add_row([
            measured,
            subject,
            newest.test.clone(),
            figure(newest.value),
            figure(newest.threshold),
            newest.p_value.map(|p_value| format!("{p_value:.2e}")).unwrap_or_default(),
            count(newest.rows),
            if newest.alarm { "ALARM" } else { "" }.to_owned(),
            sparkline(&values),
            time(newest.window.1),
        ]);
    }
    println!("{shown}");
}

/// A length of time in its greatest whole unit.
fn span(us: u64) -> String {
    let units = [(86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "min")];
    let whole = units.into_iter().find(|(unit, _)| us > 0 && us.is_multiple_of(*unit));
    whole.map_or_else(|| duration(us), |(unit, name)| format!("{} {name}", us / unit))
}

fn figure(value: Option<f64>) -> String {
    value.map(|value| format!("{value:.4}")).unwrap_or_default()
}

/// Values as bars between their least and greatest; `·` where there is none.
fn sparkline(values: &[Option<f64>]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let known = || values.iter().flatten().copied().filter(|value| value.is_finite());
    let (low, high) =
        (known().fold(f64::INFINITY, f64::min), known().fold(f64::NEG_INFINITY, f64::max));
    let bar = |value: &Option<f64>| match value.filter(|value| value.is_finite()) {
        None => '·',
        Some(_) if high <= low => BARS[0],
        Some(value) => {
            let place = (value - low) / (high - low) * (BARS.len() - 1) as f64;
            BARS[(place.round() as usize).min(BARS.len() - 1)]
        }
    };
    values.iter().map(bar).collect()
}

/// The bins behind the newest scores, once per subject.
fn explain(lines: &[&Vec<&Found>]) {
    let mut told: Vec<(&str, Option<&str>)> = Vec::new();
    for newest in lines.iter().filter_map(|line| line.last()) {
        let place = (newest.subject.as_str(), newest.slice.as_deref());
        let Ok(detail) = serde_json::from_str::<Json>(&newest.detail) else { continue };
        let (Some(before), Some(now)) = (counts(&detail["reference"]), counts(&detail["window"]))
        else {
            continue;
        };
        if told.contains(&place) {
            continue;
        }
        told.push(place);
        let slice = newest.slice.as_ref().map(|slice| format!(" [{slice}]")).unwrap_or_default();
        println!(
            "\n{}{slice}: {}",
            newest.subject,
            detail["bins"]["origin"].as_str().unwrap_or("names")
        );
        let mut shown = table(["bin", "reference", "window", "change"]);
        let share = |list: &[u64], at: usize| {
            let total: u64 = list.iter().sum();
            list.get(at).copied().unwrap_or(0) as f64 / total.max(1) as f64
        };
        for (at, name) in bin_names(&detail["bins"], before.len()).into_iter().enumerate() {
            let (old, new) = (share(&before, at), share(&now, at));
            let bars = |share: f64| "█".repeat((share * 30.0).round() as usize);
            shown.add_row([
                name,
                format!("{:5.1} % {}", old * 100.0, bars(old)),
                format!("{:5.1} % {}", new * 100.0, bars(new)),
                format!("{:+.1} %", (new - old) * 100.0),
            ]);
        }
        println!("{shown}");
    }
}

fn counts(list: &Json) -> Option<Vec<u64>> {
    list.as_array()?.iter().map(Json::as_u64).collect()
}

/// The bins in words.
fn bin_names(bins: &Json, count: usize) -> Vec<String> {
    let texts = |list: &Json| -> Vec<String> {
        let item = |item: &Json| item.as_str().map_or_else(|| item.to_string(), str::to_owned);
        list.as_array().map(|list| list.iter().map(item).collect()).unwrap_or_default()
    };
    let short = |text: &String| text.parse::<f64>().map_or(text.clone(), |n| format!("{n:.6}"));
    let short = |text: &String| short(text).trim_end_matches('0').trim_end_matches('.').to_owned();
    match bins["kind"].as_str() {
        Some("cuts") => {
            let cuts: Vec<String> = texts(&bins["cuts"]).iter().map(short).collect();
            let bound = |at: usize| cuts.get(at).cloned().unwrap_or_default();
            (0..count)
                .map(|at| match (at, at == cuts.len()) {
                    (0, true) => "all".to_owned(),
                    (0, false) => format!("at most {}", bound(0)),
                    (_, true) => format!("above {}", bound(at - 1)),
                    (_, false) => format!("to {}", bound(at)),
                })
                .collect()
        }
        Some("categories") => {
            let mut names = texts(&bins["names"]);
            names.push("(other)".to_owned());
            names
        }
        _ => (0..count).map(|at| format!("bin {at}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparklines_run_from_the_least_to_the_greatest() {
        assert_eq!(sparkline(&[Some(0.0), None, Some(7.0), Some(3.5)]), "▁·█▅");
        assert_eq!(sparkline(&[Some(2.0), Some(2.0)]), "▁▁");
        assert_eq!(sparkline(&[]), "");
    }

    fn row(end: i64, test: &str, value: f64) -> Found {
        Found {
            version: 1,
            window: (end - 60_000_000, end),
            kind: "drift".into(),
            subject: "amount".into(),
            slice: None,
            test: test.into(),
            value: Some(value),
            p_value: None,
            threshold: None,
            alarm: false,
            rows: 1,
            detail: "{}".into(),
        }
    }

    #[test]
    fn windows_of_one_test_are_one_line() {
        let rows =
            [row(120_000_000, "psi", 2.0), row(60_000_000, "psi", 1.0), row(60_000_000, "ks", 3.0)];
        let lines = series(&rows);
        assert_eq!(lines.len(), 2);
        let psi = lines.values().find(|line| line[0].test == "psi").unwrap();
        assert_eq!(psi.iter().map(|row| row.value).collect::<Vec<_>>(), [Some(1.0), Some(2.0)]);
        assert_eq!(to_json(psi)["values"].as_array().unwrap().len(), 2);
        assert_eq!(span(60_000_000), "1 min");
    }

    #[test]
    fn bins_have_names() {
        let bins = json!({ "kind": "cuts", "cuts": ["1.5", "2"], "origin": "x" });
        assert_eq!(bin_names(&bins, 3), ["at most 1.5", "to 2", "above 2"]);
        let bins = json!({ "kind": "categories", "names": ["a"], "other": true });
        assert_eq!(bin_names(&bins, 2), ["a", "(other)"]);
    }
}
