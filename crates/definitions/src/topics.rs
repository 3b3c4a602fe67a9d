//! Topics as declared in `topics/*.toml`: schema, expectations and how the log keeps them.
//!
//! Does not know where files come from (see [`crate::catalog`]) or how events are stored. The
//! format of the files is described in `topics/README.md`.

mod columns;
pub(crate) mod fields;
mod literals;
mod parse;
mod system;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use falaj_event::{Hash256, TopicSchema};

use crate::diagnostics::{Diagnostics, SourceFile};
use crate::expectations::Expectation;
pub use system::{REJECTED_SUFFIX, is_embedded, parse_stored, rejected_topic, system_topics};

/// How far into the future of `T` an event may be dated when its topic does not say: 5 minutes.
pub const DEFAULT_SKEW_US: u64 = 5 * 60 * 1_000_000;

/// The longest silence after which an event still moves an event clock when its topic does not say:
/// 400 days, which a yearly event meets.
pub const DEFAULT_MAX_GAP_US: u64 = 400 * 24 * 3600 * 1_000_000;

/// What the names of the platform's own topics begin with.
pub const RESERVED_PREFIX: &str = "falaj.";

/// Whose definition it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The platform's own: names begin with [`RESERVED_PREFIX`] and topics may be derived.
    System,
    /// Anybody else's.
    User,
}

/// One topic, checked.
#[derive(Clone, Debug)]
pub struct TopicDefinition {
    /// What every other crate needs to know of it.
    pub schema: Arc<TopicSchema>,
    /// What the topic is for.
    pub description: String,
    /// Who answers for it.
    pub owner: Option<String>,
    /// What each column means; as many as `schema.columns`.
    pub column_descriptions: Vec<String>,
    /// What every event must meet.
    pub expectations: Vec<Expectation>,
    /// An event dated later than `T` plus this is rejected. Microseconds.
    pub skew_us: u64,
    /// The longest silence after which an event still moves an event clock; `None`: any.
    /// Microseconds.
    pub max_gap_us: Option<u64>,
    /// How long events are kept; `None` is for ever. Microseconds.
    pub retention_us: Option<u64>,
    /// Whether producers of the cluster that the log is on may write JSON events to an inbox of the
    /// topic (`format = "json"`).
    pub inbox: bool,
    /// Where the topic's events may be kept and read, e.g. `AE`. Empty: anywhere.
    pub jurisdictions: Vec<String>,
    /// The file that declares it.
    pub file: PathBuf,
    /// The text of that file (of a rejected topic: of the template).
    pub text: Arc<str>,
    /// SHA-256 (domain `falaj.definition.topic.v1`) of the name and the text; of a rejected topic
    /// also of its source's hash.
    pub hash: Hash256,
}

/// Reads one topic's file and checks it.
///
/// # Errors
/// Everything that is wrong with it, in the order of its lines.
pub fn parse_topic(source: &SourceFile) -> Result<TopicDefinition, Diagnostics> {
    parse::parse(source, Origin::User)
}
