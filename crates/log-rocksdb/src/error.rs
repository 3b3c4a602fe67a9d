//! What went wrong below the contract, and how RocksDB's errors become the contract's.
//!
//! Does not know where an error will be shown.

use std::path::{Path, PathBuf};

use falaj_log::LogError;
use rocksdb::ErrorKind;

/// A failure of the storage below the log.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the log open.
    #[error("the log {path} is open in another process; stop it first")]
    InUse {
        /// The log's directory.
        path: PathBuf,
    },
    /// A log of a newer format.
    #[error(
        "the log {path} has format version {found}, this program reads {supported}; upgrade it"
    )]
    Version {
        /// The log's directory.
        path: PathBuf,
        /// What it says.
        found: u32,
        /// What is known here.
        supported: u32,
    },
    /// A file operation failed.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// An earlier commit failed, so that its outcome is unknown.
    #[error("an earlier commit failed; reopen the log {path} to learn its outcome")]
    Failed {
        /// The log's directory.
        path: PathBuf,
    },
}

impl StoreError {
    pub(crate) fn while_doing(self, doing: &'static str) -> LogError {
        LogError::Storage { doing, source: Box::new(self) }
    }
}

/// A file operation's error.
pub(crate) fn file(
    doing: &'static str,
    path: &Path,
) -> impl FnOnce(std::io::Error) -> LogError + use<> {
    let path = path.to_owned();
    move |source| StoreError::File { path, source }.while_doing(doing)
}

/// Bytes that are not what was written.
pub(crate) fn damaged(place: impl Into<String>, why: impl Into<String>) -> LogError {
    LogError::Damaged { place: place.into(), why: why.into() }
}

/// RocksDB's error: damage where it is damage, with the file that it is in.
pub(crate) fn rocks(
    doing: &'static str,
    store: &Path,
) -> impl FnOnce(rocksdb::Error) -> LogError + use<> {
    let store = store.to_owned();
    move |error| {
        let text = error.to_string();
        let lost_file = error.kind() == ErrorKind::IOError
            && (text.contains("No such file") || text.contains("not found"));
        let is_damage = lost_file
            || matches!(
                error.kind(),
                ErrorKind::Corruption
                    | ErrorKind::NotFound
                    | ErrorKind::InvalidArgument
                    | ErrorKind::NotSupported
                    | ErrorKind::Incomplete
                    | ErrorKind::Unknown
            );
        if !is_damage {
            return LogError::Storage { doing, source: Box::new(error) };
        }
        // RocksDB names table files when it reads their blocks, and nothing else reliably.
        let table = text.split_whitespace().find(|word| word.contains(".sst"));
        if let Some(table) = table {
            let place = table.trim_matches(|c: char| !c.is_alphanumeric() && c != '/');
            return damaged(place, format!("RocksDB, {doing}: {text}"));
        }
        match falaj_rocks_files::first_damage(&store) {
            Some(damage) => {
                let why = format!("{} (RocksDB, {doing}: {text})", damage.why);
                damaged(damage.place, why)
            }
            None => {
                damaged(falaj_rocks_files::described(&store), format!("RocksDB, {doing}: {text}"))
            }
        }
    }
}
