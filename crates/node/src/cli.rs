//! The command line: verbs, their options and their help.
//!
//! Knows words only; what a verb does stands in [`crate::verbs`].

mod models;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::place::{ClusterTls, LogPlace};
pub use models::{Drift, ModelAction, Models, OnVersion, Predict, Score, TokenOf, Train, Trainer};

/// Falaj: an ML platform that is a log.
#[derive(Debug, Parser)]
#[command(
    name = "falaj",
    version,
    about = "An event-sourced ML platform built around a log: events in, exact features out, replayable.",
    after_help = "Begin with `falaj demo`. Then, in a directory with topics/ and dataflows/:\n\
        \x20 falaj check                     are the definitions right?\n\
        \x20 falaj up                        run a node on them\n\
        \x20 falaj produce payments x.csv    append events\n\
        \x20 falaj features customer_activity --key customer_id=CUS-000042\n\
        \x20 falaj replay customer_activity --key customer_id=CUS-000042 --at 1767225600000000"
)]
pub struct Cli {
    /// Print one JSON document (or one JSON object per line) instead of tables.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show all of it on a simulation of card payments, and check every claim.
    Demo(Demo),
    /// Run a node on a definitions directory and a data directory, until Ctrl-C.
    Up(Up),
    /// Validate definitions; every error with file, line and column, every view with its cost.
    Check(Check),
    /// List topics and views, or describe one.
    Topics(Topics),
    /// Append events to a topic from NDJSON, CSV or Parquet files or standard input.
    Produce(Produce),
    /// Look features up by key, now or as of an earlier T.
    Features(Features),
    /// Print events of a topic as they are committed.
    Tail(Tail),
    /// Train a new version of a model, and follow the run through its gates.
    Train(Train),
    /// Show models, their versions and history; register, approve, promote, roll back.
    Models(Models),
    /// Ask a model for predictions.
    Predict(Predict),
    /// Score a Parquet file or a view with a model, part by part; an interrupted scoring goes on.
    Score(Score),
    /// Show what monitoring found in a model's newest windows: drift, performance, alarms.
    Drift(Drift),
    /// One training run as a process of its own; a node starts it.
    #[command(hide = true)]
    Trainer(Trainer),
    /// Recompute a key's row at an old T from raw events, and compare it with what was served.
    Replay(Replay),
    /// Audit what is stored: `--state` prints the digest of all state, `--log` verifies the log.
    Audit(Audit),
    /// Let go of events that their topics' `retention` no longer keeps.
    Compact(Compact),
    /// Write a topic or view to Parquet, or print a view's oracle SQL.
    Export(Export),
    /// Make a person's token: approvals count by person. Removing its file takes it back.
    Token(TokenOf),
    /// Write the training set of a model pipeline to Parquet.
    TrainingSet(TrainingSet),
    /// Move a log between its data directory and a Fluvio cluster, byte for byte.
    Migrate(Migrate),
}

