//! What a pipeline adds to the catalog by itself: the topics of its predictions and outcomes, and the
//! views that keep its performance up to date.
//!
//! * `NAME.predictions`: one event per prediction, served or in shadow.
//! * `NAME.outcomes`: one row per prediction whose label has come, corrected as labels are.
//! * `NAME_performance`, `NAME_performance_by_SLICE`, `NAME_kpi`: ordinary views over the outcomes.
//!
//! A derived topic's definition is stored as its schema in JSON. Outcomes have those inputs only that the
//! KPI or a monitored slice names, so that a pipeline's features may change without touching what is
//! stored; what does touch it is refused when a log is opened.
//!
//! Does not know who writes the events.

use std::fmt::Write as _;
use std::sync::Arc;

use falaj_event::hash::domain_hash;
use falaj_event::{Column, ColumnType, TopicKind, TopicSchema};

use super::types::{Pipeline, Task};
use crate::diagnostics::SourceFile;
use crate::topics::TopicDefinition;

/// What the name of a topic of predictions ends with.
pub const PREDICTIONS_SUFFIX: &str = ".predictions";
/// What the name of a topic of outcomes ends with.
pub const OUTCOMES_SUFFIX: &str = ".outcomes";

struct Columns {
    columns: Vec<Column>,
    descriptions: Vec<String>,
}

impl Columns {
    fn new() -> Self {
        Self { columns: Vec::new(), descriptions: Vec::new() }
    }

