//! What `falaj check` says of a view: per feature its type, cost class, window, whether it can be
//! corrected, and what state it needs.
//!
//! Does not know how it is printed, nor how the engine lays state out: bytes are estimates.

use serde::Serialize;

use crate::plan::{AggregateCall, AggregateFunction, CostClass, Frame, Shape, Source, ViewPlan};

#[cfg(test)]
mod tests;

/// Tiles of one window above which a coarser hop is proposed.
const MANY_TILES: u64 = 2_000;
/// Length from which an exact window is worth a hop, microseconds: 30 minutes.
const LONG_EXACT_US: u64 = 1_800_000_000;

/// A view's report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ViewReport {
    /// The view.
    pub name: String,
    /// What it reads first.
    pub source: String,
    /// Tables that it joins.
    pub joins: Vec<String>,
    /// Names of the key columns.
    pub key: Vec<String>,
    /// Whether its input can change or be retracted.
    pub retractable_input: bool,
    /// One entry per column, in order.
    pub features: Vec<FeatureReport>,
    /// Estimated bytes of state per key that do not grow with the number of events; `None` when
    /// some part grows.
    pub bytes_per_key: Option<u64>,
    /// Proposals, as sentences.
    pub proposals: Vec<String>,
}

/// One column's report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FeatureReport {
    /// The column.
    pub name: String,
    /// Its type.
    pub column_type: String,
    /// `plain`, `accumulable`, `hierarchical` or `basic`.
    pub class: &'static str,
    /// The windows of its aggregates, e.g. `1 hour by 1 minute`.
    pub frames: Vec<String>,
    /// Whether a retraction is subtracted (rather than its tile rebuilt).
    pub subtracts: bool,
    /// State per key.
    pub state: StateBound,
}

/// How much state a feature needs per key.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StateBound {
    /// The bound in words, e.g. `62 tiles × 16 B`.
    pub formula: String,
    /// Entries per key; `None` when they grow with the number of events.
    pub entries: Option<u64>,
    /// Estimated bytes per key; `None` likewise.
    pub bytes: Option<u64>,
    /// Whether time alone bounds it: an event leaves it at some point.
    pub bounded_by_time: bool,
}

/// Reports on a view.
pub fn report(plan: &ViewPlan) -> ViewReport {
    let (leading, aggregates): (usize, &[AggregateCall]) = match &plan.shape {
        Shape::Keyed { bare, aggregates } => (plan.key.len() + bare.len(), aggregates),
        Shape::PerRow => (usize::MAX, &[]),
    };
    let retractable = plan.is_retractable();
    let features: Vec<FeatureReport> = plan
        .output
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let calls: Vec<&AggregateCall> = plan
                .finish
                .reads(index)
                .iter()
                .filter_map(|read| aggregates.get(read.checked_sub(leading)?))
                .collect();
            FeatureReport {
                name: column.name.clone(),
                column_type: column.column_type.to_string(),
                class: class_name(column.class),
                frames: frames(&calls),
                subtracts: column.class <= CostClass::Accumulable,
                state: bound(&calls, retractable),
            }
        })
        .collect();
    let bytes_per_key = aggregates.iter().map(|call| call_bound(call, retractable).bytes).sum();
    ViewReport {
        name: plan.name.clone(),
        source: match &plan.source {
            Source::Topic(topic) => topic.name.clone(),
            Source::View(view) => view.name.clone(),
        },
        joins: plan.joins.iter().map(|join| join.table.name.clone()).collect(),
        key: plan
            .output_key
            .iter()
            .filter_map(|&index| plan.output.get(index))
            .map(|c| c.name.clone())
            .collect(),
        retractable_input: retractable,
        features,
        bytes_per_key,
        proposals: proposals(aggregates),
    }
}

fn class_name(class: CostClass) -> &'static str {
    match class {
        CostClass::Plain => "plain",
        CostClass::Accumulable => "accumulable",
        CostClass::Hierarchical => "hierarchical",
        CostClass::Basic => "basic",
    }
}

fn frames(calls: &[&AggregateCall]) -> Vec<String> {
    let mut frames: Vec<String> = calls.iter().map(|call| frame_text(call.frame)).collect();
    frames.dedup();
    frames
}

fn frame_text(frame: Frame) -> String {
    match frame {
        Frame::Lifetime => "lifetime".to_owned(),
        Frame::Rows { preceding } => format!("latest {} events", u128::from(preceding) + 1),
        Frame::Range { preceding_us, hop_us: 1 } => format!("{} exact", duration(preceding_us)),
        Frame::Range { preceding_us, hop_us } => {
            format!("{} by {}", duration(preceding_us), duration(hop_us))
        }
    }
}

/// A duration in its largest whole unit.
fn duration(us: u64) -> String {
    const UNITS: [(u64, &str); 6] = [
        (86_400_000_000, "day"),
        (3_600_000_000, "hour"),
        (60_000_000, "minute"),
        (1_000_000, "second"),
        (1_000, "millisecond"),
        (1, "microsecond"),
    ];
    let (unit, name) = UNITS
        .into_iter()
        .find(|(unit, _)| us >= *unit && us.is_multiple_of(*unit))
        .unwrap_or((1, "microsecond"));
    let count = us / unit;
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}

