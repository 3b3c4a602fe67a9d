//! Tests of [`super`].

use std::sync::Arc;

use arrow::array::{
    DictionaryArray, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StringViewArray,
};
use arrow::datatypes::{DataType, Field, Int8Type, Int32Type, Schema};
use arrow_flight::FlightData;
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use proptest::prelude::*;

use super::*;
use crate::encode::IpcEncoder;

const LIMIT: usize = 1 << 20;

fn sample() -> RecordBatch {
    let dictionary: DictionaryArray<Int8Type> = ["a", "b", "a"].into_iter().collect();
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([
        Some(vec![Some(1), None]),
        None,
        Some(vec![]),
    ]);
    RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])) as ArrayRef, true),
        ("name", Arc::new(StringArray::from(vec!["x", "", "zz"])) as ArrayRef, true),
        ("view", Arc::new(StringViewArray::from(vec!["a long enough string", "b", "c"])), true),
        ("kind", Arc::new(dictionary) as ArrayRef, true),
        ("list", Arc::new(lists) as ArrayRef, true),
    ])
    .unwrap()
}

/// Schema, dictionaries and batch as messages.
fn messages(batch: &RecordBatch, compression: Option<CompressionType>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
    let generator = IpcDataGenerator::default();
    let mut tracker = DictionaryTracker::new(false);
    let schema =
        generator.schema_to_bytes_with_dictionary_tracker(&batch.schema(), &mut tracker, &options);
    let (dictionaries, encoded) =
        generator.encode(batch, &mut tracker, &options, &mut IpcWriteContext::default()).unwrap();
    std::iter::once(schema)
        .chain(dictionaries)
        .chain([encoded])
        .map(|message| (message.ipc_message, message.arrow_data))
        .collect()
}

#[test]
fn every_accepted_type_round_trips() {
    for compression in [None, Some(CompressionType::LZ4_FRAME)] {
        let mut decoder = IpcDecoder::new(LIMIT);
        let mut last = Decoded::Nothing;
        for (header, body) in messages(&sample(), compression) {
            last = decoder.decode(&header, body.into()).unwrap();
        }
        let Decoded::Batch(batch) = last else { panic!("no batch") };
        assert_eq!(batch, sample());
    }
}

#[test]
fn our_own_encoder_is_understood_at_any_alignment() {
    let batch = sample().project(&[0, 1, 4]).unwrap();
    let mut encoder = IpcEncoder::new().unwrap();
    let schema = encoder.schema(&batch.schema());
    let FlightData { data_header, data_body, .. } = encoder.batch(&batch, Bytes::new()).unwrap();
    for shift in 0..16 {
        let mut decoder = IpcDecoder::new(LIMIT);
        decoder.decode(&schema.data_header, Bytes::new()).unwrap();
        let mut moved = vec![0; shift];
        moved.extend_from_slice(&data_body);
        let body = Bytes::from(moved).slice(shift..);
        match decoder.decode(&data_header, body).unwrap() {
            Decoded::Batch(decoded) => assert_eq!(decoded, batch),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn empty_batches_and_bare_metadata_are_fine() {
    let mut decoder = IpcDecoder::new(LIMIT);
    assert!(matches!(decoder.decode(&[], Bytes::new()), Ok(Decoded::Nothing)));
    let empty = sample().slice(0, 0);
    for (header, body) in messages(&empty, None) {
        decoder.decode(&header, body.into()).unwrap();
    }
}

#[test]
fn a_batch_before_its_schema_is_named() {
    let (header, body) = messages(&sample(), None).pop().unwrap();
    let error = IpcDecoder::new(LIMIT).decode(&header, body.into()).unwrap_err();
    assert_eq!(error, DecodeError::NoSchema);
}

#[test]
fn types_that_no_column_has_are_refused_by_name() {
    let nested = DataType::Struct(vec![Field::new("x", DataType::Int8, true)].into());
    for data_type in [nested, DataType::Time64(arrow::datatypes::TimeUnit::Nanosecond)] {
        let schema = Schema::new(vec![Field::new("odd", data_type, true)]);
        let message = IpcEncoder::new().unwrap().schema(&schema);
        let error = IpcDecoder::new(LIMIT).decode(&message.data_header, Bytes::new()).unwrap_err();
        assert!(error.to_string().contains("`odd`"), "{error}");
    }
}

#[test]
fn a_decompression_bomb_is_refused_before_it_is_unpacked() {
    let zeros = Int32Array::from(vec![0; LIMIT]);
    let batch = RecordBatch::try_from_iter([("zeros", Arc::new(zeros) as ArrayRef)]).unwrap();
    let mut decoder = IpcDecoder::new(LIMIT);
    let parts = messages(&batch, Some(CompressionType::LZ4_FRAME));
    decoder.decode(&parts[0].0, Bytes::new()).unwrap();
    assert!(parts[1].1.len() < LIMIT / 10, "it is small on the wire");
    let outcome = decoder.decode(&parts[1].0, parts[1].1.clone().into());
    assert!(matches!(outcome, Err(DecodeError::TooLarge(_))), "{outcome:?}");
}

#[test]
fn a_row_count_that_no_bytes_support_is_refused() {
    let schema = Schema::new(vec![Field::new("nothing", DataType::Null, true)]);
    let rows = MAX_ROWS + 1;
    let column = Arc::new(arrow::array::NullArray::new(rows)) as ArrayRef;
    let batch = RecordBatch::try_new(Arc::new(schema), vec![column]).unwrap();
    let parts = messages(&batch, None);
    let mut decoder = IpcDecoder::new(LIMIT);
    decoder.decode(&parts[0].0, Bytes::new()).unwrap();
    let outcome = decoder.decode(&parts[1].0, Bytes::new());
    assert!(matches!(outcome, Err(DecodeError::TooLarge(_))), "{outcome:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(
        header in prop::collection::vec(any::<u8>(), 0..200),
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut decoder = IpcDecoder::new(LIMIT);
        let _ = decoder.decode(&header, body.into());
    }

    #[test]
    fn damaged_messages_never_panic(
        compressed in any::<bool>(),
        damage in prop::collection::vec((0..3_usize, any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let compression = compressed.then_some(CompressionType::LZ4_FRAME);
        let mut parts = messages(&sample(), compression);
        let count = parts.len();
        for (part, position, byte) in damage {
            let (header, body) = &mut parts[part % count];
            let target = if byte % 4 == 0 && !body.is_empty() { body } else { header };
            let position = position.index(target.len());
            target[position] ^= byte | 1;
        }
        if let Some(cut) = cut {
            let body = &mut parts[count - 1].1;
            body.truncate(cut.index(body.len()));
        }
        let mut decoder = IpcDecoder::new(LIMIT);
        for (header, body) in parts {
            if let Ok(Decoded::Batch(batch)) = decoder.decode(&header, body.into()) {
                // What was accepted can be walked.
                let _ = format!("{:?}", batch.columns());
            }
        }
    }
}
