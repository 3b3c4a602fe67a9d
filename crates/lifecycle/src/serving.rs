//! Which version answers a request: champion only, champion with the challenger in shadow, or a
//! split by a hash of the key.
//!
//! The split is a pure function of policy and key, so an auditor recomputes every choice from the
//! event alone. Does not know whether a model is loaded: see the registry's evidence.

#[cfg(test)]
mod tests;

use falaj_event::hash::domain_hash;
use serde::{Deserialize, Serialize};

use crate::registry::{Refusal, VersionNumber};

/// How requests are shared out between champion and challenger.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case", deny_unknown_fields)]
pub enum ServingPolicy {
    /// The champion answers everything; the challenger sees nothing.
    ChampionOnly,
    /// The champion answers everything; the challenger scores the same rows, unseen by callers.
    #[default]
    ShadowChallenger,
    /// The challenger answers a share of the keys, always the same keys for one salt; it scores
    /// the others in shadow.
    Split {
        /// The challenger's share, above 0 and below 1.
        challenger_share: f64,
        /// Names the assignment: another salt is another experiment, never mixed with this one.
        salt: String,
    },
}

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Route {
    /// The version that answers.
    pub serve: VersionNumber,
    /// The probability with which this policy serves this version, over keys: 1 without a split.
    pub propensity: f64,
    /// The version that scores the row as well, unseen.
    pub shadow: Option<VersionNumber>,
}

impl ServingPolicy {
    /// Whether the policy's values make sense.
    ///
    /// # Errors
    /// [`Refusal::BadValue`] where the share is not strictly between 0 and 1 or the salt is empty.
    pub fn check(&self) -> Result<(), Refusal> {
        let Self::Split { challenger_share, salt } = self else { return Ok(()) };
        if !(*challenger_share > 0.0 && *challenger_share < 1.0) {
            return Err(Refusal::BadValue {
                what: "challenger_share".to_owned(),
                value: challenger_share.to_string(),
                rule: "it must lie strictly between 0 and 1",
            });
        }
        if salt.is_empty() {
            return Err(Refusal::BadValue {
                what: "salt".to_owned(),
                value: "empty".to_owned(),
                rule: "it names the assignment, so it needs a character",
            });
        }
        Ok(())
    }

    /// The route of the request with the canonical key bytes `key`, or `None` without a champion.
    ///
    /// Under a split, `u = first 53 bits of SHA-256("falaj.route.v1", salt, key) / 2^53`, and the
    /// challenger answers where `u < challenger_share`. Without a challenger every policy is
    /// champion only.
    pub fn route(
        &self,
        champion: Option<VersionNumber>,
        challenger: Option<VersionNumber>,
        key: &[u8],
    ) -> Option<Route> {
        let champion = champion?;
        let alone = Route { serve: champion, propensity: 1.0, shadow: None };
        let Some(challenger) = challenger else { return Some(alone) };
        Some(match self {
            Self::ChampionOnly => alone,
            Self::ShadowChallenger => Route { shadow: Some(challenger), ..alone },
            Self::Split { challenger_share, salt } => {
                if position(salt, key) < *challenger_share {
                    Route {
                        serve: challenger,
                        propensity: *challenger_share,
                        shadow: Some(champion),
                    }
                } else {
                    Route {
                        serve: champion,
                        propensity: 1.0 - *challenger_share,
                        shadow: Some(challenger),
                    }
                }
            }
        })
    }
}

/// Where a key lies in [0, 1) under a salt: 53 bits, uniform over keys.
pub fn position(salt: &str, key: &[u8]) -> f64 {
    let digest = domain_hash(b"falaj.route.v1", &[salt.as_bytes(), key]);
    let mut first = [0; 8];
    first.copy_from_slice(&digest.0[..8]);
    let bits = u64::from_be_bytes(first) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}
