//! What can be wrong with what is read, and where.

use arrow::error::ArrowError;
use falaj_event::TopicId;

use crate::block::BlockError;
use crate::contract::LogError;
use crate::pii::PiiError;
use crate::schemas::TypedRowError;

/// Where in the log something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Epoch.
    pub epoch: u64,
    /// Topic.
    pub topic: TopicId,
    /// Partition.
    pub partition: u32,
    /// Offset of the first event concerned.
    pub offset: u64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { epoch, topic, partition, offset } = self;
        write!(f, "epoch {epoch}, topic {topic:?}, partition {partition}, offset {offset}")
    }
}

/// Why something could not be read or is not what was committed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An epoch that is not there.
    #[error("epoch {0} is not in the log")]
    NoEpoch(u64),
    /// No schema for a topic that was asked for.
    #[error("{place}: the topic's schema is not known")]
    UnknownTopic {
        /// Where.
        place: Place,
    },
    /// A block that cannot be opened.
    #[error("{place}: {source}")]
    Block {
        /// Where.
        place: Place,
        /// The cause.
        source: Box<BlockError>,
    },
    /// Personal values that cannot be opened.
    #[error("{place}: {source}")]
    Pii {
        /// Where.
        place: Place,
        /// The cause.
        source: Box<PiiError>,
    },
    /// Rows that do not read under the newest schema.
    #[error("{place}: {source}")]
    Schema {
        /// Where.
        place: Place,
        /// The cause.
        source: ArrowError,
    },
    /// A record that does not read as a row of `falaj.epochs` as it is declared.
    #[error("{place}: {source}")]
    Record {
        /// Where.
        place: Place,
        /// The cause.
        source: TypedRowError,
    },
    /// Events that are not what the epoch commits to.
    #[error("{place}: {why}")]
    NotCommitted {
        /// Where.
        place: Place,
        /// What does not fit.
        why: String,
    },
    /// A record that does not follow its predecessor.
    #[error("epoch {epoch}: {why}")]
    Chain {
        /// The epoch.
        epoch: u64,
        /// What does not fit.
        why: String,
    },
}

impl ReadError {
    pub(super) fn block(place: Place, source: BlockError) -> Self {
        Self::Block { place, source: Box::new(source) }
    }
}
