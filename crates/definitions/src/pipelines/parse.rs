//! A pipeline's file as a [`Pipeline`]: every field checked, every finding collected.
//!
//! Does not know the other pipelines (see [`crate::catalog`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use falaj_event::hash::domain_hash;
use falaj_event::{ColumnType, Hash256};
use toml::de::{DeTable, DeValue};

use super::features::Inputs;
use super::read::{Context, section};
use super::settings::{Split, Training, TrainingMode};
use super::types::{Label, Pipeline, Signature, SignatureOutput, Task};
use super::{features, gates, kpi, label, monitors, read, trainer};
use crate::catalog::Topics;
use crate::diagnostics::{Diagnostics, Severity, SourceFile, nearest};
use crate::plan::ViewPlan;
use crate::topics::TopicDefinition;
use crate::topics::fields::{Fields, Located, wrong_type};

/// Version of the pipeline format: part of every pipeline's hash.
pub const PIPELINE_VERSION: u32 = 1;

const SECTIONS: [&str; 12] = [
    "pipeline", "label", "features", "request", "trainer", "split", "training", "gates", "serving",
    "monitors", "retrain", "kpi",
];

const FIELDS: [&str; 6] = ["name", "task", "entity", "owner", "description", "tags"];

/// The longest name of a pipeline.
const MAX_NAME_BYTES: usize = 63;

/// What a pipeline is checked against.
pub(super) struct World<'a> {
    pub topics: &'a Topics,
    pub views: &'a [Arc<ViewPlan>],
    /// Views that are declared and wrong: reported elsewhere.
    pub broken: &'a BTreeSet<String>,
}

/// Reads one pipeline's file and checks it against topics and views. A pipeline that reads one of
/// the `broken` views fails without a finding of its own. With the pipeline come warnings and notes.
///
/// # Errors
/// Everything that is wrong with it, in the order of its lines.
pub fn parse_pipeline(
    source: &SourceFile,
    topics: &Topics,
    views: &[Arc<ViewPlan>],
    broken: &BTreeSet<String>,
) -> Result<(Pipeline, Diagnostics), Diagnostics> {
    let (document, errors) = DeTable::parse_recoverable(source.text());
    let mut out = Diagnostics::new();
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        out.push(source.error("bad-toml", span, format!("this is not TOML: {}", error.message())));
    }
    if !errors.is_empty() {
        out.sort();
        return Err(out);
    }
    let world = World { topics, views, broken };
    let read = Reader { source, document: document.get_ref(), world: &world }.read(&mut out);
    match (read, out.has_errors()) {
        (Some(pipeline), false) => Ok((pipeline, out)),
        _ => {
            out.sort();
            Err(out)
        }
    }
}

struct Reader<'a> {
    source: &'a SourceFile,
    document: &'a DeTable<'a>,
    world: &'a World<'a>,
}

/// What `[pipeline]` says.
struct Head {
    name: String,
    task: Task,
    entity: Vec<Located<String>>,
    owner: Option<String>,
    description: String,
    tags: Vec<String>,
}

