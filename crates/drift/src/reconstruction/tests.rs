//! Principal components against scikit-learn, and a drift that no column shows by itself.

use super::*;

/// Rows of the generator `x ← 1103515245 x + 12345 mod 2^31`: u, u + v, v - w, w, of scale 1, 2, 3, 4.
fn rows(seed: u64, count: usize, sign: f64) -> Vec<Vec<f64>> {
    let mut x = seed;
    let mut draw = || {
        x = (1_103_515_245 * x + 12_345) % (1 << 31);
        x as f64 / (1_u64 << 31) as f64
    };
    (0..count)
        .map(|_| {
            let (u, v, w) = (draw(), draw(), draw());
            vec![u, 2.0 * (u + sign * v), 3.0 * (v - w), 4.0 * w]
        })
        .collect()
}

#[test]
fn components_and_errors_are_scikit_learns() {
    let reference = rows(1, 300, 1.0);
    let components = PrincipalComponents::fit(&reference, DEFAULT_SHARE).unwrap();
    assert_eq!(components.kept(), KEPT);
    let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found}");
    close(components.error(&reference).unwrap(), ERRORS[0]);
    close(components.error(&rows(2, 200, 1.0)).unwrap(), ERRORS[1]);
    close(components.error(&rows(3, 200, -1.0)).unwrap(), ERRORS[2]);
}

const KEPT: usize = 2;
const ERRORS: [f64; 3] = [0.581_079_579_025_919, 0.622_285_256_360_882_9, 1.742_196_807_810_673_3];

#[test]
fn missing_values_constants_and_bad_input() {
    let mut reference = rows(1, 50, 1.0);
    reference.iter_mut().for_each(|row| row.push(7.0));
    reference[3][0] = f64::NAN;
    let components = PrincipalComponents::fit(&reference, 0.9).unwrap();
    let before = components.error(&reference).unwrap();
    let mut moved = reference.clone();
    moved.iter_mut().for_each(|row| row[4] = 9.0);
    assert!(components.error(&moved).unwrap() > before + 1.0);
    assert!(components.error(&[]).is_err());
    assert!(components.error(&[vec![1.0]]).is_err());
    assert!(PrincipalComponents::fit(&[], 0.5).is_err());
    assert!(PrincipalComponents::fit(&reference, 1.0).is_err());
    let text = serde_json::to_string(&components).unwrap();
    assert_eq!(serde_json::from_str::<PrincipalComponents>(&text).unwrap(), components);
}

#[test]
fn all_constant_rows_do_not_break_it() {
    let constant = vec![vec![1.0, 2.0]; 10];
    let components = PrincipalComponents::fit(&constant, 0.65).unwrap();
    assert_eq!(components.error(&constant).unwrap(), 0.0);
}
