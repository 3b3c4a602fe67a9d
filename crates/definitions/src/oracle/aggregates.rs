//! Aggregates of a view as plain GROUP BY aggregates with explicit bounds on event time.
//!
//! Does not know joins.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, Ident, VisitMut, VisitorMut, visit_expressions_mut};
use falaj_event::LogTime;

use super::rewrite::{self, Scope, quoted};
use super::{Comparison, TOLERANCE, floats, window_start};
use crate::plan::{AggregateFunction, Frame};
use crate::sql::oracle_view::Parsed;

/// A RANGE window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub preceding_us: u64,
    pub hop_us: u64,
}

/// An expression of a view's row over its groups.
pub(super) struct Finished {
    pub sql: String,
    pub is_float: bool,
    pub comparison: Comparison,
}

/// The aggregate calls of a view, each once.
pub(super) struct Calls<'a> {
    scope: &'a Scope,
    t: LogTime,
    results: Vec<String>,
    /// Whether each result is a float.
    floats: Vec<bool>,
}

impl<'a> Calls<'a> {
    pub fn new(scope: &'a Scope, t: LogTime) -> Self {
        Self { scope, t, results: Vec::new(), floats: Vec::new() }
    }

    /// The SQL of every call, in the order of its result columns.
    pub fn results(&self) -> &[String] {
        &self.results
    }

    /// An expression of the SELECT list or HAVING over key columns (`g.__k0`), results (`g.__a0`)
    /// and the key's latest event (`e`).
    pub fn finish(&mut self, expr: &ast::Expr, keys: &[ast::Expr], view: &Parsed) -> Finished {
        let mut comparison = Comparison::Exact;
        let mut expr = expr.clone();
        self.replace_calls(&mut expr, view, &mut comparison);
        let _: ControlFlow<()> = expr.visit(&mut WholeKeys { keys });
        let is_float = |column: &ast::Expr| self.is_float(column, keys);
        floats::settle(&mut expr, &is_float);
        let is_float = floats::is_float(&expr, &is_float);
        let key_columns: Vec<Option<String>> = keys.iter().map(|key| self.internal(key)).collect();
        let _: ControlFlow<()> = visit_expressions_mut(&mut expr, |node| {
            if let Some(name) = self.internal(node) {
                *node = match key_columns.iter().position(|key| key.as_ref() == Some(&name)) {
                    Some(position) => result("__k", position),
                    None => {
                        comparison =
                            rewrite::worse(comparison, rewrite::comparison(node, self.scope));
                        ast::Expr::CompoundIdentifier(vec![
                            Ident::new("e"),
                            Ident::with_quote('"', name),
                        ])
                    }
                };
            } else if let ast::Expr::Function(_) = node {
                comparison = rewrite::worse(comparison, rewrite::comparison(node, self.scope));
            }
            ControlFlow::Continue(())
        });
        Finished { sql: expr.to_string(), is_float, comparison }
    }

    fn internal(&self, expr: &ast::Expr) -> Option<String> {
        self.scope.named(expr).map(|(alias, known)| rewrite::internal(alias, &known.name))
    }

    /// Whether a call's result is a float.
    fn gives_float(&self, call: &crate::sql::OracleCall<'_>) -> bool {
        use AggregateFunction as F;
        match call.function {
            F::Avg | F::Variance { .. } | F::Stddev { .. } | F::ApproxQuantile(_) => true,
            F::Sum | F::Min | F::Max | F::First | F::Last => {
                call.argument.is_some_and(|argument| {
                    floats::is_float(argument, &|column| self.scope.is_float(column))
                })
            }
            _ => false,
        }
    }

    /// Whether a name is that of a float column, of a key or of a call's result that is a float.
    fn is_float(&self, name: &ast::Expr, keys: &[ast::Expr]) -> bool {
        let position = |prefix: &str| -> Option<usize> {
            match name {
                ast::Expr::CompoundIdentifier(path) => {
                    path.last()?.value.strip_prefix(prefix)?.parse().ok()
                }
                _ => None,
            }
        };
        if let Some(result) = position("__a").and_then(|position| self.floats.get(position)) {
            return *result;
        }
        match position("__k").and_then(|position| keys.get(position)) {
            Some(key) => floats::is_float(key, &|column| self.scope.is_float(column)),
            None => self.scope.is_float(name),
        }
    }

    /// Replaces aggregate calls by their results. Whole calls first: their arguments are expressions
    /// over rows, not over results.
    fn replace_calls(&mut self, expr: &mut ast::Expr, view: &Parsed, comparison: &mut Comparison) {
        let mut found = Vec::new();
        let _: ControlFlow<()> = visit_expressions_mut(expr, |node| {
            if let ast::Expr::Function(call) = node
                && let Some((read, frame)) = view.aggregate(call)
            {
                let (sql, kind) = self.call(&read, frame);
                *comparison = rewrite::worse(*comparison, kind);
                let position = self
                    .results
                    .iter()
                    .position(|known| *known == sql)
                    .unwrap_or(self.results.len());
                if position == self.results.len() {
                    self.results.push(sql);
                    self.floats.push(self.gives_float(&read));
                }
                found.push(position);
                *node = result("__a", position);
            }
            ControlFlow::Continue(())
        });
    }

