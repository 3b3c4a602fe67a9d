//! Parts of the cluster die, stop, lose their connections or their disk while events are produced.
//! What was acknowledged is there, once; errors say which part, which address, and what to do.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use falaj_log_fluvio::{FluvioLog, Options};

use crate::local::{Local, options};
use crate::proxy::Proxy;
use crate::workload::{Book, Running, check};

/// Produces until `done`, while `disturb` does its worst; then a little more.
fn under(local: &mut Local, options: &Options, disturb: impl FnOnce(&mut Local)) -> Book {
    let mut book = Book::default();
    let mut running = Running::start(options);
    book.produce(&mut running, options, 20, 3);
    let done = AtomicBool::new(false);
    let book = Mutex::new(book);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                book.lock().unwrap().produce(&mut running, options, 1, 3);
            }
            book.lock().unwrap().produce(&mut running, options, 20, 3);
        });
        disturb(local);
        done.store(true, Ordering::SeqCst);
    });
    book.into_inner().unwrap()
}

fn pause(seconds: f64) {
    std::thread::sleep(Duration::from_secs_f64(seconds));
}

#[test]
fn the_controller_dies() {
    let Some(mut local) = Local::start() else { return };
    let options = options(&local.controller());
    let book = under(&mut local, &options, |local| {
        pause(0.3);
        local.kill_sc();
        pause(3.0);
        let mut impatient = options.clone();
        impatient.patience = Duration::from_secs(2);
        let text = FluvioLog::open(impatient).err().unwrap().to_string();
        assert!(text.contains("controller") && text.contains(&local.controller()), "{text}");
        local.start_sc();
        pause(2.0);
    });
    // An SPU may take a minute or more to find a controller again that was away.
    let patient = Options { patience: Duration::from_secs(240), ..options };
    check(&book, &patient);
}

#[test]
fn the_spu_dies() {
    let Some(mut local) = Local::start() else { return };
    let options = options(&local.controller());
    let book = under(&mut local, &options, |local| {
        for _ in 0..3 {
            pause(1.0);
            local.kill_spu();
            pause(1.0);
            local.start_spu();
        }
        pause(3.0);
    });
    check(&book, &options);
}

#[test]
fn everything_dies() {
    let Some(mut local) = Local::start() else { return };
    let options = options(&local.controller());
    let book = under(&mut local, &options, |local| {
        pause(0.5);
        local.kill_spu();
        local.kill_sc();
        pause(1.0);
        local.start_sc();
        local.start_spu();
        pause(2.0);
    });
    check(&book, &options);
}

#[test]
fn the_spu_is_paused() {
    let Some(mut local) = Local::start() else { return };
    let options = options(&local.controller());
    let book = under(&mut local, &options, |local| {
        // Shorter and longer than one attempt.
        for seconds in [0.5, 3.0, 13.0] {
            local.signal_spu("-STOP");
            pause(seconds);
            local.signal_spu("-CONT");
            pause(1.0);
        }
    });
    check(&book, &options);
}

#[test]
fn patience_ends_with_a_name_and_an_address() {
    let Some(local) = Local::start() else { return };
    let mut options = options(&local.controller());
    options.patience = Duration::from_secs(4);
    let running = Running::start(&options);
    running.produce(0, 3).unwrap();
    local.signal_spu("-STOP");
    let started = Instant::now();
    let text = running.produce(3, 3).unwrap_err().to_string();
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    let spu = format!("127.0.0.1:{}", local.ports.spu_public);
    for part in ["payments-log", &spu, &local.controller(), "5001", "fluvio-run spu"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    local.signal_spu("-CONT");
    options.patience = Duration::from_secs(60);
    // The fate of the second batch was unknown; it is settled by producing it again.
    let mut book = Book { acknowledged: (0..3).collect(), next: 3 };
    drop(running);
    let mut running = Running::start(&options);
    book.produce(&mut running, &options, 5, 3);
    check(&book, &options);
}

#[test]
fn connections_are_cut() {
    let to_spu = Arc::new(Mutex::new(0));
    let front = Proxy::start(Arc::clone(&to_spu));
    let Some(mut local) = Local::start_with(None, Some(front.port)) else { return };
    *to_spu.lock().unwrap() = local.ports.spu_public;
    let controller = Proxy::start(Arc::new(Mutex::new(local.ports.sc_public)));
    let options = options(&format!("127.0.0.1:{}", controller.port));
    let book = under(&mut local, &options, |_| {
        for round in 0..12 {
            pause(0.2 + 0.07 * f64::from(round));
            front.cut();
            if round % 3 == 0 {
                controller.cut();
            }
        }
        front.refuse(true);
        pause(3.0);
        front.refuse(false);
        controller.refuse(true);
        front.cut();
        pause(2.0);
        controller.refuse(false);
    });
    assert!(front.carried.load(Ordering::SeqCst) > 12, "the proxy was in between");
    check(&book, &options);
}

struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(megabytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .status()
            .is_ok_and(|status| status.success());
        if !mounted {
            println!("skipped: a small disk cannot be mounted here");
        }
        mounted.then(|| Self(dir))
    }

    fn grow(&self, megabytes: u32) {
        let size = format!("remount,size={megabytes}m");
        let path: &Path = self.0.path();
        assert!(Command::new("mount").args(["-o", &size]).arg(path).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn the_disk_is_full() {
    // An SPU maps an index of 10 MiB per partition at once.
    let Some(disk) = SmallDisk::mount(160) else { return };
    let Some(mut local) = Local::start_with(Some(disk.0.path()), None) else { return };
    let options = options(&local.controller());
    let mut book = Book::default();
    let running = Running::start(&options);
    let ballast = disk.0.path().join("ballast");
    let mut size = 0;
    let text = loop {
        match running.produce(book.next, 2_000) {
            Ok(_) => {
                book.acknowledged.extend(book.next..book.next + 2_000);
                book.next += 2_000;
            }
            Err(error) => break error.to_string(),
        }
        size += 4 << 20;
        let _ = std::fs::write(&ballast, vec![1; size]);
        assert!(book.next < 2_000_000, "the disk does not fill");
    };
    for part in ["full", "127.0.0.1", "5001", "restart"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    drop(running);
    std::fs::remove_file(&ballast).unwrap();
    disk.grow(400);
    local.kill_spu();
    local.start_spu();
    let mut running = Running::start(&options);
    book.produce(&mut running, &options, 5, 3);
    drop(running);
    check(&book, &options);
    drop(local);
}
