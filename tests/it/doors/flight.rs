//! Whole views, discovery, authentication, TLS, shutdown and hostile bytes.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use arrow::array::{Array, RecordBatch};
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, FlightDescriptor, Ticket};
use bytes::Bytes;
use falaj_gateway::client::ClientError;
use falaj_gateway::encode::IpcEncoder;
use falaj_gateway::wire::{ProduceOptions, ReadTicket};
use falaj_gateway::{Client, ConnectOptions, Limits, Options, Server, ServerError, Tls};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tonic::{Code, Request};

use super::backend::{self, FIRST_T, MemoryBackend, cards, payments, serve, serve_with};

fn code(error: &ClientError) -> Option<Code> {
    match error {
        ClientError::Refused { code, .. } => Some(*code),
        _ => None,
    }
}

#[tokio::test]
async fn whole_views_are_read_as_of_any_t() {
    let limits = Limits { read_batch_rows: 7, ..Limits::default() };
    let served = serve_with(limits).await;
    let client = served.client().await;
    let names: Vec<_> = (0..30).map(|number| format!("c{number:02}")).collect();
    let batches: Vec<_> =
        names.iter().map(|card| payments(&[card], &[Some(2.0)], FIRST_T as i64)).collect();
    client.produce("payments", &batches, &ProduceOptions::default()).await.unwrap();

    let read = client.read(&ReadTicket::view("card_totals")).await.unwrap();
    assert_eq!(read.t(), Some(FIRST_T + 29));
    assert_eq!(read.schema().metadata()["falaj.t"], (FIRST_T + 29).to_string());
    let all = read.collect().await.unwrap();
    assert_eq!(all.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [7, 7, 7, 7, 2]);
    let as_of = ReadTicket {
        as_of: Some(FIRST_T + 4),
        columns: Some(vec!["count".to_owned()]),
        ..ReadTicket::view("card_totals")
    };
    let then = client.read(&as_of).await.unwrap().collect().await.unwrap();
    let present: usize = then.iter().map(|b| b.num_rows() - b.column(0).null_count()).sum();
    assert_eq!((then[0].num_columns(), present), (2, 5));
}

#[tokio::test]
async fn a_slow_reader_holds_the_scan_back() {
    let served = serve().await;
    let client = served.client().await;
    served.backend.tick(FIRST_T);
    let mut read = client.read(&ReadTicket::view("big")).await.unwrap();
    read.next().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let asked = served.backend.scanned.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let later = served.backend.scanned.load(Ordering::SeqCst);
    // A batch is 28 MB; the windows hold 16 MB.
    assert!(later <= 4 && later <= asked + 1, "{asked}, then {later} batches for a silent reader");
    drop(read);
    let metrics = served.handle().metrics().clone();
    backend::eventually("the scan is dropped", || {
        metrics.scans.open_streams.load(Ordering::Relaxed) == 0
    })
    .await;
}

#[tokio::test]
async fn a_followed_topic_goes_on_and_ends_with_its_reader() {
    let served = serve().await;
    let client = served.client().await;
    let one = |card: &str| payments(&[card], &[None], FIRST_T as i64);
    client.produce("payments", &[one("a")], &ProduceOptions::default()).await.unwrap();
    let follow = ReadTicket { follow: true, ..ReadTicket::topic("payments") };
    let mut read = client.read(&follow).await.unwrap();
    assert_eq!(read.next().await.unwrap().unwrap().num_rows(), 1);
    for _ in 0..3 {
        client.produce("payments", &[one("b")], &ProduceOptions::default()).await.unwrap();
        assert_eq!(read.next().await.unwrap().unwrap().num_rows(), 1);
    }
    drop(read);
    let metrics = served.handle().metrics().clone();
    backend::eventually("the followed read is dropped", || {
        metrics.topic_reads.open_streams.load(Ordering::Relaxed) == 0
    })
    .await;
}

