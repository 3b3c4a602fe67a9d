//! The watch's state in a file, so that a start does not fold the whole log anew.
//!
//! A cache and nothing else: it is refused, and the fold begins with the first model event, where it is
//! damaged, was written by another version of this program or under other definitions, or does not
//! belong to this log (it names an epoch's record by its hash). It may be deleted at any time. Does not
//! know what the state is.

use std::io::Write;
use std::path::{Path, PathBuf};

use falaj_event::Hash256;
use falaj_event::hash::domain_hash;
use falaj_log::Log;
use falaj_monitor::kept::Kept;

/// Version of the bytes: to be raised with every change of what the watch keeps. Another version of the
/// program counts as another format as well.
const FORMAT: &str = concat!("falaj watch 1 ", env!("CARGO_PKG_VERSION"));
const NAME: &str = "watch.checkpoint";

/// Where checkpoints of one node are kept.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    definitions: Hash256,
}

impl Checkpoints {
    /// In `folder`, of a catalog with this hash.
    pub fn new(folder: &Path, definitions: Hash256) -> Self {
        Self { folder: folder.to_owned(), definitions }
    }

    fn head(&self, epoch: u64, record: &Hash256) -> Vec<u8> {
        let mut head = Vec::new();
        FORMAT.to_owned().put(&mut head);
        head.extend_from_slice(&self.definitions.0);
        epoch.put(&mut head);
        head.extend_from_slice(&record.0);
        head
    }

    /// Writes the state after `epoch`, whose record has this hash.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, epoch: u64, record: &Hash256, state: &[u8]) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        let head = self.head(epoch, record);
        let sum = domain_hash(b"falaj.watch.checkpoint", &[&head, state]);
        for part in [&head[..], &sum.0[..], state] {
            file.write_all(part)?;
        }
        file.as_file().sync_data()?;
        file.persist(self.folder.join(NAME))?;
        Ok(())
    }

    /// The newest epoch that was written down, and the state after it; `None` where there is none that
    /// fits `log`.
    pub fn read(&self, log: &dyn Log) -> Option<(u64, Vec<u8>)> {
        let bytes = std::fs::read(self.folder.join(NAME)).ok()?;
        let mut rest = bytes.as_slice();
        if String::take(&mut rest)? != FORMAT {
            return None;
        }
        let (definitions, after) = rest.split_first_chunk::<32>()?;
        rest = after;
        let epoch = u64::take(&mut rest)?;
        let (record, after) = rest.split_first_chunk::<32>()?;
        let (sum, state) = after.split_first_chunk::<32>()?;
        let (record, sum) = (Hash256(*record), Hash256(*sum));
        let head = self.head(epoch, &record);
        let known = log.entry(epoch).ok()??.record.hash() == record;
        let whole = sum == domain_hash(b"falaj.watch.checkpoint", &[&head, state]);
        let fits = known && whole && *definitions == self.definitions.0;
        fits.then(|| (epoch, state.to_vec()))
    }
}
