//! A TOML table read field by field: every wrong type and unknown field becomes a diagnostic at its
//! place, and reading goes on.
//!
//! Does not know what the fields mean.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::diagnostics::{Diagnostic, Diagnostics, SourceFile, nearest};

/// A value and the bytes that spell it.
#[derive(Clone, Debug)]
pub(crate) struct Located<V> {
    pub value: V,
    pub span: Range<usize>,
}

/// One table under inspection.
pub(crate) struct Fields<'a> {
    pub source: &'a SourceFile,
    /// What the table describes, for messages: `topic`, `column`.
    what: &'static str,
    table: &'a DeTable<'a>,
    /// Where a missing field is reported.
    pub place: Range<usize>,
}

impl<'a> Fields<'a> {
    /// Inspects `table`, whose fields may only be `known`.
    pub fn new(
        source: &'a SourceFile,
        what: &'static str,
        table: &'a DeTable<'a>,
        place: Range<usize>,
        known: &[&'static str],
        out: &mut Diagnostics,
    ) -> Self {
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                let message = format!("a {what} has no field `{name}`");
                let help = match nearest(name, known.iter().copied()) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("its fields are {}", known.join(", ")),
                };
                out.push(source.error("unknown-field", key.span(), message).with_help(help));
            }
        }
        Self { source, what, table, place }
    }

    /// The value of a field, if it is there.
    pub fn get(&self, name: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.iter().find(|(key, _)| key.get_ref() == name).map(|(_, value)| value)
    }

    /// Reports a field that must be there.
    pub fn missing(&self, name: &str, help: &str, out: &mut Diagnostics) {
        let message = format!("this {} has no `{name}`", self.what);
        out.push(self.source.error("missing-field", self.place.clone(), message).with_help(help));
    }

    /// A string field.
    pub fn string(&self, name: &str, out: &mut Diagnostics) -> Option<Located<String>> {
        let value = self.get(name)?;
        match value.get_ref() {
            DeValue::String(text) => Some(Located { value: text.to_string(), span: value.span() }),
            other => {
                out.push(wrong_type(self.source, name, "a string", other, value.span()));
                None
            }
        }
    }

    /// A string field that says something.
    pub fn text(&self, name: &str, out: &mut Diagnostics) -> Option<String> {
        let text = self.string(name, out)?;
        if text.value.trim().is_empty() {
            out.push(self.source.error("empty", text.span, format!("`{name}` is empty")));
            return None;
        }
        Some(text.value.trim().to_owned())
    }

    /// A true-or-false field.
    pub fn boolean(&self, name: &str, out: &mut Diagnostics) -> Option<Located<bool>> {
        let value = self.get(name)?;
        match value.get_ref() {
            DeValue::Boolean(flag) => Some(Located { value: *flag, span: value.span() }),
            other => {
                out.push(wrong_type(self.source, name, "true or false", other, value.span()));
                None
            }
        }
    }

    /// A whole number between `least` and `greatest`.
    pub fn integer(
        &self,
        name: &str,
        least: u32,
        greatest: u32,
        out: &mut Diagnostics,
    ) -> Option<Located<u32>> {
        let value = self.get(name)?;
        let DeValue::Integer(integer) = value.get_ref() else {
            out.push(wrong_type(
                self.source,
                name,
                "a whole number",
                value.get_ref(),
                value.span(),
            ));
            return None;
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        match number.and_then(|number| u32::try_from(number).ok()) {
            Some(number) if (least..=greatest).contains(&number) => {
                Some(Located { value: number, span: value.span() })
            }
            _ => {
                let message = format!("`{name}` must be between {least} and {greatest}");
                out.push(self.source.error("out-of-range", value.span(), message));
                None
            }
        }
    }

    /// An array field.
    pub fn array(
        &self,
        name: &str,
        of: &str,
        out: &mut Diagnostics,
    ) -> Option<Located<&'a DeArray<'a>>> {
        let value = self.get(name)?;
        match value.get_ref() {
            DeValue::Array(items) => Some(Located { value: items, span: value.span() }),
            other => {
                out.push(wrong_type(self.source, name, of, other, value.span()));
                None
            }
        }
    }

    /// A list of strings; one string alone is a list of one.
    pub fn strings(
        &self,
        name: &str,
        out: &mut Diagnostics,
    ) -> Option<Located<Vec<Located<String>>>> {
        if matches!(self.get(name)?.get_ref(), DeValue::String(_)) {
            let one = self.string(name, out)?;
            return Some(Located { span: one.span.clone(), value: vec![one] });
        }
        let array = self.array(name, "a list of strings", out)?;
        let mut strings = Vec::new();
        for item in array.value.iter() {
            match item.get_ref() {
                DeValue::String(text) => {
                    strings.push(Located { value: text.to_string(), span: item.span() });
                }
                other => {
                    let of = format!("an item of {name}");
                    out.push(wrong_type(self.source, &of, "a string", other, item.span()));
                }
            }
        }
        Some(Located { value: strings, span: array.span })
    }
}

/// A value of another type than its field has.
pub(crate) fn wrong_type(
    source: &SourceFile,
    name: &str,
    expected: &str,
    found: &DeValue<'_>,
    span: Range<usize>,
) -> Diagnostic {
    let found = match found {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    source.error("wrong-type", span, format!("`{name}` must be {expected}, not {found}"))
}
