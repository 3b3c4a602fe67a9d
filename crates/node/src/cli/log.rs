//! Options that say where the log is: here, or on a cluster.
//!
//! Does not open it; see [`crate::place`].

use std::path::PathBuf;

use clap::Args;

use crate::place::{ClusterTls, LogPlace};

/// Where the log is.
#[derive(Clone, Debug, Default, Args)]
pub struct LogArgs {
    /// `embedded`, or `fluvio://HOST:PORT[/NAME]`: the controller of a Fluvio cluster and the name of
    /// the deployment there (default: falaj). Default: where the data directory has it.
    #[arg(long = "log", env = "FALAJ_LOG", value_name = "LOG")]
    pub log: Option<LogPlace>,
    /// The cluster, its certificates and replicas.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// What is said of a Fluvio cluster beside its address.
#[derive(Clone, Debug, Default, Args)]
pub struct ClusterArgs {
    /// Replicas of each partition that is made on the cluster.
    #[arg(long = "log-replicas", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub replicas: Option<u32>,
    /// The cluster's certificate authority (PEM): speak TLS to it.
    #[arg(long = "log-ca", value_name = "FILE", requires_all = ["certificate", "key"])]
    pub ca: Option<PathBuf>,
    /// This node's certificate for the cluster (PEM).
    #[arg(long = "log-certificate", id = "certificate", value_name = "FILE", requires = "ca")]
    pub certificate: Option<PathBuf>,
    /// This node's private key for the cluster (PEM).
    #[arg(long = "log-key", id = "key", value_name = "FILE", requires = "ca")]
    pub key: Option<PathBuf>,
    /// The name in the cluster's certificate; default: the controller's host.
    #[arg(long = "log-domain", value_name = "NAME", requires = "ca")]
    pub domain: Option<String>,
}

impl LogArgs {
    /// Where the log shall be; `None` when nothing is said.
    pub fn place(&self) -> Option<LogPlace> {
        self.log.clone().map(|log| self.cluster.complete(log))
    }
}

impl ClusterArgs {
    pub(super) fn complete(&self, log: LogPlace) -> LogPlace {
        let LogPlace::Fluvio(mut place) = log else { return log };
        place.replication = self.replicas.unwrap_or(place.replication);
        let host = place.controller.rsplit_once(':').map(|(host, _)| host.to_owned());
        if let (Some(ca), Some(certificate), Some(key)) = (&self.ca, &self.certificate, &self.key) {
            place.tls = Some(ClusterTls {
                domain: self.domain.clone().or(host).unwrap_or_default(),
                ca: ca.clone(),
                certificate: certificate.clone(),
                key: key.clone(),
            });
        }
        LogPlace::Fluvio(place)
    }
}
