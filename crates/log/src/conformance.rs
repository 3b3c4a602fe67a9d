//! The conformance suite: every guarantee of [`crate::contract`], checked on any log.
//!
//! A crate that implements the contract calls [`run`] in a test of its own (feature `conformance`).
//! Each check works on a fresh, empty log; a failed one panics and says which guarantee is broken.
//! It knows a log by its contract alone; blocks are arbitrary bytes to it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use falaj_event::{Hash256, LogTime, ProducerId, TopicId};

use crate::bytes::Extensions;
use crate::contract::{BlockId, Log, LogError, StagedBlock};
use crate::epoch::{
    ClockMode, EpochEntry, EpochRecord, PartitionEntry, ProducerEntry, encode_producers,
    partitions_root, producers_hash,
};

mod cuts;
mod lookups;
mod refusals;
mod waiting;

/// A log that the suite may close and open again.
pub trait ReopenableLog {
    /// The open log. The suite lets go of what it got before it calls [`Self::reopen`].
    fn log(&self) -> Arc<dyn Log>;

    /// Closes the log without ceremony and opens what is durable; `false` where the log keeps
    /// nothing (the checks of durability are left out then).
    fn reopen(&mut self) -> bool;
}

/// Runs every check. `make` gives a fresh, empty log each time.
pub fn run(make: impl Fn() -> Box<dyn ReopenableLog>) {
    let checks: &[(&str, Check)] = &[
        ("an empty log is empty", lookups::an_empty_log_is_empty),
        ("a committed epoch is readable", lookups::a_committed_epoch_is_readable),
        ("bytes come back as written", lookups::bytes_come_back_as_written),
        ("offsets are dense and located", lookups::offsets_are_dense_and_located),
        ("epochs are found by T", lookups::epochs_are_found_by_t),
        ("producers are found by sequence", lookups::producers_are_found_by_sequence),
        ("several blocks of a partition", lookups::several_blocks_of_a_partition),
        ("empty epochs count", lookups::empty_epochs_count),
        ("order is kept over many epochs", lookups::order_is_kept_over_many_epochs),
        ("staged blocks are invisible", refusals::staged_blocks_are_invisible),
        ("wrong links are refused", refusals::wrong_links_are_refused),
        ("wrong tables are refused", refusals::wrong_tables_are_refused),
        ("wrong offsets are refused", refusals::wrong_offsets_are_refused),
        ("missing blocks are refused", refusals::missing_blocks_are_refused),
        ("old terms are fenced off", refusals::old_terms_are_fenced_off),
        ("a refused commit can be put right", refusals::a_refused_commit_can_be_put_right),
        ("cuts remove blocks alone", cuts::cuts_remove_blocks_alone),
        ("cuts never go back", cuts::cuts_never_go_back),
        ("the newest epoch is never cut", cuts::the_newest_epoch_is_never_cut),
        ("a cut log goes on", cuts::a_cut_log_goes_on),
        ("readers live with cuts", cuts::readers_live_with_cuts),
        ("waiting returns", waiting::waiting_returns),
        ("commits wake those who wait", waiting::commits_wake_those_who_wait),
        ("readers see whole epochs", waiting::readers_see_whole_epochs),
    ];
    for (name, check) in checks {
        println!("conformance: {name}");
        check(&mut Bench { log: make() });
    }
}

type Check = fn(&mut Bench);

/// A log under test and what makes epochs for it.
struct Bench {
    log: Box<dyn ReopenableLog>,
}

/// One block for each of these: (topic, partition, number of events, body).
type Wanted<'a> = (&'a str, u32, u32, &'a [u8]);

impl Bench {
    fn log(&self) -> Arc<dyn Log> {
        self.log.log()
    }

    /// Runs `check` on the log, and again after it was closed and opened where it is durable.
    fn now_and_reopened(&mut self, check: impl Fn(&dyn Log)) {
        check(&*self.log());
        if self.log.reopen() {
            check(&*self.log());
        }
    }

