//! The fold as a whole: calm is calm, drift is found, cuts do not matter, replays are equal.

use proptest::prelude::*;

use super::*;
use crate::row::{DriftRow, RowKind};
use crate::settings::Test;
use crate::testing::{CALM, WINDOW_US, World, reference, settings};

const PER_WINDOW: u64 = 400;

/// One epoch as the log has it.
struct Epoch {
    t: LogTime,
    predictions: Vec<Prediction>,
    outcomes: Vec<Outcome>,
}

fn monitor() -> Monitor {
    let settings = settings();
    let reference = reference(&settings, CALM, 4_000);
    let mut monitor = Monitor::new(settings);
    monitor.set_reference(1, reference);
    monitor
}

/// Windows of predictions with their labels one window later, `cut` predictions to an epoch. An
/// epoch at each window's first instant closes the one before, whatever the cut.
fn epochs(worlds: &[World], cut: u64) -> Vec<Epoch> {
    let mut all = Vec::new();
    for (window, world) in worlds.iter().enumerate() {
        let start = (window as u64 + 20) * WINDOW_US;
        let before = (window > 0).then(|| worlds[window - 1]);
        all.push(Epoch { t: LogTime(start), predictions: Vec::new(), outcomes: Vec::new() });
        let first = window as u64 * PER_WINDOW;
        let mut from = 0;
        while from < PER_WINDOW {
            let to = (from + cut).min(PER_WINDOW);
            let rows = first + from..first + to;
            let earlier = rows.clone().map(|row| row.wrapping_sub(PER_WINDOW));
            let outcomes = before.map(|world| earlier.map(|row| world.outcome(row, 1)).collect());
            all.push(Epoch {
                t: LogTime(start + to),
                predictions: rows.map(|row| world.prediction(row, 1)).collect(),
                outcomes: outcomes.unwrap_or_default(),
            });
            from = to;
        }
    }
    let end = (worlds.len() as u64 + 20) * WINDOW_US;
    all.push(Epoch { t: LogTime(end), predictions: Vec::new(), outcomes: Vec::new() });
    all
}

fn run(monitor: &mut Monitor, epochs: &[Epoch]) -> Closed {
    let mut all = Closed::default();
    for epoch in epochs {
        all.extend(monitor.epoch(epoch.t, &epoch.predictions, &epoch.outcomes));
    }
    all
}

fn drifted(closed: &Closed) -> Vec<(u64, Vec<String>)> {
    let of = |finding: &Finding| match finding {
        Finding::Drift { window, alarmed, .. } if !alarmed.is_empty() => {
            Some((window.start.0 / WINDOW_US - 20, alarmed.clone()))
        }
        _ => None,
    };
    closed.findings.iter().filter_map(of).collect()
}

#[test]
fn what_has_not_changed_does_not_alarm() {
    let worlds = [(); 40].map(|()| World { seed: 77, ..CALM });
    let closed = run(&mut monitor(), &epochs(&worlds, 50));
    let judged = closed.findings.iter().filter(|found| matches!(found, Finding::Drift { .. }));
    assert_eq!(judged.count(), 40);
    assert_eq!(drifted(&closed), []);
    assert!(!closed.rows.iter().any(|row| row.kind == RowKind::Detector));
    // 3 inputs, score and class; five slices' columns... every row names a test and a reference.
    let first: Vec<&DriftRow> =
        closed.rows.iter().filter(|row| row.window.start.0 == 20 * WINDOW_US).collect();
    let of = |subject: &str, test: &str| {
        let found = first
            .iter()
            .find(|row| row.subject == subject && row.test == test && row.slice.is_none());
        (*found.unwrap_or_else(|| panic!("{subject} {test}"))).clone()
    };
    assert_eq!(of("amount", "psi").rows, PER_WINDOW);
    assert!(of("amount", "psi").threshold.unwrap() > of("amount", "psi").value.unwrap());
    assert!(of("amount", "psi").detail.contains("quantiles"));
    assert!(of("amount", "ks").p_value.unwrap() > 0.01);
    assert_eq!(of("score", "wasserstein").kind, RowKind::Drift);
    assert_eq!(of("predicted", "chi_square").rows, PER_WINDOW);
    assert!(first.iter().any(|row| row.slice.as_deref() == Some("channel=atm")));
    assert!(!first.iter().any(|row| row.slice.is_some() && row.subject == "channel"));
}

