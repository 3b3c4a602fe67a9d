//! A view's text as its oracle reads it: names and syntax trees, nothing planned.
//!
//! Does not know types.

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::tokenizer::Span;

use super::aggregates::{self, Call};
use super::frames;
use super::keys::group_expression;
use super::statement::{self, Statement, fold};
use crate::plan::Frame;

/// A join.
pub(crate) struct Clause {
    pub relation: String,
    pub alias: String,
    pub as_of: bool,
    pub on: ast::Expr,
}

/// A view.
pub(crate) struct Parsed {
    /// Relation and alias.
    pub source: (String, String),
    pub joins: Vec<Clause>,
    pub items: Vec<(String, ast::Expr)>,
    pub selection: Option<ast::Expr>,
    pub group_by: Vec<ast::Expr>,
    pub having: Option<ast::Expr>,
    statement: Statement,
}

/// Parses a view's text.
pub(crate) fn parse(text: &str) -> Option<Parsed> {
    let statement = statement::parse(text).ok()?;
    let group_by: Option<Vec<ast::Expr>> = statement
        .group_by
        .iter()
        .map(|expr| group_expression(expr, &statement).ok().map(|(expr, _)| expr))
        .collect();
    Some(Parsed {
        source: (statement.source.name.clone(), statement.source.alias.clone()),
        joins: statement
            .joins
            .iter()
            .map(|join| Clause {
                relation: join.relation.name.clone(),
                alias: join.relation.alias.clone(),
                as_of: join.as_of,
                on: join.on.clone(),
            })
            .collect(),
        items: statement.items.iter().map(|item| (item.name.clone(), item.expr.clone())).collect(),
        selection: statement.selection.clone(),
        group_by: group_by?,
        having: statement.having.clone(),
        statement,
    })
}

impl Parsed {
    /// The key: GROUP BY, else the windows' PARTITION BY, else the topic's key.
    pub fn keys(&self, topic_key: &[String], alias: &str) -> Vec<ast::Expr> {
        if !self.group_by.is_empty() {
            return self.group_by.clone();
        }
        for (_, expr) in &self.items {
            for call in super::keys::calls(expr) {
                if let Some(over) = &call.over
                    && let Ok(window) =
                        frames::resolve(over, &self.statement.windows, Span::empty())
                {
                    return window.partition_by;
                }
            }
        }
        let column = |name: &String| {
            ast::Expr::CompoundIdentifier(vec![ast::Ident::new(alias), ast::Ident::new(name)])
        };
        topic_key.iter().map(column).collect()
    }

    /// An aggregate call, read, and the events that it counts; `None` for scalar functions.
    pub fn aggregate<'a>(&self, call: &'a ast::Function) -> Option<(Call<'a>, Frame)> {
        let name = call.name.0.first().and_then(|part| part.as_ident()).map(fold)?;
        if !aggregates::is_aggregate(&name) {
            return None;
        }
        let read = aggregates::recognise(call, &name, Span::empty()).ok()?;
        let frame = match &call.over {
            None => Frame::Lifetime,
            Some(over) => {
                let window = frames::resolve(over, &self.statement.windows, Span::empty()).ok()?;
                frames::frame(&window, self.statement.header.hop, &self.statement.tokens).ok()?
            }
        };
        Some((read, frame))
    }
}
