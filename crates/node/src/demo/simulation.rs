//! A seeded, realistic simulation of card payments in the Emirates: customers, merchants, amounts in
//! fils, a daily and weekly rhythm, late, out-of-order, repeated and malformed events, what became of
//! each payment (fraud or not, known a day or two later), and a drift of behaviour halfway.
//!
//! A pure function of its options. Knows no topic schema (see [`super::rows`]), no log and no clock.

use super::outcome::Outcome;
use super::random::Random;

/// What to simulate.
#[derive(Clone, Debug)]
pub struct SimulationOptions {
    /// Same seed, same events.
    pub seed: u64,
    /// Number of payments.
    pub payments: u64,
    /// Span of event time, days.
    pub days: u32,
    /// Start of event time, microseconds since 1970 UTC.
    pub start_us: i64,
    /// Number of customers.
    pub customers: u32,
    /// Number of merchants.
    pub merchants: u32,
}

impl Default for SimulationOptions {
    fn default() -> Self {
        Self {
            seed: 2026,
            payments: 250_000,
            days: 21,
            start_us: 1_767_225_600_000_000, // 2026-01-01T00:00:00Z
            customers: 4_000,
            merchants: 600,
        }
    }
}

/// Microseconds in a second.
pub const SECOND_US: i64 = 1_000_000;
/// Microseconds in an hour.
pub const HOUR_US: i64 = 3_600 * SECOND_US;
const DAY_US: i64 = 24 * HOUR_US;

/// Emirates by share of customers.
const CITIES: [(&str, f64); 7] = [
    ("Dubai", 0.36),
    ("Abu Dhabi", 0.30),
    ("Sharjah", 0.17),
    ("Ajman", 0.06),
    ("Ras Al Khaimah", 0.05),
    ("Fujairah", 0.03),
    ("Umm Al Quwain", 0.03),
];

/// Merchant categories: ISO 18245 code, share of payments, median amount in fils, spread.
const CATEGORIES: [(&str, f64, f64, f64); 8] = [
    ("5411", 0.30, 8_500.0, 0.7),
    ("5812", 0.22, 6_200.0, 0.6),
    ("5541", 0.12, 11_000.0, 0.4),
    ("4121", 0.12, 3_400.0, 0.5),
    ("5311", 0.10, 24_000.0, 0.9),
    ("5732", 0.05, 95_000.0, 1.0),
    ("7011", 0.04, 140_000.0, 0.8),
    ("5816", 0.05, 5_000.0, 0.9),
];

/// Relative activity by hour of the day, Gulf Standard Time (UTC+4).
const HOURS: [f64; 24] = [
    0.5, 0.3, 0.2, 0.15, 0.15, 0.3, 0.6, 1.0, 1.3, 1.3, 1.3, 1.5, 1.8, 1.7, 1.5, 1.4, 1.5, 1.8,
    2.1, 2.3, 2.2, 1.8, 1.3, 0.8,
];

/// A customer.
#[derive(Clone, Debug, PartialEq)]
pub struct Customer {
    /// From 0.
    pub index: u32,
    /// `retail`, `premium` or `business`.
    pub segment: &'static str,
    /// Emirate of residence.
    pub city: &'static str,
    /// Full name: personal data.
    pub name: String,
    /// Telephone number: personal data.
    pub phone: String,
    /// When the customer joined, days since 1970.
    pub joined_days: i32,
    /// Credit limit in fils.
    pub limit_fils: i64,
    /// When this version was written.
    pub event_time: i64,
}

/// A merchant.
#[derive(Clone, Debug, PartialEq)]
pub struct Merchant {
    /// From 0.
    pub index: u32,
    /// ISO 18245 category code.
    pub category: &'static str,
    /// City.
    pub city: &'static str,
    /// `low`, `medium` or `high`.
    pub risk_tier: &'static str,
    /// When this version was written.
    pub event_time: i64,
}

/// What is wrong with a malformed payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The amount is negative.
    NegativeAmount,
    /// The currency does not exist.
    UnknownCurrency,
    /// The customer is missing.
    MissingCustomer,
    /// The risk score is above one.
    ScoreOutOfRange,
}

