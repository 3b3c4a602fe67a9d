//! Aggregate calls: which there are, what their clauses mean, and the types of their results.
//!
//! Does not know where calls stand or which events they count.

use datafusion::sql::sqlparser::ast::{
    self, DuplicateTreatment, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArguments, NullTreatment, OrderByExpr, Value,
};
use datafusion::sql::sqlparser::tokenizer::Span;
use falaj_event::ColumnType;

use super::refusal::{Checked, mistyped, span_of, unsupported};
use crate::functions;
use crate::plan::AggregateFunction;

/// Longest list that `last_n` and `top_n` make.
pub(crate) const LIST_LIMIT: u32 = 10_000;

const NAMES: [&str; 29] = [
    "approx_count_distinct",
    "approx_distinct",
    "approx_quantile",
    "avg",
    "bool_and",
    "bool_or",
    "count",
    "every",
    "first",
    "first_value",
    "last",
    "last_n",
    "last_value",
    "max",
    "mean",
    "min",
    "std",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "sum",
    "top_n",
    "var",
    "var_pop",
    "var_population",
    "var_samp",
    "var_sample",
    "variance",
    "variance_pop",
];

/// The names of all aggregates.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    NAMES.into_iter()
}

/// Whether `name` (lower case) is one of them.
pub(crate) fn is_aggregate(name: &str) -> bool {
    NAMES.binary_search(&name).is_ok()
}

/// What to write instead of an aggregate or window function that other engines have.
pub(crate) fn advice(name: &str) -> Option<&'static str> {
    Some(match name {
        "lag" => "write last_n(x, 2) OVER w and take element 2",
        "lead" => "a feature cannot see the future; swap the roles with last_n(x, 2)",
        "rank" | "dense_rank" | "row_number" | "ntile" | "percent_rank" | "cume_dist" => {
            "a view's row is the key's own; for the greatest values write top_n(x, n), for a position count(*)"
        }
        "nth_value" => "write last_n(x, n)[n]",
        "array_agg" | "list" | "string_agg" | "group_concat" | "listagg" => {
            "a list must be bounded: write last_n(x, n) or top_n(x, n)"
        }
        "median"
        | "percentile_cont"
        | "percentile_disc"
        | "quantile"
        | "quantile_cont"
        | "quantile_disc"
        | "approx_percentile_cont"
        | "approx_median"
        | "approx_percentile" => "write approx_quantile(x, 0.5)",
        "count_if" | "countif" => "write count(*) FILTER (WHERE …)",
        "sum_if" | "sumif" => "write sum(x) FILTER (WHERE …)",
        "any_value" | "arbitrary" => "write last_value(x)",
        "arg_max" | "max_by" | "arg_min" | "min_by" => {
            "write last_value(x) or first_value(x), by event time"
        }
        "mode" | "histogram" | "approx_top_k" => {
            "write top_n(x, n) for the greatest values, or count(*) FILTER (WHERE …) per value"
        }
        "corr" | "covar_pop" | "covar_samp" | "regr_slope" | "skewness" | "kurtosis"
        | "product" | "bit_and" | "bit_or" | "bit_xor" => "compose it from sum, avg and stddev",
        _ => return None,
    })
}

/// One call, its clauses read.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    pub function: AggregateFunction,
    pub argument: Option<&'a ast::Expr>,
    pub filter: Option<&'a ast::Expr>,
    /// `IGNORE NULLS` is written.
    pub ignores_nulls: bool,
    pub order_by: Option<&'a [OrderByExpr]>,
}

