//! The distribution functions behind p-values: regularised gamma, normal tail, binomial masses.
//!
//! Every formula is computed through the pinned `libm`, with its number of terms fixed by the
//! arguments. Does not know which test asks.

/// Steps after which a series or continued fraction is taken as converged.
const MOST_STEPS: usize = 100_000;

/// Upper tail of the chi-square distribution with `degrees` degrees of freedom: `Q(degrees / 2,
/// x / 2)`, the regularised upper incomplete gamma function; NaN for NaN or no degrees.
pub fn chi_square_tail(x: f64, degrees: f64) -> f64 {
    if x.is_nan() || degrees.is_nan() || degrees <= 0.0 {
        return f64::NAN;
    }
    if x <= 0.0 {
        return 1.0;
    }
    upper_gamma(degrees / 2.0, x / 2.0)
}

/// `Q(a, x) = Γ(a, x) / Γ(a)`: below `a + 1` one minus the series of `P` (DLMF 8.11.4), above it
/// Legendre's continued fraction (DLMF 8.9.2, by the modified Lentz algorithm).
pub fn upper_gamma(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    if x.is_infinite() {
        return 0.0;
    }
    let front = libm::exp(a * libm::log(x) - x - libm::lgamma(a));
    if x < a + 1.0 {
        let mut term = 1.0 / a;
        let mut sum = term;
        for step in 1..MOST_STEPS {
            term *= x / (a + step as f64);
            sum += term;
            if term < sum * f64::EPSILON / 4.0 {
                break;
            }
        }
        return (1.0 - front * sum).clamp(0.0, 1.0);
    }
    (front * legendre_fraction(a, x)).clamp(0.0, 1.0)
}

