//! Views planned in the order of what they read.
//!
//! Does not know SQL: names and references come from [`crate::sql`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::{Definition, DefinitionKind, Topics};
use crate::diagnostics::{Diagnostics, SourceFile};
use crate::pipelines::{OUTCOMES_SUFFIX, PREDICTIONS_SUFFIX};
use crate::plan::ViewPlan;
use crate::sql::{plan_view, references, view_name};

/// A view's file, looked at as far as ordering needs it.
struct Declared<'a> {
    file: &'a SourceFile,
    reads: BTreeSet<String>,
}

/// Plans all views; those that read a wrong one are left out in silence, because the wrong one is
/// reported.
///
/// `before` are views that were planned earlier; they may be read, and their names are taken.
pub(super) fn plan(
    files: &[SourceFile],
    topics: &Topics,
    before: &[Arc<ViewPlan>],
    definitions: &mut Vec<Definition>,
    out: &mut Diagnostics,
) -> Vec<Arc<ViewPlan>> {
    let mut declared = declare(files, topics, out);
    for view in before {
        if let Some(again) = declared.remove(&view.name) {
            let message = format!("`{}` is already the name of a view", view.name);
            let span = find_word(again.file.text(), &view.name);
            out.push(again.file.error("duplicate-name", span, message));
        }
    }
    let (order, cycles) = order(&declared);
    let mut failed: BTreeSet<String> = BTreeSet::new();
    for cycle in cycles {
        report_cycle(&cycle, &declared, out);
        failed.extend(cycle);
    }
    let before = before.iter().map(|view| (view.name.clone(), Arc::clone(view)));
    let mut planned: BTreeMap<String, Arc<ViewPlan>> = before.collect();
    let mut views = Vec::new();
    for name in order {
        let Some(view) = declared.get(&name) else {
            continue;
        };
        if failed.contains(&name) || view.reads.iter().any(|read| failed.contains(read)) {
            failed.insert(name);
            continue;
        }
        match plan_view(view.file.path(), view.file.text(), topics, &planned) {
            Ok(plan) => {
                let plan = Arc::new(plan);
                definitions.push(Definition {
                    kind: DefinitionKind::View,
                    name: name.clone(),
                    version: None,
                    hash: plan.hash,
                    text: Arc::clone(view.file.text()),
                    file: view.file.path().to_owned(),
                });
                planned.insert(name, Arc::clone(&plan));
                views.push(plan);
            }
            Err(findings) => {
                failed.insert(name);
                out.extend(findings);
            }
        }
    }
    views
}

/// Whether a view reads, directly or not, what model pipelines add to the catalog: such views are
/// planned after the pipelines. Files are split into those that do not and those that do.
pub(super) fn split_by_pipelines(files: &[SourceFile]) -> (Vec<SourceFile>, Vec<SourceFile>) {
    let derived =
        |name: &String| name.ends_with(PREDICTIONS_SUFFIX) || name.ends_with(OUTCOMES_SUFFIX);
    let mut late: BTreeSet<String> = BTreeSet::new();
    let reads: Vec<(Option<String>, BTreeSet<String>)> =
        files.iter().map(|file| (view_name(file.text()), references(file.text()))).collect();
    loop {
        let more: Vec<String> = reads
            .iter()
            .filter(|(_, reads)| reads.iter().any(|read| derived(read) || late.contains(read)))
            .filter_map(|(name, _)| name.clone())
            .filter(|name| !late.contains(name))
            .collect();
        if more.is_empty() {
            break;
        }
        late.extend(more);
    }
    let is_late =
        |file: &&SourceFile| view_name(file.text()).is_some_and(|name| late.contains(&name));
    let (after, before): (Vec<_>, Vec<_>) = files.iter().partition(is_late);
    (before.into_iter().cloned().collect(), after.into_iter().cloned().collect())
}

