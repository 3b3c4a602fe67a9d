//! Chronon's quickstart data: 200 checkouts with the features that its published window rules give.

use std::fs;
use std::path::Path;

use anyhow::Context;
use arrow::array::{
    Array, ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use falaj_gateway::wire::{ProduceOptions, ReadTicket};
use kit::history::Close;

use std::collections::BTreeMap;

use super::*;

/// `purchases`, `returns` and `checkouts` have the same shape.
fn topic(name: &str, amount: &str) -> String {
    format!(
        "name = \"{name}\"\nkey = [\"user_id\"]\nevent_time = \"at\"\nskew = \"9000 days\"\n\
         columns = [\n  {{ name = \"user_id\", type = \"int64\" }},\n  {{ name = \"at\", type = \
         \"timestamp\" }},\n  {{ name = \"{amount}\", type = \"int64\" }},\n  {{ name = \"product_id\", \
         type = \"string\" }},\n]\n"
    )
}

fn view(name: &str, topic: &str, amount: &str, last: u32, hop: &str) -> String {
    let windows = ["3", "14", "30"];
    let features: Vec<String> = windows
        .iter()
        .map(|days| {
            format!(
                "sum({amount}) OVER d{days} AS {amount}_sum_{days}d, count({amount}) OVER d{days} AS \
                 {amount}_count_{days}d, avg({amount}) OVER d{days} AS {amount}_average_{days}d"
            )
        })
        .collect();
    let frames: Vec<String> = windows
        .iter()
        .map(|days| {
            format!(
                "d{days} AS (PARTITION BY user_id ORDER BY at RANGE BETWEEN INTERVAL '{days} days' \
                 PRECEDING AND CURRENT ROW)"
            )
        })
        .collect();
    format!(
        "{hop}-- retain: 9000 days\nCREATE VIEW {name} AS SELECT user_id, {}, last_n({amount}, {last}) OVER \
         (PARTITION BY user_id) AS {amount}_last{last} FROM {topic} WINDOW {}",
        features.join(", "),
        frames.join(", ")
    )
}

const PIPELINE: &str = "[pipeline]\nname = \"quickstart\"\ntask = \"regression\"\nentity = \"user_id\"\n\
    [label]\ntopic = \"checkouts\"\ncolumn = \"total\"\n[[features]]\nview = \"bought\"\n[[features]]\n\
    view = \"returned\"\n[trainer]\nkind = \"linear\"\n";

fn catalog(hop: &str) -> Arc<Catalog> {
    let texts = [
        ("topics/purchases.toml", topic("purchases", "purchase_price")),
        ("topics/returns.toml", topic("returns", "refund_amt")),
        ("topics/checkouts.toml", topic("checkouts", "total")),
        ("bought.sql", view("bought", "purchases", "purchase_price", 10, hop)),
        ("returned.sql", view("returned", "returns", "refund_amt", 2, hop)),
        ("dataflows/quickstart.toml", PIPELINE.to_owned()),
    ];
    let texts: Vec<(&str, &str)> =
        texts.iter().map(|(name, text)| (*name, text.as_str())).collect();
    kit::node::catalog(&texts).unwrap()
}

/// One line: user, microseconds, amount, product.
type Line = (i64, i64, i64, String);

fn lines(folder: &Path, name: &str) -> Vec<Line> {
    let text = fs::read_to_string(folder.join(name)).unwrap();
    let line = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let number = |index: usize| fields[index].parse::<i64>().unwrap();
        (number(3), number(1) * 1_000, number(5), fields[4].to_owned())
    };
    text.lines().skip(1).map(line).collect()
}

/// The expected rows by (user, milliseconds), as (column, text).
fn expected(folder: &Path, name: &str) -> BTreeMap<(i64, i64), Vec<(String, String)>> {
    let text = fs::read_to_string(folder.join(name)).unwrap();
    let names: Vec<&str> = text.lines().next().unwrap().split(',').collect();
    let row = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let key = (fields[0].parse().unwrap(), fields[1].parse().unwrap());
        let pairs = names.iter().zip(&fields).skip(2);
        (key, pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    };
    text.lines().skip(1).map(row).collect()
}

/// Whether a value is what the file says: nothing for NULL (and for a count of nothing), lists joined
/// by bars, floats in their shortest form.
fn is(value: &Value, text: &str) -> bool {
    match value {
        Value::Null => text.is_empty(),
        Value::Int(0) if text.is_empty() => true,
        Value::Int(number) => text.parse() == Ok(*number),
        Value::Decimal(number, 0) => text.parse() == Ok(*number),
        Value::Float64(number) => text.parse::<f64>().map(f64::to_bits) == Ok(number.to_bits()),
        Value::List(items) => {
            let items: Vec<String> = items
                .iter()
                .map(|item| match item {
                    Value::Int(number) => number.to_string(),
                    other => format!("{other:?}"),
                })
                .collect();
            items.join("|") == text
        }
        _ => false,
    }
}

