//! Bins: how values are counted. Every binned score carries its definition, because the same data
//! gives a PSI of 0.13 or 0.19 by the bins chosen.
//!
//! Does not count anything itself: see [`crate::summary`].

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::DriftError;
use crate::exact;

/// Which bins, and which value belongs to which.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum BinDefinition {
    /// `cuts.len() + 1` bins `(-inf, c0], (c0, c1], …, (cn, +inf)`: nothing lies outside.
    Cuts {
        /// Strictly increasing.
        #[serde(with = "exact::list")]
        cuts: Vec<f64>,
        /// How the cuts were found, in words.
        origin: String,
    },
    /// `edges.len() - 1` bins `[e0, e1), …, [en-1, en]`, the last closed, as in
    /// `numpy.histogram`. What lies outside is counted apart.
    Edges {
        /// Strictly increasing, at least two.
        #[serde(with = "exact::list")]
        edges: Vec<f64>,
        /// How the edges were found, in words.
        origin: String,
    },
    /// One bin per value; any other value lies outside.
    Values {
        /// Strictly increasing.
        #[serde(with = "exact::list")]
        values: Vec<f64>,
    },
    /// One bin per name, in this order, and where `other` is set a last one for all other names
    /// (without it they lie outside).
    Categories {
        /// Distinct, sorted.
        names: Vec<String>,
        /// Whether there is a bin for names not listed.
        other: bool,
    },
}

impl BinDefinition {
    /// `count` bins of equal mass in `sorted` (ascending, finite): cuts at the quantiles
    /// `1/count, …, (count-1)/count`, interpolated linearly as `numpy.quantile` does.
    ///
    /// Where neighbouring quantiles coincide, the value that they share carries at least a bin's
    /// mass; it gets a bin of its own (a constant reference gives three: below, at, above), because
    /// merging would hide drift to the side where the bins were merged.
    ///
    /// # Errors
    /// [`DriftError`] for no values or no bins.
    pub fn quantiles(sorted: &[f64], count: usize) -> Result<Self, DriftError> {
        let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else {
            return Err(DriftError::Empty("the reference"));
        };
        check_count(count)?;
        let raw: Vec<f64> = (1..count).map(|k| quantile(sorted, k as f64 / count as f64)).collect();
        let mut cuts = Vec::with_capacity(raw.len());
        for (index, cut) in raw.iter().enumerate() {
            let tied = index > 0 && raw[index - 1] == *cut || raw.get(index + 1) == Some(cut);
            if tied {
                push_increasing(&mut cuts, cut.next_down());
            }
            push_increasing(&mut cuts, *cut);
        }
        // Where everything is one value a single quantile is no tie, and yet an atom.
        if first == last {
            cuts = vec![first.next_down(), *first];
        }
        let origin = format!("{count} quantiles of {} reference values", sorted.len());
        Ok(Self::Cuts { cuts, origin })
    }

    /// `count` bins of equal width between `low` and `high`, which are edges themselves.
    ///
    /// # Errors
    /// [`DriftError`] for no bins, or where `low < high` does not hold between finite numbers.
    pub fn equal_width(low: f64, high: f64, count: usize) -> Result<Self, DriftError> {
        check_count(count)?;
        check_range(low, high)?;
        let origin = format!("{count} bins of equal width");
        Ok(Self::Edges { edges: spaced(low, high, count), origin })
    }

    /// Sturges' bins (1926) as `numpy.histogram_bin_edges(…, bins = "sturges")` has them:
    /// `ceil(range / (range / (log2 n + 1)))` of equal width over all of `values`. Evidently takes
    /// them over reference and current together.
    ///
    /// # Errors
    /// [`DriftError`] for no values. A single distinct value gets one bin of width 1 around it.
    pub fn sturges(values: &[f64]) -> Result<Self, DriftError> {
        let (low, high) = span(values)?;
        let width = (high - low) / (libm::log2(values.len() as f64) + 1.0);
        let origin = format!("Sturges over {} values", values.len());
        Ok(Self::by_width(low, high, width, origin))
    }

    /// Doane's bins (1976), which NannyML takes over the reference: Sturges widened by skewness.
    ///
    /// # Errors
    /// [`DriftError`] for no values.
    pub fn doane(values: &[f64]) -> Result<Self, DriftError> {
        let (low, high) = span(values)?;
        let n = values.len() as f64;
        let (mean, deviation) = crate::samples::moments(values);
        let mut width = 0.0;
        if n > 2.0 && deviation > 0.0 {
            let cubes = values.iter().map(|value| {
                let standard = (value - mean) / deviation;
                standard * standard * standard
            });
            let skewness = cubes.sum::<f64>() / n;
            let error = (6.0 * (n - 2.0) / ((n + 1.0) * (n + 3.0))).sqrt();
            let widening = libm::log2(1.0 + skewness.abs() / error);
            width = (high - low) / (1.0 + libm::log2(n) + widening);
        }
        Ok(Self::by_width(low, high, width, format!("Doane over {} values", values.len())))
    }