    fn call(&self, call: &crate::sql::OracleCall<'_>, frame: Frame) -> (String, Comparison) {
        use AggregateFunction as F;
        let argument =
            call.argument.map(|argument| rewrite::row(argument, self.scope)).unwrap_or_default();
        let when = self.condition(call, frame, &argument);
        let filter = if when.is_empty() {
            String::new()
        } else {
            format!(" FILTER (WHERE {})", when.join(" AND "))
        };
        let float = Comparison::Numeric(TOLERANCE);
        let summed =
            match call.argument.is_some_and(|argument| rewrite::sums_exactly(argument, self.scope))
            {
                true => Comparison::Exact,
                false => float,
            };
        let inner = call
            .argument
            .map_or(Comparison::Exact, |argument| rewrite::comparison(argument, self.scope));
        let plain = |name: &str| format!("{name}({argument}){filter}");
        let (sql, kind) = match call.function {
            F::CountRows => (format!("count(*){filter}"), Comparison::Exact),
            F::Count => (plain("count"), Comparison::Exact),
            F::CountDistinct => (format!("count(DISTINCT {argument}){filter}"), Comparison::Exact),
            F::Sum => (plain("sum"), summed),
            F::Avg => (format!("avg(CAST({argument} AS DOUBLE)){filter}"), float),
            F::Min => (plain("min"), Comparison::Exact),
            F::Max => (plain("max"), Comparison::Exact),
            F::Variance { sample: true } => {
                (format!("var_samp(CAST({argument} AS DOUBLE)){filter}"), float)
            }
            F::Variance { sample: false } => {
                (format!("var_pop(CAST({argument} AS DOUBLE)){filter}"), float)
            }
            F::Stddev { sample: true } => {
                (format!("stddev_samp(CAST({argument} AS DOUBLE)){filter}"), float)
            }
            F::Stddev { sample: false } => {
                (format!("stddev_pop(CAST({argument} AS DOUBLE)){filter}"), float)
            }
            F::First => (
                format!("(array_agg({argument} ORDER BY \"__rank\" DESC){filter})[1]"),
                Comparison::Exact,
            ),
            F::Last => (
                format!("(array_agg({argument} ORDER BY \"__rank\" ASC){filter})[1]"),
                Comparison::Exact,
            ),
            F::LastN(n) => (
                format!("(array_agg({argument} ORDER BY \"__rank\" ASC){filter})[1:{n}]"),
                Comparison::Exact,
            ),
            F::TopN(n) => (
                format!("(array_agg({argument} ORDER BY {argument} DESC){filter})[1:{n}]"),
                Comparison::Exact,
            ),
            F::ApproxDistinct => (format!("count(DISTINCT {argument}){filter}"), Comparison::Skip),
            F::ApproxQuantile(_) => ("CAST(NULL AS DOUBLE)".to_owned(), Comparison::Skip),
            F::BoolAnd => (plain("bool_and"), Comparison::Exact),
            F::BoolOr => (plain("bool_or"), Comparison::Exact),
        };
        (sql, rewrite::worse(kind, inner))
    }

    /// Conditions on the rows that a call counts.
    fn condition(
        &self,
        call: &crate::sql::OracleCall<'_>,
        frame: Frame,
        argument: &str,
    ) -> Vec<String> {
        use AggregateFunction as F;
        let mut when = Vec::new();
        match frame {
            Frame::Lifetime => {}
            Frame::Rows { preceding } => {
                when.push(format!("\"__rank\" <= {}", u128::from(preceding) + 1))
            }
            Frame::Range { preceding_us, hop_us } => {
                let window = Window { preceding_us, hop_us };
                let start = window_start(self.t, window);
                when.push(format!("{} >= {start}", quoted("__et")));
            }
        }
        if let Some(filter) = call.filter {
            when.push(format!("({})", rewrite::row(filter, self.scope)));
        }
        if matches!(call.function, F::First | F::Last | F::LastN(_) | F::TopN(_)) {
            when.push(format!("({argument}) IS NOT NULL"));
        }
        when
    }
}

/// Replaces GROUP BY expressions before their parts are looked at.
struct WholeKeys<'a> {
    keys: &'a [ast::Expr],
}

impl VisitorMut for WholeKeys<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
        if let Some(position) = self.keys.iter().position(|key| key == expr) {
            *expr = result("__k", position);
        }
        ControlFlow::Continue(())
    }
}

fn result(prefix: &str, position: usize) -> ast::Expr {
    ast::Expr::CompoundIdentifier(vec![
        Ident::new("g"),
        Ident::with_quote('"', format!("{prefix}{position}")),
    ])
}
