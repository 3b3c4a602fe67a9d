//! Expressions with a form of their own: IN, LIKE, CASE and CAST.
//!
//! Does not know names.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Case, Cast, Expr, Like, Operator, TryCast};
use datafusion::sql::sqlparser::ast::{self, CastKind};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::checks::{check_cast, check_families};
use super::{Translator, Typed};
use crate::sql::refusal::{Checked, mistyped, unsupported};
use crate::sql::types::{Family, cast_type};

impl Translator<'_> {
    pub(super) fn in_list(
        &mut self,
        expr: &ast::Expr,
        list: &[ast::Expr],
        negated: bool,
        span: Span,
    ) -> Checked<Typed> {
        let x = self.translate(expr, span)?;
        let mut any: Option<Typed> = None;
        for item in list {
            let item = self.translate(item, span)?;
            let equal = self.compare(x.clone(), Operator::Eq, item, span)?;
            any = Some(match any {
                Some(any) => self.logic(any, Operator::Or, equal, span)?,
                None => equal,
            });
        }
        let any = any.ok_or_else(|| unsupported(span, "IN needs at least one value"))?;
        if negated { self.negated(any, span) } else { Ok(any) }
    }

    pub(super) fn like(
        &mut self,
        expr: &ast::Expr,
        pattern: &ast::Expr,
        negated: bool,
        fold: bool,
        span: Span,
    ) -> Checked<Typed> {
        let x = self.translate(expr, span)?;
        let pattern = self.translate(pattern, span)?;
        for side in [&x, &pattern] {
            if !matches!(side.family(), Family::Text | Family::Null) {
                return Err(mistyped(
                    side.span,
                    format!("LIKE needs strings, this is {}", side.data_type),
                ));
            }
        }
        match &pattern.expr {
            Expr::Literal(ScalarValue::Utf8(Some(text)), _) if !text.contains('\\') => {}
            _ => {
                return Err(unsupported(
                    pattern.span,
                    "a LIKE pattern is a constant without backslashes: engines disagree on escapes",
                )
                .help("write starts_with(x, y), contains(x, y) or regexp_like(x, pattern)"));
            }
        }
        let like = Like::new(negated, Box::new(x.expr), Box::new(pattern.expr), None, fold);
        self.typed(Expr::Like(like), span)
    }

    pub(super) fn case(
        &mut self,
        operand: Option<&ast::Expr>,
        conditions: &[ast::CaseWhen],
        else_result: Option<&ast::Expr>,
        span: Span,
    ) -> Checked<Typed> {
        let operand = operand.map(|operand| self.translate(operand, span)).transpose()?;
        let mut whens = Vec::new();
        let mut results = Vec::new();
        for when in conditions {
            let condition = self.translate(&when.condition, span)?;
            let condition = match &operand {
                Some(operand) => self.compare(operand.clone(), Operator::Eq, condition, span)?,
                None if condition.family() == Family::Bool => condition,
                None => {
                    return Err(mistyped(
                        condition.span,
                        format!("WHEN needs a boolean, this is {}", condition.data_type),
                    ));
                }
            };
            whens.push(condition.expr);
            results.push(self.translate(&when.result, span)?);
        }
        let otherwise = else_result.map(|result| self.translate(result, span)).transpose()?;
        let branches: Vec<&Typed> = results.iter().chain(&otherwise).collect();
        check_families(&branches, span)?;
        let float = branches.iter().any(|branch| branch.is_float());
        let fit = |branch: Typed| if float { branch.float_if_literal() } else { branch };
        let pairs = whens
            .into_iter()
            .zip(results)
            .map(|(when, then)| (Box::new(when), Box::new(fit(then).expr)));
        let otherwise = otherwise.map(|branch| Box::new(fit(branch).expr));
        self.typed(Expr::Case(Case::new(None, pairs.collect(), otherwise)), span)
    }

    pub(super) fn cast(&mut self, expr: &ast::Expr, span: Span) -> Checked<Typed> {
        let ast::Expr::Cast { kind, expr: inner, data_type, array: false, format: None } = expr
        else {
            return Err(unsupported(span, "only CAST(x AS type) is supported"));
        };
        let to = cast_type(data_type, span)?;
        let x = self.translate(inner, span)?;
        let span = if x.span == Span::empty() { span } else { x.span };
        check_cast(&x, inner, &to, span)?;
        let x = if to.is_floating() { x.float_if_literal() } else { x };
        let safe = match kind {
            CastKind::Cast | CastKind::DoubleColon => false,
            CastKind::TryCast => true,
            CastKind::SafeCast => {
                return Err(
                    unsupported(span, "SAFE_CAST is not standard SQL").help("write TRY_CAST")
                );
            }
        };
        let inner = Box::new(x.expr);
        let cast = if safe {
            Expr::TryCast(TryCast::new(inner, to))
        } else {
            Expr::Cast(Cast::new(inner, to))
        };
        self.typed(cast, span)
    }
}
