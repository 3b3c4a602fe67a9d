//! Predictions on their way to the log: rows of concurrent requests, gathered while the log is busy.
//!
//! One thread takes whatever has queued and submits it as one batch per topic, so that under load the
//! cost of an append is shared; without load nobody waits for others, but for answers that do not wait
//! for the log either. This is where predictions are batched: scoring a row takes less time than
//! handing it to another thread. Knows topics' schemas, not what a prediction is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use arrow::array::Array;
use arrow::compute::concat;
use arrow::record_batch::RecordBatch;
use falaj_event::{EventId, Hash256, LogTime, Op, TopicSchema};
use falaj_log::{Ack, Ops, Origin, SequencerHandle, Submission, SubmitError};
use tokio::sync::oneshot;

use super::predictor::Events;

/// Rows of one request.
pub struct Entry {
    /// Their topic.
    pub schema: Arc<TopicSchema>,
    /// The definition that their ids follow from.
    pub definition: Hash256,
    /// `T` of their cause.
    pub cause: LogTime,
    /// The events.
    pub events: Events,
    /// How long they may wait for those of other requests.
    pub waits: Duration,
    /// So many waiting rows need not wait for more.
    pub enough: usize,
    /// Told when they are durable.
    pub reply: oneshot::Sender<Result<LogTime, String>>,
}

/// Most rows of one submission.
const ROWS_PER_SUBMISSION: usize = 4096;
/// Requests that may wait; the next ones wait for room.
const QUEUE: usize = 1024;

/// The way to the log.
#[derive(Clone)]
pub struct Ledger {
    queue: SyncSender<Entry>,
}

impl Ledger {
    /// Starts the thread. It ends when the last clone of the ledger is gone.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(sequencer: SequencerHandle) -> Result<(Self, JoinHandle<()>)> {
        let (queue, entries) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("falaj-ledger".to_owned())
            .spawn(move || write(&entries, &sequencer))
            .context("starting the ledger's thread")?;
        Ok((Self { queue }, thread))
    }

    /// Queues rows; gives them back where there is no room now.
    ///
    /// # Errors
    /// The entry.
    pub fn try_append(&self, entry: Entry) -> Result<(), Box<Entry>> {
        use std::sync::mpsc::TrySendError;
        match self.queue.try_send(entry) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(entry) | TrySendError::Disconnected(entry)) => {
                Err(Box::new(entry))
            }
        }
    }

    /// Queues rows, waiting for room.
    ///
    /// # Errors
    /// When the ledger's thread is gone.
    pub fn append(&self, entry: Entry) -> Result<()> {
        self.queue.send(entry).ok().context("the ledger has stopped")
    }
}

fn write(entries: &Receiver<Entry>, sequencer: &SequencerHandle) {
    while let Ok(first) = entries.recv() {
        let mut by_topic: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        for entry in gather(first, entries) {
            by_topic.entry(entry.schema.name.clone()).or_default().push(entry);
        }
        for entries in by_topic.into_values() {
            submit(entries, sequencer);
        }
    }
}

/// What has queued by the time that the most impatient of them allows.
fn gather(first: Entry, entries: &Receiver<Entry>) -> Vec<Entry> {
    let (mut rows, mut until) = (0, Instant::now() + first.waits);
    let mut all: Vec<Entry> = Vec::new();
    let mut next = Some(first);
    while let Some(entry) = next {
        rows += entry.events.names.len();
        until = until.min(Instant::now() + entry.waits);
        let is_enough = rows >= entry.enough;
        all.push(entry);
        let left = until.saturating_duration_since(Instant::now());
        next = match rows {
            ROWS_PER_SUBMISSION.. => None,
            _ if is_enough || left.is_zero() => entries.try_recv().ok(),
            _ => entries.recv_timeout(left).ok(),
        };
    }
    all
}

