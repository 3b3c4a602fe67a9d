//! One log has one state: whatever the workers, the epochs in flight, the epochs per write, the
//! restarts and rebuilds. And what is cut into other epochs has the same values at equal `T`.

use std::collections::BTreeSet;
use std::sync::Arc;

use falaj_definitions::catalog::Catalog;
use falaj_event::{EventTime, Hash256, LogTime};
use falaj_node::demo::simulation::SimulationOptions;
use falaj_views::ViewStore;
use kit::check::{equal, equals_reference};
use kit::engine::{Contents, Run, changes};
use kit::generate::arrivals::{self, Floats, Options};
use kit::generate::views::{self, Taste};
use kit::history::{Clock, Close, History, closes};
use kit::random::Random;
use kit::state;

/// Checkpoints are part of the state, so their rhythm is part of the set-up.
const CHECKPOINT_EVERY: u64 = 7;

fn run(workers: usize, in_flight: usize) -> Run {
    Run { workers, in_flight, checkpoint_every: CHECKPOINT_EVERY }
}

/// A generated log under generated views, or the simulation under the source tree's own.
fn subject(seed: u64) -> (Arc<Catalog>, History) {
    let mut random = Random::new(seed);
    let (catalog, arrivals) = if seed == 0 {
        let catalog = kit::node::own_catalog().unwrap();
        let base = SimulationOptions::default();
        let options =
            SimulationOptions { payments: 900, days: 50, customers: 25, merchants: 12, ..base };
        let arrivals = kit::simulated::arrivals(&catalog, options).unwrap();
        (catalog, arrivals)
    } else {
        let catalog =
            kit::generate::catalog(&views::draw(seed, Taste { any_key_order: true })).unwrap();
        let options = Options { seed, count: 500, floats: Floats::Anything, distinct_times: false };
        let arrivals = arrivals::draw(&catalog, options).unwrap();
        (catalog, arrivals)
    };
    let clock = if seed.is_multiple_of(2) { Clock::Event } else { Clock::Wall };
    let closes = closes(&mut random, &arrivals, 14, 1);
    (catalog, History::cut(&arrivals, &closes, clock))
}

fn seeds() -> Vec<u64> {
    let more = kit::slow("digests of 60 generated sets of views rather than 3");
    (0..if more { 60 } else { 4 }).collect()
}

fn built(
    catalog: &Arc<Catalog>,
    history: &History,
    run: Run,
    together: usize,
) -> (tempfile::TempDir, ViewStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = state::open(folder.path(), catalog, true).unwrap();
    state::advance(&store, catalog, history, run, together, history.epochs.len() as u64).unwrap();
    (folder, store)
}

fn digest(store: &ViewStore) -> Hash256 {
    state::digest(store).unwrap().digest
}

fn same(store: &ViewStore, reference: &ViewStore, what: &str) {
    let comparison = reference.compare(store, 3).unwrap();
    let first: Vec<&str> = comparison.first.iter().map(|d| d.description.as_str()).collect();
    assert!(
        comparison.is_equal(),
        "{what}: {} of {} entries differ: {first:#?}",
        comparison.differing,
        comparison.entries
    );
    assert_eq!(digest(store), digest(reference), "{what}");
}

#[test]
fn state_does_not_depend_on_workers_or_epochs_in_flight_or_per_write() {
    for seed in seeds() {
        let (catalog, history) = subject(seed);
        let (_folder, reference) = built(&catalog, &history, run(1, 1), 1);
        assert!(
            state::digest(&reference).unwrap().families.iter().all(|family| family.entries > 0)
        );
        for (workers, in_flight, together) in [(2, 1, 1), (1, 9, 4), (2, 33, 16), (3, 5, 1_000)] {
            let (_folder, store) = built(&catalog, &history, run(workers, in_flight), together);
            let what = format!(
                "seed {seed}, {workers} workers, {in_flight} in flight, {together} per write"
            );
            same(&store, &reference, &what);
        }
    }
}

#[test]
fn state_does_not_depend_on_restarts_or_rebuilds() {
    for seed in seeds() {
        let (catalog, history) = subject(seed);
        let (_folder, reference) = built(&catalog, &history, run(1, 4), 3);
        let last = history.epochs.len() as u64;
        let folder = tempfile::tempdir().unwrap();
        let mut random = Random::new(seed ^ 0xFA11);
        let mut epoch = 0;
        let mut restarts = 0;
        while epoch < last {
            // Every other time the store falls back to what it had flushed, as after a crash.
            let store = state::open(folder.path(), &catalog, restarts % 2 == 0).unwrap();
            let rows = store.progress().rows.map_or(0, |rows| rows.epoch + 1);
            assert!(rows <= epoch);
            epoch = (epoch + 1 + random.below(last / 6)).min(last);
            let workers = 1 + usize::try_from(random.below(3)).unwrap();
            let together = 1 + usize::try_from(random.below(5)).unwrap();
            state::advance(&store, &catalog, &history, run(workers, 3), together, epoch).unwrap();
            assert_eq!(store.progress().rows.unwrap().epoch + 1, epoch);
            if restarts % 3 == 1 {
                store.flush().unwrap();
            }
            restarts += 1;
        }
        let store = state::open(folder.path(), &catalog, true).unwrap();
        state::advance(&store, &catalog, &history, run(2, 3), 2, last).unwrap();
        assert!(restarts > 4);
        same(&store, &reference, &format!("seed {seed}, {restarts} restarts"));
        drop(store);
        ViewStore::destroy(folder.path()).unwrap();
        let store = state::open(folder.path(), &catalog, true).unwrap();
        assert_eq!(store.progress().rows, None);
        state::advance(&store, &catalog, &history, run(2, 8), 8, last).unwrap();
        same(&store, &reference, &format!("seed {seed}, rebuilt"));
    }
}

