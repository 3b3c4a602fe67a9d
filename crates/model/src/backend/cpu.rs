//! The CPU: candle's tensors and backward pass, our layers, losses and optimiser around them.
//!
//! Layers are composed of operations that have a gradient: candle's fused norms and softmax cut the
//! graph without an error, so every parameter is asserted to have a gradient after every backward
//! pass. The loss is computed beside the graph: its gradient with respect to the logits enters as the
//! constant factor of a sum.
//!
//! Results do not depend on the number of threads: products are split over rows and columns of the
//! result, never along a sum.

use std::sync::Arc;

use candle_core::backprop::GradStore;
use candle_core::{D, DType, Device, Tensor, Var};

use super::{
    Backend, BackendError, Batch, Hardware, Pass, Session, check_batch, dropout, expect_length,
};
use crate::collective::Collective;
use crate::loss::loss_and_gradient;
use crate::network::{NORM_EPSILON, Network, Step};
use crate::optimiser::{State, Update};
use crate::spec::{Precision, Task};

/// The processor, with so many threads.
#[derive(Clone, Debug)]
pub struct Cpu {
    threads: usize,
}

impl Cpu {
    /// Sessions use `threads` threads each; 0 takes as many as there are cores.
    pub fn new(threads: usize) -> Self {
        let available = || std::thread::available_parallelism().map_or(1, usize::from);
        Self { threads: if threads == 0 { available() } else { threads } }
    }
}

impl Cpu {
    fn pool(&self) -> Result<rayon::ThreadPool, BackendError> {
        rayon::ThreadPoolBuilder::new()
            .num_threads(self.threads)
            .build()
            .map_err(|error| device("starting threads", error))
    }
}

fn processor_name() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split(':').nth(1)).map(str::trim);
    name.unwrap_or(std::env::consts::ARCH).to_owned()
}

impl Backend for Cpu {
    fn hardware(&self) -> Hardware {
        Hardware {
            backend: "cpu".to_owned(),
            name: processor_name(),
            threads: self.threads,
            ..Hardware::default()
        }
    }

    fn rows_that_fit(&self, _network: &Network) -> Option<usize> {
        None
    }

    fn within(&self, work: &mut (dyn FnMut() + Send)) -> Result<(), BackendError> {
        self.pool()?.install(work);
        Ok(())
    }

    fn session(
        &self,
        network: &Network,
        task: Task,
        precision: Precision,
        state: &State,
        _rank: usize,
    ) -> Result<Box<dyn Session>, BackendError> {
        let pool = match rayon::current_thread_index() {
            Some(_) => None,
            None => Some(Arc::new(self.pool()?)),
        };
        let compute = match precision {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
            Precision::F16 => DType::F16,
        };
        let mut session = CpuSession {
            network: network.clone(),
            task,
            compute,
            state: State::default(),
            gradient: vec![0.0; network.parameter_count()],
            pool,
        };
        session.restore(state)?;
        Ok(Box::new(session))
    }
}

fn device(operation: &'static str, error: impl std::fmt::Display) -> BackendError {
    BackendError::Device { operation, why: error.to_string() }
}

struct CpuSession {
    network: Network,
    task: Task,
    compute: DType,
    state: State,
    gradient: Vec<f32>,
    /// Where to compute; `None`: on the caller's thread and those of its pool.
    pool: Option<Arc<rayon::ThreadPool>>,
}

fn computing<R: Send>(pool: Option<Arc<rayon::ThreadPool>>, work: impl FnOnce() -> R + Send) -> R {
    match pool {
        Some(pool) => pool.install(work),
        None => work(),
    }
}

/// The graph of one batch.
struct Graph<'a> {
    network: &'a Network,
    variables: &'a [Var],
    compute: DType,
}

impl CpuSession {
    /// The masters as variables of a graph.
    fn variables(&self) -> candle_core::Result<Vec<Var>> {
        let variable = |parameter: &crate::network::Parameter| {
            let values = &self.state.parameters[parameter.range()];
            Var::from_slice(values, parameter.shape, &Device::Cpu)
        };
        self.network.parameters.iter().map(variable).collect()
    }

    fn forward(
        &self,
        variables: &[Var],
        batch: &Batch<'_>,
        pass: Option<&Pass>,
    ) -> candle_core::Result<Tensor> {
        let graph = Graph { network: &self.network, variables, compute: self.compute };
        graph.logits(batch, pass)
    }

    fn differentiate(
        &mut self,
        batch: &Batch<'_>,
        pass: &Pass,
    ) -> candle_core::Result<(f64, Vec<Var>, GradStore)> {
        let variables = self.variables()?;
        let logits = self.forward(&variables, batch, Some(pass))?;
        let values = logits.flatten_all()?.to_vec1::<f32>()?;
        let mut slopes = vec![0.0; values.len()];
        let total = loss_and_gradient(
            self.task,
            &values,
            batch.labels,
            batch.weights,
            pass.scale,
            &mut slopes,
        );
        let slopes = Tensor::from_vec(slopes, logits.shape(), &Device::Cpu)?;
        let gradients = (logits * slopes)?.sum_all()?.backward()?;
        Ok((total, variables, gradients))
    }
}

