//! `[label]`: where the truth comes from, when it is observed and how it finds its prediction.
//!
//! Does not know features.

use falaj_event::{Column, ColumnType};
use toml::de::{DeTable, DeValue};

use super::parse::{World, missing_section};
use super::read::{self, Context, section};
use super::types::{ClassValue, FeedbackJoin, Label, Task};
use crate::diagnostics::{Diagnostics, SourceFile, nearest};
use crate::topics::TopicDefinition;
use crate::topics::fields::{Fields, Located};

const FIELDS: [&str; 8] =
    ["topic", "column", "observed_at", "delay", "positive", "classes", "prediction_id", "within"];

/// How far a prediction may be from `observed_at` when a pipeline does not say: 5 minutes.
const DEFAULT_WITHIN_US: u64 = 300_000_000;

/// The label and its topic; `None` when they are too wrong to check anything against.
pub(super) fn read<'a>(
    context: &Context<'_>,
    document: &DeTable<'_>,
    world: &World<'a>,
    out: &mut Diagnostics,
) -> Option<(&'a TopicDefinition, Label)> {
    let source = context.source;
    let Some(fields) = section(source, document, "label", &FIELDS, out) else {
        let help = "write [label] with topic = \"…\" and column = \"…\"";
        missing_section(source, "label", help, out);
        return None;
    };
    for (name, help) in [("topic", "name the topic of labels"), ("column", "name the true value")] {
        if fields.get(name).is_none() {
            fields.missing(name, help, out);
        }
    }
    let name = fields.string("topic", out)?;
    let topic = find_topic(source, world, &name, out)?;
    let column = fields.string("column", out)?;
    let column_name = column.value.clone();
    let found = self::column(source, topic, "column", &column, out)?;
    check_type(context, found, &column, out);
    let label = Label {
        topic: name.value,
        column: column_name,
        column_type: found.column_type.clone(),
        observed_at: observed_at(&fields, topic, out),
        delay_us: read::duration(&fields, "delay", out).unwrap_or(0),
        positive: positive(context, &fields, found, out),
        classes: classes(context, &fields, found, out),
        join: join(&fields, topic, out),
    };
    Some((topic, label))
}

fn find_topic<'a>(
    source: &SourceFile,
    world: &World<'a>,
    name: &Located<String>,
    out: &mut Diagnostics,
) -> Option<&'a TopicDefinition> {
    if let Some(topic) = world.topics.get(&name.value) {
        return Some(topic);
    }
    let message = format!("there is no topic `{}`", name.value);
    let help = nearest(&name.value, world.topics.names())
        .map(|meant| format!("did you mean `{meant}`?"))
        .unwrap_or_else(|| "declare it in topics/".to_owned());
    out.push(source.error("unknown-topic", name.span.clone(), message).with_help(help));
    None
}

/// A readable column of the label's topic.
pub(super) fn column<'a>(
    source: &SourceFile,
    topic: &'a TopicDefinition,
    field: &str,
    name: &Located<String>,
    out: &mut Diagnostics,
) -> Option<&'a Column> {
    let columns = &topic.schema.columns;
    let Some(column) = columns.iter().find(|column| column.name == name.value) else {
        let message = format!(
            "`{field}` names `{}`, which is not a column of `{}`",
            name.value, topic.schema.name
        );
        let names = columns.iter().map(|column| column.name.as_str());
        let help = nearest(&name.value, names).map(|meant| format!("did you mean `{meant}`?"));
        let finding = source.error("unknown-column", name.span.clone(), message);
        out.push(finding.with_help_if(help));
        return None;
    };
    if column.pii {
        let message = format!(
            "`{field}` names `{}`, which is personal data: it is sealed and no model reads it",
            name.value
        );
        out.push(source.error("pii", name.span.clone(), message));
        return None;
    }
    Some(column)
}

fn check_type(
    context: &Context<'_>,
    column: &Column,
    written: &Located<String>,
    out: &mut Diagnostics,
) {
    let of = &column.column_type;
    let number = is_number(of);
    let class = matches!(of, ColumnType::Bool | ColumnType::String) || is_whole(of);
    let (fits, wanted) = match context.task {
        Task::Regression => (number, "a number"),
        Task::Binary | Task::Multiclass => (class, "a bool, a string or a whole number"),
    };
    if !fits {
        let message = format!(
            "the label of a {} model is {wanted}, but `{}` is of type {of}",
            context.task.as_str(),
            column.name
        );
        out.push(context.source.error("wrong-type", written.span.clone(), message));
    }
}

fn is_whole(of: &ColumnType) -> bool {
    use ColumnType as T;
    matches!(
        of,
        T::Int8 | T::Int16 | T::Int32 | T::Int64 | T::UInt8 | T::UInt16 | T::UInt32 | T::UInt64
    )
}