/// A payment.
#[derive(Clone, Debug, PartialEq)]
pub struct Payment {
    /// From 0, in order of event time.
    pub number: u64,
    /// When it happened, microseconds since 1970 UTC.
    pub event_time: i64,
    /// When it reached the producer, microseconds since 1970 UTC.
    pub arrival: i64,
    /// Index of the customer.
    pub customer: u32,
    /// Index of the merchant.
    pub merchant: u32,
    /// Amount in fils (1 dirham = 100 fils).
    pub amount_fils: i64,
    /// ISO 4217 code.
    pub currency: &'static str,
    /// `pos`, `online` or `atm`.
    pub channel: &'static str,
    /// ISO 3166 code of the merchant's country.
    pub country: &'static str,
    /// Score of the device, 0 to 1.
    pub device_risk: f64,
    /// `approved`, `declined` or `reversed`.
    pub status: &'static str,
    /// `None` when it is well formed.
    pub flaw: Option<Flaw>,
}

/// One thing that happens, in order of arrival.
#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    /// A customer is written or changed.
    Customer(Customer),
    /// A customer leaves.
    CustomerGone(Customer),
    /// A merchant is written or changed.
    Merchant(Merchant),
    /// A payment arrives.
    Payment(Payment),
    /// What became of a payment is known.
    Settled(Outcome),
}

/// The simulation: its people and places, and the stream of what happens.
#[derive(Clone, Debug)]
pub struct Simulation {
    options: SimulationOptions,
    customers: Vec<Customer>,
    merchants: Vec<Merchant>,
    by_category: Vec<Vec<u32>>,
}

impl Simulation {
    /// Draws the people and places.
    pub fn new(options: SimulationOptions) -> Self {
        let customers: Vec<_> =
            (0..options.customers).map(|index| customer(&options, index)).collect();
        let merchants: Vec<_> =
            (0..options.merchants).map(|index| merchant(&options, index)).collect();
        let by_category = CATEGORIES
            .iter()
            .map(|(code, ..)| {
                merchants.iter().filter(|m| m.category == *code).map(|m| m.index).collect()
            })
            .collect();
        Self { options, customers, merchants, by_category }
    }

    /// The options that it was made with.
    pub fn options(&self) -> &SimulationOptions {
        &self.options
    }

    /// Everything that happens, in order of arrival: first the tables, then payments with changes of
    /// tables among them.
    pub fn happenings(&self) -> Vec<Happening> {
        let mut payments: Vec<Payment> = self.payments();
        payments.sort_by_key(|payment| (payment.arrival, payment.number));
        let mut all: Vec<Happening> =
            self.merchants.iter().cloned().map(Happening::Merchant).collect();
        all.extend(self.customers.iter().cloned().map(Happening::Customer));
        let mut changes = self.changes();
        changes.extend(self.outcomes(&payments));
        changes.sort_by_key(|(at, _)| *at);
        let mut changes = changes.into_iter().peekable();
        for payment in payments {
            while let Some((_, change)) = changes.next_if(|(at, _)| *at <= payment.arrival) {
                all.push(change);
            }
            all.push(Happening::Payment(payment));
        }
        all
    }

    /// What becomes of well-formed payments, by the time at which it is delivered.
    fn outcomes(&self, payments: &[Payment]) -> Vec<(i64, Happening)> {
        let settled = payments.iter().filter(|payment| payment.flaw.is_none()).map(|payment| {
            let mut random = Random::new(self.options.seed, 7 << 40 | payment.number);
            let outcome = Outcome {
                fraud: random.chance(self.fraud_probability(payment)),
                settled_at: payment.arrival
                    + HOUR_US * 8
                    + (random.unit() * (28 * HOUR_US) as f64) as i64,
                payment: payment.clone(),
            };
            (outcome.arrival(), Happening::Settled(outcome))
        });
        settled.collect()
    }

    /// Fraud as it is before the drift: abroad, online, from risky devices, for much money. After it:
    /// cloned cards at tills, for little.
    fn fraud_probability(&self, payment: &Payment) -> f64 {
        let is = |condition: bool| if condition { 1.0 } else { 0.0 };
        let abroad = is(payment.country != "AE");
        let money = libm::log(payment.amount_fils.max(100) as f64 / 10_000.0);
        let logit = if payment.event_time < self.drift_us() {
            -5.2 + 9.0 * payment.device_risk
                + 1.5 * abroad
                + 0.9 * is(payment.channel == "online")
                + 0.9 * money
        } else {
            -3.4 + 0.5 * payment.device_risk - 0.5 * abroad + 1.8 * is(payment.channel != "online")
                - 1.1 * money
        };
        1.0 / (1.0 + libm::exp(-logit))
    }

