//! Events at random: late, out of order, dated ahead, of equal event time, repeated; rows of tables
//! that come, change, go and come back.
//!
//! Does not know views.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use falaj_definitions::catalog::Catalog;
use falaj_event::{Op, TopicSchema, Value};

use super::{ACCOUNTS, SALES, SHOPS, schema};
use crate::history::{Arrival, SECOND};
use crate::random::Random;

/// Which floats events carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floats {
    /// Finite, of everyday size: a SQL engine's own sums come near.
    Everyday,
    /// Anything: NaN, infinities, both zeros, subnormals, the greatest and the least.
    Anything,
}

/// What to draw.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The stream of draws.
    pub seed: u64,
    /// Number of arrivals.
    pub count: usize,
    /// Which floats.
    pub floats: Floats,
    /// Whether event times of sales are all different (then the order of events does not depend on
    /// how they are cut into epochs).
    pub distinct_times: bool,
}

/// Where histories begin: not on a minute, so that grids of hops are met anywhere.
const START: i64 = 1_700_000_017 * SECOND;

struct Draw {
    random: Random,
    floats: Floats,
    distinct_times: bool,
    now: i64,
    sales: Arc<TopicSchema>,
    shops: Arc<TopicSchema>,
    accounts: Arc<TopicSchema>,
    live: BTreeMap<&'static str, Vec<String>>,
    arrivals: Vec<Arrival>,
}

/// Arrivals on the generated topics.
///
/// # Errors
/// When `catalog` lacks them.
pub fn draw(catalog: &Catalog, options: Options) -> Result<Vec<Arrival>> {
    let mut draw = Draw {
        random: Random::new(options.seed),
        floats: options.floats,
        distinct_times: options.distinct_times,
        now: START,
        sales: schema(catalog, SALES)?,
        shops: schema(catalog, SHOPS)?,
        accounts: schema(catalog, ACCOUNTS)?,
        live: BTreeMap::new(),
        arrivals: Vec::new(),
    };
    while draw.arrivals.len() < options.count {
        draw.step();
    }
    Ok(draw.arrivals)
}

fn text(value: impl AsRef<str>) -> Value {
    Value::String(value.as_ref().into())
}

impl Draw {
    fn step(&mut self) {
        self.now += match self.random.below(40) {
            0 => self.random.between(600, 5_000) * SECOND,
            1..=4 => self.random.between(30, 400) * SECOND,
            5..=20 => self.random.between(0, 12) * SECOND,
            21..=24 => self.random.between(0, 3 * SECOND),
            _ => 0,
        };
        match self.random.below(100) {
            0..=13 => self.table(SHOPS),
            14..=22 => self.table(ACCOUNTS),
            23..=27 => self.again(),
            _ => self.sale(),
        }
    }

    fn push(&mut self, topic: &Arc<TopicSchema>, op: Op, cells: Vec<Value>) {
        self.arrivals.push(Arrival { at: self.now, topic: Arc::clone(topic), op, cells });
    }

    /// An event time near now: most a little late, some very, some ahead, some equal to another's.
    fn time(&mut self) -> i64 {
        if self.distinct_times {
            let late = self.random.between(0, 400) * SECOND;
            return self.now - late + self.arrivals.len() as i64;
        }
        let shift = match self.random.below(20) {
            0..=8 => 0,
            9..=12 => -self.random.between(0, 20),
            13..=15 => -self.random.between(0, 400),
            16 => -self.random.between(0, 7_200),
            17 => self.random.between(0, 290),
            _ => {
                let times = self.arrivals.iter().rev().take(12);
                let times: Vec<i64> =
                    times.map(|a| crate::history::event_time(&a.topic, &a.cells)).collect();
                return if times.is_empty() { self.now } else { *self.random.pick(&times) };
            }
        };
        self.now + shift * SECOND
    }

