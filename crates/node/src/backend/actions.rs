//! Actions of the node's own, behind `DoAction`: audit, compact, replay, oracle SQL, unreadable lines.
//!
//! Each takes and gives one JSON document. Knows no Flight.

use std::sync::Arc;

use falaj_definitions::oracle::oracle_sql;
use falaj_definitions::reasons::{Reason, ReasonCode};
use falaj_event::LogTime;
use falaj_gateway::backend::{BackendError, Identity};
use falaj_gateway::wire::producer_id;
use falaj_log::Origin;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::produce;
use crate::core::Core;
use crate::{audit, compact, replay};

/// Names of the actions and what they do.
pub const ACTIONS: [(&str, &str); 7] = [
    ("audit_state", "The digest of all state"),
    ("audit_rebuild", "Rebuilds the state from the log beside the present one and compares them"),
    ("audit_log", "Verifies every epoch: chain, blocks, event hashes and roots"),
    ("compact", "Cuts what retention no longer keeps, behind a baseline: {dry_run}"),
    ("replay", "Recomputes a key's row at an old T from raw events: {view, key (hex), at}"),
    ("oracle", "A view's oracle SQL: {view, at}"),
    ("reject", "Records lines that are no rows: {topic, producer, first_sequence, lines}"),
];

#[derive(Deserialize)]
struct CompactBody {
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
struct ReplayBody {
    view: String,
    /// The canonical key bytes in hexadecimal.
    key: String,
    at: Option<u64>,
}

#[derive(Deserialize)]
struct OracleBody {
    view: String,
    at: Option<u64>,
}

#[derive(Deserialize)]
struct RejectBody {
    topic: String,
    producer: String,
    first_sequence: u64,
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    text: String,
    reasons: Vec<LineReason>,
}

#[derive(Deserialize)]
struct LineReason {
    code: ReasonCode,
    column: Option<String>,
    text: String,
}

impl From<LineReason> for Reason {
    fn from(reason: LineReason) -> Self {
        Self { code: reason.code, column: reason.column, text: reason.text }
    }
}

/// Runs the action called `name`.
///
/// # Errors
/// An unknown name, a body that does not fit, or why the action failed.
pub async fn run(
    core: &Arc<Core>,
    name: &str,
    body: Json,
    _identity: &Identity,
) -> Result<Json, BackendError> {
    match name {
        "audit_state" => blocking(core, audit::state).await,
        "audit_rebuild" => blocking(core, |core| audit::rebuild(core, &mut |_, _| {})).await,
        "audit_log" => blocking(core, |core| audit::log(core, &mut |_, _| {})).await,
        "compact" => {
            let body: CompactBody = parse(name, body)?;
            blocking(core, move |core| compact::run(core, body.dry_run)).await
        }
        "replay" => {
            let body: ReplayBody = parse(name, body)?;
            let key = from_hex(&body.key)
                .ok_or_else(|| BackendError::invalid("replay: `key` is not hexadecimal"))?;
            let at = body.at.map(LogTime);
            blocking(core, move |core| replay::replay(core, &body.view, &key, at)).await
        }
        "oracle" => {
            let body: OracleBody = parse(name, body)?;
            blocking(core, move |core| {
                let at = match body.at {
                    Some(at) => LogTime(at),
                    None => core.log.tail().map(|tail| tail.record.t).unwrap_or_default(),
                };
                let sql = oracle_sql(
                    &body.view,
                    &super::view_texts(&core.catalog),
                    &core.catalog.topics,
                    at,
                )?;
                Ok(json!({ "view": body.view, "at": at, "sql": sql }))
            })
            .await
        }
        "reject" => reject(core, parse(name, body)?).await,
        other => Err(BackendError::unknown("action", other, ACTIONS.map(|(name, _)| name))),
    }
}

async fn reject(core: &Arc<Core>, body: RejectBody) -> Result<Json, BackendError> {
    let definition =
        core.catalog.topics.get(&body.topic).cloned().ok_or_else(|| {
            BackendError::unknown("topic", &body.topic, core.catalog.topics.names())
        })?;
    if definition.schema.derived {
        return Err(BackendError::Denied {
            message: format!("only the platform appends to `{}`", body.topic),
        });
    }
    let producer = producer_id(&body.producer);
    let sequences = u32::try_from(body.lines.len())
        .map_err(|_| BackendError::invalid("reject: too many lines"))?;
    let origin = Origin::Producer { producer, first_sequence: body.first_sequence, sequences };
    let reasons = |line: Line| (line.text, line.reasons.into_iter().map(Reason::from).collect());
    let lines = body.lines.into_iter().map(reasons).collect();
    let ack = produce::reject(core, &definition, origin, lines).await?;
    Ok(json!({ "t": ack.t, "epoch": ack.epoch, "rejected": ack.rejected.len() }))
}

fn parse<T: serde::de::DeserializeOwned>(name: &str, body: Json) -> Result<T, BackendError> {
    serde_json::from_value(body)
        .map_err(|error| BackendError::invalid(format!("action `{name}`: {error}")))
}

async fn blocking(
    core: &Arc<Core>,
    work: impl FnOnce(&Core) -> anyhow::Result<Json> + Send + 'static,
) -> Result<Json, BackendError> {
    let core = Arc::clone(core);
    tokio::task::spawn_blocking(move || work(&core))
        .await
        .map_err(|error| BackendError::internal(error.to_string()))?
        .map_err(|error| BackendError::internal(format!("{error:#}")))
}

/// Bytes from hexadecimal; `None` where the text is none.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}
