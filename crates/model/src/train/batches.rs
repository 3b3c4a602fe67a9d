//! Rows of a training set as a session takes them, batch by batch.
//!
//! Does not know in which order they come.

use super::data::Dataset;
use crate::backend::Batch;
use crate::spec::JobSpec;

/// Every row is encoded once where that takes at most this part of the memory, and in every pass
/// where it takes more.
const ENCODED_SHARE: usize = 8;

pub(super) fn encoded_bytes(spec: &JobSpec, dataset: &Dataset) -> Option<usize> {
    let bytes = dataset.rows.len() * dataset.preprocessing.width() * 4;
    (bytes <= spec.bounds.max_bytes / ENCODED_SHARE).then_some(bytes)
}

pub(super) fn encoded(spec: &JobSpec, dataset: &Dataset) -> Option<Vec<f32>> {
    let mut all = vec![0.0; encoded_bytes(spec, dataset)? / 4];
    let width = dataset.preprocessing.width();
    for (row, into) in all.chunks_exact_mut(width.max(1)).enumerate() {
        dataset.preprocessing.encode(dataset.numbers_of(row), into);
    }
    Some(all)
}

/// Rows on their way into a session.
#[derive(Default)]
pub(super) struct Loaded {
    numbers: Vec<f32>,
    codes: Vec<u32>,
    labels: Vec<f32>,
    weights: Vec<f32>,
}

impl Loaded {
    pub(super) fn load(
        &mut self,
        dataset: &Dataset,
        encoded: Option<&[f32]>,
        rows: impl ExactSizeIterator<Item = usize>,
    ) -> Batch<'_> {
        let width = dataset.preprocessing.width();
        let count = rows.len();
        self.numbers.resize(count * width, 0.0);
        self.codes.clear();
        self.labels.clear();
        self.weights.clear();
        for (at, row) in rows.enumerate() {
            let into = &mut self.numbers[at * width..(at + 1) * width];
            match encoded {
                Some(all) => into.copy_from_slice(&all[row * width..(row + 1) * width]),
                None => dataset.preprocessing.encode(dataset.numbers_of(row), into),
            }
            self.codes.extend_from_slice(dataset.codes_of(row));
            self.labels.push(dataset.labels[row]);
            self.weights.push(dataset.weights[row]);
        }
        Batch {
            rows: count,
            numbers: &self.numbers,
            codes: &self.codes,
            labels: &self.labels,
            weights: &self.weights,
        }
    }
}
