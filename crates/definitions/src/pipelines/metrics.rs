//! The metrics that gates, monitors and triggers may name, by task, and which way is better.
//!
//! Does not know how they are computed.

use super::types::Task;

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// More.
    Higher,
    /// Less.
    Lower,
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name in files and events.
    pub name: &'static str,
    /// Which way is better.
    pub better: Direction,
    tasks: &'static [Task],
}

const CLASSES: &[Task] = &[Task::Binary, Task::Multiclass];
const BINARY: &[Task] = &[Task::Binary];
const NUMBERS: &[Task] = &[Task::Regression];

const fn higher(name: &'static str, tasks: &'static [Task]) -> Metric {
    Metric { name, better: Direction::Higher, tasks }
}

const fn lower(name: &'static str, tasks: &'static [Task]) -> Metric {
    Metric { name, better: Direction::Lower, tasks }
}

/// All metrics; the first of a task is the one that champions are compared by unless declared.
pub const METRICS: [Metric; 17] = [
    higher("auc", BINARY),
    lower("log_loss", CLASSES),
    lower("brier", CLASSES),
    higher("accuracy", CLASSES),
    higher("average_precision", BINARY),
    higher("precision", BINARY),
    higher("recall", BINARY),
    higher("f1", BINARY),
    higher("kappa", CLASSES),
    higher("mcc", BINARY),
    higher("macro_f1", CLASSES),
    lower("calibration_error", CLASSES),
    lower("rmse", NUMBERS),
    lower("mae", NUMBERS),
    lower("mape", NUMBERS),
    higher("r2", NUMBERS),
    lower("pinball", NUMBERS),
];

/// The metrics of a task, in order.
pub(super) fn of_task(task: Task) -> impl Iterator<Item = &'static Metric> {
    METRICS.iter().filter(move |metric| metric.tasks.contains(&task))
}
