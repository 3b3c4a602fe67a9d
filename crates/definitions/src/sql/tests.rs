//! What is accepted, what is refused, and where.

use std::path::PathBuf;

use falaj_event::{Classification, Column, ColumnType, Hash256, TopicKind, TopicSchema};

use super::*;
use crate::plan::{AggregateFunction, CostClass, Frame, JoinKind, Shape, Source};
use crate::topics::TopicDefinition;

mod meaning;
mod refused;

/// `name type` per column; `?` after a type makes it nullable, `!` personal.
pub(crate) fn topic(
    name: &str,
    kind: TopicKind,
    columns: &[&str],
    key: &[&str],
) -> Arc<TopicDefinition> {
    let columns: Vec<Column> = columns
        .iter()
        .map(|text| {
            let (name, spelled) = text.split_once(' ').unwrap();
            Column {
                name: name.to_owned(),
                column_type: spelled.trim_end_matches(['?', '!']).parse().unwrap(),
                nullable: spelled.ends_with('?'),
                pii: spelled.ends_with('!'),
                classification: Classification::Internal,
                since_version: 1,
            }
        })
        .collect();
    let index = |wanted: &str| columns.iter().position(|column| column.name == wanted).unwrap();
    let schema = TopicSchema {
        name: name.to_owned(),
        version: 1,
        kind,
        key: key.iter().map(|name| index(name)).collect(),
        event_time: index("event_time"),
        subject: None,
        partitions: 4,
        derived: false,
        columns: columns.clone(),
    };
    Arc::new(TopicDefinition {
        column_descriptions: vec![String::new(); columns.len()],
        schema: Arc::new(schema),
        description: String::new(),
        owner: None,
        expectations: Vec::new(),
        skew_us: 0,
        max_gap_us: None,
        retention_us: None,
        inbox: false,
        jurisdictions: Vec::new(),
        file: PathBuf::from("t.toml"),
        text: "".into(),
        hash: Hash256::default(),
    })
}

pub(crate) fn topics() -> Topics {
    let mut topics = Topics::new();
    topics.insert(topic(
        "payments",
        TopicKind::Event,
        &[
            "event_time timestamp",
            "payment_id string",
            "card_id string",
            "merchant_id string",
            "amount decimal(12,2)",
            "fee float64?",
            "quantity int32?",
            "country string?",
            "approved bool?",
            "day date?",
            "email string!",
            "scores list<float64>?",
        ],
        &["payment_id"],
    ));
    topics.insert(topic(
        "logins",
        TopicKind::Event,
        &["event_time timestamp", "card_id string", "ok bool"],
        &["card_id"],
    ));
    topics.insert(topic(
        "merchants",
        TopicKind::Table,
        &[
            "merchant_id string",
            "event_time timestamp",
            "category string?",
            "risk float64?",
            "owner_email string!",
        ],
        &["merchant_id"],
    ));
    topics.insert(topic(
        "rates",
        TopicKind::Table,
        &["country string", "shard int64", "event_time timestamp", "rate float64"],
        &["country", "shard"],
    ));
    topics
}

pub(crate) const CARD_HOURLY: &str = "-- hop: 1 minute\nCREATE VIEW card_hourly AS SELECT card_id, count(*) OVER w AS n, sum(amount) OVER w AS total, avg(fee) OVER w AS fee FROM payments WINDOW w AS (PARTITION BY card_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW)";

pub(crate) fn views(topics: &Topics) -> BTreeMap<String, Arc<ViewPlan>> {
    let view =
        plan_view(Path::new("card_hourly.sql"), CARD_HOURLY, topics, &BTreeMap::new()).unwrap();
    BTreeMap::from([(view.name.clone(), Arc::new(view))])
}

pub(crate) fn try_plan(text: &str) -> Result<ViewPlan, Vec<Diagnostic>> {
    let topics = topics();
    plan_view(Path::new("v.sql"), text, &topics, &views(&topics))
}

#[track_caller]
pub(crate) fn planned(text: &str) -> ViewPlan {
    try_plan(text).unwrap_or_else(|diagnostics| {
        let all: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
        panic!("refused:\n{}", all.join("\n"))
    })
}

/// A view over payments with these select items after the key, all windows `w` of one hour.
pub(crate) fn hourly(items: &str) -> String {
    format!(
        "CREATE VIEW v AS SELECT card_id, {items} FROM payments WINDOW w AS (PARTITION BY card_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW)"
    )
}

fn keyed(plan: &ViewPlan) -> (&[usize], &[crate::plan::AggregateCall]) {
    match &plan.shape {
        Shape::Keyed { bare, aggregates } => (bare, aggregates),
        Shape::PerRow => panic!("not keyed"),
    }
}
