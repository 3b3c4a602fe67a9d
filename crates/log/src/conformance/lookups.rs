//! Checks of what a log gives back: entries, blocks, offsets, times, producers.

use falaj_event::{LogTime, ProducerId, TopicId};

use super::{Bench, run_of};
use crate::contract::BlockId;
use crate::epoch::EpochEntry;

pub(super) fn an_empty_log_is_empty(bench: &mut Bench) {
    bench.now_and_reopened(|log| {
        assert!(log.tail().is_none());
        assert!(log.entry(0).unwrap().is_none());
        assert!(log.entry_at(LogTime(u64::MAX)).unwrap().is_none());
        assert_eq!(log.next_offset(TopicId::of("a"), 0), 0);
        assert!(log.locate(TopicId::of("a"), 0, 0).unwrap().is_none());
        assert!(log.producer(ProducerId([1; 16]), 0).unwrap().is_none());
        assert!(log.last_sequence(ProducerId([1; 16])).unwrap().is_none());
        assert!(log.block(TopicId::of("a"), 0, BlockId([1; 16])).is_err());
    });
}

pub(super) fn a_committed_epoch_is_readable(bench: &mut Bench) {
    let runs = [run_of(1, "a", 0, 3, true)];
    let first = bench.write(10, &[("a", 0, 3, b"one"), ("b", 2, 1, b"two")], &runs);
    let second = bench.write(20, &[("a", 0, 1, b"three")], &[]);
    bench.now_and_reopened(|log| {
        assert_eq!(*log.tail().unwrap(), second);
        assert_eq!(*log.entry(0).unwrap().unwrap(), first);
        assert_eq!(*log.entry(1).unwrap().unwrap(), second);
        assert!(log.entry(2).unwrap().is_none());
        assert!(log.entry(u64::MAX).unwrap().is_none());
    });
}

pub(super) fn bytes_come_back_as_written(bench: &mut Bench) {
    let large: Vec<u8> =
        (0..300_000_u32).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let bodies: [&[u8]; 4] = [b"", b"\0", &[0xFF; 1000], &large];
    let topics = ["a", "b", "c", "d"];
    let wanted: Vec<_> =
        topics.iter().zip(bodies).map(|(topic, body)| (*topic, 7, 1, body)).collect();
    let entry = bench.write(1, &wanted, &[]);
    bench.now_and_reopened(|log| {
        for (topic, body) in topics.iter().zip(bodies) {
            let topic = TopicId::of(topic);
            let id = entry.partition(topic, 7).unwrap().blocks[0];
            assert_eq!(&*log.block(topic, 7, id).unwrap(), body);
            assert!(log.block(topic, 8, id).is_err(), "a block of another partition");
            assert!(log.block(TopicId::of("e"), 7, id).is_err(), "a block of another topic");
        }
    });
}

pub(super) fn offsets_are_dense_and_located(bench: &mut Bench) {
    let counts = [3_u32, 1, 5, 2];
    let mut entries: Vec<EpochEntry> = Vec::new();
    for (t, count) in (1..).zip(counts) {
        entries.push(bench.write(t, &[("a", 0, count, b"x"), ("a", 1, 1, b"y")], &[]));
    }
    bench.now_and_reopened(|log| {
        let topic = TopicId::of("a");
        assert_eq!((log.next_offset(topic, 0), log.next_offset(topic, 1)), (11, 4));
        assert_eq!((log.next_offset(topic, 2), log.next_offset(TopicId::of("b"), 0)), (0, 0));
        let mut offset = 0;
        for entry in &entries {
            let part = entry.partition(topic, 0).unwrap();
            assert_eq!(part.first_offset, offset);
            for inside in offset..part.end_offset() {
                let found = log.locate(topic, 0, inside).unwrap().unwrap();
                assert_eq!((found.epoch, found.t), (entry.record.epoch, entry.record.t));
                assert_eq!((found.first_offset, found.count), (offset, part.count));
                assert_eq!(found.blocks, part.blocks);
            }
            offset = part.end_offset();
        }
        for beyond in [11, 12, u64::MAX] {
            assert!(log.locate(topic, 0, beyond).unwrap().is_none());
        }
        assert!(log.locate(topic, 2, 0).unwrap().is_none());
        assert!(log.locate(TopicId::of("b"), 0, 0).unwrap().is_none());
    });
}

pub(super) fn epochs_are_found_by_t(bench: &mut Bench) {
    for t in [10, 20, 21, 1 << 60] {
        bench.write(t, &[("a", 0, 1, b"x")], &[]);
    }
    bench.now_and_reopened(|log| {
        let at = |t| log.entry_at(LogTime(t)).unwrap().map(|entry| entry.record.epoch);
        assert_eq!([at(0), at(9)], [None, None]);
        assert_eq!([at(10), at(11), at(19)], [Some(0); 3]);
        assert_eq!([at(20), at(21), at(22)], [Some(1), Some(2), Some(2)]);
        assert_eq!([at((1 << 60) - 1), at(1 << 60), at(u64::MAX)], [Some(2), Some(3), Some(3)]);
    });
}

