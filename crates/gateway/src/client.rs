//! A client of the doors, for the command line, the demo and the benches.
//!
//! Why it exists: Rust programs should not each write Flight by hand. It speaks only what the wire
//! contract says ([`crate::wire`]), so anything it can do, any Arrow client can.

mod exchange;
mod features;
mod predict;
mod produce;
mod read;

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{Action, Criteria, FlightDescriptor, FlightInfo};
use serde_json::Value as Json;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

pub use features::{FeatureAnswer, FeatureReceiver, FeatureSender, FeatureStream};
pub use predict::{PredictAnswer, PredictReceiver, PredictSender, PredictStream};
pub use produce::{AckReceiver, BatchSender, ProduceStream};
pub use read::Reading;

use crate::error::DETAILS_METADATA;

const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Messages that a stream's sender may be ahead of the connection.
const SEND_AHEAD: usize = 64;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ClientError {
    /// No connection.
    #[error("cannot connect to {url}: {why}")]
    Connect {
        /// Where to.
        url: String,
        /// The cause, with its causes.
        why: String,
    },
    /// The node refused, or the connection broke.
    #[error("{message}")]
    Refused {
        /// The gRPC code.
        code: Code,
        /// For people.
        message: String,
        /// For programs: `{"code", "message", …}`; null when the connection itself broke.
        details: Json,
    },
    /// The node answered one request with an error; the stream goes on.
    #[error("{}", .0["message"].as_str().unwrap_or("the request failed"))]
    Request(Json),
    /// The node answered something that this client does not understand.
    #[error("the node's answer cannot be read: {0}")]
    Protocol(String),
    /// The stream is over.
    #[error("the stream has ended")]
    Ended,
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        let details = status.metadata().get(DETAILS_METADATA);
        let details = details.and_then(|details| serde_json::from_slice(details.as_bytes()).ok());
        Self::Refused {
            code: status.code(),
            message: status.message().to_owned(),
            details: details.unwrap_or_default(),
        }
    }
}

fn protocol(error: impl ToString) -> ClientError {
    ClientError::Protocol(error.to_string())
}

/// How to connect.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// `https://HOST:PORT` (or `grpc+tls://…`), or `http://HOST:PORT` for a node without TLS.
    pub url: String,
    /// The certificate of the node's authority, PEM (`ca.pem`).
    pub ca_pem: Option<Vec<u8>>,
    /// The token.
    pub token: Option<String>,
    /// Largest message in either direction.
    pub max_message_bytes: usize,
}

impl ConnectOptions {
    /// Options for `url` with neither authority nor token.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), ca_pem: None, token: None, max_message_bytes: 64 << 20 }
    }

    /// With the authority's certificate.
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca_pem = Some(pem.into());
        self
    }

    /// With a token; white space around it is dropped.
    pub fn token(mut self, token: impl AsRef<str>) -> Self {
        self.token = Some(token.as_ref().trim().to_owned());
        self
    }
}

/// A connection to a node. Clones share it; all calls may be made at once.
#[derive(Clone)]
pub struct Client {
    inner: FlightServiceClient<Channel>,
    authorization: Option<MetadataValue<Ascii>>,
    max_message_bytes: usize,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When the url, the certificate or the token cannot be read, or nobody answers in 10 s.
    pub async fn connect(options: &ConnectOptions) -> Result<Self, ClientError> {
        let failed = |error: &dyn std::error::Error| ClientError::Connect {
            url: options.url.clone(),
            why: with_causes(error),
        };
        let url = options
            .url
            .replacen("grpc+tls://", "https://", 1)
            .replacen("grpc+tcp://", "http://", 1)
            .replacen("grpc://", "http://", 1);
        let mut endpoint = Endpoint::from_shared(url)
            .map_err(|error| failed(&error))?
            .tcp_nodelay(true)
            .connect_timeout(Duration::from_secs(10))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        if endpoint.uri().scheme_str() == Some("https") {
            let mut tls = ClientTlsConfig::new();
            if let Some(pem) = &options.ca_pem {
                tls = tls.ca_certificate(Certificate::from_pem(pem));
            }
            endpoint = endpoint.tls_config(tls).map_err(|error| failed(&error))?;
        }
        let authorization = options
            .token
            .as_ref()
            .map(|token| format!("Bearer {token}").parse::<MetadataValue<Ascii>>())
            .transpose()
            .map_err(|error| failed(&error))?
            .map(|mut value| {
                value.set_sensitive(true);
                value
            });
        let channel = endpoint.connect().await.map_err(|error| failed(&error))?;
        let inner = FlightServiceClient::new(channel)
            .max_decoding_message_size(options.max_message_bytes)
            .max_encoding_message_size(options.max_message_bytes);
        Ok(Self { inner, authorization, max_message_bytes: options.max_message_bytes })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }

    /// Topics and views whose name or path (`topics/NAME`, `features/NAME`) begins with `prefix`.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn list(&self, prefix: &str) -> Result<Vec<FlightInfo>, ClientError> {
        let criteria = Criteria { expression: prefix.as_bytes().to_vec().into() };
        let mut infos = self.inner.clone().list_flights(self.request(criteria)).await?.into_inner();
        let mut all = Vec::new();
        while let Some(info) = infos.message().await? {
            all.push(info);
        }
        Ok(all)
    }

    /// What is known of `["topics", NAME]` or `["features", VIEW]`.
    ///
    /// # Errors
    /// When there is no such thing or the call fails.
    pub async fn info(&self, path: &[&str]) -> Result<FlightInfo, ClientError> {
        let path = path.iter().map(|part| (*part).to_owned()).collect();
        let descriptor = FlightDescriptor::new_path(path);
        Ok(self.inner.clone().get_flight_info(self.request(descriptor)).await?.into_inner())
    }

    /// The columns of `["topics", NAME]` or `["features", VIEW]`.
    ///
    /// # Errors
    /// As [`Client::info`].
    pub async fn columns(&self, path: &[&str]) -> Result<SchemaRef, ClientError> {
        let info = self.info(path).await?;
        info.try_decode_schema().map(std::sync::Arc::new).map_err(protocol)
    }

    /// The result of an action without a body: `status`, `healthz`, `catalog` or `metrics`.
    ///
    /// # Errors
    /// When there is no such action or the call fails.
    pub async fn action(&self, name: &str) -> Result<String, ClientError> {
        self.act(Action::new(name, "")).await
    }

    /// The result of an action that takes and gives JSON.
    ///
    /// # Errors
    /// When there is no such action, the body does not fit it, or the call fails.
    pub async fn json_action(&self, name: &str, body: &Json) -> Result<Json, ClientError> {
        let text = self.act(Action::new(name, body.to_string())).await?;
        serde_json::from_str(&text).map_err(protocol)
    }

    async fn act(&self, action: Action) -> Result<String, ClientError> {
        let mut results = self.inner.clone().do_action(self.request(action)).await?.into_inner();
        let mut body = Vec::new();
        while let Some(result) = results.message().await? {
            body.extend_from_slice(&result.body);
        }
        String::from_utf8(body).map_err(protocol)
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
