//! Prediction: a model laid out once, then rows without an allocation, the same bits every time.
//!
//! One row or many, alone or among others, on any thread: a row's scores are the same bits. A value
//! that is missing, mistyped or infinite is a typed error for its row, never a score. Does not know
//! where rows come from or who asks.

pub mod dense;
pub mod forest;

use crate::calibration::{CalibrationMap, binary_probability};
use crate::loss::{sigmoid, softmax};
use crate::model::{Body, Model, Target};
use crate::preprocess::{Preprocessing, ValueError};
use crate::spec::Task;
use crate::table::Input;
use dense::{Buffers, Program, ROWS};
use forest::Forest;

use crate::onnx::{OnnxError, OnnxModel};

/// Why a row got no score.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScoreError {
    /// A value is missing or not what the signature says.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The numbers overflowed on the way.
    #[error("the score is not a finite number: the inputs are far outside of what was trained on")]
    NotFinite,
    /// A model of another tool cannot be evaluated on the row.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// The model's parts do not fit together.
    #[error("the model cannot be used: {0}")]
    Model(String),
    /// The output slice has another length than rows × outputs.
    #[error("there is room for {given} scores, {expected} are computed")]
    Room {
        /// Room given.
        given: usize,
        /// Scores computed.
        expected: usize,
    },
}

#[derive(Clone, Debug)]
enum Engine {
    Network {
        program: Program,
        numeric_width: usize,
        /// `(values, width)` per categorical column.
        tables: Vec<(Vec<f32>, usize)>,
        wide: bool,
    },
    Forest(Forest),
    Onnx(Box<OnnxModel>),
}

/// A model, ready to predict.
#[derive(Clone, Debug)]
pub struct Scorer {
    task: Task,
    preprocessing: Preprocessing,
    target: Target,
    calibration: CalibrationMap,
    engine: Engine,
    numbers: usize,
    codes: usize,
    outputs: usize,
}

/// Room for computing; one per thread.
#[derive(Clone, Debug)]
pub struct Scratch {
    numbers: Vec<f64>,
    codes: Vec<u32>,
    rows: [usize; ROWS],
    buffers: Option<Buffers>,
    inputs: Vec<f64>,
    logits: Vec<f64>,
}

impl Scorer {
    /// Lays out `model`.
    ///
    /// # Errors
    /// [`ScoreError::Model`].
    pub fn new(model: &Model) -> Result<Self, ScoreError> {
        let outputs = model.outputs();
        let wrong = |why: &str| ScoreError::Model(why.to_owned());
        if outputs == 0 {
            return Err(wrong("it has no outputs"));
        }
        model.preprocessing.check().map_err(wrong)?;
        let engine = match &model.body {
            Body::Network { network, parameters } => {
                network.check().map_err(wrong)?;
                if parameters.len() != network.parameter_count() || network.outputs != outputs {
                    return Err(wrong("its parameters do not fit its network"));
                }
                if network.numeric_width != model.preprocessing.width()
                    || network.embeddings.len() != model.preprocessing.codes()
                {
                    return Err(wrong("its network does not fit its preprocessing"));
                }
                let counts = model.preprocessing.code_counts();
                let rows =
                    network.embeddings.iter().map(|table| network.parameters[*table].shape.0);
                if !rows.eq(counts) {
                    return Err(wrong("its embeddings do not fit its vocabularies"));
                }
                let table = |index: &usize| {
                    let parameter = &network.parameters[*index];
                    (parameters[parameter.range()].to_vec(), parameter.shape.1)
                };
                Engine::Network {
                    program: Program::new(network, parameters),
                    numeric_width: network.numeric_width,
                    tables: network.embeddings.iter().map(table).collect(),
                    wide: network.wide,
                }
            }
            Body::Forest(forest) => {
                forest.check().map_err(|error| ScoreError::Model(error.to_string()))?;
                let fits = forest.numbers == model.preprocessing.numbers()
                    && forest.categories.len() == model.preprocessing.codes();
                if forest.base.len() != outputs || !fits {
                    return Err(wrong("its trees do not fit its preprocessing"));
                }
                Engine::Forest(forest.clone())
            }
            Body::Onnx(file) => {
                let graph = OnnxModel::read(file)?;
                let given = model.preprocessing.columns.len();
                if model.preprocessing.codes() > 0 || graph.columns().is_some_and(|c| c != given) {
                    let expected = graph.columns().map_or("some".to_owned(), |c| c.to_string());
                    return Err(OnnxError::Inputs { given, expected }.into());
                }
                Engine::Onnx(Box::new(graph))
            }
        };
        Ok(Self {
            task: model.task,
            preprocessing: model.preprocessing.clone(),
            target: model.target.clone(),
            calibration: model.calibration.clone(),
            engine,
            numbers: model.preprocessing.numbers(),
            codes: model.preprocessing.codes(),
            outputs,
        })
    }

