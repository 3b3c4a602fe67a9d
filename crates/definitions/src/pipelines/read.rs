//! Reading a pipeline's sections: sub-tables, choices, numbers and durations, each wrong one reported
//! at its place while reading goes on.
//!
//! Does not know what the sections mean.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::metrics::{Direction, of_task};
use super::settings::Bound;
use super::types::Task;
use crate::diagnostics::{Diagnostics, SourceFile, nearest};
use crate::text::parse_duration;
use crate::topics::fields::{Fields, Located, wrong_type};

/// What every section is read with.
pub(super) struct Context<'a> {
    pub source: &'a SourceFile,
    pub task: Task,
}

/// The table of a section, when it is there and a table.
pub(super) fn section<'a>(
    source: &'a SourceFile,
    document: &'a DeTable<'a>,
    name: &'static str,
    known: &[&'static str],
    out: &mut Diagnostics,
) -> Option<Fields<'a>> {
    let (key, value) = document.iter().find(|(key, _)| key.get_ref() == name)?;
    match value.get_ref() {
        DeValue::Table(table) => {
            Some(Fields::new(source, title(name), table, key.span(), known, out))
        }
        other => {
            let of = format!("a table: write [{name}] on a line of its own");
            out.push(wrong_type(source, name, &of, other, value.span()));
            None
        }
    }
}

/// What messages call a section.
fn title(name: &'static str) -> &'static str {
    match name {
        "gates" => "gates section",
        "monitors" => "monitors section",
        "retrain" => "retrain section",
        "serving" => "serving section",
        "training" => "training section",
        "features" => "features entry",
        "request" => "request feature",
        "slices" => "slice gate",
        "guardrails" => "guardrail",
        "floors" => "floor",
        "kpi" => "kpi section",
        other => other,
    }
}

/// The tables of a list of sections such as `[[features]]`.
pub(super) fn sections<'a>(
    source: &'a SourceFile,
    value: Option<&'a toml::Spanned<DeValue<'a>>>,
    name: &'static str,
    known: &[&'static str],
    out: &mut Diagnostics,
) -> Vec<Fields<'a>> {
    let Some(value) = value else { return Vec::new() };
    let DeValue::Array(items) = value.get_ref() else {
        let of = "a list of tables: begin each with double brackets";
        out.push(wrong_type(source, name, of, value.get_ref(), value.span()));
        return Vec::new();
    };
    let mut tables = Vec::new();
    for item in items.iter() {
        match item.get_ref() {
            DeValue::Table(table) => {
                tables.push(Fields::new(source, title(name), table, item.span(), known, out));
            }
            other => out.push(wrong_type(source, name, "a table", other, item.span())),
        }
    }
    tables
}

/// The value of a field that is one of some words.
pub(super) fn choice<V: Clone>(
    fields: &Fields<'_>,
    name: &str,
    words: &[(&'static str, V)],
    out: &mut Diagnostics,
) -> Option<V> {
    let found = fields.string(name, out)?;
    let value = words.iter().find(|(word, _)| *word == found.value).map(|(_, value)| value.clone());
    if value.is_none() {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        unknown(fields.source, name, &found, &known, out);
    }
    value
}

/// Reports a word that is none of those that a field takes.
pub(super) fn unknown(
    source: &SourceFile,
    name: &str,
    found: &Located<String>,
    known: &[&str],
    out: &mut Diagnostics,
) {
    let message = format!("`{name}` cannot be `{}`", found.value);
    let help = match nearest(&found.value, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("use {}", known.join(", ")),
    };
    out.push(source.error("bad-value", found.span.clone(), message).with_help(help));
}

/// A list of words, each one of `known` and none twice.
pub(super) fn words(
    fields: &Fields<'_>,
    name: &str,
    known: &[&str],
    out: &mut Diagnostics,
) -> Option<Vec<String>> {
    let found = fields.strings(name, out)?;
    let mut words: Vec<String> = Vec::new();
    for word in found.value {
        if !known.contains(&word.value.as_str()) {
            unknown(fields.source, name, &word, known, out);
        } else if words.contains(&word.value) {
            let message = format!("`{name}` names `{}` twice", word.value);
            out.push(fields.source.error("duplicate-name", word.span, message));
        } else {
            words.push(word.value);
        }
    }
    Some(words)
}

/// A finite number between `least` and `greatest`, both allowed.
pub(super) fn number(
    fields: &Fields<'_>,
    name: &str,
    least: f64,
    greatest: f64,
    out: &mut Diagnostics,
) -> Option<Located<f64>> {
    let value = fields.get(name)?;
    let number = as_number(fields.source, name, value.get_ref(), value.span(), out)?;
    if !(least..=greatest).contains(&number) {
        let message = match greatest == f64::MAX {
            true => format!("`{name}` must be at least {least}"),
            false => format!("`{name}` must be between {least} and {greatest}"),
        };
        out.push(fields.source.error("out-of-range", value.span(), message));
        return None;
    }
    Some(Located { value: number, span: value.span() })
}

/// A finite number.
pub(super) fn as_number(
    source: &SourceFile,
    name: &str,
    value: &DeValue<'_>,
    span: Range<usize>,
    out: &mut Diagnostics,
) -> Option<f64> {
    let number = match value {
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number as f64)
        }
        DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
        other => {
            out.push(wrong_type(source, name, "a number", other, span));
            return None;
        }
    };
    let number = number.filter(|number| number.is_finite());
    if number.is_none() {
        out.push(source.error("out-of-range", span, format!("`{name}` must be a finite number")));
    }
    number
}

