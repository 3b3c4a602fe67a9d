//! Training on a GPU: the network's steps forward and backward, the loss, the optimiser.

mod backward;

use std::rc::Rc;
use std::time::{Duration, Instant};

use cudarc::driver::{CudaSlice, PushKernelArg};

use super::device::{Device, Floats, Product, launch};
use super::failed;
use super::kernels::PARTIAL_SUMS;
use crate::backend::{BackendError, Batch, Pass, Session, check_batch, dropout, expect_length};
use crate::collective::Collective;
use crate::network::{NORM_EPSILON, Network, Step};
use crate::optimiser::{State, Update};
use crate::random::Purpose;
use crate::spec::Task;
use crate::train::events::DeviceUse;

/// What a step leaves for the way back.
enum Kept {
    Nothing,
    Dense { input: Rc<Floats>, weight: Floats },
    Relu { output: Rc<Floats> },
    Norm { input: Rc<Floats>, means: Floats, roots: Floats, gain: Floats },
}

struct Forward {
    logits: Floats,
    kept: Vec<Kept>,
    widths: Vec<usize>,
    codes: CudaSlice<u32>,
}

pub(super) struct CudaSession {
    device: Device,
    network: Network,
    task: Task,
    parameters: Floats,
    first: Floats,
    second: Floats,
    gradient: Floats,
    decays: Floats,
    busy: Duration,
}

impl CudaSession {
    pub(super) fn new(
        device: Device,
        network: &Network,
        task: Task,
        state: &State,
    ) -> Result<Self, BackendError> {
        let count = network.parameter_count();
        let decays = network.parameters.iter().flat_map(|parameter| {
            std::iter::repeat_n(f32::from(u8::from(parameter.decays)), parameter.len())
        });
        let decays = device.upload(&decays.collect::<Vec<f32>>())?;
        let empty = || device.zeros(count);
        let (parameters, first, second, gradient) = (empty()?, empty()?, empty()?, empty()?);
        let mut session = Self {
            network: network.clone(),
            task,
            parameters,
            first,
            second,
            gradient,
            decays,
            busy: Duration::ZERO,
            device,
        };
        session.restore(state)?;
        Ok(session)
    }

    fn parameter(&self, index: usize) -> Result<Floats, BackendError> {
        self.device.part(&self.parameters, self.network.parameters[index].range())
    }

    fn inputs(&self, batch: &Batch<'_>, codes: &CudaSlice<u32>) -> Result<Floats, BackendError> {
        let device = &self.device;
        let numbers = device.upload(batch.numbers)?;
        let stride = self.network.input_width();
        let (rows, stride_i, none) = (batch.rows as i32, stride as i32, 0i32);
        let mut inputs = device.zeros(batch.rows * stride)?;
        let width = self.network.numeric_width as i32;
        if width > 0 {
            let threads = batch.rows * self.network.numeric_width;
            launch!(
                device,
                "copy_columns",
                threads,
                &mut inputs,
                &numbers,
                &rows,
                &width,
                &stride_i,
                &none
            )?;
        }
        if self.network.wide {
            return Ok(inputs);
        }
        let tables = self.network.embeddings.len() as i32;
        let mut at = width;
        for (position, index) in self.network.embeddings.iter().enumerate() {
            let table = self.parameter(*index)?;
            let columns = self.network.parameters[*index].shape.1;
            let (width, position) = (columns as i32, position as i32);
            launch!(
                device,
                "gather",
                batch.rows * columns,
                &mut inputs,
                &table,
                codes,
                &rows,
                &width,
                &stride_i,
                &at,
                &tables,
                &position
            )?;
            at += width;
        }
        Ok(inputs)
    }

    fn forward(&self, batch: &Batch<'_>, pass: Option<&Pass>) -> Result<Forward, BackendError> {
        let codes = self.device.upload(batch.codes)?;
        let mut x = Rc::new(self.inputs(batch, &codes)?);
        let mut width = self.network.input_width();
        let (mut kept, mut widths, mut saved) = (Vec::new(), Vec::new(), Vec::new());
        for (layer, step) in self.network.steps.iter().enumerate() {
            widths.push(width);
            let (next, keep) = match step {
                Step::Dense { weight, bias } => {
                    let outputs = self.network.parameters[*weight].shape.1;
                    let (next, weight) =
                        self.dense(batch.rows, width, outputs, *weight, *bias, &x)?;
                    width = outputs;
                    (Rc::new(next), Kept::Dense { input: Rc::clone(&x), weight })
                }
                Step::Relu => {
                    let next = Rc::new(self.relu(batch.rows * width, &x)?);
                    (Rc::clone(&next), Kept::Relu { output: next })
                }
                Step::Dropout { rate } => match pass {
                    None => (x, Kept::Nothing),
                    Some(pass) => (
                        Rc::new(self.drop_out(layer, *rate, pass, batch.rows, width, &x)?),
                        Kept::Nothing,
                    ),
                },
                Step::LayerNorm { gain, shift } => {
                    self.norm(batch.rows, width, *gain, *shift, x)?
                }
                Step::Save => {
                    saved.push(Rc::clone(&x));
                    (x, Kept::Nothing)
                }
                Step::AddSaved => {
                    let mut sum = self.device.part(&x, 0..batch.rows * width)?;
                    if let Some(before) = saved.pop() {
                        self.add(&mut sum, &before, batch.rows * width)?;
                    }
                    (Rc::new(sum), Kept::Nothing)
                }
            };
            kept.push(keep);
            x = next;
        }
        let mut logits = self.device.part(&x, 0..batch.rows * self.network.outputs)?;
        if self.network.wide {
            self.add_wide(batch.rows, &codes, &mut logits)?;
        }
        Ok(Forward { logits, kept, widths, codes })
    }

