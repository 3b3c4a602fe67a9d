//! Training sets: rows per second as corrected, against DuckDB doing the same join.
//!
//! Measured: ten features of a card over 5 minutes and an hour (hops of 10 seconds), at the moment of
//! each label, from payments held in memory as Arrow: preparing, gathering, sweeping and encoding rows,
//! with as many threads as DuckDB has. The baseline is the view's oracle for many moments in one query,
//! as its user would write it: labels joined with the payments of their card in the widest window, and
//! every aggregate filtered to its own; over tables that DuckDB already holds, the time of the query
//! alone. Both answers are compared before any figure is given. Needs `FALAJ_DUCKDB`, a Python
//! interpreter with the `duckdb` package.
//!
//! Limit: one pass over the payments (decoding keys, copying cells), a sort of those that a label can
//! see, and one entry into and one exit from each window per payment.
//!
//! Not measured: reading the log (decryption and decompression), which `recovery` shows.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::record_batch::RecordBatch;
use falaj_dataflow::training::{Asked, Events, Options, TrainingError, as_corrected};
use falaj_dataflow::{EpochInput, TopicInput};
use falaj_event::encoding::{decode_row, encode_row};
use falaj_event::{LogTime, Op, TopicId, TopicSchema, Value, ViewRow};
use harness::Scale;
use harness::report::{Table, Target};
use harness::workload::{self, START_US, card, mix};
use serde_json::Value as Json;

const ROUNDS: usize = 3;
const BATCH: u64 = 8_192;

