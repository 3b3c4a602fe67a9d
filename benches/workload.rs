//! Events and definitions for the benches: deterministic, of a stated size.
//!
//! Does not know where they go.

use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::{ArrayRef, BooleanArray, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::record_batch::RecordBatch;
use falaj_definitions::catalog::Catalog;
use falaj_definitions::plan::{Frame, Shape, ViewPlan};
use falaj_event::TopicSchema;

/// A second of event time.
pub const SECOND_US: u64 = 1_000_000;
/// Event time begins here (2023-11-14).
pub const START_US: u64 = 1_700_000_000 * SECOND_US;
/// Bytes of data in one event of `payments`.
pub const PAYMENT_BYTES: usize = 100;

const PAYMENTS: &str = r#"
name = "payments"
description = "Payments of about 100 bytes."
kind = "event"
key = ["card"]
event_time = "at"

[[columns]]
name = "card"
type = "string"
description = "Who pays."

[[columns]]
name = "at"
type = "timestamp"
description = "When."

[[columns]]
name = "amount"
type = "int64"
between = [0, 1000000]
description = "How much."

[[columns]]
name = "merchant"
type = "string"
description = "Who is paid."

[[columns]]
name = "reference"
type = "string"
description = "What for."
"#;

const CARD_FEATURES: &str = "
-- owner: benches
-- description: Ten features of a card.
-- hop: 10 seconds
CREATE VIEW card_features AS
SELECT card,
       count(*)    OVER short AS payments_5m,
       sum(amount) OVER short AS sum_5m,
       avg(amount) OVER short AS avg_5m,
       min(amount) OVER short AS min_5m,
       max(amount) OVER short AS max_5m,
       count(*)    OVER long  AS payments_1h,
       sum(amount) OVER long  AS sum_1h,
       avg(amount) OVER long  AS avg_1h,
       min(amount) OVER long  AS min_1h,
       max(amount) OVER long  AS max_1h
FROM payments
WINDOW short AS (PARTITION BY card ORDER BY at RANGE BETWEEN INTERVAL '5 minutes' PRECEDING AND CURRENT ROW),
       long  AS (PARTITION BY card ORDER BY at RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
";

const VERDICTS: &str = r#"
name = "verdicts"
description = "Whether a payment was bad."
kind = "event"
key = ["card"]
event_time = "known_at"

[[columns]]
name = "card"
type = "string"
description = "Who paid."

[[columns]]
name = "known_at"
type = "timestamp"
description = "When it was known."

[[columns]]
name = "paid_at"
type = "timestamp"
description = "When the payment was."

[[columns]]
name = "bad"
type = "bool"
description = "Whether it was bad."
"#;

/// A pipeline over the ten columns of `card_features`; NAME and ACK stand for what two of them differ in.
const RISK: &str = r#"
[pipeline]
name = "NAME"
task = "binary"
entity = ["card"]
description = "Is the next payment of this card bad?"

[label]
topic = "verdicts"
column = "bad"
observed_at = "paid_at"
delay = "1 day"
within = "1 minute"

[[features]]
view = "card_features"
columns = ["payments_5m", "sum_5m", "avg_5m", "min_5m", "max_5m", "payments_1h", "sum_1h", "avg_1h", "min_1h", "max_1h"]

[trainer]
kind = "mlp"
hidden = [64, 32]
epochs = 2

[serving]
ack = "ACK"
"#;

const READINGS: &str = r#"
name = "readings"
description = "Numbers by meter."
kind = "event"
key = ["meter"]
event_time = "at"

[[columns]]
name = "meter"
type = "int64"
description = "Which meter."

[[columns]]
name = "at"
type = "timestamp"
description = "When."

[[columns]]
name = "value"
type = "int64"
description = "What it shows."
"#;

const METER_FEATURES: &str = "
-- owner: benches
-- description: Five aggregates over three windows.
-- hop: 10 seconds
CREATE VIEW meter_features AS
SELECT meter,
       count(*) OVER w1 AS c1, sum(value) OVER w1 AS s1, avg(value) OVER w1 AS a1, min(value) OVER w1 AS n1, max(value) OVER w1 AS x1,
       count(*) OVER w2 AS c2, sum(value) OVER w2 AS s2, avg(value) OVER w2 AS a2, min(value) OVER w2 AS n2, max(value) OVER w2 AS x2,
       count(*) OVER w3 AS c3, sum(value) OVER w3 AS s3, avg(value) OVER w3 AS a3, min(value) OVER w3 AS n3, max(value) OVER w3 AS x3
FROM readings
WINDOW w1 AS (PARTITION BY meter ORDER BY at RANGE BETWEEN INTERVAL '5 minutes' PRECEDING AND CURRENT ROW),
       w2 AS (PARTITION BY meter ORDER BY at RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW),
       w3 AS (PARTITION BY meter ORDER BY at RANGE BETWEEN INTERVAL '24 hours' PRECEDING AND CURRENT ROW);
";

/// Length and hop of the windows of `meter_features`, in microseconds.
pub const WINDOWS: [(u64, u64); 3] = [
    (300 * SECOND_US, 10 * SECOND_US),
    (3_600 * SECOND_US, 120 * SECOND_US),
    (86_400 * SECOND_US, 3_600 * SECOND_US),
];

/// `payments`, with or without `card_features` over it.
///
/// # Errors
/// Never: the texts are constant.
pub fn payments_catalog(with_view: bool) -> Result<Arc<Catalog>> {
    let mut texts = vec![("payments.toml", PAYMENTS)];
    if with_view {
        texts.push(("card_features.sql", CARD_FEATURES));
    }
    kit::node::catalog(&texts)
}

/// The pipelines of [`risk_catalog`]: the first is acknowledged at once, the second when it is durable.
pub const PIPELINES: [(&str, &str); 2] = [("risk_fast", "fast"), ("risk_durable", "durable")];

/// `payments`, `card_features`, `verdicts`, and the two [`PIPELINES`].
///
/// # Errors
/// Never: the texts are constant.
pub fn risk_catalog() -> Result<Arc<Catalog>> {
    let [fast, durable] =
        PIPELINES.map(|(name, ack)| RISK.replace("NAME", name).replace("ACK", ack));
    kit::node::catalog(&[
        ("payments.toml", PAYMENTS),
        ("verdicts.toml", VERDICTS),
        ("card_features.sql", CARD_FEATURES),
        ("dataflows/fast.toml", &fast),
        ("dataflows/durable.toml", &durable),
    ])
}

/// A verdict on each of the payments `numbers` of [`payments`], as good as a coin that leans to large
/// amounts.
///
/// # Errors
/// Never; Arrow's constructors are fallible.
pub fn verdicts(
    numbers: std::ops::Range<u64>,
    cards: u64,
    time_us: impl Fn(u64) -> u64,
) -> Result<RecordBatch> {
    let moments = |later: u64| -> ArrayRef {
        let times = numbers.clone().map(|number| (time_us(number) + later).cast_signed());
        Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
    };
    let bad = numbers.clone().map(|number| {
        Some(mix(number + 1) % 1_000_000 > 600_000 || mix(number + 3).is_multiple_of(8))
    });
    let names = numbers.clone().map(|number| card(mix(number) % cards));
    let columns: [(&str, ArrayRef); 4] = [
        ("card", Arc::new(StringArray::from_iter_values(names))),
        ("known_at", moments(SECOND_US)),
        ("paid_at", moments(0)),
        ("bad", Arc::new(bad.collect::<BooleanArray>())),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// `readings`, and `meter_features` with a hop of its own for each window.
///
/// A file declares one hop for a view; here each window gets the one that the targets name, in one
/// plan, so that all three are kept by one operator.
///
/// # Errors
/// Never: the texts are constant.
pub fn meter_plan() -> Result<(Arc<TopicSchema>, Arc<ViewPlan>)> {
    let texts = [("readings.toml", READINGS), ("meter_features.sql", METER_FEATURES)];
    let catalog = kit::node::catalog(&texts)?;
    let topic = catalog.topics.get("readings").context("readings")?;
    let mut plan = catalog.view("meter_features").context("meter_features")?.as_ref().clone();
    let Shape::Keyed { aggregates, .. } = &mut plan.shape else {
        anyhow::bail!("meter_features has no aggregates");
    };
    for call in aggregates {
        let Frame::Range { preceding_us, hop_us } = &mut call.frame else {
            anyhow::bail!("meter_features has a frame without a range");
        };
        let window = WINDOWS.iter().find(|(length, _)| length == preceding_us);
        *hop_us = window.context("an unknown window")?.1;
    }
    plan.horizon_us = plan.horizon_us.map(|_| WINDOWS[2].0 + WINDOWS[2].1);
    Ok((Arc::clone(&topic.schema), Arc::new(plan)))
}

/// Numbers that look random and are not.
pub fn mix(number: u64) -> u64 {
    let mixed = (number ^ number >> 31).wrapping_mul(0x7fb5_d329_728e_a185);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x81da_def4_bc2d_d44d);
    mixed ^ mixed >> 33
}

/// The name of a card: 13 bytes.
pub fn card(number: u64) -> String {
    format!("card-{number:08}")
}

/// Cards as the keys of a lookup.
///
/// # Errors
/// Never; Arrow's constructors are fallible.
pub fn card_keys(numbers: impl Iterator<Item = u64>) -> Result<RecordBatch> {
    let cards: ArrayRef = Arc::new(StringArray::from_iter_values(numbers.map(card)));
    Ok(RecordBatch::try_from_iter([("card", cards)])?)
}

/// `rows` payments, numbered from `first`, of `cards` cards, [`PAYMENT_BYTES`] of data each.
///
/// # Errors
/// Never; Arrow's constructors are fallible.
pub fn payments(
    first: u64,
    rows: u64,
    cards: u64,
    time_us: impl Fn(u64) -> u64,
) -> Result<RecordBatch> {
    let numbers = first..first + rows;
    let text = |of: &dyn Fn(u64) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(numbers.clone().map(of)))
    };
    let times = numbers.clone().map(|number| time_us(number).cast_signed());
    let amounts = numbers.clone().map(|number| (mix(number + 1) % 1_000_000).cast_signed());
    let columns: [(&str, ArrayRef); 5] = [
        ("card", text(&|number| card(mix(number) % cards))),
        ("at", Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))),
        ("amount", Arc::new(Int64Array::from_iter_values(amounts))),
        ("merchant", text(&|number| format!("merchant-{:06}", mix(number + 2) % 1_000_000))),
        ("reference", text(&reference)),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// 56 bytes that do not compress to much less than half.
fn reference(number: u64) -> String {
    let part = |salt: u64| mix(number.wrapping_mul(5) + salt);
    format!("{:016x}{:016x}{:016x}{:08x}", part(10), part(11), part(12), part(13) >> 32)
}

/// `rows` readings of `meters` meters, numbered from `first`, a fixed time apart.
///
/// # Errors
/// Never; Arrow's constructors are fallible.
pub fn readings(
    topic: &TopicSchema,
    first: u64,
    rows: u64,
    meters: u64,
    spacing_us: u64,
) -> Result<RecordBatch> {
    let numbers = first..first + rows;
    let meter = |number| (mix(number) % meters).cast_signed();
    let at = |number: u64| (START_US + number * spacing_us).cast_signed();
    let value = |number: u64| (mix(number + 7) % 100_000).cast_signed();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(numbers.clone().map(meter))),
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(numbers.clone().map(at))
                .with_timezone("UTC"),
        ),
        Arc::new(Int64Array::from_iter_values(numbers.map(value))),
    ];
    Ok(RecordBatch::try_new(topic.stored_schema(), columns)?)
}
