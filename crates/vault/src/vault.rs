//! The vault as others see it: sealing and opening for topics and for subjects.
//!
//! Does not know the layout of what is sealed, nor who may ask for it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use falaj_event::TopicId;
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::aead::{KeyName, NONCE_BYTES, Sealed};
use crate::durable;
use crate::error::VaultError;
use crate::keyring::Keyring;
pub use crate::keyring::Rotation;
use crate::random::{Random, SeededRandom, SystemRandom};
use crate::subjects::{SubjectKeys, SubjectState};

/// All secrets of one deployment. Cheap to share behind an `Arc`; every method may be called from
/// any thread.
pub struct Vault {
    keyring: Keyring,
    subjects: SubjectKeys,
    random: Arc<dyn Random>,
    signer: Ed25519KeyPair,
    /// Held for as long as the vault is open.
    _lock: Option<File>,
}

impl Vault {
    /// Opens the vault in `directory`, or makes it there on the first start (0700, files 0600).
    ///
    /// # Errors
    /// [`VaultError::InUse`], [`VaultError::Permissions`], [`VaultError::Version`],
    /// [`VaultError::Damaged`] naming file and place, or a failed file operation.
    pub fn open(directory: &Path) -> Result<Self, VaultError> {
        Self::open_with(directory, Arc::new(SystemRandom::default()), Rotation::default())
    }

    /// As [`Vault::open`], with a chosen random source and rotation.
    ///
    /// # Errors
    /// As [`Vault::open`].
    pub fn open_with(
        directory: &Path,
        random: Arc<dyn Random>,
        rotation: Rotation,
    ) -> Result<Self, VaultError> {
        durable::create_directory(directory)?;
        let lock = durable::lock(directory)?;
        let keyring_path = directory.join("keyring.json");
        let subjects_path = directory.join("subjects.keys");
        let (keyring, subjects) = if let Some(bytes) = durable::read_private(&keyring_path)? {
            let keyring = Keyring::load(&keyring_path, &bytes, Arc::clone(&random), rotation)?;
            let subjects = SubjectKeys::load(&subjects_path, &keyring, Arc::clone(&random))?;
            keyring.keep_only_kek(subjects.kek_id())?;
            (keyring, subjects)
        } else {
            SubjectKeys::refuse_orphan(&subjects_path)?;
            let keyring = Keyring::generate(Some(keyring_path), Arc::clone(&random), rotation)?;
            // The keyring comes last: as long as it is missing, the first start is not over.
            let subjects =
                SubjectKeys::create(Some(&subjects_path), &keyring, Arc::clone(&random))?;
            keyring.save()?;
            (keyring, subjects)
        };
        Self::assemble(keyring, subjects, random, Some(lock))
    }

    /// A vault without files whose keys follow from `seed`: for tests and simulations only.
    ///
    /// # Errors
    /// When the cipher library refuses, which it does not.
    pub fn ephemeral(seed: u64) -> Result<Self, VaultError> {
        Self::ephemeral_with(seed, Rotation::default())
    }

    /// As [`Vault::ephemeral`], with a chosen rotation.
    ///
    /// # Errors
    /// As [`Vault::ephemeral`].
    pub fn ephemeral_with(seed: u64, rotation: Rotation) -> Result<Self, VaultError> {
        let random: Arc<dyn Random> = Arc::new(SeededRandom::new(seed));
        let keyring = Keyring::generate(None, Arc::clone(&random), rotation)?;
        let subjects = SubjectKeys::create(None, &keyring, Arc::clone(&random))?;
        Self::assemble(keyring, subjects, random, None)
    }

    fn assemble(
        keyring: Keyring,
        subjects: SubjectKeys,
        random: Arc<dyn Random>,
        lock: Option<File>,
    ) -> Result<Self, VaultError> {
        let signer = Ed25519KeyPair::from_seed_unchecked(&keyring.signing_seed())
            .map_err(|_| VaultError::Cipher)?;
        Ok(Self { keyring, subjects, random, signer, _lock: lock })
    }

    /// The source of randomness that this vault uses: block ids and salts come from it too.
    pub fn random(&self) -> &Arc<dyn Random> {
        &self.random
    }

    /// Seals `plaintext` under the current data key of `topic` (made on first use), in place.
    ///
    /// What is authenticated besides the plaintext: `"falaj.block.v1" ‖ 0x00 ‖ topic (16) ‖
    /// key id (16) ‖ key commitment (32) ‖ aad`.
    ///
    /// # Errors
    /// When the keyring cannot be written (a new key, an exhausted allowance) or the random source
    /// failed; nothing is sealed then.
    pub fn seal_block(
        &self,
        topic: TopicId,
        aad: &[u8],
        plaintext: Vec<u8>,
    ) -> Result<Sealed, VaultError> {
        let key = self.keyring.sealing_key(topic)?;
        let mut ciphertext = plaintext;
        let aad = block_aad(topic, &key.name, aad);
        let nonce = key.cipher.seal(&*self.random, &aad, &mut ciphertext, 0)?;
        Ok(Sealed { key: key.name, nonce, ciphertext })
    }

