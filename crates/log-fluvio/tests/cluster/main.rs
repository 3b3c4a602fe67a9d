//! The log on a real cluster: conformance, the sequencer over it, faults while it runs.
//!
//! Conformance and the sequencer run on the cluster whose controller `FALAJ_FLUVIO` names. Tests that
//! kill, pause or starve parts of a cluster start one of their own from the program `fluvio-run`, found
//! by `FALAJ_FLUVIO_RUN` or on the path. Without those they print `skipped: ...`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod conformance;
mod faults;
mod local;
mod proxy;
mod sequencing;
mod tls;
mod workload;
