//! The documented bytes of a block, round trips, and the detection of every alteration.

use arrow::array::FixedSizeBinaryArray;
use falaj_event::ids::hex;
use falaj_event::value::to_array;
use falaj_event::{ColumnType, EventId, Hash256, Op, ProducerId, TopicKind, Value};
use proptest::prelude::*;

use super::*;
use crate::epoch::tests::unhex;
use crate::merkle;
use crate::rows::event_hashes;
use crate::testing::{column, payments, vault};

const HEADER: &str = "\
    464c4a42 01 01 0034 11111111111111111111111111111111 00000003 00000002 \
    33333333333333333333333333333333 00000002";
/// What the seed 05…05 expands to, from another implementation of AES-256-GCM.
const SALTS: &str = "\
    09ed559edd58ca5ccf2002716ddeac8f3fa5b1b78337c1d0aeef272715ca2ae2ca02da20d9d785ddfb743f53a9a2495a";
/// The two rows of [`rows`] as a body of format 1.
const BODY: &str = include_str!("golden_body.hex");
/// From another implementation of the event hash.
const EVENT_HASHES: [&str; 2] = [
    "1db4dc514b6230a1004e79ba37b9cc8ac6d94d112876bc30398667a8cdf36421",
    "c2ca9ea427db7443365d56a2cd9ce2dddac944b884beabf91fbb608cc627c3ac",
];
const ROOT: &str = "a75a1b3bb68fd82121a64d026499a064b1c83c6c710f05e25b919fd08aee5874";

fn header() -> BlockHeader {
    BlockHeader {
        topic: TopicId([0x11; 16]),
        partition: 3,
        schema_version: 2,
        id: BlockId([0x33; 16]),
        count: 2,
    }
}

fn rows() -> BlockRows {
    let ids = [
        EventId::Producer { producer: ProducerId([7; 16]), sequence: 5 },
        EventId::Derived(Hash256([9; 32])),
    ];
    let stored = [
        to_array(&ColumnType::String, &[Value::String("ali".into()), Value::Null]),
        to_array(&ColumnType::Timestamp, &[Value::Timestamp(1), Value::Timestamp(2)]),
        to_array(&ColumnType::Int64, &[Value::Int(258), Value::Null]),
        to_array(
            &ColumnType::Binary,
            &[Value::Null, Value::Binary([0xDE, 0xAD].as_slice().into())],
        ),
    ];
    let columns = stored.into_iter().map(Result::unwrap).collect();
    BlockRows {
        seed: [5; SEED_BYTES],
        ops: UInt8Array::from(vec![Op::Insert as u8; 2]),
        ids: FixedSizeBinaryArray::try_from_iter(ids.iter().map(|id| id.to_bytes())).unwrap(),
        stored: RecordBatch::try_new(stored_row_schema(&payments(1)), columns).unwrap(),
    }
}

fn same(a: &BlockRows, b: &BlockRows) -> bool {
    (a.seed, &a.ops, &a.ids, &a.stored) == (b.seed, &b.ops, &b.ids, &b.stored)
}

#[test]
fn the_documented_header_decodes() {
    assert_eq!(hex(&header().encode()), hex(&unhex(HEADER)));
    let mut later = unhex(HEADER);
    // A later version's longer header: what is beyond is skipped.
    later[7] += 3;
    later.extend([1, 2, 3]);
    later.extend([0; 60]);
    assert_eq!(BlockHeader::decode(&later).unwrap(), header());
}

#[test]
fn the_documented_salts_and_hashes() {
    assert_eq!(hex(&expand_salts(&[5; SEED_BYTES], 3).unwrap()), SALTS);
    let hashes = event_hashes(&rows(), 1).unwrap();
    assert_eq!(hashes.iter().map(Hash256::to_string).collect::<Vec<_>>(), EVENT_HASHES);
    assert_eq!(merkle::root(hashes.iter().map(|hash| hash.0)).to_string(), ROOT);
}

#[test]
fn the_documented_body_decodes() {
    let body = unhex(BODY);
    assert!(same(&decode_body(body.clone(), &payments(1)).unwrap(), &rows()), "got other rows");
    let (seed, message) = body.split_at(SEED_BYTES);
    assert_eq!((seed, &message[..4]), (&[5; 32][..], &[0xFF; 4][..]));
    assert_eq!(message.len() % 8, 0);
    let ours = encode_body(&rows()).unwrap();
    assert!(same(&decode_body(ours, &payments(1)).unwrap(), &rows()));
}

fn open(vault: &Vault, bytes: &[u8]) -> Result<(BlockHeader, BlockRows), BlockError> {
    let expected = (header().topic, header().partition, header().id);
    open_block(vault, expected, bytes, |version| (version == 2).then(|| Arc::new(payments(1))))
}

#[test]
fn every_altered_byte_is_detected() {
    let vault = vault();
    let sealed = seal_block(&vault, &header(), &rows()).unwrap();
    let (found, opened) = open(&vault, &sealed).unwrap();
    assert!(found == header() && same(&opened, &rows()));
    for at in 0..sealed.len() {
        for flip in [0x01, 0x80] {
            let mut altered = sealed.clone();
            altered[at] ^= flip;
            assert!(open(&vault, &altered).is_err(), "byte {at} ^ {flip:02x}");
        }
    }
    for cut in 0..sealed.len() {
        assert!(open(&vault, &sealed[..cut]).is_err(), "cut at {cut}");
    }
    assert!(open(&vault, &[&sealed[..], &[0]].concat()).is_err());
}

