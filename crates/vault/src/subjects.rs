//! Subjects' keys: one random 256-bit key per subject, and the sealing of single values with them.
//!
//! Does not know who a subject is, nor what the values mean. The bytes of the file are in
//! [`file`].

mod file;

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use crate::aead::{Cipher, KEY_BYTES, KeyCommitment, KeyId, NONCE_BYTES, TAG_BYTES, commitment_of};
use crate::error::{SubjectRef, VaultError};
use crate::keyring::{Kek, Keyring, random_key};
use crate::random::Random;

use file::Record;

const VALUE_VERSION: u8 = 1;
const COMMITMENT_BYTES: usize = 32;

/// How many bytes a sealed value is longer than its plaintext.
pub const SEALED_VALUE_OVERHEAD: usize = 1 + COMMITMENT_BYTES + NONCE_BYTES + TAG_BYTES;

/// Whether a subject's values can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectState {
    /// It never had a key.
    Unknown,
    /// It has a key.
    Live,
    /// Its key was destroyed.
    Erased,
}

#[derive(Clone)]
struct SubjectKey {
    secret: [u8; KEY_BYTES],
    commitment: KeyCommitment,
}

#[derive(Clone, Default)]
struct Known {
    live: HashMap<Box<[u8]>, SubjectKey>,
    /// Commitments of destroyed keys: they tell an erased value from a foreign one.
    destroyed: HashMap<Box<[u8]>, Vec<KeyCommitment>>,
}

impl Known {
    fn apply(&mut self, record: Record) {
        match record {
            Record::Key { subject, secret } => {
                let commitment = commitment_of(&secret);
                self.live.insert(subject, SubjectKey { secret, commitment });
            }
            Record::Destroyed { subject, commitment } => {
                self.live.remove(&subject);
                self.destroyed.entry(subject).or_default().push(commitment);
            }
        }
    }

    /// Everything as records, in an order that depends on nothing but the content.
    fn records(&self) -> Vec<Record> {
        let mut records: Vec<Record> = Vec::new();
        for (subject, commitments) in &self.destroyed {
            for commitment in commitments {
                let (subject, commitment) = (subject.clone(), *commitment);
                records.push(Record::Destroyed { subject, commitment });
            }
        }
        for (subject, key) in &self.live {
            records.push(Record::Key { subject: subject.clone(), secret: key.secret });
        }
        // Tombstones first: a key after its subject's tombstone is the subject's newer key.
        records.sort_by(|a, b| a.order().cmp(&b.order()));
        records
    }
}

/// The writing end: at most one change at a time.
struct Writer {
    /// `None` for a vault without files.
    file: Option<(PathBuf, File)>,
    length: u64,
    kek: Kek,
    poisoned: bool,
}

pub(crate) struct SubjectKeys {
    random: Arc<dyn Random>,
    known: RwLock<Known>,
    writer: Mutex<Writer>,
}

impl SubjectKeys {
    pub(crate) fn create(
        path: Option<&Path>,
        keyring: &Keyring,
        random: Arc<dyn Random>,
    ) -> Result<Self, VaultError> {
        let kek = keyring.kek(None).ok_or(VaultError::Cipher)?;
        let header = file::header(kek.id);
        let file = path.map(|path| file::replace_and_open(path, &header)).transpose()?;
        let file = path.map(Path::to_owned).zip(file);
        let length = header.len() as u64;
        let writer = Writer { file, length, kek, poisoned: false };
        Ok(Self { random, known: RwLock::default(), writer: Mutex::new(writer) })
    }

    pub(crate) fn load(
        path: &Path,
        keyring: &Keyring,
        random: Arc<dyn Random>,
    ) -> Result<Self, VaultError> {
        let loaded = file::load(path, |id| keyring.kek(Some(id)))?;
        let mut known = Known::default();
        for record in loaded.records {
            known.apply(record);
        }
        let writer = Writer {
            file: Some((path.to_owned(), loaded.file)),
            length: loaded.length,
            kek: loaded.kek,
            poisoned: false,
        };
        Ok(Self { random, known: RwLock::new(known), writer: Mutex::new(writer) })
    }

    /// Refuses to start afresh over a file that holds keys.
    pub(crate) fn refuse_orphan(path: &Path) -> Result<(), VaultError> {
        file::refuse_orphan(path)
    }

