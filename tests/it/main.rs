//! The integration tests, one binary.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

/// Damaged bytes are found, never served.
mod corruption;
/// Sudden death loses nothing acknowledged.
mod crash;
/// One log, one state.
mod digest;
/// The doors, without a node behind them.
mod doors;
/// Real events, end to end.
mod electricity;
/// One node through its doors.
mod end_to_end;
/// The log on a cluster.
mod fluvio;
/// The model loop of one node.
mod models;
/// Views against their meaning.
mod oracle;
/// What retention lets go, and what stays.
mod retention;
/// The architecture, as assertions.
mod tidy;
/// Training sets.
mod training;
/// What becomes of predictions.
mod watch;
