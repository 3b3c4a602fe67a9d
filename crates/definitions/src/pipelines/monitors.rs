//! `[serving]`, `[monitors]` and `[retrain]`: how a model answers, is watched and is trained again.
//!
//! Does not know statistics, nor what rules do when they fire.

use toml::de::{DeTable, DeValue};

use super::gates::slice;
use super::metrics::of_task;
use super::read::{self, Context, section, sections};
use super::settings::{
    Acknowledgement, Action, Correction, Guardrail, MetricFloor, Monitors, Policy, Promotion,
    Retrain, Serving,
};
use super::types::{SignatureInput, Task};
use crate::diagnostics::{Diagnostics, Severity, nearest};
use crate::topics::fields::Fields;

const SERVING: [&str; 7] =
    ["policy", "percent", "ack", "batch_rows", "batch_wait", "threshold", "timeout"];
const MONITORS: [&str; 13] = [
    "columns",
    "window",
    "min_rows",
    "tests",
    "correction",
    "alpha",
    "spread",
    "detectors",
    "slices",
    "metrics",
    "metric_windows",
    "estimate",
    "guardrails",
];
const GUARDRAIL: [&str; 6] =
    ["metric", "at_least", "at_most", "window", "minimum_support", "action"];
const RETRAIN: [&str; 6] = ["drift", "floors", "labels", "every", "cool_down", "promotion"];
const FLOOR: [&str; 4] = ["metric", "at_least", "at_most", "window"];

const TESTS: [&str; 10] = [
    "psi",
    "ks",
    "jensen_shannon",
    "hellinger",
    "chi_square",
    "wasserstein",
    "missing_rate",
    "range",
    "domain_classifier",
    "reconstruction",
];
const DETECTORS: [&str; 4] = ["adwin", "ddm", "page_hinkley", "kswin"];
const SERVED: [&str; 4] = ["error_rate", "latency_p99_us", "mean_score", "kpi"];

const SECOND_US: u64 = 1_000_000;
const DAY_US: u64 = 86_400 * SECOND_US;
/// Nobody waits for the events of fast answers: fewer and larger appends disturb others less.
const FAST_WAIT_US: u64 = 10_000;

/// Reads `[serving]`.
pub(super) fn serving(
    context: &Context<'_>,
    document: &DeTable<'_>,
    out: &mut Diagnostics,
) -> Serving {
    let mut serving = Serving {
        policy: Policy::Champion,
        ack: Acknowledgement::Durable,
        batch_rows: 256,
        batch_wait_us: 0,
        threshold: 0.5,
        timeout_us: 10 * SECOND_US,
    };
    let Some(fields) = section(context.source, document, "serving", &SERVING, out) else {
        return serving;
    };
    serving.policy = policy(&fields, out);
    let acks = [("durable", Acknowledgement::Durable), ("fast", Acknowledgement::Fast)];
    serving.ack = read::choice(&fields, "ack", &acks, out).unwrap_or_default();
    if let Some(rows) = fields.integer("batch_rows", 1, 65_536, out) {
        serving.batch_rows = rows.value;
    }
    let wait = read::duration(&fields, "batch_wait", out);
    serving.batch_wait_us = wait.unwrap_or(match serving.ack {
        Acknowledgement::Durable => 0,
        Acknowledgement::Fast => FAST_WAIT_US,
    });
    if let Some(us) = read::span_of_time(&fields, "timeout", out) {
        serving.timeout_us = us;
    }
    if let Some(threshold) = read::number(&fields, "threshold", 0.0, 1.0, out) {
        serving.threshold = threshold.value;
        if context.task != Task::Binary {
            let message = format!("a {} model has no threshold", context.task.as_str());
            out.push(context.source.error("wrong-field", threshold.span, message));
        }
    }
    serving
}

fn policy(fields: &Fields<'_>, out: &mut Diagnostics) -> Policy {
    let words = [
        ("champion", Policy::Champion),
        ("shadow", Policy::Shadow),
        ("split", Policy::Split { percent: 10.0 }),
    ];
    let chosen = read::choice(fields, "policy", &words, out).unwrap_or(Policy::Champion);
    let percent = read::number(fields, "percent", 0.0, 100.0, out);
    match (chosen, percent) {
        (Policy::Split { .. }, Some(percent)) if percent.value > 0.0 && percent.value < 100.0 => {
            Policy::Split { percent: percent.value }
        }
        (Policy::Split { .. }, Some(percent)) => {
            let message = "a split gives the challenger more than 0 and less than 100 percent";
            out.push(fields.source.error("out-of-range", percent.span, message));
            chosen
        }
        (_, Some(percent)) => {
            let message = "`percent` is for policy = \"split\"";
            out.push(fields.source.error("wrong-field", percent.span, message));
            chosen
        }
        (_, None) => chosen,
    }
}

