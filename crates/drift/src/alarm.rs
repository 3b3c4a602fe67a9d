//! From scores to alarms: by default relative to the reference's own spread from chunk to chunk,
//! never to a threshold out of a textbook alone.
//!
//! A fixed PSI threshold on seasonal data alarms for ever, and one for narrow windows alarms by
//! chance; what the reference does to itself tells both. The rule is NannyML's (mean + 3 standard
//! deviations over reference chunks), with each chunk scored against the others, so that no chunk
//! is part of its own reference, and wider limits for windows smaller than the chunks. Pure, with
//! hysteresis. Does not know what follows from an alarm.

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::DriftError;
use crate::exact;
use crate::score::{Metric, Score, score};
use crate::special::{normal_two_sided, student_tail};
use crate::summary::ColumnSummary;

/// What a metric does within the reference, from chunk to chunk.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The mean score.
    #[serde(with = "exact::value")]
    pub mean: f64,
    /// The scores' standard deviation, dividing by n.
    #[serde(with = "exact::value")]
    pub deviation: f64,
    /// The greatest score.
    #[serde(with = "exact::value")]
    pub greatest: f64,
    /// How many chunks.
    pub chunks: u64,
    /// Rows of the smallest chunk: windows much smaller than that score higher by chance.
    pub chunk_rows: u64,
}

impl Spread {
    /// The spread of given scores.
    ///
    /// # Errors
    /// [`DriftError::Empty`] for fewer than two scores: one says nothing about spread.
    pub fn of(values: &[f64], chunk_rows: u64) -> Result<Self, DriftError> {
        if values.len() < 2 {
            return Err(DriftError::Empty("the spread of fewer than two chunks"));
        }
        let (mean, deviation) = crate::samples::moments(values);
        let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Ok(Self { mean, deviation, greatest, chunks: values.len() as u64, chunk_rows })
    }

    /// The spread of a metric over the chunks of a reference, each scored against all the others
    /// together; chunks that hold nothing to score are passed over. Chunks should be windows like
    /// those to be judged. O(chunks) scores.
    ///
    /// # Errors
    /// [`DriftError`] for fewer than two chunks, or where they cannot be scored.
    pub fn of_chunks(chunks: &[ColumnSummary], metric: Metric) -> Result<Self, DriftError> {
        let Some((first, rest)) = chunks.split_first() else {
            return Err(DriftError::Empty("the reference"));
        };
        let mut whole = first.clone();
        for chunk in rest {
            whole.merge(chunk)?;
        }
        let mut values = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let mut others = whole.clone();
            others.subtract(chunk)?;
            match chunk_score(&others, chunk, metric) {
                Ok(value) => values.push(value),
                // A chunk without any value says nothing about the others' values.
                Err(DriftError::Empty(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let rows = chunks.iter().map(ColumnSummary::rows).min().unwrap_or(0);
        Self::of(&values, rows)
    }

    /// `mean + deviations * deviation`, at least `floor` and at most what the metric can reach.
    pub fn limit(&self, metric: Metric, deviations: f64, floor: f64) -> f64 {
        let limit = (self.mean + deviations * self.deviation).max(floor);
        metric.upper_limit().map_or(limit, |upper| limit.min(upper))
    }

    /// `deviations` of a spread that is fully known, as so many of this one, whose mean and deviation
    /// are those of few chunks: what one chunk more exceeds as rarely as a normal variable exceeds
    /// `deviations`. With `n` chunks and Student's quantile `t` of the same tail with `n - 1` degrees
    /// that is `t √((n + 1) / (n - 1))` (the prediction interval for one further observation; Hahn and
    /// Meeker, "Statistical Intervals", 1991; the deviation divides by `n`). Ten chunks make 4.5 of 3.
    pub fn for_one_more(&self, deviations: f64) -> f64 {
        let Some(degrees) = self.chunks.checked_sub(1).filter(|degrees| *degrees > 0) else {
            return f64::INFINITY;
        };
        // Tails beyond four deviations lie below what the sums resolve: in proportion from there on.
        let known = deviations.min(GREATEST_KNOWN);
        if known <= 0.0 {
            return deviations;
        }
        let tail = normal_two_sided(known) / 2.0;
        let (mut low, mut high) = (known, 2.0 * known);
        while student_tail(high, degrees) > tail && high < 1e9 {
            (low, high) = (high, 2.0 * high);
        }
        for _ in 0..80 {
            let middle = f64::midpoint(low, high);
            match student_tail(middle, degrees) > tail {
                true => low = middle,
                false => high = middle,
            }
        }
        let widening = ((self.chunks + 1) as f64 / degrees as f64).sqrt();
        high * widening * (deviations / known)
    }

    /// The limit for one score: [`Spread::limit`], made up for what chance alone does where the
    /// window has fewer rows than the chunks had, and where the reference never saw an event that
    /// is merely rare.
    ///
    /// Without drift, PSI is of the order of `1/n + 1/m` and the distances and rates of its square
    /// root, so the limit grows by that factor. A rate that was 0 in `n` rows may still be `3/n`
    /// (the rule of three; Hanley and Lippman-Hand, JAMA 249, 1983): a rate's limit is at least
    /// what that gives, plus `deviations` standard deviations in `m` rows.
    pub fn limit_for(&self, score: &Score, deviations: f64, floor: f64) -> f64 {
        let inverse = |rows: u64| 1.0 / rows.max(1) as f64;
        let reference = inverse(score.reference_rows);
        let chance = reference + inverse(score.current_rows);
        let factor = (chance / (reference + inverse(self.chunk_rows))).max(1.0);
        let factor = match score.metric {
            Metric::Psi => factor,
            Metric::ChiSquare => 1.0,
            _ => factor.sqrt(),
        };
        let rare = match score.metric {
            Metric::MissingRate | Metric::OutOfRange => {
                let rate = 3.0 * reference;
                rate + deviations * (rate * inverse(score.current_rows)).sqrt()
            }
            _ => 0.0,
        };
        let limit = (self.mean + deviations * self.deviation) * factor;
        let limit = limit.max(rare).max(floor);
        score.metric.upper_limit().map_or(limit, |upper| limit.min(upper))
    }
}

/// Deviations up to which Student's quantile is computed.
const GREATEST_KNOWN: f64 = 4.0;

/// A chunk's score against the others. Values outside the range are those outside the others'
/// range, up to the sketch's relative error: the whole reference's range holds every chunk.
fn chunk_score(
    others: &ColumnSummary,
    chunk: &ColumnSummary,
    metric: Metric,
) -> Result<f64, DriftError> {
    let numeric = match (others, chunk) {
        (ColumnSummary::Numeric(others), ColumnSummary::Numeric(chunk)) => Some((others, chunk)),
        _ => None,
    };
    match numeric.filter(|_| metric == Metric::OutOfRange) {
        Some((_, chunk)) if chunk.present() == 0 => Err(DriftError::Empty("the window")),
        Some((others, chunk)) => {
            Ok(chunk.sketch.beyond(&others.sketch) as f64 / chunk.present() as f64)
        }
        None => Ok(score(others, chunk, metric)?.value),
    }
}

/// When a score is too great.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case")]
pub enum Threshold {
    /// Above the reference's own spread.
    Relative {
        /// Standard deviations above the mean.
        #[serde(with = "exact::value")]
        deviations: f64,
        /// Below this no score alarms, however quiet the reference was.
        #[serde(with = "exact::value")]
        floor: f64,
    },
    /// Above a fixed value.
    Fixed {
        /// The value.
        #[serde(with = "exact::value")]
        limit: f64,
    },
    /// A p-value at or below a level. Correct for the number of columns first: see
    /// [`crate::correction`].
    Significance {
        /// The level.
        #[serde(with = "exact::value")]
        alpha: f64,
    },
}

impl Default for Threshold {
    fn default() -> Self {
        Self::Relative { deviations: 3.0, floor: 0.0 }
    }
}

/// A threshold with hysteresis.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AlarmPolicy {
    /// When a window is over.
    pub threshold: Threshold,
    /// Windows over in a row that raise the alarm; at least 1.
    pub raise_after: u32,
    /// Windows well under in a row that lower it; at least 1.
    pub lower_after: u32,
    /// A window is well under where its score is at most this share of the limit (for p-values:
    /// where the p-value times this share is above the level).
    #[serde(with = "exact::value")]
    pub lower_ratio: f64,
}

impl Default for AlarmPolicy {
    fn default() -> Self {
        let threshold = Threshold::default();
        Self { threshold, raise_after: 1, lower_after: 2, lower_ratio: 0.9 }
    }
}

/// One window's score, judged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The limit that it was compared with: of the score, or of the p-value.
    pub limit: f64,
    /// Whether it is beyond the limit.
    pub over: bool,
    /// Whether it is well within.
    pub under: bool,
}

/// Whether a column's alarm is raised, and how long it has been otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmState {
    /// Whether the alarm is raised.
    pub raised: bool,
    /// Windows over in a row while it is not.
    pub over: u32,
    /// Windows under in a row while it is.
    pub under: u32,
}

