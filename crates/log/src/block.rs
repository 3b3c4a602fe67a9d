//! Blocks: what one epoch appends to one partition, compressed, sealed and authenticated.
//!
//! Permanent bytes; integers are big-endian outside the Arrow message.
//!
//! # Block
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic `46 4c 4a 42` ("FLJB") |
//! | 4 | 1 | format version, 1 |
//! | 5 | 1 | body format: 1 = seed and Arrow IPC record batch message |
//! | 6 | 2 | header length h, at least 52; fields beyond byte 52 are skipped |
//! | 8 | 16 | topic id |
//! | 24 | 4 | partition |
//! | 28 | 4 | schema version |
//! | 32 | 16 | block id, random |
//! | 48 | 4 | number of events |
//! | h | 16 | key id |
//! | h + 16 | 32 | key commitment |
//! | h + 48 | 12 | nonce, random |
//! | h + 60 | n | body, sealed with AES-256-GCM, and its 16-byte tag |
//!
//! Authenticated with the body: bytes 0 to h, and what the vault adds (topic, key id, commitment).
//! So every byte of a block is authenticated or names the key without which nothing opens.
//!
//! # Body, format 1
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 32 | salt seed, random |
//! | 32 | n | one encapsulated Arrow IPC message (V5, 8-byte alignment, dictionary-free): a record batch |
//!
//! The message says itself whether its buffers are LZ4 frames (they are where the batch is large
//! enough to gain). Its schema is not stored: columns `__op` (uint8: [`falaj_event::Op`]), `__id`
//! (fixed binary 33: [`falaj_event::EventId`]), then the stored columns of the topic's schema
//! version in declared order (pii columns as binary, see [`crate::pii`]).
//!
//! # Salts
//! Event i of the block has the salt that is made of bytes 16 i to 16 i + 16 of the AES-256-GCM
//! encryption, under the seed as key and an all-zero nonce, of zeros. So a block carries 32 bytes of
//! salt instead of 16 per event, and a salt that a proof reveals says nothing about any other.
//!
//! Does not know epochs or offsets: a block's writer does not know them either.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeBinaryArray, UInt8Array};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow_ipc::convert::MessageBuffer;
use arrow_ipc::reader::RecordBatchDecoder;
use arrow_ipc::writer::{
    DictionaryTracker, EncodedData, IpcDataGenerator, IpcWriteContext, IpcWriteOptions,
    write_message,
};
use arrow_ipc::{CompressionType, MetadataVersion};
use falaj_event::hash::SALT_BYTES;
use falaj_event::ids::EVENT_ID_BYTES;
use falaj_event::{TopicId, TopicSchema};
use falaj_vault::{KeyCommitment, KeyId, KeyName, NONCE_BYTES, Vault, VaultError};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::bytes::{Cursor, FormatError};
use crate::contract::BlockId;
use crate::schemas::{rebatch, stored_row_schema};

const MAGIC: &[u8; 4] = b"FLJB";
const VERSION: u8 = 1;
const BODY_FORMAT: u8 = 1;
const HEADER_BYTES: u16 = 52;
/// Length of the salt seed in bytes.
pub const SEED_BYTES: usize = 32;
/// Below this many bytes of columns, LZ4's frames cost more than they save.
const COMPRESS_FROM_BYTES: usize = 2048;
/// A buffer that claims to be longer than this once decompressed is not read.
const MAX_BUFFER_BYTES: i64 = 1 << 31;
/// Name of the system column of operations.
pub const OP_COLUMN: &str = "__op";
/// Name of the system column of event ids.
pub const ID_COLUMN: &str = "__id";

/// What a block says about itself in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// Its topic.
    pub topic: TopicId,
    /// Its partition.
    pub partition: u32,
    /// The schema version of its rows.
    pub schema_version: u32,
    /// Its id.
    pub id: BlockId,
    /// Its number of events.
    pub count: u32,
}

/// The rows of a block.
#[derive(Clone, Debug)]
pub struct BlockRows {
    /// The seed of the salts.
    pub seed: [u8; SEED_BYTES],
    /// Operations, one byte per event.
    pub ops: UInt8Array,
    /// Event ids.
    pub ids: FixedSizeBinaryArray,
    /// Stored columns, under [`stored_row_schema`].
    pub stored: RecordBatch,
}

