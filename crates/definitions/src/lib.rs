//! Definitions: `topics/*.toml`, `dataflows/**/*.sql` and `dataflows/**/*.toml` parsed, checked and planned.
//!
//! Why it exists: one place where files become typed plans, with errors that name file, line and
//! column. It knows neither log nor engine nor storage; it turns files into data. The only crate
//! that names DataFusion.

pub mod admission;
pub mod catalog;
pub mod conform;
pub mod diagnostics;
pub mod door;
pub mod evolution;
pub mod expectations;
pub mod functions;
pub mod oracle;
pub mod pipelines;
pub mod plan;
pub mod program;
pub mod reasons;
pub mod rejections;
pub mod report;
pub mod rows;
pub mod sql;
pub mod text;
pub mod topics;
