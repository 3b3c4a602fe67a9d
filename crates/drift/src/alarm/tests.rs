//! Alarms: limits relative to the reference, hysteresis, and no flapping.

use proptest::prelude::*;

use super::*;
use crate::bins::BinDefinition;
use crate::summary::NumericSummary;

fn chunk(seed: u64, rows: u64, shift: f64) -> ColumnSummary {
    let random = crate::CounterRandom::new(seed, 3);
    let bins = BinDefinition::equal_width(0.0, 2.0, 10).unwrap();
    let mut summary = NumericSummary::new(bins, None, 10_000);
    for index in 0..rows {
        let value = (random.at(index) >> 11) as f64 / (1_u64 << 53) as f64;
        summary.add(random.at(index), Some(value + shift));
    }
    ColumnSummary::Numeric(summary)
}

fn scored(value: f64, p_value: Option<f64>) -> Score {
    Score {
        metric: Metric::Psi,
        value,
        p_value,
        method: String::new(),
        bins: None,
        reference_rows: 1_000,
        current_rows: 9,
    }
}

/// A reference that swings with the season has wide limits; one that does not has narrow ones.
#[test]
fn limits_follow_the_references_own_spread() {
    let calm: Vec<_> = (0..10).map(|seed| chunk(seed, 400, 0.0)).collect();
    let swinging: Vec<_> =
        (0..10).map(|seed| chunk(seed, 400, if seed % 2 == 0 { 0.0 } else { 0.3 })).collect();
    let limit = |chunks: &[ColumnSummary]| {
        let spread = Spread::of_chunks(chunks, Metric::Psi).unwrap();
        assert_eq!((spread.chunks, spread.chunk_rows), (10, 400));
        spread.limit(Metric::Psi, 3.0, 0.0)
    };
    assert!(limit(&calm) < 0.1, "{}", limit(&calm));
    assert!(limit(&swinging) > 0.2, "{}", limit(&swinging));
    assert!(Spread::of_chunks(&calm[..1], Metric::Psi).is_err());
    assert!(Spread::of_chunks(&[], Metric::Psi).is_err());
    let wide = Spread { mean: 0.9, deviation: 0.9, greatest: 1.0, chunks: 9, chunk_rows: 9 };
    assert_eq!(wide.limit(Metric::Hellinger, 3.0, 0.0), 1.0);
    assert_eq!(wide.limit(Metric::Psi, 0.0, 2.0), 2.0);
}

/// Small windows and rare events get the room that chance needs, and no more.
#[test]
fn limits_allow_for_chance() {
    let spread = Spread { mean: 0.1, deviation: 0.0, greatest: 0.1, chunks: 9, chunk_rows: 400 };
    let of = |metric, current_rows| {
        let score = Score { metric, current_rows, reference_rows: 4_000, ..scored(0.0, None) };
        spread.limit_for(&score, 3.0, 0.0)
    };
    let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found}");
    close(of(Metric::Psi, 400), 0.1);
    close(of(Metric::Psi, 4_000), 0.1);
    let factor = (1.0 / 4_000.0 + 1.0 / 100.0) / (1.0 / 4_000.0 + 1.0 / 400.0);
    close(of(Metric::Psi, 100), 0.1 * factor);
    close(of(Metric::Wasserstein, 100), 0.1 * f64::sqrt(factor));
    close(of(Metric::ChiSquare, 100), 0.1);
    let never = Spread { mean: 0.0, deviation: 0.0, greatest: 0.0, chunks: 9, chunk_rows: 400 };
    let score = Score {
        metric: Metric::MissingRate,
        current_rows: 400,
        reference_rows: 4_000,
        ..scored(0.0, None)
    };
    close(never.limit_for(&score, 3.0, 0.0), 0.000_75 + 3.0 * (0.000_75_f64 / 400.0).sqrt());
}

/// A spread of few chunks is worth less: the fewer, the more of its deviations.
#[test]
fn few_chunks_make_wide_limits() {
    let of = |chunks, deviations| {
        let spread = Spread { mean: 0.0, deviation: 1.0, greatest: 1.0, chunks, chunk_rows: 9 };
        spread.for_one_more(deviations)
    };
    // Student's quantiles of the normal tail beyond 3, from the integral of the density.
    let close =
        |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 1e-6, "{found}");
    close(of(10, 3.0), 4.094_255_306 * (11.0_f64 / 9.0).sqrt());
    close(of(5, 3.0), 6.620_205_967 * (6.0_f64 / 4.0).sqrt());
    close(of(10, 8.0), 2.0 * of(10, 4.0));
    assert!((of(100_000, 3.0) - 3.0).abs() < 1e-3);
    assert_eq!(of(10, 0.0), 0.0);
    assert_eq!(of(1, 3.0), f64::INFINITY);
}

#[test]
fn thresholds_judge() {
    let spread = Spread { mean: 0.1, deviation: 0.05, greatest: 0.2, chunks: 10, chunk_rows: 9 };
    let policy = AlarmPolicy::default();
    let judged = policy.judge(&scored(0.26, None), Some(&spread)).unwrap();
    assert!(judged.over && (judged.limit - 0.25).abs() < 1e-12);
    let near = policy.judge(&scored(0.24, None), Some(&spread)).unwrap();
    assert!(!near.over && !near.under);
    assert!(policy.judge(&scored(0.2, None), Some(&spread)).unwrap().under);
    assert!(policy.judge(&scored(f64::NAN, None), Some(&spread)).unwrap().over);
    assert!(policy.judge(&scored(0.2, None), None).is_err());
    let test = AlarmPolicy { threshold: Threshold::Significance { alpha: 0.01 }, ..policy };
    assert!(test.judge(&scored(0.2, Some(0.01)), None).unwrap().over);
    assert!(test.judge(&scored(0.2, Some(0.5)), None).unwrap().under);
    assert!(test.judge(&scored(0.2, None), None).is_err());
    let fixed = AlarmPolicy { threshold: Threshold::Fixed { limit: 0.2 }, ..policy };
    assert!(!fixed.judge(&scored(0.2, None), None).unwrap().over);
    let text = serde_json::to_string(&policy).unwrap();
    assert_eq!(serde_json::from_str::<AlarmPolicy>(&text).unwrap(), policy);
}

proptest! {
    /// Between two changes in a row there are at least as many windows as the policy asks for.
    #[test]
    fn alarms_do_not_flap(
        scores in prop::collection::vec(0.0_f64..0.4, 1..200),
        raise_after in 1_u32..4, lower_after in 1_u32..4,
    ) {
        let policy = AlarmPolicy {
            threshold: Threshold::Fixed { limit: 0.2 }, raise_after, lower_after, lower_ratio: 0.8,
        };
        let (mut state, mut since) = (AlarmState::default(), 0);
        for value in scores {
            let judgement = policy.judge(&scored(value, None), None).unwrap();
            let (next, change) = policy.decide(state, judgement);
            since += 1;
            match change {
                AlarmChange::Raised => {
                    prop_assert!(!state.raised && next.raised && judgement.over);
                    prop_assert!(since >= raise_after);
                    since = 0;
                }
                AlarmChange::Lowered => {
                    prop_assert!(state.raised && !next.raised && judgement.under);
                    prop_assert!(since >= lower_after);
                    since = 0;
                }
                AlarmChange::None => prop_assert_eq!(state.raised, next.raised),
            }
            state = next;
        }
    }
}