    /// Opens what [`Vault::seal_block`] sealed for `topic` with `aad`.
    ///
    /// # Errors
    /// [`VaultError::UnknownKey`], [`VaultError::CommitmentMismatch`] or
    /// [`VaultError::Authentication`], each naming topic and key.
    pub fn open_block(
        &self,
        topic: TopicId,
        aad: &[u8],
        key: &KeyName,
        nonce: &[u8; NONCE_BYTES],
        ciphertext: Vec<u8>,
    ) -> Result<Vec<u8>, VaultError> {
        let data_key = self.keyring.opening_key(topic, key)?;
        let mut bytes = ciphertext;
        data_key
            .cipher
            .open(nonce, &block_aad(topic, key, aad), &mut bytes)
            .map_err(|_| VaultError::Authentication { topic, key: key.id })?;
        Ok(bytes)
    }

    /// Makes keys for those of `subjects` that have none; one durable write for all of them.
    /// Returns how many were made. A subject whose key was destroyed gets a new one; what the old
    /// one sealed stays erased.
    ///
    /// # Errors
    /// [`VaultError::SubjectLength`], or a failed write: no key of the call may be used then.
    pub fn ensure_subjects(&self, subjects: &[&[u8]]) -> Result<usize, VaultError> {
        self.subjects.ensure(subjects)
    }

    /// Whether `subject` has a key, had one, or never had.
    pub fn subject_state(&self, subject: &[u8]) -> SubjectState {
        self.subjects.state(subject)
    }

    /// Seals a value under the key of `subject`, into bytes that describe themselves:
    /// `0x01 ‖ key commitment (32) ‖ nonce (12) ‖ ciphertext ‖ tag (16)`. Authenticated besides:
    /// `"falaj.value.v1" ‖ 0x00 ‖ subject length (u16 BE) ‖ subject ‖ key commitment ‖ aad`.
    ///
    /// # Errors
    /// [`VaultError::UnknownSubject`], [`VaultError::Erased`], or the random source failed.
    pub fn seal_value(
        &self,
        subject: &[u8],
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, VaultError> {
        self.subjects.seal(subject, aad, plaintext)
    }

    /// Opens what [`Vault::seal_value`] sealed for `subject` with `aad`.
    ///
    /// # Errors
    /// [`VaultError::Erased`] when the key was destroyed; [`VaultError::UnknownSubject`],
    /// [`VaultError::SubjectMismatch`], [`VaultError::MalformedValue`] or
    /// [`VaultError::SubjectAuthentication`] when the bytes do not belong here.
    pub fn open_value(
        &self,
        subject: &[u8],
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, VaultError> {
        self.subjects.open(subject, aad, sealed)
    }

    /// Destroys the key of `subject` for ever: all other subjects' keys are re-wrapped under a new
    /// key-encryption key, the file is replaced, and the old key-encryption key is forgotten, so
    /// that remains of the old file open nothing. Returns whether there was a key. May be repeated
    /// after a crash.
    ///
    /// # Errors
    /// A failed write; whether the key is destroyed is known after the vault is reopened.
    pub fn destroy_subject(&self, subject: &[u8]) -> Result<bool, VaultError> {
        self.subjects.destroy(subject, &self.keyring)
    }

    /// The Ed25519 public key that checkpoints of this log are verified with.
    pub fn log_public_key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        key.copy_from_slice(self.signer.public_key().as_ref());
        key
    }

    /// Whether `signature` is the log's on `message`.
    pub fn is_signed_by_log(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = ring::signature::UnparsedPublicKey::new(
            &ring::signature::ED25519,
            self.signer.public_key(),
        );
        key.verify(message, signature).is_ok()
    }

    /// Signs `message` with the log's Ed25519 key; the same message gives the same signature.
    pub fn sign_for_log(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.signer.sign(message).as_ref());
        signature
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(..)")
    }
}

fn block_aad(topic: TopicId, key: &KeyName, aad: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(15 + 16 + 16 + 32 + aad.len());
    bytes.extend_from_slice(b"falaj.block.v1\0");
    bytes.extend_from_slice(&topic.0);
    bytes.extend_from_slice(&key.id.0);
    bytes.extend_from_slice(&key.commitment.0);
    bytes.extend_from_slice(aad);
    bytes
}

#[cfg(test)]
mod tests;
