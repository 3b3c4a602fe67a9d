//! Small files that must be whole or absent, some of them secret.
//!
//! Knows nothing of what is in them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A file that could not be read or written, or that others may read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// The operation.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A secret that others may read.
    #[error("{} is a secret that other users may read (mode {mode:o}); run `chmod 600` on it, or \
             delete it to have a new one made", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Io { doing, path, source }
}

/// Writes `bytes` so that the file is there whole or not at all; `secret` ones for the owner only.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], secret: bool) -> Result<(), FileError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(io_error("creating", directory))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("removing", &fresh)(error));
        }
        _ => {}
    }
    let mode = if secret { 0o600 } else { 0o644 };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&fresh)
        .map_err(io_error("creating", &fresh))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io_error("writing", &fresh))?;
    fs::rename(&fresh, path).map_err(io_error("renaming", &fresh))?;
    fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(io_error("syncing", directory))
}

/// The file's text; `None` where there is no file.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<String>, FileError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("reading", path)(error)),
    }
}

/// As [`read_if_there`], refusing a file that anyone but its owner may read.
pub(crate) fn read_secret_if_there(path: &Path) -> Result<Option<String>, FileError> {
    let text = read_if_there(path)?;
    if text.is_some() {
        let metadata = fs::metadata(path).map_err(io_error("reading", path))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(FileError::Exposed { path: path.to_owned(), mode });
        }
    }
    Ok(text)
}
