//! The JSON that travels beside Arrow data: options of requests, metadata of answers, tickets.
//!
//! Why it exists: it is the wire contract that clients in any language write against; the server
//! and the Rust client share these types. It knows no transport and no backend.

use falaj_event::{LogTime, Op, ProducerId};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::backend::{BackendError, ProduceAck, ValueStatus};

/// Most rejected rows that one acknowledgement lists; the others are only counted.
pub const MAX_LISTED_REJECTIONS: usize = 1000;

/// `app_metadata` of one lookup. Everything is optional; no metadata at all is fine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LookupOptions {
    /// Any JSON; comes back in the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Json>,
    /// Read at the greatest epoch `T` at or before this one, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_of: Option<u64>,
    /// Wait until the views are at this `T`, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_t: Option<u64>,
    /// How long to wait for `min_t`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Number of values per [`ValueStatus`] in an answer; zero counts are left out of the JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusCounts {
    /// [`ValueStatus::Present`]
    #[serde(skip_serializing_if = "is_zero")]
    pub present: u64,
    /// [`ValueStatus::Null`]
    #[serde(skip_serializing_if = "is_zero")]
    pub null: u64,
    /// [`ValueStatus::NotFound`]
    #[serde(skip_serializing_if = "is_zero")]
    pub not_found: u64,
    /// [`ValueStatus::Expired`]
    #[serde(skip_serializing_if = "is_zero")]
    pub expired: u64,
    /// [`ValueStatus::Erased`]
    #[serde(skip_serializing_if = "is_zero")]
    pub erased: u64,
    /// [`ValueStatus::Unavailable`]
    #[serde(skip_serializing_if = "is_zero")]
    pub unavailable: u64,
    /// [`ValueStatus::Error`]
    #[serde(skip_serializing_if = "is_zero")]
    pub error: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl StatusCounts {
    /// Counts status bytes; `None` where one of them is no status.
    pub fn of(statuses: &[u8]) -> Option<Self> {
        let mut counts = [0_u64; ValueStatus::ALL.len()];
        for status in statuses {
            *counts.get_mut(usize::from(*status))? += 1;
        }
        let [present, null, not_found, expired, erased, unavailable, error] = counts;
        Some(Self { present, null, not_found, expired, erased, unavailable, error })
    }
}

/// `app_metadata` of the answer to one lookup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LookupMetadata {
    /// What the request gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Json>,
    /// The `T_r` at which all views were read, in microseconds; none when the request failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub t: Option<LogTime>,
    /// Rows in the answer.
    pub rows: u64,
    /// Values per status.
    pub counts: StatusCounts,
    /// Why there is no answer: [`BackendError::details`]. The batch is empty then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Json>,
}

/// `app_metadata` of one request for predictions. Everything is optional.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PredictOptions {
    /// Any JSON; comes back in the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Json>,
    /// Read features at the greatest epoch `T` at or before this one, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_of: Option<u64>,
    /// Wait until the features are at this `T`, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_t: Option<u64>,
    /// How long to wait for `min_t`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// `app_metadata` of the answer to one request for predictions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PredictMetadata {
    /// What the request gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Json>,
    /// The `T_r` at which all features were read, in microseconds; none when the request failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub t: Option<LogTime>,
    /// `T` of the epoch that carries the prediction events; none with `ack = "fast"`, or when no
    /// row was scored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logged_t: Option<LogTime>,
    /// The model version that answered all rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_version: Option<u32>,
    /// Rows in the answer.
    pub rows: u64,
    /// Rows without a score; each says why in its column `error`.
    pub errors: u64,
    /// Why there is no answer: [`BackendError::details`]. The batch is empty then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Json>,
}

/// `app_metadata` of one produced batch. Everything is optional.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProduceOptions {
    /// Any JSON; comes back in the acknowledgement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Json>,
    /// The producer: 32 hexadecimal digits, or any name (it is hashed). Goes with `sequence`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub producer: Option<String>,
    /// The sequence of row 0; row `i` has `sequence + i`. A retry repeats it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// The operation of every row, unless the batch has a column `__op`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub op: Option<Op>,
}

