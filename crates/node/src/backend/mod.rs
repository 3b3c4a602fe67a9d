//! The node behind the doors: [`Backend`] over an open [`Core`].
//!
//! Knows how to translate between the doors' words and the crates below; decides nothing about
//! features.

pub mod actions;
pub mod lookup;
mod models;
mod produce;
pub mod rows;
pub mod topic;
mod training;

use std::collections::BTreeMap;
use std::sync::Arc;

use falaj_definitions::catalog::DefinitionKind;
use falaj_definitions::plan::ViewPlan;
use falaj_definitions::topics::TopicDefinition;
use falaj_event::{LogTime, TopicSchema};
use falaj_gateway::backend::{
    AckFuture, Backend, BackendError, BatchStream, Catalog, Identity, LookupRequest,
    LookupResponse, PredictRequest, PredictResponse, ProduceRequest, ReadTopicRequest, Scan,
    ScanRequest, Statistics, TopicInfo, TrainingSet, TrainingSetRequest, ViewInfo,
};
use serde_json::{Value as Json, json};

use crate::core::Core;
use crate::models::ModelLoop;

/// The backend of one core.
pub struct NodeBackend {
    core: Arc<Core>,
    models: Arc<ModelLoop>,
    catalog: Arc<Catalog>,
}

impl NodeBackend {
    /// Serves `models` and the core behind them.
    pub fn new(models: Arc<ModelLoop>) -> Self {
        let core = Arc::clone(models.core());
        let topics = core.catalog.topics.iter().map(|topic| {
            let info = TopicInfo::new(topic.schema.as_ref().clone(), topic_details(topic));
            (topic.schema.name.clone(), Arc::new(info))
        });
        let texts = view_texts(&core.catalog);
        let views = core.catalog.views.iter().map(|view| {
            let sql = texts.get(&view.name).map(String::as_str).unwrap_or_default();
            (view.name.clone(), Arc::new(view_info(view, sql)))
        });
        let catalog = Catalog {
            topics: topics.collect(),
            views: views.collect::<BTreeMap<_, _>>(),
            models: models
                .predictors()
                .map(|model| (model.info.name.clone(), Arc::clone(&model.info)))
                .collect(),
        };
        Self { core, models, catalog: Arc::new(catalog) }
    }

    fn definition(&self, schema: &TopicSchema) -> Result<&Arc<TopicDefinition>, BackendError> {
        self.core.catalog.topics.get(&schema.name).ok_or_else(|| {
            BackendError::unknown("topic", &schema.name, self.core.catalog.topics.names())
        })
    }
}

/// The definitions of all views as written, by name.
pub fn view_texts(catalog: &falaj_definitions::catalog::Catalog) -> BTreeMap<String, String> {
    let views = catalog.definitions.iter().filter(|found| found.kind == DefinitionKind::View);
    views.map(|found| (found.name.clone(), found.text.to_string())).collect()
}

/// What people should know of a topic.
fn topic_details(topic: &TopicDefinition) -> Json {
    json!({
        "description": topic.description,
        "owner": topic.owner,
        "columns": topic.schema.columns.iter().zip(&topic.column_descriptions).map(|(column, description)| json!({
            "name": column.name,
            "type": column.column_type.to_string(),
            "nullable": column.nullable,
            "pii": column.pii,
            "classification": column.classification,
            "description": description,
        })).collect::<Vec<_>>(),
        "retention_us": topic.retention_us,
        "skew_us": topic.skew_us,
        "max_gap_us": topic.max_gap_us,
        "jurisdictions": topic.jurisdictions,
        "expectations": topic.expectations.iter().map(|expectation| json!({
            "column": topic.schema.columns[expectation.column].name,
            "rule": format!("{:?}", expectation.rule),
        })).collect::<Vec<_>>(),
        "text": topic.text.as_ref(),
        "file": topic.file,
    })
}

/// A view as the doors show it.
pub fn view_info(view: &ViewPlan, sql: &str) -> ViewInfo {
    use arrow::datatypes::{Field, Schema};
    let fields: Vec<Field> = view
        .output
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let nullable = !view.output_key.contains(&index);
            Field::new(&column.name, column.column_type.to_arrow(), nullable)
        })
        .collect();
    ViewInfo {
        name: view.name.clone(),
        id: view.id,
        schema: Arc::new(Schema::new(fields)),
        key: view.output_key.clone(),
        ttl_us: view.ttl_us,
        details: json!({
            "description": view.description.text,
            "owner": view.description.owner,
            "tags": view.description.tags,
            "hash": view.hash,
            "retain_us": view.retain_us,
            "ttl_us": view.ttl_us,
            "sql": sql,
            "classes": view.output.iter()
                .map(|column| (column.name.clone(), json!(format!("{:?}", column.class).to_lowercase())))
                .collect::<serde_json::Map<_, _>>(),
        }),
    }
}