/// Where the node is.
#[derive(Clone, Debug, Args)]
pub struct Connection {
    /// Data directory of the node. When no node is running on it, the verb opens it itself.
    #[arg(long, env = "FALAJ_DATA", default_value = "falaj-data", value_name = "DIR")]
    pub data: PathBuf,
    /// Directory with topics/ and dataflows/, for when the verb opens the data directory itself.
    #[arg(long, env = "FALAJ_DEFINITIONS", default_value = ".", value_name = "DIR")]
    pub definitions: PathBuf,
    /// Address of a node elsewhere, e.g. https://falaj.example:8815. Needs --ca and --token-file.
    #[arg(long, value_name = "URL", requires_all = ["ca", "token_file"])]
    pub url: Option<String>,
    /// Certificate authority of the node at --url (PEM).
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// File with the token: for the node at --url, or to speak to the local one as somebody else.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Where the log is.
#[derive(Clone, Debug, Default, Args)]
pub struct LogArgs {
    /// `embedded`, or `fluvio://HOST:PORT[/NAME]`: the controller of a Fluvio cluster and the name of
    /// the deployment there (default: falaj). Default: where the data directory has it.
    #[arg(long = "log", env = "FALAJ_LOG", value_name = "LOG")]
    pub log: Option<LogPlace>,
    /// The cluster, its certificates and replicas.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// What is said of a Fluvio cluster beside its address.
#[derive(Clone, Debug, Default, Args)]
pub struct ClusterArgs {
    /// Replicas of each partition that is made on the cluster.
    #[arg(long = "log-replicas", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub replicas: Option<u32>,
    /// The cluster's certificate authority (PEM): speak TLS to it.
    #[arg(long = "log-ca", value_name = "FILE", requires_all = ["certificate", "key"])]
    pub ca: Option<PathBuf>,
    /// This node's certificate for the cluster (PEM).
    #[arg(long = "log-certificate", id = "certificate", value_name = "FILE", requires = "ca")]
    pub certificate: Option<PathBuf>,
    /// This node's private key for the cluster (PEM).
    #[arg(long = "log-key", id = "key", value_name = "FILE", requires = "ca")]
    pub key: Option<PathBuf>,
    /// The name in the controller's certificate (default: its host). Those of its SPUs are expected
    /// to hold `custom-spu-ID.NAME`.
    #[arg(long = "log-domain", value_name = "NAME", requires = "ca")]
    pub domain: Option<String>,
}

impl LogArgs {
    /// Where the log shall be; `None` when nothing is said.
    pub fn place(&self) -> Option<LogPlace> {
        self.log.clone().map(|log| self.cluster.complete(log))
    }
}

impl ClusterArgs {
    fn complete(&self, log: LogPlace) -> LogPlace {
        let LogPlace::Fluvio(mut place) = log else { return log };
        place.replication = self.replicas.unwrap_or(place.replication);
        let host = place.controller.rsplit_once(':').map(|(host, _)| host.to_owned());
        // The data directory remembers them, wherever the next verb is started from.
        let whole = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        if let (Some(ca), Some(certificate), Some(key)) = (&self.ca, &self.certificate, &self.key) {
            place.tls = Some(ClusterTls {
                domain: self.domain.clone().or(host).unwrap_or_default(),
                ca: whole(ca),
                certificate: whole(certificate),
                key: whole(key),
            });
        }
        LogPlace::Fluvio(place)
    }
}

/// How T is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Clock {
    /// T follows the wall clock; windows expire by themselves. For live nodes.
    #[default]
    Wall,
    /// T follows the greatest event time. For loads, simulations and tests.
    Event,
}

/// `falaj demo`
#[derive(Clone, Debug, Args)]
pub struct Demo {
    /// Number of payments to simulate.
    #[arg(long, default_value_t = 90_000, value_name = "N")]
    pub events: u64,
    /// Seed of the simulation: the same seed gives the same events.
    #[arg(long, default_value_t = 2026)]
    pub seed: u64,
    /// Events per second that are streamed, at most; 0: as fast as they are acknowledged.
    #[arg(long, default_value_t = 6_000, value_name = "N")]
    pub rate: u64,
    /// Keep the data here instead of in a temporary directory. Must not exist.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Directory with topics/ and dataflows/ instead of the payments definitions that the binary
    /// carries.
    #[arg(long, value_name = "DIR")]
    pub definitions: Option<PathBuf>,
    /// Engine workers.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub workers: usize,
    /// The log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// `falaj up`
#[derive(Clone, Debug, Args)]
pub struct Up {
    /// Directory with topics/ and dataflows/.
    #[arg(long, env = "FALAJ_DEFINITIONS", default_value = ".", value_name = "DIR")]
    pub definitions: PathBuf,
    /// Data directory; made on first start.
    #[arg(long, env = "FALAJ_DATA", default_value = "falaj-data", value_name = "DIR")]
    pub data: PathBuf,
    /// Address to listen on. Port 0 takes any free port.
    #[arg(long, default_value = "127.0.0.1:8815", value_name = "ADDRESS")]
    pub listen: std::net::SocketAddr,
    /// Further host names or addresses for the server's certificate.
    #[arg(long = "name", value_name = "NAME")]
    pub names: Vec<String>,
    /// How T is chosen.
    #[arg(long, value_enum, default_value_t)]
    pub clock: Clock,
    /// Engine workers.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub workers: usize,
    /// How often to let go of what the topics' retention no longer keeps, e.g. `1 day` (see `falaj
    /// compact`), or `never`.
    #[arg(long, default_value = "1 day", value_name = "TIME")]
    pub compact_every: String,
    /// Compute changed views from the events that are kept, where retention has cut others and no
    /// baseline can stand in for them. Without this, starting is refused then.
    #[arg(long)]
    pub accept_cut: bool,
    /// The log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// `falaj check`
#[derive(Clone, Debug, Args)]
pub struct Check {
    /// Directory with topics/ and dataflows/.
    #[arg(env = "FALAJ_DEFINITIONS", default_value = ".")]
    pub definitions: PathBuf,
}

/// `falaj topics`
#[derive(Clone, Debug, Args)]
pub struct Topics {
    /// Describe this topic or view: columns, key, expectations.
    pub name: Option<String>,
    /// System topics too.
    #[arg(long)]
    pub all: bool,
    /// The node.
    #[command(flatten)]
    pub connection: Connection,
}

/// Format of a file of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FileFormat {
    /// One JSON object per line.
    Ndjson,
    /// Comma-separated values with a header line.
    Csv,
    /// Apache Parquet.
    Parquet,
}

/// `falaj produce`
#[derive(Clone, Debug, Args)]
pub struct Produce {
    /// The topic.
    pub topic: String,
    /// Files (.ndjson, .jsonl, .json, .csv, .parquet); several are merged by event time, each being
    /// in that order itself. None, or `-`: standard input.
    pub files: Vec<PathBuf>,
    /// Format; default: by the file's name, NDJSON for standard input.
    #[arg(long, value_enum)]
    pub format: Option<FileFormat>,
    /// Events per batch.
    #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub batch: u32,
    /// Name of this producer. The same name and the same files again append nothing: rows are
    /// numbered in order, and a number is accepted once.
    #[arg(long, value_name = "NAME")]
    pub producer: Option<String>,
    /// How T is chosen, when the verb opens the data directory itself.
    #[arg(long, value_enum, default_value_t)]
    pub clock: Clock,
    /// The node.
    #[command(flatten)]
    pub connection: Connection,
}

/// `falaj features`
#[derive(Clone, Debug, Args)]
pub struct Features {
    /// Views; all are read at one T.
    #[arg(required = true)]
    pub views: Vec<String>,
    /// A key: `column=value`, several columns joined by commas. May be given many times.
    #[arg(long = "key", required = true, value_name = "COLUMN=VALUE[,…]")]
    pub keys: Vec<String>,
    /// Read as of this T: microseconds since 1970 UTC, or RFC 3339.
    #[arg(long, value_name = "T")]
    pub as_of: Option<String>,
    /// Wait until the views have reached this T (reads one's own writes).
    #[arg(long, value_name = "T", conflicts_with = "as_of")]
    pub min_t: Option<String>,
    /// Columns, separated by commas; default: all.
    #[arg(long, value_delimiter = ',')]
    pub columns: Vec<String>,
    /// The node.
    #[command(flatten)]
    pub connection: Connection,
}

/// `falaj tail`
#[derive(Clone, Debug, Args)]
pub struct Tail {
    /// The topic.
    pub topic: String,
    /// Begin at this T instead of at the end (0: everything).
    #[arg(long, value_name = "T")]
    pub from: Option<String>,
    /// Stop after this many events.
    #[arg(short = 'n', long, value_name = "N")]
    pub limit: Option<u64>,
    /// Stop at the end instead of waiting for more.
    #[arg(long)]
    pub no_follow: bool,
    /// The node.
    #[command(flatten)]
    pub connection: Connection,
}

/// `falaj replay`
#[derive(Clone, Debug, Args)]
pub struct Replay {
    /// The view; with --prediction, the model.
    pub view: String,
    /// The key: `column=value`, several columns joined by commas.
    #[arg(long, value_name = "COLUMN=VALUE[,…]", required_unless_present = "prediction")]
    pub key: Option<String>,
    /// Replay this prediction of a model instead: features from raw events, the model by its hash.
    #[arg(long, value_name = "ID", conflicts_with_all = ["key", "at"])]
    pub prediction: Option<String>,
    /// T to replay to: microseconds since 1970 UTC, or RFC 3339. Default: the newest.
    #[arg(long, value_name = "T")]
    pub at: Option<String>,
    /// The node.
    #[command(flatten)]
    pub connection: Connection,
}

/// `falaj audit`
#[derive(Clone, Debug, Args)]
#[group(id = "what", required = true, multiple = true)]
pub struct Audit {
    /// Print the digest of all state (SHA-256 over every entry of every column family).
    #[arg(long, group = "what")]
    pub state: bool,
    /// Rebuild the state from the log beside the present one and compare them entry for entry.
    #[arg(long, group = "what")]
    pub rebuild: bool,
    /// Verify the log: the chain of epoch records, every block, every event hash and root.
    #[arg(long, group = "what")]
    pub log: bool,
    /// The node.
    #[command(flatten)]
    pub connection: Connection,
}

/// `falaj compact`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
    A topic's `retention` says for how long after its epoch's T an event is kept, measured back from\n\
    the newest T. This verb takes a baseline (a copy of all state under baselines/ in the data\n\
    directory, hashed, and named in an event on falaj.baselines) and removes older events from the\n\
    log. Lookups, history and new events are as before. What stays for ever: every epoch's record,\n\
    its event roots, offsets and producers' sequences, so that proofs hold and nothing is appended\n\
    twice; tables; topics with retention = \"forever\" (the default).\n\n\
    After a cut, `falaj audit --rebuild` and a state/ that was deleted begin with the baseline, whose\n\
    digest is checked against the log; reading a topic or replaying a view below the cut is an error\n\
    that says so; and changed views cannot see what was cut (`falaj up --accept-cut`).\n\
    `falaj up` does the same once a day (--compact-every).")]
