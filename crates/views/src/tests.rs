//! Tests of the store as a whole: against a model, through crashes, and for speed.

mod asking;
mod behaviour;
mod kit;
mod model;
mod throughput;
