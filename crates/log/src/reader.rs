//! Reading the log back: epochs in order, or a partition's offsets; plain or sealed personal values;
//! old rows under the newest schema; everything verified on demand.
//!
//! Does not know views. Blocks are always authenticated (the vault does that); [`Reader::verify_epoch`]
//! recomputes event hashes and roots as well.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, FixedSizeBinaryArray};
use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use falaj_event::hash::SALT_BYTES;
use falaj_event::{EventId, Op, TopicId, TopicSchema};
use falaj_vault::Vault;

use crate::block::{BlockHeader, BlockRows, expand_salts, open_block};
use crate::contract::{BlockId, Log};
use crate::epoch::{EpochEntry, EpochRecord, PartitionEntry, epochs_topic};
use crate::merkle;
use crate::pii::open_rows;
use crate::rows::{event_hashes, id_at, op_at};
use crate::schemas::{SchemaProvider, adapt, opened_row_schema, stored_row_schema};

mod epochs;
mod error;

pub use epochs::epoch_rows;
pub use error::{Place, ReadError};

/// What becomes of personal values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PiiMode {
    /// They stay sealed: pii columns are `binary`.
    #[default]
    Sealed,
    /// They are opened: pii columns have their declared type, erased values are NULL.
    Plain,
}

/// What a reader gives.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// Topics to decode; `None`: all but `falaj.epochs`, which is given where it is named. Others'
    /// blocks are not even fetched.
    pub topics: Option<BTreeSet<TopicId>>,
    /// Personal values.
    pub pii: PiiMode,
    /// Whether every block that is read is also checked against its epoch's roots.
    pub verify: bool,
    /// Whether what was cut from the log ([`Log::cut`]) is left out; it is an error otherwise.
    pub skip_cut: bool,
}

/// Events of one epoch in one partition.
#[derive(Clone, Debug)]
pub struct PartitionEvents {
    /// The schema that `batch` is under: the topic's newest.
    pub topic: Arc<TopicSchema>,
    /// Partition.
    pub partition: u32,
    /// Offset of the first row; the others follow densely.
    pub first_offset: u64,
    /// Operations by row.
    pub ops: Vec<Op>,
    /// Rows, under [`stored_row_schema`] or [`opened_row_schema`].
    pub batch: RecordBatch,
    /// Rows with an erased value, ascending (in [`PiiMode::Plain`] only).
    pub erased: Vec<u32>,
    ids: FixedSizeBinaryArray,
    salts: Vec<SaltRun>,
    /// Rows that were cut off before the first.
    skipped: usize,
}

/// Rows of one block share a seed.
#[derive(Clone, Debug)]
struct SaltRun {
    seed: [u8; 32],
    rows: usize,
}

impl PartitionEvents {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The event id of a row; `None` beyond the end.
    pub fn event_id(&self, row: usize) -> Option<EventId> {
        id_at(&self.ids, row).ok()
    }

    /// The salt that a row was hashed with; `None` beyond the end.
    pub fn salt(&self, row: usize) -> Option<[u8; SALT_BYTES]> {
        let mut row = row.checked_add(self.skipped)?;
        for run in &self.salts {
            if row < run.rows {
                let salts = expand_salts(&run.seed, row + 1).ok()?;
                return salts.last_chunk().copied();
            }
            row -= run.rows;
        }
        None
    }

    /// Without its first `rows` rows.
    fn skip(mut self, rows: usize) -> Self {
        let rows = rows.min(self.len());
        let left = self.len() - rows;
        let cut = u32::try_from(rows).unwrap_or(u32::MAX);
        self.first_offset += rows as u64;
        self.ops.drain(..rows);
        self.batch = self.batch.slice(rows, left);
        self.ids = self.ids.slice(rows, left);
        self.erased.retain(|row| *row >= cut);
        self.erased.iter_mut().for_each(|row| *row -= cut);
        self.skipped += rows;
        self
    }
}

/// Events of one epoch.
#[derive(Clone, Debug)]
pub struct EpochEvents {
    /// The entry.
    pub entry: Arc<EpochEntry>,
    /// The wanted topics' partitions that the epoch touched, sorted by (topic id, partition).
    pub topics: Vec<PartitionEvents>,
}

impl EpochEvents {
    /// The epoch's record.
    pub fn record(&self) -> &EpochRecord {
        &self.entry.record
    }
}

