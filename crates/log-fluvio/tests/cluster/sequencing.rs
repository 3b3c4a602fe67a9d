//! Sequencers on one cluster: one is active, a new one continues, a crash shows nothing half done.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use falaj_log::{BlockId, Log, LogError, StagedBlock, SubmitError};
use falaj_log_fluvio::{FluvioLog, Options, remove};

use crate::local::{given, options};
use crate::workload::{Book, Running, check, held, payments, produce, reader, sequencer};

/// Tells a child of this program where to produce: controller, deployment, first sequence.
const CHILD: &str = "FALAJ_TEST_SEQUENCER";

#[test]
fn a_new_sequencer_continues_and_the_old_one_is_harmless() {
    let Some(controller) = given() else { return };
    let options = options(&controller);
    let old = Running::start(&options);
    old.produce(0, 10).unwrap();
    let acknowledged = old.produce(10, 10).unwrap();
    assert_eq!(acknowledged.epoch, 1);

    let new = Running::start(&options);
    assert!(new.term > old.term);
    let again = new.produce(10, 10).unwrap();
    assert_eq!((again.epoch, again.t, again.accepted), (1, acknowledged.t, 10), "a retry");
    let error = old.produce(20, 10).unwrap_err();
    let SubmitError::Poisoned { reason } = &error else { panic!("{error}") };
    assert!(reason.contains("fenced off") && reason.contains(&new.term.to_string()), "{reason}");
    assert_eq!(new.produce(20, 5).unwrap().epoch, 2);

    let log: Arc<dyn Log> = Arc::new(FluvioLog::open(options.clone()).unwrap());
    let mut all = held(&log);
    all.sort_unstable();
    assert_eq!(all, (0..25).collect::<Vec<_>>());
    assert_eq!(log.tail().unwrap().record.term, new.term);
    drop((log, old, new));
    remove(&options).unwrap();
}

#[test]
fn of_two_that_use_one_term_one_counts() {
    let Some(controller) = given() else { return };
    let options = options(&controller);
    let open = || Arc::new(FluvioLog::open(options.clone()).unwrap());
    let (left, right) = (open(), open());
    // Neither has claimed the log: the worst that two careless processes can do.
    let sequencers = [Arc::clone(&left), right].map(|log| sequencer(log as Arc<dyn Log>, 1));
    let acknowledged: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let threads = sequencers.each_ref().map(|sequencer| {
            scope.spawn(move || {
                (0..40).take_while(|at| produce(sequencer, *at, 1).is_ok()).collect::<Vec<u64>>()
            })
        });
        threads.map(|thread| thread.join().unwrap()).into()
    });
    let stopped = sequencers.iter().filter(|sequencer| sequencer.stopped().is_some()).count();
    assert!(stopped <= 1, "one of them goes on");
    let log: Arc<dyn Log> = open();
    let held = held(&log);
    let distinct: std::collections::BTreeSet<u64> = held.iter().copied().collect();
    assert_eq!(held.len(), distinct.len(), "nothing twice");
    assert!(acknowledged.iter().flatten().all(|sequence| distinct.contains(sequence)));
    drop((log, left, sequencers));
    remove(&options).unwrap();
}

