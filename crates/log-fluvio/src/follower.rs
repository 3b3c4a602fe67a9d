//! Keeps a handle's view of the log up to date: reads the epochs topic, for ever, and folds it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use falaj_event::Hash256;
use falaj_event::hash::domain_hash;
use falaj_log::{EpochEntry, LogError};
use fluvio::Fluvio;
use fluvio::consumer::Record;
use futures::StreamExt;
use tokio::time::timeout;

use crate::cluster::{ATTEMPT, Backoff, Cluster, Span, records};
use crate::fold::{Fold, Folded};

/// How many of the newest entries are kept decoded: readers mostly follow the tail.
const RECENT_ENTRIES: usize = 1024;
/// How long an SPU may take to show what lies beyond its mark of committed records.
const PEEK: Duration = Duration::from_secs(2);

/// What a handle knows.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) fold: Fold,
    /// The newest entries, ending with the tail.
    pub(crate) recent: VecDeque<Arc<EpochEntry>>,
    /// The newest claim that counted.
    pub(crate) claim: Option<(u64, [u8; 16])>,
    /// The cluster no longer has what this handle saw, or what it has is damaged.
    pub(crate) broken: Option<Arc<str>>,
    /// Digest of the record before the next one.
    last: Option<Hash256>,
}

/// What the follower and the handle share.
pub(crate) struct View {
    state: Mutex<State>,
    grown: Condvar,
    closing: AtomicBool,
    topic: String,
}

fn digest(key: &[u8], value: &[u8]) -> Hash256 {
    domain_hash(b"falaj.fluvio.record.v1", &[key, value])
}