/// Why a block was not sealed or not read.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// The clear bytes are not a block's.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The vault refused.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The block is another one than was asked for, or its body does not fit its header.
    #[error("the block does not fit: {0}")]
    Mismatch(String),
    /// The Arrow message cannot be written or read.
    #[error("the block's record batch: {0}")]
    Arrow(#[from] ArrowError),
    /// The cipher library refused.
    #[error("the cipher refused to expand salts")]
    Cipher,
}

impl BlockHeader {
    /// The authenticated bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut out = [0; HEADER_BYTES as usize];
        out[0..4].copy_from_slice(MAGIC);
        out[4..6].copy_from_slice(&[VERSION, BODY_FORMAT]);
        out[6..8].copy_from_slice(&HEADER_BYTES.to_be_bytes());
        out[8..24].copy_from_slice(&self.topic.0);
        out[24..28].copy_from_slice(&self.partition.to_be_bytes());
        out[28..32].copy_from_slice(&self.schema_version.to_be_bytes());
        out[32..48].copy_from_slice(&self.id.0);
        out[48..52].copy_from_slice(&self.count.to_be_bytes());
        out
    }

    /// Reads the header of a block.
    ///
    /// # Errors
    /// Names the byte that no writer wrote.
    pub fn decode(block: &[u8]) -> Result<Self, FormatError> {
        Ok(ParsedBlock::parse(block)?.header)
    }
}

struct ParsedBlock<'a> {
    header: BlockHeader,
    authenticated: &'a [u8],
    key: KeyName,
    nonce: [u8; NONCE_BYTES],
    ciphertext: &'a [u8],
}

impl<'a> ParsedBlock<'a> {
    fn parse(block: &'a [u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new("block", block);
        cursor.magic(MAGIC, VERSION)?;
        let format = cursor.u8()?;
        if format != BODY_FORMAT {
            return Err(
                cursor.fail(format!("body format {format} is unknown; upgrade this program"))
            );
        }
        let length = cursor.u16()?;
        if length < HEADER_BYTES {
            return Err(cursor.fail(format!("header length {length} is below {HEADER_BYTES}")));
        }
        let header = BlockHeader {
            topic: TopicId(cursor.take()?),
            partition: cursor.u32()?,
            schema_version: cursor.u32()?,
            id: BlockId(cursor.take()?),
            count: cursor.u32()?,
        };
        cursor.slice(usize::from(length - HEADER_BYTES))?;
        let authenticated = &block[..cursor.at()];
        let key = KeyName { id: KeyId(cursor.take()?), commitment: KeyCommitment(cursor.take()?) };
        let nonce = cursor.take()?;
        let ciphertext = cursor.slice(cursor.left())?;
        Ok(Self { header, authenticated, key, nonce, ciphertext })
    }
}

/// The salts of the first `count` events of a block with this seed, 16 bytes each, concatenated.
///
/// # Errors
/// [`BlockError::Cipher`], which the library does not give for keys of this length.
pub fn expand_salts(seed: &[u8; SEED_BYTES], count: usize) -> Result<Vec<u8>, BlockError> {
    let key = UnboundKey::new(&AES_256_GCM, seed).map_err(|_| BlockError::Cipher)?;
    let mut salts = vec![0; count * SALT_BYTES];
    // Only the keystream is wanted: there is nothing to authenticate.
    let _tag = LessSafeKey::new(key)
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key([0; NONCE_BYTES]),
            Aad::empty(),
            &mut salts,
        )
        .map_err(|_| BlockError::Cipher)?;
    Ok(salts)
}

/// Seals `rows`, written under `header`, into a block's bytes.
///
/// # Errors
/// When the vault or Arrow refuses, or the rows do not fit the header.
pub fn seal_block(
    vault: &Vault,
    header: &BlockHeader,
    rows: &BlockRows,
) -> Result<Vec<u8>, BlockError> {
    if rows.stored.num_rows() != header.count as usize {
        let found = rows.stored.num_rows();
        return Err(BlockError::Mismatch(format!("{found} rows for a count of {}", header.count)));
    }
    let clear = header.encode();
    let sealed = vault.seal_block(header.topic, &clear, encode_body(rows)?)?;
    let mut out = Vec::with_capacity(clear.len() + 60 + sealed.ciphertext.len());
    out.extend_from_slice(&clear);
    out.extend_from_slice(&sealed.key.id.0);
    out.extend_from_slice(&sealed.key.commitment.0);
    out.extend_from_slice(&sealed.nonce);
    out.extend_from_slice(&sealed.ciphertext);
    Ok(out)
}

