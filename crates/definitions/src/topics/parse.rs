//! A topic's file as a [`TopicDefinition`]: every field checked, every finding collected.
//!
//! Does not know other topics (see [`crate::catalog`]) or earlier versions (see
//! [`crate::evolution`]).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use falaj_event::hash::domain_hash;
use falaj_event::{Classification, ColumnType, TopicKind, TopicSchema};
use toml::de::{DeTable, DeValue};

use super::columns::{DeclaredColumn, MAX_NAME_BYTES, read as read_column, read_classification};
use super::fields::{Fields, Located, wrong_type};
use super::{DEFAULT_MAX_GAP_US, DEFAULT_SKEW_US, Origin, RESERVED_PREFIX, TopicDefinition};
use crate::diagnostics::{Diagnostics, SourceFile, nearest};
use crate::expectations::{Expectation, Rule};
use crate::text::parse_duration;

const FIELDS: [&str; 18] = [
    "name",
    "kind",
    "version",
    "description",
    "owner",
    "key",
    "primary_key",
    "event_time",
    "subject",
    "partitions",
    "classification",
    "jurisdictions",
    "retention",
    "format",
    "skew",
    "max_gap",
    "derived",
    "columns",
];

/// The most partitions that a topic can have.
const MAX_PARTITIONS: u32 = 1_024;

/// Reads and checks one topic.
pub(super) fn parse(source: &SourceFile, origin: Origin) -> Result<TopicDefinition, Diagnostics> {
    let (document, errors) = DeTable::parse_recoverable(source.text());
    let mut out = Diagnostics::new();
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        out.push(source.error("bad-toml", span, format!("this is not TOML: {}", error.message())));
    }
    if !errors.is_empty() {
        return out.into_result(()).and(Err(Diagnostics::new()));
    }
    let table = document.get_ref();
    let place = table
        .iter()
        .find(|(key, _)| key.get_ref() == "name")
        .map_or(0..source.line(1).map_or(0, str::len), |(key, value)| {
            key.span().start..value.span().end
        });
    let fields = Fields::new(source, "topic", table, place, &FIELDS, &mut out);
    let definition = Reader { source, origin, fields }.read(&mut out);
    match definition {
        Some(definition) => out.into_result(definition),
        None => Err(out.into_result(()).err().unwrap_or_default()),
    }
}

struct Reader<'a> {
    source: &'a SourceFile,
    origin: Origin,
    fields: Fields<'a>,
}

