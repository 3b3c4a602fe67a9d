//! Clocks and memory, read from `/proc`: processor time, resident memory, load; and latencies.
//!
//! Processor time is what a shared machine cannot distort much; wall time it can, so every report
//! states the load. Does not know what runs meanwhile.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

/// Processor time by name of thread, digits and what follows them cut off; as [`processor_time`].
///
/// # Errors
/// Where `/proc` does not say.
pub fn processor_time_by_thread() -> Result<BTreeMap<String, Duration>> {
    let mut times = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task").context("listing this process's threads")? {
        let task = task?.path();
        // A thread may end between the listing and the reading.
        let Ok(name) = std::fs::read_to_string(task.join("comm")) else { continue };
        let Ok(text) = std::fs::read_to_string(task.join("schedstat")) else { continue };
        let first = text.split_whitespace().next().context("an empty schedstat")?;
        let name = name.trim().trim_end_matches(|c: char| c.is_ascii_digit() || c == ':');
        *times.entry(name.to_owned()).or_default() += Duration::from_nanos(first.parse()?);
    }
    Ok(times)
}

/// What each thread did between two readings of [`processor_time_by_thread`]: its part of the whole,
/// the greatest first, in words.
pub fn parts(before: &BTreeMap<String, Duration>, after: &BTreeMap<String, Duration>) -> String {
    let spent = |(name, time): (&String, &Duration)| {
        (name.clone(), time.saturating_sub(before.get(name).copied().unwrap_or_default()))
    };
    let mut spent: Vec<(String, Duration)> = after.iter().map(spent).collect();
    let all: f64 = spent.iter().map(|(_, time)| time.as_secs_f64()).sum();
    spent.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    let part = |(name, time): &(String, Duration)| {
        format!("{name} {:.0} %", time.as_secs_f64() / all * 100.0)
    };
    spent.iter().take(5).map(part).collect::<Vec<_>>().join(", ")
}

/// Processor time of all threads that live now, from `/proc/self/task/*/schedstat` (nanoseconds; a
/// thread that is running just now is counted up to the last scheduler tick). Threads that have
/// ended are missing: subtract two readings between which none ends.
///
/// # Errors
/// Where `/proc` does not say.
pub fn processor_time() -> Result<Duration> {
    Ok(processor_time_by_thread()?.values().sum())
}

/// Measures the processor time of some threads lap by lap.
pub struct Stopwatch {
    threads: Vec<PathBuf>,
    last: Duration,
}

impl Stopwatch {
    /// Of the threads that live now and whose name `wanted` accepts, the calling one among them.
    ///
    /// # Errors
    /// Where `/proc` does not say.
    pub fn of_threads(wanted: impl Fn(&str) -> bool) -> Result<Self> {
        let mut threads = Vec::new();
        for task in
            std::fs::read_dir("/proc/self/task").context("listing this process's threads")?
        {
            let task = task?.path();
            if std::fs::read_to_string(task.join("comm")).is_ok_and(|name| wanted(name.trim())) {
                threads.push(task.join("schedstat"));
            }
        }
        let mut stopwatch = Self { threads, last: Duration::ZERO };
        stopwatch.lap()?;
        Ok(stopwatch)
    }

    /// The time since the lap before.
    ///
    /// # Errors
    /// Where `/proc` does not say, or a thread has ended.
    pub fn lap(&mut self) -> Result<Duration> {
        // A thread's time is brought up to date when it gives its turn away.
        std::thread::yield_now();
        let mut now = Duration::ZERO;
        for thread in &self.threads {
            let text = std::fs::read_to_string(thread)?;
            let first = text.split_whitespace().next().context("an empty schedstat")?;
            now += Duration::from_nanos(first.parse()?);
        }
        let lap = now.saturating_sub(self.last);
        self.last = now;
        Ok(lap)
    }
}

/// Bytes of memory that this process has resident.
///
/// # Errors
/// Where `/proc` does not say.
pub fn resident_bytes() -> Result<u64> {
    status_bytes("VmRSS:")
}

/// The most that was ever resident, in bytes.
///
/// # Errors
/// Where `/proc` does not say.
pub fn peak_resident_bytes() -> Result<u64> {
    status_bytes("VmHWM:")
}

fn status_bytes(name: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(name));
    let kibibytes = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kibibytes.with_context(|| format!("{name} in /proc/self/status"))?.parse::<u64>()? << 10)
}

/// Runnable threads of the whole machine over the last minute.
pub fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(f64::NAN)
}

/// The middle one of some figures; NaN of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Durations, kept in nanoseconds with three digits.
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet.
    ///
    /// # Errors
    /// Never: three digits are supported.
    pub fn new() -> Result<Self> {
        Ok(Self(Histogram::new(3)?))
    }

    /// Adds one.
    pub fn record(&mut self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).max(1);
        // Saturating would clamp to the histogram's present range instead of growing it; growing
        // fails only where memory ends.
        let _ = self.0.record(nanoseconds);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The duration that this part of them does not exceed, in seconds.
    pub fn at(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e9
    }

    /// The longest, in seconds.
    pub fn longest(&self) -> f64 {
        self.0.max() as f64 / 1e9
    }
}
