//! Sudden death: a process that appends under load is killed again and again, and what it was told
//! to be durable is there afterwards, once, whole and in order.
//!
//! The test binary runs itself as the process that dies ([`child`]). Does not know how the log
//! stores anything.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use falaj_event::value::to_array;
use falaj_event::{
    Classification, Column, EventId, LogTime, Op, ProducerId, TopicKind, TopicSchema, Value,
};
use falaj_log::schemas::row_schema;
use falaj_log::{
    AdmitAll, ClockMode, Log, LogError, Ops, Origin, Parts, PiiMode, ReadOptions, Reader, Schemas,
    Sequencer, SystemClock,
};
use falaj_log_rocksdb::{Fsync, Options, RocksLog, Verify};
use falaj_vault::Vault;
use tempfile::TempDir;

const KILLS: u64 = 60;
const PRODUCERS: u8 = 3;
const PARTITIONS: u32 = 4;
/// Where the child works; its presence makes the test binary a child.
const HOME: &str = "FALAJ_CRASH_HOME";
/// What the parent knows to be acknowledged, per producer: `next,next,next`.
const NEXT: &str = "FALAJ_CRASH_NEXT";
/// Whether the child cuts its log while it appends.
const CUT: &str = "FALAJ_CRASH_CUT";
/// How many epochs such a child keeps.
const KEPT_EPOCHS: u64 = 12;

struct Seeded(u64);

impl Seeded {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }
}

fn scratch() -> TempDir {
    let made = tempfile::Builder::new().prefix("falaj-").tempdir_in("/dev/shm");
    made.or_else(|_| tempfile::tempdir()).unwrap()
}

fn column(name: &str, column_type: &str, pii: bool) -> Column {
    Column {
        name: name.to_owned(),
        column_type: column_type.parse().unwrap(),
        nullable: pii,
        pii,
        classification: Classification::default(),
        since_version: 1,
    }
}

fn payments() -> Arc<TopicSchema> {
    Arc::new(TopicSchema {
        name: "payments".to_owned(),
        version: 1,
        kind: TopicKind::Event,
        columns: vec![
            column("customer", "string", false),
            column("paid_at", "timestamp", false),
            column("amount", "int64", false),
            column("card", "string", true),
        ],
        key: vec![0],
        event_time: 1,
        subject: Some(0),
        partitions: PARTITIONS,
        derived: false,
    })
}

fn producer(number: u8) -> ProducerId {
    ProducerId([number; 16])
}

/// The one event that a producer has at a sequence.
fn amount(number: u8, sequence: u64) -> i64 {
    (sequence * 1_000 + u64::from(number)) as i64
}

fn batch(schema: &TopicSchema, number: u8, first: u64, count: u32) -> RecordBatch {
    let rows: Vec<[Value; 4]> = (first..first + u64::from(count))
        .map(|sequence| {
            let customer = format!("c{}", sequence % 17);
            [
                Value::String(customer.as_str().into()),
                Value::Timestamp(1_700_000_000_000_000 + sequence as i64),
                Value::Int(amount(number, sequence)),
                Value::String(format!("4000-{customer}").into()),
            ]
        })
        .collect();
    let columns = schema.columns.iter().enumerate().map(|(index, column)| {
        let values: Vec<Value> = rows.iter().map(|row| row[index].clone()).collect();
        to_array(&column.column_type, &values).unwrap()
    });
    RecordBatch::try_new(row_schema(schema), columns.collect()).unwrap()
}

fn options(verify: Verify) -> Options {
    // A small buffer, so that files are flushed and changed while the process dies.
    let write_buffer_bytes = 256 << 10;
    Options { fsync: Fsync::EachCommit, verify, write_buffer_bytes, block_cache_bytes: 1 << 20 }
}

