//! What is hashed for each event of a block: the pass that turns stored rows into event hashes.
//!
//! Does not know where the rows come from or go.

use arrow::array::{Array, FixedSizeBinaryArray, UInt8Array};
use falaj_event::cells::batch_cells;
use falaj_event::hash::SALT_BYTES;
use falaj_event::{EventId, Hash256, Op, event_hash};

use crate::block::{BlockError, BlockRows, expand_salts};

/// The event hashes of a block's rows, in order, under their schema version.
///
/// # Errors
/// When an op or id is none that a writer writes, or a column has a type that no topic has.
pub fn event_hashes(rows: &BlockRows, schema_version: u32) -> Result<Vec<Hash256>, BlockError> {
    let count = rows.stored.num_rows();
    let cells =
        batch_cells(&rows.stored).map_err(|error| BlockError::Mismatch(error.to_string()))?;
    let salts = expand_salts(&rows.seed, count)?;
    let (salts, _) = salts.as_chunks::<SALT_BYTES>();
    let mut hashes = Vec::with_capacity(count);
    let mut encoded = Vec::with_capacity(256);
    for (row, salt) in salts.iter().enumerate() {
        encoded.clear();
        for column in &cells {
            column.encode(row, &mut encoded);
        }
        let (op, id) = (op_at(&rows.ops, row)?, id_at(&rows.ids, row)?);
        hashes.push(event_hash(schema_version, &id, op, salt, &encoded));
    }
    Ok(hashes)
}

/// The operation of a stored row.
///
/// # Errors
/// When the byte is none that a writer writes.
pub fn op_at(ops: &UInt8Array, row: usize) -> Result<Op, BlockError> {
    let byte = ops.values().get(row).copied();
    byte.and_then(Op::from_byte)
        .ok_or_else(|| BlockError::Mismatch(format!("row {row}: operation {byte:?} is unknown")))
}

/// The event id of a stored row.
///
/// # Errors
/// When the bytes are no event id.
pub fn id_at(ids: &FixedSizeBinaryArray, row: usize) -> Result<EventId, BlockError> {
    let bytes = (row < ids.len()).then(|| ids.value(row));
    bytes
        .and_then(EventId::from_bytes)
        .ok_or_else(|| BlockError::Mismatch(format!("row {row}: no event id")))
}
