//! The registry at work: its state as of the newest event on `falaj.models`, and commands against it.
//!
//! One command at a time: decided on the state, appended, durable, then applied; so what is refused
//! leaves no trace, and what is acknowledged is what a replay gives. Decides nothing itself (see
//! `falaj_lifecycle`).

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use falaj_event::{Hash256, LogTime, TopicSchema, Value};
use falaj_lifecycle::{Actor, Command, ModelChange, ModelEvent, Refusal, RegistryState};
use falaj_log::{Log, Reader, SequencerHandle};
use serde_json::{Value as Json, json};

use super::rows::{self, RowReader, moment, text};
use crate::pump::wall_clock_us;

/// Name of the topic.
pub const TOPIC: &str = "falaj.models";

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The registry refused.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// What it came with does not fit.
    #[error("{0}")]
    Unfit(String),
    /// The log did not take it.
    #[error("{0:#}")]
    Log(anyhow::Error),
}

/// The registry of one node.
pub struct Registry {
    schema: Arc<TopicSchema>,
    log: Arc<dyn Log>,
    sequencer: SequencerHandle,
    state: Mutex<RegistryState>,
}

impl Registry {
    /// Reads all events and takes commands from then on.
    ///
    /// # Errors
    /// When the log cannot be read, or its events do not follow from each other.
    pub fn open(
        schema: Arc<TopicSchema>,
        log: Arc<dyn Log>,
        reader: &Reader,
        sequencer: SequencerHandle,
    ) -> Result<Self> {
        let mut state = RegistryState::default();
        for event in read(reader, &schema)? {
            state.apply(&event).with_context(|| {
                format!(
                    "{TOPIC}: event {} of {} does not follow",
                    event.change.kind(),
                    event.pipeline
                )
            })?;
        }
        Ok(Self { schema, log, sequencer, state: Mutex::new(state) })
    }

    /// Looks at the state. Commands wait meanwhile.
    pub fn with<R>(&self, look: impl FnOnce(&RegistryState) -> R) -> R {
        look(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The newest committed `T`: the cause of what is decided now.
    pub fn now(&self) -> LogTime {
        self.log.tail().map(|tail| tail.record.t).unwrap_or_default()
    }

    /// Carries a command out and gives its events, which are durable then. Blocks on the log.
    ///
    /// # Errors
    /// When it is refused, or nothing was appended.
    pub fn command(&self, command: &Command) -> Result<Vec<ModelEvent>, CommandError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let events = state.decide(command)?;
        if events.is_empty() {
            return Ok(events);
        }
        self.append(&state, &events).map_err(CommandError::Log)?;
        for event in &events {
            state.apply(event)?;
        }
        Ok(events)
    }

    fn append(&self, state: &RegistryState, events: &[ModelEvent]) -> Result<()> {
        let before = |event: &ModelEvent| {
            state.pipeline(&event.pipeline).map_or(0, |pipeline| pipeline.events.len())
        };
        let keys: Vec<Vec<u8>> = events
            .iter()
            .map(|event| format!("{} {}", event.pipeline, before(event)).into_bytes())
            .collect();
        let cause = events.first().map(|event| event.at).unwrap_or_default();
        let encoded = events.iter().map(encode).collect::<Result<Vec<_>>>()?;
        let submission = rows::derived(&self.schema, &Hash256::default(), cause, &keys, encoded)?;
        let (origin, ops, batch) = (submission.origin, submission.ops, submission.batch);
        let ack = self.sequencer.append(&self.schema, origin, ops, batch)?;
        match ack.rejected.first() {
            None => Ok(()),
            Some(row) => bail!("{TOPIC} refused an event: {}", row.reasons.join("; ")),
        }
    }
}

/// All events of the registry, oldest first.
///
/// # Errors
/// When the log cannot be read, or an event is not what this program writes.
pub fn read(reader: &Reader, schema: &TopicSchema) -> Result<Vec<ModelEvent>> {
    let mut events = Vec::new();
    for partition in 0..schema.partitions {
        for (_, found) in reader.range(schema.id(), partition, 0, usize::MAX)? {
            let rows = RowReader::new(schema, &found.batch)?;
            for row in 0..rows.rows() {
                events.push(decode(&rows, row)?);
            }
        }
    }
    Ok(events)
}

/// An event as a row.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn encode(event: &ModelEvent) -> Result<rows::Row<'static>> {
    let change = serde_json::to_value(&event.change)?;
    let version = event.version.map_or(Value::Null, |version| Value::UInt(version.into()));
    Ok(vec![
        ("pipeline", text(&event.pipeline)),
        ("version", version),
        ("t", moment(event.at)),
        ("kind", text(event.change.kind())),
        ("actor", text(event.actor.to_string())),
        ("reason", text(&event.reason)),
        ("detail", text(change.get("detail").unwrap_or(&Json::Null).to_string())),
        ("wall_clock", moment(LogTime(wall_clock_us()))),
    ])
}

/// A row as an event.
///
/// # Errors
/// When it is not what [`encode`] gives.
pub fn decode(rows: &RowReader<'_>, row: usize) -> Result<ModelEvent> {
    let kind = rows.text(row, "kind")?;
    let detail: Json = serde_json::from_str(&rows.text(row, "detail")?)
        .with_context(|| format!("{TOPIC}: the detail of an event `{kind}`"))?;
    let change = match detail {
        Json::Null => json!({ "kind": &*kind }),
        detail => json!({ "kind": &*kind, "detail": detail }),
    };
    let change: ModelChange = serde_json::from_value(change)
        .with_context(|| format!("{TOPIC}: an event `{kind}` that this program does not know"))?;
    let actor =
        Actor::try_from(rows.text(row, "actor")?.to_string()).map_err(anyhow::Error::msg)?;
    Ok(ModelEvent {
        pipeline: rows.text(row, "pipeline")?.to_string(),
        version: rows.number(row, "version")?.map(u32::try_from).transpose()?,
        at: rows.moment(row, "t")?,
        actor,
        reason: rows.text(row, "reason")?.to_string(),
        change,
    })
}
