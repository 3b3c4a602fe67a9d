//! A GPU with its compiled kernels: buffers, launches, matrix products.

use std::collections::BTreeMap;
use std::sync::Arc;

use cudarc::cublaslt::{CudaBlasLT, Matmul, MatmulConfig, MatmulShared, Workspace, sys};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaSlice, CudaStream, DeviceRepr, LaunchConfig, PushKernelArg,
};
use half::{bf16, f16};

use super::failed;
use super::kernels::{NAMES, SOURCE};
use crate::backend::BackendError;
use crate::spec::Precision;

/// A buffer of float32.
pub(super) type Floats = CudaSlice<f32>;

/// Products that are too narrow for the library's kernels.
const NARROW: usize = 8;

/// cuBLASLt with float32 products that are not rounded to TF32 first.
struct Products(CudaBlasLT);

impl MatmulShared for Products {
    fn handle(&self) -> &sys::cublasLtHandle_t {
        self.0.handle()
    }

    fn workspace(&self) -> &Workspace {
        self.0.workspace()
    }

    fn stream(&self) -> &Arc<CudaStream> {
        self.0.stream()
    }
}

macro_rules! products_of {
    ($type:ty, $matrix:ident) => {
        impl Matmul<$type> for Products {
            fn matrix_type() -> sys::cudaDataType {
                sys::cudaDataType_t::$matrix
            }

            fn compute_type() -> sys::cublasComputeType_t {
                sys::cublasComputeType_t::CUBLAS_COMPUTE_32F
            }
        }
    };
}

products_of!(f32, CUDA_R_32F);
products_of!(f16, CUDA_R_16F);
products_of!(bf16, CUDA_R_16BF);

/// Launches a kernel over so many threads. Arguments are references: buffers and scalars.
macro_rules! launch {
    ($device:expr, $name:literal, $threads:expr, $($argument:expr),+ $(,)?) => {{
        let function = $device.function($name)?;
        let stream = $device.stream();
        let mut launch = stream.launch_builder(function);
        $(launch.arg($argument);)+
        let threads = u32::try_from($threads).unwrap_or(u32::MAX).max(1);
        let shape = cudarc::driver::LaunchConfig {
            grid_dim: (threads.div_ceil(256), 1, 1),
            block_dim: (256, 1, 1),
            shared_mem_bytes: 0,
        };
        #[allow(unsafe_code)]
        // SAFETY: the arguments are those of the kernel, in its order, and its bounds are checked
        // against the numbers of rows and columns that the buffers were made with.
        let launched = unsafe { launch.launch(shape) };
        launched.map(|_| ()).map_err(|error| $crate::backend::cuda::failed($name, error))
    }};
}
pub(super) use launch;

/// A GPU in use.
pub(super) struct Device {
    stream: Arc<CudaStream>,
    products: Products,
    functions: BTreeMap<&'static str, CudaFunction>,
    precision: Precision,
}

/// A product `a · b` of row-major matrices, each perhaps turned first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    /// Rows of the result.
    pub(super) rows: usize,
    /// Columns of the result.
    pub(super) columns: usize,
    /// Length of the sums.
    pub(super) inner: usize,
    /// Whether `a` is stored as `inner × rows`.
    pub(super) turn_a: bool,
    /// Whether `b` is stored as `columns × inner`.
    pub(super) turn_b: bool,
}

impl Product {
    /// cuBLASLt stores by columns: the row-major product is `bᵀ · aᵀ` to it.
    fn config(&self) -> MatmulConfig {
        let (m, n, k) = (self.columns as u64, self.rows as u64, self.inner as u64);
        MatmulConfig {
            transa: self.turn_b,
            transb: self.turn_a,
            transc: false,
            m,
            n,
            k,
            alpha: 1.0,
            lda: if self.turn_b { k as i64 } else { m as i64 },
            ldb: if self.turn_a { n as i64 } else { k as i64 },
            beta: 0.0,
            ldc: m as i64,
            stride_a: None,
            stride_b: None,
            stride_c: None,
            stride_bias: None,
            batch_size: None,
        }
    }
}

