//! Scalar SQL expressions to typed, coerced DataFusion expressions, node by node: what is not
//! recognised here is refused, and so is what engines read differently.
//!
//! Does not know what names mean (see [`Names`]), nor aggregates.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::TreeNodeRewriter;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, ScalarUDF, not};
use datafusion::optimizer::analyzer::type_coercion::TypeCoercionRewriter;
use datafusion::sql::sqlparser::ast::{
    self, AccessExpr, BinaryOperator, CeilFloorKind, Subscript, TrimWhereField, UnaryOperator,
    Value,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::literals;
use super::refusal::{Checked, mistyped, span_of, unsupported};
use super::types::{Family, cast_type, family, timestamp};
use crate::functions::{self, exact};

mod calls;
mod checks;
mod forms;

pub(crate) use checks::check_families;
use checks::{closed, literal, refuse_expression};

/// An expression with its type.
#[derive(Clone, Debug)]
pub(crate) struct Typed {
    pub expr: Expr,
    pub data_type: DataType,
    pub nullable: bool,
    pub span: Span,
    /// The digits of a number literal, so that it can become a float without rounding twice.
    pub number: Option<String>,
}

impl Typed {
    pub fn family(&self) -> Family {
        family(&self.data_type)
    }

    pub fn is_literal(&self) -> bool {
        matches!(self.expr, Expr::Literal(..))
    }

    fn literal(value: ScalarValue, span: Span) -> Self {
        let data_type = value.data_type();
        let nullable = value.is_null();
        Self { expr: Expr::Literal(value, None), data_type, nullable, span, number: None }
    }

    fn is_float(&self) -> bool {
        self.data_type.is_floating()
    }

    /// Whether it is a float or a list of floats.
    fn holds_floats(&self) -> bool {
        match &self.data_type {
            DataType::List(item) => item.data_type().is_floating(),
            _ => self.is_float(),
        }
    }

    /// A number literal as the float nearest to its digits, anything else as it is.
    fn float_if_literal(mut self) -> Self {
        if let Some(value) = self.number.as_ref().and_then(|digits| digits.parse::<f64>().ok()) {
            self.expr = Expr::Literal(ScalarValue::Float64(Some(value)), None);
            self.data_type = DataType::Float64;
        }
        self
    }
}

/// What names and calls mean at some place of a view.
pub(crate) trait Names {
    /// The columns that translated expressions read.
    fn schema(&self) -> Arc<DFSchema>;
    /// The column that a path names.
    fn column(&mut self, path: &[ast::Ident], span: Span) -> Checked<Expr>;
    /// An aggregate or window call.
    fn aggregate(&mut self, call: &ast::Function, name: &str, span: Span) -> Checked<Typed>;
    /// What a whole expression means here, if it has a meaning of its own (a GROUP BY expression).
    fn whole(&mut self, expr: &ast::Expr, span: Span) -> Checked<Option<Typed>>;
}

/// Translates expressions.
pub(crate) struct Translator<'a> {
    pub names: &'a mut dyn Names,
}

