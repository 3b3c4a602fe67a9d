//! Tests of [`super`].

use arrow::array::{Array, AsArray, Int32Array, Int64Array, StringArray};
use arrow::datatypes::UInt8Type;
use falaj_event::{Hash256, ViewId};
use serde_json::Value as Json;

use super::*;
use crate::backend::ViewRows;

fn view(name: &str, key: &[(&str, DataType)], values: &[&str]) -> Arc<ViewInfo> {
    let keys = key.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), false));
    let values = values.iter().map(|name| Field::new(*name, DataType::Int64, false));
    Arc::new(ViewInfo {
        name: name.to_owned(),
        id: ViewId::of(&Hash256([0; 32])),
        schema: Arc::new(Schema::new(keys.chain(values).collect::<Vec<_>>())),
        key: (0..key.len()).collect(),
        ttl_us: None,
        details: Json::Null,
    })
}

fn catalog() -> Catalog {
    let views = [
        view("cards", &[("card", DataType::Utf8)], &["count", "total"]),
        view("pairs", &[("card", DataType::Utf8), ("shop", DataType::Int64)], &["count"]),
        view("shops", &[("shop", DataType::Int32)], &["count"]),
    ];
    let views = views.into_iter().map(|view| (view.name.clone(), view)).collect();
    Catalog { views, ..Catalog::default() }
}

fn path(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn keys(fields: &[(&str, DataType)]) -> Schema {
    Schema::new(
        fields
            .iter()
            .map(|(name, data_type)| Field::new(*name, data_type.clone(), true))
            .collect::<Vec<_>>(),
    )
}

fn names(schema: &Schema) -> Vec<&str> {
    schema.fields().iter().map(|field| field.name().as_str()).collect()
}

#[test]
fn one_view_keeps_its_names_and_several_are_prefixed() {
    let schema = keys(&[("card", DataType::LargeUtf8)]);
    let plan = LookupPlan::new(&catalog(), &path(&["features", "cards"]), &schema).unwrap();
    assert_eq!(names(&plan.schema), ["card", "count", "total", "__status"]);

    let schema = keys(&[("shop", DataType::Int64), ("card", DataType::Utf8)]);
    let wanted = path(&["features", "pairs", "cards.total"]);
    let plan = LookupPlan::new(&catalog(), &wanted, &schema).unwrap();
    assert_eq!(names(&plan.schema), ["card", "shop", "pairs.count", "cards.total", "__status"]);
    assert_eq!(plan.views[0].key_columns, [0, 1]);
    assert_eq!(plan.views[1].key_columns, [0]);
    assert_eq!(plan.views[1].columns, [2]);
}

#[test]
fn one_request_column_serves_views_that_declare_other_types() {
    let schema = keys(&[("card", DataType::Utf8), ("shop", DataType::Int64)]);
    let wanted = path(&["features", "pairs", "shops"]);
    let plan = LookupPlan::new(&catalog(), &wanted, &schema).unwrap();
    assert_eq!(plan.views[1].key_columns, [2]);
    let request = RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(StringArray::from(vec!["a"])) as ArrayRef,
            Arc::new(Int64Array::from(vec![7])) as ArrayRef,
        ],
    )
    .unwrap();
    let keys = plan.keys(&request).unwrap();
    assert_eq!(keys.column(2).as_ref(), &Int32Array::from(vec![7]));
    assert_eq!(names(&plan.schema), ["card", "shop", "pairs.count", "shops.count", "__status"]);
}

#[test]
fn statuses_of_several_views_are_merged_row_by_row() {
    let schema = keys(&[("card", DataType::Utf8), ("shop", DataType::Int64)]);
    let wanted = path(&["features", "cards", "pairs"]);
    let plan = LookupPlan::new(&catalog(), &wanted, &schema).unwrap();
    let request = RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(StringArray::from(vec!["a", "b"])) as ArrayRef,
            Arc::new(Int64Array::from(vec![7, 8])) as ArrayRef,
        ],
    )
    .unwrap();
    let column = || Arc::new(Int64Array::from(vec![Some(1), None])) as ArrayRef;
    let rows =
        |columns: Vec<ArrayRef>, statuses: &[u8]| ViewRows { columns, statuses: statuses.to_vec() };
    let found = LookupResponse {
        t: LogTime(9),
        views: vec![rows(vec![column(), column()], &[0, 0, 2, 2]), rows(vec![column()], &[0, 3])],
    };
    let keys = plan.keys(&request).unwrap();
    let (t, counts, batch) = plan.answer(&keys, found.clone()).unwrap();
    assert_eq!((t, counts.present, counts.not_found, counts.expired), (LogTime(9), 3, 2, 1));
    let statuses = batch.column_by_name("__status").unwrap().as_fixed_size_list();
    let flat = statuses.values().as_primitive::<UInt8Type>();
    assert_eq!(flat.values().as_ref(), [0, 0, 0, 2, 2, 3]);
    assert_eq!(statuses.len(), 2);

    let mut wrong = found.clone();
    wrong.views.pop();
    assert!(plan.answer(&keys, wrong).is_err());
    let mut wrong = found.clone();
    wrong.views[0].statuses.pop();
    assert!(plan.answer(&keys, wrong).is_err());
    let mut wrong = found.clone();
    wrong.views[0].columns[1] = column().slice(0, 1);
    assert!(plan.answer(&keys, wrong).is_err());
    let mut wrong = found;
    wrong.views[0].columns[1] = Arc::new(StringArray::from(vec!["a", "b"]));
    assert!(plan.answer(&keys, wrong).is_err());
}

#[test]
fn mistakes_are_named_when_the_stream_opens() {
    let card = keys(&[("card", DataType::Utf8)]);
    let cases: [(&[&str], &Schema, &str); 7] = [
        (&["features", "crads"], &card, "did you mean `cards`"),
        (&["features", "cards.totl"], &card, "did you mean `total`"),
        (&["features"], &card, "names no view"),
        (&["elsewhere", "cards"], &card, "is no door"),
        (&["features", "shops"], &card, "looked up by `shop`"),
        (&["features", "cards"], &keys(&[("card", DataType::Int8)]), "is Utf8"),
        (
            &["features", "cards"],
            &keys(&[("card", DataType::Utf8), ("x", DataType::Int8)]),
            "`x` is no key",
        ),
    ];
    for (names, schema, expected) in cases {
        let error = LookupPlan::new(&catalog(), &path(names), schema).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_key_that_its_type_cannot_hold_is_named() {
    let schema = keys(&[("shop", DataType::Int64)]);
    let plan = LookupPlan::new(&catalog(), &path(&["features", "shops"]), &schema).unwrap();
    let request = RecordBatch::try_from_iter([(
        "shop",
        Arc::new(Int64Array::from(vec![1, 1 << 40])) as ArrayRef,
    )])
    .unwrap();
    let error = plan.keys(&request).unwrap_err().to_string();
    assert!(error.contains("row 1"), "{error}");
}

#[test]
fn a_view_of_keys_alone_has_statuses_of_no_width() {
    let array = status_array(Vec::new(), 0, 3).unwrap();
    assert_eq!(array.len(), 3);
}
