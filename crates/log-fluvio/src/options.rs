//! How to reach a cluster and what to keep on it. Words only.

use std::path::PathBuf;
use std::time::Duration;

/// How the connection to the cluster is protected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// Not at all: for a cluster on this machine.
    #[default]
    Off,
    /// Both sides show certificates (PEM files).
    Files {
        /// The name in the cluster's certificate.
        domain: String,
        /// Certificate authority of the cluster.
        ca: PathBuf,
        /// This client's certificate.
        certificate: PathBuf,
        /// This client's private key.
        key: PathBuf,
    },
}

/// A topic as it shall be on the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDeclaration {
    /// Its name in Falaj.
    pub name: String,
    /// Number of partitions.
    pub partitions: u32,
    /// How long blocks are kept, in seconds; `None` is for ever.
    pub retention_s: Option<u32>,
    /// Whether it has an inbox for JSON events.
    pub inbox: bool,
}

impl TopicDeclaration {
    /// A topic that is kept for ever and has no inbox.
    pub fn new(name: impl Into<String>, partitions: u32) -> Self {
        Self { name: name.into(), partitions, retention_s: None, inbox: false }
    }
}

/// How to reach a cluster and what to keep on it.
#[derive(Clone, Debug)]
pub struct Options {
    /// `HOST:PORT` of the controller's public address.
    pub controller: String,
    /// Protection of connections.
    pub tls: Tls,
    /// Name of the deployment: lower-case letters, digits and `-`, at most 20 characters. Two
    /// deployments on one cluster do not see each other.
    pub deployment: String,
    /// Replicas of each partition that is made.
    pub replication: u32,
    /// The topics; those that are missing on the cluster are made.
    pub topics: Vec<TopicDeclaration>,
    /// How long an operation waits for the cluster before it fails.
    pub patience: Duration,
    /// How many bytes of blocks are kept in memory.
    pub cache_bytes: usize,
    /// A file that remembers the newest acknowledged epoch, so that a cluster that lost it is
    /// recognised by later handles too.
    pub remember_in: Option<PathBuf>,
}

impl Options {
    /// One replica, no TLS, 30 seconds of patience, 64 MiB of cache.
    pub fn new(
        controller: impl Into<String>,
        deployment: impl Into<String>,
        topics: Vec<TopicDeclaration>,
    ) -> Self {
        Self {
            controller: controller.into(),
            tls: Tls::Off,
            deployment: deployment.into(),
            replication: 1,
            topics,
            patience: Duration::from_secs(30),
            cache_bytes: 64 << 20,
            remember_in: None,
        }
    }
}
