//! Copies of a whole store: quick ones on the same file system, which a rebuild can begin with.
//!
//! Table files never change once they are written, so a copy shares them with the store (hard links)
//! and costs the space of what the store rewrites later. Does not know what copies are for.

use std::path::Path;

use rocksdb::checkpoint::Checkpoint;

use crate::error::{ViewError, storage};
use crate::store::ViewStore;

impl ViewStore {
    /// Makes a copy of everything that is stored now in the directory `to`, which must not exist,
    /// beside this store on the same file system. It is on disk, whole, when this returns.
    ///
    /// # Errors
    /// When storage fails; remove what is in `to` then.
    pub fn copy_to(&self, to: &Path) -> Result<(), ViewError> {
        let checkpoint = Checkpoint::new(&self.db).map_err(|error| self.fault("copying", error))?;
        checkpoint.create_checkpoint(to).map_err(|error| storage(to, "copying", error))
    }

    /// Makes a store of the copy in `from` in the directory `to`, which must not exist. The copy stays
    /// as it is, whatever becomes of the store.
    ///
    /// # Errors
    /// A failed file operation; remove what is in `to` then.
    pub fn begin_from(from: &Path, to: &Path) -> Result<(), ViewError> {
        let failed = |source: std::io::Error| ViewError::Storage {
            doing: "beginning with a copy",
            source: Box::new(source),
        };
        std::fs::create_dir_all(to).map_err(failed)?;
        for file in std::fs::read_dir(from).map_err(failed)? {
            let (file, target) =
                file.map(|file| (file.path(), to.join(file.file_name()))).map_err(failed)?;
            let is_table = file.extension().is_some_and(|extension| extension == "sst");
            // Another file system has no hard links to this one.
            if !is_table || std::fs::hard_link(&file, &target).is_err() {
                std::fs::copy(&file, &target).map_err(failed)?;
            }
        }
        Ok(())
    }
}
