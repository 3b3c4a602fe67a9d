//! The keyring: root key, data keys per topic with their rotation, key-encryption keys of subjects,
//! the log's signing seed; in memory, and in `keyring.json` after every change.
//!
//! Does not know blocks or subjects' keys.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use falaj_event::TopicId;
use falaj_event::ids::hex;

use crate::aead::{Cipher, KEY_BYTES, KeyId, KeyName, NONCE_BYTES, TAG_BYTES, commitment_of};
use crate::durable;
use crate::error::VaultError;
use crate::random::Random;
use crate::stored::{StoredKey, StoredKeyring, StoredTopic, unhex};

const WRAPPED_BYTES: usize = NONCE_BYTES + KEY_BYTES + TAG_BYTES;

/// When a topic gets a new data key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// A key seals at most this often; far below 2^32, where random nonces would start to repeat.
    pub seals_per_key: u64,
    /// Seals that one write of the keyring allows; what a restart leaves unused is lost.
    pub seals_per_write: u64,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { seals_per_key: 1 << 28, seals_per_write: 1 << 20 }
    }
}

/// A topic's data key.
pub(crate) struct DataKey {
    pub(crate) name: KeyName,
    pub(crate) cipher: Cipher,
    secret: [u8; KEY_BYTES],
    seals: AtomicU64,
}

impl DataKey {
    fn take_seal(&self, reserved: u64) -> bool {
        self.seals
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < reserved).then_some(n + 1))
            .is_ok()
    }
}

#[derive(Clone)]
struct Slot {
    key: Arc<DataKey>,
    seals_reserved: u64,
}

#[derive(Clone, Default)]
struct TopicKeys {
    current: usize,
    slots: Vec<Slot>,
    by_id: HashMap<KeyId, usize>,
}

/// A key-encryption key of subjects' keys.
#[derive(Clone)]
pub(crate) struct Kek {
    pub(crate) id: KeyId,
    pub(crate) cipher: Arc<Cipher>,
    secret: [u8; KEY_BYTES],
}

#[derive(Clone)]
struct State {
    root: [u8; KEY_BYTES],
    signing_seed: [u8; KEY_BYTES],
    keks: Vec<Kek>,
    topics: BTreeMap<TopicId, TopicKeys>,
}

pub(crate) struct Keyring {
    path: Option<PathBuf>,
    random: Arc<dyn Random>,
    rotation: Rotation,
    state: RwLock<State>,
}

impl Keyring {
    /// A new keyring, in memory until [`Keyring::save`].
    pub(crate) fn generate(
        path: Option<PathBuf>,
        random: Arc<dyn Random>,
        rotation: Rotation,
    ) -> Result<Self, VaultError> {
        let mut state = State {
            root: random_key(&*random)?,
            signing_seed: random_key(&*random)?,
            keks: Vec::new(),
            topics: BTreeMap::new(),
        };
        state.keks.push(new_kek(&*random)?);
        Ok(Self { path, random, rotation, state: RwLock::new(state) })
    }

    /// The keyring stored at `path`, whose content is `bytes`.
    pub(crate) fn load(
        path: &Path,
        bytes: &[u8],
        random: Arc<dyn Random>,
        rotation: Rotation,
    ) -> Result<Self, VaultError> {
        let stored = StoredKeyring::from_bytes(path, bytes)?;
        let state = Unwrapper::new(path, &stored)?.state(&stored)?;
        Ok(Self { path: Some(path.to_owned()), random, rotation, state: RwLock::new(state) })
    }