/// All views by name. Files that do not parse are reported here, for they have no name.
fn declare<'a>(
    files: &'a [SourceFile],
    topics: &Topics,
    out: &mut Diagnostics,
) -> BTreeMap<String, Declared<'a>> {
    let mut declared: BTreeMap<String, Declared<'a>> = BTreeMap::new();
    for file in files {
        let Some(name) = view_name(file.text()) else {
            if let Err(findings) = plan_view(file.path(), file.text(), topics, &BTreeMap::new()) {
                out.extend(findings);
            }
            continue;
        };
        let other = match (topics.get(&name), declared.get(&name)) {
            (Some(topic), _) => Some(("topic", topic.file.as_path())),
            (None, Some(view)) => Some(("view", view.file.path())),
            (None, None) => None,
        };
        if let Some((kind, path)) = other {
            let message =
                format!("`{name}` is already the name of a {kind}, declared in {}", path.display());
            out.push(file.error("duplicate-name", find_word(file.text(), &name), message));
            continue;
        }
        declared.insert(name, Declared { file, reads: references(file.text()) });
    }
    declared
}

/// Where `word` first stands in `text`, letters of any case.
fn find_word(text: &str, word: &str) -> Range<usize> {
    let (lower, word) = (text.to_ascii_lowercase(), word.to_ascii_lowercase());
    let boundary = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    lower
        .match_indices(&word)
        .map(|(start, _)| start..start + word.len())
        .find(|span| {
            boundary(lower[..span.start].chars().next_back())
                && boundary(lower[span.end..].chars().next())
        })
        .unwrap_or(0..0)
}

/// Names in an order in which every view comes after what it reads (by name where that leaves a
/// choice), and the cycles that have no such order, each from its least name.
fn order(declared: &BTreeMap<String, Declared<'_>>) -> (Vec<String>, Vec<Vec<String>>) {
    let mut order = Vec::new();
    let mut done: BTreeSet<&str> = BTreeSet::new();
    let mut left: BTreeSet<&str> = declared.keys().map(String::as_str).collect();
    let waits = |name: &str, done: &BTreeSet<&str>| -> Option<&str> {
        let reads = &declared.get(name)?.reads;
        reads
            .iter()
            .map(String::as_str)
            .find(|read| declared.contains_key(*read) && !done.contains(read))
    };
    while let Some(next) = left.iter().copied().find(|name| waits(name, &done).is_none()) {
        left.remove(next);
        done.insert(next);
        order.push(next.to_owned());
    }
    // What is left reads, directly or not, a cycle: following it from anywhere ends in one.
    let mut cycles = Vec::new();
    while let Some(start) = left.first().copied() {
        let mut path: Vec<&str> = Vec::new();
        let mut at = start;
        while !path.contains(&at) {
            path.push(at);
            match waits(at, &done) {
                Some(next) => at = next,
                None => break,
            }
        }
        let from = path.iter().position(|name| *name == at).unwrap_or(0);
        let mut cycle: Vec<&str> = path.drain(from..).collect();
        let least = (0..cycle.len()).min_by_key(|index| cycle[*index]).unwrap_or(0);
        cycle.rotate_left(least);
        if waits(cycle[0], &done).is_some() {
            cycles.push(cycle.iter().map(|name| (*name).to_owned()).collect());
        }
        // Members count as done, so that what reads the cycle is not taken for another one.
        for name in &cycle {
            left.remove(name);
            done.insert(name);
            order.push((*name).to_owned());
        }
        while let Some(next) = left.iter().copied().find(|name| waits(name, &done).is_none()) {
            left.remove(next);
            done.insert(next);
            order.push(next.to_owned());
        }
    }
    (order, cycles)
}

fn report_cycle(
    cycle: &[String],
    declared: &BTreeMap<String, Declared<'_>>,
    out: &mut Diagnostics,
) {
    let (Some(first), Some(next)) = (cycle.first(), cycle.get(1).or(cycle.first())) else {
        return;
    };
    let Some(view) = declared.get(first) else {
        return;
    };
    let text = view.file.text();
    // The first mention after the view's own name is where it reads the next one.
    let own = find_word(text, first).end;
    let found = find_word(text.get(own..).unwrap_or_default(), next);
    let span = own + found.start..own + found.end;
    let message = match cycle.len() {
        1 => format!("view `{first}` reads itself"),
        _ => format!("views read each other: {} → {first}", cycle.join(" → ")),
    };
    let finding = view.file.error("cycle", span, message);
    out.push(finding.with_help("a view can only read topics and views that do not depend on it"));
}
