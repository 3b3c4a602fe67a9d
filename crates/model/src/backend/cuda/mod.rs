//! CUDA, found at run time.
use super::*;
/// A GPU.
pub struct Cuda;
impl Cuda {
    /// Opens it.
    ///
    /// # Errors
    /// [`BackendError::NoDevice`].
    pub fn open(_ordinal: usize) -> Result<Self, BackendError> {
        Err(BackendError::NoDevice { why: "libcuda is not installed".to_owned() })
    }
}
impl Backend for Cuda {
    fn hardware(&self) -> Hardware {
        Hardware::default()
    }
    fn rows_that_fit(&self, _n: &Network) -> Option<usize> {
        None
    }
    fn session(
        &self,
        _n: &Network,
        _t: Task,
        _p: Precision,
        _s: &State,
        _r: usize,
    ) -> Result<Box<dyn Session>, BackendError> {
        Err(BackendError::NoDevice { why: String::new() })
    }
}