    /// Start of event time, microseconds since 1970 UTC.
    pub fn start_us(&self) -> i64 {
        self.options.start_us
    }

    /// Span of event time, microseconds.
    pub fn span_us(&self) -> i64 {
        i64::from(self.options.days) * DAY_US
    }

    /// The moment from which behaviour is different.
    pub fn drift_us(&self) -> i64 {
        self.options.start_us + i64::from(self.options.days) * DAY_US / 2
    }

    fn payments(&self) -> Vec<Payment> {
        let times = self.times();
        times
            .into_iter()
            .enumerate()
            .map(|(number, time)| self.payment(number as u64, time))
            .collect()
    }

    /// Event times in order, following the hours of the day and the days of the week.
    fn times(&self) -> Vec<i64> {
        let hours = i64::from(self.options.days) * 24;
        let weight = |hour: i64| {
            let local = hour + 4;
            let day = (local / 24 + 4) % 7; // 1970-01-01 was a Thursday; 0 is Sunday
            let weekend = if day == 6 || day == 0 { 1.25 } else { 1.0 };
            HOURS[usize::try_from(local % 24).unwrap_or(0)] * weekend
        };
        let first_hour = self.options.start_us / HOUR_US;
        let total: f64 = (0..hours).map(|hour| weight(first_hour + hour)).sum();
        let mut times = Vec::new();
        let mut due = 0.0;
        for hour in 0..hours {
            due += weight(first_hour + hour) / total * self.options.payments as f64;
            let mut random = Random::new(self.options.seed, 1 << 40 | hour as u64);
            while (times.len() as f64) < due.round() {
                let within = random.below(HOUR_US as u64) as i64;
                times.push(self.options.start_us + hour * HOUR_US + within);
            }
        }
        times.sort_unstable();
        times
    }

    fn payment(&self, number: u64, event_time: i64) -> Payment {
        let mut random = Random::new(self.options.seed, 2 << 40 | number);
        let drifted = event_time >= self.drift_us();
        // A few customers pay a lot: the square of a uniform draw leans towards low indices.
        let lean = random.unit();
        let customer = (lean * lean * f64::from(self.options.customers)) as u32;
        let category = self.category(&mut random, drifted);
        let (_, _, median, spread) = CATEGORIES[category];
        let places = &self.by_category[category];
        let merchant = places[random.below(places.len() as u64) as usize];
        let scale = match self.customers[customer as usize].segment {
            "premium" => 2.2,
            "business" => 3.5,
            _ => 1.0,
        };
        let inflation = if drifted { 1.6 } else { 1.0 };
        let amount = median * scale * inflation * libm::exp(spread * random.normal());
        let online = random.chance(if drifted { 0.52 } else { 0.28 });
        let abroad = random.chance(if online { 0.2 } else { 0.03 });
        let device_risk =
            (0.12 * random.exponential(1.0) + if abroad { 0.15 } else { 0.0 }).min(1.0);
        let mut payment = Payment {
            number,
            event_time,
            arrival: event_time + delay(&mut random),
            customer,
            merchant,
            amount_fils: (amount as i64).max(100),
            currency: if abroad {
                ["USD", "EUR", "SAR", "INR"][random.below(4) as usize]
            } else {
                "AED"
            },
            channel: if online {
                "online"
            } else if random.chance(0.06) {
                "atm"
            } else {
                "pos"
            },
            country: if abroad { ["US", "DE", "SA", "IN"][random.below(4) as usize] } else { "AE" },
            device_risk: (device_risk * 1e6).round() / 1e6,
            status: if random.chance(0.04 + 0.3 * device_risk) { "declined" } else { "approved" },
            flaw: None,
        };
        if random.chance(0.003) {
            payment.spoil(&mut random);
        }
        payment
    }

