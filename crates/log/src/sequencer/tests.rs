//! The sequencer end to end on a log in memory: order, deduplication, rejections, T, failure.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use falaj_event::{EventId, LogTime, Op, ProducerId, TopicId, TopicKind, partition_of};

use super::*;
use crate::admission::{AdmissionError, Candidate, Closing, Refusal};
use crate::contract::{BlockId, BlockLocation, ProducerOutcome, StagedBlock};
use crate::epoch::{EpochEntry, EpochRecord};
use crate::submission::{AppendedRange, Rejections, Reply, event_times, rejection_id};
use crate::testing::*;
use crate::{MemoryLog, PiiMode, ReadOptions, Reader};

const TILL: ProducerId = ProducerId([7; 16]);

fn from_till(first_sequence: u64, sequences: u32) -> Origin {
    Origin::Producer { producer: TILL, first_sequence, sequences }
}

struct Bench {
    log: Arc<dyn Log>,
    vault: Arc<Vault>,
    topic: Arc<TopicSchema>,
    handle: SequencerHandle,
}

impl Bench {
    fn new(partitions: u32) -> Self {
        Self::with(partitions, event_mode(), |parts| parts)
    }

    fn with(partitions: u32, options: Options, change: impl FnOnce(Parts) -> Parts) -> Self {
        let (log, vault): (Arc<dyn Log>, _) = (Arc::new(MemoryLog::new()), vault());
        let parts = change(parts(log, &vault));
        let log = Arc::clone(&parts.log);
        let handle = Sequencer::spawn(options, parts).unwrap();
        Self { log, vault, topic: Arc::new(payments(partitions)), handle }
    }

    fn pay(&self, first: u64, rows: &[(&str, i64, i64)]) -> Result<Ack, SubmitError> {
        let rows: Vec<_> =
            rows.iter().map(|(who, at, amount)| payment(who, *at, *amount)).collect();
        let origin = from_till(first, u32::try_from(rows.len()).unwrap());
        self.handle.append(&self.topic, origin, Ops::All(Op::Insert), batch(&self.topic, &rows))
    }

    fn reader(&self, pii: PiiMode) -> Reader {
        let options = ReadOptions { pii, verify: true, ..ReadOptions::default() };
        let schemas = schemas(&[&self.topic, &Arc::new(rejected_topic())]);
        Reader::new(Arc::clone(&self.log), Arc::clone(&self.vault), schemas, options)
    }
}

fn rejected_topic() -> TopicSchema {
    let mut row = column("original", "string", true);
    row.pii = true;
    TopicSchema {
        name: "payments.rejected".into(),
        version: 1,
        kind: TopicKind::Event,
        columns: vec![column("id", "string", false), column("at", "timestamp", false), row],
        key: vec![0],
        event_time: 1,
        subject: None,
        partitions: 1,
        derived: true,
    }
}

fn rejections(rows: &[u32]) -> Rejections {
    let schema = Arc::new(rejected_topic());
    let values: Vec<_> = rows
        .iter()
        .map(|row| {
            let text = |text: String| falaj_event::Value::String(text.into());
            vec![text(row.to_string()), falaj_event::Value::Timestamp(0), text("{}".into())]
        })
        .collect();
    Rejections {
        batch: batch(&schema, &values),
        schema,
        rows: rows.to_vec(),
        reasons: rows.iter().map(|row| vec![format!("amount of row {row} is negative")]).collect(),
    }
}

fn submit(
    handle: &SequencerHandle,
    submission: impl FnOnce(Reply) -> Submission,
) -> Receiver<Result<Ack, SubmitError>> {
    let (send, receive) = channel();
    handle.submit(submission(Box::new(move |outcome| send.send(outcome).unwrap())));
    receive
}

#[test]
fn events_come_back_as_they_went_in() {
    let bench = Bench::new(1);
    let ack = bench.pay(0, &[("ali", 50, 1), ("noor", 40, 2)]).unwrap();
    assert_eq!((ack.t, ack.epoch, ack.accepted), (LogTime(50), 0, 2));
    assert_eq!(ack.appended, [AppendedRange { partition: 0, first_offset: 0, count: 2 }]);
    let ack = bench.pay(2, &[("ali", 45, 3)]).unwrap();
    assert_eq!((ack.t, ack.epoch), (LogTime(51), 1));

    let reader = bench.reader(PiiMode::Plain);
    let epochs: Vec<_> = reader.epochs(0).map(Result::unwrap).collect();
    assert_eq!(epochs.len(), 2);
    let events = &epochs[0].topics[0];
    assert_eq!((events.partition, events.first_offset, events.len()), (0, 0, 2));
    assert_eq!(events.ops, [Op::Insert, Op::Insert]);
    assert_eq!(events.event_id(1), Some(EventId::Producer { producer: TILL, sequence: 1 }));
    assert_eq!(events.event_id(2), None);
    let cards = events.batch.column(3).as_string::<i32>();
    assert_eq!((cards.value(0), cards.value(1)), ("4000-ali", "4000-noor"));
    assert_eq!(epochs[1].topics[0].first_offset, 2);
    assert_eq!(epochs[1].record().previous, epochs[0].record().hash());
    assert_eq!(bench.reader(PiiMode::Sealed).verify_epoch(1).map_err(|e| e.to_string()), Ok(()));
    bench.handle.shutdown().unwrap();
    assert!(matches!(bench.pay(3, &[("ali", 1, 1)]), Err(SubmitError::Closed)));
}

