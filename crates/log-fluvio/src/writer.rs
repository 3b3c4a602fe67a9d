//! Appends records and learns their offsets, over as many attempts as the patience allows.
//!
//! A record may be written more than once when an answer is lost; by the meaning of the records (see the
//! crate's documentation) only one of them has an effect.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluvio::dataplane::link::ErrorCode;
use fluvio::dataplane::record::RecordData;
use fluvio::{
    DeliverySemantic, Fluvio, Isolation, Partitioner, PartitionerConfig, ProducerError, RecordKey,
    TopicProducerConfigBuilder, TopicProducerPool,
};
use futures::future::join_all;
use tokio::time::timeout;

use crate::cluster::{Backoff, Cluster};
use crate::error::ClusterError;
use crate::wire;

/// The largest value that is sent; an SPU takes 32 MiB with what surrounds it.
const LARGEST_BYTES: usize = (32 << 20) - (64 << 10);
const REQUEST_BYTES: usize = 32 << 20;
/// A record beyond this leaves at once; smaller ones leave when the sender's task gets to run.
const BATCH_BYTES: usize = 1 << 20;
/// How long an SPU may wait for its replicas before it answers.
const REPLICAS_WAIT: Duration = Duration::from_secs(8);

/// A record on its way.
#[derive(Clone)]
pub(crate) struct Outgoing {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: u32,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Arc<[u8]>,
}

/// Takes the partition from the key, which names it.
struct ByKey;

impl Partitioner for ByKey {
    fn partition(&self, _: &PartitionerConfig, key: Option<&[u8]>, _: &[u8]) -> u32 {
        key.map_or(0, wire::partition_of_key)
    }
}

/// Why an attempt failed.
enum Failure {
    /// Another attempt may succeed.
    Transient(String),
    /// None will.
    Final(ClusterError),
}

#[derive(Default)]
struct Open {
    client: Option<Arc<Fluvio>>,
    producers: HashMap<Arc<str>, Arc<TopicProducerPool>>,
}

/// Appends records.
pub(crate) struct Writer {
    cluster: Cluster,
    open: tokio::sync::Mutex<Open>,
}

impl Writer {
    pub(crate) fn new(cluster: Cluster) -> Self {
        Self { cluster, open: tokio::sync::Mutex::default() }
    }

    /// Appends `records`, all at once, and gives their offsets in the same order.
    ///
    /// # Errors
    /// When one of them could not be appended before `deadline`; others may have been.
    pub(crate) async fn send(
        &self,
        records: &[Outgoing],
        deadline: Instant,
    ) -> Result<Vec<u64>, ClusterError> {
        if let Some(large) = records.iter().find(|of| of.value.len() > LARGEST_BYTES) {
            return Err(ClusterError::TooLarge {
                topic: large.topic.to_string(),
                bytes: large.value.len(),
                limit: LARGEST_BYTES,
            });
        }
        let mut offsets: Vec<Option<u64>> = vec![None; records.len()];
        let mut backoff = Backoff::until(deadline);
        loop {
            let open: Vec<usize> = (0..records.len()).filter(|at| offsets[*at].is_none()).collect();
            let attempts = open.iter().map(|at| self.attempt(&records[*at], backoff.attempt()));
            let outcomes = join_all(attempts).await;
            let mut last = None;
            for (at, outcome) in open.into_iter().zip(outcomes) {
                match outcome {
                    Ok(offset) => offsets[at] = Some(offset),
                    Err(Failure::Final(error)) => {
                        self.reset().await;
                        return Err(error);
                    }
                    Err(Failure::Transient(why)) => last = Some((at, why)),
                }
            }
            let Some((at, why)) = last else { return Ok(offsets.into_iter().flatten().collect()) };
            self.reset().await;
            if !backoff.wait().await {
                let Outgoing { topic, partition, .. } = &records[at];
                return Err(self.cluster.no_spu(topic, *partition, why));
            }
        }
    }

    async fn attempt(&self, record: &Outgoing, within: Duration) -> Result<u64, Failure> {
        let work = async {
            let producer = self.producer(&record.topic).await?;
            let value = RecordData::from(record.value.to_vec());
            let key = RecordKey::from(record.key.as_slice());
            let output = producer
                .send(key, value)
                .await
                .map_err(|error| self.failure(record, &error.to_string(), error.downcast_ref()))?;
            let written = output.wait().await.map_err(|error| self.said(record, &error))?;
            u64::try_from(written.offset())
                .map_err(|_| Failure::Transient(format!("the offset {}", written.offset())))
        };
        match timeout(within, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::Transient(format!("no answer in {} ms", within.as_millis()))),
        }
    }

    fn said(&self, record: &Outgoing, error: &fluvio::FluvioError) -> Failure {
        match error {
            fluvio::FluvioError::Producer(inner) => {
                self.failure(record, &error.to_string(), Some(inner))
            }
            other => Failure::Transient(other.to_string()),
        }
    }

    fn failure(&self, record: &Outgoing, text: &str, error: Option<&ProducerError>) -> Failure {
        let Outgoing { topic, partition, value, .. } = record;
        match error {
            Some(ProducerError::SpuErrorCode(
                code @ (ErrorCode::PartitionFull { .. } | ErrorCode::PartitionShortCircuited),
            )) => Failure::Final(ClusterError::Full {
                topic: topic.to_string(),
                partition: *partition,
                spus: self.cluster.spus(),
                why: code.to_string(),
            }),
            Some(
                ProducerError::RecordTooLarge(..)
                | ProducerError::SpuErrorCode(ErrorCode::MessageTooLarge),
            ) => Failure::Final(ClusterError::TooLarge {
                topic: topic.to_string(),
                bytes: value.len(),
                limit: LARGEST_BYTES,
            }),
            _ => Failure::Transient(text.to_owned()),
        }
    }

    async fn producer(&self, topic: &Arc<str>) -> Result<Arc<TopicProducerPool>, Failure> {
        let mut open = self.open.lock().await;
        if let Some(producer) = open.producers.get(topic) {
            return Ok(Arc::clone(producer));
        }
        let client = match &open.client {
            Some(client) => Arc::clone(client),
            None => self.cluster.client().await.map_err(Failure::Transient)?,
        };
        open.client = Some(Arc::clone(&client));
        let config = TopicProducerConfigBuilder::default()
            .linger(Duration::ZERO)
            .batch_size(BATCH_BYTES)
            .max_request_size(REQUEST_BYTES)
            .timeout(REPLICAS_WAIT)
            .isolation(Isolation::ReadCommitted)
            // This writer tries again itself; its attempts end in time.
            .delivery_semantic(DeliverySemantic::AtMostOnce)
            .partitioner(Arc::new(ByKey))
            .build()
            .map_err(|error| Failure::Transient(error.to_string()))?;
        let made = client.topic_producer_with_config(topic.as_ref(), config).await;
        let made = made.map_err(|error| Failure::Transient(format!("{error:#}")))?;
        let producer = Arc::new(made);
        open.producers.insert(Arc::clone(topic), Arc::clone(&producer));
        Ok(producer)
    }

    /// Makes everything anew at the next attempt.
    async fn reset(&self) {
        let mut open = self.open.lock().await;
        open.producers.clear();
        if let Some(client) = open.client.take() {
            self.cluster.forget(&client).await;
        }
    }
}
