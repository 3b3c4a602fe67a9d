//! Trees against the vectors that the transparency world shares, against the recursive definition,
//! and against every mutation of a proof.

use proptest::prelude::*;

use super::*;
use crate::proofs::{verify_consistency, verify_inclusion};

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn hash(text: &str) -> Hash {
    hex(text).try_into().unwrap()
}

/// The eight leaves of the certificate transparency test suites.
const LEAVES: [&str; 8] = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
];

const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn vector_tree() -> MerkleTree {
    let leaves: Vec<Vec<u8>> = LEAVES.iter().map(|leaf| hex(leaf)).collect();
    MerkleTree::from_leaves(leaves.iter().map(Vec::as_slice))
}

#[test]
fn roots_are_the_published_ones() {
    let tree = vector_tree();
    let mut frontier = Frontier::default();
    for (size, root) in ROOTS.iter().enumerate() {
        assert_eq!(tree.root_at(size as u64).unwrap(), hash(root));
        assert_eq!(frontier.root(), hash(root));
        if let Some(leaf) = LEAVES.get(size) {
            frontier.push(leaf_hash(&hex(leaf)));
        }
    }
}

#[test]
fn proofs_are_the_published_ones() {
    let tree = vector_tree();
    assert_eq!(
        tree.inclusion(0, 8).unwrap(),
        [
            hash("96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"),
            hash("5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"),
            hash("6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"),
        ]
    );
    assert_eq!(
        tree.inclusion(5, 8).unwrap(),
        [
            hash("bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"),
            hash("ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"),
            hash("d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
        ]
    );
    assert_eq!(tree.inclusion(0, 1).unwrap(), Vec::<Hash>::new());
    assert_eq!(
        tree.consistency(6, 8).unwrap(),
        [
            hash("0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"),
            hash("ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"),
            hash("d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
        ]
    );
    assert_eq!(
        tree.consistency(2, 5).unwrap(),
        [
            hash("5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"),
            hash("bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"),
        ]
    );
}

/// The definition of RFC 6962 section 2.1, word for word.
fn defined_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let mut k = 1;
            while k * 2 < leaves.len() {
                k *= 2;
            }
            node_hash(&defined_root(&leaves[..k]), &defined_root(&leaves[k..]))
        }
    }
}

