//! From a batch at the door to a submission: what a row alone decides is decided here.
//!
//! Does not know what needs `T` or other rows: that is the sequencer's admission.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use arrow::record_batch::RecordBatch;
use falaj_definitions::reasons::{Reason, ReasonCode};
use falaj_definitions::topics::TopicDefinition;
use falaj_event::Op;
use falaj_gateway::backend::{
    AckFuture, BackendError, Misfit, OffsetRange, ProduceAck, ProduceRequest, RejectedRow,
};
use falaj_log::{Ack, Ops, Origin, Rejections, Submission, SubmitError};

use crate::core::Core;
use crate::rejected::Refused;

/// Admits a batch: checks rows, submits, and gives the future of its acknowledgement.
///
/// # Errors
/// When nothing of the batch was admitted.
pub async fn produce(
    core: &Arc<Core>,
    definition: &Arc<TopicDefinition>,
    request: ProduceRequest,
) -> Result<AckFuture, BackendError> {
    let (reply, answer) = reply();
    let submission = submission(core, definition, request, reply)
        .map_err(|error| BackendError::internal(format!("{error:#}")))?;
    submit(core, submission).await?;
    Ok(answer)
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
    let mut reasons = door_reasons(core, definition, &request.batch, &ops)?;
    for (row, misfit) in &misfits {
        let told =
            misfit.reasons.iter().map(|text| Reason::row(ReasonCode::WrongType, text.as_str()));
        // A value that could not be converted is NULL in the batch; the conversion is the reason,
        // not the NULL.
        let others = reasons.remove(row).unwrap_or_default();
        let others = others.into_iter().filter(|reason| reason.code != ReasonCode::Null);
        reasons.insert(*row, told.chain(others).collect());
    }
    let schema = Arc::clone(&definition.schema);
    if reasons.is_empty() {
        let ops = if ops.iter().all(|op| *op == default_op) {
            Ops::All(default_op)
        } else {
            Ops::Each(ops)
        };
        return Ok(Submission {
            schema,
            origin,
            ops,
            batch: request.batch,
            positions: None,
            rejected: None,
            reply,
        });
    }
    let mut refused = Refused::default();
    for (row, reasons) in reasons {
        let original = misfits.get(&row).map(|misfit| misfit.original.as_str());
        refused.add(&schema, &request.batch, row, reasons, original)?;
    }
    let rejected = rejections(core, definition, &refused, &origin)?;
    let kept: Vec<u32> =
        (0..u32::try_from(rows)?).filter(|row| rejected.rows.binary_search(row).is_err()).collect();
    let batch = take_record_batch(&request.batch, &UInt32Array::from(kept.clone()))?;
    let ops = Ops::Each(kept.iter().map(|row| ops[*row as usize]).collect());
    Ok(Submission {
        schema,
        origin,
        ops,
        batch,
        positions: Some(kept),
        rejected: Some(rejected),
        reply,
    })
}

/// Reasons by row of what a row alone decides.
fn door_reasons(
    core: &Core,
    definition: &TopicDefinition,
    batch: &RecordBatch,
    ops: &[Op],
) -> anyhow::Result<BTreeMap<usize, Vec<Reason>>> {
    let checks = core
        .checks
        .get(&definition.schema.name)
        .with_context(|| format!("topic `{}` has no checks", definition.schema.name))?;
    let found = checks.check(|row| ops[row], batch)?;
    Ok(found.into_iter().map(|found| (found.row, found.reasons)).collect())
}

/// Admits lines that are no rows at all (broken JSON, say): each is a rejection of its own.
///
/// # Errors
/// When the topic has no rejected topic, or nothing was admitted.
pub async fn reject(
    core: &Arc<Core>,
    definition: &Arc<TopicDefinition>,
    origin: Origin,
    lines: Vec<(String, Vec<Reason>)>,
) -> Result<ProduceAck, BackendError> {
    let internal = |error: anyhow::Error| BackendError::internal(format!("{error:#}"));
    let mut refused = Refused::default();
    for (text, reasons) in lines {
        refused.add_line(text, reasons).map_err(internal)?;
    }
    let rejected = rejections(core, definition, &refused, &origin).map_err(internal)?;
    let (reply, answer) = reply();
    let submission = Submission {
        schema: Arc::clone(&definition.schema),
        origin,
        ops: Ops::Each(Vec::new()),
        batch: RecordBatch::new_empty(falaj_log::schemas::row_schema(&definition.schema)),
        positions: Some(Vec::new()),
        rejected: Some(rejected),
        reply,
    };
    submit(core, submission).await?;
    answer.await
}

fn rejections(
    core: &Core,
    definition: &TopicDefinition,
    refused: &Refused,
    origin: &Origin,
) -> anyhow::Result<Rejections> {
    let id = |position: u32| origin.event_id(position);
    let (schema, batch) = refused.batch(&core.catalog, &definition.schema, id)?;
    Ok(Rejections { schema, batch, rows: refused.positions(), reasons: refused.reasons() })
}

/// Where the sequencer puts the outcome, and the future that gives it.
fn reply() -> (Reply, AckFuture) {
    let (send, receive) = tokio::sync::oneshot::channel();
    let reply: Reply = Box::new(move |outcome| {
        // A producer that is gone learns the outcome by sending the batch again.
        let _ = send.send(outcome);
    });
    let answer = async move {
        match receive.await {
            Ok(Ok(ack)) => Ok(produce_ack(ack)),
            Ok(Err(error)) => Err(submit_error(error)),
            Err(_) => Err(BackendError::unavailable("the node is stopping; send the batch again")),
        }
    };
    (reply, Box::pin(answer))
}

/// Queues a submission; a full queue is waited for off the connection's task.
async fn submit(core: &Core, submission: Submission) -> Result<(), BackendError> {
    if let Err(submission) = core.sequencer.try_submit(submission) {
        let sequencer = core.sequencer.clone();
        tokio::task::spawn_blocking(move || sequencer.submit(*submission))
            .await
            .map_err(|error| BackendError::internal(error.to_string()))?;
    }
    Ok(())
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
