//! Calls of scalar functions: only those of the list, with arguments that mean one thing.
//!
//! Does not know aggregates: calls with an OVER clause, or of an aggregate, go to [`super::Names`].

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Case, Cast, Expr, Operator};
use datafusion::sql::sqlparser::ast::{self, FunctionArg, FunctionArgExpr, FunctionArguments};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::{Translator, Typed, check_families, function_named, timestamp};
use crate::functions::{self, Guard, PAD_LIMIT};
use crate::sql::aggregates;
use crate::sql::refusal::{Checked, Refusal, mistyped, span_of, unknown, unsupported};
use crate::sql::statement::fold;
use crate::sql::types::Family;

const PARTS: [&str; 14] = [
    "year",
    "isoyear",
    "quarter",
    "month",
    "week",
    "day",
    "doy",
    "dow",
    "isodow",
    "hour",
    "minute",
    "second",
    "millisecond",
    "microsecond",
];
const UNITS: [&str; 10] = [
    "year",
    "quarter",
    "month",
    "week",
    "day",
    "hour",
    "minute",
    "second",
    "millisecond",
    "microsecond",
];

impl Translator<'_> {
    pub(super) fn function(&mut self, call: &ast::Function, outer: Span) -> Checked<Typed> {
        let span = span_of(&call.name, outer);
        let name = match call.name.0.as_slice() {
            [part] => part.as_ident().map(fold),
            _ => None,
        };
        let Some(name) = name else {
            return Err(unknown(span, format!("unknown function `{}`", call.name))
                .help("functions have no schema"));
        };
        if call.over.is_some() || aggregates::is_aggregate(&name) {
            return self.names.aggregate(call, &name, span);
        }
        if let Some(message) = aggregates::advice(&name) {
            return Err(
                unsupported(span, format!("the aggregate {name} is not supported")).help(message)
            );
        }
        let args = plain_arguments(call, &name, span)?;
        if function_named(&name).is_none() {
            return Err(unlisted(&name, span));
        }
        if name == "date_part" || name == "date_trunc" {
            return self.with_part(&name, &args, span);
        }
        self.call_named(&name, &args, span)
    }

    /// Calls a listed function.
    pub(super) fn call_named(
        &mut self,
        name: &str,
        args: &[&ast::Expr],
        span: Span,
    ) -> Checked<Typed> {
        let Some(function) = function_named(name) else { return Err(unlisted(name, span)) };
        if args.len() < function.fewest || args.len() > function.most {
            let wanted = match (function.fewest, function.most) {
                (a, b) if a == b => format!("{a}"),
                (a, b) => format!("{a} to {b}"),
            };
            return Err(mistyped(
                span,
                format!("{name} takes {wanted} arguments, not {}", args.len()),
            ));
        }
        let mut typed =
            args.iter().map(|arg| self.translate(arg, span)).collect::<Checked<Vec<_>>>()?;
        self.guard(function.guard, name, &mut typed, span)?;
        if let ("nullif", [x, y]) = (name, typed.as_slice()) {
            return self.null_if(x.clone(), y.clone(), span);
        }
        let floats = typed.iter().any(Typed::holds_floats) || crate::functions::libm::is_libm(name);
        if floats && matches!(function.guard, Guard::None | Guard::OneFamily) {
            let fraction = |arg: &Typed| !arg.data_type.is_integer();
            typed = typed
                .into_iter()
                .map(|arg| if fraction(&arg) { arg.float_if_literal() } else { arg })
                .collect();
        }
        for arg in &typed {
            if matches!(arg.family(), Family::Duration | Family::Interval)
                && function.guard != Guard::Interval
            {
                return Err(mistyped(arg.span, format!("{name} does not take {}", arg.data_type))
                    .help("write EXTRACT(EPOCH FROM (later - earlier)) for seconds"));
            }
        }
        let wide = function.udf.call(typed.into_iter().map(|arg| arg.expr).collect());
        let result = self.typed(wide, span)?;
        let result =
            if matches!(name, "coalesce" | "ifnull") { self.first_value(result)? } else { result };
        self.signed(name, result)
    }

    /// `nullif(x, y)` as the CASE that it means, so that −0.0 equals 0.0 here too.
    fn null_if(&mut self, x: Typed, y: Typed, span: Span) -> Checked<Typed> {
        let equal = self.compare(x.clone(), Operator::Eq, y, span)?;
        let null =
            Expr::Cast(Cast::new(Box::new(Expr::Literal(ScalarValue::Null, None)), x.data_type));
        let whens = vec![(Box::new(equal.expr), Box::new(null))];
        self.typed(Expr::Case(Case::new(None, whens, Some(Box::new(x.expr)))), span)
    }

    /// `coalesce(a, b)` as the CASE that it means (the library has no other form of it).
    fn first_value(&mut self, call: Typed) -> Checked<Typed> {
        let span = call.span;
        let Expr::ScalarFunction(function) = call.expr else { return Ok(call) };
        let mut args = function.args;
        let Some(last) = args.pop() else {
            return Err(mistyped(span, "coalesce needs an argument"));
        };
        if args.is_empty() {
            return self.typed(last, span);
        }
        let whens =
            args.into_iter().map(|arg| (Box::new(arg.clone().is_not_null()), Box::new(arg)));
        self.typed(Expr::Case(Case::new(None, whens.collect(), Some(Box::new(last)))), span)
    }

    /// Lengths and positions come as unsigned integers, which DuckDB and PostgreSQL do not have.
    fn signed(&mut self, name: &str, result: Typed) -> Checked<Typed> {
        let lists = [
            "array_length",
            "list_length",
            "len",
            "cardinality",
            "array_position",
            "list_position",
        ];
        if result.data_type != DataType::UInt64 || !lists.contains(&name) {
            return Ok(result);
        }
        let span = result.span;
        self.typed(Expr::Cast(Cast::new(Box::new(result.expr), DataType::Int64)), span)
    }

    pub(super) fn extract(&mut self, part: &str, expr: &ast::Expr, span: Span) -> Checked<Typed> {
        let x = self.translate(expr, span)?;
        self.part_of(&part.to_lowercase(), x, span)
    }

    fn with_part(&mut self, name: &str, args: &[&ast::Expr], span: Span) -> Checked<Typed> {
        let [part, x] = args else {
            return Err(mistyped(span, format!("{name} takes 2 arguments, not {}", args.len())));
        };
        let part = self.translate(part, span)?;
        let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = &part.expr else {
            return Err(unsupported(part.span, "the unit must be a constant").help("e.g. 'hour'"));
        };
        let text = text.to_lowercase();
        let x = self.translate(x, span)?;
        if name == "date_part" {
            return self.part_of(&text, x, part.span);
        }
        if !UNITS.contains(&text.as_str()) {
            return Err(unsupported(part.span, format!("date_trunc does not know `{text}`"))
                .help(format!("use one of {}", UNITS.join(", "))));
        }
        if x.family() != Family::Time {
            return Err(mistyped(
                x.span,
                format!("date_trunc needs a timestamp, this is {}", x.data_type),
            ));
        }
        let x = self.as_timestamp(x)?;
        let part = Typed::literal(ScalarValue::Utf8(Some(text)), span);
        let udf = datafusion::functions::datetime::date_trunc();
        self.scalar(udf, vec![part, x], span)
    }

    fn as_timestamp(&mut self, x: Typed) -> Checked<Typed> {
        if x.data_type == timestamp() {
            return Ok(x);
        }
        let span = x.span;
        self.typed(Expr::Cast(Cast::new(Box::new(x.expr), timestamp())), span)
    }

    fn part_of(&mut self, part: &str, x: Typed, span: Span) -> Checked<Typed> {
        if part == "epoch" {
            return self.epoch(x, span);
        }
        if !PARTS.contains(&part) {
            return Err(unsupported(span, format!("EXTRACT does not know `{part}`"))
                .help(format!("use one of epoch, {}", PARTS.join(", "))));
        }
        if x.family() != Family::Time {
            return Err(mistyped(
                x.span,
                format!("EXTRACT({part} …) needs a date or timestamp, this is {}", x.data_type),
            ));
        }
        let part = Typed::literal(ScalarValue::Utf8(Some(part.to_owned())), span);
        let result =
            self.scalar(datafusion::functions::datetime::date_part(), vec![part, x], span)?;
        self.typed(Expr::Cast(Cast::new(Box::new(result.expr), DataType::Int64)), span)
    }

    /// Seconds since 1970, or of a difference of timestamps: the microseconds divided once.
    fn epoch(&mut self, x: Typed, span: Span) -> Checked<Typed> {
        let x = match x.family() {
            Family::Time => self.as_timestamp(x)?,
            Family::Duration => x,
            _ => {
                return Err(mistyped(
                    x.span,
                    format!(
                        "EXTRACT(EPOCH …) needs a timestamp or a difference of two, this is {}",
                        x.data_type
                    ),
                ));
            }
        };
        self.scalar(crate::functions::exact::epoch(), vec![x], span)
    }

    fn guard(&mut self, guard: Guard, name: &str, args: &mut [Typed], span: Span) -> Checked<()> {
        let constant =
            |index: usize, what: &str| match args.get(index).map(|arg| (&arg.expr, arg.span)) {
                Some((Expr::Literal(value, _), span)) => Ok((value.clone(), span)),
                Some((_, span)) => {
                    Err(unsupported(span, format!("{what} of {name} must be a constant")))
                }
                None => Ok((ScalarValue::Null, span)),
            };
        match guard {
            Guard::None | Guard::Unit | Guard::Part => Ok(()),
            Guard::OneFamily => check_families(&args.iter().collect::<Vec<_>>(), span),
            Guard::Pattern => {
                let (value, span) = constant(1, "the pattern")?;
                let ScalarValue::Utf8(Some(pattern)) = value else {
                    return Err(mistyped(span, "a pattern is a string"));
                };
                regex::Regex::new(&pattern).map(drop).map_err(|error| {
                    let text = error.to_string();
                    let reason = text.lines().last().unwrap_or_default().trim().to_owned();
                    mistyped(span, format!("not a regular expression: {reason}"))
                })
            }
            Guard::Length => match constant(1, "the length")? {
                (ScalarValue::Int64(Some(length)), _) if (0..=PAD_LIMIT).contains(&length) => {
                    Ok(())
                }
                (_, span) => Err(unsupported(
                    span,
                    format!("the length of {name} is a constant from 0 to {PAD_LIMIT}"),
                )),
            },
            Guard::Interval => {
                if args.first().map(Typed::family) != Some(Family::Interval) {
                    return Err(mistyped(span, format!("{name} begins with an interval"))
                        .help("write INTERVAL '15 minutes'"));
                }
                constant(0, "the interval").map(drop)
            }
            Guard::Digits => match constant(1, "the number of digits")? {
                (ScalarValue::Null, _) => Ok(()),
                (ScalarValue::Int64(Some(digits)), _) if (0..=18).contains(&digits) => Ok(()),
                (_, span) => Err(unsupported(
                    span,
                    format!("the digits of {name} are a constant from 0 to 18"),
                )),
            },
        }
    }
}

