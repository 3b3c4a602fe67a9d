//! Streaming the simulation into a node through Flight, with lookups beside it, a kill in the middle
//! and a retry of whatever was not acknowledged.
//!
//! Knows the client and the rows of the simulation; not what the node does with them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use falaj_gateway::Client;
use falaj_gateway::client::{AckReceiver, BatchSender};
use falaj_gateway::wire::{AckMetadata, ProduceOptions};
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use serde_json::{Value as Json, json};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::child::Child;
use super::lookups::{Looker, Sample};
use super::models::{Question, is_asked};
use super::rows::{PAYMENTS, TOPICS, batch, op_of, topic_of};
use super::simulation::{Happening, Payment};
use crate::verbs::text::{bar, count, duration};

/// Events per batch, at most.
const BATCH_EVENTS: usize = 250;
/// Events per batch, at most, while a till asks: what it asks about is at most so many events ahead of
/// its features.
const ASKED_BATCH_EVENTS: usize = 100;
/// Batches on their way at once.
const IN_FLIGHT: usize = 8;

/// A batch as it is planned: which happenings, and the sequence of the first of them.
#[derive(Clone, Debug)]
struct Planned {
    topic: usize,
    happenings: Range<usize>,
    first_sequence: u64,
}

/// What was seen while streaming.
#[derive(Debug)]
pub struct Tally {
    /// Acknowledgement of each planned batch.
    pub acks: Vec<Option<AckMetadata>>,
    /// Rows of batches that were sent again after the kill.
    pub resent_rows: u64,
    /// Rows of those that the log already held.
    pub resent_duplicates: u64,
    /// Seconds spent streaming.
    pub seconds: f64,
    /// Latency of lookups.
    pub lookups: Histogram<u64>,
    /// Answers kept to be read again as of their `T`.
    pub samples: Vec<Sample>,
    /// The node's last status.
    pub status: Json,
}

impl Tally {
    /// Latency of a lookup at a quantile, microseconds.
    pub fn lookup_us(&self, quantile: f64) -> u64 {
        self.lookups.value_at_quantile(quantile)
    }

    /// Sums over all acknowledgements of one topic: (accepted, rejected, duplicates).
    pub fn sums(&self, streamer: &Streamer<'_>, topic: usize) -> (u64, u64, u64) {
        let acks =
            streamer.plan.iter().zip(&self.acks).filter(|(planned, _)| planned.topic == topic);
        acks.filter_map(|(_, ack)| ack.as_ref()).fold((0, 0, 0), |sums, ack| {
            (sums.0 + ack.accepted, sums.1 + ack.rejected_count, sums.2 + ack.duplicates)
        })
    }

    /// The figures as JSON.
    pub fn to_json(&self) -> Json {
        json!({
            "streaming_seconds": self.seconds,
            "lookups": self.lookups.len(),
            "lookup_us_p50": self.lookup_us(0.5),
            "lookup_us_p99": self.lookup_us(0.99),
            "resent_rows": self.resent_rows,
            "resent_duplicates": self.resent_duplicates,
            "status": self.status,
        })
    }
}

/// Streams happenings.
pub struct Streamer<'a> {
    happenings: &'a [Happening],
    plan: Vec<Planned>,
    rate: u64,
    bar: ProgressBar,
    tally: Tally,
    till: Option<mpsc::Sender<Question>>,
}

impl<'a> Streamer<'a> {
    /// Plans the batches: consecutive happenings of one topic, in order of arrival, smaller ones from
    /// `asked_from_us` on, streamed at `rate` events per second at most (0: no limit).
    ///
    /// # Errors
    /// When no histogram can be made.
    pub fn new(happenings: &'a [Happening], rate: u64, asked_from_us: i64) -> Result<Self> {
        let mut plan: Vec<Planned> = Vec::new();
        let mut sequences = [0; TOPICS.len()];
        for (index, happening) in happenings.iter().enumerate() {
            let topic = topic_of(happening);
            let is_asked = topic == PAYMENTS && happening.arrival() >= asked_from_us;
            let most = if is_asked { ASKED_BATCH_EVENTS } else { BATCH_EVENTS };
            match plan.last_mut() {
                Some(last) if last.topic == topic && last.happenings.len() < most => {
                    last.happenings.end = index + 1;
                }
                _ => plan.push(Planned {
                    topic,
                    happenings: index..index + 1,
                    first_sequence: sequences[topic],
                }),
            }
            sequences[topic] += 1;
        }
        let tally = Tally {
            acks: vec![None; plan.len()],
            resent_rows: 0,
            resent_duplicates: 0,
            seconds: 0.0,
            lookups: Histogram::new(3)?,
            samples: Vec::new(),
            status: Json::Null,
        };
        let bar = bar(happenings.len() as u64, "streaming payments");
        Ok(Self { happenings, plan, rate, bar, tally, till: None })
    }

