//! `DoExchange ["predict", MODEL]`: one request of keys and request-time features to one batch of
//! scores.
//!
//! Knows the wire's JSON; the stream around it is [`super::exchange`]'s.

use std::sync::Arc;

use bytes::Bytes;
use falaj_event::LogTime;

use super::exchange::{Answer, Question};
use crate::backend::{BackendError, PredictRequest};
use crate::lookup::deadline;
use crate::prediction::PredictPlan;
use crate::wire::{PredictMetadata, PredictOptions, parse_options};

/// Answers one request.
pub(super) async fn answer(plan: &PredictPlan, question: Question<'_>) -> Answer {
    let options = parse_options::<PredictOptions>(question.app_metadata);
    let id = options.as_ref().ok().and_then(|options| options.id.clone());
    let asked = question.rows.and_then(|rows| Ok((plan.inputs(&rows)?, options?)));
    let scored: Result<_, BackendError> = match asked {
        Err(error) => Err(error),
        Ok(((inputs, ids, misfits), options)) => {
            let request = PredictRequest {
                model: Arc::clone(&plan.model),
                inputs,
                ids,
                misfits,
                as_of: options.as_of.map(LogTime),
                min_t: options.min_t.map(LogTime),
                deadline: deadline(options.timeout_ms, question.started),
                identity: question.identity.clone(),
            };
            question.gateway.backend.predict(request).await
        }
    };
    let ok = scored.is_ok();
    let (metadata, batch) = match scored {
        Ok(scored) => {
            let metadata = PredictMetadata {
                id,
                t: Some(scored.t),
                logged_t: scored.logged_t,
                model_version: Some(scored.model_version),
                rows: scored.batch.num_rows() as u64,
                errors: scored.errors,
                error: None,
            };
            (metadata, scored.batch)
        }
        Err(error) => {
            let error = Some(error.details());
            (PredictMetadata { id, error, ..PredictMetadata::default() }, plan.empty())
        }
    };
    let metadata = serde_json::to_vec(&metadata).map_or_else(|_| Bytes::new(), Bytes::from);
    Answer { metadata, batch, ok }
}
