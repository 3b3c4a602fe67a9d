//! Views equal their oracles: those of the source tree and generated ones, at every epoch, bit for
//! bit.
//!
//! Every comparison is double. The reference computes the view from scratch from its plan and raw
//! events, in fractions of unlimited size, and every column must have its very bits. The oracle's SQL,
//! made from the view's text, is run from scratch by another engine: it checks what the plan means.
//! A failure names the seed, the view, the epoch, the key and both values; `FALAJ_SEED=n` runs that
//! seed alone and `FALAJ_SLOW=1` many more.

/// Through a whole node.
mod node;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::Array;
use falaj_definitions::catalog::Catalog;
use falaj_event::cells::Cells;
use falaj_event::encoding::{decode_row, encode_row};
use falaj_event::{EpochChanges, LogTime, Value};
use falaj_node::demo::simulation::SimulationOptions;
use kit::check::{Sample, Tally, check, compare, compare_with};
use kit::engine::{Contents, Run, changes};
use kit::generate::arrivals::{self, Floats, Options};
use kit::generate::views::{self, Taste};
use kit::history::{Arrival, Clock, History, SECOND, closes};
use kit::oracle::SqlOracle;
use kit::random::Random;

/// The seeds to run: `few`, or `many` of them where the slow tests were asked for, or the one that
/// `FALAJ_SEED` names.
fn seeds(what: &str, few: Range<u64>, many: u64) -> Vec<u64> {
    if let Some(seed) = std::env::var("FALAJ_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return vec![seed];
    }
    let more = kit::slow(&format!("{many} seeds of {what} rather than {}", few.end - few.start));
    if more { (few.start..few.start + many).collect() } else { few.collect() }
}

fn report(what: &str, tally: &[Tally]) {
    let rows: u64 = tally.iter().map(|tally| tally.rows).sum();
    let queries: u64 = tally.iter().map(|tally| tally.queries).sum();
    println!("{what}: {rows} rows equal the reference, {queries} SQL results agree");
    assert!(rows > 0);
}

// ---- the views of the source tree ----

fn simulated(options: SimulationOptions, clock: Clock, most: u64, sample: Sample) -> Result<Tally> {
    let catalog = kit::node::own_catalog()?;
    let seed = options.seed;
    let arrivals = kit::simulated::arrivals(&catalog, options)?;
    let mut random = Random::new(seed);
    let ticks = if clock == Clock::Wall { 1 } else { 0 };
    let closes = closes(&mut random, &arrivals, most, ticks);
    let history = History::cut(&arrivals, &closes, clock);
    println!("{} arrivals in {} epochs, {clock:?} clock", arrivals.len(), history.epochs.len());
    check(&catalog, &history, Run::default(), sample).with_context(|| format!("simulation {seed}"))
}

/// A few weeks in a few hundred payments: every window fills and empties.
fn small(seed: u64) -> SimulationOptions {
    let base = SimulationOptions::default();
    SimulationOptions { seed, payments: 260, days: 40, customers: 12, merchants: 9, ..base }
}

#[test]
fn own_views_equal_their_oracles_at_every_epoch() {
    let sample = Sample { reference: 1, sql: 1 };
    let tally = [
        simulated(small(7), Clock::Event, 22, sample).unwrap(),
        simulated(small(8), Clock::Wall, 30, sample).unwrap(),
    ];
    report("own views", &tally);
}

#[test]
fn own_views_equal_their_oracles_over_thousands_of_payments() {
    let base = SimulationOptions::default();
    let options = SimulationOptions {
        seed: 11,
        payments: 3_000,
        days: 6,
        customers: 60,
        merchants: 20,
        ..base
    };
    let slow = kit::slow("own views at every epoch of a larger simulation");
    let every = if slow { 1 } else { 40 };
    let sample = Sample { reference: every.min(10), sql: every };
    report("own views", &[simulated(options, Clock::Event, 40, sample).unwrap()]);
}

#[test]
fn own_views_equal_their_oracles_in_duckdb() {
    let Some(python) = kit::duckdb::python() else { return };
    let catalog = kit::node::own_catalog().unwrap();
    let arrivals = kit::simulated::arrivals(&catalog, small(9)).unwrap();
    let closes = closes(&mut Random::new(9), &arrivals, 22, 0);
    let history = History::cut(&arrivals, &closes, Clock::Event);
    let sql = SqlOracle::new(&catalog, &history).unwrap().in_duckdb(python).unwrap();
    let changes = changes(&catalog.views, &history, Run::default()).unwrap();
    // A few times on the way, and the end.
    let sample = Sample { reference: 0, sql: (history.epochs.len() as u64 / 3).max(1) };
    let tally = compare_with(&sql, &catalog, &history, &changes, sample).unwrap();
    assert!(tally.queries >= 3 * catalog.views.len() as u64);
    println!("own views: {} results of DuckDB agree", tally.queries);
}

