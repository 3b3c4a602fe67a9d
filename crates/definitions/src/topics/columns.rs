//! The `[[columns]]` of a topic's file: names, types, flags and expectations.
//!
//! Does not know keys or event time, which the whole topic decides (see [`super::parse`]).

use std::ops::Range;

use falaj_event::{Classification, Column, ColumnType, Value};
use regex::RegexBuilder;
use toml::Spanned;
use toml::de::DeValue;

use super::fields::{Fields, Located, wrong_type};
use super::literals::literal;
use crate::diagnostics::{Diagnostics, SourceFile, nearest};
use crate::expectations::Rule;
use crate::text::{parse_duration, show};

const FIELDS: [&str; 12] = [
    "name",
    "type",
    "nullable",
    "pii",
    "classification",
    "since",
    "description",
    "not_null",
    "between",
    "one_of",
    "matches",
    "unique_within",
];

/// The longest name of a topic or column.
pub(super) const MAX_NAME_BYTES: usize = 63;

/// The compiled size that a pattern may have, bytes: matching stays linear in the text, and a topic
/// cannot take the node's memory.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// A column as its own table declares it.
pub(super) struct DeclaredColumn {
    pub column: Column,
    pub name_span: Range<usize>,
    pub description: String,
    pub rules: Vec<(Rule, Range<usize>)>,
}

/// Reads one column; `None` when it is too wrong to be looked at further.
pub(super) fn read(
    source: &SourceFile,
    value: &Spanned<DeValue<'_>>,
    version: u32,
    classification: Classification,
    out: &mut Diagnostics,
) -> Option<DeclaredColumn> {
    let DeValue::Table(table) = value.get_ref() else {
        let of = "an item of columns";
        out.push(wrong_type(source, of, "a table", value.get_ref(), value.span()));
        return None;
    };
    let fields = Fields::new(source, "column", table, value.span(), &FIELDS, out);
    let name = fields.string("name", out);
    if fields.get("name").is_none() {
        fields.missing("name", "write e.g. name = \"amount_fils\"", out);
    }
    let column_type = read_type(&fields, out);
    let nullable = fields.boolean("nullable", out).is_some_and(|flag| flag.value);
    let pii = fields.boolean("pii", out).is_some_and(|flag| flag.value);
    let since_version = read_since(&fields, version, nullable, out);
    let default_class =
        if pii { classification.max(Classification::Restricted) } else { classification };
    let classification = read_classification(&fields, out).unwrap_or(default_class);
    let description = fields.text("description", out).unwrap_or_default();
    let (name, column_type) = (name?, column_type?);
    check_name(source, &name, out);
    let column =
        Column { name: name.value, column_type, nullable, pii, classification, since_version };
    let rules = read_rules(&fields, &column, out);
    Some(DeclaredColumn { column, name_span: name.span, description, rules })
}

fn read_type(fields: &Fields<'_>, out: &mut Diagnostics) -> Option<ColumnType> {
    if fields.get("type").is_none() {
        fields.missing("type", "write e.g. type = \"int64\"", out);
    }
    let declared = fields.string("type", out)?;
    let error = match declared.value.parse::<ColumnType>() {
        Ok(column_type) => return Some(column_type),
        Err(error) => error,
    };
    let help = match declared.value.to_ascii_lowercase().as_str() {
        "int" | "integer" | "bigint" | "long" => Some("did you mean `int64`?".to_owned()),
        "float" | "double" | "real" => Some("did you mean `float64`?".to_owned()),
        "text" | "varchar" | "utf8" | "str" | "uuid" => Some("did you mean `string`?".to_owned()),
        "boolean" => Some("did you mean `bool`?".to_owned()),
        "datetime" | "timestamptz" => Some("did you mean `timestamp`?".to_owned()),
        "bytes" | "blob" => Some("did you mean `binary`?".to_owned()),
        "numeric" | "decimal" => Some("say precision and scale, e.g. `decimal(12,2)`".to_owned()),
        other => nearest(other, TYPES).map(|meant| format!("did you mean `{meant}`?")),
    };
    let diagnostic = fields.source.error("unknown-type", declared.span, error.to_string());
    out.push(diagnostic.with_help_if(help));
    None
}

