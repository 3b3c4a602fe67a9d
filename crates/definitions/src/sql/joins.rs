//! LEFT JOIN and ASOF LEFT JOIN with table topics.
//!
//! Does not know what views do with the joined row.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::logical_expr::{Cast, Expr};
use datafusion::sql::sqlparser::ast::{self, BinaryOperator};
use datafusion::sql::sqlparser::tokenizer::Span;
use falaj_event::TopicSchema;

use super::build::{Columns, column};
use super::keyed::RowNames;
use super::refusal::{Checked, Refusal, mistyped, span_of, unknown, unsupported};
use super::scalar::{Translator, Typed};
use super::scope::Scope;
use super::statement::JoinClause;
use super::view::{World, is_table};
use crate::plan::{Join, JoinKind};

/// Plans one join: the join and the row after it.
pub(crate) fn plan(
    clause: &JoinClause,
    before: &Scope,
    world: &World<'_>,
) -> Checked<(Join, Scope)> {
    let relation = &clause.relation;
    let table = table(clause, world)?;
    let kind = if clause.as_of { JoinKind::AsOf } else { JoinKind::Left };
    if clause.as_of && before.event_time.is_none() {
        return Err(unsupported(relation.span, "a view's row has no event time to join at")
            .help("ASOF LEFT JOIN in the view that reads the topic"));
    }
    let after = before.join(relation, &table, kind)?;
    let mut reader = Reader {
        before,
        after: &after,
        table: &table,
        keys: vec![None; table.key.len()],
        time: None,
    };
    for term in terms(&clause.on) {
        reader.term(term, relation.span, clause.as_of)?;
    }
    let left_key = reader.left_key(clause, relation.span)?;
    Ok((Join { kind, table, left_key }, after))
}

fn table(clause: &JoinClause, world: &World<'_>) -> Checked<Arc<TopicSchema>> {
    let relation = &clause.relation;
    match world.topics.get(&relation.name) {
        Some(topic) if is_table(&topic.schema) => Ok(Arc::clone(&topic.schema)),
        Some(_) => Err(unsupported(
            relation.span,
            format!(
                "`{}` is an event topic: a join with it has no one row per event",
                relation.name
            ),
        )
        .help(
            "join a table topic (kind = \"table\"), or aggregate the events in a view of their own",
        )),
        None if world.views.contains_key(&relation.name) => Err(unsupported(
            relation.span,
            format!("`{}` is a view: only table topics can be joined", relation.name),
        )
        .help("start FROM the view and LEFT JOIN tables, or read both views in one request")),
        None => {
            let tables = world
                .topics
                .iter()
                .filter(|topic| is_table(&topic.schema))
                .map(|topic| topic.schema.name.as_str());
            Err(unknown(relation.span, format!("there is no table topic `{}`", relation.name))
                .help_nearest(&relation.name, tables))
        }
    }
}

/// The terms of a conjunction.
fn terms(on: &ast::Expr) -> Vec<&ast::Expr> {
    match on {
        ast::Expr::Nested(inner) => terms(inner),
        ast::Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            let mut all = terms(left);
            all.extend(terms(right));
            all
        }
        other => vec![other],
    }
}

struct Reader<'a> {
    before: &'a Scope,
    after: &'a Scope,
    table: &'a TopicSchema,
    /// For each key column of the table, the expression that it equals.
    keys: Vec<Option<Typed>>,
    /// The place of the event-time condition.
    time: Option<Span>,
}

