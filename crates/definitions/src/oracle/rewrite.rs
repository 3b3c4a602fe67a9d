//! Expressions of a view over the oracle's own relations: names become internal columns.
//!
//! Does not know aggregates.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, Ident, visit_expressions, visit_expressions_mut};
use falaj_event::{ColumnType, TopicSchema};

use super::{Comparison, Known, TOLERANCE, floats};
use crate::sql::statement::fold;

/// The columns of the joined rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    columns: Vec<(String, Known)>,
    pub over_view: bool,
    pub event_time: Option<String>,
    pub key: Vec<String>,
}

impl Scope {
    /// Adds a topic's readable columns; returns their names there and here.
    pub fn add_topic(&mut self, alias: &str, topic: &TopicSchema) -> Vec<(String, String)> {
        let mut added = Vec::new();
        for column in topic.columns.iter().filter(|column| !column.pii) {
            let known = Known {
                name: column.name.clone(),
                column_type: Some(column.column_type.clone()),
                is_float: matches!(column.column_type, ColumnType::Float32 | ColumnType::Float64),
                comparison: Comparison::Exact,
            };
            self.columns.push((alias.to_owned(), known));
            added.push((column.name.clone(), internal(alias, &column.name)));
        }
        added
    }

    /// Adds a view's columns.
    pub fn add_view(&mut self, alias: &str, columns: &[Known]) -> Vec<(String, String)> {
        self.over_view = true;
        self.columns.extend(columns.iter().map(|known| (alias.to_owned(), known.clone())));
        columns.iter().map(|known| (known.name.clone(), internal(alias, &known.name))).collect()
    }

    fn find(&self, path: &[Ident]) -> Option<&(String, Known)> {
        let (relation, name) = match path {
            [name] => (None, fold(name)),
            [relation @ .., name] => {
                (Some(relation.iter().map(fold).collect::<Vec<_>>().join(".")), fold(name))
            }
            [] => return None,
        };
        self.columns.iter().find(|(alias, known)| {
            known.name == name && relation.as_ref().is_none_or(|relation| relation == alias)
        })
    }

    /// The column that an expression names.
    pub fn named(&self, expr: &ast::Expr) -> Option<&(String, Known)> {
        match expr {
            ast::Expr::Identifier(ident) => self.find(std::slice::from_ref(ident)),
            ast::Expr::CompoundIdentifier(path) => self.find(path),
            _ => None,
        }
    }

    /// Whether an expression names a column that is a float.
    pub fn is_float(&self, expr: &ast::Expr) -> bool {
        self.named(expr).is_some_and(|(_, known)| known.is_float)
    }
}

/// The internal name of a column.
pub(super) fn internal(alias: &str, column: &str) -> String {
    format!("{alias}__{column}")
}

/// A quoted identifier.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn identifier(prefix: Option<&str>, name: &str) -> ast::Expr {
    let ident = Ident::with_quote('"', name);
    match prefix {
        Some(prefix) => ast::Expr::CompoundIdentifier(vec![Ident::new(prefix), ident]),
        None => ast::Expr::Identifier(ident),
    }
}

/// Replaces every column by what `rename` makes of it.
fn renamed(expr: &ast::Expr, rename: impl Fn(&ast::Expr) -> Option<ast::Expr>) -> ast::Expr {
    let mut expr = expr.clone();
    let _: ControlFlow<()> = visit_expressions_mut(&mut expr, |node| {
        if let Some(new) = rename(node) {
            *node = new;
        }
        ControlFlow::Continue(())
    });
    expr
}

/// An expression over joined rows.
pub(super) fn row(expr: &ast::Expr, scope: &Scope) -> String {
    expression(expr, scope, None).to_string()
}

/// An expression over joined rows under a prefix.
pub(super) fn expression(expr: &ast::Expr, scope: &Scope, prefix: Option<&str>) -> ast::Expr {
    let mut settled = expr.clone();
    floats::settle(&mut settled, &|column| scope.is_float(column));
    renamed(&settled, |node| {
        scope.named(node).map(|(alias, known)| identifier(prefix, &internal(alias, &known.name)))
    })
}

/// A join's condition: the table's columns from `r`, all others from `l`.
pub(super) fn join_condition(on: &ast::Expr, scope: &Scope, before: &Scope, alias: &str) -> String {
    let new = |node: &ast::Expr| {
        let (relation, known) = scope.named(node)?;
        let left = before.named(node).is_some() && relation != alias;
        Some(match left {
            true => identifier(Some("l"), &internal(relation, &known.name)),
            false => identifier(Some("r"), &known.name),
        })
    };
    renamed(on, new).to_string()
}

/// How a value computed from joined rows compares.
pub(super) fn comparison(expr: &ast::Expr, scope: &Scope) -> Comparison {
    let mut worst = Comparison::Exact;
    let _: ControlFlow<()> = visit_expressions(expr, |node| {
        if let Some((_, known)) = scope.named(node) {
            worst = worse(worst, known.comparison);
        }
        if let ast::Expr::Function(call) = node
            && crate::functions::libm::is_libm(&call.name.to_string().to_lowercase())
        {
            worst = worse(worst, Comparison::Numeric(TOLERANCE));
        }
        ControlFlow::Continue(())
    });
    worst
}

/// The weaker of two comparisons.
pub(super) fn worse(a: Comparison, b: Comparison) -> Comparison {
    match (a, b) {
        (Comparison::Skip, _) | (_, Comparison::Skip) => Comparison::Skip,
        (Comparison::Numeric(x), Comparison::Numeric(y)) => Comparison::Numeric(x.max(y)),
        (Comparison::Numeric(x), _) | (_, Comparison::Numeric(x)) => Comparison::Numeric(x),
        _ => Comparison::Exact,
    }
}

/// Whether an expression's sum is exact: whole numbers or decimals, nothing that makes a fraction.
pub(super) fn sums_exactly(expr: &ast::Expr, scope: &Scope) -> bool {
    let mut exact = true;
    let _: ControlFlow<()> = visit_expressions(expr, |node| {
        let fits = match node {
            ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_) => {
                match scope.named(node) {
                    Some((_, known)) => !matches!(
                        known.column_type,
                        None | Some(ColumnType::Float32 | ColumnType::Float64)
                    ),
                    None => false,
                }
            }
            ast::Expr::Cast { data_type, .. } => {
                let name = data_type.to_string().to_uppercase();
                !["DOUBLE", "REAL", "FLOAT"].iter().any(|float| name.starts_with(float))
            }
            ast::Expr::Function(_) | ast::Expr::Extract { .. } => false,
            ast::Expr::Value(value) => {
                !value.value.to_string().contains(['e', 'E'])
                    || value.value.to_string().starts_with('\'')
            }
            _ => true,
        };
        exact &= fits;
        ControlFlow::Continue(())
    });
    exact
}
