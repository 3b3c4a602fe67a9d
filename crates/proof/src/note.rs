//! C2SP signed notes: text and the Ed25519 signatures under it.
//!
//! Does not know what the text says. The form, where `—` is U+2014:
//!
//! ```text
//! text, any lines, ending in a newline
//! <empty line>
//! — <key name> <base64(key id (4) ‖ signature (64))>
//! ```
//!
//! The key id is the first four bytes of `SHA-256(name ‖ 0x0A ‖ 0x01 ‖ public key (32))`; a verifier
//! key is written `<name>+<key id, hexadecimal>+<base64(0x01 ‖ public key)>`.

use std::fmt;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use sha2::{Digest, Sha256};

use crate::base64;

const ED25519_TYPE: u8 = 0x01;
const SIGNATURE_PREFIX: &str = "\u{2014} ";
/// Longer notes are refused before they are looked at.
pub const MAX_NOTE_BYTES: usize = 1 << 20;

/// Why a note or a key was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It is longer than any note.
    #[error("the note has {bytes} bytes, more than the {MAX_NOTE_BYTES} that a note may have")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It is not text, or holds control characters.
    #[error("the note is not UTF-8 text without control characters (byte {at})")]
    NotText {
        /// Offset of the first offending byte.
        at: usize,
    },
    /// Text that cannot be signed or that was not signed.
    #[error("the note has no signatures: an empty line and signature lines must follow its text")]
    NoSignatures,
    /// A line below the text that is no signature.
    #[error("signature line {line} of the note is malformed")]
    SignatureLine {
        /// Its number, from 1.
        line: usize,
    },
    /// A key that is not written as one.
    #[error("`{key}` is not an Ed25519 verifier key: {why}")]
    VerifierKey {
        /// What was given.
        key: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A name that no key may have.
    #[error("`{name}` cannot name a key: it must not be empty nor contain spaces or `+`")]
    KeyName {
        /// The name.
        name: String,
    },
    /// A known key did not sign this text.
    #[error("the signature of key {name} on the note is wrong: the note was altered")]
    BadSignature {
        /// The key's name.
        name: String,
    },
    /// Nobody who is trusted signed.
    #[error("no trusted key has signed the note")]
    Untrusted,
}

/// One signature line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    /// Name of the key.
    pub name: String,
    /// First four bytes of the key's hash.
    pub key_id: [u8; 4],
    /// What the key signed.
    pub signature: Vec<u8>,
}

/// A parsed note; its signatures are claims until [`Note::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// A public key that notes are verified with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key_id: [u8; 4],
    public_key: [u8; 32],
}

fn check_name(name: &str) -> Result<(), NoteError> {
    let allowed = |c: char| !c.is_whitespace() && !c.is_control() && c != '+';
    if !name.is_empty() && name.chars().all(allowed) {
        Ok(())
    } else {
        Err(NoteError::KeyName { name: name.to_owned() })
    }
}

impl VerifierKey {
    /// The key called `name` with these Ed25519 bytes.
    ///
    /// # Errors
    /// [`NoteError::KeyName`].
    pub fn new(name: &str, public_key: [u8; 32]) -> Result<Self, NoteError> {
        check_name(name)?;
        let mut hasher = Sha256::new();
        hasher.update(name);
        hasher.update([b'\n', ED25519_TYPE]);
        hasher.update(public_key);
        let digest: [u8; 32] = hasher.finalize().into();
        let key_id = [digest[0], digest[1], digest[2], digest[3]];
        Ok(Self { name: name.to_owned(), key_id, public_key })
    }

    /// Reads `<name>+<key id>+<base64>`.
    ///
    /// # Errors
    /// [`NoteError::VerifierKey`], for keys of other algorithms too, or [`NoteError::KeyName`].
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let refused = |why| NoteError::VerifierKey { key: text.to_owned(), why };
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(body)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(refused("it has not the three parts name+id+key"));
        };
        let body = base64::decode(body).ok_or_else(|| refused("its last part is not base64"))?;
        let (algorithm, public_key) =
            body.split_first().ok_or_else(|| refused("its last part is empty"))?;
        if *algorithm != ED25519_TYPE {
            return Err(refused("its algorithm is not Ed25519 (type 1)"));
        }
        let public_key = public_key.try_into().map_err(|_| refused("its key has not 32 bytes"))?;
        let key = Self::new(name, public_key)?;
        if id == key.id_text() { Ok(key) } else { Err(refused("its id is not that of its key")) }
    }

    /// Name of the key.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key's short id.
    pub fn key_id(&self) -> [u8; 4] {
        self.key_id
    }

    fn id_text(&self) -> String {
        format!("{:08x}", u32::from_be_bytes(self.key_id))
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut body = vec![ED25519_TYPE];
        body.extend_from_slice(&self.public_key);
        write!(f, "{}+{}+{}", self.name, self.id_text(), base64::encode(&body))
    }
}