impl Device {
    /// Compiles the kernels for the GPU behind `context`.
    pub(super) fn open(
        context: &Arc<CudaContext>,
        precision: Precision,
    ) -> Result<Self, BackendError> {
        context.bind_to_thread().map_err(|error| failed("binding the GPU", error))?;
        let stream = context.new_stream().map_err(|error| failed("opening a stream", error))?;
        let products = CudaBlasLT::new(Arc::clone(&stream))
            .map_err(|error| failed("opening cuBLASLt", format!("{error:?}")))?;
        let compiled = cudarc::nvrtc::compile_ptx(SOURCE)
            .map_err(|error| failed("compiling the kernels", format!("{error:?}")))?;
        let module =
            context.load_module(compiled).map_err(|error| failed("loading the kernels", error))?;
        let mut functions = BTreeMap::new();
        for name in NAMES {
            let function =
                module.load_function(name).map_err(|error| failed("loading a kernel", error))?;
            functions.insert(*name, function);
        }
        Ok(Self { stream, products: Products(products), functions, precision })
    }

    pub(super) fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    pub(super) fn function(&self, name: &'static str) -> Result<&CudaFunction, BackendError> {
        self.functions.get(name).ok_or_else(|| failed("finding a kernel", name))
    }

    pub(super) fn zeros(&self, length: usize) -> Result<Floats, BackendError> {
        self.stream.alloc_zeros(length.max(1)).map_err(|error| failed("allocating", error))
    }

    pub(super) fn upload<T: DeviceRepr + Default + Clone>(
        &self,
        values: &[T],
    ) -> Result<CudaSlice<T>, BackendError> {
        let copied = if values.is_empty() {
            self.stream.clone_htod(&[T::default()][..])
        } else {
            self.stream.clone_htod(values)
        };
        copied.map_err(|error| failed("copying to the GPU", error))
    }

    pub(super) fn download<T: DeviceRepr + Default + Clone>(
        &self,
        values: &CudaSlice<T>,
    ) -> Result<Vec<T>, BackendError> {
        let mut host = vec![T::default(); values.len()];
        self.stream
            .memcpy_dtoh(values, &mut host)
            .map_err(|error| failed("copying from the GPU", error))?;
        self.synchronize()?;
        Ok(host)
    }

    pub(super) fn synchronize(&self) -> Result<(), BackendError> {
        self.stream.synchronize().map_err(|error| failed("waiting for the GPU", error))
    }

    /// A copy of a run of `values` that starts where the library wants matrices to start.
    pub(super) fn part(
        &self,
        values: &Floats,
        range: std::ops::Range<usize>,
    ) -> Result<Floats, BackendError> {
        if range.is_empty() {
            return self.zeros(1);
        }
        let copied = self.stream.clone_dtod(&values.slice(range));
        copied.map_err(|error| failed("copying on the GPU", error))
    }

    /// Writes `part` over a run of `values`.
    pub(super) fn place(
        &self,
        part: &Floats,
        values: &mut Floats,
        range: std::ops::Range<usize>,
    ) -> Result<(), BackendError> {
        if range.is_empty() {
            return Ok(());
        }
        let part = part.slice(0..range.len());
        let copied = self.stream.memcpy_dtod(&part, &mut values.slice_mut(range));
        copied.map_err(|error| failed("copying on the GPU", error))
    }

    /// The product, in the precision of the session.
    pub(super) fn multiply(
        &self,
        product: Product,
        a: &Floats,
        b: &Floats,
    ) -> Result<Floats, BackendError> {
        let Product { rows, columns, inner, .. } = product;
        let mut c = self.zeros(rows * columns)?;
        if rows * columns * inner == 0 {
            return Ok(c);
        }
        match self.precision {
            Precision::F32 => {
                if [rows, columns, inner].iter().any(|side| *side < NARROW)
                    || self.library(product, a, b, &mut c).is_err()
                {
                    self.plain(product, a, b, &mut c)?;
                }
            }
            Precision::Bf16 | Precision::F16 => {
                let (sizes_a, sizes_b) = (rows * inner, inner * columns);
                let (x, y) = (self.narrowed(a, sizes_a)?, self.narrowed(b, sizes_b)?);
                let done = [rows, columns, inner].iter().all(|side| *side >= NARROW)
                    && self.half_library(product, &x, &y, &mut c).is_ok();
                if !done {
                    let (x, y) = (self.widened(&x, sizes_a)?, self.widened(&y, sizes_b)?);
                    self.plain(product, &x, &y, &mut c)?;
                    c = self.widened(&self.narrowed(&c, rows * columns)?, rows * columns)?;
                }
            }
        }
        Ok(c)
    }

