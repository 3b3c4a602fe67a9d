//! Reconstruction error: how badly the reference's principal components describe the window. It
//! shows where columns no longer go together, though each by itself looks as before (NannyML's
//! multivariate drift).
//!
//! Columns are standardised by the reference; components come from Jacobi's rotations of the
//! correlation matrix, in a fixed order. Linear by design. Does not know thresholds: see
//! [`crate::alarm::Spread`].

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::DriftError;
use crate::exact;

/// NannyML's share of the variance that the components kept must exceed.
pub const DEFAULT_SHARE: f64 = 0.65;

/// The reference's principal components.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrincipalComponents {
    #[serde(with = "exact::list")]
    means: Vec<f64>,
    #[serde(with = "exact::list")]
    deviations: Vec<f64>,
    /// Unit vectors, one after the other, of falling variance.
    #[serde(with = "exact::list")]
    directions: Vec<f64>,
    kept: usize,
}

impl PrincipalComponents {
    /// The least number of components that explain more than `share` of the variance of `rows`
    /// (equally long, NaN where missing: then the column's mean). O(rows · columns² + columns³).
    ///
    /// # Errors
    /// [`DriftError`] for no rows, no columns, rows of different lengths, or a share outside
    /// (0, 1).
    pub fn fit(rows: &[Vec<f64>], share: f64) -> Result<Self, DriftError> {
        let width = rows.first().map_or(0, Vec::len);
        if width == 0 {
            return Err(DriftError::Empty("the reference"));
        }
        if !(share > 0.0 && share < 1.0) {
            let rule = "above 0 and below 1";
            return Err(DriftError::BadParameter { what: "the share", value: share, rule });
        }
        check_lengths(rows, width)?;
        let column = |index: usize| -> Vec<f64> {
            rows.iter().map(|row| row[index]).filter(|value| value.is_finite()).collect()
        };
        let moments = (0..width).map(|index| {
            let values = column(index);
            if values.is_empty() { (0.0, 0.0) } else { crate::samples::moments(&values) }
        });
        let (means, deviations): (Vec<f64>, Vec<f64>) = moments.unzip();
        let mut components = Self { means, deviations, directions: Vec::new(), kept: 0 };
        let (variances, vectors) = jacobi(components.correlations(rows), width);
        let mut order: Vec<usize> = (0..width).collect();
        order.sort_by(|a, b| variances[*b].total_cmp(&variances[*a]).then(a.cmp(b)));
        let total: f64 = order.iter().map(|index| variances[*index]).sum();
        let mut explained = 0.0;
        for index in order {
            // A column of `vectors` is an eigenvector.
            components.directions.extend((0..width).map(|row| vectors[row * width + index]));
            components.kept += 1;
            explained += variances[index];
            if explained / total > share {
                break;
            }
        }
        Ok(components)
    }

    /// How many components were kept.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// The mean Euclidean distance of the standardised rows from what the components make of them.
    ///
    /// # Errors
    /// [`DriftError`] for no rows, or rows of other lengths than the reference's.
    pub fn error(&self, rows: &[Vec<f64>]) -> Result<f64, DriftError> {
        if rows.is_empty() {
            return Err(DriftError::Empty("the window"));
        }
        check_lengths(rows, self.means.len())?;
        let total: f64 = rows.iter().map(|row| self.error_of(&self.standardise(row))).sum();
        Ok(total / rows.len() as f64)
    }

    fn error_of(&self, standard: &[f64]) -> f64 {
        let mut rest = standard.to_vec();
        for direction in self.directions.chunks(standard.len()) {
            let along: f64 = direction.iter().zip(standard).map(|(a, b)| a * b).sum();
            rest.iter_mut().zip(direction).for_each(|(value, unit)| *value -= along * unit);
        }
        rest.iter().map(|value| value * value).sum::<f64>().sqrt()
    }

    fn standardise(&self, row: &[f64]) -> Vec<f64> {
        let scales = self.means.iter().zip(&self.deviations);
        let standard = |(value, (mean, deviation)): (&f64, (&f64, &f64))| {
            if !value.is_finite() {
                0.0
            } else if *deviation > 0.0 {
                (value - mean) / deviation
            } else {
                // A constant reference: its own units are all there is.
                value - mean
            }
        };
        row.iter().zip(scales).map(standard).collect()
    }

    fn correlations(&self, rows: &[Vec<f64>]) -> Vec<f64> {
        let width = self.means.len();
        let mut matrix = vec![0.0; width * width];
        for row in rows {
            let standard = self.standardise(row);
            for i in 0..width {
                for j in 0..width {
                    matrix[i * width + j] += standard[i] * standard[j];
                }
            }
        }
        matrix.iter_mut().for_each(|entry| *entry /= rows.len() as f64);
        matrix
    }
}

/// Eigenvalues and eigenvectors (as columns) of a symmetric matrix by cyclic Jacobi rotations
/// (Golub and Van Loan, Matrix Computations, 8.5).
fn jacobi(mut matrix: Vec<f64>, width: usize) -> (Vec<f64>, Vec<f64>) {
    let mut vectors = vec![0.0; width * width];
    (0..width).for_each(|index| vectors[index * width + index] = 1.0);
    for _ in 0..100 {
        let off: f64 = (0..width)
            .flat_map(|i| (0..i).map(move |j| (i, j)))
            .map(|(i, j)| matrix[i * width + j] * matrix[i * width + j])
            .sum();
        if off < 1e-30 {
            break;
        }
        for p in 0..width {
            for q in p + 1..width {
                rotate(&mut matrix, &mut vectors, width, p, q);
            }
        }
    }
    ((0..width).map(|index| matrix[index * width + index]).collect(), vectors)
}

/// Turns the entry (p, q) to zero.
fn rotate(matrix: &mut [f64], vectors: &mut [f64], width: usize, p: usize, q: usize) {
    let entry = matrix[p * width + q];
    if entry == 0.0 {
        return;
    }
    let half = (matrix[q * width + q] - matrix[p * width + p]) / (2.0 * entry);
    let sign = if half < 0.0 { -1.0 } else { 1.0 };
    let tangent = sign / (half.abs() + (half * half + 1.0).sqrt());
    let cosine = 1.0 / (tangent * tangent + 1.0).sqrt();
    let sine = tangent * cosine;
    let turn = |list: &mut [f64], at_p: usize, at_q: usize| {
        let (left, right) = (list[at_p], list[at_q]);
        list[at_p] = cosine * left - sine * right;
        list[at_q] = sine * left + cosine * right;
    };
    for k in 0..width {
        turn(matrix, k * width + p, k * width + q);
    }
    for k in 0..width {
        turn(matrix, p * width + k, q * width + k);
        turn(vectors, k * width + p, k * width + q);
    }
}

fn check_lengths(rows: &[Vec<f64>], width: usize) -> Result<(), DriftError> {
    match rows.iter().find(|row| row.len() != width) {
        None => Ok(()),
        Some(row) => {
            let (left, right) = (width, row.len());
            Err(DriftError::DifferentLengths { what: "two rows", left, right })
        }
    }
}
