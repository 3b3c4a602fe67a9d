//! Checks of several threads at one log: waking and consistent reads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use falaj_event::{ProducerId, TopicId};

use super::{Bench, draft, run_of};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(30);

pub(super) fn waiting_returns(bench: &mut Bench) {
    let log = bench.log();
    let start = Instant::now();
    assert_eq!(log.wait_beyond(None, SHORT), None);
    assert!(start.elapsed() >= SHORT, "an empty log has nothing to return for");
    bench.write(1, &[], &[]);
    bench.write(2, &[], &[]);
    let start = Instant::now();
    assert_eq!(log.wait_beyond(None, LONG), Some(1));
    assert_eq!(log.wait_beyond(Some(0), LONG), Some(1));
    assert!(start.elapsed() < LONG / 2, "what is there needs no waiting");
    assert_eq!(log.wait_beyond(Some(1), SHORT), Some(1));
    assert_eq!(log.wait_beyond(Some(9), Duration::ZERO), Some(1));
}

pub(super) fn commits_wake_those_who_wait(bench: &mut Bench) {
    let log = bench.log();
    let start = Instant::now();
    std::thread::scope(|scope| {
        let waiting: Vec<_> = [None, Some(0), Some(1)]
            .map(|beyond| {
                let log = bench.log();
                scope.spawn(move || log.wait_beyond(beyond, LONG))
            })
            .into();
        for t in 1..=3 {
            std::thread::sleep(SHORT);
            let draft = draft(&*log, t, &[("a", 0, 1, b"x")], &[]);
            draft.stage(&*log);
            log.commit(&draft.entry).unwrap();
        }
        for (least, thread) in (0..).zip(waiting) {
            assert!(thread.join().unwrap() >= Some(least));
        }
    });
    assert!(start.elapsed() < LONG / 2, "a commit must wake those who wait");
}

pub(super) fn readers_see_whole_epochs(bench: &mut Bench) {
    let (log, done) = (bench.log(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let log = bench.log();
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    let Some(entry) = log.tail() else { continue };
                    let epoch = entry.record.epoch;
                    assert_eq!(*log.entry(epoch).unwrap().unwrap(), *entry);
                    assert!(log.entry_at(entry.record.t).unwrap().is_some());
                    for part in &entry.partitions {
                        let id = part.blocks[0];
                        let bytes = log.block(part.topic, part.partition, id).unwrap();
                        assert_eq!(*bytes, epoch.to_be_bytes());
                        assert!(log.next_offset(part.topic, part.partition) >= part.end_offset());
                        let last = part.end_offset() - 1;
                        let found = log.locate(part.topic, part.partition, last).unwrap().unwrap();
                        assert_eq!(found.epoch, epoch);
                    }
                    assert!(log.last_sequence(ProducerId([1; 16])).unwrap() >= Some(epoch));
                }
            });
        }
        for epoch in 0..150_u64 {
            let body = epoch.to_be_bytes();
            let runs = [run_of(1, "a", epoch, 1, true)];
            let draft = draft(&*log, epoch + 1, &[("a", 0, 1, &body), ("b", 0, 2, &body)], &runs);
            draft.stage(&*log);
            log.commit(&draft.entry).unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(log.next_offset(TopicId::of("b"), 0), 300);
}