pub struct Compact {
    /// Only say what would be cut.
    #[arg(long)]
    pub dry_run: bool,
    /// The node.
    #[command(flatten)]
    pub connection: Connection,
}

/// `falaj export`
#[derive(Clone, Debug, Args)]
pub struct Export {
    /// The topic or view.
    pub name: String,
    /// The Parquet file to write (or `-` for SQL on standard output, with --oracle).
    #[arg(long, value_name = "FILE", required_unless_present = "oracle")]
    pub to: Option<PathBuf>,
    /// Write the view's oracle SQL instead: the same answer, from scratch, by any SQL engine.
    #[arg(long)]
    pub oracle: bool,
    /// T of the view (or last T of the topic): microseconds since 1970 UTC, or RFC 3339.
    #[arg(long, value_name = "T")]
    pub at: Option<String>,
    /// The node.
    #[command(flatten)]
    pub connection: Connection,
}

/// `falaj training-set`
#[derive(Clone, Debug, Args)]
pub struct TrainingSet {
    /// The model pipeline.
    pub pipeline: String,
    /// What features show: everything known now that happened before the label's moment, what the
    /// views said then, or what the prediction was made with. Default: the pipeline's own.
    #[arg(long, value_enum)]
    pub mode: Option<SetMode>,
    /// Parquet file to write.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Only what was in the log at this T: microseconds since 1970 UTC, or RFC 3339.
    #[arg(long, value_name = "T")]
    pub until: Option<String>,
    /// All labels rather than the pipeline's `history` and `max_rows`.
    #[arg(long)]
    pub all: bool,
    /// Report per feature how the modes differ: the skew between training and serving.
    #[arg(long)]
    pub compare_modes: bool,
    /// The node.
    #[command(flatten)]
    pub connection: Connection,
}

