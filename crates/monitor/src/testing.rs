//! A small pipeline for the tests of this crate: two numbers, a name, a binary task.

use std::sync::Arc;

use falaj_drift::correction::Correction;
use falaj_drift::{CounterRandom, Metric};
use falaj_event::{LogTime, Value};

use crate::settings::{
    ColumnKind, Figure, FigureWindows, InputColumn, Limit, MonitorSettings, Test,
};
use crate::{Actual, HeldOut, Outcome, Prediction, ReferenceRows, ReferenceSet, Task, judge};

/// Length of a drift window.
pub const WINDOW_US: u64 = 1_000_000;

pub fn task() -> Task {
    Task::Binary { positive: "true".into() }
}

pub fn settings() -> MonitorSettings {
    let input = |name: &str, kind| InputColumn { name: name.into(), kind };
    let figure = |name: &str, limit| Figure { name: name.into(), limit };
    MonitorSettings {
        pipeline: "fraud".into(),
        task: task(),
        threshold: 0.5,
        inputs: vec![
            input("amount", ColumnKind::Number),
            input("channel", ColumnKind::Name),
            input("risk", ColumnKind::Number),
        ],
        columns: vec![0, 1, 2],
        slices: vec![1],
        window_us: WINDOW_US,
        min_rows: 100,
        tests: [
            Metric::Psi,
            Metric::KolmogorovSmirnov,
            Metric::JensenShannon,
            Metric::Hellinger,
            Metric::ChiSquare,
            Metric::Wasserstein,
            Metric::MissingRate,
            Metric::OutOfRange,
        ]
        .map(Test::Column)
        .to_vec(),
        correction: Correction::BenjaminiHochberg,
        alpha: 0.01,
        spread: 3.0,
        detectors: vec!["adwin".into(), "page_hinkley".into()],
        figures: vec![
            FigureWindows {
                length_us: WINDOW_US,
                figures: vec![
                    figure("auc", None),
                    figure("accuracy", Some(Limit::AtLeast(0.7))),
                    figure("mean_score", Some(Limit::AtMost(0.9))),
                ],
            },
            FigureWindows { length_us: 5 * WINDOW_US, figures: vec![figure("log_loss", None)] },
        ],
        estimate: true,
    }
}

/// Draws of a world in which `risk` decides; `shift` moves amounts, `lie` of all labels are flipped.
#[derive(Clone, Copy)]
pub struct World {
    pub seed: u64,
    pub shift: f64,
    pub lie: f64,
}

pub const CALM: World = World { seed: 1, shift: 0.0, lie: 0.1 };

pub struct Drawn {
    pub inputs: Vec<Value>,
    pub score: f64,
    pub predicted: &'static str,
    pub actual: Actual,
}

impl World {
    pub fn draw(self, index: u64) -> Drawn {
        let mut random = CounterRandom::new(self.seed, index);
        let normal = (0..12).map(|_| random.uniform()).sum::<f64>() - 6.0;
        let channel = ["pos", "online", "atm"][random.below(3)];
        let risk = random.uniform();
        let missing = random.uniform() < 0.05;
        let score = 0.1 + 0.8 * risk;
        let truth = (risk > 0.5) != (random.uniform() < self.lie);
        Drawn {
            inputs: vec![
                Value::Float64(100.0 + 20.0 * (normal + self.shift)),
                Value::String(channel.into()),
                if missing { Value::Null } else { Value::Float64(risk) },
            ],
            score,
            predicted: if score >= 0.5 { "true" } else { "false" },
            actual: Actual::Class(truth.to_string()),
        }
    }

    pub fn prediction(self, index: u64, version: u32) -> Prediction {
        let drawn = self.draw(index);
        Prediction {
            id: format!("p{}-{index}", self.seed).into(),
            key: Arc::from(index.to_be_bytes()),
            t: LogTime(0),
            version,
            served: true,
            score: drawn.score,
            scores: Arc::from([]),
            predicted: drawn.predicted.into(),
            inputs: drawn.inputs.into(),
            keys: Arc::from([]),
        }
    }

    pub fn outcome(self, index: u64, version: u32) -> Outcome {
        let prediction = Arc::new(self.prediction(index, version));
        let actual = self.draw(index).actual;
        let judgement = judge(&task(), prediction.score, &[], &prediction.predicted, &actual);
        let label = crate::Label {
            name: Arc::clone(&prediction.key),
            op: falaj_event::Op::Upsert,
            prediction_id: None,
            key: Arc::clone(&prediction.key),
            observed_at: LogTime(0),
            row: Arc::from([]),
        };
        Outcome {
            prediction,
            label: Arc::new(label),
            actual: Some(Arc::new(actual)),
            judgement,
            first: true,
        }
    }
}

/// The reference of `rows` rows of a world, evenly over 10 windows; a fifth of them held out.
pub fn reference(settings: &MonitorSettings, world: World, rows: u64) -> Arc<ReferenceSet> {
    let mut all = ReferenceRows::new(settings);
    for index in 0..rows {
        let drawn = world.draw(index);
        let at = index * 10 * settings.window_us / rows;
        all.add(LogTime(at), &drawn.inputs).unwrap();
        if index % 2 == 0 {
            all.add_held_out(HeldOut {
                score: drawn.score,
                scores: Arc::from([]),
                predicted: drawn.predicted.into(),
                actual: drawn.actual,
            });
        }
    }
    Arc::new(ReferenceSet::from_rows(settings, &all).unwrap())
}