/// Reads one log. Cheap to clone; may be used from many threads.
#[derive(Clone)]
pub struct Reader {
    log: Arc<dyn Log>,
    vault: Arc<Vault>,
    schemas: Arc<dyn SchemaProvider>,
    options: ReadOptions,
}

impl Reader {
    /// A reader with these options.
    pub fn new(
        log: Arc<dyn Log>,
        vault: Arc<Vault>,
        schemas: Arc<dyn SchemaProvider>,
        options: ReadOptions,
    ) -> Self {
        Self { log, vault, schemas, options }
    }

    /// The log that is read.
    pub fn log(&self) -> &Arc<dyn Log> {
        &self.log
    }

    /// The same log with other options.
    pub fn with_options(&self, options: ReadOptions) -> Self {
        Self { options, ..self.clone() }
    }

    /// Epochs from number `from` on to the tail as it is when it is reached; then `None`, and more
    /// when the log has grown. Ends after an error.
    pub fn epochs(
        &self,
        from: u64,
    ) -> impl Iterator<Item = Result<EpochEvents, ReadError>> + use<> {
        let reader = self.clone();
        let mut next = Some(from);
        std::iter::from_fn(move || {
            let epoch = next?;
            let events = reader.epoch(epoch).transpose()?;
            next = events.is_ok().then_some(epoch + 1);
            Some(events)
        })
    }

    /// One epoch; `None` beyond the tail.
    ///
    /// # Errors
    /// Names epoch, topic, partition and offset of what cannot be read.
    pub fn epoch(&self, epoch: u64) -> Result<Option<EpochEvents>, ReadError> {
        let Some(entry) = self.log.entry(epoch)? else { return Ok(None) };
        let wanted = |topic| self.options.topics.as_ref().is_none_or(|of| of.contains(topic));
        let mut topics = (entry.partitions.iter())
            .filter(|part| wanted(&part.topic))
            .filter(|part| !(self.options.skip_cut && self.is_cut(epoch, part)))
            .map(|part| self.partition(epoch, part))
            .collect::<Result<Vec<_>, _>>()?;
        let named = |wanted: &BTreeSet<TopicId>| wanted.contains(&epochs_topic());
        if self.options.topics.as_ref().is_some_and(named) {
            topics.push(self.epoch_event(&entry.record)?);
            topics.sort_by_key(|events| (events.topic.id(), events.partition));
        }
        Ok(Some(EpochEvents { entry, topics }))
    }

    /// Whether the events that an epoch appended to a partition are gone.
    fn is_cut(&self, epoch: u64, part: &PartitionEntry) -> bool {
        epoch < self.log.first_kept(part.topic)
    }

    /// The record as an event of `falaj.epochs`.
    fn epoch_event(&self, record: &EpochRecord) -> Result<PartitionEvents, ReadError> {
        let (topic, epoch) = (epochs_topic(), record.epoch);
        let place = Place { epoch, topic, partition: 0, offset: epoch };
        let schema = self.schemas.newest(topic).ok_or(ReadError::UnknownTopic { place })?;
        epochs::epoch_events(schema, record).map_err(|source| ReadError::Record { place, source })
    }

