//! A node in a process of its own.
//!
//! Knows how to start, kill and stop it; not what it does.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use falaj_gateway::Client;

use crate::endpoint::{self, DataDirectory};
use crate::place::{ClusterTls, LogPlace};
use crate::serve::connect;

/// A process that does not outlive its owner.
struct Process(std::process::Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Fails where it has ended, and has been waited for, already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running node process and a client of it. Dropped, it is killed.
pub struct Child {
    process: Process,
    /// Connected to it.
    pub client: Client,
}

/// What `falaj up` must be told of a log.
fn log_arguments(log: &LogPlace) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["--log".into(), log.to_string().into()];
    let LogPlace::Fluvio(place) = log else { return words };
    words.extend(["--log-replicas".into(), place.replication.to_string().into()]);
    if let Some(ClusterTls { domain, ca, certificate, key }) = &place.tls {
        words.extend(["--log-domain".into(), domain.into(), "--log-ca".into(), ca.into()]);
        words.extend([
            "--log-certificate".into(),
            certificate.into(),
            "--log-key".into(),
            key.into(),
        ]);
    }
    words
}

const START_WAIT: Duration = Duration::from_secs(120);

impl Child {
    /// Starts `falaj up` on `data` and waits until it answers.
    ///
    /// # Errors
    /// When it stops or does not answer in two minutes; what it said goes to standard error.
    pub async fn start(
        definitions: &Path,
        data: &Path,
        workers: usize,
        log: Option<&LogPlace>,
    ) -> Result<Self> {
        std::fs::create_dir_all(data)?;
        let directory = DataDirectory(data.to_owned());
        let program = std::env::current_exe().context("finding this program")?;
        let process = Command::new(program)
            .args([
                "up",
                "--clock",
                "event",
                "--listen",
                "127.0.0.1:0",
                "--workers",
                &workers.to_string(),
            ])
            .arg("--definitions")
            .arg(definitions)
            .arg("--data")
            .arg(data)
            .args(log.map(log_arguments).unwrap_or_default())
            .stdout(Stdio::null())
            .spawn()
            .context("starting a node")?;
        let mut process = Process(process);
        let started = Instant::now();
        loop {
            if let Some(status) = process.0.try_wait()? {
                bail!("the node stopped at once ({status})");
            }
            let found = endpoint::read(&directory).filter(|found| found.process == process.0.id());
            if let Some(found) = found
                && let Ok(client) = connect(&directory, found.address).await
            {
                return Ok(Self { process, client });
            }
            if started.elapsed() > START_WAIT {
                bail!("the node did not answer within {START_WAIT:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Kills the process (SIGKILL): nothing is flushed, nobody is told.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn kill(&mut self) -> Result<()> {
        self.process.0.kill().context("killing the node")?;
        self.process.0.wait().context("waiting for the killed node")?;
        Ok(())
    }

    /// Stops the process in good order (SIGTERM).
    ///
    /// # Errors
    /// When it ends with an error.
    pub async fn stop(mut self) -> Result<()> {
        drop(self.client);
        let status = Command::new("kill").arg(self.process.0.id().to_string()).status()?;
        if !status.success() {
            bail!("the node could not be told to stop");
        }
        let status = tokio::task::spawn_blocking(move || self.process.0.wait()).await??;
        match status.success() {
            true => Ok(()),
            false => bail!("the node ended with {status}"),
        }
    }
}