#[test]
fn a_shift_alarms_where_it_is_and_nowhere_else() {
    let shifted = World { seed: 77, shift: 0.5, ..CALM };
    let mut worlds = vec![World { seed: 77, ..CALM }; 10];
    worlds.extend([shifted; 3]);
    let closed = run(&mut monitor(), &epochs(&worlds, 100));
    let found = drifted(&closed);
    assert_eq!(found.iter().map(|(window, _)| *window).collect::<Vec<_>>(), [10, 11, 12]);
    assert!(found.iter().all(|(_, columns)| columns == &["amount"]), "{found:?}");
    let row = closed.rows.iter().find(|row| row.alarm && row.test == "psi").unwrap();
    assert!(row.value.unwrap() > row.threshold.unwrap() && row.p_value.unwrap() <= 0.01);
    let detail: serde_json::Value = serde_json::from_str(&row.detail).unwrap();
    assert_eq!(detail["bins"]["kind"], "cuts");
    assert_eq!(detail["rule"]["p_value_of"], "chi_square");
    // The stored counts give the value again.
    let counts = |of: &str| {
        let list = detail[of].as_array().unwrap().iter();
        falaj_drift::distance::shares(&list.map(|n| n.as_u64().unwrap()).collect::<Vec<_>>())
            .unwrap()
    };
    let again =
        falaj_drift::distance::psi(&counts("reference"), &counts("window"), Default::default());
    assert_eq!(again.unwrap(), row.value.unwrap());
}

#[test]
fn worse_labels_break_figures_and_wake_the_detectors() {
    let lying = World { seed: 77, lie: 0.45, ..CALM };
    let mut worlds = vec![World { seed: 77, ..CALM }; 8];
    worlds.extend([lying; 4]);
    let closed = run(&mut monitor(), &epochs(&worlds, 100));
    assert_eq!(drifted(&closed), [], "inputs and scores are what they were");
    let alarms = |subject: &str| {
        let rows = closed.rows.iter().filter(|row| row.subject == subject && row.alarm);
        rows.filter(|row| row.slice.is_none())
            .map(|row| row.window.start.0 / WINDOW_US - 20)
            .collect::<Vec<_>>()
    };
    // Labels come one window later.
    assert_eq!(alarms("accuracy"), [9, 10, 11]);
    assert_eq!(alarms("auc"), [9, 10, 11]);
    let raised: Vec<&DriftRow> =
        closed.rows.iter().filter(|row| row.kind == RowKind::Detector).collect();
    assert!(raised.iter().any(|row| row.test == "adwin"), "{raised:?}");
    assert!(raised.iter().all(|row| row.t.0 >= 29 * WINDOW_US), "{raised:?}");
    let counted = closed.findings.iter().filter_map(|found| match found {
        Finding::Drift { detected, .. } => Some(*detected),
        _ => None,
    });
    assert_eq!(counted.sum::<u64>(), raised.len() as u64);
    let performance = closed.rows.iter().filter(|row| row.kind == RowKind::Performance);
    let log_loss = performance.filter(|row| row.subject == "log_loss");
    assert!(log_loss.clone().count() > 0);
    assert!(log_loss.clone().all(|row| row.window.end.0 - row.window.start.0 == 5 * WINDOW_US));
}

