//! `[gates]`: what a version must meet before it serves.
//!
//! Does not know how figures are measured.

use toml::de::{DeTable, DeValue};

use super::read::{self, Context, as_number, section, sections};
use super::settings::{Bound, CalibrationGate, ChampionGate, Gate, Gates, SliceGate};
use super::types::{InputKind, SignatureInput, Task};
use crate::diagnostics::{Diagnostics, nearest};
use crate::topics::fields::{Fields, Located, wrong_type};

const FIELDS: [&str; 8] = [
    "metrics",
    "champion_delta",
    "champion_metric",
    "slices",
    "calibration",
    "latency_p99",
    "kpi",
    "approvals",
];
const SLICE_FIELDS: [&str; 5] = ["column", "metric", "at_least", "at_most", "minimum_support"];
const BOUND_FIELDS: [&str; 2] = ["at_least", "at_most"];

/// Reads `[gates]`.
pub(super) fn read(
    context: &Context<'_>,
    document: &DeTable<'_>,
    inputs: Option<&[SignatureInput]>,
    out: &mut Diagnostics,
) -> Gates {
    let Some(fields) = section(context.source, document, "gates", &FIELDS, out) else {
        return Gates::default();
    };
    Gates {
        metrics: metrics(context, &fields, out),
        champion: champion(context, &fields, out),
        slices: slices(context, &fields, inputs, out),
        calibration: calibration(context, &fields, out),
        latency_p99_us: read::span_of_time(&fields, "latency_p99", out),
        kpi: kpi(context, &fields, out),
        approvals: fields.integer("approvals", 0, 100, out).map_or(0, |count| count.value),
    }
}

/// `metrics.auc = 0.8`, or `metrics.auc = { at_least = 0.8 }`.
fn metrics(context: &Context<'_>, fields: &Fields<'_>, out: &mut Diagnostics) -> Vec<Gate> {
    let Some(value) = fields.get("metrics") else { return Vec::new() };
    let DeValue::Table(table) = value.get_ref() else {
        let of = "a table, e.g. metrics.auc = 0.8";
        out.push(wrong_type(context.source, "metrics", of, value.get_ref(), value.span()));
        return Vec::new();
    };
    let mut gates = Vec::new();
    for (key, value) in table.iter() {
        let name = Located { value: key.get_ref().to_string(), span: key.span() };
        if !read::check_metric(context, &name, &[], out) {
            continue;
        }
        let bound = match value.get_ref() {
            DeValue::Table(table) => {
                let place = key.span();
                let bound =
                    Fields::new(context.source, "threshold", table, place, &BOUND_FIELDS, out);
                read::bound(&bound, out)
            }
            other => as_number(context.source, &name.value, other, value.span(), out)
                .map(|limit| read::natural_bound(&name.value, limit)),
        };
        gates.extend(bound.map(|bound| Gate { metric: name.value, bound }));
    }
    gates
}

fn champion(
    context: &Context<'_>,
    fields: &Fields<'_>,
    out: &mut Diagnostics,
) -> Option<ChampionGate> {
    let delta = read::number(fields, "champion_delta", 0.0, f64::MAX, out);
    let metric = read::metric(context, fields, "champion_metric", &[], out);
    if fields.get("champion_delta").is_none() && fields.get("champion_metric").is_none() {
        return None;
    }
    let first = super::metrics::of_task(context.task).next()?.name;
    Some(ChampionGate {
        metric: metric.unwrap_or_else(|| first.to_owned()),
        delta: delta.map_or(0.0, |delta| delta.value),
    })
}

fn slices(
    context: &Context<'_>,
    fields: &Fields<'_>,
    inputs: Option<&[SignatureInput]>,
    out: &mut Diagnostics,
) -> Vec<SliceGate> {
    let tables = sections(context.source, fields.get("slices"), "slices", &SLICE_FIELDS, out);
    let mut slices = Vec::new();
    for fields in &tables {
        for (name, help) in [("column", "name an input"), ("metric", "name a metric")] {
            if fields.get(name).is_none() {
                fields.missing(name, help, out);
            }
        }
        let column =
            fields.string("column", out).and_then(|name| slice(context, &name, inputs, out));
        let metric = read::metric(context, fields, "metric", &[], out);
        let bound = read::bound(fields, out);
        let support = fields.integer("minimum_support", 1, u32::MAX, out).map(|rows| rows.value);
        if let (Some(column), Some(metric), Some(bound)) = (column, metric, bound) {
            let minimum_support = support.unwrap_or(100);
            slices.push(SliceGate { column, metric, bound, minimum_support });
        }
    }
    slices
}

/// An input whose values tell rows apart: categorical or boolean. Without known inputs, nothing.
pub(super) fn slice(
    context: &Context<'_>,
    name: &Located<String>,
    inputs: Option<&[SignatureInput]>,
    out: &mut Diagnostics,
) -> Option<String> {
    let inputs = inputs?;
    let problem = match inputs.iter().find(|input| input.name == name.value) {
        Some(input) if input.kind != InputKind::Numeric => return Some(name.value.clone()),
        Some(_) => format!("`{}` is numeric: rows are told apart by classes", name.value),
        None => format!("`{}` is not an input of the model", name.value),
    };
    let classes = inputs.iter().filter(|input| input.kind != InputKind::Numeric);
    let help = match nearest(&name.value, classes.clone().map(|input| input.name.as_str())) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => {
            let names: Vec<&str> = classes.map(|input| input.name.as_str()).collect();
            match names.is_empty() {
                true => "the model has no categorical or boolean input".to_owned(),
                false => format!("use one of {}", names.join(", ")),
            }
        }
    };
    let finding = context.source.error("unknown-column", name.span.clone(), problem);
    out.push(finding.with_help(help));
    None
}

/// `calibration = 0.05`, or a table with `at_most` and `bins`.
fn calibration(
    context: &Context<'_>,
    fields: &Fields<'_>,
    out: &mut Diagnostics,
) -> Option<CalibrationGate> {
    let value = fields.get("calibration")?;
    if context.task == Task::Regression {
        let message = "a regression model gives no probabilities to calibrate";
        out.push(context.source.error("wrong-field", value.span(), message));
        return None;
    }
    let DeValue::Table(table) = value.get_ref() else {
        let at_most = read::number(fields, "calibration", 0.0, 1.0, out)?.value;
        return Some(CalibrationGate { at_most, bins: 15 });
    };
    let known = ["at_most", "bins"];
    let own = Fields::new(context.source, "calibration gate", table, value.span(), &known, out);
    if own.get("at_most").is_none() {
        own.missing("at_most", "write e.g. at_most = 0.05", out);
    }
    let bins = own.integer("bins", 2, 1_000, out).map_or(15, |bins| bins.value);
    let at_most = read::number(&own, "at_most", 0.0, 1.0, out)?.value;
    Some(CalibrationGate { at_most, bins })
}

/// `kpi = 1000` (at least), or a table with `at_least` or `at_most`.
fn kpi(context: &Context<'_>, fields: &Fields<'_>, out: &mut Diagnostics) -> Option<Bound> {
    let value = fields.get("kpi")?;
    match value.get_ref() {
        DeValue::Table(table) => {
            let place = value.span();
            let own = Fields::new(context.source, "threshold", table, place, &BOUND_FIELDS, out);
            read::bound(&own, out)
        }
        other => as_number(context.source, "kpi", other, value.span(), out).map(Bound::AtLeast),
    }
}
