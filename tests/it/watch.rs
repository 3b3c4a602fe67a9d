//! The watch over a real log: outcomes, scores and decisions follow from it, each of them once, whatever
//! the restarts; a drift that begins halfway is found, and answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use falaj_definitions::catalog::Catalog;
use falaj_definitions::diagnostics::SourceFile;
use falaj_event::encoding::encode_row;
use falaj_event::{Hash256, LogTime, Op, ProducerId, TopicSchema, Value};
use falaj_lifecycle::registry::{PromotionEvidence, RequestCause, TrainedModel};
use falaj_lifecycle::{Actor, GateReport, ModelChange, ModelEvent};
use falaj_log::{
    ClockMode, Log, MemoryLog, Ops, Options, Origin, Parts, PiiMode, ReadOptions, Reader, Schemas,
    Sequencer, SequencerHandle, SystemClock,
};
use falaj_monitor::{Actual, HeldOut, ReferenceRows, ReferenceSet};
use falaj_node::admission::Doorkeeper;
use falaj_node::models::registry;
use falaj_node::models::rows::{self, Row, RowReader, moment, text};
use falaj_node::models::watch::checkpoint::Checkpoints;
use falaj_node::models::watch::settings::monitor_settings;
use falaj_node::models::watch::{DRIFT_TOPIC, Decision, Watch, WatchParts};
use falaj_vault::Vault;
use kit::random::Random;

const PAYMENTS: &str = r#"
name = "outcomes_known"
kind = "table"
description = "What became of a payment."
primary_key = ["payment"]
event_time = "known_at"
columns = [
  { name = "payment", type = "string" },
  { name = "known_at", type = "timestamp" },
  { name = "paid_at", type = "timestamp" },
  { name = "customer", type = "string" },
  { name = "fraud", type = "bool", nullable = true },
  { name = "amount", type = "float64" },
  { name = "channel", type = "string" },
  { name = "prediction", type = "string", nullable = true },
]
"#;

const PIPELINE: &str = r#"
[pipeline]
name = "fraud"
task = "binary"
entity = ["customer"]

[label]
topic = "outcomes_known"
column = "fraud"
observed_at = "paid_at"
delay = "1 hour"
prediction_id = "prediction"
within = "1 minute"

[[request]]
name = "amount"
type = "float64"

[[request]]
name = "channel"
type = "string"

[trainer]
kind = "linear"

[serving]
policy = "champion"

[monitors]
window = "1 minute"
min_rows = 100
slices = ["channel"]
tests = ["psi", "ks", "chi_square", "missing_rate", "range", "domain_classifier"]
detectors = ["adwin"]
metrics = ["auc", "accuracy"]
metric_windows = ["1 minute"]

[[monitors.guardrails]]
metric = "accuracy"
at_least = 0.6
window = "1 minute"
minimum_support = 100

[retrain]
drift = 2
cool_down = "10 minutes"
"#;

const MINUTE_US: u64 = 60_000_000;
/// The first window.
const START_US: u64 = 1_767_225_600_000_000;
/// Predictions of a window, in steps.
const PER_WINDOW: u64 = 320;
const STEP: u64 = 40;