impl Translator<'_> {
    /// Translates `expr`; `outer` is the nearest enclosing place.
    pub fn translate(&mut self, expr: &ast::Expr, outer: Span) -> Checked<Typed> {
        let span = span_of(expr, outer);
        if let Some(whole) = self.names.whole(expr, span)? {
            return Ok(whole);
        }
        match expr {
            ast::Expr::Nested(inner) => self.translate(inner, span),
            ast::Expr::Identifier(ident) => self.column(std::slice::from_ref(ident), span),
            ast::Expr::CompoundIdentifier(path) => self.column(path, span),
            ast::Expr::Value(value) => literal(&value.value, span_of(value, span)),
            ast::Expr::TypedString(typed) => {
                let to = cast_type(&typed.data_type, span)?;
                let text = match &typed.value.value {
                    Value::SingleQuotedString(text) => text,
                    _ => return Err(unsupported(span, "write the value in single quotes")),
                };
                literals::typed(text, &to, span).map(|value| Typed::literal(value, span))
            }
            ast::Expr::Interval(interval) => {
                let parts = literals::interval(interval, span)?;
                literals::interval_scalar(parts, span).map(|value| Typed::literal(value, span))
            }
            ast::Expr::UnaryOp { op, expr } => self.unary(*op, expr, span),
            ast::Expr::BinaryOp { left, op, right } => self.binary(left, op, right, span),
            ast::Expr::Cast { .. } => self.cast(expr, span),
            ast::Expr::Case { operand, conditions, else_result, .. } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref(), span)
            }
            _ => self.translate_predicate(expr, span),
        }
    }

    fn translate_predicate(&mut self, expr: &ast::Expr, span: Span) -> Checked<Typed> {
        match expr {
            ast::Expr::IsNull(x) => self.test(x, Expr::IsNull, false, span),
            ast::Expr::IsNotNull(x) => self.test(x, Expr::IsNotNull, false, span),
            ast::Expr::IsTrue(x) => self.test(x, Expr::IsTrue, true, span),
            ast::Expr::IsNotTrue(x) => self.test(x, Expr::IsNotTrue, true, span),
            ast::Expr::IsFalse(x) => self.test(x, Expr::IsFalse, true, span),
            ast::Expr::IsNotFalse(x) => self.test(x, Expr::IsNotFalse, true, span),
            ast::Expr::IsUnknown(x) => self.test(x, Expr::IsUnknown, true, span),
            ast::Expr::IsNotUnknown(x) => self.test(x, Expr::IsNotUnknown, true, span),
            ast::Expr::IsDistinctFrom(a, b) => {
                self.compare_two(a, Operator::IsDistinctFrom, closed(b, span)?, span)
            }
            ast::Expr::IsNotDistinctFrom(a, b) => {
                self.compare_two(a, Operator::IsNotDistinctFrom, closed(b, span)?, span)
            }
            ast::Expr::Between { expr, negated, low, high } => {
                let x = self.translate(expr, span)?;
                let low = self.translate(low, span)?;
                let high = self.translate(high, span)?;
                let above = self.compare(x.clone(), Operator::GtEq, low, span)?;
                let below = self.compare(x, Operator::LtEq, high, span)?;
                let both = self.logic(above, Operator::And, below, span)?;
                if *negated { self.negated(both, span) } else { Ok(both) }
            }
            ast::Expr::InList { expr, list, negated } => self.in_list(expr, list, *negated, span),
            ast::Expr::Like { negated, any: false, expr, pattern, escape_char: None } => {
                self.like(expr, pattern, *negated, false, span)
            }
            ast::Expr::ILike { negated, any: false, expr, pattern, escape_char: None } => {
                self.like(expr, pattern, *negated, true, span)
            }
            _ => self.translate_call(expr, span),
        }
    }

    fn translate_call(&mut self, expr: &ast::Expr, span: Span) -> Checked<Typed> {
        match expr {
            ast::Expr::Function(call) => self.function(call, span),
            ast::Expr::Extract { field, expr, .. } => self.extract(&field.to_string(), expr, span),
            ast::Expr::Ceil {
                expr,
                field: CeilFloorKind::DateTimeField(ast::DateTimeField::NoDateTime),
            } => self.call_named("ceil", &[expr], span),
            ast::Expr::Floor {
                expr,
                field: CeilFloorKind::DateTimeField(ast::DateTimeField::NoDateTime),
            } => self.call_named("floor", &[expr], span),
            ast::Expr::Position { expr, r#in } => self.call_named("strpos", &[r#in, expr], span),
            ast::Expr::Substring {
                expr, substring_from: Some(from), substring_for: None, ..
            } => self.call_named("substr", &[expr, from], span),
            ast::Expr::Substring {
                expr,
                substring_from: Some(from),
                substring_for: Some(length),
                ..
            } => self.call_named("substr", &[expr, from, length], span),
            ast::Expr::Trim { trim_where, trim_what, expr, trim_characters: None } => {
                let name = match trim_where {
                    None | Some(TrimWhereField::Both) => "btrim",
                    Some(TrimWhereField::Leading) => "ltrim",
                    Some(TrimWhereField::Trailing) => "rtrim",
                };
                let mut args = vec![expr.as_ref()];
                args.extend(trim_what.as_deref());
                self.call_named(name, &args, span)
            }
            ast::Expr::CompoundFieldAccess { root, access_chain } => {
                let [AccessExpr::Subscript(Subscript::Index { index })] = access_chain.as_slice()
                else {
                    return Err(unsupported(span, "only one element of a list can be taken")
                        .help("write list[1] for the first element"));
                };
                self.call_named("array_element", &[root, index], span)
            }
            other => Err(refuse_expression(other, span)),
        }
    }

    /// The column that a path names, typed.
    pub fn column_of(&mut self, path: &[ast::Ident], span: Span) -> Checked<Typed> {
        self.column(path, span)
    }

    fn column(&mut self, path: &[ast::Ident], span: Span) -> Checked<Typed> {
        let expr = self.names.column(path, span)?;
        self.typed(expr, span)
    }

    /// Coerces one node whose children are coerced, and types it.
    fn typed(&self, expr: Expr, span: Span) -> Checked<Typed> {
        use datafusion::logical_expr::ExprSchemable;
        let schema = self.names.schema();
        let refuse = |error: datafusion::error::DataFusionError| {
            let text = error.strip_backtrace();
            let first = text.lines().next().unwrap_or_default();
            let plain = first.trim_start_matches("Error during planning: ");
            mistyped(span, plain.to_owned())
        };
        let coerced = TypeCoercionRewriter::new(&schema).f_up(expr).map_err(refuse)?.data;
        let field = coerced.to_field(&schema).map_err(refuse)?.1;
        Ok(Typed {
            expr: coerced,
            data_type: field.data_type().clone(),
            nullable: field.is_nullable(),
            span,
            number: None,
        })
    }

    fn test(
        &mut self,
        expr: &ast::Expr,
        make: fn(Box<Expr>) -> Expr,
        boolean: bool,
        span: Span,
    ) -> Checked<Typed> {
        let x = self.translate(expr, span)?;
        if boolean && !matches!(x.family(), Family::Bool | Family::Null) {
            return Err(mistyped(
                x.span,
                format!("this is {} where a boolean is needed", x.data_type),
            ));
        }
        self.typed(make(Box::new(x.expr)), span)
    }

    fn unary(&mut self, op: UnaryOperator, expr: &ast::Expr, span: Span) -> Checked<Typed> {
        let x = self.translate(expr, span)?;
        match op {
            UnaryOperator::Not => self.negated(x, span),
            UnaryOperator::Plus if x.family() == Family::Number => Ok(x),
            UnaryOperator::Minus => match (&x.number, x.family()) {
                (Some(digits), _) if !digits.starts_with('-') => {
                    literals::number(&format!("-{digits}"), span)
                }
                (_, Family::Number) if x.data_type.is_unsigned_integer() => {
                    Err(mistyped(span, format!("-x of {} has no type", x.data_type))
                        .help("cast it first: -CAST(x AS BIGINT)"))
                }
                (_, Family::Number) => self.scalar(exact::negate(), vec![x], span),
                _ => Err(mistyped(span, format!("-x needs a number, this is {}", x.data_type))),
            },
            _ => Err(unsupported(span, format!("the operator {op} is not supported"))
                .help("use a function of the list in the documentation")),
        }
    }

    fn negated(&mut self, x: Typed, span: Span) -> Checked<Typed> {
        if !matches!(x.family(), Family::Bool | Family::Null) {
            return Err(mistyped(x.span, format!("NOT needs a boolean, this is {}", x.data_type)));
        }
        self.typed(not(x.expr), span)
    }

    fn binary(
        &mut self,
        left: &ast::Expr,
        op: &BinaryOperator,
        right: &ast::Expr,
        span: Span,
    ) -> Checked<Typed> {
        use BinaryOperator as Op;
        let l = self.translate(left, span)?;
        let r = self.translate(right, span)?;
        let span = l.span.union(&r.span);
        match op {
            Op::And => self.logic(l, Operator::And, r, span),
            Op::Or => self.logic(l, Operator::Or, r, span),
            Op::Eq => self.compare(l, Operator::Eq, r, span),
            Op::NotEq => self.compare(l, Operator::NotEq, r, span),
            Op::Lt => self.compare(l, Operator::Lt, r, span),
            Op::LtEq => self.compare(l, Operator::LtEq, r, span),
            Op::Gt => self.compare(l, Operator::Gt, r, span),
            Op::GtEq => self.compare(l, Operator::GtEq, r, span),
            Op::Plus => self.arithmetic(l, Operator::Plus, r, span),
            Op::Minus => self.arithmetic(l, Operator::Minus, r, span),
            Op::Multiply => self.arithmetic(l, Operator::Multiply, r, span),
            Op::Divide => self.arithmetic(l, Operator::Divide, r, span),
            Op::Modulo => self.arithmetic(l, Operator::Modulo, r, span),
            Op::StringConcat => {
                for side in [&l, &r] {
                    if !matches!(side.family(), Family::Text | Family::Null) {
                        return Err(mistyped(
                            side.span,
                            format!("|| joins strings, this is {}", side.data_type),
                        )
                        .help("write CAST(x AS VARCHAR)"));
                    }
                }
                self.node(l, Operator::StringConcat, r, span)
            }
            Op::DuckIntegerDivide | Op::MyIntegerDivide => {
                Err(unsupported(span, format!("the operator {op} is not standard SQL"))
                    .help("write floor(CAST(a AS DOUBLE) / b)"))
            }
            other => Err(unsupported(span, format!("the operator {other} is not supported"))
                .help("engines disagree on it; write a function, e.g. regexp_like(x, pattern)")),
        }
    }

    fn node(&mut self, l: Typed, op: Operator, r: Typed, span: Span) -> Checked<Typed> {
        self.typed(Expr::BinaryExpr(BinaryExpr::new(Box::new(l.expr), op, Box::new(r.expr))), span)
    }

    fn logic(&mut self, l: Typed, op: Operator, r: Typed, span: Span) -> Checked<Typed> {
        for side in [&l, &r] {
            if !matches!(side.family(), Family::Bool | Family::Null) {
                return Err(mistyped(
                    side.span,
                    format!("{op} needs booleans, this is {}", side.data_type),
                ));
            }
        }
        self.node(l, op, r, span)
    }

    fn arithmetic(&mut self, l: Typed, op: Operator, r: Typed, span: Span) -> Checked<Typed> {
        use Family::{Interval, Null, Number, Time};
        match (l.family(), op, r.family()) {
            (Number | Null, _, Number | Null) => {}
            (Time, Operator::Plus | Operator::Minus, Interval)
            | (Interval, Operator::Plus, Time)
                if DataType::Date32 != l.data_type && DataType::Date32 != r.data_type =>
            {
                return self.node(l, op, r, span);
            }
            (Time, Operator::Minus, Time)
                if l.data_type == timestamp() && r.data_type == timestamp() =>
            {
                return self.node(l, op, r, span);
            }
            _ => {
                let message = format!("{op} does not take {} and {}", l.data_type, r.data_type);
                return Err(mistyped(span, message).help(
                    "numbers go with numbers, timestamps with intervals, timestamps with timestamps; CAST the rest, dates AS TIMESTAMP",
                ));
            }
        }
        let (l, r) = match (l.is_float(), r.is_float()) {
            (true, false) => (l, r.float_if_literal()),
            (false, true) => (l.float_if_literal(), r),
            _ => (l, r),
        };
        if op == Operator::Divide && !l.is_float() && !r.is_float() {
            return Err(mistyped(span, "SQL engines disagree on dividing integers and decimals")
                .help("write CAST(a AS DOUBLE) / b for the fraction, floor(CAST(a AS DOUBLE) / b) for its whole part"));
        }
        self.node(l, op, r, span)
    }

    fn compare_two(
        &mut self,
        a: &ast::Expr,
        op: Operator,
        b: &ast::Expr,
        span: Span,
    ) -> Checked<Typed> {
        let a = self.translate(a, span)?;
        let b = self.translate(b, span)?;
        self.compare(a, op, b, span)
    }

    /// Compares values of one family; floats by their number, not by their bits.
    fn compare(&mut self, l: Typed, op: Operator, r: Typed, span: Span) -> Checked<Typed> {
        let (l, r) = literals::meet(l, r)?;
        let (l, r) = match (l.is_float(), r.is_float()) {
            (true, false) => (l, r.float_if_literal()),
            (false, true) => (l.float_if_literal(), r),
            _ => (l, r),
        };
        check_families(&[&l, &r], span)?;
        if matches!(l.family(), Family::List | Family::Interval | Family::Duration) {
            return Err(mistyped(span, format!("values of {} are not compared", l.data_type))
                .help("compare elements, or EXTRACT(EPOCH FROM …)"));
        }
        let l = self.one_zero(l)?;
        let r = self.one_zero(r)?;
        self.node(l, op, r, span)
    }

    /// -0.0 = 0.0 and NaN = NaN, as DuckDB and PostgreSQL have it.
    fn one_zero(&mut self, x: Typed) -> Checked<Typed> {
        if !x.is_float() || x.is_literal() && x.number.is_some() {
            return Ok(x);
        }
        let span = x.span;
        self.scalar(exact::canonical_float(), vec![x], span)
    }

    /// A float with one zero and one NaN; anything else as it is.
    pub fn canonical(&mut self, x: Typed) -> Checked<Typed> {
        self.one_zero(x)
    }

    pub(super) fn scalar(
        &mut self,
        udf: Arc<ScalarUDF>,
        args: Vec<Typed>,
        span: Span,
    ) -> Checked<Typed> {
        let args = args.into_iter().map(|arg| arg.expr).collect();
        self.typed(udf.call(args), span)
    }
}

/// The functions, for calls.
pub(crate) fn function_named(name: &str) -> Option<&'static functions::Function> {
    functions::find(name)
}
