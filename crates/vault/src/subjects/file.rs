//! `subjects.keys`: an append-only file of batches, each durable or absent as a whole.
//!
//! Does not know what is done with the keys. The bytes, integers big-endian; `check(tag, …)` is the
//! first 16 bytes of SHA-256 over `tag ‖ 0x00` and the parts:
//!
//! | at | bytes | header |
//! | --- | --- | --- |
//! | 0 | 8 | `FALAJSK1` |
//! | 8 | 16 | id of the key-encryption key that wraps every key of the file |
//! | 24 | 16 | check(`falaj.subjects.v1`, bytes 0..24) |
//!
//! | bytes | batch, from offset 40 on |
//! | --- | --- |
//! | 4 | payload length |
//! | 16 | check(`falaj.subjects.length.v1`, file offset of the batch u64, payload length u32) |
//! | n | payload: records |
//! | 16 | check(`falaj.subjects.batch.v1`, file offset of the batch u64, payload) |
//!
//! | bytes | record |
//! | --- | --- |
//! | 1 | kind: 1 key, 2 destroyed |
//! | 2 | length of the subject reference |
//! | n | subject reference |
//! | 60 or 32 | kind 1: wrapped key (nonce 12, ciphertext 32, tag 16); kind 2: commitment of the destroyed key |
//!
//! **A torn tail** is what a crash leaves of a batch that nobody was told is durable: the file ends
//! inside the batch, or the batch's end is zeros that were never written over. It is cut off at the
//! next open. Every other mismatch is damage, and refused.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ring::digest::{Context, SHA256};

use crate::aead::{KEY_BYTES, KeyCommitment, KeyId, NONCE_BYTES, TAG_BYTES};
use crate::durable::{self, io};
use crate::error::VaultError;
use crate::keyring::{Kek, unwrap, wrap};
use crate::random::Random;

const MAGIC: &[u8; 8] = b"FALAJSK1";
const CHECK_BYTES: usize = 16;
const HEADER_BYTES: usize = 8 + 16 + CHECK_BYTES;
const BATCH_HEAD_BYTES: usize = 4 + CHECK_BYTES;
const WRAPPED_BYTES: usize = NONCE_BYTES + KEY_BYTES + TAG_BYTES;
const KIND_KEY: u8 = 1;
const KIND_DESTROYED: u8 = 2;

/// One fact about a subject's key.
pub(super) enum Record {
    Key { subject: Box<[u8]>, secret: [u8; KEY_BYTES] },
    Destroyed { subject: Box<[u8]>, commitment: KeyCommitment },
}

impl Record {
    /// Sorts tombstones before keys, then by subject, then by commitment.
    pub(super) fn order(&self) -> (u8, &[u8], &[u8]) {
        match self {
            Self::Destroyed { subject, commitment } => (0, subject, &commitment.0),
            Self::Key { subject, .. } => (1, subject, &[]),
        }
    }
}

/// A file as it was found, ready to be appended to.
pub(super) struct Loaded {
    pub(super) file: File,
    pub(super) length: u64,
    pub(super) kek: Kek,
    pub(super) records: Vec<Record>,
}

fn check(tag: &[u8], parts: &[&[u8]]) -> [u8; CHECK_BYTES] {
    let mut context = Context::new(&SHA256);
    context.update(tag);
    context.update(&[0]);
    parts.iter().for_each(|part| context.update(part));
    let mut out = [0; CHECK_BYTES];
    out.copy_from_slice(&context.finish().as_ref()[..CHECK_BYTES]);
    out
}

pub(super) fn header(kek: KeyId) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&kek.0);
    let sum = check(b"falaj.subjects.v1", &[&bytes]);
    bytes.extend_from_slice(&sum);
    bytes
}

fn length_check(offset: u64, length: u32) -> [u8; CHECK_BYTES] {
    check(b"falaj.subjects.length.v1", &[&offset.to_be_bytes(), &length.to_be_bytes()])
}

fn payload_check(offset: u64, payload: &[u8]) -> [u8; CHECK_BYTES] {
    check(b"falaj.subjects.batch.v1", &[&offset.to_be_bytes(), payload])
}

/// The bytes of a batch that will stand at `offset`.
pub(super) fn batch(
    offset: u64,
    kek: &Kek,
    records: &[Record],
    random: &dyn Random,
) -> Result<Vec<u8>, VaultError> {
    let mut payload = Vec::new();
    for record in records {
        let (kind, subject) = match record {
            Record::Key { subject, .. } => (KIND_KEY, subject),
            Record::Destroyed { subject, .. } => (KIND_DESTROYED, subject),
        };
        let length = u16::try_from(subject.len())
            .map_err(|_| VaultError::SubjectLength { bytes: subject.len() })?;
        payload.push(kind);
        payload.extend_from_slice(&length.to_be_bytes());
        payload.extend_from_slice(subject);
        match record {
            Record::Key { secret, .. } => {
                payload.extend_from_slice(&wrap(&kek.cipher, random, "subject", subject, secret)?)
            }
            Record::Destroyed { commitment, .. } => payload.extend_from_slice(&commitment.0),
        }
    }
    let length = u32::try_from(payload.len()).map_err(|_| VaultError::Cipher)?;
    let mut bytes = Vec::with_capacity(payload.len() + BATCH_HEAD_BYTES + CHECK_BYTES);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&length_check(offset, length));
    bytes.extend_from_slice(&payload);
    bytes.extend_from_slice(&payload_check(offset, &payload));
    Ok(bytes)
}

