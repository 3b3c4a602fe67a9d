//! Every way in which a pipeline's file can be right or wrong, with places.

use falaj_event::ColumnType;

use super::*;
use crate::catalog::Catalog;
use crate::diagnostics::{Diagnostics, SourceFile};

const TOPICS: &str = r#"name = "outcomes"
key = ["customer"]
event_time = "known_at"
subject = "customer"
columns = [
  { name = "customer", type = "string" },
  { name = "shop", type = "int64" },
  { name = "known_at", type = "timestamp" },
  { name = "paid_at", type = "timestamp" },
  { name = "maybe_at", type = "timestamp", nullable = true },
  { name = "fraud", type = "bool" },
  { name = "reason", type = "string" },
  { name = "loss", type = "float64" },
  { name = "amount", type = "int64" },
  { name = "email", type = "string", pii = true, nullable = true },
  { name = "prediction", type = "string", nullable = true },
]
"#;

const PAYMENTS: &str = r#"name = "payments"
key = ["customer"]
event_time = "paid_at"
columns = [
  { name = "customer", type = "string" },
  { name = "shop", type = "int64" },
  { name = "paid_at", type = "timestamp" },
  { name = "amount", type = "int64" },
  { name = "channel", type = "string" },
]
"#;

const ACTIVITY: &str = "CREATE VIEW activity AS SELECT customer, count(*) AS n, sum(amount) AS spent, \
    last_value(channel) AS channel, last_n(amount, 3) AS recent, max(paid_at) AS last_at \
    FROM payments GROUP BY customer";
const SHOPS: &str = "CREATE VIEW shops AS SELECT shop, count(*) AS n FROM payments GROUP BY shop";

const GOOD: &str = r#"[pipeline]
name = "fraud_model"
task = "binary"
entity = ["customer", "shop"]
owner = "science"
description = "Is it fraud?"
tags = ["a", "b"]

[label]
topic = "outcomes"
column = "fraud"
observed_at = "paid_at"
delay = "7 days"
prediction_id = "prediction"

[[features]]
view = "activity"
columns = ["n", "spent", "channel"]

[[features]]
view = "shops"
prefix = "shop_"

[[request]]
name = "amount"
type = "int64"

[trainer]
kind = "mlp"
hidden = [8, 4]
dropout = 0.5
class_weight = { true = 10, false = 1.5 }

[split]
train = 0.8
embargo = "1 hour"

[training]
mode = "as_known"
history = "30 days"
max_rows = 1000

[gates]
metrics.auc = 0.8
metrics.log_loss = 0.5
metrics.recall = { at_least = 0.25 }
champion_delta = 0.01
calibration = 0.05
latency_p99 = "5 ms"
kpi = { at_least = -100.5 }
approvals = 2

[[gates.slices]]
column = "channel"
metric = "auc"
at_least = 0.6

[serving]
policy = "split"
percent = 25
ack = "fast"

[monitors]
columns = ["amount"]
tests = ["psi", "wasserstein"]
metric_windows = ["7 days", "1 day"]
slices = ["channel"]

[[monitors.guardrails]]
metric = "error_rate"
at_most = 0.01
window = "5 min"
action = "alert"

[retrain]
drift = 3
labels = 500

[[retrain.floors]]
metric = "auc"
at_least = 0.7
window = "1 day"

[kpi]
sql = "sum(CASE WHEN predicted AND actual THEN amount ELSE 0 END)"
"#;

fn load(text: &str) -> Result<Catalog, Diagnostics> {
    let topics =
        [SourceFile::new("topics/o.toml", TOPICS), SourceFile::new("topics/p.toml", PAYMENTS)];
    let views =
        [SourceFile::new("dataflows/a.sql", ACTIVITY), SourceFile::new("dataflows/s.sql", SHOPS)];
    Catalog::with_pipelines(&topics, &views, &[SourceFile::new("dataflows/m.toml", text)])
}

fn good(text: &str) -> Pipeline {
    let catalog = load(text).unwrap_or_else(|findings| panic!("{findings}"));
    Pipeline::clone(&catalog.pipelines[0])
}

/// The findings for `GOOD` with one replacement, as `line:column code message | help`.
fn findings(from: &str, to: &str) -> Vec<String> {
    assert!(GOOD.contains(from), "{from}");
    described(&GOOD.replacen(from, to, 1))
}

fn described(text: &str) -> Vec<String> {
    let found = load(text).expect_err("this must be refused");
    found
        .iter()
        .map(|d| {
            let help = d.help.as_ref().map(|help| format!(" | {help}")).unwrap_or_default();
            format!("{}:{} {} {}{help}", d.line, d.column, d.code, d.message)
        })
        .collect()
}

