//! Files that survive crashes: whole-file replacement and the directory lock.
//!
//! Does not know what the files hold.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::error::VaultError;

pub(crate) fn io(
    doing: &'static str,
    path: &Path,
) -> impl FnOnce(std::io::Error) -> VaultError + use<> {
    let path = path.to_owned();
    move |source| VaultError::Io { doing, path, source }
}

/// Creates the vault's directory (0700) where it is missing.
pub(crate) fn create_directory(path: &Path) -> Result<(), VaultError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io("creating", path))
}

/// Takes the directory's lock; it is held as long as the file lives.
pub(crate) fn lock(directory: &Path) -> Result<File, VaultError> {
    let path = directory.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(io("opening", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(VaultError::InUse { path: directory.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(io("locking", &path)(source)),
    }
}

/// Replaces `path` by `bytes` atomically: after a crash it is wholly the old or wholly the new.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), VaultError> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(io("creating", &temporary))?;
    file.write_all(bytes).map_err(io("writing", &temporary))?;
    file.sync_all().map_err(io("syncing", &temporary))?;
    fs::rename(&temporary, path).map_err(io("replacing", path))?;
    sync_parent(path)
}

/// Makes the directory entry of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), VaultError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let directory = File::open(parent).map_err(io("opening", parent))?;
    directory.sync_all().map_err(io("syncing", parent))
}

/// Reads `path` whole; `None` where it does not exist.
///
/// Refuses a file that others than its owner may read or write.
pub(crate) fn read_private(path: &Path) -> Result<Option<Vec<u8>>, VaultError> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("reading", path)(error)),
    };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(VaultError::Permissions { path: path.to_owned(), mode });
    }
    fs::read(path).map(Some).map_err(io("reading", path))
}
