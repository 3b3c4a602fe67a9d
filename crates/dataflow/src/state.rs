//! The names of operator state: which bytes belong to which operator.
//!
//! Every key is `logical partition (1) ‖ tag (1) ‖ owner ‖ the operator's own bytes`; the owner is a
//! view id (8), a topic id (16) or a view id and the index of a join (9). It does not know what
//! operators store.

use std::collections::BTreeMap;

use falaj_event::{StateChange, TopicId, ViewId};

use crate::error::EngineError;

/// One operator's share of the state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Space(Vec<u8>);

const TAG_GROUP: u8 = b'G';
const TAG_HELD: u8 = b'H';
const TAG_ROWS: u8 = b'R';
const TAG_TABLE: u8 = b'T';
const TAG_VERSIONS: u8 = b'V';

impl Space {
    /// Keyed state of a view's aggregates.
    pub(crate) fn group(view: ViewId) -> Self {
        Self([&[TAG_GROUP], view.0.as_slice()].concat())
    }

    /// Events that a view holds: future-dated ones and those that joins still need.
    pub(crate) fn held(view: ViewId) -> Self {
        Self([&[TAG_HELD], view.0.as_slice()].concat())
    }

    /// Rows of a view that other views read.
    pub(crate) fn rows(view: ViewId) -> Self {
        Self([&[TAG_ROWS], view.0.as_slice()].concat())
    }

    /// Rows of a table topic.
    pub(crate) fn table(topic: TopicId) -> Self {
        Self([&[TAG_TABLE], topic.0.as_slice()].concat())
    }

    /// Row versions kept by an ASOF join.
    pub(crate) fn versions(view: ViewId, join: u8) -> Self {
        Self([&[TAG_VERSIONS], view.0.as_slice(), &[join]].concat())
    }

    /// The space that `key` belongs to.
    fn of(key: &[u8]) -> Option<Self> {
        let owner = match key.get(1)? {
            &TAG_GROUP | &TAG_HELD | &TAG_ROWS => 8,
            &TAG_TABLE => 16,
            &TAG_VERSIONS => 9,
            _ => return None,
        };
        key.get(1..2 + owner).map(|space| Self(space.to_vec()))
    }

    /// The whole key of an entry.
    pub(crate) fn key(&self, partition: u8, own: &[u8]) -> Vec<u8> {
        let mut key = Vec::with_capacity(1 + self.0.len() + own.len());
        key.push(partition);
        key.extend_from_slice(&self.0);
        key.extend_from_slice(own);
        key
    }

    /// An entry that is set or, without a value, removed.
    pub(crate) fn change(&self, partition: u8, own: &[u8], value: Option<Vec<u8>>) -> StateChange {
        StateChange { key: self.key(partition, own), value }
    }

    /// What stands between the logical partition and the operator's own bytes.
    pub(crate) fn prefix(&self) -> &[u8] {
        &self.0
    }

    /// The operator's own part of a key of this space.
    pub(crate) fn own<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        key.get(1 + self.0.len()..).unwrap_or_default()
    }
}

/// Keys and values.
pub(crate) type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// Entries of a checkpoint, by the operator that wrote them; one worker's share.
#[derive(Debug, Default)]
pub(crate) struct Restored(BTreeMap<Space, Entries>);

impl Restored {
    /// The entries that belong to worker `index` of `peers`.
    pub(crate) fn share<'a>(
        entries: impl IntoIterator<Item = &'a (Vec<u8>, Vec<u8>)>,
        index: usize,
        peers: usize,
    ) -> Result<Self, EngineError> {
        let mut spaces: BTreeMap<Space, Entries> = BTreeMap::new();
        for (key, value) in entries {
            let owner = key.first().map(|partition| usize::from(*partition) % peers);
            if owner == Some(index) {
                let space = Space::of(key)
                    .ok_or_else(|| EngineError::state(key, "no operator writes such keys"))?;
                spaces.entry(space).or_default().push((key.clone(), value.clone()));
            }
        }
        Ok(Self(spaces))
    }

    /// Hands an operator its entries.
    pub(crate) fn take(&mut self, space: &Space) -> Entries {
        self.0.remove(space).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_find_their_space_and_worker() {
        let view = ViewId([7; 8]);
        let spaces = [
            Space::group(view),
            Space::held(view),
            Space::rows(view),
            Space::table(TopicId::of("t")),
            Space::versions(view, 3),
        ];
        let entries: Vec<_> =
            spaces.iter().map(|space| (space.key(5, b"own"), b"value".to_vec())).collect();
        let mut restored = Restored::share(&entries, 1, 2).unwrap();
        assert!(Restored::share(&entries, 0, 2).unwrap().0.is_empty());
        for space in &spaces {
            let taken = restored.take(space);
            assert_eq!(space.own(&taken[0].0), b"own");
            assert!(restored.take(space).is_empty());
        }
        let unknown = vec![(vec![0, b'?', 1], vec![])];
        assert!(Restored::share(&unknown, 0, 1).unwrap_err().to_string().contains("003f01"));
    }
}