/// The arguments of a call that has nothing but arguments.
pub(crate) fn plain_arguments<'a>(
    call: &'a ast::Function,
    name: &str,
    span: Span,
) -> Checked<Vec<&'a ast::Expr>> {
    let refuse = |what: &str| {
        Err(unsupported(span, format!("{name} does not take {what}")).help("leave it out"))
    };
    if call.filter.is_some() {
        return refuse("FILTER: it is no aggregate");
    }
    if call.null_treatment.is_some() {
        return refuse("IGNORE or RESPECT NULLS");
    }
    if !call.within_group.is_empty()
        || call.uses_odbc_syntax
        || call.parameters != FunctionArguments::None
    {
        return refuse("this clause");
    }
    let list = match &call.args {
        FunctionArguments::List(list) => list,
        FunctionArguments::None => return Ok(Vec::new()),
        FunctionArguments::Subquery(_) => return refuse("a subquery"),
    };
    if list.duplicate_treatment.is_some() {
        return refuse("DISTINCT or ALL");
    }
    if !list.clauses.is_empty() {
        return refuse("a clause among its arguments");
    }
    list.args
        .iter()
        .map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr),
            _ => Err(unsupported(span, format!("{name} takes plain arguments"))
                .help("leave names and `*` out")),
        })
        .collect()
}

fn unlisted(name: &str, span: Span) -> Refusal {
    let refusal =
        unknown(span, format!("the function {name} is not in the list of immutable functions"));
    if let Some(advice) = functions::advice(name) {
        return refusal.help(advice);
    }
    let all = functions::names().chain(aggregates::names());
    match functions::nearest(name, all) {
        Some(nearest) => refusal.help(format!("did you mean {nearest}?")),
        None => refusal.help("a function gives the same bits on every machine and in every replay, or is not allowed"),
    }
}
