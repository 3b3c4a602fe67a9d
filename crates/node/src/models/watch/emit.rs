//! Outcomes and scores of windows as events, each of them once.
//!
//! All events of one cause on one topic are one submission, so they are in the log all together or not
//! at all, and the log holds them in order of their causes. So the `t` of the topic's last event is its
//! watermark: what was caused at or before it is there, what was caused after it is not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use anyhow::{Context, Result, anyhow, bail};
use falaj_definitions::pipelines::Pipeline;
use falaj_event::{LogTime, Op, TopicId, TopicSchema, Value};
use falaj_log::{Ops, Reader, SequencerHandle, Submission};
use falaj_monitor::{DriftRow, Outcome};

use crate::models::outcomes::terms;
use crate::models::rows::{self, Row, moment, text};
use crate::models::serving::Scored;

/// Submissions that may wait for the log; the fold waits for the next.
const MOST_IN_FLIGHT: usize = 64;

/// The way from the fold to the log.
pub struct Emitter {
    sequencer: SequencerHandle,
    watermarks: BTreeMap<TopicId, LogTime>,
    sender: Sender<Result<(), String>>,
    replies: Receiver<Result<(), String>>,
    in_flight: usize,
}

impl Emitter {
    /// Reads the watermarks of `topics` from the log.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn open<'a>(
        sequencer: SequencerHandle,
        reader: &Reader,
        topics: impl IntoIterator<Item = &'a Arc<TopicSchema>>,
    ) -> Result<Self> {
        let mut watermarks = BTreeMap::new();
        for topic in topics {
            if let Some(t) = watermark(reader, topic)? {
                watermarks.insert(topic.id(), t);
            }
        }
        let (sender, replies) = channel();
        Ok(Self { sequencer, watermarks, sender, replies, in_flight: 0 })
    }

    /// Whether what `cause` causes on this topic is in the log already.
    pub fn is_there(&self, topic: &TopicSchema, cause: LogTime) -> bool {
        self.watermarks.get(&topic.id()).is_some_and(|watermark| cause <= *watermark)
    }

    /// Appends, unless it is there. Waits while too much is under way.
    ///
    /// # Errors
    /// Why an earlier append failed.
    pub fn append(&mut self, cause: LogTime, mut submission: Submission) -> Result<()> {
        if self.is_there(&submission.schema, cause) {
            return Ok(());
        }
        while self.in_flight >= MOST_IN_FLIGHT {
            let reply = self.replies.recv().context("the sequencer is gone")?;
            self.settle(reply)?;
        }
        let (sender, topic) = (self.sender.clone(), submission.schema.name.clone());
        submission.reply = Box::new(move |outcome| {
            let told = match outcome {
                // A row that was refused is on the topic's `.rejected`, with its reasons: the rest
                // goes on.
                Ok(_) => Ok(()),
                Err(error) => Err(format!("{topic}: {error}")),
            };
            // The fold has ended: the log's next reader sees what was appended.
            let _ = sender.send(told);
        });
        self.in_flight += 1;
        self.sequencer.submit(submission);
        self.check()
    }

    /// Looks at what has been answered.
    ///
    /// # Errors
    /// Why an append failed.
    pub fn check(&mut self) -> Result<()> {
        while let Ok(reply) = self.replies.try_recv() {
            self.settle(reply)?;
        }
        Ok(())
    }

    /// Appends under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn settle(&mut self, reply: Result<(), String>) -> Result<()> {
        self.in_flight = self.in_flight.saturating_sub(1);
        reply.map_err(|why| anyhow!(why))
    }
}

/// The `t` of the last event of a derived topic.
fn watermark(reader: &Reader, topic: &TopicSchema) -> Result<Option<LogTime>> {
    let mut greatest = None;
    for partition in 0..topic.partitions {
        let Some(last) = reader.log().next_offset(topic.id(), partition).checked_sub(1) else {
            continue;
        };
        for (_, events) in reader.range(topic.id(), partition, last, 1)? {
            let found = rows::RowReader::new(&events.topic, &events.batch)?;
            let name = &topic.columns[topic.event_time].name;
            for row in 0..found.rows() {
                greatest = greatest.max(Some(found.moment(row, name)?));
            }
        }
    }
    Ok(greatest)
}

