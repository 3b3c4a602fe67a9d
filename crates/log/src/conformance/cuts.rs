//! Checks of cuts: blocks go, everything else stays, and nothing comes back.

use std::sync::atomic::{AtomicBool, Ordering};

use falaj_event::{LogTime, ProducerId, TopicId};

use super::{Bench, picture, run_of};
use crate::contract::{Log, LogError};
use crate::epoch::EpochEntry;

/// Six epochs: all append to `a`, the even ones to `b` too.
fn six(bench: &Bench) -> Vec<EpochEntry> {
    let append = |epoch: u64| {
        let runs = [run_of(1, "a", epoch * 2, 2, true)];
        let body = [epoch as u8; 40];
        match epoch % 2 {
            0 => bench.write(10 + epoch, &[("a", 0, 2, &body), ("b", 0, 1, &body)], &runs),
            _ => bench.write(10 + epoch, &[("a", 0, 2, &body)], &runs),
        }
    };
    (0..6).map(append).collect()
}

/// Which epochs' blocks of a topic can be read; the others must be named as cut below `first_kept`.
fn kept(log: &dyn Log, entries: &[EpochEntry], topic: &str, first_kept: u64) -> Vec<u64> {
    let topic = TopicId::of(topic);
    assert_eq!(log.first_kept(topic), first_kept);
    let mut kept = Vec::new();
    for entry in entries {
        let epoch = entry.record.epoch;
        let Some(part) = entry.partition(topic, 0) else { continue };
        match log.block(topic, 0, part.blocks[0]) {
            Ok(bytes) => {
                assert_eq!(&*bytes, [epoch as u8; 40]);
                kept.push(epoch);
            }
            Err(LogError::Cut { topic: named, first_kept: from }) => {
                assert_eq!((named, from), (topic, first_kept));
                assert!(epoch < first_kept);
            }
            Err(other) => panic!("epoch {epoch}: {other}"),
        }
    }
    kept
}

pub(super) fn cuts_remove_blocks_alone(bench: &mut Bench) {
    let entries = six(bench);
    let before = picture(&*bench.log());
    assert_eq!(bench.log().cut(TopicId::of("a"), 3).unwrap(), 3);
    bench.now_and_reopened(|log| {
        assert_eq!(kept(log, &entries, "a", 3), [3, 4, 5]);
        assert_eq!(kept(log, &entries, "b", 0), [0, 2, 4]);
        assert_eq!(picture(log), before);
        for (number, entry) in (0..).zip(&entries) {
            assert_eq!(*log.entry(number).unwrap().unwrap(), *entry);
            assert_eq!(log.entry_at(entry.record.t).unwrap().unwrap().record.epoch, number);
            let located = log.locate(TopicId::of("a"), 0, number * 2).unwrap().unwrap();
            assert_eq!((located.epoch, located.first_offset), (number, number * 2));
            let told = log.producer(ProducerId([1; 16]), number * 2 + 1).unwrap().unwrap();
            assert_eq!((told.epoch, told.t), (number, entry.record.t));
        }
        let unknown = log.block(TopicId::of("a"), 1, entries[0].partitions[0].blocks[0]);
        assert!(matches!(unknown, Err(LogError::MissingBlock { .. })), "never there, so never cut");
    });
}

pub(super) fn cuts_never_go_back(bench: &mut Bench) {
    let entries = six(bench);
    let a = TopicId::of("a");
    assert_eq!(bench.log().cut(a, 2).unwrap(), 2);
    assert_eq!(bench.log().cut(a, 4).unwrap(), 4);
    assert_eq!(bench.log().cut(a, 1).unwrap(), 4);
    assert_eq!(bench.log().cut(a, 0).unwrap(), 4);
    assert_eq!(bench.log().cut(TopicId::of("b"), 0).unwrap(), 0);
    bench.now_and_reopened(|log| {
        assert_eq!(kept(log, &entries, "a", 4), [4, 5]);
        assert_eq!(kept(log, &entries, "b", 0), [0, 2, 4]);
    });
    assert_eq!(bench.log().cut(TopicId::of("never seen"), 3).unwrap(), 3);
}

pub(super) fn the_newest_epoch_is_never_cut(bench: &mut Bench) {
    let a = TopicId::of("a");
    assert_eq!(bench.log().cut(a, 7).unwrap(), 0, "an empty log has nothing to cut");
    let entries = six(bench);
    assert_eq!(bench.log().cut(a, u64::MAX).unwrap(), 5);
    bench.now_and_reopened(|log| assert_eq!(kept(log, &entries, "a", 5), [5]));
}

pub(super) fn a_cut_log_goes_on(bench: &mut Bench) {
    let mut entries = six(bench);
    bench.log().cut(TopicId::of("a"), 4).unwrap();
    if bench.log.reopen() {
        bench.log().cut(TopicId::of("b"), 1).unwrap();
    }
    for epoch in 6..8 {
        entries.push(bench.write(10 + epoch, &[("a", 0, 2, &[epoch as u8; 40])], &[]));
    }
    assert_eq!(bench.log().cut(TopicId::of("a"), 6).unwrap(), 6);
    bench.now_and_reopened(|log| {
        assert_eq!(kept(log, &entries, "a", 6), [6, 7]);
        assert_eq!(log.next_offset(TopicId::of("a"), 0), 16);
        assert_eq!(log.tail().unwrap().record.t, LogTime(17));
    });
}

pub(super) fn readers_live_with_cuts(bench: &mut Bench) {
    let entries = six(bench);
    let (log, done) = (bench.log(), AtomicBool::new(false));
    let a = TopicId::of("a");
    std::thread::scope(|scope| {
        let read = || {
            while !done.load(Ordering::SeqCst) {
                for entry in &entries {
                    let Some(part) = entry.partition(a, 0) else { continue };
                    match log.block(a, 0, part.blocks[0]) {
                        Ok(bytes) => assert_eq!(bytes[0], entry.record.epoch as u8),
                        Err(LogError::Cut { first_kept, .. }) => {
                            assert!(entry.record.epoch < first_kept);
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        };
        let readers = [scope.spawn(read), scope.spawn(read)];
        for first_kept in 1..=5 {
            log.cut(a, first_kept).unwrap();
        }
        done.store(true, Ordering::SeqCst);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    drop(log);
    bench.now_and_reopened(|log| assert_eq!(kept(log, &entries, "a", 5), [5]));
}
