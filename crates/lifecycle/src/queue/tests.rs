//! The queue: order, ageing, slots, memory, one run per pipeline.

use proptest::prelude::*;

use super::*;

fn queued(run: &str, pipeline: &str, priority: i32, at: u64, gpu_bytes: Option<u64>) -> QueuedRun {
    QueuedRun {
        run: run.to_owned(),
        pipeline: pipeline.to_owned(),
        priority,
        queued_at: LogTime(at),
        needs: RunNeeds { gpu: gpu_bytes.is_some(), gpu_bytes: gpu_bytes.unwrap_or(0) },
    }
}

fn started(queue: &[QueuedRun], running: &[RunningRun], slots: Slots, now: u64) -> Vec<String> {
    next_runs(queue, running, slots, LogTime(now)).into_iter().map(|start| start.run).collect()
}

#[test]
fn priority_then_age_then_name() {
    let slots = Slots { cpu: 2, ..Slots::default() };
    let queue = [
        queued("b", "p2", 0, 5, None),
        queued("a", "p1", 0, 5, None),
        queued("c", "p3", 9, 8, None),
        queued("d", "p4", 0, 1, None),
    ];
    assert_eq!(started(&queue, &[], slots, 10), ["c", "d"]);
    let busy = RunningRun { pipeline: "p3".to_owned(), gpu: false };
    assert_eq!(started(&queue, &[busy], slots, 10), ["d"]);
    let ageing = Slots { cpu: 1, ageing_us: 10, ..Slots::default() };
    let queue = [queued("old", "p1", 0, 0, None), queued("new", "p2", 3, 100, None)];
    assert_eq!(started(&queue, &[], ageing, 100), ["old"]);
    assert_eq!(started(&queue, &[], Slots { ageing_us: 0, ..ageing }, 100), ["new"]);
}

#[test]
fn a_large_gpu_run_is_not_starved_and_cpu_runs_go_on() {
    let slots = Slots { cpu: 1, gpu: 2, gpu_free_bytes: 10, ageing_us: 0 };
    let queue = [
        queued("large", "p1", 5, 0, Some(11)),
        queued("small", "p2", 0, 0, Some(1)),
        queued("cpu", "p3", -5, 0, None),
    ];
    assert_eq!(started(&queue, &[], slots, 0), ["cpu"]);
    let room = Slots { gpu_free_bytes: 12, ..slots };
    assert_eq!(started(&queue, &[], room, 0), ["large", "small", "cpu"]);
    let none = Slots { gpu: 0, ..room };
    assert_eq!(started(&queue, &[], none, 0), ["cpu"]);
}

proptest! {
    #[test]
    fn slots_and_pipelines_are_respected(
        queue in prop::collection::vec((0_u32..6, -3_i32..4, 0_u64..50, prop::option::of(0_u64..8)), 0..30),
        running in prop::collection::vec((0_u32..6, any::<bool>()), 0..4),
        cpu in 0_u32..4, gpu in 0_u32..3, free in 0_u64..20,
    ) {
        let queue: Vec<QueuedRun> = queue.into_iter().enumerate().map(|(index, (p, priority, at, bytes))| {
            queued(&format!("r{index:02}"), &format!("p{p}"), priority, at, bytes)
        }).collect();
        let running: Vec<RunningRun> = running.into_iter()
            .map(|(p, gpu)| RunningRun { pipeline: format!("p{p}"), gpu }).collect();
        let slots = Slots { cpu, gpu, gpu_free_bytes: free, ageing_us: 7 };
        let starts = next_runs(&queue, &running, slots, LogTime(60));
        let of = |start: &Start| queue.iter().find(|run| run.run == start.run).unwrap().clone();
        let on_gpu = |gpu| starts.iter().filter(|start| start.gpu == gpu).count();
        let held = |gpu| running.iter().filter(|run| run.gpu == gpu).count();
        prop_assert!(on_gpu(true) == 0 || on_gpu(true) + held(true) <= gpu as usize);
        prop_assert!(on_gpu(false) == 0 || on_gpu(false) + held(false) <= cpu as usize);
        let bytes: u64 = starts.iter().map(|start| of(start).needs.gpu_bytes).sum();
        prop_assert!(bytes <= free);
        let mut pipelines: Vec<String> = starts.iter().map(|start| of(start).pipeline).collect();
        pipelines.extend(running.iter().map(|run| run.pipeline.clone()));
        let total = pipelines.len();
        pipelines.sort();
        pipelines.dedup();
        let mut already: Vec<&str> = running.iter().map(|run| run.pipeline.as_str()).collect();
        already.sort_unstable();
        let distinct = { let all = already.len(); already.dedup(); all - already.len() };
        prop_assert_eq!(pipelines.len() + distinct, total);
        let mut shuffled = queue.clone();
        shuffled.reverse();
        prop_assert_eq!(next_runs(&shuffled, &running, slots, LogTime(60)), starts);
    }
}