    /// Scores per row: one, or one per class of a multiclass task.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// What the outputs stand for.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The columns that a row has, in order.
    pub fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    /// Room for computing.
    pub fn scratch(&self) -> Scratch {
        let (buffers, inputs) = match &self.engine {
            Engine::Network { program, .. } => (Some(program.buffers()), 0),
            Engine::Forest(forest) => (None, forest.width()),
            Engine::Onnx(_) => (None, 0),
        };
        Scratch {
            numbers: vec![0.0; self.numbers],
            codes: vec![0; self.codes * ROWS],
            rows: [0; ROWS],
            buffers,
            inputs: vec![0.0; inputs],
            logits: vec![0.0; self.outputs * ROWS],
        }
    }

    /// Scores one row into `out`, which has [`Scorer::outputs`] entries. Does not allocate, unless to
    /// name an offending column, or for a model of another tool.
    ///
    /// # Errors
    /// [`ScoreError`]; `out` is then unspecified.
    pub fn score_into(
        &self,
        inputs: &[Input<'_>],
        scratch: &mut Scratch,
        out: &mut [f64],
    ) -> Result<(), ScoreError> {
        if out.len() != self.outputs {
            return Err(ScoreError::Room { given: out.len(), expected: self.outputs });
        }
        self.logits_into(inputs, scratch)?;
        let (logits, _) = scratch.logits.split_at(self.outputs);
        self.finish(logits, out)
    }

    /// Uncalibrated logits of one row (for a regression, the standardised number).
    ///
    /// # Errors
    /// [`ScoreError`].
    pub fn raw(
        &self,
        inputs: &[Input<'_>],
        scratch: &mut Scratch,
        logits: &mut [f64],
    ) -> Result<(), ScoreError> {
        if logits.len() != self.outputs {
            return Err(ScoreError::Room { given: logits.len(), expected: self.outputs });
        }
        self.logits_into(inputs, scratch)?;
        logits.copy_from_slice(&scratch.logits[..self.outputs]);
        self.link(logits);
        Ok(())
    }

    fn logits_into(&self, inputs: &[Input<'_>], scratch: &mut Scratch) -> Result<(), ScoreError> {
        self.load(inputs, 0, scratch)?;
        self.compute(1, scratch);
        Ok(())
    }

    /// Scores rows that lie one after another in `inputs`; `out` has rows × [`Scorer::outputs`]
    /// entries. The scores of a refused row are NaN, and `refuse` gets its position and the reason.
    ///
    /// # Errors
    /// [`ScoreError::Room`].
    pub fn score_rows(
        &self,
        inputs: &[Input<'_>],
        scratch: &mut Scratch,
        out: &mut [f64],
        refuse: &mut dyn FnMut(usize, ScoreError),
    ) -> Result<(), ScoreError> {
        let width = self.preprocessing.columns.len().max(1);
        let rows = inputs.len() / width;
        if out.len() != rows * self.outputs || !inputs.len().is_multiple_of(width) {
            return Err(ScoreError::Room { given: out.len(), expected: rows * self.outputs });
        }
        let mut loaded = 0;
        for (row, values) in inputs.chunks_exact(width).enumerate() {
            match self.load(values, loaded, scratch) {
                Ok(()) => {
                    scratch.rows[loaded] = row;
                    loaded += 1;
                }
                Err(why) => {
                    out[row * self.outputs..(row + 1) * self.outputs].fill(f64::NAN);
                    refuse(row, why);
                }
            }
            if loaded == ROWS || (row + 1 == rows && loaded > 0) {
                self.compute(loaded, scratch);
                self.give(loaded, scratch, out, refuse);
                loaded = 0;
            }
        }
        Ok(())
    }

    fn give(
        &self,
        loaded: usize,
        scratch: &Scratch,
        out: &mut [f64],
        refuse: &mut dyn FnMut(usize, ScoreError),
    ) {
        for (at, row) in scratch.rows[..loaded].iter().enumerate() {
            let out = &mut out[row * self.outputs..(row + 1) * self.outputs];
            let logits = &scratch.logits[at * self.outputs..(at + 1) * self.outputs];
            if let Err(why) = self.finish(logits, out) {
                out.fill(f64::NAN);
                refuse(*row, why);
            }
        }
    }

    /// Reads a row into slot `slot`; a forest's logits are computed here already.
    fn load(
        &self,
        values: &[Input<'_>],
        slot: usize,
        scratch: &mut Scratch,
    ) -> Result<(), ScoreError> {
        let codes = &mut scratch.codes[slot * self.codes..(slot + 1) * self.codes];
        self.preprocessing.read(values, &mut scratch.numbers, codes)?;
        match (&self.engine, &mut scratch.buffers) {
            (Engine::Network { program, numeric_width, tables, wide }, Some(buffers)) => {
                let into = program.input_mut(buffers, slot);
                let encoded = &mut into[..*numeric_width];
                self.preprocessing.encode(&scratch.numbers, encoded);
                if !encoded.iter().all(|input| input.is_finite()) {
                    return Err(ScoreError::NotFinite);
                }
                let mut at = *numeric_width;
                for ((values, width), code) in tables.iter().zip(codes).filter(|_| !wide) {
                    let start = *code as usize * width;
                    into[at..at + width].copy_from_slice(&values[start..start + width]);
                    at += width;
                }
            }
            (Engine::Forest(forest), _) => {
                let logits = &mut scratch.logits[slot * self.outputs..(slot + 1) * self.outputs];
                forest.inputs(&scratch.numbers, codes, &mut scratch.inputs);
                forest.logits(&scratch.inputs, logits);
            }
            (Engine::Onnx(graph), _) => {
                let logits = &mut scratch.logits[slot * self.outputs..(slot + 1) * self.outputs];
                onnx_scores(graph, self.task, &scratch.numbers, logits)?;
            }
            (Engine::Network { .. }, None) => {
                return Err(ScoreError::Model("the scratch is another model's".to_owned()));
            }
        }
        Ok(())
    }

    /// Logits of the loaded rows.
    fn compute(&self, rows: usize, scratch: &mut Scratch) {
        let (Engine::Network { program, tables, wide, .. }, Some(buffers)) =
            (&self.engine, &mut scratch.buffers)
        else {
            return;
        };
        program.run(buffers, rows);
        for row in 0..rows {
            let logits = &mut scratch.logits[row * self.outputs..(row + 1) * self.outputs];
            for (output, logit) in logits.iter_mut().enumerate() {
                let mut sum = program.logits(buffers, row)[output];
                if *wide {
                    let codes = &scratch.codes[row * self.codes..(row + 1) * self.codes];
                    for ((values, width), code) in tables.iter().zip(codes) {
                        sum += values[*code as usize * width + output];
                    }
                }
                *logit = f64::from(sum);
            }
        }
    }

    /// Trees of several classes are boosted one against the rest: their logits become logarithms of
    /// probabilities that sum to 1.
    fn link(&self, logits: &mut [f64]) {
        if self.task != Task::Multiclass || !matches!(self.engine, Engine::Forest(_)) {
            return;
        }
        let mut sum = 0.0;
        for logit in logits.iter_mut() {
            *logit = sigmoid(*logit).max(f64::MIN_POSITIVE);
            sum += *logit;
        }
        logits.iter_mut().for_each(|logit| *logit = libm::log(*logit / sum));
    }

    fn finish(&self, logits: &[f64], out: &mut [f64]) -> Result<(), ScoreError> {
        if logits.iter().any(|logit| !logit.is_finite()) {
            return Err(ScoreError::NotFinite);
        }
        if matches!(self.engine, Engine::Onnx(_)) {
            out.copy_from_slice(logits);
            return Ok(());
        }
        match self.task {
            Task::Binary => out[0] = binary_probability(&self.calibration, logits[0]),
            Task::Multiclass => {
                out.copy_from_slice(logits);
                self.link(out);
                let temperature = self.calibration.temperature();
                out.iter_mut().for_each(|logit| *logit /= temperature);
                softmax(out);
            }
            Task::Regression => {
                let Target::Number { mean, deviation } = self.target else {
                    return Err(ScoreError::Model("a regression without a scale".to_owned()));
                };
                out[0] = logits[0] * deviation + mean;
            }
        }
        Ok(())
    }

    /// Position of the predicted class: the most probable; of a binary task, the second from a
    /// probability of one half on. `None` for a regression.
    pub fn predicted_class(&self, scores: &[f64]) -> Option<usize> {
        match self.task {
            Task::Binary => Some(usize::from(*scores.first()? >= 0.5)),
            Task::Multiclass => Some(crate::metrics::classification::greatest(scores)),
            Task::Regression => None,
        }
    }
}

/// The scores of a row: one number, the probability of the second of two classes, or all of them.
fn onnx_scores(
    graph: &OnnxModel,
    task: Task,
    numbers: &[f64],
    scores: &mut [f64],
) -> Result<(), ScoreError> {
    let inputs: Vec<f32> = numbers.iter().map(|number| *number as f32).collect();
    if inputs.iter().any(|input| input.is_infinite()) {
        return Err(ScoreError::NotFinite);
    }
    let (given, values) = graph.scores(&inputs, inputs.len())?;
    let own = match (task, values.as_slice()) {
        (Task::Binary, [_, second]) => std::slice::from_ref(second),
        (_, all) if all.len() == scores.len() => all,
        _ => {
            let why = format!("it gives {given} scores where {} are needed", scores.len());
            return Err(ScoreError::Model(why));
        }
    };
    for (score, value) in scores.iter_mut().zip(own) {
        *score = f64::from(*value);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
