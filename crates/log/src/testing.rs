//! Fixtures of this crate's tests: topics, batches, clocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::record_batch::RecordBatch;
use falaj_event::value::to_array;
use falaj_event::{Classification, Column, ColumnType, TopicKind, TopicSchema, Value};
use falaj_vault::{SeededRandom, Vault};

use crate::contract::Log;
use crate::schemas::{Schemas, row_schema};
use crate::sequencer::{Options, Parts, WallClock};
use crate::{AdmitAll, ClockMode};

pub(crate) fn column(name: &str, column_type: &str, nullable: bool) -> Column {
    Column {
        name: name.into(),
        column_type: column_type.parse().unwrap(),
        nullable,
        pii: false,
        classification: Classification::default(),
        since_version: 1,
    }
}

/// `payments`: customer (key, subject), paid_at, amount (nullable), card (pii, nullable).
pub(crate) fn payments(partitions: u32) -> TopicSchema {
    let mut card = column("card", "string", true);
    card.pii = true;
    TopicSchema {
        name: "payments".into(),
        version: 1,
        kind: TopicKind::Event,
        columns: vec![
            column("customer", "string", true),
            column("paid_at", "timestamp", false),
            column("amount", "int64", true),
            card,
        ],
        key: vec![0],
        event_time: 1,
        subject: Some(0),
        partitions,
        derived: false,
    }
}

/// Version 2 of [`payments`]: a nullable `till` more.
pub(crate) fn payments_2(partitions: u32) -> TopicSchema {
    let mut schema = payments(partitions);
    schema.version = 2;
    schema.columns.push(Column { since_version: 2, ..column("till", "string", true) });
    schema
}

pub(crate) fn payment(customer: &str, paid_at: i64, amount: i64) -> Vec<Value> {
    let card = Value::String(format!("4000-{customer}").into());
    vec![Value::String(customer.into()), Value::Timestamp(paid_at), Value::Int(amount), card]
}

pub(crate) fn batch(schema: &TopicSchema, rows: &[Vec<Value>]) -> RecordBatch {
    let columns = schema.columns.iter().enumerate().map(|(index, column)| {
        let values: Vec<Value> = rows.iter().map(|row| row[index].clone()).collect();
        let column_type: &ColumnType = &column.column_type;
        to_array(column_type, &values).unwrap()
    });
    RecordBatch::try_new(row_schema(schema), columns.collect()).unwrap()
}

#[derive(Debug, Default)]
pub(crate) struct ManualClock(pub AtomicU64);

impl WallClock for ManualClock {
    fn now_us(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

pub(crate) fn vault() -> Arc<Vault> {
    Arc::new(Vault::ephemeral(7).unwrap())
}

pub(crate) fn parts(log: Arc<dyn Log>, vault: &Arc<Vault>) -> Parts {
    Parts {
        log,
        vault: Arc::clone(vault),
        admission: Box::new(AdmitAll),
        clock: Arc::new(ManualClock(AtomicU64::new(1_000))),
        random: Arc::new(SeededRandom::new(1)),
    }
}

pub(crate) fn event_mode() -> Options {
    Options { clock: ClockMode::Event, linger_us: 0, ..Options::default() }
}

pub(crate) fn schemas(all: &[&Arc<TopicSchema>]) -> Arc<Schemas> {
    Arc::new(all.iter().map(|schema| Arc::clone(schema)).collect())
}