    /// Adds a column, unless there is one of its name.
    fn add(&mut self, name: &str, column_type: ColumnType, nullable: bool, description: &str) {
        if self.position(name).is_some() {
            return;
        }
        self.columns.push(Column {
            name: name.to_owned(),
            column_type,
            nullable,
            pii: false,
            classification: falaj_event::Classification::Confidential,
            since_version: 1,
        });
        self.descriptions.push(description.to_owned());
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

/// The topic of a pipeline's predictions. Its subject is the label topic's, where the entity has that
/// column; the inputs are then personal data, sealed as one value.
pub fn predictions_topic(pipeline: &Pipeline, label: &TopicDefinition) -> TopicDefinition {
    use ColumnType as T;
    let mut all = Columns::new();
    all.add("prediction_id", T::String, false, "The caller's id, or the node's.");
    all.add("t", T::Timestamp, false, "T_r: the epoch time at which all features were read.");
    for (name, column_type) in &pipeline.signature.keys {
        all.add(name, column_type.clone(), false, "Key of the entity.");
    }
    all.add("model_version", T::UInt32, false, "The version that made it.");
    all.add("artifact", T::Binary, false, "SHA-256 of that version's artifact.");
    all.add("served", T::Bool, false, "Whether the caller was answered with it; else in shadow.");
    all.add(
        "propensity",
        T::Float64,
        false,
        "Probability with which the policy chose the version.",
    );
    all.add(
        "inputs",
        T::Binary,
        true,
        "The model's inputs in signature order, canonical encoding.",
    );
    all.add("inputs_hash", T::Binary, false, "SHA-256 (falaj.inputs.v1) of the id and the inputs.");
    all.add(
        "score",
        T::Float64,
        false,
        "Probability (of the positive class, of the label) or value.",
    );
    if pipeline.task == Task::Multiclass {
        let list = T::List(Box::new(T::Float64));
        all.add("scores", list, false, "One probability per class, in signature order.");
    }
    all.add("predicted", T::String, true, "The class; NULL for regression.");
    all.add("ack", T::String, false, "durable: logged before it was answered; fast: after.");
    all.add("asked_by", T::String, false, "Who asked.");
    all.add("wall_clock", T::Timestamp, false, "The wall clock when it was made; informative.");
    let subject = subject_of(pipeline, label, &all);
    for column in all.columns.iter_mut().filter(|column| column.name == "inputs") {
        column.pii = subject.is_some();
    }
    let key = pipeline.entity.iter().filter_map(|name| all.position(name)).collect();
    definition(pipeline, label, PREDICTIONS_SUFFIX, all, (TopicKind::Event, key, subject))
}

/// The topic of a pipeline's outcomes: a table, one row per (prediction, model).
pub fn outcomes_topic(pipeline: &Pipeline, label: &TopicDefinition) -> TopicDefinition {
    use ColumnType as T;
    let mut all = Columns::new();
    all.add("prediction_id", T::String, false, "The prediction.");
    all.add("model", T::String, false, "The version that made it.");
    all.add("t", T::Timestamp, false, "T at which prediction and label were both known.");
    all.add("predicted_at", T::Timestamp, false, "T_r of the prediction.");
    all.add("served", T::Bool, false, "Whether the caller was answered with it; else in shadow.");
    match pipeline.task {
        Task::Binary => all.add("score", T::Float64, false, "Probability of the positive class."),
        Task::Multiclass => {
            let list = T::List(Box::new(T::Float64));
            all.add("scores", list, false, "One probability per class.");
        }
        Task::Regression => all.add("value", T::Float64, false, "The value foretold."),
    }
    let actual = pipeline.label.column_type.clone();
    all.add("actual", actual.clone(), true, "The truth.");
    if pipeline.task != Task::Regression {
        all.add("predicted", actual, true, "The class foretold.");
        all.add("correct", T::Int64, true, "1 where they agree, else 0.");
        all.add("log_loss", T::Float64, true, "-ln of the probability given to the truth.");
        all.add("brier", T::Float64, true, "Brier's score.");
    } else {
        all.add("error", T::Float64, false, "Value foretold minus actual value.");
        all.add("absolute_error", T::Float64, false, "Its absolute value.");
        all.add("squared_error", T::Float64, false, "Its square.");
    }
    for (name, column_type) in &pipeline.signature.keys {
        all.add(name, column_type.clone(), false, "Key of the entity.");
    }
    for input in pipeline.signature.inputs.iter().filter(|input| is_named(pipeline, &input.name)) {
        all.add(&input.name, input.column_type.clone(), true, "Input of the model.");
    }
    let columns = label.schema.columns.iter().filter(|column| !column.pii);
    for column in columns {
        all.add(&column.name, column.column_type.clone(), true, "Of the label.");
    }
    let subject = subject_of(pipeline, label, &all);
    let key = ["prediction_id", "model"].iter().filter_map(|name| all.position(name)).collect();
    definition(pipeline, label, OUTCOMES_SUFFIX, all, (TopicKind::Table, key, subject))
}

/// Whether the KPI or a monitored slice names this input.
fn is_named(pipeline: &Pipeline, input: &str) -> bool {
    let in_kpi = pipeline.kpi.as_ref().is_some_and(|kpi| {
        let mut words = kpi.sql.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.any(|word| word.eq_ignore_ascii_case(input))
    });
    in_kpi || pipeline.monitors.slices.iter().any(|slice| slice == input)
}

fn subject_of(pipeline: &Pipeline, label: &TopicDefinition, all: &Columns) -> Option<usize> {
    let name = &label.schema.columns.get(label.schema.subject?)?.name;
    if pipeline.entity.contains(name) { all.position(name) } else { None }
}

fn definition(
    pipeline: &Pipeline,
    label: &TopicDefinition,
    suffix: &str,
    all: Columns,
    (kind, key, subject): (TopicKind, Vec<usize>, Option<usize>),
) -> TopicDefinition {
    let name = format!("{}{suffix}", pipeline.name);
    let event_time = all.position("t").unwrap_or_default();
    let schema = TopicSchema {
        name: name.clone(),
        version: label.schema.version,
        kind,
        columns: all.columns,
        key,
        event_time,
        subject,
        partitions: 1,
        derived: true,
    };
    let text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    TopicDefinition {
        hash: domain_hash(b"falaj.definition.topic.v1", &[name.as_bytes(), text.as_bytes()]),
        schema: Arc::new(schema),
        description: match suffix {
            PREDICTIONS_SUFFIX => format!("Every prediction of `{}`.", pipeline.name),
            _ => format!("Predictions of `{}` whose label has come.", pipeline.name),
        },
        owner: pipeline.owner.clone(),
        column_descriptions: all.descriptions,
        retention_us: label.retention_us,
        inbox: false,
        jurisdictions: label.jurisdictions.clone(),
        file: pipeline.file.clone(),
        text: text.into(),
        expectations: Vec::new(),
        ..label.clone()
    }
}

/// The views that a pipeline adds, as they would be written by hand.
pub fn views(pipeline: &Pipeline) -> Vec<SourceFile> {
    let mut files = vec![performance(pipeline, None)];
    files.extend(pipeline.monitors.slices.iter().map(|slice| performance(pipeline, Some(slice))));
    if let Some(kpi) = &pipeline.kpi {
        let name = format!("{}_kpi", pipeline.name);
        let text = format!(
            "-- owner: {owner}\n-- description: What predictions of {model} were worth, by model.\n\
             CREATE VIEW {name} AS\nSELECT model,\n{sql}\nAS kpi\nFROM {outcomes} \
             WHERE served GROUP BY model;\n",
            owner = pipeline.owner.as_deref().unwrap_or("platform"),
            model = pipeline.name,
            outcomes = pipeline.outcomes_name(),
            sql = kpi.sql,
        );
        files.push(source(pipeline, &name, text));
    }
    files
}

fn source(pipeline: &Pipeline, name: &str, text: String) -> SourceFile {
    SourceFile::new(format!("{} ({name})", pipeline.file.display()), text)
}

/// The terms of each metric that is an average over judged predictions.
fn averages(task: Task) -> &'static [(&'static str, &'static str)] {
    match task {
        Task::Binary | Task::Multiclass => {
            &[("accuracy", "correct"), ("log_loss", "log_loss"), ("brier", "brier")]
        }
        Task::Regression => &[("mae", "absolute_error"), ("mean_error", "error")],
    }
}

fn performance(pipeline: &Pipeline, slice: Option<&String>) -> SourceFile {
    let model = &pipeline.name;
    let by = slice.map(|slice| format!("_by_{slice}")).unwrap_or_default();
    let name = format!("{model}_performance{by}");
    let key = slice.map_or_else(|| "model".to_owned(), |slice| format!("model, {slice}"));
    let mut windows: Vec<(String, String)> = pipeline
        .monitors
        .metric_windows_us
        .iter()
        .map(|width_us| {
            let frame = format!(
                "(PARTITION BY {key} ORDER BY t RANGE BETWEEN INTERVAL '{width_us} microseconds' \
                 PRECEDING AND CURRENT ROW)"
            );
            (span_name(*width_us), frame)
        })
        .collect();
    windows.push(("ever".to_owned(), format!("(PARTITION BY {key})")));
    let mut text = format!(
        "-- owner: {}\n-- description: Prequential performance of {model}, by {key}.\n\
         CREATE VIEW {name} AS\nSELECT\n    {key}",
        pipeline.owner.as_deref().unwrap_or("platform"),
    );
    for (window, frame) in &windows {
        // Writing to a string cannot fail.
        let _ = write!(text, ",\n    count(*) OVER {frame} AS judged_{window}");
        for (metric, term) in averages(pipeline.task) {
            let _ = write!(text, ",\n    avg({term}) OVER {frame} AS {metric}_{window}");
        }
        if pipeline.task == Task::Regression {
            let _ = write!(text, ",\n    sqrt(avg(squared_error) OVER {frame}) AS rmse_{window}");
        }
    }
    let _ = write!(text, "\nFROM {};\n", pipeline.outcomes_name());
    source(pipeline, &name, text)
}

/// A span as the end of a column's name: `1d`, `90m`, `1500us`.
fn span_name(span_us: u64) -> String {
    let units = [(86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s")];
    let whole = units.into_iter().find(|(unit, _)| span_us.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{span_us}us"), |(unit, name)| format!("{}{name}", span_us / unit))
}
