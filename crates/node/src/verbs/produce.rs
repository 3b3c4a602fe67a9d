//! `falaj produce`: files of events into a topic.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use falaj_definitions::diagnostics::SourceFile;
use falaj_definitions::reasons::RejectedRow;
use falaj_definitions::topics::{TopicDefinition, parse_topic};
use falaj_event::Op;
use falaj_gateway::Client;
use falaj_gateway::client::ProduceStream;
use falaj_gateway::wire::ProduceOptions;
use indicatif::ProgressBar;
use serde_json::{Value as Json, json};

use super::input::{Merge, Run};
use super::text::{count, table};
use super::{Session, describe};
use crate::backend::topic::op_name;
use crate::cli::Produce;
use crate::pump::wall_clock_us;

/// What became of the rows.
#[derive(Debug, Default)]
struct Outcome {
    accepted: u64,
    rejected: u64,
    duplicates: u64,
    first_reasons: Vec<(u64, String)>,
    t: u64,
}

/// Most rejected rows that are shown.
const SHOWN: usize = 10;

/// Produces the files.
///
/// # Errors
/// When the node cannot be asked, a file cannot be read, or a batch is refused.
pub async fn run(options: Produce, as_json: bool) -> Result<()> {
    let session = Session::open(&options.connection, options.clock).await?;
    let outcome = produce(&session.client, &options).await;
    session.close().await?;
    let outcome = outcome?;
    if as_json {
        println!(
            "{}",
            json!({
                "topic": options.topic, "accepted": outcome.accepted, "rejected": outcome.rejected,
                "duplicates": outcome.duplicates, "t": outcome.t,
            })
        );
        return Ok(());
    }
    println!(
        "{} rows appended to {}, {} rejected, {} were there already; T = {}",
        count(outcome.accepted),
        options.topic,
        count(outcome.rejected),
        count(outcome.duplicates),
        outcome.t
    );
    if !outcome.first_reasons.is_empty() {
        let mut rows = table(["row", "why"]);
        for (row, why) in &outcome.first_reasons {
            rows.add_row([row.to_string(), why.clone()]);
        }
        println!("{rows}");
        println!(
            "every rejected row, with its original, is in {0}.rejected: falaj tail {0}.rejected --from 0 --no-follow",
            options.topic
        );
    }
    Ok(())
}

async fn produce(client: &Client, options: &Produce) -> Result<Outcome> {
    let topic = definition(client, &options.topic).await?;
    let files = match options.files.is_empty() {
        true => vec![PathBuf::from("-")],
        false => options.files.clone(),
    };
    let format = options.format;
    let mut merge = Merge::open(&files, format, &topic)?;
    // Without a name nobody can send these rows again as the same; with one they are recognised.
    let producer = options
        .producer
        .clone()
        .unwrap_or_else(|| format!("produce-{}-{}", std::process::id(), wall_clock_us()));
    let bar = ProgressBar::no_length().with_message(format!("producing to {}", options.topic));
    bar.enable_steady_tick(std::time::Duration::from_millis(120));
    let mut sender = Sender {
        client,
        topic: &topic,
        producer,
        sequence: 0,
        stream: None,
        outcome: Outcome::default(),
    };
    loop {
        let runs = merge.next(usize::try_from(options.batch)?)?;
        if runs.is_empty() {
            break;
        }
        for run in runs {
            sender.send(run).await?;
        }
        bar.set_message(format!(
            "producing to {}: {} rows, {} rejected",
            options.topic,
            count(merge.rows()),
            count(sender.outcome.rejected)
        ));
    }
    bar.finish_and_clear();
    Ok(sender.outcome)
}

/// The topic as the node declares it, so that rows are read here as they would be there.
async fn definition(client: &Client, name: &str) -> Result<Arc<TopicDefinition>> {
    let entry: Json = describe(client, name).await?;
    if entry["writable"] != true {
        bail!("only the platform appends to `{name}`");
    }
    let text = entry["details"]["text"]
        .as_str()
        .context("the node does not say how the topic is declared")?;
    let file = SourceFile::new(format!("{name} of the node"), text);
    match parse_topic(&file) {
        Ok(topic) => Ok(Arc::new(topic)),
        Err(findings) => bail!("the node's topic `{name}` cannot be read here: {findings}"),
    }
}

struct Sender<'a> {
    client: &'a Client,
    topic: &'a Arc<TopicDefinition>,
    producer: String,
    sequence: u64,
    stream: Option<ProduceStream>,
    outcome: Outcome,
}

impl Sender<'_> {
    async fn send(&mut self, run: Run) -> Result<()> {
        match run {
            Run::Good { batch, ops } => self.send_good(batch, &ops).await,
            Run::Bad(rows) => self.send_bad(rows).await,
        }
    }

    async fn send_good(&mut self, batch: RecordBatch, ops: &[Op]) -> Result<()> {
        let rows = batch.num_rows() as u64;
        let batch = with_ops(batch, ops)?;
        let options = ProduceOptions {
            producer: Some(self.producer.clone()),
            sequence: Some(self.sequence),
            ..ProduceOptions::default()
        };
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let stream = self.client.producer(&self.topic.schema.name, &batch.schema()).await?;
                self.stream.insert(stream)
            }
        };
        let ack = stream.send_and_wait(&batch, &options).await?;
        self.outcome.accepted += ack.accepted;
        self.outcome.rejected += ack.rejected_count;
        self.outcome.duplicates += ack.duplicates;
        self.outcome.t = ack.t.map_or(self.outcome.t, |t| t.0);
        for rejected in &ack.rejected {
            self.note(self.sequence + rejected.row as u64, rejected.reasons.join("; "));
        }
        self.sequence += rows;
        Ok(())
    }

    async fn send_bad(&mut self, rows: Vec<RejectedRow>) -> Result<()> {
        let lines: Vec<Json> =
            rows.iter().map(|row| json!({ "text": row.row, "reasons": row.reasons })).collect();
        let body = json!({
            "topic": self.topic.schema.name,
            "producer": self.producer,
            "first_sequence": self.sequence,
            "lines": lines,
        });
        let answer = self.client.json_action("reject", &body).await?;
        self.outcome.t = answer["t"].as_u64().unwrap_or(self.outcome.t);
        self.outcome.rejected += answer["rejected"].as_u64().unwrap_or_default();
        for (row, rejected) in (self.sequence..).zip(&rows) {
            let reasons: Vec<_> =
                rejected.reasons.iter().map(|reason| reason.text.as_str()).collect();
            self.note(row, reasons.join("; "));
        }
        self.sequence += rows.len() as u64;
        Ok(())
    }

    fn note(&mut self, row: u64, why: String) {
        if self.outcome.first_reasons.len() < SHOWN {
            self.outcome.first_reasons.push((row + 1, why));
        }
    }
}

/// The batch with a column of operations.
fn with_ops(batch: RecordBatch, ops: &[Op]) -> Result<RecordBatch> {
    let mut fields = batch.schema().fields().to_vec();
    fields.push(Arc::new(Field::new("__op", DataType::Utf8, false)));
    let mut columns = batch.columns().to_vec();
    let ops: ArrayRef = Arc::new(StringArray::from_iter_values(ops.iter().map(|op| op_name(*op))));
    columns.push(ops);
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
