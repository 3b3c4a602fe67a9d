//! The meaning of a view, computed from scratch from its plan and the full list of events: no tiles,
//! no totals, no retraction, fractions of unlimited size where the engine has limbs.
//!
//! Shares the plan's scalar expressions with the engine (their SQL is checked by the SQL oracle) and
//! nothing else. Does not know SQL, workers or epochs beyond `T`.
#![allow(clippy::expect_used, clippy::panic, reason = "a harness fails loudly")]

pub mod aggregate;
pub mod exact;
pub mod sketches;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::datatypes::{Field, Schema};
use falaj_definitions::plan::{Frame, Join, JoinKind, Shape, Source, ViewPlan};
use falaj_definitions::program::Program;
use falaj_event::cells::Cells;
use falaj_event::encoding::encode_row;
use falaj_event::value::to_array;
use falaj_event::{ColumnType, EventOrder, LogTime, Op, TopicKind, TopicSchema, Value};

use crate::engine::Rows;
use crate::history::Event;

/// A row on its way: its event's place (in a view over a view, of which only the time has a meaning)
/// and its cells.
type Sourced = (EventOrder, Vec<Value>);

/// The rows of `plan` at `t`, from all events of epochs with `T <= t`.
pub fn rows(plan: &ViewPlan, events: &[&Event], t: LogTime) -> Rows {
    let found = view(plan, events, t);
    found
        .into_iter()
        .map(|(key, (order, cells))| (key, (order.event_time, encode_row(&cells))))
        .collect()
}

fn view(plan: &ViewPlan, events: &[&Event], t: LogTime) -> BTreeMap<Vec<u8>, Sourced> {
    let now = t.as_event_time();
    let mut rows: Vec<Sourced> = match &plan.source {
        Source::Topic(topic) => topic_rows(topic, events),
        Source::View(below) => view(below, events, t).into_values().collect(),
    };
    rows.retain(|(order, _)| order.event_time <= now);
    for join in &plan.joins {
        join_rows(&mut rows, join, events);
    }
    let joined: Vec<Vec<Value>> = rows.iter().map(|(_, cells)| cells.clone()).collect();
    let prepared = evaluate(&plan.prepare, &joined);
    let mut groups: BTreeMap<Vec<u8>, Vec<Sourced>> = BTreeMap::new();
    for ((order, _), cells) in rows.into_iter().zip(prepared) {
        if plan.predicate.is_some_and(|column| cells[column] != Value::Bool(true)) {
            continue;
        }
        if plan.key.iter().any(|&column| matches!(cells[column], Value::Error)) {
            continue;
        }
        let key = encode_row(plan.key.iter().map(|&column| &cells[column]));
        groups.entry(key).or_default().push((order, cells));
    }
    let mut keys = Vec::new();
    let mut results = Vec::new();
    for (key, mut group) in groups {
        group.sort_by_key(|(order, _)| *order);
        if let Some((order, cells)) = result(plan, &group, now) {
            keys.push((key, order));
            results.push(cells);
        }
    }
    let mut contents = BTreeMap::new();
    for ((key, order), mut output) in keys.into_iter().zip(evaluate(&plan.finish, &results)) {
        if plan.having.is_some() && output.pop() != Some(Value::Bool(true)) {
            continue;
        }
        contents.insert(key, (order, output));
    }
    contents
}

/// The row that `finish` reads, of one key's rows in their order.
fn result(plan: &ViewPlan, group: &[Sourced], now: i64) -> Option<Sourced> {
    let (latest, cells) = group.last()?;
    let Shape::Keyed { bare, aggregates } = &plan.shape else {
        return Some((*latest, cells.clone()));
    };
    let mut row: Vec<Value> =
        plan.key.iter().chain(bare).map(|&column| cells[column].clone()).collect();
    for call in aggregates {
        let framed: Vec<&Vec<Value>> = match call.frame {
            Frame::Lifetime => group.iter().map(|(_, cells)| cells).collect(),
            Frame::Rows { preceding } => {
                let counted = usize::try_from(preceding).unwrap_or(usize::MAX).saturating_add(1);
                group[group.len().saturating_sub(counted)..]
                    .iter()
                    .map(|(_, cells)| cells)
                    .collect()
            }
            Frame::Range { preceding_us, hop_us } => {
                let hop = i128::from(hop_us);
                let edge = (i128::from(now) - i128::from(preceding_us)).div_euclid(hop) * hop;
                let inside = |row: &&Sourced| i128::from(row.0.event_time) >= edge;
                group.iter().filter(inside).map(|(_, cells)| cells).collect()
            }
        };
        row.push(aggregate::value(call, &framed));
    }
    Some((*latest, row))
}

