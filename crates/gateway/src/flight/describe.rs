//! Discovery and actions: what topics and views there are, and how the node is.

use std::time::Instant;

use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow_flight::{
    Action, ActionType, Criteria, FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage,
    SchemaAsIpc, SchemaResult, Ticket,
};
use arrow_ipc::writer::IpcWriteOptions;
use futures::stream::{BoxStream, StreamExt, iter};
use serde_json::{Value as Json, json};
use tonic::{Response, Status};

use super::{Gateway, ResponseStream};
use crate::backend::{BackendError, Catalog, Identity, ModelInfo, TopicInfo, ViewInfo};
use crate::lookup::unknown_view;
use crate::wire::ReadTicket;

/// Answered by the gateway; every other name is passed on to the node.
const ACTIONS: [(&str, &str); 4] = [
    ("status", "The node's state: a JSON object"),
    ("healthz", "`ok` when the node is ready; UNAVAILABLE otherwise"),
    ("catalog", "All topics and views with columns, keys and descriptions: a JSON array"),
    ("metrics", "Requests, errors, rows and latency per door: a JSON object"),
];

/// One thing that can be described.
enum Flight<'a> {
    Topic(&'a TopicInfo),
    View(&'a ViewInfo),
    Model(&'a ModelInfo),
}

impl<'a> Flight<'a> {
    fn find(catalog: &'a Catalog, descriptor: &FlightDescriptor) -> Result<Self, BackendError> {
        match descriptor.path.as_slice() {
            [door, name] if door == "topics" => {
                catalog.topics.get(name).map(|topic| Self::Topic(topic)).ok_or_else(|| {
                    BackendError::unknown("topic", name, catalog.topics.keys().map(String::as_str))
                })
            }
            [door, name] if door == "features" || door == "views" => catalog
                .views
                .get(name)
                .map(|view| Self::View(view))
                .ok_or_else(|| unknown_view(catalog, name)),
            [door, name] if door == "predict" || door == "models" => {
                catalog.models.get(name).map(|model| Self::Model(model)).ok_or_else(|| {
                    BackendError::unknown("model", name, catalog.models.keys().map(String::as_str))
                })
            }
            path => Err(BackendError::invalid(format!(
                "the descriptor path {path:?} names nothing: use [\"topics\", NAME], \
                 [\"features\", VIEW] or [\"predict\", MODEL]"
            ))),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Topic(topic) => &topic.schema.name,
            Self::View(view) => &view.name,
            Self::Model(model) => &model.name,
        }
    }

    fn schema(&self) -> SchemaRef {
        match self {
            Self::Topic(topic) => topic.arrow.clone(),
            Self::View(view) => view.schema.clone(),
            Self::Model(model) => model.answer_schema(),
        }
    }

    fn path(&self) -> Vec<String> {
        let door = match self {
            Self::Topic(_) => "topics",
            Self::View(_) => "features",
            Self::Model(_) => "predict",
        };
        vec![door.to_owned(), self.name().to_owned()]
    }

    /// What `DoGet` reads it with; of a model, its predictions.
    fn ticket(&self) -> ReadTicket {
        match self {
            Self::Topic(topic) => ReadTicket::topic(&topic.schema.name),
            Self::View(view) => ReadTicket::view(&view.name),
            Self::Model(model) => ReadTicket::topic(format!("{}.predictions", model.name)),
        }
    }

    fn to_json(&self) -> Json {
        match self {
            Self::Topic(topic) => {
                let schema = &topic.schema;
                let name = |index: &usize| schema.columns.get(*index).map(|c| c.name.clone());
                json!({
                    "kind": "topic",
                    "name": schema.name,
                    "version": schema.version,
                    "table": schema.kind == falaj_event::TopicKind::Table,
                    "columns": schema.columns,
                    "key": schema.key.iter().map(name).collect::<Vec<_>>(),
                    "event_time": name(&schema.event_time),
                    "partitions": schema.partitions,
                    "writable": topic.writable,
                    "details": topic.details,
                })
            }
            Self::View(view) => {
                let name = |index: &usize| view.schema.field(*index).name().clone();
                json!({
                    "kind": "view",
                    "name": view.name,
                    "id": format!("{:?}", view.id),
                    "columns": columns_json(&view.schema),
                    "key": view.key.iter().map(name).collect::<Vec<_>>(),
                    "ttl_us": view.ttl_us,
                    "details": view.details,
                })
            }
            Self::Model(model) => json!({
                "kind": "model",
                "name": model.name,
                "key": columns_json(&model.keys),
                "request": columns_json(&model.request),
                "classes": model.classes,
                "details": model.details,
            }),
        }
    }

    async fn info(&self, gateway: &Gateway) -> Result<FlightInfo, Status> {
        let statistics = gateway.backend.statistics(self.name()).await.unwrap_or_default();
        let mut metadata = self.to_json();
        metadata["t"] = json!(statistics.t);
        metadata["freshness_us"] = json!(statistics.freshness_us);
        let records = statistics.records.and_then(|records| i64::try_from(records).ok());
        let ticket = Ticket::new(self.ticket().to_bytes());
        Ok(FlightInfo {
            schema: ipc(&self.schema())?.0,
            ..FlightInfo::new()
                .with_descriptor(FlightDescriptor::new_path(self.path()))
                .with_endpoint(FlightEndpoint::new().with_ticket(ticket))
                .with_total_records(records.unwrap_or(-1))
                .with_total_bytes(-1)
                .with_app_metadata(metadata.to_string())
        })
    }
}

fn columns_json(schema: &Schema) -> Json {
    let column = |field: &Field| {
        let (name, of) = (field.name(), field.data_type().to_string());
        json!({ "name": name, "type": of, "nullable": field.is_nullable() })
    };
    schema.fields().iter().map(|field| column(field.as_ref())).collect()
}

fn ipc(schema: &Schema) -> Result<IpcMessage, Status> {
    SchemaAsIpc::new(schema, &IpcWriteOptions::default())
        .try_into()
        .map_err(|error| Status::internal(format!("encoding a schema: {error}")))
}

fn flights(catalog: &Catalog) -> impl Iterator<Item = Flight<'_>> {
    let topics = catalog.topics.values().map(|topic| Flight::Topic(topic));
    let views = catalog.views.values().map(|view| Flight::View(view));
    let models = catalog.models.values().map(|model| Flight::Model(model));
    topics.chain(views).chain(models)
}

/// All topics and views, or those whose name or path (`topics/NAME`, `features/NAME`) begins with
/// the criteria's expression.
pub(super) async fn list(gateway: &Gateway, criteria: &Criteria) -> ResponseStream<FlightInfo> {
    let started = Instant::now();
    let prefix = String::from_utf8_lossy(&criteria.expression);
    let catalog = gateway.backend.catalog();
    let mut infos = Vec::new();
    for flight in flights(&catalog) {
        if flight.name().starts_with(prefix.as_ref())
            || flight.path().join("/").starts_with(prefix.as_ref())
        {
            infos.push(Ok(flight.info(gateway).await?));
        }
    }
    gateway.metrics.calls.finish(started, infos.len(), true);
    Ok(Response::new(iter(infos).boxed()))
}

pub(super) async fn info(
    gateway: &Gateway,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo, Status> {
    let started = Instant::now();
    let catalog = gateway.backend.catalog();
    let info = match Flight::find(&catalog, &descriptor) {
        Ok(flight) => flight.info(gateway).await,
        Err(error) => Err(error.into()),
    };
    gateway.metrics.calls.finish(started, 1, info.is_ok());
    info
}

pub(super) fn schema(
    gateway: &Gateway,
    descriptor: FlightDescriptor,
) -> Result<SchemaResult, Status> {
    let catalog = gateway.backend.catalog();
    let flight = Flight::find(&catalog, &descriptor)?;
    Ok(SchemaResult { schema: ipc(&flight.schema())?.0 })
}

fn all_actions(gateway: &Gateway) -> impl Iterator<Item = (&'static str, &'static str)> {
    ACTIONS.into_iter().chain(gateway.backend.actions())
}

pub(super) fn actions(
    gateway: &Gateway,
) -> Response<BoxStream<'static, Result<ActionType, Status>>> {
    let types: Vec<_> = all_actions(gateway)
        .map(|(name, description)| {
            Ok(ActionType { r#type: name.to_owned(), description: description.to_owned() })
        })
        .collect();
    Response::new(iter(types).boxed())
}

pub(super) async fn act(
    gateway: &Gateway,
    action: &Action,
    identity: &Identity,
) -> ResponseStream<arrow_flight::Result> {
    let started = Instant::now();
    let body = match action.r#type.as_str() {
        "status" => Ok(gateway.backend.status().await.to_string()),
        "healthz" => {
            let status = gateway.backend.status().await;
            match status["ready"] == json!(true) {
                true => Ok("ok".to_owned()),
                false => Err(BackendError::unavailable(format!("the node is not ready: {status}"))),
            }
        }
        "catalog" => {
            let catalog = gateway.backend.catalog();
            Ok(flights(&catalog).map(|flight| flight.to_json()).collect::<Json>().to_string())
        }
        "metrics" => Ok(gateway.metrics.to_json().to_string()),
        other => own_action(gateway, other, &action.body, identity).await,
    };
    gateway.metrics.calls.finish(started, 1, body.is_ok());
    let result = arrow_flight::Result { body: body?.into() };
    Ok(Response::new(iter([Ok(result)]).boxed()))
}

/// An action that only the node knows.
async fn own_action(
    gateway: &Gateway,
    name: &str,
    body: &[u8],
    identity: &Identity,
) -> Result<String, BackendError> {
    let body = match body {
        [] => Json::Null,
        bytes => serde_json::from_slice(bytes).map_err(|error| {
            BackendError::invalid(format!("action `{name}`: its body is no JSON: {error}"))
        })?,
    };
    match gateway.backend.action(name, body, identity).await {
        Ok(answer) => Ok(answer.to_string()),
        Err(BackendError::Unknown { kind: "action", near, .. }) if near.is_empty() => {
            Err(BackendError::unknown("action", name, all_actions(gateway).map(|(name, _)| name)))
        }
        Err(error) => Err(error),
    }
}