fn numbered(count: usize) -> Vec<Hash> {
    (0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect()
}

#[test]
fn every_small_tree_proves_every_leaf_and_every_prefix() {
    let leaves = numbered(70);
    let tree = MerkleTree::from_leaf_hashes(&leaves);
    let roots: Vec<Hash> = (0..=70).map(|n| defined_root(&leaves[..n])).collect();
    for size in 0..=70u64 {
        let root = &roots[size as usize];
        assert_eq!(tree.root_at(size).unwrap(), *root);
        assert_eq!(root_of(&leaves[..size as usize]), *root);
        for index in 0..size {
            let proof = tree.inclusion(index, size).unwrap();
            let leaf = &leaves[index as usize];
            verify_inclusion(leaf, index, size, &proof, root).unwrap();
        }
        for smaller in 0..=size {
            let proof = tree.consistency(smaller, size).unwrap();
            verify_consistency(smaller, size, &proof, &roots[smaller as usize], root).unwrap();
        }
    }
}

#[test]
fn what_cannot_be_proved_is_refused() {
    let tree = vector_tree();
    assert_eq!(tree.inclusion(8, 8), Err(ProofError::Index { index: 8, size: 8 }));
    assert_eq!(tree.inclusion(0, 9), Err(ProofError::Size { smaller: 9, larger: 8 }));
    assert_eq!(tree.consistency(3, 2), Err(ProofError::Size { smaller: 3, larger: 2 }));
    assert_eq!(tree.root_at(9), Err(ProofError::Size { smaller: 9, larger: 8 }));
    assert!(verify_inclusion(&[0; 32], 0, 0, &[], &empty_root()).is_err());
    assert!(verify_consistency(2, 1, &[], &[0; 32], &[0; 32]).is_err());
    assert!(verify_consistency(0, 5, &[], &[7; 32], &[0; 32]).is_err());
    assert!(verify_consistency(0, 5, &[[1; 32]], &empty_root(), &[0; 32]).is_err());
    assert!(verify_consistency(4, 4, &[], &[1; 32], &[2; 32]).is_err());
    assert!(Frontier::from_parts(5, vec![[0; 32]]).is_err());
}

/// All ways to damage one proof: a flipped bit, a missing, doubled or swapped hash.
fn mutations(proof: &[Hash], at: usize, bit: usize) -> Vec<Vec<Hash>> {
    let mut all = Vec::new();
    if !proof.is_empty() {
        let at = at % proof.len();
        let mut flipped = proof.to_vec();
        flipped[at][bit / 8 % 32] ^= 1 << (bit % 8);
        all.push(flipped);
        let mut shorter = proof.to_vec();
        shorter.remove(at);
        all.push(shorter);
        let mut doubled = proof.to_vec();
        doubled.insert(at, proof[at]);
        all.push(doubled);
        let mut swapped = proof.to_vec();
        swapped.swap(0, at);
        if swapped != proof {
            all.push(swapped);
        }
    }
    let mut longer = proof.to_vec();
    longer.push([at as u8; 32]);
    all.push(longer);
    all
}

proptest! {
    #[test]
    fn a_mutated_inclusion_proof_proves_nothing(
        size in 1u64..400, seed in any::<u64>(), at in 0usize..64, bit in 0usize..256,
    ) {
        let leaves = numbered(size as usize);
        let tree = MerkleTree::from_leaf_hashes(&leaves);
        let (index, root) = (seed % size, tree.root());
        let leaf = leaves[index as usize];
        let proof = tree.inclusion(index, size).unwrap();
        prop_assert!(verify_inclusion(&leaf, index, size, &proof, &root).is_ok());
        for mutated in mutations(&proof, at, bit) {
            prop_assert!(verify_inclusion(&leaf, index, size, &mutated, &root).is_err());
        }
        let mut other = leaf;
        other[bit / 8 % 32] ^= 1 << (bit % 8);
        prop_assert!(verify_inclusion(&other, index, size, &proof, &root).is_err());
        let mut other = root;
        other[bit / 8 % 32] ^= 1 << (bit % 8);
        prop_assert!(verify_inclusion(&leaf, index, size, &proof, &other).is_err());
        for wrong in (0..size).filter(|wrong| *wrong != index) {
            prop_assert!(verify_inclusion(&leaf, wrong, size, &proof, &root).is_err());
        }
    }

    #[test]
    fn a_mutated_consistency_proof_proves_nothing(
        larger in 1u64..400, seed in any::<u64>(), at in 0usize..64, bit in 0usize..256,
    ) {
        let tree = MerkleTree::from_leaf_hashes(&numbered(larger as usize));
        let smaller = seed % (larger + 1);
        let (old, new) = (tree.root_at(smaller).unwrap(), tree.root());
        let proof = tree.consistency(smaller, larger).unwrap();
        prop_assert!(verify_consistency(smaller, larger, &proof, &old, &new).is_ok());
        for mutated in mutations(&proof, at, bit) {
            prop_assert!(verify_consistency(smaller, larger, &mutated, &old, &new).is_err());
        }
        let mut other = old;
        other[bit / 8 % 32] ^= 1 << (bit % 8);
        prop_assert!(verify_consistency(smaller, larger, &proof, &other, &new).is_err());
        if smaller > 0 {
            let mut other = new;
            other[bit / 8 % 32] ^= 1 << (bit % 8);
            prop_assert!(verify_consistency(smaller, larger, &proof, &old, &other).is_err());
        }
    }

    #[test]
    fn a_rewritten_history_is_never_consistent(
        larger in 2u64..300, seed in any::<u64>(), changed in any::<u64>(),
    ) {
        let mut leaves = numbered(larger as usize);
        let old = MerkleTree::from_leaf_hashes(&leaves);
        let smaller = 1 + seed % (larger - 1);
        leaves[(changed % smaller) as usize][0] ^= 1;
        let new = MerkleTree::from_leaf_hashes(&leaves);
        let proof = new.consistency(smaller, larger).unwrap();
        let old_root = old.root_at(smaller).unwrap();
        prop_assert!(
            verify_consistency(smaller, larger, &proof, &old_root, &new.root()).is_err()
        );
    }

    #[test]
    fn verifiers_never_panic(
        index in any::<u64>(), size in any::<u64>(),
        proof in proptest::collection::vec(any::<[u8; 32]>(), 0..70), root in any::<[u8; 32]>(),
    ) {
        prop_assert!(verify_inclusion(&root, index, size, &proof, &[0; 32]).is_err());
        prop_assert!(verify_consistency(index, size, &proof, &root, &[0; 32]).is_err());
    }

    #[test]
    fn a_frontier_goes_on_from_its_parts(first in 0usize..200, then in 0usize..200) {
        let leaves = numbered(first + then);
        let mut frontier = Frontier::default();
        leaves[..first].iter().for_each(|leaf| frontier.push(*leaf));
        let mut resumed =
            Frontier::from_parts(frontier.size(), frontier.nodes().to_vec()).unwrap();
        leaves[first..].iter().for_each(|leaf| resumed.push(*leaf));
        prop_assert_eq!(resumed.root(), root_of(&leaves));
        prop_assert_eq!(resumed.size(), leaves.len() as u64);
    }
}