/// Runs the query some times and prints its times in seconds and sums over its result, as JSON.
const PROGRAM: &str = "\
import duckdb, json, sys, time
folder, threads, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
database = duckdb.connect()
database.execute(\"SET TimeZone = 'UTC'\")
database.execute(f'SET threads = {threads}')
for name in ('payments', 'labels'):
    database.execute(f\"CREATE TABLE {name} AS SELECT * FROM read_parquet('{folder}/{name}.parquet')\")
sql = open(folder + '/query.sql').read()
times = []
for _ in range(rounds):
    start = time.perf_counter()
    database.execute('CREATE OR REPLACE TABLE answer AS ' + sql)
    times.append(time.perf_counter() - start)
sums = database.execute(\"SELECT count(*), sum(payments_5m), sum(sum_5m), sum(min_5m), sum(max_5m), \"
    \"sum(payments_1h), sum(sum_1h), sum(min_1h), sum(max_1h) FROM answer\").fetchone()
print(json.dumps({'seconds': times, 'sums': [str(value) for value in sums]}))
";

/// Payments in memory.
struct Payments {
    topic: Arc<TopicSchema>,
    batches: Vec<RecordBatch>,
}

impl Events for Payments {
    fn scan(
        &self,
        topics: &[TopicId],
        each: &mut dyn FnMut(EpochInput) -> Result<ControlFlow<()>, TrainingError>,
    ) -> Result<(), TrainingError> {
        if !topics.contains(&self.topic.id()) {
            return Ok(());
        }
        let mut first_offset = 0;
        for (epoch, batch) in self.batches.iter().enumerate() {
            let part = TopicInput {
                topic: Arc::clone(&self.topic),
                partition: 0,
                first_offset,
                ops: vec![Op::Insert; batch.num_rows()],
                batch: batch.clone(),
            };
            first_offset += batch.num_rows() as u64;
            let t = LogTime(START_US + epoch as u64);
            if each(EpochInput { epoch: epoch as u64, t, topics: vec![part] })?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// The questions: a card and a moment each.
struct Labels {
    cards: Vec<u64>,
    at: Vec<i64>,
}

impl Labels {
    fn draw(count: u64, cards: u64, span_us: u64) -> Self {
        let numbers = || 0..count;
        Self {
            cards: numbers().map(|number| mix(number + 11) % cards).collect(),
            at: numbers()
                .map(|number| (START_US + mix(number + 12) % span_us).cast_signed())
                .collect(),
        }
    }

    fn batch(&self) -> Result<RecordBatch> {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..self.at.len() as i64));
        let cards = self.cards.iter().map(|number| card(*number));
        let at = TimestampMicrosecondArray::from_iter_values(self.at.iter().copied());
        let cards: ArrayRef = Arc::new(StringArray::from_iter_values(cards));
        let at: ArrayRef = Arc::new(at.with_timezone("UTC"));
        Ok(RecordBatch::try_from_iter([("id", ids), ("card", cards), ("observed_at", at)])?)
    }
}

fn query() -> String {
    let edge = |seconds: u64| {
        format!("(epoch_us(l.observed_at) - {seconds}000000) // 10000000 * 10000000")
    };
    let features: Vec<String> = [("5m", 300), ("1h", 3_600)]
        .iter()
        .map(|(name, seconds)| {
            let own = format!("FILTER (WHERE epoch_us(p.\"at\") >= {})", edge(*seconds));
            format!(
                "count(p.amount) {own} AS payments_{name}, sum(p.amount) {own} AS sum_{name}, \
                 avg(p.amount) {own} AS avg_{name}, min(p.amount) {own} AS min_{name}, \
                 max(p.amount) {own} AS max_{name}"
            )
        })
        .collect();
    format!(
        "SELECT l.id, {} FROM labels AS l LEFT JOIN payments AS p ON p.card = l.card AND p.\"at\" < \
         l.observed_at AND epoch_us(p.\"at\") >= {} GROUP BY l.id",
        features.join(", "),
        edge(3_600)
    )
}

/// Times of DuckDB, and the sums that it found.
fn duckdb(python: &Path, folder: &Path, threads: usize) -> Result<(Vec<f64>, Vec<i128>)> {
    let output = Command::new(python)
        .args(["-c", PROGRAM])
        .arg(folder)
        .args([threads.to_string(), ROUNDS.to_string()])
        .output()
        .context("running python")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "DuckDB: {said}");
    let answer: Json = serde_json::from_slice(&output.stdout)?;
    let list = |name: &str| answer[name].as_array().cloned().context("a list");
    let seconds = list("seconds")?.iter().filter_map(Json::as_f64).collect();
    let told = list("sums")?;
    let sums = told.iter().map(|sum| Ok(sum.as_str().context("a sum")?.parse()?));
    Ok((seconds, sums.collect::<Result<_>>()?))
}

/// The sums that [`PROGRAM`] makes, of our rows (an absent row counts nothing).
fn sums(rows: &[Option<ViewRow>]) -> Result<Vec<i128>> {
    let mut sums = vec![rows.len() as i128, 0, 0, 0, 0, 0, 0, 0, 0];
    for row in rows.iter().flatten() {
        let values = decode_row(&row.columns)?;
        // card, then count, sum, avg, min, max of each window.
        for (sum, column) in [1, 2, 4, 5, 6, 7, 9, 10].into_iter().enumerate() {
            sums[sum + 1] += match &values[column] {
                Value::Int(value) => i128::from(*value),
                Value::Decimal(value, 0) => *value,
                Value::Null => 0,
                other => bail!("column {column} is {other:?}"),
            };
        }
    }
    Ok(sums)
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> Result<()> {
    let scale = Scale::from_environment();
    let events = scale.size(1_000_000, 4_000);
    let count = scale.size(100_000, 500);
    let cards = scale.size(10_000, 50);
    let spacing_us = 86_400_000_000 / events;
    let catalog = workload::payments_catalog(true)?;
    let plan = catalog.view("card_features").context("card_features")?;
    let topic = catalog.topics.get("payments").context("payments")?;
    let time = |number: u64| START_US + number * spacing_us;
    let batches = (0..events)
        .step_by(BATCH as usize)
        .map(|first| workload::payments(first, BATCH.min(events - first), cards, time))
        .collect::<Result<Vec<_>>>()?;
    let payments = Payments { topic: Arc::clone(&topic.schema), batches };
    let labels = Labels::draw(count, cards, events * spacing_us);
    let keys: Vec<Option<Vec<u8>>> = labels
        .cards
        .iter()
        .map(|number| Some(encode_row([&Value::String(card(*number).into())])))
        .collect();
    let options = Options::default();
    let asked = [Asked { plan, keys: &keys }];

    let (mut seconds, mut own) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let rows = as_corrected(&asked, &labels.at, &payments, &options, &mut |_| {})?;
        seconds.push(started.elapsed().as_secs_f64());
        own = sums(&rows[0])?;
    }
    let mut table = Table::new("Training sets", scale);
    let rate = count as f64 / median(seconds);
    match kit::duckdb::python() {
        Some(python) => {
            let theirs = against(&python, &payments, &labels, options.threads, &own)?;
            table.ratio(
                "rows as corrected, against DuckDB",
                rate,
                count as f64 / median(theirs),
                "rows/s",
                Target::AtLeast(1.0),
            );
        }
        None => table.figure("rows as corrected", rate, "rows/s", Target::Stated),
    }
    table.note(format!(
        "{count} labels, {events} payments of {cards} cards in a day, ten features over 5 minutes and an \
         hour, {} threads each; medians of {ROUNDS}",
        options.threads
    ));
    table.note(
        "limit: one pass over the payments, a sort, one entry and exit per payment and window",
    );
    table.print();
    Ok(())
}

/// DuckDB's times over the same tables, once its answer is the same.
fn against(
    python: &Path,
    payments: &Payments,
    labels: &Labels,
    threads: usize,
    own: &[i128],
) -> Result<Vec<f64>> {
    let folder = tempfile::tempdir()?;
    let all = arrow::compute::concat_batches(&payments.batches[0].schema(), &payments.batches)?;
    falaj_node::parquet_file::write(&folder.path().join("payments.parquet"), &all)?;
    falaj_node::parquet_file::write(&folder.path().join("labels.parquet"), &labels.batch()?)?;
    std::fs::write(folder.path().join("query.sql"), query())?;
    let (seconds, theirs) = duckdb(python, folder.path(), threads)?;
    ensure!(own == theirs, "our rows sum to {own:?}, DuckDB's to {theirs:?}");
    Ok(seconds)
}
