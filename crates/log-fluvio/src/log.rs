//! [`FluvioLog`]: a handle that puts writer, follower and reader of records together.
//!
//! The contract's operations block; the cluster is spoken to on threads of the handle's own.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Instant;

use falaj_event::TopicId;
use falaj_log::{BlockId, EpochEntry, Log, LogError};
use tokio::runtime::Runtime;

use crate::blocks::{Address, Blocks, Stored};
use crate::cluster::Cluster;
use crate::error::{ClusterError, damaged};
use crate::follower::{self, View};
use crate::memory::{Memory, Remembered};
use crate::names::{check_deployment, epochs_name, log_name};
use crate::options::Options;
use crate::topics;
use crate::wire;
use crate::writer::{Outgoing, Writer};

mod contract;

/// How often a claim is tried against others who claim at the same moment.
const CLAIMS: u32 = 16;

/// A block that is on the cluster and that no entry names yet.
struct Staged {
    place: u64,
    bytes: Arc<[u8]>,
}

/// The one writer's side.
#[derive(Default)]
struct Writing {
    staged: HashMap<(TopicId, u32, BlockId), Staged>,
    /// An earlier commit failed: its outcome is unknown.
    failed: bool,
}

struct Topic {
    name: Arc<str>,
    partitions: u32,
}

/// The log on a Fluvio cluster. Every method may be called from any thread, also from one that runs
/// asynchronous tasks, which it blocks.
pub struct FluvioLog {
    options: Arc<Options>,
    topics: HashMap<TopicId, Topic>,
    epochs: Arc<str>,
    view: Arc<View>,
    writer: Arc<Writer>,
    blocks: Arc<Blocks>,
    writing: Mutex<Writing>,
    memory: Option<Memory>,
    /// The term that this handle claimed; 0: none.
    claimed: AtomicU64,
    runtime: Option<Runtime>,
}

impl FluvioLog {
    /// Opens the log, making the topics that are missing, and reads its epochs. Does not yet fence
    /// anybody off: see [`Self::take_over`].
    ///
    /// # Errors
    /// [`LogError::Storage`] with a [`ClusterError`] that names the part and its address;
    /// [`LogError::Truncated`] or [`LogError::Damaged`] when the cluster lost what was acknowledged.
    pub fn open(options: Options) -> Result<Self, LogError> {
        let doing = "opening the log";
        let options = Arc::new(options);
        check_deployment(&options.deployment).map_err(|why| {
            ClusterError::Deployment { name: options.deployment.clone(), why }.while_doing(doing)
        })?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("falaj-fluvio")
            .enable_all()
            .build()
            .map_err(|source| {
                let what = "starting threads for the cluster".into();
                ClusterError::Local { what, source }.while_doing(doing)
            })?;
        let (memory, remembered) = match &options.remember_in {
            Some(path) => {
                let (memory, remembered) = Memory::open(path)?;
                (Some(memory), remembered)
            }
            None => (None, None),
        };
        let deployment = &options.deployment;
        let named = options.topics.iter().map(|topic| {
            let name = log_name(deployment, &topic.name).into();
            (TopicId::of(&topic.name), Topic { name, partitions: topic.partitions.max(1) })
        });
        let topics = named.collect();
        let epochs: Arc<str> = epochs_name(deployment).into();
        let log = Self {
            topics,
            view: Arc::new(View::new(epochs.to_string())),
            writer: Arc::new(Writer::new(Cluster::new(Arc::clone(&options)))),
            blocks: Arc::new(Blocks::new(Cluster::new(Arc::clone(&options)))),
            writing: Mutex::default(),
            memory,
            claimed: AtomicU64::new(0),
            runtime: Some(runtime),
            epochs,
            options,
        };
        log.start(remembered)?;
        Ok(log)
    }

