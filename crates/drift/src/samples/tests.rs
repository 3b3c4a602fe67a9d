//! Sample scores against SciPy on the portable samples; edges.

use super::*;

/// Sums of twelve draws less six of `x ← 1103515245 x + 12345 mod 2^31`, scaled.
fn normal(seed: u64, count: usize, mean: f64, deviation: f64) -> Vec<f64> {
    let mut x = seed;
    let mut draw = || {
        x = (1_103_515_245 * x + 12_345) % (1 << 31);
        x as f64 / (1_u64 << 31) as f64
    };
    let mut one = || mean + deviation * ((0..12).map(|_| draw()).sum::<f64>() - 6.0);
    sorted(&(0..count).map(|_| one()).collect::<Vec<_>>())
}

#[test]
fn portable_samples_score_as_in_scipy() {
    let reference = normal(1, 2000, 0.0, 1.0);
    let current = normal(2, 1000, 0.25, 1.2);
    let close = |found: f64, expected: f64| {
        assert!((found / expected - 1.0).abs() < 1e-9, "{found} is not {expected}");
    };
    let exact = kolmogorov_smirnov(&reference, &current, None).unwrap();
    assert!((exact.statistic - 0.129).abs() < 1e-15);
    close(exact.p_value, 4.247_203_877_589_085e-10);
    let method = Some(PValueMethod::Asymptotic);
    let asymptotic = kolmogorov_smirnov(&reference, &current, method).unwrap();
    close(asymptotic.p_value, 3.888_808_942_458_213e-10);
    let same = kolmogorov_smirnov(&reference, &normal(3, 1000, 0.0, 1.0), None).unwrap();
    close(same.p_value, 0.869_709_150_252_885_8);
    let distance = wasserstein(&reference, &current).unwrap();
    close(distance, 0.297_747_315_804_660_46);
    close(normalised(distance, moments(&reference).1), 0.297_750_061_322_121_56);
}

#[test]
fn ties_and_edges() {
    let test = kolmogorov_smirnov(&[1.0, 1.0, 2.0], &[1.0, 2.0, 2.0], None).unwrap();
    assert!((test.statistic - 1.0 / 3.0).abs() < 1e-15);
    assert!((wasserstein(&[0.0, 1.0], &[5.0, 6.0]).unwrap() - 5.0).abs() < 1e-15);
    assert_eq!(wasserstein(&[1.0, 2.0], &[1.0, 2.0]), Ok(0.0));
    assert_eq!(kolmogorov_smirnov(&[], &[1.0], None), Err(DriftError::Empty("the reference")));
    assert_eq!(wasserstein(&[1.0], &[]), Err(DriftError::Empty("the window")));
    assert!(wasserstein(&[f64::NAN], &[1.0]).is_err());
    assert_eq!(sorted(&[2.0, f64::NAN, 1.0]), [1.0, 2.0]);
    assert_eq!(normalised(1.0, 0.0), 1_000.0);
}