/// Whoever can sign notes: a seed in memory, or a vault that never gives its seed away.
pub trait NoteSigner {
    /// The key that verifies what this signer signs.
    fn verifier_key(&self) -> &VerifierKey;
    /// The Ed25519 signature (RFC 8032) of `message`.
    fn sign(&self, message: &[u8]) -> [u8; 64];
}

/// A signer that holds its seed.
pub struct SeedSigner {
    key: VerifierKey,
    pair: Ed25519KeyPair,
}

impl SeedSigner {
    /// The signer called `name` with this Ed25519 seed.
    ///
    /// # Errors
    /// [`NoteError::KeyName`].
    pub fn new(name: &str, seed: &[u8; 32]) -> Result<Self, NoteError> {
        let refused = |why| NoteError::VerifierKey { key: name.to_owned(), why };
        let pair = Ed25519KeyPair::from_seed_unchecked(seed)
            .map_err(|_| refused("its seed was refused"))?;
        let public_key = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| refused("its key has not 32 bytes"))?;
        Ok(Self { key: VerifierKey::new(name, public_key)?, pair })
    }
}

impl NoteSigner for SeedSigner {
    fn verifier_key(&self) -> &VerifierKey {
        &self.key
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        signature
    }
}

impl fmt::Debug for SeedSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SeedSigner({})", self.key)
    }
}

/// The signed note of `text`, which ends in a newline.
///
/// # Errors
/// [`NoteError::NotText`] when the text has control characters or no newline at its end,
/// [`NoteError::NoSignatures`] without signers, [`NoteError::TooLong`].
pub fn sign_note(text: &str, signers: &[&dyn NoteSigner]) -> Result<String, NoteError> {
    check_text(text.as_bytes())?;
    if !text.ends_with('\n') {
        return Err(NoteError::NotText { at: text.len() });
    }
    if signers.is_empty() {
        return Err(NoteError::NoSignatures);
    }
    let mut note = format!("{text}\n");
    for signer in signers {
        let key = signer.verifier_key();
        let mut bytes = key.key_id.to_vec();
        bytes.extend_from_slice(&signer.sign(text.as_bytes()));
        note.push_str(&format!("{SIGNATURE_PREFIX}{} {}\n", key.name, base64::encode(&bytes)));
    }
    check_text(note.as_bytes())?;
    Ok(note)
}

fn check_text(bytes: &[u8]) -> Result<&str, NoteError> {
    if bytes.len() > MAX_NOTE_BYTES {
        return Err(NoteError::TooLong { bytes: bytes.len() });
    }
    if let Some(at) = bytes.iter().position(|byte| *byte < 0x20 && *byte != b'\n') {
        return Err(NoteError::NotText { at });
    }
    std::str::from_utf8(bytes).map_err(|error| NoteError::NotText { at: error.valid_up_to() })
}

impl Note {
    /// Reads a note. Says nothing about its signatures.
    ///
    /// # Errors
    /// Whatever is not a signed note.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        let whole = check_text(bytes)?;
        // The last empty line: the text may have empty lines of its own.
        let split = whole.rfind("\n\n").ok_or(NoteError::NoSignatures)?;
        let (text, below) = (&whole[..=split], &whole[split + 2..]);
        let lines = below.strip_suffix('\n').ok_or(NoteError::NoSignatures)?;
        let signatures = lines
            .split('\n')
            .enumerate()
            .map(|(index, line)| {
                parse_signature(line).ok_or(NoteError::SignatureLine { line: index + 1 })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// The text, with the newline at its end.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signature lines in order.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Checks the signatures of all `trusted` keys on the note and ignores unknown keys; returns
    /// the keys that have signed, in the order of `trusted`.
    ///
    /// # Errors
    /// [`NoteError::BadSignature`] when any signature in the name of a trusted key is wrong,
    /// [`NoteError::Untrusted`] when no trusted key has signed.
    pub fn verify<'k>(
        &self,
        trusted: &'k [VerifierKey],
    ) -> Result<Vec<&'k VerifierKey>, NoteError> {
        let mut signed = Vec::new();
        for key in trusted {
            let mut lines = self
                .signatures
                .iter()
                .filter(|line| line.name == key.name && line.key_id == key.key_id)
                .peekable();
            if lines.peek().is_none() {
                continue;
            }
            let public_key = UnparsedPublicKey::new(&ED25519, &key.public_key);
            for line in lines {
                public_key
                    .verify(self.text.as_bytes(), &line.signature)
                    .map_err(|_| NoteError::BadSignature { name: key.name.clone() })?;
            }
            signed.push(key);
        }
        if signed.is_empty() { Err(NoteError::Untrusted) } else { Ok(signed) }
    }
}

fn parse_signature(line: &str) -> Option<NoteSignature> {
    let (name, body) = line.strip_prefix(SIGNATURE_PREFIX)?.split_once(' ')?;
    check_name(name).ok()?;
    let bytes = base64::decode(body)?;
    let (key_id, signature) = bytes.split_first_chunk::<4>()?;
    if signature.is_empty() {
        return None;
    }
    Some(NoteSignature { name: name.to_owned(), key_id: *key_id, signature: signature.to_vec() })
}

#[cfg(test)]
mod tests;