#[test]
fn performance_is_estimated_before_labels_come() {
    let worlds = vec![World { seed: 77, ..CALM }; 3];
    let closed = run(&mut monitor(), &epochs(&worlds, 100));
    let estimated: Vec<&DriftRow> =
        closed.rows.iter().filter(|row| row.kind == RowKind::Estimate).collect();
    assert_eq!(estimated.len(), 4 * 3, "auc, accuracy, log loss and Brier, of three windows");
    let realised = |subject: &str| {
        let rows = closed.rows.iter().filter(|row| row.kind == RowKind::Performance);
        rows.filter(|row| row.subject == subject && row.slice.is_none())
            .map(|row| row.value.unwrap())
            .collect::<Vec<f64>>()
    };
    // Scores run from 0.1 to 0.9 whatever the truth: the held-out rows say how sure they should be.
    for row in estimated.iter().filter(|row| row.subject == "accuracy") {
        assert!((row.value.unwrap() - realised("accuracy")[0]).abs() < 0.06, "{row:?}");
        assert!(row.detail.contains(r#""calibrated":true"#) && !row.alarm);
    }
    for row in estimated.iter().filter(|row| row.subject == "auc") {
        assert!((row.value.unwrap() - realised("auc")[0]).abs() < 0.06, "{row:?}");
    }
}

#[test]
fn all_inputs_together_are_tested_where_that_is_declared() {
    let mut settings = settings();
    settings.tests = vec![Test::DomainClassifier, Test::Reconstruction];
    settings.slices.clear();
    let reference = reference(&settings, CALM, 4_000);
    let mut monitor = Monitor::new(settings);
    monitor.set_reference(1, reference);
    let shifted = World { seed: 77, shift: 1.0, ..CALM };
    let worlds = [World { seed: 77, ..CALM }, World { seed: 77, ..CALM }, shifted];
    let closed = run(&mut monitor, &epochs(&worlds, 100));
    let of = |test: &str| {
        let rows = closed.rows.iter().filter(move |row| row.test == test);
        rows.map(|row| (row.subject.as_str(), row.alarm)).collect::<Vec<_>>()
    };
    let expected = [("inputs", false), ("inputs", false), ("inputs", true)];
    assert_eq!(of("domain_classifier"), expected);
    assert_eq!(of("reconstruction").len(), 3);
    assert!(of("reconstruction")[..2].iter().all(|(_, alarm)| !alarm));
    assert_eq!(drifted(&closed).len(), 1);
}

#[test]
fn few_rows_are_told_not_judged() {
    let mut monitor = monitor();
    let predictions: Vec<Prediction> = (0..99).map(|row| CALM.prediction(row, 1)).collect();
    monitor.epoch(LogTime(5), &predictions, &[]);
    let closed = monitor.epoch(LogTime(WINDOW_US), &[], &[]);
    let drift: Vec<&DriftRow> =
        closed.rows.iter().filter(|row| row.kind == RowKind::Drift).collect();
    assert_eq!(drift.len(), 1);
    assert_eq!((drift[0].value, drift[0].rows, drift[0].alarm), (None, 99, false));
    assert!(!closed.findings.iter().any(|found| matches!(found, Finding::Drift { .. })));
}

#[test]
fn versions_are_watched_apart_and_only_with_a_reference() {
    let mut monitor = monitor();
    let of = |version| (0..200).map(move |row| CALM.prediction(row, version));
    let both: Vec<Prediction> = of(1).chain(of(2)).collect();
    monitor.epoch(LogTime(5), &both, &[]);
    let closed = monitor.epoch(LogTime(WINDOW_US), &[], &[]);
    let drift = closed.rows.iter().filter(|row| row.kind == RowKind::Drift);
    assert!(drift.clone().all(|row| row.version == 1) && drift.count() > 0);
    let scores = closed.rows.iter().filter(|row| row.subject == "mean_score");
    assert_eq!(scores.map(|row| row.version).collect::<Vec<_>>(), [1, 2]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// However the epochs were cut, windows and detectors say the same.
    #[test]
    fn cuts_do_not_matter(cut in 1_u64..PER_WINDOW, shift in 0.0_f64..0.6, lie in 0.05_f64..0.5) {
        let calm = World { seed: 3, ..CALM };
        let worlds = [calm, calm, World { shift, lie, ..calm }, World { shift, lie, ..calm }];
        let blank = |mut closed: Closed| {
            // A detector's alarm carries the T of the epoch that held the label: a cut moves that.
            for row in closed.rows.iter_mut().filter(|row| row.kind == RowKind::Detector) {
                (row.t, row.window.start, row.window.end) = Default::default();
            }
            for found in &mut closed.findings {
                if let Finding::Detector { window, .. } = found {
                    (window.start, window.end) = Default::default();
                }
            }
            closed
        };
        let whole = blank(run(&mut monitor(), &epochs(&worlds, PER_WINDOW)));
        let pieces = blank(run(&mut monitor(), &epochs(&worlds, cut)));
        prop_assert_eq!(whole.rows, pieces.rows);
        prop_assert_eq!(whole.findings, pieces.findings);
    }

    /// A fold that is stopped, written down and read back goes on as if nothing had happened.
    #[test]
    fn a_fold_goes_on_where_it_was_stopped(stop in 0_usize..60, lie in 0.05_f64..0.5) {
        let worlds = [CALM, World { shift: 0.4, ..CALM }, World { lie, ..CALM }, World { lie, ..CALM }];
        let epochs = epochs(&worlds, 27);
        let stop = stop.min(epochs.len());
        let whole = run(&mut monitor(), &epochs);
        let mut first = monitor();
        let mut pieces = run(&mut first, &epochs[..stop]);
        let mut bytes = Vec::new();
        first.save(&mut bytes);
        let mut left = bytes.as_slice();
        let references = first.references().clone();
        let mut second = Monitor::restore(settings(), references.clone(), &mut left).unwrap();
        prop_assert!(left.is_empty());
        let mut again = Vec::new();
        second.save(&mut again);
        prop_assert_eq!(&again, &bytes);
        pieces.extend(run(&mut second, &epochs[stop..]));
        prop_assert_eq!(&pieces.rows, &whole.rows);
        prop_assert_eq!(&pieces.findings, &whole.findings);
        // Bytes that end early are none.
        let short = &mut &bytes[..bytes.len() - 1];
        prop_assert!(Monitor::restore(settings(), references, short).is_none());
    }

    /// A fold that is begun again gives what the first one gave.
    #[test]
    fn replays_are_equal(cut in 20_u64..PER_WINDOW) {
        let worlds = [CALM, World { shift: 0.4, ..CALM }, World { lie: 0.4, ..CALM }];
        let epochs = epochs(&worlds, cut);
        let (one, two) = (run(&mut monitor(), &epochs), run(&mut monitor(), &epochs));
        prop_assert_eq!(one, two);
    }
}
