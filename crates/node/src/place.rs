//! Where a data directory's log is, and opening it there.
//!
//! The answer is kept in the directory (`log.json`), so that every verb finds the same log. Knows both
//! kinds of log; everything else knows the contract only.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use falaj_definitions::catalog::Catalog;
use falaj_log::Log;
use falaj_log::epoch::epochs_topic;
use falaj_log_fluvio::{FluvioLog, TopicDeclaration};
use falaj_log_rocksdb::RocksLog;
use serde::{Deserialize, Serialize};

use crate::endpoint::DataDirectory;

/// The deployment where the address names none.
pub(crate) const DEPLOYMENT: &str = "falaj";
/// How much longer than declared the cluster keeps events: it deletes by its own clock, whether or not
/// what replaces the events (a baseline) was written in time.
const RETENTION_SLACK_S: u64 = 30 * 86_400;

/// Where a log is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogPlace {
    /// In the data directory.
    #[default]
    Embedded,
    /// On a Fluvio cluster.
    Fluvio(ClusterPlace),
}

/// A log on a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPlace {
    /// `HOST:PORT` of the controller.
    pub controller: String,
    /// The deployment's name.
    pub deployment: String,
    /// Replicas of each partition that is made.
    pub replication: u32,
    /// Certificates, where the cluster wants them.
    pub tls: Option<ClusterTls>,
}

/// Files of certificates for a cluster (PEM).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterTls {
    /// The name in the cluster's certificate.
    pub domain: String,
    /// The cluster's certificate authority.
    pub ca: PathBuf,
    /// This node's certificate.
    pub certificate: PathBuf,
    /// This node's private key.
    pub key: PathBuf,
}

impl FromStr for LogPlace {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "embedded" {
            return Ok(Self::Embedded);
        }
        let wrong =
            || anyhow!("`{text}` is not a log: write `embedded` or `fluvio://HOST:PORT[/NAME]`");
        let rest = text.strip_prefix("fluvio://").ok_or_else(wrong)?;
        let (controller, deployment) = rest.split_once('/').unwrap_or((rest, DEPLOYMENT));
        let (host, port) = controller.rsplit_once(':').ok_or_else(wrong)?;
        if host.is_empty() || port.parse::<u16>().is_err() || deployment.is_empty() {
            return Err(wrong());
        }
        Ok(Self::Fluvio(ClusterPlace {
            controller: controller.to_owned(),
            deployment: deployment.to_owned(),
            replication: 1,
            tls: None,
        }))
    }
}

impl fmt::Display for LogPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("embedded"),
            Self::Fluvio(ClusterPlace { controller, deployment, .. }) => {
                write!(f, "fluvio://{controller}/{deployment}")
            }
        }
    }
}

/// An open log.
pub struct OpenLog {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The same, where it is on a cluster.
    pub cluster: Option<Arc<FluvioLog>>,
    /// The term that its sequencer must use; `None`: one above the tail's.
    pub term: Option<u64>,
}

/// Where the log of this directory is, given what the command line asks for, if anything.
///
/// # Errors
/// When the two contradict each other; says how to move a log.
pub fn resolve(data: &DataDirectory, wanted: Option<&LogPlace>) -> Result<LogPlace> {
    let stored = stored(data)?;
    let there = stored.or_else(|| data.log().exists().then_some(LogPlace::Embedded));
    match (there, wanted) {
        (None, wanted) => Ok(wanted.cloned().unwrap_or_default()),
        (Some(there), None) => Ok(there),
        (Some(LogPlace::Embedded), Some(LogPlace::Embedded)) => Ok(LogPlace::Embedded),
        // The cluster may have moved; that it is the same log is checked by what was acknowledged.
        (Some(LogPlace::Fluvio(there)), Some(LogPlace::Fluvio(wanted)))
            if there.deployment == wanted.deployment =>
        {
            Ok(LogPlace::Fluvio(wanted.clone()))
        }
        (Some(there), Some(wanted)) => bail!(
            "the log of {} is {there}, not {wanted}; `falaj migrate --to {wanted}` copies it there",
            data.0.display()
        ),
    }
}

fn stored(data: &DataDirectory) -> Result<Option<LogPlace>> {
    let path = data.log_place();
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let place = serde_json::from_slice(&text);
    place.map(Some).with_context(|| format!("{} is not whole", path.display()))
}

/// Remembers where the log of this directory is.
///
/// # Errors
/// When the file cannot be written; it is as it was then.
pub fn store(data: &DataDirectory, place: &LogPlace) -> Result<()> {
    let path = data.log_place();
    if stored(data)?.as_ref() == Some(place) {
        return Ok(());
    }
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec_pretty(place)?)
        .and_then(|()| fs::File::open(&new)?.sync_all())
        .and_then(|()| fs::rename(&new, &path))
        .with_context(|| format!("writing {}", path.display()))
}