impl<'a> Reader<'a> {
    fn read(&self, out: &mut Diagnostics) -> Option<Pipeline> {
        self.check_sections(out);
        let head = self.head(out)?;
        let context = Context { source: self.source, task: head.task };
        let (topic, label) = label::read(&context, self.document, self.world, out)?;
        let keys = self.entity(&head.entity, topic, out);
        let before = out.len();
        let inputs = features::read(self.source, self.document, self.world, topic, &keys, out);
        // Names that a wrong feature hides are not reported again as unknown.
        let found = out.iter().skip(before).any(|finding| finding.severity == Severity::Error);
        let known = (!found && !inputs.broken).then_some(inputs.columns.as_slice());
        let label_type = label.column_type.clone();
        let trainer = trainer::read(&context, self.document, known, out);
        let split = self.split(out);
        let training = self.training(out);
        let gates = gates::read(&context, self.document, known, out);
        let serving = monitors::serving(&context, self.document, out);
        let watched = monitors::Watched { inputs: known, lifetime: &inputs.lifetime };
        let monitors = monitors::read(&context, self.document, watched, out);
        let retrain = monitors::retrain(&context, self.document, out);
        let judged = kpi::Judged { keys: &keys, inputs: known, topic, label: &label };
        let kpi = kpi::read(&context, self.document, &judged, out);
        self.check_kpi_named(&gates, kpi.is_some(), out);
        if out.has_errors() || inputs.broken {
            return None;
        }
        let signature = Signature {
            keys,
            inputs: inputs.columns.clone(),
            outputs: outputs(head.task, &label_type),
        };
        let hash = self.hash(&head.name, topic, &label, &inputs);
        Some(Pipeline {
            name: head.name,
            owner: head.owner,
            description: head.description,
            tags: head.tags,
            task: head.task,
            entity: head.entity.into_iter().map(|name| name.value).collect(),
            label,
            features: inputs.sets,
            request: inputs.request,
            signature,
            trainer: trainer?,
            split,
            training,
            gates,
            serving,
            monitors,
            retrain,
            kpi,
            file: self.source.path().to_owned(),
            text: Arc::clone(self.source.text()),
            hash,
        })
    }

    fn check_sections(&self, out: &mut Diagnostics) {
        for key in self.document.keys() {
            let name = key.get_ref().as_ref();
            if SECTIONS.contains(&name) {
                continue;
            }
            let message = format!("a model pipeline has no section `{name}`");
            let help = match (FIELDS.contains(&name), nearest(name, SECTIONS)) {
                (true, _) => format!("`{name}` stands in [pipeline]"),
                (false, Some(meant)) => format!("did you mean `{meant}`?"),
                (false, None) => format!("its sections are {}", SECTIONS.join(", ")),
            };
            out.push(self.source.error("unknown-field", key.span(), message).with_help(help));
        }
    }

    fn head(&self, out: &mut Diagnostics) -> Option<Head> {
        let Some(fields) = section(self.source, self.document, "pipeline", &FIELDS, out) else {
            if !self.document.keys().any(|key| key.get_ref() == "pipeline") {
                let message = "this model pipeline has no section [pipeline]";
                let help =
                    "begin with [pipeline], name = \"…\", task = \"binary\", entity = [\"…\"]";
                let first = 0..self.source.line(1).map_or(0, str::len);
                out.push(self.source.error("missing-section", first, message).with_help(help));
            }
            return None;
        };
        let name = self.name(&fields, out);
        let tasks = [Task::Binary, Task::Multiclass, Task::Regression];
        if fields.get("task").is_none() {
            fields.missing(
                "task",
                "write task = \"binary\", \"multiclass\" or \"regression\"",
                out,
            );
        }
        let task = read::choice(&fields, "task", &tasks.map(|task| (task.as_str(), task)), out);
        if fields.get("entity").is_none() {
            let help =
                "name the columns that a prediction is about, e.g. entity = [\"customer_id\"]";
            fields.missing("entity", help, out);
        }
        let entity = fields.strings("entity", out);
        if let Some(entity) = entity.as_ref().filter(|entity| entity.value.is_empty()) {
            let message = "`entity` names no column";
            out.push(self.source.error("empty", entity.span.clone(), message));
        }
        let tags = fields.strings("tags", out).map(|tags| tags.value).unwrap_or_default();
        Some(Head {
            owner: fields.text("owner", out),
            description: fields.text("description", out).unwrap_or_default(),
            tags: tags.into_iter().map(|tag| tag.value).collect(),
            name: name?,
            task: task?,
            entity: entity?.value,
        })
    }

