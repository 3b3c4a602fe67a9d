//! Models: training, artifacts and prediction.
//!
//! A [`spec::JobSpec`] and Arrow batches become, through [`train::train`], a model and a report; with
//! their provenance these become a signed, content-addressed [`artifact::Artifact`]; from that comes a
//! [`score::Scorer`], which predicts without allocating and with the same bits every time. Models of
//! other tools come in through [`onnx`].
//!
//! Does not know the log, views, the gateway or processes: whoever starts a run hands in rows and takes
//! events and bytes.

pub mod artifact;
pub mod backend;
pub mod calibration;
pub mod collective;
pub mod gpu_queue;
pub mod loss;
pub mod metrics;
pub mod model;
pub mod network;
pub mod onnx;
pub mod optimiser;
pub mod preprocess;
pub mod random;
pub mod score;
pub mod spec;
pub mod table;
pub mod train;

pub use artifact::{Artifact, ArtifactError};
pub use score::{ScoreError, Scorer, Scratch};
pub use spec::{Feature, FeatureKind, JobSpec, Task, Trainer};
pub use table::Input;
pub use train::{TrainError, Trained, train};
