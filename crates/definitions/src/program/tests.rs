//! Programs are total, checked and independent of batching.

use std::sync::Arc;

use arrow::array::{Array, Float64Array, Int32Array, RecordBatch, StringArray};

use super::*;
use crate::sql::tests::planned;

/// A program of one expression over payments, and rows of its inputs.
fn program(expression: &str) -> Program {
    planned(&format!("CREATE VIEW v AS SELECT payment_id, {expression} AS x FROM payments")).prepare
}

fn rows(
    program: &Program,
    quantity: Vec<Option<i32>>,
    fee: Vec<Option<f64>>,
    country: Vec<Option<&str>>,
) -> RecordBatch {
    let count = quantity.len();
    let schema = program.input_schema();
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "payments.quantity" => Arc::new(Int32Array::from(quantity.clone())),
            "payments.fee" => Arc::new(Float64Array::from(fee.clone())),
            "payments.country" => Arc::new(StringArray::from(country.clone())),
            "payments.payment_id" => Arc::new(StringArray::from(vec!["p"; count])),
            _ => new_null_array(field.data_type(), count),
        }
    });
    let loose = Schema::new(
        schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>(),
    );
    RecordBatch::try_new(Arc::new(loose), columns.collect()).unwrap()
}

/// The last prepared column of a keyed projection: the bare expression is computed by `finish`, so
/// programs under test read it from a WHERE-free GROUP BY argument instead.
fn argument(expression: &str) -> Program {
    planned(&format!("CREATE VIEW v AS SELECT payment_id, max({expression}) AS x FROM payments GROUP BY payment_id")).prepare
}

fn failed(evaluated: &Evaluated, column: usize) -> Vec<usize> {
    let mask = evaluated.errors[column].as_ref();
    mask.map_or_else(Vec::new, |mask| (0..mask.len()).filter(|&row| mask.value(row)).collect())
}

#[test]
fn columns_pass_through_untouched() {
    let program = program("country");
    let batch = rows(&program, vec![Some(1); 3], vec![None; 3], vec![Some("AE"), None, Some("OM")]);
    let evaluated = program.evaluate(&batch, None).unwrap();
    assert_eq!(program.passed_columns(), [Some(1), Some(7)]);
    assert!(Arc::ptr_eq(&evaluated.columns[1], batch.column(7)));
    assert!(evaluated.errors.iter().all(Option::is_none));
}

#[test]
fn only_failing_cells_are_errors() {
    let program = argument("CAST(country AS BIGINT)");
    let country: Vec<Option<String>> = (0..1000)
        .map(|i| {
            if i % 97 == 5 {
                Some("x".to_owned())
            } else if i % 10 == 0 {
                None
            } else {
                Some(i.to_string())
            }
        })
        .collect();
    let country: Vec<Option<&str>> = country.iter().map(Option::as_deref).collect();
    let batch = rows(&program, vec![None; 1000], vec![None; 1000], country);
    let evaluated = program.evaluate(&batch, None).unwrap();
    let expected: Vec<usize> = (0..1000).filter(|i| i % 97 == 5).collect();
    assert_eq!(failed(&evaluated, 1), expected);
    let values = evaluated.columns[1].as_primitive::<arrow::datatypes::Int64Type>();
    for row in 0..1000 {
        assert_eq!(values.is_null(row), row % 97 == 5 || row % 10 == 0, "{row}");
        if values.is_valid(row) {
            assert_eq!(values.value(row), i64::try_from(row).unwrap());
        }
    }
}

#[test]
fn nothing_wraps() {
    for (expression, quantity) in [
        ("quantity * quantity", i32::MAX),
        ("quantity + CAST(2147483647 AS INTEGER)", 1),
        ("-quantity", i32::MIN),
        ("abs(quantity)", i32::MIN),
        ("quantity % CAST(0 AS INTEGER)", 5),
        ("CAST(quantity AS TINYINT)", 300),
    ] {
        let program = argument(expression);
        let batch = rows(&program, vec![Some(quantity), None], vec![None; 2], vec![None; 2]);
        let evaluated = program.evaluate(&batch, None).unwrap();
        assert_eq!(failed(&evaluated, 1), [0], "{expression}");
        assert!(evaluated.columns[1].is_null(0) && evaluated.columns[1].is_null(1), "{expression}");
    }
}

