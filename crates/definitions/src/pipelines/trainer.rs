//! `[trainer]`: the kind of model and its hyper-parameters; those of another kind are refused.
//!
//! Does not know how models are trained.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::parse::missing_section;
use super::read::{self, Context, as_number, section};
use super::settings::{Calibration, ClassWeight, Precision, Trainer, TrainerKind};
use super::types::{SignatureInput, Task};
use crate::diagnostics::Diagnostics;
use crate::topics::fields::Fields;

const FIELDS: [&str; 17] = [
    "kind",
    "seed",
    "epochs",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "hidden",
    "dropout",
    "embedding",
    "depth",
    "leaf_rows",
    "precision",
    "early_stopping",
    "calibration",
    "class_weight",
    "priority",
    "rounds",
];

const KINDS: [TrainerKind; 4] =
    [TrainerKind::Linear, TrainerKind::Mlp, TrainerKind::Resnet, TrainerKind::Trees];

/// The widest layer and the most layers.
const MAX_WIDTH: u32 = 16_384;
const MAX_LAYERS: usize = 32;

/// Reads `[trainer]`.
pub(super) fn read(
    context: &Context<'_>,
    document: &DeTable<'_>,
    inputs: Option<&[SignatureInput]>,
    out: &mut Diagnostics,
) -> Option<Trainer> {
    let Some(fields) = section(context.source, document, "trainer", &FIELDS, out) else {
        let help = "write [trainer] with kind = \"linear\", \"mlp\", \"resnet\" or \"trees\"";
        missing_section(context.source, "trainer", help, out);
        return None;
    };
    if fields.get("kind").is_none() {
        fields.missing("kind", "write kind = \"linear\", \"mlp\", \"resnet\" or \"trees\"", out);
    }
    let kind = read::choice(&fields, "kind", &KINDS.map(|kind| (kind.as_str(), kind)), out)?;
    refuse_others(kind, &fields, out);
    let mut trainer = defaults(kind, context.task);
    numbers(&mut trainer, &fields, out);
    if let Some(hidden) = hidden(&fields, out) {
        trainer.hidden = hidden;
    }
    let precisions =
        [("fp32", Precision::Fp32), ("bf16", Precision::Bf16), ("f16", Precision::F16)];
    if let Some(precision) = read::choice(&fields, "precision", &precisions, out) {
        trainer.precision = precision;
    }
    calibration(&mut trainer, context, &fields, out);
    class_weight(&mut trainer, context, &fields, out);
    if inputs.is_some_and(<[SignatureInput]>::is_empty) {
        let message = "a model needs at least one feature";
        out.push(context.source.error("empty", fields.place.clone(), message));
    }
    Some(trainer)
}

fn defaults(kind: TrainerKind, task: Task) -> Trainer {
    let trees = kind == TrainerKind::Trees;
    Trainer {
        kind,
        seed: 0,
        epochs: if trees { 300 } else { 20 },
        batch_size: 256,
        learning_rate: if trees { 0.1 } else { 0.001 },
        weight_decay: if trees { 1.0 } else { 0.0001 },
        hidden: match kind {
            TrainerKind::Mlp => vec![64, 32],
            TrainerKind::Resnet => vec![128, 128],
            TrainerKind::Linear | TrainerKind::Trees => Vec::new(),
        },
        dropout: 0.0,
        embedding: 8,
        depth: 6,
        leaf_rows: 20,
        precision: Precision::Fp32,
        early_stopping: if trees { 30 } else { 5 },
        calibration: match task {
            Task::Regression => Calibration::None,
            Task::Binary | Task::Multiclass => Calibration::Temperature,
        },
        class_weight: ClassWeight::None,
        priority: 0,
    }
}

/// Hyper-parameters that the kind does not have.
fn refuse_others(kind: TrainerKind, fields: &Fields<'_>, out: &mut Diagnostics) {
    let others: &[&str] = match kind {
        TrainerKind::Linear => &["hidden", "dropout", "depth", "leaf_rows", "rounds"],
        TrainerKind::Mlp | TrainerKind::Resnet => &["depth", "leaf_rows", "rounds"],
        TrainerKind::Trees => {
            &["batch_size", "hidden", "dropout", "embedding", "precision", "epochs"]
        }
    };
    for name in others {
        let Some(value) = fields.get(name) else { continue };
        let message = format!("a {} trainer has no `{name}`", kind.as_str());
        let finding = fields.source.error("wrong-field", value.span(), message);
        let help = (kind == TrainerKind::Trees && *name == "epochs")
            .then(|| "trees are boosted in `rounds`".to_owned());
        out.push(finding.with_help_if(help));
    }
}