    fn start(&self, remembered: Option<Remembered>) -> Result<(), LogError> {
        let cluster = Arc::new(Cluster::new(Arc::clone(&self.options)));
        let (deadline, view) = (self.deadline(), Arc::clone(&self.view));
        let at_open = Arc::clone(&cluster);
        self.run(async move {
            let made = topics::ensure(&at_open, deadline).await;
            made.map_err(|error| error.while_doing("making the topics"))?;
            follower::catch_up(&at_open, &view, deadline).await?;
            let ends = view.state().fold.tail().map(|tail| tail.record.epoch);
            if remembered.is_some_and(|remembered| ends < Some(remembered.epoch)) {
                follower::peek(&at_open, &view).await?;
            }
            Ok(())
        })?;
        if let Some(remembered) = remembered {
            self.check_remembered(remembered)?;
        }
        if let Some(runtime) = &self.runtime {
            runtime.spawn(follower::follow(cluster, Arc::clone(&self.view)));
        }
        Ok(())
    }

    fn check_remembered(&self, remembered: Remembered) -> Result<(), LogError> {
        let Remembered { epoch, t, hash } = remembered;
        match self.entry(epoch)? {
            Some(entry) if entry.record.hash() == hash => Ok(()),
            Some(_) => Err(damaged(
                format!("epoch {epoch} of the deployment {}", self.options.deployment),
                "it is not the one that was acknowledged on this machine; this is another log",
            )),
            None => {
                let found = self.tail().map(|tail| tail.record.epoch);
                Err(LogError::Truncated { found, acknowledged: epoch, t })
            }
        }
    }

