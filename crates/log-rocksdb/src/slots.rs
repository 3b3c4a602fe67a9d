//! `acknowledged`: the newest epoch whose commit returned, in a small file beside the store.
//!
//! Why it exists: a store that lost its end looks like one that never had it. Does not know the
//! store. Two slots, at offsets 0 and 4096, are written in turn, each:
//!
//! | at | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | `FALAJACK` |
//! | 8 | 8 | number of epochs acknowledged, u64 big-endian: the epoch's number + 1; 0 at first |
//! | 16 | 8 | the epoch's `T`, u64 big-endian |
//! | 24 | 32 | hash of its record |
//! | 56 | 32 | `domain_hash("falaj.acknowledged.v1", [bytes 0..56])` |
//!
//! A crash while a slot is written spoils that slot only: the other one holds the epoch before.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use falaj_event::hash::domain_hash;
use falaj_event::{Hash256, LogTime};
use falaj_log::LogError;

use crate::error::{damaged, file};
use crate::options::Fsync;

const MAGIC: &[u8; 8] = b"FALAJACK";
const SLOT_BYTES: usize = 88;
const SLOT_OFFSETS: [u64; 2] = [0, 4096];

/// What was acknowledged last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// Number of epochs: the newest one's number + 1, 0 on an empty log.
    pub epochs: u64,
    /// The newest one's `T`.
    pub t: LogTime,
    /// Hash of the newest one's record.
    pub record: Hash256,
}

impl Acknowledged {
    fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&self.epochs.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.t.0.to_be_bytes());
        bytes[24..56].copy_from_slice(&self.record.0);
        let sum = domain_hash(b"falaj.acknowledged.v1", &[&bytes[..56]]);
        bytes[56..].copy_from_slice(&sum.0);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let candidate = Self {
            epochs: crate::keys::u64_at(bytes, 8)?,
            t: LogTime(crate::keys::u64_at(bytes, 16)?),
            record: Hash256(bytes.get(24..56)?.try_into().ok()?),
        };
        (candidate.encode() == bytes).then_some(candidate)
    }
}

/// The open file.
#[derive(Debug)]
pub struct Slots {
    path: PathBuf,
    file: File,
    fsync: Fsync,
    newest: Acknowledged,
    /// The slot that the next acknowledgement overwrites.
    next: usize,
}

impl Slots {
    /// Makes the file, durably, with nothing acknowledged.
    ///
    /// # Errors
    /// A failed file operation.
    pub fn create(path: &Path, fsync: Fsync) -> Result<Self, LogError> {
        let doing = "creating the acknowledgement file";
        let mut bytes = vec![0; SLOT_OFFSETS[1] as usize + SLOT_BYTES];
        bytes[..SLOT_BYTES].copy_from_slice(&Acknowledged::default().encode());
        let temporary = path.with_extension("new");
        std::fs::write(&temporary, &bytes).map_err(file(doing, &temporary))?;
        let written = File::open(&temporary).map_err(file(doing, &temporary))?;
        written.sync_all().map_err(file(doing, &temporary))?;
        std::fs::rename(&temporary, path).map_err(file(doing, path))?;
        let parent = path.parent().unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(file(doing, parent))?;
        Self::open(path, fsync)
    }

    /// Opens the file.
    ///
    /// # Errors
    /// [`LogError::Damaged`] when neither slot is whole, or a failed file operation.
    pub fn open(path: &Path, fsync: Fsync) -> Result<Self, LogError> {
        let doing = "reading the acknowledgement file";
        let opened =
            OpenOptions::new().read(true).write(true).open(path).map_err(file(doing, path))?;
        let mut newest: Option<(Acknowledged, usize)> = None;
        for (slot, offset) in SLOT_OFFSETS.into_iter().enumerate() {
            let mut bytes = [0; SLOT_BYTES];
            match opened.read_exact_at(&mut bytes, offset) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => continue,
                Err(error) => return Err(file(doing, path)(error)),
            }
            if let Some(found) = Acknowledged::decode(&bytes)
                && newest.is_none_or(|(best, _)| found.epochs > best.epochs)
            {
                newest = Some((found, slot));
            }
        }
        let (newest, slot) = newest.ok_or_else(|| {
            damaged(path.display().to_string(), "neither of its two slots has a valid checksum")
        })?;
        Ok(Self { path: path.to_owned(), file: opened, fsync, newest, next: 1 - slot })
    }

    /// What was acknowledged last.
    pub fn newest(&self) -> &Acknowledged {
        &self.newest
    }

    /// Records an acknowledgement, durably where commits are.
    ///
    /// # Errors
    /// A failed file operation: the file must be opened anew before it is written again.
    pub fn acknowledge(&mut self, acknowledged: Acknowledged) -> Result<(), LogError> {
        let doing = "writing the acknowledgement file";
        self.file
            .write_all_at(&acknowledged.encode(), SLOT_OFFSETS[self.next])
            .map_err(file(doing, &self.path))?;
        if self.fsync == Fsync::EachCommit {
            self.file.sync_data().map_err(file(doing, &self.path))?;
        }
        self.newest = acknowledged;
        self.next = 1 - self.next;
        Ok(())
    }

    /// Makes the file unwritable for this handle, as a failing disk would.
    #[cfg(test)]
    pub(crate) fn fail_writes(&mut self) {
        self.file = File::open(&self.path).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(epochs: u64) -> Acknowledged {
        Acknowledged { epochs, t: LogTime(epochs * 10), record: Hash256([epochs as u8; 32]) }
    }

    #[test]
    fn the_newest_whole_slot_counts() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("acknowledged");
        let mut slots = Slots::create(&path, Fsync::EachCommit).unwrap();
        assert_eq!(*slots.newest(), Acknowledged::default());
        for n in 1..6 {
            slots.acknowledge(epochs(n)).unwrap();
            assert_eq!(*Slots::open(&path, Fsync::Never).unwrap().newest(), epochs(n));
        }
        // The slot of epoch 6 torn at every length: epoch 5 stays.
        let before = std::fs::read(&path).unwrap();
        slots.acknowledge(epochs(6)).unwrap();
        let after = std::fs::read(&path).unwrap();
        for written in 0..SLOT_BYTES {
            let mut torn = before.clone();
            torn[..written].copy_from_slice(&after[..written]);
            std::fs::write(&path, &torn).unwrap();
            let mut reopened = Slots::open(&path, Fsync::Never).unwrap();
            let newest = *reopened.newest();
            assert!(newest == epochs(5) || newest == epochs(6) && torn == after, "{written}");
            // And the next write does not touch the slot that is whole.
            reopened.acknowledge(epochs(7)).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!(Acknowledged::decode(&bytes[4096..]), Some(epochs(5)));
        }
    }

    #[test]
    fn flipped_bytes_never_acknowledge_anything_else() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("acknowledged");
        let mut slots = Slots::create(&path, Fsync::Never).unwrap();
        slots.acknowledge(epochs(1)).unwrap();
        slots.acknowledge(epochs(2)).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..SLOT_BYTES {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            std::fs::write(&path, &flipped).unwrap();
            assert_eq!(*Slots::open(&path, Fsync::Never).unwrap().newest(), epochs(1));
            flipped[4096 + at] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            assert!(matches!(
                Slots::open(&path, Fsync::Never),
                Err(LogError::Damaged { place, .. }) if place.ends_with("acknowledged")
            ));
        }
        for end in 0..SLOT_BYTES {
            std::fs::write(&path, &bytes[..end]).unwrap();
            assert!(matches!(Slots::open(&path, Fsync::Never), Err(LogError::Damaged { .. })));
        }
    }
}