/// Opens a block that must be the one that `expected` tells (its schema version is told by the
/// block) and reads its rows under the schema that `schema_of` gives for that version.
///
/// # Errors
/// When the bytes are not a block, not this block, or were altered.
pub fn open_block(
    vault: &Vault,
    expected: (TopicId, u32, BlockId),
    block: &[u8],
    schema_of: impl FnOnce(u32) -> Option<Arc<TopicSchema>>,
) -> Result<(BlockHeader, BlockRows), BlockError> {
    let parsed = ParsedBlock::parse(block)?;
    let header = parsed.header;
    if (header.topic, header.partition, header.id) != expected {
        return Err(BlockError::Mismatch(format!("{header:?} where {expected:?} should be")));
    }
    let body = vault.open_block(
        header.topic,
        parsed.authenticated,
        &parsed.key,
        &parsed.nonce,
        parsed.ciphertext.to_vec(),
    )?;
    let schema = schema_of(header.schema_version).ok_or_else(|| {
        BlockError::Mismatch(format!("schema version {} is not known", header.schema_version))
    })?;
    let rows = decode_body(body, &schema)?;
    if rows.stored.num_rows() != header.count as usize {
        let found = rows.stored.num_rows();
        return Err(BlockError::Mismatch(format!("{found} rows for a count of {}", header.count)));
    }
    Ok((header, rows))
}

fn body_schema(stored: &Schema) -> SchemaRef {
    let mut fields = vec![
        Arc::new(Field::new(OP_COLUMN, DataType::UInt8, false)),
        Arc::new(Field::new(ID_COLUMN, DataType::FixedSizeBinary(EVENT_ID_BYTES as i32), false)),
    ];
    fields.extend(stored.fields().iter().cloned());
    Arc::new(Schema::new(fields))
}

fn encode_body(rows: &BlockRows) -> Result<Vec<u8>, BlockError> {
    let mut columns: Vec<ArrayRef> = vec![Arc::new(rows.ops.clone()), Arc::new(rows.ids.clone())];
    columns.extend(rows.stored.columns().iter().cloned());
    let schema = body_schema(rows.stored.schema_ref());
    let batch = rebatch(schema, columns, rows.stored.num_rows())?;
    let sizes = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size());
    let bytes: usize = sizes.sum::<Result<usize, ArrowError>>()?;
    let codec = (bytes >= COMPRESS_FROM_BYTES).then_some(CompressionType::LZ4_FRAME);
    let options =
        IpcWriteOptions::try_new(8, false, MetadataVersion::V5)?.try_with_compression(codec)?;
    let mut tracker = DictionaryTracker::new(true);
    let mut context = IpcWriteContext::default();
    let (dictionaries, EncodedData { ipc_message, arrow_data }) =
        IpcDataGenerator::default().encode(&batch, &mut tracker, &options, &mut context)?;
    if !dictionaries.is_empty() {
        return Err(BlockError::Mismatch("dictionary columns are not stored".into()));
    }
    let mut body = Vec::with_capacity(SEED_BYTES + ipc_message.len() + arrow_data.len() + 64);
    body.extend_from_slice(&rows.seed);
    write_message(&mut body, EncodedData { ipc_message, arrow_data }, &options)?;
    Ok(body)
}

fn decode_body(body: Vec<u8>, schema: &TopicSchema) -> Result<BlockRows, BlockError> {
    let mut cursor = Cursor::new("block body", &body);
    let seed = cursor.take()?;
    if cursor.take()? != [0xFF; 4] {
        return Err(cursor.fail("no IPC continuation marker").into());
    }
    let length = u32::from_le_bytes(cursor.take()?) as usize;
    cursor.slice(length)?;
    let message_end = cursor.at();
    let buffer = Buffer::from_vec(body);
    let metadata = buffer.slice_with_length(message_end - length, length);
    let data = buffer.slice(message_end);
    let stored = stored_row_schema(schema);
    let batch = decode_message(metadata, &data, body_schema(&stored))?;
    let mismatch = |what: &str| BlockError::Mismatch(format!("column {what} has another type"));
    let columns = batch.columns();
    let ops = columns[0].as_any().downcast_ref::<UInt8Array>();
    let ids = columns[1].as_any().downcast_ref::<FixedSizeBinaryArray>();
    Ok(BlockRows {
        seed,
        ops: ops.ok_or_else(|| mismatch(OP_COLUMN))?.clone(),
        ids: ids.ok_or_else(|| mismatch(ID_COLUMN))?.clone(),
        stored: rebatch(stored, columns[2..].to_vec(), batch.num_rows())?,
    })
}

