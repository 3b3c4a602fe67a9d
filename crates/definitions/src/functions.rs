//! The scalar functions that a feature view may use: an explicit list of immutable ones.
//!
//! Why it exists: a feature must have the same bits on every machine and in every replay, so a
//! function is allowed because it was looked at, never because the SQL engine happens to have it.
//! Does not know views or plans.

pub mod exact;
pub mod libm;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use datafusion::logical_expr::ScalarUDF;

#[cfg(test)]
mod tests;

/// Version of the meaning of every function in the list; part of every view's hash. Grows when
/// any function can give another bit for some input.
pub const FUNCTION_SET_VERSION: u32 = 1;

/// Longest string that `lpad` and `rpad` may make.
pub const PAD_LIMIT: i64 = 65_536;

/// What the planner must still look at for one function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Nothing: any argument is fine.
    None,
    /// Every argument must be of one family of types (all numbers, all strings, …).
    OneFamily,
    /// The second argument is a constant regular expression.
    Pattern,
    /// The second argument is a constant length of at most [`PAD_LIMIT`].
    Length,
    /// The first argument is a constant name of a unit of time.
    Unit,
    /// The first argument is a constant name of a part of a date.
    Part,
    /// The first argument is a constant interval without months.
    Interval,
    /// The second argument, if any, is a constant number of digits from 0 to 18.
    Digits,
}

/// One allowed function.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its implementation.
    pub(crate) udf: Arc<ScalarUDF>,
    /// What the planner checks of its arguments.
    pub guard: Guard,
    /// Fewest arguments.
    pub fewest: usize,
    /// Most arguments.
    pub most: usize,
}

type Row = (&'static str, &'static str, usize, usize, Guard);

const MANY: usize = 64;

/// (name in SQL, implementation, fewest arguments, most arguments, guard).
const LIBRARY: &[Row] = &[
    // Conditional.
    ("coalesce", "coalesce", 1, MANY, Guard::OneFamily),
    ("nullif", "nullif", 2, 2, Guard::OneFamily),
    ("greatest", "greatest", 1, MANY, Guard::OneFamily),
    ("least", "least", 1, MANY, Guard::OneFamily),
    ("ifnull", "nvl", 2, 2, Guard::OneFamily),
    // Strings.
    ("ascii", "ascii", 1, 1, Guard::None),
    ("bit_length", "bit_length", 1, 1, Guard::None),
    ("btrim", "btrim", 1, 2, Guard::None),
    ("trim", "btrim", 1, 2, Guard::None),
    ("ltrim", "ltrim", 1, 2, Guard::None),
    ("rtrim", "rtrim", 1, 2, Guard::None),
    ("char_length", "character_length", 1, 1, Guard::None),
    ("character_length", "character_length", 1, 1, Guard::None),
    ("length", "character_length", 1, 1, Guard::None),
    ("octet_length", "octet_length", 1, 1, Guard::None),
    ("chr", "chr", 1, 1, Guard::None),
    ("concat", "concat", 1, MANY, Guard::None),
    ("concat_ws", "concat_ws", 2, MANY, Guard::None),
    ("contains", "contains", 2, 2, Guard::None),
    ("starts_with", "starts_with", 2, 2, Guard::None),
    ("ends_with", "ends_with", 2, 2, Guard::None),
    ("initcap", "initcap", 1, 1, Guard::None),
    ("left", "left", 2, 2, Guard::None),
    ("right", "right", 2, 2, Guard::None),
    ("levenshtein", "levenshtein", 2, 2, Guard::None),
    ("lower", "lower", 1, 1, Guard::None),
    ("upper", "upper", 1, 1, Guard::None),
    ("lpad", "lpad", 2, 3, Guard::Length),
    ("rpad", "rpad", 2, 3, Guard::Length),
    ("replace", "replace", 3, 3, Guard::None),
    ("reverse", "reverse", 1, 1, Guard::None),
    ("split_part", "split_part", 3, 3, Guard::None),
    ("strpos", "strpos", 2, 2, Guard::None),
    ("substr", "substr", 2, 3, Guard::None),
    ("substring", "substr", 2, 3, Guard::None),
    ("translate", "translate", 3, 3, Guard::None),
    // Regular expressions (the `regex` crate's syntax, which RE2 users know).
    ("regexp_like", "regexp_like", 2, 2, Guard::Pattern),
    ("regexp_count", "regexp_count", 2, 2, Guard::Pattern),
    ("regexp_replace", "regexp_replace", 3, 4, Guard::Pattern),
    // Numbers.
    ("abs", "abs", 1, 1, Guard::None),
    ("gcd", "gcd", 2, 2, Guard::None),
    ("lcm", "lcm", 2, 2, Guard::None),
    ("isnan", "isnan", 1, 1, Guard::None),
    ("nanvl", "nanvl", 2, 2, Guard::None),
    ("sign", "signum", 1, 1, Guard::None),
    ("pi", "pi", 0, 0, Guard::None),
    // Dates and times, always UTC.
    ("date_part", "date_part", 2, 2, Guard::Part),
    ("date_trunc", "date_trunc", 2, 2, Guard::Unit),
    ("date_bin", "date_bin", 2, 3, Guard::Interval),
    ("make_date", "make_date", 3, 3, Guard::None),
    // Lists.
    ("array_element", "array_element", 2, 2, Guard::None),
    ("list_element", "array_element", 2, 2, Guard::None),
    ("list_extract", "array_element", 2, 2, Guard::None),
    ("array_extract", "array_element", 2, 2, Guard::None),
    ("array_length", "array_length", 1, 1, Guard::None),
    ("list_length", "array_length", 1, 1, Guard::None),
    ("len", "array_length", 1, 1, Guard::None),
    ("cardinality", "cardinality", 1, 1, Guard::None),
    ("array_has", "array_has", 2, 2, Guard::None),
    ("array_contains", "array_has", 2, 2, Guard::None),
    ("list_contains", "array_has", 2, 2, Guard::None),
    ("list_has", "array_has", 2, 2, Guard::None),
    ("array_position", "array_position", 2, 2, Guard::None),
    ("list_position", "array_position", 2, 2, Guard::None),
    ("array_to_string", "array_to_string", 2, 3, Guard::None),
    ("array_max", "array_max", 1, 1, Guard::None),
    ("list_max", "array_max", 1, 1, Guard::None),
    ("array_min", "array_min", 1, 1, Guard::None),
    ("list_min", "array_min", 1, 1, Guard::None),
    ("array_reverse", "array_reverse", 1, 1, Guard::None),
    ("list_reverse", "array_reverse", 1, 1, Guard::None),
];

