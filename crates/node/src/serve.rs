//! A running node: an open core behind its doors, and the endpoint file that says where.
//!
//! `Options → Node::start → Node::stop`. Knows no verb.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use falaj_definitions::catalog::Catalog;
use falaj_gateway::server::{Handle, Options as ServerOptions, Server, Tls};
use falaj_gateway::{Client, ConnectOptions, Limits};

use crate::backend::NodeBackend;
use crate::core::{Core, CoreOptions};
use crate::endpoint::{self, DataDirectory, Endpoint};
use crate::models::ModelLoop;

/// How to run a node.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// What is behind the doors.
    pub core: CoreOptions,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Further names for the server's certificate.
    pub names: Vec<String>,
}

/// A running node.
pub struct Node {
    core: Arc<Core>,
    models: Arc<ModelLoop>,
    server: Handle,
    data: DataDirectory,
}

const GRACE: Duration = Duration::from_secs(5);

impl Node {
    /// Opens the core (on a blocking thread: it may have to read the log) and starts serving it.
    ///
    /// # Errors
    /// When a part does not open or the address is taken.
    pub async fn start(options: NodeOptions, catalog: Arc<Catalog>) -> Result<Self> {
        let data = options.core.data.clone();
        let core_options = options.core.clone();
        let open = move || -> Result<Arc<ModelLoop>> {
            let core = Arc::new(Core::open(core_options, catalog)?);
            ModelLoop::start(core).context("opening the models")
        };
        let models = tokio::task::spawn_blocking(open).await.context("opening the node")??;
        let core = Arc::clone(models.core());
        let server_options = ServerOptions {
            address: options.listen,
            tls: Tls::Local { directory: data.tls(), names: options.names, now: SystemTime::now() },
            token_path: data.token(),
            limits: Limits::default(),
        };
        let backend = Arc::new(NodeBackend::new(Arc::clone(&models)));
        let server = Server::run(server_options, backend).await?;
        endpoint::write(
            &data,
            &Endpoint { address: server.local_addr(), process: std::process::id() },
        )
        .context("writing the endpoint file")?;
        Ok(Self { core, models, server, data })
    }

    /// What is behind the doors.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The model loop.
    pub fn models(&self) -> &Arc<ModelLoop> {
        &self.models
    }

    /// The doors.
    pub fn server(&self) -> &Handle {
        &self.server
    }

    /// A client of this node.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn client(&self) -> Result<Client> {
        self.client_as(None).await
    }

    /// A client of this node for whoever's token the file holds; `None`: the local user's.
    ///
    /// # Errors
    /// When the token cannot be read, or nobody answers.
    pub async fn client_as(&self, token: Option<&Path>) -> Result<Client> {
        connect_as(&self.data, self.server.local_addr(), token).await
    }

    /// Ends open streams, appends what is queued, lets the views catch up, and closes.
    ///
    /// # Errors
    /// When a part had failed.
    pub async fn stop(self) -> Result<()> {
        endpoint::remove(&self.data, std::process::id());
        let served = self.server.shutdown(GRACE).await;
        let (core, models) = (self.core, self.models);
        let close = move || {
            models.stop();
            drop(models);
            close(core)
        };
        tokio::task::spawn_blocking(close).await.context("closing the node")??;
        Ok(served?)
    }
}

/// Closes the core once the last stream has let go of it.
fn close(mut core: Arc<Core>) -> Result<()> {
    for _ in 0..200 {
        match Arc::try_unwrap(core) {
            Ok(core) => return core.close(),
            Err(shared) => core = shared,
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    anyhow::bail!("a request did not let go of the node within 5 s; the log is whole all the same")
}

/// Connects to the node of a data directory at `address`, with its authority and token.
///
/// # Errors
/// When the files cannot be read or nobody answers.
pub async fn connect(data: &DataDirectory, address: SocketAddr) -> Result<Client> {
    connect_as(data, address, None).await
}

/// As [`connect`], with the token in another file where one is given.
///
/// # Errors
/// When the files cannot be read or nobody answers.
pub async fn connect_as(
    data: &DataDirectory,
    address: SocketAddr,
    token: Option<&Path>,
) -> Result<Client> {
    let ca = std::fs::read(data.tls().join("ca.pem")).context("reading the node's authority")?;
    let path = token.map_or_else(|| data.token(), Path::to_owned);
    let token = std::fs::read_to_string(&path)
        .with_context(|| format!("reading the token {}", path.display()))?;
    let host = match address.ip().is_unspecified() {
        true => format!("localhost:{}", address.port()),
        false => address.to_string(),
    };
    let options = ConnectOptions::new(format!("https://{host}")).ca_pem(ca).token(token);
    Ok(Client::connect(&options).await?)
}
