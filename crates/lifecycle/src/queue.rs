//! The queue of training runs: which run starts next, on what.
//!
//! Pure: queue, running runs, free slots and now in; starts out. Does not start anything, and does
//! not know what a GPU is beyond its free memory.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use falaj_event::LogTime;
use serde::{Deserialize, Serialize};

/// What a run needs of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunNeeds {
    /// Whether it runs on the GPU.
    pub gpu: bool,
    /// GPU memory in bytes that it needs at its least batch size.
    pub gpu_bytes: u64,
}

/// A run that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedRun {
    /// Its name.
    pub run: String,
    /// Its pipeline; one run per pipeline at a time.
    pub pipeline: String,
    /// More is more urgent.
    pub priority: i32,
    /// Since when it waits.
    pub queued_at: LogTime,
    /// What it needs.
    pub needs: RunNeeds,
}

/// A run at work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningRun {
    /// Its pipeline.
    pub pipeline: String,
    /// Whether it holds a GPU slot.
    pub gpu: bool,
}

/// What the machine has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// Runs that may use the CPU at once.
    pub cpu: u32,
    /// Runs that may use the GPU at once; 0 without one.
    pub gpu: u32,
    /// Free GPU memory in bytes.
    pub gpu_free_bytes: u64,
    /// Waiting this long, in microseconds of `T`, is worth one step of priority, so that nothing
    /// waits for ever; 0 turns it off.
    pub ageing_us: u64,
}

/// A run that starts now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The run.
    pub run: String,
    /// Whether it gets a GPU slot.
    pub gpu: bool,
}

/// The runs that start now, in order.
///
/// The order is: priority with age, then who waits longer, then name. A run whose pipeline is at
/// work waits without holding others up. A GPU run that does not fit the free memory keeps its
/// place: no later GPU run overtakes it, while CPU runs still start; where there is no GPU at all,
/// GPU runs wait.
pub fn next_runs(
    queued: &[QueuedRun],
    running: &[RunningRun],
    slots: Slots,
    now: LogTime,
) -> Vec<Start> {
    let held = |gpu: bool| running.iter().filter(|run| run.gpu == gpu).count();
    let mut cpu_free = (slots.cpu as usize).saturating_sub(held(false));
    let mut gpu_free = (slots.gpu as usize).saturating_sub(held(true));
    let mut gpu_bytes = slots.gpu_free_bytes;
    let mut busy: BTreeSet<&str> = running.iter().map(|run| run.pipeline.as_str()).collect();
    let mut order: Vec<&QueuedRun> = queued.iter().collect();
    order.sort_by_key(|run| {
        (std::cmp::Reverse(effective_priority(run, slots, now)), run.queued_at, run.run.as_str())
    });
    let mut starts = Vec::new();
    for run in order {
        if busy.contains(run.pipeline.as_str()) {
            continue;
        }
        let fits = if run.needs.gpu {
            let fits = gpu_free > 0 && run.needs.gpu_bytes <= gpu_bytes;
            if fits {
                gpu_free -= 1;
                gpu_bytes -= run.needs.gpu_bytes;
            } else {
                gpu_free = 0;
            }
            fits
        } else {
            let fits = cpu_free > 0;
            cpu_free = cpu_free.saturating_sub(1);
            fits
        };
        if fits {
            busy.insert(run.pipeline.as_str());
            starts.push(Start { run: run.run.clone(), gpu: run.needs.gpu });
        }
    }
    starts
}

fn effective_priority(run: &QueuedRun, slots: Slots, now: LogTime) -> i64 {
    let waited_us = now.0.saturating_sub(run.queued_at.0);
    let steps = waited_us.checked_div(slots.ageing_us).unwrap_or(0);
    i64::from(run.priority).saturating_add(i64::try_from(steps).unwrap_or(i64::MAX))
}
