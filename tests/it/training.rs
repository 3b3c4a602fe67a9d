//! Training sets: every row is what the view would have been at the label's moment, over the events
//! that had happened before it and over nothing else.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use falaj_dataflow::EpochInput;
use falaj_dataflow::training::{Asked, Events, Options, TrainingError, as_corrected};
use falaj_definitions::catalog::Catalog;
use falaj_event::encoding::{decode_row, encode_row};
use falaj_event::{LogTime, Op, TopicId, Value, ViewRow};
use falaj_node::demo::simulation::SimulationOptions;
use kit::generate::arrivals::{self, Floats};
use kit::generate::views::{self, Taste};
use kit::history::{Arrival, Clock, Event, History, closes, event_time};
use kit::random::Random;
use kit::reference;

/// Chronon's quickstart data.
mod chronon;
/// Through a node's door.
mod door;

/// A history as the sweep reads it.
struct Known<'a>(&'a History);

impl Events for Known<'_> {
    fn scan(
        &self,
        topics: &[TopicId],
        each: &mut dyn FnMut(EpochInput) -> Result<ControlFlow<()>, TrainingError>,
    ) -> Result<(), TrainingError> {
        for number in 0..self.0.epochs.len() {
            let mut input = self.0.input(number as u64);
            input.topics.retain(|part| topics.contains(&part.topic.id()));
            if !input.topics.is_empty() && each(input)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// The same questions of every view of a catalog: one key per view and moment.
struct Questions {
    at: Vec<i64>,
    keys: Vec<Vec<Option<Vec<u8>>>>,
}

type Answers = Vec<Vec<Option<ViewRow>>>;

fn answers(catalog: &Catalog, history: &History, asked: &Questions, options: Options) -> Answers {
    let views: Vec<Asked<'_>> =
        catalog.views.iter().zip(&asked.keys).map(|(plan, keys)| Asked { plan, keys }).collect();
    as_corrected(&views, &asked.at, &Known(history), &options, &mut |_| {}).unwrap()
}

const ROOMY: Options = Options { threads: 2, memory_bytes: 1 << 30 };

/// Moments at, just before and just after events, and before and after all of them; keys that are
/// there, some twice, some not.
fn draw(random: &mut Random, catalog: &Catalog, history: &History, count: usize) -> Questions {
    let events: Vec<&Event> = history.epochs.iter().flat_map(|epoch| &epoch.events).collect();
    let times: Vec<i64> = events.iter().map(|event| event.order.event_time).collect();
    let mut at: Vec<i64> = (0..count)
        .map(|_| *random.pick(&times) + random.between(-1, 1) * random.between(0, 2))
        .collect();
    at.push(times.iter().min().unwrap() - 5);
    at.push(times.iter().max().unwrap() + 3_600_000_000);
    at.push(at[0]);
    let last = history.epochs.last().unwrap().t;
    let all = history.until(last);
    let keys = catalog.views.iter().map(|view| {
        let known: Vec<Vec<u8>> = reference::rows(view, &all, last).into_keys().collect();
        let mut keys: Vec<Option<Vec<u8>>> = at
            .iter()
            .map(|_| match random.below(10) {
                0 => None,
                1 => Some(encode_row([&Value::String("nobody".into())])),
                _ if known.is_empty() => None,
                _ => Some(random.pick(&known).clone()),
            })
            .collect();
        let first = keys[0].clone();
        *keys.last_mut().unwrap() = first;
        keys
    });
    let keys = keys.collect();
    Questions { at, keys }
}

/// Compares every answer with the view recomputed from scratch over the events before its moment.
fn equal_reference(catalog: &Catalog, history: &History, asked: &Questions) -> Result<u64> {
    let found = answers(catalog, history, asked, ROOMY);
    let all: Vec<&Event> = history.epochs.iter().flat_map(|epoch| &epoch.events).collect();
    let mut rows = 0;
    for (index, at) in asked.at.iter().enumerate() {
        let before: Vec<&Event> =
            all.iter().filter(|event| event.order.event_time < *at).copied().collect();
        let t = LogTime(u64::try_from(*at)?);
        for (view, plan) in catalog.views.iter().enumerate() {
            let Some(key) = &asked.keys[view][index] else {
                ensure!(found[view][index].is_none(), "a row for no key");
                continue;
            };
            let expected = reference::rows(plan, &before, t);
            let expected = expected.get(key);
            let own =
                found[view][index].as_ref().map(|row| (row.latest_event_time, row.columns.clone()));
            let show = |row: Option<&(i64, Vec<u8>)>| row.map(|row| (row.0, decode_row(&row.1)));
            ensure!(
                own.as_ref() == expected,
                "view {} at {at}, key {:?}: the training set has {:?}, the reference {:?}",
                plan.name,
                decode_row(key),
                show(own.as_ref()),
                show(expected),
            );
            rows += u64::from(expected.is_some());
        }
    }
    Ok(rows)
}

fn seeds(few: Range<u64>, many: u64) -> Vec<u64> {
    if let Some(seed) = std::env::var("FALAJ_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return vec![seed];
    }
    let more = kit::slow(&format!("{many} seeds of training sets rather than {}", few.end));
    if more { (few.start..few.start + many).collect() } else { few.collect() }
}

struct Generated {
    catalog: Arc<Catalog>,
    arrivals: Vec<Arrival>,
    history: History,
    texts: String,
}

/// With `distinct_times` no two events share one: ties are settled by the epoch's `T`, so what must not
/// depend on the cut into epochs is asked of such events.
fn generated(seed: u64, distinct_times: bool) -> Result<Generated> {
    let views = views::draw(seed, Taste { any_key_order: true });
    let texts = views.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("\n");
    let catalog = kit::generate::catalog(&views).with_context(|| texts.clone())?;
    let options = arrivals::Options { seed, count: 130, floats: Floats::Everyday, distinct_times };
    let arrivals = arrivals::draw(&catalog, options)?;
    let mut random = Random::new(seed);
    let history = History::cut(&arrivals, &closes(&mut random, &arrivals, 12, 1), Clock::Event);
    Ok(Generated { catalog, arrivals, history, texts })
}

#[test]
fn rows_of_generated_views_equal_the_reference_at_every_moment() {
    let mut rows = 0;
    for seed in seeds(0..12, 150) {
        let made = generated(seed, false).unwrap();
        let asked = draw(&mut Random::new(seed ^ 7), &made.catalog, &made.history, 24);
        rows += equal_reference(&made.catalog, &made.history, &asked)
            .with_context(|| format!("seed {seed}, views:\n{}", made.texts))
            .unwrap_or_else(|error| panic!("{error:?}"));
    }
    println!("{rows} rows equal the reference");
    assert!(rows > 200);
}

#[test]
fn rows_of_the_shipped_views_equal_the_reference_at_every_moment() {
    let base = SimulationOptions::default();
    let options =
        SimulationOptions { seed: 7, payments: 260, days: 40, customers: 12, merchants: 9, ..base };
    let catalog = kit::node::own_catalog().unwrap();
    let arrivals = kit::simulated::arrivals(&catalog, options).unwrap();
    let mut random = Random::new(7);
    let history = History::cut(&arrivals, &closes(&mut random, &arrivals, 22, 0), Clock::Event);
    let asked = draw(&mut random, &catalog, &history, 40);
    let rows =
        equal_reference(&catalog, &history, &asked).unwrap_or_else(|error| panic!("{error:?}"));
    println!("{rows} rows of {} views equal the reference", catalog.views.len());
    assert!(rows > 150);
}

/// Threads, slices of keys, the order of questions and the cut into epochs change nothing.
#[test]
fn rows_do_not_depend_on_how_they_are_computed() {
    for seed in seeds(40..44, 40) {
        let made = generated(seed, true).unwrap();
        let asked = draw(&mut Random::new(seed), &made.catalog, &made.history, 24);
        let base = answers(&made.catalog, &made.history, &asked, ROOMY);
        let alone = answers(&made.catalog, &made.history, &asked, Options { threads: 1, ..ROOMY });
        assert_eq!(base, alone, "seed {seed}");
        // So little memory that keys come in many slices; views over tables need more and are left out.
        let swept: Vec<usize> = (0..made.catalog.views.len())
            .filter(|&view| made.catalog.views[view].name == "below")
            .collect();
        for view in swept {
            let plan = &made.catalog.views[view];
            let tight = Options { threads: 3, memory_bytes: 600 };
            let only = [Asked { plan, keys: &asked.keys[view] }];
            let known = Known(&made.history);
            if let Ok(rows) = as_corrected(&only, &asked.at, &known, &tight, &mut |_| {}) {
                assert_eq!(rows[0], base[view], "seed {seed}");
            }
        }
        // Questions backwards.
        let back = Questions {
            at: asked.at.iter().rev().copied().collect(),
            keys: asked.keys.iter().map(|keys| keys.iter().rev().cloned().collect()).collect(),
        };
        let mut backwards = answers(&made.catalog, &made.history, &back, ROOMY);
        backwards.iter_mut().for_each(|rows| rows.reverse());
        assert_eq!(base, backwards, "seed {seed}");
        // The same log in other epochs.
        let closes = closes(&mut Random::new(seed + 1), &made.arrivals, 40, 0);
        let other = History::cut(&made.arrivals, &closes, Clock::Event);
        assert_eq!(base, answers(&made.catalog, &other, &asked, ROOMY), "seed {seed}");
    }
}

/// The log with its future rewritten: of the events at or after `moment`, some are gone, some say other
/// things, some come sooner or later, and there are new ones.
fn rewritten(random: &mut Random, arrivals: &[Arrival], moment: i64) -> Vec<Arrival> {
    let is_future = |arrival: &Arrival| event_time(&arrival.topic, &arrival.cells) >= moment;
    let future: Vec<&Arrival> = arrivals.iter().filter(|arrival| is_future(arrival)).collect();
    let mut changed: Vec<Arrival> = Vec::new();
    for arrival in arrivals {
        if !is_future(arrival) {
            changed.push(arrival.clone());
            continue;
        }
        match random.below(4) {
            0 => {}
            1 => {
                // What it says is what another one said, at its own time and key.
                let other = random.pick(&future);
                let mut altered = arrival.clone();
                if other.topic.name == arrival.topic.name && arrival.op != Op::Delete {
                    let kept = &arrival.topic;
                    for (index, cell) in other.cells.iter().enumerate() {
                        if index != kept.event_time && !kept.key.contains(&index) {
                            altered.cells[index] = cell.clone();
                        }
                    }
                    altered.op = if other.op == Op::Delete { arrival.op } else { other.op };
                }
                changed.push(altered);
            }
            2 => {
                changed.push(arrival.clone());
                let mut again = arrival.clone();
                let own = again.topic.event_time;
                again.cells[own] = Value::Timestamp(moment + random.between(0, 9_000_000_000));
                if again.op != Op::Delete {
                    changed.push(again);
                }
            }
            _ => {
                // In bulk, before anything else arrived.
                let first = usize::try_from(random.below(changed.len() as u64 + 1)).unwrap();
                changed.insert(first, arrival.clone());
            }
        }
    }
    for index in 1..changed.len() {
        changed[index].at = changed[index].at.max(changed[index - 1].at);
    }
    changed
}

#[test]
fn nothing_at_or_after_its_moment_changes_a_row() {
    let (mut rows, mut differing) = (0, 0);
    for seed in seeds(100..112, 200) {
        let made = generated(seed, true).unwrap();
        let mut random = Random::new(seed);
        let asked = draw(&mut random, &made.catalog, &made.history, 16);
        let base = answers(&made.catalog, &made.history, &asked, ROOMY);
        let moment = *random.pick(&asked.at);
        let arrivals = rewritten(&mut random, &made.arrivals, moment);
        let closes = closes(&mut random, &arrivals, 30, 0);
        let history = History::cut(&arrivals, &closes, Clock::Event);
        let after = answers(&made.catalog, &history, &asked, ROOMY);
        for (view, plan) in made.catalog.views.iter().enumerate() {
            for (index, at) in asked.at.iter().enumerate() {
                if *at <= moment {
                    assert_eq!(
                        base[view][index], after[view][index],
                        "seed {seed}, view {} at {at}, rewritten from {moment}\n{}",
                        plan.name, made.texts
                    );
                    rows += u64::from(base[view][index].is_some());
                } else {
                    differing += u64::from(base[view][index] != after[view][index]);
                }
            }
        }
    }
    println!("{rows} rows unchanged, {differing} later ones changed");
    assert!(rows > 100 && differing > 20, "the rewriting must be felt where it may be");
}

#[test]
fn no_labels_and_no_events_are_no_rows() {
    let made = generated(3, false).unwrap();
    let none = Questions { at: Vec::new(), keys: vec![Vec::new(); made.catalog.views.len()] };
    assert!(answers(&made.catalog, &made.history, &none, ROOMY).iter().all(Vec::is_empty));
    let empty = History::default();
    let asked = draw(&mut Random::new(3), &made.catalog, &made.history, 4);
    let found = answers(&made.catalog, &empty, &asked, ROOMY);
    assert!(found.iter().all(|rows| rows.len() == asked.at.len()));
    assert!(found.iter().flatten().all(Option::is_none));
}
