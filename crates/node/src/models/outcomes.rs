//! A prediction and its label as a row of `<pipeline>.outcomes`.
//!
//! Knows the columns; the arithmetic is `falaj_monitor`'s.

use falaj_definitions::pipelines::{ClassValue, Pipeline, Task};
use falaj_event::{ColumnType, Value};
use falaj_monitor::judge::{Actual, Judgement, Task as Judged, judge};

use super::serving::{Scored, input};

/// A class as text: what models and predictions call it.
pub fn class_text(pipeline: &Pipeline, value: &Value) -> Option<String> {
    match (pipeline.task, value) {
        (_, Value::Null | Value::Error) | (Task::Regression, _) => None,
        (Task::Binary, value) => Some(is_positive(pipeline, value).to_string()),
        (Task::Multiclass, value) => Some(plain_text(value)),
    }
}

/// Whether a label is the positive class.
pub fn is_positive(pipeline: &Pipeline, value: &Value) -> bool {
    match (&pipeline.label.positive, value) {
        (None | Some(ClassValue::Bool(true)), Value::Bool(value)) => *value,
        (Some(ClassValue::Bool(false)), Value::Bool(value)) => !value,
        (Some(ClassValue::Int(positive)), Value::Int(value)) => positive == value,
        (Some(ClassValue::Int(positive)), Value::UInt(value)) => {
            u64::try_from(*positive).is_ok_and(|positive| positive == *value)
        }
        (Some(ClassValue::Text(positive)), Value::String(value)) => **positive == **value,
        _ => false,
    }
}

fn plain_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::UInt(value) => value.to_string(),
        other => format!("{other:?}"),
    }
}

/// A predicted class as a value of the label's column; NULL where that has no word for it (the
/// negative class of a label of many values).
pub fn class_value(pipeline: &Pipeline, class: &str) -> Value {
    let of_column = |value: &ClassValue| match (value, &pipeline.label.column_type) {
        (ClassValue::Bool(value), _) => Value::Bool(*value),
        (
            ClassValue::Int(value),
            ColumnType::UInt8 | ColumnType::UInt16 | ColumnType::UInt32 | ColumnType::UInt64,
        ) => u64::try_from(*value).map_or(Value::Null, Value::UInt),
        (ClassValue::Int(value), _) => Value::Int(*value),
        (ClassValue::Text(value), _) => Value::String(value.as_str().into()),
    };
    match (pipeline.task, &pipeline.label.column_type) {
        (Task::Regression, _) => Value::Null,
        (Task::Binary, ColumnType::Bool) => {
            let positive = pipeline.label.positive != Some(ClassValue::Bool(false));
            Value::Bool((class == "true") == positive)
        }
        (Task::Binary, _) => match (class, &pipeline.label.positive) {
            ("true", Some(positive)) => of_column(positive),
            ("false", Some(ClassValue::Int(positive))) if *positive == 0 || *positive == 1 => {
                of_column(&ClassValue::Int(1 - positive))
            }
            _ => Value::Null,
        },
        (Task::Multiclass, ColumnType::String) => Value::String(class.into()),
        (Task::Multiclass, ColumnType::Bool) => Value::Bool(class == "true"),
        (Task::Multiclass, _) => {
            class.parse().map_or(Value::Null, |number| of_column(&ClassValue::Int(number)))
        }
    }
}

/// What the label says, as the judge takes it; `None` for NULL.
pub fn actual(pipeline: &Pipeline, value: &Value) -> Option<Actual> {
    match pipeline.task {
        Task::Regression => match input(value).ok()? {
            falaj_model::table::Input::Number(number) => Some(Actual::Number(number)),
            falaj_model::table::Input::Integer(number) => Some(Actual::Number(number as f64)),
            _ => None,
        },
        _ => class_text(pipeline, value).map(Actual::Class),
    }
}

/// The pipeline's task, as the judge takes it. `classes` are those of the model.
pub fn judged_task(pipeline: &Pipeline, classes: &[String]) -> Judged {
    match pipeline.task {
        Task::Binary => Judged::Binary { positive: "true".to_owned() },
        Task::Multiclass => Judged::Multiclass { classes: classes.to_vec() },
        Task::Regression => Judged::Regression,
    }
}

/// What the label says about the score; `None` where it says nothing.
pub fn judgement(pipeline: &Pipeline, scored: &Scored, label: &Value) -> Option<Judgement> {
    let task = judged_task(pipeline, &declared_classes(pipeline));
    let predicted = scored.predicted.as_deref().unwrap_or_default();
    judge(&task, scored.score, &scored.scores, predicted, &actual(pipeline, label)?)
}

/// The columns of an outcome that follow from a score and its judgement. `predicted` is the class as
/// text; empty for regression.
pub fn terms(
    pipeline: &Pipeline,
    score: f64,
    scores: &[f64],
    predicted: &str,
    judgement: Option<Judgement>,
) -> Vec<(&'static str, Value)> {
    let mut columns = match pipeline.task {
        Task::Binary => vec![("score", Value::Float64(score))],
        Task::Multiclass => {
            let scores = scores.iter().map(|score| Value::Float64(*score));
            vec![("scores", Value::List(scores.collect()))]
        }
        Task::Regression => vec![("value", Value::Float64(score))],
    };
    if pipeline.task != Task::Regression {
        columns.push(("predicted", class_value(pipeline, predicted)));
    }
    columns.extend(judged_columns(pipeline.task, judgement.unwrap_or_default()));
    columns
}

/// The classes that the label declares, as text.
pub fn declared_classes(pipeline: &Pipeline) -> Vec<String> {
    let text = |class: &ClassValue| match class {
        ClassValue::Bool(value) => value.to_string(),
        ClassValue::Int(value) => value.to_string(),
        ClassValue::Text(value) => value.clone(),
    };
    pipeline.label.classes.iter().map(text).collect()
}

fn judged_columns(task: Task, judgement: Judgement) -> Vec<(&'static str, Value)> {
    let number = |value: Option<f64>| value.map_or(Value::Null, Value::Float64);
    match task {
        Task::Regression => vec![
            ("error", number(judgement.error)),
            ("absolute_error", number(judgement.error.map(f64::abs))),
            ("squared_error", number(judgement.error.map(|error| error * error))),
        ],
        _ => vec![
            ("correct", judgement.correct.map_or(Value::Null, |right| Value::Int(right.into()))),
            ("log_loss", number(judgement.log_loss)),
            ("brier", number(judgement.brier)),
        ],
    }
}
