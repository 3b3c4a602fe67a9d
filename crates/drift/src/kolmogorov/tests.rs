//! The distribution of the statistic against SciPy's, in every region of its methods.

use proptest::prelude::*;

use super::*;

#[test]
fn one_sample_tails_are_scipys_kstwo() {
    for (n, x, expected) in ONE_SAMPLE {
        let found = one_sample_tail(n, x);
        assert!((found - expected).abs() <= 1e-11, "{n} {x}: {found} is not {expected}");
        assert!((found - expected).abs() <= 1e-8 * expected, "{n} {x}: {found} is not {expected}");
    }
    assert_eq!((one_sample_tail(9, 1.0), one_sample_tail(9, 0.0)), (0.0, 1.0));
    assert!(one_sample_tail(0, 0.5).is_nan());
    // A matrix power far out of a float's range on the way.
    assert_eq!(one_sample_tail(2001, 0.002_144_447_405_420_936_3), 1.0);
}

#[test]
fn two_sample_tails_are_scipys_exact_ones() {
    for (n, m, d, expected) in TWO_SAMPLE {
        for found in [two_sample_exact_tail(n, m, d), two_sample_exact_tail(m, n, d)] {
            assert!((found - expected).abs() <= 1e-12, "{n} {m}: {found} is not {expected}");
        }
    }
    assert_eq!(two_sample_exact_tail(5, 5, 0.0), 1.0);
}

proptest! {
    /// Counting paths one by one gives the same tail.
    #[test]
    fn two_sample_tails_count_paths(n in 1_u64..7, m in 1_u64..7, steps in 1_u64..40) {
        let d = steps as f64 / (n * m) as f64;
        let (mut outside, mut all) = (0_u64, 0_u64);
        for path in 0_u64..1 << (n + m) {
            if u64::from(path.count_ones()) != n {
                continue;
            }
            let (mut i, mut j, mut left) = (0_u64, 0_u64, false);
            for step in 0..n + m {
                if path >> step & 1 == 1 { i += 1 } else { j += 1 }
                left |= (i * m).abs_diff(j * n) >= steps;
            }
            all += 1;
            outside += u64::from(left);
        }
        // Only distances that the lattice has.
        prop_assume!(steps % (n * m / (n * m / gcd(n, m))) == 0);
        let expected = outside as f64 / all as f64;
        let found = two_sample_exact_tail(n, m, d);
        prop_assert!((found - expected).abs() < 1e-12, "{} is not {}", found, expected);
    }

    #[test]
    fn tails_fall(n in 1_u64..3_000, x in 0.0_f64..0.5, more in 0.0001_f64..0.2) {
        prop_assert!(one_sample_tail(n, x) >= one_sample_tail(n, x + more) - 1e-9);
    }
}

const ONE_SAMPLE: [(u64, f64, f64); 26] = [
    (1, 0.3, 1.0),
    (3, 0.2, 0.9982222222222222),
    (10, 0.05, 1.0),
    (10, 0.09, 0.9999610360566907),
    (10, 0.3, 0.27053557479999946),
    (10, 0.45, 0.022891810311717498),
    (10, 0.95, 1.9531250000000172e-13),
    (50, 0.1, 0.6623112704658186),
    (100, 0.13, 0.06209234069876253),
    (140, 0.05, 0.8576480297656114),
    (140, 0.18, 0.0001932001834783552),
    (141, 0.05, 0.854845693009663),
    (200, 0.05, 0.6802625495871704),
    (200, 0.09, 0.07358925139953587),
    (1000, 0.005, 1.0),
    (1000, 0.012, 0.9984464668620097),
    (1000, 0.02, 0.8108971656895577),
    (1000, 0.04, 0.07933956059000224),
    (1000, 0.06, 0.001428597887952891),
    (10000, 0.004, 0.9970213880468209),
    (10000, 0.013, 0.06750118848339082),
    (10000, 0.03, 2.9761211950626197e-08),
    (100000, 0.002, 0.8178408363081542),
    (100000, 0.006, 0.0014871489301131564),
    (667, 0.129, 3.888808942458213e-10),
    (500, 0.6, 1.1934763993433721e-172),
];

const TWO_SAMPLE: [(u64, u64, f64, f64); 7] = [
    (5, 7, 0.5142857142857142, 0.3282828282828283),
    (8, 12, 0.4166666666666667, 0.32404540763673895),
    (100, 70, 0.25, 0.009403582702388695),
    (30, 30, 0.4, 0.015643390496754332),
    (60, 40, 0.3, 0.02254577544638676),
    (7, 7, 0.42857142857142855, 0.5751748251748252),
    (250, 90, 0.1, 0.4872286799754501),
];
