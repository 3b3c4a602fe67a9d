//! What serving measures of itself: counts and latencies per version, written down about twice a second
//! as events on `falaj.serving`.
//!
//! Measured by the clock of this machine, so no replay can measure it again; whatever is decided is
//! decided from the events. Does not know guardrails.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use falaj_event::{Hash256, LogTime, TopicSchema, Value};
use falaj_log::Submission;
use falaj_monitor::served::{Latencies, Served};

use super::ModelLoop;
use super::rows::{RowReader, derived, moment, text};
use crate::pump::wall_clock_us;

/// Name of the topic.
pub const TOPIC: &str = "falaj.serving";

/// What one request did, by version.
#[derive(Debug, Default)]
pub struct Counts {
    versions: Vec<(u32, u64, u64)>,
    /// Rows that no version was given.
    pub refused: u64,
}

impl Counts {
    /// Counts a row that a version was given.
    pub fn add(&mut self, version: u32, is_error: bool) {
        let place = match self.versions.iter().position(|(known, ..)| *known == version) {
            Some(place) => place,
            None => {
                self.versions.push((version, 0, 0));
                self.versions.len() - 1
            }
        };
        let (_, rows, errors) = &mut self.versions[place];
        *rows += 1;
        *errors += u64::from(is_error);
    }
}

/// What was measured of one pipeline since it was last written down.
#[derive(Debug, Default)]
pub struct Tally(Mutex<BTreeMap<u32, Served>>);

impl Tally {
    /// Adds a request that took `took`; what it was refused counts for the `champion`.
    pub fn add(&self, champion: u32, counts: &Counts, took: Duration) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        for (version, rows, errors) in &counts.versions {
            let own = all.entry(*version).or_default();
            own.requests += 1;
            own.rows += rows;
            own.errors += errors;
            own.latencies.add(nanoseconds);
        }
        if counts.refused > 0 {
            all.entry(champion).or_default().refused += counts.refused;
        }
    }

    fn take(&self) -> BTreeMap<u32, Served> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What was measured, as one submission; `key` tells it from others of the same cause.
fn submission(
    schema: &Arc<TopicSchema>,
    pipeline: &str,
    cause: LogTime,
    key: &str,
    measured: &BTreeMap<u32, Served>,
) -> Result<Submission> {
    let (mut keys, mut rows) = (Vec::new(), Vec::new());
    let number = |value: Option<f64>| value.map_or(Value::Null, Value::Float64);
    for (version, served) in measured {
        keys.push(format!("{pipeline} {version} {key}").into_bytes());
        rows.push(vec![
            ("pipeline", text(pipeline)),
            ("version", Value::UInt((*version).into())),
            ("t", moment(cause)),
            ("requests", Value::UInt(served.requests)),
            ("rows", Value::UInt(served.rows)),
            ("errors", Value::UInt(served.errors)),
            ("refused", Value::UInt(served.refused)),
            ("latency_p50_us", number(served.latencies.quantile_us(0.5))),
            ("latency_p99_us", number(served.latencies.quantile_us(0.99))),
            ("latencies", text(serde_json::to_string(&served.latencies)?)),
            ("wall_clock", moment(LogTime(wall_clock_us()))),
        ]);
    }
    derived(schema, &Hash256::default(), cause, &keys, rows)
}

/// Pipeline, version and what was measured, of a row.
///
/// # Errors
/// When it is not what this program writes.
pub fn decode(rows: &RowReader<'_>, row: usize) -> Result<(Arc<str>, u32, Served)> {
    let count = |name: &str| -> Result<u64> {
        rows.number(row, name)?.with_context(|| format!("{TOPIC}: `{name}` is NULL"))
    };
    let Ok(latencies) = serde_json::from_str::<Latencies>(&rows.text(row, "latencies")?) else {
        bail!("{TOPIC}: latencies that this program does not know");
    };
    let served = Served {
        requests: count("requests")?,
        rows: count("rows")?,
        errors: count("errors")?,
        refused: count("refused")?,
        latencies,
    };
    Ok((rows.text(row, "pipeline")?, u32::try_from(count("version")?)?, served))
}

impl ModelLoop {
    /// Writes down what serving has measured since the last time. What cannot be written is lost, as
    /// the requests of a node that dies are: a figure is no truth about anybody's data.
    pub(super) fn write_figures(&self) -> Result<()> {
        let topic = self.core.catalog.topics.get(TOPIC).with_context(|| format!("no {TOPIC}"))?;
        for predictor in self.predictors.values() {
            let measured = predictor.tally.take();
            if measured.is_empty() {
                continue;
            }
            let name = &predictor.pipeline.name;
            // A wall clock is unique enough beside the cause: two at one instant are one event.
            let key = format!("{:x} {}", self.core.sequencer.term(), wall_clock_us());
            let made = submission(&topic.schema, name, self.now(), &key, &measured)?;
            self.core.sequencer.submit(made);
        }
        Ok(())
    }
}