impl Reader<'_> {
    fn read(&self, out: &mut Diagnostics) -> Option<TopicDefinition> {
        let name = self.name(out);
        let kind = self.kind(out);
        let version = self.fields.integer("version", 1, u32::MAX, out).map_or(1, |v| v.value);
        let partitions = self
            .fields
            .integer("partitions", 1, MAX_PARTITIONS, out)
            .map_or(1, |count| count.value);
        let derived = self.derived(out);
        let classification = read_classification(&self.fields, out).unwrap_or_default();
        let columns = self.columns(version, classification, out);
        let key = self.key(kind, &columns, out);
        let event_time = self.event_time(&columns, out);
        let subject = self.subject(&columns, out);
        self.check_rules(kind, &columns, out);
        let description = self.fields.text("description", out);
        let owner = self.fields.text("owner", out);
        let jurisdictions = self.jurisdictions(out);
        let skew_us = self.duration("skew", false, out).flatten().unwrap_or(DEFAULT_SKEW_US);
        let max_gap_us = self.duration("max_gap", true, out);
        let retention_us = self.duration("retention", true, out).flatten();
        let inbox = self.inbox(&columns, out);
        if out.has_errors() {
            return None;
        }
        let name = name?.value;
        let hash = domain_hash(
            b"falaj.definition.topic.v1",
            &[name.as_bytes(), self.source.text().as_bytes()],
        );
        let mut definition = TopicDefinition {
            schema: Arc::new(TopicSchema {
                name,
                version,
                kind,
                columns: Vec::new(),
                key: key?,
                event_time: event_time?,
                subject,
                partitions,
                derived,
            }),
            description: description.unwrap_or_default(),
            owner,
            column_descriptions: Vec::new(),
            expectations: Vec::new(),
            skew_us,
            max_gap_us: max_gap_us.unwrap_or(Some(DEFAULT_MAX_GAP_US)),
            retention_us,
            inbox,
            jurisdictions,
            file: self.source.path().to_owned(),
            text: Arc::clone(self.source.text()),
            hash,
        };
        definition.set_columns(columns);
        Some(definition)
    }

    fn name(&self, out: &mut Diagnostics) -> Option<Located<String>> {
        if self.fields.get("name").is_none() {
            self.fields.missing("name", "write e.g. name = \"payments\"", out);
        }
        let name = self.fields.string("name", out)?;
        let system = matches!(self.origin, Origin::System);
        let text = name.value.as_str();
        let own = match text.strip_prefix(RESERVED_PREFIX) {
            Some(own) if system => own,
            Some(_) => {
                let message =
                    format!("names that begin with `{RESERVED_PREFIX}` belong to the platform");
                out.push(self.source.error("reserved-name", name.span.clone(), message));
                return Some(name);
            }
            None => text,
        };
        let begins = own.starts_with(|c: char| c.is_ascii_lowercase());
        let rest = own.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !begins || !rest || own.len() > MAX_NAME_BYTES {
            let message = format!(
                "`{text}` is not a topic name: use a to z, 0 to 9 and _, beginning with a letter, at \
                 most {MAX_NAME_BYTES} characters"
            );
            out.push(self.source.error("bad-name", name.span.clone(), message));
        }
        Some(name)
    }

    fn kind(&self, out: &mut Diagnostics) -> TopicKind {
        let Some(kind) = self.fields.string("kind", out) else {
            return TopicKind::Event;
        };
        match kind.value.as_str() {
            "event" => TopicKind::Event,
            "table" => TopicKind::Table,
            other => {
                let message = format!("there is no kind `{other}`");
                let help = match nearest(other, ["event", "table"]) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => {
                        "use `event` (every event is a fact) or `table` (newest row per key)".into()
                    }
                };
                out.push(self.source.error("bad-value", kind.span, message).with_help(help));
                TopicKind::Event
            }
        }
    }

    fn derived(&self, out: &mut Diagnostics) -> bool {
        let Some(derived) = self.fields.boolean("derived", out) else {
            return false;
        };
        if derived.value && !matches!(self.origin, Origin::System) {
            let message = "only the platform's own topics are derived";
            out.push(self.source.error("reserved", derived.span, message));
        }
        derived.value
    }

    fn inbox(&self, columns: &[DeclaredColumn], out: &mut Diagnostics) -> bool {
        let Some(format) = self.fields.string("format", out) else { return false };
        if format.value != "json" {
            let message = format!("there is no format `{}`", format.value);
            let help = "write format = \"json\" for an inbox on the cluster, or leave it out";
            out.push(self.source.error("bad-value", format.span, message).with_help(help));
            return false;
        }
        if let Some(column) = columns.iter().find(|column| column.column.pii) {
            let message = format!(
                "column `{}` is personal data, which would lie in the inbox unsealed",
                column.column.name
            );
            out.push(self.source.error("pii-inbox", format.span, message));
        }
        true
    }

    fn columns(
        &self,
        version: u32,
        classification: Classification,
        out: &mut Diagnostics,
    ) -> Vec<DeclaredColumn> {
        let declared = match self.fields.get("columns").map(|value| (value.get_ref(), value.span()))
        {
            Some((DeValue::Array(items), _)) if !items.is_empty() => items,
            Some((DeValue::Array(_), span)) => {
                out.push(self.source.error("empty", span, "a topic needs columns"));
                return Vec::new();
            }
            Some((other, span)) => {
                let diagnostic =
                    wrong_type(self.source, "columns", "a list of tables", other, span);
                out.push(
                    diagnostic.with_help("begin each column with [[columns]]: their order matters"),
                );
                return Vec::new();
            }
            None => {
                let help = "begin each column with [[columns]], then name = \"…\" and type = \"…\"";
                self.fields.missing("columns", help, out);
                return Vec::new();
            }
        };
        let mut seen: BTreeMap<String, Range<usize>> = BTreeMap::new();
        let mut columns: Vec<DeclaredColumn> = Vec::with_capacity(declared.len());
        for value in declared.iter() {
            let Some(column) = read_column(self.source, value, version, classification, out) else {
                continue;
            };
            if let Some(first) = seen.get(&column.column.name) {
                let line = self.source.position(first.start).0;
                let message =
                    format!("column `{}` was declared before, on line {line}", column.column.name);
                out.push(self.source.error("duplicate-name", column.name_span.clone(), message));
            } else {
                seen.insert(column.column.name.clone(), column.name_span.clone());
            }
            if let Some(last) = columns.last()
                && column.column.since_version < last.column.since_version
            {
                let message = format!(
                    "column `{}` is older than the column before it: new columns go to the end",
                    column.column.name
                );
                out.push(self.source.error("bad-version", column.name_span.clone(), message));
            }
            columns.push(column);
        }
        columns
    }

    /// The index of the column that a field names.
    fn find(
        &self,
        field: &str,
        name: &Located<String>,
        columns: &[DeclaredColumn],
        out: &mut Diagnostics,
    ) -> Option<usize> {
        let found = columns.iter().position(|column| column.column.name == name.value);
        if found.is_none() && !self.is_written(&name.value) {
            let message = format!("`{field}` names `{}`, which is not a column", name.value);
            let names = columns.iter().map(|column| column.column.name.as_str());
            let help = nearest(&name.value, names).map(|meant| format!("did you mean `{meant}`?"));
            out.push(
                self.source.error("unknown-column", name.span.clone(), message).with_help_if(help),
            );
        }
        found
    }

    /// Whether a column of this name is there, though perhaps too wrong to be one.
    fn is_written(&self, name: &str) -> bool {
        let Some(DeValue::Array(columns)) = self.fields.get("columns").map(|value| value.get_ref())
        else {
            return false;
        };
        let mut names =
            columns.iter().filter_map(|column| column.get_ref().as_table()?.get("name"));
        names.any(|written| written.get_ref().as_str() == Some(name))
    }

    fn key(
        &self,
        kind: TopicKind,
        columns: &[DeclaredColumn],
        out: &mut Diagnostics,
    ) -> Option<Vec<usize>> {
        let (field, other) = match kind {
            TopicKind::Event => ("key", "primary_key"),
            TopicKind::Table => ("primary_key", "key"),
        };
        if let Some(value) = self.fields.get(other) {
            let message = match kind {
                TopicKind::Event => "an event topic has a `key`; only tables have a `primary_key`",
                TopicKind::Table => {
                    "a table topic is partitioned by its `primary_key` and has no other key"
                }
            };
            out.push(self.source.error("wrong-field", value.span(), message));
        }
        if self.fields.get(field).is_none() {
            let help = format!("write e.g. {field} = [\"customer_id\"]: it decides the partition");
            self.fields.missing(field, &help, out);
            return None;
        }
        let names = self.fields.strings(field, out)?;
        if names.value.is_empty() {
            out.push(self.source.error("empty", names.span, format!("`{field}` names no column")));
            return None;
        }
        let mut key = Vec::new();
        for name in &names.value {
            let Some(index) = self.find(field, name, columns, out) else {
                continue;
            };
            let column = &columns[index].column;
            let problem = if column.pii {
                Some(("pii-key", "is personal data, which is sealed and cannot be a key"))
            } else if column.nullable {
                Some(("nullable-key", "is nullable, but a key is always there"))
            } else if !column.column_type.is_key_type() {
                Some(("bad-key-type", "is a float or a list, which cannot be keys"))
            } else if key.contains(&index) {
                Some(("duplicate-name", "is named twice"))
            } else {
                None
            };
            if let Some((code, problem)) = problem {
                let message = format!("key column `{}` {problem}", column.name);
                out.push(self.source.error(code, name.span.clone(), message));
            }
            key.push(index);
        }
        Some(key)
    }

    fn event_time(&self, columns: &[DeclaredColumn], out: &mut Diagnostics) -> Option<usize> {
        if self.fields.get("event_time").is_none() {
            let help = "name the timestamp column that says when it happened, e.g. event_time = \"paid_at\"";
            self.fields.missing("event_time", help, out);
        }
        let name = self.fields.string("event_time", out)?;
        let index = self.find("event_time", &name, columns, out)?;
        let column = &columns[index].column;
        let problem = if column.column_type != ColumnType::Timestamp {
            format!("is of type {}, not timestamp", column.column_type)
        } else if column.nullable {
            "is nullable, but every event happened at some time".into()
        } else if column.pii {
            "is personal data, which is sealed; windows must read it".into()
        } else {
            return Some(index);
        };
        let message = format!("event time column `{}` {problem}", column.name);
        out.push(self.source.error("bad-event-time", name.span, message));
        None
    }

    fn subject(&self, columns: &[DeclaredColumn], out: &mut Diagnostics) -> Option<usize> {
        let Some(name) = self.fields.string("subject", out) else {
            if let Some(column) = columns.iter().find(|column| column.column.pii)
                && self.fields.get("subject").is_none()
            {
                let name = &column.column.name;
                let message =
                    format!("column `{name}` is personal data, but the topic has no `subject`");
                let help = "name the column that refers to the person, e.g. subject = \"customer_id\": \
                            the value is sealed under that person's key";
                let diagnostic =
                    self.source.error("missing-subject", column.name_span.clone(), message);
                out.push(diagnostic.with_help(help));
            }
            return None;
        };
        let index = self.find("subject", &name, columns, out)?;
        let column = &columns[index].column;
        let problem = if column.pii {
            "is itself personal data: it must be a random reference".into()
        } else if !column.column_type.is_key_type() || column.column_type == ColumnType::Bool {
            format!("is of type {}, which cannot refer to a person", column.column_type)
        } else {
            return Some(index);
        };
        let message = format!("subject column `{}` {problem}", column.name);
        out.push(self.source.error("bad-subject", name.span, message));
        None
    }

    fn check_rules(&self, kind: TopicKind, columns: &[DeclaredColumn], out: &mut Diagnostics) {
        if kind == TopicKind::Event {
            return;
        }
        let rules = columns.iter().flat_map(|column| &column.rules);
        for (_, span) in rules.filter(|(rule, _)| matches!(rule, Rule::UniqueWithin(_))) {
            let message =
                "`unique_within` is for event topics: rows of a table come again when they change";
            out.push(self.source.error("wrong-rule", span.clone(), message));
        }
    }

    fn jurisdictions(&self, out: &mut Diagnostics) -> Vec<String> {
        let Some(names) = self.fields.strings("jurisdictions", out) else {
            return Vec::new();
        };
        for name in &names.value {
            let (country, region) = name.value.split_once('-').unwrap_or((&name.value, "00"));
            let country_fits =
                country.len() == 2 && country.bytes().all(|b| b.is_ascii_uppercase());
            let region_fits = (1..=8).contains(&region.len())
                && region.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
            if !country_fits || !region_fits {
                let message = format!("`{}` is not a jurisdiction", name.value);
                let help =
                    "write an ISO 3166 code such as `AE`, or with a region, such as `AE-DIFC`";
                out.push(
                    self.source.error("bad-value", name.span.clone(), message).with_help(help),
                );
            }
        }
        names.value.into_iter().map(|name| name.value).collect()
    }

    /// A duration field: `None` when absent or wrong, `Some(None)` when for ever.
    fn duration(&self, field: &str, forever: bool, out: &mut Diagnostics) -> Option<Option<u64>> {
        let text = self.fields.string(field, out)?;
        if forever && text.value.trim() == "forever" {
            return Some(None);
        }
        match parse_duration(&text.value) {
            Ok(0) if forever => {
                let why = match field {
                    "retention" => "nothing would be kept",
                    _ => "no event could move the clock",
                };
                out.push(self.source.error("bad-value", text.span, why));
                None
            }
            Ok(us) => Some(Some(us)),
            Err(why) => {
                let help = if forever { "or write `forever`" } else { "write e.g. `5 min`" };
                out.push(self.source.error("bad-duration", text.span, why).with_help(help));
                None
            }
        }
    }
}

impl TopicDefinition {
    fn set_columns(&mut self, columns: Vec<DeclaredColumn>) {
        let mut schema = TopicSchema::clone(&self.schema);
        for (index, declared) in columns.into_iter().enumerate() {
            schema.columns.push(declared.column);
            self.column_descriptions.push(declared.description);
            let rules = declared.rules.into_iter();
            self.expectations.extend(rules.map(|(rule, _)| Expectation { column: index, rule }));
        }
        self.schema = Arc::new(schema);
    }
}
