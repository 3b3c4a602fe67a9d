//! The distribution of the Kolmogorov-Smirnov statistic: for two samples exactly, by counting lattice
//! paths; otherwise by the one-sample distribution of the effective size.
//!
//! Does not compute the statistic: see [`crate::samples`].

mod limit;
#[cfg(test)]
mod tests;

use crate::special::binomial_mass;

pub use limit::pelz_good;

/// Two-sided tail of the one-sample statistic: the probability that `D_n >= x` for `n` values, with
/// the choice of method by region of Simard and L'Ecuyer (J. Stat. Software 39(11), 2011), which
/// SciPy's `kstwo.sf` follows as well. Where SciPy uses Pomeranz' recursion the equally exact matrix
/// method stands in.
pub fn one_sample_tail(n: u64, x: f64) -> f64 {
    if n == 0 || x.is_nan() {
        return f64::NAN;
    }
    let size = n as f64;
    let scaled = size * x;
    let square = scaled * x;
    if x >= 1.0 || square >= 370.0 && n > 140 {
        return 0.0;
    }
    if scaled <= 0.5 {
        return 1.0;
    }
    if scaled <= 1.0 {
        // Ruben and Gambino: n! (2x - 1/n)^n, its factors taken together to stay in range.
        let factors = (1..=n).map(|k| k as f64 / size * (2.0 * scaled - 1.0));
        return clip(1.0 - factors.product::<f64>());
    }
    if scaled >= size - 1.0 {
        return clip(2.0 * libm::pow(1.0 - x, size));
    }
    let far = if n <= 140 { 4.0 } else { 2.2 };
    if x >= 0.5 || square >= far {
        return clip(2.0 * one_sided_tail(n, x));
    }
    if n <= 140 || n <= 100_000 && n as f64 * x * x.sqrt() <= 1.4 {
        return clip(1.0 - matrix_probability(n, x));
    }
    clip(1.0 - pelz_good(n, x))
}

/// One-sided tail: the probability that `D+_n >= x`, by the sum of Birnbaum and Tingey (1951), each
/// term a binomial mass.
pub fn one_sided_tail(n: u64, x: f64) -> f64 {
    let size = n as f64;
    let last = (size * (1.0 - x)).floor() as u64;
    let terms = (0..=last.min(n)).map(|j| {
        if j == 0 {
            return libm::exp(size * libm::log1p(-x));
        }
        let p = (x + j as f64 / size).min(1.0);
        x * binomial_mass(n, j, p) / p
    });
    clip(terms.sum())
}

/// The probability that `D_n < x` by powers of a matrix (Marsaglia, Tsang and Wang, J. Stat.
/// Software 8(18), 2003): exact up to rounding, O(log n (n x)^3).
fn matrix_probability(n: u64, x: f64) -> f64 {
    let size = n as f64;
    let k = (size * x).ceil();
    let rest = k - size * x;
    let order = (2 * k as usize).saturating_sub(1).max(1);
    let mut matrix = transition(order, rest);
    let mut product = identity(order);
    let (mut product_scale, mut matrix_scale) = (0_i64, 0_i64);
    let mut power = n;
    while power > 0 {
        if power & 1 == 1 {
            product = multiply(&product, &matrix, order);
            product_scale += matrix_scale + rescale(&mut product);
        }
        matrix = multiply(&matrix, &matrix, order);
        matrix_scale = 2 * matrix_scale + rescale(&mut matrix);
        power >>= 1;
    }
    let middle = k as usize - 1;
    let mut probability = product[middle * order + middle];
    for factor in 1..=n {
        probability *= factor as f64 / size;
        if probability < 1e-140 {
            probability *= SCALE;
            product_scale -= 1;
        }
    }
    let steps = i32::try_from(product_scale).unwrap_or(i32::MAX);
    probability * libm::pow(SCALE, f64::from(steps))
}

/// 2^280: a power of two, so that scaling never rounds.
const SCALE: f64 = f64::from_bits((1023 + 280) << 52);

