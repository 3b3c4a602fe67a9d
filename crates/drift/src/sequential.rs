//! A rate watched after every event without crying wolf: an always-valid test that a rate is above
//! its limit.
//!
//! Why it exists: a guardrail (errors, slow answers) is looked at all the time, and a test made for
//! one look breaks a sound model sooner or later. The mixture martingale stays below `1 / alpha` for
//! ever with probability `1 - alpha` (Ville 1939; Robbins 1970). Does not know what is counted.

use serde::{Deserialize, Serialize};

use crate::DriftError;

/// Events and hits since the watch began; integers, so that it merges and replays exactly. O(1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateWatch {
    /// Events.
    pub events: u64,
    /// Those that were hits: failed, slow, wrong.
    pub hits: u64,
}

impl RateWatch {
    /// Takes one event in.
    pub fn add(&mut self, hit: bool) {
        self.events += 1;
        self.hits += u64::from(hit);
    }

    /// Evidence against a rate of `limit`, as a natural logarithm: that of
    /// `B(1 + S, 1 + n - S) / (p^S (1 - p)^(n - S))`, a uniform mixture over rates.
    ///
    /// # Errors
    /// [`DriftError`] where `limit` is not strictly between 0 and 1.
    pub fn log_evidence(&self, limit: f64) -> Result<f64, DriftError> {
        if !(limit > 0.0 && limit < 1.0) {
            let rule = "above 0 and below 1";
            return Err(DriftError::BadParameter { what: "the limit", value: limit, rule });
        }
        let (hits, misses) = (self.hits as f64, self.events.saturating_sub(self.hits) as f64);
        let mixture = libm::lgamma(hits + 1.0) + libm::lgamma(misses + 1.0)
            - libm::lgamma(hits + misses + 2.0);
        Ok(mixture - hits * libm::log(limit) - misses * libm::log1p(-limit))
    }

    /// Whether the rate is above `limit`, with at most `alpha` false answers over all looks ever.
    ///
    /// # Errors
    /// [`DriftError`] where `limit` or `alpha` is not strictly between 0 and 1.
    pub fn above(&self, limit: f64, alpha: f64) -> Result<bool, DriftError> {
        if !(alpha > 0.0 && alpha < 1.0) {
            let rule = "above 0 and below 1";
            return Err(DriftError::BadParameter { what: "the level", value: alpha, rule });
        }
        let beyond = self.hits as f64 > limit * self.events as f64;
        Ok(self.log_evidence(limit)? >= -libm::log(alpha) && beyond)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CounterRandom;

    #[test]
    fn evidence_is_the_beta_binomial_mixture() {
        let found = RateWatch { events: 100, hits: 60 }.log_evidence(0.5).unwrap();
        assert!((libm::exp(found) - 0.913_050).abs() < 1e-6, "{}", libm::exp(found));
        assert_eq!(RateWatch::default().log_evidence(0.5).unwrap(), 0.0);
        assert!(RateWatch::default().log_evidence(0.0).is_err());
        assert!(RateWatch::default().above(0.5, 1.0).is_err());
    }

    #[test]
    fn it_is_seldom_wrong_over_all_looks_and_soon_right() {
        let runs = |rate: f64, looks: u64| {
            (0..200).filter(move |run| {
                let mut random = CounterRandom::new(*run, 8);
                let mut watch = RateWatch::default();
                (0..looks).any(|_| {
                    watch.add(random.uniform() < rate);
                    watch.above(0.02, 0.05).unwrap()
                })
            })
        };
        // Ten expected at most.
        assert!(runs(0.02, 2_000).count() <= 18);
        assert_eq!(runs(0.10, 600).count(), 200);
        assert!(!RateWatch { events: 10_000, hits: 0 }.above(0.02, 0.05).unwrap());
    }
}
