//! Deduplication against a naive model: a set of recorded sequences.

use std::collections::BTreeMap as Map;
use std::sync::Arc;

use falaj_event::Hash256;
use proptest::prelude::*;

use super::*;
use crate::bytes::Extensions;
use crate::contract::Log;
use crate::epoch::{ClockMode, EpochRecord, encode_producers, partitions_root, producers_hash};
use crate::memory::MemoryLog;

const TOPIC: TopicId = TopicId([1; 16]);

fn claim(producer: u8, first_sequence: u64, count: u32) -> Claim {
    Claim { producer: ProducerId([producer; 16]), topic: TOPIC, first_sequence, count }
}

fn commit(log: &MemoryLog, runs: Vec<ProducerEntry>) -> EpochEntry {
    let tail = log.tail();
    let epoch = tail.as_ref().map_or(0, |tail| tail.record.epoch + 1);
    let producers = producer_table(runs);
    let record = EpochRecord {
        term: 1,
        epoch,
        t: LogTime(epoch * 10 + 1),
        clock: ClockMode::Event,
        wall_clock_us: 0,
        definitions: Hash256::default(),
        previous: tail.map_or_else(Hash256::default, |tail| tail.record.hash()),
        partitions_root: partitions_root(&[]),
        producers_hash: producers_hash(&encode_producers(&producers)),
        events: 0,
        extensions: Extensions::default(),
    };
    let entry = EpochEntry { record, partitions: Vec::new(), producers };
    log.commit(&entry).unwrap();
    entry
}

#[test]
fn fates_make_runs_and_runs_merge() {
    let runs = fate_runs(claim(1, 100, 6), 1, &[2, 3, 5]);
    let spans: Vec<_> = runs.iter().map(|r| (r.first_sequence, r.count, r.accepted)).collect();
    assert_eq!(spans, [(101, 1, 1), (102, 1, 0), (103, 1, 0), (104, 1, 1), (105, 1, 0)]);
    let more = fate_runs(claim(1, 106, 2), 0, &[]);
    let table = producer_table(more.into_iter().chain(runs).collect());
    let spans: Vec<_> = table.iter().map(|r| (r.first_sequence, r.count, r.accepted)).collect();
    assert_eq!(spans, [(101, 1, 1), (102, 2, 0), (104, 1, 1), (105, 1, 0), (106, 2, 2)]);
}

proptest! {
    #[test]
    fn claims_agree_with_a_set(
        epochs in prop::collection::vec(
            prop::collection::vec((0..2_u8, 0..40_u64, 1..9_u32, any::<u8>()), 1..5),
            1..8,
        ),
        restart in 0..8_usize,
    ) {
        let log = Arc::new(MemoryLog::new());
        let ahead = Ahead::new(log.clone());
        let mut newest = Newest::default();
        // Sequence -> (epoch, whether accepted).
        let mut model: Map<(u8, u64), (u64, bool)> = Map::new();
        for (index, batch) in epochs.iter().enumerate() {
            if index == restart {
                newest = Newest::default();
            }
            let epoch = log.tail().map_or(0, |tail| tail.record.epoch + 1);
            let mut claims = EpochClaims::default();
            let (mut runs, mut taken) = (Vec::new(), Vec::new());
            for (producer, first, count, rejects) in batch {
                let one = claim(*producer, *first, *count);
                let last = model.keys().filter(|(who, _)| who == producer).map(|(_, s)| *s).max();
                let sequences = *first..*first + u64::from(*count);
                let hole = sequences.clone().find(|s| {
                    Some(*s) <= last && !model.contains_key(&(*producer, *s))
                });
                let known = match (claims.claim(&ahead, &mut newest, one), hole) {
                    (Ok(known), None) => known,
                    (Err(ClaimError::Refused(SubmitError::SequenceNotRecorded { sequence, .. })), Some(hole)) => {
                        prop_assert_eq!(sequence, hole);
                        continue;
                    }
                    other => return Err(TestCaseError::fail(format!("{other:?}"))),
                };
                let old = sequences.clone().filter(|s| model.contains_key(&(*producer, *s))).count();
                prop_assert_eq!(known.new_from as usize, old);
                let rejected: Vec<u32> =
                    (known.new_from..*count).filter(|p| rejects >> (p % 8) & 1 == 1).collect();
                for position in known.new_from..*count {
                    let fate = (epoch, !rejected.contains(&position));
                    model.insert((*producer, first + u64::from(position)), fate);
                }
                runs.extend(fate_runs(one, known.new_from, &rejected));
                taken.push((one, known));
            }
            if runs.is_empty() {
                continue;
            }
            let entry = commit(&log, runs);
            newest.closed(&entry);
            for (one, known) in taken {
                let t = entry.record.t;
                let mut all = resolve_same_epoch(one, &known.same_epoch, &entry.producers, epoch, t);
                all.extend(known.durable);
                let told: Map<u32, (u64, bool)> = all
                    .iter()
                    .flat_map(|d| (d.position..d.position + d.count).map(|p| (p, (d.epoch, d.accepted > 0))))
                    .collect();
                prop_assert_eq!(told.len(), known.new_from as usize);
                for (position, fate) in told {
                    let key = (one.producer.0[0], one.first_sequence + u64::from(position));
                    prop_assert_eq!(model[&key], fate);
                }
            }
        }
    }
}
