//! The fold, record by record: what counts, what does not, and what is damage.

use falaj_event::{Hash256, LogTime, ProducerId, TopicId};
use falaj_log::bytes::Extensions;
use falaj_log::epoch::{encode_producers, partitions_root, producers_hash};
use falaj_log::{
    BlockId, ClockMode, EpochEntry, EpochRecord, LogError, PartitionEntry, ProducerEntry,
};

use super::{Fold, Folded, Place};
use crate::wire::{self, EpochsRecord};

const TOPIC: &str = "falaj-epochs";

/// The entry that would continue `fold` under `term`, with one block of one event.
fn next_entry(fold: &Fold, term: u64, mark: u8) -> EpochEntry {
    let epoch = fold.tail().map_or(0, |tail| tail.record.epoch + 1);
    let topic = TopicId::of("a");
    let partitions = vec![PartitionEntry {
        topic,
        partition: 0,
        first_offset: fold.next_offset(topic, 0),
        count: 1,
        blocks: vec![BlockId([mark; 16])],
        events_root: Hash256([mark; 32]),
        extensions: Extensions::default(),
    }];
    let producers = vec![ProducerEntry {
        producer: ProducerId([7; 16]),
        topic,
        first_sequence: epoch,
        count: 1,
        accepted: 1,
    }];
    let record = EpochRecord {
        term,
        epoch,
        t: LogTime(epoch * 10 + 10),
        clock: ClockMode::Event,
        wall_clock_us: u64::from(mark),
        definitions: Hash256([5; 32]),
        previous: fold.tail().map_or_else(Hash256::default, |tail| tail.record.hash()),
        partitions_root: partitions_root(&partitions),
        producers_hash: producers_hash(&encode_producers(&producers)),
        events: 1,
        extensions: Extensions::default(),
    };
    EpochEntry { record, partitions, producers }
}

fn put(fold: &mut Fold, entry: &EpochEntry, place: u64) -> Folded {
    let key = wire::entry_key(&[place]);
    fold.fold(TOPIC, fold.next(), &key, &entry.encode()).unwrap()
}

fn claim(fold: &mut Fold, term: u64, who: u8) -> Folded {
    fold.fold(TOPIC, fold.next(), &wire::claim_key(term, [who; 16]), b"for people").unwrap()
}

#[test]
fn entries_that_continue_the_tail_count() {
    let mut fold = Fold::new();
    for mark in 0..20 {
        let entry = next_entry(&fold, 1, mark);
        assert!(matches!(put(&mut fold, &entry, 100 + u64::from(mark)), Folded::Entry(_)));
        assert_eq!(**fold.tail().unwrap(), entry);
    }
    let topic = TopicId::of("a");
    assert_eq!(fold.next_offset(topic, 0), 20);
    assert_eq!(fold.locate(topic, 0, 19), Some(19));
    assert_eq!(fold.locate(topic, 0, 20), None);
    let place = Place { offset: 103, epoch: 3 };
    assert_eq!(fold.block(topic, 0, BlockId([3; 16])), Some(place));
    assert_eq!(fold.block(topic, 1, BlockId([3; 16])), None);
    assert_eq!(fold.epoch_at(LogTime(9)), None);
    assert_eq!(fold.epoch_at(LogTime(35)), Some(2));
    assert_eq!(fold.at(4), Some(4));
    assert_eq!(fold.producer(ProducerId([7; 16]), 4), Some(4));
    assert_eq!(fold.producer(ProducerId([8; 16]), 4), None);
}

#[test]
fn the_first_of_two_entries_for_one_epoch_counts() {
    let mut fold = Fold::new();
    let (first, second) = (next_entry(&fold, 1, 1), next_entry(&fold, 1, 2));
    put(&mut fold, &first, 0);
    let refused = put(&mut fold, &second, 1);
    assert!(matches!(refused, Folded::Ignored(LogError::NotTheTail { expected: 1, got: 0, .. })));
    // The same record again, as after a lost answer.
    assert!(matches!(put(&mut fold, &first, 0), Folded::Ignored(LogError::NotTheTail { .. })));
    assert_eq!(**fold.tail().unwrap(), first);
    assert_eq!(fold.block(TopicId::of("a"), 0, BlockId([2; 16])), None);
    assert_eq!((fold.next(), fold.ignored()), (3, 2));
    let entry = next_entry(&fold, 1, 3);
    assert!(matches!(put(&mut fold, &entry, 2), Folded::Entry(_)));
}

#[test]
fn a_claim_fences_earlier_terms_off() {
    let mut fold = Fold::new();
    assert!(matches!(claim(&mut fold, 1, 1), Folded::Claim { term: 1, .. }));
    let old = next_entry(&fold, 1, 1);
    put(&mut fold, &old, 0);
    assert!(matches!(claim(&mut fold, 2, 2), Folded::Claim { term: 2, .. }));
    let late = next_entry(&fold, 1, 2);
    let refused = put(&mut fold, &late, 1);
    assert!(matches!(refused, Folded::Ignored(LogError::Fenced { current: 2, got: 1 })));
    let new = next_entry(&fold, 2, 3);
    assert!(matches!(put(&mut fold, &new, 2), Folded::Entry(_)));
    assert_eq!(fold.next_offset(TopicId::of("a"), 0), 2);
}

