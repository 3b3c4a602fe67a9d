//! Producing through the topic door, over TLS on loopback.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use falaj_gateway::Limits;
use falaj_gateway::client::ClientError;
use falaj_gateway::wire::{ProduceOptions, ReadTicket};
use serde_json::json;

use super::backend::{self, FIRST_T, payments, serve, serve_with};

fn one(card: &str) -> RecordBatch {
    payments(&[card], &[Some(1.0)], FIRST_T as i64)
}

#[tokio::test]
async fn acknowledgements_come_in_order_with_t_and_offsets() {
    let served = serve().await;
    let client = served.client().await;
    let batches: Vec<_> = (0..200).map(|number| one(&format!("c{number}"))).collect();
    let acks = client.produce("payments", &batches, &ProduceOptions::default()).await.unwrap();
    assert_eq!(acks.len(), 200);
    for (number, ack) in acks.iter().enumerate() {
        assert_eq!(ack.batch, number as u64);
        assert_eq!(ack.t.unwrap().0, FIRST_T + number as u64);
        assert_eq!(ack.offsets[0].first, number as u64);
        assert_eq!((ack.accepted, ack.rejected_count, ack.duplicates), (1, 0, 0));
    }
}

#[tokio::test]
async fn a_retry_is_answered_with_its_original_t() {
    let served = serve().await;
    let client = served.client().await;
    let options = ProduceOptions {
        producer: Some("till-7".to_owned()),
        sequence: Some(100),
        ..ProduceOptions::default()
    };
    let batches = [one("a"), one("b")];
    let first = client.produce("payments", &batches, &options).await.unwrap();
    client.produce("payments", &[one("other")], &ProduceOptions::default()).await.unwrap();
    let again = client.produce("payments", &batches, &options).await.unwrap();
    for (first, again) in first.iter().zip(&again) {
        assert_eq!((again.t, again.epoch), (first.t, first.epoch));
        assert_eq!((again.accepted, again.duplicates), (0, 1));
    }
}

#[tokio::test]
async fn sessions_never_look_like_retries_of_each_other() {
    let served = serve().await;
    let client = served.client().await;
    for _ in 0..3 {
        let acks = client.produce("payments", &[one("a")], &ProduceOptions::default()).await;
        assert_eq!(acks.unwrap()[0].duplicates, 0);
    }
}

#[tokio::test]
async fn bad_rows_are_rejected_and_their_neighbours_are_not() {
    let served = serve().await;
    let client = served.client().await;
    let at = arrow::array::TimestampMicrosecondArray::from(vec![Some(1), Some(2), None, Some(4)]);
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("card", Arc::new(StringArray::from(vec!["a", "b", "c", "d"])) as ArrayRef, true),
        ("shop", Arc::new(Int64Array::from(vec![1, 1 << 40, 3, 4])) as ArrayRef, true),
        ("at", Arc::new(at) as ArrayRef, true),
    ])
    .unwrap();
    let acks = client.produce("payments", &[batch], &ProduceOptions::default()).await.unwrap();
    assert_eq!((acks[0].accepted, acks[0].rejected_count), (2, 2));
    assert_eq!(acks[0].rejected[0].row, 1);
    assert!(acks[0].rejected[0].reasons[0].contains("`shop` = 1099511627776 does not fit Int32"));
    assert_eq!(acks[0].rejected[1].row, 2);
}

#[tokio::test]
async fn a_refused_batch_leaves_the_others_alone() {
    let served = serve().await;
    let client = served.client().await;
    let schema = one("a").schema();
    let mut stream = client.producer("payments", &schema).await.unwrap();
    let plain = ProduceOptions { id: Some(json!("first")), ..ProduceOptions::default() };
    let ack = stream.send_and_wait(&one("a"), &plain).await.unwrap();
    assert_eq!(ack.id, Some(json!("first")));
    let half = ProduceOptions { sequence: Some(1), ..ProduceOptions::default() };
    match stream.send_and_wait(&one("b"), &half).await {
        Err(ClientError::Request(details)) => assert_eq!(details["code"], "invalid"),
        other => panic!("{other:?}"),
    }
    let refused = stream.send_and_wait(&one("c").slice(0, 0), &ProduceOptions::default()).await;
    assert!(matches!(refused, Err(ClientError::Request(_))), "{refused:?}");
    let ack = stream.send_and_wait(&one("d"), &ProduceOptions::default()).await.unwrap();
    assert_eq!((ack.batch, ack.t.unwrap().0), (3, FIRST_T + 1));
}

#[tokio::test]
async fn streams_to_nowhere_are_refused_by_name() {
    let served = serve().await;
    let client = served.client().await;
    let stranger = RecordBatch::try_from_iter([(
        "amuont",
        Arc::new(Float64Array::from(vec![1.0])) as ArrayRef,
    )])
    .unwrap();
    let cases = [
        ("paymnets", one("a"), "did you mean `payments`"),
        ("falaj.epochs", one("a"), "only the platform itself"),
        ("payments", stranger, "did you mean `amount`"),
    ];
    for (topic, batch, expected) in cases {
        let refused = client.produce(topic, &[batch], &ProduceOptions::default()).await;
        let message = refused.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[tokio::test]
async fn the_next_batches_are_read_while_earlier_ones_commit_up_to_a_limit() {
    let limits = Limits { max_batches_in_flight: 8, ..Limits::default() };
    let served = serve_with(limits).await;
    let client = served.client().await;
    served.backend.hold.send_replace(true);
    let (mut sender, mut acks) =
        client.producer("payments", &one("a").schema()).await.unwrap().split();
    let sending = tokio::spawn(async move {
        for number in 0..60 {
            sender.send(&one(&format!("c{number}")), &ProduceOptions::default()).await.unwrap();
        }
    });
    let admitted = &served.backend.admitted;
    backend::eventually("batches are admitted ahead", || admitted.load(Ordering::SeqCst) == 8)
        .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(admitted.load(Ordering::SeqCst), 8, "and no more than the limit");
    served.backend.hold.send_replace(false);
    for number in 0..60 {
        assert_eq!(acks.receive().await.unwrap().unwrap().batch, number);
    }
    sending.await.unwrap();
    assert_eq!(acks.receive().await.unwrap(), None);
}

#[tokio::test]
async fn what_was_produced_is_read_with_its_coordinates() {
    let served = serve().await;
    let client = served.client().await;
    let batches: Vec<_> = (0..5).map(|number| one(&format!("c{number}"))).collect();
    client.produce("payments", &batches, &ProduceOptions::default()).await.unwrap();
    let read = client.read(&ReadTicket::topic("payments")).await.unwrap();
    let names: Vec<_> = read.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(
        names,
        ["card", "amount", "at", "shop", "__t", "__partition", "__offset", "__op", "__event_id"]
    );
    let all = read.collect().await.unwrap();
    assert_eq!(all.iter().map(RecordBatch::num_rows).sum::<usize>(), 5);
    let range = ReadTicket {
        partition: Some(0),
        from_offset: Some(1),
        to_offset: Some(4),
        limit: Some(2),
        ..ReadTicket::topic("payments")
    };
    let some = client.read(&range).await.unwrap().collect().await.unwrap();
    assert_eq!(some.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
    let by_t = ReadTicket { from_t: Some(FIRST_T + 3), ..ReadTicket::topic("payments") };
    let some = client.read(&by_t).await.unwrap().collect().await.unwrap();
    assert_eq!(some.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
}