/// What a window changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlarmChange {
    /// Nothing.
    None,
    /// The alarm was raised.
    Raised,
    /// The alarm was lowered.
    Lowered,
}

impl AlarmPolicy {
    /// Judges one score. A score or p-value that is not a number is over.
    ///
    /// # Errors
    /// [`DriftError`] where the threshold needs a spread or a p-value that is not there.
    pub fn judge(&self, score: &Score, spread: Option<&Spread>) -> Result<Judgement, DriftError> {
        let limit = match self.threshold {
            Threshold::Significance { alpha } => {
                let p_value = score.p_value.ok_or(DriftError::Undefined {
                    metric: score.metric.name(),
                    column: "significance-tested (it has no p-value)",
                })?;
                return Ok(self.judge_p_value(p_value, alpha));
            }
            Threshold::Fixed { limit } => limit,
            Threshold::Relative { deviations, floor } => spread
                .ok_or(DriftError::Empty("the reference's spread"))?
                .limit_for(score, deviations, floor),
        };
        let over = score.value.is_nan() || score.value > limit;
        let under = !over && score.value <= limit * self.lower_ratio;
        Ok(Judgement { limit, over, under })
    }

    /// Judges a p-value, corrected or not, at a level.
    pub fn judge_p_value(&self, p_value: f64, alpha: f64) -> Judgement {
        let over = p_value.is_nan() || p_value <= alpha;
        let under = !over && p_value * self.lower_ratio > alpha;
        Judgement { limit: alpha, over, under }
    }

    /// The state after one more window. The alarm changes at most once in `raise_after +
    /// lower_after` windows in either direction taken together.
    pub fn decide(&self, state: AlarmState, judgement: Judgement) -> (AlarmState, AlarmChange) {
        let mut next = state;
        if state.raised {
            next.under = if judgement.under { state.under.saturating_add(1) } else { 0 };
            if next.under >= self.lower_after.max(1) {
                return (AlarmState::default(), AlarmChange::Lowered);
            }
        } else {
            next.over = if judgement.over { state.over.saturating_add(1) } else { 0 };
            if next.over >= self.raise_after.max(1) {
                let raised = AlarmState { raised: true, ..AlarmState::default() };
                return (raised, AlarmChange::Raised);
            }
        }
        (next, AlarmChange::None)
    }
}
