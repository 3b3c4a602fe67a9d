//! Actions on models, behind `DoAction`: training, approval, promotion, rollback, history.
//!
//! Each takes and gives one JSON document. Knows no Flight; what is allowed is the registry's to say.

use std::sync::Arc;

use falaj_gateway::backend::{BackendError, Identity};
use falaj_lifecycle::{Action, Actor, ModelEvent, PipelineState, VersionNumber};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::actions::from_hex;
use crate::models::ModelLoop;
use crate::models::registry::CommandError;

/// Names of the actions and what they do.
pub const ACTIONS: [(&str, &str); 13] = [
    ("models", "Pipelines and their versions: {pipeline?}"),
    ("model_train", "Asks for a training run: {pipeline, reason}"),
    (
        "model_register",
        "Enters a model of another tool as a candidate: {pipeline, onnx (hex of the file), reason}",
    ),
    ("model_cancel", "Ends the run in flight: {pipeline}"),
    ("model_approve", "Approves a version: {pipeline, version, reason}"),
    ("model_withdraw", "Takes an approval back: {pipeline, version, reason}"),
    ("model_reject", "Turns a version down: {pipeline, version, reason}"),
    ("model_promote", "Makes a version the champion: {pipeline, version, reason}"),
    ("model_rollback", "Puts an earlier champion back: {pipeline, version?, reason}"),
    ("model_retire", "Takes a version out: {pipeline, version, reason}"),
    ("model_alias", "Points an alias at a version: {pipeline, alias, version?}"),
    ("model_card", "A version's card and plots: {pipeline, version}"),
    ("replay_prediction", "Recomputes a prediction from raw events: {pipeline, id, version?}"),
];

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Body {
    pipeline: String,
    version: Option<VersionNumber>,
    reason: String,
    alias: Option<String>,
    onnx: Option<String>,
    id: Option<String>,
}

/// Runs the action called `name`.
///
/// # Errors
/// An unknown name, a body that does not fit, the registry's refusal, or why the action failed.
pub async fn run(
    models: &Arc<ModelLoop>,
    name: &str,
    body: Json,
    identity: &Identity,
) -> Result<Json, BackendError> {
    let body: Body = match body {
        Json::Null => Body::default(),
        body => serde_json::from_value(body)
            .map_err(|error| BackendError::invalid(format!("action `{name}`: {error}")))?,
    };
    let (models, name) = (Arc::clone(models), name.to_owned());
    let actor = Actor::Person(identity.name.to_string());
    tokio::task::spawn_blocking(move || act(&models, &name, body, actor))
        .await
        .map_err(|error| BackendError::internal(error.to_string()))?
}

fn act(
    models: &Arc<ModelLoop>,
    name: &str,
    body: Body,
    actor: Actor,
) -> Result<Json, BackendError> {
    if name == "models" && body.pipeline.is_empty() {
        return Ok(all(models));
    }
    models.predictor(&body.pipeline)?;
    let pipeline = body.pipeline.as_str();
    let version = || {
        body.version
            .ok_or_else(|| BackendError::invalid(format!("action `{name}`: no version given")))
    };
    let carry_out =
        |action: Action| models.carry_out(pipeline, actor.clone(), &body.reason, action);
    let events = match name {
        "models" => return Ok(one(models, pipeline)),
        "model_train" => {
            let asked = models.request(pipeline, actor, "manual", Vec::new(), &body.reason, None);
            let (run, version) = asked.map_err(refused)?;
            return Ok(json!({ "pipeline": pipeline, "run": run, "version": version }));
        }
        "model_register" => {
            let file = body.onnx.as_deref().and_then(from_hex).ok_or_else(|| {
                BackendError::invalid("model_register: `onnx` is not hexadecimal, or missing")
            })?;
            let asked = models.register(pipeline, actor, file, &body.reason);
            let (run, version) = asked.map_err(refused)?;
            return Ok(json!({ "pipeline": pipeline, "run": run, "version": version }));
        }
        "model_cancel" => {
            models.cancel(pipeline, actor).map_err(refused)?;
            return Ok(json!({ "pipeline": pipeline, "cancelled": true }));
        }
        "model_approve" => carry_out(Action::Approve { version: version()? }),
        "model_withdraw" => carry_out(Action::WithdrawApproval { version: version()? }),
        "model_reject" => carry_out(Action::Reject { version: version()? }),
        "model_retire" => carry_out(Action::Retire { version: version()? }),
        "model_promote" => models.promote(pipeline, version()?, actor, &body.reason),
        "model_rollback" => models.roll_back(pipeline, body.version, actor, &body.reason, None),
        "model_alias" => {
            let alias = body.alias.clone().unwrap_or_default();
            carry_out(Action::SetAlias { alias, version: body.version })
        }
        "model_card" => return card(models, pipeline, version()?),
        "replay_prediction" => {
            let id = body.id.as_deref().ok_or_else(|| BackendError::invalid("no id given"))?;
            let replayed = crate::models::replay::replay(models, pipeline, id, body.version);
            return replayed.map_err(|error| BackendError::internal(format!("{error:#}")));
        }
        other => return Err(BackendError::unknown("action", other, ACTIONS.map(|(name, _)| name))),
    };
    Ok(json!({ "events": events.map_err(refused)? }))
}