fn numbers(trainer: &mut Trainer, fields: &Fields<'_>, out: &mut Diagnostics) {
    let wholes: [(&str, u32, u32, &mut u32); 9] = [
        ("seed", 0, u32::MAX, &mut trainer.seed),
        ("epochs", 1, 100_000, &mut trainer.epochs),
        ("batch_size", 1, 1 << 20, &mut trainer.batch_size),
        ("embedding", 1, 1_024, &mut trainer.embedding),
        ("depth", 1, 16, &mut trainer.depth),
        ("leaf_rows", 1, 1 << 30, &mut trainer.leaf_rows),
        ("early_stopping", 0, 100_000, &mut trainer.early_stopping),
        ("priority", 0, 1_000, &mut trainer.priority),
        ("rounds", 1, 100_000, &mut 0),
    ];
    for (name, least, greatest, field) in wholes {
        if let Some(value) = fields.integer(name, least, greatest, out) {
            *field = value.value;
        }
    }
    if let Some(rounds) = fields.integer("rounds", 1, 100_000, &mut Diagnostics::new()) {
        trainer.epochs = rounds.value;
    }
    let reals: [(&str, f64, f64, &mut f64); 3] = [
        ("learning_rate", 1e-9, 10.0, &mut trainer.learning_rate),
        ("weight_decay", 0.0, 1_000.0, &mut trainer.weight_decay),
        ("dropout", 0.0, 0.95, &mut trainer.dropout),
    ];
    for (name, least, greatest, field) in reals {
        if let Some(value) = read::number(fields, name, least, greatest, out) {
            *field = value.value;
        }
    }
}

fn hidden(fields: &Fields<'_>, out: &mut Diagnostics) -> Option<Vec<u32>> {
    let list = fields.array("hidden", "a list of widths, e.g. [64, 32]", out)?;
    let mut widths = Vec::new();
    for item in list.value.iter() {
        let width = match item.get_ref() {
            DeValue::Integer(number) => u32::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        match width.filter(|width| (1..=MAX_WIDTH).contains(width)) {
            Some(width) => widths.push(width),
            None => {
                let message = format!("a width is a whole number between 1 and {MAX_WIDTH}");
                out.push(fields.source.error("out-of-range", item.span(), message));
            }
        }
    }
    if !(1..=MAX_LAYERS).contains(&list.value.len()) {
        let message = format!("`hidden` has between 1 and {MAX_LAYERS} layers");
        out.push(fields.source.error("out-of-range", list.span, message));
    }
    Some(widths)
}

fn calibration(
    trainer: &mut Trainer,
    context: &Context<'_>,
    fields: &Fields<'_>,
    out: &mut Diagnostics,
) {
    let words = [
        ("none", Calibration::None),
        ("temperature", Calibration::Temperature),
        ("isotonic", Calibration::Isotonic),
    ];
    let Some(chosen) = read::choice(fields, "calibration", &words, out) else { return };
    if context.task == Task::Regression && chosen != Calibration::None {
        let span = fields.get("calibration").map_or(0..0, |value| value.span());
        let message = "a regression model gives no probabilities to calibrate";
        out.push(context.source.error("wrong-field", span, message));
    }
    trainer.calibration = chosen;
}

fn class_weight(
    trainer: &mut Trainer,
    context: &Context<'_>,
    fields: &Fields<'_>,
    out: &mut Diagnostics,
) {
    let Some(value) = fields.get("class_weight") else { return };
    if context.task == Task::Regression {
        let message = "a regression model has no classes to weigh";
        out.push(context.source.error("wrong-field", value.span(), message));
        return;
    }
    let DeValue::Table(table) = value.get_ref() else {
        let words = [("none", ClassWeight::None), ("balanced", ClassWeight::Balanced)];
        if let Some(chosen) = read::choice(fields, "class_weight", &words, out) {
            trainer.class_weight = chosen;
        }
        return;
    };
    let mut weights = BTreeMap::new();
    for (class, weight) in table.iter() {
        let name = class.get_ref().to_string();
        let span = weight.span();
        let number = as_number(context.source, &name, weight.get_ref(), span.clone(), out);
        match number {
            Some(weight) if weight > 0.0 => {
                weights.insert(name, weight);
            }
            Some(_) => {
                let message = format!("the weight of class `{name}` must be above 0");
                out.push(context.source.error("out-of-range", span, message));
            }
            None => {}
        }
    }
    trainer.class_weight = ClassWeight::Given(weights);
}