/// What can be watched.
#[derive(Clone, Copy)]
pub(super) struct Watched<'a> {
    /// The model's inputs, where they are right.
    pub inputs: Option<&'a [SignatureInput]>,
    /// Those of them that are over all events ever: they drift by themselves.
    pub lifetime: &'a [String],
}

/// Reads `[monitors]`.
pub(super) fn read(
    context: &Context<'_>,
    document: &DeTable<'_>,
    watched: Watched<'_>,
    out: &mut Diagnostics,
) -> Monitors {
    let inputs = watched.inputs;
    let names = inputs.unwrap_or_default().iter().map(|input| input.name.clone());
    let strings = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let metrics = || of_task(context.task).map(|metric| metric.name.to_owned()).collect();
    let mut monitors = Monitors {
        columns: names.filter(|name| !watched.lifetime.contains(name)).collect(),
        window_us: DAY_US,
        min_rows: 200,
        tests: strings(&["psi", "ks", "chi_square", "missing_rate", "range"]),
        correction: Correction::BenjaminiHochberg,
        alpha: 0.01,
        spread: 3.0,
        detectors: strings(&["adwin"]),
        slices: Vec::new(),
        metrics: metrics(),
        metric_windows_us: vec![DAY_US, 7 * DAY_US],
        estimate: context.task != Task::Regression,
        guardrails: Vec::new(),
    };
    let Some(fields) = section(context.source, document, "monitors", &MONITORS, out) else {
        return monitors;
    };
    columns(&mut monitors, &fields, watched, out);
    statistics(&mut monitors, &fields, out);
    for name in fields.strings("slices", out).map(|names| names.value).unwrap_or_default() {
        monitors.slices.extend(slice(context, &name, inputs, out));
    }
    let names: Vec<&str> = of_task(context.task).map(|metric| metric.name).collect();
    if let Some(chosen) = read::words(&fields, "metrics", &names, out) {
        monitors.metrics = chosen;
    }
    windows(&mut monitors, &fields, out);
    if let Some(estimate) = fields.boolean("estimate", out) {
        if estimate.value && context.task == Task::Regression {
            let message = "performance is estimated from probabilities, which regression has not";
            out.push(context.source.error("wrong-field", estimate.span, message));
        }
        monitors.estimate = estimate.value;
    }
    monitors.guardrails = guardrails(context, &fields, out);
    monitors
}

fn columns(
    monitors: &mut Monitors,
    fields: &Fields<'_>,
    watched: Watched<'_>,
    out: &mut Diagnostics,
) {
    let (Some(value), Some(inputs)) = (fields.get("columns"), watched.inputs) else { return };
    let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
    let is_all = matches!(value.get_ref(), DeValue::String(text) if text == "*");
    let chosen = match is_all {
        true => Some(names.iter().map(|name| (*name).to_owned()).collect()),
        false => read::words(fields, "columns", &names, out),
    };
    let Some(chosen) = chosen else { return };
    let chosen: Vec<String> = names
        .iter()
        .filter(|name| chosen.iter().any(|own| own == *name))
        .map(|name| (*name).to_owned())
        .collect();
    let moving: Vec<&str> =
        chosen.iter().filter(|name| watched.lifetime.contains(name)).map(String::as_str).collect();
    if !moving.is_empty() {
        let message = format!(
            "{} will drift by themselves: they are over all events ever",
            moving.join(", ")
        );
        let finding = fields.source.error("monitors-lifetime", value.span(), message);
        let help = "monitor values over windows, or leave `columns` out: lifetime values are then left out";
        out.push(finding.with_help(help).with_severity(Severity::Warning));
    }
    monitors.columns = chosen;
}

fn statistics(monitors: &mut Monitors, fields: &Fields<'_>, out: &mut Diagnostics) {
    if let Some(us) = read::span_of_time(fields, "window", out) {
        monitors.window_us = us;
    }
    if let Some(rows) = fields.integer("min_rows", 1, u32::MAX, out) {
        monitors.min_rows = rows.value;
    }
    if let Some(tests) = read::words(fields, "tests", &TESTS, out) {
        monitors.tests = tests;
    }
    if let Some(detectors) = read::words(fields, "detectors", &DETECTORS, out) {
        monitors.detectors = detectors;
    }
    let corrections = [
        ("none", Correction::None),
        ("bonferroni", Correction::Bonferroni),
        ("holm", Correction::Holm),
        ("benjamini_hochberg", Correction::BenjaminiHochberg),
    ];
    if let Some(correction) = read::choice(fields, "correction", &corrections, out) {
        monitors.correction = correction;
    }
    if let Some(alpha) = read::number(fields, "alpha", 1e-12, 0.5, out) {
        monitors.alpha = alpha.value;
    }
    if let Some(spread) = read::number(fields, "spread", 0.0, 1_000.0, out) {
        monitors.spread = spread.value;
    }
}