/// The matrix H of the paper: `order` rows, with the corner terms that `rest` gives.
fn transition(order: usize, rest: f64) -> Vec<f64> {
    let mut matrix = vec![0.0; order * order];
    let at = |row: usize, column: usize| row * order + column;
    for row in 0..order {
        for column in 0..(row + 2).min(order) {
            matrix[at(row, column)] = 1.0;
        }
    }
    for index in 0..order {
        let power = libm::pow(rest, index as f64 + 1.0);
        matrix[at(index, 0)] -= power;
        matrix[at(order - 1, index)] -= libm::pow(rest, (order - index) as f64);
    }
    let corner = 2.0 * rest - 1.0;
    if corner > 0.0 {
        matrix[at(order - 1, 0)] += libm::pow(corner, order as f64);
    }
    for row in 0..order {
        for column in 0..=row {
            for factor in 1..=(row + 1 - column) {
                matrix[at(row, column)] /= factor as f64;
            }
        }
    }
    matrix
}

fn identity(order: usize) -> Vec<f64> {
    let mut matrix = vec![0.0; order * order];
    (0..order).for_each(|index| matrix[index * order + index] = 1.0);
    matrix
}

fn multiply(left: &[f64], right: &[f64], order: usize) -> Vec<f64> {
    let mut product = vec![0.0; order * order];
    for row in 0..order {
        for inner in 0..order {
            let factor = left[row * order + inner];
            for column in 0..order {
                product[row * order + column] += factor * right[inner * order + column];
            }
        }
    }
    product
}

/// Divides by [`SCALE`] until no entry is large, so that the next product stays in range; how often.
fn rescale(matrix: &mut [f64]) -> i64 {
    let mut times = 0;
    while matrix.iter().copied().fold(0.0, f64::max) > 1e140 {
        matrix.iter_mut().for_each(|entry| *entry /= SCALE);
        times += 1;
    }
    times
}

/// Exact two-sided tail for two samples of `n` and `m` values without ties: the probability that
/// the statistic is at least `d`.
///
/// For `n = m` the reflection series of Gnedenko and Korolyuk (1951); otherwise the probability
/// that a uniform lattice path from (0, 0) to (n, m) leaves the band, by Hodges' recursion (Arkiv
/// för Matematik 3, 1958) in terms that are all positive. O(n) and O(n m) respectively.
pub fn two_sample_exact_tail(n: u64, m: u64, d: f64) -> f64 {
    if n == 0 || m == 0 || d.is_nan() {
        return f64::NAN;
    }
    let (large, small) = (n.max(m), n.min(m));
    let divisor = gcd(large, small);
    let steps = (d * (large as f64 / divisor as f64) * small as f64).round_ties_even() as u64;
    if steps == 0 {
        return 1.0;
    }
    if large == small {
        return equal_sizes_tail(large, steps);
    }
    path_tail(large, small, divisor, steps)
}

/// `2 (C1 - C2 + C3 - …) / C0` with `Ck = C(2n, n - k h)`, from the innermost ratio outwards.
fn equal_sizes_tail(n: u64, h: u64) -> f64 {
    let mut series = 0.0;
    for k in (1..=n / h).rev() {
        let ratio = (0..h).map(|j| (n + h - k * h - j) as f64 / (n + k * h - h + j + 1) as f64);
        series = ratio.product::<f64>() * (1.0 - series);
    }
    clip(2.0 * series)
}

/// `q(i, j)`: the share of the paths to (i, j) that have been outside. `q = 1` outside; inside it is
/// the average of its two predecessors, weighted by the number of paths through each.
fn path_tail(n: u64, m: u64, divisor: u64, h: u64) -> f64 {
    let (rise, run) = (m / divisor, n / divisor);
    let outside = |i: u64, j: u64| (i * rise).abs_diff(j * run) >= h;
    let mut column = vec![0.0; m as usize + 1];
    for i in 0..=n {
        for j in 0..=m {
            let index = j as usize;
            column[index] = if outside(i, j) {
                1.0
            } else if i + j == 0 {
                0.0
            } else {
                let from_left = if i > 0 { i as f64 * column[index] } else { 0.0 };
                let from_below = if j > 0 { j as f64 * column[index - 1] } else { 0.0 };
                (from_left + from_below) / (i + j) as f64
            };
        }
    }
    clip(column[m as usize])
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn clip(probability: f64) -> f64 {
    probability.clamp(0.0, 1.0)
}
