//! The gateway's doors over a backend in memory, over TLS on loopback: every answer and every refusal,
//! without a node behind them.

/// What stands behind the doors.
mod backend;
/// Lookups on an open stream.
mod features;
/// Whole views, discovery, authentication, TLS, shutdown and hostile bytes.
mod flight;
/// Producing.
mod produce;
/// A plain pyarrow client.
mod python;