#[test]
fn rows_go_to_the_partition_of_their_key_in_order() {
    let bench = Bench::new(4);
    let names: Vec<String> = (0..40).map(|i| format!("c{}", i % 13)).collect();
    let rows: Vec<_> = names.iter().zip(0..).map(|(name, i)| (name.as_str(), i, i)).collect();
    let ack = bench.pay(0, &rows).unwrap();
    assert_eq!(ack.appended.iter().map(|range| range.count).sum::<u32>(), 40);
    let epoch = bench.reader(PiiMode::Plain).epoch(0).unwrap().unwrap();
    let mut seen = 0;
    for events in &epoch.topics {
        let customers = events.batch.column(0).as_string::<i32>();
        let amounts = events.batch.column(2).as_primitive::<Int64Type>();
        assert!(amounts.values().is_sorted());
        for row in 0..events.len() {
            let mut key = Vec::new();
            falaj_event::encoding::encode_string(customers.value(row), &mut key);
            assert_eq!(partition_of(&key, 4), events.partition);
            let sequence = u64::try_from(amounts.value(row)).unwrap();
            assert_eq!(events.event_id(row), Some(EventId::Producer { producer: TILL, sequence }));
            seen += 1;
        }
    }
    assert_eq!(seen, 40);
    assert!(epoch.topics.len() > 1);
}

#[test]
fn a_retry_gets_the_original_t() {
    let bench = Bench::new(1);
    let first = bench.pay(0, &[("ali", 50, 1), ("noor", 60, 2)]).unwrap();
    bench.pay(2, &[("ali", 99, 3)]).unwrap();
    let again = bench.pay(0, &[("ali", 50, 1), ("noor", 60, 2)]).unwrap();
    assert_eq!((again.t, again.epoch, again.accepted), (first.t, first.epoch, 2));
    assert!(again.appended.is_empty());
    assert_eq!(bench.log.tail().unwrap().record.epoch, 1, "a pure retry makes no epoch");

    let overlap = bench.pay(1, &[("noor", 60, 2), ("ali", 99, 3), ("sara", 100, 4)]).unwrap();
    assert_eq!((overlap.accepted, overlap.epoch), (3, 2));
    assert_eq!(overlap.appended, [AppendedRange { partition: 0, first_offset: 3, count: 1 }]);
    let old: Vec<_> = overlap.duplicates.iter().map(|d| (d.position, d.count, d.epoch)).collect();
    assert_eq!(old, [(0, 1, 0), (1, 1, 1)]);

    bench.pay(10, &[("ali", 101, 5)]).unwrap();
    let hole = bench.pay(5, &[("ali", 101, 5)]).unwrap_err();
    assert!(
        matches!(hole, SubmitError::SequenceNotRecorded { sequence: 5, last: 10, .. }),
        "{hole}"
    );
    let other = Arc::new(TopicSchema { name: "other".into(), ..payments(1) });
    let rows = batch(&other, &[payment("ali", 1, 1)]);
    let used = bench.handle.append(&other, from_till(10, 1), Ops::All(Op::Insert), rows);
    assert!(matches!(used, Err(SubmitError::SequenceOfOtherTopic { sequence: 10, .. })));
}

#[test]
fn deduplication_survives_a_new_sequencer_on_the_same_log() {
    let bench = Bench::new(1);
    bench.pay(0, &[("ali", 50, 1)]).unwrap();
    bench.handle.shutdown().unwrap();
    let handle =
        Sequencer::spawn(event_mode(), parts(Arc::clone(&bench.log), &bench.vault)).unwrap();
    assert_eq!(handle.term(), bench.handle.term() + 1);
    let bench = Bench { handle, ..bench };
    assert_eq!(bench.pay(0, &[("ali", 50, 1)]).unwrap().t, LogTime(50));
    let next = bench.pay(1, &[("ali", 10, 1)]).unwrap();
    assert_eq!((next.t, next.appended[0].first_offset), (LogTime(51), 1));
    let stale = Options { term: Some(1), ..event_mode() };
    let refused = Sequencer::spawn(stale, parts(Arc::clone(&bench.log), &bench.vault));
    assert!(matches!(refused, Err(SequencerError::Log(LogError::Fenced { current: 2, got: 1 }))));
}

#[test]
fn what_arrives_together_is_one_epoch() {
    let options = Options { linger_us: 200_000, ..event_mode() };
    let bench = Bench::with(1, options, |parts| parts);
    let rows =
        |from: i64| batch(&bench.topic, &[payment("ali", from, 0), payment("noor", from, 1)]);
    let submission = |first: u64, from: i64| {
        let (schema, batch) = (Arc::clone(&bench.topic), rows(from));
        move |reply| Submission {
            schema,
            origin: from_till(first, 2),
            ops: Ops::All(Op::Insert),
            batch,
            positions: None,
            rejected: None,
            reply,
        }
    };
    let waiting = [
        submit(&bench.handle, submission(0, 5)),
        submit(&bench.handle, submission(2, 9)),
        submit(&bench.handle, submission(1, 5)),
    ];
    let acks: Vec<Ack> = waiting.iter().map(|one| one.recv().unwrap().unwrap()).collect();
    assert!(acks.iter().all(|ack| (ack.epoch, ack.t) == (0, LogTime(9))), "{acks:?}");
    assert_eq!(acks[1].appended[0].first_offset, 2);
    assert!(acks[2].appended.is_empty());
    assert_eq!(acks[2].duplicates.iter().map(|d| d.count).sum::<u32>(), 2);
    let entry = bench.log.tail().unwrap();
    assert_eq!((entry.record.events, entry.partitions[0].blocks.len()), (4, 1));
    assert_eq!((entry.producers.len(), entry.producers[0].count), (1, 4));
}

