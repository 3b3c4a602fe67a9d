//! Files of events: NDJSON, CSV and Parquet, read in blocks, every bad row kept beside its neighbours,
//! and several files merged by event time.
//!
//! Knows how rows of a topic are read (through the definitions crate); not where they go.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::AsArray;
use arrow::compute::{concat_batches, interleave_record_batch};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::record_batch::RecordBatch;
use falaj_definitions::conform::conform;
use falaj_definitions::door::Checked;
use falaj_definitions::expectations::Checks;
use falaj_definitions::reasons::RejectedRow;
use falaj_definitions::rows::{CsvHeader, RowParser};
use falaj_definitions::topics::TopicDefinition;
use falaj_event::Op;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

use crate::cli::FileFormat;
use crate::parquet_file;

/// Rows read at once.
const BLOCK_ROWS: usize = 4_096;

/// Rows that follow each other in the output: all good, or all bad.
#[derive(Debug)]
pub enum Run {
    /// Rows of the topic.
    Good {
        /// Declared columns, declared types.
        batch: RecordBatch,
        /// Operations.
        ops: Vec<Op>,
    },
    /// Rows that cannot be rows of the topic.
    Bad(Vec<RejectedRow>),
}

/// The format of a file by its name.
///
/// # Errors
/// When the name says nothing.
pub fn format_of(path: &Path) -> Result<FileFormat> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    Ok(match extension {
        "ndjson" | "jsonl" | "json" => FileFormat::Ndjson,
        "csv" => FileFormat::Csv,
        "parquet" | "pq" => FileFormat::Parquet,
        _ => bail!("{}: its name does not say its format; give --format", path.display()),
    })
}

enum Lines {
    Ndjson(Box<dyn BufRead + Send>),
    Csv(Box<csv::Reader<Box<dyn Read + Send>>>, CsvHeader),
    Parquet(ParquetRecordBatchReader),
}

/// One file being read.
struct Source {
    path: PathBuf,
    lines: Lines,
    topic: Arc<TopicDefinition>,
    block: Block,
    /// Next row of the block.
    next: usize,
}

/// Rows read at once, good ones as a batch; a row is where its position says.
struct Block {
    checked: Checked,
    times: Vec<i64>,
    /// For each row of the block: index into the good rows, or into the bad ones.
    rows: Vec<Place>,
}

#[derive(Clone, Copy)]
enum Place {
    Good(usize),
    Bad(usize),
}

impl Source {
    fn open(path: &Path, format: FileFormat, topic: &Arc<TopicDefinition>) -> Result<Self> {
        let is_standard_input = path == Path::new("-");
        let raw: Box<dyn Read + Send> = match is_standard_input {
            true => Box::new(std::io::stdin()),
            false => {
                Box::new(File::open(path).with_context(|| format!("opening {}", path.display()))?)
            }
        };
        let lines = match format {
            FileFormat::Ndjson => Lines::Ndjson(Box::new(BufReader::with_capacity(1 << 20, raw))),
            FileFormat::Csv => {
                let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(raw);
                let header = reader
                    .headers()
                    .with_context(|| format!("{}: reading the header", path.display()))?;
                let header = CsvHeader::new(&topic.schema, header.iter())
                    .with_context(|| format!("{}, line 1", path.display()))?;
                Lines::Csv(Box::new(reader), header)
            }
            FileFormat::Parquet if is_standard_input => {
                bail!("Parquet cannot be read from standard input: give a file")
            }
            FileFormat::Parquet => Lines::Parquet(parquet_file::reader(path, BLOCK_ROWS)?),
        };
        let block = Block { checked: nothing(topic)?, times: Vec::new(), rows: Vec::new() };
        Ok(Self { path: path.to_owned(), lines, topic: Arc::clone(topic), block, next: 0 })
    }

    /// Reads the next block; false at the end.
    fn refill(&mut self) -> Result<bool> {
        let mut parser = RowParser::new(Arc::clone(&self.topic));
        let place = || format!("reading {}", self.path.display());
        let checked = match &mut self.lines {
            Lines::Ndjson(reader) => {
                let mut line = Vec::new();
                while parser.len() < BLOCK_ROWS {
                    line.clear();
                    if reader.read_until(b'\n', &mut line).with_context(place)? == 0 {
                        break;
                    }
                    let text = String::from_utf8_lossy(&line);
                    if !text.trim().is_empty() {
                        parser.push_json(&text);
                    }
                }
                parser.finish()?
            }
            Lines::Csv(reader, header) => {
                let mut record = csv::ByteRecord::new();
                while parser.len() < BLOCK_ROWS
                    && reader.read_byte_record(&mut record).with_context(place)?
                {
                    let fields: Vec<_> = record.iter().map(String::from_utf8_lossy).collect();
                    parser.push_record(header, fields.iter().map(AsRef::as_ref));
                }
                parser.finish()?
            }
            Lines::Parquet(reader) => match reader.next() {
                Some(batch) => {
                    let checks = Checks::new(Arc::clone(&self.topic));
                    conform(&checks, &batch.with_context(place)?).with_context(place)?
                }
                None => nothing(&self.topic)?,
            },
        };
        self.block = Block::new(checked, &self.topic, self.block.times.last().copied());
        self.next = 0;
        Ok(!self.block.rows.is_empty())
    }