impl Reader<'_> {
    fn term(&mut self, term: &ast::Expr, outer: Span, as_of: bool) -> Checked<()> {
        let span = span_of(term, outer);
        let ast::Expr::BinaryOp { left, op, right } = term else {
            return Err(self.refuse(span, as_of));
        };
        let (l, r) = (self.table_column(left, span), self.table_column(right, span));
        let (column, other, flipped) = match (l, r) {
            (Some(column), None) => (column, right, true),
            (None, Some(column)) => (column, left, false),
            _ => return Err(self.refuse(span, as_of)),
        };
        match (op, flipped) {
            (BinaryOperator::Eq, _) => self.equality(column, other, span),
            (BinaryOperator::GtEq, false) | (BinaryOperator::LtEq, true) if as_of => {
                self.event_times(column, other, span)
            }
            _ => Err(self.refuse(span, as_of)),
        }
    }

    /// The joined table's column that `expr` names.
    fn table_column(&self, expr: &ast::Expr, span: Span) -> Option<usize> {
        let path = match expr {
            ast::Expr::Identifier(ident) => std::slice::from_ref(ident),
            ast::Expr::CompoundIdentifier(path) => path.as_slice(),
            ast::Expr::Nested(inner) => return self.table_column(inner, span),
            _ => return None,
        };
        let index = self.after.find(path, span).ok()?;
        index.checked_sub(self.before.columns.len())
    }

    fn equality(&mut self, index: usize, other: &ast::Expr, span: Span) -> Checked<()> {
        let Some(position) = self.table.key.iter().position(|&key| key == index) else {
            let name = &self.table.columns[index].name;
            return Err(unsupported(
                span,
                format!("`{name}` is not a key column of `{}`", self.table.name),
            )
            .help(format!(
                "join by {}; move other conditions to WHERE or CASE",
                self.key_names()
            )));
        };
        if self.keys[position].is_some() {
            return Err(unsupported(span, "this key column is already joined")
                .help("leave one of the conditions out"));
        }
        let mut names = RowNames { scope: self.before, place: "a join condition" };
        let typed = Translator { names: &mut names }.translate(other, span)?;
        let wanted = self.table.columns[index].column_type.to_arrow();
        let typed = widen(typed, &wanted, span)?;
        self.keys[position] = Some(typed);
        Ok(())
    }

    fn event_times(&mut self, index: usize, other: &ast::Expr, span: Span) -> Checked<()> {
        let path = match other {
            ast::Expr::Identifier(ident) => std::slice::from_ref(ident),
            ast::Expr::CompoundIdentifier(path) => path.as_slice(),
            _ => return Err(self.refuse(span, true)),
        };
        let event_time = self.before.find(path, span)?;
        if index != self.table.event_time
            || Some(event_time) != self.before.event_time
            || self.time.is_some()
        {
            return Err(self.refuse(span, true));
        }
        self.time = Some(span);
        Ok(())
    }

    fn left_key(self, clause: &JoinClause, span: Span) -> Checked<crate::program::Program> {
        if clause.as_of && self.time.is_none() {
            return Err(self.refuse(span, true));
        }
        let names = self.key_names();
        let mut items = Columns::default();
        for key in self.keys {
            let key = key.ok_or_else(|| {
                unsupported(span, "a join matches the whole primary key")
                    .help(format!("add conditions for {names}"))
            })?;
            items.items.push(column(key)?);
        }
        items.program(&self.before.schema)
    }

    fn key_names(&self) -> String {
        let names = self.table.key.iter().map(|&index| self.table.columns[index].name.as_str());
        names.collect::<Vec<_>>().join(", ")
    }

    fn refuse(&self, span: Span, as_of: bool) -> Refusal {
        let time = &self.table.columns[self.table.event_time].name;
        let key = self.key_names();
        if as_of {
            unsupported(
                span,
                "an ASOF join is equality with the primary key and one event-time condition",
            )
            .help(format!("write ON l.{key} = t.{key} AND l.event_time >= t.{time}"))
        } else {
            unsupported(span, "a join is equality with the table's primary key")
                .help(format!("write ON l.{key} = t.{key}; move other conditions to WHERE or CASE"))
        }
    }
}

/// Lets an integer become a wider one; anything else must have the key column's type.
fn widen(typed: Typed, wanted: &DataType, span: Span) -> Checked<Typed> {
    if typed.data_type == *wanted {
        return Ok(typed);
    }
    let rank = |data_type: &DataType| match data_type {
        DataType::Int8 => Some((true, 1)),
        DataType::Int16 => Some((true, 2)),
        DataType::Int32 => Some((true, 4)),
        DataType::Int64 => Some((true, 8)),
        DataType::UInt8 => Some((false, 1)),
        DataType::UInt16 => Some((false, 2)),
        DataType::UInt32 => Some((false, 4)),
        DataType::UInt64 => Some((false, 8)),
        _ => None,
    };
    let lossless = match (rank(&typed.data_type), rank(wanted)) {
        (Some((true, from)), Some((true, to))) | (Some((false, from)), Some((false, to))) => {
            from <= to
        }
        (Some((false, from)), Some((true, to))) => from < to,
        _ => false,
    };
    if !lossless {
        return Err(mistyped(span, format!("the key is {wanted} and this is {}", typed.data_type))
            .help("CAST it to the key's type"));
    }
    let expr = Expr::Cast(Cast::new(Box::new(typed.expr.clone()), wanted.clone()));
    Ok(Typed { expr, data_type: wanted.clone(), number: None, ..typed })
}
