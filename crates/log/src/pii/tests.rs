//! Sealing under subjects, erasure, and values that cannot be moved.

use arrow::array::StringArray;
use falaj_event::{EventId, Hash256};

use super::*;
use crate::testing::{batch, payment, payments, vault};

const IDS: [[u8; 33]; 3] = [[1; 33], [2; 33], [3; 33]];

fn ali() -> Vec<u8> {
    falaj_event::encoding::encode_row([&Value::String("ali".into())])
}

/// Rows of ali, noor and nobody.
fn rows() -> RecordBatch {
    let mut nobody = payment("x", 3, 3);
    nobody[0] = Value::Null;
    batch(&payments(1), &[payment("ali", 1, 1), payment("noor", 2, 2), nobody])
}

fn seal(vault: &Vault) -> RecordBatch {
    seal_rows(vault, &payments(1), &rows(), |row| &IDS[row]).unwrap()
}

fn open(vault: &Vault, stored: &RecordBatch) -> Result<OpenedRows, PiiError> {
    open_rows(vault, &payments(1), stored, |row| &IDS[row])
}

fn cards(opened: &OpenedRows) -> Vec<Option<&str>> {
    let cards: &StringArray = opened.batch.column(3).as_string();
    cards.iter().collect()
}

#[test]
fn personal_values_are_sealed_and_opened() {
    let vault = vault();
    let stored = seal(&vault);
    let sealed: &BinaryArray = stored.column(3).as_binary();
    for (row, kind) in [UNDER_SUBJECT, UNDER_SUBJECT, UNDER_TOPIC].into_iter().enumerate() {
        assert_eq!(sealed.value(row)[0], kind);
        let plain = b"4000-";
        assert!(!sealed.value(row).windows(plain.len()).any(|window| window == plain));
    }
    assert_eq!(stored.column(0), rows().column(0), "other columns are as they were");
    let opened = open(&vault, &stored).unwrap();
    assert_eq!(cards(&opened), [Some("4000-ali"), Some("4000-noor"), Some("4000-x")]);
    assert!(opened.erased.is_empty());
}

#[test]
fn erasure_reads_as_null_and_is_marked() {
    let vault = vault();
    let stored = seal(&vault);
    assert!(vault.destroy_subject(&ali()).unwrap());
    let opened = open(&vault, &stored).unwrap();
    assert_eq!(cards(&opened), [None, Some("4000-noor"), Some("4000-x")]);
    assert_eq!(opened.erased, [0]);
    // A person who comes back has a new key; what was erased stays so.
    let newer = seal(&vault);
    assert_eq!(cards(&open(&vault, &newer).unwrap())[0], Some("4000-ali"));
    assert_eq!(open(&vault, &stored).unwrap().erased, [0]);
}

#[test]
fn null_is_not_sealed_and_makes_no_key() {
    let vault = vault();
    let mut row = payment("sara", 1, 1);
    row[3] = Value::Null;
    let stored = seal_rows(&vault, &payments(1), &batch(&payments(1), &[row]), |row| &IDS[row]);
    let stored = stored.unwrap();
    assert!(stored.column(3).is_null(0));
    assert!(open(&vault, &stored).unwrap().erased.is_empty());
    let sara = falaj_event::encoding::encode_row([&Value::String("sara".into())]);
    assert_eq!(vault.subject_state(&sara), falaj_vault::SubjectState::Unknown);
}

#[test]
fn values_cannot_be_moved_or_altered() {
    let vault = vault();
    let stored = seal(&vault);
    let moved = open_rows(&vault, &payments(1), &stored, |row| &IDS[(row + 1) % 3]);
    assert!(matches!(moved, Err(PiiError::Vault { row: 0, .. })), "{moved:?}");
    let mut other_topic = payments(1);
    other_topic.name = "refunds".into();
    assert!(open_rows(&vault, &other_topic, &stored, |row| &IDS[row]).is_err());
    let mut other_column = payments(1);
    other_column.columns[3].name = "iban".into();
    assert!(open_rows(&vault, &other_column, &stored, |row| &IDS[row]).is_err());
    let sealed: &BinaryArray = stored.column(3).as_binary();
    for row in 0..3 {
        for at in 0..sealed.value(row).len() {
            let mut values: Vec<Vec<u8>> = sealed.iter().flatten().map(<[u8]>::to_vec).collect();
            values[row][at] ^= 1;
            let mut columns = stored.columns().to_vec();
            columns[3] = Arc::new(BinaryArray::from_iter_values(values));
            let altered = RecordBatch::try_new(stored.schema(), columns).unwrap();
            assert!(open(&vault, &altered).is_err(), "row {row} byte {at}");
        }
    }
}

#[test]
fn event_ids_bind_as_stored() {
    let vault = vault();
    let id = EventId::Derived(Hash256([4; 32])).to_bytes();
    let one = rows().slice(0, 1);
    let stored = seal_rows(&vault, &payments(1), &one, |_| &id).unwrap();
    let opened = open_rows(&vault, &payments(1), &stored, |_| &id).unwrap();
    assert_eq!(cards(&opened), [Some("4000-ali")]);
}