#[test]
fn claims_at_one_moment_give_different_terms() {
    let Some(controller) = given() else { return };
    let options = options(&controller);
    drop(FluvioLog::open(options.clone()).unwrap());
    let mut terms: Vec<u64> = std::thread::scope(|scope| {
        let claim = || FluvioLog::open(options.clone()).unwrap().take_over().unwrap();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(claim)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    terms.sort_unstable();
    terms.dedup();
    assert_eq!(terms.len(), 4, "{terms:?}");
    remove(&options).unwrap();
}

#[test]
fn a_block_that_no_record_names_is_never_visible() {
    let Some(controller) = given() else { return };
    let options = options(&controller);
    let topic = payments().id();
    let orphan = |id: u8| StagedBlock {
        topic,
        partition: 0,
        id: BlockId([id; 16]),
        bytes: b"nobody names me"[..].into(),
    };
    let first = Running::start(&options);
    first.produce(0, 5).unwrap();
    // What a crash between append and record leaves behind.
    first.log.append(vec![orphan(1), orphan(2)]).unwrap();
    drop(first);
    let second = Running::start(&options);
    second.log.append(vec![orphan(3)]).unwrap();
    second.produce(5, 5).unwrap();
    let third = Running::start(&options);
    for id in 1..=3 {
        let missing = third.log.block(topic, 0, BlockId([id; 16]));
        assert!(matches!(missing, Err(LogError::MissingBlock { .. })));
    }
    third.produce(10, 5).unwrap();
    let log: Arc<dyn Log> = Arc::clone(&third.log) as Arc<dyn Log>;
    let mut all = held(&log);
    all.sort_unstable();
    assert_eq!(all, (0..15).collect::<Vec<_>>());
    drop((log, third, second));
    remove(&options).unwrap();
}

#[test]
fn old_blocks_and_entries_are_read_from_the_cluster() {
    let Some(controller) = given() else { return };
    let mut options = options(&controller);
    let running = Running::start(&options);
    let mut book = Book::default();
    let mut same = running;
    // More than the newest entries that a handle keeps.
    book.produce(&mut same, &options, 1_100, 1);
    drop(same);
    options.cache_bytes = 1 << 10;
    let log: Arc<dyn Log> = Arc::new(FluvioLog::open(options.clone()).unwrap());
    let reader = reader(Arc::clone(&log));
    // Against the grain: each read is a jump.
    for epoch in (0..1_100).rev().step_by(97) {
        assert_eq!(reader.epoch(epoch).unwrap().unwrap().record().epoch, epoch);
    }
    assert_eq!(held(&log).len(), 1_100);
    drop((reader, log));
    remove(&options).unwrap();
}

#[test]
fn a_cluster_that_lost_the_log_is_refused() {
    let Some(controller) = given() else { return };
    let mut options = options(&controller);
    let dir = tempfile::tempdir().unwrap();
    options.remember_in = Some(dir.path().join("acknowledged"));
    let running = Running::start(&options);
    running.produce(0, 5).unwrap();
    running.produce(5, 5).unwrap();
    drop(running);
    drop(FluvioLog::open(options.clone()).unwrap());

    remove(&options).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let error = FluvioLog::open(options.clone()).err().unwrap();
    assert!(matches!(error, LogError::Truncated { acknowledged: 1, .. }), "{error}");
    let other = Options { remember_in: None, ..options.clone() };
    let running = Running::start(&other);
    for at in 0..3 {
        running.produce(at * 7, 7).unwrap();
    }
    drop(running);
    let error = FluvioLog::open(options.clone()).err().unwrap();
    assert!(error.to_string().contains("another log"), "{error}");
    remove(&options).unwrap();
}

/// Not a test: the sequencer that `kill -9` meets. Produces batches of three and prints what was
/// acknowledged.
#[test]
#[ignore = "a child of the next test"]
fn child_sequencer() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let mut told = told.split(' ');
    let mut options = options(told.next().unwrap());
    options.deployment = told.next().unwrap().to_owned();
    let mut next: u64 = told.next().unwrap().parse().unwrap();
    let running = Running::start(&options);
    loop {
        running.produce(next, 3).unwrap();
        next += 3;
        println!("acknowledged {next}");
    }
}

#[test]
fn a_killed_sequencer_loses_and_repeats_nothing() {
    let Some(controller) = given() else { return };
    let options = options(&controller);
    let mut book = Book::default();
    for life in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sequencing::child_sequencer", "--ignored", "--nocapture"])
            .env(CHILD, format!("{controller} {} {}", options.deployment, book.next))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let numbers = lines.map_while(Result::ok).filter_map(|line| {
            line.rsplit_once("acknowledged ").and_then(|(_, next)| next.parse::<u64>().ok())
        });
        let wanted = book.next + 30 + life * 7;
        let started = Instant::now();
        let mut killed = false;
        for next in numbers {
            book.acknowledged.extend(book.next..next);
            book.next = next;
            if next > wanted && !killed {
                child.kill().unwrap();
                killed = true;
            }
            assert!(started.elapsed() < Duration::from_secs(120));
        }
        child.wait().unwrap();
        assert!(killed, "the child ended by itself");
        check(&book, &options);
    }
    remove(&options).unwrap();
}