#[test]
fn a_cell_does_not_depend_on_its_batch() {
    for expression in [
        "CASE WHEN quantity > 0 THEN 100 % quantity END",
        "quantity % CAST(country AS INTEGER)",
        "length(country) + quantity * 1000000",
        "greatest(fee, 1.5) / fee",
    ] {
        let program = argument(expression);
        let quantity: Vec<Option<i32>> =
            (0..64).map(|i| (i % 7 != 3).then_some(i % 5 * 1000)).collect();
        let fee: Vec<Option<f64>> =
            (0..64).map(|i| (i % 6 != 1).then(|| f64::from(i % 4))).collect();
        let country: Vec<Option<&str>> =
            (0..64).map(|i| [Some("0"), Some("7"), None, Some("z")][i % 4]).collect();
        let batch = rows(&program, quantity, fee, country);
        let whole = program.evaluate(&batch, None).unwrap();
        for row in 0..64 {
            let alone = program.evaluate(&batch.slice(row, 1), None).unwrap();
            assert_eq!(
                failed(&alone, 1).len(),
                usize::from(failed(&whole, 1).contains(&row)),
                "{expression} row {row}"
            );
            assert_eq!(
                &alone.columns[1].slice(0, 1),
                &whole.columns[1].slice(row, 1),
                "{expression} row {row}"
            );
        }
    }
}

#[test]
fn cells_that_read_errors_are_errors() {
    let program = argument("coalesce(fee, 0)");
    let batch =
        rows(&program, vec![None; 4], vec![None, Some(2.0), None, Some(3.0)], vec![None; 4]);
    let mut mask: ErrorMask = vec![None; batch.num_columns()];
    mask[5] = Some(BooleanArray::from(vec![true, false, false, false]));
    mask[6] = Some(BooleanArray::from(vec![false, true, true, true]));
    let evaluated = program.evaluate(&batch, Some(&mask)).unwrap();
    assert_eq!(failed(&evaluated, 1), [0], "the mask of a column that is not read does not matter");
    let values = evaluated.columns[1].as_primitive::<arrow::datatypes::Float64Type>();
    assert_eq!((values.is_null(0), values.value(1), values.value(2)), (true, 2.0, 0.0));
}

#[test]
fn floats_compare_as_numbers() {
    let program = argument("CASE WHEN fee = 0.0 THEN 1 WHEN fee > 1e300 THEN 2 ELSE 3 END");
    let batch =
        rows(&program, vec![None; 3], vec![Some(-0.0), Some(-f64::NAN), Some(1.0)], vec![None; 3]);
    let evaluated = program.evaluate(&batch, None).unwrap();
    let values = evaluated.columns[1].as_primitive::<arrow::datatypes::Int64Type>();
    assert_eq!(values.values().as_ref(), [1, 2, 3], "-0.0 is zero and every NaN is the greatest");
}

#[test]
fn null_if_compares_as_numbers() {
    let program = argument("nullif(fee, 0.0)");
    let batch =
        rows(&program, vec![None; 3], vec![Some(-0.0), Some(0.0), Some(2.0)], vec![None; 3]);
    let evaluated = program.evaluate(&batch, None).unwrap();
    let nulls: Vec<bool> = (0..3).map(|row| evaluated.columns[1].is_null(row)).collect();
    assert_eq!(nulls, [true, true, false]);
    assert!(failed(&evaluated, 1).is_empty());
}

#[test]
fn wrong_batches_are_named() {
    let program = program("country");
    let batch = rows(&program, vec![None], vec![None], vec![None]);
    let narrow = batch.project(&[0, 1]).unwrap();
    assert_eq!(
        program.evaluate(&narrow, None).unwrap_err(),
        ProgramError::Width { expected: 12, found: 2 }
    );
    let mut order: Vec<usize> = (0..12).collect();
    order.swap(5, 7);
    let swapped = batch.project(&order).unwrap();
    assert!(matches!(
        program.evaluate(&swapped, None).unwrap_err(),
        ProgramError::Type { index: 5, .. }
    ));
    let mask = vec![None; 3];
    assert_eq!(
        program.evaluate(&batch, Some(&mask)).unwrap_err(),
        ProgramError::Mask { expected: 12, found: 3 }
    );
    let empty = program.evaluate(&batch.slice(0, 0), None).unwrap();
    assert!(empty.columns.iter().all(|column| column.is_empty()));
}