    fn dense(
        &self,
        rows: usize,
        inputs: usize,
        outputs: usize,
        weight: usize,
        bias: usize,
        x: &Floats,
    ) -> Result<(Floats, Floats), BackendError> {
        let (weight, bias) = (self.parameter(weight)?, self.parameter(bias)?);
        let product =
            Product { rows, columns: outputs, inner: inputs, turn_a: false, turn_b: false };
        let mut out = self.device.multiply(product, x, &weight)?;
        let (count, width) = (rows as i32, outputs as i32);
        launch!(self.device, "add_bias", rows * outputs, &mut out, &bias, &count, &width)?;
        Ok((out, weight))
    }

    fn relu(&self, count: usize, x: &Floats) -> Result<Floats, BackendError> {
        let mut out = self.device.zeros(count)?;
        let length = count as i32;
        launch!(self.device, "relu", count, &mut out, x, &length)?;
        Ok(out)
    }

    /// The same factors on the way there and on the way back.
    fn drop_out(
        &self,
        layer: usize,
        rate: f32,
        pass: &Pass,
        rows: usize,
        width: usize,
        x: &Floats,
    ) -> Result<Floats, BackendError> {
        let mut out = self.device.zeros(rows * width)?;
        let (length, first) = ((rows * width) as i32, (pass.first_row * width) as u64);
        let key = dropout::layer_seed(pass.seed, layer);
        let (purpose, step, kept) = (Purpose::Dropout as u32, pass.step, 1.0 / (1.0 - rate));
        launch!(
            self.device,
            "dropout",
            rows * width,
            &mut out,
            x,
            &length,
            &first,
            &key,
            &purpose,
            &step,
            &rate,
            &kept
        )?;
        Ok(out)
    }

    fn norm(
        &self,
        rows: usize,
        width: usize,
        gain: usize,
        shift: usize,
        x: Rc<Floats>,
    ) -> Result<(Rc<Floats>, Kept), BackendError> {
        let (gain, shift) = (self.parameter(gain)?, self.parameter(shift)?);
        let mut out = self.device.zeros(rows * width)?;
        let (mut means, mut roots) = (self.device.zeros(rows)?, self.device.zeros(rows)?);
        let (count, columns, epsilon) = (rows as i32, width as i32, NORM_EPSILON);
        launch!(
            self.device,
            "norm",
            rows,
            &mut out,
            &mut means,
            &mut roots,
            &*x,
            &gain,
            &shift,
            &count,
            &columns,
            &epsilon
        )?;
        Ok((Rc::new(out), Kept::Norm { input: x, means, roots, gain }))
    }

    fn add(&self, sum: &mut Floats, other: &Floats, count: usize) -> Result<(), BackendError> {
        let length = count as i32;
        launch!(self.device, "add", count, sum, other, &length)
    }

    fn add_wide(
        &self,
        rows: usize,
        codes: &CudaSlice<u32>,
        logits: &mut Floats,
    ) -> Result<(), BackendError> {
        let (count, width) = (rows as i32, self.network.outputs as i32);
        let tables = self.network.embeddings.len() as i32;
        for (position, index) in self.network.embeddings.iter().enumerate() {
            let (table, position) = (self.parameter(*index)?, position as i32);
            launch!(
                self.device,
                "gather_add",
                rows * self.network.outputs,
                &mut *logits,
                &table,
                codes,
                &count,
                &width,
                &tables,
                &position
            )?;
        }
        Ok(())
    }

    fn slopes(
        &self,
        batch: &Batch<'_>,
        logits: &Floats,
        scale: f32,
    ) -> Result<(Floats, f64), BackendError> {
        let device = &self.device;
        let (labels, weights) = (device.upload(batch.labels)?, device.upload(batch.weights)?);
        let mut slopes = device.zeros(batch.rows * self.network.outputs)?;
        let mut losses = device.upload(&vec![0.0f64; batch.rows])?;
        let (rows, outputs) = (batch.rows as i32, self.network.outputs as i32);
        let task = match self.task {
            Task::Binary => 0i32,
            Task::Multiclass => 1,
            Task::Regression => 2,
        };
        launch!(
            device,
            "loss",
            batch.rows,
            &mut slopes,
            &mut losses,
            logits,
            &labels,
            &weights,
            &rows,
            &outputs,
            &task,
            &scale
        )?;
        let partial = self.partial_sums("sum_rows", &losses, batch.rows)?;
        Ok((slopes, partial.iter().sum()))
    }