fn open_for_append(path: &Path) -> Result<File, VaultError> {
    OpenOptions::new().append(true).mode(0o600).open(path).map_err(io("opening", path))
}

/// Replaces the whole file, and opens it for appending.
pub(super) fn replace_and_open(path: &Path, bytes: &[u8]) -> Result<File, VaultError> {
    durable::replace(path, bytes)?;
    open_for_append(path)
}

pub(super) fn append(path: &Path, file: &mut File, bytes: &[u8]) -> Result<(), VaultError> {
    file.write_all(bytes).map_err(io("appending to", path))?;
    file.sync_data().map_err(io("syncing", path))
}

/// Refuses a file with keys beside which there is no keyring.
pub(super) fn refuse_orphan(path: &Path) -> Result<(), VaultError> {
    match durable::read_private(path)? {
        Some(bytes) if bytes.len() > HEADER_BYTES => Err(VaultError::Damaged {
            path: path.to_owned(),
            place: "its directory".to_owned(),
            why: "it holds keys, but the keyring.json that wraps them is missing".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Reads the file; `kek_of` gives the key-encryption key of an id.
pub(super) fn load(
    path: &Path,
    kek_of: impl Fn(KeyId) -> Option<Kek>,
) -> Result<Loaded, VaultError> {
    let damaged = |at: usize, why: &str| VaultError::Damaged {
        path: path.to_owned(),
        place: format!("byte {at}"),
        why: why.to_owned(),
    };
    let bytes = durable::read_private(path)?
        .ok_or_else(|| damaged(0, "the file is missing, but the keyring says that it was made"))?;
    let (head, _) = bytes
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or_else(|| damaged(bytes.len(), "the file ends inside its header"))?;
    let mut id = [0; 16];
    id.copy_from_slice(&head[8..24]);
    if head.as_slice() != header(KeyId(id)) {
        return Err(damaged(0, "the header's checksum does not match"));
    }
    let kek = kek_of(KeyId(id))
        .ok_or_else(|| damaged(8, "its key-encryption key is not in the keyring"))?;
    let mut records = Vec::new();
    let mut at = HEADER_BYTES;
    while at < bytes.len() {
        match read_batch(&bytes, at).map_err(|why| damaged(at, why))? {
            None => break,
            Some(payload) => {
                read_records(payload, &kek, &mut records)
                    .map_err(|(inside, why)| damaged(at + BATCH_HEAD_BYTES + inside, why))?;
                at += BATCH_HEAD_BYTES + payload.len() + CHECK_BYTES;
            }
        }
    }
    let file = open_for_append(path)?;
    if at < bytes.len() {
        file.set_len(at as u64).map_err(io("cutting the torn tail of", path))?;
        file.sync_all().map_err(io("syncing", path))?;
    }
    Ok(Loaded { file, length: at as u64, kek, records })
}

/// The payload of the batch at `at`; `None` where it is a torn tail.
fn read_batch(bytes: &[u8], at: usize) -> Result<Option<&[u8]>, &'static str> {
    let rest = &bytes[at..];
    let Some((head, body)) = rest.split_first_chunk::<BATCH_HEAD_BYTES>() else {
        return Ok(None);
    };
    if rest.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    if head[4..] != length_check(at as u64, length) {
        return Err("the checksum of a batch's length does not match");
    }
    let length = length as usize;
    if body.len() < length + CHECK_BYTES {
        return Ok(None);
    }
    let (payload, sum) = (&body[..length], &body[length..length + CHECK_BYTES]);
    if sum == payload_check(at as u64, payload) {
        return Ok(Some(payload));
    }
    if body.len() == length + CHECK_BYTES && sum.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    Err("the checksum of a batch does not match")
}

fn read_records(
    payload: &[u8],
    kek: &Kek,
    records: &mut Vec<Record>,
) -> Result<(), (usize, &'static str)> {
    let mut rest = payload;
    while !rest.is_empty() {
        let at = payload.len() - rest.len();
        let (record, tail) = read_record(rest, kek).map_err(|why| (at, why))?;
        records.push(record);
        rest = tail;
    }
    Ok(())
}

fn read_record<'a>(bytes: &'a [u8], kek: &Kek) -> Result<(Record, &'a [u8]), &'static str> {
    const SHORT: &str = "a record ends early";
    let (head, rest) = bytes.split_first_chunk::<3>().ok_or(SHORT)?;
    let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
    let (subject, rest) = rest.split_at_checked(length).ok_or(SHORT)?;
    match head[0] {
        KIND_KEY => {
            let (wrapped, rest) = rest.split_at_checked(WRAPPED_BYTES).ok_or(SHORT)?;
            let secret = unwrap(&kek.cipher, "subject", subject, wrapped)
                .ok_or("a subject's wrapped key fails authentication")?;
            Ok((Record::Key { subject: subject.into(), secret }, rest))
        }
        KIND_DESTROYED => {
            let (commitment, rest) = rest.split_first_chunk::<32>().ok_or(SHORT)?;
            let commitment = KeyCommitment(*commitment);
            Ok((Record::Destroyed { subject: subject.into(), commitment }, rest))
        }
        _ => Err("a record has an unknown kind"),
    }
}
