//! 45,312 real events, end to end: the Electricity data set (Harries, 1999) through a node.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Float64Type, Int64Type};
use arrow::record_batch::RecordBatch;
use falaj_gateway::wire::{ProduceOptions, ReadTicket};
use serde_json::Value as Json;

const TOPIC: &str = r#"
name = "electricity"
description = "Half-hourly prices and demand in New South Wales."
kind = "event"
key = ["market"]
event_time = "at"

[[columns]]
name = "market"
type = "string"
description = "The market."

[[columns]]
name = "at"
type = "timestamp"
description = "Half hour."

[[columns]]
name = "nswprice"
type = "float64"
between = [0.0, 1.0]
description = "Normalised price."

[[columns]]
name = "nswdemand"
type = "float64"
description = "Normalised demand."

[[columns]]
name = "class"
type = "int64"
one_of = [0, 1]
description = "Whether the price went up."
"#;

const VIEW: &str = "
-- owner: tests
-- description: The market as it was.
-- retain: 4000 days
CREATE VIEW market AS
SELECT market,
       count(*)          OVER day  AS half_hours_24h,
       avg(nswprice)     OVER day  AS price_24h,
       max(nswdemand)    OVER day  AS peak_demand_24h,
       sum(class)        OVER week AS ups_7d,
       sum(nswprice)     OVER ever AS price_total,
       count(*)          OVER ever AS half_hours
FROM electricity
WINDOW day  AS (PARTITION BY market ORDER BY at RANGE BETWEEN INTERVAL '24 hours' PRECEDING AND CURRENT ROW),
       week AS (PARTITION BY market ORDER BY at RANGE BETWEEN INTERVAL '7 days' PRECEDING AND CURRENT ROW),
       ever AS (PARTITION BY market ORDER BY at RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW);
";

const HALF_HOUR: i64 = 30 * 60 * 1_000_000;
const START: i64 = 831_254_400_000_000; // 1996-05-05T00:00:00Z

struct Line {
    price: f64,
    demand: f64,
    class: i64,
}

fn read(path: &std::path::Path) -> Vec<Line> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .skip(1)
        .map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            Line {
                price: fields[1].parse().unwrap(),
                demand: fields[2].parse().unwrap(),
                class: fields[6].parse().unwrap(),
            }
        })
        .collect()
}