#[test]
fn rejected_rows_travel_in_the_same_epoch() {
    let bench = Bench::new(1);
    let good = [payment("ali", 70, 1), payment("sara", 60, 2)];
    let submission = |reply: Reply| Submission {
        schema: Arc::clone(&bench.topic),
        origin: from_till(0, 4),
        ops: Ops::All(Op::Insert),
        batch: batch(&bench.topic, &good),
        positions: Some(vec![0, 2]),
        rejected: Some(rejections(&[1, 3])),
        reply,
    };
    let ack = submit(&bench.handle, submission).recv().unwrap().unwrap();
    assert_eq!((ack.accepted, ack.rejected.len()), (2, 2));
    assert_eq!(ack.rejected[1].position, 3);
    assert_eq!(ack.rejected[0].reasons, ["amount of row 1 is negative"]);
    let epoch = bench.reader(PiiMode::Plain).epoch(0).unwrap().unwrap();
    let rejected = TopicId::of("payments.rejected");
    let events = epoch.topics.iter().find(|part| part.topic.id() == rejected).unwrap();
    assert_eq!(events.len(), 2);
    let times = crate::submission::event_times(events.batch.column(1)).unwrap();
    assert_eq!(times, [70, 70]);
    let original = EventId::Producer { producer: TILL, sequence: 3 };
    assert_eq!(events.event_id(1), Some(rejection_id(rejected, &original)));
    assert_eq!(events.batch.column(2).as_string::<i32>().value(0), "{}");
    let again = submit(&bench.handle, submission).recv().unwrap().unwrap();
    assert_eq!((again.accepted, again.t), (2, LogTime(70)));
    let positions: Vec<u32> = again.rejected.iter().map(|row| row.position).collect();
    assert_eq!(positions, [1, 3]);
}

/// Refuses rows whose amount is odd.
struct NoOdd(Arc<AtomicBool>);

