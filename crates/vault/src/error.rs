//! Why the vault refused or failed. Errors name keys and subjects by reference, never by secret.

use std::fmt;
use std::path::PathBuf;

use falaj_event::TopicId;
use falaj_event::ids::hex;

use crate::aead::KeyId;

/// A subject reference as errors show it: text where it is printable, hexadecimal otherwise.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SubjectRef(pub Box<[u8]>);

impl fmt::Display for SubjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) if text.chars().all(|c| !c.is_control()) => write!(f, "`{text}`"),
            _ => write!(f, "0x{}", hex(&self.0)),
        }
    }
}

impl fmt::Debug for SubjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why the vault refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The operating system gave no random bytes.
    #[error("the system's random source failed; nothing was sealed")]
    Random,
    /// The cipher refused its input.
    #[error("the cipher refused its input: more than 64 GiB at once?")]
    Cipher,
    /// A file operation failed.
    #[error("{doing} {path} failed: {source}")]
    Io {
        /// The operation.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Another process has the vault open.
    #[error("the vault {path} is in use by another process; stop it first")]
    InUse {
        /// The vault's directory.
        path: PathBuf,
    },
    /// A stored file is not what was written.
    #[error("{path} is damaged at {place}: {why}; restore it from a copy")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Byte or field.
        place: String,
        /// What does not fit.
        why: String,
    },
    /// A stored file of a newer version.
    #[error("{path} has format version {found}, this program reads up to {supported}; upgrade it")]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u64,
        /// What is known here.
        supported: u64,
    },
    /// The files belong to others too.
    #[error("{path} has mode {mode:o}: others may read its keys; run `chmod 600` on it")]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// No such data key.
    #[error(
        "key {key:?} of topic {topic:?} is not in the keyring; restore the keyring it was sealed with"
    )]
    UnknownKey {
        /// Topic.
        topic: TopicId,
        /// Key.
        key: KeyId,
    },
    /// The key of this id is not the key that sealed.
    #[error("key {key:?} of topic {topic:?} does not match the commitment of the sealed bytes")]
    CommitmentMismatch {
        /// Topic.
        topic: TopicId,
        /// Key.
        key: KeyId,
    },
    /// Sealed bytes, nonce or authenticated data were changed.
    #[error(
        "bytes sealed under key {key:?} of topic {topic:?} fail authentication: they were altered"
    )]
    Authentication {
        /// Topic.
        topic: TopicId,
        /// Key.
        key: KeyId,
    },
    /// Bytes that are no sealed value.
    #[error("the sealed value of subject {subject} is malformed: {why}")]
    MalformedValue {
        /// Subject.
        subject: SubjectRef,
        /// What is wrong.
        why: &'static str,
    },
    /// A subject that never had a key.
    #[error("subject {subject} has no key; call ensure first")]
    UnknownSubject {
        /// Subject.
        subject: SubjectRef,
    },
    /// A subject reference that cannot be stored.
    #[error("subject reference of {bytes} bytes: it must have 1 to 65535")]
    SubjectLength {
        /// Its length.
        bytes: usize,
    },
    /// The key that sealed this value has been destroyed.
    #[error("the value of subject {subject} is erased: its key was destroyed")]
    Erased {
        /// Subject.
        subject: SubjectRef,
    },
    /// The value was sealed under a key that this subject never had.
    #[error("the value was not sealed under a key of subject {subject}")]
    SubjectMismatch {
        /// Subject.
        subject: SubjectRef,
    },
    /// A sealed value, or what it is bound to, was changed.
    #[error("the sealed value of subject {subject} fails authentication: it was altered or moved")]
    SubjectAuthentication {
        /// Subject.
        subject: SubjectRef,
    },
    /// An earlier write failed, so what is on disk is unknown.
    #[error("an earlier write to {path} failed; reopen the vault before sealing for new keys")]
    Poisoned {
        /// The file.
        path: PathBuf,
    },
}
