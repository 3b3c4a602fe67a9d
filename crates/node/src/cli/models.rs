//! Options of the verbs about models.
//!
//! Knows words only; what a verb does stands in [`crate::verbs`].

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Connection;

/// `falaj train`
#[derive(Clone, Debug, Args)]
pub struct Train {
    /// The pipeline.
    pub pipeline: String,
    /// Why; ends up in the registry.
    #[arg(long, default_value = "asked for at the command line", value_name = "TEXT")]
    pub reason: String,
    /// Do not wait for the run.
    #[arg(long)]
    pub no_wait: bool,
    /// The node.
    #[command(flatten)]
    pub connection: Connection,
}

/// `falaj trainer`
#[derive(Clone, Debug, Args)]
pub struct Trainer {
    /// Folder with job.json and rows.parquet.
    #[arg(long, value_name = "DIR")]
    pub job: PathBuf,
    /// Go on when standard input ends.
    #[arg(long)]
    pub detached: bool,
}

/// `falaj models`
#[derive(Clone, Debug, Args)]
pub struct Models {
    /// The pipeline; all of them without it.
    pub pipeline: Option<String>,
    /// What to do with it; default: show it.
    #[command(subcommand)]
    pub action: Option<ModelAction>,
    /// The node.
    #[command(flatten)]
    pub connection: Connection,
}

/// What `falaj models PIPELINE` does.
#[derive(Clone, Debug, Subcommand)]
pub enum ModelAction {
    /// Every change: who, when, why; and what served when.
    History,
    /// Enter a model of another tool as a candidate version: it passes the same gates, on the rows
    /// that the pipeline holds out, and is served, scored and replayed like any other.
    Register {
        /// The ONNX file: takes the pipeline's inputs as numbers, in the order of its signature, and
        /// gives the probabilities of its classes, or a number.
        #[arg(long, value_name = "FILE")]
        onnx: PathBuf,
        /// Why; ends up in the registry.
        #[arg(long, default_value = "registered at the command line", value_name = "TEXT")]
        reason: String,
        /// Do not wait for the verdict.
        #[arg(long)]
        no_wait: bool,
    },
    /// Approve a version.
    Approve(OnVersion),
    /// Take an approval back.
    Withdraw(OnVersion),
    /// Turn a version down that has not served.
    Reject(OnVersion),
    /// Make a version in shadow the champion.
    Promote(OnVersion),
    /// Put an earlier champion back: the one before, or the given version.
    Rollback {
        /// The version.
        version: Option<u32>,
        /// Why.
        #[arg(long, default_value = "", value_name = "TEXT")]
        reason: String,
    },
    /// Take a version out of waiting, shadow or service.
    Retire(OnVersion),
    /// End the run in flight.
    Cancel,
    /// Point an alias at a version, or remove it.
    Alias {
        /// The alias.
        alias: String,
        /// The version; without it the alias is removed.
        version: Option<u32>,
    },
    /// Write a version's card (Markdown, with plots as SVG).
    Card {
        /// The version.
        version: u32,
        /// Folder to write to.
        #[arg(long, default_value = "model-card", value_name = "DIR")]
        to: PathBuf,
    },
}

/// A version and why.
#[derive(Clone, Debug, Args)]
pub struct OnVersion {
    /// The version.
    pub version: u32,
    /// Why; ends up in the registry.
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub reason: String,
}

/// `falaj predict`
#[derive(Clone, Debug, Args)]
pub struct Predict {
    /// The model.
    pub model: String,
    /// One row: `input=value` for every key column and request feature, joined by commas. May be
    /// given many times.
    #[arg(long = "row", required = true, value_name = "INPUT=VALUE[,…]")]
    pub rows: Vec<String>,
    /// The node.
    #[command(flatten)]
    pub connection: Connection,
}

/// `falaj score`
#[derive(Clone, Debug, Args)]
pub struct Score {
    /// The model.
    pub model: String,
    /// Parquet file with the model's key columns and request features, and `prediction_id` if there
    /// are ids.
    #[arg(long, value_name = "FILE", required_unless_present = "view", conflicts_with = "view")]
    pub from: Option<PathBuf>,
    /// All keys of this view instead of a file, features read at the same `T`. Request features are
    /// taken from its columns of their name.
    #[arg(long, value_name = "VIEW")]
    pub view: Option<String>,
    /// With --view: at the greatest epoch T at or before this one; default: the newest. A scoring that
    /// goes on keeps the T that it began with.
    #[arg(long, value_name = "T", requires = "view")]
    pub at: Option<String>,
    /// Folder for the scores: one Parquet file per 50,000 rows. Parts that are there are left alone.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Rows per request.
    #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub batch: u32,
    /// The node.
    #[command(flatten)]
    pub connection: Connection,
}

/// `falaj drift`
#[derive(Clone, Debug, Args)]
pub struct Drift {
    /// The pipeline.
    pub pipeline: String,
    /// Of this version; default: the newest that was measured.
    #[arg(long, value_name = "N")]
    pub version: Option<u32>,
    /// Of this input, `score`, `predicted`, `inputs` or figure only.
    #[arg(long, value_name = "NAME")]
    pub subject: Option<String>,
    /// What is in alarm only.
    #[arg(long)]
    pub alarms: bool,
    /// Slices, too.
    #[arg(long)]
    pub slices: bool,
    /// Show the bins behind the scores.
    #[arg(long)]
    pub explain: bool,
    /// Windows that closed at this T or later; default: all.
    #[arg(long, value_name = "T")]
    pub from: Option<String>,
    /// The node.
    #[command(flatten)]
    pub connection: Connection,
}
