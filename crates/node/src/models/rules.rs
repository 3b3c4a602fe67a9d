//! From what a pipeline's file declares to what the lifecycle and the trainer take.
//!
//! Only translation: every default was settled when the file was read.

use falaj_definitions::pipelines as declared;
use falaj_definitions::pipelines::{Bound, InputKind, Pipeline, Policy, Task};
use falaj_lifecycle::gates::{AbsoluteGate, ChampionGate, Direction, KpiGate, SliceGate};
use falaj_lifecycle::registry::{ApprovalRules, PromotionRules};
use falaj_lifecycle::{GateRules, PipelineRules, ServingPolicy};
use falaj_model::spec::{
    BackendChoice, Calibration, ClassWeights, Feature, FeatureKind, JobSpec, Optimiser, Precision,
    Split, Trainer,
};

/// A bound as the least and the greatest value that are well.
pub fn bounds(bound: Bound) -> (Option<f64>, Option<f64>) {
    match bound {
        Bound::AtLeast(least) => (Some(least), None),
        Bound::AtMost(most) => (None, Some(most)),
    }
}

/// Which way a metric is better.
pub fn direction(metric: &str) -> Direction {
    let found = declared::METRICS.iter().find(|known| known.name == metric);
    match found.map(|known| known.better) {
        Some(declared::Direction::Lower) => Direction::LowerIsBetter,
        _ => Direction::HigherIsBetter,
    }
}

/// Gates, approval and promotion.
pub fn pipeline_rules(pipeline: &Pipeline) -> PipelineRules {
    PipelineRules {
        gates: gate_rules(pipeline),
        approval: ApprovalRules { quorum: pipeline.gates.approvals, self_approval: false },
        promotion: PromotionRules::default(),
    }
}

fn gate_rules(pipeline: &Pipeline) -> GateRules {
    let gates = &pipeline.gates;
    let absolute = gates.metrics.iter().map(|gate| {
        let (minimum, maximum) = bounds(gate.bound);
        AbsoluteGate { metric: gate.metric.clone(), minimum, maximum }
    });
    let champion = gates.champion.iter().map(|gate| ChampionGate {
        metric: gate.metric.clone(),
        direction: direction(&gate.metric),
        delta: gate.delta,
    });
    let slices = gates.slices.iter().map(|gate| {
        let (minimum, maximum) = bounds(gate.bound);
        SliceGate {
            column: gate.column.clone(),
            metric: gate.metric.clone(),
            minimum,
            maximum,
            minimum_support: gate.minimum_support.into(),
        }
    });
    let latency = gates.latency_p99_us.map(|most| ("p99".to_owned(), most as f64));
    GateRules {
        minimum_rows: 1,
        absolute: absolute.collect(),
        champion: champion.collect(),
        slices: slices.collect(),
        maximum_ece: gates.calibration.as_ref().map(|gate| gate.at_most),
        latency_us: latency.into_iter().collect(),
        kpi: gates.kpi.map(|bound| {
            let (minimum, _) = bounds(bound);
            KpiGate { minimum, champion_delta: None }
        }),
    }
}

/// How requests are shared out between champion and challenger.
pub fn serving_policy(pipeline: &Pipeline) -> ServingPolicy {
    match pipeline.serving.policy {
        Policy::Champion => ServingPolicy::ChampionOnly,
        Policy::Shadow => ServingPolicy::ShadowChallenger,
        Policy::Split { percent } => {
            ServingPolicy::Split { challenger_share: percent / 100.0, salt: pipeline.name.clone() }
        }
    }
}

/// The job of one run.
pub fn job_spec(pipeline: &Pipeline) -> JobSpec {
    let features = pipeline.signature.inputs.iter().map(|input| Feature {
        name: input.name.clone(),
        kind: match input.kind {
            InputKind::Numeric => FeatureKind::Numeric,
            InputKind::Categorical => FeatureKind::Categorical,
            InputKind::Boolean => FeatureKind::Boolean,
        },
        nullable: Some(input.nullable),
    });
    let task = match pipeline.task {
        Task::Binary => falaj_model::spec::Task::Binary,
        Task::Multiclass => falaj_model::spec::Task::Multiclass,
        Task::Regression => falaj_model::spec::Task::Regression,
    };
    let trainer = &pipeline.trainer;
    let mut spec =
        JobSpec::new(&pipeline.name, task, LABEL, features.collect(), model_trainer(trainer));
    spec.split = Split {
        train: pipeline.split.train,
        validation: pipeline.split.validation,
        test: pipeline.split.test,
    };
    spec.seed = trainer.seed.into();
    spec.optimiser = Optimiser {
        learning_rate: trainer.learning_rate,
        weight_decay: trainer.weight_decay,
        ..Optimiser::default()
    };
    spec.precision = match trainer.precision {
        declared::Precision::Fp32 => Precision::F32,
        declared::Precision::Bf16 => Precision::Bf16,
        declared::Precision::F16 => Precision::F16,
    };
    spec.batch_size = trainer.batch_size as usize;
    spec.epochs = trainer.epochs;
    spec.patience = trainer.early_stopping;
    spec.class_weights = class_weights(pipeline);
    spec.calibration = match trainer.calibration {
        declared::Calibration::None => Calibration::None,
        declared::Calibration::Temperature => Calibration::Temperature,
        declared::Calibration::Isotonic => Calibration::Isotonic,
    };
    spec.slices = pipeline.gates.slices.iter().map(|gate| gate.column.clone()).collect();
    for slice in &pipeline.monitors.slices {
        if !spec.slices.contains(slice) {
            spec.slices.push(slice.clone());
        }
    }
    spec.backend = BackendChoice::Auto;
    spec
}

/// Name of the column that a training set's rows hold the truth in: true or false (binary), the class
/// as text, or the number.
pub const LABEL: &str = "__label";

fn class_weights(pipeline: &Pipeline) -> ClassWeights {
    match &pipeline.trainer.class_weight {
        declared::ClassWeight::None => ClassWeights::None,
        declared::ClassWeight::Balanced => ClassWeights::Balanced,
        // Classes as text, in ascending order, as the trainer sorts them.
        declared::ClassWeight::Given(weights) => {
            ClassWeights::Given(weights.values().copied().collect())
        }
    }
}

fn model_trainer(trainer: &declared::Trainer) -> Trainer {
    let hidden: Vec<usize> = trainer.hidden.iter().map(|width| *width as usize).collect();
    match trainer.kind {
        declared::TrainerKind::Linear => Trainer::Linear {},
        declared::TrainerKind::Mlp => Trainer::Mlp { hidden, dropout: trainer.dropout as f32 },
        declared::TrainerKind::Resnet => match Trainer::resnet() {
            Trainer::Resnet { expansion, bins, .. } => Trainer::Resnet {
                width: hidden.first().copied().unwrap_or(64),
                blocks: hidden.len().max(1),
                expansion,
                dropout: trainer.dropout as f32,
                bins,
            },
            other => other,
        },
        declared::TrainerKind::Trees => match Trainer::trees() {
            Trainer::Trees { subsample, column_share, bins, .. } => Trainer::Trees {
                trees: trainer.epochs as usize,
                learning_rate: trainer.learning_rate as f32,
                max_depth: trainer.depth as usize,
                min_leaf_weight: trainer.leaf_rows as f32 / 4.0,
                l2: trainer.weight_decay as f32,
                subsample,
                column_share,
                bins,
                early_stopping_rounds: trainer.early_stopping as usize,
            },
            other => other,
        },
    }
}