pub(super) fn producers_are_found_by_sequence(bench: &mut Bench) {
    let first =
        [run_of(1, "a", 0, 10, true), run_of(1, "a", 10, 1, false), run_of(2, "b", 5, 5, true)];
    bench.write(1, &[("a", 0, 15, b"x")], &first);
    let second = [run_of(1, "a", 20, 5, true), run_of(1, "b", 1 << 40, 1, true)];
    bench.write(2, &[("a", 0, 6, b"x")], &second);
    bench.now_and_reopened(|log| {
        let found = |producer: u8, sequence| {
            let outcome = log.producer(ProducerId([producer; 16]), sequence).unwrap();
            outcome.map(|outcome| (outcome.epoch, outcome.t.0, outcome.entry))
        };
        assert_eq!([found(1, 0), found(1, 9)], [Some((0, 1, first[0])); 2]);
        assert_eq!(found(1, 10), Some((0, 1, first[1])));
        assert_eq!([found(1, 11), found(1, 19)], [None; 2]);
        assert_eq!([found(1, 20), found(1, 24)], [Some((1, 2, second[0])); 2]);
        assert_eq!([found(1, 25), found(1, u64::MAX)], [None; 2]);
        assert_eq!(found(1, 1 << 40), Some((1, 2, second[1])));
        assert_eq!([found(2, 4), found(2, 10), found(3, 5), found(0, 5)], [None; 4]);
        assert_eq!([found(2, 5), found(2, 9)], [Some((0, 1, first[2])); 2]);
        let last = |producer: u8| log.last_sequence(ProducerId([producer; 16])).unwrap();
        assert_eq!([last(0), last(1), last(2), last(3)], [None, Some(1 << 40), Some(9), None]);
    });
}

pub(super) fn several_blocks_of_a_partition(bench: &mut Bench) {
    let mut draft = bench.draft(1, &[("a", 0, 5, b"one")], &[]);
    let mut more = draft.blocks[0].clone();
    more.id = BlockId([0xEE; 16]);
    more.bytes = b"two".as_slice().into();
    draft.entry.partitions[0].blocks.push(more.id);
    // In two steps, as a log that cannot coalesce would.
    bench.log().append(draft.blocks.clone()).unwrap();
    bench.log().append(vec![more.clone()]).unwrap();
    draft.restate();
    bench.log().commit(&draft.entry).unwrap();
    bench.now_and_reopened(|log| {
        let topic = TopicId::of("a");
        let found = log.locate(topic, 0, 4).unwrap().unwrap();
        assert_eq!(found.blocks, draft.entry.partitions[0].blocks);
        assert_eq!(&*log.block(topic, 0, found.blocks[0]).unwrap(), b"one");
        assert_eq!(&*log.block(topic, 0, found.blocks[1]).unwrap(), b"two");
    });
}

pub(super) fn empty_epochs_count(bench: &mut Bench) {
    bench.write(1, &[], &[]);
    bench.write(2, &[("a", 0, 1, b"x")], &[]);
    bench.write(3, &[], &[]);
    bench.now_and_reopened(|log| {
        assert_eq!(log.tail().unwrap().record.epoch, 2);
        assert_eq!(log.next_offset(TopicId::of("a"), 0), 1);
        assert_eq!(log.entry_at(LogTime(1)).unwrap().unwrap().record.epoch, 0);
    });
}

pub(super) fn order_is_kept_over_many_epochs(bench: &mut Bench) {
    for epoch in 0..300_u64 {
        let runs = [run_of(1, "a", epoch * 2, 2, true)];
        bench.write(epoch * 3 + 1, &[("a", 0, 2, &epoch.to_be_bytes())], &runs);
    }
    bench.now_and_reopened(|log| {
        let mut previous = None;
        for epoch in 0..300_u64 {
            let entry = log.entry(epoch).unwrap().unwrap();
            assert_eq!((entry.record.epoch, entry.record.t.0), (epoch, epoch * 3 + 1));
            assert_eq!(previous.unwrap_or_default(), entry.record.previous);
            previous = Some(entry.record.hash());
            let found = log.locate(TopicId::of("a"), 0, epoch * 2 + 1).unwrap().unwrap();
            assert_eq!(found.epoch, epoch);
            let block = log.block(TopicId::of("a"), 0, found.blocks[0]).unwrap();
            assert_eq!(*block, epoch.to_be_bytes());
            let outcome = log.producer(ProducerId([1; 16]), epoch * 2 + 1).unwrap().unwrap();
            assert_eq!(outcome.epoch, epoch);
        }
    });
}
