//! Bins: numpy's edges and rules, ties, and that every value has at most one bin.

use proptest::prelude::*;

use super::*;

#[test]
fn edges_count_as_numpy_does() {
    let bins = BinDefinition::explicit(vec![0.0, 1.0, 2.0, 4.0]).unwrap();
    let of = |value| bins.of_number(value);
    assert_eq!(
        [of(0.0), of(0.5), of(1.0), of(3.9), of(4.0)],
        [Some(0), Some(0), Some(1), Some(2), Some(2)]
    );
    assert_eq!([of(-0.1), of(4.1), of(f64::NAN), of(f64::INFINITY)], [None; 4]);
    assert!(BinDefinition::explicit(vec![0.0, 0.0]).is_err());
    assert!(BinDefinition::explicit(vec![0.0, f64::NAN]).is_err());
    let even = BinDefinition::equal_width(0.0, 1.0, 10).unwrap();
    assert_eq!((even.len(), even.range()), (10, Some((0.0, 1.0))));
    assert!(BinDefinition::equal_width(1.0, 1.0, 3).is_err());
    assert!(BinDefinition::equal_width(0.0, 1.0, 0).is_err());
}

#[test]
fn quantiles_are_numpys_and_ties_stand_alone() {
    // numpy.quantile([1, 2, 4, 8, 16], [.1, .25, .6, .9])
    let values = [1.0, 2.0, 4.0, 8.0, 16.0];
    for (q, expected) in [(0.1, 1.4), (0.25, 2.0), (0.6, 5.6), (0.9, 12.8)] {
        assert!((quantile(&values, q) - expected).abs() < 1e-12);
    }
    let constant = BinDefinition::quantiles(&[5.0; 20], 10).unwrap();
    assert_eq!([4.9, 5.0, 5.1].map(|value| constant.of_number(value)), [Some(0), Some(1), Some(2)]);
    assert_eq!(BinDefinition::quantiles(&[5.0], 1).unwrap(), constant_of(5.0, 1));
    // Half of the mass at 0: zero has its bin, and what is below it another.
    let mut half = vec![0.0; 50];
    half.extend((1..=50).map(f64::from));
    let bins = BinDefinition::quantiles(&half, 10).unwrap();
    let zero = bins.of_number(0.0);
    assert_ne!(bins.of_number(-1e-9), zero);
    assert_ne!(bins.of_number(1e-9), zero);
    assert!(BinDefinition::quantiles(&[], 10).is_err());
    assert!(BinDefinition::quantiles(&[1.0], 0).is_err());
}

fn constant_of(value: f64, rows: usize) -> BinDefinition {
    let origin = format!("1 quantiles of {rows} reference values");
    BinDefinition::Cuts { cuts: vec![value.next_down(), value], origin }
}

#[test]
fn names_and_values() {
    let bins = BinDefinition::categories(["b", "a", "b"].map(str::to_owned));
    assert_eq!((bins.len(), bins.of_name("a"), bins.of_name("z")), (3, Some(0), Some(2)));
    assert_eq!((bins.of_number(1.0), bins.is_empty()), (None, false));
    let values = BinDefinition::distinct([2.0, 1.0, f64::NAN, 2.0]);
    assert_eq!((values.len(), values.of_number(2.0), values.of_number(1.5)), (2, Some(1), None));
    assert_eq!(values.of_name("a"), None);
    assert!(BinDefinition::distinct([]).is_empty());
    let flat = BinDefinition::sturges(&[3.0, 3.0]).unwrap();
    assert_eq!(flat.range(), Some((2.5, 3.5)));
    assert!(BinDefinition::sturges(&[f64::NAN]).is_err());
}

#[test]
fn doane_is_numpys() {
    // numpy.histogram_bin_edges(…, bins = "doane") of the portable normal sample.
    let mut x = 1_u64;
    let mut draw = || {
        x = (1_103_515_245 * x + 12_345) % (1 << 31);
        x as f64 / (1_u64 << 31) as f64
    };
    let normal: Vec<f64> = (0..2000).map(|_| (0..12).map(|_| draw()).sum::<f64>() - 6.0).collect();
    let BinDefinition::Edges { edges, .. } = BinDefinition::doane(&normal).unwrap() else {
        panic!("edges")
    };
    assert_eq!(edges.len(), 14);
    assert!((edges[0] + 2.916_998_344_473_541).abs() < 1e-12);
    assert!((edges[1] + 2.429_582_782_591_198).abs() < 1e-12);
}

proptest! {
    #[test]
    fn quantile_bins_hold_every_number_and_keep_order(
        mut values in prop::collection::vec(-20_i32..20, 1..60),
        count in 1_usize..12,
        a in -30.0_f64..30.0, b in -30.0_f64..30.0,
    ) {
        values.sort_unstable();
        let values: Vec<f64> = values.into_iter().map(f64::from).collect();
        let bins = BinDefinition::quantiles(&values, count).unwrap();
        let (low, high) = (a.min(b), a.max(b));
        let (first, second) = (bins.of_number(low).unwrap(), bins.of_number(high).unwrap());
        prop_assert!(first <= second && second < bins.len());
        let BinDefinition::Cuts { cuts, .. } = &bins else { panic!("cuts") };
        prop_assert!(cuts.windows(2).all(|pair| pair[0] < pair[1]));
        let text = serde_json::to_string(&bins).unwrap();
        prop_assert_eq!(serde_json::from_str::<BinDefinition>(&text).unwrap(), bins);
    }
}
