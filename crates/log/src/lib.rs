//! The log: its contract, its permanent bytes (blocks, epoch records), the sequencer, an in-memory
//! log and the conformance suite that every log passes.
//!
//! Does not know topics' definitions in files, views or the engine; sees schemas as given.

pub mod admission;
mod ahead;
pub mod baseline;
pub mod block;
pub mod bytes;
pub mod clock;
pub mod close;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod contract;
mod dedup;
pub mod epoch;
pub mod memory;
mod merkle;
pub mod pii;
mod queue;
pub mod reader;
pub mod rows;
pub mod schemas;
pub mod sequencer;
pub mod submission;
#[cfg(test)]
mod testing;

pub use admission::{Admission, AdmitAll, Candidate, Closing, Refusal};
pub use contract::{BlockId, BlockLocation, Log, LogError, ProducerOutcome, StagedBlock};
pub use epoch::{ClockMode, EpochEntry, EpochRecord, PartitionEntry, ProducerEntry};
pub use memory::MemoryLog;
pub use reader::{EpochEvents, PartitionEvents, PiiMode, ReadError, ReadOptions, Reader};
pub use schemas::{SchemaProvider, Schemas};
pub use sequencer::{Options, Parts, Sequencer, SequencerHandle, SystemClock, WallClock};
pub use submission::{Ack, Duplicates, Ops, Origin, Rejections, Submission, SubmitError};
