//! Lookups through the feature door, over TLS on loopback.

use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use falaj_gateway::backend::ValueStatus;
use falaj_gateway::client::ClientError;
use falaj_gateway::wire::LookupOptions;
use serde_json::json;

use super::backend::{self, FIRST_T, TTL_US, cards, payments, serve};

fn card_schema() -> Schema {
    Schema::new(vec![Field::new("card", DataType::Utf8, true)])
}

fn plain() -> LookupOptions {
    LookupOptions::default()
}

#[tokio::test]
async fn every_status_is_told_apart() {
    let served = serve().await;
    let client = served.client().await;
    let batch = payments(
        &["a", "a", "nil", "odd"],
        &[Some(1.5), Some(2.0), None, Some(f64::NAN)],
        FIRST_T as i64,
    );
    let acks = client.produce("payments", &[batch], &Default::default()).await.unwrap();
    let late = payments(&["b"], &[Some(1.0)], (FIRST_T + TTL_US) as i64);
    client.produce("payments", &[late], &Default::default()).await.unwrap();

    let mut stream = client.features(&["card_totals"], &card_schema()).await.unwrap();
    let names: Vec<_> =
        stream.schema().unwrap().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["card", "count", "total", "__status"]);
    let keys = cards(&["a", "nil", "odd", "never", "erased", "building"]);
    let answer = stream.lookup(&keys, &plain()).await.unwrap();
    assert_eq!(answer.t, FIRST_T + 1);
    assert_eq!(answer.batch.num_rows(), 6);
    use ValueStatus as S;
    let expected = [
        [S::Present, S::Present],
        [S::Present, S::Null],
        [S::Present, S::Error],
        [S::NotFound, S::NotFound],
        [S::Erased, S::Erased],
        [S::Unavailable, S::Unavailable],
    ];
    for (row, statuses) in expected.into_iter().enumerate() {
        for (value, status) in statuses.into_iter().enumerate() {
            assert_eq!(answer.status(row, value), Some(status), "row {row}, value {value}");
            let is_null = answer.batch.column(1 + value).is_null(row);
            assert_eq!(is_null, status != S::Present);
        }
    }
    assert_eq!(answer.status(6, 0), None);
    assert_eq!((answer.counts.present, answer.counts.null, answer.counts.error), (4, 1, 1));
    assert_eq!(answer.batch.column(1).as_primitive::<Int64Type>().value(0), 2);
    assert_eq!(
        answer.batch.column(2).as_ref().slice(0, 1).as_ref(),
        &Float64Array::from(vec![3.5])
    );

    served.backend.tick(acks[0].t.unwrap().0 + TTL_US + 1);
    let answer = stream.lookup(&keys, &plain()).await.unwrap();
    assert_eq!(answer.status(0, 0), Some(S::Expired));
    let past = LookupOptions { as_of: Some(FIRST_T), ..plain() };
    let answer = stream.lookup(&keys, &past).await.unwrap();
    assert_eq!((answer.t, answer.status(0, 0)), (FIRST_T, Some(S::Present)));
}

#[tokio::test]
async fn several_views_are_read_at_one_t() {
    let served = serve().await;
    let client = served.client().await;
    let batch = payments(&["a"], &[Some(4.0)], FIRST_T as i64);
    client.produce("payments", &[batch], &Default::default()).await.unwrap();
    let wanted = ["card_counts", "card_totals.total", "card_totals.count"];
    let mut stream = client.features(&wanted, &card_schema()).await.unwrap();
    let answer = stream.lookup(&cards(&["a", "x"]), &plain()).await.unwrap();
    let schema = answer.batch.schema();
    let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(
        names,
        ["card", "card_counts.count", "card_totals.total", "card_totals.count", "__status"]
    );
    assert_eq!(answer.batch.column(1), answer.batch.column(3));
    assert_eq!(answer.status(1, 2), Some(ValueStatus::NotFound));
}

#[tokio::test]
async fn a_failed_request_is_answered_and_the_stream_goes_on() {
    let served = serve().await;
    let client = served.client().await;
    let batch = payments(&["a"], &[Some(1.0)], FIRST_T as i64);
    client.produce("payments", &[batch], &Default::default()).await.unwrap();
    let mut stream = client.features(&["card_totals"], &card_schema()).await.unwrap();
    let too_old = LookupOptions { as_of: Some(1), ..plain() };
    let too_soon = LookupOptions { min_t: Some(u64::MAX), timeout_ms: Some(1), ..plain() };
    for (options, code) in [(too_old, "not_retained"), (too_soon, "not_yet")] {
        match stream.lookup(&cards(&["a"]), &options).await {
            Err(ClientError::Request(details)) => assert_eq!(details["code"], code),
            other => panic!("{other:?}"),
        }
    }
    let tagged = LookupOptions { id: Some(json!({"trace": 7})), ..plain() };
    let answer = stream.lookup(&cards(&["a"]), &tagged).await.unwrap();
    assert_eq!(answer.id, tagged.id);
    let answer = stream.lookup(&cards(&[]), &plain()).await.unwrap();
    assert_eq!(answer.batch.num_rows(), 0);
}

