//! Flight messages to record batches, for bytes that may be anything.
//!
//! Why it exists: Arrow's IPC reader trusts offsets, lengths and type codes in places and panics or
//! allocates without bound where they lie. Everything it would trust is checked here first; what
//! still panics is caught. It knows no request and no backend.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow_ipc::reader::{RecordBatchDecoder, read_dictionary};
use arrow_ipc::{MessageHeader, convert::fb_to_schema};
use bytes::Bytes;

/// Most rows in one batch.
pub const MAX_ROWS: usize = 4 << 20;
/// Most columns in one schema.
pub const MAX_COLUMNS: usize = 4096;

/// Bytes that are no valid continuation of an Arrow stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not Arrow IPC, or damaged.
    #[error("the message is not valid Arrow IPC: {0}")]
    Malformed(String),
    /// Valid, but larger than is accepted.
    #[error("the message is too large: {0}")]
    TooLarge(String),
    /// Valid, but of a type that no column has.
    #[error("column `{column}` has the type {data_type}, which no topic or view has")]
    Unsupported {
        /// The column.
        column: String,
        /// Its Arrow type.
        data_type: String,
    },
    /// A batch before its schema.
    #[error("a record batch came before the schema; send the schema first")]
    NoSchema,
}

fn malformed(what: impl ToString) -> DecodeError {
    DecodeError::Malformed(what.to_string())
}

/// One decoded message.
#[derive(Clone, Debug)]
pub enum Decoded {
    /// The stream's schema.
    Schema(SchemaRef),
    /// Rows.
    Batch(RecordBatch),
    /// Only metadata, or a dictionary that later batches refer to.
    Nothing,
}

/// Decodes the messages of one stream.
pub struct IpcDecoder {
    schema: Option<SchemaRef>,
    dictionaries: HashMap<i64, ArrayRef>,
    max_bytes: usize,
}

impl IpcDecoder {
    /// A decoder that refuses messages of more than `max_bytes` after decompression.
    pub fn new(max_bytes: usize) -> Self {
        Self { schema: None, dictionaries: HashMap::new(), max_bytes }
    }

    /// The schema, once it came.
    pub fn schema(&self) -> Option<&SchemaRef> {
        self.schema.as_ref()
    }

    /// Decodes one message's header and body. Never panics, whatever the bytes are.
    ///
    /// # Errors
    /// [`DecodeError`]; after an error in a batch the stream can go on with the next message.
    pub fn decode(&mut self, header: &[u8], body: Bytes) -> Result<Decoded, DecodeError> {
        if header.is_empty() {
            return match body.is_empty() {
                true => Ok(Decoded::Nothing),
                false => Err(malformed("a body without a header")),
            };
        }
        catch_unwind(AssertUnwindSafe(|| self.decode_message(header, body)))
            .unwrap_or_else(|_| Err(malformed("its parts contradict each other")))
    }

    fn decode_message(&mut self, header: &[u8], body: Bytes) -> Result<Decoded, DecodeError> {
        let message = arrow_ipc::root_as_message(header).map_err(malformed)?;
        match message.header_type() {
            MessageHeader::NONE => Ok(Decoded::Nothing),
            MessageHeader::Schema => {
                let schema = message.header_as_schema().ok_or_else(|| malformed("no schema"))?;
                let fields = schema.fields().ok_or_else(|| malformed("no fields"))?;
                if fields.len() > MAX_COLUMNS {
                    return Err(DecodeError::TooLarge(format!("{} columns", fields.len())));
                }
                let schema = Arc::new(fb_to_schema(schema));
                schema
                    .fields()
                    .iter()
                    .try_for_each(|field| check_type(field, field.data_type()))?;
                self.dictionaries.clear();
                self.schema = Some(Arc::clone(&schema));
                Ok(Decoded::Schema(schema))
            }
            MessageHeader::DictionaryBatch => {
                let schema = self.schema.as_ref().ok_or(DecodeError::NoSchema)?;
                let dictionary = message
                    .header_as_dictionary_batch()
                    .ok_or_else(|| malformed("no dictionary batch"))?;
                let data = dictionary.data().ok_or_else(|| malformed("an empty dictionary"))?;
                self.check_parts(&data, &body)?;
                let buffer = aligned(body);
                let version = message.version();
                read_dictionary(&buffer, dictionary, schema, &mut self.dictionaries, &version)
                    .map_err(malformed)?;
                Ok(Decoded::Nothing)
            }
            MessageHeader::RecordBatch => {
                let schema = self.schema.as_ref().ok_or(DecodeError::NoSchema)?;
                let batch =
                    message.header_as_record_batch().ok_or_else(|| malformed("no record batch"))?;
                self.check_parts(&batch, &body)?;
                let buffer = aligned(body);
                let version = message.version();
                let schema = Arc::clone(schema);
                RecordBatchDecoder::try_new(&buffer, batch, schema, &self.dictionaries, &version)
                    .and_then(RecordBatchDecoder::read_record_batch)
                    .map(Decoded::Batch)
                    .map_err(malformed)
            }
            other => Err(malformed(format!("unexpected message kind {}", other.0))),
        }
    }

