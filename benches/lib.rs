//! What the benches share: sizes, clocks, tables, workloads, baselines.
//!
//! Every figure is printed beside a baseline that is measured in the same run, on the same machine,
//! in turns with it: machines differ, ratios hardly. Does not know what is measured with it.

use mimalloc::MiMalloc;

/// The allocator of the product's binary.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

pub mod by_hand;
pub mod echo;
pub mod measure;
pub mod report;
pub mod workload;

/// How large a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Whether figures are wanted, not only that the bench still runs.
    pub measured: bool,
    factor: f64,
}

impl Scale {
    /// Full sizes under `cargo bench` (which passes `--bench`), times `FALAJ_BENCH_SCALE` (default
    /// 1); token sizes otherwise.
    pub fn from_environment() -> Self {
        let measured = std::env::args().any(|argument| argument == "--bench");
        let factor = std::env::var("FALAJ_BENCH_SCALE").ok().and_then(|text| text.parse().ok());
        Self { measured, factor: factor.unwrap_or(1.0) }
    }

    /// `full` times the factor (at least `token`), or `token`.
    pub fn size(&self, full: u64, token: u64) -> u64 {
        match self.measured {
            true => ((full as f64 * self.factor) as u64).max(token),
            false => token,
        }
    }
}