#[tokio::test]
async fn min_t_reads_ones_own_write() {
    let served = serve().await;
    let client = served.client().await;
    let mut stream = client.features(&["card_counts"], &card_schema()).await.unwrap();
    let wait = LookupOptions { min_t: Some(FIRST_T), timeout_ms: Some(10_000), ..plain() };
    let keys = cards(&["a"]);
    let reading = stream.lookup(&keys, &wait);
    let writing = async {
        let waiting = &served.backend.waiting;
        backend::eventually("a lookup waits", || {
            waiting.load(std::sync::atomic::Ordering::SeqCst) == 1
        })
        .await;
        let batch = payments(&["a"], &[None], FIRST_T as i64);
        client.produce("payments", &[batch], &Default::default()).await.unwrap()
    };
    let (answer, _) = tokio::join!(reading, writing);
    let answer = answer.unwrap();
    assert_eq!((answer.t, answer.counts.present), (FIRST_T, 1));
}

#[tokio::test]
async fn requests_are_pipelined_and_answered_in_order() {
    let served = serve().await;
    let client = served.client().await;
    let stream = client.features(&["card_totals"], &card_schema()).await.unwrap();
    let (mut sender, mut receiver) = stream.split();
    let sending = async {
        for number in 0..500 {
            let options = LookupOptions { id: Some(json!(number)), ..plain() };
            sender.send(&cards(&["a", "b"]), &options).await.unwrap();
        }
        drop(sender);
    };
    let receiving = async {
        for number in 0..500 {
            assert_eq!(receiver.receive().await.unwrap().id, Some(json!(number)));
        }
        assert_eq!(receiver.receive().await.unwrap_err(), ClientError::Ended);
    };
    tokio::join!(sending, receiving);
    let metrics = served.handle().metrics().clone();
    assert_eq!(metrics.lookups.latency.count(), 500);
    assert_eq!(metrics.lookups.rows.load(std::sync::atomic::Ordering::Relaxed), 1000);
}

#[tokio::test]
async fn mistakes_are_named_when_the_stream_opens() {
    let served = serve().await;
    let client = served.client().await;
    let error = client.features(&["card_totalz"], &card_schema()).await.err().unwrap();
    match &error {
        ClientError::Refused { code, details, .. } => {
            assert_eq!(*code, tonic::Code::NotFound);
            assert_eq!(details["near"][0], "card_totals");
        }
        other => panic!("{other:?}"),
    }
    assert!(error.to_string().contains("did you mean `card_totals`"), "{error}");
    let wrong = Schema::new(vec![Field::new("crad", DataType::Utf8, true)]);
    let error = client.features(&["card_totals"], &wrong).await.err().unwrap();
    assert!(error.to_string().contains("looked up by `card`"), "{error}");
}

#[tokio::test]
async fn keys_of_related_types_are_taken() {
    let served = serve().await;
    let client = served.client().await;
    let batch = payments(&["a"], &[Some(1.0)], FIRST_T as i64);
    client.produce("payments", &[batch], &Default::default()).await.unwrap();
    let large = arrow::array::LargeStringArray::from(vec![Some("a"), None]);
    let keys = RecordBatch::try_from_iter([("card", std::sync::Arc::new(large) as ArrayRef)]);
    let keys = keys.unwrap();
    let mut stream = client.features(&["card_counts"], &keys.schema()).await.unwrap();
    let answer = stream.lookup(&keys, &plain()).await.unwrap();
    assert_eq!(answer.batch.column(1).as_ref(), &Int64Array::from(vec![Some(1), None]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_at_once() {
    let served = serve().await;
    let client = served.client().await;
    let batch = payments(&["a"], &[Some(1.0)], FIRST_T as i64);
    client.produce("payments", &[batch], &Default::default()).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..100 {
        let client = if number % 10 == 0 { served.client().await } else { client.clone() };
        tasks.spawn(async move {
            let mut stream = client.features(&["card_counts"], &card_schema()).await.unwrap();
            for _ in 0..20 {
                let answer = stream.lookup(&cards(&["a"]), &plain()).await.unwrap();
                assert_eq!(answer.counts.present, 1);
            }
        });
    }
    while let Some(finished) = tasks.join_next().await {
        finished.unwrap();
    }
    let metrics = served.handle().metrics().clone();
    assert_eq!(metrics.lookups.latency.count(), 2000);
    backend::eventually("all streams are closed", || {
        metrics.lookups.open_streams.load(std::sync::atomic::Ordering::Relaxed) == 0
    })
    .await;
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_behind() {
    let served = serve().await;
    let client = served.client().await;
    let mut stream = client.features(&["card_counts"], &card_schema()).await.unwrap();
    let wait = LookupOptions { min_t: Some(u64::MAX), timeout_ms: Some(600_000), ..plain() };
    let keys = cards(&["a"]);
    let gone = tokio::time::timeout(Duration::from_millis(200), stream.lookup(&keys, &wait)).await;
    assert!(gone.is_err());
    let waiting = &served.backend.waiting;
    assert_eq!(waiting.load(std::sync::atomic::Ordering::SeqCst), 1);
    drop(stream);
    backend::eventually("the abandoned lookup is dropped", || {
        waiting.load(std::sync::atomic::Ordering::SeqCst) == 0
    })
    .await;
}