#[tokio::test]
async fn tickets_that_mean_nothing_are_explained() {
    let served = serve().await;
    let client = served.client().await;
    let both = ReadTicket { topic: Some("payments".into()), ..ReadTicket::view("card_totals") };
    let offset = ReadTicket { from_offset: Some(1), ..ReadTicket::topic("payments") };
    let partition = ReadTicket { partition: Some(9), ..ReadTicket::topic("payments") };
    let column =
        ReadTicket { columns: Some(vec!["totl".into()]), ..ReadTicket::view("card_totals") };
    let follow = ReadTicket { follow: true, ..ReadTicket::view("card_totals") };
    let cases = [
        (
            ReadTicket::default(),
            Code::InvalidArgument,
            "either a `view`, a `topic` or a `training_set`",
        ),
        (both, Code::InvalidArgument, "either a `view`, a `topic` or a `training_set`"),
        (offset, Code::InvalidArgument, "give `partition`"),
        (partition, Code::InvalidArgument, "there is no partition 9"),
        (column, Code::NotFound, "did you mean `total`"),
        (follow, Code::InvalidArgument, "means nothing for a view"),
        (ReadTicket::view("card_total"), Code::NotFound, "did you mean `card_totals`"),
        (ReadTicket::topic("payment"), Code::NotFound, "did you mean `payments`"),
    ];
    for (ticket, expected_code, expected) in cases {
        let error = client.read(&ticket).await.err().unwrap();
        assert_eq!(code(&error), Some(expected_code));
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn topics_and_views_are_discovered() {
    let served = serve().await;
    let client = served.client().await;
    let batch = payments(&["a", "b"], &[None, None], FIRST_T as i64);
    client.produce("payments", &[batch], &ProduceOptions::default()).await.unwrap();
    let all = client.list("").await.unwrap();
    let paths: Vec<_> =
        all.iter().map(|info| info.flight_descriptor.as_ref().unwrap().path.join("/")).collect();
    let expected = [
        "topics/accounts",
        "topics/falaj.epochs",
        "topics/payments",
        "features/big",
        "features/card_counts",
        "features/card_totals",
    ];
    assert_eq!(paths, expected);
    assert_eq!(client.list("topics/").await.unwrap().len(), 3);
    assert_eq!(client.list("card_").await.unwrap().len(), 2);

    let info = client.info(&["topics", "payments"]).await.unwrap();
    assert_eq!(info.total_records, 2);
    let about: serde_json::Value = serde_json::from_slice(&info.app_metadata).unwrap();
    assert_eq!((&about["key"][0], &about["t"]), (&"card".into(), &FIRST_T.into()));
    let schema = info.clone().try_decode_schema().unwrap();
    assert_eq!(schema.field(3).name(), "shop");
    let ticket = info.endpoint[0].ticket.as_ref().unwrap();
    assert_eq!(ReadTicket::parse(&ticket.ticket).unwrap(), ReadTicket::topic("payments"));
    let error = client.info(&["features", "card"]).await.unwrap_err();
    assert_eq!(code(&error), Some(Code::NotFound));

    let catalog: serde_json::Value =
        serde_json::from_str(&client.action("catalog").await.unwrap()).unwrap();
    assert_eq!(catalog.as_array().unwrap().len(), 6);
    assert_eq!(client.action("healthz").await.unwrap(), "ok");
    served.backend.hold.send_replace(true);
    let error = client.action("healthz").await.unwrap_err();
    assert_eq!(code(&error), Some(Code::Unavailable));
    let metrics: serde_json::Value =
        serde_json::from_str(&client.action("metrics").await.unwrap()).unwrap();
    assert_eq!(metrics["produce"]["rows"], 2);
    assert!(client.action("reboot").await.unwrap_err().to_string().contains("`status`"));
}

#[tokio::test]
async fn without_the_token_every_door_is_shut() {
    let served = serve().await;
    for token in [None, Some("0".repeat(64)), Some("short".to_owned())] {
        let options = ConnectOptions { token, ..served.options.clone() };
        let client = Client::connect(&options).await.unwrap();
        let schema = cards(&["a"]).schema();
        let batch = payments(&["a"], &[None], 0);
        let outcomes = [
            client.list("").await.err(),
            client.action("status").await.err(),
            client.info(&["topics", "payments"]).await.err(),
            client.read(&ReadTicket::view("card_totals")).await.err(),
            client.features(&["card_totals"], &schema).await.err(),
            client.produce("payments", &[batch], &ProduceOptions::default()).await.err(),
        ];
        for outcome in outcomes {
            let error = outcome.unwrap();
            assert_eq!(code(&error), Some(Code::Unauthenticated));
            assert!(error.to_string().contains("authorization: Bearer"), "{error}");
        }
    }
    assert_eq!(served.handle().metrics().unauthenticated.load(Ordering::Relaxed), 18);
    assert_eq!(served.backend.admitted.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_trusted() {
    let served = serve().await;
    let other = serve().await;
    let options = ConnectOptions { ca_pem: other.options.ca_pem.clone(), ..served.options.clone() };
    assert!(matches!(Client::connect(&options).await, Err(ClientError::Connect { .. })));
    let plain = served.options.url.replace("https", "http");
    let options = ConnectOptions { url: plain, ..served.options.clone() };
    let refused = match Client::connect(&options).await {
        Err(_) => true,
        Ok(client) => client.list("").await.is_err(),
    };
    assert!(refused, "plain text is not answered");
    let name = served.options.url.replace("127.0.0.1", "localhost");
    let options = ConnectOptions { url: name, ..served.options.clone() };
    Client::connect(&options).await.unwrap().list("").await.unwrap();
}

fn plain_options(directory: &std::path::Path, address: &str) -> Options {
    Options {
        address: address.parse().unwrap(),
        tls: Tls::Disabled,
        token_path: directory.join("token"),
        limits: Limits::default(),
    }
}

#[tokio::test]
async fn plain_text_is_for_loopback_only() {
    let directory = tempfile::tempdir().unwrap();
    let network = plain_options(directory.path(), "0.0.0.0:0");
    let refused = Server::run(network, MemoryBackend::new()).await;
    assert!(matches!(refused, Err(ServerError::PlainTextOnNetwork(_))));
    let local = plain_options(directory.path(), "127.0.0.1:0");
    let handle = Server::run(local, MemoryBackend::new()).await.unwrap();
    let token = std::fs::read_to_string(directory.path().join("token")).unwrap();
    let options = ConnectOptions::new(handle.url()).token(token);
    Client::connect(&options).await.unwrap().list("").await.unwrap();
    let taken = plain_options(directory.path(), &handle.local_addr().to_string());
    let refused = Server::run(taken, MemoryBackend::new()).await;
    assert!(matches!(refused, Err(ServerError::Listen { .. })));
}

#[tokio::test]
async fn the_authority_and_the_token_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let options = Options {
            tls: Tls::Local {
                directory: directory.path().to_owned(),
                names: vec!["falaj.test".to_owned()],
                now: SystemTime::now(),
            },
            ..plain_options(directory.path(), "127.0.0.1:0")
        };
        let handle = Server::run(options, MemoryBackend::new()).await.unwrap();
        seen.push((
            std::fs::read(handle.ca_path().unwrap()).unwrap(),
            std::fs::read(directory.path().join("token")).unwrap(),
        ));
        handle.shutdown(Duration::from_secs(5)).await.unwrap();
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn shutdown_ends_open_streams_and_acknowledges_what_was_admitted() {
    let mut served = serve().await;
    let client = served.client().await;
    let mut lookups = client.features(&["card_counts"], &cards(&["a"]).schema()).await.unwrap();
    let follow = ReadTicket { follow: true, ..ReadTicket::topic("payments") };
    let mut read = client.read(&follow).await.unwrap();
    served.backend.hold.send_replace(true);
    let batch = payments(&["a"], &[None], FIRST_T as i64);
    let mut producing = client.producer("payments", &batch.schema()).await.unwrap();
    let acknowledged =
        tokio::spawn(
            async move { producing.send_and_wait(&batch, &ProduceOptions::default()).await },
        );
    let admitted = &served.backend.admitted;
    backend::eventually("the batch is admitted", || admitted.load(Ordering::SeqCst) == 1).await;

    let address = served.handle().local_addr();
    let stopping = tokio::spawn(served.handle.take().unwrap().shutdown(Duration::from_secs(20)));
    let unavailable = |what: &str, error: ClientError| {
        assert_eq!(code(&error), Some(Code::Unavailable), "{what}: {error:?}");
    };
    loop {
        match read.next().await {
            Ok(batch) => assert!(batch.is_some()),
            Err(error) => break unavailable("a followed topic", error),
        }
    }
    let refused = lookups.lookup(&cards(&["a"]), &Default::default()).await.unwrap_err();
    unavailable("a feature stream", refused);
    served.backend.hold.send_replace(false);
    assert_eq!(acknowledged.await.unwrap().unwrap().accepted, 1);
    drop((lookups, read, client));
    stopping.await.unwrap().unwrap();
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[tokio::test]
async fn messages_above_the_limit_are_refused() {
    let limits = Limits { max_message_bytes: 64 << 10, ..Limits::default() };
    let served = serve_with(limits).await;
    let client = served.client().await;
    let names: Vec<_> = (0..10_000).map(|number| format!("a rather long card {number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut stream = client.features(&["card_counts"], &cards(&[]).schema()).await.unwrap();
    let error = stream.lookup(&cards(&names), &Default::default()).await.unwrap_err();
    assert_eq!(code(&error), Some(Code::OutOfRange));
    let mut stream = client.features(&["card_counts"], &cards(&[]).schema()).await.unwrap();
    stream.lookup(&cards(&names[..100]), &Default::default()).await.unwrap();
}

/// Messages that are right in themselves, as (header, body, metadata).
fn valid_messages() -> Vec<FlightData> {
    let mut encoder = IpcEncoder::new().unwrap();
    let keys = cards(&["a", "b"]);
    let rows = payments(&["a", "b"], &[Some(1.0), None], FIRST_T as i64);
    let path = |parts: [&str; 2]| Some(FlightDescriptor::new_path(parts.map(str::to_owned).into()));
    let mut features = encoder.schema(&keys.schema());
    features.flight_descriptor = path(["features", "card_totals"]);
    let mut topics = encoder.schema(&rows.schema());
    topics.flight_descriptor = path(["topics", "payments"]);
    let metadata = Bytes::from_static(b"{\"id\": 1}");
    vec![
        features,
        topics,
        encoder.batch(&keys, metadata.clone()).unwrap(),
        encoder.batch(&rows, metadata).unwrap(),
        FlightData { app_metadata: Bytes::from_static(b"{"), ..FlightData::default() },
        FlightData::default(),
    ]
}

fn hostile_stream() -> impl Strategy<Value = Vec<FlightData>> {
    let damage = prop::collection::vec((0..3_u8, any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let message = (0..6_usize, damage).prop_map(|(which, damage)| {
        let mut message = valid_messages().swap_remove(which);
        for (part, position, byte) in damage {
            let bytes = match part {
                0 => &mut message.data_header,
                1 => &mut message.data_body,
                _ => &mut message.app_metadata,
            };
            if bytes.is_empty() {
                *bytes = Bytes::copy_from_slice(&[byte]);
                continue;
            }
            let mut changed = bytes.to_vec();
            let position = position.index(changed.len());
            changed[position] ^= byte | 1;
            *bytes = changed.into();
        }
        message
    });
    (any::<bool>(), prop::collection::vec(message, 0..6)).prop_map(|(put, mut messages)| {
        messages.insert(0, valid_messages().swap_remove(usize::from(put)));
        messages
    })
}

#[tokio::test]
async fn hostile_messages_never_stop_the_server() {
    let served = serve().await;
    let channel = {
        let ca = tonic::transport::Certificate::from_pem(served.options.ca_pem.clone().unwrap());
        let tls = tonic::transport::ClientTlsConfig::new().ca_certificate(ca);
        let url = served.options.url.clone();
        let endpoint = tonic::transport::Endpoint::from_shared(url).unwrap();
        endpoint.tls_config(tls).unwrap().connect().await.unwrap()
    };
    let bearer: tonic::metadata::MetadataValue<_> =
        format!("Bearer {}", served.options.token.as_ref().unwrap()).parse().unwrap();
    let mut client =
        FlightServiceClient::with_interceptor(channel, move |mut request: Request<()>| {
            request.metadata_mut().insert("authorization", bearer.clone());
            Ok(request)
        });
    let mut runner = TestRunner::deterministic();
    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    for case in 0..300 {
        let messages = hostile_stream().new_tree(&mut runner).unwrap().current();
        let requests = futures::stream::iter(messages);
        let mut count = |outcome: Option<Code>| {
            *outcomes.entry(format!("{outcome:?}")).or_default() += 1;
        };
        if case % 2 == 0 {
            let mut answers = client.do_exchange(requests).await.unwrap().into_inner();
            loop {
                match answers.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => break count(None),
                    Err(status) => break count(Some(status.code())),
                }
            }
        } else {
            let mut answers = client.do_put(requests).await.unwrap().into_inner();
            loop {
                match answers.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => break count(None),
                    Err(status) => break count(Some(status.code())),
                }
            }
        }
        let ticket: Vec<u8> =
            prop::collection::vec(any::<u8>(), 0..40).new_tree(&mut runner).unwrap().current();
        assert!(client.do_get(Ticket::new(ticket)).await.is_err());
    }
    assert!(
        outcomes.keys().all(|o| o.contains("None")
            || o.contains("Some(InvalidArgument)")
            || o.contains("Some(NotFound)")),
        "{outcomes:?}"
    );
    assert!(outcomes.len() >= 2, "both kinds of stream were among them: {outcomes:?}");
    let good = served.client().await;
    good.list("").await.unwrap();
}