fn submit(entries: Vec<Entry>, sequencer: &SequencerHandle) {
    match batch(&entries) {
        Ok((schema, ids, batch)) => {
            let replies: Vec<Waiting> =
                entries.into_iter().map(|entry| (entry.events.names.len(), entry.reply)).collect();
            sequencer.submit(Submission {
                schema,
                origin: Origin::Derived(ids),
                ops: Ops::All(Op::Insert),
                batch,
                positions: None,
                rejected: None,
                reply: Box::new(move |outcome| tell(replies, &outcome)),
            });
        }
        Err(error) => {
            for entry in entries {
                // A caller that is gone needs no answer.
                let _ = entry.reply.send(Err(format!("{error:#}")));
            }
        }
    }
}

/// Whom to tell, and how many rows were theirs.
type Waiting = (usize, oneshot::Sender<Result<LogTime, String>>);

fn tell(replies: Vec<Waiting>, outcome: &Result<Ack, SubmitError>) {
    let mut first = 0;
    for (rows, reply) in replies {
        let own = first..first + rows;
        first = own.end;
        let told = match outcome {
            Ok(ack) => {
                let mut refused = ack.rejected.iter();
                match refused.find(|row| own.contains(&(row.position as usize))) {
                    None => Ok(ack.t),
                    Some(row) => Err(format!(
                        "the log refused a prediction event: {}",
                        row.reasons.join("; ")
                    )),
                }
            }
            Err(error) => Err(error.to_string()),
        };
        // A caller that is gone needs no answer.
        let _ = reply.send(told);
    }
}

type Gathered = (Arc<TopicSchema>, Vec<Hash256>, RecordBatch);

fn batch(entries: &[Entry]) -> Result<Gathered> {
    let schema = Arc::clone(&entries.first().context("nothing to append")?.schema);
    let mut ids = Vec::new();
    for entry in entries {
        for (ordinal, name) in entry.events.names.iter().enumerate() {
            let ordinal = u32::try_from(ordinal)?;
            match EventId::derived(&entry.definition, entry.cause, name, ordinal) {
                EventId::Derived(hash) => ids.push(hash),
                EventId::Producer { .. } => {}
            }
        }
    }
    let columns = (0..schema.columns.len()).map(|column| {
        let parts: Vec<&dyn Array> =
            entries.iter().map(|entry| entry.events.columns[column].as_ref()).collect();
        concat(&parts)
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let batch = RecordBatch::try_new(falaj_log::schemas::row_schema(&schema), columns)?;
    Ok((schema, ids, batch))
}

#[cfg(test)]
mod tests {
    use falaj_event::{TopicKind, TopicSchema};

    use super::*;

    /// An entry of so many events.
    fn entry(rows: usize, waits_ms: u64) -> Entry {
        let schema = TopicSchema {
            name: "m.predictions".into(),
            version: 1,
            kind: TopicKind::Event,
            columns: Vec::new(),
            key: Vec::new(),
            event_time: 0,
            subject: None,
            partitions: 1,
            derived: true,
        };
        Entry {
            schema: Arc::new(schema),
            definition: Hash256([0; 32]),
            cause: LogTime(1),
            events: Events { names: vec![b"a".to_vec(); rows], columns: Vec::new() },
            waits: Duration::from_millis(waits_ms),
            enough: 100,
            reply: oneshot::channel().0,
        }
    }

    fn rows(entries: &[Entry]) -> usize {
        entries.iter().map(|entry| entry.events.names.len()).sum()
    }

    #[test]
    fn events_wait_for_others_as_long_as_all_of_them_allow() {
        let (sender, entries) = sync_channel(16);
        // Nobody waits: what has queued goes, and no more.
        sender.send(entry(2, 0)).unwrap();
        assert_eq!(rows(&gather(entry(1, 0), &entries)), 3);
        // Patient ones wait for a later one; an impatient one takes them all along.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                sender.send(entry(5, 0)).unwrap();
            });
            let started = Instant::now();
            assert_eq!(rows(&gather(entry(1, 60_000), &entries)), 6);
            assert!(started.elapsed() < Duration::from_secs(30), "it waited on");
        });
        // Enough of them need not wait, and one batch is bounded.
        assert_eq!(rows(&gather(entry(100, 60_000), &entries)), 100);
        (0..3).for_each(|_| sender.send(entry(ROWS_PER_SUBMISSION / 2, 60_000)).unwrap());
        assert_eq!(rows(&gather(entry(1, 60_000), &entries)), ROWS_PER_SUBMISSION + 1);
    }
}