    /// Number of planned batches.
    pub fn batches(&self) -> usize {
        self.plan.len()
    }

    /// The first planned batch that arrives at or after `time_us`.
    pub fn batch_at(&self, time_us: i64) -> usize {
        let before = |planned: &Planned| {
            self.happenings
                .get(planned.happenings.start)
                .is_some_and(|happening| happening.arrival() < time_us)
        };
        self.plan.partition_point(before)
    }

    /// Hands every batch of payments to a till from now on, before it is sent and after everything
    /// before it was acknowledged; it is sent once the till has its answer, as a till does it.
    pub fn show_to(&mut self, till: Option<mpsc::Sender<Question>>) {
        self.till = till;
    }

    /// The bar, for what is waited for between batches.
    pub fn bar(&self) -> &ProgressBar {
        &self.bar
    }

    /// What was seen.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Streams the planned batches in `range` and waits for every acknowledgement.
    ///
    /// # Errors
    /// When the node refuses a batch or goes away.
    pub async fn run(&mut self, client: &Client, range: Range<usize>) -> Result<()> {
        let pending: Vec<usize> = range.collect();
        self.stream(client, &pending, None).await?;
        match pending.iter().any(|index| self.tally.acks[*index].is_none()) {
            true => bail!("the node did not acknowledge every batch"),
            false => Ok(()),
        }
    }

    /// Streams `range` until `kill_at` batches of it are acknowledged, then kills the node with the
    /// rest on its way.
    ///
    /// # Errors
    /// When the node went away before it was killed.
    pub async fn run_until_killed(
        &mut self,
        child: &mut Child,
        range: Range<usize>,
        kill_at: usize,
    ) -> Result<()> {
        let pending: Vec<usize> = range.collect();
        let client = child.client.clone();
        // Streams break under the kill: that is what it is for.
        let _ = self.stream(&client, &pending, Some((kill_at, child))).await;
        let unacknowledged =
            pending.iter().filter(|index| self.tally.acks[**index].is_none()).count();
        if unacknowledged == 0 {
            bail!("the node was killed too late: everything was acknowledged");
        }
        Ok(())
    }

    /// Sends every batch before `end` that was never acknowledged, with its old sequences.
    ///
    /// # Errors
    /// When the node refuses a batch or goes away.
    pub async fn resume(&mut self, client: &Client, end: usize) -> Result<()> {
        let pending: Vec<usize> =
            (0..end).filter(|index| self.tally.acks[*index].is_none()).collect();
        let resent: Vec<usize> = pending.iter().copied().take(IN_FLIGHT).collect();
        self.stream(client, &pending, None).await?;
        for index in resent {
            let ack = self.tally.acks[index].as_ref().context("a resent batch has no answer")?;
            self.tally.resent_rows += self.plan[index].happenings.len() as u64;
            self.tally.resent_duplicates += ack.duplicates;
        }
        Ok(())
    }

    /// Sends one planned batch again.
    ///
    /// # Errors
    /// When the node refuses it.
    pub async fn send_again(&self, client: &Client, index: usize) -> Result<AckMetadata> {
        let topic = TOPICS[self.plan[index].topic];
        let schema = client.columns(&["topics", topic]).await?;
        let (rows, options) = self.rows(&schema, index)?;
        let mut stream = client.producer(topic, &rows.schema()).await?;
        Ok(stream.send_and_wait(&rows, &options).await?)
    }

    /// The index of the first batch of a topic.
    pub fn first_batch(&self, topic: usize) -> Option<usize> {
        self.plan.iter().position(|planned| planned.topic == topic)
    }

    /// Ends the progress bar.
    pub fn finish(&self) {
        self.bar.finish();
    }

