//! The baseline of lookups: a gRPC server that answers each message of a stream with bytes that were
//! fixed before, behind the same TLS and the same settings as the node's.
//!
//! Does not decode what it gets; knows no view and no store.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use arrow::array::RecordBatch;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use falaj_gateway::encode::IpcEncoder;
use falaj_gateway::tls::TlsDirectory;
use falaj_gateway::{Client, ConnectOptions};
use falaj_node::serve::Node;
use futures::stream::{BoxStream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{
    Certificate, Channel, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig,
};
use tonic::{Request, Response, Status, Streaming};

use crate::measure::Latencies;
use crate::report::{Table, Target};

const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// What a stream is answered with.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// To the first message, which carries a descriptor.
    pub schema: FlightData,
    /// To every later message.
    pub batch: FlightData,
}

/// A running echo.
pub struct Echo {
    /// Where it listens.
    pub address: SocketAddr,
    /// The authority that it is trusted by.
    pub ca_pem: String,
    answers: Arc<Mutex<Answers>>,
    serving: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Echo {
    /// Starts one; certificates are made in `directory`.
    ///
    /// # Errors
    /// When no certificate can be made or no port is free.
    pub async fn start(directory: &Path) -> Result<Self> {
        let made = TlsDirectory::new(directory).identity(&[], SystemTime::now())?;
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        falaj_gateway::tls::use_ring();
        let identity = Identity::from_pem(&made.certificate_pem, &made.key_pem);
        let answers = Arc::new(Mutex::new(Answers::default()));
        let server = tonic::transport::Server::builder()
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .tls_config(ServerTlsConfig::new().identity(identity))?
            .add_service(FlightServiceServer::new(Service(Arc::clone(&answers))))
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        let serving = tokio::spawn(server);
        Ok(Self { address, ca_pem: made.ca_pem, answers, serving })
    }

    /// What streams that are opened from now on are answered with.
    pub fn answer_with(&self, answers: Answers) {
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner) = answers;
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A stream of whole messages, without Arrow at this end.
pub struct BareStream {
    outgoing: mpsc::Sender<FlightData>,
    incoming: Streaming<FlightData>,
}

impl BareStream {
    /// Opens a stream to `address` as the gateway's client would, for features of `path`.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn open(
        address: SocketAddr,
        ca_pem: &str,
        token: Option<&str>,
        path: Vec<String>,
        keys: &RecordBatch,
    ) -> Result<(Self, FlightData)> {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca_pem));
        let channel: Channel = Endpoint::from_shared(format!("https://{address}"))?
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .tls_config(tls)?
            .connect()
            .await?;
        let (outgoing, messages) = mpsc::channel(64);
        let mut first = IpcEncoder::new()?.schema(&keys.schema());
        first.flight_descriptor = Some(FlightDescriptor::new_path(path));
        outgoing.send(first).await?;
        let mut request = Request::new(ReceiverStream::new(messages));
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
        }
        let mut client = FlightServiceClient::new(channel);
        let mut incoming = client.do_exchange(request).await?.into_inner();
        let schema = incoming.message().await?.context("the stream ended")?;
        Ok((Self { outgoing, incoming }, schema))
    }

    /// Sends one message and waits for its answer.
    ///
    /// # Errors
    /// When the stream ended.
    pub async fn ask(&mut self, message: FlightData) -> Result<FlightData> {
        self.outgoing.send(message).await?;
        self.incoming.message().await?.context("the stream ended")
    }
}

/// A node's doors with an [`Echo`] beside them that gives the node's own answers.
pub struct Beside {
    /// The gateway's client, connected to the echo.
    pub echo_client: Client,
    echo: Echo,
    node: SocketAddr,
    ca_pem: String,
    token: String,
}

impl Beside {
    /// Starts an echo beside `node`; its certificates are made in `folder`.
    ///
    /// # Errors
    /// When it does not start or the node's certificate cannot be read.
    pub async fn start(node: &Node, folder: &Path) -> Result<Self> {
        let echo = Echo::start(&folder.join("echo-tls")).await?;
        let options = ConnectOptions::new(format!("https://{}", echo.address))
            .ca_pem(echo.ca_pem.clone())
            .token("none");
        let data = &node.core().options.data;
        Ok(Self {
            node: node.server().local_addr(),
            ca_pem: std::fs::read_to_string(data.tls().join("ca.pem"))?,
            token: std::fs::read_to_string(data.token())?.trim().to_owned(),
            echo_client: Client::connect(&options).await?,
            echo,
        })
    }

