//! The doors of Falaj: Arrow Flight over TLS, the local user's token, and a client.
//!
//! Why it exists: everyone who produces or reads comes through here. It does not know log, engine,
//! views or definitions; it talks to a [`Backend`], which the node implements. What clients in any
//! language need to know is documented in [`wire`] (JSON beside the data) and [`lookup`] (columns of
//! answers).

pub mod arrivals;
pub mod backend;
pub mod client;
pub mod decode;
pub mod encode;
pub mod error;
mod files;
mod flight;
pub mod lookup;
pub mod metrics;
pub mod persons;
pub mod prediction;
pub mod server;
pub mod tls;
pub mod token;
pub mod wire;

pub use backend::{Backend, BackendError};
pub use client::{Client, ConnectOptions};
pub use files::FileError;
pub use flight::Limits;
pub use metrics::Metrics;
pub use server::{Handle, Options, Server, ServerError, Tls};
pub use tonic::async_trait;
