//! C2SP tlog checkpoints: what a log says about itself in the text of a signed note.
//!
//! Does not know whose log it is. The text:
//!
//! ```text
//! <origin>
//! <tree size, decimal>
//! <base64 of the root hash>
//! <extension lines, if any>
//! ```

use crate::base64;
use crate::note::{Note, NoteError, NoteSigner, VerifierKey, sign_note};
use crate::tree::Hash;

/// Why a checkpoint was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The note around it was refused.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text is not a checkpoint's.
    #[error("line {line} of the checkpoint is malformed: {why}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// It speaks of another log.
    #[error("the checkpoint is of log `{got}`, not of `{expected}`")]
    Origin {
        /// The log asked for.
        expected: String,
        /// The log it is of.
        got: String,
    },
}

/// The size and root of a log's tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log: a URL without scheme, by convention.
    pub origin: String,
    /// Number of leaves.
    pub size: u64,
    /// Root over them.
    pub root: Hash,
    /// Further lines, opaque.
    pub extensions: Vec<String>,
}

impl Checkpoint {
    /// The text that is signed.
    ///
    /// # Errors
    /// [`CheckpointError::Line`] for an origin or extension that a reader would not get back.
    pub fn to_text(&self) -> Result<String, CheckpointError> {
        let usable = |line: &str| !line.is_empty() && !line.chars().any(char::is_control);
        if !usable(&self.origin) || self.origin.contains([' ', '+']) {
            return Err(CheckpointError::Line { line: 1, why: ORIGIN });
        }
        let mut text = format!("{}\n{}\n{}\n", self.origin, self.size, base64::encode(&self.root));
        for (index, extension) in self.extensions.iter().enumerate() {
            if !usable(extension) {
                return Err(CheckpointError::Line { line: index + 4, why: EXTENSION });
            }
            text.push_str(extension);
            text.push('\n');
        }
        Ok(text)
    }

    /// Reads the text of a note.
    ///
    /// # Errors
    /// [`CheckpointError::Line`].
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let refused = |line, why| Err(CheckpointError::Line { line, why });
        let Some(body) = text.strip_suffix('\n') else {
            return refused(text.lines().count().max(1), "it does not end in a newline");
        };
        let mut lines = body.split('\n');
        let (origin, size, root) = (lines.next(), lines.next(), lines.next());
        let Some(origin) = origin.filter(|line| !line.is_empty() && !line.contains([' ', '+']))
        else {
            return refused(1, ORIGIN);
        };
        let Some(size) = size.and_then(parse_size) else {
            return refused(2, "it is not a decimal number below 2^64 without leading zeros");
        };
        let root = root.and_then(base64::decode).and_then(|bytes| Hash::try_from(bytes).ok());
        let Some(root) = root else {
            return refused(3, "it is not the base64 of a 32-byte hash");
        };
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        if let Some(empty) = extensions.iter().position(String::is_empty) {
            return refused(empty + 4, EXTENSION);
        }
        Ok(Self { origin: origin.to_owned(), size, root, extensions })
    }

    /// The checkpoint as a signed note.
    ///
    /// # Errors
    /// As [`Checkpoint::to_text`] and [`sign_note`].
    pub fn sign(&self, signers: &[&dyn NoteSigner]) -> Result<String, CheckpointError> {
        Ok(sign_note(&self.to_text()?, signers)?)
    }

    /// Reads a signed checkpoint of log `origin` that at least one of `trusted` has signed.
    ///
    /// # Errors
    /// [`CheckpointError::Note`] when the note or a signature is wrong or nobody trusted has
    /// signed, [`CheckpointError::Line`], [`CheckpointError::Origin`].
    pub fn open(
        note: &[u8],
        origin: &str,
        trusted: &[VerifierKey],
    ) -> Result<Self, CheckpointError> {
        let note = Note::parse(note)?;
        note.verify(trusted)?;
        let checkpoint = Self::parse(note.text())?;
        if checkpoint.origin == origin {
            Ok(checkpoint)
        } else {
            Err(CheckpointError::Origin { expected: origin.to_owned(), got: checkpoint.origin })
        }
    }
}

const ORIGIN: &str = "the origin must not be empty nor contain spaces or `+`";
const EXTENSION: &str = "an extension line must not be empty";

fn parse_size(text: &str) -> Option<u64> {
    let canonical =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    canonical.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
