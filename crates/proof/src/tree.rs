//! RFC 6962 hashing: leaves, nodes, a whole tree in memory and a frontier that only appends.
//!
//! Does not know what leaves mean. With SHA-256:
//!
//! | what | hash |
//! | --- | --- |
//! | empty tree | `SHA-256("")` |
//! | leaf | `SHA-256(0x00 ‖ data)` |
//! | node | `SHA-256(0x01 ‖ left ‖ right)`, left over the greatest power of two below the size |

use sha2::{Digest, Sha256};

use crate::proofs::ProofError;

/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// The root of a tree without leaves.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// The hash of a leaf that holds `data`.
pub fn leaf_hash(data: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(data);
    hasher.finalize().into()
}

/// The hash of the node above `left` and `right`.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [1; 65];
    bytes[1..33].copy_from_slice(left);
    bytes[33..].copy_from_slice(right);
    Sha256::digest(bytes).into()
}

/// The root over leaf hashes, in one pass and logarithmic space.
pub fn root_of<'a>(leaf_hashes: impl IntoIterator<Item = &'a Hash>) -> Hash {
    let mut frontier = Frontier::default();
    leaf_hashes.into_iter().for_each(|leaf| frontier.push(*leaf));
    frontier.root()
}

/// Why a frontier's parts do not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frontier of {size} leaves has {expected} nodes, not {got}")]
pub struct TreeError {
    /// Number of leaves.
    pub size: u64,
    /// How many nodes such a frontier has.
    pub expected: u32,
    /// How many were given.
    pub got: usize,
}

/// What a tree must remember in order to be appended to: the root of each complete subtree, the
/// largest first (one per set bit of the size).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    nodes: Vec<Hash>,
}

impl Frontier {
    /// The frontier that [`Frontier::size`] and [`Frontier::nodes`] were taken from.
    ///
    /// # Errors
    /// When the number of nodes is not the number of set bits of `size`.
    pub fn from_parts(size: u64, nodes: Vec<Hash>) -> Result<Self, TreeError> {
        let expected = size.count_ones();
        if nodes.len() == expected as usize {
            Ok(Self { size, nodes })
        } else {
            Err(TreeError { size, expected, got: nodes.len() })
        }
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the complete subtrees, the largest first.
    pub fn nodes(&self) -> &[Hash] {
        &self.nodes
    }

    /// Appends a leaf by its hash.
    pub fn push(&mut self, leaf: Hash) {
        let mut node = leaf;
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.nodes.pop() {
                node = node_hash(&left, &node);
            }
        }
        self.nodes.push(node);
        self.size += 1;
    }

    /// The root over all leaves.
    pub fn root(&self) -> Hash {
        let mut nodes = self.nodes.iter().rev();
        match nodes.next() {
            None => empty_root(),
            Some(last) => nodes.fold(*last, |right, left| node_hash(left, &right)),
        }
    }
}

/// A tree whose leaves and inner nodes are all in memory (64 bytes per leaf), so that it can prove
/// anything about itself at any of its sizes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MerkleTree {
    /// `levels[l][i]` is the root over leaves `i * 2^l .. (i + 1) * 2^l`.
    levels: Vec<Vec<Hash>>,
}

impl MerkleTree {
    /// The tree over leaf hashes.
    pub fn from_leaf_hashes<'a>(leaf_hashes: impl IntoIterator<Item = &'a Hash>) -> Self {
        let mut tree = Self::default();
        leaf_hashes.into_iter().for_each(|leaf| tree.push(*leaf));
        tree
    }

    /// The tree over leaves' data.
    pub fn from_leaves<'a>(leaves: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut tree = Self::default();
        leaves.into_iter().for_each(|leaf| tree.push(leaf_hash(leaf)));
        tree
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, |leaves| leaves.len() as u64)
    }

    /// Appends a leaf by its hash.
    pub fn push(&mut self, leaf: Hash) {
        let mut node = leaf;
        let mut level = 0;
        loop {
            if level == self.levels.len() {
                self.levels.push(Vec::new());
            }
            let row = &mut self.levels[level];
            row.push(node);
            match row.as_slice() {
                [.., left, right] if row.len().is_multiple_of(2) => node = node_hash(left, right),
                _ => return,
            }
            level += 1;
        }
    }

    /// The root over all leaves.
    pub fn root(&self) -> Hash {
        self.range(0, self.size())
    }

    /// The root that the tree had when it was `size` leaves long.
    ///
    /// # Errors
    /// [`ProofError::Size`] when it never was.
    pub fn root_at(&self, size: u64) -> Result<Hash, ProofError> {
        self.check_size(size)?;
        Ok(self.range(0, size))
    }

    fn check_size(&self, size: u64) -> Result<(), ProofError> {
        if size > self.size() {
            return Err(ProofError::Size { smaller: size, larger: self.size() });
        }
        Ok(())
    }

    /// The root over leaves `from..to`, as a subtree of its own; `to` is at most the size.
    fn range(&self, from: u64, to: u64) -> Hash {
        let size = to - from;
        if size == 0 {
            return empty_root();
        }
        let level = size.trailing_zeros();
        if size.is_power_of_two() && from.is_multiple_of(size) {
            let row = self.levels.get(level as usize);
            let index = usize::try_from(from >> level).unwrap_or(usize::MAX);
            if let Some(node) = row.and_then(|row| row.get(index)) {
                return *node;
            }
        }
        let middle = from + split(size);
        node_hash(&self.range(from, middle), &self.range(middle, to))
    }

    /// The inclusion proof of leaf `index` in the tree of `size` leaves, sibling of the leaf first.
    ///
    /// # Errors
    /// [`ProofError::Index`] or [`ProofError::Size`] when there is no such leaf or tree.
    pub fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Hash>, ProofError> {
        self.check_size(size)?;
        if index >= size {
            return Err(ProofError::Index { index, size });
        }
        let mut proof = Vec::new();
        let (mut from, mut to) = (0, size);
        while to - from > 1 {
            let middle = from + split(to - from);
            if index < middle {
                proof.push(self.range(middle, to));
                to = middle;
            } else {
                proof.push(self.range(from, middle));
                from = middle;
            }
        }
        proof.reverse();
        Ok(proof)
    }

    /// The proof that the tree of `smaller` leaves is a prefix of the tree of `larger` leaves.
    ///
    /// # Errors
    /// [`ProofError::Size`] unless `smaller <= larger <= size`.
    pub fn consistency(&self, smaller: u64, larger: u64) -> Result<Vec<Hash>, ProofError> {
        self.check_size(larger)?;
        if smaller > larger {
            return Err(ProofError::Size { smaller, larger });
        }
        if smaller == 0 || smaller == larger {
            return Ok(Vec::new());
        }
        let mut proof = Vec::new();
        let (mut from, mut to) = (0, larger);
        // Walks down to the subtree that ends exactly at `smaller`.
        while to > smaller {
            let middle = from + split(to - from);
            if smaller <= middle {
                proof.push(self.range(middle, to));
                to = middle;
            } else {
                proof.push(self.range(from, middle));
                from = middle;
            }
        }
        // A verifier knows that subtree's root only when it is the whole smaller tree.
        if from > 0 {
            proof.push(self.range(from, to));
        }
        proof.reverse();
        Ok(proof)
    }
}

/// The greatest power of two below `size`, which is at least 2.
fn split(size: u64) -> u64 {
    1 << (u64::BITS - 1 - (size - 1).leading_zeros())
}

#[cfg(test)]
mod tests;
