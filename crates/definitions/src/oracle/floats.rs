//! Number literals that mean float64, written so that every SQL engine takes them for one.
//!
//! Why it exists: a literal with an exponent is a float, and so is one that meets floats. Engines
//! that read `0.5` as a decimal bring both sides to decimals of so many places, and lose bits of the
//! float. Does not know views.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, FunctionArg, FunctionArgExpr, FunctionArguments, UnaryOperator, Value,
    visit_expressions_mut,
};

use crate::functions::libm::is_libm;
use crate::sql::digits;

/// Functions whose result is one of their arguments.
const CHOOSING: [&str; 5] = ["coalesce", "ifnull", "nullif", "greatest", "least"];

/// Casts the literals of `expr` that mean floats. `column` says which names are float columns.
pub(super) fn settle(expr: &mut ast::Expr, column: &dyn Fn(&ast::Expr) -> bool) {
    let _: ControlFlow<()> = visit_expressions_mut(expr, |node| {
        if digits(node).is_some_and(|digits| digits.contains(['e', 'E'])) {
            cast(node);
        }
        let mut peers = peers(node);
        if peers.iter().any(|peer| is_float(peer, column)) {
            peers.iter_mut().for_each(|peer| cast(peer));
        }
        ControlFlow::Continue(())
    });
}

/// Parts of an expression that are brought to one type.
fn peers(expr: &mut ast::Expr) -> Vec<&mut ast::Expr> {
    match expr {
        ast::Expr::BinaryOp { left, op, right } if meets(op) => vec![left, right],
        ast::Expr::Between { expr, low, high, .. } => vec![expr, low, high],
        ast::Expr::InList { expr, list, .. } => {
            std::iter::once(&mut **expr).chain(list.iter_mut()).collect()
        }
        ast::Expr::Case { conditions, else_result, .. } => {
            let results = conditions.iter_mut().map(|when| &mut when.result);
            results.chain(else_result.as_deref_mut()).collect()
        }
        ast::Expr::Function(call) if CHOOSING.contains(&name(call).as_str()) => arguments(call),
        _ => Vec::new(),
    }
}

fn meets(op: &BinaryOperator) -> bool {
    use BinaryOperator as B;
    matches!(
        op,
        B::Plus
            | B::Minus
            | B::Multiply
            | B::Divide
            | B::Modulo
            | B::Eq
            | B::NotEq
            | B::Lt
            | B::LtEq
            | B::Gt
            | B::GtEq
    )
}

fn name(call: &ast::Function) -> String {
    call.name.to_string().to_lowercase()
}

fn arguments(call: &mut ast::Function) -> Vec<&mut ast::Expr> {
    let FunctionArguments::List(list) = &mut call.args else { return Vec::new() };
    let plain = list.args.iter_mut().filter_map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    plain.collect()
}

/// Whether an expression is known to be a float.
pub(super) fn is_float(expr: &ast::Expr, column: &dyn Fn(&ast::Expr) -> bool) -> bool {
    let float = |expr: &ast::Expr| is_float(expr, column);
    match expr {
        ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_) => column(expr),
        ast::Expr::Nested(inner) => float(inner),
        ast::Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr } => float(expr),
        ast::Expr::Cast { data_type, .. } => {
            let name = data_type.to_string().to_uppercase();
            ["DOUBLE", "REAL", "FLOAT"].iter().any(|prefix| name.starts_with(prefix))
        }
        ast::Expr::BinaryOp { left, op, right } => {
            use BinaryOperator as B;
            let computes = matches!(op, B::Plus | B::Minus | B::Multiply | B::Divide | B::Modulo);
            computes && (float(left) || float(right))
        }
        ast::Expr::Case { conditions, else_result, .. } => {
            conditions.iter().any(|when| float(&when.result))
                || else_result.as_deref().is_some_and(float)
        }
        ast::Expr::Function(call) => {
            let name = name(call);
            is_libm(&name)
                || (CHOOSING.contains(&name.as_str()) || name == "abs")
                    && arguments(&mut call.clone()).iter().any(|arg| float(arg))
        }
        _ => digits(expr).is_some_and(|digits| digits.contains(['e', 'E'])),
    }
}

/// Makes a number literal, however it is signed and nested, a float of its digits.
fn cast(expr: &mut ast::Expr) {
    match expr {
        ast::Expr::Nested(inner) => cast(inner),
        ast::Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr } => cast(expr),
        _ => {
            if let Some(digits) = digits(expr) {
                *expr = ast::Expr::Cast {
                    kind: ast::CastKind::Cast,
                    expr: Box::new(ast::Expr::value(Value::SingleQuotedString(digits))),
                    data_type: ast::DataType::Double(ast::ExactNumberInfo::None),
                    array: false,
                    format: None,
                };
            }
        }
    }
}