#[test]
fn a_block_opens_only_where_it_belongs() {
    let vault = vault();
    let sealed = seal_block(&vault, &header(), &rows()).unwrap();
    let BlockHeader { topic, partition, id, .. } = header();
    let elsewhere = [
        (TopicId([0x12; 16]), partition, id),
        (topic, partition + 1, id),
        (topic, partition, BlockId([0; 16])),
    ];
    for expected in elsewhere {
        let opened = open_block(&vault, expected, &sealed, |_| Some(Arc::new(payments(1))));
        assert!(matches!(opened, Err(BlockError::Mismatch(_))));
    }
    let unknown = open_block(&vault, (topic, partition, id), &sealed, |_| None);
    assert!(unknown.unwrap_err().to_string().contains("schema version 2"));
    let other = Vault::ephemeral(8).unwrap();
    assert!(matches!(open(&other, &sealed), Err(BlockError::Vault(_))));
    let wrong = BlockHeader { count: 3, ..header() };
    assert!(matches!(seal_block(&vault, &wrong, &rows()), Err(BlockError::Mismatch(_))));
}

#[test]
fn equal_rows_do_not_look_equal_when_sealed() {
    let vault = vault();
    let seal = || seal_block(&vault, &header(), &rows()).unwrap();
    let tail = |block: Vec<u8>| block[112..].to_vec();
    assert_ne!(tail(seal()), tail(seal()));
}

#[test]
fn all_types_survive_compressed_and_not() {
    let types = [
        "bool",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float32",
        "float64",
        "decimal(20,3)",
        "string",
        "binary",
        "date",
        "timestamp",
        "list<string>",
    ];
    let mut schema = payments(1);
    schema.kind = TopicKind::Event;
    schema.columns = types.iter().map(|name| column(name, name, true)).collect();
    for count in [0_usize, 1, 7, 500] {
        let columns = schema.columns.iter().map(|column| {
            let values: Vec<Value> =
                (0..count).map(|row| value(&column.column_type, row)).collect();
            to_array(&column.column_type, &values).unwrap()
        });
        let stored = rebatch(stored_row_schema(&schema), columns.collect(), count).unwrap();
        let id = EventId::Derived(Hash256([1; 32])).to_bytes();
        let ids = FixedSizeBinaryArray::try_new(33, Buffer::from_vec(id.repeat(count)), None);
        let all = BlockRows {
            seed: [1; 32],
            ops: UInt8Array::from(vec![1; count]),
            ids: ids.unwrap(),
            stored,
        };
        let body = encode_body(&all).unwrap();
        assert!(same(&decode_body(body.clone(), &schema).unwrap(), &all), "{count} rows");
        assert!(count < 500 || body.len() < 500 * 60, "{} bytes: not compressed", body.len());
    }
}

fn value(column_type: &ColumnType, row: usize) -> Value {
    let number = i64::try_from(row % 100).unwrap();
    if row % 5 == 4 {
        return Value::Null;
    }
    match column_type {
        ColumnType::Bool => Value::Bool(row.is_multiple_of(2)),
        ColumnType::Int8 | ColumnType::Int16 | ColumnType::Int32 | ColumnType::Int64 => {
            Value::Int(-number)
        }
        ColumnType::UInt8 | ColumnType::UInt16 | ColumnType::UInt32 | ColumnType::UInt64 => {
            Value::UInt(number.unsigned_abs())
        }
        ColumnType::Float32 => Value::Float32(0.5),
        ColumnType::Float64 => Value::Float64(-0.0),
        ColumnType::Decimal { scale, .. } => Value::Decimal(number.into(), *scale),
        ColumnType::String => Value::String(format!("s{number}").into()),
        ColumnType::Binary => Value::Binary([0, 1].as_slice().into()),
        ColumnType::Date => Value::Date(-1),
        ColumnType::Timestamp => Value::Timestamp(number),
        ColumnType::List(item) => Value::List((0..row % 3).map(|row| value(item, row)).collect()),
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in any::<Vec<u8>>(), edits in prop::collection::vec((0..600_usize, any::<u8>()), 0..6)) {
        let _ = BlockHeader::decode(&bytes);
        let _ = decode_body(bytes, &payments(1));
        for large in [false, true] {
            let mut near = if large { large_body() } else { unhex(BODY) };
            for (at, byte) in &edits {
                let at = at % near.len();
                near[at] = *byte;
            }
            let _ = decode_body(near, &payments(1));
        }
    }
}

/// A compressed body.
fn large_body() -> Vec<u8> {
    let mut all = rows();
    let many = [&all.stored; 60];
    all.stored = arrow::compute::concat_batches(all.stored.schema_ref(), many).unwrap();
    all.ops = UInt8Array::from(vec![0; 120]);
    let id = EventId::Derived(Hash256([1; 32])).to_bytes();
    all.ids = FixedSizeBinaryArray::try_new(33, Buffer::from_vec(id.repeat(120)), None).unwrap();
    encode_body(&all).unwrap()
}

/// Writes [`BODY`] anew: only for a new body format, never for a changed one.
#[test]
#[ignore = "writes the golden body"]
fn write_the_documented_body() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/block/golden_body.hex");
    let digits = hex(&encode_body(&rows()).unwrap());
    let lines: Vec<&str> =
        digits.as_bytes().chunks(96).map(|c| std::str::from_utf8(c).unwrap()).collect();
    std::fs::write(path, lines.join("\n") + "\n").unwrap();
}
