//! The documented bytes, made by an independent program, and what no bytes may do.

use proptest::prelude::*;

use super::*;

const RECORD: &str = "\
    464c4a45 01 01 0000 \
    0000000000000002 0000000000000005 00060a24181e4000 00060a24181e4001 0000000000000003 \
    9999999999999999999999999999999999999999999999999999999999999999 \
    aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa \
    1b6819cd61aabe8737faf1ed2d63f99326b177097400eba7d1e6faefda3bdbe2 \
    449be86ca4c326374c4f9a7d9187cc7dc9601a4c4e07fadd53751a7e6a6b5bae";
const RECORD_HASH: &str = "1e1869a77fb0037c2728ec50c88e7800ccfd66f9fc1e6c54174f3a75b56117f7";
const FIRST: &str = "\
    11111111111111111111111111111111 00000003 0000000000000100 00000002 \
    2222222222222222222222222222222222222222222222222222222222222222 \
    0001 0000 33333333333333333333333333333333";
const SECOND: &str = "\
    44444444444444444444444444444444 00000000 0000000000000000 00000001 \
    5555555555555555555555555555555555555555555555555555555555555555 \
    0002 0006 66666666666666666666666666666666 77777777777777777777777777777777 \
    0009 0002 aabb";
const PRODUCERS: &str = "\
    00000002 0030 \
    88888888888888888888888888888888 11111111111111111111111111111111 \
    0000000000000007 00000002 00000002 \
    88888888888888888888888888888888 44444444444444444444444444444444 \
    0000000000000009 00000001 00000000";

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    let bytes = (0..digits.len()).step_by(2);
    bytes.map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn golden() -> Vec<u8> {
    let parts = ["000000b0", RECORD, "00000002", "00000054", FIRST, "0000006a", SECOND, PRODUCERS];
    unhex(&parts.join(" "))
}

fn documented() -> EpochEntry {
    let topics = [TopicId([0x11; 16]), TopicId([0x44; 16])];
    let run = |topic, first_sequence, count, accepted| ProducerEntry {
        producer: ProducerId([0x88; 16]),
        topic,
        first_sequence,
        count,
        accepted,
    };
    let partitions = vec![
        PartitionEntry {
            topic: topics[0],
            partition: 3,
            first_offset: 256,
            count: 2,
            blocks: vec![BlockId([0x33; 16])],
            events_root: Hash256([0x22; 32]),
            extensions: Extensions::default(),
        },
        PartitionEntry {
            topic: topics[1],
            partition: 0,
            first_offset: 0,
            count: 1,
            blocks: vec![BlockId([0x66; 16]), BlockId([0x77; 16])],
            events_root: Hash256([0x55; 32]),
            extensions: Extensions::decode(&[0, 9, 0, 2, 0xAA, 0xBB]).unwrap(),
        },
    ];
    let producers = vec![run(topics[0], 7, 2, 2), run(topics[1], 9, 1, 0)];
    let record = EpochRecord {
        term: 2,
        epoch: 5,
        t: LogTime(1_700_000_000_000_000),
        clock: ClockMode::Event,
        wall_clock_us: 1_700_000_000_000_001,
        definitions: Hash256([0x99; 32]),
        previous: Hash256([0xAA; 32]),
        partitions_root: partitions_root(&partitions),
        producers_hash: producers_hash(&encode_producers(&producers)),
        events: 3,
        extensions: Extensions::default(),
    };
    EpochEntry { record, partitions, producers }
}

#[test]
fn the_documented_bytes_decode() {
    let entry = EpochEntry::decode(&golden()).unwrap();
    assert_eq!(entry, documented());
    assert_eq!(entry.encode(), golden());
    assert_eq!(entry.record.encode(), unhex(RECORD));
    assert_eq!(entry.record.hash().to_string(), RECORD_HASH);
    assert_eq!(entry.check(), Ok(()));
    assert!(entry.record.encode().len() < 65_535 - MAX_EXTENSIONS);
}

const MAX_EXTENSIONS: usize = crate::bytes::MAX_EXTENSION_BYTES;

