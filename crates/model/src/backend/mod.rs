//! Where a network is computed: the contract, and the choice between the CPU and a GPU.
//!
//! A session holds the masters, both moments and the newest gradient where it computes, so that a GPU
//! copies nothing but batches. Does not know what is trained on, or for how long.

pub mod cpu;
pub mod cuda;
mod dropout;

use serde::{Deserialize, Serialize};

use crate::collective::{Collective, CollectiveError};
use crate::network::Network;
use crate::optimiser::{State, Update};
use crate::spec::{BackendChoice, Precision, Task};
use crate::train::events::DeviceUse;

/// Why a backend could not compute.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BackendError {
    /// There is no usable GPU.
    #[error("no CUDA device can be used: {why}; choose backend `cpu` or `auto`")]
    NoDevice {
        /// What is missing.
        why: String,
    },
    /// A device operation failed.
    #[error("{operation} failed: {why}")]
    Device {
        /// What was tried.
        operation: &'static str,
        /// What the driver or library says.
        why: String,
    },
    /// A parameter got no gradient: the graph is cut somewhere.
    #[error("parameter `{name}` got no gradient")]
    NoGradient {
        /// The parameter.
        name: String,
    },
    /// A vector does not fit the network.
    #[error("{what} has {given} values, the network needs {expected}")]
    Shape {
        /// Which vector.
        what: &'static str,
        /// Its length.
        given: usize,
        /// The length that fits.
        expected: usize,
    },
    /// Ranks could not add up.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
}

/// Encoded rows.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Number of rows.
    pub rows: usize,
    /// `rows × numeric_width`.
    pub numbers: &'a [f32],
    /// `rows × embeddings`.
    pub codes: &'a [u32],
    /// One per row.
    pub labels: &'a [f32],
    /// One per row.
    pub weights: &'a [f32],
}

/// What a backward pass needs besides the batch.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// Factor on the loss, so that small gradients survive float16.
    pub scale: f32,
    /// Key of the dropout masks.
    pub seed: u64,
    /// Number of the step, from 0.
    pub step: u32,
    /// Position of the batch's first row within the step's rows over all ranks.
    pub first_row: usize,
}

/// One network under training on one device.
pub trait Session {
    /// Forward and backward: leaves the gradient of the weighted sum of losses, times `pass.scale`,
    /// in the session, and returns the (unscaled) sum.
    ///
    /// # Errors
    /// [`BackendError`]; an overflow is none, it shows in [`Session::squared_norm`].
    fn backward(&mut self, batch: &Batch<'_>, pass: &Pass) -> Result<f64, BackendError>;

    /// Sums the gradient over all ranks, and `extras` with it.
    ///
    /// # Errors
    /// [`BackendError::Collective`].
    fn exchange(
        &mut self,
        collective: &dyn Collective,
        extras: &mut [f32],
    ) -> Result<(), BackendError>;

    /// Squared norm of the gradient as it stands; not finite where anything in it is not.
    ///
    /// # Errors
    /// [`BackendError::Device`].
    fn squared_norm(&mut self) -> Result<f64, BackendError>;

    /// Applies the gradient.
    ///
    /// # Errors
    /// [`BackendError::Device`].
    fn update(&mut self, update: &Update) -> Result<(), BackendError>;

    /// Logits of a batch without dropout, `rows × outputs`, into `logits`.
    ///
    /// # Errors
    /// [`BackendError`].
    fn logits(&mut self, batch: &Batch<'_>, logits: &mut Vec<f32>) -> Result<(), BackendError>;

    /// The gradient as it stands.
    ///
    /// # Errors
    /// [`BackendError::Device`].
    fn gradient(&mut self) -> Result<Vec<f32>, BackendError>;

    /// Masters and moments.
    ///
    /// # Errors
    /// [`BackendError::Device`].
    fn state(&mut self) -> Result<State, BackendError>;

    /// Replaces masters and moments.
    ///
    /// # Errors
    /// [`BackendError::Shape`], [`BackendError::Device`].
    fn restore(&mut self, state: &State) -> Result<(), BackendError>;

    /// Use of the GPU so far; `None` on a CPU.
    fn device_use(&self) -> Option<DeviceUse> {
        None
    }
}

/// What a run computed on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hardware {
    /// `cpu` or `cuda`.
    pub backend: String,
    /// Model of the processor or GPU.
    pub name: String,
    /// Threads, on a CPU.
    pub threads: usize,
    /// Memory of a GPU in bytes.
    pub memory_bytes: Option<u64>,
    /// Free memory of a GPU in bytes, when the run started.
    pub free_bytes: Option<u64>,
    /// Compute capability of a GPU.
    pub capability: Option<String>,
}

/// A kind of device.
pub trait Backend: Send + Sync {
    /// What it is.
    fn hardware(&self) -> Hardware;

