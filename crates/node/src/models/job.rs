//! A training job as it passes between a node and the process that carries it out.
//!
//! The node writes a folder (`job.json`, `rows.parquet`) and starts `falaj trainer --job FOLDER`; the
//! process writes one JSON object per line to its standard output, checkpoints and, at the end,
//! `model.falaj` into the folder. It ends when its standard input does, so no trainer outlives its
//! node. Does not know the registry.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use arrow::record_batch::RecordBatch;
use falaj_model::artifact::manifest::Provenance;
use falaj_model::spec::JobSpec;
use serde::{Deserialize, Serialize};

use crate::parquet_file;

/// Rows per batch of a training set that is read back.
const BATCH_ROWS: usize = 8_192;

/// One job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The run's name.
    pub run: String,
    /// The pipeline.
    pub pipeline: String,
    /// The version that it makes.
    pub version: u32,
    /// What is trained.
    pub spec: JobSpec,
    /// What ends up in the artifact beside it.
    pub provenance: Provenance,
}

/// The folder of one job.
#[derive(Clone, Debug)]
pub struct Folder(pub PathBuf);

impl Folder {
    /// The job.
    pub fn job(&self) -> PathBuf {
        self.0.join("job.json")
    }

    /// The training set.
    pub fn rows(&self) -> PathBuf {
        self.0.join("rows.parquet")
    }

    /// Checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    /// The artifact, once there is one.
    pub fn artifact(&self) -> PathBuf {
        self.0.join("model.falaj")
    }

    /// Writes job and rows; the job last, so that a folder with a job is whole.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, job: &Job, rows: &[RecordBatch]) -> Result<()> {
        std::fs::create_dir_all(self.checkpoints())
            .with_context(|| format!("creating {}", self.0.display()))?;
        let first = rows.first().context("the training set is empty")?;
        let path = self.rows();
        let mut writer = parquet_file::writer(&path, first.schema())?;
        for batch in rows {
            writer.write(batch)?;
        }
        writer.close()?;
        replace(&self.job(), &serde_json::to_vec_pretty(job)?)
    }

    /// Reads the job.
    ///
    /// # Errors
    /// When there is none, or it is not what [`Folder::write`] writes.
    pub fn read_job(&self) -> Result<Job> {
        let path = self.job();
        let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("{} is no job", path.display()))
    }

    /// Reads the training set.
    ///
    /// # Errors
    /// When it is not there or damaged.
    pub fn read_rows(&self) -> Result<Vec<RecordBatch>> {
        Ok(parquet_file::reader(&self.rows(), BATCH_ROWS)?.collect::<Result<Vec<_>, _>>()?)
    }
}

/// Writes a file so that readers see the old one or the new one.
///
/// # Errors
/// When it cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let draft = path.with_extension("draft");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&draft, path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array};
    use falaj_model::spec::{Feature, FeatureKind, Task, Trainer};
    use std::sync::Arc;

    #[test]
    fn a_folder_gives_back_what_it_was_given() {
        let directory = tempfile::tempdir().unwrap();
        let folder = Folder(directory.path().join("run"));
        assert!(folder.read_job().is_err());
        let features = vec![Feature::new("x", FeatureKind::Numeric)];
        let spec = JobSpec::new("m", Task::Regression, "y", features, Trainer::Linear {});
        let job = Job {
            run: "r".into(),
            pipeline: "m".into(),
            version: 3,
            spec,
            provenance: Provenance::default(),
        };
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let rows = RecordBatch::try_from_iter([("x", column)]).unwrap();
        assert!(folder.write(&job, &[]).is_err());
        folder.write(&job, std::slice::from_ref(&rows)).unwrap();
        assert_eq!(folder.read_job().unwrap(), job);
        assert_eq!(folder.read_rows().unwrap(), [rows]);
    }
}
