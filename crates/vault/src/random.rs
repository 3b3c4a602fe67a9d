//! Where keys and nonces come from: the system, or a seed in tests.
//!
//! Does not know what the bytes are for.

use std::sync::atomic::{AtomicU64, Ordering};

use ring::digest::{Context, SHA256};
use ring::rand::SecureRandom;

use crate::error::VaultError;

/// A source of random bytes.
pub trait Random: Send + Sync + 'static {
    /// Fills `out` with bytes that nobody can predict.
    ///
    /// # Errors
    /// When the source has failed; `out` must not be used then.
    fn fill(&self, out: &mut [u8]) -> Result<(), VaultError>;
}

/// The operating system's source.
#[derive(Debug)]
pub struct SystemRandom(ring::rand::SystemRandom);

impl Default for SystemRandom {
    fn default() -> Self {
        Self(ring::rand::SystemRandom::new())
    }
}

impl Random for SystemRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), VaultError> {
        self.0.fill(out).map_err(|_| VaultError::Random)
    }
}

/// A reproducible sequence: SHA-256 of (seed, counter). For tests and simulations only, whose
/// sealed bytes anybody can open.
#[derive(Debug)]
pub struct SeededRandom {
    seed: u64,
    counter: AtomicU64,
}

impl SeededRandom {
    /// The sequence of `seed`, from its start.
    pub fn new(seed: u64) -> Self {
        Self { seed, counter: AtomicU64::new(0) }
    }
}

impl Random for SeededRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), VaultError> {
        for chunk in out.chunks_mut(32) {
            let mut context = Context::new(&SHA256);
            context.update(b"falaj.seeded.v1\0");
            context.update(&self.seed.to_be_bytes());
            context.update(&self.counter.fetch_add(1, Ordering::Relaxed).to_be_bytes());
            chunk.copy_from_slice(&context.finish().as_ref()[..chunk.len()]);
        }
        Ok(())
    }
}
