//! Takes JSON events from the inboxes on a cluster and submits them, each once.
//!
//! An inbox partition is a producer whose sequences are the offsets of its records: the log itself says
//! how far an inbox was taken, and a record that is submitted again is recognised. Knows the parser and
//! the sequencer, not what they decide.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use falaj_definitions::catalog::Catalog;
use falaj_definitions::rows::RowParser;
use falaj_definitions::topics::TopicDefinition;
use falaj_event::ProducerId;
use falaj_log::{Log, Ops, Origin, Rejections, SequencerHandle, Submission, SubmitError};
use falaj_log_fluvio::{FluvioLog, Inbox, InboxRecord};

use crate::rejected::Refused;

/// How many records are submitted together.
const TOGETHER: usize = 1_000;
/// How long a stop waits at most for a quiet inbox.
const WAIT: Duration = Duration::from_millis(200);

/// The threads that take inboxes.
pub struct Inboxes {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Inboxes {
    /// Starts a thread for each partition of each inbox of the catalog.
    ///
    /// # Errors
    /// When the log cannot say how far one was taken, or a thread does not start.
    pub fn start(
        log: &Arc<FluvioLog>,
        catalog: &Arc<Catalog>,
        sequencer: &SequencerHandle,
    ) -> Result<Self> {
        let mut inboxes = Self { stop: Arc::new(AtomicBool::new(false)), threads: Vec::new() };
        for topic in catalog.topics.iter().filter(|topic| topic.inbox) {
            for partition in 0..topic.schema.partitions {
                let producer = producer(&topic.schema.name, partition);
                let from = log.last_sequence(producer)?.map_or(0, |last| last + 1);
                let taker = Taker {
                    inbox: Inbox::open(log, &topic.schema.name, partition, from),
                    catalog: Arc::clone(catalog),
                    topic: Arc::clone(topic),
                    sequencer: sequencer.clone(),
                    producer,
                };
                let stop = Arc::clone(&inboxes.stop);
                let thread = std::thread::Builder::new()
                    .name("falaj-inbox".into())
                    .spawn(move || taker.run(&stop))
                    .context("starting a thread for an inbox")?;
                inboxes.threads.push(thread);
            }
        }
        Ok(inboxes)
    }
}

impl Drop for Inboxes {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // What a panicking one had taken is taken again at the next start.
            let _ = thread.join();
        }
    }
}

/// Who numbers the records of an inbox.
fn producer(topic: &str, partition: u32) -> ProducerId {
    ProducerId::from_name(&format!("inbox/{topic}/{partition}"))
}

struct Taker {
    inbox: Inbox,
    catalog: Arc<Catalog>,
    topic: Arc<TopicDefinition>,
    sequencer: SequencerHandle,
    producer: ProducerId,
}

impl Taker {
    fn run(&self, stop: &AtomicBool) {
        let mut parser = RowParser::new(Arc::clone(&self.topic));
        while !stop.load(Ordering::SeqCst) {
            let Ok(records) = self.inbox.next(TOGETHER, WAIT) else { return };
            for run in records.chunk_by(|one, next| one.offset + 1 == next.offset) {
                let Err(error) = self.submit(&mut parser, run) else { continue };
                // A sequencer that stops leaves them to the next one.
                let stopping = matches!(
                    error.downcast_ref(),
                    Some(SubmitError::Closed | SubmitError::Poisoned { .. })
                );
                if !stopping {
                    eprintln!(
                        "falaj: the inbox {} is not taken any more: {error:#}",
                        self.inbox.name()
                    );
                }
                return;
            }
        }
    }

    /// Submits records with dense offsets and waits until they are durable.
    fn submit(&self, parser: &mut RowParser, records: &[InboxRecord]) -> Result<()> {
        let Some(first) = records.first() else { return Ok(()) };
        for record in records {
            parser.push_json(&String::from_utf8_lossy(&record.value));
        }
        let checked = parser.finish()?;
        let origin = Origin::Producer {
            producer: self.producer,
            first_sequence: first.offset,
            sequences: u32::try_from(records.len())?,
        };
        let rejected = (!checked.rejected.is_empty())
            .then(|| self.rejections(Refused::from(checked.rejected), &origin))
            .transpose()?;
        let (send, receive) = mpsc::channel();
        self.sequencer.submit(Submission {
            schema: Arc::clone(&self.topic.schema),
            origin,
            ops: Ops::Each(checked.ops),
            batch: checked.batch,
            positions: Some(checked.positions),
            rejected,
            reply: Box::new(move |outcome| {
                // The receiver waits for it.
                let _ = send.send(outcome);
            }),
        });
        receive.recv().unwrap_or(Err(SubmitError::Closed))?;
        Ok(())
    }

    fn rejections(&self, refused: Refused, origin: &Origin) -> Result<Rejections> {
        let id = |position: u32| origin.event_id(position);
        let (schema, batch) = refused.batch(&self.catalog, &self.topic.schema, id)?;
        Ok(Rejections { schema, batch, rows: refused.positions(), reasons: refused.reasons() })
    }
}
