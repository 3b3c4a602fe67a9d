//! The doors of Falaj: Arrow Flight over TLS, the local user's token, and a client.
//!
//! Why it exists: everyone who produces or reads comes through here. It does not know log, engine,
//! views or definitions; it talks to a [`backend::Backend`], which the node implements.

pub mod backend;
pub mod error;

pub use backend::{Backend, BackendError};
