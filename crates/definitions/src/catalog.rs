//! The catalog: everything that a directory of definitions declares, checked together.
//!
//! Why it exists: topics and views refer to each other by name, so they are right or wrong as a
//! whole; one hash names the whole. Does not know where the catalog is used, nor how a view's SQL is
//! planned.

mod files;
mod pipelines;
#[cfg(test)]
mod tests;
mod views;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use falaj_event::hash::domain_hash;
use falaj_event::{Hash256, TopicSchema};
use serde::Serialize;

use crate::diagnostics::{Diagnostics, SourceFile};
use crate::pipelines::Pipeline;
use crate::plan::ViewPlan;
use crate::topics::{
    REJECTED_SUFFIX, TopicDefinition, is_embedded, parse_topic, rejected_topic, system_topics,
};

/// Topics by name, in name order.
#[derive(Clone, Debug, Default)]
pub struct Topics {
    by_name: BTreeMap<String, Arc<TopicDefinition>>,
}

impl Topics {
    /// No topics.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a topic; returns the one that had its name.
    pub fn insert(&mut self, topic: Arc<TopicDefinition>) -> Option<Arc<TopicDefinition>> {
        self.by_name.insert(topic.schema.name.clone(), topic)
    }

    /// The topic called `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<TopicDefinition>> {
        self.by_name.get(name)
    }

    /// All topics in name order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TopicDefinition>> {
        self.by_name.values()
    }

    /// All names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// All schemas in name order.
    pub fn schemas(&self) -> impl Iterator<Item = &Arc<TopicSchema>> {
        self.by_name.values().map(|topic| &topic.schema)
    }

    /// The topic that takes what `name` rejects, if there is one.
    pub fn rejected(&self, name: &str) -> Option<&Arc<TopicDefinition>> {
        self.by_name.get(&format!("{name}{REJECTED_SUFFIX}"))
    }

    /// Number of topics.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

/// What is defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DefinitionKind {
    /// A topic.
    Topic,
    /// A feature view.
    View,
    /// A model pipeline.
    Pipeline,
}

impl DefinitionKind {
    /// The name in `falaj.definitions`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::View => "view",
            Self::Pipeline => "pipeline",
        }
    }
}

/// One definition as `falaj.definitions` records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// What is defined.
    pub kind: DefinitionKind,
    /// Its name, unique among all kinds.
    pub name: String,
    /// A topic's schema version.
    pub version: Option<u32>,
    /// Hash of everything that decides its contents.
    pub hash: Hash256,
    /// The definition as written.
    pub text: Arc<str>,
    /// Where it was written.
    pub file: PathBuf,
}

/// Everything that a directory of definitions declares, and the platform's own topics.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// Declared topics, system topics and rejected topics.
    pub topics: Topics,
    /// Views, each after everything that it reads.
    pub views: Vec<Arc<ViewPlan>>,
    /// Model pipelines by name.
    pub pipelines: Vec<Arc<Pipeline>>,
    /// What was written, by (kind, name): rejected topics, which follow from their source, are not
    /// among them.
    pub definitions: Vec<Definition>,
    /// Names all of it: SHA-256 (domain `falaj.definitions.v1`) of kind, name and hash of every
    /// topic, view and pipeline, in order.
    pub hash: Hash256,
    /// Warnings and notes.
    pub findings: Diagnostics,
}

impl Catalog {
    /// Reads `directory/topics/**/*.toml`, `directory/dataflows/**/*.sql` and
    /// `directory/dataflows/**/*.toml`.
    ///
    /// # Errors
    /// Everything that is wrong, files that could not be read among it, sorted by place.
    pub fn load(directory: &Path) -> Result<Self, Diagnostics> {
        let mut out = Diagnostics::new();
        let found = files::collect(directory, &mut out);
        Self::build(&found.topics, &found.views, &found.pipelines, out)
    }

    /// The catalog of files in memory.
    ///
    /// # Errors
    /// Everything that is wrong, sorted by place.
    pub fn from_sources(topics: &[SourceFile], views: &[SourceFile]) -> Result<Self, Diagnostics> {
        Self::build(topics, views, &[], Diagnostics::new())
    }

    /// As [`Self::from_sources`], with model pipelines.
    ///
    /// # Errors
    /// Everything that is wrong, sorted by place.
    pub fn with_pipelines(
        topics: &[SourceFile],
        views: &[SourceFile],
        pipelines: &[SourceFile],
    ) -> Result<Self, Diagnostics> {
        Self::build(topics, views, pipelines, Diagnostics::new())
    }

