//! A producer whose acknowledgements are written down, and the check that a log holds exactly what was
//! acknowledged: nothing lost, nothing twice, nothing out of order.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use falaj_event::value::to_array;
use falaj_event::{Classification, Column, EventId, Op, ProducerId, TopicKind, TopicSchema, Value};
use falaj_log::schemas::row_schema;
use falaj_log::sequencer::{Options as Sequencing, Sequencer, SequencerHandle, SystemClock};
use falaj_log::{
    Ack, AdmitAll, ClockMode, Log, Ops, Origin, Parts, PiiMode, ReadOptions, Reader, Schemas,
    SubmitError,
};
use falaj_log_fluvio::{FluvioLog, Options};
use falaj_vault::{SeededRandom, Vault};

/// Who produces.
pub const TILL: ProducerId = ProducerId([7; 16]);

/// Keys that every process of a test derives alike.
pub fn vault() -> Arc<Vault> {
    Arc::new(Vault::ephemeral(7).unwrap())
}

/// `payments`: customer (key), paid_at, amount.
pub fn payments() -> Arc<TopicSchema> {
    let column = |name: &str, column_type: &str| Column {
        name: name.into(),
        column_type: column_type.parse().unwrap(),
        nullable: false,
        pii: false,
        classification: Classification::default(),
        since_version: 1,
    };
    Arc::new(TopicSchema {
        name: "payments".into(),
        version: 1,
        kind: TopicKind::Event,
        columns: vec![
            column("customer", "string"),
            column("paid_at", "timestamp"),
            column("amount", "int64"),
        ],
        key: vec![0],
        event_time: 1,
        subject: None,
        partitions: 2,
        derived: false,
    })
}

/// The rows with these sequences: each tells its sequence.
pub fn rows(first: u64, count: u32) -> RecordBatch {
    let schema = payments();
    let sequences: Vec<i64> = (first as i64..).take(count as usize).collect();
    let values: [Vec<Value>; 3] = [
        sequences.iter().map(|at| Value::String(format!("c{}", at % 5).into())).collect(),
        sequences.iter().map(|at| Value::Timestamp(at + 1)).collect(),
        sequences.iter().map(|at| Value::Int(*at)).collect(),
    ];
    let columns = schema.columns.iter().zip(values);
    let columns = columns.map(|(column, values)| to_array(&column.column_type, &values).unwrap());
    RecordBatch::try_new(row_schema(&schema), columns.collect()).unwrap()
}

/// A log that was taken over and the sequencer on it.
pub struct Running {
    pub log: Arc<FluvioLog>,
    pub sequencer: SequencerHandle,
    pub term: u64,
}

impl Running {
    pub fn start(options: &Options) -> Self {
        let log = Arc::new(FluvioLog::open(options.clone()).unwrap());
        let term = log.take_over().unwrap();
        let sequencer = sequencer(Arc::clone(&log) as Arc<dyn Log>, term);
        Self { log, sequencer, term }
    }

    /// Produces the rows with these sequences.
    pub fn produce(&self, first: u64, count: u32) -> Result<Ack, SubmitError> {
        produce(&self.sequencer, first, count)
    }
}

pub fn sequencer(log: Arc<dyn Log>, term: u64) -> SequencerHandle {
    let options = Sequencing {
        clock: ClockMode::Event,
        linger_us: 0,
        term: Some(term),
        ..Sequencing::default()
    };
    let parts = Parts {
        log,
        vault: vault(),
        admission: Box::new(AdmitAll),
        clock: Arc::new(SystemClock),
        // Different ids in different terms, or two sequencers would make the same blocks.
        random: Arc::new(SeededRandom::new(term * 1_000 + u64::from(std::process::id()))),
    };
    Sequencer::spawn(options, parts).unwrap()
}

pub fn produce(sequencer: &SequencerHandle, first: u64, count: u32) -> Result<Ack, SubmitError> {
    let origin = Origin::Producer { producer: TILL, first_sequence: first, sequences: count };
    sequencer.append(&payments(), origin, Ops::All(Op::Insert), rows(first, count))
}

/// What was acknowledged.
#[derive(Default)]
pub struct Book {
    /// Sequences.
    pub acknowledged: BTreeSet<u64>,
    /// The sequence that comes next.
    pub next: u64,
}

impl Book {
    /// Produces `batches` batches of `count` rows; a batch whose fate is unknown is produced again on
    /// a new sequencer, as a producer would.
    pub fn produce(&mut self, running: &mut Running, options: &Options, batches: u32, count: u32) {
        for _ in 0..batches {
            while let Err(error) = running.produce(self.next, count) {
                println!("sequencer of term {}: {error}", running.term);
                *running = Running::start(options);
            }
            self.acknowledged.extend(self.next..self.next + u64::from(count));
            self.next += u64::from(count);
        }
    }
}

pub fn reader(log: Arc<dyn Log>) -> Reader {
    let schemas: Schemas = [payments()].into_iter().collect();
    let options = ReadOptions { pii: PiiMode::Plain, verify: true, ..ReadOptions::default() };
    Reader::new(log, vault(), Arc::new(schemas), options)
}

/// The sequences that a log holds, in log order per partition, after everything in it was verified.
pub fn held(log: &Arc<dyn Log>) -> Vec<u64> {
    let reader = reader(Arc::clone(log));
    let mut held = Vec::new();
    let mut ends = std::collections::BTreeMap::new();
    for epoch in reader.epochs(0) {
        let epoch = epoch.unwrap();
        reader.verify_epoch(epoch.record().epoch).unwrap();
        for events in &epoch.topics {
            let end = ends.entry(events.partition).or_insert(0);
            assert_eq!(events.first_offset, *end, "offsets are dense");
            *end += events.len() as u64;
            let amounts = events.batch.column(2).as_primitive::<Int64Type>();
            for row in 0..events.len() {
                let sequence = u64::try_from(amounts.value(row)).unwrap();
                let id = EventId::Producer { producer: TILL, sequence };
                assert_eq!(events.event_id(row), Some(id));
                held.push(sequence);
            }
        }
    }
    held
}

/// Opens the log anew and checks that it holds what the book says: all of it, once. What was sent and
/// not acknowledged may be there, once.
pub fn check(book: &Book, options: &Options) {
    let log: Arc<dyn Log> = Arc::new(FluvioLog::open(options.clone()).unwrap());
    let held = held(&log);
    let distinct: BTreeSet<u64> = held.iter().copied().collect();
    assert_eq!(distinct.len(), held.len(), "an event is in the log twice");
    let lost: Vec<_> = book.acknowledged.difference(&distinct).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    // A producer sends one batch at a time, so that epochs hold its sequences in order.
    let reader = reader(log);
    let mut newest = None;
    for epoch in reader.epochs(0) {
        for run in &epoch.unwrap().entry.producers {
            assert!(newest < Some(run.first_sequence), "out of order");
            newest = Some(run.last_sequence());
        }
    }
}