fn is_number(of: &ColumnType) -> bool {
    is_whole(of)
        || matches!(of, ColumnType::Float32 | ColumnType::Float64 | ColumnType::Decimal { .. })
}

fn observed_at(fields: &Fields<'_>, topic: &TopicDefinition, out: &mut Diagnostics) -> String {
    let event_time = &topic.schema.columns[topic.schema.event_time].name;
    let Some(name) = fields.string("observed_at", out) else { return event_time.clone() };
    if let Some(found) = column(fields.source, topic, "observed_at", &name, out) {
        let problem = if found.column_type != ColumnType::Timestamp {
            format!("is of type {}, not timestamp", found.column_type)
        } else if found.nullable {
            "is nullable, but every label was observed at some time".to_owned()
        } else {
            return name.value;
        };
        let message = format!("`observed_at` column `{}` {problem}", name.value);
        out.push(fields.source.error("wrong-type", name.span, message));
    }
    event_time.clone()
}

/// The positive class of a binary label.
fn positive(
    context: &Context<'_>,
    fields: &Fields<'_>,
    column: &Column,
    out: &mut Diagnostics,
) -> Option<ClassValue> {
    let Some(value) = fields.get("positive") else {
        return match (context.task, &column.column_type) {
            (Task::Binary, ColumnType::Bool) => Some(ClassValue::Bool(true)),
            (Task::Binary, of) if is_whole(of) => Some(ClassValue::Int(1)),
            (Task::Binary, ColumnType::String) => {
                let help = "say which value is the positive class, e.g. positive = \"fraud\"";
                fields.missing("positive", help, out);
                None
            }
            _ => None,
        };
    };
    if context.task != Task::Binary {
        let message = format!("a {} model has no positive class", context.task.as_str());
        out.push(context.source.error("wrong-field", value.span(), message));
        return None;
    }
    class(context.source, "positive", value, column, out)
}

fn class(
    source: &SourceFile,
    field: &str,
    value: &toml::Spanned<DeValue<'_>>,
    column: &Column,
    out: &mut Diagnostics,
) -> Option<ClassValue> {
    let found = match (value.get_ref(), &column.column_type) {
        (DeValue::Boolean(flag), ColumnType::Bool) => Some(ClassValue::Bool(*flag)),
        (DeValue::String(text), ColumnType::String) => Some(ClassValue::Text(text.to_string())),
        (DeValue::Integer(number), of) if is_whole(of) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(ClassValue::Int)
        }
        _ => None,
    };
    if found.is_none() {
        let message = format!(
            "this value of `{field}` is none of column `{}`, which is of type {}",
            column.name, column.column_type
        );
        out.push(source.error("wrong-type", value.span(), message));
    }
    found
}

fn classes(
    context: &Context<'_>,
    fields: &Fields<'_>,
    column: &Column,
    out: &mut Diagnostics,
) -> Vec<ClassValue> {
    if context.task == Task::Multiclass && fields.get("classes").is_none() {
        let example = match &column.column_type {
            ColumnType::Bool => "classes = [false, true]",
            of if is_whole(of) => "classes = [0, 1, 2]",
            _ => "classes = [\"low\", \"high\", \"none\"]",
        };
        let help = format!("answers and gates have one score per class, in this order: {example}");
        fields.missing("classes", &help, out);
        return Vec::new();
    }
    let Some(list) = fields.array("classes", "a list of the classes", out) else {
        return Vec::new();
    };
    if context.task != Task::Multiclass {
        let message = format!("a {} model has no list of classes", context.task.as_str());
        out.push(context.source.error("wrong-field", list.span, message));
        return Vec::new();
    }
    let mut classes: Vec<ClassValue> = Vec::new();
    for item in list.value.iter() {
        let Some(found) = class(context.source, "classes", item, column, out) else { continue };
        if classes.contains(&found) {
            let message = "`classes` names this class twice";
            out.push(context.source.error("duplicate-name", item.span(), message));
        } else {
            classes.push(found);
        }
    }
    if list.value.len() < 2 {
        let message = "a multiclass model has at least two classes";
        out.push(context.source.error("bad-value", list.span, message));
    }
    classes
}

fn join(fields: &Fields<'_>, topic: &TopicDefinition, out: &mut Diagnostics) -> FeedbackJoin {
    let within_us = read::duration(fields, "within", out).unwrap_or(DEFAULT_WITHIN_US);
    let by_time = FeedbackJoin::KeyAndTime { within_us };
    let Some(name) = fields.string("prediction_id", out) else { return by_time };
    let Some(found) = column(fields.source, topic, "prediction_id", &name, out) else {
        return by_time;
    };
    if found.column_type != ColumnType::String {
        let message = format!(
            "`prediction_id` column `{}` is of type {}, but ids of predictions are strings",
            name.value, found.column_type
        );
        out.push(fields.source.error("wrong-type", name.span, message));
    }
    FeedbackJoin::PredictionId { column: name.value, within_us }
}