impl Admission for NoOdd {
    fn admit(
        &mut self,
        closing: &Closing,
        candidates: &[Candidate<'_>],
    ) -> Result<Vec<Refusal>, AdmissionError> {
        assert!(closing.t > LogTime(0));
        let mut refusals = Vec::new();
        for (index, candidate) in candidates.iter().enumerate() {
            let amounts = candidate.batch.column(2).as_primitive::<Int64Type>();
            let rows: Vec<u32> = (0..)
                .zip(amounts.values())
                .filter(|(_, a)| *a % 2 != 0)
                .map(|(row, _)| row)
                .collect();
            if !rows.is_empty() {
                let all = rejections(&rows);
                refusals.push(Refusal {
                    candidate: index,
                    reasons: vec![vec!["odd".into()]; rows.len()],
                    rows,
                    rejected: Some((all.schema, all.batch)),
                });
            }
        }
        Ok(refusals)
    }

    fn closed(&mut self, _record: &EpochRecord) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn the_admission_refuses_rows_at_close() {
    let committed = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&committed);
    let bench =
        Bench::with(2, event_mode(), |parts| Parts { admission: Box::new(NoOdd(seen)), ..parts });
    bench.pay(0, &[("ali", 9, 2)]).unwrap();
    assert!(committed.load(Ordering::SeqCst));
    let ack =
        bench.pay(0, &[("ali", 9, 2), ("noor", 10, 3), ("sara", 11, 4), ("ali", 12, 5)]).unwrap();
    assert_eq!((ack.accepted, ack.appended.iter().map(|r| r.count).sum::<u32>()), (2, 1));
    let told: Vec<_> =
        ack.rejected.iter().map(|row| (row.position, row.reasons.as_slice())).collect();
    assert_eq!(told, [(1, &["odd".to_owned()][..]), (3, &["odd".to_owned()][..])]);
    let epoch = bench.reader(PiiMode::Plain).epoch(1).unwrap().unwrap();
    let rejected = TopicId::of("payments.rejected");
    let (bad, good): (Vec<_>, Vec<_>) =
        epoch.topics.iter().partition(|part| part.topic.id() == rejected);
    assert_eq!((bad[0].len(), good.iter().map(|part| part.len()).sum::<usize>()), (2, 1));
    let original = EventId::Producer { producer: TILL, sequence: 3 };
    assert_eq!(bad[0].event_id(1), Some(rejection_id(rejected, &original)));
    assert_eq!(good[0].batch.column(0).as_string::<i32>().value(0), "sara");
    assert_eq!(epoch.entry.producers.len(), 3, "three fates");
}

/// A gap of a week, and no event after `T`.
struct Weekly;

const DAY: i64 = 86_400_000_000;

impl Admission for Weekly {
    fn admit(
        &mut self,
        closing: &Closing,
        candidates: &[Candidate<'_>],
    ) -> Result<Vec<Refusal>, AdmissionError> {
        let refusal = |(candidate, found): (usize, &Candidate<'_>)| {
            let times = event_times(found.batch.column(1)).unwrap_or_default();
            let ahead = (0..).zip(times).filter(|(_, at)| **at > closing.t.as_event_time());
            let rows: Vec<u32> = ahead.map(|(row, _)| row).collect();
            let all = rejections(&rows);
            let reasons = vec![vec!["ahead".into()]; rows.len()];
            let rejected = Some((all.schema, all.batch));
            (!rows.is_empty()).then_some(Refusal { candidate, rows, reasons, rejected })
        };
        Ok(candidates.iter().enumerate().filter_map(refusal).collect())
    }

    fn max_gap_us(&self, _: TopicId) -> Option<u64> {
        Some(7 * DAY.unsigned_abs())
    }
}

#[test]
fn an_absurd_event_does_not_move_the_event_clock() {
    let bench =
        Bench::with(1, event_mode(), |parts| Parts { admission: Box::new(Weekly), ..parts });
    // 2026-01-01 UTC.
    let start = 1_767_225_600_000_000;
    let t = |ack: &Ack| ack.t.as_event_time();
    // The first event of a log has nothing before it, but the year 9999 starts nothing.
    let sentinel = 253_402_300_799_000_000;
    let ack = bench.pay(0, &[("ali", sentinel, 1)]).unwrap();
    assert_eq!((t(&ack), ack.accepted, ack.rejected.len()), (1, 0, 1));
    let ack = bench.pay(1, &[("ali", start, 1), ("noor", start + DAY, 1)]).unwrap();
    assert_eq!((t(&ack), ack.accepted), (start + DAY, 2));
    // A silence of a week is one, a longer one is not, whatever came with it.
    let ack = bench.pay(3, &[("ali", start + 8 * DAY, 1)]).unwrap();
    assert_eq!((t(&ack), ack.accepted), (start + 8 * DAY, 1));
    let (sane, absurd) = (start + 9 * DAY, start + 17 * DAY);
    let ack = bench.pay(4, &[("ali", absurd, 1), ("noor", sane, 1)]).unwrap();
    assert_eq!((t(&ack), ack.accepted), (sane, 1));
    assert_eq!(
        (ack.rejected[0].position, &*ack.rejected[0].reasons),
        (0, &["ahead".to_owned()][..])
    );
    // A retry is told the same; and a year of steps within one epoch is crossed.
    let again = bench.pay(4, &[("ali", absurd, 1), ("noor", sane, 1)]).unwrap();
    assert_eq!((t(&again), again.accepted, again.epoch), (sane, 1, ack.epoch));
    let year: Vec<_> = (1..=52).map(|week| ("ali", sane + week * 7 * DAY, week)).collect();
    let ack = bench.pay(6, &year).unwrap();
    assert_eq!((t(&ack), ack.accepted), (sane + 364 * DAY, 52));
}

#[test]
fn wall_mode_ticks_and_never_goes_back() {
    let clock = Arc::new(ManualClock::default());
    clock.0.store(5_000, Ordering::SeqCst);
    let given = Arc::clone(&clock);
    let options = Options { tick_us: 5_000, linger_us: 0, ..Options::default() };
    let bench = Bench::with(1, options, |parts| Parts { clock: given, ..parts });
    assert_eq!(bench.log.wait_beyond(Some(1), Duration::from_secs(10)).map(|n| n >= 2), Some(true));
    clock.0.store(1, Ordering::SeqCst);
    let ack = bench.pay(0, &[("ali", 999_999, 1)]).unwrap();
    bench.handle.shutdown().unwrap();
    let mut last = LogTime(0);
    for epoch in 0..=bench.log.tail().unwrap().record.epoch {
        let record = &bench.log.entry(epoch).unwrap().unwrap().record;
        assert!(record.t > last);
        last = record.t;
    }
    assert!((5_000..6_000).contains(&ack.t.0), "{}", ack.t);
}

#[test]
fn derived_events_do_not_move_t() {
    let bench = Bench::new(1);
    bench.pay(0, &[("ali", 50, 1)]).unwrap();
    let topic = Arc::new(TopicSchema { name: "drift".into(), derived: true, ..payments(1) });
    let rows = batch(&topic, &[payment("ali", 900, 0)]);
    let id = Hash256([3; 32]);
    let origin = Origin::Derived(vec![id]);
    let ack = bench.handle.append(&topic, origin, Ops::All(Op::Insert), rows).unwrap();
    assert_eq!(ack.t, LogTime(51));
    assert!(bench.log.tail().unwrap().producers.is_empty());
}

#[test]
fn definitions_change_between_epochs() {
    let options = Options { linger_us: 100_000, ..event_mode() };
    let bench = Bench::with(1, options, |parts| parts);
    let submission = |first: u64| {
        let (schema, batch) =
            (Arc::clone(&bench.topic), batch(&bench.topic, &[payment("a", 1, 1)]));
        move |reply| Submission {
            schema,
            origin: from_till(first, 1),
            ops: Ops::All(Op::Insert),
            batch,
            positions: None,
            rejected: None,
            reply,
        }
    };
    let before = submit(&bench.handle, submission(0));
    let (send, with) = channel();
    let event = submission(1)(Box::new(move |outcome| send.send(outcome).unwrap()));
    bench.handle.rotate_definitions(Hash256([1; 32]), vec![event]);
    let after = submit(&bench.handle, submission(2));
    let epochs = [&before, &with, &after].map(|one| one.recv().unwrap().unwrap().epoch);
    assert_eq!(epochs, [0, 1, 1]);
    let hash = |epoch| bench.log.entry(epoch).unwrap().unwrap().record.definitions;
    assert_eq!((hash(0), hash(1)), (Hash256::default(), Hash256([1; 32])));
}

#[test]
fn rows_of_two_schema_versions_share_a_block() {
    let options = Options { linger_us: 200_000, ..event_mode() };
    let bench = Bench::with(1, options, |parts| parts);
    let newer = Arc::new(payments_2(1));
    let mut row = payment("noor", 8, 2);
    row.push(falaj_event::Value::String("till-1".into()));
    let make = |schema: &Arc<TopicSchema>, first, row: Vec<_>| {
        let (schema, batch) = (Arc::clone(schema), batch(schema, &[row]));
        move |reply| Submission {
            schema,
            origin: from_till(first, 1),
            ops: Ops::All(Op::Insert),
            batch,
            positions: None,
            rejected: None,
            reply,
        }
    };
    let old = submit(&bench.handle, make(&bench.topic, 0, payment("ali", 7, 1)));
    let new = submit(&bench.handle, make(&newer, 1, row));
    assert_eq!(old.recv().unwrap().unwrap().epoch, new.recv().unwrap().unwrap().epoch);
    let options = ReadOptions { pii: PiiMode::Plain, verify: true, ..ReadOptions::default() };
    let reader = Reader::new(
        Arc::clone(&bench.log),
        Arc::clone(&bench.vault),
        schemas(&[&bench.topic, &newer]),
        options,
    );
    let epoch = reader.epoch(0).unwrap().unwrap();
    let tills = epoch.topics[0].batch.column(4).as_string::<i32>();
    assert!(tills.is_null(0) && tills.value(1) == "till-1");
}

#[test]
fn tables_take_upserts_whole_and_deletes_by_key() {
    use falaj_event::Value;
    let bench = Bench::new(1);
    let mut topic = payments(2);
    topic.name = "customers".into();
    topic.kind = TopicKind::Table;
    topic.columns[0].nullable = false;
    topic.columns[2].nullable = false;
    let topic = Arc::new(topic);
    let mut gone = payment("ali", 8, 0);
    (gone[2], gone[3]) = (Value::Null, Value::Null);
    let rows = batch(&topic, &[payment("ali", 7, 1), payment("noor", 7, 2), gone.clone()]);
    let ops = Ops::Each(vec![Op::Upsert, Op::Upsert, Op::Delete]);
    let ack = bench.handle.append(&topic, from_till(0, 3), ops, rows).unwrap();
    assert_eq!((ack.accepted, ack.t), (3, LogTime(8)));
    for (row, op, why) in
        [(gone, Op::Upsert, "`amount` is NULL"), (payment("ali", 9, 1), Op::Insert, "upserts")]
    {
        let refused =
            bench.handle.append(&topic, from_till(3, 1), Ops::All(op), batch(&topic, &[row]));
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
    for pii in [PiiMode::Sealed, PiiMode::Plain] {
        let options = ReadOptions { pii, verify: true, ..ReadOptions::default() };
        let known = schemas(&[&topic]);
        let reader = Reader::new(Arc::clone(&bench.log), Arc::clone(&bench.vault), known, options);
        let epoch = reader.epoch(0).unwrap().unwrap();
        let key = falaj_event::encoding::encode_row([&Value::String("ali".into())]);
        let home = partition_of(&key, 2);
        let events = epoch.topics.iter().find(|part| part.partition == home).unwrap();
        let ali: Vec<usize> = (0..events.len())
            .filter(|row| events.batch.column(0).as_string::<i32>().value(*row) == "ali")
            .collect();
        let ops: Vec<Op> = ali.iter().map(|row| events.ops[*row]).collect();
        assert_eq!(ops, [Op::Upsert, Op::Delete]);
        assert!(events.batch.column(2).is_null(ali[1]) && events.batch.column(3).is_null(ali[1]));
    }
}

#[test]
fn malformed_submissions_are_answered_and_harm_nobody() {
    let bench = Bench::new(1);
    let malformed = |outcome: Result<Ack, SubmitError>, part: &str| {
        let error = outcome.unwrap_err();
        assert!(matches!(error, SubmitError::Malformed { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    let rows = batch(&bench.topic, &[payment("ali", 1, 1)]);
    let send = |origin, ops, batch| bench.handle.append(&bench.topic, origin, ops, batch);
    malformed(send(from_till(0, 2), Ops::All(Op::Insert), rows.clone()), "positions");
    malformed(send(from_till(u64::MAX, 1), Ops::All(Op::Insert), rows.clone()), "overflow");
    malformed(send(from_till(0, 1), Ops::All(Op::Delete), rows.clone()), "inserts");
    malformed(send(from_till(0, 1), Ops::Each(vec![]), rows.clone()), "operations");
    malformed(
        send(from_till(0, 1), Ops::All(Op::Insert), rows.project(&[0, 1]).unwrap()),
        "columns",
    );
    malformed(send(from_till(0, 0), Ops::All(Op::Insert), rows.slice(0, 0)), "no rows");
    malformed(
        send(from_till(0, 1), Ops::All(Op::Insert), rows.project(&[0, 0, 2, 3]).unwrap()),
        "paid_at",
    );
    assert!(bench.log.tail().is_none());
    assert_eq!(bench.pay(0, &[("ali", 1, 1)]).unwrap().epoch, 0);
}

/// A log whose commits wait and fail on demand.
struct Failing {
    log: MemoryLog,
    fail: AtomicBool,
    /// Whoever holds it makes commits wait.
    gate: Mutex<()>,
    /// Commits begun.
    begun: AtomicUsize,
}

impl Failing {
    fn new() -> Arc<Self> {
        let (log, fail, gate, begun) =
            (MemoryLog::new(), AtomicBool::new(false), Mutex::default(), AtomicUsize::new(0));
        Arc::new(Self { log, fail, gate, begun })
    }

    fn wait_for_begun(&self, commits: usize) {
        while self.begun.load(Ordering::SeqCst) < commits {
            std::thread::yield_now();
        }
    }
}

impl Log for Failing {
    fn append(&self, blocks: Vec<StagedBlock>) -> Result<(), LogError> {
        self.log.append(blocks)
    }
    fn commit(&self, entry: &EpochEntry) -> Result<(), LogError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        drop(self.gate.lock().unwrap());
        match self.fail.load(Ordering::SeqCst) {
            true => Err(LogError::Storage { doing: "syncing", source: "disk full".into() }),
            false => self.log.commit(entry),
        }
    }
    fn tail(&self) -> Option<Arc<EpochEntry>> {
        self.log.tail()
    }
    fn entry(&self, epoch: u64) -> Result<Option<Arc<EpochEntry>>, LogError> {
        self.log.entry(epoch)
    }
    fn entry_at(&self, t: LogTime) -> Result<Option<Arc<EpochEntry>>, LogError> {
        self.log.entry_at(t)
    }
    fn block(&self, topic: TopicId, partition: u32, id: BlockId) -> Result<Arc<[u8]>, LogError> {
        self.log.block(topic, partition, id)
    }
    fn next_offset(&self, topic: TopicId, partition: u32) -> u64 {
        self.log.next_offset(topic, partition)
    }
    fn locate(
        &self,
        topic: TopicId,
        partition: u32,
        offset: u64,
    ) -> Result<Option<BlockLocation>, LogError> {
        self.log.locate(topic, partition, offset)
    }
    fn producer(
        &self,
        producer: ProducerId,
        sequence: u64,
    ) -> Result<Option<ProducerOutcome>, LogError> {
        self.log.producer(producer, sequence)
    }
    fn last_sequence(&self, producer: ProducerId) -> Result<Option<u64>, LogError> {
        self.log.last_sequence(producer)
    }
    fn cut(&self, topic: TopicId, first_kept: u64) -> Result<u64, LogError> {
        self.log.cut(topic, first_kept)
    }
    fn first_kept(&self, topic: TopicId) -> u64 {
        self.log.first_kept(topic)
    }
    fn wait_beyond(&self, epoch: Option<u64>, timeout: Duration) -> Option<u64> {
        self.log.wait_beyond(epoch, timeout)
    }
}

#[test]
fn a_failed_commit_poisons_the_handle() {
    let log = Failing::new();
    let given = Arc::clone(&log);
    let bench = Bench::with(1, event_mode(), |parts| Parts { log: given, ..parts });
    bench.pay(0, &[("ali", 1, 1)]).unwrap();
    log.fail.store(true, Ordering::SeqCst);
    let error = bench.pay(1, &[("ali", 2, 1)]).unwrap_err();
    assert!(matches!(&error, SubmitError::Poisoned { reason } if reason.contains("disk full")));
    log.fail.store(false, Ordering::SeqCst);
    assert!(matches!(bench.pay(1, &[("ali", 2, 1)]), Err(SubmitError::Poisoned { .. })));
    assert!(bench.handle.stopped().unwrap().to_string().contains("writing epoch 1"));
    assert!(bench.handle.shutdown().is_err());
    let handle =
        Sequencer::spawn(event_mode(), parts(Arc::clone(&bench.log), &bench.vault)).unwrap();
    let bench = Bench { handle, ..bench };
    assert_eq!(bench.pay(1, &[("ali", 2, 1)]).unwrap().epoch, 1);
}

/// What is closed meanwhile finds offsets and sequences in the epoch that is being written, and is
/// answered only when that one is durable.
#[test]
fn epochs_are_closed_while_one_is_written() {
    let log = Failing::new();
    let given = Arc::clone(&log);
    let bench = &Bench::with(1, event_mode(), |parts| Parts { log: given, ..parts });
    let gate = log.gate.lock().unwrap();
    let (first, retry, next) = std::thread::scope(|scope| {
        let first = scope.spawn(|| bench.pay(0, &[("ali", 50, 1), ("noor", 60, 2)]));
        log.wait_for_begun(1);
        let retry = scope.spawn(|| bench.pay(0, &[("ali", 50, 1), ("noor", 60, 2)]));
        let next = scope.spawn(|| bench.pay(1, &[("noor", 60, 2), ("sara", 70, 3)]));
        let other = Arc::new(TopicSchema { name: "other".into(), ..payments(1) });
        let taken = scope.spawn(move || {
            let rows = batch(&other, &[payment("ali", 1, 1)]);
            bench.handle.append(&other, from_till(0, 1), Ops::All(Op::Insert), rows)
        });
        std::thread::sleep(Duration::from_millis(50));
        assert!(!first.is_finished() && !retry.is_finished() && !next.is_finished());
        assert!(!taken.is_finished(), "refused for what is not durable yet");
        assert!(log.tail().is_none());
        drop(gate);
        let taken = taken.join().unwrap();
        assert!(matches!(taken, Err(SubmitError::SequenceOfOtherTopic { sequence: 0, .. })));
        let all = [first, retry, next].map(|thread| thread.join().unwrap().unwrap());
        let [first, retry, next] = all;
        (first, retry, next)
    });
    assert_eq!((first.epoch, first.accepted), (0, 2));
    assert_eq!((retry.epoch, retry.t, retry.accepted), (0, first.t, 2));
    assert!(retry.appended.is_empty());
    assert_eq!((next.epoch, next.accepted), (1, 2));
    assert_eq!(next.appended, [AppendedRange { partition: 0, first_offset: 2, count: 1 }]);
    let old: Vec<_> = next.duplicates.iter().map(|d| (d.position, d.count, d.epoch)).collect();
    assert_eq!(old, [(0, 1, 0)]);
    let epochs: Vec<_> = bench.reader(PiiMode::Plain).epochs(0).map(Result::unwrap).collect();
    assert_eq!(epochs.len(), 2);
    assert_eq!(epochs[1].record().previous, epochs[0].record().hash());
}

#[test]
fn nothing_is_written_on_top_of_a_failed_commit() {
    let log = Failing::new();
    let given = Arc::clone(&log);
    let bench = Bench::with(1, event_mode(), |parts| Parts { log: given, ..parts });
    let gate = log.gate.lock().unwrap();
    let both = std::thread::scope(|scope| {
        let first = scope.spawn(|| bench.pay(0, &[("ali", 50, 1)]));
        log.wait_for_begun(1);
        let second = scope.spawn(|| bench.pay(1, &[("ali", 60, 2)]));
        std::thread::sleep(Duration::from_millis(50));
        log.fail.store(true, Ordering::SeqCst);
        drop(gate);
        [first, second].map(|thread| thread.join().unwrap())
    });
    for outcome in both {
        let error = outcome.unwrap_err();
        assert!(matches!(&error, SubmitError::Poisoned { reason } if reason.contains("disk full")));
    }
    assert_eq!((log.begun.load(Ordering::SeqCst), log.tail().is_none()), (1, true));
    assert!(bench.handle.shutdown().unwrap_err().to_string().contains("writing epoch 0"));
}

/// Whoever is told of an epoch may let go of the sequencer.
#[test]
fn a_reply_may_drop_the_last_handle() {
    let bench = Bench::new(1);
    let (send, receive) = channel();
    let handle = bench.handle.clone();
    let rows = batch(&bench.topic, &[payment("ali", 1, 1)]);
    let schema = Arc::clone(&bench.topic);
    let (gate, opened) = channel();
    let submission = Submission {
        schema,
        origin: from_till(0, 1),
        ops: Ops::All(Op::Insert),
        batch: rows,
        positions: None,
        rejected: None,
        reply: {
            let handle = handle.clone();
            Box::new(move |outcome| {
                opened.recv().unwrap();
                drop(handle);
                send.send(outcome).unwrap();
            })
        },
    };
    handle.submit(submission);
    drop((handle, bench));
    gate.send(()).unwrap();
    assert!(receive.recv_timeout(Duration::from_secs(30)).unwrap().is_ok());
}

/// Panics when it is asked.
struct Panics;

impl Admission for Panics {
    fn admit(&mut self, _: &Closing, _: &[Candidate<'_>]) -> Result<Vec<Refusal>, AdmissionError> {
        panic!("a rule is wrong")
    }
}

#[test]
fn a_panic_leaves_nobody_waiting() {
    let bench =
        Bench::with(1, event_mode(), |parts| Parts { admission: Box::new(Panics), ..parts });
    assert!(matches!(bench.pay(0, &[("ali", 1, 1)]), Err(SubmitError::Poisoned { .. })));
    let stopped = std::iter::repeat_with(|| bench.handle.stopped()).find_map(|stopped| stopped);
    assert!(stopped.unwrap().to_string().contains("a rule is wrong"));
    assert!(bench.log.tail().is_none());
}

#[test]
fn a_full_queue_gives_the_submission_back_and_blocks_the_patient() {
    let options = Options { max_queue_events: 1, linger_us: 300_000, ..event_mode() };
    let bench = Bench::with(1, options, |parts| parts);
    let (send, receive) = channel();
    let submission = |first| {
        let send = send.clone();
        Submission {
            schema: Arc::clone(&bench.topic),
            origin: from_till(first, 1),
            ops: Ops::All(Op::Insert),
            batch: batch(&bench.topic, &[payment("ali", 1, 1)]),
            positions: None,
            rejected: None,
            reply: Box::new(move |outcome| send.send(outcome.map(|ack| ack.epoch)).unwrap()),
        }
    };
    bench.handle.try_submit(submission(0)).map_err(|_| "full").unwrap();
    let returned = bench.handle.try_submit(submission(1)).unwrap_err();
    bench.handle.submit(*returned);
    bench.handle.shutdown().unwrap();
    let epochs: BTreeSet<u64> = receive.try_iter().map(Result::unwrap).collect();
    assert_eq!(epochs, BTreeSet::from([0, 1]), "the second had to wait for room");
}

#[test]
fn many_threads_lose_and_repeat_nothing() {
    let bench = Bench::with(3, Options { linger_us: 100, ..event_mode() }, |parts| parts);
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let (handle, topic) = (bench.handle.clone(), Arc::clone(&bench.topic));
            scope.spawn(move || {
                let producer = ProducerId([thread; 16]);
                for round in 0..25_u64 {
                    let row = |i: i64| payment(&format!("{thread}-{i}"), i, i);
                    let rows = batch(&topic, &[row(1), row(2), row(3)]);
                    let first_sequence = round * 3;
                    let origin = Origin::Producer { producer, first_sequence, sequences: 3 };
                    let ops = Ops::All(Op::Insert);
                    let ack = handle.append(&topic, origin.clone(), ops.clone(), rows.clone());
                    let again = handle.append(&topic, origin, ops, rows).unwrap();
                    assert_eq!(again.t, ack.unwrap().t);
                }
            });
        }
    });
    let mut ids = BTreeSet::new();
    for epoch in bench.reader(PiiMode::Sealed).epochs(0) {
        for events in epoch.unwrap().topics {
            ids.extend((0..events.len()).filter_map(|row| events.event_id(row)));
        }
    }
    assert_eq!(ids.len(), 300);
    let total: u64 = (0..3).map(|p| bench.log.next_offset(bench.topic.id(), p)).sum();
    assert_eq!(total, 300);
}

/// CPU time of the calling thread in nanoseconds.
fn thread_cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

/// Rows of about 100 bytes, none personal.
fn sales(partitions: u32) -> TopicSchema {
    let columns = [
        ("customer", "string"),
        ("merchant", "string"),
        ("country", "string"),
        ("sold_at", "timestamp"),
        ("amount", "decimal(12,2)"),
        ("fee", "int64"),
        ("risk", "float64"),
        ("code", "int32"),
        ("present", "bool"),
    ];
    TopicSchema {
        name: "sales".into(),
        columns: columns.iter().map(|(name, of)| column(name, of, false)).collect(),
        event_time: 3,
        subject: None,
        ..payments(partitions)
    }
}

fn sale(i: i64) -> Vec<falaj_event::Value> {
    use falaj_event::Value;
    let text = |text: String| Value::String(text.into());
    let mixed = i.wrapping_mul(0x5851_F42D_4C95_7F2D).cast_unsigned() >> 20;
    vec![
        text(format!("customer-{:08}", mixed % 100_000)),
        text(format!("merchant-{:08}", mixed % 5_000)),
        text("OM".into()),
        Value::Timestamp(1_700_000_000_000_000 + i * 1000),
        Value::Decimal(i128::from(mixed % 1_000_000), 2),
        Value::Int(i64::try_from(mixed % 977).unwrap()),
        Value::Float64((mixed % 1000) as f64 / 1000.0),
        Value::Int(i64::try_from(mixed % 9999).unwrap()),
        Value::Bool(mixed.is_multiple_of(3)),
    ]
}

/// Measured on one thread's CPU time, so that a busy machine disturbs it little.
#[test]
#[ignore = "a measurement: run it alone"]
fn throughput() {
    for (partitions, batch_rows) in [(1, 1_000), (4, 1_000), (1, 100), (1, 10_000)] {
        let log = Arc::new(MemoryLog::new());
        let vault = vault();
        let parts = parts(Arc::clone(&log) as Arc<dyn Log>, &vault);
        let options = Options { linger_us: 1_000, ..event_mode() };
        let handle = Sequencer::spawn(options, parts).unwrap();
        let topic = Arc::new(sales(partitions));
        let rows: Vec<_> = (0..batch_rows).map(sale).collect();
        let rows = batch(&topic, &rows);
        let batches = 400_000 / u64::try_from(batch_rows).unwrap();
        let (send, receive) = channel();
        for round in 0..batches {
            let send = send.clone();
            let sequences = u32::try_from(batch_rows).unwrap();
            handle.submit(Submission {
                schema: Arc::clone(&topic),
                origin: from_till(round * u64::from(sequences), sequences),
                ops: Ops::All(Op::Insert),
                batch: rows.clone(),
                positions: None,
                rejected: None,
                reply: Box::new(move |outcome| {
                    outcome.unwrap();
                    send.send(thread_cpu_ns()).unwrap();
                }),
            });
        }
        drop(send);
        let cpu_ns = receive.iter().max().unwrap();
        handle.shutdown().unwrap();
        let (mut bytes, epochs) = (0, log.tail().unwrap().record.epoch + 1);
        for epoch in 0..epochs {
            for part in &log.entry(epoch).unwrap().unwrap().partitions {
                bytes += log.block(part.topic, part.partition, part.blocks[0]).unwrap().len();
            }
        }
        let rate = 400_000.0 / (cpu_ns as f64 / 1e9);
        println!(
            "{partitions} partitions, batches of {batch_rows}: {rate:.0} events per core-second, \
             {epochs} epochs, {} sealed bytes per event",
            bytes / 400_000
        );
        assert!(rate > 100_000.0, "far below what it was built for");
        let known = schemas(&[&topic]);
        let options = ReadOptions { verify: partitions > 1, ..ReadOptions::default() };
        let reader = Reader::new(log, vault, known, options);
        let before = thread_cpu_ns();
        let rows: usize =
            reader.epochs(0).flat_map(|epoch| epoch.unwrap().topics).map(|part| part.len()).sum();
        let rate = rows as f64 / ((thread_cpu_ns() - before) as f64 / 1e9);
        println!("  read back at {rate:.0} events per core-second (verified: {})", partitions > 1);
        assert_eq!(rows, 400_000);
    }
}