fn windows(monitors: &mut Monitors, fields: &Fields<'_>, out: &mut Diagnostics) {
    let Some(list) = fields.strings("metric_windows", out) else { return };
    monitors.metric_windows_us.clear();
    for text in list.value {
        match crate::text::parse_duration(&text.value) {
            Ok(us) if us > 0 => monitors.metric_windows_us.push(us),
            Ok(_) => {
                let message = "a window must be longer than nothing";
                out.push(fields.source.error("out-of-range", text.span, message));
            }
            Err(why) => out.push(fields.source.error("bad-duration", text.span, why)),
        }
    }
    monitors.metric_windows_us.sort_unstable();
    monitors.metric_windows_us.dedup();
}

fn guardrails(context: &Context<'_>, fields: &Fields<'_>, out: &mut Diagnostics) -> Vec<Guardrail> {
    let tables = sections(context.source, fields.get("guardrails"), "guardrails", &GUARDRAIL, out);
    let actions = [("alert", Action::Alert), ("rollback", Action::Rollback)];
    let mut guardrails = Vec::new();
    for fields in &tables {
        require(fields, &["metric", "window"], out);
        let metric = read::metric(context, fields, "metric", &SERVED, out);
        let bound = read::bound(fields, out);
        let window_us = read::span_of_time(fields, "window", out);
        let support = fields.integer("minimum_support", 1, u32::MAX, out).map(|rows| rows.value);
        let action = read::choice(fields, "action", &actions, out).unwrap_or(Action::Rollback);
        if let (Some(metric), Some(bound), Some(window_us)) = (metric, bound, window_us) {
            let minimum_support = support.unwrap_or(100);
            guardrails.push(Guardrail { metric, bound, window_us, minimum_support, action });
        }
    }
    guardrails
}

fn require(fields: &Fields<'_>, names: &[&str], out: &mut Diagnostics) {
    for name in names.iter().filter(|name| fields.get(name).is_none()) {
        let help = match *name {
            "window" => "say over how much event time, e.g. window = \"1 day\"",
            _ => "name a metric, e.g. metric = \"auc\"",
        };
        fields.missing(name, help, out);
    }
}

/// Reads `[retrain]`.
pub(super) fn retrain(
    context: &Context<'_>,
    document: &DeTable<'_>,
    out: &mut Diagnostics,
) -> Retrain {
    let mut retrain = Retrain {
        drift_windows: None,
        floors: Vec::new(),
        labels: None,
        every_us: None,
        cool_down_us: DAY_US,
        promotion: Promotion::Automatic,
    };
    let Some(fields) = section(context.source, document, "retrain", &RETRAIN, out) else {
        return retrain;
    };
    retrain.drift_windows = drift_windows(&fields, out);
    retrain.labels = fields.integer("labels", 1, u32::MAX, out).map(|count| count.value);
    retrain.every_us = read::span_of_time(&fields, "every", out);
    if let Some(us) = read::duration(&fields, "cool_down", out) {
        retrain.cool_down_us = us;
    }
    let words = [("automatic", Promotion::Automatic), ("manual", Promotion::Manual)];
    retrain.promotion = read::choice(&fields, "promotion", &words, out).unwrap_or_default();
    let tables = sections(context.source, fields.get("floors"), "floors", &FLOOR, out);
    for fields in &tables {
        require(fields, &["metric", "window"], out);
        let metric = read::metric(context, fields, "metric", &SERVED, out);
        let bound = read::bound(fields, out);
        let window_us = read::span_of_time(fields, "window", out);
        if let (Some(metric), Some(bound), Some(window_us)) = (metric, bound, window_us) {
            retrain.floors.push(MetricFloor { metric, bound, window_us });
        }
    }
    retrain
}

/// `drift = true` is one window, `drift = 3` three in a row, `drift = false` none.
fn drift_windows(fields: &Fields<'_>, out: &mut Diagnostics) -> Option<u32> {
    match fields.get("drift")?.get_ref() {
        DeValue::Boolean(flag) => flag.then_some(1),
        DeValue::Integer(_) => fields.integer("drift", 1, 1_000, out).map(|count| count.value),
        other => {
            let span = fields.get("drift").map_or(0..0, |value| value.span());
            let of = "true, false or the number of drifted windows in a row";
            let finding =
                crate::topics::fields::wrong_type(fields.source, "drift", of, other, span);
            out.push(finding.with_help_if(nearest_flag(other)));
            None
        }
    }
}

fn nearest_flag(value: &DeValue<'_>) -> Option<String> {
    let DeValue::String(text) = value else { return None };
    nearest(text, ["true", "false"]).map(|meant| format!("write {meant} without quotes"))
}