impl ProduceOptions {
    /// The producer and first sequence, if given.
    ///
    /// # Errors
    /// When only one of the two is given.
    pub fn numbering(&self) -> Result<Option<(ProducerId, u64)>, BackendError> {
        match (&self.producer, self.sequence) {
            (None, None) => Ok(None),
            (Some(producer), Some(sequence)) => Ok(Some((producer_id(producer), sequence))),
            _ => Err(BackendError::invalid(
                "`producer` and `sequence` belong together: give both (a retry is then recognised) \
                 or neither",
            )),
        }
    }
}

/// The id that `text` names: its 32 hexadecimal digits, or the hash of any other name.
pub fn producer_id(text: &str) -> ProducerId {
    if text.len() == 32
        && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        && let Ok(id) = u128::from_str_radix(text, 16)
    {
        return ProducerId(id.to_be_bytes());
    }
    ProducerId::from_name(text)
}

/// `app_metadata` of the `PutResult` that answers one produced batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AckMetadata {
    /// Which batch of the stream, from 0.
    pub batch: u64,
    /// What the batch's metadata gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Json>,
    /// The epoch's `T` in microseconds; none when the whole batch was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub t: Option<LogTime>,
    /// The epoch's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Where the accepted rows are.
    pub offsets: Vec<AckOffsets>,
    /// Rows appended.
    pub accepted: u64,
    /// Rejected rows, at most [`MAX_LISTED_REJECTIONS`] of them.
    pub rejected: Vec<AckRejection>,
    /// Number of all rejected rows.
    pub rejected_count: u64,
    /// Rows that were already in the log.
    pub duplicates: u64,
    /// Why the whole batch was refused: [`BackendError::details`]. Other batches are not touched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Json>,
}

/// Offsets that a batch was given in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckOffsets {
    /// The partition.
    pub partition: u32,
    /// Offset of the first row there.
    pub first: u64,
    /// Number of rows there.
    pub count: u64,
}

/// A rejected row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckRejection {
    /// Row in the batch, from 0.
    pub row: usize,
    /// Every reason.
    pub reasons: Vec<String>,
}

impl AckMetadata {
    /// The answer to batch number `batch`.
    pub fn new(batch: u64, id: Option<Json>, outcome: Result<ProduceAck, BackendError>) -> Self {
        let ack = match outcome {
            Ok(ack) => ack,
            Err(error) => {
                return Self { batch, id, error: Some(error.details()), ..Self::default() };
            }
        };
        let offsets = ack.offsets.iter().map(|range| AckOffsets {
            partition: range.partition,
            first: range.first,
            count: range.count,
        });
        Self {
            batch,
            id,
            t: Some(ack.t),
            epoch: Some(ack.epoch),
            offsets: offsets.collect(),
            accepted: ack.accepted,
            rejected_count: ack.rejected.len() as u64,
            rejected: ack
                .rejected
                .into_iter()
                .take(MAX_LISTED_REJECTIONS)
                .map(|row| AckRejection { row: row.row, reasons: row.reasons })
                .collect(),
            duplicates: ack.duplicates,
            error: None,
        }
    }
}

/// What a `DoGet` ticket asks for, as JSON; `view:NAME` and `topic:NAME` are short for the whole
/// view or topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadTicket {
    /// A whole view (or else `topic`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// Columns of the view; all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// View: read at the greatest epoch `T` at or before this one, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_of: Option<u64>,
    /// View: wait until it is at this `T`, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_t: Option<u64>,
    /// View: how long to wait for `min_t`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Events of a topic (or else `view`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Topic: one partition instead of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    /// Topic: first offset; goes with `partition`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_offset: Option<u64>,
    /// Topic: offset after the last; goes with `partition`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_offset: Option<u64>,
    /// Topic: only epochs with at least this `T`, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_t: Option<u64>,
    /// Topic: only epochs with at most this `T`, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_t: Option<u64>,
    /// Topic: at most this many events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// The training set of a model pipeline (or else `view` or `topic`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub training_set: Option<String>,
    /// Training set: `as_corrected`, `as_known` or `as_served`; the pipeline's own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Training set: only what was in the log at this `T`, in microseconds, labels and events alike.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// Training set: all labels, not only the pipeline's `history` and `max_rows`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// Training set: how it differs from the other modes, in the metadata.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub compare: bool,
    /// Topic: go on as new epochs are committed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub follow: bool,
}

