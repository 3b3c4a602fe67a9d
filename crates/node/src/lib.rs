//! The node: everything below put together, the verbs of `falaj`, and the demo.
//!
//! Why it exists: one place where parts meet. It holds no business rules; an `if` about features or
//! models here is in the wrong crate.

pub mod admission;
pub mod audit;
pub mod backend;
pub mod baseline;
pub mod cli;
pub mod compact;
pub mod core;
pub mod declarations;
pub mod demo;
pub mod endpoint;
pub mod inbox;
pub mod json;
pub mod migrate;
pub mod models;
pub mod parquet_file;
pub mod place;
pub mod pump;
pub mod rejected;
pub mod replay;
pub mod serve;
pub mod training;
pub mod verbs;
