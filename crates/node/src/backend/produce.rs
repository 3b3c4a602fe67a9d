//! From a batch at the door to a submission: what a row alone decides is decided here.
//!
//! Does not know what needs `T` or other rows: that is the sequencer's admission.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use arrow::record_batch::RecordBatch;
use falaj_definitions::topics::TopicDefinition;
use falaj_event::EventId;
use falaj_gateway::backend::{
    AckFuture, BackendError, Misfit, OffsetRange, ProduceAck, ProduceRequest, RejectedRow,
};
use falaj_log::{Ack, Ops, Origin, Rejections, Submission, SubmitError};

use crate::core::Core;
use crate::pump::wall_clock_us;
use crate::rejected::{self, Reason, RejectedOriginal};

/// Admits a batch: checks rows, submits, and gives the future of its acknowledgement.
///
/// # Errors
/// When nothing of the batch was admitted.
pub async fn produce(
    core: &Arc<Core>,
    definition: &Arc<TopicDefinition>,
    request: ProduceRequest,
) -> Result<AckFuture, BackendError> {
    let (send, receive) = tokio::sync::oneshot::channel();
    let reply = Box::new(move |outcome| {
        // A producer that is gone learns the outcome by sending the batch again.
        let _ = send.send(outcome);
    });
    let submission = submission(core, definition, request, reply)
        .map_err(|error| BackendError::internal(format!("{error:#}")))?;
    if let Err(submission) = core.sequencer.try_submit(submission) {
        let sequencer = core.sequencer.clone();
        tokio::task::spawn_blocking(move || sequencer.submit(*submission))
            .await
            .map_err(|error| BackendError::internal(error.to_string()))?;
    }
    Ok(Box::pin(async move {
        match receive.await {
            Ok(Ok(ack)) => Ok(produce_ack(ack)),
            Ok(Err(error)) => Err(submit_error(error)),
            Err(_) => Err(BackendError::unavailable("the node is stopping; send the batch again")),
        }
    }))
}

type Reply = Box<dyn FnOnce(Result<Ack, SubmitError>) + Send>;

fn submission(
    core: &Core,
    definition: &TopicDefinition,
    request: ProduceRequest,
    reply: Reply,
) -> anyhow::Result<Submission> {
    let default_op = request.topic.default_op();
    let rows = request.batch.num_rows();
    let ops = request.ops.unwrap_or_else(|| vec![default_op; rows]);
    let origin = Origin::Producer {
        producer: request.producer,
        first_sequence: request.first_sequence,
        sequences: u32::try_from(rows)?,
    };
    let misfits: BTreeMap<usize, &Misfit> =
        request.misfits.iter().map(|misfit| (misfit.row, misfit)).collect();
    let mut reasons = crate::admission::door_reasons(definition, &request.batch, &ops)?;
    for (row, misfit) in &misfits {
        let told = misfit.reasons.iter().map(|text| Reason {
            code: "type".into(),
            column: String::new(),
            text: text.clone(),
        });
        // A value that could not be converted is NULL in the batch; the conversion is the reason,
        // not the NULL.
        let others = reasons.remove(row).unwrap_or_default();
        let others = others.into_iter().filter(|reason| reason.code != "null");
        reasons.insert(*row, told.chain(others).collect());
    }
    let schema = Arc::clone(&definition.schema);
    if reasons.is_empty() {
        let ops = if ops.iter().all(|op| *op == default_op) { Ops::All(default_op) } else { Ops::Each(ops) };
        return Ok(Submission { schema, origin, ops, batch: request.batch, positions: None, rejected: None, reply });
    }
    let rejected = rejections(core, definition, &request.batch, &origin, reasons, &misfits)?;
    let kept: Vec<u32> =
        (0..u32::try_from(rows)?).filter(|row| rejected.rows.binary_search(row).is_err()).collect();
    let batch = take_record_batch(&request.batch, &UInt32Array::from(kept.clone()))?;
    let ops = Ops::Each(kept.iter().map(|row| ops[*row as usize]).collect());
    Ok(Submission { schema, origin, ops, batch, positions: Some(kept), rejected: Some(rejected), reply })
}

