//! Damage to the embedded log: whatever byte is flipped, cut, zeroed or lost, the log says so or
//! gives back exactly what was written. Never other data, never a log that is silently shorter.
//!
//! Does not know what blocks hold: they are arbitrary bytes here.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use falaj_event::{Hash256, LogTime, ProducerId, TopicId};
use falaj_log::bytes::Extensions;
use falaj_log::epoch::{encode_producers, partitions_root, producers_hash};
use falaj_log::{
    BlockId, ClockMode, EpochEntry, EpochRecord, Log, LogError, PartitionEntry, ProducerEntry,
    StagedBlock,
};
use falaj_log_rocksdb::{Fsync, Options, RocksLog, Verify};
use tempfile::TempDir;

/// Epochs of the log that is damaged: some in table files, some in the write-ahead log.
const FLUSHED: u64 = 8;
const EPOCHS: u64 = 14;

struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// A directory in memory where there is one: opening a log many times is mostly syncing.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = tempfile::Builder::new().prefix("falaj-").tempdir_in(memory);
    made.or_else(|_| tempfile::tempdir()).unwrap()
}

fn options(verify: Verify) -> Options {
    Options { fsync: Fsync::Never, verify, write_buffer_bytes: 1 << 20, block_cache_bytes: 1 << 20 }
}

fn topics() -> [TopicId; 2] {
    [TopicId::of("payments"), TopicId::of("customers")]
}

fn producers() -> [ProducerId; 2] {
    [ProducerId([1; 16]), ProducerId([2; 16])]
}

fn block_id(epoch: u64, index: u64) -> BlockId {
    let mut id = [0xB0; 16];
    id[..8].copy_from_slice(&epoch.to_be_bytes());
    id[8..].copy_from_slice(&index.to_be_bytes());
    BlockId(id)
}

fn grow(log: &RocksLog) {
    let tail = log.tail();
    let epoch = tail.as_ref().map_or(0, |tail| tail.record.epoch + 1);
    let mut random = Seeded(epoch);
    let mut blocks = Vec::new();
    let mut partitions = Vec::new();
    for (index, topic) in topics().into_iter().enumerate() {
        for partition in 0..2 {
            let id = block_id(epoch, index as u64 * 2 + u64::from(partition));
            let length = 200 + random.below(900);
            let bytes: Arc<[u8]> = (0..length).map(|_| random.next() as u8).collect();
            blocks.push(StagedBlock { topic, partition, id, bytes });
            partitions.push(PartitionEntry {
                topic,
                partition,
                first_offset: log.next_offset(topic, partition),
                count: 3,
                blocks: vec![id],
                events_root: Hash256([epoch as u8; 32]),
                extensions: Extensions::default(),
            });
        }
    }
    partitions.sort_by_key(|part| (part.topic, part.partition));
    let runs: Vec<ProducerEntry> = producers()
        .into_iter()
        .map(|producer| ProducerEntry {
            producer,
            topic: topics()[0],
            first_sequence: epoch * 6,
            count: 6,
            accepted: 6,
        })
        .collect();
    let record = EpochRecord {
        term: 1,
        epoch,
        t: LogTime(1_000_000 + epoch * 100),
        clock: ClockMode::Event,
        wall_clock_us: 5,
        definitions: Hash256([4; 32]),
        previous: tail.map_or_else(Hash256::default, |tail| tail.record.hash()),
        partitions_root: partitions_root(&partitions),
        producers_hash: producers_hash(&encode_producers(&runs)),
        events: 12,
        extensions: Extensions::default(),
    };
    log.append(blocks).unwrap();
    log.commit(&EpochEntry { record, partitions, producers: runs }).unwrap();
}