    /// Event time of the next row; `None` at the end. A bad row has its predecessor's.
    fn peek(&mut self) -> Result<Option<i64>> {
        if self.next == self.block.rows.len() && !self.refill()? {
            return Ok(None);
        }
        Ok(Some(self.block.times[self.next]))
    }
}

fn nothing(topic: &Arc<TopicDefinition>) -> Result<Checked> {
    Ok(RowParser::new(Arc::clone(topic)).finish()?)
}

impl Block {
    fn new(checked: Checked, topic: &TopicDefinition, before: Option<i64>) -> Self {
        let total = checked.positions.len() + checked.rejected.len();
        let mut rows = vec![Place::Bad(0); total];
        let place = |position: u32| usize::try_from(position).unwrap_or(usize::MAX);
        for (index, position) in checked.positions.iter().enumerate() {
            rows[place(*position)] = Place::Good(index);
        }
        for (index, rejected) in checked.rejected.iter().enumerate() {
            rows[place(rejected.position)] = Place::Bad(index);
        }
        let good = checked
            .batch
            .column(topic.schema.event_time)
            .as_primitive_opt::<TimestampMicrosecondType>()
            .map(|times| times.values().to_vec())
            .unwrap_or_default();
        let mut last = before.unwrap_or(i64::MIN);
        let times = rows
            .iter()
            .map(|place| {
                if let Place::Good(index) = place {
                    last = good.get(*index).copied().unwrap_or(last);
                }
                last
            })
            .collect();
        Self { checked, times, rows }
    }
}

/// Several files as one sequence of runs, in order of event time where each file is in that order
/// itself; ties go to the file named first. One file is read as it is.
pub struct Merge {
    sources: Vec<Source>,
    heap: BinaryHeap<Reverse<(i64, usize)>>,
    rows: u64,
}

impl Merge {
    /// Opens the files.
    ///
    /// # Errors
    /// Names the file that cannot be opened, or whose header does not fit.
    pub fn open(
        paths: &[PathBuf],
        format: Option<FileFormat>,
        topic: &Arc<TopicDefinition>,
    ) -> Result<Self> {
        let mut sources = Vec::with_capacity(paths.len());
        for path in paths {
            let format = match format {
                Some(format) => format,
                None if path == Path::new("-") => FileFormat::Ndjson,
                None => format_of(path)?,
            };
            sources.push(Source::open(path, format, topic)?);
        }
        let mut merge = Self { sources, heap: BinaryHeap::new(), rows: 0 };
        for index in 0..merge.sources.len() {
            merge.offer(index)?;
        }
        Ok(merge)
    }

    /// Rows given so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    fn offer(&mut self, index: usize) -> Result<()> {
        if let Some(time) = self.sources[index].peek()? {
            self.heap.push(Reverse((time, index)));
        }
        Ok(())
    }

    /// The next runs, `limit` rows in all at most; empty at the end.
    ///
    /// # Errors
    /// Names the file that cannot be read.
    pub fn next(&mut self, limit: usize) -> Result<Vec<Run>> {
        let mut out = Output::default();
        while out.rows < limit {
            let Some(Reverse((_, index))) = self.heap.pop() else { break };
            let source = &mut self.sources[index];
            match source.block.rows[source.next] {
                Place::Good(row) => out.good(index, source, row),
                Place::Bad(row) => out.bad(source.block.checked.rejected[row].clone())?,
            }
            source.next += 1;
            if source.next == source.block.rows.len() {
                out.close_block(index, source)?;
            }
            self.offer(index)?;
        }
        for (index, source) in self.sources.iter().enumerate() {
            out.close_block(index, source)?;
        }
        self.rows += out.rows as u64;
        out.finish()
    }
}

/// Runs under construction: indices into the blocks until a block ends.
#[derive(Default)]
struct Output {
    rows: usize,
    runs: Vec<Run>,
    pending: Vec<(usize, usize)>,
    ops: Vec<Op>,
    batches: Vec<RecordBatch>,
    /// Which of `batches` is the source's present block.
    current: Vec<(usize, usize)>,
}