// ---- generated views ----

struct Generated {
    catalog: Arc<Catalog>,
    arrivals: Vec<Arrival>,
    texts: String,
}

fn generated(seed: u64, count: usize, floats: Floats) -> Result<Generated> {
    let views = views::draw(seed, Taste { any_key_order: true });
    let texts = views.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("\n");
    let catalog = kit::generate::catalog(&views).with_context(|| texts.clone())?;
    let options = Options { seed, count, floats, distinct_times: false };
    let arrivals = arrivals::draw(&catalog, options)?;
    Ok(Generated { catalog, arrivals, texts })
}

fn run_generated(seed: u64, count: usize, floats: Floats, sample: Sample) -> Result<Tally> {
    let made = generated(seed, count, floats)?;
    let mut random = Random::new(seed);
    let clock = if seed.is_multiple_of(2) { Clock::Event } else { Clock::Wall };
    let closes = closes(&mut random, &made.arrivals, 12, 1);
    let history = History::cut(&made.arrivals, &closes, clock);
    let run = Run { workers: 1 + usize::from(seed.is_multiple_of(3)), ..Run::default() };
    check(&made.catalog, &history, run, sample)
        .with_context(|| format!("seed {seed}, {clock:?} clock, views:\n{}", made.texts))
}

fn equal_at_every_epoch(seeds: &[u64]) {
    let sample = Sample { reference: 1, sql: 1 };
    let tally: Vec<Tally> = seeds
        .iter()
        .map(|&seed| {
            run_generated(seed, 130, Floats::Everyday, sample)
                .unwrap_or_else(|error| panic!("{error:?}"))
        })
        .collect();
    report("generated views", &tally);
}

#[test]
fn generated_views_equal_their_oracles_at_every_epoch() {
    equal_at_every_epoch(&seeds("generated views", 0..8, 200));
}

#[test]
fn more_generated_views_equal_their_oracles_at_every_epoch() {
    equal_at_every_epoch(&seeds("more generated views", 1_000..1_008, 200));
}

#[test]
fn floats_of_any_size_are_exact_and_rounded_once() {
    let sample = Sample { reference: 1, sql: 0 };
    let tally: Vec<Tally> = seeds("strange floats", 2_000..2_040, 2_000)
        .into_iter()
        .map(|seed| {
            run_generated(seed, 160, Floats::Anything, sample)
                .unwrap_or_else(|error| panic!("{error:?}"))
        })
        .collect();
    report("views of strange floats", &tally);
}

/// A comparison that could not fail would prove nothing: any one change that is lost, doubled or
/// altered by its least bit is found, by the reference and by the SQL.
#[test]
fn a_row_that_is_wrong_is_found() {
    let made = generated(4, 60, Floats::Everyday).unwrap();
    let history = History::cut(
        &made.arrivals,
        &closes(&mut Random::new(4), &made.arrivals, 12, 1),
        Clock::Wall,
    );
    let right = changes(&made.catalog.views, &history, Run::default()).unwrap();
    let sets =
        |changes: &EpochChanges| changes.rows.last().is_some_and(|change| change.row.is_some());
    let last = right.iter().rposition(sets).unwrap();
    let by_reference = Sample { reference: 1, sql: 0 };
    let by_sql = Sample { reference: 0, sql: 1 };
    let fails = |wrong: &[EpochChanges], sample, needle: &str| {
        let error = format!("{:?}", compare(&made.catalog, &history, wrong, sample).unwrap_err());
        assert!(error.contains(needle), "{error}");
    };
    compare(&made.catalog, &history, &right, by_reference).unwrap();
    compare(&made.catalog, &history, &right, by_sql).unwrap();

    let mut lost = right.clone();
    let gone = lost[last].rows.pop().unwrap();
    fails(&lost, by_reference, "the reference");
    let mut unset = right.clone();
    let row = unset[last].rows.last_mut().unwrap();
    assert_eq!(row.key, gone.key);
    row.row = None;
    fails(&unset, by_reference, "no row");
    let mut early = right.clone();
    for row in early[last].rows.iter_mut().filter_map(|change| change.row.as_mut()) {
        row.latest_event_time -= 1;
    }
    fails(&early, by_reference, "latest event");

    // A counter that is one too high, at the end of every row of the view that others read.
    let below = made.catalog.view("below").unwrap();
    let mut more = right.clone();
    for row in
        more.iter_mut().flat_map(|changes| &mut changes.rows).filter(|row| row.view == below.id)
    {
        let Some(row) = row.row.as_mut() else { continue };
        let mut cells = decode_row(&row.columns).unwrap();
        let count = below.output.iter().position(|column| column.name == "n").unwrap();
        let Value::Int(n) = &mut cells[count] else { panic!("a count") };
        *n += 1;
        row.columns = encode_row(&cells);
    }
    fails(&more, by_reference, "below");
    fails(&more, by_sql, "column `n`");
}