    fn rows(
        &self,
        schema: &arrow::datatypes::Schema,
        index: usize,
    ) -> Result<(arrow::record_batch::RecordBatch, ProduceOptions)> {
        let planned = &self.plan[index];
        let happenings: Vec<&Happening> =
            self.happenings[planned.happenings.clone()].iter().collect();
        let rows = with_ops(batch(schema, &happenings)?, &happenings)?;
        let options = ProduceOptions {
            producer: Some(format!("demo-{}", TOPICS[planned.topic])),
            sequence: Some(planned.first_sequence),
            ..ProduceOptions::default()
        };
        Ok((rows, options))
    }

    async fn show(&self, planned: &Planned, permits: &Semaphore, acks: &Acks) -> Result<()> {
        let Some(till) = &self.till else { return Ok(()) };
        let payments: Vec<Payment> = self.happenings[planned.happenings.clone()]
            .iter()
            .filter_map(|happening| match happening {
                Happening::Payment(payment) => Some(payment.clone()),
                _ => None,
            })
            .collect();
        if !payments.iter().any(is_asked) {
            return Ok(());
        }
        drop(permits.acquire_many(u32::try_from(IN_FLIGHT)?).await?);
        let seen = {
            let acks = acks.lock().unwrap_or_else(PoisonError::into_inner);
            acks.values().filter_map(|ack| ack.t).max()
        };
        let (answered, answer) = oneshot::channel();
        // A till that is gone has said why.
        if till.send(Question { payments, seen, answered }).await.is_ok() {
            let _ = answer.await;
        }
        Ok(())
    }

    async fn stream(
        &mut self,
        client: &Client,
        pending: &[usize],
        mut kill: Option<(usize, &mut Child)>,
    ) -> Result<()> {
        let started = Instant::now();
        let looker = Looker::start(client.clone(), self.happenings)?;
        let monitor = Monitor::start(client.clone(), self.bar.clone(), looker.histogram());
        let permits = Arc::new(Semaphore::new(IN_FLIGHT));
        let acks = Arc::new(Mutex::new(BTreeMap::new()));
        let mut streams: BTreeMap<usize, TopicStream> = BTreeMap::new();
        let mut outcome = Ok(());
        let mut sent = 0;
        for index in pending {
            let planned = self.plan[*index].clone();
            if let Some(micros) = (sent * 1_000_000_u64).checked_div(self.rate) {
                tokio::time::sleep_until((started + Duration::from_micros(micros)).into()).await;
            }
            sent += planned.happenings.len() as u64;
            if let std::collections::btree_map::Entry::Vacant(entry) = streams.entry(planned.topic)
            {
                let stream =
                    TopicStream::open(client, planned.topic, &permits, &acks, &self.bar).await?;
                entry.insert(stream);
            }
            self.show(&planned, &permits, &acks).await?;
            let Some(stream) = streams.get_mut(&planned.topic) else { continue };
            let (rows, options) = self.rows(&stream.schema, *index)?;
            let permit = permits.clone().acquire_owned().await?;
            permit.forget();
            stream
                .sent
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push_back((*index, rows.num_rows()));
            if stream.sender.send(&rows, &options).await.is_err() || stream.is_over() {
                outcome = Err(anyhow::anyhow!("the node went away"));
                break;
            }
            let done = acks.lock().unwrap_or_else(PoisonError::into_inner).len();
            if let Some((_, child)) = kill.take_if(|(at, _)| done >= *at) {
                child.kill()?;
                outcome = Err(anyhow::anyhow!("the node was killed"));
                break;
            }
        }
        for (_, stream) in streams {
            let received = stream.close().await;
            outcome = outcome.and(received);
        }
        self.tally.samples.extend(looker.stop(&mut self.tally.lookups).await);
        if let Some(mut status) = monitor.stop().await {
            // A node that is still catching up has no freshness to tell.
            for name in ["freshness_us_p50", "freshness_us_p99"] {
                if status[name].is_null() {
                    status[name] = self.tally.status[name].take();
                }
            }
            self.tally.status = status;
        }
        for (index, ack) in acks.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            self.tally.acks[*index] = Some(AckMetadata::clone(ack));
        }
        self.tally.seconds += started.elapsed().as_secs_f64();
        outcome
    }
}