impl Output {
    fn good(&mut self, index: usize, source: &Source, row: usize) {
        let batch = match self.current.iter().find(|(known, _)| *known == index) {
            Some((_, batch)) => *batch,
            None => {
                self.batches.push(source.block.checked.batch.clone());
                self.current.push((index, self.batches.len() - 1));
                self.batches.len() - 1
            }
        };
        self.pending.push((batch, row));
        self.ops.push(source.block.checked.ops[row]);
        self.rows += 1;
    }

    fn bad(&mut self, row: RejectedRow) -> Result<()> {
        self.flush()?;
        self.rows += 1;
        match self.runs.last_mut() {
            Some(Run::Bad(rows)) => rows.push(row),
            _ => self.runs.push(Run::Bad(vec![row])),
        }
        Ok(())
    }

    /// The source's present block is over: the next one is another batch.
    fn close_block(&mut self, index: usize, source: &Source) -> Result<()> {
        if source.next == source.block.rows.len() {
            self.current.retain(|(known, _)| *known != index);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let batch = interleave_record_batch(&batches, &self.pending)?;
        self.pending.clear();
        let ops = std::mem::take(&mut self.ops);
        match self.runs.last_mut() {
            Some(Run::Good { batch: last, ops: last_ops }) => {
                *last = concat_batches(&batch.schema(), [&*last, &batch])?;
                last_ops.extend(ops);
            }
            _ => self.runs.push(Run::Good { batch, ops }),
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Run>> {
        self.flush()?;
        Ok(self.runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Int64Type;
    use falaj_definitions::diagnostics::SourceFile;
    use falaj_definitions::topics::parse_topic;
    use std::io::Write;

    const TOPIC: &str = r#"
name = "orders"
description = "Orders."
kind = "event"
key = ["customer"]
event_time = "at"
columns = [
  { name = "customer", type = "string", description = "Who." },
  { name = "at", type = "timestamp", description = "When." },
  { name = "amount", type = "int64", description = "How much." },
]
"#;

    fn topic() -> Arc<TopicDefinition> {
        Arc::new(
            parse_topic(&SourceFile::new("orders.toml", TOPIC)).map_err(|e| e.to_string()).unwrap(),
        )
    }

    fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        path
    }

    fn amounts(runs: &[Run]) -> Vec<i64> {
        runs.iter()
            .flat_map(|run| match run {
                Run::Good { batch, .. } => {
                    batch.column(2).as_primitive::<Int64Type>().values().to_vec()
                }
                Run::Bad(rows) => vec![-1; rows.len()],
            })
            .collect()
    }

    #[test]
    fn files_are_merged_by_event_time_and_bad_rows_keep_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let first =
            file(folder.path(), "a.csv", "customer,at,amount\na,10,1\na,30,3\na,zzz,9\na,50,5\n");
        let second = file(
            folder.path(),
            "b.ndjson",
            "{\"customer\":\"b\",\"at\":20,\"amount\":2}\nnot json\n\n{\"customer\":\"b\",\"at\":40,\"amount\":4}\n",
        );
        let mut merge = Merge::open(&[first, second], None, &topic()).unwrap();
        let runs = merge.next(100).unwrap();
        assert_eq!(amounts(&runs), [1, 2, -1, 3, -1, 4, 5]);
        assert_eq!(merge.rows(), 7);
        assert!(merge.next(100).unwrap().is_empty());
    }

    #[test]
    fn batches_are_cut_at_the_limit_whatever_the_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let mut text = String::from("customer,at,amount\n");
        for row in 0..10_000 {
            text.push_str(&format!("c,{row},{row}\n"));
        }
        let path = file(folder.path(), "big.csv", &text);
        let mut merge = Merge::open(&[path], None, &topic()).unwrap();
        let mut all = Vec::new();
        loop {
            let runs = merge.next(999).unwrap();
            if runs.is_empty() {
                break;
            }
            let part = amounts(&runs);
            assert!(part.len() <= 999);
            all.extend(part);
        }
        assert_eq!(all, (0..10_000).collect::<Vec<i64>>());
    }

    #[test]
    fn a_header_that_does_not_fit_names_file_and_column() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "x.csv", "customer,at,amuont\na,1,1\n");
        let Err(error) = Merge::open(&[path], None, &topic()) else { panic!("refused") };
        let text = format!("{error:#}");
        assert!(text.contains("x.csv") && text.contains("amuont"), "{text}");
        let path = file(folder.path(), "x.txt", "");
        assert!(Merge::open(&[path], None, &topic()).is_err());
    }
}
