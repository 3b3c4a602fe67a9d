//! Figures that are not of labels: error rate and latency, as serving wrote them down, and the KPI of
//! the outcomes of a window; each over the windows that guardrails and floors name.
//!
//! A fold like the rest of the watch: what was measured is read from the log.

use std::sync::Arc;

use anyhow::Result;
use falaj_definitions::catalog::Catalog;
use falaj_definitions::pipelines::{Bound, Pipeline};
use falaj_event::{LogTime, TopicId, TopicSchema};
use falaj_log::EpochEvents;
use falaj_monitor::served::{
    ERROR_RATE, Gather, KPI, LATENCY_P99_US, Outcomes, Served, ServedFigure, add_outcome,
};
use falaj_monitor::settings::Limit;
use falaj_monitor::{Closed, Outcome};
use serde_json::json;

use super::decode::Topics;
use super::emit::outcome_submission;
use crate::models::figures::{TOPIC, decode};
use crate::models::kpi::KpiMeter;
use crate::models::rows::RowReader;

/// The fold of one pipeline.
pub struct ServedWatch {
    pipeline: Arc<Pipeline>,
    topic: Arc<TopicSchema>,
    served: Vec<(ServedFigure, Gather<Served>)>,
    worth: Vec<(ServedFigure, Gather<Outcomes>)>,
    meter: Option<KpiMeter>,
}

impl ServedWatch {
    /// Knows nothing yet.
    ///
    /// # Errors
    /// When the catalog lacks a topic or view.
    pub fn new(pipeline: &Arc<Pipeline>, catalog: &Catalog) -> Result<Self> {
        let topic = catalog.topics.get(TOPIC);
        let topic = topic.ok_or_else(|| anyhow::anyhow!("no {TOPIC}"))?;
        let (worth, served): (Vec<_>, Vec<_>) =
            figures(pipeline).into_iter().partition(|figure| figure.name == KPI);
        fn gathered<A: Default>(all: Vec<ServedFigure>) -> Vec<(ServedFigure, Gather<A>)> {
            let gather = |figure: ServedFigure| {
                let length_us = figure.length_us;
                (figure, Gather::new(length_us))
            };
            all.into_iter().map(gather).collect()
        }
        Ok(Self {
            pipeline: Arc::clone(pipeline),
            topic: Arc::clone(&topic.schema),
            served: gathered(served),
            worth: gathered(worth),
            meter: KpiMeter::new(pipeline, catalog)?,
        })
    }

    /// The topic that it reads.
    pub fn reads(&self) -> TopicId {
        self.topic.id()
    }

    /// Takes one epoch: what closes at its `T`, then what it carries.
    ///
    /// # Errors
    /// When a row cannot be read, or the KPI cannot be computed.
    pub fn epoch(
        &mut self,
        t: LogTime,
        topics: &Topics,
        events: &EpochEvents,
        judged: &[Outcome],
    ) -> Result<Closed> {
        let mut closed = Closed::default();
        for (figure, gather) in &mut self.served {
            for window in gather.advance(t) {
                closed.extend(figure.of_served(&window, t));
            }
        }
        for (figure, gather) in &mut self.worth {
            for window in gather.advance(t) {
                let (version, gathered) = (window.version, &window.gathered);
                let value = worth(&self.pipeline, topics, self.meter.as_mut(), gathered)?;
                let support = gathered.len() as u64;
                let detail = json!({ "outcomes": support });
                closed.extend(figure.told(version, window.window, t, (value, support), detail));
            }
        }
        for part in events.topics.iter().filter(|part| part.topic.id() == self.topic.id()) {
            let rows = RowReader::new(&part.topic, &part.batch)?;
            for row in 0..rows.rows() {
                let (pipeline, version, served) = decode(&rows, row)?;
                if *pipeline == *self.pipeline.name {
                    let all = self.served.iter_mut();
                    all.for_each(|(_, gather)| gather.of(t, version).merge(&served));
                }
            }
        }
        for outcome in judged.iter().filter(|outcome| outcome.prediction.served) {
            for (_, gather) in &mut self.worth {
                add_outcome(gather.of(t, outcome.prediction.version), outcome);
            }
        }
        Ok(closed)
    }
}

fn worth(
    pipeline: &Pipeline,
    topics: &Topics,
    meter: Option<&mut KpiMeter>,
    outcomes: &Outcomes,
) -> Result<Option<f64>> {
    let Some(meter) = meter else { return Ok(None) };
    let all: Vec<Outcome> = outcomes.values().cloned().collect();
    let column = topics.label_column;
    let rows =
        outcome_submission(pipeline, meter.schema(), &topics.labels, column, LogTime(1), &all)?;
    meter.measure(&rows.batch)
}

/// The figures that guardrails and floors name, each length of window once.
fn figures(pipeline: &Pipeline) -> Vec<ServedFigure> {
    let guardrails = pipeline.monitors.guardrails.iter();
    let guardrails = guardrails.map(|rail| (&rail.metric, rail.window_us, rail.bound));
    let floors = pipeline.retrain.floors.iter();
    let floors = floors.map(|floor| (&floor.metric, floor.window_us, floor.bound));
    let mut all: Vec<ServedFigure> = Vec::new();
    for (name, length_us, bound) in guardrails.chain(floors) {
        let limit = match bound {
            Bound::AtLeast(least) => Limit::AtLeast(least),
            Bound::AtMost(most) => Limit::AtMost(most),
        };
        let known = [ERROR_RATE, LATENCY_P99_US, KPI].contains(&name.as_str());
        if known && !all.iter().any(|one| one.name == *name && one.length_us == length_us) {
            all.push(ServedFigure { name: name.clone(), length_us, limit: Some(limit) });
        }
    }
    all
}
