//! A small file that remembers the newest acknowledged epoch, on the machine of the node: a cluster that
//! lost it is recognised. It need not survive a power cut here, so it is not fsynced.
//!
//! 64 bytes, big-endian: epoch (8), `T` (8), hash of the record (32), the first 16 bytes of
//! `domain_hash("falaj.fluvio.remembered.v1", [the first 48])`.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use falaj_event::hash::domain_hash;
use falaj_event::{Hash256, LogTime};
use falaj_log::{EpochRecord, LogError};

use crate::error::{ClusterError, damaged};

const BYTES: usize = 64;

/// The newest acknowledged epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) epoch: u64,
    pub(crate) t: LogTime,
    pub(crate) hash: Hash256,
}

/// The file.
#[derive(Debug)]
pub(crate) struct Memory {
    file: File,
    path: PathBuf,
}

impl Memory {
    /// Opens the file, or makes it, and reads what it remembers.
    pub(crate) fn open(path: &Path) -> Result<(Self, Option<Remembered>), LogError> {
        let failed = |source| local(path, source);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        let mut options = OpenOptions::new();
        let opened = options.read(true).write(true).create(true).truncate(false).open(path);
        let file = opened.map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let memory = Self { file, path: path.to_owned() };
        if length == 0 {
            return Ok((memory, None));
        }
        let mut bytes = [0; BYTES];
        memory.file.read_exact_at(&mut bytes, 0).map_err(failed)?;
        match decode(&bytes) {
            Some(remembered) => Ok((memory, Some(remembered))),
            None => {
                let why =
                    "its checksum does not fit. Remove it if the cluster is known to be whole";
                Err(damaged(path.display().to_string(), why))
            }
        }
    }

    pub(crate) fn remember(&self, record: &EpochRecord) -> Result<(), LogError> {
        let bytes = encode(record);
        self.file.write_all_at(&bytes, 0).map_err(|source| local(&self.path, source))
    }
}

fn local(path: &Path, source: std::io::Error) -> LogError {
    let what = format!("the file {}", path.display());
    ClusterError::Local { what, source }.while_doing("remembering what was acknowledged")
}

fn check(bytes: &[u8]) -> Hash256 {
    domain_hash(b"falaj.fluvio.remembered.v1", &[bytes])
}

fn encode(record: &EpochRecord) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&record.epoch.to_be_bytes());
    bytes[8..16].copy_from_slice(&record.t.0.to_be_bytes());
    bytes[16..48].copy_from_slice(&record.hash().0);
    let sum = check(&bytes[..48]);
    bytes[48..].copy_from_slice(&sum.0[..16]);
    bytes
}

fn decode(bytes: &[u8; BYTES]) -> Option<Remembered> {
    if check(&bytes[..48]).0[..16] != bytes[48..] {
        return None;
    }
    let epoch = u64::from_be_bytes(*bytes.first_chunk()?);
    let t = LogTime(u64::from_be_bytes(*bytes[8..].first_chunk()?));
    Some(Remembered { epoch, t, hash: Hash256(*bytes[16..].first_chunk()?) })
}
