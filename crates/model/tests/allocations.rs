//! Counts allocations: a prediction makes none.

#![allow(clippy::expect_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, StringArray};
use arrow::record_batch::RecordBatch;
use falaj_model::{Feature, FeatureKind, Input, JobSpec, Scorer, Task, Trainer, train};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[allow(unsafe_code)]
// SAFETY: everything is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as given.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as given.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROWS: usize = 300;

fn rows() -> RecordBatch {
    let amounts: Vec<Option<f64>> =
        (0..ROWS).map(|row| (row % 11 != 0).then_some((row * 37 % 101) as f64)).collect();
    let kinds: Vec<String> = (0..ROWS).map(|row| format!("kind {}", row % 7)).collect();
    let labels: Vec<bool> = (0..ROWS).map(|row| (row * 37 % 101) > 50).collect();
    let columns: [(&str, ArrayRef); 3] = [
        ("amount", Arc::new(Float64Array::from(amounts))),
        ("kind", Arc::new(StringArray::from(kinds))),
        ("label", Arc::new(BooleanArray::from(labels))),
    ];
    RecordBatch::try_from_iter(columns).expect("a batch")
}

#[test]
fn predictions_do_not_allocate() {
    for trainer in [Trainer::Linear {}, Trainer::mlp(), Trainer::resnet(), Trainer::trees()] {
        let features = vec![
            Feature::new("amount", FeatureKind::Numeric),
            Feature::new("kind", FeatureKind::Categorical),
        ];
        let mut job = JobSpec::new("m", Task::Binary, "label", features, trainer);
        job.epochs = 1;
        let folder = tempfile::tempdir().expect("a folder");
        let never = AtomicBool::new(false);
        let trained = train(&job, &[rows()], folder.path(), &never, &mut |_| {}).expect("a model");
        let scorer = Scorer::new(&trained.model).expect("a scorer");
        let mut scratch = scorer.scratch();
        let one = [Input::Number(3.5), Input::Text("kind 3")];
        let many = [one, [Input::Missing, Input::Text("unseen")], one, one, one].concat();
        let (mut out, mut outs) = ([0.0], [0.0; 5]);
        let before = ALLOCATIONS.get();
        for _ in 0..100 {
            scorer.score_into(&one, &mut scratch, &mut out).expect("a score");
            scorer.score_rows(&many, &mut scratch, &mut outs, &mut |_, _| ()).expect("scores");
        }
        assert_eq!(ALLOCATIONS.get() - before, 0, "{}", job.trainer.name());
        assert_eq!(out[0].to_bits(), outs[4].to_bits());
    }
}
