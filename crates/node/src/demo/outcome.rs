//! What becomes of a payment, and when anything of the simulation reaches a producer.
//!
//! Does not know how likely fraud is (see [`super::simulation`]).

use super::simulation::{HOUR_US, Happening, Payment};

impl Happening {
    /// When it reaches the producer, microseconds since 1970 UTC.
    pub fn arrival(&self) -> i64 {
        match self {
            Self::Customer(customer) | Self::CustomerGone(customer) => customer.event_time,
            Self::Merchant(merchant) => merchant.event_time,
            Self::Payment(payment) => payment.arrival,
            Self::Settled(outcome) => outcome.arrival(),
        }
    }
}

/// What became of a payment.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The payment.
    pub payment: Payment,
    /// When it was known, microseconds since 1970 UTC.
    pub settled_at: i64,
    /// Whether it was fraud.
    pub fraud: bool,
}

impl Outcome {
    /// When it is delivered: outcomes come in files, one every two hours.
    pub fn arrival(&self) -> i64 {
        (self.settled_at.div_euclid(SETTLEMENT_US) + 1) * SETTLEMENT_US
    }
}

/// How often outcomes are delivered.
const SETTLEMENT_US: i64 = 2 * HOUR_US;
