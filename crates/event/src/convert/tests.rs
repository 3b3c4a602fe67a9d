//! Tests of [`super`].

use arrow::array::{
    Decimal128Array, DictionaryArray, Float32Array, Float64Array, Int8Array, Int16Array,
    Int32Array, LargeListArray, LargeStringArray, StringArray, StringViewArray,
    TimestampNanosecondArray, TimestampSecondArray, UInt8Array,
};
use arrow::datatypes::{Field, Int16Type, Int64Type};

use super::*;

fn array(array: impl Array + 'static) -> ArrayRef {
    Arc::new(array)
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

#[test]
fn equal_types_are_not_copied() {
    let column = array(Int64Array::from(vec![1, 2]));
    let converted = convert(&column, &DataType::Int64).unwrap();
    assert!(Arc::ptr_eq(&converted.array, &column));
}

#[test]
fn numbers_keep_their_value_or_are_named() {
    let wide = array(Int64Array::from(vec![Some(1), Some(300), None, Some(-1)]));
    let converted = convert(&wide, &DataType::UInt8).unwrap();
    assert_eq!(converted.misfits, [1, 3]);
    assert_eq!(converted.array.as_ref(), &UInt8Array::from(vec![Some(1), None, None, None]));

    let floats = array(Float64Array::from(vec![Some(2.0), Some(2.5), Some(f64::NAN), None]));
    let converted = convert(&floats, &DataType::Int16).unwrap();
    assert_eq!(converted.misfits, [1, 2]);
    assert_eq!(converted.array.as_ref(), &Int16Array::from(vec![Some(2), None, None, None]));

    let big = array(Int64Array::from(vec![1 << 53, (1 << 53) + 1]));
    assert_eq!(convert(&big, &DataType::Float64).unwrap().misfits, [1]);

    let cents = Decimal128Array::from(vec![1050, 1055]).with_precision_and_scale(10, 2).unwrap();
    let converted = convert(&array(cents), &DataType::Decimal128(10, 1)).unwrap();
    assert_eq!(converted.misfits, [1]);
}

#[test]
fn float64_rounds_to_float32_but_never_to_infinity() {
    let floats = array(Float64Array::from(vec![0.1, 1e300, f64::INFINITY, f64::NAN]));
    let converted = convert(&floats, &DataType::Float32).unwrap();
    assert_eq!(converted.misfits, [1]);
    let narrow: &Float32Array = converted.array.as_primitive();
    assert_eq!(narrow.value(0), 0.1_f32);
    assert!(narrow.is_null(1) && narrow.value(2).is_infinite() && narrow.value(3).is_nan());
}

#[test]
fn timestamps_keep_their_instant() {
    let nanos = TimestampNanosecondArray::from(vec![Some(5_000), Some(5_001), None]);
    let converted = convert(&array(nanos), &timestamp()).unwrap();
    assert_eq!(converted.misfits, [1]);
    assert_eq!(converted.array.data_type(), &timestamp());
    let micros: &TimestampMicrosecondArray = converted.array.as_primitive();
    assert_eq!(micros.iter().collect::<Vec<_>>(), [Some(5), None, None]);

    let seconds = TimestampSecondArray::from(vec![7, i64::MAX]).with_timezone("Asia/Muscat");
    let converted = convert(&array(seconds), &timestamp()).unwrap();
    assert_eq!(converted.misfits, [1]);
    assert_eq!(
        converted.array.as_primitive::<arrow::datatypes::TimestampMicrosecondType>().value(0),
        7_000_000
    );
}

#[test]
fn dictionaries_large_types_and_views_are_written_out() {
    let plain = StringArray::from(vec![Some("a"), None, Some("b"), Some("a")]);
    let dictionary: DictionaryArray<Int16Type> =
        [Some("a"), None, Some("b"), Some("a")].into_iter().collect();
    let large = LargeStringArray::from(vec![Some("a"), None, Some("b"), Some("a")]);
    let view = StringViewArray::from(vec![Some("a"), None, Some("b"), Some("a")]);
    for column in [array(dictionary), array(large), array(view)] {
        let converted = convert(&column, &DataType::Utf8).unwrap();
        assert_eq!(converted.array.as_ref(), &plain);
        assert!(converted.misfits.is_empty());
    }
}

#[test]
fn a_small_dictionary_that_is_huge_when_written_out_is_refused() {
    let value = "x".repeat(1 << 20);
    let values = array(StringArray::from(vec![value.as_str()]));
    let keys = Int32Array::from(vec![0; 300]);
    let column = array(DictionaryArray::try_new(keys, values).unwrap());
    assert!(matches!(convert(&column, &DataType::Utf8), Err(ConvertError::Expansion(_))));
}

#[test]
fn lists_are_converted_item_by_item() {
    let lists = LargeListArray::from_iter_primitive::<Int64Type, _, _>([
        Some(vec![Some(1), Some(2)]),
        None,
        Some(vec![Some(1000)]),
        Some(vec![]),
    ]);
    let item = Arc::new(Field::new("item", DataType::Int8, true));
    let converted = convert(&array(lists), &DataType::List(item)).unwrap();
    assert_eq!(converted.misfits, [2]);
    let list: &ListArray = converted.array.as_list();
    assert_eq!(list.value(0).as_ref(), &Int8Array::from(vec![1, 2]));
    assert!(list.is_null(1) && list.is_null(2) && list.is_valid(3));
}

#[test]
fn unrelated_types_are_refused_whole() {
    let text = array(StringArray::from(vec!["1"]));
    assert!(!convertible(text.data_type(), &DataType::Int64));
    let error = convert(&text, &DataType::Int64).unwrap_err();
    assert_eq!(error, ConvertError::Types { from: "Utf8".into(), to: "Int64".into() });
}

#[test]
fn columns_of_nothing_become_null() {
    let nothing = array(arrow::array::NullArray::new(2));
    let converted = convert(&nothing, &timestamp()).unwrap();
    assert_eq!(converted.array.null_count(), 2);
}

#[test]
fn decimals_take_no_floats_and_give_whole_numbers() {
    let decimal = DataType::Decimal128(10, 2);
    assert!(
        !convertible(&DataType::Float64, &decimal) && !convertible(&decimal, &DataType::Float64)
    );
    let cents = Decimal128Array::from(vec![1000, 1001]).with_precision_and_scale(10, 2).unwrap();
    let converted = convert(&array(cents), &DataType::Int64).unwrap();
    assert_eq!(converted.misfits, [1]);
    assert_eq!(converted.array.as_ref(), &Int64Array::from(vec![Some(10), None]));
}
