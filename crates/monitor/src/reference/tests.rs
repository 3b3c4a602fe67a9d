//! References: deterministic, exact where they can be, refused where they are none.

use falaj_drift::ColumnSummary;
use falaj_event::{LogTime, Value};

use super::*;
use crate::testing::{CALM, reference, settings};

#[test]
fn the_same_rows_give_the_same_bytes_and_bytes_come_back() {
    let settings = settings();
    let (one, two) = (reference(&settings, CALM, 4_000), reference(&settings, CALM, 4_000));
    assert_eq!(one.to_bytes(), two.to_bytes());
    let read = ReferenceSet::from_bytes(&one.to_bytes()).unwrap();
    assert_eq!(read, *one);
    assert_eq!(read.to_bytes(), one.to_bytes());
}

#[test]
fn columns_hold_what_the_rows_were() {
    let settings = settings();
    let found = reference(&settings, CALM, 4_000);
    assert_eq!((found.rows, found.held_out_rows), (4_000, 2_000));
    let names: Vec<&str> = found.inputs.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["amount", "channel", "risk"]);
    let ColumnSummary::Numeric(risk) = &found.inputs[2].summary else { panic!("numeric") };
    let missing = (0..4_000).filter(|row| CALM.draw(*row).inputs[2] == Value::Null).count();
    assert_eq!(risk.missing, missing as u64);
    assert_eq!(risk.rows(), 4_000);
    assert_eq!(risk.sample.len(), REFERENCE_SAMPLE);
    let ColumnSummary::Category(channel) = &found.inputs[1].summary else { panic!("names") };
    let atm = (0..4_000).filter(|row| CALM.draw(*row).inputs[1] == Value::String("atm".into()));
    assert_eq!(channel.counts["atm"], atm.count() as u64);
    // Ten windows of 400 rows each are the chunks.
    let spread = found.inputs[0].spreads[&Metric::Psi];
    assert_eq!((spread.chunks, spread.chunk_rows), (10, 400));
    // Chance alone gives a PSI of about 9 / 400 between a chunk and the rest.
    assert!((0.01..0.05).contains(&spread.mean), "{spread:?}");
    assert!(!found.inputs[1].spreads.contains_key(&Metric::KolmogorovSmirnov));
    let slices: Vec<&str> = found.slices.iter().map(|slice| slice.value.as_str()).collect();
    assert_eq!(slices, ["atm", "online", "pos"]);
    let rows = found.slices.iter().map(|slice| slice.inputs[0].summary.rows());
    assert_eq!(rows.sum::<u64>(), 4_000);
    assert!((found.figures["accuracy"].value - 0.9).abs() < 0.03);
    assert_eq!(found.figures["auc"].spread.unwrap().chunks, 10);
}

#[test]
fn rare_names_are_counted_together() {
    let mut settings = settings();
    settings.slices.clear();
    let mut rows = ReferenceRows::new(&settings);
    for row in 0..1_000_u64 {
        let name = format!("name {}", (row % 200).min(row % 70));
        let inputs = [Value::Float64(1.0), Value::String(name.into()), Value::Null];
        rows.add(LogTime(row), &inputs).unwrap();
    }
    let found = ReferenceSet::from_rows(&settings, &rows).unwrap();
    let ColumnSummary::Category(names) = &found.inputs[1].summary else { panic!("names") };
    assert_eq!(names.counts.len(), NAMES);
    assert_eq!(names.rows(), 1_000);
    assert!(names.overflow > 0);
    // A column without any value has a reference, too.
    assert_eq!(found.inputs[2].summary.missing(), 1_000);
    assert!(found.score.is_none());
}

#[test]
fn wrong_rows_and_foreign_bytes_are_refused() {
    let settings = settings();
    let mut rows = ReferenceRows::new(&settings);
    assert_eq!(ReferenceSet::from_rows(&settings, &rows), Err(ReferenceError::Empty));
    let narrow = rows.add(LogTime(1), &[Value::Null]);
    assert_eq!(narrow, Err(ReferenceError::Width { expected: 3, found: 1 }));
    assert!(matches!(ReferenceSet::from_bytes(b"{}"), Err(ReferenceError::Unreadable(_))));
    let mut other = (*reference(&settings, CALM, 1_000)).clone();
    other.format = 9;
    assert_eq!(ReferenceSet::from_bytes(&other.to_bytes()), Err(ReferenceError::Format(9)));
}
