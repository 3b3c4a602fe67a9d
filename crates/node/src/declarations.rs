//! What has been declared, as events: reading `falaj.definitions`, and deciding which events a start
//! with the present definitions must append.
//!
//! Deciding is pure; reading goes through the log's reader. Knows no engine and no view store.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::record_batch::RecordBatch;
use falaj_definitions::catalog::{Catalog, Definition, DefinitionKind as Kind};
use falaj_definitions::functions::FUNCTION_SET_VERSION;
use falaj_definitions::sql::ENGINE_VERSION;
use falaj_event::cells::batch_cells;
use falaj_event::{EventId, Hash256, LogTime, Op, TopicSchema, Value};
use falaj_log::{Ops, Origin, Reader, Submission};

use crate::models::rows::of_columns;

/// Name of the topic.
pub const TOPIC: &str = "falaj.definitions";

/// One definition in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// Topic, view or pipeline.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// A topic's schema version.
    pub version: Option<u32>,
    /// Hash of everything that decides its contents.
    pub hash: Hash256,
    /// The definition as written.
    pub text: Arc<str>,
}

/// All declarations of a log, oldest first, and those that are in force now.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    /// Every declaration that was ever in force, in log order.
    pub history: Vec<Declaration>,
    /// The newest per (kind, name), removed ones left out.
    pub current: BTreeMap<(Kind, String), Declaration>,
}

/// Reads `falaj.definitions` from the log.
///
/// # Errors
/// When the log cannot be read, or an event is not what this program writes.
pub fn read(reader: &Reader, schema: &TopicSchema) -> Result<Declared> {
    let mut declared = Declared::default();
    for partition in 0..schema.partitions {
        for (_, events) in reader.range(schema.id(), partition, 0, usize::MAX)? {
            add(&mut declared, schema, &events.batch)?;
        }
    }
    Ok(declared)
}

fn add(declared: &mut Declared, schema: &TopicSchema, batch: &RecordBatch) -> Result<()> {
    let cells = batch_cells(batch)?;
    let column = |name: &str| {
        schema.column_index(name).with_context(|| format!("{TOPIC} has no column {name}"))
    };
    let (kind, name, action) = (column("kind")?, column("name")?, column("action")?);
    let (version, hash, text) = (column("version")?, column("hash")?, column("text")?);
    for row in 0..batch.num_rows() {
        let string = |index: usize| match cells[index].value(row) {
            Value::String(text) => Ok(text),
            other => bail!("{TOPIC}, row {row}: {other:?} is no text"),
        };
        let kind = match string(kind)?.as_ref() {
            "topic" => Kind::Topic,
            "view" => Kind::View,
            "pipeline" => Kind::Pipeline,
            other => bail!("{TOPIC}, row {row}: unknown kind `{other}`"),
        };
        let name = string(name)?.to_string();
        let hash = match cells[hash].value(row) {
            Value::Binary(bytes) => {
                Hash256(bytes.as_ref().try_into().context("a hash has 32 bytes")?)
            }
            other => bail!("{TOPIC}, row {row}: {other:?} is no hash"),
        };
        let version = match cells[version].value(row) {
            Value::UInt(version) => Some(u32::try_from(version)?),
            _ => None,
        };
        if string(action)?.as_ref() == "removed" {
            declared.current.remove(&(kind, name));
            continue;
        }
        let declaration =
            Declaration { kind, name: name.clone(), version, hash, text: string(text)? };
        declared.history.push(declaration.clone());
        declared.current.insert((kind, name), declaration);
    }
    Ok(())
}

/// The declarations of a catalog.
pub fn of_catalog(catalog: &Catalog) -> BTreeMap<(Kind, String), Declaration> {
    let declaration = |found: &Definition| Declaration {
        kind: found.kind,
        name: found.name.clone(),
        version: found.version,
        hash: found.hash,
        text: Arc::clone(&found.text),
    };
    let all = catalog.definitions.iter().map(declaration);
    all.map(|found| ((found.kind, found.name.clone()), found)).collect()
}