/// Which view of the past a training set shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SetMode {
    /// Events known now that happened before the label's moment.
    AsCorrected,
    /// The views at the last epoch before it.
    AsKnown,
    /// The logged prediction.
    AsServed,
}

/// `falaj migrate`
#[derive(Clone, Debug, Args)]
pub struct Migrate {
    /// Where the log shall be: `embedded`, or `fluvio://HOST:PORT[/NAME]`. The old one stays as it is.
    #[arg(long, value_name = "LOG")]
    pub to: LogPlace,
    /// The cluster, its certificates and replicas.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Data directory of the node, which must not be running.
    #[arg(long, env = "FALAJ_DATA", default_value = "falaj-data", value_name = "DIR")]
    pub data: PathBuf,
    /// Directory with topics/ and dataflows/.
    #[arg(long, env = "FALAJ_DEFINITIONS", default_value = ".", value_name = "DIR")]
    pub definitions: PathBuf,
}

impl Migrate {
    /// The destination.
    pub fn place(&self) -> LogPlace {
        self.cluster.complete(self.to.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn verbs_parse() {
        let cli = Cli::parse_from(["falaj", "features", "a", "b", "--key", "k=1", "--json"]);
        assert!(cli.json);
        let Verb::Features(features) = cli.verb else { panic!("features") };
        assert_eq!(features.views, ["a", "b"]);
        assert!(Cli::try_parse_from(["falaj", "features", "a"]).is_err());
        assert!(Cli::try_parse_from(["falaj", "audit"]).is_err());
        assert!(Cli::try_parse_from(["falaj", "export", "v"]).is_err());
        assert!(Cli::try_parse_from(["falaj", "export", "v", "--oracle"]).is_ok());
        assert!(Cli::try_parse_from(["falaj", "up", "--log", "nowhere"]).is_err());
        assert!(Cli::try_parse_from(["falaj", "migrate"]).is_err());
    }

    #[test]
    fn a_log_on_a_cluster_takes_its_options() {
        let words = "falaj up --log fluvio://h:9003 --log-replicas 3 --log-ca a --log-certificate b --log-key c";
        let Verb::Up(up) = Cli::parse_from(words.split(' ')).verb else { panic!("up") };
        let Some(LogPlace::Fluvio(place)) = up.log.place() else { panic!("a cluster") };
        let tls = place.tls.unwrap();
        assert_eq!((place.replication, tls.domain.as_str()), (3, "h"));
        assert!(tls.ca.is_absolute() && tls.key.ends_with("c"), "{tls:?}");
        assert!(Cli::try_parse_from(words.split(' ').take(8)).is_err(), "a CA alone");
    }
}
