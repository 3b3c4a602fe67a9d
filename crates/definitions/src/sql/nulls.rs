//! `IGNORE NULLS` behind an argument that ends in a call: `last_value(upper(x) IGNORE NULLS)`.
//!
//! Why it exists: DuckDB and the standard's readers take the words as the aggregate's; the parser
//! gives them to the call that they follow. No scalar function has such a clause, so they can only
//! belong to the aggregate around it. Does not know which aggregates may have them.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, FunctionArguments, NullTreatment, visit_expressions_mut,
};

use super::aggregates;
use super::statement::fold;

/// Gives the null treatment of scalar calls inside an aggregate's arguments to the aggregate.
pub(crate) fn settle(statements: &mut Vec<ast::Statement>) {
    let _: ControlFlow<()> = visit_expressions_mut(statements, |node| {
        if let ast::Expr::Function(call) = node
            && is_aggregate(call)
            && call.null_treatment.is_none()
            && let FunctionArguments::List(list) = &mut call.args
            && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(last))) = list.args.last_mut()
        {
            call.null_treatment = take(last);
        }
        ControlFlow::Continue(())
    });
}

fn is_aggregate(call: &ast::Function) -> bool {
    match call.name.0.as_slice() {
        [part] => part.as_ident().is_some_and(|name| aggregates::is_aggregate(&fold(name))),
        _ => false,
    }
}

/// Takes the treatment of a call that stands in `argument` and is no aggregate itself.
fn take(argument: &mut ast::Expr) -> Option<NullTreatment> {
    let mut found = None;
    let _: ControlFlow<()> = visit_expressions_mut(argument, |node| {
        if let ast::Expr::Function(call) = node
            && !is_aggregate(call)
            && call.over.is_none()
            && call.null_treatment.is_some()
        {
            found = call.null_treatment.take();
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    found
}