/// A log, a sequencer that appends to it, and what was decided.
struct World {
    catalog: Arc<Catalog>,
    log: Arc<MemoryLog>,
    reader: Arc<Reader>,
    sequencer: SequencerHandle,
    decisions: Arc<Mutex<Vec<Decision>>>,
    sequence: u64,
    /// Where the fold is written down; `None`: every start folds anew.
    checkpoints: Option<Checkpoints>,
    keys: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let file = |name: &str, text: &str| SourceFile::new(name, text);
        let catalog = Catalog::with_pipelines(
            &[file("topics/outcomes.toml", PAYMENTS)],
            &[],
            &[file("dataflows/fraud.toml", PIPELINE)],
        );
        let catalog = Arc::new(catalog.unwrap_or_else(|findings| panic!("{findings}")));
        let keys = tempfile::tempdir().unwrap();
        let vault = Arc::new(Vault::open(keys.path()).unwrap());
        let log = Arc::new(MemoryLog::new());
        let schemas: Schemas =
            catalog.topics.iter().map(|topic| Arc::clone(&topic.schema)).collect();
        let reader = Arc::new(Reader::new(
            Arc::clone(&log) as Arc<dyn Log>,
            Arc::clone(&vault),
            Arc::new(schemas),
            ReadOptions::default(),
        ));
        let parts = Parts {
            log: Arc::clone(&log) as Arc<dyn Log>,
            vault: Arc::clone(&vault),
            admission: Box::new(Doorkeeper::restore(&catalog, &reader).unwrap()),
            clock: Arc::new(SystemClock),
            random: Arc::clone(vault.random()),
        };
        let options = Options { clock: ClockMode::Event, ..Options::default() };
        let sequencer = Sequencer::spawn(options, parts).unwrap();
        let decisions = Arc::default();
        let checkpoints = None;
        Self { catalog, log, reader, sequencer, decisions, sequence: 0, checkpoints, keys }
    }

    fn schema(&self, topic: &str) -> Arc<TopicSchema> {
        Arc::clone(&self.catalog.topics.get(topic).unwrap_or_else(|| panic!("{topic}")).schema)
    }

    fn derive(&self, topic: &str, cause: u64, keys: &[Vec<u8>], all: Vec<Row<'_>>) {
        let schema = self.schema(topic);
        let made = rows::derived(&schema, &Hash256::default(), LogTime(cause), keys, all).unwrap();
        self.sequencer.append(&schema, made.origin, made.ops, made.batch).unwrap();
    }

    /// Appends events of the registry.
    fn registry(&self, at: u64, events: &[(Option<u32>, ModelChange)]) {
        for (ordinal, (version, change)) in events.iter().enumerate() {
            let event = ModelEvent {
                pipeline: "fraud".into(),
                version: *version,
                at: LogTime(at),
                actor: Actor::Platform,
                reason: "test".into(),
                change: change.clone(),
            };
            let key = format!("{at} {version:?} {ordinal}").into_bytes();
            self.derive(registry::TOPIC, at, &[key], vec![registry::encode(&event).unwrap()]);
        }
    }

    /// The first version serves from just before the first window on.
    fn begin(&mut self) {
        // `T` follows the events; this one is older than the registry, and no concern of the watch.
        let row = vec![
            ("payment", text("older")),
            ("paid_at", moment(LogTime(START_US - 100))),
            ("customer", text("c0")),
            ("fraud", Value::Bool(false)),
            ("amount", Value::Float64(1.0)),
            ("channel", text("pos")),
        ];
        self.label(START_US - 100, vec![(Op::Upsert, row)]);
        self.promote(START_US - 100, 1, None);
    }

    fn promote(&self, at: u64, version: u32, replaced: Option<u32>) {
        let model =
            TrainedModel { artifact_sha256: format!("{version:064x}"), ..Default::default() };
        let evidence = PromotionEvidence { ready: true, shadow_predictions: 0 };
        let rules = ModelChange::RulesDeclared { rules: Default::default() };
        self.registry(at, &[(None, rules)]);
        let version = Some(version);
        self.registry(
            at,
            &[
                (version, requested("manual")),
                (version, ModelChange::TrainingStarted { attempt: 1, hardware: "cpu".into() }),
                (version, ModelChange::Trained { model }),
                (version, ModelChange::Validated { report: GateReport::default() }),
                (version, ModelChange::ShadowStarted {}),
                (version, ModelChange::Promoted { replaced, evidence }),
            ],
        );
    }

    /// Labels, which move `T`.
    fn label(&mut self, known_at: u64, labels: Vec<(Op, Row<'_>)>) {
        let schema = self.schema("outcomes_known");
        let (ops, mut all): (Vec<Op>, Vec<Row<'_>>) = labels.into_iter().unzip();
        all.iter_mut().for_each(|row| row.push(("known_at", moment(LogTime(known_at)))));
        let count = all.len() as u64;
        let origin = Origin::Producer {
            producer: ProducerId::from_name("tests"),
            first_sequence: self.sequence,
            sequences: u32::try_from(count).unwrap(),
        };
        self.sequence += count;
        let batch = rows::batch(&schema, all).unwrap();
        let ack = self.sequencer.append(&schema, origin, Ops::Each(ops), batch).unwrap();
        assert!(ack.rejected.is_empty(), "{:?}", ack.rejected);
    }

    fn watch(&self) -> Watch {
        let settings = monitor_settings(&self.catalog.pipelines[0]);
        let reference = Arc::new(reference(&settings));
        let decisions = Arc::clone(&self.decisions);
        Watch::start(WatchParts {
            log: Arc::clone(&self.log) as Arc<dyn Log>,
            reader: Arc::clone(&self.reader),
            sequencer: self.sequencer.clone(),
            catalog: Arc::clone(&self.catalog),
            references: Arc::new(move |_, _, _| Ok(Some(Arc::clone(&reference)))),
            checkpoints: self.checkpoints.clone(),
            decide: Arc::new(move |decision| decisions.lock().unwrap().push(decision)),
        })
        .unwrap()
    }

    /// Waits until the watch has folded everything, its own events included.
    fn settle(&self, watch: &Watch) {
        let deadline = Instant::now() + Duration::from_secs(120);
        let mut calm = 0;
        while calm < 5 {
            assert!(Instant::now() < deadline, "{}", watch.state().status());
            assert_eq!(watch.state().failure(), None);
            let tail = self.log.tail().map_or(0, |tail| tail.record.epoch + 1);
            calm = if watch.state().next_epoch() == tail { calm + 1 } else { 0 };
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Everything on a topic: operations and values without the columns that the cut of epochs moves.
    fn read(&self, topic: &str) -> Vec<(Op, Vec<Value>)> {
        let schema = self.schema(topic);
        let options = ReadOptions {
            topics: Some(BTreeSet::from([schema.id()])),
            pii: PiiMode::Plain,
            verify: true,
            ..ReadOptions::default()
        };
        let reader = self.reader.with_options(options);
        let mut all = Vec::new();
        for events in reader.epochs(0) {
            for part in events.unwrap().topics {
                let found = RowReader::new(&schema, &part.batch).unwrap();
                for row in 0..found.rows() {
                    let columns = schema.columns.iter().filter(|column| column.name != "t");
                    let values = columns.map(|column| found.value(row, &column.name).unwrap());
                    all.push((part.ops[row], values.collect()));
                }
            }
        }
        all
    }

    fn column(&self, topic: &str, name: &str) -> usize {
        let schema = self.schema(topic);
        let all: Vec<&str> = schema.columns.iter().map(|column| column.name.as_str()).collect();
        all.into_iter().filter(|column| *column != "t").position(|column| column == name).unwrap()
    }
}

fn requested(trigger: &str) -> ModelChange {
    let cause = RequestCause { trigger: trigger.into(), windows: Vec::new() };
    ModelChange::Requested { run: format!("a run for {trigger}"), cause }
}

/// One payment: what is known when it is made, how it is scored, and what becomes of it.
struct Payment {
    amount: f64,
    channel: &'static str,
    score: f64,
    fraud: bool,
}

/// Amounts decide; `shifted` moves them, and turns what they mean around.
fn payment(random: &mut Random, shifted: bool) -> Payment {
    let uniform = |random: &mut Random| random.below(1_000_000) as f64 / 1e6;
    let amount = (0..6).map(|_| uniform(random)).sum::<f64>() * 100.0;
    let channel = *random.pick(&["pos", "online", "atm"]);
    let amount = if shifted { amount * 1.3 } else { amount };
    let score = (0.5 + (amount - 300.0) / 150.0).clamp(0.02, 0.98);
    let fraud = uniform(random) < score;
    Payment { amount, channel, score, fraud: fraud != (shifted && random.chance(60)) }
}

fn reference(settings: &falaj_monitor::MonitorSettings) -> ReferenceSet {
    let mut rows = ReferenceRows::new(settings);
    let mut random = Random::new(1);
    for row in 0..4_000_u64 {
        let made = payment(&mut random, false);
        let inputs = [Value::Float64(made.amount), Value::String(made.channel.into())];
        rows.add(LogTime(row * MINUTE_US / PER_WINDOW), &inputs).unwrap();
        rows.add_held_out(HeldOut {
            score: made.score,
            scores: Arc::from([]),
            predicted: (made.score >= 0.5).to_string().into(),
            actual: Actual::Class(made.fraud.to_string()),
        });
    }
    ReferenceSet::from_rows(settings, &rows).unwrap()
}

/// Plays windows: predictions in steps, each step's labels with the next one. From window `turn` on
/// the world has shifted. Returns the number of payments made.
fn play(world: &mut World, windows: std::ops::Range<u64>, turn: u64, version: u32) {
    for window in windows {
        for step in 0..PER_WINDOW / STEP {
            let at = START_US + window * MINUTE_US + step * MINUTE_US * STEP / PER_WINDOW;
            let first = window * PER_WINDOW + step * STEP;
            let mut random = Random::new(1_000 + first);
            let made: Vec<Payment> =
                (0..STEP).map(|_| payment(&mut random, window >= turn)).collect();
            let (mut keys, mut predictions, mut labels) = (Vec::new(), Vec::new(), Vec::new());
            for (place, made) in (first..).zip(&made) {
                let id = format!("p{place}");
                let inputs = [Value::Float64(made.amount), Value::String(made.channel.into())];
                let customer = format!("c{}", place % 50);
                keys.push(id.clone().into_bytes());
                predictions.push(vec![
                    ("prediction_id", text(&id)),
                    ("t", moment(LogTime(at))),
                    ("customer", text(&customer)),
                    ("model_version", Value::UInt(version.into())),
                    ("artifact", Value::Binary([0; 32].as_slice().into())),
                    ("served", Value::Bool(true)),
                    ("propensity", Value::Float64(1.0)),
                    ("inputs", Value::Binary(encode_row(&inputs).as_slice().into())),
                    ("inputs_hash", Value::Binary([0; 32].as_slice().into())),
                    ("score", Value::Float64(made.score)),
                    ("predicted", text((made.score >= 0.5).to_string())),
                    ("ack", text("durable")),
                    ("asked_by", text("test")),
                    ("wall_clock", moment(LogTime(at))),
                ]);
                // A third of the labels find their prediction by customer and time.
                let prediction = if place % 3 == 0 { Value::Null } else { text(&id) };
                labels.push((
                    Op::Upsert,
                    vec![
                        ("payment", text(&id)),
                        ("paid_at", moment(LogTime(at))),
                        ("customer", text(&customer)),
                        ("fraud", Value::Bool(made.fraud)),
                        ("amount", Value::Float64(made.amount)),
                        ("channel", text(made.channel)),
                        ("prediction", prediction),
                    ],
                ));
            }
            world.derive("fraud.predictions", at, &keys, predictions);
            world.label(at + MINUTE_US * STEP / PER_WINDOW - 1, labels);
        }
    }
}

/// The drift alarms: window number and subject, of whole windows.
fn alarms(world: &World) -> Vec<(u64, String)> {
    let at = |name: &str| world.column(DRIFT_TOPIC, name);
    let (kind, subject, slice) = (at("kind"), at("subject"), at("slice"));
    let (alarm, start) = (at("alarm"), at("window_start"));
    let mut found = Vec::new();
    for (_, row) in world.read(DRIFT_TOPIC) {
        let is_drift = row[kind] == text("drift") && row[slice] == Value::Null;
        if let (true, Value::Bool(true), Value::String(subject), Value::Timestamp(start)) =
            (is_drift, &row[alarm], &row[subject], &row[start])
        {
            let window = (start.cast_unsigned() - START_US) / MINUTE_US;
            found.push((window, subject.to_string()));
        }
    }
    found.dedup();
    found
}

#[test]
fn outcomes_scores_and_decisions_follow_from_the_log_once() {
    let mut world = World::new();
    let turn = 8;
    world.begin();
    let watch = world.watch();
    play(&mut world, 0..6, turn, 1);
    world.settle(&watch);
    watch.stop().unwrap();
    assert_eq!(*world.decisions.lock().unwrap(), [], "nothing has drifted");
    // While nobody watches, the log goes on.
    play(&mut world, 6..7, turn, 1);
    let watch = world.watch();
    play(&mut world, 7..13, turn, 1);
    world.settle(&watch);
    watch.stop().unwrap();

    // One outcome per payment whose time has come, as the label says.
    let outcomes = world.read("fraud.outcomes");
    let id = world.column("fraud.outcomes", "prediction_id");
    let by_id: BTreeMap<String, Vec<Value>> =
        outcomes.iter().map(|(_, row)| (format!("{:?}", row[id]), row.clone())).collect();
    assert_eq!(by_id.len(), outcomes.len(), "an outcome was written twice");
    let payments = 13 * PER_WINDOW;
    let open = payments.checked_sub(outcomes.len() as u64).expect("more outcomes than payments");
    // Labels without an id wait until their time has passed.
    assert!(open <= PER_WINDOW, "{open} payments without an outcome");
    let (actual, correct) =
        (world.column("fraud.outcomes", "actual"), world.column("fraud.outcomes", "correct"));
    let predicted = world.column("fraud.outcomes", "predicted");
    for (op, row) in &outcomes {
        assert_eq!(*op, Op::Upsert);
        assert_eq!(row[correct], Value::Int((row[actual] == row[predicted]).into()));
    }

    // The drift is where it began, and nowhere before.
    let found = alarms(&world);
    let first = found.first().unwrap_or_else(|| panic!("no drift was found")).clone();
    assert_eq!(first.0, turn, "{found:?}");
    assert!(found.iter().any(|(window, subject)| *window == turn && subject == "amount"));
    assert!(found.iter().any(|(window, subject)| *window == turn && subject == "inputs"));
    let later = (first.0 - turn + 1) * PER_WINDOW;
    println!("drift detected {later} predictions after it began, at the close of a window");

    // What was decided: one run, and the version taken out when its accuracy fell.
    let decisions = world.decisions.lock().unwrap().clone();
    let fired: Vec<_> = decisions
        .iter()
        .filter_map(|decision| match decision {
            Decision::Fire { firing, .. } => Some(firing.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(fired.len(), 1, "{decisions:?}");
    let begun = i64::try_from(START_US + turn * MINUTE_US).unwrap();
    assert!(fired[0].windows.iter().all(|window| window.to > begun), "{fired:?}");
    let out = decisions.iter().filter(|one| matches!(one, Decision::RollBack { version: 1, .. }));
    assert_eq!(out.count(), 1, "{decisions:?}");

    // A fold from the start appends nothing, and asks again for what nobody has answered.
    let before = (world.read("fraud.outcomes"), world.read(DRIFT_TOPIC));
    let epochs = world.log.tail().unwrap().record.epoch;
    world.decisions.lock().unwrap().clear();
    let watch = world.watch();
    world.settle(&watch);
    watch.stop().unwrap();
    assert_eq!(world.log.tail().unwrap().record.epoch, epochs, "something was appended again");
    assert_eq!((world.read("fraud.outcomes"), world.read(DRIFT_TOPIC)), before);
    let asked = world.decisions.lock().unwrap().clone();
    let is_answered =
        |one: &&Decision| matches!(one, Decision::Fire { .. } | Decision::RollBack { .. });
    assert_eq!(asked.iter().filter(is_answered).count(), 2, "{asked:?}");
    assert!(asked.contains(&Decision::Fire { pipeline: "fraud".into(), firing: fired[0].clone() }));

    // Once the registry has answered, nobody is asked any more.
    let now = world.log.tail().unwrap().record.t.0;
    world.registry(now, &[(Some(2), requested(&fired[0].trigger))]);
    world.decisions.lock().unwrap().clear();
    let watch = world.watch();
    world.settle(&watch);
    watch.stop().unwrap();
    let asked = world.decisions.lock().unwrap().clone();
    assert!(!asked.iter().any(|one| matches!(one, Decision::Fire { .. })), "{asked:?}");

    // One uninterrupted watch over the same payments says the same.
    let mut other = World::new();
    other.begin();
    play(&mut other, 0..13, turn, 1);
    let watch = other.watch();
    other.settle(&watch);
    watch.stop().unwrap();
    let sorted = |mut rows: Vec<(Op, Vec<Value>)>| {
        rows.sort_by_key(|(op, row)| (*op, encode_row(row)));
        rows
    };
    assert_eq!(sorted(other.read("fraud.outcomes")), sorted(before.0));
    let drift = |rows: Vec<(Op, Vec<Value>)>, world: &World| {
        let (kind, start) =
            (world.column(DRIFT_TOPIC, "kind"), world.column(DRIFT_TOPIC, "window_start"));
        // A detector's window is bounded by the `T`s of single epochs, which the derived events move.
        let rows = rows.into_iter().filter(|(_, row)| row[kind] != text("detector"));
        let mut rows: Vec<_> = rows.map(|(_, row)| row).collect();
        rows.sort_by_key(|row| (encode_row([&row[start]]), encode_row(row)));
        rows
    };
    assert_eq!(drift(other.read(DRIFT_TOPIC), &other), drift(before.1, &world));
}

#[test]
fn corrections_rewrite_outcomes_and_withdrawals_remove_them() {
    let mut world = World::new();
    world.begin();
    let watch = world.watch();
    play(&mut world, 0..2, 9, 1);
    world.settle(&watch);
    let outcomes = world.read("fraud.outcomes");
    let at = |name: &str| world.column("fraud.outcomes", name);
    let (id, actual) = (at("prediction_id"), at("actual"));
    let of = |rows: &[(Op, Vec<Value>)], name: &str| {
        let found = rows.iter().rev().find(|(_, row)| row[id] == text(name));
        found.map(|(op, row)| (*op, row[actual].clone()))
    };
    let Some((Op::Upsert, Value::Bool(before))) = of(&outcomes, "p1") else {
        panic!("{:?}", of(&outcomes, "p1"));
    };
    let later = START_US + 3 * MINUTE_US;
    let row = |id: &str, fraud: Value| {
        vec![
            ("payment", text(id)),
            ("paid_at", moment(LogTime(START_US))),
            ("customer", text("c1")),
            ("fraud", fraud),
            ("amount", Value::Float64(1.0)),
            ("channel", text("pos")),
            ("prediction", text(id)),
        ]
    };
    world.label(later, vec![(Op::Upsert, row("p1", Value::Bool(!before)))]);
    world.label(later + 1, vec![(Op::Upsert, row("p2", Value::Null))]);
    world.label(later + 2, vec![(Op::Delete, vec![("payment", text("p4"))])]);
    world.settle(&watch);
    let outcomes = world.read("fraud.outcomes");
    assert_eq!(of(&outcomes, "p1"), Some((Op::Upsert, Value::Bool(!before))));
    assert_eq!(of(&outcomes, "p2").map(|(op, _)| op), Some(Op::Delete));
    assert_eq!(of(&outcomes, "p4").map(|(op, _)| op), Some(Op::Delete));
    let status = watch.state().status();
    assert_eq!(status["failure"], serde_json::Value::Null, "{status}");
    watch.stop().unwrap();
}

/// A watch that is stopped and goes on from what it wrote down says what one does that folds everything
/// anew, and reads no more of the log than it must; what does not fit is left alone.
#[test]
fn a_restart_goes_on_from_the_checkpoint_and_comes_to_the_same() {
    let turn = 4;
    let mut whole = World::new();
    whole.begin();
    play(&mut whole, 0..8, turn, 1);
    let watch = whole.watch();
    whole.settle(&watch);
    watch.stop().unwrap();

    let mut world = World::new();
    let folder = world.keys.path().join("watch");
    let hash = world.catalog.hash;
    world.checkpoints = Some(Checkpoints::new(&folder, hash));
    world.begin();
    let from = |watch: &Watch| watch.state().status()["from_epoch"].as_u64().unwrap();
    let mut reached = 0;
    for windows in [0..2, 2..5, 5..6, 6..8] {
        let watch = world.watch();
        assert!(from(&watch) >= reached, "epochs were folded again");
        play(&mut world, windows, turn, 1);
        world.settle(&watch);
        reached = watch.state().next_epoch();
        watch.stop().unwrap();
    }
    let sorted = |mut rows: Vec<(Op, Vec<Value>)>| {
        rows.sort_by_key(|(op, row)| (*op, encode_row(row)));
        rows
    };
    let read = |world: &World, topic: &str| sorted(world.read(topic));
    assert_eq!(read(&world, "fraud.outcomes"), read(&whole, "fraud.outcomes"));
    let fired = |world: &World| {
        let decisions = world.decisions.lock().unwrap();
        let of = |one: &Decision| match one {
            Decision::Fire { firing, .. } => Some(firing.trigger.clone()),
            _ => None,
        };
        // What nobody has answered is asked for again at every start.
        decisions.iter().filter_map(of).collect::<BTreeSet<_>>()
    };
    assert_eq!(fired(&world), fired(&whole));
    assert!(!fired(&world).is_empty());
    let alarms = |world: &World| alarms(world).into_iter().collect::<BTreeSet<_>>();
    assert_eq!(alarms(&world), alarms(&whole));

    // Damaged, of other definitions, or of another log: the fold begins anew, and appends nothing.
    let epochs = world.log.tail().unwrap().record.epoch;
    let file = folder.join("watch.checkpoint");
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let watch = world.watch();
    assert!(from(&watch) < reached);
    world.settle(&watch);
    watch.stop().unwrap();
    let watch = world.watch();
    assert_eq!(from(&watch), world.log.tail().unwrap().record.epoch + 1, "written down again");
    watch.stop().unwrap();
    world.checkpoints = Some(Checkpoints::new(&folder, Hash256::default()));
    let watch = world.watch();
    assert!(from(&watch) < reached);
    world.settle(&watch);
    drop(watch);
    let mut stranger = World::new();
    stranger.begin();
    stranger.checkpoints = Some(Checkpoints::new(&folder, Hash256::default()));
    let watch = stranger.watch();
    assert!(from(&watch) < reached);
    stranger.settle(&watch);
    watch.stop().unwrap();
    assert_eq!(world.log.tail().unwrap().record.epoch, epochs, "something was appended again");
}