/// The process that dies: appends until it is killed, and prints what it is told.
#[test]
fn child() {
    let Some(home) = std::env::var_os(HOME) else { return };
    let next: Vec<u64> =
        std::env::var(NEXT).unwrap().split(',').map(|next| next.parse().unwrap()).collect();
    let home = Path::new(&home);
    let vault = Arc::new(Vault::open(&home.join("vault")).unwrap());
    let log = Arc::new(RocksLog::open(&home.join("log"), options(Verify::Tail)).unwrap());
    let parts = Parts {
        log: Arc::clone(&log) as Arc<dyn Log>,
        random: Arc::clone(vault.random()),
        vault,
        admission: Box::new(AdmitAll),
        clock: Arc::new(SystemClock),
    };
    let cut = falaj_log::Options {
        clock: ClockMode::Wall,
        linger_us: 200,
        tick_us: 20_000,
        ..falaj_log::Options::default()
    };
    let sequencer = Sequencer::spawn(cut, parts).unwrap();
    let schema = payments();
    // Nobody may be left running when the parent goes away.
    let deadline = Instant::now() + Duration::from_secs(20);
    std::thread::scope(|scope| {
        if std::env::var_os(CUT).is_some() {
            scope.spawn(|| cut_again_and_again(&*log, deadline));
        }
        for (number, next) in (0..PRODUCERS).zip(next) {
            let (sequencer, schema) = (&sequencer, &schema);
            scope.spawn(move || {
                let mut first = next;
                let mut random = Seeded(first + u64::from(number));
                while Instant::now() < deadline {
                    let count = 1 + random.below(6) as u32;
                    let origin = Origin::Producer {
                        producer: producer(number),
                        first_sequence: first,
                        sequences: count,
                    };
                    let rows = batch(schema, number, first, count);
                    let ack = sequencer.append(schema, origin, Ops::All(Op::Insert), rows).unwrap();
                    assert_eq!(ack.accepted, count);
                    let line = format!("{number} {first} {count} {} {}\n", ack.epoch, ack.t);
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                    first += u64::from(count);
                }
            });
        }
    });
}