#[falaj_gateway::async_trait]
impl Backend for NodeBackend {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog)
    }

    async fn statistics(&self, name: &str) -> Option<Statistics> {
        if let Some(topic) = self.catalog.topics.get(name) {
            let partitions = 0..topic.schema.partitions;
            let records = partitions.map(|p| self.core.log.next_offset(topic.schema.id(), p)).sum();
            let t = self.core.log.tail().map(|tail| tail.record.t);
            return Some(Statistics { records: Some(records), t, freshness_us: None });
        }
        self.catalog.views.get(name)?;
        let freshness = self.core.with_pump(|pump| pump.and_then(|p| p.state().freshness_us()));
        Some(Statistics {
            records: None,
            t: self.core.store.progress().rows.map(|progress| progress.t),
            freshness_us: freshness.map(|(p50, _)| p50),
        })
    }

    async fn status(&self) -> Json {
        let tail = self.core.log.tail();
        let progress = self.core.store.progress();
        let (failure, freshness, events, metrics) = self.core.with_pump(|pump| match pump {
            Some(pump) => (
                pump.state().failure(),
                pump.state().freshness_us(),
                pump.state().events(),
                Some(pump.metrics()),
            ),
            None => (None, None, 0, None),
        });
        let tail_t = tail.as_ref().map_or(LogTime(0), |tail| tail.record.t);
        let views_t = progress.rows.map_or(LogTime(0), |progress| progress.t);
        let stopped = self.core.sequencer.stopped().map(|stopped| stopped.to_string());
        json!({
            "ready": failure.is_none() && stopped.is_none() && progress.rows.is_some(),
            "failure": failure.or(stopped),
            "epochs": tail.as_ref().map_or(0, |tail| tail.record.epoch + 1),
            "t": tail_t,
            "views_t": views_t,
            "views_epoch": progress.rows.map(|progress| progress.epoch),
            "rebuilding": self.core.rebuilding,
            "freshness_us_p50": freshness.map(|(p50, _)| p50),
            "freshness_us_p99": freshness.map(|(_, p99)| p99),
            "events_to_views": events,
            "engine": metrics.map(|metrics| format!("{metrics:?}")),
            "term": self.core.sequencer.term(),
            "definitions": self.core.catalog.hash,
            "models": self.models.status(),
        })
    }

    async fn produce(&self, request: ProduceRequest) -> Result<AckFuture, BackendError> {
        let definition = Arc::clone(self.definition(&request.topic.schema)?);
        produce::produce(&self.core, &definition, request).await
    }

    async fn lookup(&self, request: LookupRequest) -> Result<LookupResponse, BackendError> {
        lookup::wait(&self.core.store, request.min_t, request.deadline).await?;
        lookup::lookup(&self.core.store, self.core.log.as_ref(), &request)
    }

    async fn predict(&self, request: PredictRequest) -> Result<PredictResponse, BackendError> {
        self.models.predict(request).await
    }

    async fn scan(&self, request: ScanRequest) -> Result<Scan, BackendError> {
        lookup::wait(&self.core.store, request.min_t, request.deadline).await?;
        lookup::scan(&self.core.store, &self.core.log, request)
    }

    async fn read_topic(&self, request: ReadTopicRequest) -> Result<BatchStream, BackendError> {
        Ok(topic::read_topic(&self.core.reader, request))
    }

    async fn training_set(&self, request: TrainingSetRequest) -> Result<TrainingSet, BackendError> {
        training::training_set(&self.core, request).await
    }

    fn actions(&self) -> Vec<(&'static str, &'static str)> {
        actions::ACTIONS.iter().chain(&models::ACTIONS).copied().collect()
    }

    async fn action(
        &self,
        name: &str,
        body: Json,
        identity: &Identity,
    ) -> Result<Json, BackendError> {
        match models::ACTIONS.iter().any(|(known, _)| *known == name) {
            true => models::run(&self.models, name, body, identity).await,
            false => actions::run(&self.core, name, body, identity).await,
        }
    }
}
