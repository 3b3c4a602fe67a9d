//! The limit of the Kolmogorov distribution with its first three corrections in `1 / √n`.
//!
//! Does not know where it is accurate enough: see [`super::one_sample_tail`].

use core::f64::consts::PI;

/// The probability that `D_n <= x` (Pelz and Good, J. Royal Statist. Soc. B 38, 1976, in the form
/// of Simard and L'Ecuyer 2011, equation 13).
pub fn pelz_good(n: u64, x: f64) -> f64 {
    let size = n as f64;
    let root = size.sqrt();
    let z = root * x;
    let terms = Terms::at(z);
    let value =
        terms.zeroth + terms.first / root + terms.second / size + terms.third / (size * root);
    value.clamp(0.0, 1.0)
}

struct Terms {
    zeroth: f64,
    first: f64,
    second: f64,
    third: f64,
}

impl Terms {
    /// The functions K0 to K3. The sums run from the largest index inwards: terms fall off as
    /// `exp(-k² π² / 2z²)`, so that 20 of them are more than a float can hold for `z < 5`.
    fn at(z: f64) -> Self {
        const INDICES: i32 = 20;
        let z2 = z * z;
        let (z4, z6) = (z2 * z2, z2 * z2 * z2);
        let mut half = [0.0; 4];
        let mut whole = [0.0; 2];
        for index in (0..INDICES).rev() {
            let k = f64::from(index) + 0.5;
            let angle = PI * PI * k * k;
            let weight = 2.0 * libm::exp(-angle / (2.0 * z2));
            let (angle2, angle3) = (angle * angle, angle * angle * angle);
            half[0] += weight;
            half[1] += weight * (angle - z2);
            half[2] += weight
                * (6.0 * z6 + 2.0 * z4 + (2.0 * z4 - 5.0 * z2) * angle + (1.0 - 2.0 * z2) * angle2);
            half[3] += weight
                * (angle3 * (5.0 - 30.0 * z2)
                    + angle2 * (212.0 * z4 - 60.0 * z2)
                    + angle * (135.0 * z4 - 96.0 * z6)
                    - 30.0 * z6
                    - 90.0 * z4 * z4);
            if index > 0 {
                let k = f64::from(index);
                let angle = PI * PI * k * k;
                let weight = 2.0 * libm::exp(-angle / (2.0 * z2));
                whole[0] += weight * angle;
                whole[1] += weight * (3.0 * angle * z2 - angle * angle);
            }
        }
        let root = (PI / 2.0).sqrt();
        let z7 = z6 * z;
        Self {
            zeroth: half[0] * (2.0 * PI).sqrt() / z / 2.0,
            first: half[1] * root / (6.0 * z4),
            second: half[2] * root / (72.0 * z7) - whole[0] * root / (36.0 * z2 * z),
            third: half[3] * root / (6480.0 * z7 * z2 * z) + whole[1] * root / (216.0 * z6),
        }
    }
}