    /// Events of one partition from `offset` on, epoch by epoch, until at least `limit` rows were
    /// given or the end is reached. Rows before `offset` in its epoch are cut off. Each item carries
    /// its epoch's record. With [`ReadOptions::skip_cut`] it begins with the first event that is kept.
    ///
    /// # Errors
    /// As [`Self::epoch`].
    pub fn range(
        &self,
        topic: TopicId,
        partition: u32,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<(EpochRecord, PartitionEvents)>, ReadError> {
        let mut found = Vec::new();
        let (mut at, mut rows) = (offset, 0);
        if topic == epochs_topic() {
            while partition == 0
                && found.len() < limit
                && let Some(entry) = self.log.entry(at)?
            {
                found.push((entry.record.clone(), self.epoch_event(&entry.record)?));
                at += 1;
            }
            return Ok(found);
        }
        if self.options.skip_cut {
            at = at.max(self.first_offset(topic, partition)?);
        }
        while rows < limit
            && let Some(location) = self.log.locate(topic, partition, at)?
        {
            let entry =
                self.log.entry(location.epoch)?.ok_or(ReadError::NoEpoch(location.epoch))?;
            let place = Place { epoch: location.epoch, topic, partition, offset: at };
            let part = entry.partition(topic, partition).ok_or_else(|| {
                ReadError::NotCommitted { place, why: "the epoch did not touch it".into() }
            })?;
            let events = self.partition(location.epoch, part)?;
            let skip = usize::try_from(at - part.first_offset).unwrap_or(usize::MAX);
            let events = events.skip(skip);
            rows += events.len();
            at = part.end_offset();
            found.push((entry.record.clone(), events));
        }
        Ok(found)
    }

    /// The offset of a partition's first event that is kept; the next offset where none is.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn first_offset(&self, topic: TopicId, partition: u32) -> Result<u64, ReadError> {
        let first_kept = self.log.first_kept(topic);
        let (mut low, mut high) = (0, self.log.next_offset(topic, partition));
        while first_kept > 0 && low < high {
            let middle = low + (high - low) / 2;
            match self.log.locate(topic, partition, middle)? {
                Some(found) if found.epoch < first_kept => {
                    low = found.first_offset + u64::from(found.count);
                }
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// Recomputes everything that an epoch commits to: its tables, its predecessor's hash, and
    /// event by event the roots of all its partitions (whatever topics the reader decodes). Of what
    /// was cut the roots are all that is left, and the record's hash commits to them.
    ///
    /// # Errors
    /// Names the first thing that does not fit.
    pub fn verify_epoch(&self, epoch: u64) -> Result<(), ReadError> {
        let entry = self.log.entry(epoch)?.ok_or(ReadError::NoEpoch(epoch))?;
        let chain = |why: String| ReadError::Chain { epoch, why };
        if entry.record.epoch != epoch {
            return Err(chain(format!("the record says {}", entry.record.epoch)));
        }
        entry.check().map_err(chain)?;
        if let Some(before) = epoch.checked_sub(1) {
            let previous = self.log.entry(before)?.ok_or(ReadError::NoEpoch(before))?;
            if previous.record.hash() != entry.record.previous {
                return Err(chain("it names another predecessor".into()));
            }
            if previous.record.t >= entry.record.t || previous.record.term > entry.record.term {
                return Err(chain("its T or term does not follow its predecessor's".into()));
            }
        }
        for part in entry.partitions.iter().filter(|part| !self.is_cut(epoch, part)) {
            let blocks = self.open_blocks(epoch, part)?;
            self.verify_partition(epoch, part, &blocks)?;
        }
        Ok(())
    }

    fn open_blocks(
        &self,
        epoch: u64,
        part: &PartitionEntry,
    ) -> Result<Vec<(BlockHeader, BlockRows)>, ReadError> {
        let mut offset = part.first_offset;
        let mut blocks = Vec::with_capacity(part.blocks.len());
        for id in &part.blocks {
            let place = Place { epoch, topic: part.topic, partition: part.partition, offset };
            let (header, rows) = self.open_block(place, *id)?;
            offset += u64::from(header.count);
            blocks.push((header, rows));
        }
        if offset != part.end_offset() {
            let place = place_of(epoch, part);
            let why = format!("its blocks end at offset {offset}, not {}", part.end_offset());
            return Err(ReadError::NotCommitted { place, why });
        }
        Ok(blocks)
    }

    fn open_block(&self, place: Place, id: BlockId) -> Result<(BlockHeader, BlockRows), ReadError> {
        let Place { topic, partition, .. } = place;
        let bytes = self.log.block(topic, partition, id)?;
        let schema_of = |version| self.schemas.schema(topic, version);
        open_block(&self.vault, (topic, partition, id), &bytes, schema_of)
            .map_err(|source| ReadError::block(place, source))
    }

    fn verify_partition(
        &self,
        epoch: u64,
        part: &PartitionEntry,
        blocks: &[(BlockHeader, BlockRows)],
    ) -> Result<(), ReadError> {
        let place = place_of(epoch, part);
        let mut hashes = Vec::with_capacity(part.count as usize);
        for (header, rows) in blocks {
            let of_block = event_hashes(rows, header.schema_version)
                .map_err(|source| ReadError::block(place, source))?;
            hashes.extend(of_block);
        }
        match merkle::root(hashes.iter().map(|hash| hash.0)) == part.events_root {
            true => Ok(()),
            false => Err(ReadError::NotCommitted {
                place,
                why: "the events do not have the committed root".into(),
            }),
        }
    }

    fn partition(&self, epoch: u64, part: &PartitionEntry) -> Result<PartitionEvents, ReadError> {
        let place = place_of(epoch, part);
        let unknown = || ReadError::UnknownTopic { place };
        let newest = self.schemas.newest(part.topic).ok_or_else(unknown)?;
        let blocks = self.open_blocks(epoch, part)?;
        if self.options.verify {
            self.verify_partition(epoch, part, &blocks)?;
        }
        let mut pieces = Vec::with_capacity(blocks.len());
        for (header, rows) in blocks {
            let written = self.schemas.schema(part.topic, header.schema_version);
            let written = written.ok_or_else(unknown)?;
            pieces.push(self.piece(place, rows, &written, &newest)?);
        }
        merge(pieces, newest, part).map_err(|source| ReadError::Schema { place, source })
    }

    fn piece(
        &self,
        place: Place,
        rows: BlockRows,
        written: &TopicSchema,
        newest: &TopicSchema,
    ) -> Result<Piece, ReadError> {
        let block = |source| ReadError::block(place, source);
        let ops = (0..rows.ops.len())
            .map(|row| op_at(&rows.ops, row))
            .collect::<Result<Vec<_>, _>>()
            .map_err(block)?;
        let (batch, erased, target) = match self.options.pii {
            PiiMode::Sealed => (rows.stored.clone(), Vec::new(), stored_row_schema(newest)),
            PiiMode::Plain => {
                let opened =
                    open_rows(&self.vault, written, &rows.stored, |row| rows.ids.value(row))
                        .map_err(|source| ReadError::Pii { place, source: Box::new(source) })?;
                (opened.batch, opened.erased, opened_row_schema(newest))
            }
        };
        let batch = adapt(&batch, written, newest, target)
            .map_err(|source| ReadError::Schema { place, source })?;
        let salts = SaltRun { seed: rows.seed, rows: ops.len() };
        Ok(Piece { ops, ids: rows.ids, batch, erased, salts })
    }
}

struct Piece {
    ops: Vec<Op>,
    ids: FixedSizeBinaryArray,
    batch: RecordBatch,
    erased: Vec<u32>,
    salts: SaltRun,
}

fn place_of(epoch: u64, part: &PartitionEntry) -> Place {
    Place { epoch, topic: part.topic, partition: part.partition, offset: part.first_offset }
}

fn merge(
    mut pieces: Vec<Piece>,
    topic: Arc<TopicSchema>,
    part: &PartitionEntry,
) -> Result<PartitionEvents, ArrowError> {
    let (partition, first_offset) = (part.partition, part.first_offset);
    if pieces.len() == 1
        && let Some(Piece { ops, ids, batch, erased, salts }) = pieces.pop()
    {
        let salts = vec![salts];
        return Ok(PartitionEvents {
            topic,
            partition,
            first_offset,
            ops,
            batch,
            erased,
            ids,
            salts,
            skipped: 0,
        });
    }
    let batches: Vec<&RecordBatch> = pieces.iter().map(|piece| &piece.batch).collect();
    let schema = batches.first().map(|batch| batch.schema());
    let schema = schema.ok_or_else(|| ArrowError::SchemaError("no blocks".into()))?;
    let batch = concat_batches(&schema, batches)?;
    let arrays: Vec<&dyn Array> = pieces.iter().map(|piece| &piece.ids as &dyn Array).collect();
    let ids = arrow::compute::concat(&arrays)?;
    let ids = ids.as_any().downcast_ref::<FixedSizeBinaryArray>().cloned();
    let ids = ids.ok_or_else(|| ArrowError::SchemaError("event ids".into()))?;
    let mut events = PartitionEvents {
        topic,
        partition,
        first_offset,
        ops: Vec::new(),
        batch,
        erased: Vec::new(),
        ids,
        salts: Vec::new(),
        skipped: 0,
    };
    for piece in pieces {
        let before = u32::try_from(events.ops.len()).unwrap_or(u32::MAX);
        events.erased.extend(piece.erased.iter().map(|row| before + row));
        events.ops.extend(piece.ops);
        events.salts.push(piece.salts);
    }
    Ok(events)
}

#[cfg(test)]
mod tests;