impl View {
    pub(crate) fn new(topic: String) -> Self {
        Self {
            state: Mutex::default(),
            grown: Condvar::new(),
            closing: AtomicBool::new(false),
            topic,
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.grown.notify_all();
    }

    /// Folds the record at `offset`, if it is the next one.
    pub(crate) fn fold(&self, offset: u64, key: &[u8], value: &[u8]) -> Result<(), LogError> {
        let mut state = self.state();
        if offset < state.fold.next() {
            return Ok(());
        }
        match state.fold.fold(&self.topic, offset, key, value)? {
            Folded::Entry(entry) => {
                if state.recent.len() == RECENT_ENTRIES {
                    state.recent.pop_front();
                }
                state.recent.push_back(entry);
            }
            Folded::Claim { term, claimant } => state.claim = Some((term, claimant)),
            Folded::Cut { .. } | Folded::Ignored(_) | Folded::Nothing => {}
        }
        state.last = Some(digest(key, value));
        self.grown.notify_all();
        Ok(())
    }

    fn fold_record(&self, record: &Record) -> Result<(), LogError> {
        let offset = u64::try_from(record.offset).unwrap_or(u64::MAX);
        self.fold(offset, record.key().unwrap_or_default(), record.value())
    }

    /// Waits until `ready` gives something or the time is over.
    pub(crate) fn wait_for<T>(
        &self,
        deadline: Option<Instant>,
        ready: impl Fn(&State) -> Option<T>,
    ) -> Option<T> {
        let mut state = self.state();
        loop {
            if let Some(found) = ready(&state) {
                return Some(found);
            }
            // A deadline beyond what the clock can say is none.
            let left = deadline.map_or(Duration::from_secs(3600), |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            if left.is_zero() || self.closing.load(Ordering::SeqCst) {
                return None;
            }
            let woken = self.grown.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn break_off(&self, why: &str) {
        self.state().broken = Some(why.into());
        self.grown.notify_all();
    }
}

/// Why following stopped.
enum Stop {
    /// A new connection may help.
    Lost(String),
    /// Nothing will.
    Broken(LogError),
}

/// Reads what is committed now.
pub(crate) async fn catch_up(
    cluster: &Cluster,
    view: &View,
    deadline: Instant,
) -> Result<(), LogError> {
    let mut backoff = Backoff::until(deadline);
    loop {
        let why = match cluster.client().await {
            Err(why) => Err(why),
            Ok(client) => match catch_up_once(&client, view).await {
                Ok(()) => return Ok(()),
                Err(Stop::Broken(error)) => return Err(error),
                Err(Stop::Lost(why)) => {
                    cluster.forget(&client).await;
                    Ok(why)
                }
            },
        };
        if !backoff.wait().await {
            let error = match why {
                Err(why) => cluster.no_controller(why),
                Ok(why) => cluster.no_spu(&view.topic, 0, why),
            };
            return Err(error.while_doing("reading the epochs"));
        }
    }
}

async fn catch_up_once(client: &Fluvio, view: &View) -> Result<(), Stop> {
    loop {
        let from = view.state().fold.next();
        let span = Span { from, committed: true, continuous: false };
        let mut stream = records(client, &view.topic, 0, span).await.map_err(Stop::Lost)?;
        loop {
            match timeout(ATTEMPT, stream.next()).await {
                Ok(Some(Ok(record))) => view.fold_record(&record).map_err(Stop::Broken)?,
                Ok(Some(Err(code))) => return Err(Stop::Lost(code.to_string())),
                Ok(None) => break,
                Err(_) => return Err(Stop::Lost("no answer".into())),
            }
        }
        // A pass may end early, never late.
        if view.state().fold.next() == from {
            return Ok(());
        }
    }
}

/// Reads on beyond what the SPU says is committed, for a short while: after a crash its mark may lie
/// behind records that were acknowledged.
pub(crate) async fn peek(cluster: &Cluster, view: &View) -> Result<(), LogError> {
    let Ok(client) = cluster.client().await else { return Ok(()) };
    let from = view.state().fold.next();
    let span = Span { from, committed: false, continuous: true };
    let Ok(mut stream) = records(&client, &view.topic, 0, span).await else { return Ok(()) };
    while let Ok(Some(Ok(record))) = timeout(PEEK, stream.next()).await {
        view.fold_record(&record)?;
    }
    Ok(())
}

/// Follows the epochs topic until the view is closed.
pub(crate) async fn follow(cluster: Arc<Cluster>, view: Arc<View>) {
    let far = Instant::now() + Duration::from_secs(u64::from(u32::MAX));
    let mut backoff = Backoff::until(far);
    while !view.closing.load(Ordering::SeqCst) {
        let before = view.state().fold.next();
        let Ok(client) = cluster.client().await else {
            backoff.wait().await;
            continue;
        };
        match follow_once(&client, &view).await {
            Stop::Broken(error) => return view.break_off(&error.to_string()),
            Stop::Lost(_) => cluster.forget(&client).await,
        }
        if view.state().fold.next() > before {
            backoff = Backoff::until(far);
        }
        backoff.wait().await;
    }
}

async fn follow_once(client: &Fluvio, view: &View) -> Stop {
    if let Err(stop) = verify(client, view).await {
        return stop;
    }
    let span = Span { from: view.state().fold.next(), committed: true, continuous: true };
    let mut stream = match records(client, &view.topic, 0, span).await {
        Ok(stream) => stream,
        Err(why) => return Stop::Lost(why),
    };
    loop {
        match stream.next().await {
            Some(Ok(record)) => {
                if let Err(error) = view.fold_record(&record) {
                    return Stop::Broken(error);
                }
            }
            Some(Err(code)) => return Stop::Lost(code.to_string()),
            None => return Stop::Lost("the stream ended".into()),
        }
    }
}

/// Whether the cluster still has the last record that was folded.
async fn verify(client: &Fluvio, view: &View) -> Result<(), Stop> {
    let (next, last, tail) = {
        let state = view.state();
        (state.fold.next(), state.last, state.fold.tail().cloned())
    };
    let (Some(before), Some(last)) = (next.checked_sub(1), last) else { return Ok(()) };
    let truncated = || {
        let record = tail.as_ref().map(|tail| &tail.record);
        Stop::Broken(LogError::Truncated {
            found: None,
            acknowledged: record.map_or(0, |record| record.epoch),
            t: record.map(|record| record.t).unwrap_or_default(),
        })
    };
    let span = Span { from: before, committed: false, continuous: true };
    let mut stream = records(client, &view.topic, 0, span).await.map_err(Stop::Lost)?;
    match timeout(ATTEMPT, stream.next()).await {
        Ok(Some(Ok(record))) => {
            let same = u64::try_from(record.offset) == Ok(before)
                && digest(record.key().unwrap_or_default(), record.value()) == last;
            if same { Ok(()) } else { Err(truncated()) }
        }
        Ok(Some(Err(code))) if code.to_string().contains("is greater than leo") => Err(truncated()),
        Ok(Some(Err(code))) => Err(Stop::Lost(code.to_string())),
        Ok(None) => Err(Stop::Lost("the stream ended".into())),
        Err(_) => Err(Stop::Lost("no answer".into())),
    }
}