fn decode_message(
    metadata: Buffer,
    data: &Buffer,
    schema: SchemaRef,
) -> Result<RecordBatch, BlockError> {
    let message = MessageBuffer::try_new(metadata)?;
    let message = message.as_ref();
    let batch = message
        .header_as_record_batch()
        .ok_or_else(|| BlockError::Mismatch("the IPC message is not a record batch".into()))?;
    check_message(&batch, data, &schema)?;
    let version = message.version();
    let dictionaries = HashMap::new();
    let decoder = RecordBatchDecoder::try_new(data, batch, schema, &dictionaries, &version)?;
    Ok(decoder.read_record_batch()?)
}

/// Refuses what makes the Arrow decoder panic or allocate without bound.
fn check_message(
    batch: &arrow_ipc::RecordBatch<'_>,
    data: &[u8],
    schema: &Schema,
) -> Result<(), BlockError> {
    let refuse = |why: &str| BlockError::Mismatch(format!("the IPC message: {why}"));
    let rows = 0..=i64::from(u32::MAX);
    let variadic = batch.variadicBufferCounts().is_some_and(|counts| !counts.is_empty());
    if !rows.contains(&batch.length()) || variadic {
        return Err(refuse("impossible row or variadic counts"));
    }
    let compressed = batch.compression().is_some();
    let lengths = (batch.buffers().into_iter().flatten())
        .map(|buffer| buffer_bytes(buffer, data, compressed))
        .collect::<Option<Vec<u64>>>()
        .ok_or_else(|| refuse("a buffer beyond its end or beyond reason"))?;
    let nodes: Vec<_> = batch.nodes().into_iter().flatten().collect();
    let nodes_fit = nodes.iter().all(|node| {
        rows.contains(&node.length()) && (0..=node.length()).contains(&node.null_count())
    });
    let (mut lengths, mut nodes) = (lengths.into_iter(), nodes.into_iter());
    let mut columns = schema.fields().iter();
    let columns_fit =
        columns.all(|field| column_fits(field.data_type(), &mut nodes, &mut lengths).is_some());
    match nodes_fit && columns_fit && nodes.next().is_none() && lengths.next().is_none() {
        true => Ok(()),
        false => Err(refuse("impossible columns")),
    }
}

/// How many bytes a buffer has once decompressed; `None` when it cannot be read.
fn buffer_bytes(buffer: &arrow_ipc::Buffer, data: &[u8], compressed: bool) -> Option<u64> {
    let start = usize::try_from(buffer.offset()).ok()?;
    let length = usize::try_from(buffer.length()).ok()?;
    let bytes = data.get(start..start.checked_add(length)?)?;
    if !compressed || bytes.is_empty() {
        return Some(bytes.len() as u64);
    }
    let (prefix, rest) = bytes.split_first_chunk()?;
    match i64::from_le_bytes(*prefix) {
        -1 => Some(rest.len() as u64),
        length if length <= MAX_BUFFER_BYTES => u64::try_from(length).ok(),
        _ => None,
    }
}

/// Whether a column's validity bitmap is long enough and its offsets or values are whole ones; the
/// decoder checks the rest itself.
fn column_fits<'a>(
    data_type: &DataType,
    nodes: &mut impl Iterator<Item = &'a arrow_ipc::FieldNode>,
    lengths: &mut impl Iterator<Item = u64>,
) -> Option<()> {
    let node = nodes.next()?;
    let bits = lengths.next()?.saturating_mul(8);
    let rows = u64::try_from(node.length()).ok()?;
    let variable = matches!(data_type, DataType::Utf8 | DataType::Binary | DataType::List(_));
    let width = match variable {
        true => size_of::<i32>(),
        false => data_type.primitive_width().unwrap_or(1),
    };
    let whole = lengths.next()?.is_multiple_of(width as u64);
    if !whole || (node.null_count() > 0 && bits < rows) {
        return None;
    }
    match data_type {
        DataType::Utf8 | DataType::Binary => lengths.next().map(|_| ()),
        DataType::List(item) => column_fits(item.data_type(), nodes, lengths),
        _ => Some(()),
    }
}

#[cfg(test)]
mod tests;