fn legendre_fraction(a: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let nonzero = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut denominator = x + 1.0 - a;
    let mut c = 1.0 / TINY;
    let mut d = 1.0 / nonzero(denominator);
    let mut fraction = d;
    for step in 1..MOST_STEPS {
        let step = step as f64;
        let numerator = -step * (step - a);
        denominator += 2.0;
        d = 1.0 / nonzero(numerator * d + denominator);
        c = nonzero(denominator + numerator / c);
        let factor = d * c;
        fraction *= factor;
        if (factor - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    fraction
}

/// Two-sided tail of the standard normal distribution beyond `|z|`.
pub fn normal_two_sided(z: f64) -> f64 {
    libm::erfc(z.abs() / core::f64::consts::SQRT_2)
}

/// Upper tail of Student's t distribution with a whole number of degrees of freedom, for `t >= 0`:
/// the finite sums of Abramowitz and Stegun 26.7.3 and 26.7.4. NaN for NaN or no degrees.
pub fn student_tail(t: f64, degrees: u64) -> f64 {
    if t.is_nan() || degrees == 0 {
        return f64::NAN;
    }
    let angle = libm::atan(t / (degrees as f64).sqrt());
    let (sine, cosine) = (libm::sin(angle), libm::cos(angle));
    let is_odd = degrees % 2 == 1;
    let mut term = if is_odd { cosine } else { 1.0 };
    let mut sum = if degrees == 1 { 0.0 } else { term };
    let mut step = if is_odd { 3 } else { 2 };
    while step < degrees {
        term *= cosine * cosine * (step - 1) as f64 / step as f64;
        sum += term;
        step += 2;
    }
    let inside = match is_odd {
        true => core::f64::consts::FRAC_2_PI * (angle + sine * sum),
        false => sine * sum,
    };
    ((1.0 - inside) / 2.0).clamp(0.0, 0.5)
}

/// Binomial mass `C(n, k) p^k (1 - p)^(n - k)` by saddle-point expansion (Loader, "Fast and
/// accurate computation of binomial probabilities", 2000): no cancellation for large `n`.
pub fn binomial_mass(n: u64, k: u64, p: f64) -> f64 {
    let q = 1.0 - p;
    if k > n || !(0.0..=1.0).contains(&p) {
        return 0.0;
    }
    let (size, hits, misses) = (n as f64, k as f64, (n - k) as f64);
    if p == 0.0 || q == 0.0 {
        let certain = if p == 0.0 { 0 } else { n };
        return if k == certain { 1.0 } else { 0.0 };
    }
    if k == 0 {
        return libm::exp(size * libm::log1p(-p));
    }
    if k == n {
        return libm::exp(size * libm::log(p));
    }
    let exponent = stirling_error(size)
        - stirling_error(hits)
        - stirling_error(misses)
        - deviance(hits, size * p)
        - deviance(misses, size * q);
    let scale = size / (core::f64::consts::TAU * hits * misses);
    scale.sqrt() * libm::exp(exponent)
}

/// `ln n! - ln(√(2πn) (n/e)^n)`.
fn stirling_error(n: f64) -> f64 {
    if n < 16.0 {
        let stirling = (n + 0.5) * libm::log(n) - n + 0.5 * libm::log(core::f64::consts::TAU);
        return libm::lgamma(n + 1.0) - stirling;
    }
    let square = n * n;
    // 1/12, 1/360, 1/1260, 1/1680, 1/1188: Stirling's series.
    let tail = 1.0 / 1680.0 - 1.0 / 1188.0 / square;
    let tail = 1.0 / 1260.0 - tail / square;
    let tail = 1.0 / 360.0 - tail / square;
    (1.0 / 12.0 - tail / square) / n
}

/// `x ln(x / m) + m - x`, without cancellation near `x = m`.
fn deviance(x: f64, m: f64) -> f64 {
    if (x - m).abs() >= 0.1 * (x + m) {
        return x * libm::log(x / m) + m - x;
    }
    let ratio = (x - m) / (x + m);
    let mut sum = (x - m) * ratio;
    let mut term = 2.0 * x * ratio;
    let square = ratio * ratio;
    for step in 1..1000 {
        term *= square;
        let next = sum + term / (2.0 * f64::from(step) + 1.0);
        if next == sum {
            break;
        }
        sum = next;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64, relative: f64) {
        let error = (found - expected).abs();
        assert!(error <= relative * expected.abs(), "{found} is not {expected}");
    }

    #[test]
    fn chi_square_tails_are_scipys() {
        // scipy.stats.chi2.sf
        close(chi_square_tail(3.841_458_820_694_124, 1.0), 0.05, 1e-12);
        close(chi_square_tail(266.597_807_203_779_04, 19.0), 1.323_784_925_461_913_5e-45, 1e-11);
        close(chi_square_tail(86.214_445_237_317_38, 3.0), 1.423_815_417_901_343_4e-18, 1e-11);
        close(chi_square_tail(0.5, 10.0), 0.999_993_388_289_439, 1e-13);
        assert_eq!(chi_square_tail(0.0, 3.0), 1.0);
        assert!(chi_square_tail(f64::NAN, 3.0).is_nan());
    }

    #[test]
    fn binomial_masses_sum_to_one_and_match_products() {
        close(binomial_mass(10, 3, 0.3), 120.0 * 0.027 * 0.7_f64.powi(7), 1e-13);
        let total: f64 = (0..=2000).map(|k| binomial_mass(2000, k, 0.37)).sum();
        close(total, 1.0, 1e-12);
        assert_eq!(binomial_mass(5, 0, 0.0), 1.0);
        assert_eq!(binomial_mass(5, 5, 1.0), 1.0);
    }

    #[test]
    fn student_tails_are_the_integrals() {
        // Of the density, by Simpson's rule in 400,000 steps over the angle.
        close(student_tail(1.0, 1), 0.25, 1e-14);
        close(student_tail(2.0, 2), 0.091_751_709_536_137_48, 1e-12);
        close(student_tail(3.0, 3), 0.028_834_442_811_218_827, 1e-12);
        close(student_tail(3.0, 9), 0.007_478_181_955_206_949, 1e-11);
        close(student_tail(4.0, 19), 0.000_383_096_168_614_292_7, 1e-10);
        close(student_tail(0.0, 7), 0.5, 1e-15);
        assert!(student_tail(1.0, 0).is_nan());
    }

    #[test]
    fn normal_tails_are_the_tables() {
        close(normal_two_sided(1.959_963_984_540_054), 0.05, 1e-12);
        close(normal_two_sided(0.0), 1.0, 1e-15);
    }
}
