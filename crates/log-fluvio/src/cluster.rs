//! One connection to a cluster, made when it is needed and made anew when it is bad.
//!
//! The client library keeps broken connections in its pools; so whoever meets an error gives the whole
//! connection up ([`Cluster::forget`]) and the next one makes a new one. Writers, readers and the
//! follower have one each, and do not disturb each other.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fluvio::config::{TlsPaths, TlsPolicy};
use fluvio::consumer::{ConsumerConfigExtBuilder, Record, RetryMode};
use fluvio::dataplane::link::ErrorCode;
use fluvio::metadata::spu::SpuSpec;
use fluvio::{Fluvio, FluvioClusterConfig, Isolation, Offset};
use futures::Stream;
use tokio::time::timeout;

use crate::error::ClusterError;
use crate::options::{Options, Tls};

/// The most that one attempt at something may take.
pub(crate) const ATTEMPT: Duration = Duration::from_secs(10);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// What one answer of an SPU may hold: as much as it takes as one record, or a large block would never
/// arrive.
const FETCH_BYTES: i32 = 32 << 20;

/// Records of one partition, in order.
pub(crate) type Records = Pin<Box<dyn Stream<Item = Result<Record, ErrorCode>> + Send>>;

/// Which records, and until when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Offset of the first one.
    pub(crate) from: u64,
    /// Only what all in-sync replicas have.
    pub(crate) committed: bool,
    /// Go on with records that come later.
    pub(crate) continuous: bool,
}

/// Waits longer each time.
pub(crate) struct Backoff {
    pause: Duration,
    deadline: Instant,
}

impl Backoff {
    pub(crate) fn until(deadline: Instant) -> Self {
        Self { pause: PAUSE, deadline }
    }

    /// Waits; `false` when the deadline has come.
    pub(crate) async fn wait(&mut self) -> bool {
        let left = self.deadline.saturating_duration_since(Instant::now());
        tokio::time::sleep(self.pause.min(left)).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Instant::now() < self.deadline
    }

    /// What the next attempt may take.
    pub(crate) fn attempt(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()).min(ATTEMPT)
    }
}

/// A connection to a cluster.
pub(crate) struct Cluster {
    pub(crate) options: Arc<Options>,
    client: tokio::sync::Mutex<Option<Arc<Fluvio>>>,
    spus: Mutex<String>,
}

impl Cluster {
    pub(crate) fn new(options: Arc<Options>) -> Self {
        Self { options, client: tokio::sync::Mutex::new(None), spus: Mutex::default() }
    }

    /// The connection.
    ///
    /// # Errors
    /// What the attempt to connect said.
    pub(crate) async fn client(&self) -> Result<Arc<Fluvio>, String> {
        let mut client = self.client.lock().await;
        if let Some(client) = &*client {
            return Ok(Arc::clone(client));
        }
        let config = self.config();
        let connecting = timeout(ATTEMPT, Fluvio::connect_with_config(&config));
        let connected = match connecting.await {
            Ok(Ok(connected)) => Arc::new(connected),
            Ok(Err(error)) => return Err(format!("connecting: {error:#}")),
            Err(_) => return Err(format!("connecting took more than {} s", ATTEMPT.as_secs())),
        };
        if let Ok(Ok(spus)) = timeout(ATTEMPT, spus(&connected)).await {
            *self.spus.lock().unwrap_or_else(PoisonError::into_inner) = spus;
        }
        *client = Some(Arc::clone(&connected));
        Ok(connected)
    }

    /// Gives a connection up, unless that was done already.
    pub(crate) async fn forget(&self, bad: &Arc<Fluvio>) {
        let mut client = self.client.lock().await;
        if client.as_ref().is_some_and(|client| Arc::ptr_eq(client, bad)) {
            *client = None;
        }
    }

    fn config(&self) -> FluvioClusterConfig {
        let config = FluvioClusterConfig::new(&self.options.controller);
        match &self.options.tls {
            Tls::Off => config,
            Tls::Files { domain, ca, certificate, key } => {
                config.with_tls(TlsPolicy::from(TlsPaths {
                    domain: domain.clone(),
                    key: key.clone(),
                    cert: certificate.clone(),
                    ca_cert: ca.clone(),
                }))
            }
        }
    }

    /// The SPUs that the controller knew when the connection was made.
    pub(crate) fn spus(&self) -> String {
        let spus = self.spus.lock().unwrap_or_else(PoisonError::into_inner);
        if spus.is_empty() { "none that the controller knows".into() } else { spus.clone() }
    }

    /// The controller did not answer.
    pub(crate) fn no_controller(&self, last: String) -> ClusterError {
        let options = &self.options;
        ClusterError::Controller {
            address: options.controller.clone(),
            waited: options.patience,
            last,
        }
    }

    /// A partition did not answer.
    pub(crate) fn no_spu(&self, topic: &str, partition: u32, last: String) -> ClusterError {
        ClusterError::Spu {
            topic: topic.to_owned(),
            partition,
            address: self.options.controller.clone(),
            spus: self.spus(),
            waited: self.options.patience,
            last,
        }
    }
}

async fn spus(client: &Fluvio) -> Result<String, String> {
    let all = client.admin().await.all::<SpuSpec>().await.map_err(|error| format!("{error:#}"))?;
    let named = all.iter().map(|spu| format!("{} at {}", spu.spec.id, spu.spec.public_endpoint));
    Ok(named.collect::<Vec<_>>().join(", "))
}

/// Opens a stream of a partition's records.
///
/// # Errors
/// What the attempt said.
pub(crate) async fn records(
    client: &Fluvio,
    topic: &str,
    partition: u32,
    span: Span,
) -> Result<Records, String> {
    let said = |error: &dyn std::fmt::Display| format!("reading: {error:#}");
    let from = i64::try_from(span.from).unwrap_or(i64::MAX);
    let isolation =
        if span.committed { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
    let mut config = ConsumerConfigExtBuilder::default();
    config
        .topic(topic)
        .partition(partition)
        .offset_start(Offset::absolute(from).map_err(|error| said(&error))?)
        .isolation(isolation)
        .disable_continuous(!span.continuous)
        .max_bytes(FETCH_BYTES)
        .retry_mode(RetryMode::Disabled);
    let config = config.build().map_err(|error| said(&error))?;
    match timeout(ATTEMPT, client.consumer_with_config(config)).await {
        Ok(Ok(stream)) => Ok(Box::pin(stream)),
        Ok(Err(error)) => Err(said(&error)),
        Err(_) => Err("reading: no answer".into()),
    }
}
