//! Gates: each kind passes and fails for the reason it names; better figures never fail more.

use proptest::prelude::*;

use super::*;

fn metrics(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

fn rules() -> GateRules {
    GateRules {
        minimum_rows: 100,
        absolute: vec![
            AbsoluteGate { metric: "auc".to_owned(), minimum: Some(0.7), maximum: None },
            AbsoluteGate { metric: "log_loss".to_owned(), minimum: None, maximum: Some(0.5) },
        ],
        champion: vec![ChampionGate {
            metric: "auc".to_owned(),
            direction: Direction::HigherIsBetter,
            delta: 0.01,
        }],
        slices: vec![SliceGate {
            column: "country".to_owned(),
            metric: "recall".to_owned(),
            minimum: Some(0.5),
            maximum: None,
            minimum_support: 30,
        }],
        maximum_ece: Some(0.05),
        latency_us: metrics(&[("p99", 2_000.0)]),
        kpi: Some(KpiGate { minimum: Some(100.0), champion_delta: Some(5.0) }),
    }
}

fn slice(value: &str, support: u64, recall: f64) -> SliceEvidence {
    SliceEvidence {
        column: "country".to_owned(),
        value: value.to_owned(),
        support,
        metrics: metrics(&[("recall", recall)]),
    }
}

fn evidence() -> Evidence {
    Evidence {
        rows: 1_000,
        rows_digest: "d1".to_owned(),
        metrics: metrics(&[("auc", 0.8), ("log_loss", 0.4)]),
        champion: Some(ChampionEvidence {
            version: 3,
            rows_digest: "d1".to_owned(),
            metrics: metrics(&[("auc", 0.805)]),
            kpi: Some(120.0),
        }),
        slices: vec![slice("AE", 300, 0.6), slice("OM", 40, 0.5), slice("QA", 29, 0.0)],
        ece: Some(0.02),
        latency_us: metrics(&[("p99", 900.0)]),
        kpi: Some(118.0),
    }
}

fn failures(evidence: &Evidence) -> Vec<String> {
    rules().evaluate(evidence).failures().map(ToString::to_string).collect()
}

#[test]
fn a_good_version_passes_and_small_slices_are_not_judged() {
    let report = rules().evaluate(&evidence());
    assert!(report.passed(), "{:?}", failures(&evidence()));
    let open: Vec<_> =
        report.outcomes.iter().filter(|o| o.verdict == Verdict::NotApplicable).collect();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].figure, "recall[country=QA]");
}

#[test]
fn every_failure_names_figure_and_rule() {
    let bad = Evidence {
        rows: 99,
        metrics: metrics(&[("auc", 0.69), ("log_loss", f64::NAN)]),
        slices: vec![slice("OM", 40, 0.49)],
        ece: Some(0.051),
        latency_us: BTreeMap::new(),
        kpi: Some(90.0),
        ..evidence()
    };
    let expected = [
        "rows = 99 fails \"at least 100\"",
        "auc = 0.69 fails \"at least 0.7\"",
        "log_loss = NaN fails \"at most 0.5\"",
        "auc against champion = 0.69 fails \"at least 0.795 (version 3: 0.805, tolerance 0.01)\"",
        "recall[country=OM] = 0.49 fails \"at least 0.5\"",
        "ece = 0.051 fails \"at most 0.05\"",
        "latency p99 (not measured) fails \"at most 2000\"",
        "kpi = 90 fails \"at least 100\"",
        "kpi against champion = 90 fails \"at least 115 (version 3: 120, tolerance 5)\"",
    ];
    assert_eq!(failures(&bad), expected);
}

#[test]
fn comparisons_hold_on_the_same_rows_only() {
    let mut other = evidence();
    other.rows_digest = "d2".to_owned();
    let found = failures(&other);
    assert_eq!(found.len(), 2);
    assert!(found[0].contains("measured on the same rows as version 3"), "{found:?}");
    let first = Evidence { champion: None, ..evidence() };
    assert!(rules().evaluate(&first).passed());
    let unnamed = Evidence { slices: Vec::new(), ..evidence() };
    let found = failures(&unnamed);
    assert_eq!(found, ["recall[country=?] (not measured) fails \"at least 0.5\""]);
}

#[test]
fn a_negative_delta_demands_an_improvement() {
    let mut rules = rules();
    rules.champion[0].delta = -0.02;
    assert!(!rules.evaluate(&evidence()).passed());
    let mut better = evidence();
    better.metrics.insert("auc".to_owned(), 0.83);
    assert!(rules.evaluate(&better).passed());
}

#[test]
fn a_rule_without_bounds_fails_and_no_rule_passes() {
    let gate = AbsoluteGate { metric: "auc".to_owned(), minimum: None, maximum: None };
    let rules = GateRules { absolute: vec![gate], ..GateRules::default() };
    assert!(!rules.evaluate(&evidence()).passed());
    assert!(GateRules::default().evaluate(&Evidence::default()).passed());
}

proptest! {
    /// Improving every figure never turns a gate that passed into one that fails.
    #[test]
    fn gates_are_monotone(
        auc in 0.5_f64..1.0, loss in 0.1_f64..0.9, recall in 0.3_f64..0.8, ece in 0.0_f64..0.1,
        p99 in 0.0_f64..4_000.0, kpi in 50.0_f64..200.0, gain in 0.0_f64..0.5, champion in 0.5_f64..1.0,
    ) {
        let of = |gain: f64| {
            let mut evidence = evidence();
            evidence.metrics = metrics(&[("auc", auc + gain), ("log_loss", loss - gain)]);
            evidence.slices = vec![slice("AE", 99, recall + gain)];
            evidence.ece = Some(ece - gain);
            evidence.latency_us = metrics(&[("p99", p99 - gain)]);
            evidence.kpi = Some(kpi + gain);
            if let Some(other) = &mut evidence.champion {
                other.metrics = metrics(&[("auc", champion)]);
            }
            rules().evaluate(&evidence)
        };
        for (before, after) in of(0.0).outcomes.iter().zip(&of(gain).outcomes) {
            prop_assert_eq!(&before.figure, &after.figure);
            if before.verdict == Verdict::Passed {
                prop_assert_eq!(after.verdict, Verdict::Passed);
            }
        }
    }
}