    /// Asks the node once, gives what it says to the echo, and opens a stream to the echo without any
    /// Arrow at this end.
    ///
    /// # Errors
    /// When one of the two does not answer.
    pub async fn answering_as(&self, path: &[&str], rows: &RecordBatch) -> Result<BareStream> {
        let path: Vec<String> = path.iter().map(|&part| part.to_owned()).collect();
        let token = Some(self.token.as_str());
        let (mut asked, schema) =
            BareStream::open(self.node, &self.ca_pem, token, path.clone(), rows).await?;
        let batch = asked.ask(encoded(rows)?).await?;
        self.echo.answer_with(Answers { schema, batch });
        let (bare, _) =
            BareStream::open(self.echo.address, &self.echo.ca_pem, None, path, rows).await?;
        Ok(bare)
    }
}

/// How long three ways of asking the same took: the node, the echo through the same client, the echo
/// without Arrow.
pub struct Times {
    node: Latencies,
    echo: Latencies,
    bare: Latencies,
}

impl Times {
    /// Nothing asked yet.
    ///
    /// # Errors
    /// When a histogram cannot be made.
    pub fn new() -> Result<Self> {
        Ok(Self { node: Latencies::new()?, echo: Latencies::new()?, bare: Latencies::new()? })
    }

    /// Asks all three, one after the other, so that whatever else the machine does touches them alike;
    /// returns the node's answer. The times are kept if they count.
    ///
    /// # Errors
    /// Whatever went wrong with any of them.
    pub async fn ask<Answer, Echoed, Bare>(
        &mut self,
        counts: bool,
        node: impl Future<Output = Result<Answer>>,
        echo: impl Future<Output = Result<Echoed>>,
        bare: impl Future<Output = Result<Bare>>,
    ) -> Result<Answer> {
        let started = Instant::now();
        let answer = node.await?;
        let node = started.elapsed();
        let started = Instant::now();
        echo.await?;
        let echo = started.elapsed();
        let started = Instant::now();
        std::hint::black_box(bare.await?);
        let bare = started.elapsed();
        if counts {
            self.node.record(node);
            self.echo.record(echo);
            self.bare.record(bare);
        }
        Ok(answer)
    }

    /// Adds the medians and 99th percentiles of `name`, with what is wanted of each against the echo.
    pub fn report(&self, table: &mut Table, name: &str, targets: [Target; 2]) {
        for ((quantile, at), target) in [("p50", 0.5), ("p99", 0.99)].into_iter().zip(targets) {
            let label = format!("{name}, {quantile}");
            table.ratio(&label, self.node.at(at), self.echo.at(at), "s", target);
            let label = format!("{name}, {quantile}, against the echo without Arrow");
            table.ratio(&label, self.node.at(at), self.bare.at(at), "s", Target::Stated);
        }
    }
}

/// Rows as a message of their own.
///
/// # Errors
/// When they cannot be encoded.
pub fn encoded(rows: &RecordBatch) -> Result<FlightData> {
    Ok(IpcEncoder::new()?.batch(rows, Default::default())?)
}

struct Service(Arc<Mutex<Answers>>);

type Answer<T> = BoxStream<'static, Result<T, Status>>;

fn absent<T>() -> Result<T, Status> {
    Err(Status::unimplemented("this server only echoes"))
}

#[tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = Answer<HandshakeResponse>;
    type ListFlightsStream = Answer<FlightInfo>;
    type DoGetStream = Answer<FlightData>;
    type DoPutStream = Answer<PutResult>;
    type DoActionStream = Answer<arrow_flight::Result>;
    type ListActionsStream = Answer<ActionType>;
    type DoExchangeStream = Answer<FlightData>;

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let echo = request.into_inner().map(move |message| {
            message.map(|message| match message.flight_descriptor {
                Some(_) => answers.schema.clone(),
                None => answers.batch.clone(),
            })
        });
        Ok(Response::new(echo.boxed()))
    }

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        absent()
    }

    async fn list_flights(
        &self,
        _: Request<Criteria>,
    ) -> Result<Response<Self::ListFlightsStream>, Status> {
        absent()
    }

    async fn get_flight_info(
        &self,
        _: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        absent()
    }

    async fn poll_flight_info(
        &self,
        _: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        absent()
    }

    async fn get_schema(
        &self,
        _: Request<FlightDescriptor>,
    ) -> Result<Response<SchemaResult>, Status> {
        absent()
    }

    async fn do_get(&self, _: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        absent()
    }

    async fn do_put(
        &self,
        _: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        absent()
    }

    async fn do_action(
        &self,
        _: Request<Action>,
    ) -> Result<Response<Self::DoActionStream>, Status> {
        absent()
    }

    async fn list_actions(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<Self::ListActionsStream>, Status> {
        absent()
    }
}