const TYPES: [&str; 15] = [
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float32",
    "float64",
    "string",
    "binary",
    "date",
    "timestamp",
];

/// The version that added the column: later than the first only for nullable columns.
fn read_since(fields: &Fields<'_>, version: u32, nullable: bool, out: &mut Diagnostics) -> u32 {
    let Some(since) = fields.integer("since", 1, u32::MAX, out) else {
        return 1;
    };
    if since.value > version {
        let message =
            format!("the column is from version {}, but the topic is at {version}", since.value);
        let help = format!("write `version = {}` at the top", since.value);
        out.push(fields.source.error("bad-version", since.span, message).with_help(help));
    } else if since.value > 1 && !nullable {
        let message = "a column that a later version added must be nullable: older events lack it";
        let diagnostic = fields.source.error("bad-version", since.span, message);
        out.push(
            diagnostic.with_help("add `nullable = true`; `not_null = true` still binds new events"),
        );
    }
    since.value
}

/// The classification of a topic or column.
pub(super) fn read_classification(
    fields: &Fields<'_>,
    out: &mut Diagnostics,
) -> Option<Classification> {
    let declared = fields.string("classification", out)?;
    Some(match declared.value.as_str() {
        "public" => Classification::Public,
        "internal" => Classification::Internal,
        "confidential" => Classification::Confidential,
        "restricted" => Classification::Restricted,
        other => {
            let message = format!("there is no classification `{other}`");
            let help = "use public, internal, confidential or restricted";
            out.push(fields.source.error("bad-value", declared.span, message).with_help(help));
            return None;
        }
    })
}

fn check_name(source: &SourceFile, name: &Located<String>, out: &mut Diagnostics) {
    let text = name.value.as_str();
    let begins = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let rest = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    let message = if !begins || !rest {
        format!("`{text}` is not a column name: use a to z, 0 to 9 and _, beginning with no digit")
    } else if text.starts_with("__") {
        format!("`{text}`: names that begin with __ belong to the platform")
    } else if text.len() > MAX_NAME_BYTES {
        format!("a column name has at most {MAX_NAME_BYTES} characters")
    } else {
        return;
    };
    out.push(source.error("bad-name", name.span.clone(), message));
}

fn read_rules(
    fields: &Fields<'_>,
    column: &Column,
    out: &mut Diagnostics,
) -> Vec<(Rule, Range<usize>)> {
    let mut rules = Vec::new();
    if let Some(flag) = fields.boolean("not_null", out)
        && flag.value
        && column.nullable
    {
        rules.push((Rule::NotNull, flag.span));
    }
    rules.extend(read_between(fields, column, out));
    rules.extend(read_one_of(fields, column, out));
    rules.extend(read_matches(fields, column, out));
    rules.extend(read_unique(fields, column, out));
    rules
}

fn read_between(
    fields: &Fields<'_>,
    column: &Column,
    out: &mut Diagnostics,
) -> Option<(Rule, Range<usize>)> {
    let bounds = fields.array("between", "a list of two bounds, e.g. [1, 100]", out)?;
    if matches!(
        column.column_type,
        ColumnType::Bool | ColumnType::String | ColumnType::Binary | ColumnType::List(_)
    ) {
        refuse(fields, "between", column, bounds.span, "numbers, dates and timestamps", out);
        return None;
    }
    let values = values(fields, "between", column, bounds.value, out)?;
    let [least, greatest] = <[Value; 2]>::try_from(values).ok().or_else(|| {
        let message = "`between` takes two bounds: the least and the greatest allowed value";
        out.push(fields.source.error("bad-value", bounds.span.clone(), message));
        None
    })?;
    if least > greatest {
        let message = format!("nothing is between {} and {}", show(&least), show(&greatest));
        let diagnostic = fields.source.error("bad-value", bounds.span, message);
        out.push(diagnostic.with_help("write the smaller bound first"));
        return None;
    }
    Some((Rule::Between(least, greatest), bounds.span))
}

