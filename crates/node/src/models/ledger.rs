//! Predictions on their way to the log: rows of concurrent requests, gathered while the log is busy.
//!
//! One thread takes whatever has queued and submits it as one batch per topic, so that under load the
//! cost of an append is shared, and without load nobody waits for others. Knows topics' schemas, not
//! what a prediction is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use arrow::record_batch::RecordBatch;
use falaj_event::{EventId, Hash256, LogTime, Op, TopicSchema, Value};
use falaj_log::{Ack, Ops, Origin, SequencerHandle, Submission, SubmitError};
use tokio::sync::oneshot;

use super::rows::of_columns;

/// Rows of one request.
pub struct Entry {
    /// Their topic.
    pub schema: Arc<TopicSchema>,
    /// The definition that their ids follow from.
    pub definition: Hash256,
    /// `T` of their cause.
    pub cause: LogTime,
    /// Per row: what tells it from others of the same cause, and its values in column order.
    pub rows: Vec<(Vec<u8>, Vec<Value>)>,
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
        let mut rows = first.rows.len();
        let mut all = vec![first];
        while rows < ROWS_PER_SUBMISSION
            && let Ok(next) = entries.try_recv()
        {
            rows += next.rows.len();
            all.push(next);
        }
        let mut by_topic: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        for entry in all {
            by_topic.entry(entry.schema.name.clone()).or_default().push(entry);
        }
        for entries in by_topic.into_values() {
            submit(entries, sequencer);
        }
    }
}

fn submit(entries: Vec<Entry>, sequencer: &SequencerHandle) {
    match batch(&entries) {
        Ok((schema, ids, batch)) => {
            let replies: Vec<Waiting> =
                entries.into_iter().map(|entry| (entry.rows.len(), entry.reply)).collect();
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
        for (ordinal, (key, _)) in entry.rows.iter().enumerate() {
            let ordinal = u32::try_from(ordinal)?;
            match EventId::derived(&entry.definition, entry.cause, key, ordinal) {
                EventId::Derived(hash) => ids.push(hash),
                EventId::Producer { .. } => {}
            }
        }
    }
    let mut columns: Vec<Vec<Value>> = vec![Vec::with_capacity(ids.len()); schema.columns.len()];
    for (_, values) in entries.iter().flat_map(|entry| &entry.rows) {
        for (index, column) in columns.iter_mut().enumerate() {
            column.push(values.get(index).cloned().unwrap_or(Value::Null));
        }
    }
    let batch = of_columns(&schema, &columns)?;
    Ok((schema, ids, batch))
}
