//! The key of a view: GROUP BY, the one PARTITION BY of all windows, or the topic's own key.
//!
//! Does not know plans.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, visit_expressions};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::aggregates;
use super::frames;
use super::keyed::Mode;
use super::refusal::{Checked, span_of, unsupported};
use super::statement::{Statement, fold};
use super::view::Base;
use crate::plan::Source;

/// How a view over a topic comes to one row per key.
pub(super) fn mode(statement: &Statement) -> Checked<Mode> {
    if !statement.group_by.is_empty() {
        return Ok(Mode::Groups);
    }
    let mut windows = false;
    let mut lone: Option<(String, Span)> = None;
    for item in &statement.items {
        for call in calls(&item.expr) {
            windows |= call.over.is_some();
            let name = call.name.to_string().to_lowercase();
            if call.over.is_none() && aggregates::is_aggregate(&name) {
                lone.get_or_insert((name, span_of(&call.name, item.span)));
            }
        }
    }
    match lone {
        Some((name, span)) if !windows => Err(unsupported(span, format!("{name} without GROUP BY has no key"))
            .help("add GROUP BY key, or OVER (PARTITION BY key ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW)")),
        _ if windows => Ok(Mode::Windows),
        _ => Ok(Mode::Latest),
    }
}

/// All function calls in an expression.
pub(crate) fn calls(expr: &ast::Expr) -> Vec<ast::Function> {
    let mut calls = Vec::new();
    let _: ControlFlow<()> = visit_expressions(expr, |expr| {
        if let ast::Expr::Function(call) = expr {
            calls.push(call.clone());
        }
        ControlFlow::Continue(())
    });
    calls
}

/// Key expressions of a keyed view, with their places.
pub(super) fn key_expressions(base: &Base<'_>, mode: Mode) -> Checked<Vec<(ast::Expr, Span)>> {
    let statement = base.statement;
    match (mode, &base.source) {
        (Mode::Groups, _) => {
            let key = |expr| {
                let (meant, span) = group_expression(expr, statement)?;
                ambiguous(expr, &meant, base, span)?;
                Ok((meant, span))
            };
            statement.group_by.iter().map(key).collect()
        }
        (Mode::Windows, _) => partition(base),
        (Mode::Latest, Source::Topic(topic)) => Ok(topic
            .key
            .iter()
            .map(|&index| {
                let name = ast::Ident::new(&topic.columns[index].name);
                let path = vec![ast::Ident::new(&statement.source.alias), name];
                (ast::Expr::CompoundIdentifier(path), statement.source.span)
            })
            .collect()),
        (Mode::Latest, Source::View(_)) => Ok(Vec::new()),
    }
}

/// Refuses a GROUP BY name that is both a column and another expression's alias.
fn ambiguous(expr: &ast::Expr, meant: &ast::Expr, base: &Base<'_>, span: Span) -> Checked<()> {
    let ast::Expr::Identifier(ident) = expr else { return Ok(()) };
    if meant == expr || base.scope.find(std::slice::from_ref(ident), span).is_err() {
        return Ok(());
    }
    let name = fold(ident);
    Err(unsupported(span, format!("`{name}` is a column and also the name of an expression: engines disagree on which is meant"))
        .help("give the expression another name: … AS name"))
}

/// `GROUP BY 1` and `GROUP BY alias` name items of the SELECT list.
pub(crate) fn group_expression(
    expr: &ast::Expr,
    statement: &Statement,
) -> Checked<(ast::Expr, Span)> {
    let span = span_of(expr, statement.span);
    match expr {
        ast::Expr::Value(value) => {
            let item = value
                .value
                .to_string()
                .parse::<usize>()
                .ok()
                .and_then(|n| statement.items.get(n.checked_sub(1)?));
            match item {
                Some(item) => Ok((item.expr.clone(), span)),
                None => Err(unsupported(span, "a constant is no key")
                    .help("name the key columns: GROUP BY card_id")),
            }
        }
        ast::Expr::Identifier(ident) => {
            let name = fold(ident);
            let aliased = statement.items.iter().find(|item| {
                item.name == name
                    && !matches!(
                        item.expr,
                        ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_)
                    )
            });
            Ok((aliased.map_or_else(|| expr.clone(), |item| item.expr.clone()), span))
        }
        ast::Expr::Tuple(_)
        | ast::Expr::GroupingSets(_)
        | ast::Expr::Cube(_)
        | ast::Expr::Rollup(_) => Err(unsupported(span, "grouping sets make rows of several keys")
            .help("define one view per key")),
        other => Ok((other.clone(), span)),
    }
}

/// The one PARTITION BY of all windows.
fn partition(base: &Base<'_>) -> Checked<Vec<(ast::Expr, Span)>> {
    let statement = base.statement;
    let mut first: Option<Vec<usize>> = None;
    let mut found = Vec::new();
    for item in &statement.items {
        for call in calls(&item.expr) {
            let Some(over) = &call.over else { continue };
            let window = frames::resolve(over, &statement.windows, span_of(&call.name, item.span))?;
            let columns = partition_columns(&window, base)?;
            match &first {
                None => {
                    found = window
                        .partition_by
                        .iter()
                        .map(|e| (e.clone(), span_of(e, window.span)))
                        .collect();
                    first = Some(columns);
                }
                Some(known) if *known == columns => {}
                Some(_) => {
                    let span = window
                        .partition_by
                        .first()
                        .map_or(window.span, |e| span_of(e, window.span));
                    return Err(unsupported(
                        span,
                        "a view has one key: all windows partition by the same columns",
                    )
                    .help("define one view per key"));
                }
            }
        }
    }
    Ok(found)
}

fn partition_columns(window: &frames::Window, base: &Base<'_>) -> Checked<Vec<usize>> {
    if window.partition_by.is_empty() {
        return Err(unsupported(window.span, "a window without PARTITION BY has no key")
            .help("add PARTITION BY card_id"));
    }
    let column = |expr: &ast::Expr| {
        let span = span_of(expr, window.span);
        match expr {
            ast::Expr::Identifier(ident) => base.scope.find(std::slice::from_ref(ident), span),
            ast::Expr::CompoundIdentifier(path) => base.scope.find(path, span),
            _ => Err(unsupported(span, "a key is made of columns")
                .help("compute it in the producer, or GROUP BY the expression")),
        }
    };
    window.partition_by.iter().map(column).collect()
}
