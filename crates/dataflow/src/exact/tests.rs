//! Sums, quotients and variances against arbitrary precision, bit for bit, over the whole range.

use proptest::prelude::*;

use super::reference::{self, Fraction};
use super::*;

fn sum_of(values: &[f64]) -> ExactSum {
    let mut sum = ExactSum::default();
    values.iter().for_each(|value| sum.add(Term::of_f64(*value), false));
    sum
}

fn bytes_of(sum: &ExactSum) -> Vec<u8> {
    let mut bytes = Vec::new();
    sum.write(&mut bytes);
    bytes
}

fn finite() -> impl Strategy<Value = f64> {
    prop_oneof![
        // Any exponent, subnormals included.
        4 => any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |v| v.is_finite()),
        // One neighbourhood, as real columns are.
        4 => (-1_000_000i64..1_000_000).prop_map(|v| v as f64 / 100.0),
        1 => Just(f64::MAX), 1 => Just(-f64::MAX), 1 => Just(f64::from_bits(1)),
        1 => Just(f64::MIN_POSITIVE), 1 => Just(1e16), 1 => Just(1.0), 1 => Just(-0.0),
    ]
}

fn reference_sum(values: &[f64]) -> Fraction {
    reference::sum(&values.iter().map(|value| Fraction::of(*value)).collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn sums_are_rounded_once(values in prop::collection::vec(finite(), 0..40)) {
        let sum = sum_of(&values);
        prop_assert_eq!(sum.to_f64().to_bits(), reference_sum(&values).to_f64().to_bits());
    }

    #[test]
    fn quotients_are_rounded_once(values in prop::collection::vec(finite(), 1..20), count in 1u64..u64::MAX) {
        let exact = reference_sum(&values).times(&Fraction::new(1, count));
        prop_assert_eq!(sum_of(&values).quotient(count).to_bits(), exact.to_f64().to_bits());
    }

    #[test]
    fn history_leaves_no_trace(
        kept in prop::collection::vec(finite(), 0..12),
        gone in prop::collection::vec(finite(), 0..12),
        seed in any::<u64>(),
    ) {
        let mut changes: Vec<(f64, bool)> = kept.iter().map(|v| (*v, false)).collect();
        changes.extend(gone.iter().flat_map(|v| [(*v, false), (*v, true)]));
        let mut state = seed | 1;
        for at in (1..changes.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            changes.swap(at, (state >> 33) as usize % (at + 1));
        }
        let mut sum = ExactSum::default();
        changes.iter().for_each(|(value, take)| sum.add(Term::of_f64(*value), *take));
        let plain = sum_of(&kept);
        prop_assert_eq!(bytes_of(&sum), bytes_of(&plain));
        prop_assert_eq!(&sum, &plain);
        prop_assert_eq!(sum.to_f64().to_bits(), plain.to_f64().to_bits());
        sum.merge(&plain, true);
        prop_assert!(sum.is_zero());
        prop_assert_eq!(bytes_of(&sum), bytes_of(&ExactSum::default()));
    }

    #[test]
    fn bytes_and_merges_keep_the_value(
        left in prop::collection::vec(any::<f64>(), 0..8),
        right in prop::collection::vec(any::<f64>(), 0..8),
    ) {
        let mut merged = sum_of(&left);
        merged.merge(&sum_of(&right), false);
        let all = sum_of(&[left.clone(), right.clone()].concat());
        prop_assert_eq!(bytes_of(&merged), bytes_of(&all));
        let bytes = [bytes_of(&all), vec![7]].concat();
        let mut rest = bytes.as_slice();
        let read = ExactSum::read(&mut rest).unwrap();
        prop_assert_eq!(rest, &[7][..]);
        prop_assert_eq!(bytes_of(&read), bytes_of(&all));
        prop_assert_eq!(read.to_f64().to_bits(), all.to_f64().to_bits());
        let negated = all.negated().negated();
        prop_assert_eq!(bytes_of(&negated), bytes_of(&all));
        merged.merge(&sum_of(&right), true);
        prop_assert_eq!(bytes_of(&merged), bytes_of(&sum_of(&left)));
    }

    #[test]
    fn variances_are_rounded_once(values in prop::collection::vec(finite(), 0..9)) {
        let exact: Vec<Fraction> = values.iter().map(|value| Fraction::of(*value)).collect();
        let sum = sum_of(&values);
        let mut squares = ExactSum::default();
        values.iter().for_each(|value| squares.add(Term::of_f64(*value).squared(), false));
        let moments = Moments { count: values.len() as u64, sum: &sum, squares: &squares, scale: 0 };
        for sample in [false, true] {
            let expected = reference::variance(&exact, sample);
            let bits = |value: f64| value.to_bits();
            prop_assert_eq!(
                variance(moments, sample, false).map(bits),
                expected.as_ref().map(|v| v.to_f64().to_bits())
            );
            prop_assert_eq!(
                variance(moments, sample, true).map(bits),
                expected.as_ref().map(|v| v.root().to_bits())
            );
        }
    }

    #[test]
    fn wide_integers_and_their_squares(values in prop::collection::vec(-(1i128 << 126)..1 << 126, 0..8)) {
        let mut sum = ExactSum::default();
        let mut squares = ExactSum::default();
        let mut expected = num_bigint::BigInt::ZERO;
        let mut expected_squares = num_bigint::BigInt::ZERO;
        for value in &values {
            sum.add(Term::Finite(*value, 0), false);
            squares.add(Term::Finite(*value, 0).squared(), false);
            expected += *value;
            expected_squares += num_bigint::BigInt::from(*value) * *value;
        }
        prop_assert_eq!(sum.to_integer().unwrap(), expected);
        prop_assert_eq!(squares.to_integer().unwrap(), expected_squares);
        for value in &values {
            squares.add(Term::Finite(*value, 0).squared(), true);
        }
        prop_assert!(squares.is_zero());
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = ExactSum::read(&mut bytes.as_slice());
    }
}

#[test]
fn special_values_come_and_go() {
    let mut sum = sum_of(&[1.5, f64::INFINITY]);
    assert_eq!(sum.to_f64(), f64::INFINITY);
    sum.add(Term::of_f64(f64::NEG_INFINITY), false);
    assert!(sum.to_f64().is_nan());
    sum.add(Term::of_f64(f64::INFINITY), true);
    assert_eq!(sum.to_f64(), f64::NEG_INFINITY);
    sum.add(Term::of_f64(f64::NEG_INFINITY), true);
    assert_eq!(sum.to_f64(), 1.5);
    assert!(!sum.is_zero());
    sum.add(Term::of_f64(f64::NAN), false);
    assert!(sum.quotient(3).is_nan());
    sum.add(Term::of_f64(f64::NAN), true);
    assert_eq!(bytes_of(&sum), bytes_of(&sum_of(&[1.5])));
    let infinite = sum_of(&[f64::INFINITY, 2.0]);
    let mut cancelled = infinite.negated();
    cancelled.merge(&infinite, false);
    assert!(cancelled.is_zero());
    assert_eq!(sum_of(&[2.5]).negated().to_f64(), -2.5);
}

#[test]
fn ties_go_to_even_at_every_scale() {
    for (values, expected) in [
        (vec![9_007_199_254_740_992.0, 1.0], 9_007_199_254_740_992.0),
        (vec![9_007_199_254_740_994.0, 1.0], 9_007_199_254_740_996.0),
        (vec![9_007_199_254_740_992.0, 1.0, f64::from_bits(1)], 9_007_199_254_740_994.0),
        (vec![f64::MAX, f64::MAX], f64::INFINITY),
        (vec![f64::MAX, 2f64.powi(969)], f64::MAX),
        (vec![f64::MAX, 2f64.powi(970)], f64::INFINITY),
        (vec![f64::MAX, f64::MAX, -f64::MAX], f64::MAX),
        (vec![1e16, 1.0, -1e16], 1.0),
        (vec![-0.0, -0.0], 0.0),
    ] {
        assert_eq!(sum_of(&values).to_f64().to_bits(), expected.to_bits(), "{values:?}");
    }
    // Half of the least subnormal is a tie with zero; three halves round up to two.
    assert_eq!(sum_of(&[f64::from_bits(1)]).quotient(2).to_bits(), 0);
    assert_eq!(sum_of(&[f64::from_bits(3)]).quotient(2).to_bits(), 2);
    assert_eq!(sum_of(&[f64::from_bits(3)]).quotient(4).to_bits(), 1);
}

#[test]
fn typical_sums_do_not_leave_the_stack() {
    let values: Vec<f64> = (0..100_000).map(|i| f64::from(i * 7 % 1000) / 100.0).collect();
    assert_eq!(sum_of(&values).heap_bytes(), 0);
}

#[test]
fn the_documented_bytes() {
    // −6 = −(3 · 2^1)
    assert_eq!(bytes_of(&sum_of(&[-6.0])), [1, 0, 0, 0, 1, 0, 1, 3]);
    assert_eq!(bytes_of(&ExactSum::default()), [0; 7]);
}
