//! Ranks on several GPUs, added up by NCCL.
//!
//! NCCL fixes the order of its sums by the number of GPUs and their wiring, not by rank; every rank
//! gets the same bits, and the same machine gives the same sums.

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream};
use cudarc::nccl::{Comm, ReduceOp};

use super::failed;
use crate::backend::BackendError;
use crate::collective::{Collective, CollectiveError};

/// Whether the library is installed.
#[allow(unsafe_code)]
pub(super) fn is_present() -> bool {
    // SAFETY: opens a shared library and closes it again.
    unsafe { cudarc::nccl::sys::is_culib_present() }
}

struct NcclRank {
    communicator: Comm,
    stream: Arc<CudaStream>,
}

// SAFETY: a communicator may be used by any thread, by one at a time; it is not shared.
#[allow(unsafe_code)]
unsafe impl Send for NcclRank {}

/// One rank per context.
pub(super) fn group(
    contexts: &[Arc<CudaContext>],
) -> Result<Vec<Box<dyn Collective>>, BackendError> {
    let streams = contexts.iter().map(|context| context.new_stream());
    let streams = streams.collect::<Result<Vec<_>, _>>();
    let streams = streams.map_err(|error| failed("opening a stream", error))?;
    let communicators = Comm::from_devices(streams.clone())
        .map_err(|error| failed("joining the GPUs", format!("{error:?}")))?;
    let rank = |(communicator, stream)| -> Box<dyn Collective> {
        Box::new(NcclRank { communicator, stream })
    };
    Ok(communicators.into_iter().zip(streams).map(rank).collect())
}

impl Collective for NcclRank {
    fn rank(&self) -> usize {
        self.communicator.rank()
    }

    fn ranks(&self) -> usize {
        self.communicator.world_size()
    }

    fn all_reduce(&self, values: &mut [f32]) -> Result<(), CollectiveError> {
        let transport = |error: String| CollectiveError::Transport(error);
        let driver = |error: cudarc::driver::DriverError| transport(error.to_string());
        let mut own = self.stream.clone_htod(&*values).map_err(driver)?;
        self.communicator
            .all_reduce_in_place(&mut own, &ReduceOp::Sum)
            .map_err(|error| transport(format!("{error:?}")))?;
        self.stream.memcpy_dtoh(&own, values).map_err(driver)?;
        self.stream.synchronize().map_err(driver)
    }
}