impl ReadTicket {
    /// The whole of one view.
    pub fn view(name: impl Into<String>) -> Self {
        Self { view: Some(name.into()), ..Self::default() }
    }

    /// All events of one topic.
    pub fn topic(name: impl Into<String>) -> Self {
        Self { topic: Some(name.into()), ..Self::default() }
    }

    /// The training set of a model pipeline, in its own mode.
    pub fn training_set(pipeline: impl Into<String>) -> Self {
        Self { training_set: Some(pipeline.into()), ..Self::default() }
    }

    /// Reads a ticket's bytes.
    ///
    /// # Errors
    /// Says what a ticket looks like.
    pub fn parse(bytes: &[u8]) -> Result<Self, BackendError> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| BackendError::invalid("the ticket is not UTF-8 text"))?;
        if let Some(name) = text.strip_prefix("view:") {
            return Ok(Self::view(name));
        }
        if let Some(name) = text.strip_prefix("topic:") {
            return Ok(Self::topic(name));
        }
        serde_json::from_str(text).map_err(|error| {
            BackendError::invalid(format!(
                "the ticket cannot be read ({error}); it is `view:NAME`, `topic:NAME` or JSON such \
                 as {{\"view\": NAME, \"as_of\": T}}, {{\"topic\": NAME, \"from_t\": T, \
                 \"follow\": true}} or {{\"training_set\": PIPELINE, \"mode\": \
                 \"as_corrected\"}}"
            ))
        })
    }

    /// The bytes to put into a Flight ticket.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Reads JSON options from `app_metadata`; none at all gives the defaults.
///
/// # Errors
/// Says what is wrong and which fields there are.
pub fn parse_options<T: Default + for<'a> Deserialize<'a>>(
    bytes: &[u8],
) -> Result<T, BackendError> {
    if bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(bytes).map_err(|error| {
        BackendError::invalid(format!("the app_metadata is not the JSON object expected: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_words_or_json() {
        assert_eq!(ReadTicket::parse(b"view:a.b").unwrap(), ReadTicket::view("a.b"));
        assert_eq!(ReadTicket::parse(b"topic:t").unwrap(), ReadTicket::topic("t"));
        let ticket = ReadTicket { as_of: Some(7), ..ReadTicket::view("v") };
        assert_eq!(ReadTicket::parse(&ticket.to_bytes()).unwrap(), ticket);
        assert_eq!(ticket.to_bytes(), br#"{"view":"v","as_of":7}"#);
        for bad in [&b"v"[..], b"{\"veiw\":\"v\"}", b"\xff", b""] {
            assert!(ReadTicket::parse(bad).is_err());
        }
    }

    #[test]
    fn producers_are_hex_or_names() {
        let hex = "000102030405060708090a0b0c0d0e0f";
        assert_eq!(producer_id(hex).0[15], 15);
        assert_eq!(producer_id("till-7"), ProducerId::from_name("till-7"));
        let half = ProduceOptions { sequence: Some(1), ..ProduceOptions::default() };
        assert!(half.numbering().is_err());
    }

    #[test]
    fn counts_are_by_number() {
        let counts = StatusCounts::of(&[0, 0, 2, 3, 6]).unwrap();
        assert_eq!(
            serde_json::to_string(&counts).unwrap(),
            r#"{"present":2,"not_found":1,"expired":1,"error":1}"#
        );
        assert_eq!(StatusCounts::of(&[7]), None);
    }
}