    /// The next epoch of `log`, not yet staged or committed.
    fn draft(&self, t: u64, wanted: &[Wanted<'_>], producers: &[ProducerEntry]) -> Draft {
        draft(&*self.log(), t, wanted, producers)
    }

    fn write(&self, t: u64, wanted: &[Wanted<'_>], producers: &[ProducerEntry]) -> EpochEntry {
        let draft = self.draft(t, wanted, producers);
        draft.stage(&*self.log());
        self.log().commit(&draft.entry).unwrap();
        draft.entry
    }
}

/// An epoch before it is written.
struct Draft {
    entry: EpochEntry,
    blocks: Vec<StagedBlock>,
}

impl Draft {
    fn stage(&self, log: &dyn Log) {
        log.append(self.blocks.clone()).unwrap();
    }

    /// Makes the record commit to the tables again after a change.
    fn restate(&mut self) {
        let EpochEntry { record, partitions, producers } = &mut self.entry;
        record.partitions_root = partitions_root(partitions);
        record.producers_hash = producers_hash(&encode_producers(producers));
        record.events = partitions.iter().map(|entry| u64::from(entry.count)).sum();
    }
}

fn draft(log: &dyn Log, t: u64, wanted: &[Wanted<'_>], producers: &[ProducerEntry]) -> Draft {
    let tail = log.tail();
    let epoch = tail.as_ref().map_or(0, |tail| tail.record.epoch + 1);
    let mut blocks = Vec::new();
    let mut partitions = Vec::new();
    for (index, (topic, partition, count, body)) in (0_u64..).zip(wanted) {
        let topic = TopicId::of(topic);
        let mut id = [0xB1; 16];
        id[..8].copy_from_slice(&epoch.to_be_bytes());
        id[8..].copy_from_slice(&index.to_be_bytes());
        let id = BlockId(id);
        blocks.push(StagedBlock { topic, partition: *partition, id, bytes: (*body).into() });
        partitions.push(PartitionEntry {
            topic,
            partition: *partition,
            first_offset: log.next_offset(topic, *partition),
            count: *count,
            blocks: vec![id],
            events_root: Hash256([9; 32]),
            extensions: Extensions::default(),
        });
    }
    partitions.sort_by_key(|entry| (entry.topic, entry.partition));
    let record = EpochRecord {
        term: tail.as_ref().map_or(1, |tail| tail.record.term),
        epoch,
        t: LogTime(t),
        clock: ClockMode::Event,
        wall_clock_us: 77,
        definitions: Hash256([5; 32]),
        previous: tail.map_or_else(Hash256::default, |tail| tail.record.hash()),
        partitions_root: Hash256::default(),
        producers_hash: Hash256::default(),
        events: 0,
        extensions: Extensions::default(),
    };
    let entry = EpochEntry { record, partitions, producers: producers.to_vec() };
    let mut draft = Draft { entry, blocks };
    draft.restate();
    draft
}

fn run_of(
    producer: u8,
    topic: &str,
    first_sequence: u64,
    count: u32,
    accepted: bool,
) -> ProducerEntry {
    ProducerEntry {
        producer: ProducerId([producer; 16]),
        topic: TopicId::of(topic),
        first_sequence,
        count,
        accepted: if accepted { count } else { 0 },
    }
}

/// Everything that a log says about what the suite wrote: equal before and after a refused commit.
fn picture(log: &dyn Log) -> String {
    let tail = log.tail();
    let topics = ["a", "b"].map(TopicId::of);
    let offsets: Vec<_> = topics.iter().map(|topic| log.next_offset(*topic, 0)).collect();
    let located: Vec<_> = topics.iter().map(|topic| log.locate(*topic, 0, 0).unwrap()).collect();
    let last = log.last_sequence(ProducerId([1; 16])).unwrap();
    let after = log.entry(tail.as_ref().map_or(0, |tail| tail.record.epoch + 1)).unwrap();
    let newest = log.entry_at(LogTime(u64::MAX)).unwrap();
    format!("{tail:?} {offsets:?} {located:?} {last:?} {after:?} {newest:?}")
}

fn refused(log: &dyn Log, entry: &EpochEntry) -> LogError {
    let before = picture(log);
    let error = log.commit(entry).expect_err("this commit must be refused");
    assert_eq!(picture(log), before, "a refused commit changed the log: {error}");
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryLog;

    struct InMemory(Arc<MemoryLog>);

    impl ReopenableLog for InMemory {
        fn log(&self) -> Arc<dyn Log> {
            Arc::clone(&self.0) as Arc<dyn Log>
        }
        fn reopen(&mut self) -> bool {
            false
        }
    }

    #[test]
    fn the_log_in_memory_conforms() {
        run(|| Box::new(InMemory(Arc::default())));
    }
}
