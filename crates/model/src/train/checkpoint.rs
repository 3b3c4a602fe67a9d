//! Where an interrupted run goes on: one file, replaced whole.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::TrainError;
use super::events::EpochPoint;
use crate::optimiser::{LossScale, State};

/// Name of the file in the run's folder.
pub const FILE: &str = "checkpoint.safetensors";
const KEY: &str = "falaj.checkpoint";

/// Everything besides tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// SHA-256 of the job; another job starts anew.
    pub job: String,
    /// SHA-256 of the training set; another set starts anew.
    pub data: String,
    /// Passes made.
    pub epoch: u32,
    /// Steps made, skipped ones included.
    pub steps: u64,
    /// Updates made.
    pub updates: u64,
    /// State of mixed precision.
    pub scale: LossScale,
    /// Best validation loss.
    pub best_loss: f64,
    /// Its pass.
    pub best_epoch: u32,
    /// Every pass so far.
    pub history: Vec<EpochPoint>,
}

/// A run after some pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Counters and history.
    pub progress: Progress,
    /// Masters and moments.
    pub state: State,
    /// Parameters of the best pass.
    pub best: Vec<f32>,
}

fn io(path: &Path, operation: &'static str) -> impl FnOnce(std::io::Error) -> TrainError + use<> {
    let path = path.to_owned();
    move |source| TrainError::Io { operation, path, why: source.to_string() }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(4)
        .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
        .collect()
}

impl Checkpoint {
    fn to_bytes(&self) -> Result<Vec<u8>, TrainError> {
        let failed = |why: String| TrainError::Checkpoint { why };
        let parts = [
            ("best", bytes(&self.best)),
            ("first", bytes(&self.state.first)),
            ("parameters", bytes(&self.state.parameters)),
            ("second", bytes(&self.state.second)),
        ];
        let views = parts
            .iter()
            .map(|(name, data)| {
                TensorView::new(Dtype::F32, vec![data.len() / 4], data).map(|view| (*name, view))
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| failed(error.to_string()))?;
        let text =
            serde_json::to_string(&self.progress).map_err(|error| failed(error.to_string()))?;
        let metadata = HashMap::from([(KEY.to_owned(), text)]);
        safetensors::serialize(views, Some(metadata)).map_err(|error| failed(error.to_string()))
    }

    /// Writes it beside the old one, syncs it, and renames it over the old one.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn write(&self, folder: &Path) -> Result<u64, TrainError> {
        fs::create_dir_all(folder).map_err(io(folder, "creating"))?;
        let bytes = self.to_bytes()?;
        let (path, beside) = (folder.join(FILE), folder.join("checkpoint.new"));
        let mut file = File::create(&beside).map_err(io(&beside, "creating"))?;
        file.write_all(&bytes).map_err(io(&beside, "writing"))?;
        file.sync_all().map_err(io(&beside, "syncing"))?;
        fs::rename(&beside, &path).map_err(io(&path, "renaming to"))?;
        let directory = File::open(folder).map_err(io(folder, "opening"))?;
        directory.sync_all().map_err(io(folder, "syncing"))?;
        Ok(bytes.len() as u64)
    }

    /// The checkpoint in `folder`, where there is a sound one of this job and these rows; a run starts
    /// anew otherwise.
    pub fn read(folder: &Path, job: &str, data: &str, parameters: usize) -> Option<Self> {
        let path: PathBuf = folder.join(FILE);
        let bytes = fs::read(path).ok()?;
        let (_, header) = SafeTensors::read_metadata(&bytes).ok()?;
        let text = header.metadata().as_ref()?.get(KEY)?;
        let progress: Progress = serde_json::from_str(text).ok()?;
        if progress.job != job || progress.data != data {
            return None;
        }
        let tensors = SafeTensors::deserialize(&bytes).ok()?;
        let read = |name: &str| {
            let values = floats(tensors.tensor(name).ok()?.data());
            (values.len() == parameters).then_some(values)
        };
        let state = State {
            parameters: read("parameters")?,
            first: read("first")?,
            second: read("second")?,
        };
        Some(Self { progress, state, best: read("best")? })
    }

    /// Removes it: the run has its model.
    pub fn remove(folder: &Path) {
        let _ = fs::remove_file(folder.join(FILE));
    }
}