fn cut_again_and_again(log: &dyn Log, deadline: Instant) {
    while Instant::now() < deadline {
        let newest = log.tail().map_or(0, |tail| tail.record.epoch);
        let kept = log.cut(payments().id(), newest.saturating_sub(KEPT_EPOCHS)).unwrap();
        std::io::stdout().lock().write_all(format!("cut {kept}\n").as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What the parent heard: the epoch and `T` of a batch's last event.
#[derive(Clone, Copy)]
struct Told {
    count: u32,
    epoch: u64,
    t: LogTime,
}

#[derive(Default)]
struct Heard {
    /// Per (producer, first sequence).
    batches: BTreeMap<(u8, u64), Told>,
    next: [u64; PRODUCERS as usize],
    /// The first epoch that is kept.
    cut: u64,
}

impl Heard {
    fn line(&mut self, line: &str) {
        if let Some(kept) = line.strip_prefix("cut ").and_then(|kept| kept.parse().ok()) {
            self.cut = self.cut.max(kept);
            return;
        }
        let fields: Vec<u64> = line.split(' ').map_while(|field| field.parse().ok()).collect();
        // Lines of the test harness, and a line that death cut short, are not acknowledgements.
        let [number, first, count, epoch, t] = fields[..] else { return };
        let number = number as u8;
        let told = Told { count: count as u32, epoch, t: LogTime(t) };
        self.batches.insert((number, first), told);
        self.next[usize::from(number)] = first + count;
    }
}

/// Runs a child and kills it `delay` after its first acknowledgement, or after its start.
fn run_and_kill(home: &Path, heard: &mut Heard, delay: Duration, from_start: bool, cut: bool) {
    let next: Vec<String> = heard.next.iter().map(u64::to_string).collect();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .envs(cut.then_some((CUT, "1")))
        .args(["crash::child", "--exact", "--nocapture", "--test-threads=1"])
        .env(HOME, home)
        .env(NEXT, next.join(","))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let (told, first_told) = channel();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        loop {
            let before = text.len();
            if lines.read_until(b'\n', &mut text).unwrap() == 0 {
                return text;
            }
            if text[before..].first().is_some_and(u8::is_ascii_digit) {
                let _ = told.send(());
            }
        }
    });
    let started = Instant::now();
    if !from_start {
        // Ends at once when the child does.
        let _ = first_told.recv_timeout(Duration::from_secs(15));
    }
    std::thread::sleep(delay);
    // SIGKILL: nothing of the process runs any more.
    child.kill().unwrap();
    let status = child.wait().unwrap();
    let text = reader.join().unwrap();
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(
        status.code().is_none(),
        "the child ended by itself after {:?}: {errors}",
        started.elapsed()
    );
    let text = String::from_utf8(text).unwrap();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().for_each(|line| heard.line(line));
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

/// Reads the whole log and holds it against what was heard. Returns epochs and events.
fn check(home: &Path, heard: &Heard, verify: Verify) -> (u64, u64) {
    let vault = Arc::new(Vault::open(&home.join("vault")).unwrap());
    let log = Arc::new(RocksLog::open(&home.join("log"), options(verify)).unwrap());
    let schemas = Arc::new(Schemas::from_iter([payments()]));
    // Opening every personal value takes most of the time; done where everything is verified.
    let opened = verify == Verify::Full;
    let pii = if opened { PiiMode::Plain } else { PiiMode::Sealed };
    let reading = ReadOptions { pii, verify: true, ..ReadOptions::default() };
    let reader = Reader::new(Arc::clone(&log) as Arc<dyn Log>, vault, schemas, reading);
    let mut ends: HashMap<u32, u64> = HashMap::new();
    // (producer, sequence) to the epoch that carries it.
    let mut found: BTreeMap<(u8, u64), u64> = BTreeMap::new();
    let mut times = Vec::new();
    for (number, epoch) in reader.epochs(0).enumerate() {
        let epoch = epoch.unwrap();
        assert_eq!(epoch.record().epoch, number as u64);
        reader.verify_epoch(number as u64).unwrap();
        times.push(epoch.record().t);
        for part in &epoch.topics {
            let end = ends.entry(part.partition).or_default();
            assert_eq!(part.first_offset, *end, "offsets of partition {}", part.partition);
            *end += part.len() as u64;
            let amounts = part.batch.column(2).as_primitive::<Int64Type>();
            let (customers, cards) = (part.batch.column(0), part.batch.column(3));
            for row in 0..part.len() {
                let Some(EventId::Producer { producer, sequence }) = part.event_id(row) else {
                    panic!("an event without a producer");
                };
                let number = producer.0[0];
                assert_eq!(amounts.value(row), amount(number, sequence));
                if opened {
                    let card = cards.as_string::<i32>().value(row);
                    let customer = customers.as_string::<i32>().value(row);
                    assert_eq!(card, format!("4000-{customer}"));
                }
                let twice = found.insert((number, sequence), epoch.record().epoch);
                assert_eq!(twice, None, "{number} {sequence} is there twice");
            }
        }
    }
    for partition in 0..PARTITIONS {
        let end = ends.get(&partition).copied().unwrap_or(0);
        assert_eq!(log.next_offset(payments().id(), partition), end);
    }
    for ((number, first), told) in &heard.batches {
        let last = first + u64::from(told.count) - 1;
        for sequence in *first..=last {
            assert!(found.contains_key(&(*number, sequence)), "{number} {sequence} is lost");
        }
        assert_eq!(found[&(*number, last)], told.epoch, "{number} {last} is elsewhere");
        assert_eq!(times[told.epoch as usize], told.t);
    }
    // A producer's sequences have no gaps: a batch is in the log whole or not at all.
    for number in 0..PRODUCERS {
        let sequences: BTreeSet<u64> = found
            .range((number, 0)..=(number, u64::MAX))
            .map(|((_, sequence), _)| *sequence)
            .collect();
        let last = log.last_sequence(producer(number)).unwrap();
        assert_eq!(sequences.last().copied(), last);
        assert_eq!(sequences.len() as u64, last.map_or(0, |last| last + 1));
    }
    (times.len() as u64, found.len() as u64)
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let seed = std::env::var("FALAJ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(42);
    println!("seed {seed} (set FALAJ_SEED for another)");
    let mut random = Seeded(seed);
    let home = scratch();
    let mut heard = Heard::default();
    let mut end = (0, 0);
    for kill in 1..=KILLS {
        // One in four dies early: while it opens what the one before it left.
        let early = kill > 1 && random.below(4) == 0;
        let delay = Duration::from_micros(random.below(if early { 60_000 } else { 120_000 }));
        run_and_kill(home.path(), &mut heard, delay, early, false);
        // On a copy: the next child finds what the killed one left, not what a check tidied up.
        let copied = scratch();
        copy(home.path(), copied.path());
        let verify = if kill % 10 == 0 { Verify::Full } else { Verify::Tail };
        end = check(copied.path(), &heard, verify);
    }
    let acknowledged: u64 = heard.batches.values().map(|told| u64::from(told.count)).sum();
    println!(
        "{KILLS} kills: {} epochs, {} events, {acknowledged} of them acknowledged",
        end.0, end.1
    );
    assert!(acknowledged > 1_000, "only {acknowledged} events were acknowledged: no load");
}

/// Opens a log whose cuts were interrupted, everything verified, and holds it against what was heard.
/// Returns the first epoch that is kept, and how many there are.
fn check_cut(home: &Path, heard: &Heard) -> (u64, u64) {
    let vault = Arc::new(Vault::open(&home.join("vault")).unwrap());
    let log = Arc::new(RocksLog::open(&home.join("log"), options(Verify::Full)).unwrap());
    let topic = payments().id();
    let first_kept = log.first_kept(topic);
    assert!(first_kept >= heard.cut, "a cut below {} was told, {first_kept} is kept", heard.cut);
    let epochs = log.tail().unwrap().record.epoch + 1;
    assert!(first_kept < epochs);
    let schemas = Arc::new(Schemas::from_iter([payments()]));
    let reading = ReadOptions { verify: true, skip_cut: true, ..ReadOptions::default() };
    let reader = Reader::new(Arc::clone(&log) as Arc<dyn Log>, vault, schemas, reading);
    for epoch in 0..epochs {
        reader.verify_epoch(epoch).unwrap();
        let entry = log.entry(epoch).unwrap().unwrap();
        assert_eq!(entry.record.epoch, epoch);
        for part in &entry.partitions {
            let block = log.block(topic, part.partition, part.blocks[0]);
            match block {
                Ok(_) => assert!(epoch >= first_kept),
                Err(LogError::Cut { first_kept: told, .. }) => {
                    assert!(epoch < first_kept && told == first_kept);
                }
                Err(other) => panic!("epoch {epoch}: {other}"),
            }
        }
    }
    for ((number, first), told) in &heard.batches {
        let last = first + u64::from(told.count) - 1;
        let found = log.producer(producer(*number), last).unwrap().unwrap();
        assert_eq!((found.epoch, found.t), (told.epoch, told.t), "{number} {last}");
    }
    (first_kept, epochs)
}

#[test]
fn a_cut_that_is_killed_holds_whole_or_not_at_all() {
    let seed = std::env::var("FALAJ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(42);
    println!("seed {seed} (set FALAJ_SEED for another)");
    let mut random = Seeded(seed ^ 0xC07);
    let home = scratch();
    let mut heard = Heard::default();
    let mut end = (0, 0);
    for _ in 0..KILLS / 3 {
        let delay = Duration::from_micros(random.below(120_000));
        run_and_kill(home.path(), &mut heard, delay, false, true);
        let copied = scratch();
        copy(home.path(), copied.path());
        end = check_cut(copied.path(), &heard);
    }
    println!("{} kills: {} of {} epochs cut, {} of them told", KILLS / 3, end.0, end.1, heard.cut);
    assert!(heard.cut > 50, "only {} epochs were cut: no load", heard.cut);
}