/// A duration, microseconds.
pub(super) fn duration(fields: &Fields<'_>, name: &str, out: &mut Diagnostics) -> Option<u64> {
    let text = fields.string(name, out)?;
    match parse_duration(&text.value) {
        Ok(us) => Some(us),
        Err(why) => {
            let diagnostic = fields.source.error("bad-duration", text.span, why);
            out.push(diagnostic.with_help("write e.g. `30 days`"));
            None
        }
    }
}

/// A duration longer than nothing, microseconds.
pub(super) fn span_of_time(fields: &Fields<'_>, name: &str, out: &mut Diagnostics) -> Option<u64> {
    let us = duration(fields, name, out)?;
    if us == 0 {
        let span = fields.get(name).map_or(0..0, |value| value.span());
        let message = format!("`{name}` must be longer than nothing");
        out.push(fields.source.error("out-of-range", span, message));
        return None;
    }
    Some(us)
}

/// A bound that a table spells as `at_least` or `at_most`.
pub(super) fn bound(fields: &Fields<'_>, out: &mut Diagnostics) -> Option<Bound> {
    let any = (f64::MIN, f64::MAX);
    let least = number(fields, "at_least", any.0, any.1, out);
    let most = number(fields, "at_most", any.0, any.1, out);
    match (least, most) {
        (Some(limit), None) => Some(Bound::AtLeast(limit.value)),
        (None, Some(limit)) => Some(Bound::AtMost(limit.value)),
        (Some(_), Some(second)) => {
            let message = "a threshold has one side: `at_least` or `at_most`";
            out.push(fields.source.error("bad-value", second.span, message));
            None
        }
        (None, None) => {
            if fields.get("at_least").is_none() && fields.get("at_most").is_none() {
                fields.missing("at_least", "write `at_least = …` or `at_most = …`", out);
            }
            None
        }
    }
}

/// A metric of the task, or one of `others`, that a field names.
pub(super) fn metric(
    context: &Context<'_>,
    fields: &Fields<'_>,
    name: &str,
    others: &[&'static str],
    out: &mut Diagnostics,
) -> Option<String> {
    let found = fields.string(name, out)?;
    check_metric(context, &found, others, out).then_some(found.value)
}

/// Reports a name that is no metric of the task.
pub(super) fn check_metric(
    context: &Context<'_>,
    found: &Located<String>,
    others: &[&'static str],
    out: &mut Diagnostics,
) -> bool {
    let known: Vec<&str> =
        of_task(context.task).map(|metric| metric.name).chain(others.iter().copied()).collect();
    if known.contains(&found.value.as_str()) {
        return true;
    }
    let message = format!("`{}` is no metric of a {} model", found.value, context.task.as_str());
    let help = match nearest(&found.value, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("its metrics are {}", known.join(", ")),
    };
    out.push(context.source.error("unknown-metric", found.span.clone(), message).with_help(help));
    false
}

/// The bound that a bare number is for a metric: on the side that is better.
pub(super) fn natural_bound(name: &str, limit: f64) -> Bound {
    let metric = super::metrics::METRICS.iter().find(|metric| metric.name == name);
    match metric.map(|metric| metric.better) {
        Some(Direction::Lower) => Bound::AtMost(limit),
        _ => Bound::AtLeast(limit),
    }
}