fn bound(calls: &[&AggregateCall], retractable: bool) -> StateBound {
    let bounds: Vec<StateBound> = calls.iter().map(|call| call_bound(call, retractable)).collect();
    match bounds.as_slice() {
        [] => StateBound {
            formula: "the latest event".to_owned(),
            entries: Some(1),
            bytes: Some(0),
            bounded_by_time: false,
        },
        [one] => one.clone(),
        several => StateBound {
            formula: several
                .iter()
                .map(|bound| bound.formula.as_str())
                .collect::<Vec<_>>()
                .join(" + "),
            entries: several.iter().map(|bound| bound.entries).sum(),
            bytes: several.iter().map(|bound| bound.bytes).sum(),
            bounded_by_time: several.iter().all(|bound| bound.bounded_by_time),
        },
    }
}

fn call_bound(call: &AggregateCall, retractable: bool) -> StateBound {
    let (bytes, per_value) = accumulator(call, retractable);
    let fixed = |entries: u64, word: &str, time: bool| StateBound {
        formula: format!("{entries} {word} × {bytes} B"),
        entries: Some(entries),
        bytes: Some(entries.saturating_mul(bytes)),
        bounded_by_time: time,
    };
    let growing = |formula: String, time: bool| StateBound {
        formula,
        entries: None,
        bytes: None,
        bounded_by_time: time,
    };
    match call.frame {
        Frame::Rows { preceding } => fixed(preceding.saturating_add(1), "events", false),
        Frame::Range { preceding_us, hop_us: 1 } => {
            growing(format!("events in {} × {bytes} B", duration(preceding_us)), true)
        }
        Frame::Range { preceding_us, hop_us } if per_value => growing(
            format!(
                "values in {} × {bytes} B, {} tiles",
                duration(preceding_us),
                tiles(preceding_us, hop_us)
            ),
            true,
        ),
        Frame::Range { preceding_us, hop_us } => fixed(tiles(preceding_us, hop_us), "tiles", true),
        Frame::Lifetime if per_value => growing(format!("values ever × {bytes} B"), false),
        Frame::Lifetime => fixed(1, "total", false),
    }
}

/// Tiles that a window touches at once: its length in hops, and one more at each end.
fn tiles(preceding_us: u64, hop_us: u64) -> u64 {
    preceding_us.div_ceil(hop_us.max(1)).saturating_add(2)
}

/// Estimated bytes of one accumulator, and whether it grows with the number of distinct values.
fn accumulator(call: &AggregateCall, retractable: bool) -> (u64, bool) {
    use AggregateFunction as F;
    use falaj_event::ColumnType as T;
    let float = matches!(call.input_type, T::Float32 | T::Float64);
    let value: u64 = match call.input_type {
        T::Bool | T::Int8 | T::UInt8 => 1,
        T::Decimal { .. } => 16,
        T::String | T::Binary => 24,
        _ => 8,
    };
    match call.function {
        F::CountRows | F::Count => (8, false),
        F::CountDistinct => (value + 8, true),
        F::Sum => (if float { 96 } else { 16 }, false),
        F::Avg => (if float { 104 } else { 24 }, false),
        F::Variance { .. } | F::Stddev { .. } => (if float { 200 } else { 56 }, false),
        F::Min | F::Max if retractable => (value + 8, true),
        F::First | F::Last if retractable => (value + 32, true),
        F::Min | F::Max => (value, false),
        F::First | F::Last => (value + 24, false),
        F::TopN(_) | F::LastN(_) if retractable => (value + 32, true),
        F::TopN(n) => (u64::from(n) * value, false),
        F::LastN(n) => (u64::from(n) * (value + 24), false),
        F::ApproxDistinct if retractable => (value + 8, true),
        F::ApproxDistinct => (4_096, false),
        F::ApproxQuantile(_) => (2_048, false),
        F::BoolAnd | F::BoolOr => (16, false),
    }
}

fn proposals(aggregates: &[AggregateCall]) -> Vec<String> {
    let mut proposals: Vec<String> = aggregates
        .iter()
        .filter_map(|call| match call.frame {
            Frame::Range { preceding_us, hop_us: 1 } if preceding_us >= LONG_EXACT_US => {
                let hop = round_hop(preceding_us / 60);
                Some(format!(
                    "the exact window of {} keeps every event in it; `-- hop: {}` bounds it to {} tiles per key",
                    duration(preceding_us), duration(hop), tiles(preceding_us, hop)
                ))
            }
            Frame::Range { preceding_us, hop_us } if hop_us > 1 && tiles(preceding_us, hop_us) > MANY_TILES => {
                let hop = round_hop(preceding_us / 288);
                Some(format!(
                    "the window of {} by {} keeps {} tiles per key; `-- hop: {}` keeps {}",
                    duration(preceding_us), duration(hop_us), tiles(preceding_us, hop_us), duration(hop), tiles(preceding_us, hop)
                ))
            }
            _ => None,
        })
        .collect();
    proposals.sort();
    proposals.dedup();
    proposals
}

/// The greatest round duration that is not longer than `us`.
fn round_hop(us: u64) -> u64 {
    const SECOND: u64 = 1_000_000;
    const ROUND: [u64; 13] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 900, 1_800, 3_600, 86_400];
    ROUND.into_iter().map(|seconds| seconds * SECOND).rfind(|hop| *hop <= us).unwrap_or(SECOND)
}