/// A declaration to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `added`, `changed` or `removed`.
    pub action: &'static str,
    /// What.
    pub declaration: Declaration,
}

/// What must be appended so that the log declares `wanted`; empty when it already does.
pub fn decide(
    current: &BTreeMap<(Kind, String), Declaration>,
    wanted: &BTreeMap<(Kind, String), Declaration>,
) -> Vec<Change> {
    let mut changes = Vec::new();
    for (name, declaration) in wanted {
        let action = match current.get(name) {
            Some(before) if before.hash == declaration.hash && before.text == declaration.text => {
                continue;
            }
            Some(_) => "changed",
            None => "added",
        };
        changes.push(Change { action, declaration: declaration.clone() });
    }
    for (name, declaration) in current {
        if !wanted.contains_key(name) {
            changes.push(Change { action: "removed", declaration: declaration.clone() });
        }
    }
    changes
}

/// The events that record `changes`, as one submission.
///
/// # Errors
/// When the topic's schema is not the one that this program writes.
pub fn submission(
    changes: &[Change],
    schema: &Arc<TopicSchema>,
    definitions: Hash256,
    cause: LogTime,
    wall_clock_us: u64,
) -> Result<Submission> {
    let mut ids = Vec::with_capacity(changes.len());
    let mut columns: Vec<Vec<Value>> =
        vec![Vec::with_capacity(changes.len()); schema.columns.len()];
    for (ordinal, change) in changes.iter().enumerate() {
        let it = &change.declaration;
        let key = format!("{} {}", it.kind.as_str(), it.name);
        match EventId::derived(&it.hash, cause, key.as_bytes(), u32::try_from(ordinal)?) {
            EventId::Derived(hash) => ids.push(hash),
            EventId::Producer { .. } => {}
        }
        for (column, values) in schema.columns.iter().zip(&mut columns) {
            values.push(match column.name.as_str() {
                "t" => Value::Timestamp(cause.as_event_time()),
                "kind" => Value::String(it.kind.as_str().into()),
                "name" => Value::String(it.name.as_str().into()),
                "action" => Value::String(change.action.into()),
                "version" => it.version.map_or(Value::Null, |version| Value::UInt(version.into())),
                "hash" => Value::Binary(it.hash.0.as_slice().into()),
                "text" => Value::String(Arc::clone(&it.text)),
                "engine_version" => Value::UInt(ENGINE_VERSION.into()),
                "function_set_version" => Value::UInt(FUNCTION_SET_VERSION.into()),
                "definitions" => Value::Binary(definitions.0.as_slice().into()),
                "wall_clock" => Value::Timestamp(LogTime(wall_clock_us).as_event_time()),
                other => bail!("{TOPIC} has a column `{other}` that this program does not write"),
            });
        }
    }
    Ok(Submission {
        schema: Arc::clone(schema),
        origin: Origin::Derived(ids),
        ops: Ops::All(Op::Insert),
        batch: of_columns(schema, &columns)?,
        positions: None,
        rejected: None,
        reply: Box::new(|_| {}),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declarations(list: &[(&str, u8)]) -> BTreeMap<(Kind, String), Declaration> {
        let declaration = |(name, hash): &(&str, u8)| Declaration {
            kind: Kind::View,
            name: (*name).into(),
            version: None,
            hash: Hash256([*hash; 32]),
            text: "".into(),
        };
        list.iter().map(|entry| ((Kind::View, entry.0.to_owned()), declaration(entry))).collect()
    }

    #[test]
    fn only_what_changed_is_declared() {
        let before = declarations(&[("a", 1), ("b", 2), ("c", 3)]);
        let after = declarations(&[("a", 1), ("b", 9), ("d", 4)]);
        let changes = decide(&before, &after);
        let told: Vec<_> =
            changes.iter().map(|c| (c.action, c.declaration.name.as_str())).collect();
        assert_eq!(told, [("changed", "b"), ("added", "d"), ("removed", "c")]);
        assert_eq!(decide(&after, &after), []);
    }
}