fn refused(error: CommandError) -> BackendError {
    match error {
        CommandError::Refused(refusal) => BackendError::invalid(refusal.to_string()),
        CommandError::Unfit(why) => BackendError::invalid(why),
        CommandError::Log(error) => BackendError::unavailable(format!("{error:#}")),
    }
}

fn all(models: &ModelLoop) -> Json {
    let one = |name: &str| {
        models.registry(|state| {
            let found = state.pipeline(name)?;
            Some(summary(name, found))
        })
    };
    models.predictors().filter_map(|model| one(&model.info.name)).collect()
}

fn summary(name: &str, state: &PipelineState) -> Json {
    let versions = state.versions.iter().map(|(number, version)| {
        json!({
            "version": number,
            "stage": version.stage,
            "run": version.run,
            "requested_by": version.requested_by,
            "trigger": version.cause.trigger,
            "approvals": version.approvals,
            "artifact": version.model.as_ref().map(|model| &model.artifact_sha256),
            "metrics": version.model.as_ref().map(|model| &model.metrics),
            "gates": version.report.as_ref().map(|report| &report.outcomes),
            "since": version.stages.last().map(|change| change.at),
        })
    });
    json!({
        "pipeline": name,
        "champion": state.champion,
        "challenger": state.challenger,
        "aliases": state.aliases,
        "policy": state.policy,
        "served": state.served,
        "versions": versions.collect::<Vec<_>>(),
    })
}

fn one(models: &ModelLoop, name: &str) -> Json {
    models.registry(|state| {
        let Some(found) = state.pipeline(name) else { return Json::Null };
        let mut told = summary(name, found);
        let events: Vec<&ModelEvent> = found.events.iter().collect();
        told["events"] = json!(events);
        told
    })
}

fn card(models: &ModelLoop, pipeline: &str, version: VersionNumber) -> Result<Json, BackendError> {
    let internal = |error: anyhow::Error| BackendError::internal(format!("{error:#}"));
    let id = models
        .registry(|state| {
            let found = state.pipeline(pipeline)?.versions.get(&version)?;
            Some(found.model.as_ref()?.artifact_sha256.clone())
        })
        .ok_or_else(|| {
            BackendError::invalid(format!("{pipeline} has no trained version {version}"))
        })?;
    let artifact = models.artifacts().get(&id).map_err(internal)?;
    let card = falaj_model::artifact::card::Card::of(&artifact);
    let plots = card.plots.iter().map(|(name, svg)| (name.clone(), Json::from(svg.clone())));
    Ok(json!({
        "pipeline": pipeline,
        "version": version,
        "artifact": id,
        "markdown": card.markdown,
        "plots": plots.collect::<serde_json::Map<_, _>>(),
    }))
}
