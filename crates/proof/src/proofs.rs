//! Verification of inclusion and consistency proofs (RFC 9162 sections 2.1.3.2 and 2.1.4.2).
//!
//! Does not know trees: it computes from the proof alone, in constant space.

use crate::tree::{Hash, empty_root, node_hash};

/// Why a proof does not prove.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// No such leaf.
    #[error("leaf {index} is not in a tree of {size} leaves")]
    Index {
        /// The leaf.
        index: u64,
        /// The tree.
        size: u64,
    },
    /// The sizes do not grow.
    #[error("a tree of {smaller} leaves is not a prefix of one of {larger}")]
    Size {
        /// What should be the prefix.
        smaller: u64,
        /// What should contain it.
        larger: u64,
    },
    /// A proof of another shape.
    #[error("the proof has {got} hashes where its tree needs {expected}")]
    Length {
        /// How many hashes such a proof has.
        expected: usize,
        /// How many it has.
        got: usize,
    },
    /// The computed root is another one.
    #[error("the proof leads to another root than the {which} one")]
    Root {
        /// Which root does not match.
        which: &'static str,
    },
}

/// Checks that the leaf with hash `leaf` is at `index` of the tree of `size` leaves and `root`.
///
/// # Errors
/// Whenever it is not shown by `proof`.
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::Index { index, size });
    }
    let expected = inclusion_length(index, size);
    if proof.len() != expected {
        return Err(ProofError::Length { expected, got: proof.len() });
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if hash == *root { Ok(()) } else { Err(ProofError::Root { which: "given" }) }
}

/// How many hashes prove leaf `index` of `size`: the levels below the point where its path joins
/// the tree's right border, and one per left sibling above.
fn inclusion_length(index: u64, size: u64) -> usize {
    let inner = u64::BITS - (index ^ (size - 1)).leading_zeros();
    let border = index.checked_shr(inner).unwrap_or(0).count_ones();
    (inner + border) as usize
}

/// Checks that the tree of `smaller` leaves and `smaller_root` is a prefix of the tree of `larger`
/// leaves and `larger_root`.
///
/// # Errors
/// Whenever it is not shown by `proof`.
pub fn verify_consistency(
    smaller: u64,
    larger: u64,
    proof: &[Hash],
    smaller_root: &Hash,
    larger_root: &Hash,
) -> Result<(), ProofError> {
    if smaller > larger {
        return Err(ProofError::Size { smaller, larger });
    }
    if smaller == 0 || smaller == larger {
        return verify_trivial(smaller, larger, proof, smaller_root, larger_root);
    }
    let (mut node, mut last) = (smaller - 1, larger - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let expected = inclusion_length(node, last + 1) + usize::from(!smaller.is_power_of_two());
    if proof.len() != expected {
        return Err(ProofError::Length { expected, got: proof.len() });
    }
    let (start, rest) = match proof.split_first() {
        Some((first, rest)) if !smaller.is_power_of_two() => (first, rest),
        _ => (smaller_root, proof),
    };
    let (mut old, mut new) = (*start, *start);
    for sibling in rest {
        if node & 1 == 1 || node == last {
            old = node_hash(sibling, &old);
            new = node_hash(sibling, &new);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new = node_hash(&new, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if old != *smaller_root {
        Err(ProofError::Root { which: "smaller" })
    } else if new != *larger_root {
        Err(ProofError::Root { which: "larger" })
    } else {
        Ok(())
    }
}

/// The empty tree is a prefix of every tree, and every tree of itself; both need no hashes.
fn verify_trivial(
    smaller: u64,
    larger: u64,
    proof: &[Hash],
    smaller_root: &Hash,
    larger_root: &Hash,
) -> Result<(), ProofError> {
    if !proof.is_empty() {
        return Err(ProofError::Length { expected: 0, got: proof.len() });
    }
    if smaller == 0 && *smaller_root != empty_root() {
        return Err(ProofError::Root { which: "smaller" });
    }
    if smaller == larger && smaller_root != larger_root {
        return Err(ProofError::Root { which: "larger" });
    }
    Ok(())
}
