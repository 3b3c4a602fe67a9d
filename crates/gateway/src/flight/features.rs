//! `DoExchange ["features", VIEW…]`: one request of keys to one batch of feature rows.
//!
//! Knows the wire's JSON; the stream around it is [`super::exchange`]'s.

use std::sync::Arc;

use bytes::Bytes;
use falaj_event::LogTime;

use super::exchange::{Answer, Question};
use crate::backend::{BackendError, LookupRequest};
use crate::lookup::{LookupPlan, deadline};
use crate::wire::{LookupMetadata, LookupOptions, StatusCounts, parse_options};

/// Answers one request.
pub(super) async fn answer(plan: &LookupPlan, question: Question<'_>) -> Answer {
    let options = parse_options::<LookupOptions>(question.app_metadata);
    let id = options.as_ref().ok().and_then(|options| options.id.clone());
    let asked = question.rows.and_then(|keys| Ok((plan.keys(&keys)?, options?)));
    let found: Result<_, BackendError> = match asked {
        Err(error) => Err(error),
        Ok((keys, options)) => {
            let request = LookupRequest {
                views: Arc::clone(&plan.views),
                keys: keys.clone(),
                as_of: options.as_of.map(LogTime),
                min_t: options.min_t.map(LogTime),
                deadline: deadline(options.timeout_ms, question.started),
                identity: question.identity.clone(),
            };
            let found = question.gateway.backend.lookup(request).await;
            found.and_then(|found| plan.answer(&keys, found))
        }
    };
    let ok = found.is_ok();
    let (metadata, batch) = match found {
        Ok((t, counts, batch)) => {
            let rows = batch.num_rows() as u64;
            (LookupMetadata { id, t: Some(t), rows, counts, error: None }, batch)
        }
        Err(error) => {
            let counts = StatusCounts::default();
            let error = Some(error.details());
            (LookupMetadata { id, t: None, rows: 0, counts, error }, plan.empty())
        }
    };
    let metadata = serde_json::to_vec(&metadata).map_or_else(|_| Bytes::new(), Bytes::from);
    Answer { metadata, batch, ok }
}
