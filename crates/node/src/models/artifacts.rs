//! Where artifacts of models are kept: one file each, named by the artifact's id, signed by the log's
//! key.
//!
//! A file that is damaged, that has another id than its name, or that this log's key did not sign is
//! never given out. Does not know pipelines.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use falaj_model::artifact::{Artifact, Signer, Verdict, Verifier};
use falaj_vault::Vault;

use super::job::replace;

/// Name of the log's key on artifacts.
const KEY_NAME: &str = "log";

/// A directory of artifacts.
#[derive(Clone)]
pub struct Artifacts {
    directory: PathBuf,
    vault: Arc<Vault>,
}

struct LogKey<'a>(&'a Vault);

impl Signer for LogKey<'_> {
    fn name(&self) -> &str {
        KEY_NAME
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign_for_log(message).to_vec()
    }
}

impl Verifier for LogKey<'_> {
    fn verify(&self, name: &str, message: &[u8], signature: &[u8]) -> Verdict {
        match name {
            KEY_NAME if self.0.is_signed_by_log(message, signature) => Verdict::Valid,
            KEY_NAME => Verdict::Invalid,
            _ => Verdict::Unknown,
        }
    }
}

impl Artifacts {
    /// The store in `directory`, which is made on first use.
    pub fn new(directory: impl Into<PathBuf>, vault: Arc<Vault>) -> Self {
        Self { directory: directory.into(), vault }
    }

    /// Where the artifact of this id is.
    pub fn path(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.falaj"))
    }

    /// Signs an artifact and keeps it durably; gives its id. The same artifact is kept once.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, mut artifact: Artifact) -> Result<String> {
        let id = artifact.id().to_owned();
        if self.get(&id).is_ok() {
            return Ok(id);
        }
        artifact.sign(&LogKey(&self.vault));
        std::fs::create_dir_all(&self.directory)
            .with_context(|| format!("creating {}", self.directory.display()))?;
        replace(&self.path(&id), &artifact.to_bytes())?;
        std::fs::File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .with_context(|| format!("syncing {}", self.directory.display()))?;
        Ok(id)
    }

    /// The artifact of this id.
    ///
    /// # Errors
    /// When it is not there, damaged, another one, or not signed by this log's key.
    pub fn get(&self, id: &str) -> Result<Artifact> {
        let path = self.path(id);
        let told = || format!("the artifact {}: restore models/ from a backup", path.display());
        let bytes = std::fs::read(&path).with_context(told)?;
        Artifact::load(id, &bytes, Some(&LogKey(&self.vault))).with_context(told)
    }
}
