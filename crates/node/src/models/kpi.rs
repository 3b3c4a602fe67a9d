//! What a set of outcomes was worth: the pipeline's own view over them, computed by the engine.
//!
//! One engine is kept for all sets of a pipeline: a set's rows go in, its figure comes out, and the rows
//! are deleted again, so nothing is held between sets. Does not know where outcomes come from.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use arrow::record_batch::RecordBatch;
use falaj_dataflow::{Engine, EpochInput, Options, TopicInput};
use falaj_definitions::catalog::Catalog;
use falaj_definitions::pipelines::Pipeline;
use falaj_definitions::plan::ViewPlan;
use falaj_event::encoding::decode_row;
use falaj_event::{EpochChanges, LogTime, Op, TopicSchema};
use falaj_model::table::Input;

use super::serving::input;

/// How long one set may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Computes a pipeline's KPI.
pub struct KpiMeter {
    name: String,
    plan: Arc<ViewPlan>,
    schema: Arc<TopicSchema>,
    engine: Option<Engine>,
    epoch: u64,
}

impl KpiMeter {
    /// The meter of `pipeline`; `None` where it declares no KPI.
    ///
    /// # Errors
    /// When the catalog lacks its view or topic.
    pub fn new(pipeline: &Pipeline, catalog: &Catalog) -> Result<Option<Self>> {
        if pipeline.kpi.is_none() {
            return Ok(None);
        }
        let name = format!("{}_kpi", pipeline.name);
        let plan = catalog.view(&name).with_context(|| format!("no view `{name}`"))?;
        let topic = pipeline.outcomes_name();
        let found = catalog.topics.get(&topic).with_context(|| format!("no {topic}"))?;
        Ok(Some(Self {
            name,
            plan: Arc::clone(plan),
            schema: Arc::clone(&found.schema),
            engine: None,
            epoch: 0,
        }))
    }

    /// The topic of outcomes.
    pub fn schema(&self) -> &Arc<TopicSchema> {
        &self.schema
    }

    /// The KPI of these rows of the outcomes topic, which are all of one model and dated T = 1; `None`
    /// where it is NULL, or no number.
    ///
    /// # Errors
    /// When the engine fails.
    pub fn measure(&mut self, rows: &RecordBatch) -> Result<Option<f64>> {
        if rows.num_rows() == 0 {
            return Ok(None);
        }
        let changes = self.step(rows, Op::Upsert)?;
        let row = changes.rows.into_iter().find_map(|change| change.row);
        self.step(rows, Op::Delete)?;
        let Some(row) = row else { return Ok(None) };
        let values = decode_row(&row.columns)?;
        Ok(values.get(1).and_then(|value| match input(value) {
            Ok(Input::Number(number)) => Some(number),
            Ok(Input::Integer(number)) => Some(number as f64),
            _ => None,
        }))
    }

    fn step(&mut self, rows: &RecordBatch, op: Op) -> Result<EpochChanges> {
        let engine = match &mut self.engine {
            Some(engine) => engine,
            none => none.insert(Engine::start(Options {
                workers: 1,
                checkpoint_every: u64::MAX,
                max_epochs_in_flight: 1,
                plans: vec![Arc::clone(&self.plan)],
                resume: None,
            })?),
        };
        let input = TopicInput {
            topic: Arc::clone(&self.schema),
            partition: 0,
            first_offset: 0,
            ops: vec![op; rows.num_rows()],
            batch: rows.clone(),
        };
        let epoch = self.epoch;
        self.epoch += 1;
        engine.submit(EpochInput { epoch, t: LogTime(epoch + 1), topics: vec![input] })?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(changes) = engine.take(Duration::from_millis(200))? {
                return Ok(changes);
            }
            if Instant::now() > deadline {
                bail!("{} was not computed within two minutes", self.name);
            }
        }
    }
}