impl Graph<'_> {
    fn parameter(&self, index: usize) -> candle_core::Result<Tensor> {
        self.variables[index].as_tensor().to_dtype(self.compute)
    }

    fn logits(&self, batch: &Batch<'_>, pass: Option<&Pass>) -> candle_core::Result<Tensor> {
        let embedded = self.embedded(batch)?;
        let numbers = Tensor::from_slice(
            batch.numbers,
            (batch.rows, self.network.numeric_width),
            &Device::Cpu,
        )?;
        let mut parts = vec![numbers.to_dtype(self.compute)?];
        if !self.network.wide && !embedded.is_empty() {
            if self.network.numeric_width == 0 {
                parts.clear();
            }
            parts.extend(embedded.iter().cloned());
        }
        let mut activations = match parts.len() {
            1 => parts.swap_remove(0),
            _ => Tensor::cat(&parts, 1)?,
        };
        let mut saved = Vec::new();
        for (layer, step) in self.network.steps.iter().enumerate() {
            activations = self.step(layer, step, activations, &mut saved, pass)?;
        }
        if self.network.wide {
            for part in embedded {
                activations = (activations + part)?;
            }
        }
        activations.to_dtype(DType::F32)
    }

    fn embedded(&self, batch: &Batch<'_>) -> candle_core::Result<Vec<Tensor>> {
        let tables = self.network.embeddings.len();
        let embed = |(position, table): (usize, &usize)| {
            let codes: Vec<u32> =
                batch.codes.iter().skip(position).step_by(tables).copied().collect();
            let codes = Tensor::from_vec(codes, batch.rows, &Device::Cpu)?;
            self.parameter(*table)?.index_select(&codes, 0)
        };
        self.network.embeddings.iter().enumerate().map(embed).collect()
    }

    fn step(
        &self,
        layer: usize,
        step: &Step,
        x: Tensor,
        saved: &mut Vec<Tensor>,
        pass: Option<&Pass>,
    ) -> candle_core::Result<Tensor> {
        match step {
            Step::Dense { weight, bias } => {
                // A network without numeric inputs and embeddings still has its bias.
                let bias = self.parameter(*bias)?;
                if self.network.parameters[*weight].is_empty() {
                    let shape = (x.dim(0)?, bias.dim(1)?);
                    return bias.broadcast_as(shape)?.contiguous();
                }
                x.matmul(&self.parameter(*weight)?)?.broadcast_add(&bias)
            }
            Step::Relu => x.relu(),
            Step::Dropout { rate } => match pass {
                None => Ok(x),
                Some(pass) => {
                    let (rows, width) = x.dims2()?;
                    let mask = dropout::mask(pass, layer, *rate, rows, width);
                    let mask = Tensor::from_vec(mask, (rows, width), &Device::Cpu)?;
                    x * mask.to_dtype(self.compute)?
                }
            },
            Step::LayerNorm { gain, shift } => {
                let x = x.to_dtype(DType::F32)?;
                let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
                let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
                let root = (variance + f64::from(NORM_EPSILON))?.sqrt()?;
                let normal = centred.broadcast_div(&root)?;
                normal
                    .broadcast_mul(self.variables[*gain].as_tensor())?
                    .broadcast_add(self.variables[*shift].as_tensor())?
                    .to_dtype(self.compute)
            }
            Step::Save => {
                saved.push(x.clone());
                Ok(x)
            }
            Step::AddSaved => match saved.pop() {
                Some(before) => x + before,
                None => Ok(x),
            },
        }
    }
}

impl Session for CpuSession {
    fn backward(&mut self, batch: &Batch<'_>, pass: &Pass) -> Result<f64, BackendError> {
        check_batch(&self.network, batch)?;
        if batch.rows == 0 {
            self.gradient.fill(0.0);
            return Ok(0.0);
        }
        let (total, variables, gradients) =
            computing(self.pool.clone(), || self.differentiate(batch, pass))
                .map_err(|error| device("the backward pass", error))?;
        for (parameter, variable) in self.network.parameters.iter().zip(&variables) {
            let into = &mut self.gradient[parameter.range()];
            if into.is_empty() {
                continue;
            }
            let name = || parameter.name.clone();
            let found =
                gradients.get(variable).ok_or_else(|| BackendError::NoGradient { name: name() })?;
            let values = found
                .flatten_all()
                .and_then(|flat| flat.to_vec1::<f32>())
                .map_err(|error| device("reading a gradient", error))?;
            expect_length("a gradient", values.len(), into.len())?;
            into.copy_from_slice(&values);
        }
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
        let own = self.gradient.len();
        self.gradient.extend_from_slice(extras);
        let result = collective.all_reduce(&mut self.gradient);
        extras.copy_from_slice(&self.gradient[own..]);
        self.gradient.truncate(own);
        Ok(result?)
    }

    fn squared_norm(&mut self) -> Result<f64, BackendError> {
        Ok(self.gradient.iter().map(|g| f64::from(*g) * f64::from(*g)).sum())
    }

    fn update(&mut self, update: &Update) -> Result<(), BackendError> {
        self.state.apply(&self.network, &self.gradient, update);
        Ok(())
    }

    fn logits(&mut self, batch: &Batch<'_>, logits: &mut Vec<f32>) -> Result<(), BackendError> {
        check_batch(&self.network, batch)?;
        let values = computing(self.pool.clone(), || {
            self.forward(&self.variables()?, batch, None)?.flatten_all()?.to_vec1::<f32>()
        });
        *logits = values.map_err(|error| device("the forward pass", error))?;
        Ok(())
    }

    fn gradient(&mut self) -> Result<Vec<f32>, BackendError> {
        Ok(self.gradient.clone())
    }

    fn state(&mut self) -> Result<State, BackendError> {
        Ok(self.state.clone())
    }

    fn restore(&mut self, state: &State) -> Result<(), BackendError> {
        let expected = self.network.parameter_count();
        for part in [&state.parameters, &state.first, &state.second] {
            expect_length("the state", part.len(), expected)?;
        }
        self.state = state.clone();
        Ok(())
    }
}
