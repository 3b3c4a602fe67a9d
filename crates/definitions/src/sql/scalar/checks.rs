//! Checks of single nodes: what engines read differently, and literals.
//!
//! Does not know names.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast::{self, BinaryOperator, UnaryOperator, Value};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::Typed;
use crate::sql::literals;
use crate::sql::refusal::{Checked, Refusal, mistyped, span_of, unsupported};
use crate::sql::types::{Family, family};

/// The right side of IS [NOT] DISTINCT FROM. The parser lets it swallow a following AND, OR or
/// comparison, which standard SQL does not: such a side must stand in parentheses.
pub(super) fn closed(expr: &ast::Expr, outer: Span) -> Checked<&ast::Expr> {
    use BinaryOperator as Op;
    let closed = match expr {
        ast::Expr::BinaryOp { op, .. } => {
            matches!(
                op,
                Op::Plus | Op::Minus | Op::Multiply | Op::Divide | Op::Modulo | Op::StringConcat
            )
        }
        ast::Expr::UnaryOp { op, .. } => *op != UnaryOperator::Not,
        ast::Expr::Identifier(_)
        | ast::Expr::CompoundIdentifier(_)
        | ast::Expr::CompoundFieldAccess { .. }
        | ast::Expr::Value(_)
        | ast::Expr::TypedString(_)
        | ast::Expr::Nested(_)
        | ast::Expr::Function(_)
        | ast::Expr::Cast { .. }
        | ast::Expr::Case { .. } => true,
        _ => false,
    };
    match closed {
        true => Ok(expr),
        false => Err(unsupported(
            span_of(expr, outer),
            "it is unclear where this side of DISTINCT FROM ends",
        )
        .help("put the comparison into parentheses: (a IS NOT DISTINCT FROM b) AND …")),
    }
}

/// Refuses values of different families side by side.
pub(crate) fn check_families(values: &[&Typed], span: Span) -> Checked<()> {
    let mut known = values.iter().filter(|value| value.family() != Family::Null);
    let Some(first) = known.next() else { return Ok(()) };
    for other in known {
        if other.family() != first.family() {
            let span = if values.len() > 2 { other.span } else { span };
            let message =
                format!("{} and {} are not of one kind", first.data_type, other.data_type);
            return Err(mistyped(span, message).help("CAST one of them"));
        }
    }
    Ok(())
}

/// Refuses casts on whose result engines disagree.
pub(super) fn check_cast(x: &Typed, inner: &ast::Expr, to: &DataType, span: Span) -> Checked<()> {
    let from = &x.data_type;
    if from == &DataType::Null || from == to {
        return Ok(());
    }
    let whole = matches!(inner, ast::Expr::Floor { .. } | ast::Expr::Ceil { .. })
        || matches!(inner, ast::Expr::Function(call)
            if matches!(call.name.to_string().to_lowercase().as_str(), "round" | "trunc" | "floor" | "ceil" | "ceiling"));
    let fraction =
        from.is_floating() || matches!(from, DataType::Decimal128(_, scale) if *scale > 0);
    if fraction && to.is_integer() && !whole {
        return Err(mistyped(span, "SQL engines disagree on how a fraction becomes an integer")
            .help("say how: CAST(round(x) AS BIGINT), floor, ceil or trunc"));
    }
    let allowed = match (family(from), family(to)) {
        (Family::Number, Family::Number | Family::Text) | (Family::Text, _) => true,
        (Family::Bool, Family::Number) => to.is_integer(),
        (Family::Number, Family::Bool) => from.is_integer(),
        (Family::Bool, Family::Text) | (Family::Time, Family::Text | Family::Time) => true,
        _ => false,
    };
    if allowed {
        return Ok(());
    }
    Err(mistyped(span, format!("{from} does not become {to}")).help(match family(from) {
        Family::Time => "write EXTRACT(EPOCH FROM x) for seconds since 1970",
        Family::Number => "there is no unit in a number; add an interval to a timestamp instead",
        _ => "cast through a type that both become",
    }))
}

/// A literal.
pub(super) fn literal(value: &Value, span: Span) -> Checked<Typed> {
    match value {
        Value::Number(digits, _) => literals::number(&digits.to_string(), span),
        Value::SingleQuotedString(text) => {
            Ok(Typed::literal(ScalarValue::Utf8(Some(text.clone())), span))
        }
        Value::Boolean(value) => Ok(Typed::literal(ScalarValue::Boolean(Some(*value)), span)),
        Value::Null => Ok(Typed::literal(ScalarValue::Null, span)),
        Value::Placeholder(_) => {
            Err(unsupported(span, "a view has no parameters").help("write the value"))
        }
        _ => Err(unsupported(span, "this kind of literal is not standard SQL")
            .help("write 'text' in single quotes")),
    }
}

/// The refusal of an expression that is not recognised.
pub(super) fn refuse_expression(expr: &ast::Expr, span: Span) -> Refusal {
    use ast::Expr as E;
    let (message, help) = match expr {
        E::Subquery(_) | E::Exists { .. } | E::InSubquery { .. } => (
            "subqueries are not supported",
            "make the inner query a view of its own and select from it, or LEFT JOIN a table topic",
        ),
        E::AtTimeZone { .. } => {
            ("all timestamps are UTC", "leave AT TIME ZONE out; add an interval for a fixed offset")
        }
        E::SimilarTo { .. } | E::RLike { .. } => {
            ("engines disagree on this operator", "write regexp_like(x, pattern)")
        }
        E::Like { .. } | E::ILike { .. } => (
            "LIKE with ESCAPE or ANY is not supported",
            "write starts_with(x, y), contains(x, y) or regexp_like(x, pattern)",
        ),
        E::Collate { .. } => (
            "collations are not supported",
            "strings compare by their bytes; write lower(x) to fold case",
        ),
        E::AnyOp { .. } | E::AllOp { .. } => {
            ("ANY and ALL are not supported", "write array_has(list, x) or IN (…)")
        }
        E::GroupingSets(_) | E::Cube(_) | E::Rollup(_) => {
            ("grouping sets make rows of several keys", "define one view per key")
        }
        E::Array(_) => (
            "list literals are not supported",
            "write IN (…), or last_n(x, n) and top_n(x, n) for lists",
        ),
        E::Wildcard(_) | E::QualifiedWildcard(..) => {
            ("`*` is not an expression", "name the columns")
        }
        E::Convert { .. } => ("CONVERT is not supported", "write CAST(x AS type)"),
        E::Ceil { .. } | E::Floor { .. } => {
            ("only one argument is supported", "write round(x, digits)")
        }
        _ => (
            "this expression is not supported in feature views",
            "use the operators and functions of the documentation",
        ),
    };
    unsupported(span, message).help(help)
}