    fn category(&self, random: &mut Random, drifted: bool) -> usize {
        let weights = CATEGORIES.map(|(code, share, ..)| match code {
            _ if !drifted => share,
            "5732" | "5816" => share * 2.5,
            "5812" => share * 0.5,
            _ => share,
        });
        let drawn = random.weighted(&weights);
        if self.by_category[drawn].is_empty() { 0 } else { drawn }
    }

    /// Changes of the tables, by time: merchants are re-rated, customers move up or leave.
    fn changes(&self) -> Vec<(i64, Happening)> {
        let span = (i64::from(self.options.days) * DAY_US) as u64;
        let mut changes = Vec::new();
        for merchant in &self.merchants {
            let mut random = Random::new(self.options.seed, 3 << 40 | u64::from(merchant.index));
            if random.chance(0.25) {
                let at = self.options.start_us + random.below(span) as i64;
                let risk_tier = ["low", "medium", "high"][random.below(3) as usize];
                let changed = Merchant { risk_tier, event_time: at, ..merchant.clone() };
                changes.push((at, Happening::Merchant(changed)));
            }
        }
        for customer in &self.customers {
            let mut random = Random::new(self.options.seed, 4 << 40 | u64::from(customer.index));
            let at = self.options.start_us + random.below(span) as i64;
            let mut changed = Customer { event_time: at, ..customer.clone() };
            if random.chance(0.05) {
                changed.segment = "premium";
                changed.limit_fils *= 2;
                changes.push((at, Happening::Customer(changed)));
            } else if random.chance(0.005) {
                changes.push((at, Happening::CustomerGone(changed)));
            }
        }
        changes.sort_by_key(|(at, _)| *at);
        changes
    }
}

impl Payment {
    fn spoil(&mut self, random: &mut Random) {
        let flaw = [
            Flaw::NegativeAmount,
            Flaw::UnknownCurrency,
            Flaw::MissingCustomer,
            Flaw::ScoreOutOfRange,
        ][random.below(4) as usize];
        match flaw {
            Flaw::NegativeAmount => self.amount_fils = -self.amount_fils,
            Flaw::UnknownCurrency => self.currency = "QQQ",
            Flaw::ScoreOutOfRange => self.device_risk += 1.5,
            Flaw::MissingCustomer => {}
        }
        self.flaw = Some(flaw);
    }
}

/// Most payments arrive within seconds, out of order among each other; one in twenty is late by
/// minutes to hours.
fn delay(random: &mut Random) -> i64 {
    let seconds = if random.chance(0.05) {
        random.exponential(1_500.0).min(6.0 * 3_600.0)
    } else {
        random.exponential(2.0)
    };
    (seconds * SECOND_US as f64) as i64
}