    pub(crate) fn save(&self) -> Result<(), VaultError> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        self.persist(&state)
    }

    pub(crate) fn signing_seed(&self) -> [u8; KEY_BYTES] {
        self.state.read().unwrap_or_else(PoisonError::into_inner).signing_seed
    }

    /// The current key of `topic` with one seal taken from its allowance; made, reserved and
    /// rotated here as needed.
    pub(crate) fn sealing_key(&self, topic: TopicId) -> Result<Arc<DataKey>, VaultError> {
        {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(slot) = state.topics.get(&topic).and_then(|t| t.slots.get(t.current))
                && slot.key.take_seal(slot.seals_reserved)
            {
                return Ok(Arc::clone(&slot.key));
            }
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        loop {
            let current = state.topics.get(&topic).and_then(|t| t.slots.get(t.current));
            if let Some(slot) = current
                && slot.key.take_seal(slot.seals_reserved)
            {
                return Ok(Arc::clone(&slot.key));
            }
            // Written before it is used: a key or an allowance that a crash forgets seals nothing.
            let mut next = state.clone();
            self.extend(next.topics.entry(topic).or_default())?;
            self.persist(&next)?;
            *state = next;
        }
    }

    fn extend(&self, topic: &mut TopicKeys) -> Result<(), VaultError> {
        let limit = self.rotation.seals_per_key.max(1);
        let step = self.rotation.seals_per_write.clamp(1, limit);
        if let Some(slot) = topic.slots.get_mut(topic.current)
            && slot.seals_reserved < limit
        {
            slot.seals_reserved = slot.seals_reserved.saturating_add(step).min(limit);
            return Ok(());
        }
        let key = Arc::new(new_data_key(&*self.random)?);
        topic.current = topic.slots.len();
        topic.by_id.insert(key.name.id, topic.current);
        topic.slots.push(Slot { key, seals_reserved: step });
        Ok(())
    }

    pub(crate) fn opening_key(
        &self,
        topic: TopicId,
        name: &KeyName,
    ) -> Result<Arc<DataKey>, VaultError> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let key = state
            .topics
            .get(&topic)
            .and_then(|keys| keys.slots.get(*keys.by_id.get(&name.id)?))
            .map(|slot| Arc::clone(&slot.key))
            .ok_or(VaultError::UnknownKey { topic, key: name.id })?;
        if key.name.commitment == name.commitment {
            Ok(key)
        } else {
            Err(VaultError::CommitmentMismatch { topic, key: name.id })
        }
    }

    /// The newest key-encryption key of subjects.
    pub(crate) fn kek(&self, id: Option<KeyId>) -> Option<Kek> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        match id {
            Some(id) => state.keks.iter().find(|kek| kek.id == id).cloned(),
            None => state.keks.last().cloned(),
        }
    }

    /// Adds a key-encryption key, durably.
    pub(crate) fn add_kek(&self) -> Result<Kek, VaultError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = state.clone();
        let kek = new_kek(&*self.random)?;
        next.keks.push(kek.clone());
        self.persist(&next)?;
        *state = next;
        Ok(kek)
    }

    /// Forgets every key-encryption key but `id`, durably.
    pub(crate) fn keep_only_kek(&self, id: KeyId) -> Result<(), VaultError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.keks.len() == 1 {
            return Ok(());
        }
        let mut next = state.clone();
        next.keks.retain(|kek| kek.id == id);
        self.persist(&next)?;
        *state = next;
        Ok(())
    }

    fn persist(&self, state: &State) -> Result<(), VaultError> {
        let Some(path) = &self.path else { return Ok(()) };
        let bytes = self.stored(state)?.to_bytes().map_err(|error| VaultError::Io {
            doing: "encoding",
            path: path.clone(),
            source: error.into(),
        })?;
        durable::replace(path, &bytes)
    }

    fn stored(&self, state: &State) -> Result<StoredKeyring, VaultError> {
        let root = Cipher::new(&state.root)?;
        let wrap = |purpose: &str, owner: &[u8], secret: &[u8; KEY_BYTES]| {
            wrap(&root, &*self.random, purpose, owner, secret).map(|bytes| hex(&bytes))
        };
        let seed = wrap("signing", b"", &state.signing_seed)?;
        let mut stored = StoredKeyring::new(&state.root, seed);
        for kek in &state.keks {
            stored.subject_keks.push(StoredKey {
                id: hex(&kek.id.0),
                wrapped: wrap("subjects", &kek.id.0, &kek.secret)?,
                seals_reserved: 0,
            });
        }
        for (topic, keys) in &state.topics {
            let mut out = Vec::with_capacity(keys.slots.len());
            for slot in &keys.slots {
                let id = slot.key.name.id;
                out.push(StoredKey {
                    id: hex(&id.0),
                    wrapped: wrap("topic", &topic_owner(topic, id), &slot.key.secret)?,
                    seals_reserved: slot.seals_reserved,
                });
            }
            let current =
                keys.slots.get(keys.current).map_or(String::new(), |slot| hex(&slot.key.name.id.0));
            stored.topics.insert(hex(&topic.0), StoredTopic { current, keys: out });
        }
        Ok(stored)
    }
}

/// Reads a stored keyring back, naming the field that does not fit.
struct Unwrapper<'a> {
    path: &'a Path,
    root: [u8; KEY_BYTES],
    cipher: Cipher,
}

impl<'a> Unwrapper<'a> {
    fn new(path: &'a Path, stored: &StoredKeyring) -> Result<Self, VaultError> {
        let root = unhex(&stored.root).ok_or_else(|| VaultError::Damaged {
            path: path.to_owned(),
            place: "root".to_owned(),
            why: "it is not 64 hexadecimal digits".to_owned(),
        })?;
        Ok(Self { path, root, cipher: Cipher::new(&root)? })
    }

    fn state(&self, stored: &StoredKeyring) -> Result<State, VaultError> {
        let signing_seed = self.unwrap("signing_seed", "signing", b"", &stored.signing_seed)?;
        let mut keks = Vec::new();
        for key in &stored.subject_keks {
            let id = KeyId(self.id("subject_keks", &key.id)?);
            let secret = self.unwrap("subject_keks", "subjects", &id.0, &key.wrapped)?;
            keks.push(Kek { id, cipher: Arc::new(Cipher::new(&secret)?), secret });
        }
        let mut topics = BTreeMap::new();
        for (topic, stored) in &stored.topics {
            let id = TopicId(self.id("topics", topic)?);
            topics.insert(id, self.topic(id, stored)?);
        }
        Ok(State { root: self.root, signing_seed, keks, topics })
    }

