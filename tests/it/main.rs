//! The integration tests, one binary.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

/// The architecture, as assertions.
mod tidy;