fn rejections(
    core: &Core,
    definition: &TopicDefinition,
    batch: &RecordBatch,
    origin: &Origin,
    reasons: BTreeMap<usize, Vec<Reason>>,
    misfits: &BTreeMap<usize, &Misfit>,
) -> anyhow::Result<Rejections> {
    let schema = crate::admission::rejected_schema(&core.catalog, definition)?;
    let mut rows = Vec::with_capacity(reasons.len());
    let mut originals = Vec::with_capacity(reasons.len());
    for (row, reasons) in reasons {
        let (subject, json) = rejected::describe(&definition.schema, batch, row)?;
        let row_text = misfits.get(&row).map_or(json, |misfit| misfit.original.clone());
        let position = u32::try_from(row)?;
        let event_id: EventId = origin.event_id(position);
        originals.push(RejectedOriginal { event_id, reasons, subject, row: row_text });
        rows.push(position);
    }
    let now = i64::try_from(wall_clock_us()).unwrap_or(i64::MAX);
    rejected::rejections(&schema, definition.schema.version, rows, &originals, now)
}

/// Admits lines that are no rows at all (broken JSON, say): each is a rejection of its own.
///
/// # Errors
/// When the topic has no rejected topic, or nothing was admitted.
pub async fn reject(
    core: &Arc<Core>,
    definition: &Arc<TopicDefinition>,
    origin: Origin,
    lines: Vec<(String, Vec<String>)>,
) -> Result<ProduceAck, BackendError> {
    let (send, receive) = tokio::sync::oneshot::channel();
    let internal = |error: anyhow::Error| BackendError::internal(format!("{error:#}"));
    let schema = crate::admission::rejected_schema(&core.catalog, definition).map_err(internal)?;
    let mut originals = Vec::with_capacity(lines.len());
    for (position, (row, reasons)) in (0u32..).zip(lines) {
        let reason = |text| Reason { code: "unreadable".into(), column: String::new(), text };
        originals.push(RejectedOriginal {
            event_id: origin.event_id(position),
            reasons: reasons.into_iter().map(reason).collect(),
            subject: falaj_event::Value::Null,
            row,
        });
    }
    let rows = (0u32..).take(originals.len()).collect();
    let now = i64::try_from(wall_clock_us()).unwrap_or(i64::MAX);
    let rejected = rejected::rejections(&schema, definition.schema.version, rows, &originals, now)
        .map_err(internal)?;
    let submission = Submission {
        schema: Arc::clone(&definition.schema),
        origin,
        ops: Ops::Each(Vec::new()),
        batch: RecordBatch::new_empty(falaj_log::schemas::row_schema(&definition.schema)),
        positions: Some(Vec::new()),
        rejected: Some(rejected),
        reply: Box::new(move |outcome| {
            // A producer that is gone learns the outcome by sending the lines again.
            let _ = send.send(outcome);
        }),
    };
    let sequencer = core.sequencer.clone();
    tokio::task::spawn_blocking(move || sequencer.submit(submission))
        .await
        .map_err(|error| BackendError::internal(error.to_string()))?;
    match receive.await {
        Ok(Ok(ack)) => Ok(produce_ack(ack)),
        Ok(Err(error)) => Err(submit_error(error)),
        Err(_) => Err(BackendError::unavailable("the node is stopping; send the lines again")),
    }
}

fn produce_ack(ack: Ack) -> ProduceAck {
    let duplicates: u64 = ack.duplicates.iter().map(|run| u64::from(run.count)).sum();
    let repeated: u64 = ack.duplicates.iter().map(|run| u64::from(run.accepted)).sum();
    ProduceAck {
        t: ack.t,
        epoch: ack.epoch,
        offsets: ack
            .appended
            .iter()
            .map(|range| OffsetRange {
                partition: range.partition,
                first: range.first_offset,
                count: range.count.into(),
            })
            .collect(),
        accepted: u64::from(ack.accepted) - repeated,
        rejected: ack
            .rejected
            .into_iter()
            .map(|row| RejectedRow { row: row.position as usize, reasons: row.reasons })
            .collect(),
        duplicates,
    }
}

fn submit_error(error: SubmitError) -> BackendError {
    let message = error.to_string();
    match error {
        SubmitError::SequenceNotRecorded { .. } | SubmitError::SequenceOfOtherTopic { .. } => {
            BackendError::SequenceConflict { message }
        }
        SubmitError::Malformed { .. } => BackendError::Invalid { message },
        SubmitError::Full => BackendError::Overloaded { message },
        SubmitError::Closed | SubmitError::Poisoned { .. } => BackendError::Unavailable { message },
        SubmitError::Sealing { .. } => BackendError::Internal { message },
    }
}