    /// What Arrow's reader takes on trust: row counts, node lengths, buffer ranges and the sizes
    /// that compressed buffers claim.
    fn check_parts(
        &self,
        batch: &arrow_ipc::RecordBatch<'_>,
        body: &[u8],
    ) -> Result<(), DecodeError> {
        check_length("rows", batch.length(), MAX_ROWS)?;
        let buffers = batch.buffers().ok_or_else(|| malformed("no buffers"))?;
        let mut decoded_bytes = body.len();
        for buffer in buffers.iter() {
            let bytes = usize::try_from(buffer.offset())
                .ok()
                .zip(usize::try_from(buffer.length()).ok())
                .and_then(|(start, length)| body.get(start..start.checked_add(length)?))
                .ok_or_else(|| malformed("a buffer lies outside the body"))?;
            if batch.compression().is_some() && !bytes.is_empty() {
                let prefix = bytes.first_chunk::<8>().ok_or_else(|| malformed("a cut buffer"))?;
                // −1 marks a buffer that is stored as it is.
                if let claimed @ 0.. = i64::from_le_bytes(*prefix) {
                    let claimed = usize::try_from(claimed).unwrap_or(usize::MAX);
                    decoded_bytes = decoded_bytes.saturating_add(claimed);
                }
            }
        }
        if decoded_bytes > self.max_bytes {
            return Err(DecodeError::TooLarge(format!(
                "{decoded_bytes} bytes decoded, {} are allowed; send smaller batches",
                self.max_bytes
            )));
        }
        let nodes = batch.nodes().ok_or_else(|| malformed("no nodes"))?;
        // A bit per element is the least that an element takes, except in all-NULL columns.
        let most = decoded_bytes.saturating_mul(8).max(MAX_ROWS);
        for node in nodes.iter() {
            check_length("values", node.length(), most)?;
            if !(0..=node.length()).contains(&node.null_count()) {
                return Err(malformed("more NULLs than values"));
            }
        }
        let counts = batch.variadicBufferCounts();
        for count in counts.iter().flat_map(|counts| counts.iter()) {
            check_length("view buffers", count, buffers.len())?;
        }
        Ok(())
    }
}

fn check_length(what: &str, length: i64, most: usize) -> Result<(), DecodeError> {
    match usize::try_from(length) {
        Err(_) => Err(malformed(format!("a negative number of {what}"))),
        Ok(length) if length > most => {
            Err(DecodeError::TooLarge(format!("{length} {what}, at most {most} are allowed")))
        }
        Ok(_) => Ok(()),
    }
}

/// Copies a body only where its values would otherwise have to be copied one buffer at a time.
fn aligned(body: Bytes) -> Buffer {
    match body.as_ptr().addr() % 16 {
        0 => Buffer::from(body),
        _ => Buffer::from(body.as_ref()),
    }
}

fn check_type(column: &Field, data_type: &DataType) -> Result<(), DecodeError> {
    use DataType as D;
    let fine = match data_type {
        D::Null | D::Boolean | D::Utf8 | D::LargeUtf8 | D::Utf8View => true,
        D::Binary | D::LargeBinary | D::BinaryView | D::Date32 | D::Date64 => true,
        D::FixedSizeBinary(length) => *length > 0,
        D::Timestamp(..) => true,
        D::Decimal32(..) | D::Decimal64(..) | D::Decimal128(..) | D::Decimal256(..) => true,
        D::List(item) | D::LargeList(item) => return check_item(column, item),
        D::FixedSizeList(item, length) if *length > 0 => return check_item(column, item),
        D::Dictionary(_, values) if !values.is_nested() => return check_type(column, values),
        numeric => numeric.is_numeric(),
    };
    if fine {
        return Ok(());
    }
    Err(DecodeError::Unsupported {
        column: column.name().clone(),
        data_type: data_type.to_string(),
    })
}

fn check_item(column: &Field, item: &Field) -> Result<(), DecodeError> {
    match item.data_type() {
        nested @ (DataType::Dictionary(..) | DataType::List(_)) => Err(DecodeError::Unsupported {
            column: column.name().clone(),
            data_type: format!("list of {nested}"),
        }),
        other if other.is_nested() => Err(DecodeError::Unsupported {
            column: column.name().clone(),
            data_type: format!("list of {other}"),
        }),
        other => check_type(column, other),
    }
}

#[cfg(test)]
mod tests;