    fn name(&self, fields: &Fields<'_>, out: &mut Diagnostics) -> Option<String> {
        if fields.get("name").is_none() {
            fields.missing("name", "write e.g. name = \"fraud\"", out);
        }
        let name = fields.string("name", out)?;
        let text = name.value.as_str();
        let begins = text.starts_with(|c: char| c.is_ascii_lowercase());
        let rest = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !begins || !rest || text.len() > MAX_NAME_BYTES {
            let message = format!(
                "`{text}` is not a pipeline name: use a to z, 0 to 9 and _, beginning with a letter, \
                 at most {MAX_NAME_BYTES} characters"
            );
            out.push(self.source.error("bad-name", name.span, message));
            return None;
        }
        let other = match (self.world.topics.get(text), view(self.world, text)) {
            (Some(topic), _) => Some(("topic", topic.file.display().to_string())),
            (None, Some(_)) => Some(("view", format!("dataflows/**/{text}.sql"))),
            (None, None) => None,
        };
        if let Some((kind, place)) = other {
            let message = format!("`{text}` is already the name of a {kind}, declared in {place}");
            out.push(self.source.error("duplicate-name", name.span, message));
            return None;
        }
        Some(name.value)
    }

    /// The entity's columns with their types.
    fn entity(
        &self,
        names: &[Located<String>],
        topic: &TopicDefinition,
        out: &mut Diagnostics,
    ) -> Vec<(String, ColumnType)> {
        let mut keys: Vec<(String, ColumnType)> = Vec::new();
        for name in names {
            let Some(column) = label::column(self.source, topic, "entity", name, out) else {
                continue;
            };
            let problem = if !column.column_type.is_key_type() {
                "is a float or a list, which cannot be keys"
            } else if keys.iter().any(|(known, _)| known == &name.value) {
                "is named twice"
            } else {
                keys.push((name.value.clone(), column.column_type.clone()));
                continue;
            };
            let message = format!("entity column `{}` {problem}", name.value);
            out.push(self.source.error("bad-entity", name.span.clone(), message));
        }
        keys
    }

    fn split(&self, out: &mut Diagnostics) -> Split {
        const KNOWN: [&str; 4] = ["train", "validation", "test", "embargo"];
        let default = Split { train: 0.7, validation: 0.15, test: 0.15, embargo_us: 0 };
        let Some(fields) = section(self.source, self.document, "split", &KNOWN, out) else {
            return default;
        };
        let part = |name: &str, out: &mut Diagnostics| {
            read::number(&fields, name, 0.0, 1.0, out).map(|part| part.value)
        };
        let (train, validation, test) =
            (part("train", out), part("validation", out), part("test", out));
        let embargo_us = read::duration(&fields, "embargo", out).unwrap_or(0);
        // Two of three decide the third.
        let (train, validation, test) = match (train, validation, test) {
            (None, None, None) => (default.train, default.validation, default.test),
            (Some(a), Some(b), None) => (a, b, 1.0 - a - b),
            (Some(a), None, Some(c)) => (a, 1.0 - a - c, c),
            (None, Some(b), Some(c)) => (1.0 - b - c, b, c),
            (Some(a), None, None) => (a, (1.0 - a) / 2.0, (1.0 - a) / 2.0),
            (None, Some(b), None) => (1.0 - 2.0 * b, b, b),
            (None, None, Some(c)) => (1.0 - 2.0 * c, c, c),
            (Some(a), Some(b), Some(c)) => (a, b, c),
        };
        if (train + validation + test - 1.0).abs() > 1e-9
            || train <= 0.0
            || [validation, test].iter().any(|part| *part < -1e-9)
        {
            let shown = |part: f64| (part * 1e6).round() / 1e6;
            let (train, validation, test) = (shown(train), shown(validation), shown(test));
            let message = format!(
                "train, validation and test are {train}, {validation} and {test}: they must sum to 1, \
                 and train be above 0"
            );
            out.push(self.source.error("bad-value", fields.place.clone(), message));
            return default;
        }
        Split { train, validation: validation.max(0.0), test: test.max(0.0), embargo_us }
    }