// ---- one event per epoch, in order: the plain SELECT ----

const PLAIN: &str = "SELECT account, at,
       count(*) OVER minute AS n_1m,
       sum(amount) OVER minute AS sum_1m,
       min(amount) OVER minute AS min_1m,
       max(price) OVER minute AS max_1m,
       count(*) OVER three AS n_3,
       sum(price) OVER three AS sum_3,
       avg(score) OVER ten AS avg_10m,
       count(units) OVER ten AS units_10m,
       last_value(region) OVER ten AS region,
       first_value(region) OVER three AS third_region,
       sum(amount) OVER ever AS sum_ever,
       amount, upper(region) AS loud_region
FROM sales
WINDOW minute AS (PARTITION BY account ORDER BY at RANGE BETWEEN INTERVAL '1 minute' PRECEDING AND CURRENT ROW),
       ten AS (PARTITION BY account ORDER BY at RANGE BETWEEN INTERVAL '10 minutes' PRECEDING AND CURRENT ROW),
       three AS (PARTITION BY account ORDER BY at ROWS BETWEEN 2 PRECEDING AND CURRENT ROW),
       ever AS (PARTITION BY account ORDER BY at RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)";

/// With one event per epoch and data in order, the view right after an event is that event's row in
/// the result of its plain SELECT, which any SQL engine runs as it stands.
#[test]
fn a_view_right_after_an_event_is_that_events_row_of_the_plain_select() {
    let view = ("plain".to_owned(), format!("CREATE VIEW plain AS {PLAIN};"));
    let catalog = kit::generate::catalog(&[view]).unwrap();
    let options = Options { seed: 5, count: 400, floats: Floats::Everyday, distinct_times: false };
    let mut arrivals = arrivals::draw(&catalog, options).unwrap();
    arrivals.retain(|arrival| arrival.topic.name == kit::generate::SALES);
    for (index, arrival) in arrivals.iter_mut().enumerate() {
        let column = arrival.topic.event_time;
        arrival.cells[column] =
            Value::Timestamp(arrival.at + i64::try_from(index).unwrap() * SECOND);
    }
    let mut one_each = Random::new(5);
    let history = History::cut(&arrivals, &closes(&mut one_each, &arrivals, 1, 0), Clock::Event);
    assert_eq!(history.epochs.len(), arrivals.len());
    let plan = &catalog.views[0];
    let sql = SqlOracle::new(&catalog, &history).unwrap();
    let mut expected: BTreeMap<(Value, Value), Vec<Value>> = BTreeMap::new();
    for batch in sql.query(PLAIN, &plan.output).unwrap() {
        let cells: Vec<Vec<Value>> = plan
            .output
            .iter()
            .zip(batch.columns())
            .map(|(column, array)| {
                let array = arrow::compute::cast(array, &column.column_type.to_arrow()).unwrap();
                let cells = Cells::new(array.as_ref()).unwrap();
                (0..array.len()).map(|row| cells.value(row)).collect()
            })
            .collect();
        for row in 0..batch.num_rows() {
            let row: Vec<Value> = cells.iter().map(|column| column[row].clone()).collect();
            expected.insert((row[0].clone(), row[1].clone()), row);
        }
    }
    let mut contents = Contents::default();
    for (epoch, changes) in
        history.epochs.iter().zip(changes(&catalog.views, &history, Run::default()).unwrap())
    {
        contents.apply(&changes);
        let event = &epoch.events[0];
        assert_eq!(epoch.t, LogTime(u64::try_from(event.order.event_time).unwrap()));
        let (account, at) = (event.cells[0].clone(), event.cells[1].clone());
        let rows = contents.of(plan.id).unwrap();
        let found = decode_row(&rows[&encode_row([&account])].1).unwrap();
        let expected = &expected[&(account, at)];
        for (column, (found, expected)) in plan.output.iter().zip(found.iter().zip(expected)) {
            let close = match (found, expected) {
                (Value::Float64(a), Value::Float64(b)) => (a - b).abs() <= 1e-9 * a.abs().max(1.0),
                _ => found == expected,
            };
            assert!(
                close,
                "{} after epoch {}: {found:?}, {expected:?} in plain SQL",
                column.name, epoch.number
            );
        }
    }
}