/// Adds the `__op` column where not every row has the topic's usual operation.
fn with_ops(
    rows: arrow::record_batch::RecordBatch,
    happenings: &[&Happening],
) -> Result<arrow::record_batch::RecordBatch> {
    use arrow::array::StringArray;
    use arrow::datatypes::{DataType, Field, Schema};
    let mut fields = rows.schema().fields().to_vec();
    fields.push(Arc::new(Field::new("__op", DataType::Utf8, false)));
    let mut columns = rows.columns().to_vec();
    let ops = happenings.iter().map(|happening| crate::backend::topic::op_name(op_of(happening)));
    columns.push(Arc::new(StringArray::from_iter_values(ops)));
    Ok(arrow::record_batch::RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

type Acks = Arc<Mutex<BTreeMap<usize, AckMetadata>>>;
type Sent = Arc<Mutex<std::collections::VecDeque<(usize, usize)>>>;

/// One open stream to one topic, its acknowledgements read by a task.
struct TopicStream {
    schema: arrow::datatypes::SchemaRef,
    sender: BatchSender,
    sent: Sent,
    receiving: tokio::task::JoinHandle<Result<()>>,
}

impl TopicStream {
    async fn open(
        client: &Client,
        topic: usize,
        permits: &Arc<Semaphore>,
        acks: &Acks,
        bar: &ProgressBar,
    ) -> Result<Self> {
        let schema = client.columns(&["topics", TOPICS[topic]]).await?;
        let empty = with_ops(batch(&schema, &[])?, &[])?;
        let stream = client.producer(TOPICS[topic], &empty.schema()).await?;
        let (sender, receiver) = stream.split();
        let sent = Sent::default();
        let receiving = tokio::spawn(receive(
            receiver,
            Arc::clone(&sent),
            Arc::clone(permits),
            Arc::clone(acks),
            bar.clone(),
        ));
        Ok(Self { schema, sender, sent, receiving })
    }

    fn is_over(&self) -> bool {
        self.receiving.is_finished()
    }

    async fn close(self) -> Result<()> {
        drop(self.sender);
        self.receiving.await?
    }
}

async fn receive(
    mut receiver: AckReceiver,
    sent: Sent,
    permits: Arc<Semaphore>,
    acks: Acks,
    bar: ProgressBar,
) -> Result<()> {
    let outcome = loop {
        let ack = match receiver.receive().await {
            Ok(Some(ack)) => ack,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error.into()),
        };
        if let Some(error) = &ack.error {
            break Err(anyhow::anyhow!("a batch was refused: {}", error["message"]));
        }
        let next = sent.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((index, rows)) = next else { break Err(anyhow::anyhow!("an answer too many")) };
        acks.lock().unwrap_or_else(PoisonError::into_inner).insert(index, ack);
        bar.inc(rows as u64);
        permits.add_permits(1);
    };
    // Whoever waits for a permit must not wait for a stream that is over.
    permits.add_permits(IN_FLIGHT);
    outcome
}

/// Shows epochs, freshness and lookup latency beside the bar while streaming.
struct Monitor {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Option<Json>>,
}

impl Monitor {
    fn start(client: Client, bar: ProgressBar, lookups: Arc<Mutex<Histogram<u64>>>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut last = None;
            while !stopped.load(Ordering::Relaxed) {
                if let Ok(text) = client.action("status").await {
                    last = serde_json::from_str::<Json>(&text).ok().or(last);
                }
                if let Some(status) = &last {
                    bar.set_message(message(status, &lookups));
                }
                tokio::time::sleep(Duration::from_millis(400)).await;
            }
            match client.action("status").await {
                Ok(text) => serde_json::from_str(&text).ok().or(last),
                Err(_) => last,
            }
        });
        Self { stop, task }
    }

    async fn stop(self) -> Option<Json> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.ok().flatten()
    }
}

fn message(status: &Json, lookups: &Mutex<Histogram<u64>>) -> String {
    let lookups = lookups.lock().unwrap_or_else(PoisonError::into_inner);
    let fresh = |name: &str| duration(status[name].as_u64().unwrap_or_default());
    format!(
        "{} epochs · fresh {}/{} · lookup {}/{}",
        count(status["epochs"].as_u64().unwrap_or_default()),
        fresh("freshness_us_p50"),
        fresh("freshness_us_p99"),
        duration(lookups.value_at_quantile(0.5)),
        duration(lookups.value_at_quantile(0.99)),
    )
}
