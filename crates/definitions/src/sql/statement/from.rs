//! FROM and its joins: one topic or view, and LEFT or ASOF LEFT joins with ON.
//!
//! Does not know what the names mean.

use datafusion::sql::sqlparser::ast::{self, JoinConstraint, JoinOperator, Select, TableFactor};
use datafusion::sql::sqlparser::tokenizer::{Location, Span};

use super::{JoinClause, Relation, fold};
use crate::sql::refusal::{Checked, Tokens, span_of, unsupported};

/// The source and the joins of FROM.
pub(super) fn check_from(
    select: &Select,
    tokens: &Tokens,
    start: Span,
    as_of: &[Span],
) -> Checked<(Relation, Vec<JoinClause>)> {
    let from = match select.from.as_slice() {
        [from] => from,
        [] => {
            return Err(unsupported(start, "a view reads a topic or a view").help("add FROM topic"));
        }
        [_, second, ..] => {
            return Err(unsupported(
                span_of(&second.relation, start),
                "a comma in FROM is a cross join",
            )
            .help("write LEFT JOIN t ON l.k = t.k"));
        }
    };
    let source = relation(&from.relation, start)?;
    let mut joins = Vec::new();
    let mut before = source.span.start;
    for join in &from.joins {
        let relation = relation(&join.relation, start)?;
        let here = relation.span.start;
        let as_of = as_of.iter().any(|span| span.start > before && span.start < here);
        let on = join_condition(&join.join_operator, &relation, tokens, before)?;
        before = here;
        joins.push(JoinClause { as_of, relation, on });
    }
    Ok((source, joins))
}

fn join_condition(
    operator: &JoinOperator,
    relation: &Relation,
    tokens: &Tokens,
    before: Location,
) -> Checked<ast::Expr> {
    let word = |word: &str| tokens.word(word, before);
    let left_only = "write LEFT JOIN t ON l.k = t.k: a view keeps a row for every key; drop rows with WHERE t.k IS NOT NULL";
    let constraint = match operator {
        JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => constraint,
        JoinOperator::Join(_) => {
            return Err(unsupported(word("join"), "inner joins are not supported").help(left_only));
        }
        JoinOperator::Inner(_) => {
            return Err(unsupported(word("inner"), "inner joins are not supported").help(left_only));
        }
        JoinOperator::Right(_) | JoinOperator::RightOuter(_) => {
            return Err(unsupported(word("right"), "right joins are not supported")
                .help("start FROM the events and LEFT JOIN the table"));
        }
        JoinOperator::FullOuter(_) => {
            return Err(unsupported(word("full"), "full joins are not supported").help(left_only));
        }
        JoinOperator::CrossJoin(_) => {
            return Err(unsupported(word("cross"), "cross joins are not supported").help(left_only));
        }
        JoinOperator::AsOf { .. } => {
            return Err(unsupported(word("asof"), "this spelling of ASOF JOIN is not supported")
                .help("write `ASOF LEFT JOIN t ON l.k = t.k AND l.event_time >= t.event_time`"));
        }
        _ => {
            return Err(
                unsupported(relation.span, "this kind of join is not supported").help(left_only)
            );
        }
    };
    match constraint {
        JoinConstraint::On(on) => Ok(on.clone()),
        JoinConstraint::Using(_) | JoinConstraint::Natural | JoinConstraint::None => {
            Err(unsupported(relation.span, "a join names both sides of its condition")
                .help("write ON l.k = t.k"))
        }
    }
}

fn relation(factor: &TableFactor, outer: Span) -> Checked<Relation> {
    let span = span_of(factor, outer);
    let TableFactor::Table {
        name,
        alias,
        args,
        with_hints,
        version,
        with_ordinality,
        partitions,
        json_path,
        sample,
        index_hints,
    } = factor
    else {
        return Err(unsupported(span, "subqueries are not supported")
            .help("make the inner query a view of its own and select from it"));
    };
    let plain = args.is_none()
        && with_hints.is_empty()
        && version.is_none()
        && !with_ordinality
        && partitions.is_empty()
        && json_path.is_none()
        && sample.is_none()
        && index_hints.is_empty();
    if !plain {
        return Err(unsupported(span, "only a topic or a view by its name can be read")
            .help("write FROM name [AS alias]"));
    }
    let parts: Option<Vec<String>> = name.0.iter().map(|part| part.as_ident().map(fold)).collect();
    let parts =
        parts.ok_or_else(|| unsupported(span, "only a topic or a view by its name can be read"))?;
    let alias = match alias {
        Some(alias) if !alias.columns.is_empty() => {
            return Err(unsupported(span, "columns are renamed in the SELECT list")
                .help("write FROM name AS alias"));
        }
        Some(alias) => fold(&alias.name),
        None => parts.last().cloned().unwrap_or_default(),
    };
    Ok(Relation { name: parts.join("."), alias, span: span_of(name, span) })
}