fn history(catalog: &Catalog, folder: &Path) -> History {
    let mut arrivals = Vec::new();
    for name in ["purchases", "returns"] {
        let topic = kit::generate::schema(catalog, name).unwrap();
        for (user, at, amount, product) in lines(folder, &format!("{name}.csv")) {
            let product = Value::String(product.as_str().into());
            let cells = vec![Value::Int(user), Value::Timestamp(at), Value::Int(amount), product];
            arrivals.push(Arrival { at: 0, topic: Arc::clone(&topic), op: Op::Insert, cells });
        }
    }
    // All in one bulk: arrival has nothing to do with the moments asked for.
    let closes = [Close { arrivals: arrivals.len(), wall: 0 }];
    History::cut(&arrivals, &closes, Clock::Event)
}

fn every_cell_is_expected(hop: &str, file: &str) {
    let Some(folder) = kit::shared_data("chronon_quickstart") else { return };
    let catalog = catalog(hop);
    let history = history(&catalog, &folder);
    let checkouts = lines(&folder, "checkouts.csv");
    let keys: Vec<Option<Vec<u8>>> =
        checkouts.iter().map(|line| Some(encode_row([&Value::Int(line.0)]))).collect();
    let asked = Questions {
        at: checkouts.iter().map(|line| line.1).collect(),
        keys: vec![keys; catalog.views.len()],
    };
    let found = answers(&catalog, &history, &asked, ROOMY);
    let expected = expected(&folder, file);
    assert_eq!((checkouts.len(), expected.len()), (200, 200));
    let mut cells = 0;
    for (index, (user, at, ..)) in checkouts.iter().enumerate() {
        let row = &expected[&(*user, at / 1_000)];
        let mut own: BTreeMap<String, Value> = BTreeMap::new();
        for (view, rows) in catalog.views.iter().zip(&found) {
            let values = rows[index].as_ref().map(|row| decode_row(&row.columns).unwrap());
            let values = values.unwrap_or_else(|| vec![Value::Null; view.output.len()]);
            own.extend(view.output.iter().map(|column| column.name.clone()).zip(values));
        }
        for (name, text) in row {
            let value = own.get(name).with_context(|| format!("no column {name}")).unwrap();
            assert!(is(value, text), "user {user} at {at}: {name} is {value:?}, not {text:?}");
            cells += 1;
        }
    }
    assert_eq!(cells, 200 * 20);
    println!("{cells} cells equal {file}");
}

#[test]
fn exact_windows_equal_the_sliding_reference() {
    every_cell_is_expected("", "expected_sliding.csv");
}

#[test]
fn chronon_hops_equal_the_sawtooth_reference() {
    every_cell_is_expected("-- hop: 'chronon'\n", "expected_sawtooth.csv");
}

fn batch(lines: &[Line], amount: &str) -> RecordBatch {
    let at = lines.iter().map(|line| line.1);
    let columns: [(&str, ArrayRef); 4] = [
        ("user_id", Arc::new(Int64Array::from_iter_values(lines.iter().map(|line| line.0)))),
        ("at", Arc::new(TimestampMicrosecondArray::from_iter_values(at).with_timezone("UTC"))),
        (amount, Arc::new(Int64Array::from_iter_values(lines.iter().map(|line| line.2)))),
        ("product_id", Arc::new(StringArray::from_iter_values(lines.iter().map(|line| &line.3)))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// The same through a node: labels first, in bulk, then everything that happened before them.
#[tokio::test(flavor = "multi_thread")]
async fn the_door_gives_the_sliding_reference() {
    let Some(folder) = kit::shared_data("chronon_quickstart") else { return };
    let home = tempfile::tempdir().unwrap();
    let node = kit::node::start(home.path(), &catalog("")).await.unwrap();
    let client = node.client().await.unwrap();
    let checkouts = lines(&folder, "checkouts.csv");
    let tables =
        [("checkouts", "total"), ("purchases", "purchase_price"), ("returns", "refund_amt")];
    for (name, amount) in tables {
        let rows = batch(&lines(&folder, &format!("{name}.csv")), amount);
        let options = ProduceOptions {
            producer: Some(name.into()),
            sequence: Some(0),
            ..ProduceOptions::default()
        };
        let count = rows.num_rows() as u64;
        let acks = client.produce(name, &[rows], &options).await.unwrap();
        assert_eq!(acks.iter().map(|ack| ack.accepted).sum::<u64>(), count, "{name}");
    }
    let ticket = ReadTicket::training_set("quickstart");
    let reading = client.read(&ticket).await.unwrap();
    assert_eq!(reading.metadata()["rows"], 200);
    assert_eq!(reading.metadata()["mode"], "as_corrected");
    let batches = reading.collect().await.unwrap();
    let expected = expected(&folder, "expected_sliding.csv");
    let mut row = 0;
    for batch in &batches {
        for index in 0..batch.num_rows() {
            let (user, at, ..) = &checkouts[row];
            for (name, text) in &expected[&(*user, at / 1_000)] {
                // Lists are no inputs of a model.
                if name.contains("last") {
                    continue;
                }
                let column = batch.column_by_name(name).unwrap();
                let value = falaj_event::cells::Cells::new(column.as_ref()).unwrap().value(index);
                assert!(is(&value, text), "user {user} at {at}: {name} is {value:?}, not {text:?}");
            }
            row += 1;
        }
    }
    assert_eq!(row, 200, "one row per label, in their order");
    assert!(batches[0].column_by_name("__status").is_some_and(|column| !column.is_empty()));
    drop(client);
    node.stop().await.unwrap();
}