/// Everything that a log says, as text and bytes.
fn picture(log: &RocksLog) -> Result<Vec<u8>, LogError> {
    let mut picture = Vec::new();
    let tail = log.tail();
    let epochs = tail.as_ref().map_or(0, |tail| tail.record.epoch + 1);
    for epoch in 0..epochs + 1 {
        let Some(entry) = log.entry(epoch)? else { continue };
        picture.extend(entry.encode());
        for part in &entry.partitions {
            for block in &part.blocks {
                picture.extend_from_slice(&log.block(part.topic, part.partition, *block)?);
            }
        }
        let near = [entry.record.t.0 - 1, entry.record.t.0, entry.record.t.0 + 1];
        for t in near {
            let found = log.entry_at(LogTime(t))?.map(|entry| entry.record.epoch);
            picture.extend(format!("{found:?}").into_bytes());
        }
    }
    for topic in topics() {
        for partition in 0..2 {
            let end = log.next_offset(topic, partition);
            for offset in 0..end + 1 {
                let located = log.locate(topic, partition, offset)?;
                picture.extend(format!("{located:?}").into_bytes());
            }
        }
    }
    for producer in producers() {
        for sequence in 0..epochs * 6 + 2 {
            let outcome = log.producer(producer, sequence)?;
            picture.extend(format!("{outcome:?}").into_bytes());
        }
        picture.extend(format!("{:?}", log.last_sequence(producer)?).into_bytes());
    }
    Ok(picture)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let target = to.join(item.file_name());
        if item.file_type().unwrap().is_dir() {
            copy(&item.path(), &target);
        } else {
            fs::copy(item.path(), target).unwrap();
        }
    }
}

/// A closed log as a crash would leave it, what it says, and its files worth damaging.
struct Original {
    home: TempDir,
    picture: Vec<u8>,
    files: Vec<PathBuf>,
}

fn original() -> Original {
    let home = scratch();
    let path = home.path().join("log");
    let log = RocksLog::open(&path, options(Verify::Tail)).unwrap();
    (0..FLUSHED).for_each(|_| grow(&log));
    log.flush().unwrap();
    (FLUSHED..EPOCHS).for_each(|_| grow(&log));
    let picture = picture(&log).unwrap();
    drop(log);
    let mut files: Vec<PathBuf> = fs::read_dir(path.join("store"))
        .unwrap()
        .map(|item| PathBuf::from("store").join(item.unwrap().file_name()))
        .filter(|name| {
            let text = name.to_string_lossy().into_owned();
            let table = text.ends_with(".sst") || text.ends_with(".log");
            table || text.contains("MANIFEST") || text.ends_with("CURRENT")
        })
        .collect();
    files.push("acknowledged".into());
    files.sort();
    let count = |end: &str| files.iter().filter(|f| f.to_string_lossy().ends_with(end)).count();
    assert!(count(".sst") >= 6, "tables: {files:?}");
    assert!(count(".log") >= 1 && count("CURRENT") == 1, "{files:?}");
    Original { home, picture, files }
}

impl Original {
    fn path(&self) -> PathBuf {
        self.home.path().join("log")
    }

    fn bytes(&self, file: &Path) -> Vec<u8> {
        fs::read(self.path().join(file)).unwrap()
    }

    /// Opens a copy in which `file` is `bytes` (`None`: missing) and reads everything.
    fn damaged(
        &self,
        file: &Path,
        bytes: Option<&[u8]>,
        verify: Verify,
    ) -> Result<Vec<u8>, LogError> {
        let copied = scratch();
        let path = copied.path().join("log");
        copy(&self.path(), &path);
        match bytes {
            Some(bytes) => fs::write(path.join(file), bytes).unwrap(),
            None => fs::remove_file(path.join(file)).unwrap(),
        }
        let log = RocksLog::open(&path, options(verify))?;
        picture(&log)
    }
}

/// One way to damage one file.
struct Case {
    file: PathBuf,
    what: String,
    bytes: Option<Vec<u8>>,
}