/// Rows of `falaj.drift`, all of one cause.
///
/// # Errors
/// When they do not fit the topic.
pub fn drift_submission(
    schema: &Arc<TopicSchema>,
    cause: LogTime,
    found: &[(&Pipeline, DriftRow)],
) -> Result<Submission> {
    let mut keys = Vec::with_capacity(found.len());
    let mut all = Vec::with_capacity(found.len());
    for (pipeline, row) in found {
        let mut key = pipeline.hash.0.to_vec();
        key.extend_from_slice(&row.key(&pipeline.name));
        keys.push(key);
        let number = |value: Option<f64>| value.map_or(Value::Null, Value::Float64);
        all.push(vec![
            ("pipeline", text(&pipeline.name)),
            ("version", Value::UInt(row.version.into())),
            ("t", moment(row.t)),
            ("window_start", moment(row.window.start)),
            ("window_end", moment(row.window.end)),
            ("kind", text(row.kind.as_str())),
            ("subject", text(&row.subject)),
            ("slice", row.slice.as_ref().map_or(Value::Null, text)),
            ("test", text(&row.test)),
            ("value", number(row.value)),
            ("p_value", number(row.p_value)),
            ("threshold", number(row.threshold)),
            ("alarm", Value::Bool(row.alarm)),
            ("rows", Value::UInt(row.rows)),
            ("detail", text(&row.detail)),
        ]);
    }
    rows::derived(schema, &falaj_event::Hash256::default(), cause, &keys, all)
}

/// What a model is called among outcomes: its version's number.
pub fn model_name(version: u32) -> String {
    version.to_string()
}

/// Rows of `NAME.outcomes`, all of one cause.
///
/// # Errors
/// When they do not fit the topic.
pub fn outcome_submission(
    pipeline: &Pipeline,
    schema: &Arc<TopicSchema>,
    labels: &TopicSchema,
    label_column: usize,
    cause: LogTime,
    outcomes: &[Outcome],
) -> Result<Submission> {
    let (mut keys, mut all, mut ops) = (Vec::new(), Vec::new(), Vec::new());
    for outcome in outcomes {
        let prediction = &outcome.prediction;
        keys.push(format!("{} {}", prediction.id, prediction.version).into_bytes());
        let mut row: Row<'_> = vec![
            ("prediction_id", text(&prediction.id)),
            ("model", text(model_name(prediction.version))),
            ("t", moment(cause)),
        ];
        if outcome.actual.is_none() {
            ops.push(Op::Delete);
        } else {
            ops.push(Op::Upsert);
            complete(pipeline, schema, labels, label_column, outcome, &mut row)?;
        }
        all.push(row);
    }
    let mut submission = rows::derived(schema, &pipeline.hash, cause, &keys, all)?;
    submission.ops = Ops::Each(ops);
    Ok(submission)
}

fn complete<'a>(
    pipeline: &'a Pipeline,
    schema: &TopicSchema,
    labels: &'a TopicSchema,
    label_column: usize,
    outcome: &Outcome,
    row: &mut Row<'a>,
) -> Result<()> {
    let prediction = &outcome.prediction;
    let Some(label) = outcome.label.row.get(label_column) else {
        bail!("a label of {} has no column {label_column}", pipeline.name);
    };
    row.push(("predicted_at", moment(prediction.t)));
    row.push(("served", Value::Bool(prediction.served)));
    row.push(("actual", label.clone()));
    let scored = Scored {
        score: prediction.score,
        scores: prediction.scores.to_vec(),
        predicted: (!prediction.predicted.is_empty()).then(|| prediction.predicted.to_string()),
    };
    row.extend(terms(pipeline, &scored, label));
    let mut add = |name: &'a str, of: &falaj_event::ColumnType, value: &Value| {
        let column = schema.column_index(name).map(|index| &schema.columns[index]);
        let fits = column.is_some_and(|column| column.column_type == *of);
        if fits && !row.iter().any(|(known, _)| *known == name) {
            row.push((name, value.clone()));
        }
    };
    for ((name, of), value) in pipeline.signature.keys.iter().zip(prediction.keys.iter()) {
        add(name, of, value);
    }
    for (input, value) in pipeline.signature.inputs.iter().zip(prediction.inputs.iter()) {
        add(&input.name, &input.column_type, value);
    }
    for (column, value) in labels.columns.iter().zip(outcome.label.row.iter()) {
        if !column.pii {
            add(&column.name, &column.column_type, value);
        }
    }
    Ok(())
}
