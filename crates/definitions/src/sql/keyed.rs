//! Names in the SELECT list and HAVING of a keyed view: key columns, the latest event's columns,
//! and aggregates; each becomes a slot of the row that `finish` reads.
//!
//! Does not know how keys were found.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::tokenizer::Span;
use falaj_event::ColumnType;

use super::aggregates;
use super::build::{Columns, named};
use super::frames;
use super::refusal::{Checked, mistyped, span_of, unsupported};
use super::scalar::{Names, Translator, Typed};
use super::scope::Scope;
use super::statement::Statement;
use super::types::Family;
use crate::plan::{AggregateCall, AggregateFunction, CostClass, Frame};

/// How a view comes to one row per key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// GROUP BY.
    Groups,
    /// Window aggregates over PARTITION BY.
    Windows,
    /// The latest event of each key of the topic.
    Latest,
}

/// Names of the joined row, at a place where aggregates have no meaning.
pub(crate) struct RowNames<'a> {
    pub scope: &'a Scope,
    pub place: &'static str,
}

impl Names for RowNames<'_> {
    fn schema(&self) -> Arc<DFSchema> {
        Arc::clone(&self.scope.names)
    }

    fn column(&mut self, path: &[ast::Ident], span: Span) -> Checked<Expr> {
        self.scope.find(path, span).map(|index| self.scope.expr(index))
    }

    fn aggregate(&mut self, _: &ast::Function, name: &str, span: Span) -> Checked<Typed> {
        let refusal =
            unsupported(span, format!("the aggregate {name} has no meaning in {}", self.place));
        Err(match self.place {
            "WHERE" => refusal.help("WHERE chooses events; for a condition on aggregates write HAVING, or a view over this view"),
            _ => refusal.help("aggregate in one view and read it in another"),
        })
    }

    fn whole(&mut self, _: &ast::Expr, _: Span) -> Checked<Option<Typed>> {
        Ok(None)
    }
}

/// The slots of a keyed view.
pub(crate) struct Keyed<'a> {
    pub scope: &'a Scope,
    pub statement: &'a Statement,
    pub mode: Mode,
    pub prepare: Columns,
    /// Prepared columns of the key, and the GROUP BY expressions they come from.
    pub keys: Vec<usize>,
    pub key_exprs: Vec<ast::Expr>,
    /// Prepared columns of the latest event.
    pub bare: Vec<usize>,
    pub aggregates: Vec<AggregateCall>,
    /// Class of the dearest aggregate since it was last taken.
    pub class: CostClass,
    /// Whether an aggregate over all events ever was among them.
    pub lifetime: bool,
    pub over_view: bool,
}

impl Keyed<'_> {
    /// Translates an expression over joined rows into a prepared column.
    pub fn prepared(
        &mut self,
        expr: &ast::Expr,
        place: &'static str,
        outer: Span,
    ) -> Checked<usize> {
        let typed = self.row_expression(expr, place, outer)?;
        self.prepare.add(typed)
    }

    /// Translates an expression over joined rows.
    pub fn row_expression(
        &self,
        expr: &ast::Expr,
        place: &'static str,
        outer: Span,
    ) -> Checked<Typed> {
        let mut names = RowNames { scope: self.scope, place };
        Translator { names: &mut names }.translate(expr, outer)
    }

    /// A condition over joined rows as a prepared column.
    pub fn condition(
        &mut self,
        expr: &ast::Expr,
        place: &'static str,
        outer: Span,
    ) -> Checked<usize> {
        let typed = self.row_expression(expr, place, outer)?;
        if typed.family() != Family::Bool {
            return Err(mistyped(
                typed.span,
                format!("{place} needs a boolean, this is {}", typed.data_type),
            ));
        }
        self.prepare.add(typed)
    }

    /// The row that `finish` reads: key columns, bare columns, aggregate results.
    pub fn finish_schema(&self) -> SchemaRef {
        let prepared = |prefix: &str, position: usize, index: usize| {
            let item = &self.prepare.items[index];
            Field::new(format!("{prefix}{position}"), item.column_type.to_arrow(), item.nullable)
        };
        let keys =
            self.keys.iter().enumerate().map(|(position, &index)| prepared("k", position, index));
        let bare =
            self.bare.iter().enumerate().map(|(position, &index)| prepared("b", position, index));
        let results = self.aggregates.iter().enumerate().map(|(position, call)| {
            let counted = matches!(
                call.function,
                AggregateFunction::CountRows
                    | AggregateFunction::Count
                    | AggregateFunction::CountDistinct
                    | AggregateFunction::ApproxDistinct
            );
            Field::new(format!("a{position}"), call.output_type.to_arrow(), !counted)
        });
        Arc::new(Schema::new(keys.chain(bare).chain(results).collect::<Vec<_>>()))
    }

    fn slot(&self, name: &str, span: Span) -> Checked<Typed> {
        let schema = self.finish_schema();
        let field =
            schema.field_with_name(name).map_err(|error| mistyped(span, error.to_string()))?;
        Ok(Typed {
            expr: named(name),
            data_type: field.data_type().clone(),
            nullable: field.is_nullable(),
            span,
            number: None,
        })
    }

    /// Checks that a call's place is one where it counts events, and which.
    fn frame(&self, call: &ast::Function, name: &str, span: Span) -> Checked<Frame> {
        match (&call.over, self.mode) {
            (None, Mode::Groups) => Ok(Frame::Lifetime),
            (None, _) => Err(unsupported(span, format!("{name} counts no particular events here"))
                .help("add OVER (PARTITION BY key ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW), or GROUP BY")),
            (Some(_), Mode::Groups) => Err(unsupported(span, "a view with GROUP BY has no windows")
                .help("leave OVER out, or leave GROUP BY out and PARTITION BY the key")),
            (Some(over), _) => {
                let window = frames::resolve(over, &self.statement.windows, span)?;
                self.check_order(&window.order_by, window.span)?;
                frames::frame(&window, self.statement.header.hop, &self.statement.tokens)
            }
        }
    }

    fn check_order(&self, order_by: &[ast::OrderByExpr], outer: Span) -> Checked<()> {
        let Some(first) = order_by.first() else { return Ok(()) };
        let span = span_of(&first.expr, outer);
        let event_time = self.scope.event_time.map(|index| &self.scope.columns[index]);
        let wanted = event_time.map_or("event_time", |column| column.name.as_str());
        let path = match &first.expr {
            ast::Expr::Identifier(ident) => Some(vec![ident.clone()]),
            ast::Expr::CompoundIdentifier(path) => Some(path.clone()),
            _ => None,
        };
        let found = path.map(|path| self.scope.find(&path, span)).transpose()?;
        if found.is_none() || found != self.scope.event_time {
            return Err(unsupported(span, "events have one order: their event time")
                .help(format!("write ORDER BY {wanted}")));
        }
        let plain = first.options.asc != Some(false)
            && first.options.nulls_first.is_none()
            && first.with_fill.is_none();
        if !plain {
            return Err(unsupported(span, "windows follow event time upwards")
                .help(format!("write ORDER BY {wanted}")));
        }
        match order_by.get(1) {
            Some(second) => Err(unsupported(
                span_of(&second.expr, outer),
                "ties are settled by the order in the log",
            )
            .help(format!("write ORDER BY {wanted} alone"))),
            None => Ok(()),
        }
    }

    fn argument(
        &mut self,
        call: &aggregates::Call<'_>,
        name: &str,
        span: Span,
    ) -> Checked<Option<usize>> {
        let Some(argument) = call.argument else { return Ok(None) };
        let mut typed = self.row_expression(argument, "an aggregate's argument", span)?;
        let ordered = matches!(call.function, AggregateFunction::First | AggregateFunction::Last);
        if ordered && typed.nullable && !call.ignores_nulls {
            return Err(unsupported(span, format!("{name} of a column that may be NULL: features ignore NULL, standard SQL does not"))
                .help(format!("write {name}({argument} IGNORE NULLS)")));
        }
        if matches!(
            call.function,
            AggregateFunction::CountDistinct | AggregateFunction::ApproxDistinct
        ) {
            let mut names = RowNames { scope: self.scope, place: "an aggregate's argument" };
            typed = Translator { names: &mut names }.canonical(typed)?;
        }
        self.prepare.add(typed).map(Some)
    }
}