    fn plain(
        &self,
        p: Product,
        a: &Floats,
        b: &Floats,
        c: &mut Floats,
    ) -> Result<(), BackendError> {
        let (rows, columns, inner) = (p.rows as i32, p.columns as i32, p.inner as i32);
        let (turn_a, turn_b) = (i32::from(p.turn_a), i32::from(p.turn_b));
        launch!(
            self,
            "gemm_plain",
            p.rows * p.columns,
            c,
            a,
            b,
            &rows,
            &columns,
            &inner,
            &turn_a,
            &turn_b
        )
    }

    #[allow(unsafe_code)]
    fn library(
        &self,
        p: Product,
        a: &Floats,
        b: &Floats,
        c: &mut Floats,
    ) -> Result<(), BackendError> {
        // SAFETY: the buffers have the sizes that the product says.
        let done = unsafe { self.products.matmul(p.config(), b, a, c, None, None) };
        done.map_err(|error| failed("a matrix product", format!("{error:?}")))
    }

    #[allow(unsafe_code)]
    fn half_library(
        &self,
        p: Product,
        a: &CudaSlice<u16>,
        b: &CudaSlice<u16>,
        c: &mut Floats,
    ) -> Result<(), BackendError> {
        let count = p.rows * p.columns;
        let mut narrow =
            self.stream.alloc_zeros::<u16>(count).map_err(|error| failed("allocating", error))?;
        let error = |error| failed("a matrix product", format!("{error:?}"));
        let shape = || failed("a matrix product", "a buffer is too short");
        let (lengths_a, lengths_b) = (p.rows * p.inner, p.inner * p.columns);
        // SAFETY: the buffers have the sizes that the product says, and 16-bit floats the size of u16.
        unsafe {
            if self.precision == Precision::F16 {
                let x = a.transmute::<f16>(lengths_a).ok_or_else(shape)?;
                let y = b.transmute::<f16>(lengths_b).ok_or_else(shape)?;
                let mut z = narrow.transmute_mut::<f16>(count).ok_or_else(shape)?;
                self.products.matmul(p.config(), &y, &x, &mut z, None, None).map_err(error)?;
            } else {
                let x = a.transmute::<bf16>(lengths_a).ok_or_else(shape)?;
                let y = b.transmute::<bf16>(lengths_b).ok_or_else(shape)?;
                let mut z = narrow.transmute_mut::<bf16>(count).ok_or_else(shape)?;
                self.products.matmul(p.config(), &y, &x, &mut z, None, None).map_err(error)?;
            }
        }
        *c = self.widened(&narrow, count)?;
        Ok(())
    }

    fn narrowed(&self, values: &Floats, count: usize) -> Result<CudaSlice<u16>, BackendError> {
        let mut out = self
            .stream
            .alloc_zeros::<u16>(count.max(1))
            .map_err(|error| failed("allocating", error))?;
        let length = count as i32;
        if self.precision == Precision::F16 {
            launch!(self, "to_f16", count, &mut out, values, &length)?;
        } else {
            launch!(self, "to_bf16", count, &mut out, values, &length)?;
        }
        Ok(out)
    }

    fn widened(&self, values: &CudaSlice<u16>, count: usize) -> Result<Floats, BackendError> {
        let mut out = self.zeros(count)?;
        let length = count as i32;
        if self.precision == Precision::F16 {
            launch!(self, "from_f16", count, &mut out, values, &length)?;
        } else {
            launch!(self, "from_bf16", count, &mut out, values, &length)?;
        }
        Ok(out)
    }

    /// The shape of a launch that leaves [`super::kernels::PARTIAL_SUMS`] partial sums.
    pub(super) fn partial_shape() -> LaunchConfig {
        LaunchConfig { grid_dim: (1, 1, 1), block_dim: (256, 1, 1), shared_mem_bytes: 0 }
    }
}