    pub(crate) fn kek_id(&self) -> KeyId {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).kek.id
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self, subject: &[u8]) -> SubjectState {
        let known = self.known();
        if known.live.contains_key(subject) {
            SubjectState::Live
        } else if known.destroyed.contains_key(subject) {
            SubjectState::Erased
        } else {
            SubjectState::Unknown
        }
    }

    pub(crate) fn ensure(&self, subjects: &[&[u8]]) -> Result<usize, VaultError> {
        if let Some(bad) = subjects.iter().find(|s| s.is_empty() || s.len() > 0xffff) {
            return Err(VaultError::SubjectLength { bytes: bad.len() });
        }
        {
            let known = self.known();
            if subjects.iter().all(|subject| known.live.contains_key(*subject)) {
                return Ok(0);
            }
        }
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.refuse_if_poisoned()?;
        let mut missing: Vec<&[u8]> = {
            let known = self.known();
            subjects.iter().copied().filter(|s| !known.live.contains_key(*s)).collect()
        };
        missing.sort_unstable();
        missing.dedup();
        let records = missing
            .into_iter()
            .map(|subject| {
                let secret = random_key(&*self.random)?;
                Ok(Record::Key { subject: subject.into(), secret })
            })
            .collect::<Result<Vec<Record>, VaultError>>()?;
        writer.append(&records, &*self.random)?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let made = records.len();
        records.into_iter().for_each(|record| known.apply(record));
        Ok(made)
    }

    pub(crate) fn seal(
        &self,
        subject: &[u8],
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, VaultError> {
        let key = {
            let known = self.known();
            match known.live.get(subject) {
                Some(key) => key.clone(),
                None => return Err(missing(&known, subject)),
            }
        };
        let mut bytes = Vec::with_capacity(plaintext.len() + SEALED_VALUE_OVERHEAD);
        bytes.push(VALUE_VERSION);
        bytes.extend_from_slice(&key.commitment.0);
        bytes.extend_from_slice(&[0; NONCE_BYTES]);
        let body = bytes.len();
        bytes.extend_from_slice(plaintext);
        let aad = value_aad(subject, key.commitment, aad);
        let nonce = Cipher::new(&key.secret)?.seal(&*self.random, &aad, &mut bytes, body)?;
        bytes[body - NONCE_BYTES..body].copy_from_slice(&nonce);
        Ok(bytes)
    }

    pub(crate) fn open(
        &self,
        subject: &[u8],
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, VaultError> {
        let value = SealedValue::parse(sealed).map_err(|why| VaultError::MalformedValue {
            subject: SubjectRef(subject.into()),
            why,
        })?;
        let key = {
            let known = self.known();
            match known.live.get(subject) {
                Some(key) if key.commitment == value.commitment => key.clone(),
                found => {
                    let destroyed = known.destroyed.get(subject);
                    if destroyed.is_some_and(|old| old.contains(&value.commitment)) {
                        return Err(VaultError::Erased { subject: SubjectRef(subject.into()) });
                    }
                    return Err(match found.is_some() || destroyed.is_some() {
                        true => VaultError::SubjectMismatch { subject: SubjectRef(subject.into()) },
                        false => missing(&known, subject),
                    });
                }
            }
        };
        let mut bytes = value.ciphertext.to_vec();
        Cipher::new(&key.secret)?
            .open(value.nonce, &value_aad(subject, key.commitment, aad), &mut bytes)
            .map_err(|_| VaultError::SubjectAuthentication {
                subject: SubjectRef(subject.into()),
            })?;
        Ok(bytes)
    }

    pub(crate) fn destroy(&self, subject: &[u8], keyring: &Keyring) -> Result<bool, VaultError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.refuse_if_poisoned()?;
        let mut next = self.known().clone();
        let Some(key) = next.live.get(subject).cloned() else { return Ok(false) };
        next.apply(Record::Destroyed { subject: subject.into(), commitment: key.commitment });
        let kek = keyring.add_kek()?;
        let id = kek.id;
        writer.rewrite(kek, &next.records(), &*self.random)?;
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = next;
        keyring.keep_only_kek(id)?;
        Ok(true)
    }

    /// Makes the file unwritable for this handle, as a full or failing disk would.
    #[cfg(test)]
    pub(crate) fn fail_next_append(&self) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((path, file)) = &mut writer.file {
            *file = File::open(path).unwrap();
        }
    }
}

fn missing(known: &Known, subject: &[u8]) -> VaultError {
    let reference = SubjectRef(subject.into());
    if known.destroyed.contains_key(subject) {
        VaultError::Erased { subject: reference }
    } else {
        VaultError::UnknownSubject { subject: reference }
    }
}

impl Writer {
    fn refuse_if_poisoned(&self) -> Result<(), VaultError> {
        match &self.file {
            Some((path, _)) if self.poisoned => Err(VaultError::Poisoned { path: path.clone() }),
            _ => Ok(()),
        }
    }

    /// Appends one batch and waits until it is durable. A failure leaves the file's state unknown,
    /// and a second fsync may lie about it: nothing more is written until the vault is reopened.
    fn append(&mut self, records: &[Record], random: &dyn Random) -> Result<(), VaultError> {
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        let bytes = file::batch(self.length, &self.kek, records, random)?;
        self.poisoned = true;
        file::append(path, file, &bytes)?;
        self.poisoned = false;
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn rewrite(
        &mut self,
        kek: Kek,
        records: &[Record],
        random: &dyn Random,
    ) -> Result<(), VaultError> {
        let mut bytes = file::header(kek.id);
        // Bounded batches, because a batch's length is a u32.
        for records in records.chunks(1 << 14) {
            let batch = file::batch(bytes.len() as u64, &kek, records, random)?;
            bytes.extend_from_slice(&batch);
        }
        if let Some((path, file)) = &mut self.file {
            self.poisoned = true;
            *file = file::replace_and_open(path, &bytes)?;
            self.poisoned = false;
        }
        self.length = bytes.len() as u64;
        self.kek = kek;
        Ok(())
    }
}

struct SealedValue<'a> {
    commitment: KeyCommitment,
    nonce: &'a [u8; NONCE_BYTES],
    ciphertext: &'a [u8],
}

impl<'a> SealedValue<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, &'static str> {
        const SHORT: &str = "it is shorter than the fixed part of a sealed value";
        let (version, rest) = bytes.split_first().ok_or(SHORT)?;
        if *version != VALUE_VERSION {
            return Err("its version is unknown");
        }
        let (commitment, rest) = rest.split_first_chunk::<COMMITMENT_BYTES>().ok_or(SHORT)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(SHORT)?;
        if ciphertext.len() < TAG_BYTES {
            return Err(SHORT);
        }
        Ok(Self { commitment: KeyCommitment(*commitment), nonce, ciphertext })
    }
}

fn value_aad(subject: &[u8], commitment: KeyCommitment, aad: &[u8]) -> Vec<u8> {
    let length = u16::try_from(subject.len()).unwrap_or(u16::MAX);
    [b"falaj.value.v1\0".as_slice(), &length.to_be_bytes(), subject, &commitment.0, aad].concat()
}