/// Events of an event topic; the newest rows of a table topic, in log order.
fn topic_rows(topic: &TopicSchema, events: &[&Event]) -> Vec<Sourced> {
    let own = events.iter().filter(|event| event.topic.name == topic.name);
    if topic.kind == TopicKind::Event {
        return own.map(|event| (event.order, event.cells.clone())).collect();
    }
    current(topic, events).into_values().collect()
}

fn current(topic: &TopicSchema, events: &[&Event]) -> BTreeMap<Vec<u8>, Sourced> {
    let mut rows = BTreeMap::new();
    for event in events.iter().filter(|event| event.topic.name == topic.name) {
        let key = primary_key(topic, event);
        match event.op {
            Op::Delete => rows.remove(&key),
            _ => rows.insert(key, (event.order, event.cells.clone())),
        };
    }
    rows
}

fn primary_key(topic: &TopicSchema, event: &Event) -> Vec<u8> {
    encode_row(topic.key.iter().map(|&column| &event.cells[column]))
}

fn join_rows(rows: &mut [Sourced], join: &Join, events: &[&Event]) {
    let table = &join.table;
    let left: Vec<Vec<Value>> = rows.iter().map(|(_, cells)| cells.clone()).collect();
    let keys = evaluate(&join.left_key, &left);
    let now = current(table, events);
    let mut versions: BTreeMap<Vec<u8>, Vec<&Event>> = BTreeMap::new();
    for event in events.iter().filter(|event| event.topic.name == table.name) {
        versions.entry(primary_key(table, event)).or_default().push(event);
    }
    for ((order, cells), key) in rows.iter_mut().zip(keys) {
        let unmatched = key.iter().any(|value| matches!(value, Value::Null | Value::Error));
        let key = encode_row(&key);
        let found = match join.kind {
            _ if unmatched => None,
            JoinKind::Left => now.get(&key).map(|(_, cells)| cells.clone()),
            JoinKind::AsOf => versions
                .get(&key)
                .into_iter()
                .flatten()
                .filter(|version| version.order.event_time <= order.event_time)
                .max_by_key(|version| version.order)
                .filter(|version| version.op != Op::Delete)
                .map(|version| version.cells.clone()),
        };
        cells.extend(found.unwrap_or_else(|| vec![Value::Null; table.columns.len()]));
    }
}

/// A program over rows of values.
fn evaluate(program: &Program, rows: &[Vec<Value>]) -> Vec<Vec<Value>> {
    if rows.is_empty() {
        return Vec::new();
    }
    let mut fields = Vec::new();
    let mut arrays = Vec::new();
    let mut masks = Vec::new();
    for (index, field) in program.input_schema().fields().iter().enumerate() {
        let column_type = ColumnType::from_arrow(field.data_type()).expect("a column type");
        let cells: Vec<Value> = rows.iter().map(|row| row[index].clone()).collect();
        let failed: Vec<bool> = cells.iter().map(|cell| matches!(cell, Value::Error)).collect();
        masks.push(failed.contains(&true).then(|| BooleanArray::from(failed)));
        arrays.push(to_array(&column_type, &cells).expect("cells of their column's type"));
        fields.push(Field::new(field.name(), column_type.to_arrow(), true));
    }
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("a batch");
    let done = program.evaluate(&batch, Some(&masks)).expect("a program over its own input");
    let columns: Vec<Cells<'_>> =
        done.columns.iter().map(|column| Cells::new(column.as_ref()).expect("a column")).collect();
    let cell = |column: usize, row: usize| match &done.errors[column] {
        Some(mask) if mask.is_valid(row) && mask.value(row) => Value::Error,
        _ => columns[column].value(row),
    };
    (0..rows.len())
        .map(|row| (0..columns.len()).map(|column| cell(column, row)).collect())
        .collect()
}