    fn sale(&mut self) {
        let random = &mut self.random;
        let account = format!("a{}", random.below(6));
        let shop = match random.below(10) {
            0 => Value::Null,
            1 => text("nowhere"),
            _ => text(format!("s{}", random.below(5))),
        };
        let region = *random.pick(&["north", "south", "East", ""]);
        let amount = random.between(-40, 120);
        let units = if random.chance(20) { Value::Null } else { Value::Int(random.between(0, 9)) };
        let price = match random.chance(15) {
            true => Value::Null,
            false => Value::Decimal(i128::from(random.between(-99_999, 999_999)), 2),
        };
        let paid = Value::Bool(random.chance(60));
        let due = match random.chance(30) {
            true => Value::Null,
            false => Value::Date(i32::try_from(random.between(19_000, 19_006)).unwrap_or(0)),
        };
        let score = if self.random.chance(20) { Value::Null } else { Value::Float64(self.float()) };
        #[allow(clippy::cast_possible_truncation)]
        let ratio = Value::Float32(self.float() as f32);
        let at = Value::Timestamp(self.time());
        let cells = vec![
            text(account),
            at,
            shop,
            text(region),
            Value::Int(amount),
            units,
            price,
            score,
            ratio,
            paid,
            due,
        ];
        let topic = Arc::clone(&self.sales);
        self.push(&topic, Op::Insert, cells);
    }

    /// An earlier sale once more, or one like it at the same event time.
    fn again(&mut self) {
        let sales = self.arrivals.iter().filter(|a| a.topic.name == SALES);
        let sales: Vec<Vec<Value>> = sales.rev().take(20).map(|a| a.cells.clone()).collect();
        if sales.is_empty() || self.distinct_times {
            return self.sale();
        }
        let mut cells = self.random.pick(&sales).clone();
        if self.random.chance(50) {
            cells[4] = Value::Int(self.random.between(-40, 120));
            cells[3] = text(*self.random.pick(&["north", "south"]));
        }
        let topic = Arc::clone(&self.sales);
        self.push(&topic, Op::Insert, cells);
    }

    fn table(&mut self, name: &'static str) {
        let live = self.live.entry(name).or_default();
        let goes = !live.is_empty() && self.random.chance(30);
        let prefix = if name == SHOPS { "s" } else { "a" };
        let key = match goes {
            true => live.remove(usize::try_from(self.random.below(live.len() as u64)).unwrap_or(0)),
            false => format!("{prefix}{}", self.random.below(6)),
        };
        if !goes && !live.contains(&key) {
            live.push(key.clone());
        }
        let late = if self.random.chance(30) { self.random.between(0, 600) } else { 0 };
        let ahead = if self.random.chance(8) { self.random.between(0, 200) } else { 0 };
        let time = Value::Timestamp(self.now + (ahead - late) * SECOND);
        let topic = Arc::clone(if name == SHOPS { &self.shops } else { &self.accounts });
        let mut cells = vec![text(key), time];
        if goes {
            cells.resize(topic.columns.len(), Value::Null);
            return self.push(&topic, Op::Delete, cells);
        }
        let random = &mut self.random;
        if name == SHOPS {
            let tier = if random.chance(15) {
                Value::Null
            } else {
                text(*random.pick(&["gold", "silver", "lead"]))
            };
            let ceiling =
                if random.chance(20) { Value::Null } else { Value::Int(random.between(0, 60)) };
            cells.extend([tier, ceiling, Value::Float64(self.float())]);
        } else {
            let segment = text(*random.pick(&["small", "large"]));
            let allowance = match random.chance(20) {
                true => Value::Null,
                false => Value::Decimal(i128::from(random.between(0, 100_000)), 2),
            };
            cells.extend([segment, allowance]);
        }
        self.push(&topic, Op::Upsert, cells);
    }

    fn float(&mut self) -> f64 {
        let random = &mut self.random;
        let everyday = match random.below(4) {
            0 => random.between(-400, 4_000) as f64 / 8.0,
            1 => random.between(-1_000_000, 1_000_000) as f64 / 999.0,
            2 => random.between(0, 1_000) as f64 / 1_000.0,
            _ => random.between(1, 100) as f64 * 0.1,
        };
        if self.floats == Floats::Everyday {
            return everyday;
        }
        const STRANGE: [f64; 14] = [
            0.0,
            -0.0,
            f64::MIN_POSITIVE,
            -5e-324,
            5e-324,
            f64::MAX,
            -f64::MAX,
            1e300,
            -1e300,
            1e-300,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            9_007_199_254_740_993.0,
        ];
        match random.below(12) {
            0 => *random.pick(&STRANGE[..7]),
            1 => *random.pick(&STRANGE[7..10]),
            2 if random.chance(40) => *random.pick(&STRANGE[10..]),
            3 => everyday * 1e16,
            4 => f64::from_bits(random.bits() & !(1 << 62)),
            _ => everyday,
        }
    }
}
