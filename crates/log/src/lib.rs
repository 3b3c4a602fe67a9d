//! The log: its contract, its permanent bytes (blocks, epoch records), the sequencer, an in-memory
//! log and the conformance suite that every log passes.
//!
//! Does not know topics' definitions in files, views or the engine; sees schemas as given.

pub mod contract;
pub mod epoch;
