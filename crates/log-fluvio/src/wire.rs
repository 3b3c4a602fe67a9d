//! What a Fluvio record of a deployment holds. Integers are big-endian.
//!
//! # `NAME-epochs`
//! | record | key | value |
//! | --- | --- | --- |
//! | entry | `46 4c 4a 50` ("FLJP"), version 1, number of blocks u32, for each the Fluvio offset u64 | the epoch entry's permanent bytes |
//! | claim | `46 4c 4a 43` ("FLJC"), version 1, term u64, claimant (16 random bytes) | who claims, as text for people |
//! | cut | `46 4c 4a 58` ("FLJX"), version 1, term u64, topic id (16), first kept epoch u64 | empty |
//!
//! An entry's offsets are in the order in which its partition table names blocks. The value is byte for
//! byte what every other log stores, so that proofs do not depend on where the log lives.
//!
//! Records whose key begins otherwise are not the log's and are passed over.
//!
//! # `NAME-TOPIC-log`
//! | record | key | value |
//! | --- | --- | --- |
//! | block | partition u32, block id (16) | the sealed block |

use falaj_event::TopicId;
use falaj_log::{BlockId, EpochEntry};

const PLACES: &[u8; 4] = b"FLJP";
const CLAIM: &[u8; 4] = b"FLJC";
const CUT: &[u8; 4] = b"FLJX";
const VERSION: u8 = 1;

/// A record of the epochs topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EpochsRecord {
    /// An entry and where its blocks are.
    Entry {
        /// The entry.
        entry: Box<EpochEntry>,
        /// Fluvio offsets of its blocks, in the order of its partition table.
        places: Vec<u64>,
    },
    /// A sequencer takes the log over.
    Claim {
        /// The term that it will write under.
        term: u64,
        /// Which one it is.
        claimant: [u8; 16],
    },
    /// Old blocks of a topic are let go of.
    Cut {
        /// The term of whoever cuts.
        term: u64,
        /// The topic.
        topic: TopicId,
        /// The first epoch whose blocks are kept.
        first_kept: u64,
    },
    /// Somebody else's.
    Foreign,
}

/// The key of an entry's record.
pub fn entry_key(places: &[u64]) -> Vec<u8> {
    let mut key = Vec::with_capacity(9 + places.len() * 8);
    key.extend_from_slice(PLACES);
    key.push(VERSION);
    key.extend_from_slice(&u32::try_from(places.len()).unwrap_or(u32::MAX).to_be_bytes());
    for place in places {
        key.extend_from_slice(&place.to_be_bytes());
    }
    key
}

/// The key of a claim's record.
pub fn claim_key(term: u64, claimant: [u8; 16]) -> Vec<u8> {
    let mut key = Vec::with_capacity(29);
    key.extend_from_slice(CLAIM);
    key.push(VERSION);
    key.extend_from_slice(&term.to_be_bytes());
    key.extend_from_slice(&claimant);
    key
}

/// The key of a cut's record.
pub fn cut_key(term: u64, topic: TopicId, first_kept: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(37);
    key.extend_from_slice(CUT);
    key.push(VERSION);
    key.extend_from_slice(&term.to_be_bytes());
    key.extend_from_slice(&topic.0);
    key.extend_from_slice(&first_kept.to_be_bytes());
    key
}

/// The key of a block's record.
pub fn block_key(partition: u32, block: BlockId) -> [u8; 20] {
    let mut key = [0; 20];
    key[..4].copy_from_slice(&partition.to_be_bytes());
    key[4..].copy_from_slice(&block.0);
    key
}

/// The partition that a record's key names; 0 where it names none.
pub(crate) fn partition_of_key(key: &[u8]) -> u32 {
    match key.first_chunk() {
        Some(partition) if key.len() == 20 => u32::from_be_bytes(*partition),
        _ => 0,
    }
}

/// The block that a record's key names.
pub(crate) fn block_of_key(key: &[u8]) -> Option<BlockId> {
    match key.last_chunk() {
        Some(id) if key.len() == 20 => Some(BlockId(*id)),
        _ => None,
    }
}

/// Reads a record of the epochs topic.
///
/// # Errors
/// Says why a record that claims to be the log's is not one.
pub fn decode(key: &[u8], value: &[u8]) -> Result<EpochsRecord, String> {
    let Some((magic, rest)) = key.split_first_chunk::<4>() else {
        return Ok(EpochsRecord::Foreign);
    };
    if ![PLACES, CLAIM, CUT].contains(&magic) {
        return Ok(EpochsRecord::Foreign);
    }
    let Some((&version, rest)) = rest.split_first() else { return Err("its key is cut".into()) };
    if version != VERSION {
        return Err(format!("its key has version {version}; upgrade this program"));
    }
    if magic == CUT {
        let cut = || "the cut is cut short".to_owned();
        let (term, rest) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
        let (topic, rest) = rest.split_first_chunk::<16>().ok_or_else(cut)?;
        let first_kept = u64::from_be_bytes(rest.try_into().map_err(|_| cut())?);
        let (term, topic) = (u64::from_be_bytes(*term), TopicId(*topic));
        return Ok(EpochsRecord::Cut { term, topic, first_kept });
    }
    if magic == CLAIM {
        let (term, claimant) =
            rest.split_first_chunk::<8>().ok_or_else(|| "the claim is cut".to_owned())?;
        let claimant = claimant.try_into().map_err(|_| "the claimant is cut".to_owned())?;
        return Ok(EpochsRecord::Claim { term: u64::from_be_bytes(*term), claimant });
    }
    let (count, places) =
        rest.split_first_chunk::<4>().ok_or_else(|| "its key is cut".to_owned())?;
    let count = u32::from_be_bytes(*count) as usize;
    let (places, left) = places.as_chunks::<8>();
    let entry = EpochEntry::decode(value).map_err(|error| error.to_string())?;
    let named: usize = entry.partitions.iter().map(|part| part.blocks.len()).sum();
    if count != places.len() || !left.is_empty() || count != named {
        return Err(format!("{} places for {named} blocks", places.len()));
    }
    let places = places.iter().map(|place| u64::from_be_bytes(*place)).collect();
    Ok(EpochsRecord::Entry { entry: Box::new(entry), places })
}