/// Reads a call's name, arguments and clauses.
pub(crate) fn recognise<'a>(call: &'a ast::Function, name: &str, span: Span) -> Checked<Call<'a>> {
    if !is_aggregate(name) {
        let refusal = unsupported(span, format!("the window function {name} is not supported"));
        let nearest =
            || functions::nearest(name, names()).map(|near| format!("did you mean {near}?"));
        return Err(match advice(name).map(str::to_owned).or_else(nearest) {
            Some(help) => refusal.help(help),
            None => refusal.help("use one of the aggregates of the documentation"),
        });
    }
    if !call.within_group.is_empty()
        || call.uses_odbc_syntax
        || call.parameters != FunctionArguments::None
    {
        return Err(unsupported(span, format!("{name} has no such clause"))
            .help("write approx_quantile(x, 0.5) for a quantile"));
    }
    let FunctionArguments::List(list) = &call.args else {
        return Err(mistyped(span, format!("{name} needs an argument")));
    };
    let distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
    if distinct && name != "count" {
        return Err(unsupported(span, format!("{name}(DISTINCT …) is not supported")).help(
            match name {
                "min" | "max" | "bool_and" | "bool_or" | "every" => {
                    "leave DISTINCT out: it changes nothing"
                }
                _ => "count(DISTINCT x) is; leave DISTINCT out",
            },
        ));
    }
    let (nulls, order_by) = clauses(call, &list.clauses, name, span)?;
    let (stars, arguments) = arguments(&list.args, name, span)?;
    let (function, argument) = match (stars, arguments.as_slice()) {
        (true, []) if name == "count" && !distinct => (AggregateFunction::CountRows, None),
        (true, _) => {
            return Err(mistyped(span, format!("{name}(*) has no meaning")).help("name a column"));
        }
        (false, [argument, rest @ ..]) => (function(name, distinct, rest, span)?, Some(*argument)),
        (false, []) => return Err(mistyped(span, format!("{name} needs an argument"))),
    };
    let ordered = matches!(function, AggregateFunction::First | AggregateFunction::Last);
    if nulls == Some(NullTreatment::RespectNulls) || nulls.is_some() && !ordered {
        return Err(
            unsupported(span, "aggregates ignore NULL inputs").help("leave RESPECT NULLS out")
        );
    }
    if order_by.is_some() && !ordered {
        return Err(unsupported(span, format!("{name} has no ORDER BY of its own"))
            .help("leave it out: the order of events is event time"));
    }
    Ok(Call {
        function,
        argument,
        filter: call.filter.as_deref(),
        ignores_nulls: nulls.is_some(),
        order_by,
    })
}

fn clauses<'a>(
    call: &ast::Function,
    clauses: &'a [FunctionArgumentClause],
    name: &str,
    span: Span,
) -> Checked<(Option<NullTreatment>, Option<&'a [OrderByExpr]>)> {
    let mut nulls = call.null_treatment;
    let mut order_by = None;
    for clause in clauses {
        match clause {
            FunctionArgumentClause::IgnoreOrRespectNulls(treatment) => nulls = Some(*treatment),
            FunctionArgumentClause::OrderBy(order) => order_by = Some(order.as_slice()),
            _ => {
                return Err(
                    unsupported(span, format!("{name} has no such clause")).help("leave it out")
                );
            }
        }
    }
    Ok((nulls, order_by))
}

fn arguments<'a>(
    args: &'a [FunctionArg],
    name: &str,
    span: Span,
) -> Checked<(bool, Vec<&'a ast::Expr>)> {
    let mut stars = false;
    let mut exprs = Vec::new();
    for arg in args {
        match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => exprs.push(expr),
            FunctionArg::Unnamed(FunctionArgExpr::Wildcard) => stars = true,
            _ => return Err(unsupported(span, format!("{name} takes plain arguments"))),
        }
    }
    Ok((stars, exprs))
}

fn function(
    name: &str,
    distinct: bool,
    rest: &[&ast::Expr],
    span: Span,
) -> Checked<AggregateFunction> {
    use AggregateFunction as F;
    let parameter = match (name, rest) {
        ("last_n" | "top_n" | "approx_quantile", [parameter]) => Some(*parameter),
        ("last_n" | "top_n", _) => {
            return Err(mistyped(span, format!("{name} takes a column and a number of values"))
                .help(format!("write {name}(x, 5)")));
        }
        ("approx_quantile", _) => {
            return Err(mistyped(span, "approx_quantile takes a column and a quantile")
                .help("write approx_quantile(x, 0.95)"));
        }
        (_, []) => None,
        _ => {
            return Err(mistyped(
                span,
                format!("{name} takes one argument, not {}", rest.len() + 1),
            ));
        }
    };
    Ok(match (name, parameter) {
        ("last_n", Some(n)) => F::LastN(list_length(n, span)?),
        ("top_n", Some(n)) => F::TopN(list_length(n, span)?),
        ("approx_quantile", Some(q)) => F::ApproxQuantile(quantile(q, span)?),
        ("count", _) if distinct => F::CountDistinct,
        ("count", _) => F::Count,
        ("sum", _) => F::Sum,
        ("avg" | "mean", _) => F::Avg,
        ("min", _) => F::Min,
        ("max", _) => F::Max,
        ("var" | "variance" | "var_samp" | "var_sample", _) => F::Variance { sample: true },
        ("var_pop" | "var_population" | "variance_pop", _) => F::Variance { sample: false },
        ("std" | "stddev" | "stddev_samp", _) => F::Stddev { sample: true },
        ("stddev_pop", _) => F::Stddev { sample: false },
        ("first_value" | "first", _) => F::First,
        ("last_value" | "last", _) => F::Last,
        ("approx_distinct" | "approx_count_distinct", _) => F::ApproxDistinct,
        ("bool_and" | "every", _) => F::BoolAnd,
        _ => F::BoolOr,
    })
}

