//! `dataflows/**/*.sql`: one `CREATE VIEW name AS SELECT …` per file, planned.
//!
//! Why it exists: a feature is defined once, in standard SQL, and everything that this crate does
//! not positively recognise is refused with its place and what to write instead. Never a silently
//! different meaning. Does not know how plans are executed.

mod aggregates;
mod build;
mod frames;
mod header;
mod joins;
mod keyed;
mod keys;
mod literals;
mod nulls;
pub(crate) mod oracle_view;
mod refusal;
mod scalar;
mod scope;
pub(crate) mod statement;
mod types;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::catalog::Topics;
use crate::diagnostics::{Diagnostic, SourceFile};
use crate::plan::ViewPlan;

pub(crate) use aggregates::{Call as OracleCall, digits};
pub use view::ENGINE_VERSION;

#[cfg(test)]
pub(crate) mod tests;

/// Plans the view that `text`, the contents of `file`, defines over topics and already planned
/// views.
///
/// # Errors
/// Everything that is wrong with it, each with line and column.
pub fn plan_view(
    file: &Path,
    text: &str,
    topics: &Topics,
    views: &BTreeMap<String, Arc<ViewPlan>>,
) -> Result<ViewPlan, Vec<Diagnostic>> {
    let world = view::World { topics, views };
    statement::parse(text).and_then(|statement| view::plan(&statement, &world)).map_err(
        |refusals| {
            let source = SourceFile::new(file, text);
            refusals.into_iter().map(|refusal| refusal.into_diagnostic(&source)).collect()
        },
    )
}

/// The name of the view that `text` defines; `None` when it does not parse.
pub fn view_name(text: &str) -> Option<String> {
    statement::parse(text).ok().map(|statement| statement.name)
}

/// The names of the topics and views that `text` reads, for ordering; empty when it does not parse
/// ([`plan_view`] says why).
pub fn references(text: &str) -> BTreeSet<String> {
    let Ok(statement) = statement::parse(text) else { return BTreeSet::new() };
    let joined = statement.joins.iter().map(|join| join.relation.name.clone());
    std::iter::once(statement.source.name.clone()).chain(joined).collect()
}
