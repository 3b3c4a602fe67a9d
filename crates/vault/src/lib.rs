//! The vault: every secret of a deployment, and the sealing that is done with them.
//!
//! Why it exists: keys have one owner, so that sealing, rotation and destruction are decided in one
//! place. It holds a key per topic (blocks), a key per subject (personal values) and the seed that
//! signs checkpoints. It does not know what the sealed bytes mean, nor schemas, blocks or logs.
//!
//! What is stored where (a directory that only its owner may read):
//!
//! | file | content |
//! | --- | --- |
//! | `keyring.json` | root key, key-encryption keys, wrapped data keys of topics, wrapped signing seed |
//! | `subjects.keys` | one wrapped key per subject, tombstones of destroyed ones |
//! | `lock` | held while a process has the vault open |

mod aead;
mod durable;
mod error;
mod keyring;
mod random;
mod stored;
mod subjects;
mod vault;

pub use aead::{KeyCommitment, KeyId, KeyName, NONCE_BYTES, Sealed, TAG_BYTES};
pub use error::{SubjectRef, VaultError};
pub use random::{Random, SeededRandom, SystemRandom};
pub use subjects::{SEALED_VALUE_OVERHEAD, SubjectState};
pub use vault::{Rotation, Vault};