impl Names for Keyed<'_> {
    fn schema(&self) -> Arc<DFSchema> {
        DFSchema::try_from(self.finish_schema())
            .map_or_else(|_| Arc::new(DFSchema::empty()), Arc::new)
    }

    fn column(&mut self, path: &[ast::Ident], span: Span) -> Checked<Expr> {
        let index = self.scope.find(path, span)?;
        let expr = self.scope.expr(index);
        let key = self.keys.iter().position(|&key| self.prepare.items[key].expr == expr);
        if let Some(position) = key {
            return Ok(named(&format!("k{position}")));
        }
        if self.mode == Mode::Groups {
            let name = &self.scope.columns[index].name;
            return Err(unsupported(span, format!("`{name}` has many values in a group")).help(
                format!("add it to GROUP BY, or aggregate it: last_value({name} IGNORE NULLS)"),
            ));
        }
        let mut names = RowNames { scope: self.scope, place: "a column" };
        let typed = Translator { names: &mut names }.column_of(path, span)?;
        let prepared = self.prepare.add(typed)?;
        let position = match self.bare.iter().position(|&bare| bare == prepared) {
            Some(position) => position,
            None => {
                self.bare.push(prepared);
                self.bare.len() - 1
            }
        };
        Ok(named(&format!("b{position}")))
    }

    fn aggregate(&mut self, call: &ast::Function, name: &str, span: Span) -> Checked<Typed> {
        let recognised = aggregates::recognise(call, name, span)?;
        let frame = self.frame(call, name, span)?;
        if let Some(order_by) = recognised.order_by {
            self.check_order(order_by, span)?;
        }
        let by_order = matches!(
            recognised.function,
            AggregateFunction::First | AggregateFunction::Last | AggregateFunction::LastN(_)
        );
        if by_order && self.over_view {
            return Err(unsupported(span, "the rows of a view have no order")
                .help("aggregate over the topic instead"));
        }
        let input = self.argument(&recognised, name, span)?;
        let input_type =
            input.map_or(ColumnType::Bool, |index| self.prepare.items[index].column_type.clone());
        let output_type = aggregates::result_type(recognised.function, &input_type, span)?;
        let filter = match recognised.filter {
            Some(filter) => Some(self.condition(filter, "FILTER", span)?),
            None => None,
        };
        self.class = self.class.max(recognised.function.class());
        self.lifetime |= frame == Frame::Lifetime && !self.over_view && !by_order;
        let call = AggregateCall {
            function: recognised.function,
            input,
            input_type,
            filter,
            frame,
            output_type,
        };
        let position = match self.aggregates.iter().position(|known| *known == call) {
            Some(position) => position,
            None => {
                self.aggregates.push(call);
                self.aggregates.len() - 1
            }
        };
        self.slot(&format!("a{position}"), span)
    }

    fn whole(&mut self, expr: &ast::Expr, span: Span) -> Checked<Option<Typed>> {
        let plain = matches!(expr, ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_));
        match self.key_exprs.iter().position(|key| key == expr) {
            Some(position) if !plain => self.slot(&format!("k{position}"), span).map(Some),
            _ => Ok(None),
        }
    }
}