fn batch(lines: &[Line], first: usize) -> RecordBatch {
    let n = lines.len();
    let at = (0..n).map(|row| START + i64::try_from(first + row).unwrap() * HALF_HOUR);
    let columns: [(&str, ArrayRef); 5] = [
        ("market", Arc::new(StringArray::from(vec!["NSW"; n]))),
        ("at", Arc::new(TimestampMicrosecondArray::from_iter_values(at).with_timezone("UTC"))),
        ("nswprice", Arc::new(Float64Array::from_iter_values(lines.iter().map(|l| l.price)))),
        ("nswdemand", Arc::new(Float64Array::from_iter_values(lines.iter().map(|l| l.demand)))),
        ("class", Arc::new(Int64Array::from_iter_values(lines.iter().map(|l| l.class)))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// The exact sum of doubles, rounded once: by arbitrary-precision rationals.
fn exact_sum(values: impl Iterator<Item = f64>) -> num_rational::BigRational {
    values.map(|value| num_rational::BigRational::from_float(value).unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn real_events_go_through_end_to_end() {
    let Some(path) = kit::shared_data("electricity/electricity.csv") else { return };
    let lines = read(&path);
    assert_eq!(lines.len(), 45_312);
    let folder = tempfile::tempdir().unwrap();
    let catalog = kit::node::catalog(&[("electricity.toml", TOPIC), ("market.sql", VIEW)]).unwrap();
    let node = kit::node::start(folder.path(), &catalog).await.unwrap();
    let client = node.client().await.unwrap();
    let batches: Vec<RecordBatch> =
        lines.chunks(96).enumerate().map(|(index, chunk)| batch(chunk, index * 96)).collect();
    let options =
        ProduceOptions { producer: Some("nem".into()), sequence: Some(0), ..Default::default() };
    let acks = client.produce("electricity", &batches, &options).await.unwrap();
    assert_eq!(acks.iter().map(|ack| ack.accepted).sum::<u64>(), 45_312);
    let newest = acks.last().unwrap().t.unwrap().0;

    // At the T of every epoch the row equals the naive answer over the events up to it.
    let mut checked = 0;
    for (index, ack) in
        acks.iter().enumerate().step_by(17).chain([(acks.len() - 1, &acks[acks.len() - 1])])
    {
        let t = ack.t.unwrap().0;
        let ticket = ReadTicket {
            view: Some("market".into()),
            as_of: Some(t),
            min_t: None,
            ..ReadTicket::default()
        };
        if index == 0 {
            let wait = ReadTicket {
                view: Some("market".into()),
                min_t: Some(newest),
                timeout_ms: Some(120_000),
                ..ReadTicket::default()
            };
            client.read(&wait).await.unwrap().collect().await.unwrap();
        }
        let rows = client.read(&ticket).await.unwrap().collect().await.unwrap();
        let row = &rows[0];
        // Batches may share an epoch: the row is as of the epoch's T, which is its last event's time.
        let known = usize::try_from((i64::try_from(t).unwrap() - START) / HALF_HOUR).unwrap() + 1;
        let known = &lines[..known.min(lines.len())];
        let day = &known[known.len().saturating_sub(49)..];
        let week = &known[known.len().saturating_sub(7 * 48 + 1)..];
        let int =
            |name: &str| row.column_by_name(name).unwrap().as_primitive::<Int64Type>().value(0);
        let float =
            |name: &str| row.column_by_name(name).unwrap().as_primitive::<Float64Type>().value(0);
        assert_eq!(int("half_hours"), i64::try_from(known.len()).unwrap(), "epoch {index}");
        assert_eq!(int("half_hours_24h"), i64::try_from(day.len()).unwrap());
        assert_eq!(float("peak_demand_24h"), day.iter().map(|l| l.demand).fold(f64::MIN, f64::max));
        let ups = row
            .column_by_name("ups_7d")
            .unwrap()
            .as_primitive::<arrow::datatypes::Decimal128Type>()
            .value(0);
        assert_eq!(ups, i128::from(week.iter().map(|l| l.class).sum::<i64>()));
        let total = exact_sum(known.iter().map(|l| l.price));
        assert_eq!(float("price_total"), num_traits_to_f64(&total), "epoch {index}");
        let mean = exact_sum(day.iter().map(|l| l.price))
            / num_rational::BigRational::from_integer(day.len().into());
        assert_eq!(float("price_24h"), num_traits_to_f64(&mean), "epoch {index}");
        checked += 1;
    }
    assert!(checked > 20);
    let rebuilt = client.json_action("audit_rebuild", &Json::Null).await.unwrap();
    assert_eq!(rebuilt["equal"], true);
    drop(client);
    node.stop().await.unwrap();
}

/// The double nearest to a rational, ties to even: by comparing with its neighbours exactly.
fn num_traits_to_f64(value: &num_rational::BigRational) -> f64 {
    let exact = |x: f64| num_rational::BigRational::from_float(x).unwrap();
    let distance = |x: f64| {
        let off = exact(x) - value;
        if off < num_rational::BigRational::from_integer(0.into()) { -off } else { off }
    };
    let digits: f64 = {
        let scaled =
            value * num_rational::BigRational::from_integer(num_bigint::BigInt::from(1_u64 << 60));
        scaled.to_integer().to_string().parse::<f64>().unwrap() / (1_u64 << 60) as f64
    };
    [digits.next_down(), digits, digits.next_up()]
        .into_iter()
        .min_by(|a, b| {
            distance(*a).cmp(&distance(*b)).then((a.to_bits() & 1).cmp(&(b.to_bits() & 1)))
        })
        .unwrap()
}