#[test]
fn the_first_of_two_claims_of_one_term_counts() {
    let mut fold = Fold::new();
    claim(&mut fold, 4, 1);
    for term in [4, 3, 0] {
        let refused = claim(&mut fold, term, 2);
        assert!(matches!(refused, Folded::Ignored(LogError::Fenced { current: 4, .. })));
    }
    assert_eq!(fold.term(), 4);
    // A claim alone is no epoch.
    assert!(fold.tail().is_none());
}

#[test]
fn cuts_never_go_back_nor_beyond_the_newest_epoch() {
    let mut fold = Fold::new();
    for mark in 0..4 {
        let entry = next_entry(&fold, 2, mark);
        put(&mut fold, &entry, u64::from(mark));
    }
    let topic = TopicId::of("a");
    for (term, asked, kept) in [(2, 2, 2), (2, 1, 2), (1, 3, 2), (2, 9, 3), (3, 0, 3)] {
        let key = wire::cut_key(term, topic, asked);
        let offset = fold.next();
        let folded = fold.fold(TOPIC, offset, &key, b"").unwrap();
        assert_eq!(matches!(folded, Folded::Ignored(LogError::Fenced { .. })), term < 2);
        assert_eq!(fold.first_kept(topic), kept);
    }
    assert_eq!(fold.first_kept(TopicId::of("b")), 0);
    // Where the block was stays known, or nobody could tell it from one that never was.
    assert!(fold.block(topic, 0, BlockId([0; 16])).is_some());
}

#[test]
fn an_entry_whose_predecessor_is_missing_is_damage() {
    let mut fold = Fold::new();
    let first = next_entry(&fold, 1, 1);
    let mut ahead = Fold::new();
    put(&mut ahead, &first, 0);
    let second = next_entry(&ahead, 1, 2);
    let error = fold.fold(TOPIC, 0, &wire::entry_key(&[1]), &second.encode()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("epoch 1 is there, but epoch 0 is missing"), "{text}");
    assert!(text.contains("offset 0") && text.contains(TOPIC), "{text}");
    assert_eq!(fold.next(), 0);
}

#[test]
fn missing_and_damaged_records_are_damage() {
    let mut fold = Fold::new();
    let entry = next_entry(&fold, 1, 1);
    let bytes = entry.encode();
    assert!(matches!(
        fold.fold(TOPIC, 5, &wire::entry_key(&[1]), &bytes),
        Err(LogError::Damaged { .. })
    ));
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x20;
        let folded = Fold::new().fold(TOPIC, 0, &wire::entry_key(&[1]), &changed);
        // Whatever is not committed to by a hash of the record cannot be told from another entry; it
        // is caught by the next entry's `previous`.
        match folded {
            Err(LogError::Damaged { .. } | LogError::Malformed { .. }) => {}
            Ok(Folded::Entry(other)) => assert_ne!(*other, entry, "byte {at}"),
            Ok(Folded::Ignored(_)) => {}
            other => panic!("byte {at}: {other:?}"),
        }
    }
    for cut in 0..bytes.len() {
        let folded = Fold::new().fold(TOPIC, 0, &wire::entry_key(&[1]), &bytes[..cut]);
        assert!(matches!(folded, Err(LogError::Damaged { .. })), "cut at {cut}");
    }
    // As many places as blocks, or it is not the record that was written.
    for places in [&[][..], &[1, 2]] {
        let folded = fold.fold(TOPIC, 0, &wire::entry_key(places), &bytes);
        assert!(matches!(folded, Err(LogError::Damaged { .. })));
    }
    assert_eq!(fold.next(), 0);
}

#[test]
fn records_of_others_are_passed_over() {
    let mut fold = Fold::new();
    for key in [&b""[..], b"abc", b"somebody else's"] {
        let offset = fold.next();
        assert!(matches!(fold.fold(TOPIC, offset, key, b"x").unwrap(), Folded::Nothing));
    }
    let entry = next_entry(&fold, 1, 1);
    assert!(matches!(put(&mut fold, &entry, 0), Folded::Entry(_)));
    assert_eq!(fold.at(0), Some(3));
    assert!(matches!(fold.fold(TOPIC, 0, b"", b"again").unwrap(), Folded::Nothing));
}

#[test]
fn keys_come_back_as_written() {
    let entry = next_entry(&Fold::new(), 3, 9);
    let decoded = wire::decode(&wire::entry_key(&[u64::MAX]), &entry.encode()).unwrap();
    assert_eq!(decoded, EpochsRecord::Entry { entry: Box::new(entry), places: vec![u64::MAX] });
    let decoded = wire::decode(&wire::claim_key(8, [1; 16]), b"").unwrap();
    assert_eq!(decoded, EpochsRecord::Claim { term: 8, claimant: [1; 16] });
    assert!(wire::decode(b"FLJP\x02\0\0\0\0", b"").unwrap_err().contains("version 2"));
    for cut in 4..29 {
        assert!(wire::decode(&wire::claim_key(8, [1; 16])[..cut], b"").is_err(), "{cut}");
    }
    let (topic, cut) = (TopicId([4; 16]), wire::cut_key(5, TopicId([4; 16]), 6));
    let decoded = wire::decode(&cut, b"").unwrap();
    assert_eq!(decoded, EpochsRecord::Cut { term: 5, topic, first_kept: 6 });
    for short in 4..37 {
        assert!(wire::decode(&cut[..short], b"").is_err(), "{short}");
    }
    let key = wire::block_key(7, BlockId([3; 16]));
    assert_eq!(wire::partition_of_key(&key), 7);
    assert_eq!(wire::block_of_key(&key), Some(BlockId([3; 16])));
    assert_eq!(wire::block_of_key(b"short"), None);
}
