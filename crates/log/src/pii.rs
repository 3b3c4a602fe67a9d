//! Personal values: each is sealed under its subject's key before a row is hashed or stored, so
//! that destroying the key erases them everywhere while every hash and proof stays valid.
//!
//! # Stored value of a pii column (arrow `binary`; NULL stays NULL)
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 1 | `01`: sealed under the subject's key; `02`: under the topic's |
//! | 1 | n | `01`: what [`Vault::seal_value`] gives |
//! | 1 | 76 + n | `02`: key id (16), key commitment (32), nonce (12), ciphertext and tag |
//!
//! What is sealed is the value's canonical encoding ([`falaj_event::encoding`]). Authenticated
//! beside it: `"falaj.pii.v1" ‖ 0x00 ‖ topic id (16) ‖ event id (33) ‖ column name`, so that no
//! value can be moved to another event or column. A subject is named by the canonical encoding of
//! the subject column's value. A row whose subject is NULL has nobody whose erasure could be asked
//! for: its personal values are sealed under the topic's key, and live as long as that does.
//!
//! Does not know who may read personal values.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use falaj_event::cells::{Cells, UnsupportedArrowType};
use falaj_event::encoding::{DecodeError, decode_value};
use falaj_event::value::{ValueMismatch, to_array};
use falaj_event::{TopicId, TopicSchema, Value};
use falaj_vault::{KeyCommitment, KeyId, KeyName, Vault, VaultError};

use crate::bytes::{Cursor, FormatError};
use crate::schemas::{opened_row_schema, rebatch, stored_row_schema};

const UNDER_SUBJECT: u8 = 1;
const UNDER_TOPIC: u8 = 2;

/// Why personal values were not sealed or not opened.
#[derive(Debug, thiserror::Error)]
pub enum PiiError {
    /// The vault refused.
    #[error("row {row}, column `{column}`: {source}")]
    Vault {
        /// Row in the batch.
        row: usize,
        /// Column.
        column: String,
        /// The cause.
        source: VaultError,
    },
    /// Keys for new subjects were not made.
    #[error("keys for the batch's subjects: {0}")]
    Subjects(#[source] VaultError),
    /// Stored bytes that no writer wrote.
    #[error("row {row}, column `{column}`: {why}")]
    Malformed {
        /// Row in the batch.
        row: usize,
        /// Column.
        column: String,
        /// What is wrong.
        why: String,
    },
    /// An array that is not its column's.
    #[error(transparent)]
    Type(#[from] UnsupportedArrowType),
    /// Columns that do not make a batch of the topic.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

/// Rows whose personal values were opened.
#[derive(Clone, Debug)]
pub struct OpenedRows {
    /// Rows in declared types, under [`opened_row_schema`].
    pub batch: RecordBatch,
    /// Rows of which at least one value is erased (it reads as NULL), ascending.
    pub erased: Vec<u32>,
}

fn aad(topic: TopicId, event_id: &[u8], column: &str) -> Vec<u8> {
    let mut aad = Vec::with_capacity(13 + 16 + event_id.len() + column.len());
    aad.extend_from_slice(b"falaj.pii.v1\0");
    aad.extend_from_slice(&topic.0);
    aad.extend_from_slice(event_id);
    aad.extend_from_slice(column.as_bytes());
    aad
}

/// The subjects' names of a batch, row by row; empty where a row has none.
fn subject_names(schema: &TopicSchema, batch: &RecordBatch) -> Result<Vec<Vec<u8>>, PiiError> {
    let mut names = vec![Vec::new(); batch.num_rows()];
    if let Some(index) = schema.subject {
        let cells = Cells::new(batch.column(index).as_ref())?;
        for (row, name) in names.iter_mut().enumerate() {
            if !cells.is_null(row) {
                cells.encode(row, name);
            }
        }
    }
    Ok(names)
}

/// Turns rows in declared types into stored rows: seals pii columns, makes keys for subjects that
/// have none. `event_ids` gives the stored form of each row's id.
///
/// # Errors
/// When the vault refuses; nothing is kept of what was sealed then.
pub fn seal_rows<'a>(
    vault: &Vault,
    schema: &TopicSchema,
    batch: &RecordBatch,
    event_ids: impl Fn(usize) -> &'a [u8],
) -> Result<RecordBatch, PiiError> {
    let mut columns = batch.columns().to_vec();
    if schema.columns.iter().any(|column| column.pii) {
        let subjects = subject_names(schema, batch)?;
        ensure(vault, schema, batch, &subjects)?;
        for (index, column) in schema.columns.iter().enumerate().filter(|(_, c)| c.pii) {
            let topic = schema.id();
            let cells = Cells::new(batch.column(index).as_ref())?;
            let mut sealed = BinaryBuilder::with_capacity(batch.num_rows(), 0);
            let mut plain = Vec::new();
            for (row, subject) in subjects.iter().enumerate() {
                if cells.is_null(row) {
                    sealed.append_null();
                    continue;
                }
                plain.clear();
                cells.encode(row, &mut plain);
                let aad = aad(topic, event_ids(row), &column.name);
                let bytes = seal_value(vault, topic, subject, &aad, &plain).map_err(|source| {
                    PiiError::Vault { row, column: column.name.clone(), source }
                })?;
                sealed.append_value(bytes);
            }
            columns[index] = Arc::new(sealed.finish());
        }
    }
    Ok(rebatch(stored_row_schema(schema), columns, batch.num_rows())?)
}

/// Makes keys for all subjects that a pii value of the batch needs, in one durable write.
fn ensure(
    vault: &Vault,
    schema: &TopicSchema,
    batch: &RecordBatch,
    subjects: &[Vec<u8>],
) -> Result<(), PiiError> {
    let pii: Vec<&ArrayRef> = (schema.columns.iter().zip(batch.columns()))
        .filter_map(|(column, array)| column.pii.then_some(array))
        .collect();
    let mut needed: Vec<&[u8]> = subjects
        .iter()
        .enumerate()
        .filter(|(row, name)| !name.is_empty() && pii.iter().any(|array| array.is_valid(*row)))
        .map(|(_, name)| name.as_slice())
        .collect();
    needed.sort_unstable();
    needed.dedup();
    vault.ensure_subjects(&needed).map(|_| ()).map_err(PiiError::Subjects)
}

fn seal_value(
    vault: &Vault,
    topic: TopicId,
    subject: &[u8],
    aad: &[u8],
    plain: &[u8],
) -> Result<Vec<u8>, VaultError> {
    if !subject.is_empty() {
        let sealed = vault.seal_value(subject, aad, plain)?;
        let mut out = Vec::with_capacity(1 + sealed.len());
        out.push(UNDER_SUBJECT);
        out.extend_from_slice(&sealed);
        return Ok(out);
    }
    let sealed = vault.seal_block(topic, aad, plain.to_vec())?;
    let mut out = Vec::with_capacity(61 + sealed.ciphertext.len());
    out.push(UNDER_TOPIC);
    out.extend_from_slice(&sealed.key.id.0);
    out.extend_from_slice(&sealed.key.commitment.0);
    out.extend_from_slice(&sealed.nonce);
    out.extend_from_slice(&sealed.ciphertext);
    Ok(out)
}

/// Opens the pii columns of stored rows. A value whose key was destroyed reads as NULL and its row
/// is named in [`OpenedRows::erased`].
///
/// # Errors
/// When a value was altered, moved, or sealed under a key that the vault never had.
pub fn open_rows<'a>(
    vault: &Vault,
    schema: &TopicSchema,
    stored: &RecordBatch,
    event_ids: impl Fn(usize) -> &'a [u8],
) -> Result<OpenedRows, PiiError> {
    let mut columns = stored.columns().to_vec();
    let mut erased = Vec::new();
    if schema.columns.iter().any(|column| column.pii) {
        let subjects = subject_names(schema, stored)?;
        for (index, column) in schema.columns.iter().enumerate().filter(|(_, c)| c.pii) {
            let sealed = stored.column(index).as_binary_opt::<i32>().ok_or_else(|| {
                UnsupportedArrowType(stored.column(index).data_type().to_string())
            })?;
            let opener = Opener { vault, topic: schema.id(), column: &column.name };
            let values = opener.values(sealed, &subjects, &event_ids, &mut erased)?;
            columns[index] =
                to_array(&column.column_type, &values).map_err(|mismatch: ValueMismatch| {
                    opener.malformed(mismatch.row, mismatch.to_string())
                })?;
        }
        erased.sort_unstable();
        erased.dedup();
    }
    let batch = rebatch(opened_row_schema(schema), columns, stored.num_rows())?;
    Ok(OpenedRows { batch, erased })
}

struct Opener<'a> {
    vault: &'a Vault,
    topic: TopicId,
    column: &'a str,
}

