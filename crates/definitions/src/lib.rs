//! Definitions: `topics/*.toml` and `dataflows/**/*.sql` parsed, checked and planned.
//!
//! Why it exists: one place where files become typed plans, with errors that name file, line and
//! column. It knows neither log nor engine nor storage; it turns files into data. The only crate
//! that names DataFusion.

pub mod catalog;
pub mod diagnostics;
pub mod expectations;
pub mod functions;
pub mod plan;
pub mod program;
pub mod sql;
pub mod text;
pub mod topics;