/// The greatest epoch `T <= t`.
fn epoch_at(history: &History, t: u64) -> Option<LogTime> {
    history.epochs.iter().map(|epoch| epoch.t).take_while(|epoch| epoch.0 <= t).last()
}

#[test]
fn a_read_as_of_any_time_gives_the_view_at_the_epoch_before_it() {
    for seed in [0, 1, 2] {
        let (catalog, history) = subject(seed);
        let (_folder, store) = built(&catalog, &history, run(2, 8), 4);
        let newest = history.epochs.last().unwrap().t;
        let mut random = Random::new(seed);
        let mut moments = BTreeSet::from([newest.0]);
        for pair in history.epochs.windows(2) {
            if random.chance(if seed == 0 { 15 } else { 40 }) {
                let gap = i64::try_from(pair[1].t.0 - pair[0].t.0).unwrap();
                let within = u64::try_from(random.between(0, gap)).unwrap();
                moments.extend([pair[0].t.0, pair[0].t.0 + within, pair[1].t.0 - 1]);
            }
        }
        let mut compared = 0;
        for moment in moments {
            let Some(t) = epoch_at(&history, moment) else { continue };
            let events = history.until(t);
            for view in &catalog.views {
                if store.snapshot().unwrap().oldest(view.id).unwrap() > t {
                    continue;
                }
                let found = state::rows(&store, view.id, Some(t)).unwrap();
                let expected = kit::reference::rows(view, &events, t);
                equal(&found, &expected).unwrap_or_else(|error| {
                    panic!("seed {seed}, view {} as of {moment}: {error:?}", view.name)
                });
                compared += 1;
            }
        }
        assert!(compared > 20, "{compared}");
    }
}

/// Drops some closes, but never the last.
fn coarser(random: &mut Random, closes: &[Close]) -> Vec<Close> {
    let last = closes.len() - 1;
    let kept =
        |(index, close): (usize, &Close)| (index == last || random.chance(35)).then_some(*close);
    closes.iter().enumerate().filter_map(kept).collect()
}

#[test]
fn other_epoch_cuts_give_equal_values_at_equal_times() {
    let seeds = if kit::slow("80 seeds of other cuts rather than 8") { 0..80 } else { 0..8 };
    for seed in seeds {
        // Values are compared, so events must come in one order however they are cut: no two of
        // different keys share an event time, and order across keys is only asked of such views.
        let catalog =
            kit::generate::catalog(&views::draw(seed, Taste { any_key_order: false })).unwrap();
        let options = Options { seed, count: 260, floats: Floats::Anything, distinct_times: true };
        let arrivals = arrivals::draw(&catalog, options).unwrap();
        let mut random = Random::new(seed);
        let mut fine = closes(&mut random, &arrivals, 6, 1);
        // One close per moment: then T is the wall clock, and a coarser cut has a part of its times.
        fine.reverse();
        fine.dedup_by_key(|close| close.wall);
        fine.reverse();
        let coarse = coarser(&mut random, &fine);
        let fine = History::cut(&arrivals, &fine, Clock::Wall);
        let coarse = History::cut(&arrivals, &coarse, Clock::Wall);
        let fine_changes = changes(&catalog.views, &fine, run(2, 4)).unwrap();
        let coarse_changes = changes(&catalog.views, &coarse, run(1, 4)).unwrap();
        let mut contents = Contents::default();
        let mut coarse_contents = Contents::default();
        let mut fine_epochs = fine_changes.iter();
        for changes in &coarse_changes {
            coarse_contents.apply(changes);
            while let Some(next) = fine_epochs.as_slice().first().filter(|next| next.t <= changes.t)
            {
                contents.apply(next);
                fine_epochs.next();
            }
            for view in &catalog.views {
                let found = coarse_contents.of(view.id).unwrap();
                equal(&found, &contents.of(view.id).unwrap()).unwrap_or_else(|error| {
                    panic!("seed {seed}, view {} at T {}: {error:?}", view.name, changes.t.0)
                });
            }
            equals_reference(&catalog, &coarse, changes.t, &coarse_contents).unwrap();
        }
        assert!(coarse_changes.len() * 3 / 2 < fine_changes.len());
    }
}

/// The event times of the sales of a cut test are all different: what the test above relies on.
#[test]
fn cuts_are_made_of_events_in_one_order() {
    let catalog = kit::generate::catalog(&views::draw(1, Taste { any_key_order: false })).unwrap();
    let options = Options { seed: 1, count: 300, floats: Floats::Everyday, distinct_times: true };
    let arrivals = arrivals::draw(&catalog, options).unwrap();
    let sales = arrivals.iter().filter(|arrival| arrival.topic.name == kit::generate::SALES);
    let times: Vec<EventTime> =
        sales.map(|a| kit::history::event_time(&a.topic, &a.cells)).collect();
    assert_eq!(times.iter().collect::<BTreeSet<_>>().len(), times.len());
}
