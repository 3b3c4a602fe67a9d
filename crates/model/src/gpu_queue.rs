//! One GPU, many runs: whoever has the greatest priority, and of those who has waited longest, is
//! next.
//!
//! The decision is a pure function of the tickets; the rest is files in a folder that all runs share.
//! A ticket is locked by its owner as long as it lives, so that the tickets of dead runs are known by
//! their being free, whatever process or host they died on. Does not know what a run computes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A run that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Greater is sooner.
    pub priority: u32,
    /// When it began to wait, in microseconds.
    pub since_us: u64,
    /// Tells runs apart.
    pub run: String,
}

/// Who is next: the greatest priority, then the longest wait, then the name.
pub fn next(tickets: &[Ticket]) -> Option<&Ticket> {
    tickets.iter().min_by_key(|ticket| {
        (std::cmp::Reverse(ticket.priority), ticket.since_us, ticket.run.as_str())
    })
}

/// Why nothing is waited for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The name of a run cannot name a file.
    #[error("`{run}` cannot name a run: letters, digits, `-` and `_` can")]
    Name {
        /// The name.
        run: String,
    },
    /// The wait was given up.
    #[error("the wait for the GPU was given up")]
    GivenUp,
    /// The folder cannot be used.
    #[error("{path}: {why}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> QueueError + use<> {
    let path = path.to_owned();
    move |error| QueueError::Io { path: path.clone(), why: error.to_string() }
}

const SUFFIX: &str = ".ticket";
const PAUSE: Duration = Duration::from_millis(50);

impl Ticket {
    fn file_name(&self) -> Result<String, QueueError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.run.is_empty() || self.run.len() > 128 || !self.run.chars().all(plain) {
            return Err(QueueError::Name { run: self.run.clone() });
        }
        Ok(format!("{}.{}.{}{SUFFIX}", self.priority, self.since_us, self.run))
    }

    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(SUFFIX)?.splitn(3, '.');
        let priority = parts.next()?.parse().ok()?;
        let since_us = parts.next()?.parse().ok()?;
        Some(Self { priority, since_us, run: parts.next()?.to_owned() })
    }
}

/// The use of the GPU; others wait until it is dropped.
#[derive(Debug)]
pub struct Turn {
    _gpu: File,
}

/// A ticket that is locked, and removed when its owner is done waiting.
struct Held {
    path: PathBuf,
    _file: File,
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Waits in `folder` until it is `ticket`'s turn. `keep_waiting` is asked every 50 ms, with the number
/// of runs before this one.
///
/// # Errors
/// [`QueueError`].
pub fn wait(
    folder: &Path,
    ticket: &Ticket,
    keep_waiting: &mut dyn FnMut(usize) -> bool,
) -> Result<Turn, QueueError> {
    fs::create_dir_all(folder).map_err(io(folder))?;
    let path = folder.join(ticket.file_name()?);
    // Locked before it has its name: a ticket without a lock is a dead run's.
    let beside = folder.join(format!("{}.new", ticket.run));
    let mut file = OpenOptions::new();
    let mut file =
        file.write(true).create(true).truncate(true).open(&beside).map_err(io(&beside))?;
    file.lock().map_err(io(&beside))?;
    writeln!(file, "{}", std::process::id()).map_err(io(&beside))?;
    fs::rename(&beside, &path).map_err(io(&path))?;
    let held = Held { path, _file: file };
    let lock = folder.join("gpu.lock");
    let gpu = OpenOptions::new().write(true).create(true).truncate(false).open(&lock);
    let gpu = gpu.map_err(io(&lock))?;
    loop {
        let waiting = living(folder, ticket)?;
        if next(&waiting) == Some(ticket) {
            match gpu.try_lock() {
                Ok(()) => {
                    drop(held);
                    return Ok(Turn { _gpu: gpu });
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(io(&lock)(error)),
            }
        }
        let before = |other: &&Ticket| {
            *other != ticket && next(&[(*other).clone(), ticket.clone()]) != Some(ticket)
        };
        if !keep_waiting(waiting.iter().filter(before).count()) {
            return Err(QueueError::GivenUp);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Tickets whose owners live; those of the dead are removed.
fn living(folder: &Path, own: &Ticket) -> Result<Vec<Ticket>, QueueError> {
    let mut tickets = vec![own.clone()];
    for entry in fs::read_dir(folder).map_err(io(folder))?.flatten() {
        let name = entry.file_name();
        let Some(ticket) = name.to_str().and_then(Ticket::parse) else { continue };
        if ticket == *own {
            continue;
        }
        // A ticket that can be locked has no owner any more.
        let Ok(file) = OpenOptions::new().write(true).open(entry.path()) else { continue };
        match file.try_lock() {
            Ok(()) => {
                let _ = fs::remove_file(entry.path());
            }
            Err(_) => tickets.push(ticket),
        }
    }
    Ok(tickets)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn ticket(priority: u32, since_us: u64, run: &str) -> Ticket {
        Ticket { priority, since_us, run: run.to_owned() }
    }

    #[test]
    fn priority_goes_before_waiting() {
        let tickets = [ticket(1, 5, "a"), ticket(2, 9, "b"), ticket(2, 7, "c"), ticket(2, 7, "d")];
        assert_eq!(next(&tickets).map(|ticket| ticket.run.as_str()), Some("c"));
        assert_eq!(next(&[]), None);
    }

    #[test]
    fn turns_are_taken_in_order_and_never_shared() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = wait(folder.path(), &ticket(0, 0, "first"), &mut |_| true).expect("a turn");
        let order = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for (priority, since, run) in [(1, 3, "low"), (5, 9, "high"), (1, 1, "patient")] {
                let (folder, order) = (folder.path(), &order);
                scope.spawn(move || {
                    let own = ticket(priority, since, run);
                    let turn = wait(folder, &own, &mut |_| true).expect("a turn");
                    order.lock().expect("a lock").push(run);
                    drop(turn);
                });
            }
            let tickets = || fs::read_dir(folder.path()).expect("a folder").count();
            while tickets() < 4 {
                std::thread::sleep(PAUSE);
            }
            std::thread::sleep(PAUSE * 4);
            assert!(order.lock().expect("a lock").is_empty());
            drop(first);
        });
        assert_eq!(order.into_inner().expect("a lock"), ["high", "patient", "low"]);
    }

    #[test]
    fn the_dead_do_not_wait_and_the_living_may_give_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let dead = folder.path().join("9.0.dead.ticket");
        fs::write(&dead, "1").expect("a file");
        let turn = wait(folder.path(), &ticket(1, 1, "a"), &mut |_| true).expect("a turn");
        assert!(!dead.exists());
        let mut asked = Vec::new();
        let given_up = wait(folder.path(), &ticket(1, 2, "b"), &mut |before| {
            asked.push(before);
            asked.len() < 2
        });
        assert_eq!(given_up.err(), Some(QueueError::GivenUp));
        assert_eq!(asked, [0, 0]);
        drop(turn);
        let named = wait(folder.path(), &ticket(1, 2, "../b"), &mut |_| true);
        assert!(matches!(named, Err(QueueError::Name { .. })));
    }
}
