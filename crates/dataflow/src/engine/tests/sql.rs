//! Views planned from SQL: computed keys, results, HAVING and join keys, beside a view whose results
//! are passed on as they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use falaj_definitions::catalog::Catalog;
use falaj_definitions::diagnostics::SourceFile;
use falaj_definitions::plan::ViewPlan;
use falaj_event::encoding::decode_row;
use falaj_event::{Op, Value, ViewId};

use super::kit::{Contents, Log, LogWriter, SECOND, fold, run, text};

const PAYMENTS: &str = r#"
name = "payments"
description = "p"
owner = "o"
key = ["account"]
event_time = "at"
partitions = 2
classification = "internal"
jurisdictions = ["AE"]
retention = "forever"
columns = [
    { name = "account", type = "string", description = "a" },
    { name = "merchant", type = "string", description = "m" },
    { name = "amount", type = "int64", description = "v" },
    { name = "at", type = "timestamp", description = "t" },
]
"#;

const MERCHANTS: &str = r#"
name = "merchants"
kind = "table"
description = "m"
owner = "o"
primary_key = ["merchant"]
event_time = "at"
partitions = 1
classification = "internal"
jurisdictions = ["AE"]
retention = "forever"
columns = [
    { name = "merchant", type = "string", description = "m" },
    { name = "weight", type = "int64", description = "w" },
    { name = "at", type = "timestamp", description = "t" },
]
"#;

const PLAIN: &str = "CREATE VIEW plain AS \
    SELECT account, count(*) AS n, sum(amount) AS total FROM payments GROUP BY account";

const COMPUTED: &str = "CREATE VIEW computed AS \
    SELECT account, upper(account) AS name, count(*) AS n, CAST(count(*) * 20 AS TINYINT) AS scaled, \
    sum(amount) AS total FROM payments GROUP BY account HAVING count(*) <> 4";

const JOINED: &str = "CREATE VIEW joined AS \
    SELECT p.account, count(*) AS n, sum(p.amount * m.weight) AS total FROM payments p \
    LEFT JOIN merchants m ON m.merchant = lower(p.merchant) GROUP BY p.account";

const OVER: &str = "CREATE VIEW over AS \
    SELECT account, n + 1 AS more FROM plain WHERE n > 2";

fn catalog() -> Catalog {
    let file = |path: &str, text: &str| SourceFile::new(path, text);
    let topics = [file("topics/payments.toml", PAYMENTS), file("topics/merchants.toml", MERCHANTS)];
    let views = [
        file("dataflows/plain.sql", PLAIN),
        file("dataflows/computed.sql", COMPUTED),
        file("dataflows/joined.sql", JOINED),
        file("dataflows/over.sql", OVER),
    ];
    Catalog::from_sources(&topics, &views).unwrap_or_else(|findings| panic!("{findings:?}"))
}

fn log_of(catalog: &Catalog) -> Log {
    let topic = |name: &str| Arc::clone(&catalog.topics.get(name).unwrap().schema);
    let mut writer = LogWriter::default();
    for step in 0..40_i64 {
        let at = 1_000 * SECOND + step * SECOND;
        writer.epoch(at.cast_unsigned());
        for one in 0..step % 3 {
            let cells = vec![
                text(if (step + one) % 4 == 0 { "a" } else { "b" }),
                text(if one == 0 { "M" } else { "N" }),
                Value::Int(step + one),
                Value::Timestamp(at),
            ];
            writer.append(&topic("payments"), Op::Insert, cells);
        }
        if step % 7 == 3 {
            let cells = vec![text("m"), Value::Int(step), Value::Timestamp(at)];
            let op = if step % 2 == 0 { Op::Delete } else { Op::Upsert };
            writer.append(&topic("merchants"), op, cells);
        }
    }
    writer.log
}

/// Rows of one view, decoded.
fn rows_of(contents: &BTreeMap<ViewId, Contents>, plan: &ViewPlan) -> Vec<Vec<Value>> {
    let view = contents.get(&plan.id).into_iter().flat_map(BTreeMap::values);
    view.map(|(_, row)| decode_row(row).unwrap()).collect()
}

#[test]
fn computed_results_follow_from_those_passed_on() {
    let catalog = catalog();
    let log = log_of(&catalog);
    let changes = run(&catalog.views, &log, 2, 3, None).unwrap();
    let view = |name: &str| catalog.view(name).unwrap();
    let mut contents = BTreeMap::new();
    let (mut failed, mut hidden) = (0, 0);
    for changes in &changes {
        fold(&mut contents, changes);
        let plain = rows_of(&contents, view("plain"));
        let mut computed = Vec::new();
        let mut over = Vec::new();
        for row in &plain {
            let [Value::String(account), Value::Int(n), total] = row.as_slice() else {
                panic!("{row:?}");
            };
            if *n == 4 {
                hidden += 1;
            } else {
                let scaled = if *n > 6 { Value::Error } else { Value::Int(n * 20) };
                failed += usize::from(*n > 6);
                let name = text(&account.to_uppercase());
                computed.push(vec![row[0].clone(), name, Value::Int(*n), scaled, total.clone()]);
            }
            if *n > 2 {
                over.push(vec![row[0].clone(), Value::Int(n + 1)]);
            }
        }
        assert_eq!(rows_of(&contents, view("computed")), computed, "T {}", changes.t);
        assert_eq!(rows_of(&contents, view("over")), over, "T {}", changes.t);
    }
    assert!(failed > 0 && hidden > 0, "the log does not reach the cases");
}

#[test]
fn a_computed_join_key_finds_the_row_current_at_t() {
    let catalog = catalog();
    let log = log_of(&catalog);
    let changes = run(&catalog.views, &log, 1, 1, None).unwrap();
    let mut contents = BTreeMap::new();
    let (mut payments, mut weight) = (Vec::new(), None);
    for ((_, events), changes) in log.iter().zip(&changes) {
        for event in events {
            match (event.topic.name.as_str(), event.op) {
                ("payments", _) => payments.push(event.cells.clone()),
                (_, Op::Delete) => weight = None,
                _ => weight = Some(event.cells[1].clone()),
            }
        }
        fold(&mut contents, changes);
        for row in rows_of(&contents, catalog.view("joined").unwrap()) {
            let own = || payments.iter().filter(|cells| cells[0] == row[0]);
            let mut total = None;
            for cells in own().filter(|cells| cells[1] == text("M")) {
                if let (Value::Int(amount), Some(Value::Int(weight))) = (&cells[2], &weight) {
                    *total.get_or_insert(0) += i128::from(amount * weight);
                }
            }
            let total = total.map_or(Value::Null, |total| Value::Decimal(total, 0));
            let n = Value::Int(i64::try_from(own().count()).unwrap());
            assert_eq!(row, vec![row[0].clone(), n, total], "T {}", changes.t);
        }
    }
}