    /// The view called `name`.
    pub fn view(&self, name: &str) -> Option<&Arc<ViewPlan>> {
        self.views.iter().find(|view| view.name == name)
    }

    /// The model pipeline called `name`.
    pub fn pipeline(&self, name: &str) -> Option<&Arc<Pipeline>> {
        self.pipelines.iter().find(|pipeline| pipeline.name == name)
    }

    fn build(
        topic_files: &[SourceFile],
        view_files: &[SourceFile],
        pipeline_files: &[SourceFile],
        mut out: Diagnostics,
    ) -> Result<Self, Diagnostics> {
        let (mut topics, mut definitions) = build_topics(topic_files, &mut out);
        let (early, mut late) = views::split_by_pipelines(view_files);
        let mut views = views::plan(&early, &topics, &[], &mut definitions, &mut out);
        let broken = pipelines::broken(&early, &views);
        let world = pipelines::World { topics: &topics, views: &views, broken: &broken };
        let pipelines = pipelines::read(pipeline_files, &world, &mut definitions, &mut out);
        late.extend(pipelines::add_derived(&pipelines, &mut topics, &mut definitions, &mut out));
        views.extend(views::plan(&late, &topics, &views, &mut definitions, &mut out));
        definitions.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        let hash = catalog_hash(&topics, &views, &pipelines);
        let mut findings = out.clone();
        findings.sort();
        out.into_result(Self { topics, views, pipelines, definitions, hash, findings })
    }
}

/// Parses all topics, and adds the platform's own and the rejected ones.
fn build_topics(files: &[SourceFile], out: &mut Diagnostics) -> (Topics, Vec<Definition>) {
    let mut topics = Topics::new();
    let mut definitions = Vec::new();
    match system_topics() {
        Ok(system) => {
            for topic in system {
                definitions.push(definition_of(&topic));
                topics.insert(topic);
            }
        }
        Err(findings) => out.extend(findings),
    }
    for file in files.iter().filter(|file| !is_embedded(file.text())) {
        let topic = match parse_topic(file) {
            Ok(topic) => Arc::new(topic),
            Err(findings) => {
                out.extend(findings);
                continue;
            }
        };
        if let Some(first) = topics.get(&topic.schema.name) {
            let message = format!(
                "topic `{}` is also declared in {}",
                topic.schema.name,
                first.file.display()
            );
            out.push(file.error("duplicate-name", name_span(file), message));
            continue;
        }
        match rejected_topic(&topic) {
            Ok(rejected) => {
                if let Some(rejected) = rejected {
                    topics.insert(Arc::new(rejected));
                }
            }
            Err(findings) => out.extend(findings),
        }
        definitions.push(definition_of(&topic));
        topics.insert(topic);
    }
    (topics, definitions)
}

fn definition_of(topic: &TopicDefinition) -> Definition {
    Definition {
        kind: DefinitionKind::Topic,
        name: topic.schema.name.clone(),
        version: Some(topic.schema.version),
        hash: topic.hash,
        text: Arc::clone(&topic.text),
        file: topic.file.clone(),
    }
}

/// The line that begins with `name`, or the first.
pub(super) fn name_span(file: &SourceFile) -> std::ops::Range<usize> {
    let mut start = 0;
    for line in file.text().split_inclusive('\n') {
        if line.trim_start().starts_with("name") {
            return start..start + line.trim_end().len();
        }
        start += line.len();
    }
    0..0
}

fn catalog_hash(topics: &Topics, views: &[Arc<ViewPlan>], pipelines: &[Arc<Pipeline>]) -> Hash256 {
    let mut entries: Vec<(DefinitionKind, &str, Hash256)> = topics
        .iter()
        .map(|topic| (DefinitionKind::Topic, topic.schema.name.as_str(), topic.hash))
        .chain(views.iter().map(|view| (DefinitionKind::View, view.name.as_str(), view.hash)))
        .chain(
            pipelines
                .iter()
                .map(|found| (DefinitionKind::Pipeline, found.name.as_str(), found.hash)),
        )
        .collect();
    entries.sort();
    let parts: Vec<&[u8]> = entries
        .iter()
        .flat_map(|(kind, name, hash)| [kind.as_str().as_bytes(), name.as_bytes(), &hash.0])
        .collect();
    domain_hash(b"falaj.definitions.v1", &parts)
}
