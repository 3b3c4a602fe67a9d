//! Distances between two distributions over the same bins: PSI, Kullback-Leibler, Jensen-Shannon,
//! Hellinger, total variation.
//!
//! Shares are counts over their total; sums run over the bins in order. Does not know where the
//! bins came from.

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::DriftError;

/// What stands in for a share of zero under a logarithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZeroRule {
    /// 0.0001, the textbook's.
    #[default]
    TenThousandth,
    /// Evidently's: 0.0001, or a millionth of the least share above zero where that is at most
    /// 0.0001; for each of the two distributions by itself. Nothing is renormalised.
    Evidently,
}

/// The base of the logarithm: nats or bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogBase {
    /// Natural: Evidently and SciPy's default. A Jensen-Shannon distance is at most `sqrt(ln 2)`.
    E,
    /// Two: NannyML. A Jensen-Shannon distance is at most 1.
    Two,
}

/// Counts as shares of their total.
///
/// # Errors
/// [`DriftError::Empty`] where the total is 0.
pub fn shares(counts: &[u64]) -> Result<Vec<f64>, DriftError> {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return Err(DriftError::Empty("a histogram"));
    }
    Ok(counts.iter().map(|count| *count as f64 / total as f64).collect())
}

/// `shares` with every zero replaced.
pub fn filled(shares: &[f64], rule: ZeroRule) -> Vec<f64> {
    const TEXTBOOK: f64 = 0.0001;
    let least = shares.iter().copied().filter(|share| *share > 0.0).fold(f64::INFINITY, f64::min);
    let fill = match rule {
        ZeroRule::Evidently if least <= TEXTBOOK => least / 1e6,
        _ => TEXTBOOK,
    };
    shares.iter().map(|share| if *share == 0.0 { fill } else { *share }).collect()
}

/// Population stability index: `Σ (r - c) ln(r / c)`, symmetric, at least 0 (Siddiqi, Credit Risk
/// Scorecards, 2006; Jeffreys' divergence). Under no drift its expectation is about
/// `(bins - 1)(1/n + 1/m)`: see [`psi_noise`].
///
/// # Errors
/// [`DriftError`] where lengths differ.
pub fn psi(reference: &[f64], current: &[f64], zeros: ZeroRule) -> Result<f64, DriftError> {
    check(reference, current)?;
    let (reference, current) = (filled(reference, zeros), filled(current, zeros));
    Ok(pairs(&reference, &current).map(|(r, c)| (r - c) * libm::log(r / c)).sum())
}

/// The PSI to expect between two samples of one distribution: `(bins - 1)(1/n + 1/m)`
/// (Yurdakul and Naranjo 2020).
pub fn psi_noise(bins: usize, reference_rows: u64, current_rows: u64) -> f64 {
    let inverse = 1.0 / reference_rows.max(1) as f64 + 1.0 / current_rows.max(1) as f64;
    bins.saturating_sub(1) as f64 * inverse
}

/// Kullback-Leibler divergence in nats of `p` from `q`: `Σ p ln(p / q)`; infinite where `q` is 0
/// and `p` is not.
///
/// # Errors
/// [`DriftError`] where lengths differ.
pub fn kullback_leibler(p: &[f64], q: &[f64]) -> Result<f64, DriftError> {
    check(p, q)?;
    Ok(pairs(p, q).map(|(p, q)| relative_entropy(p, q)).sum())
}

/// Jensen-Shannon divergence `½ KL(p‖m) + ½ KL(q‖m)` with `m = ½ (p + q)` (Lin 1991), in the
/// logarithm's base; needs no filling of zeros.
///
/// # Errors
/// [`DriftError`] where lengths differ.
pub fn jensen_shannon_divergence(p: &[f64], q: &[f64], base: LogBase) -> Result<f64, DriftError> {
    check(p, q)?;
    let against_middle = |(p, q): (f64, f64)| relative_entropy(p, (p + q) / 2.0);
    let left: f64 = pairs(p, q).map(against_middle).sum();
    let right: f64 = pairs(q, p).map(against_middle).sum();
    let nats = ((left + right) / 2.0).max(0.0);
    Ok(match base {
        LogBase::E => nats,
        LogBase::Two => nats / core::f64::consts::LN_2,
    })
}

/// Jensen-Shannon distance: the square root of the divergence, a metric (Endres and Schindelin
/// 2003). SciPy's `jensenshannon`.
///
/// # Errors
/// [`DriftError`] where lengths differ.
pub fn jensen_shannon_distance(p: &[f64], q: &[f64], base: LogBase) -> Result<f64, DriftError> {
    jensen_shannon_divergence(p, q, base).map(f64::sqrt)
}

/// Hellinger distance in [0, 1]: `sqrt(½ Σ (√p - √q)²)`, equal to `sqrt(1 - Σ √(p q))` without its
/// cancellation.
///
/// # Errors
/// [`DriftError`] where lengths differ.
pub fn hellinger(p: &[f64], q: &[f64]) -> Result<f64, DriftError> {
    check(p, q)?;
    let squares = pairs(p, q).map(|(p, q)| {
        let difference = p.sqrt() - q.sqrt();
        difference * difference
    });
    Ok((squares.sum::<f64>() / 2.0).sqrt())
}

/// Total variation distance in [0, 1]: `½ Σ |p - q|`.
///
/// # Errors
/// [`DriftError`] where lengths differ.
pub fn total_variation(p: &[f64], q: &[f64]) -> Result<f64, DriftError> {
    check(p, q)?;
    Ok(pairs(p, q).map(|(p, q)| (p - q).abs()).sum::<f64>() / 2.0)
}

fn relative_entropy(p: f64, q: f64) -> f64 {
    if p == 0.0 { 0.0 } else { p * libm::log(p / q) }
}

fn pairs<'a>(p: &'a [f64], q: &'a [f64]) -> impl Iterator<Item = (f64, f64)> + 'a {
    p.iter().copied().zip(q.iter().copied())
}

fn check(p: &[f64], q: &[f64]) -> Result<(), DriftError> {
    if p.len() == q.len() {
        return Ok(());
    }
    Err(DriftError::DifferentLengths { what: "two histograms", left: p.len(), right: q.len() })
}
