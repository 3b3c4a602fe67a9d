//! Model pipelines read against the topics and views of the same directory.
//!
//! Does not know what a pipeline says: that stands in [`crate::pipelines`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Definition, DefinitionKind, Topics, name_span};
use crate::diagnostics::{Diagnostics, SourceFile};
use crate::pipelines::{Pipeline, derived, parse_pipeline};
use crate::plan::ViewPlan;
use crate::sql::view_name;
use crate::topics::rejected_topic;

/// What pipelines are checked against.
pub(super) struct World<'a> {
    pub topics: &'a Topics,
    pub views: &'a [Arc<ViewPlan>],
    pub broken: &'a BTreeSet<String>,
}

/// Names of views that are declared, and too wrong to be planned.
pub(super) fn broken(files: &[SourceFile], views: &[Arc<ViewPlan>]) -> BTreeSet<String> {
    let mut broken: BTreeSet<String> =
        files.iter().filter_map(|file| view_name(file.text())).collect();
    for view in views {
        broken.remove(&view.name);
    }
    broken
}

/// All pipelines by name.
pub(super) fn read(
    files: &[SourceFile],
    world: &World<'_>,
    definitions: &mut Vec<Definition>,
    out: &mut Diagnostics,
) -> Vec<Arc<Pipeline>> {
    let mut pipelines: BTreeMap<String, Arc<Pipeline>> = BTreeMap::new();
    for file in files {
        let pipeline = match parse_pipeline(file, world.topics, world.views, world.broken) {
            Ok((pipeline, notes)) => {
                out.extend(notes);
                Arc::new(pipeline)
            }
            Err(findings) => {
                out.extend(findings);
                continue;
            }
        };
        if let Some(first) = pipelines.get(&pipeline.name) {
            let message = format!(
                "pipeline `{}` is also declared in {}",
                pipeline.name,
                first.file.display()
            );
            out.push(file.error("duplicate-name", name_span(file), message));
            continue;
        }
        definitions.push(Definition {
            kind: DefinitionKind::Pipeline,
            name: pipeline.name.clone(),
            version: None,
            hash: pipeline.hash,
            text: Arc::clone(&pipeline.text),
            file: pipeline.file.clone(),
        });
        pipelines.insert(pipeline.name.clone(), pipeline);
    }
    pipelines.into_values().collect()
}

/// Adds the topics that follow from pipelines, and gives the views that do.
pub(super) fn add_derived(
    pipelines: &[Arc<Pipeline>],
    topics: &mut Topics,
    definitions: &mut Vec<Definition>,
    out: &mut Diagnostics,
) -> Vec<SourceFile> {
    let mut views = Vec::new();
    for pipeline in pipelines {
        let Some(label) = topics.get(&pipeline.label.topic).cloned() else { continue };
        let predictions = derived::predictions_topic(pipeline, &label);
        let outcomes = derived::outcomes_topic(pipeline, &label);
        for topic in [predictions, outcomes] {
            match rejected_topic(&topic) {
                Ok(Some(rejected)) => drop(topics.insert(Arc::new(rejected))),
                Ok(None) => {}
                Err(findings) => out.extend(findings),
            }
            definitions.push(super::definition_of(&topic));
            topics.insert(Arc::new(topic));
        }
        views.extend(derived::views(pipeline));
    }
    views
}
