//! Why the engine refused or stopped.
//!
//! Does not know how a caller recovers; every message says what to do.

use falaj_definitions::program::ProgramError;

/// Why the engine refused or stopped. After any error from a running engine its state is unknown:
/// stop it and start another from the last checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// A plan that cannot be executed.
    #[error("view `{view}` cannot be executed: {why}")]
    Plan {
        /// The view.
        view: String,
        /// What is wrong.
        why: String,
    },
    /// Rows that are not what a plan or schema describes.
    #[error("{place}: rows are not what the plan describes: {why}")]
    Rows {
        /// The topic or view.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// A program refused its batch.
    #[error("{place}: {source}")]
    Program {
        /// The view and stage.
        place: String,
        /// The refusal.
        source: ProgramError,
    },
    /// An entry of the state to resume from that no version has written.
    #[error("state entry {key}: {why}; delete the state and rebuild it from the log")]
    State {
        /// The entry's key in hexadecimal.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// An epoch that does not continue the engine's input.
    #[error("epoch {epoch} with T {t} does not follow T {last}: submit epochs in log order")]
    NotAscending {
        /// The epoch's number.
        epoch: u64,
        /// Its `T`.
        t: u64,
        /// The last `T` that was submitted or resumed from.
        last: u64,
    },
    /// Worker threads could not be started.
    #[error("the engine's worker threads did not start: {0}")]
    Runtime(String),
    /// A worker panicked.
    #[error("worker {worker} panicked: {message}; start another engine from the last checkpoint")]
    Panicked {
        /// Index of the worker.
        worker: usize,
        /// The panic's message.
        message: String,
    },
    /// The engine has been stopped.
    #[error("the engine has been stopped")]
    Stopped,
}

impl EngineError {
    pub(crate) fn rows(place: &str, why: impl ToString) -> Self {
        Self::Rows { place: place.to_owned(), why: why.to_string() }
    }

    pub(crate) fn state(key: &[u8], why: impl ToString) -> Self {
        Self::State { key: falaj_event::ids::hex(key), why: why.to_string() }
    }
}