    /// Takes the log over: entries of every earlier term count no more once this returns.
    ///
    /// Returns the term for [`falaj_log::Options::term`]. A process calls this once, before it reads the
    /// tail that it continues.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub fn take_over(&self) -> Result<u64, LogError> {
        let doing = "taking the log over";
        let claimant = claimant();
        for _ in 0..CLAIMS {
            let term = self.view.state().fold.term() + 1;
            let who = format!("process {} claims term {term}", std::process::id());
            let key = wire::claim_key(term, claimant);
            let at = self.send_epochs(key, who.as_bytes().into(), doing)?;
            self.folded_beyond(at, doing)?;
            if self.view.state().claim == Some((term, claimant)) {
                self.claimed.store(term, Ordering::SeqCst);
                return Ok(term);
            }
        }
        let last = "others claim it all the time; stop the other sequencers".to_owned();
        let cluster = Cluster::new(Arc::clone(&self.options));
        Err(cluster.no_spu(&self.epochs, 0, last).while_doing(doing))
    }

    /// The highest term that was claimed or used.
    pub fn term(&self) -> u64 {
        self.view.state().fold.term()
    }

    /// How many entries and claims on the cluster did not count: those of fenced sequencers, and
    /// repetitions after lost answers.
    pub fn ignored(&self) -> u64 {
        self.view.state().fold.ignored()
    }

    /// The options that it was opened with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn shared_options(&self) -> Arc<Options> {
        Arc::clone(&self.options)
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.options.patience
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on the handle's threads and waits for it.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, LogError>> + Send + 'static,
    ) -> Result<T, LogError> {
        let closing = || {
            let address = self.options.controller.clone();
            ClusterError::Closing { address }.while_doing("speaking to the cluster")
        };
        let (send, receive) = mpsc::sync_channel(1);
        self.runtime.as_ref().ok_or_else(closing)?.spawn(async move {
            // The receiver waits until this is sent.
            let _ = send.send(work.await);
        });
        receive.recv().unwrap_or_else(|_| Err(closing()))
    }

    fn send(&self, records: Vec<Outgoing>, doing: &'static str) -> Result<Vec<u64>, LogError> {
        let (writer, deadline) = (Arc::clone(&self.writer), self.deadline());
        self.run(async move {
            writer.send(&records, deadline).await.map_err(|error| error.while_doing(doing))
        })
    }

    /// Appends a record to the epochs topic; its offset.
    fn send_epochs(
        &self,
        key: Vec<u8>,
        value: Arc<[u8]>,
        doing: &'static str,
    ) -> Result<u64, LogError> {
        let (topic, kept) = (Arc::clone(&self.epochs), (key.clone(), Arc::clone(&value)));
        let offsets = self.send(vec![Outgoing { topic, partition: 0, key, value }], doing)?;
        let at = offsets.first().copied().unwrap_or_default();
        if self.view.state().fold.next() == at {
            // Everything before it was folded, so that it need not come back first.
            self.view.fold(at, &kept.0, &kept.1)?;
        }
        Ok(at)
    }

    /// Waits until the record at `offset` of the epochs topic was folded.
    fn folded_beyond(&self, offset: u64, doing: &'static str) -> Result<(), LogError> {
        let folded = self.view.wait_for(Some(self.deadline()), |state| {
            let broken = state.broken.clone().map(Err);
            broken.or_else(|| (state.fold.next() > offset).then_some(Ok(())))
        });
        match folded {
            Some(Ok(())) => Ok(()),
            Some(Err(why)) => Err(self.broken(&why)),
            None => {
                let cluster = Cluster::new(Arc::clone(&self.options));
                let last = format!("the record at offset {offset} did not come back");
                Err(cluster.no_spu(&self.epochs, 0, last).while_doing(doing))
            }
        }
    }

    fn broken(&self, why: &str) -> LogError {
        damaged(format!("the log at {}", self.options.controller), why)
    }

    fn topic(&self, topic: TopicId) -> Result<&Topic, LogError> {
        self.topics.get(&topic).ok_or_else(|| {
            let (topic, address) = (format!("{topic:?}"), self.options.controller.clone());
            ClusterError::Undeclared { topic, address }.while_doing("finding a topic")
        })
    }

    fn read(&self, name: &Arc<str>, address: Address) -> Result<Stored, LogError> {
        if let Some(stored) = self.blocks.cached(address) {
            return Ok(stored);
        }
        let (name, blocks) = (Arc::clone(name), Arc::clone(&self.blocks));
        let deadline = self.deadline();
        self.run(async move { blocks.read(&name, address, deadline).await })
    }

    /// The offsets of the blocks that an entry names.
    fn places(&self, writing: &Writing, entry: &EpochEntry) -> Result<Vec<u64>, LogError> {
        let mut places = Vec::new();
        for part in &entry.partitions {
            for block in &part.blocks {
                let (topic, partition) = (part.topic, part.partition);
                match writing.staged.get(&(topic, partition, *block)) {
                    Some(staged) => places.push(staged.place),
                    None => return Err(LogError::MissingBlock { topic, partition, block: *block }),
                }
            }
        }
        Ok(places)
    }

    /// What became of an entry whose record was folded.
    fn outcome(&self, entry: &EpochEntry) -> Result<(), LogError> {
        let same = self.entry(entry.record.epoch)?.is_some_and(|counted| *counted == *entry);
        if same {
            return Ok(());
        }
        let state = self.view.state();
        match state.fold.check(entry) {
            Err(refusal) => Err(refusal),
            Ok(()) => {
                let place = format!("epoch {} at {}", entry.record.epoch, self.options.controller);
                Err(damaged(place, "it was appended, but did not count"))
            }
        }
    }

    /// Keeps in memory what readers will ask for next.
    fn unstage(&self, writing: &mut Writing, entry: &EpochEntry) {
        for part in &entry.partitions {
            for block in &part.blocks {
                let key = (part.topic, part.partition, *block);
                let Some(Staged { place, bytes }) = writing.staged.remove(&key) else { continue };
                let address =
                    Address { topic: part.topic, partition: part.partition, offset: place };
                let key = wire::block_key(part.partition, *block).as_slice().into();
                self.blocks.keep(address, Stored { key, value: bytes });
            }
        }
    }
}

impl Drop for FluvioLog {
    fn drop(&mut self) {
        self.view.close();
        if let Some(runtime) = self.runtime.take() {
            // Nobody waits for what is under way.
            runtime.shutdown_background();
        }
    }
}

/// Different for each process and call; not secret.
fn claimant() -> [u8; 16] {
    let mut claimant = [0; 16];
    for half in claimant.chunks_exact_mut(8) {
        half.copy_from_slice(&RandomState::new().build_hasher().finish().to_be_bytes());
    }
    claimant
}
