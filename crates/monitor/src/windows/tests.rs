//! The tail of exceedances, against counting.

use super::close::exceedance_tail;

/// By brute force: of all orders of `n` old and `m` new values, the share in which at least `hits`
/// new ones lie outside the old ones' range.
fn counted(hits: u64, m: u64, n: u64) -> f64 {
    let all = m + n;
    let (mut found, mut total) = (0_u64, 0_u64);
    for mask in 0_u64..1 << all {
        if u64::from(mask.count_ones()) != m {
            continue;
        }
        total += 1;
        let below = u64::from(mask.trailing_ones());
        let above = (0..all).rev().take_while(|bit| mask >> bit & 1 == 1).count() as u64;
        found += u64::from(below + above >= hits);
    }
    found as f64 / total as f64
}

#[test]
fn exceedances_are_counted_right() {
    for (hits, m, n) in [(1, 4, 6), (2, 4, 6), (4, 4, 6), (3, 6, 5), (1, 1, 9)] {
        let (exact, found) = (counted(hits, m, n), exceedance_tail(hits, m, 2, n));
        assert!((exact - found).abs() < 1e-12, "{hits} of {m} after {n}: {found}, not {exact}");
    }
    assert_eq!(exceedance_tail(0, 5, 2, 9), 1.0);
    // A name that 20,000 rows did not have: the chance that one of 1,000 more has a new one.
    assert!((exceedance_tail(1, 1_000, 1, 20_000) - 1_000.0 / 21_000.0).abs() < 1e-12);
}
