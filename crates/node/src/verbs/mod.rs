//! The verbs, one file each. All but `up`, `check` and `demo` are clients: of the node that runs on the
//! data directory, or of one that they start themselves for as long as they need it.
//!
//! Knows the command line and the client; not what is behind the doors.

mod audit;
mod check;
mod compact;
mod drift;
mod export;
mod features;
pub mod input;
mod migrate;
mod models;
mod predict;
mod produce;
mod replay;
mod score;
mod tail;
pub mod text;
mod topics;
mod train;
pub mod trainer;
mod training_set;
mod up;

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use falaj_definitions::catalog::Catalog;
use falaj_gateway::{Client, ConnectOptions};
use falaj_log::ClockMode;
use serde_json::Value as Json;

use crate::cli::{Cli, Clock, Connection, TokenOf, Verb};
use crate::core::CoreOptions;
use crate::endpoint::{self, DataDirectory};
use crate::serve::{Node, NodeOptions, connect_as};

/// Runs what the command line asks for.
///
/// # Errors
/// What went wrong, in words for the person at the terminal.
pub async fn run(cli: Cli) -> Result<()> {
    let json = cli.json;
    match cli.verb {
        Verb::Demo(options) => crate::demo::run(options, json).await,
        Verb::Up(options) => up::run(options, json).await,
        Verb::Check(options) => check::run(&options, json),
        Verb::Topics(options) => topics::run(options, json).await,
        Verb::Produce(options) => produce::run(options, json).await,
        Verb::Features(options) => features::run(options, json).await,
        Verb::Tail(options) => tail::run(options, json).await,
        Verb::Train(options) => train::run(options, json).await,
        Verb::Models(options) => models::run(options, json).await,
        Verb::Predict(options) => predict::run(options, json).await,
        Verb::Score(options) => score::run(options, json).await,
        Verb::Drift(options) => drift::run(options, json).await,
        Verb::Trainer(options) => trainer::run(&options),
        Verb::Replay(options) => replay::run(options, json).await,
        Verb::Audit(options) => audit::run(options, json).await,
        Verb::Compact(options) => compact::run(options, json).await,
        Verb::Export(options) => export::run(options, json).await,
        Verb::TrainingSet(options) => training_set::run(options, json).await,
        Verb::Migrate(options) => migrate::run(options, json).await,
        Verb::Token(options) => token(&options, json),
    }
}

fn token(options: &TokenOf, json: bool) -> Result<()> {
    let folder = DataDirectory(options.data.clone()).persons();
    let (_, path) = falaj_gateway::persons::token_of(&folder, &options.name)?;
    match json {
        true => println!("{}", serde_json::json!({ "person": options.name, "file": path })),
        false => println!("{}", path.display()),
    }
    Ok(())
}

impl From<Clock> for ClockMode {
    fn from(clock: Clock) -> Self {
        match clock {
            Clock::Wall => Self::Wall,
            Clock::Event => Self::Event,
        }
    }
}

/// A client, and the node behind it where this process had to start one.
pub struct Session {
    /// The client.
    pub client: Client,
    node: Option<Node>,
}

impl Session {
    /// Connects to the node of `connection`; where none is running, opens its data directory.
    ///
    /// # Errors
    /// When neither works; says what to do.
    pub async fn open(connection: &Connection, clock: Clock) -> Result<Self> {
        if let Some(url) = &connection.url {
            return Ok(Self { client: remote(url, connection).await?, node: None });
        }
        let data = DataDirectory(connection.data.clone());
        if let Some(found) = endpoint::read(&data)
            && let Ok(client) =
                connect_as(&data, found.address, connection.token_file.as_deref()).await
        {
            return Ok(Self { client, node: None });
        }
        let catalog = load(&connection.definitions)?;
        let options = NodeOptions {
            core: CoreOptions::new(&connection.data, clock.into()),
            listen: ([127, 0, 0, 1], 0).into(),
            names: Vec::new(),
        };
        let node = Node::start(options, catalog).await.with_context(|| {
            format!("no node answers on {} and it cannot be opened", connection.data.display())
        })?;
        let client = node.client_as(connection.token_file.as_deref()).await?;
        Ok(Self { client, node: Some(node) })
    }

    /// As [`Session::open`], for verbs that only read: a directory without data is an error.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn open_existing(connection: &Connection) -> Result<Self> {
        if connection.url.is_none() && !endpoint::is_data_directory(&connection.data) {
            bail!(
                "{} is no data directory: give --data DIR, or begin one with `falaj up` or `falaj produce`",
                connection.data.display()
            );
        }
        let session = Self::open(connection, Clock::Event).await?;
        session.settle().await?;
        Ok(session)
    }

    /// Waits until views that this process opened have caught up with the log.
    async fn settle(&self) -> Result<()> {
        if self.node.is_none() {
            return Ok(());
        }
        let bar = text::spinner("catching up with the log");
        loop {
            let status: Json = serde_json::from_str(&self.client.action("status").await?)?;
            if let Some(failure) = status["failure"].as_str() {
                bail!("the views stopped: {failure}");
            }
            if status["views_epoch"].as_u64().map(|epoch| epoch + 1) == status["epochs"].as_u64() {
                bar.finish_and_clear();
                return Ok(());
            }
            bar.set_message(format!(
                "catching up with the log: epoch {} of {}",
                status["views_epoch"], status["epochs"]
            ));
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Closes what was opened.
    ///
    /// # Errors
    /// When the node that this process started does not stop well.
    pub async fn close(self) -> Result<()> {
        drop(self.client);
        match self.node {
            Some(node) => node.stop().await,
            None => Ok(()),
        }
    }
}

async fn remote(url: &str, connection: &Connection) -> Result<Client> {
    let read = |path: &Option<std::path::PathBuf>| {
        let path = path.as_ref().context("--url needs --ca and --token-file")?;
        std::fs::read(path).with_context(|| format!("reading {}", path.display()))
    };
    let token = String::from_utf8(read(&connection.token_file)?).context("the token is no text")?;
    let options = ConnectOptions::new(url).ca_pem(read(&connection.ca)?).token(token);
    Ok(Client::connect(&options).await?)
}

/// Loads definitions, or fails with every finding.
///
/// # Errors
/// All findings, each with file, line and column.
pub fn load(directory: &std::path::Path) -> Result<Arc<Catalog>> {
    match Catalog::load(directory) {
        Ok(catalog) => Ok(Arc::new(catalog)),
        Err(findings) => {
            bail!("{findings}\nfix the definitions in {} (try `falaj check`)", directory.display())
        }
    }
}

/// What the node's catalog says of one topic or view; an error names what there is.
///
/// # Errors
/// When there is no such thing.
pub async fn describe(client: &Client, name: &str) -> Result<Json> {
    let all: Vec<Json> = serde_json::from_str(&client.action("catalog").await?)?;
    let names =
        || all.iter().filter_map(|entry| entry["name"].as_str()).collect::<Vec<_>>().join(", ");
    all.iter().find(|entry| entry["name"] == name).cloned().with_context(|| {
        format!("there is no topic or view called `{name}`; there are: {}", names())
    })
}
