//! What can go wrong with the view store, in words that say where and what to do.
//!
//! Does not know who asked; a caller decides whether to rebuild, to retry or to tell the reader.

use std::path::{Path, PathBuf};

use falaj_event::{LogTime, ViewId};

use crate::store::Progress;

/// Why the store refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// Another handle holds the directory.
    #[error(
        "the state directory {path} is in use by another process or handle ({why}); stop it, or \
         give this node a directory of its own"
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// What the lock said.
        why: String,
    },
    /// Stored bytes are not what was written.
    #[error(
        "{file} is damaged: {why}; the log is the truth: remove the state directory and rebuild it"
    )]
    Damaged {
        /// The damaged file, or the directory where the file is not known.
        file: PathBuf,
        /// What does not fit.
        why: String,
    },
    /// The storage below failed.
    #[error("the state store failed while {doing}: {source}")]
    Storage {
        /// The operation.
        doing: &'static str,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Two views share an id.
    #[error("views `{first}` and `{second}` have the same id {view:?}; one definition must change")]
    DuplicateView {
        /// The id.
        view: ViewId,
        /// One view.
        first: String,
        /// The other.
        second: String,
    },
    /// A view that the store was not opened with.
    #[error("view {view:?} is not in this store's plan set")]
    UnknownView {
        /// The id.
        view: ViewId,
    },
    /// An epoch that does not follow the newest one.
    #[error("epoch {got} cannot be applied: the next epoch of this store is {expected}")]
    Gap {
        /// The epoch that would continue the store.
        expected: u64,
        /// The epoch that was offered.
        got: u64,
    },
    /// An epoch whose `T` does not fit its number.
    #[error("epoch {epoch} has T {got}, but the store is at epoch {at} with T {t}")]
    WrongTime {
        /// The epoch that was offered.
        epoch: u64,
        /// Its `T`.
        got: LogTime,
        /// The newest epoch.
        at: u64,
        /// The newest `T`.
        t: LogTime,
    },
    /// History before this has been folded away.
    #[error("view `{view}` keeps history from T {oldest} on; T {asked} is older")]
    NotRetained {
        /// The view's name.
        view: String,
        /// What was asked for.
        asked: LogTime,
        /// The oldest `T` that can be read now.
        oldest: LogTime,
    },
    /// The store has not got there.
    #[error("T {asked} has not been reached: the views are at {}", at(.progress))]
    NotYet {
        /// What was asked for.
        asked: LogTime,
        /// How far the views are.
        progress: Option<Progress>,
    },
}

fn at(progress: &Option<Progress>) -> String {
    match progress {
        Some(progress) => format!("T {} (epoch {})", progress.t, progress.epoch),
        None => "no epoch yet".to_owned(),
    }
}

/// Wraps a RocksDB error met in the store at `path`; damage names its file.
pub(crate) fn storage(path: &Path, doing: &'static str, error: rocksdb::Error) -> ViewError {
    let message = error.as_ref();
    if error.kind() == rocksdb::ErrorKind::Corruption {
        return ViewError::Damaged { file: named_file(path, message), why: message.to_owned() };
    }
    if error.kind() == rocksdb::ErrorKind::IOError && message.contains("LOCK") {
        return ViewError::Locked { path: path.to_owned(), why: message.to_owned() };
    }
    ViewError::Storage { doing, source: Box::new(error) }
}

/// The file of the store that a message names: a word that is a path, or a bare file name, of a
/// table, a manifest or CURRENT.
fn named_file(path: &Path, message: &str) -> PathBuf {
    let is_separator =
        |c: char| c.is_whitespace() || matches!(c, ':' | ',' | ';' | '"' | '\'' | '(' | ')');
    message
        .split(is_separator)
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| {
            let name = word.rsplit('/').next().unwrap_or(word);
            name.ends_with(".sst") || name.starts_with("MANIFEST-") || name == "CURRENT"
        })
        .map(|word| {
            let word = word.trim_start_matches('/');
            let name = word.rsplit('/').next().unwrap_or(word);
            path.join(name)
        })
        .next()
        .unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_damaged_file_is_found_in_the_message() {
        let path = Path::new("/data/state");
        for (message, file) in [
            (
                "Corruption: block checksum mismatch: stored = 1, computed = 2, type = 4 in \
                 /data/state/000012.sst offset 0 size 99",
                "/data/state/000012.sst",
            ),
            (
                "Corruption: Can't access /000031.sst: IO error: No such file",
                "/data/state/000031.sst",
            ),
            ("Corruption: CURRENT file does not end with newline", "/data/state/CURRENT"),
            ("Corruption: something else", "/data/state"),
        ] {
            assert_eq!(named_file(path, message), Path::new(file), "{message}");
        }
    }
}