/// What a damaged log must not do, or nothing.
fn verdict(original: &Original, case: &Case, verify: Verify) -> Option<String> {
    let name = case.file.file_name().unwrap().to_string_lossy().into_owned();
    match original.damaged(&case.file, case.bytes.as_deref(), verify) {
        Ok(picture) if picture == original.picture => None,
        Ok(picture) => Some(format!("other data: {} bytes", picture.len())),
        Err(LogError::Truncated { acknowledged, .. }) if acknowledged == EPOCHS - 1 => None,
        Err(LogError::MissingBlock { .. }) => None,
        Err(error @ LogError::Damaged { .. }) => {
            let text = error.to_string();
            let named = [name.as_str(), "epoch ", "column family", "topic "];
            (!named.iter().any(|name| text.contains(name)))
                .then(|| format!("names nothing: {text}"))
        }
        Err(other) => Some(format!("an error of another kind: {other}")),
    }
}

/// Runs all cases on the available cores, alternating between quick and full verification.
fn run(original: &Original, cases: &[Case]) -> usize {
    let (next, detected) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failures = Mutex::new(String::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(index) else { return };
                    let verify = if index % 2 == 0 { Verify::Full } else { Verify::Tail };
                    if let Some(wrong) = verdict(original, case, verify) {
                        let mut failures = failures.lock().unwrap();
                        let file = case.file.display();
                        let _ = writeln!(failures, "{file}, {} ({verify:?}): {wrong}", case.what);
                    } else {
                        detected.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{failures}");
    detected.into_inner()
}

/// Offsets to damage in a file: all of a small one, else every n-th and as many random ones.
fn offsets(length: usize, random: &mut Seeded, every_byte: bool) -> Vec<usize> {
    const SMALL: usize = 64;
    const STRIDES: usize = 96;
    if length <= SMALL || every_byte {
        return (0..length).collect();
    }
    let stride = length / STRIDES;
    let mut chosen: Vec<usize> = (0..STRIDES).map(|i| i * stride + random.below(stride)).collect();
    chosen.extend((0..STRIDES).map(|_| random.below(length)));
    // Ends of files are where footers and torn records are.
    chosen.extend(length - 16..length);
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

#[test]
fn an_undamaged_copy_is_the_same_log() {
    let original = original();
    let nothing = original.bytes(Path::new("store/CURRENT"));
    for verify in [Verify::Tail, Verify::Full] {
        let copied = original.damaged(Path::new("store/CURRENT"), Some(&nothing), verify).unwrap();
        assert!(copied == original.picture);
    }
}

#[test]
fn a_flipped_byte_anywhere_is_found_or_harmless() {
    let original = original();
    let every_byte = kit::slow("flipping every byte of the log's files, not a sample");
    let mut random = Seeded(20_250_101);
    let mut cases = Vec::new();
    for file in &original.files {
        let bytes = original.bytes(file);
        for at in offsets(bytes.len(), &mut random, every_byte) {
            let mask = 1u8 << random.below(8);
            let mut flipped = bytes.clone();
            flipped[at] ^= if random.below(3) == 0 { 0xFF } else { mask };
            cases.push(Case {
                file: file.clone(),
                what: format!(
                    "byte {at} of {}: {:02x} to {:02x}",
                    bytes.len(),
                    bytes[at],
                    flipped[at]
                ),
                bytes: Some(flipped),
            });
        }
    }
    let total = cases.len();
    assert_eq!(run(&original, &cases), total);
    println!("{total} flipped bytes in {} files: none served", original.files.len());
}

#[test]
fn a_cut_file_is_found() {
    let original = original();
    let mut random = Seeded(7);
    let mut cases = Vec::new();
    for file in &original.files {
        let bytes = original.bytes(file);
        let mut ends: Vec<usize> = (0..16).map(|_| random.below(bytes.len())).collect();
        ends.extend([0, 1, bytes.len() / 2, bytes.len() - 1]);
        ends.sort_unstable();
        ends.dedup();
        for end in ends {
            cases.push(Case {
                file: file.clone(),
                what: format!("cut at {end} of {}", bytes.len()),
                bytes: Some(bytes[..end].to_vec()),
            });
        }
        cases.push(Case { file: file.clone(), what: "missing".to_owned(), bytes: None });
    }
    run(&original, &cases);
}

#[test]
fn a_torn_or_overwritten_sector_is_found() {
    let original = original();
    let mut random = Seeded(11);
    let mut cases = Vec::new();
    for file in &original.files {
        let bytes = original.bytes(file);
        for round in 0..10 {
            let from = random.below(bytes.len());
            let to = (from + [7, 64, 512, 4096][round % 4]).min(bytes.len());
            let mut torn = bytes.clone();
            let fill = if round % 2 == 0 { 0 } else { random.next() as u8 };
            torn[from..to].fill(fill);
            cases.push(Case {
                file: file.clone(),
                what: format!("bytes {from}..{to} of {} filled with {fill:02x}", bytes.len()),
                bytes: Some(torn),
            });
        }
        for tail in [vec![0; 40], vec![0xA5; 40]] {
            let what = format!("{:02x} forty times at the end", tail[0]);
            let bytes = Some([bytes.as_slice(), &tail].concat());
            cases.push(Case { file: file.clone(), what, bytes });
        }
    }
    run(&original, &cases);
}

/// Offsets of the physical records of a MANIFEST or write-ahead log.
fn records(bytes: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    for start in (0..bytes.len()).step_by(32 << 10) {
        let end = bytes.len().min(start + (32 << 10));
        let mut at = start;
        while at + 7 <= end {
            found.push(at);
            at += 7 + usize::from(u16::from_le_bytes([bytes[at + 4], bytes[at + 5]]));
        }
    }
    found
}

/// RocksDB does not come back from some of these by itself.
#[test]
fn a_record_of_any_other_type_is_found() {
    let original = original();
    let mut cases = Vec::new();
    for file in &original.files {
        let name = file.to_string_lossy();
        if !name.contains("MANIFEST") && !name.ends_with(".log") {
            continue;
        }
        let bytes = original.bytes(file);
        let found = records(&bytes);
        assert!(found.len() >= 5, "{name}: {found:?}");
        for at in found {
            let written = bytes[at + 6];
            for other in (0..=16).chain([129, 130, 131, 255]).filter(|other| *other != written) {
                let mut changed = bytes.clone();
                changed[at + 6] = other;
                cases.push(Case {
                    file: file.clone(),
                    what: format!("type of the record at {at}: {written} to {other}"),
                    bytes: Some(changed),
                });
            }
        }
    }
    run(&original, &cases);
}

/// The other side: a commit that was never acknowledged may be torn anywhere, and is dropped whole.
#[test]
fn a_torn_commit_that_nobody_was_told_of_is_dropped_whole() {
    let original = original();
    let wal = original.files.iter().find(|file| file.extension() == Some("log".as_ref())).unwrap();
    let whole = original.bytes(wal).len();
    // The same log one epoch later.
    let longer = {
        let again = scratch();
        let path = again.path().join("log");
        let log = RocksLog::open(&path, options(Verify::Tail)).unwrap();
        (0..FLUSHED).for_each(|_| grow(&log));
        log.flush().unwrap();
        (FLUSHED..EPOCHS + 1).for_each(|_| grow(&log));
        drop(log);
        fs::read(path.join(wal)).unwrap()
    };
    assert!(longer.len() > whole);
    assert!(longer[..whole] == original.bytes(wal), "logs of equal epochs have equal bytes");
    let mut random = Seeded(13);
    let mut ends: Vec<usize> =
        (0..40).map(|_| whole + random.below(longer.len() - whole)).collect();
    ends.extend([whole, whole + 1, whole + 6, whole + 7, whole + 8, longer.len() - 1]);
    for end in ends {
        let picture = original.damaged(wal, Some(&longer[..end]), Verify::Full).unwrap();
        assert!(picture == original.picture, "cut at {end}");
    }
    let picture = original.damaged(wal, Some(&longer), Verify::Full).unwrap();
    assert!(picture.len() > original.picture.len());
}