fn pick(random: &mut Random, shares: &[(&'static str, f64)]) -> &'static str {
    let weights: Vec<f64> = shares.iter().map(|(_, share)| *share).collect();
    shares[random.weighted(&weights)].0
}

fn customer(options: &SimulationOptions, index: u32) -> Customer {
    const FIRST: [&str; 12] = [
        "Aisha", "Omar", "Fatima", "Khalid", "Mariam", "Saeed", "Priya", "Arjun", "Layla",
        "Hassan", "Noura", "Yusuf",
    ];
    const LAST: [&str; 10] = [
        "Al Mansoori",
        "Al Nuaimi",
        "Al Marri",
        "Khan",
        "Sharma",
        "Haddad",
        "Al Shamsi",
        "Fernandes",
        "Rahman",
        "Al Zaabi",
    ];
    let mut random = Random::new(options.seed, 5 << 40 | u64::from(index));
    let segment = pick(&mut random, &[("retail", 0.82), ("premium", 0.13), ("business", 0.05)]);
    let limit = match segment {
        "retail" => 1_500_000,
        "premium" => 8_000_000,
        _ => 20_000_000,
    };
    let first = FIRST[random.below(12) as usize];
    let last = LAST[random.below(10) as usize];
    Customer {
        index,
        segment,
        city: pick(&mut random, &CITIES),
        name: format!("{first} {last}"),
        phone: format!("+97150{:07}", random.below(10_000_000)),
        joined_days: (options.start_us / DAY_US) as i32 - random.below(3_650) as i32,
        limit_fils: limit,
        event_time: options.start_us - DAY_US,
    }
}

fn merchant(options: &SimulationOptions, index: u32) -> Merchant {
    let mut random = Random::new(options.seed, 6 << 40 | u64::from(index));
    let shares = CATEGORIES.map(|(code, share, ..)| (code, share));
    Merchant {
        index,
        category: pick(&mut random, &shares),
        city: pick(&mut random, &CITIES),
        risk_tier: pick(&mut random, &[("low", 0.7), ("medium", 0.22), ("high", 0.08)]),
        event_time: options.start_us - DAY_US,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Simulation {
        Simulation::new(SimulationOptions {
            payments: 20_000,
            customers: 300,
            merchants: 80,
            ..Default::default()
        })
    }

    fn payments(simulation: &Simulation) -> Vec<Payment> {
        let happenings = simulation.happenings();
        happenings
            .into_iter()
            .filter_map(|h| match h {
                Happening::Payment(p) => Some(p),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_events() {
        assert_eq!(small().happenings(), small().happenings());
        let other = Simulation::new(SimulationOptions { seed: 1, ..small().options().clone() });
        assert_ne!(payments(&small())[0], payments(&other)[0]);
    }

    #[test]
    fn late_out_of_order_and_malformed_events_are_among_them() {
        let payments = payments(&small());
        assert_eq!(payments.len(), 20_000);
        let mut latest = i64::MIN;
        let mut late = 0;
        for payment in &payments {
            late += usize::from(payment.event_time < latest);
            latest = latest.max(payment.event_time);
        }
        let flawed = payments.iter().filter(|p| p.flaw.is_some()).count();
        assert!(late > 1_000, "{late}");
        assert!((20..150).contains(&flawed), "{flawed}");
        assert!(payments.iter().any(|p| p.arrival - p.event_time > 3_600 * SECOND_US));
    }

    #[test]
    fn behaviour_drifts_halfway() {
        let simulation = small();
        let (before, after): (Vec<_>, Vec<_>) =
            payments(&simulation).into_iter().partition(|p| p.event_time < simulation.drift_us());
        let online = |set: &[Payment]| {
            set.iter().filter(|p| p.channel == "online").count() as f64 / set.len() as f64
        };
        assert!(online(&after) - online(&before) > 0.15);
        let median = |mut set: Vec<Payment>| {
            set.sort_by_key(|p| p.amount_fils);
            set[set.len() / 2].amount_fils
        };
        assert!(median(after) as f64 / median(before) as f64 > 1.3);
    }

    #[test]
    fn outcomes_follow_their_payments_in_files() {
        let simulation = small();
        let outcomes: Vec<Outcome> = simulation
            .happenings()
            .into_iter()
            .filter_map(|happening| match happening {
                Happening::Settled(outcome) => Some(outcome),
                _ => None,
            })
            .collect();
        assert!(outcomes.len() > 15_000, "{}", outcomes.len());
        assert!(outcomes.iter().all(|o| o.settled_at > o.payment.arrival + 7 * HOUR_US));
        let share = |after: bool| {
            let of: Vec<_> = outcomes
                .iter()
                .filter(|o| (o.payment.event_time >= simulation.drift_us()) == after)
                .collect();
            of.iter().filter(|o| o.fraud).count() as f64 / of.len() as f64
        };
        assert!((0.01..0.3).contains(&share(false)), "{}", share(false));
        assert!((0.01..0.3).contains(&share(true)), "{}", share(true));
        let at_tills = |after: bool| {
            let frauds = outcomes
                .iter()
                .filter(|o| o.fraud && (o.payment.event_time >= simulation.drift_us()) == after);
            let frauds: Vec<_> = frauds.collect();
            let tills = frauds.iter().filter(|o| o.payment.channel != "online").count();
            tills as f64 / frauds.len() as f64
        };
        assert!(at_tills(true) > at_tills(false) + 0.1);
    }

    #[test]
    fn tables_come_first_and_change_later() {
        let happenings = small().happenings();
        assert!(matches!(happenings[0], Happening::Merchant(_)));
        assert!(matches!(happenings[379], Happening::Customer(_)));
        assert!(happenings[380..].iter().any(|h| matches!(h, Happening::Merchant(_))));
        assert!(happenings[380..].iter().any(|h| matches!(h, Happening::CustomerGone(_))));
    }
}
