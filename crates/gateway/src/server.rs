//! The server: options in, a running listener with TLS and a token out.
//!
//! Knows sockets, TLS and authentication; nothing of what is served.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use arrow_flight::flight_service_server::FlightServiceServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity as TlsIdentity, ServerTlsConfig};
use tonic::{Request, Status};

use crate::backend::{Backend, Identity};
use crate::flight::{Gateway, Limits};
use crate::metrics::Metrics;
use crate::persons::Persons;
use crate::tls::{TlsDirectory, TlsError};
use crate::token::{Token, TokenError};

const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const KEEPALIVE: Duration = Duration::from_secs(30);
const MAX_STREAMS_PER_CONNECTION: u32 = 4096;

/// Where the server's certificate comes from.
#[derive(Clone, Debug)]
pub enum Tls {
    /// A local authority in this directory, made on first start ([`crate::tls`]).
    Local {
        /// The directory.
        directory: PathBuf,
        /// Host names and addresses besides `localhost`, `127.0.0.1` and `::1`.
        names: Vec<String>,
        /// The wall clock, for making and renewing certificates.
        now: SystemTime,
    },
    /// Plain text; refused on anything but loopback addresses.
    Disabled,
}

/// Name of the folder of persons' tokens.
pub const PERSONS: &str = "persons";

/// How to serve.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes any free one.
    pub address: SocketAddr,
    /// TLS.
    pub tls: Tls,
    /// The file of the local user's token, made on first start. Further persons have theirs in the
    /// folder [`PERSONS`] beside it.
    pub token_path: PathBuf,
    /// Bounds that protect the node.
    pub limits: Limits,
}

/// A server that does not start, or stopped badly.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Plain text on a network.
    #[error("TLS can be switched off on loopback addresses only, not on {0}; leave TLS on")]
    PlainTextOnNetwork(SocketAddr),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The address.
    #[error("cannot listen on {address}: {source}; is another node running?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// gRPC.
    #[error("the gRPC server failed: {0}")]
    Serve(String),
}

/// Starts servers.
pub struct Server;

impl Server {
    /// Binds, then serves `backend` until [`Handle::shutdown`]. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// [`ServerError`]; nothing is running then.
    pub async fn run(options: Options, backend: Arc<dyn Backend>) -> Result<Handle, ServerError> {
        crate::tls::use_ring();
        let loopback = options.address.ip().is_loopback();
        if matches!(options.tls, Tls::Disabled) && !loopback {
            return Err(ServerError::PlainTextOnNetwork(options.address));
        }
        let token = Token::load_or_create(&options.token_path)?;
        let mut builder = tonic::transport::Server::builder()
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE));
        let mut ca_path = None;
        if let Tls::Local { directory, names, now } = &options.tls {
            let directory = TlsDirectory::new(directory);
            let identity = directory.identity(names, *now)?;
            let identity = TlsIdentity::from_pem(identity.certificate_pem, identity.key_pem);
            builder = builder
                .tls_config(ServerTlsConfig::new().identity(identity))
                .map_err(|error| ServerError::Serve(error.to_string()))?;
            ca_path = Some(directory.ca_path());
        }
        let listen = |source| ServerError::Listen { address: options.address, source };
        let listener = TcpListener::bind(options.address).await.map_err(listen)?;
        let local_addr = listener.local_addr().map_err(listen)?;
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));

        let metrics = Arc::new(Metrics::default());
        let (stop, stopping) = watch::channel(false);
        let limits = options.limits;
        let gateway = Gateway { backend, metrics: Arc::clone(&metrics), limits, stopping };
        let service = FlightServiceServer::new(gateway.clone())
            .max_decoding_message_size(limits.max_message_bytes)
            .max_encoding_message_size(limits.max_message_bytes);
        let authenticate = Authenticate::new(token, &options.token_path, Arc::clone(&metrics));
        let service = InterceptedService::new(service, move |request| authenticate.check(request));
        let serving =
            builder.add_service(service).serve_with_incoming_shutdown(incoming, async move {
                gateway.stopped().await;
            });
        let task = tokio::spawn(serving);
        Ok(Handle { local_addr, ca_path, metrics, stop, task })
    }
}

/// Checks the token of every call.
#[derive(Clone)]
struct Authenticate {
    token: Token,
    refusal: Arc<str>,
    local: Identity,
    persons: Persons,
    metrics: Arc<Metrics>,
}

impl Authenticate {
    fn new(token: Token, path: &std::path::Path, metrics: Arc<Metrics>) -> Self {
        let refusal = format!(
            "send the header `authorization: Bearer TOKEN`, where TOKEN is what the file {} on the \
             node holds",
            path.display()
        );
        let local = Identity { name: "local".into() };
        let persons = Persons::new(path.with_file_name(PERSONS));
        Self { token, refusal: refusal.into(), local, persons, metrics }
    }

    fn check(&self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let header = request.metadata().get("authorization").map(|header| header.as_bytes());
        let identity = match header {
            Some(header) if self.token.admits(header) => Some(self.local.clone()),
            Some(header) => self.persons.admit(header),
            None => None,
        };
        let Some(identity) = identity else {
            self.metrics.unauthenticated.fetch_add(1, Relaxed);
            return Err(Status::unauthenticated(self.refusal.as_ref()));
        };
        request.extensions_mut().insert(identity);
        Ok(request)
    }
}

/// A running server. Dropping it stops the server without waiting.
pub struct Handle {
    local_addr: SocketAddr,
    ca_path: Option<PathBuf>,
    metrics: Arc<Metrics>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Handle {
    /// Where it listens, with the port that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What clients put before [`Handle::local_addr`]: `https://…` or `http://…`.
    pub fn url(&self) -> String {
        let scheme = if self.ca_path.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.local_addr)
    }

    /// The file of the authority that clients must trust; none without TLS.
    pub fn ca_path(&self) -> Option<&std::path::Path> {
        self.ca_path.as_deref()
    }

    /// What the doors counted so far.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Stops listening, ends open streams with UNAVAILABLE, lets requests in progress finish for
    /// at most `grace`, then cuts what is left.
    ///
    /// # Errors
    /// When the server had failed before.
    pub async fn shutdown(mut self, grace: Duration) -> Result<(), ServerError> {
        let _ = self.stop.send(true);
        match tokio::time::timeout(grace, &mut self.task).await {
            Ok(Ok(served)) => served.map_err(|error| ServerError::Serve(error.to_string())),
            Ok(Err(panicked)) => Err(ServerError::Serve(panicked.to_string())),
            Err(_) => {
                self.task.abort();
                Ok(())
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Nobody may be listening any more; that is what is wanted.
        let _ = self.stop.send(true);
    }
}