    #[allow(unsafe_code)]
    fn partial_sums<T>(
        &self,
        kernel: &'static str,
        values: &CudaSlice<T>,
        count: usize,
    ) -> Result<Vec<f64>, BackendError> {
        let mut partial = self.device.upload(&vec![0.0f64; PARTIAL_SUMS])?;
        let length = count as i32;
        let function = self.device.function(kernel)?;
        let mut launch = self.device.stream().launch_builder(function);
        launch.arg(&mut partial).arg(values).arg(&length);
        // SAFETY: the kernel writes one partial sum per thread, and the shape has as many.
        unsafe { launch.launch(Device::partial_shape()) }.map_err(|error| failed(kernel, error))?;
        self.device.download(&partial)
    }
}

impl Session for CudaSession {
    fn backward(&mut self, batch: &Batch<'_>, pass: &Pass) -> Result<f64, BackendError> {
        check_batch(&self.network, batch)?;
        let started = Instant::now();
        if batch.rows == 0 {
            self.gradient = self.device.zeros(self.network.parameter_count())?;
            return Ok(0.0);
        }
        let forward = self.forward(batch, Some(pass))?;
        let (slopes, total) = self.slopes(batch, &forward.logits, pass.scale)?;
        self.backpropagate(batch, forward, slopes, pass)?;
        self.device.synchronize()?;
        self.busy += started.elapsed();
        Ok(total)
    }

    fn exchange(
        &mut self,
        collective: &dyn Collective,
        extras: &mut [f32],
    ) -> Result<(), BackendError> {
        if collective.ranks() == 1 {
            return Ok(());
        }
        let mut values = self.gradient()?;
        let own = values.len();
        values.extend_from_slice(extras);
        collective.all_reduce(&mut values)?;
        extras.copy_from_slice(&values[own..]);
        self.gradient = self.device.upload(&values[..own])?;
        Ok(())
    }

    fn squared_norm(&mut self) -> Result<f64, BackendError> {
        let count = self.network.parameter_count();
        Ok(self.partial_sums("sum_squares", &self.gradient, count)?.iter().sum())
    }

    fn update(&mut self, update: &Update) -> Result<(), BackendError> {
        let started = Instant::now();
        let count = self.network.parameter_count();
        let length = count as i32;
        launch!(
            self.device,
            "adamw",
            count,
            &mut self.parameters,
            &mut self.first,
            &mut self.second,
            &self.gradient,
            &self.decays,
            &length,
            &update.gradient_factor,
            &update.rate,
            &update.decay,
            &update.beta1,
            &update.beta2,
            &update.correction1,
            &update.correction2,
            &update.epsilon
        )?;
        self.device.synchronize()?;
        self.busy += started.elapsed();
        Ok(())
    }

    fn logits(&mut self, batch: &Batch<'_>, logits: &mut Vec<f32>) -> Result<(), BackendError> {
        check_batch(&self.network, batch)?;
        if batch.rows == 0 {
            logits.clear();
            return Ok(());
        }
        *logits = self.device.download(&self.forward(batch, None)?.logits)?;
        Ok(())
    }

    fn gradient(&mut self) -> Result<Vec<f32>, BackendError> {
        let mut values = self.device.download(&self.gradient)?;
        values.truncate(self.network.parameter_count());
        Ok(values)
    }

    fn state(&mut self) -> Result<State, BackendError> {
        let count = self.network.parameter_count();
        let read = |values: &Floats| {
            self.device.download(values).map(|mut values| {
                values.truncate(count);
                values
            })
        };
        Ok(State {
            parameters: read(&self.parameters)?,
            first: read(&self.first)?,
            second: read(&self.second)?,
        })
    }

    fn restore(&mut self, state: &State) -> Result<(), BackendError> {
        let expected = self.network.parameter_count();
        for part in [&state.parameters, &state.first, &state.second] {
            expect_length("the state", part.len(), expected)?;
        }
        self.parameters = self.device.upload(&state.parameters)?;
        self.first = self.device.upload(&state.first)?;
        self.second = self.device.upload(&state.second)?;
        Ok(())
    }

    fn device_use(&self) -> Option<DeviceUse> {
        let free = self.device.stream().context().mem_get_info().map_or(0, |(free, _)| free);
        Some(DeviceUse { busy_s: self.busy.as_secs_f64(), free_bytes: free as u64 })
    }
}
