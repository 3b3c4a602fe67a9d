//! `[[features]]` and `[[request]]`: the model's inputs, in order, with types.
//!
//! Does not know what models do with them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use falaj_event::ColumnType;
use toml::de::{DeTable, DeValue};

use super::label::column as label_column;
use super::parse::{World, missing_section, not_a_string, view};
use super::read::sections;
use super::types::{FeatureSet, InputKind, InputOrigin, RequestFeature, SignatureInput};
use crate::diagnostics::{Diagnostics, Severity, SourceFile, nearest};
use crate::plan::{OutputColumn, ViewPlan};
use crate::topics::TopicDefinition;
use crate::topics::fields::{Fields, Located};

const FEATURE_FIELDS: [&str; 5] = ["view", "columns", "categorical", "prefix", "key"];
const REQUEST_FIELDS: [&str; 5] = ["name", "type", "label_column", "optional", "categorical"];

/// Names that predictions and their judgement have of their own.
const RESERVED: [&str; 8] =
    ["score", "scores", "value", "predicted", "actual", "model", "predicted_at", "prediction_id"];

/// Everything that goes into a model.
#[derive(Default)]
pub(super) struct Inputs {
    pub sets: Vec<FeatureSet>,
    pub request: Vec<RequestFeature>,
    pub columns: Vec<SignatureInput>,
    /// A view that is read is wrong, and reported elsewhere.
    pub broken: bool,
}

struct Reader<'a> {
    source: &'a SourceFile,
    world: &'a World<'a>,
    keys: &'a [(String, ColumnType)],
    inputs: Inputs,
    /// Where each name was taken, and from what.
    seen: BTreeMap<String, String>,
    /// Training rows have these columns too.
    label_columns: BTreeSet<String>,
}

/// Reads both sections.
pub(super) fn read(
    source: &SourceFile,
    document: &DeTable<'_>,
    world: &World<'_>,
    topic: &TopicDefinition,
    keys: &[(String, ColumnType)],
    out: &mut Diagnostics,
) -> Inputs {
    let get =
        |name: &str| document.iter().find(|(key, _)| key.get_ref() == name).map(|(_, value)| value);
    let (inputs, seen) = (Inputs::default(), BTreeMap::new());
    let mut reader = Reader { source, world, keys, inputs, seen, label_columns: BTreeSet::new() };
    for (name, _) in keys {
        reader.seen.insert(name.clone(), "the entity".to_owned());
    }
    reader.label_columns = topic.schema.columns.iter().map(|column| column.name.clone()).collect();
    let features = sections(source, get("features"), "features", &FEATURE_FIELDS, out);
    let request = sections(source, get("request"), "request", &REQUEST_FIELDS, out);
    if features.is_empty() && request.is_empty() && get("features").is_none() {
        let help = "begin each view with [[features]], then view = \"…\" and columns = [\"…\"]";
        missing_section(source, "[features]", help, out);
    }
    for fields in &features {
        reader.view(fields, out);
    }
    for fields in &request {
        reader.request(fields, topic, out);
    }
    reader.inputs
}

