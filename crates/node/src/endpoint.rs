//! The endpoint file of a data directory: where its running node listens.
//!
//! Knows neither the gateway nor what a node is; a verb that finds the file tries the address, and a
//! file left behind by a killed node is overwritten by the next one.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where a node listens and what a client needs to trust it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Address that clients connect to.
    pub address: SocketAddr,
    /// Process id of the node.
    pub process: u32,
}

/// The files of a data directory.
#[derive(Clone, Debug)]
pub struct DataDirectory(pub PathBuf);

impl DataDirectory {
    /// The log.
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// Where the log is, when it is not simply in [`Self::log`].
    pub fn log_place(&self) -> PathBuf {
        self.0.join("log.json")
    }

    /// What was acknowledged by a log on a cluster.
    pub fn acknowledged_on(&self, deployment: &str) -> PathBuf {
        self.0.join(format!("acknowledged-{deployment}"))
    }

    /// Views and operator state; may be deleted at any time.
    pub fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    /// Artifacts of models.
    pub fn models(&self) -> PathBuf {
        self.0.join("models")
    }

    /// Folders of training runs; one may be deleted once its run has ended.
    pub fn runs(&self) -> PathBuf {
        self.0.join("runs")
    }

    /// Copies of the state that stand in for what was cut from the log; not to be deleted.
    pub fn baselines(&self) -> PathBuf {
        self.0.join("baselines")
    }

    /// Keys.
    pub fn vault(&self) -> PathBuf {
        self.0.join("vault")
    }

    /// Certificates.
    pub fn tls(&self) -> PathBuf {
        self.0.join("tls")
    }

    /// The local user's token.
    pub fn token(&self) -> PathBuf {
        self.0.join("token")
    }

    /// Tokens of further persons, one file each.
    pub fn persons(&self) -> PathBuf {
        self.0.join(falaj_gateway::server::PERSONS)
    }

    /// The endpoint file.
    pub fn endpoint(&self) -> PathBuf {
        self.0.join("endpoint.json")
    }
}

/// Reads the endpoint file; `None` where there is none or it is not whole.
pub fn read(directory: &DataDirectory) -> Option<Endpoint> {
    serde_json::from_slice(&fs::read(directory.endpoint()).ok()?).ok()
}

/// Writes the endpoint file (atomically: readers see the old one or the new one).
///
/// # Errors
/// When the directory cannot be written.
pub fn write(directory: &DataDirectory, endpoint: &Endpoint) -> io::Result<()> {
    let temporary = directory.0.join("endpoint.json.new");
    fs::write(&temporary, serde_json::to_vec_pretty(endpoint)?)?;
    fs::rename(&temporary, directory.endpoint())
}

/// Removes the endpoint file if it is this process's.
pub fn remove(directory: &DataDirectory, process: u32) {
    if read(directory).is_some_and(|endpoint| endpoint.process == process) {
        // A file that stays behind names a dead process; the next start overwrites it.
        let _ = fs::remove_file(directory.endpoint());
    }
}

/// Whether `path` looks like a data directory of a node.
pub fn is_data_directory(path: &Path) -> bool {
    (path.join("log").is_dir() || path.join("log.json").is_file()) && path.join("vault").is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_process_removes_an_endpoint() {
        let folder = tempfile::tempdir().unwrap();
        let directory = DataDirectory(folder.path().to_owned());
        assert_eq!(read(&directory), None);
        let endpoint = Endpoint { address: ([127, 0, 0, 1], 8815).into(), process: 7 };
        write(&directory, &endpoint).unwrap();
        assert_eq!(read(&directory), Some(endpoint));
        remove(&directory, 8);
        assert!(read(&directory).is_some());
        remove(&directory, 7);
        assert_eq!(read(&directory), None);
        fs::write(directory.endpoint(), b"{").unwrap();
        assert_eq!(read(&directory), None);
    }
}