fn read_one_of(
    fields: &Fields<'_>,
    column: &Column,
    out: &mut Diagnostics,
) -> Option<(Rule, Range<usize>)> {
    let items = fields.array("one_of", "a list of the allowed values", out)?;
    if matches!(
        column.column_type,
        ColumnType::Float32 | ColumnType::Float64 | ColumnType::Binary | ColumnType::List(_)
    ) {
        let fits = "strings, whole numbers, decimals, bools, dates and timestamps";
        refuse(fields, "one_of", column, items.span, fits, out);
        return None;
    }
    let mut allowed = values(fields, "one_of", column, items.value, out)?;
    allowed.sort();
    let repeated = allowed.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| show(&pair[0]));
    let message = match repeated {
        Some(value) => format!("`one_of` names {value} twice"),
        None if allowed.is_empty() => "`one_of` allows nothing".to_owned(),
        None => return Some((Rule::OneOf(allowed), items.span)),
    };
    out.push(fields.source.error("bad-value", items.span, message));
    None
}

/// All values of an expectation's list; `None` when any is wrong.
fn values(
    fields: &Fields<'_>,
    name: &str,
    column: &Column,
    items: &[Spanned<DeValue<'_>>],
    out: &mut Diagnostics,
) -> Option<Vec<Value>> {
    let mut values = Some(Vec::with_capacity(items.len()));
    for item in items {
        match literal(item.get_ref(), &column.column_type) {
            Ok(value) => {
                if let Some(values) = &mut values {
                    values.push(value);
                }
            }
            Err(why) => {
                let of = &column.column_type;
                let message =
                    format!("this value of `{name}` does not fit a column of type {of}: {why}");
                out.push(fields.source.error("wrong-type", item.span(), message));
                values = None;
            }
        }
    }
    values
}

fn read_matches(
    fields: &Fields<'_>,
    column: &Column,
    out: &mut Diagnostics,
) -> Option<(Rule, Range<usize>)> {
    let pattern = fields.string("matches", out)?;
    if column.column_type != ColumnType::String {
        refuse(fields, "matches", column, pattern.span, "strings", out);
        return None;
    }
    // On its own first, so that an unbalanced group cannot be balanced by the anchors' one.
    let compiled =
        RegexBuilder::new(&pattern.value).size_limit(MAX_PATTERN_BYTES).build().and_then(|_| {
            let anchored = format!("^(?:{})$", pattern.value);
            RegexBuilder::new(&anchored).size_limit(MAX_PATTERN_BYTES).build()
        });
    match compiled {
        Ok(compiled) => Some((Rule::Matches(pattern.value, compiled), pattern.span)),
        Err(error) => {
            let text = error.to_string();
            let reason =
                text.lines().last().unwrap_or_default().trim_start_matches("error: ").trim();
            let message = format!("`matches` is not a regular expression: {reason}");
            out.push(fields.source.error("bad-pattern", pattern.span, message));
            None
        }
    }
}

fn read_unique(
    fields: &Fields<'_>,
    column: &Column,
    out: &mut Diagnostics,
) -> Option<(Rule, Range<usize>)> {
    let window = fields.string("unique_within", out)?;
    let message = match parse_duration(&window.value) {
        Ok(0) => "a value is always unique within no time".to_owned(),
        Ok(_) if column.pii => {
            "personal data cannot be kept beside its sealed form to be compared".to_owned()
        }
        Ok(us) => return Some((Rule::UniqueWithin(us), window.span)),
        Err(why) => why,
    };
    out.push(fields.source.error("bad-value", window.span, message));
    None
}

fn refuse(
    fields: &Fields<'_>,
    rule: &str,
    column: &Column,
    span: Range<usize>,
    fits: &str,
    out: &mut Diagnostics,
) {
    let message = format!(
        "`{rule}` cannot be asked of `{}`, a column of type {}",
        column.name, column.column_type
    );
    let help = format!("`{rule}` is for {fits}");
    out.push(fields.source.error("wrong-rule", span, message).with_help(help));
}
