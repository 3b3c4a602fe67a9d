//! Proofs of bytes and order: RFC 6962 Merkle trees, inclusion and consistency proofs, and C2SP
//! signed notes and checkpoints.
//!
//! Why it exists: it is all that an offline verifier needs. It does not know topics, events, epochs
//! or where anything is stored; a leaf is bytes, and a proof says that they are in a tree of a size.

mod base64;
pub mod checkpoint;
pub mod note;
pub mod proofs;
pub mod tree;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use note::{Note, NoteError, NoteSigner, SeedSigner, VerifierKey, sign_note};
pub use proofs::{ProofError, verify_consistency, verify_inclusion};
pub use tree::{Frontier, Hash, MerkleTree, TreeError, empty_root, leaf_hash, node_hash, root_of};
