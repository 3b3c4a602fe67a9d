//! Reads single records of any partition, remembering what it read and what came beside it.
//!
//! Whoever reads a log goes forward; so each partition has one open stream, from which records are taken
//! until the wanted one comes. A jump opens a new stream.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use falaj_event::TopicId;
use falaj_log::LogError;
use fluvio::dataplane::link::ErrorCode;
use futures::StreamExt;
use tokio::time::timeout;

use crate::cluster::{Backoff, Cluster, Records, Span, records};
use crate::error::damaged;

/// A stream is read on rather than opened anew when the wanted record is at most this far ahead.
const SKIP_AT_MOST: u64 = 256;
/// An SPU keeps a task for each stream that was opened on a connection, until that connection ends.
const STREAMS_PER_CONNECTION: u32 = 64;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub(crate) topic: TopicId,
    pub(crate) partition: u32,
    pub(crate) offset: u64,
}

/// A record.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) key: Arc<[u8]>,
    pub(crate) value: Arc<[u8]>,
}

#[derive(Default)]
struct Cache {
    stored: HashMap<Address, Stored>,
    order: VecDeque<Address>,
    bytes: usize,
}

impl Cache {
    fn insert(&mut self, address: Address, stored: Stored, limit: usize) {
        self.bytes += stored.value.len() + stored.key.len();
        if let Some(old) = self.stored.insert(address, stored) {
            self.bytes -= old.value.len() + old.key.len();
        } else {
            self.order.push_back(address);
        }
        while self.bytes > limit
            && let Some(oldest) = self.order.pop_front()
        {
            if let Some(old) = self.stored.remove(&oldest) {
                self.bytes -= old.value.len() + old.key.len();
            }
        }
    }
}

#[derive(Default)]
struct Cursor {
    stream: Option<Records>,
    next: u64,
}

type Cursors = HashMap<(TopicId, u32), Arc<tokio::sync::Mutex<Cursor>>>;

/// Reads records.
pub(crate) struct Blocks {
    cluster: Cluster,
    cursors: Mutex<Cursors>,
    cache: Mutex<Cache>,
    opened: AtomicU32,
}

impl Blocks {
    pub(crate) fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            cursors: Mutex::default(),
            cache: Mutex::default(),
            opened: AtomicU32::new(0),
        }
    }

    /// What is in memory.
    pub(crate) fn cached(&self, address: Address) -> Option<Stored> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).stored.get(&address).cloned()
    }

    /// Keeps a record in memory.
    pub(crate) fn keep(&self, address: Address, stored: Stored) {
        let limit = self.cluster.options.cache_bytes;
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.insert(address, stored, limit);
    }

    /// The record at `address` of the Fluvio topic `name`.
    ///
    /// # Errors
    /// When the partition does not answer before `deadline`, or no longer has the record.
    pub(crate) async fn read(
        &self,
        name: &str,
        address: Address,
        deadline: Instant,
    ) -> Result<Stored, LogError> {
        let cursor = {
            let mut cursors = self.cursors.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(cursors.entry((address.topic, address.partition)).or_default())
        };
        let mut cursor = cursor.lock().await;
        let mut backoff = Backoff::until(deadline);
        loop {
            if let Some(stored) = self.cached(address) {
                return Ok(stored);
            }
            let why = match self.attempt(&mut cursor, name, address, &backoff).await {
                Ok(stored) => return Ok(stored),
                Err(Trouble::Gone(error)) => return Err(error),
                Err(Trouble::Transient(why)) => why,
            };
            cursor.stream = None;
            if !backoff.wait().await {
                let error = self.cluster.no_spu(name, address.partition, why);
                return Err(error.while_doing("reading a record"));
            }
        }
    }

    async fn attempt(
        &self,
        cursor: &mut Cursor,
        name: &str,
        address: Address,
        backoff: &Backoff,
    ) -> Result<Stored, Trouble> {
        let ahead = address.offset.checked_sub(cursor.next);
        if cursor.stream.is_none() || ahead.is_none_or(|ahead| ahead > SKIP_AT_MOST) {
            cursor.stream = Some(self.open(name, address).await?);
            cursor.next = address.offset;
        }
        let Some(stream) = cursor.stream.as_mut() else {
            return Err(Trouble::Transient("no stream".into()));
        };
        loop {
            let record = match timeout(backoff.attempt(), stream.next()).await {
                Ok(Some(Ok(record))) => record,
                Ok(Some(Err(code))) => return Err(trouble(name, address, &code)),
                Ok(None) => return Err(Trouble::Transient("the stream ended".into())),
                Err(_) => return Err(Trouble::Transient("no answer".into())),
            };
            let at = u64::try_from(record.offset).unwrap_or(u64::MAX);
            let stored = Stored {
                key: record.key().unwrap_or_default().into(),
                value: record.value().into(),
            };
            cursor.next = at.saturating_add(1);
            self.keep(Address { offset: at, ..address }, stored.clone());
            if at == address.offset {
                return Ok(stored);
            }
            if at > address.offset {
                let why = format!("the next record that is there has offset {at}");
                return Err(Trouble::Gone(gone(name, address, &why)));
            }
        }
    }

    async fn open(&self, name: &str, address: Address) -> Result<Records, Trouble> {
        let client = self.cluster.client().await.map_err(Trouble::Transient)?;
        if self.opened.fetch_add(1, Ordering::Relaxed) % STREAMS_PER_CONNECTION
            == STREAMS_PER_CONNECTION - 1
        {
            self.cluster.forget(&client).await;
        }
        // An epoch record names it, so that it is committed whatever the partition's mark says.
        let span = Span { from: address.offset, committed: false, continuous: true };
        match records(&client, name, address.partition, span).await {
            Ok(stream) => Ok(stream),
            Err(why) => {
                self.cluster.forget(&client).await;
                Err(Trouble::Transient(why))
            }
        }
    }
}

/// Why an attempt failed.
enum Trouble {
    /// Another attempt may succeed.
    Transient(String),
    /// None will.
    Gone(LogError),
}

fn gone(name: &str, address: Address, why: &str) -> LogError {
    let Address { partition, offset, .. } = address;
    damaged(format!("offset {offset} of partition {partition} of the Fluvio topic {name}"), why)
}

/// An SPU says the second of these in words only.
fn trouble(name: &str, address: Address, code: &ErrorCode) -> Trouble {
    match code {
        ErrorCode::OffsetEvicted { next_available, .. } => {
            let why = format!(
                "the cluster has deleted everything before offset {next_available}: its retention \
                 is shorter than what is still needed"
            );
            Trouble::Gone(gone(name, address, &why))
        }
        ErrorCode::OffsetOutOfRange => {
            Trouble::Gone(gone(name, address, "the partition ends before it"))
        }
        ErrorCode::Other(text) if text.contains("is greater than leo") => {
            Trouble::Gone(gone(name, address, &format!("the partition ends before it: {text}")))
        }
        other => Trouble::Transient(other.to_string()),
    }
}
