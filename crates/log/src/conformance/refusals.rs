//! Checks of what a log refuses, and that refusing changes nothing.

use falaj_event::{Hash256, LogTime, TopicId};

use super::{Bench, Draft, refused, run_of};
use crate::contract::{BlockId, LogError};
use crate::epoch::epochs_topic;

pub(super) fn staged_blocks_are_invisible(bench: &mut Bench) {
    bench.write(1, &[("a", 0, 1, b"x")], &[]);
    let draft = bench.draft(2, &[("a", 0, 1, b"staged"), ("b", 0, 1, b"staged")], &[]);
    draft.stage(&*bench.log());
    bench.now_and_reopened(|log| {
        assert_eq!(log.tail().unwrap().record.epoch, 0);
        assert_eq!(log.next_offset(TopicId::of("a"), 0), 1);
        assert_eq!(log.next_offset(TopicId::of("b"), 0), 0);
        for block in &draft.blocks {
            assert!(log.block(block.topic, block.partition, block.id).is_err(), "staged only");
        }
    });
}

/// Drafts an epoch after one committed epoch, changes it, and gives what commit says to it.
fn after_change(bench: &Bench, change: impl Fn(&mut Draft)) -> LogError {
    if bench.log().tail().is_none() {
        bench.write(10, &[("a", 0, 2, b"x")], &[run_of(1, "a", 0, 2, true)]);
    }
    let runs = [run_of(1, "a", 2, 1, true), run_of(1, "a", 3, 1, false)];
    let mut draft = bench.draft(20, &[("a", 0, 1, b"y"), ("b", 0, 1, b"z")], &runs);
    draft.stage(&*bench.log());
    change(&mut draft);
    refused(&*bench.log(), &draft.entry)
}

pub(super) fn wrong_links_are_refused(bench: &mut Bench) {
    let first = bench.draft(1, &[], &[]);
    let numbered = |epoch| {
        let mut entry = first.entry.clone();
        entry.record.epoch = epoch;
        entry
    };
    for epoch in [1, u64::MAX] {
        let error = refused(&*bench.log(), &numbered(epoch));
        assert!(matches!(error, LogError::NotTheTail { expected: 0, got, .. } if got == epoch));
    }
    let mut linked = first.entry.clone();
    linked.record.previous = Hash256([1; 32]);
    assert!(matches!(refused(&*bench.log(), &linked), LogError::NotTheTail { .. }));

    let changes: [fn(&mut Draft); 6] = [
        |draft| draft.entry.record.epoch = 0,
        |draft| draft.entry.record.epoch = 2,
        |draft| draft.entry.record.t = LogTime(10),
        |draft| draft.entry.record.t = LogTime(9),
        |draft| draft.entry.record.previous = Hash256::default(),
        |draft| draft.entry.record.previous.0[31] ^= 1,
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let error = after_change(bench, change);
        assert!(
            matches!(error, LogError::NotTheTail { expected: 1, .. }),
            "change {index}: {error}"
        );
    }
}

pub(super) fn wrong_tables_are_refused(bench: &mut Bench) {
    let changes: [fn(&mut Draft); 9] = [
        |draft| draft.entry.partitions[0].count += 1,
        |draft| draft.entry.record.events += 1,
        |draft| draft.entry.producers[0].count += 1,
        |draft| {
            draft.entry.partitions.reverse();
            draft.restate();
        },
        |draft| {
            draft.entry.producers.reverse();
            draft.restate();
        },
        |draft| {
            draft.entry.partitions[0].topic = epochs_topic();
            draft.restate();
        },
        |draft| {
            draft.entry.partitions[0].blocks.clear();
            draft.restate();
        },
        |draft| {
            draft.entry.producers[0].accepted = 0;
            draft.entry.producers[0].count = 2;
            draft.restate();
        },
        |draft| {
            draft.entry.partitions[0].count = 0;
            draft.restate();
        },
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let error = after_change(bench, change);
        assert!(matches!(error, LogError::Malformed { epoch: 1, .. }), "change {index}: {error}");
    }
}

pub(super) fn wrong_offsets_are_refused(bench: &mut Bench) {
    for first_offset in [0, 1, 3, 1 << 50] {
        let error = after_change(bench, |draft| {
            let topic = TopicId::of("a");
            let entry = draft.entry.partitions.iter_mut().find(|entry| entry.topic == topic);
            entry.unwrap().first_offset = first_offset;
            draft.restate();
        });
        assert!(matches!(error, LogError::NotTheTail { .. }), "offset {first_offset}: {error}");
    }
}

pub(super) fn missing_blocks_are_refused(bench: &mut Bench) {
    let error = after_change(bench, |draft| {
        draft.entry.partitions[1].blocks[0] = BlockId([0xAA; 16]);
        draft.restate();
    });
    let named = matches!(error, LogError::MissingBlock { block, .. } if block.0 == [0xAA; 16]);
    assert!(named, "{error}");
    let error = after_change(bench, |draft| {
        draft.entry.partitions[1].partition = 5;
        draft.entry.partitions[1].first_offset = 0;
        draft.restate();
    });
    assert!(matches!(error, LogError::MissingBlock { partition: 5, .. }), "{error}");
}

pub(super) fn old_terms_are_fenced_off(bench: &mut Bench) {
    let mut draft = bench.draft(1, &[("a", 0, 1, b"x")], &[]);
    draft.entry.record.term = 7;
    draft.stage(&*bench.log());
    bench.log().commit(&draft.entry).unwrap();
    for term in [0, 6] {
        let mut stale = bench.draft(2, &[("a", 0, 1, b"y")], &[]);
        stale.entry.record.term = term;
        stale.stage(&*bench.log());
        let error = refused(&*bench.log(), &stale.entry);
        assert!(matches!(error, LogError::Fenced { current: 7, got } if got == term), "{error}");
    }
    let mut next = bench.draft(2, &[], &[]);
    next.entry.record.term = 9;
    bench.log().commit(&next.entry).unwrap();
    bench.now_and_reopened(|log| assert_eq!(log.tail().unwrap().record.term, 9));
}

pub(super) fn a_refused_commit_can_be_put_right(bench: &mut Bench) {
    bench.write(1, &[("a", 0, 1, b"x")], &[]);
    let right = bench.draft(2, &[("a", 0, 1, b"y")], &[run_of(1, "a", 0, 1, true)]);
    right.stage(&*bench.log());
    let mut wrong = right.entry.clone();
    wrong.record.t = LogTime(1);
    refused(&*bench.log(), &wrong);
    right.stage(&*bench.log());
    bench.log().commit(&right.entry).unwrap();
    let again = refused(&*bench.log(), &right.entry);
    assert!(matches!(again, LogError::NotTheTail { expected: 2, got: 1, .. }), "{again}");
    bench.now_and_reopened(|log| {
        assert_eq!(*log.tail().unwrap(), right.entry);
        let id = right.entry.partitions[0].blocks[0];
        assert_eq!(&*log.block(TopicId::of("a"), 0, id).unwrap(), b"y");
    });
}
