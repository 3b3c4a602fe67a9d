//! The steps of a network on the way back.

use cudarc::driver::{CudaSlice, PushKernelArg};

use super::super::device::{Floats, Product, launch};
use super::super::failed;
use super::{CudaSession, Forward, Kept};
use crate::backend::{BackendError, Batch, Pass};
use crate::network::Step;

struct NormParts<'a> {
    input: &'a Floats,
    means: &'a Floats,
    roots: &'a Floats,
    gain: &'a Floats,
}

impl CudaSession {
    /// Adds a table's slopes, row by row of the batch.
    fn scatter(
        &mut self,
        position: usize,
        rows: usize,
        slopes: &Floats,
        codes: &CudaSlice<u32>,
    ) -> Result<(), BackendError> {
        let parameter = &self.network.parameters[self.network.embeddings[position]];
        let (range, columns) = (parameter.range(), parameter.shape.1);
        let mut table = self.device.zeros(range.len())?;
        let (count, width) = (rows as i32, columns as i32);
        let (tables, place) = (self.network.embeddings.len() as i32, position as i32);
        launch!(
            self.device,
            "scatter_add",
            rows * columns,
            &mut table,
            slopes,
            codes,
            &count,
            &width,
            &tables,
            &place
        )?;
        self.device.place(&table, &mut self.gradient, range)
    }

    pub(super) fn backpropagate(
        &mut self,
        batch: &Batch<'_>,
        forward: Forward,
        slopes: Floats,
        pass: &Pass,
    ) -> Result<(), BackendError> {
        let rows = batch.rows;
        if self.network.wide {
            for position in 0..self.network.embeddings.len() {
                self.scatter(position, rows, &slopes, &forward.codes)?;
            }
        }
        let mut slopes = slopes;
        let mut saved: Vec<Floats> = Vec::new();
        let steps = self.network.steps.clone();
        let ways = steps.iter().zip(forward.kept).zip(&forward.widths).enumerate().rev();
        for (layer, ((step, kept), width)) in ways {
            slopes = match (step, kept) {
                (Step::Dense { weight, bias }, Kept::Dense { input, weight: values }) => {
                    self.dense_back(rows, *width, *weight, *bias, &input, &values, &slopes)?
                }
                (Step::Relu, Kept::Relu { output }) => {
                    let mut back = self.device.zeros(rows * width)?;
                    let length = (rows * width) as i32;
                    launch!(
                        self.device,
                        "relu_back",
                        rows * width,
                        &mut back,
                        &*output,
                        &slopes,
                        &length
                    )?;
                    back
                }
                (Step::Dropout { rate }, _) => {
                    self.drop_out(layer, *rate, pass, rows, *width, &slopes)?
                }
                (
                    Step::LayerNorm { gain, shift },
                    Kept::Norm { input, means, roots, gain: values },
                ) => {
                    let parts =
                        NormParts { input: &input, means: &means, roots: &roots, gain: &values };
                    self.norm_back(rows, *width, (*gain, *shift), &parts, &slopes)?
                }
                (Step::AddSaved, _) => {
                    saved.push(self.device.part(&slopes, 0..rows * width)?);
                    slopes
                }
                (Step::Save, _) => {
                    if let Some(other) = saved.pop() {
                        self.add(&mut slopes, &other, rows * width)?;
                    }
                    slopes
                }
                _ => return Err(failed("the backward pass", "a step has kept nothing")),
            };
        }
        if self.network.wide { Ok(()) } else { self.embeddings_back(rows, &slopes, &forward.codes) }
    }

    #[allow(clippy::too_many_arguments)]
    fn dense_back(
        &mut self,
        rows: usize,
        inputs: usize,
        weight: usize,
        bias: usize,
        input: &Floats,
        values: &Floats,
        slopes: &Floats,
    ) -> Result<Floats, BackendError> {
        let outputs = self.network.parameters[weight].shape.1;
        let by_weight =
            Product { rows: inputs, columns: outputs, inner: rows, turn_a: true, turn_b: false };
        let own = self.device.multiply(by_weight, input, slopes)?;
        let range = self.network.parameters[weight].range();
        self.device.place(&own, &mut self.gradient, range)?;
        let mut own = self.device.zeros(outputs)?;
        let (count, width) = (rows as i32, outputs as i32);
        launch!(self.device, "column_sum", outputs, &mut own, slopes, &count, &width)?;
        let range = self.network.parameters[bias].range();
        self.device.place(&own, &mut self.gradient, range)?;
        let by_input =
            Product { rows, columns: inputs, inner: outputs, turn_a: false, turn_b: true };
        self.device.multiply(by_input, slopes, values)
    }

    fn norm_back(
        &mut self,
        rows: usize,
        width: usize,
        (gain, shift): (usize, usize),
        parts: &NormParts<'_>,
        slopes: &Floats,
    ) -> Result<Floats, BackendError> {
        let device = &self.device;
        let (count, columns) = (rows as i32, width as i32);
        let (mut by_gain, mut by_shift) = (device.zeros(width)?, device.zeros(width)?);
        launch!(
            device,
            "norm_back_parameters",
            width,
            &mut by_gain,
            &mut by_shift,
            parts.means,
            parts.roots,
            parts.input,
            slopes,
            &count,
            &columns
        )?;
        let mut back = device.zeros(rows * width)?;
        launch!(
            device,
            "norm_back",
            rows,
            &mut back,
            parts.means,
            parts.roots,
            parts.input,
            parts.gain,
            slopes,
            &count,
            &columns
        )?;
        let range = self.network.parameters[gain].range();
        device.place(&by_gain, &mut self.gradient, range)?;
        let range = self.network.parameters[shift].range();
        device.place(&by_shift, &mut self.gradient, range)?;
        Ok(back)
    }

    fn embeddings_back(
        &mut self,
        rows: usize,
        slopes: &Floats,
        codes: &CudaSlice<u32>,
    ) -> Result<(), BackendError> {
        let stride = self.network.input_width() as i32;
        let mut at = self.network.numeric_width as i32;
        for position in 0..self.network.embeddings.len() {
            let columns = self.network.parameters[self.network.embeddings[position]].shape.1;
            let mut own = self.device.zeros(rows * columns)?;
            let (count, width) = (rows as i32, columns as i32);
            launch!(
                self.device,
                "take_columns",
                rows * columns,
                &mut own,
                slopes,
                &count,
                &width,
                &stride,
                &at
            )?;
            self.scatter(position, rows, &own, codes)?;
            at += width;
        }
        Ok(())
    }
}
