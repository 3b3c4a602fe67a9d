//! The platform's own topics, declared in `topics/system/*.toml` and carried by the binary, and the
//! rejected topics that are made from a template there.
//!
//! Does not know who writes to them.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use falaj_event::TopicSchema;
use falaj_event::hash::domain_hash;

use super::{Origin, RESERVED_PREFIX, TopicDefinition};
use crate::diagnostics::{Diagnostics, SourceFile};

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        [$((
            concat!("topics/system/", $name, ".toml"),
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../topics/system/", $name, ".toml")),
        )),*]
    };
}

/// Path and text of every embedded file.
const FILES: [(&str, &str); 7] =
    embedded!["baselines", "definitions", "drift", "epochs", "models", "runs", "serving"];

/// Path and text of the template of rejected topics.
const REJECTED: [(&str, &str); 1] = embedded!["rejected"];

/// What the name of a topic of rejected events ends with.
pub const REJECTED_SUFFIX: &str = ".rejected";

/// The platform's own topics, in name order.
///
/// # Errors
/// Findings in the embedded files (a defect of the build; a test keeps them clean).
pub fn system_topics() -> Result<Vec<Arc<TopicDefinition>>, Diagnostics> {
    static PARSED: OnceLock<Result<Vec<Arc<TopicDefinition>>, Diagnostics>> = OnceLock::new();
    PARSED
        .get_or_init(|| FILES.iter().map(|(path, text)| parse(path, text).map(Arc::new)).collect())
        .clone()
}

/// The topic whose definition was stored as `text`, be it the platform's own or not.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse_stored(name: &str, text: &str) -> Result<TopicDefinition, Diagnostics> {
    let origin = if name.starts_with(RESERVED_PREFIX) { Origin::System } else { Origin::User };
    super::parse::parse(&SourceFile::new(format!("falaj.definitions/{name}"), text), origin)
}

/// Whether `text` is that of an embedded file: a checkout that holds them declares nothing new.
pub fn is_embedded(text: &str) -> bool {
    FILES.iter().chain(&REJECTED).any(|(_, embedded)| *embedded == text)
}

fn parse(path: &str, text: &str) -> Result<TopicDefinition, Diagnostics> {
    super::parse::parse(&SourceFile::new(path, text), Origin::System)
}

fn template() -> Result<TopicDefinition, Diagnostics> {
    static PARSED: OnceLock<Result<TopicDefinition, Diagnostics>> = OnceLock::new();
    let [(path, text)] = REJECTED;
    PARSED.get_or_init(|| parse(path, text)).clone()
}

/// The topic that takes what `source` rejects: `<name>.rejected`, made from the template. `None` for
/// the platform's own topics: whoever appends to them is told.
///
/// The template's `subject` column takes the type of the source's subject (and is left out where it
/// has none), so that one erasure reaches both. `row`, the original, is always personal data: what
/// nobody could read may hold anything. The version grows with the source's and the template's.
///
/// # Errors
/// As [`system_topics`].
pub fn rejected_topic(source: &TopicDefinition) -> Result<Option<TopicDefinition>, Diagnostics> {
    let rejects = source.schema.name.ends_with(REJECTED_SUFFIX);
    if rejects || source.schema.name.starts_with(RESERVED_PREFIX) {
        return Ok(None);
    }
    let template = template()?;
    let mut columns = template.schema.columns.clone();
    let mut column_descriptions = template.column_descriptions.clone();
    let dearest = source.schema.columns.iter().map(|column| column.classification).max();
    for column in columns.iter_mut().filter(|column| column.name == "row") {
        column.classification = dearest.unwrap_or_default();
    }
    let mut subject = template.schema.subject;
    if let Some(index) = subject {
        match source.schema.subject.and_then(|of_source| source.schema.columns.get(of_source)) {
            Some(of_source) => columns[index].column_type = of_source.column_type.clone(),
            None => {
                columns.remove(index);
                column_descriptions.remove(index);
                subject = None;
            }
        }
    }
    let name = format!("{}{REJECTED_SUFFIX}", source.schema.name);
    let position = |index: usize| {
        let wanted = &template.schema.columns[index].name;
        columns.iter().position(|column| column.name == *wanted)
    };
    let schema = TopicSchema {
        version: source.schema.version.saturating_add(template.schema.version - 1),
        kind: template.schema.kind,
        key: template.schema.key.iter().filter_map(|index| position(*index)).collect(),
        event_time: position(template.schema.event_time).unwrap_or_default(),
        subject,
        partitions: template.schema.partitions,
        derived: true,
        name: name.clone(),
        columns,
    };
    Ok(Some(TopicDefinition {
        schema: Arc::new(schema),
        description: format!("What `{}` rejected, and why.", source.schema.name),
        owner: source.owner.clone(),
        column_descriptions,
        expectations: Vec::new(),
        skew_us: template.skew_us,
        max_gap_us: template.max_gap_us,
        retention_us: source.retention_us,
        inbox: false,
        jurisdictions: source.jurisdictions.clone(),
        file: PathBuf::from(&source.file),
        text: Arc::clone(&template.text),
        hash: domain_hash(
            b"falaj.definition.topic.v1",
            &[name.as_bytes(), template.text.as_bytes(), &source.hash.0],
        ),
    }))
}
