//! Detectors on a stream of errors (or of any number): has its level changed?
//!
//! One value in, one signal out; after a drift a detector starts afresh with the next value, as
//! river's do. The state serialises, so that a restart changes nothing. Values that are not finite
//! are passed over. Does not know what the numbers mean.

pub mod adwin;
pub mod ddm;
pub mod eddm;
pub mod kswin;
pub mod page_hinkley;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use adwin::{Adwin, AdwinParameters};
pub use ddm::{Ddm, DdmParameters};
pub use eddm::{Eddm, EddmParameters};
pub use kswin::{Kswin, KswinParameters};
pub use page_hinkley::{PageHinkley, PageHinkleyMode, PageHinkleyParameters};

/// What a value did to a detector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// No change.
    #[default]
    Stable,
    /// A change may be coming (DDM and EDDM only).
    Warning,
    /// The level has changed.
    Drift,
}

/// Any of the detectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "detector", rename_all = "snake_case")]
pub enum Detector {
    /// Adaptive windowing.
    Adwin(Adwin),
    /// Drift detection method, on 0/1 errors.
    Ddm(Ddm),
    /// Early drift detection method, on 0/1 errors.
    Eddm(Eddm),
    /// Page-Hinkley test.
    PageHinkley(PageHinkley),
    /// Kolmogorov-Smirnov windowing.
    Kswin(Kswin),
}

impl Detector {
    /// Takes one value in.
    pub fn update(&mut self, value: f64) -> Signal {
        match self {
            Self::Adwin(detector) => detector.update(value),
            Self::Ddm(detector) => detector.update(value),
            Self::Eddm(detector) => detector.update(value),
            Self::PageHinkley(detector) => detector.update(value),
            Self::Kswin(detector) => detector.update(value),
        }
    }

    /// A detector with its default parameters by name: `adwin`, `ddm`, `eddm`, `page_hinkley`,
    /// `kswin`. `seed` is what KSWIN draws by.
    pub fn by_name(name: &str, seed: u64) -> Option<Self> {
        Some(match name {
            "adwin" => Self::Adwin(Adwin::new(AdwinParameters::default())),
            "ddm" => Self::Ddm(Ddm::new(DdmParameters::default())),
            "eddm" => Self::Eddm(Eddm::new(EddmParameters::default())),
            "page_hinkley" => Self::PageHinkley(PageHinkley::new(PageHinkleyParameters::default())),
            "kswin" => Self::Kswin(Kswin::new(KswinParameters::default(), seed)),
            _ => return None,
        })
    }
}
