//! What can go wrong with the cluster: the part, its address, what to do.

use std::time::Duration;

use falaj_log::LogError;

/// Why the cluster did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The controller did not answer in time.
    #[error(
        "the Fluvio controller at {address} did not answer within {} s: {last}; see that \
         `fluvio-run sc` runs there and that the address and TLS settings are right",
        waited.as_secs()
    )]
    Controller {
        /// Its address.
        address: String,
        /// How long was waited.
        waited: Duration,
        /// What the last attempt said.
        last: String,
    },
    /// An SPU did not take or give a record in time.
    #[error(
        "partition {partition} of the Fluvio topic {topic} did not answer within {} s ({last}); \
         its SPU is one of {spus}, registered with the controller at {address}: see that \
         `fluvio-run spu` runs there. What was not acknowledged may or may not have been written; \
         it takes effect at most once",
        waited.as_secs()
    )]
    Spu {
        /// The Fluvio topic.
        topic: String,
        /// Its partition.
        partition: u32,
        /// The controller's address.
        address: String,
        /// The SPUs that the controller knows, with addresses.
        spus: String,
        /// How long was waited.
        waited: Duration,
        /// What the last attempt said.
        last: String,
    },
    /// An SPU's disk is full, or an earlier full disk has closed the partition.
    #[error(
        "partition {partition} of the Fluvio topic {topic} cannot be written: {why}. Free space on \
         the disk of its SPU (one of {spus}) and restart that SPU; nothing was acknowledged"
    )]
    Full {
        /// The Fluvio topic.
        topic: String,
        /// Its partition.
        partition: u32,
        /// The SPUs that the controller knows, with addresses.
        spus: String,
        /// What the SPU said.
        why: String,
    },
    /// A record beyond what an SPU takes.
    #[error(
        "a block of {bytes} bytes for the topic {topic} is larger than Fluvio takes ({limit}): \
         append fewer rows at once"
    )]
    TooLarge {
        /// The Fluvio topic.
        topic: String,
        /// Its size.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// A topic could not be made, or is not what was declared.
    #[error("the Fluvio topic {topic} at {address}: {why}")]
    Topic {
        /// The Fluvio topic.
        topic: String,
        /// The controller's address.
        address: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// A block of a topic that was not declared when the log was opened.
    #[error(
        "topic {topic} was not declared when the log at {address} was opened: open it again with \
         the topic among its declarations"
    )]
    Undeclared {
        /// Its id.
        topic: String,
        /// The controller's address.
        address: String,
    },
    /// The deployment's name cannot begin a Fluvio topic's name.
    #[error("the deployment's name `{name}` cannot be used: {why}")]
    Deployment {
        /// The name.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// The handle was used after a commit failed.
    #[error("an earlier commit to the log at {address} failed; open it again to learn its outcome")]
    Failed {
        /// The controller's address.
        address: String,
    },
    /// The threads or files that this handle needs.
    #[error("{what}: {source}")]
    Local {
        /// What was wanted.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The handle is being closed.
    #[error("the log at {address} is closing")]
    Closing {
        /// The controller's address.
        address: String,
    },
}

impl ClusterError {
    pub(crate) fn while_doing(self, doing: &'static str) -> LogError {
        LogError::Storage { doing, source: Box::new(self) }
    }
}

/// Bytes that are not what was written.
pub(crate) fn damaged(place: impl Into<String>, why: impl Into<String>) -> LogError {
    LogError::Damaged { place: place.into(), why: why.into() }
}
