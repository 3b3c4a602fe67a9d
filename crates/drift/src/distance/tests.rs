//! Distances: SciPy's and Evidently's values on the portable sample, and what makes a distance one.

use proptest::prelude::*;

use super::*;

/// Sturges counts of the portable normal samples (0, 1) and (0.25, 1.2).
const REFERENCE: [u64; 13] = [0, 14, 60, 196, 370, 439, 451, 294, 134, 38, 3, 1, 0];
const CURRENT: [u64; 13] = [4, 16, 40, 89, 142, 170, 181, 157, 128, 47, 20, 4, 2];

#[test]
fn values_are_scipys_and_evidentlys() {
    let (p, q) = (shares(&REFERENCE).unwrap(), shares(&CURRENT).unwrap());
    let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found}");
    close(psi(&p, &q, ZeroRule::Evidently).unwrap(), 0.185_772_766_002_864_7);
    close(jensen_shannon_distance(&p, &q, LogBase::E).unwrap(), 0.145_502_863_072_291_9);
    close(jensen_shannon_distance(&p, &q, LogBase::Two).unwrap(), 0.174_766_749_378_716_22);
    close(hellinger(&p, &q).unwrap(), 0.151_015_728_084_938_13);
    let (p, q) = (shares(&[775, 612, 415, 198]).unwrap(), shares(&[347, 321, 125, 207]).unwrap());
    close(psi(&p, &q, ZeroRule::TenThousandth).unwrap(), 0.126_661_816_659_470_9);
    close(total_variation(&p, &q).unwrap(), 0.123);
    close(
        kullback_leibler(&q, &p).unwrap() + kullback_leibler(&p, &q).unwrap(),
        0.126_661_816_659_470_9,
    );
    close(psi_noise(10, 2000, 1000), 0.0135);
}

#[test]
fn zeros_are_filled_by_the_rule() {
    assert_eq!(filled(&[0.0, 0.5], ZeroRule::TenThousandth), [0.0001, 0.5]);
    assert_eq!(filled(&[0.0, 0.5], ZeroRule::Evidently), [0.0001, 0.5]);
    assert_eq!(filled(&[0.0, 0.0001, 0.9999], ZeroRule::Evidently)[0], 0.0001 / 1e6);
    assert_eq!(shares(&[0, 0]), Err(DriftError::Empty("a histogram")));
    assert!(kullback_leibler(&[1.0, 0.0], &[0.0, 1.0]).unwrap().is_infinite());
    assert!(psi(&[1.0], &[0.5, 0.5], ZeroRule::default()).is_err());
}

proptest! {
    #[test]
    fn distances_are_symmetric_bounded_and_zero_on_themselves(
        left in prop::collection::vec(0_u64..50, 6), right in prop::collection::vec(0_u64..50, 6),
    ) {
        prop_assume!(left.iter().sum::<u64>() > 0 && right.iter().sum::<u64>() > 0);
        let (p, q) = (shares(&left).unwrap(), shares(&right).unwrap());
        let js = |p: &[f64], q: &[f64]| jensen_shannon_distance(p, q, LogBase::Two).unwrap();
        for (forth, back, upper) in [
            (js(&p, &q), js(&q, &p), 1.0),
            (hellinger(&p, &q).unwrap(), hellinger(&q, &p).unwrap(), 1.0),
            (total_variation(&p, &q).unwrap(), total_variation(&q, &p).unwrap(), 1.0),
            (
                psi(&p, &q, ZeroRule::TenThousandth).unwrap(),
                psi(&q, &p, ZeroRule::TenThousandth).unwrap(),
                f64::INFINITY,
            ),
        ] {
            prop_assert!((forth - back).abs() < 1e-12);
            prop_assert!((0.0..=upper + 1e-12).contains(&forth), "{}", forth);
        }
        prop_assert!(js(&p, &p) < 1e-7 && hellinger(&p, &p).unwrap() == 0.0);
    }
}
