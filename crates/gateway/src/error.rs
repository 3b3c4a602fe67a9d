//! Why a backend refuses, and how a client is told: one gRPC status with a sentence for people and
//! a JSON object for programs.
//!
//! Knows nothing of what stands behind the backend.

use falaj_event::LogTime;
use serde_json::{Value as Json, json};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// Name of the metadata entry that carries [`BackendError::details`] as ASCII JSON.
pub const DETAILS_METADATA: &str = "falaj-error";

/// Why the node did not do what was asked. Every message says what was wrong and what to do.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BackendError {
    /// A name that the catalog does not have.
    #[error("there is no {kind} called `{name}`{}", suggest(.near))]
    Unknown {
        /// `topic`, `view`, `column`, `action`, …
        kind: &'static str,
        /// The name asked for.
        name: String,
        /// Names that are like it, or all of them where they are few.
        near: Vec<String>,
    },
    /// A request that cannot mean anything.
    #[error("{message}")]
    Invalid {
        /// What is wrong, where, and what would be right.
        message: String,
    },
    /// An older time than what is kept.
    #[error(
        "T {asked} is older than what is retained (T {oldest}); ask for a T from {oldest} on, or \
         replay the log"
    )]
    NotRetained {
        /// The time asked for.
        asked: LogTime,
        /// The oldest time that can be read.
        oldest: LogTime,
    },
    /// `min_t` was not reached in time.
    #[error(
        "the views are at T {reached}, not yet at T {wanted}, and the time to wait is over; retry"
    )]
    NotYet {
        /// The time waited for.
        wanted: LogTime,
        /// How far the views are.
        reached: LogTime,
    },
    /// A producer's sequence contradicts what it sent before.
    #[error("{message}")]
    SequenceConflict {
        /// Which sequence, and what it was before.
        message: String,
    },
    /// The caller may not do this.
    #[error("{message}")]
    Denied {
        /// What is not allowed, and who could allow it.
        message: String,
    },
    /// Too much at once; retry later.
    #[error("{message}")]
    Overloaded {
        /// Which limit was reached.
        message: String,
    },
    /// The node cannot answer now (starting, rebuilding, stopping); retry later.
    #[error("{message}")]
    Unavailable {
        /// Why, and when to retry.
        message: String,
    },
    /// Stored bytes are damaged; nothing was served.
    #[error("{message}")]
    Damaged {
        /// What, where, and how to repair it.
        message: String,
    },
    /// Anything else.
    #[error("{message}")]
    Internal {
        /// What failed.
        message: String,
    },
}

impl BackendError {
    /// An [`BackendError::Invalid`] with this message.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into() }
    }

    /// An [`BackendError::Internal`] with this message.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::Internal { message: message.into() }
    }

    /// An [`BackendError::Unavailable`] with this message.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::Unavailable { message: message.into() }
    }

    /// An unknown name, with the candidates that are nearest to it.
    pub fn unknown<'a>(
        kind: &'static str,
        name: &str,
        candidates: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let name: String = name.chars().take(120).collect();
        Self::Unknown { kind, near: nearest(&name, candidates), name }
    }

    /// A stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "unknown",
            Self::Invalid { .. } => "invalid",
            Self::NotRetained { .. } => "not_retained",
            Self::NotYet { .. } => "not_yet",
            Self::SequenceConflict { .. } => "sequence_conflict",
            Self::Denied { .. } => "denied",
            Self::Overloaded { .. } => "overloaded",
            Self::Unavailable { .. } => "unavailable",
            Self::Damaged { .. } => "damaged",
            Self::Internal { .. } => "internal",
        }
    }

    /// The gRPC code.
    pub fn grpc_code(&self) -> Code {
        match self {
            Self::Unknown { .. } => Code::NotFound,
            Self::Invalid { .. } => Code::InvalidArgument,
            Self::NotRetained { .. } => Code::OutOfRange,
            Self::NotYet { .. } => Code::DeadlineExceeded,
            Self::SequenceConflict { .. } => Code::FailedPrecondition,
            Self::Denied { .. } => Code::PermissionDenied,
            Self::Overloaded { .. } => Code::ResourceExhausted,
            Self::Unavailable { .. } => Code::Unavailable,
            Self::Damaged { .. } => Code::DataLoss,
            Self::Internal { .. } => Code::Internal,
        }
    }

    /// `{"code", "message", …}` with the fields of the variant.
    pub fn details(&self) -> Json {
        let mut details = json!({ "code": self.code(), "message": self.to_string() });
        match self {
            Self::Unknown { kind, name, near } => {
                details["kind"] = json!(kind);
                details["name"] = json!(name);
                details["near"] = json!(near);
            }
            Self::NotRetained { asked, oldest } => {
                details["asked"] = json!(asked);
                details["oldest"] = json!(oldest);
            }
            Self::NotYet { wanted, reached } => {
                details["wanted"] = json!(wanted);
                details["reached"] = json!(reached);
            }
            _ => {}
        }
        details
    }
}

impl From<BackendError> for Status {
    fn from(error: BackendError) -> Self {
        let mut status = Self::new(error.grpc_code(), error.to_string());
        if let Ok(value) = MetadataValue::try_from(ascii_json(&error.details())) {
            status.metadata_mut().insert(DETAILS_METADATA, value);
        }
        status
    }
}

/// JSON in printable ASCII (header values can carry nothing else), other characters escaped.
fn ascii_json(value: &Json) -> String {
    let mut ascii = String::new();
    for character in value.to_string().chars() {
        match character {
            ' '..='~' => ascii.push(character),
            other => {
                let mut units = [0; 2];
                for unit in other.encode_utf16(&mut units) {
                    ascii.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    ascii
}

fn suggest(near: &[String]) -> String {
    match near {
        [] => String::new(),
        names => format!("; did you mean `{}`?", names.join("`, `")),
    }
}

/// Up to five candidates, nearest first; every one of them when none is near and they are few.
fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    const FEW: usize = 5;
    let mut ranked: Vec<(usize, &str)> = candidates
        .into_iter()
        .map(|candidate| (edit_distance(name, candidate), candidate))
        .collect();
    ranked.sort_unstable();
    let far = name.chars().count() / 2 + 1;
    let near = ranked
        .iter()
        .filter(|(distance, candidate)| {
            *distance <= far || candidate.contains(name) || name.contains(candidate)
        })
        .take(FEW)
        .map(|(_, candidate)| (*candidate).to_owned())
        .collect::<Vec<_>>();
    if near.is_empty() && ranked.len() <= FEW {
        return ranked.into_iter().map(|(_, candidate)| candidate.to_owned()).collect();
    }
    near
}

/// Levenshtein distance in characters; names longer than 64 characters are cut.
fn edit_distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_is_answered_with_its_neighbours() {
        let names = ["customer_activity", "merchant_risk", "card_velocity"];
        let error = BackendError::unknown("view", "merchant_rsk", names);
        assert_eq!(
            error.to_string(),
            "there is no view called `merchant_rsk`; did you mean `merchant_risk`?"
        );
        let error = BackendError::unknown("view", "q", names);
        assert_eq!(error.details()["near"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn details_travel_as_ascii_json() {
        let status = Status::from(BackendError::unknown("view", "عملاء\u{1F600}\n", ["a"]));
        let text = status.metadata().get(DETAILS_METADATA).unwrap().to_str().unwrap();
        let details: Json = serde_json::from_str(text).unwrap();
        assert_eq!(details["name"], "عملاء\u{1F600}\n");
        assert_eq!(status.code(), Code::NotFound);
    }

    #[test]
    fn distances() {
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("same", "same"), 0);
    }
}