    fn by_width(low: f64, high: f64, width: f64, origin: String) -> Self {
        if low == high {
            return Self::Edges { edges: vec![low - 0.5, high + 0.5], origin };
        }
        let count = if width > 0.0 { ((high - low) / width).ceil() as usize } else { 1 };
        Self::Edges { edges: spaced(low, high, count.clamp(1, 100_000)), origin }
    }

    /// Bins with these edges.
    ///
    /// # Errors
    /// [`DriftError`] where there are fewer than two edges or they do not increase.
    pub fn explicit(edges: Vec<f64>) -> Result<Self, DriftError> {
        let increasing = edges.windows(2).all(|pair| pair[0] < pair[1]);
        if edges.len() < 2 || !increasing {
            return Err(DriftError::BadParameter {
                what: "the number of edges",
                value: edges.len() as f64,
                rule: "at least two, strictly increasing",
            });
        }
        Ok(Self::Edges { edges, origin: "explicit".to_owned() })
    }

    /// One bin per distinct value (NaN left out).
    pub fn distinct(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().filter(|value| !value.is_nan()).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.dedup_by(|a, b| *a == *b);
        Self::Values { values }
    }

    /// One bin per distinct name, and one for all others.
    pub fn categories(names: impl IntoIterator<Item = String>) -> Self {
        let mut names: Vec<String> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        Self::Categories { names, other: true }
    }

    /// How many bins.
    pub fn len(&self) -> usize {
        match self {
            Self::Cuts { cuts, .. } => cuts.len() + 1,
            Self::Edges { edges, .. } => edges.len().saturating_sub(1),
            Self::Values { values } => values.len(),
            Self::Categories { names, other } => names.len() + usize::from(*other),
        }
    }

    /// Whether there is no bin at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bin of a number, in O(log bins); `None` where it lies outside or is NaN.
    pub fn of_number(&self, value: f64) -> Option<usize> {
        if value.is_nan() {
            return None;
        }
        match self {
            Self::Cuts { cuts, .. } => Some(cuts.partition_point(|cut| *cut < value)),
            Self::Edges { edges, .. } => {
                let last = edges.last()?;
                if value == *last {
                    return edges.len().checked_sub(2);
                }
                let after = edges.partition_point(|edge| *edge <= value);
                (after < edges.len()).then(|| after.checked_sub(1)).flatten()
            }
            Self::Values { values } => {
                let at = values.partition_point(|known| *known < value);
                (values.get(at) == Some(&value)).then_some(at)
            }
            Self::Categories { .. } => None,
        }
    }

    /// The bin of a name; `None` where it lies outside.
    pub fn of_name(&self, name: &str) -> Option<usize> {
        let Self::Categories { names, other } = self else { return None };
        match names.binary_search_by(|known| known.as_str().cmp(name)) {
            Ok(found) => Some(found),
            Err(_) => other.then_some(names.len()),
        }
    }

    /// The least and greatest value that the bins were made for; `None` where there is no bound.
    pub fn range(&self) -> Option<(f64, f64)> {
        let bounds = match self {
            Self::Edges { edges, .. } => edges,
            Self::Values { values } => values,
            Self::Cuts { .. } | Self::Categories { .. } => return None,
        };
        Some((*bounds.first()?, *bounds.last()?))
    }
}

/// The quantile `q` of `sorted` (ascending, not empty), interpolated linearly between the two
/// values around `q (n - 1)` (type 7 of Hyndman and Fan 1996, numpy's default).
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let position = q.clamp(0.0, 1.0) * last as f64;
    let below = position.floor();
    let low = sorted[(below as usize).min(last)];
    let high = sorted[(below as usize + 1).min(last)];
    let part = position - below;
    // From the nearer end, as numpy does, so that equal data gives equal cuts.
    if part >= 0.5 { high - (high - low) * (1.0 - part) } else { low + (high - low) * part }
}

/// `count + 1` evenly spaced edges; the last is exactly `high`.
fn spaced(low: f64, high: f64, count: usize) -> Vec<f64> {
    let step = (high - low) / count as f64;
    let mut edges: Vec<f64> = Vec::with_capacity(count + 1);
    for index in 0..count {
        push_increasing(&mut edges, low + index as f64 * step);
    }
    push_increasing(&mut edges, high);
    edges
}

fn push_increasing(list: &mut Vec<f64>, value: f64) {
    if list.last().is_none_or(|last| *last < value) {
        list.push(value);
    }
}

fn span(values: &[f64]) -> Result<(f64, f64), DriftError> {
    let finite = values.iter().copied().filter(|value| value.is_finite());
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if low > high { Err(DriftError::Empty("the sample")) } else { Ok((low, high)) }
}

fn check_count(count: usize) -> Result<(), DriftError> {
    if count > 0 {
        return Ok(());
    }
    Err(DriftError::BadParameter { what: "the number of bins", value: 0.0, rule: "at least 1" })
}

fn check_range(low: f64, high: f64) -> Result<(), DriftError> {
    if low.is_finite() && high.is_finite() && low < high {
        return Ok(());
    }
    Err(DriftError::BadParameter {
        what: "the range of the bins",
        value: high - low,
        rule: "finite ends, the lower below the upper",
    })
}