    fn training(&self, out: &mut Diagnostics) -> Training {
        const KNOWN: [&str; 4] = ["mode", "history", "max_rows", "min_rows"];
        let mut training = Training {
            mode: TrainingMode::AsCorrected,
            history_us: None,
            max_rows: None,
            min_rows: 100,
        };
        let Some(fields) = section(self.source, self.document, "training", &KNOWN, out) else {
            return training;
        };
        let modes = [TrainingMode::AsCorrected, TrainingMode::AsKnown, TrainingMode::AsServed];
        let modes = modes.map(|mode| (mode.as_str(), mode));
        training.mode = read::choice(&fields, "mode", &modes, out).unwrap_or_default();
        let forever = fields.get("history").is_some_and(
            |value| matches!(value.get_ref(), DeValue::String(text) if text.trim() == "forever"),
        );
        if !forever {
            training.history_us = read::span_of_time(&fields, "history", out);
        }
        training.max_rows = fields.integer("max_rows", 1, u32::MAX, out).map(|rows| rows.value);
        if let Some(rows) = fields.integer("min_rows", 1, u32::MAX, out) {
            training.min_rows = rows.value;
            if training.max_rows.is_some_and(|most| most < rows.value) {
                let message = "`min_rows` is more than `max_rows`: no training set has both";
                out.push(self.source.error("bad-value", rows.span, message));
            }
        }
        training
    }

    /// A gate on the KPI needs a KPI.
    fn check_kpi_named(&self, gates: &super::Gates, declared: bool, out: &mut Diagnostics) {
        let written = self.document.keys().any(|key| key.get_ref() == "kpi");
        if gates.kpi.is_none() || declared || written {
            return;
        }
        let place = self.document.keys().find(|key| key.get_ref() == "gates");
        let span = place.map_or(0..0, toml::Spanned::span);
        let message = "[gates] has a threshold for the KPI, but no [kpi] is declared";
        let help = "declare [kpi] with sql = \"…\", or leave the threshold out";
        out.push(self.source.error("missing-section", span, message).with_help(help));
    }

    fn hash(&self, name: &str, topic: &TopicDefinition, label: &Label, inputs: &Inputs) -> Hash256 {
        let version = PIPELINE_VERSION.to_be_bytes();
        let mut parts: Vec<&[u8]> = vec![
            &version,
            name.as_bytes(),
            self.source.text().as_bytes(),
            label.topic.as_bytes(),
            &topic.hash.0,
        ];
        for set in &inputs.sets {
            parts.push(set.view.as_bytes());
            parts.push(&set.view_hash.0);
        }
        domain_hash(b"falaj.definition.pipeline.v1", &parts)
    }
}

/// The view called `name`.
pub(super) fn view<'a>(world: &World<'a>, name: &str) -> Option<&'a Arc<ViewPlan>> {
    world.views.iter().find(|view| view.name == name)
}

/// What a prediction of a task answers.
fn outputs(task: Task, label: &ColumnType) -> Vec<SignatureOutput> {
    let output = |name: &str, column_type| SignatureOutput { name: name.to_owned(), column_type };
    match task {
        Task::Binary => {
            vec![output("score", ColumnType::Float64), output("predicted", label.clone())]
        }
        Task::Multiclass => vec![
            output("scores", ColumnType::List(Box::new(ColumnType::Float64))),
            output("predicted", label.clone()),
        ],
        Task::Regression => vec![output("value", ColumnType::Float64)],
    }
}

/// Reports a section that must be there.
pub(super) fn missing_section(source: &SourceFile, name: &str, help: &str, out: &mut Diagnostics) {
    let first = 0..source.line(1).map_or(0, str::len);
    let message = format!("this model pipeline has no section [{name}]");
    out.push(source.error("missing-section", first, message).with_help(help));
}

/// A value of another type than a field has, for lists inside lists.
pub(super) fn not_a_string(
    source: &SourceFile,
    name: &str,
    value: &toml::Spanned<DeValue<'_>>,
    out: &mut Diagnostics,
) {
    out.push(wrong_type(source, name, "a string", value.get_ref(), value.span()));
}
