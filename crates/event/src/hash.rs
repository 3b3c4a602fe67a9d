//! Hashes with permanent meaning: SHA-256 with domain tags for identity and proof, XXH3-64 for
//! placement.
//!
//! Does not know Merkle trees (see the proof crate) or keys of encryption (see the vault).

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_64;

use crate::ids::{EventId, Op};

/// A SHA-256 digest (FIPS 180-4).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hash256(pub [u8; 32]);

impl fmt::Debug for Hash256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::ids::hex(&self.0))
    }
}

impl fmt::Display for Hash256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::ids::hex(&self.0))
    }
}

/// SHA-256 of `tag ‖ 0x00 ‖ (length u64 big-endian ‖ part)*`: no two part lists collide by
/// concatenation, and no two tags share digests.
pub fn domain_hash(tag: &[u8], parts: &[&[u8]]) -> Hash256 {
    let mut hasher = Sha256::new();
    hasher.update(tag);
    hasher.update([0]);
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    Hash256(hasher.finalize().into())
}

/// Length of an event's salt in bytes.
pub const SALT_BYTES: usize = 16;

/// The hash that a proof commits to for one event: SHA-256 of
/// `"falaj.event.v1" ‖ 0x00 ‖ schema version (u32 BE) ‖ event id (33) ‖ op (1) ‖ salt (16) ‖
/// canonical encoding of the stored (sealed) columns`.
///
/// The salt keeps anybody from guessing a row from its hash; the columns are hashed as stored, so
/// that the hash survives the destruction of a subject's key.
pub fn event_hash(
    schema_version: u32,
    id: &EventId,
    op: Op,
    salt: &[u8; SALT_BYTES],
    stored_columns: &[u8],
) -> Hash256 {
    let mut hasher = Sha256::new();
    hasher.update(b"falaj.event.v1\0");
    hasher.update(schema_version.to_be_bytes());
    hasher.update(id.to_bytes());
    hasher.update([op as u8]);
    hasher.update(salt);
    hasher.update(stored_columns);
    Hash256(hasher.finalize().into())
}

/// XXH3-64 with seed 0 of a key's canonical bytes.
pub fn key_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The topic partition of a key: [`key_hash`] modulo the topic's partition count.
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    let count = u64::from(partitions.max(1));
    u32::try_from(key_hash(key) % count).unwrap_or(0)
}

/// The logical partition (0..=255) that a key's state lives in: [`key_hash`] modulo 256.
pub fn logical_partition(key: &[u8]) -> u8 {
    key_hash(key).to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ProducerId, hex};

    #[test]
    fn placement_is_the_published_xxh3() {
        // XXH3-64 of the empty input with seed 0, from the reference implementation.
        assert_eq!(key_hash(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(logical_partition(b""), 0xc2);
        assert_eq!(partition_of(b"", 4), 2);
        assert_eq!(partition_of(b"anything", 1), 0);
    }

    #[test]
    fn event_hash_is_sha256_of_the_documented_bytes() {
        let id = EventId::Producer { producer: ProducerId([3; 16]), sequence: 5 };
        let mut bytes = b"falaj.event.v1\0".to_vec();
        bytes.extend([0, 0, 0, 2]);
        bytes.extend(id.to_bytes());
        bytes.push(1);
        bytes.extend([9; 16]);
        bytes.extend(b"columns");
        let expected: [u8; 32] = Sha256::digest(&bytes).into();
        assert_eq!(event_hash(2, &id, Op::Upsert, &[9; 16], b"columns"), Hash256(expected));
    }

    #[test]
    fn domain_hash_separates_parts() {
        assert_ne!(domain_hash(b"t", &[b"ab", b"c"]), domain_hash(b"t", &[b"a", b"bc"]));
        assert_ne!(domain_hash(b"t", &[b"ab"]), domain_hash(b"u", &[b"ab"]));
        assert_eq!(hex(&domain_hash(b"t", &[]).0).len(), 64);
    }
}