#[test]
fn fields_of_a_later_version_are_skipped_and_still_hashed() {
    let mut bytes = unhex(RECORD);
    let known = EpochRecord::decode(&bytes).unwrap();
    bytes[7] = 6;
    bytes.extend([0, 1, 0, 2, 0xCA, 0xFE]);
    let later = EpochRecord::decode(&bytes).unwrap();
    assert_eq!(later.t, known.t);
    assert_eq!(later.encode(), bytes);
    assert_ne!(later.hash(), known.hash());
    assert_eq!(later.extensions.get(1), Some([0xCA, 0xFE].as_slice()));
}

#[test]
fn longer_producer_entries_are_skipped_over() {
    let mut entry = documented();
    entry.producers.truncate(1);
    let short = encode_producers(&entry.producers);
    let mut long = short.clone();
    long[5] = 50;
    long.extend([0xFE, 0xED]);
    entry.record.producers_hash = producers_hash(&long);
    let mut bytes = entry.encode();
    bytes.truncate(bytes.len() - short.len());
    bytes.extend(long);
    assert_eq!(EpochEntry::decode(&bytes).unwrap().producers, entry.producers);
}

#[test]
fn every_flipped_byte_is_an_error_or_another_record() {
    let (bytes, entry) = (golden(), documented());
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        if let Ok(other) = EpochEntry::decode(&flipped) {
            assert!((4..180).contains(&at), "byte {at} of a table");
            assert_ne!(other.record.hash(), entry.record.hash(), "byte {at}");
        }
    }
    for cut in 0..bytes.len() {
        assert!(EpochEntry::decode(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    assert!(EpochEntry::decode(&[&bytes[..], &[0]].concat()).is_err());
}

#[test]
fn a_newer_format_is_named() {
    let mut bytes = unhex(RECORD);
    bytes[4] = 2;
    let error = EpochRecord::decode(&bytes).unwrap_err();
    assert_eq!(error.at, 4);
    assert!(error.to_string().contains("upgrade"), "{error}");
}

fn any_entry() -> impl Strategy<Value = EpochEntry> {
    let part = (any::<[u8; 16]>(), 0..4_u32, 0..1_u64 << 40, 1..1000_u32, 1..4_usize);
    let run = (any::<[u8; 16]>(), 0..1_u64 << 40, 1..1000_u32, any::<bool>());
    (
        prop::collection::btree_map(any::<[u8; 16]>(), part, 0..6),
        prop::collection::btree_map(any::<[u8; 16]>(), run, 0..6),
        any::<[u64; 4]>(),
        any::<bool>(),
    )
        .prop_map(|(parts, runs, [term, epoch, t, wall_clock_us], wall)| {
            let mut entry = documented();
            entry.partitions = parts
                .into_iter()
                .map(|(topic, (id, partition, first_offset, count, blocks))| PartitionEntry {
                    topic: TopicId(topic),
                    partition,
                    first_offset,
                    count,
                    blocks: vec![BlockId(id); blocks],
                    events_root: Hash256([id[0]; 32]),
                    extensions: Extensions::default(),
                })
                .collect();
            entry.producers = runs
                .into_iter()
                .map(|(producer, (topic, first_sequence, count, accepted))| ProducerEntry {
                    producer: ProducerId(producer),
                    topic: TopicId(topic),
                    first_sequence,
                    count,
                    accepted: if accepted { count } else { 0 },
                })
                .collect();
            entry.record = EpochRecord {
                term,
                epoch,
                t: LogTime(t),
                wall_clock_us,
                clock: if wall { ClockMode::Wall } else { ClockMode::Event },
                partitions_root: partitions_root(&entry.partitions),
                producers_hash: producers_hash(&encode_producers(&entry.producers)),
                events: entry.partitions.iter().map(|part| u64::from(part.count)).sum(),
                ..entry.record
            };
            entry
        })
}

proptest! {
    #[test]
    fn entries_round_trip(entry in any_entry()) {
        prop_assert_eq!(EpochEntry::decode(&entry.encode()).unwrap(), entry);
    }

    #[test]
    fn no_bytes_panic(bytes in any::<Vec<u8>>(), at in 0..484_usize, byte in any::<u8>()) {
        let _ = EpochEntry::decode(&bytes);
        let _ = EpochRecord::decode(&bytes);
        let _ = PartitionEntry::decode(&bytes);
        let mut near = golden();
        near[at] = byte;
        let _ = EpochEntry::decode(&near);
    }
}
