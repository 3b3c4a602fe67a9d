//! Functions of one number, which operators apply to every value.
//!
//! Computed with `libm`: the same bits on every machine.

use super::trees::logistic;

#[derive(Clone, Copy, Debug)]
pub(super) enum Function {
    Relu,
    Sigmoid,
    Tanh,
    Exp,
    Log,
    Sqrt,
    Neg,
    Abs,
    LeakyRelu(f32),
    Elu(f32),
    Erf,
    Gelu,
    GeluByTanh,
    Softplus,
    Sign,
    HardSigmoid(f32, f32),
    HardSwish,
    Selu(f32, f32),
}

impl Function {
    pub(super) fn at(self, x: f32) -> f32 {
        match self {
            Self::Relu => {
                if x < 0.0 {
                    0.0
                } else {
                    x
                }
            }
            Self::Sigmoid => logistic(x),
            Self::Tanh => libm::tanhf(x),
            Self::Exp => libm::expf(x),
            Self::Log => libm::logf(x),
            Self::Sqrt => x.sqrt(),
            Self::Neg => -x,
            Self::Abs => x.abs(),
            Self::LeakyRelu(alpha) => {
                if x < 0.0 {
                    alpha * x
                } else {
                    x
                }
            }
            Self::Erf => libm::erff(x),
            Self::Gelu => 0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2)),
            Self::GeluByTanh => {
                // √(2/π); Hendrycks and Gimpel, arXiv:1606.08415.
                let inner = 0.797_884_6 * (x + 0.044_715 * x * x * x);
                0.5 * x * (1.0 + libm::tanhf(inner))
            }
            Self::Softplus => x.max(0.0) + libm::log1pf(libm::expf(-x.abs())),
            Self::Sign if x == 0.0 || x.is_nan() => x,
            Self::Sign => x.signum(),
            Self::HardSigmoid(alpha, beta) => (alpha * x + beta).clamp(0.0, 1.0),
            Self::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
            Self::Selu(alpha, gamma) => {
                gamma * if x > 0.0 { x } else { alpha * (libm::expf(x) - 1.0) }
            }
            Self::Elu(alpha) => {
                if x < 0.0 {
                    alpha * (libm::expf(x) - 1.0)
                } else {
                    x
                }
            }
        }
    }
}
