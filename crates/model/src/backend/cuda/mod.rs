//! CUDA, found at run time: no toolkit is needed to build, no library to start.
//!
//! Matrix products are cuBLASLt's with float32 accumulation; everything else is compiled by NVRTC when
//! a session begins. What is missing (driver, libraries, device) is a typed error: the libraries are
//! looked for before they are used, because their loader panics, and what panics nevertheless (a stub
//! of the driver, say) is caught. Results are close to the CPU's, not equal to the bit.

mod device;
mod kernels;
mod nccl;
mod session;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cudarc::driver::CudaContext;

use super::{Backend, BackendError, Hardware, Session};
use crate::collective::Collective;
use crate::network::Network;
use crate::optimiser::State;
use crate::spec::{Precision, Task};

/// Share of the free memory that a step may fill.
const MEMORY_SHARE: f64 = 0.7;

/// The GPUs of this machine, of which a rank uses one.
#[derive(Debug)]
pub struct Cuda {
    contexts: Vec<Arc<CudaContext>>,
    first: usize,
}

fn failed(operation: &'static str, error: impl std::fmt::Display) -> BackendError {
    BackendError::Device { operation, why: error.to_string() }
}

/// Runs what may panic in a library's loader.
fn guarded<T>(
    operation: &'static str,
    work: impl FnOnce() -> Result<T, BackendError>,
) -> Result<T, BackendError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(failed(operation, "a CUDA library lacks a function that this version needs"))
    })
}

/// Which libraries are there: driver, cuBLASLt, NVRTC.
#[allow(unsafe_code)]
fn missing_library() -> Option<&'static str> {
    // SAFETY: each call opens a shared library and closes it again.
    unsafe {
        if !cudarc::driver::sys::is_culib_present() {
            Some("the driver library libcuda")
        } else if !cudarc::cublaslt::sys::is_culib_present() {
            Some("libcublasLt")
        } else if !cudarc::nvrtc::sys::is_culib_present() {
            Some("libnvrtc")
        } else {
            None
        }
    }
}

impl Cuda {
    /// The GPUs, rank 0 on `ordinal`.
    ///
    /// # Errors
    /// [`BackendError::NoDevice`]; never panics.
    pub fn open(ordinal: usize) -> Result<Self, BackendError> {
        if let Some(library) = missing_library() {
            return Err(BackendError::NoDevice { why: format!("{library} is not installed") });
        }
        let opened = guarded("looking for a GPU", || {
            let count = CudaContext::device_count().map_err(|e| failed("counting the GPUs", e))?;
            let open = |at: usize| CudaContext::new(at).map_err(|e| failed("opening a GPU", e));
            (0..usize::try_from(count).unwrap_or(0)).map(open).collect::<Result<Vec<_>, _>>()
        });
        let contexts = opened.map_err(|error| BackendError::NoDevice { why: error.to_string() })?;
        if ordinal >= contexts.len() {
            let why = format!("there are {} GPUs, number {ordinal} is asked for", contexts.len());
            return Err(BackendError::NoDevice { why });
        }
        Ok(Self { contexts, first: ordinal })
    }

    /// Number of GPUs.
    pub fn count(&self) -> usize {
        self.contexts.len()
    }

    fn context(&self, rank: usize) -> &Arc<CudaContext> {
        &self.contexts[(self.first + rank) % self.contexts.len()]
    }
}

impl Backend for Cuda {
    fn hardware(&self) -> Hardware {
        let context = self.context(0);
        let memory = context.mem_get_info().ok();
        let capability = context.compute_capability().ok();
        Hardware {
            backend: "cuda".to_owned(),
            name: context.name().unwrap_or_default(),
            threads: 0,
            memory_bytes: memory.map(|(_, total)| total as u64),
            free_bytes: memory.map(|(free, _)| free as u64),
            capability: capability.map(|(major, minor)| format!("{major}.{minor}")),
        }
    }

    fn rows_that_fit(&self, network: &Network) -> Option<usize> {
        let (free, _) = self.context(0).mem_get_info().ok()?;
        // Masters, moments, gradient, decay, and copies on the way; then every step's activations,
        // their slopes, and both once more in half precision.
        let fixed = network.parameter_count() * 4 * 8;
        let row = network.widest() * (network.steps.len() + 4) * 4 * 3;
        let usable = (free as f64 * MEMORY_SHARE) as usize;
        Some((usable.saturating_sub(fixed) / row.max(1)).max(1))
    }

    fn session(
        &self,
        network: &Network,
        task: Task,
        precision: Precision,
        state: &State,
        rank: usize,
    ) -> Result<Box<dyn Session>, BackendError> {
        guarded("opening a session on the GPU", || {
            let device = device::Device::open(self.context(rank), precision)?;
            let session = session::CudaSession::new(device, network, task, state)?;
            Ok(Box::new(session) as Box<dyn Session>)
        })
    }

    fn collectives(&self, ranks: usize) -> Option<Result<Vec<Box<dyn Collective>>, BackendError>> {
        if ranks < 2 || ranks > self.count() || !nccl::is_present() {
            return None;
        }
        let contexts: Vec<_> = (0..ranks).map(|rank| Arc::clone(self.context(rank))).collect();
        Some(guarded("joining the GPUs", || nccl::group(&contexts)))
    }
}
