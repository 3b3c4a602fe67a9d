//! The log on a Fluvio cluster: [`falaj_log::Log`] where one machine is not enough.
//!
//! Why it exists: the contract, the blocks and the epoch record are the same bytes on every log; here
//! an append and its epoch record are two writes, and several processes may try to write. It does not
//! know what blocks hold, nor schemas, keys or views.
//!
//! # On the cluster
//! A deployment has a name, which begins the names of its Fluvio topics:
//!
//! | Fluvio topic | partitions | a record |
//! | --- | --- | --- |
//! | `NAME-epochs` | 1 | an epoch entry, a claim of a term or a cut (see [`wire`]) |
//! | `NAME-TOPIC-log` | as declared | a block (see [`wire`]) |
//! | `NAME-TOPIC-inbox` | as declared | a JSON event of any Fluvio producer, for topics that have an inbox |
//!
//! # Which entries count
//! Fluvio has no conditional append, so what the log *is* follows from reading `NAME-epochs` in order:
//! an entry counts if and only if it continues the entry that counted last (number, `T`, hash of the
//! predecessor, offsets) and its term is not below the highest term that was claimed or used before it.
//! Every reader decides alike (see [`fold`]). Hence:
//!
//! * two sequencers cannot both continue one tail: the second one's entry does not count, and it is told
//!   [`falaj_log::LogError::Fenced`] or [`falaj_log::LogError::NotTheTail`];
//! * an entry or a block may be written twice, for example after a lost answer, without effect;
//! * a block that no counting entry names is never visible.
//!
//! # What is promised
//! * **Acknowledged** means: the SPU that leads each touched partition and every replica of it have
//!   accepted the blocks, and then the epoch record (this log writes with `ReadCommitted`; an SPU of
//!   Fluvio 0.50 then waits for all replicas of the partition). Nothing is acknowledged before that.
//! * **The processes may die.** `kill -9` of the controller, of an SPU, of the sequencer or of the node
//!   loses nothing that was acknowledged and repeats nothing; operations wait for the cluster as long as
//!   [`Options::patience`] and then fail with an error that names the part and the address.
//! * **A cluster that lost acknowledged epochs is refused**, by a handle that saw them and, where
//!   [`Options::remember_in`] is set, by every later one on this machine.
//!
//! # What is not promised
//! * **No fsync.** An SPU acknowledges once its operating system has the bytes (`write(2)`); it does not
//!   call fsync before. With one SPU, or with replicas that share a power supply or a hypervisor, a power
//!   cut or a kernel crash can therefore lose the last seconds of acknowledged epochs. With N replicas on
//!   machines that fail independently, acknowledged epochs survive N - 1 such failures; the price is
//!   that appends wait while any of the N is away. Where that is not enough, use the embedded log,
//!   which fsyncs.
//! * **Blocks and records are separate files.** After such a power cut a record can survive blocks that
//!   it names; reading them is [`falaj_log::LogError::Damaged`] and names the partition and the offset.
//!   Nothing is skipped silently.
//! * **A cut hides, the cluster deletes.** Blocks below a cut can no longer be read through the log from
//!   the moment that [`falaj_log::Log::cut`] returns; the cluster deletes them when its own retention
//!   says so. Topics are made with the retention that is declared; whoever shortens it on the cluster,
//!   or deletes a topic, destroys events.
//! * **Memory.** A handle keeps an index of the whole log: about 20 bytes per epoch, 70 per block and 100
//!   per producer's run. Opening reads the epochs topic from its beginning.
//!
//! # Faults, and what is seen
//! | what happens | what is seen |
//! | --- | --- |
//! | controller dead | appends and reads go on over their connections; what needs a new connection waits, after a restart until the SPUs have found their controller again (seen: up to a minute and more) |
//! | SPU dead or paused, connection lost | appends and reads of its partitions wait, then continue |
//! | SPU's disk full | appends fail at once, naming topic and SPU; nothing is acknowledged. The SPU takes nothing more for that partition until it has room and was restarted |
//! | second sequencer | the older one's next commit is refused |

mod blocks;
mod cluster;
mod error;
pub mod fold;
mod follower;
mod inbox;
mod index;
mod log;
mod memory;
mod names;
mod options;
mod topics;
pub mod wire;
mod writer;

pub use error::ClusterError;
pub use inbox::{Inbox, InboxRecord};
pub use log::FluvioLog;
pub use names::{epochs_name, inbox_name, log_name};
pub use options::{Options, Tls, TopicDeclaration};
pub use topics::{produce, register_spu, remove};