/// Opens the log for a sequencer: a log on a cluster is taken over from whoever had it.
///
/// # Errors
/// When it does not open; names the directory or the address.
pub fn open(data: &DataDirectory, place: &LogPlace, catalog: &Catalog) -> Result<OpenLog> {
    match place {
        LogPlace::Embedded => {
            let log = Arc::new(open_embedded(data)?);
            Ok(OpenLog { log, cluster: None, term: None })
        }
        LogPlace::Fluvio(cluster) => {
            let log = open_cluster(data, cluster, catalog)?;
            let term = log.take_over().with_context(|| format!("taking over {place}"))?;
            let log = Arc::new(log);
            Ok(OpenLog { log: Arc::clone(&log) as _, cluster: Some(log), term: Some(term) })
        }
    }
}

/// Opens the log in the directory.
///
/// # Errors
/// When it does not open.
pub fn open_embedded(data: &DataDirectory) -> Result<RocksLog> {
    RocksLog::open(&data.log(), falaj_log_rocksdb::Options::default())
        .with_context(|| format!("opening the log in {}", data.log().display()))
}

/// Opens the log on a cluster without taking it over.
///
/// # Errors
/// When it does not open.
pub fn open_cluster(
    data: &DataDirectory,
    place: &ClusterPlace,
    catalog: &Catalog,
) -> Result<FluvioLog> {
    // The cluster's client would choose another library for all of the process.
    falaj_gateway::tls::use_ring();
    let mut options =
        falaj_log_fluvio::Options::new(&place.controller, &place.deployment, declarations(catalog));
    options.replication = place.replication;
    options.remember_in = Some(data.acknowledged_on(&place.deployment));
    if let Some(ClusterTls { domain, ca, certificate, key }) = &place.tls {
        options.tls = falaj_log_fluvio::Tls::Files {
            domain: domain.clone(),
            ca: ca.clone(),
            certificate: certificate.clone(),
            key: key.clone(),
        };
    }
    FluvioLog::open(options).with_context(|| format!("opening {}", LogPlace::Fluvio(place.clone())))
}

fn declarations(catalog: &Catalog) -> Vec<TopicDeclaration> {
    let stored = catalog.topics.iter().filter(|topic| topic.schema.id() != epochs_topic());
    stored
        .map(|topic| TopicDeclaration {
            retention_s: topic.retention_us.map(|us| {
                let seconds = us.div_ceil(1_000_000) + RETENTION_SLACK_S;
                u32::try_from(seconds).unwrap_or(u32::MAX)
            }),
            inbox: topic.inbox,
            ..TopicDeclaration::new(&topic.schema.name, topic.schema.partitions)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_they_are_written() {
        for text in ["embedded", "fluvio://h:9003/falaj", "fluvio://[::1]:9003/a-1"] {
            assert_eq!(text.parse::<LogPlace>().unwrap().to_string(), text);
        }
        let place: LogPlace = "fluvio://h:9003".parse().unwrap();
        assert_eq!(place.to_string(), "fluvio://h:9003/falaj");
        for text in
            ["", "kafka://h:1", "fluvio://h", "fluvio://:9003", "fluvio://h:x", "fluvio://h:1/"]
        {
            let said = text.parse::<LogPlace>().unwrap_err().to_string();
            assert!(said.contains("fluvio://HOST:PORT"), "{text}: {said}");
        }
    }

    #[test]
    fn a_directory_keeps_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDirectory(folder.path().to_owned());
        let cluster: LogPlace = "fluvio://h:9003/one".parse().unwrap();
        assert_eq!(resolve(&data, None).unwrap(), LogPlace::Embedded);
        assert_eq!(resolve(&data, Some(&cluster)).unwrap(), cluster);
        store(&data, &cluster).unwrap();
        assert_eq!(resolve(&data, None).unwrap(), cluster);
        let moved: LogPlace = "fluvio://elsewhere:9003/one".parse().unwrap();
        assert_eq!(resolve(&data, Some(&moved)).unwrap(), moved);
        let other: LogPlace = "fluvio://h:9003/two".parse().unwrap();
        for wrong in [other, LogPlace::Embedded] {
            let said = resolve(&data, Some(&wrong)).unwrap_err().to_string();
            assert!(said.contains("falaj migrate --to"), "{said}");
        }

        let embedded = tempfile::tempdir().unwrap();
        let data = DataDirectory(embedded.path().to_owned());
        fs::create_dir(data.log()).unwrap();
        assert!(resolve(&data, Some(&cluster)).is_err());
        fs::write(data.log_place(), "{").unwrap();
        assert!(resolve(&data, None).unwrap_err().to_string().contains("log.json"));
    }
}
