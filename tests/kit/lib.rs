//! The harness of the integration tests and benches: temporary nodes, definitions in memory, where
//! data sets lie.
//!
//! Does not know which test uses it.

pub mod check;
pub mod duckdb;
pub mod engine;
pub mod generate;
pub mod history;
pub mod logged;
pub mod node;
pub mod oracle;
pub mod random;
pub mod reference;
pub mod simulated;
pub mod state;

use std::path::PathBuf;

/// The root of the source tree.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, PathBuf::from)
}

/// A data set that lies beside a working copy, or in the directory that `FALAJ_SHARED` names; `None`,
/// with a line that says so, where it does not.
pub fn shared_data(name: &str) -> Option<PathBuf> {
    let beside = root().parent()?.join("shared");
    let named = std::env::var_os("FALAJ_SHARED").map(PathBuf::from);
    let path = named.unwrap_or(beside).join("data").join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not there", path.display());
    None
}

/// Whether the slow tests were asked for (`FALAJ_SLOW=1`); says so where they were not.
pub fn slow(what: &str) -> bool {
    let asked = std::env::var_os("FALAJ_SLOW").is_some_and(|value| value != "0");
    if !asked {
        println!("skipped: {what} (set FALAJ_SLOW=1)");
    }
    asked
}