/// The digits of a number literal as they are written.
pub(crate) fn digits(expr: &ast::Expr) -> Option<String> {
    match expr {
        ast::Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => Some(digits.to_string()),
            _ => None,
        },
        _ => None,
    }
}

fn list_length(expr: &ast::Expr, outer: Span) -> Checked<u32> {
    match digits(expr).and_then(|digits| digits.parse().ok()) {
        Some(n) if (1..=LIST_LIMIT).contains(&n) => Ok(n),
        _ => Err(mistyped(
            span_of(expr, outer),
            format!("the number of values is a constant from 1 to {LIST_LIMIT}"),
        )
        .help("e.g. last_n(x, 5)")),
    }
}

fn quantile(expr: &ast::Expr, outer: Span) -> Checked<f64> {
    match digits(expr).and_then(|digits| digits.parse().ok()) {
        Some(q) if (0.0..=1.0).contains(&q) => Ok(q),
        _ => Err(mistyped(span_of(expr, outer), "a quantile is a constant from 0 to 1")
            .help("e.g. approx_quantile(x, 0.95)")),
    }
}

/// The type of a call's result, or why its input does not fit.
pub(crate) fn result_type(
    function: AggregateFunction,
    input: &ColumnType,
    span: Span,
) -> Checked<ColumnType> {
    use AggregateFunction as F;
    let numeric = is_numeric(input);
    let list = matches!(input, ColumnType::List(_));
    let refuse = |message: String, help: &str| Err(mistyped(span, message).help(help.to_owned()));
    match function {
        F::CountRows | F::Count => Ok(ColumnType::Int64),
        _ if list => refuse(format!("{input} cannot be aggregated"), "take an element: x[1]"),
        F::CountDistinct | F::ApproxDistinct => Ok(ColumnType::Int64),
        F::Min | F::Max | F::First | F::Last => Ok(input.clone()),
        F::LastN(_) | F::TopN(_) => Ok(ColumnType::List(Box::new(input.clone()))),
        F::BoolAnd | F::BoolOr if *input == ColumnType::Bool => Ok(ColumnType::Bool),
        F::BoolAnd | F::BoolOr => {
            refuse(format!("a boolean is needed, this is {input}"), "write a condition, e.g. x > 0")
        }
        _ if *input == ColumnType::Bool => {
            refuse("booleans have no sum".to_owned(), "write count(*) FILTER (WHERE x)")
        }
        _ if !numeric => refuse(format!("a number is needed, this is {input}"), "CAST it"),
        F::Sum => Ok(match input {
            ColumnType::Float32 | ColumnType::Float64 => ColumnType::Float64,
            ColumnType::Decimal { scale, .. } => {
                ColumnType::Decimal { precision: 38, scale: *scale }
            }
            _ => ColumnType::Decimal { precision: 38, scale: 0 },
        }),
        F::Avg => Ok(match input {
            ColumnType::Decimal { precision, scale } => ColumnType::Decimal {
                precision: (precision + 4).min(38),
                scale: (scale + 4).min(38),
            },
            _ => ColumnType::Float64,
        }),
        F::Variance { .. } | F::Stddev { .. } | F::ApproxQuantile(_) => Ok(ColumnType::Float64),
    }
}

fn is_numeric(column_type: &ColumnType) -> bool {
    !matches!(
        column_type,
        ColumnType::Bool
            | ColumnType::String
            | ColumnType::Binary
            | ColumnType::Date
            | ColumnType::Timestamp
            | ColumnType::List(_)
    )
}
