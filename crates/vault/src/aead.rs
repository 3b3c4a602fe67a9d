//! One symmetric key and what is done with it: AES-256-GCM with random 96-bit nonces, and a
//! commitment, because GCM by itself does not tie bytes to one key.
//!
//! Does not know whose key it is or where it is stored.

use std::fmt;

use falaj_event::ids::hex;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::digest::{Context, SHA256};

use crate::error::VaultError;
use crate::random::Random;

/// Length of a nonce in bytes.
pub const NONCE_BYTES: usize = 12;
/// Length of the authentication tag that ends every ciphertext, in bytes.
pub const TAG_BYTES: usize = 16;
/// Length of a key in bytes.
pub(crate) const KEY_BYTES: usize = 32;

/// A data key's random 128-bit id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 16]);

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// SHA-256 of `"falaj.keycommit.v1" ‖ 0x00 ‖ key (32)`: binds sealed bytes to one key, and says
/// nothing about it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyCommitment(pub [u8; 32]);

impl fmt::Debug for KeyCommitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// What sealed bytes say about the key that sealed them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName {
    /// Which key of the topic.
    pub id: KeyId,
    /// Its commitment.
    pub commitment: KeyCommitment,
}

/// Bytes sealed under a topic's data key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The key.
    pub key: KeyName,
    /// The nonce, random.
    pub nonce: [u8; NONCE_BYTES],
    /// Ciphertext followed by its 16-byte tag.
    pub ciphertext: Vec<u8>,
}

/// The commitment of a key.
pub(crate) fn commitment_of(key: &[u8; KEY_BYTES]) -> KeyCommitment {
    let mut context = Context::new(&SHA256);
    context.update(b"falaj.keycommit.v1\0");
    context.update(key);
    let mut commitment = [0; 32];
    commitment.copy_from_slice(context.finish().as_ref());
    KeyCommitment(commitment)
}

/// A key that is ready to seal and open.
pub(crate) struct Cipher(LessSafeKey);

/// The bytes fail authentication.
pub(crate) struct NotAuthentic;

impl Cipher {
    pub(crate) fn new(key: &[u8; KEY_BYTES]) -> Result<Self, VaultError> {
        // Fails only for keys of another length.
        let unbound = UnboundKey::new(&AES_256_GCM, key).map_err(|_| VaultError::Cipher)?;
        Ok(Self(LessSafeKey::new(unbound)))
    }

    /// Seals `bytes[from..]` in place and appends the tag; returns the nonce.
    pub(crate) fn seal(
        &self,
        random: &dyn Random,
        aad: &[u8],
        bytes: &mut Vec<u8>,
        from: usize,
    ) -> Result<[u8; NONCE_BYTES], VaultError> {
        let mut nonce = [0; NONCE_BYTES];
        random.fill(&mut nonce)?;
        let tag = self
            .0
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                &mut bytes[from..],
            )
            .map_err(|_| VaultError::Cipher)?;
        bytes.extend_from_slice(tag.as_ref());
        Ok(nonce)
    }

    /// Opens `ciphertext` (tag included) in place and leaves the plaintext in it.
    pub(crate) fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        ciphertext: &mut Vec<u8>,
    ) -> Result<(), NotAuthentic> {
        let length = self
            .0
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), ciphertext)
            .map_err(|_| NotAuthentic)?
            .len();
        ciphertext.truncate(length);
        Ok(())
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(..)")
    }
}