    /// Greatest number of rows per step that fit, where memory bounds it.
    fn rows_that_fit(&self, network: &Network) -> Option<usize>;

    /// Runs `work`, in which a rank's session is made and used, where its sessions compute without
    /// changing threads.
    ///
    /// # Errors
    /// [`BackendError::Device`]; `work` has then not run.
    fn within(&self, work: &mut (dyn FnMut() + Send)) -> Result<(), BackendError> {
        work();
        Ok(())
    }

    /// A session of rank `rank` for `network`, its masters at `state`.
    ///
    /// # Errors
    /// [`BackendError`].
    fn session(
        &self,
        network: &Network,
        task: Task,
        precision: Precision,
        state: &State,
        rank: usize,
    ) -> Result<Box<dyn Session>, BackendError>;

    /// Ends of a group of `ranks` that add up on the devices themselves; `None` where the threads of
    /// this process do it.
    fn collectives(&self, _ranks: usize) -> Option<Result<Vec<Box<dyn Collective>>, BackendError>> {
        None
    }
}

/// The backend for `choice`; `auto` falls back to the CPU, and the reason comes with it.
///
/// # Errors
/// [`BackendError::NoDevice`] when CUDA is demanded and is not there.
pub fn choose(
    choice: BackendChoice,
    threads: usize,
) -> Result<(Box<dyn Backend>, Option<BackendError>), BackendError> {
    match choice {
        BackendChoice::Cpu => Ok((Box::new(cpu::Cpu::new(threads)), None)),
        BackendChoice::Cuda => Ok((Box::new(cuda::Cuda::open(0)?), None)),
        BackendChoice::Auto => match cuda::Cuda::open(0) {
            Ok(device) => Ok((Box::new(device), None)),
            Err(why) => Ok((Box::new(cpu::Cpu::new(threads)), Some(why))),
        },
    }
}

pub(crate) fn expect_length(
    what: &'static str,
    given: usize,
    expected: usize,
) -> Result<(), BackendError> {
    if given == expected { Ok(()) } else { Err(BackendError::Shape { what, given, expected }) }
}

pub(crate) fn check_batch(network: &Network, batch: &Batch<'_>) -> Result<(), BackendError> {
    expect_length("the batch's numbers", batch.numbers.len(), batch.rows * network.numeric_width)?;
    expect_length("the batch's codes", batch.codes.len(), batch.rows * network.embeddings.len())?;
    expect_length("the batch's labels", batch.labels.len(), batch.rows)?;
    expect_length("the batch's weights", batch.weights.len(), batch.rows)?;
    for (position, table) in network.embeddings.iter().enumerate() {
        let codes = network.parameters[*table].shape.0;
        let mut column = batch.codes.iter().skip(position).step_by(network.embeddings.len());
        if let Some(code) = column.find(|code| **code as usize >= codes) {
            let given = *code as usize;
            return Err(BackendError::Shape { what: "a code", given, expected: codes });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