impl Opener<'_> {
    fn malformed(&self, row: usize, why: String) -> PiiError {
        PiiError::Malformed { row, column: self.column.to_owned(), why }
    }

    fn values<'a>(
        &self,
        sealed: &BinaryArray,
        subjects: &[Vec<u8>],
        event_ids: &impl Fn(usize) -> &'a [u8],
        erased: &mut Vec<u32>,
    ) -> Result<Vec<Value>, PiiError> {
        let mut values = Vec::with_capacity(subjects.len());
        for (row, subject) in subjects.iter().enumerate() {
            if sealed.is_null(row) {
                values.push(Value::Null);
                continue;
            }
            let aad = aad(self.topic, event_ids(row), self.column);
            match self.plain(subject, &aad, sealed.value(row)) {
                Ok(plain) => values.push(self.one_value(row, &plain)?),
                Err(OpenError::Vault(VaultError::Erased { .. })) => {
                    erased.push(u32::try_from(row).unwrap_or(u32::MAX));
                    values.push(Value::Null);
                }
                Err(OpenError::Vault(source)) => {
                    return Err(PiiError::Vault { row, column: self.column.to_owned(), source });
                }
                Err(OpenError::Format(error)) => {
                    return Err(self.malformed(row, error.to_string()));
                }
            }
        }
        Ok(values)
    }

    fn one_value(&self, row: usize, plain: &[u8]) -> Result<Value, PiiError> {
        let decoded = decode_value(plain);
        match decoded.map_err(|error: DecodeError| self.malformed(row, error.to_string()))? {
            (value, length) if length == plain.len() => Ok(value),
            _ => Err(self.malformed(row, "more than one value".into())),
        }
    }

    fn plain(&self, subject: &[u8], aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let mut cursor = Cursor::new("sealed value", sealed);
        match cursor.u8()? {
            UNDER_SUBJECT => Ok(self.vault.open_value(subject, aad, &sealed[1..])?),
            UNDER_TOPIC => {
                let id = KeyId(cursor.take()?);
                let key = KeyName { id, commitment: KeyCommitment(cursor.take()?) };
                let nonce = cursor.take()?;
                let ciphertext = cursor.slice(cursor.left())?.to_vec();
                Ok(self.vault.open_block(self.topic, aad, &key, &nonce, ciphertext)?)
            }
            other => Err(cursor.fail(format!("kind {other} is unknown")).into()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Format(#[from] FormatError),
}

#[cfg(test)]
mod tests;