impl Reader<'_> {
    fn view(&mut self, fields: &Fields<'_>, out: &mut Diagnostics) {
        if fields.get("view").is_none() {
            fields.missing("view", "write e.g. view = \"customer_activity\"", out);
        }
        let Some(name) = fields.string("view", out) else { return };
        if self.world.broken.contains(&name.value) {
            self.inputs.broken = true;
            return;
        }
        let Some(plan) = view(self.world, &name.value) else {
            self.unknown_view(&name, out);
            return;
        };
        let key = self.key(fields, plan, &name, out);
        let columns = self.columns(fields, plan, out);
        let categorical = self.categorical(fields, &columns, out);
        let prefix = fields.string("prefix", out).map(|text| text.value).unwrap_or_default();
        let mut set = FeatureSet {
            view: name.value.clone(),
            view_hash: plan.hash,
            key: key.unwrap_or_default(),
            columns: Vec::new(),
            names: Vec::new(),
        };
        for (column, span) in columns {
            let full = format!("{prefix}{}", column.name);
            let taken_from = format!("view `{}`", plan.name);
            let named = Located { value: full.clone(), span };
            if self.label_columns.contains(&full) && !self.seen.contains_key(&full) {
                self.seen.insert(full.clone(), "the label's topic".to_owned());
            }
            if !self.take(&named, taken_from, out) {
                continue;
            }
            let Some(kind) = InputKind::of(&column.column_type) else { continue };
            let is_class = categorical.contains(&column.name);
            self.inputs.columns.push(SignatureInput {
                name: full.clone(),
                column_type: column.column_type.clone(),
                kind: if is_class { InputKind::Categorical } else { kind },
                origin: InputOrigin::View { view: plan.name.clone(), column: column.name.clone() },
                nullable: true,
            });
            set.columns.push(column.name.clone());
            set.names.push(full);
        }
        self.inputs.sets.push(set);
    }

    fn unknown_view(&self, name: &Located<String>, out: &mut Diagnostics) {
        let message = format!("there is no view `{}`", name.value);
        let names = self.world.views.iter().map(|view| view.name.as_str());
        let help = match nearest(&name.value, names) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if self.world.topics.get(&name.value).is_some() => {
                "that is a topic: features come from views; write one in dataflows/".to_owned()
            }
            None => "declare it in dataflows/".to_owned(),
        };
        let finding = self.source.error("unknown-view", name.span.clone(), message);
        out.push(finding.with_help(help));
    }

    /// The entity column for each of the view's key columns.
    fn key(
        &self,
        fields: &Fields<'_>,
        plan: &ViewPlan,
        view: &Located<String>,
        out: &mut Diagnostics,
    ) -> Option<Vec<String>> {
        let renamed = self.renamed(fields, plan, out)?;
        let mut key = Vec::new();
        for column in plan.output_key.iter().filter_map(|&index| plan.output.get(index)) {
            let (wanted, span) = match renamed.get(&column.name) {
                Some(name) => (name.value.clone(), name.span.clone()),
                None => (column.name.clone(), view.span.clone()),
            };
            let Some((_, of)) = self.keys.iter().find(|(name, _)| *name == wanted) else {
                let message = format!(
                    "view `{}` is keyed by `{}`, but `{wanted}` is not an entity column",
                    plan.name, column.name
                );
                let names: Vec<&str> = self.keys.iter().map(|(name, _)| name.as_str()).collect();
                let help = format!(
                    "add it to `entity` in [pipeline], or write key = {{ {} = \"{}\" }}",
                    column.name,
                    names.first().copied().unwrap_or("…")
                );
                out.push(self.source.error("key-mismatch", span, message).with_help(help));
                return None;
            };
            if *of != column.column_type {
                let message = format!(
                    "view `{}` is keyed by `{}` of type {}, but `{wanted}` of the label's topic is \
                     of type {of}",
                    plan.name, column.name, column.column_type
                );
                out.push(self.source.error("key-mismatch", span, message));
                return None;
            }
            key.push(wanted);
        }
        Some(key)
    }

    /// What `key = { view_column = "entity_column" }` says.
    fn renamed(
        &self,
        fields: &Fields<'_>,
        plan: &ViewPlan,
        out: &mut Diagnostics,
    ) -> Option<BTreeMap<String, Located<String>>> {
        let mut renamed = BTreeMap::new();
        let Some(value) = fields.get("key") else { return Some(renamed) };
        let DeValue::Table(table) = value.get_ref() else {
            let message = "`key` must be a table, e.g. key = { merchant_id = \"shop_id\" }";
            out.push(self.source.error("wrong-type", value.span(), message));
            return None;
        };
        let keys: Vec<&str> = plan
            .output_key
            .iter()
            .filter_map(|&index| plan.output.get(index))
            .map(|column| column.name.as_str())
            .collect();
        for (key, value) in table.iter() {
            let name = key.get_ref().as_ref();
            if !keys.contains(&name) {
                let message = format!("view `{}` is not keyed by `{name}`", plan.name);
                let help = format!("its key is {}", keys.join(", "));
                out.push(self.source.error("unknown-column", key.span(), message).with_help(help));
                continue;
            }
            match value.get_ref() {
                DeValue::String(text) => {
                    let named = Located { value: text.to_string(), span: value.span() };
                    renamed.insert(name.to_owned(), named);
                }
                _ => not_a_string(self.source, name, value, out),
            }
        }
        Some(renamed)
    }

    /// The chosen columns, and where each was chosen.
    fn columns<'p>(
        &self,
        fields: &Fields<'_>,
        plan: &'p ViewPlan,
        out: &mut Diagnostics,
    ) -> Vec<(&'p OutputColumn, Range<usize>)> {
        let written = fields.get("columns").map(|value| (value.get_ref(), value.span()));
        let all = match &written {
            None => Some(fields.place.clone()),
            Some((DeValue::String(text), span)) if text.as_ref() == "*" => Some(span.clone()),
            Some(_) => None,
        };
        if let Some(span) = all {
            return self.all_columns(plan, &span, out);
        }
        let names = fields.strings("columns", out).map(|names| names.value).unwrap_or_default();
        let mut columns: Vec<(&OutputColumn, Range<usize>)> = Vec::new();
        for name in names {
            let Some(index) = plan.output.iter().position(|column| column.name == name.value)
            else {
                let message = format!("view `{}` has no column `{}`", plan.name, name.value);
                let known = plan.output.iter().map(|column| column.name.as_str());
                let help =
                    nearest(&name.value, known).map(|meant| format!("did you mean `{meant}`?"));
                let finding = self.source.error("unknown-column", name.span, message);
                out.push(finding.with_help_if(help));
                continue;
            };
            let column = &plan.output[index];
            let problem = if plan.output_key.contains(&index) {
                "is the view's key: an identity is not a feature".to_owned()
            } else if InputKind::of(&column.column_type).is_none() {
                format!("is of type {}, which no model reads", column.column_type)
            } else {
                columns.push((column, name.span));
                continue;
            };
            let message = format!("`{}` of view `{}` {problem}", column.name, plan.name);
            let help = "numbers, bools and strings are features: derive one in the view";
            out.push(self.source.error("wrong-type", name.span, message).with_help(help));
        }
        columns
    }

    /// All columns that a model can read; what is left out is noted.
    fn all_columns<'p>(
        &self,
        plan: &'p ViewPlan,
        span: &Range<usize>,
        out: &mut Diagnostics,
    ) -> Vec<(&'p OutputColumn, Range<usize>)> {
        let mut columns = Vec::new();
        let mut left_out = Vec::new();
        for (index, column) in plan.output.iter().enumerate() {
            if plan.output_key.contains(&index) {
                continue;
            }
            match InputKind::of(&column.column_type) {
                Some(_) => columns.push((column, span.clone())),
                None => left_out.push(format!("`{}` ({})", column.name, column.column_type)),
            }
        }
        if !left_out.is_empty() {
            let message = format!(
                "of view `{}`, {} cannot be read by a model and {} left out",
                plan.name,
                left_out.join(", "),
                if left_out.len() == 1 { "is" } else { "are" }
            );
            let finding = self.source.error("left-out", span.clone(), message);
            let help = "name the columns to say that this is meant";
            out.push(finding.with_severity(Severity::Note).with_help(help));
        }
        columns
    }

    fn categorical(
        &self,
        fields: &Fields<'_>,
        columns: &[(&OutputColumn, Range<usize>)],
        out: &mut Diagnostics,
    ) -> Vec<String> {
        let names = fields.strings("categorical", out).map(|names| names.value).unwrap_or_default();
        let mut found = Vec::new();
        for name in names {
            let column = columns.iter().find(|(column, _)| column.name == name.value);
            let problem = match column.map(|(column, _)| &column.column_type) {
                None => "is not among its columns".to_owned(),
                Some(of @ (ColumnType::Float32 | ColumnType::Float64)) => {
                    format!("is of type {of}, whose values are not classes")
                }
                Some(_) => {
                    found.push(name.value);
                    continue;
                }
            };
            let message = format!("`categorical` names `{}`, which {problem}", name.value);
            out.push(self.source.error("unknown-column", name.span, message));
        }
        found
    }

    fn request(&mut self, fields: &Fields<'_>, topic: &TopicDefinition, out: &mut Diagnostics) {
        for (name, help) in
            [("name", "write e.g. name = \"amount_fils\""), ("type", "write e.g. type = \"int64\"")]
        {
            if fields.get(name).is_none() {
                fields.missing(name, help, out);
            }
        }
        let name = fields.string("name", out);
        let column_type = request_type(fields, out);
        let (Some(name), Some(column_type)) = (name, column_type) else { return };
        let optional = fields.boolean("optional", out).is_some_and(|flag| flag.value);
        let is_class = fields.boolean("categorical", out).is_some_and(|flag| flag.value);
        let from = fields.string("label_column", out).unwrap_or_else(|| name.clone());
        if let Some(column) = label_column(self.source, topic, "request", &from, out)
            && column.column_type != column_type
        {
            let message = format!(
                "`{}` is of type {column_type} here and of type {} in `{}`, where training rows \
                 take it from",
                name.value, column.column_type, topic.schema.name
            );
            out.push(self.source.error("wrong-type", from.span.clone(), message));
        }
        if from.value != name.value && self.label_columns.contains(&name.value) {
            let message = format!(
                "training rows would have two columns `{0}`: this feature, which they take from \
                 `{1}`, and `{0}` of `{2}`",
                name.value, from.value, topic.schema.name
            );
            let finding = self.source.error("duplicate-name", name.span.clone(), message);
            out.push(finding.with_help("give the feature a name that the topic has not"));
            return;
        }
        if !self.take(&name, "[[request]]".to_owned(), out) {
            return;
        }
        let Some(kind) = InputKind::of(&column_type) else { return };
        self.inputs.columns.push(SignatureInput {
            name: name.value.clone(),
            column_type: column_type.clone(),
            kind: if is_class { InputKind::Categorical } else { kind },
            origin: InputOrigin::Request,
            nullable: optional,
        });
        self.inputs.request.push(RequestFeature {
            name: name.value,
            column_type,
            label_column: from.value,
            optional,
        });
    }

    /// Whether a name is still free; reports one that is not.
    fn take(&mut self, name: &Located<String>, from: String, out: &mut Diagnostics) -> bool {
        let problem = match self.seen.get(&name.value) {
            Some(first) => format!("`{}` is already the name of an input from {first}", name.value),
            None if RESERVED.contains(&name.value.as_str()) => {
                format!("`{}` is a column that every prediction has", name.value)
            }
            None => {
                self.seen.insert(name.value.clone(), from);
                return true;
            }
        };
        let finding = self.source.error("duplicate-name", name.span.clone(), problem);
        out.push(finding.with_help("give its view a `prefix`, e.g. prefix = \"merchant_\""));
        false
    }
}

fn request_type(fields: &Fields<'_>, out: &mut Diagnostics) -> Option<ColumnType> {
    let declared = fields.string("type", out)?;
    let problem = match declared.value.parse::<ColumnType>() {
        Ok(of) if InputKind::of(&of).is_some() => return Some(of),
        Ok(of) => format!("no model reads a value of type {of}"),
        Err(error) => error.to_string(),
    };
    let finding = fields.source.error("unknown-type", declared.span, problem);
    out.push(finding.with_help("use a number type, bool or string"));
    None
}