#[test]
fn all_that_is_said_is_read() {
    let found = good(GOOD);
    assert_eq!((found.name.as_str(), found.task), ("fraud_model", Task::Binary));
    assert_eq!(found.entity, ["customer", "shop"]);
    assert_eq!((found.owner.as_deref(), found.tags.len()), (Some("science"), 2));
    let label = &found.label;
    assert_eq!((label.observed_at.as_str(), label.delay_us), ("paid_at", 7 * 86_400_000_000));
    assert_eq!(label.positive, Some(ClassValue::Bool(true)));
    let by_id = FeedbackJoin::PredictionId { column: "prediction".into(), within_us: 300_000_000 };
    assert_eq!(label.join, by_id);
    let ClassWeight::Given(weights) = &found.trainer.class_weight else { panic!() };
    assert_eq!((weights["true"], weights["false"]), (10.0, 1.5));
    assert_eq!((found.trainer.hidden.as_slice(), found.trainer.epochs), (&[8, 4][..], 20));
    assert!(
        (found.split.validation - 0.1).abs() < 1e-12 && found.split.embargo_us == 3_600_000_000
    );
    assert_eq!((found.training.mode, found.training.max_rows), (TrainingMode::AsKnown, Some(1000)));
    let bounds: Vec<String> =
        found.gates.metrics.iter().map(|gate| format!("{} {}", gate.metric, gate.bound)).collect();
    assert_eq!(bounds, ["auc >= 0.8", "log_loss <= 0.5", "recall >= 0.25"]);
    assert_eq!(found.gates.champion, Some(ChampionGate { metric: "auc".into(), delta: 0.01 }));
    assert_eq!(found.gates.slices[0].minimum_support, 100);
    assert_eq!(found.gates.kpi, Some(Bound::AtLeast(-100.5)));
    assert_eq!((found.gates.latency_p99_us, found.gates.approvals), (Some(5_000), 2));
    assert_eq!(found.serving.policy, Policy::Split { percent: 25.0 });
    assert_eq!(found.serving.ack, Acknowledgement::Fast);
    assert_eq!(found.monitors.columns, ["amount"]);
    assert_eq!(found.monitors.metric_windows_us, [86_400_000_000, 7 * 86_400_000_000]);
    assert_eq!(found.monitors.guardrails[0].action, Action::Alert);
    assert_eq!((found.retrain.drift_windows, found.retrain.labels), (Some(3), Some(500)));
    assert_eq!(found.retrain.floors[0].bound, Bound::AtLeast(0.7));
    assert!(found.kpi.unwrap().view_sql.starts_with("CREATE VIEW kpi AS SELECT model"));
}

#[test]
fn the_signature_is_typed_and_in_order() {
    let found = good(GOOD).signature;
    let keys =
        [("customer".to_owned(), ColumnType::String), ("shop".to_owned(), ColumnType::Int64)];
    assert_eq!(found.keys, keys);
    let inputs: Vec<String> = found
        .inputs
        .iter()
        .map(|i| format!("{} {} {} {}", i.name, i.column_type, i.kind.as_str(), i.nullable))
        .collect();
    let expected = [
        "n int64 numeric true",
        "spent decimal(38,0) numeric true",
        "channel string categorical true",
        "shop_n int64 numeric true",
        "amount int64 numeric false",
    ];
    assert_eq!(inputs, expected);
    let outputs: Vec<&str> = found.outputs.iter().map(|output| output.name.as_str()).collect();
    assert_eq!(outputs, ["score", "predicted"]);
}

#[test]
fn hashes_follow_what_they_name() {
    let base = good(GOOD);
    assert_eq!(base.hash, good(GOOD).hash);
    let slower = good(&GOOD.replace("dropout = 0.5", "dropout = 0.4"));
    assert_ne!(base.hash, slower.hash);
    assert_eq!(base.inputs_hash(), slower.inputs_hash());
    assert_eq!(base.signature.hash(), slower.signature.hash());
    let fewer = good(&GOOD.replace("\"n\", \"spent\"", "\"spent\""));
    assert_ne!(base.inputs_hash(), fewer.inputs_hash());
    assert_ne!(base.signature.hash(), fewer.signature.hash());
    // A view that computes otherwise is another pipeline, though its text is the same.
    let topics = [SourceFile::new("o", TOPICS), SourceFile::new("p", PAYMENTS)];
    let changed = ACTIVITY.replace("sum(amount)", "sum(amount + 1)");
    let views = [SourceFile::new("a", changed), SourceFile::new("s", SHOPS)];
    let catalog =
        Catalog::with_pipelines(&topics, &views, &[SourceFile::new("dataflows/m.toml", GOOD)])
            .unwrap();
    assert_ne!(base.hash, catalog.pipelines[0].hash);
    assert_ne!(load(GOOD).unwrap().hash, load(GOOD).map(|_| catalog.hash).unwrap());
}

