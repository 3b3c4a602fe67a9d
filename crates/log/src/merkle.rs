//! Roots over the tables that an epoch commits to.
//!
//! Does not know how trees are hashed (see the proof crate) or what leaves mean.

use falaj_event::Hash256;
use falaj_proof::{Frontier, leaf_hash};

/// The RFC 6962 root over the data of `leaves` in order, in one pass and logarithmic space.
pub(crate) fn root<L: AsRef<[u8]>>(leaves: impl IntoIterator<Item = L>) -> Hash256 {
    let mut frontier = Frontier::default();
    leaves.into_iter().for_each(|leaf| frontier.push(leaf_hash(leaf.as_ref())));
    Hash256(frontier.root())
}
