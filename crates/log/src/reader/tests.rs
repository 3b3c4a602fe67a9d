//! Reading: filters, ranges, evolution, erasure, and the detection of what was not committed.

use std::collections::BTreeSet;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use falaj_event::encoding::encode_row;
use falaj_event::{Hash256, LogTime, ProducerId, Value};

use super::*;
use crate::block::{BlockRows, seal_block};
use crate::contract::{BlockLocation, LogError, ProducerOutcome, StagedBlock};
use crate::memory::MemoryLog;
use crate::sequencer::Sequencer;
use crate::submission::{Ops, Origin};
use crate::testing::*;

/// What may be wrong with a log that passes its own checks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Tampering {
    None,
    /// Blocks of `refunds` cannot be read at all.
    Unreadable,
    /// A bit of every block is flipped.
    Flipped,
    /// The events root of every partition of an entry is another, and the record says so.
    Root,
    /// The predecessor that an entry names.
    Previous,
}

struct Tampered {
    log: MemoryLog,
    tampering: Tampering,
}

impl Log for Tampered {
    fn append(&self, blocks: Vec<StagedBlock>) -> Result<(), LogError> {
        self.log.append(blocks)
    }
    fn commit(&self, entry: &EpochEntry) -> Result<(), LogError> {
        self.log.commit(entry)
    }
    fn tail(&self) -> Option<Arc<EpochEntry>> {
        self.log.tail()
    }
    fn entry(&self, epoch: u64) -> Result<Option<Arc<EpochEntry>>, LogError> {
        let Some(entry) = self.log.entry(epoch)? else { return Ok(None) };
        let mut entry = (*entry).clone();
        match self.tampering {
            Tampering::Root => {
                for part in &mut entry.partitions {
                    part.events_root = Hash256([1; 32]);
                }
                entry.record.partitions_root = crate::epoch::partitions_root(&entry.partitions);
            }
            Tampering::Previous if epoch == 1 => entry.record.previous = Hash256([1; 32]),
            _ => {}
        }
        Ok(Some(Arc::new(entry)))
    }
    fn entry_at(&self, t: LogTime) -> Result<Option<Arc<EpochEntry>>, LogError> {
        self.log.entry_at(t)
    }
    fn block(&self, topic: TopicId, partition: u32, id: BlockId) -> Result<Arc<[u8]>, LogError> {
        let bytes = self.log.block(topic, partition, id)?;
        match self.tampering {
            Tampering::Unreadable if topic == TopicId::of("refunds") => {
                Err(LogError::MissingBlock { topic, partition, block: id })
            }
            Tampering::Flipped => {
                let mut altered = bytes.to_vec();
                let last = altered.len() - 1;
                altered[last] ^= 4;
                Ok(altered.into())
            }
            _ => Ok(bytes),
        }
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

fn refunds() -> Arc<TopicSchema> {
    Arc::new(TopicSchema { name: "refunds".into(), ..payments(1) })
}

/// Six epochs of two payments each (amounts count from 0), with a refund in epochs 1 and 3.
fn written(tampering: Tampering) -> (Arc<dyn Log>, Arc<Vault>) {
    let log: Arc<dyn Log> = Arc::new(Tampered { log: MemoryLog::new(), tampering });
    let vault = vault();
    let handle = Sequencer::spawn(event_mode(), parts(Arc::clone(&log), &vault)).unwrap();
    let topic = Arc::new(payments(1));
    let append = |producer: u8, topic: &Arc<TopicSchema>, rows: &[Vec<Value>], first_sequence| {
        let sequences = u32::try_from(rows.len()).unwrap();
        let producer = ProducerId([producer; 16]);
        let origin = Origin::Producer { producer, first_sequence, sequences };
        handle.append(topic, origin, Ops::All(Op::Insert), batch(topic, rows)).unwrap();
    };
    let mut refunded = 0;
    for round in 0..4_i64 {
        let rows = [payment("ali", round, round * 2), payment("noor", round, round * 2 + 1)];
        append(1, &topic, &rows, u64::try_from(round * 2).unwrap());
        if round < 2 {
            append(2, &refunds(), &[payment("ali", round, 1)], refunded);
            refunded += 1;
        }
    }
    handle.shutdown().unwrap();
    (log, vault)
}

fn reader(of: &(Arc<dyn Log>, Arc<Vault>), options: ReadOptions) -> Reader {
    let known = schemas(&[&Arc::new(payments(1)), &refunds()]);
    Reader::new(Arc::clone(&of.0), Arc::clone(&of.1), known, options)
}

fn amounts(events: &PartitionEvents) -> Vec<i64> {
    events.batch.column(2).as_primitive::<Int64Type>().values().to_vec()
}

#[test]
fn other_topics_are_not_touched() {
    let written = written(Tampering::Unreadable);
    let topics = Some(BTreeSet::from([TopicId::of("payments")]));
    let only = reader(&written, ReadOptions { topics, ..ReadOptions::default() });
    let epochs: Vec<_> = only.epochs(0).collect::<Result<_, _>>().unwrap();
    let sizes: Vec<_> = epochs.iter().map(|epoch| epoch.topics.len()).collect();
    assert_eq!(sizes, [1, 0, 1, 0, 1, 1]);
    let all: Vec<_> = reader(&written, ReadOptions::default()).epochs(0).collect();
    assert_eq!(all.len(), 2, "ends after the error");
    assert!(matches!(all[1], Err(ReadError::Log(LogError::MissingBlock { .. }))));
}

#[test]
fn epochs_are_a_topic_too() {
    let written = written(Tampering::None);
    let schema = Arc::new(TopicSchema {
        name: "falaj.epochs".into(),
        columns: vec![
            column("epoch", "uint64", false),
            column("t", "timestamp", false),
            column("clock", "string", false),
            column("previous", "binary", false),
            column("added_later", "int64", true),
        ],
        subject: None,
        derived: true,
        ..payments(1)
    });
    let topics = Some(BTreeSet::from([epochs_topic()]));
    let options = ReadOptions { topics, ..ReadOptions::default() };
    let known = schemas(&[&schema]);
    let reader = Reader::new(Arc::clone(&written.0), Arc::clone(&written.1), known, options);
    let range = reader.range(epochs_topic(), 0, 4, 10).unwrap();
    assert_eq!(range.iter().map(|(record, _)| record.epoch).collect::<Vec<_>>(), [4, 5]);
    let mut previous = Hash256::default();
    for epoch in reader.epochs(0).map(Result::unwrap) {
        let [events] = epoch.topics.as_slice() else { panic!("only one was asked for") };
        let record = epoch.record();
        assert_eq!((events.first_offset, events.len()), (record.epoch, 1));
        assert_eq!(events.event_id(0), Some(EventId::Derived(record.hash())));
        assert_eq!(events.batch.column(2).as_string::<i32>().value(0), "event");
        assert_eq!(events.batch.column(3).as_binary::<i32>().value(0), previous.0);
        assert!(events.batch.column(4).is_null(0));
        previous = record.hash();
    }
}

#[test]
fn ranges_begin_and_end_within_epochs() {
    let written = written(Tampering::None);
    let reader = reader(&written, ReadOptions { pii: PiiMode::Plain, ..ReadOptions::default() });
    let payments = TopicId::of("payments");
    let range = |offset, limit| reader.range(payments, 0, offset, limit).unwrap();
    let from_3 = range(3, 3);
    let found: Vec<_> = from_3.iter().map(|(_, e)| (e.first_offset, amounts(e))).collect();
    assert_eq!(found, [(3, vec![3]), (4, vec![4, 5])]);
    assert_eq!(from_3[0].0.epoch, 2);
    let whole = reader.epoch(2).unwrap().unwrap();
    assert_eq!(from_3[0].1.event_id(0), whole.topics[0].event_id(1));
    assert_eq!(from_3[0].1.salt(0), whole.topics[0].salt(1));
    assert_ne!(whole.topics[0].salt(0), whole.topics[0].salt(1));
    assert_eq!(whole.topics[0].salt(2), None);
    assert_eq!(range(0, usize::MAX).iter().map(|(_, e)| e.len()).sum::<usize>(), 8);
    assert!(range(8, 5).is_empty() && range(0, 0).is_empty());
}

#[test]
fn erased_values_are_null_and_named() {
    let written = written(Tampering::None);
    written.1.destroy_subject(&encode_row([&Value::String("noor".into())])).unwrap();
    let plain = reader(&written, ReadOptions { pii: PiiMode::Plain, ..ReadOptions::default() });
    let events = &plain.epoch(0).unwrap().unwrap().topics[0];
    assert_eq!(events.erased, [1]);
    let cards = events.batch.column(3).as_string::<i32>();
    assert!(cards.value(0) == "4000-ali" && cards.is_null(1));
    let cut = &plain.range(TopicId::of("payments"), 0, 1, 1).unwrap()[0].1;
    assert_eq!(cut.erased, [0]);
    for epoch in 0..6 {
        plain.verify_epoch(epoch).unwrap();
    }
    let sealed = reader(&written, ReadOptions::default()).epoch(0).unwrap().unwrap();
    assert_eq!(sealed.topics[0].batch.column(3).as_binary::<i32>().len(), 2);
}

#[test]
fn what_was_not_committed_is_named() {
    for (tampering, message) in [
        (Tampering::Flipped, "offset 0: bytes sealed under key"),
        (Tampering::Root, "offset 0: the events do not have the committed root"),
        (Tampering::Previous, "epoch 1: it names another predecessor"),
    ] {
        let written = written(tampering);
        let reader = reader(&written, ReadOptions { verify: true, ..ReadOptions::default() });
        let error = (0..6).find_map(|epoch| reader.verify_epoch(epoch).err()).unwrap().to_string();
        assert!(error.contains(message), "{tampering:?}: {error}");
        let read = reader.epochs(0).find_map(Result::err);
        assert_eq!(read.is_some(), tampering != Tampering::Previous, "{read:?}");
    }
    let whole = written(Tampering::None);
    let whole = reader(&whole, ReadOptions { verify: true, ..ReadOptions::default() });
    assert!((0..6).all(|epoch| whole.verify_epoch(epoch).is_ok()));
    assert!(matches!(whole.verify_epoch(6), Err(ReadError::NoEpoch(6))));
    let nothing =
        Reader::new(Arc::clone(whole.log()), vault(), schemas(&[]), ReadOptions::default());
    assert!(matches!(nothing.epoch(0), Err(ReadError::UnknownTopic { .. })));
}

#[test]
fn old_rows_read_under_the_newest_schema() {
    let written = written(Tampering::None);
    let known = schemas(&[&Arc::new(payments(1)), &Arc::new(payments_2(1)), &refunds()]);
    for pii in [PiiMode::Sealed, PiiMode::Plain] {
        let options = ReadOptions { pii, verify: true, ..ReadOptions::default() };
        let known = Arc::clone(&known) as Arc<dyn SchemaProvider>;
        let reader = Reader::new(Arc::clone(&written.0), Arc::clone(&written.1), known, options);
        let events = &reader.epoch(0).unwrap().unwrap().topics[0];
        assert_eq!((events.topic.version, events.batch.num_columns()), (2, 5));
        assert_eq!(events.batch.column(4).null_count(), 2);
    }
}

#[test]
fn a_partition_of_several_blocks_reads_as_one() {
    let (vault, log) = (vault(), Arc::new(MemoryLog::new()));
    let schema = Arc::new(payments(1));
    let rows = |from: u8| {
        let seed = [from; 32];
        let values: Vec<_> = (from..from + 2).map(|i| payment("ali", 1, i.into())).collect();
        let ids: Vec<[u8; 33]> =
            (from..from + 2).map(|i| EventId::Derived(Hash256([i; 32])).to_bytes()).collect();
        let stored =
            crate::pii::seal_rows(&vault, &schema, &batch(&schema, &values), |row| &ids[row])
                .unwrap();
        BlockRows {
            seed,
            ops: arrow::array::UInt8Array::from(vec![0; 2]),
            ids: FixedSizeBinaryArray::try_from_iter(ids.iter()).unwrap(),
            stored,
        }
    };
    let (mut blocks, mut hashes, mut staged) = (Vec::new(), Vec::new(), Vec::new());
    for from in [1, 3] {
        let (id, rows) = (BlockId([from; 16]), rows(from));
        let topic = schema.id();
        let header = BlockHeader { topic, partition: 0, schema_version: 1, id, count: 2 };
        hashes.extend(event_hashes(&rows, 1).unwrap());
        let bytes = seal_block(&vault, &header, &rows).unwrap().into();
        staged.push(StagedBlock { topic, partition: 0, id, bytes });
        blocks.push(id);
    }
    let part = PartitionEntry {
        topic: schema.id(),
        partition: 0,
        first_offset: 0,
        count: 4,
        blocks,
        events_root: merkle::root(hashes.iter().map(|hash| hash.0)),
        extensions: Default::default(),
    };
    let partitions = vec![part];
    let record = EpochRecord {
        term: 1,
        epoch: 0,
        t: LogTime(1),
        clock: crate::ClockMode::Event,
        wall_clock_us: 0,
        definitions: Hash256::default(),
        previous: Hash256::default(),
        partitions_root: crate::epoch::partitions_root(&partitions),
        producers_hash: crate::epoch::producers_hash(&crate::epoch::encode_producers(&[])),
        events: 4,
        extensions: Default::default(),
    };
    log.append(staged).unwrap();
    log.commit(&EpochEntry { record, partitions, producers: Vec::new() }).unwrap();
    let options = ReadOptions { pii: PiiMode::Plain, verify: true, ..ReadOptions::default() };
    let erased = encode_row([&Value::String("ali".into())]);
    vault.destroy_subject(&erased).unwrap();
    let reader = Reader::new(log, vault.clone(), schemas(&[&schema]), options);
    reader.verify_epoch(0).unwrap();
    let events = &reader.epoch(0).unwrap().unwrap().topics[0];
    assert_eq!((amounts(events), &events.erased[..]), (vec![1, 2, 3, 4], &[0, 1, 2, 3][..]));
    assert_eq!(events.event_id(2), Some(EventId::Derived(Hash256([3; 32]))));
    assert_eq!(
        events.salt(2),
        crate::block::expand_salts(&[3; 32], 1).unwrap().first_chunk().copied()
    );
}

#[test]
fn what_was_cut_is_named_or_left_out_and_the_rest_verifies() {
    let of = written(Tampering::None);
    let topic = payments(1).id();
    assert_eq!(of.0.cut(topic, 3).unwrap(), 3);
    let strict = reader(&of, ReadOptions::default());
    let error = strict.epoch(0).unwrap_err().to_string();
    assert!(error.contains("below epoch 3 were cut"), "{error}");
    assert!(strict.range(topic, 0, 0, 100).is_err());
    let first = of.0.entry(3).unwrap().unwrap().partition(topic, 0).map(|part| part.first_offset);
    let kept = strict.range(topic, 0, first.unwrap_or(6), 100).unwrap();
    assert!(!kept.is_empty());
    let lenient = reader(&of, ReadOptions { skip_cut: true, ..ReadOptions::default() });
    let epochs: Vec<_> = lenient.epochs(0).map(Result::unwrap).collect();
    assert_eq!(epochs.len(), 6);
    assert_eq!(lenient.first_offset(topic, 0).unwrap(), 4);
    assert_eq!(lenient.first_offset(refunds().id(), 0).unwrap(), 0);
    assert_eq!(lenient.first_offset(TopicId::of("never seen"), 0).unwrap(), 0);
    let kept = lenient.range(topic, 0, 0, 100).unwrap();
    assert_eq!(kept.iter().map(|(_, events)| events.len()).sum::<usize>(), 4);
    assert_eq!(kept[0].1.first_offset, 4);
    for events in &epochs {
        let epoch = events.record().epoch;
        lenient.verify_epoch(epoch).unwrap();
        let has = events.topics.iter().any(|part| part.topic.id() == topic);
        let had = events.entry.partition(topic, 0).is_some();
        assert_eq!(has, had && epoch >= 3, "epoch {epoch}");
        let refunds = refunds().id();
        let kept = events.topics.iter().any(|part| part.topic.id() == refunds);
        assert_eq!(kept, events.entry.partition(refunds, 0).is_some());
    }
}
