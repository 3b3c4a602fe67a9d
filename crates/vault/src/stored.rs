//! `keyring.json`: its fields, its checksum, and hexadecimal.
//!
//! Does not know what the keys are used for. The bytes, version 1:
//!
//! | field | content |
//! | --- | --- |
//! | `format`, `version` | `falaj.keyring`, 1 |
//! | `root` | 256-bit root key, hexadecimal; wraps everything below |
//! | `subject_keks` | key-encryption keys of `subjects.keys`: id and wrapped key; one, or two while subjects are re-wrapped |
//! | `signing_seed` | wrapped Ed25519 seed of the log's signing key |
//! | `topics` | per topic id: the id of the current key, and all keys: id, wrapped key, seals reserved so far |
//! | `checksum` | SHA-256 of this document with an empty checksum |
//!
//! A wrapped key is `nonce (12) ‖ ciphertext (32) ‖ tag (16)` in hexadecimal: AES-256-GCM under the
//! root key, authenticating `"falaj.wrap.v1" ‖ 0x00 ‖ purpose ‖ 0x00 ‖ owner`.

use std::collections::BTreeMap;
use std::path::Path;

use falaj_event::ids::hex;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::error::VaultError;

const FORMAT: &str = "falaj.keyring";
const VERSION: u64 = 1;

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredKey {
    pub(crate) id: String,
    pub(crate) wrapped: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) seals_reserved: u64,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredTopic {
    pub(crate) current: String,
    pub(crate) keys: Vec<StoredKey>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredKeyring {
    format: String,
    version: u64,
    pub(crate) root: String,
    pub(crate) subject_keks: Vec<StoredKey>,
    pub(crate) signing_seed: String,
    pub(crate) topics: BTreeMap<String, StoredTopic>,
    checksum: String,
}

/// Read before anything else, so that a newer version is named as such.
#[derive(Deserialize)]
struct Preamble {
    format: String,
    version: u64,
}

// The signature that serde asks for.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl StoredKeyring {
    pub(crate) fn new(root: &[u8; 32], signing_seed: String) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            root: hex(root),
            subject_keks: Vec::new(),
            signing_seed,
            topics: BTreeMap::new(),
            checksum: String::new(),
        }
    }

    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut sealed = self.clone();
        sealed.checksum = String::new();
        sealed.checksum = hex(digest(&SHA256, &serde_json::to_vec_pretty(&sealed)?).as_ref());
        let mut bytes = serde_json::to_vec_pretty(&sealed)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    pub(crate) fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self, VaultError> {
        let damaged = |place: String, why: &str| VaultError::Damaged {
            path: path.to_owned(),
            place,
            why: why.to_owned(),
        };
        let syntax = |error: serde_json::Error| {
            damaged(
                format!("line {} column {}", error.line(), error.column()),
                "it is not the JSON of a keyring",
            )
        };
        let preamble: Preamble = serde_json::from_slice(bytes).map_err(syntax)?;
        if preamble.format != FORMAT {
            return Err(damaged("format".to_owned(), "it is not a keyring"));
        }
        if preamble.version != VERSION {
            return Err(VaultError::Version {
                path: path.to_owned(),
                found: preamble.version,
                supported: VERSION,
            });
        }
        let parsed: Self = serde_json::from_slice(bytes).map_err(syntax)?;
        // Comparing whole documents also refuses changes in spelling that parse to equal values.
        if parsed.to_bytes().map_err(syntax)? != bytes {
            return Err(damaged("checksum".to_owned(), "the checksum does not match the content"));
        }
        Ok(parsed)
    }
}

/// Bytes of a lower-case hexadecimal text of exactly `N` bytes.
pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}
