//! A joined label as an outcome: the truth, and what it says about the prediction.
//!
//! Does not know topics or columns: the truth is given.

use std::sync::Arc;

use falaj_event::Op;

use crate::judge::{Actual, Judgement, Task, judge};
use crate::{Joined, Label, Prediction};

/// What became of a prediction at some `T`.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The prediction.
    pub prediction: Arc<Prediction>,
    /// The label; of a judgement taken back, one without a row.
    pub label: Arc<Label>,
    /// The truth; `None` where the judgement is taken back, or the label is no value of the task.
    pub actual: Option<Arc<Actual>>,
    /// What that says; `None` exactly where `actual` is.
    pub judgement: Option<Judgement>,
    /// Whether it is the prediction's first judgement, or the first since one was taken back.
    pub first: bool,
}

impl Outcome {
    /// Judges a joined label. `actual` is the truth that its row holds; `None` where the judgement is
    /// taken back or the row holds none. A class that the model does not know judges nothing: it reads
    /// as a judgement taken back.
    pub fn of(task: &Task, actual: Option<Actual>, joined: &Joined) -> Self {
        let prediction = Arc::clone(&joined.prediction);
        let found = actual.filter(|_| joined.op != Op::Delete).and_then(|actual| {
            let Prediction { score, scores, predicted, .. } = &*prediction;
            let judgement = judge(task, *score, scores, predicted, &actual)?;
            Some((Arc::new(actual), judgement))
        });
        let (actual, judgement) = found.unzip();
        Self {
            prediction,
            label: Arc::clone(&joined.label),
            actual,
            judgement,
            first: joined.first,
        }
    }
}