#[test]
fn what_is_not_said_has_defaults() {
    let least = "[pipeline]\nname = \"m\"\ntask = \"regression\"\nentity = \"customer\"\n[label]\n\
        topic = \"outcomes\"\ncolumn = \"loss\"\n[[features]]\nview = \"activity\"\n[trainer]\n\
        kind = \"trees\"\nrounds = 40\n";
    let catalog = load(least).unwrap_or_else(|findings| panic!("{findings}"));
    let found = &catalog.pipelines[0];
    assert_eq!((found.trainer.epochs, found.trainer.calibration), (40, Calibration::None));
    assert_eq!(found.label.observed_at, "known_at");
    assert_eq!(found.gates, Gates::default());
    assert_eq!(found.signature.outputs[0].name, "value");
    // `*` takes what a model can read, and says what it left out.
    assert_eq!(found.features[0].columns, ["n", "spent", "channel"]);
    let notes: Vec<&str> = catalog.findings.iter().map(|note| note.message.as_str()).collect();
    assert_eq!(notes.len(), 1);
    assert!(notes[0].contains("`recent` (list<int64>), `last_at` (timestamp)"), "{notes:?}");
}

/// Every refusal with its place: what to replace in the good file, by what, and what is said.
#[test]
fn what_is_wrong_is_named_where_it_stands() {
    let cases = [
        (
            "[serving]",
            "[servin]",
            "58:2 unknown-field a model pipeline has no section `servin` | did you mean `serving`?",
        ),
        (
            "owner = ",
            "ownr = ",
            "5:1 unknown-field a pipeline has no field `ownr` | did you mean `owner`?",
        ),
        (
            "name = \"fraud_model\"",
            "name = \"activity\"",
            "2:8 duplicate-name `activity` is already the name of a view, declared in dataflows/**/activity.sql",
        ),
        (
            "task = \"binary\"",
            "task = \"binry\"",
            "3:8 bad-value `task` cannot be `binry` | did you mean `binary`?",
        ),
        (
            "entity = [\"customer\", \"shop\"]",
            "entity = [\"customer\"]",
            "21:8 key-mismatch view `shops` is keyed by `shop`, but `shop` is not an entity column | add it to `entity` in [pipeline], or write key = { shop = \"customer\" }",
        ),
        (
            "prefix = \"shop_\"",
            "prefix = \"shop_\"\nkey = { shop = \"customer\" }",
            "23:16 key-mismatch view `shops` is keyed by `shop` of type int64, but `customer` of the label's topic is of type string",
        ),
        (
            "topic = \"outcomes\"",
            "topic = \"outcome\"",
            "10:9 unknown-topic there is no topic `outcome` | did you mean `outcomes`?",
        ),
        (
            "column = \"fraud\"",
            "column = \"loss\"",
            "11:10 wrong-type the label of a binary model is a bool, a string or a whole number, but `loss` is of type float64",
        ),
        (
            "column = \"fraud\"",
            "column = \"reason\"",
            "9:2 missing-field this label has no `positive` | say which value is the positive class, e.g. positive = \"fraud\"",
        ),
        (
            "column = \"fraud\"",
            "column = \"email\"",
            "11:10 pii `column` names `email`, which is personal data: it is sealed and no model reads it",
        ),
        (
            "observed_at = \"paid_at\"",
            "observed_at = \"maybe_at\"",
            "12:15 wrong-type `observed_at` column `maybe_at` is nullable, but every label was observed at some time",
        ),
        (
            "delay = \"7 days\"",
            "delay = \"1 month\"",
            "13:9 bad-duration `month` has no fixed length: write days, e.g. 7 years are `2557 days` | write e.g. `30 days`",
        ),
        (
            "view = \"activity\"",
            "view = \"activty\"",
            "17:8 unknown-view there is no view `activty` | did you mean `activity`?",
        ),
        (
            "\"spent\", \"channel\"]",
            "\"spend\", \"channel\"]",
            "18:17 unknown-column view `activity` has no column `spend` | did you mean `spent`?",
        ),
        (
            "\"spent\", \"channel\"]",
            "\"spent\", \"channel\", \"recent\"]",
            "18:37 wrong-type `recent` of view `activity` is of type list<int64>, which no model reads | numbers, bools and strings are features: derive one in the view",
        ),
        (
            "\"spent\", \"channel\"]",
            "\"spent\", \"channel\", \"customer\"]",
            "18:37 wrong-type `customer` of view `activity` is the view's key: an identity is not a feature | numbers, bools and strings are features: derive one in the view",
        ),
        ("prefix = \"shop_\"", "", "20:1 duplicate-name"),
        (
            "type = \"int64\"",
            "type = \"int32\"",
            "25:8 wrong-type `amount` is of type int32 here and of type int64 in `outcomes`, where training rows take it from",
        ),
        (
            "name = \"amount\"",
            "name = \"score\"\nlabel_column = \"amount\"",
            "25:8 duplicate-name `score` is a column that every prediction has | give its view a `prefix`, e.g. prefix = \"merchant_\"",
        ),
        ("hidden = [8, 4]", "depth = 4", "30:9 wrong-field a mlp trainer has no `depth`"),
        (
            "hidden = [8, 4]",
            "hidden = [8, 0]",
            "30:14 out-of-range a width is a whole number between 1 and 16384",
        ),
        ("dropout = 0.5", "dropout = 5", "31:11 out-of-range `dropout` must be between 0 and 0.95"),
        (
            "train = 0.8",
            "train = 0.8\ntest = 0.3",
            "34:2 bad-value train, validation and test are 0.8, -0.1 and 0.3",
        ),
        (
            "max_rows = 1000",
            "max_rows = 10\nmin_rows = 11",
            "42:12 bad-value `min_rows` is more than `max_rows`: no training set has both",
        ),
        (
            "metrics.auc",
            "metrics.acu",
            "44:9 unknown-metric `acu` is no metric of a binary model | did you mean `auc`?",
        ),
        (
            "metrics.auc",
            "metrics.rmse",
            "44:9 unknown-metric `rmse` is no metric of a binary model | its metrics are auc",
        ),
        (
            "{ at_least = 0.25 }",
            "{ at_least = 0.25, at_most = 1 }",
            "46:47 bad-value a threshold has one side: `at_least` or `at_most`",
        ),
        (
            "column = \"channel\"",
            "column = \"spent\"",
            "54:10 unknown-column `spent` is numeric: rows are told apart by classes | use one of channel",
        ),
        (
            "percent = 25",
            "percent = 100",
            "60:11 out-of-range a split gives the challenger more than 0 and less than 100 percent",
        ),
        (
            "policy = \"split\"",
            "policy = \"shadow\"",
            "60:11 wrong-field `percent` is for policy = \"split\"",
        ),
        (
            "\"wasserstein\"",
            "\"waserstein\"",
            "65:17 bad-value `tests` cannot be `waserstein` | did you mean `wasserstein`?",
        ),
        (
            "drift = 3",
            "drift = \"true\"",
            "76:9 wrong-type `drift` must be true, false or the number of drifted windows in a row, not a string | write true without quotes",
        ),
        (
            "THEN amount ELSE",
            "THEN amonut ELSE",
            "85:48 unknown-name there is no column `amonut` | did you mean `amount`?",
        ),
        (
            "\"sum(CASE WHEN predicted AND actual THEN amount ELSE 0 END)\"",
            "\"bool_or(actual)\"",
            "85:7 wrong-type a KPI is a number, but this is of type bool",
        ),
        (
            "[kpi]\nsql = \"sum(CASE WHEN predicted AND actual THEN amount ELSE 0 END)\"\n",
            "",
            "43:2 missing-section [gates] has a threshold for the KPI, but no [kpi] is declared",
        ),
    ];
    let mut wrong = Vec::new();
    for (from, to, expected) in cases {
        let found = findings(from, to);
        if !found.iter().any(|finding| finding.starts_with(expected)) {
            wrong.push(format!("{from} -> {to}\nexpected {expected}\nfound {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn missing_sections_and_broken_files_are_said_once() {
    assert_eq!(described("").len(), 1);
    assert!(described("")[0].contains("no section [pipeline]"));
    let head = "[pipeline]\nname = \"m\"\ntask = \"binary\"\nentity = \"customer\"\n";
    assert!(described(head)[0].contains("no section [label]"));
    let label = format!("{head}[label]\ntopic = \"outcomes\"\ncolumn = \"fraud\"\n");
    let found = described(&label);
    assert!(found.iter().any(|f| f.contains("no section [[features]]")), "{found:?}");
    assert!(found.iter().any(|f| f.contains("no section [trainer]")), "{found:?}");
    assert!(described("[pipeline\n")[0].contains("bad-toml"));
    assert!(described("name = \"m\"\n")[0].contains("`name` stands in [pipeline]"));
    assert!(described("pipeline = 3\n")[0].contains("must be a table"));
}

#[test]
fn pipelines_of_wrong_views_wait_for_them() {
    let topics = [SourceFile::new("o", TOPICS), SourceFile::new("p", PAYMENTS)];
    let wrong = SourceFile::new("a.sql", ACTIVITY.replace("sum(amount)", "sum(amonut)"));
    let views = [wrong, SourceFile::new("s.sql", SHOPS)];
    let found =
        Catalog::with_pipelines(&topics, &views, &[SourceFile::new("dataflows/m.toml", GOOD)])
            .expect_err("the view is wrong");
    assert!(found.iter().all(|finding| finding.file.ends_with("a.sql")), "{found}");
    let twice =
        [SourceFile::new("dataflows/m.toml", GOOD), SourceFile::new("dataflows/n.toml", GOOD)];
    let views = [SourceFile::new("a.sql", ACTIVITY), SourceFile::new("s.sql", SHOPS)];
    let found = Catalog::with_pipelines(&topics, &views, &twice).expect_err("one name, two files");
    assert_eq!(found.iter().next().map(|d| (d.code, d.line)), Some(("duplicate-name", 2)));
}

/// What is over all events ever drifts by itself: it is watched only where that is asked for, and then
/// warned about.
#[test]
fn lifetime_values_are_not_watched_unless_they_are_named() {
    let columns = |text: &str| good(&GOOD.replace("columns = [\"amount\"]", text)).monitors.columns;
    assert_eq!(columns(""), ["channel", "amount"], "a last value does not move by itself");
    assert_eq!(columns("columns = \"*\""), ["n", "spent", "channel", "shop_n", "amount"]);
    assert_eq!(columns("columns = [\"amount\", \"spent\"]"), ["spent", "amount"]);
    let warned = |text: &str| {
        let catalog = load(&GOOD.replace("columns = [\"amount\"]", text)).unwrap();
        let codes = catalog.findings.iter().map(|finding| finding.code);
        codes.filter(|code| *code == "monitors-lifetime").count()
    };
    assert_eq!((warned("columns = [\"spent\"]"), warned("columns = \"*\""), warned("")), (1, 1, 0));
}

/// What the repository ships is right, and serialises as it is read back.
#[test]
fn the_shipped_pipeline_is_right() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let catalog = Catalog::load(&root).unwrap_or_else(|findings| panic!("{findings}"));
    let fraud = catalog.pipeline("fraud").unwrap();
    assert_eq!(fraud.signature.inputs.len(), 25);
    assert!(catalog.findings.is_empty(), "{}", catalog.findings);
    assert!(!fraud.monitors.columns.iter().any(|name| name.starts_with("ever_")));
    let text = serde_json::to_string(&fraud.signature).unwrap();
    assert_eq!(serde_json::from_str::<Signature>(&text).unwrap(), fraud.signature);
    let text = serde_json::to_string(&fraud.trainer).unwrap();
    assert_eq!(serde_json::from_str::<Trainer>(&text).unwrap(), fraud.trainer);
}

#[test]
fn a_multiclass_label_names_its_classes() {
    let multiclass = GOOD.replacen("task = \"binary\"", "task = \"multiclass\"", 1).replacen(
        "positive = true\n",
        "",
        1,
    );
    let found = described(&multiclass);
    let missing: Vec<&String> = found.iter().filter(|one| one.contains("classes")).collect();
    assert_eq!(missing.len(), 1, "{found:?}");
    let line = 1 + multiclass.lines().position(|line| line == "[label]").unwrap();
    assert!(missing[0].starts_with(&format!("{line}:2 missing-field")), "{missing:?}");
    assert!(missing[0].contains("classes = [false, true]"), "{missing:?}");
}

#[test]
fn a_renamed_request_feature_does_not_hide_a_label_column() {
    // `amount` is a column of the label's topic; another column must not be called that in rows.
    let from = "name = \"amount\"\n";
    let renamed = GOOD
        .replacen(from, "name = \"asked\"\nlabel_column = \"amount\"\n", 1)
        .replace("columns = [\"amount\"]", "columns = [\"asked\"]");
    assert_eq!(good(&renamed).request[0].label_column, "amount", "a new name is fine");
    let columns = "name = \"prediction\"\nlabel_column = \"amount\"\n";
    let found = findings(from, columns);
    assert!(
        found.iter().any(|one| one.contains("duplicate-name")
            && one.contains("two columns `prediction`")
            && one.contains("take from `amount`")),
        "{found:?}"
    );
}