    fn topic(&self, topic: TopicId, stored: &StoredTopic) -> Result<TopicKeys, VaultError> {
        let place = format!("topics.{}", hex(&topic.0));
        let mut keys = TopicKeys::default();
        for key in &stored.keys {
            let id = KeyId(self.id(&place, &key.id)?);
            let secret = self.unwrap(&place, "topic", &topic_owner(&topic, id), &key.wrapped)?;
            let name = KeyName { id, commitment: commitment_of(&secret) };
            // How much of the allowance was used is not known any more: all of it counts as used.
            let seals = AtomicU64::new(key.seals_reserved);
            let key_of = DataKey { name, cipher: Cipher::new(&secret)?, secret, seals };
            keys.by_id.insert(id, keys.slots.len());
            keys.slots.push(Slot { key: Arc::new(key_of), seals_reserved: key.seals_reserved });
        }
        let current = KeyId(self.id(&place, &stored.current)?);
        keys.current = *keys
            .by_id
            .get(&current)
            .ok_or_else(|| self.damaged(&place, "the current key is not among the keys"))?;
        Ok(keys)
    }

    fn id(&self, place: &str, text: &str) -> Result<[u8; 16], VaultError> {
        unhex(text).ok_or_else(|| self.damaged(place, "an id is not 32 hexadecimal digits"))
    }

    fn unwrap(
        &self,
        place: &str,
        purpose: &str,
        owner: &[u8],
        text: &str,
    ) -> Result<[u8; KEY_BYTES], VaultError> {
        let wrapped = unhex::<WRAPPED_BYTES>(text)
            .ok_or_else(|| self.damaged(place, "a wrapped key is not 120 hexadecimal digits"))?;
        unwrap(&self.cipher, purpose, owner, &wrapped)
            .ok_or_else(|| self.damaged(place, "a wrapped key fails authentication"))
    }

    fn damaged(&self, place: &str, why: &str) -> VaultError {
        VaultError::Damaged {
            path: self.path.to_owned(),
            place: place.to_owned(),
            why: why.to_owned(),
        }
    }
}

fn topic_owner(topic: &TopicId, key: KeyId) -> [u8; 32] {
    let mut owner = [0; 32];
    owner[..16].copy_from_slice(&topic.0);
    owner[16..].copy_from_slice(&key.0);
    owner
}

fn wrap_aad(purpose: &str, owner: &[u8]) -> Vec<u8> {
    [b"falaj.wrap.v1\0".as_slice(), purpose.as_bytes(), &[0], owner].concat()
}

/// Wraps a key: `nonce ‖ ciphertext ‖ tag`, 60 bytes.
pub(crate) fn wrap(
    under: &Cipher,
    random: &dyn Random,
    purpose: &str,
    owner: &[u8],
    secret: &[u8; KEY_BYTES],
) -> Result<Vec<u8>, VaultError> {
    let mut body = secret.to_vec();
    let nonce = under.seal(random, &wrap_aad(purpose, owner), &mut body, 0)?;
    Ok([nonce.as_slice(), &body].concat())
}

/// Reverses [`wrap`]; `None` where the bytes are not what was wrapped for this purpose and owner.
pub(crate) fn unwrap(
    under: &Cipher,
    purpose: &str,
    owner: &[u8],
    wrapped: &[u8],
) -> Option<[u8; KEY_BYTES]> {
    let (nonce, body) = wrapped.split_first_chunk::<NONCE_BYTES>()?;
    let mut body = body.to_vec();
    under.open(nonce, &wrap_aad(purpose, owner), &mut body).ok()?;
    body.try_into().ok()
}

pub(crate) fn random_key(random: &dyn Random) -> Result<[u8; KEY_BYTES], VaultError> {
    let mut key = [0; KEY_BYTES];
    random.fill(&mut key)?;
    Ok(key)
}

fn random_id(random: &dyn Random) -> Result<KeyId, VaultError> {
    let mut id = [0; 16];
    random.fill(&mut id)?;
    Ok(KeyId(id))
}

fn new_kek(random: &dyn Random) -> Result<Kek, VaultError> {
    let secret = random_key(random)?;
    Ok(Kek { id: random_id(random)?, cipher: Arc::new(Cipher::new(&secret)?), secret })
}

fn new_data_key(random: &dyn Random) -> Result<DataKey, VaultError> {
    let secret = random_key(random)?;
    let name = KeyName { id: random_id(random)?, commitment: commitment_of(&secret) };
    Ok(DataKey { name, cipher: Cipher::new(&secret)?, secret, seals: AtomicU64::new(0) })
}