static FUNCTIONS: LazyLock<BTreeMap<&'static str, Function>> = LazyLock::new(|| {
    let library: BTreeMap<String, Arc<ScalarUDF>> = datafusion::functions::all_default_functions()
        .into_iter()
        .chain(datafusion::functions_nested::all_default_nested_functions())
        .map(|udf| (udf.name().to_owned(), udf))
        .collect();
    let mut functions = BTreeMap::new();
    for &(name, implementation, fewest, most, guard) in LIBRARY {
        if let Some(udf) = library.get(implementation) {
            functions.insert(name, Function { udf: Arc::clone(udf), guard, fewest, most });
        }
    }
    for (name, udf) in libm::functions() {
        let arity = udf.signature().type_signature.get_example_types().first().map_or(1, Vec::len);
        functions.insert(name, Function { udf, guard: Guard::None, fewest: arity, most: arity });
    }
    for (name, udf, fewest, most) in exact::functions() {
        functions.insert(name, Function { udf, guard: Guard::Digits, fewest, most });
    }
    functions
});

/// The allowed function called `name` (lower case).
pub fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.get(name)
}

/// The names of all allowed functions, sorted.
pub fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.keys().copied()
}

/// Why a function that other engines have is not in the list, and what to write instead.
pub fn advice(name: &str) -> Option<&'static str> {
    Some(match name {
        "now"
        | "current_timestamp"
        | "current_date"
        | "current_time"
        | "localtimestamp"
        | "today"
        | "getdate"
        | "transaction_timestamp"
        | "statement_timestamp"
        | "clock_timestamp" => {
            "a feature may not read the clock: a RANGE window already moves with time; compare with event_time instead"
        }
        "random" | "rand" | "uuid" | "gen_random_uuid" | "setseed" => {
            "a feature must be the same in every replay: derive pseudo-random values from a key column"
        }
        "age" => "write EXTRACT(EPOCH FROM (later - earlier)) for seconds between two timestamps",
        "date_diff" | "datediff" | "timestampdiff" => {
            "write EXTRACT(EPOCH FROM (later - earlier)) for seconds between two timestamps"
        }
        "to_timestamp" | "strptime" | "to_date" => "write CAST(x AS TIMESTAMP) or CAST(x AS DATE)",
        "to_char" | "strftime" | "date_format" => "write CAST(x AS VARCHAR) or use EXTRACT",
        "year" | "month" | "day" | "hour" | "minute" | "second" | "week" | "quarter"
        | "dayofweek" | "dayofyear" | "weekday" => "write EXTRACT(part FROM x)",
        "epoch" => "write EXTRACT(EPOCH FROM x)",
        "if" | "iff" => "write CASE WHEN … THEN … ELSE … END",
        "nvl" | "isnull" => "write coalesce(x, y)",
        "log" => "write log10(x), ln(x) or log2(x): engines disagree on the base of log",
        "random_uuid" => "a feature must be the same in every replay",
        "repeat" => "write lpad('', n, text)",
        "regexp_matches" => "write regexp_like(x, pattern)",
        "regexp_match" | "regexp_extract" => "write regexp_replace(x, pattern, replacement)",
        "mod" => "write a % b",
        "div" | "divide" => "write floor(CAST(a AS DOUBLE) / b)",
        _ => return None,
    })
}

/// The allowed or aggregate name nearest to `name`, if any is near.
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let begins = |candidate: &str| name.len() >= 3 && candidate.starts_with(name);
    names
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= 1 + candidate.len().min(name.len()) / 4 || begins(candidate)
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance over bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let next = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}
