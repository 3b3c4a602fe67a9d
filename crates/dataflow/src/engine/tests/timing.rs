//! What an event costs from epoch to row changes, operators and encoding included, storage not:
//! `FALAJ_TIMING=engine cargo test --release -p falaj-dataflow engine::tests::timing -- --nocapture`

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array, TimestampMicrosecondArray};
use arrow::record_batch::RecordBatch;
use falaj_definitions::plan::{
    AggregateCall, AggregateFunction as F, Frame, Shape, Source, ViewPlan,
};
use falaj_event::{ColumnType, LogTime, Op, TopicKind, TopicSchema};

use super::kit::{PlanOf, topic};
use crate::{Engine, EpochInput, Options, TopicInput};

const SECOND: u64 = 1_000_000;
const WINDOWS: [(u64, u64); 3] = [
    (300 * SECOND, 10 * SECOND),
    (3_600 * SECOND, 120 * SECOND),
    (86_400 * SECOND, 3_600 * SECOND),
];
const KEYS: u64 = 100_000;
const BATCH: u64 = 1_000;

fn readings() -> Arc<TopicSchema> {
    let columns = [
        ("meter", ColumnType::Int64),
        ("value", ColumnType::Float64),
        ("at", ColumnType::Timestamp),
    ];
    topic("readings", TopicKind::Event, &columns, 0, 1)
}

fn plan() -> Arc<ViewPlan> {
    let mut aggregates = Vec::new();
    for (preceding_us, hop_us) in WINDOWS {
        for function in [F::Count, F::Sum, F::Avg, F::Min, F::Max] {
            let counts = function == F::Count;
            aggregates.push(AggregateCall {
                function,
                input: Some(1),
                input_type: ColumnType::Float64,
                filter: None,
                frame: Frame::Range { preceding_us, hop_us },
                output_type: if counts { ColumnType::Int64 } else { ColumnType::Float64 },
            });
        }
    }
    PlanOf {
        name: "by_meter",
        source: Source::Topic(readings()),
        joins: vec![],
        prepare: vec![0, 1],
        predicate: None,
        key: vec![0],
        finish: (0..=aggregates.len()).collect(),
        shape: Shape::Keyed { bare: vec![], aggregates },
        having: None,
        horizon: None,
    }
    .build()
}

fn epoch(number: u64, topic: &Arc<TopicSchema>) -> EpochInput {
    let first = number * BATCH;
    let times: Vec<i64> =
        (first..first + BATCH).map(|i| i64::try_from(i * SECOND / 20).unwrap()).collect();
    let mixed = |i: u64| (i ^ i >> 31).wrapping_mul(0x7fb5_d329_728e_a185) >> 20;
    let keys = (first..first + BATCH).map(|i| i64::try_from(mixed(i) % KEYS).unwrap());
    let values = (first..first + BATCH).map(|i| (mixed(i + 7) % 10_000) as f64 / 100.0);
    let t = LogTime(times[times.len() - 1].cast_unsigned());
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(keys)),
        Arc::new(Float64Array::from_iter_values(values)),
        Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
    ];
    let batch = RecordBatch::try_new(topic.stored_schema(), columns).unwrap();
    let ops = vec![Op::Insert; batch.num_rows()];
    let input =
        TopicInput { topic: Arc::clone(topic), partition: 0, first_offset: first, ops, batch };
    EpochInput { epoch: number, t, topics: vec![input] }
}

/// Seconds of processor time that this process has used.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after = stat.rsplit_once(')').unwrap().1;
    let field = |index: usize| after.split_whitespace().nth(index).unwrap().parse::<f64>().unwrap();
    (field(11) + field(12)) / 100.0
}

#[test]
fn timing() {
    if std::env::var("FALAJ_TIMING").as_deref() != Ok("engine") {
        return;
    }
    let topic = readings();
    for (workers, checkpoint_every) in [(1, u64::MAX), (1, 100), (2, u64::MAX)] {
        let engine = Engine::start(Options {
            workers,
            checkpoint_every,
            max_epochs_in_flight: 4,
            plans: vec![plan()],
            resume: None,
        })
        .unwrap();
        let (mut rows, mut entries) = (0, 0);
        let mut feed = |from: u64, to: u64| {
            let (start, cpu) = (Instant::now(), cpu_seconds());
            for number in from..to {
                engine.submit(epoch(number, &topic)).unwrap();
                if number >= 3 {
                    let changes = engine.take(Duration::from_secs(60)).unwrap().unwrap();
                    rows += changes.rows.len();
                    entries += changes.checkpoint.map_or(0, |entries| entries.len());
                }
            }
            (start.elapsed().as_secs_f64(), cpu_seconds() - cpu)
        };
        feed(0, 1_000);
        let (wall, cpu) = feed(1_000, 1_400);
        let events = (400 * BATCH) as f64;
        let stats = engine.metrics();
        println!(
            "{workers} workers, checkpoint every {checkpoint_every}: {:.2} us CPU/event, {:.0} events/s, \
             {rows} rows, {entries} state entries, {:?}",
            cpu * 1e6 / events,
            events / wall,
            stats.views.values().next(),
        );
    }
}
