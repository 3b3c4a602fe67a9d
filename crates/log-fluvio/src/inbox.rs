//! Reads an inbox: records that any Fluvio producer wrote, in order, from a given offset on.
//!
//! It does not know what they mean, nor how far they were taken: whoever takes them says where to begin.

use std::sync::Arc;
use std::time::{Duration, Instant};

use falaj_log::LogError;
use fluvio::dataplane::link::ErrorCode;
use futures::StreamExt;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::cluster::{Cluster, Records, Span, records};
use crate::log::FluvioLog;
use crate::names::inbox_name;

/// Records that are there already come within this time.
const TOGETHER: Duration = Duration::from_millis(2);

/// A record of an inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxRecord {
    /// Its offset.
    pub offset: u64,
    /// What its producer wrote.
    pub value: Vec<u8>,
}

struct Reading {
    stream: Option<Records>,
    next: u64,
}

/// One partition of an inbox.
pub struct Inbox {
    log: Arc<FluvioLog>,
    cluster: Arc<Cluster>,
    name: Arc<str>,
    partition: u32,
    reading: Arc<Mutex<Reading>>,
}

impl Inbox {
    /// Begins at `from`; where the cluster has deleted that record, at the first one that is there.
    pub fn open(log: &Arc<FluvioLog>, topic: &str, partition: u32, from: u64) -> Self {
        let options = log.shared_options();
        Self {
            name: inbox_name(&options.deployment, topic).into(),
            cluster: Arc::new(Cluster::new(options)),
            log: Arc::clone(log),
            partition,
            reading: Arc::new(Mutex::new(Reading { stream: None, next: from })),
        }
    }

    /// The Fluvio topic.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits for records: at most `limit`, none after `wait`. A cluster that does not answer has none.
    ///
    /// # Errors
    /// When the log is closing.
    pub fn next(&self, limit: usize, wait: Duration) -> Result<Vec<InboxRecord>, LogError> {
        let (cluster, name) = (Arc::clone(&self.cluster), Arc::clone(&self.name));
        let (reading, partition) = (Arc::clone(&self.reading), self.partition);
        self.log.run(async move {
            let mut reading = reading.lock().await;
            let began = Instant::now();
            let taken = take(&cluster, &name, partition, &mut reading, (limit, wait)).await;
            if taken.is_empty() {
                // A cluster that fails at once must not be asked without a pause.
                tokio::time::sleep(wait.saturating_sub(began.elapsed())).await;
            }
            Ok(taken)
        })
    }
}

async fn take(
    cluster: &Cluster,
    name: &str,
    partition: u32,
    reading: &mut Reading,
    (limit, wait): (usize, Duration),
) -> Vec<InboxRecord> {
    let mut taken = Vec::new();
    if reading.stream.is_none() {
        let Ok(client) = cluster.client().await else { return taken };
        let span = Span { from: reading.next, committed: true, continuous: true };
        match records(&client, name, partition, span).await {
            Ok(stream) => reading.stream = Some(stream),
            Err(_) => {
                cluster.forget(&client).await;
                return taken;
            }
        }
    }
    let Some(stream) = reading.stream.as_mut() else { return taken };
    while taken.len() < limit {
        let wait = if taken.is_empty() { wait } else { TOGETHER };
        match timeout(wait, stream.next()).await {
            Ok(Some(Ok(record))) => {
                let offset = u64::try_from(record.offset).unwrap_or(u64::MAX);
                reading.next = offset.saturating_add(1);
                taken.push(InboxRecord { offset, value: record.value().to_vec() });
            }
            Ok(Some(Err(ErrorCode::OffsetEvicted { next_available, .. }))) => {
                reading.next = u64::try_from(next_available).unwrap_or(reading.next);
                reading.stream = None;
                return taken;
            }
            Ok(_) => {
                reading.stream = None;
                if let Ok(client) = cluster.client().await {
                    cluster.forget(&client).await;
                }
                return taken;
            }
            Err(_) => return taken,
        }
    }
    taken
}
