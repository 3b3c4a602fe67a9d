//! Triggers: each condition, hysteresis, cool-down, one run in flight, replay.

use proptest::prelude::*;

use super::*;

const PIPELINE: &str = "fraud";

fn rule(name: &str, condition: TriggerCondition) -> TriggerRule {
    TriggerRule {
        name: name.to_owned(),
        condition,
        fire_after: 1,
        clear_after: 1,
        cooldown_us: 0,
        repeat_after_us: None,
    }
}

fn auc_floor() -> TriggerRule {
    let condition = TriggerCondition::Metric {
        metric: "auc".to_owned(),
        minimum: Some(0.7),
        maximum: None,
        margin: 0.02,
        minimum_support: 10,
    };
    TriggerRule { fire_after: 2, clear_after: 2, ..rule("auc", condition) }
}

fn window(from: EventTime) -> WindowRef {
    WindowRef { series: "hourly".to_owned(), from, to: from + 10 }
}

fn auc(from: EventTime, value: f64) -> Observation {
    let (metric, value) = ("auc".to_owned(), Some(value));
    Observation::Metric { window: window(from), metric, value, support: 50 }
}

fn drift(from: EventTime, alarmed: &[&str]) -> Observation {
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
    let watched = names(&["a", "b", "c", "d"]);
    Observation::Drift { window: window(from), watched, alarmed: names(alarmed) }
}

fn ended(run: &str, succeeded: bool, at: EventTime) -> Observation {
    Observation::RunEnded { run: run.to_owned(), succeeded, at }
}

struct Bench {
    rules: Vec<TriggerRule>,
    state: TriggerState,
}

impl Bench {
    fn new(rules: &[TriggerRule]) -> Self {
        Self { rules: rules.to_vec(), state: TriggerState::default() }
    }

    fn see(&mut self, observation: &Observation) -> Vec<TriggerDecision> {
        self.state.observe(PIPELINE, &self.rules, observation)
    }

    fn firing(&mut self, observation: &Observation) -> Firing {
        let decisions = self.see(observation);
        let [TriggerDecision::Fire(firing)] = decisions.as_slice() else { panic!("{decisions:?}") };
        firing.clone()
    }
}

#[test]
fn a_metric_below_its_floor_fires_after_enough_windows_and_cites_them() {
    let mut bench = Bench::new(&[auc_floor()]);
    assert_eq!(bench.see(&auc(0, 0.6)), []);
    assert_eq!(bench.see(&auc(10, 0.705)), []);
    assert_eq!(bench.see(&auc(20, 0.69)), []);
    let firing = bench.firing(&auc(30, 0.65));
    assert_eq!(firing.windows, [window(20), window(30)]);
    assert_eq!((firing.at, firing.run.as_str()), (40, "fraud.auc.40"));
    assert_eq!(firing.reason, "auc = 0.65 is below 0.7");
    assert_eq!(firing.actor, Actor::Rule("auc".to_owned()));
    assert_eq!(bench.state.in_flight(), Some("fraud.auc.40"));
    let small = Observation::Metric {
        window: window(40),
        metric: "auc".to_owned(),
        value: Some(0.1),
        support: 9,
    };
    assert_eq!(bench.see(&small), []);
}

#[test]
fn a_fired_trigger_stays_silent_until_calm() {
    let mut bench = Bench::new(&[auc_floor()]);
    bench.see(&auc(0, 0.6));
    bench.firing(&auc(10, 0.6));
    bench.see(&ended("another", true, 15));
    assert_eq!(bench.state.in_flight(), Some("fraud.auc.20"));
    for from in [20, 30, 40] {
        assert_eq!(bench.see(&auc(from, 0.6)), []);
    }
    assert_eq!(bench.see(&auc(50, 0.8)), []);
    // Above the floor but within the margin: neither calm nor alarm.
    assert_eq!(bench.see(&auc(60, 0.71)), []);
    assert_eq!(bench.see(&auc(70, 0.8)), []);
    let cleared = TriggerDecision::Cleared { trigger: "auc".to_owned(), at: 90 };
    assert_eq!(bench.see(&auc(80, 0.8)), [cleared]);
}

#[test]
fn one_run_in_flight_and_a_suppression_is_said_once() {
    let mut bench = Bench::new(&[TriggerRule { cooldown_us: 100, ..auc_floor() }]);
    bench.see(&Observation::RunStarted { run: "other".to_owned(), at: 0 });
    bench.see(&auc(0, 0.6));
    let suppressed = bench.see(&auc(10, 0.6));
    let why = Suppression::RunInFlight { run: "other".to_owned() };
    let windows = vec![window(0), window(10)];
    let trigger = "auc".to_owned();
    assert_eq!(suppressed, [TriggerDecision::Suppressed { trigger, at: 20, windows, why }]);
    assert_eq!(bench.see(&auc(20, 0.6)), []);
    bench.see(&ended("other", false, 30));
    let firing = bench.firing(&auc(30, 0.6));
    assert_eq!(firing.windows, [window(20), window(30)]);
    bench.see(&ended(&firing.run, false, 50));
    // The failed run lifts the latch; the cool-down still holds.
    bench.see(&auc(50, 0.6));
    let decisions = bench.see(&auc(60, 0.6));
    let [TriggerDecision::Suppressed { why, .. }] = decisions.as_slice() else {
        panic!("{decisions:?}")
    };
    assert_eq!(*why, Suppression::CoolDown { until: 140 });
    assert_eq!(bench.firing(&auc(130, 0.6)).at, 140);
}

#[test]
fn success_starts_afresh() {
    let mut bench = Bench::new(&[auc_floor()]);
    bench.see(&auc(0, 0.6));
    let run = bench.firing(&auc(10, 0.6)).run;
    bench.see(&auc(20, 0.6));
    bench.see(&ended(&run, true, 30));
    assert_eq!(bench.state.in_flight(), None);
    assert_eq!(bench.see(&auc(30, 0.6)), []);
    bench.firing(&auc(40, 0.6));
}

#[test]
fn drift_counts_the_share_of_columns() {
    let share = |minimum_share, calm_share, columns: &[&str]| TriggerCondition::Drift {
        minimum_share,
        calm_share,
        columns: columns.iter().map(|name| (*name).to_owned()).collect(),
    };
    let mut bench = Bench::new(&[rule("drift", share(0.5, Some(0.2), &[]))]);
    assert_eq!(bench.see(&drift(0, &["a"])), []);
    let firing = bench.firing(&drift(10, &["a", "c"]));
    assert_eq!(firing.reason, "2 of 4 columns drifted: a, c");
    assert_eq!(bench.see(&drift(20, &["a"])), []);
    assert_eq!(bench.see(&drift(30, &[])).len(), 1);
    let mut bench = Bench::new(&[rule("drift", share(1.0, None, &["b"]))]);
    assert_eq!(bench.see(&drift(0, &["a", "c", "d"])), []);
    assert_eq!(bench.firing(&drift(10, &["b"])).reason, "1 of 1 columns drifted: b");
    // A share of 0 still asks for one column.
    let mut bench = Bench::new(&[rule("drift", share(0.0, None, &[]))]);
    assert_eq!(bench.see(&drift(0, &[])), []);
}

#[test]
fn labels_are_counted_since_the_last_run() {
    let labels = |count, at| Observation::Labels { count, at };
    let condition = TriggerCondition::Labels { count: 100 };
    let mut bench = Bench::new(&[rule("labels", condition)]);
    assert_eq!(bench.see(&labels(60, 5)), []);
    let firing = bench.firing(&labels(40, 9));
    let cited = WindowRef { series: "labels".to_owned(), from: 5, to: 10 };
    assert_eq!(firing.windows, [cited]);
    assert_eq!(bench.see(&labels(99, 11)), []);
    let suppressed = bench.see(&labels(1, 12));
    assert!(matches!(suppressed.as_slice(), [TriggerDecision::Suppressed { .. }]));
    bench.see(&ended(&firing.run, true, 13));
    // The count stands; the next observation of any kind fires.
    bench.firing(&Observation::Time { at: 14 });
    let manual = Observation::Manual {
        actor: Actor::Person("amal".to_owned()),
        reason: "new column".to_owned(),
        at: 15,
    };
    assert!(matches!(bench.see(&manual).as_slice(), [TriggerDecision::Suppressed { .. }]));
    let run = bench.state.in_flight().unwrap().to_owned();
    bench.see(&ended(&run, true, 16));
    bench.see(&labels(70, 17));
    let firing = bench.firing(&manual);
    assert_eq!((firing.trigger.as_str(), firing.reason.as_str()), ("manual", "new column"));
    bench.see(&ended(&firing.run, true, 18));
    assert_eq!(bench.see(&labels(99, 19)), [], "a manual run reads all labels as well");
}

#[test]
fn a_schedule_counts_from_the_last_run_and_before_it_from_the_declaration() {
    let condition = TriggerCondition::Schedule { every_us: 100 };
    let mut bench = Bench::new(&[rule("nightly", condition)]);
    let time = |at| Observation::Time { at };
    assert_eq!(bench.see(&Observation::Declared { at: 1_030 }), []);
    // Declared again: nothing is put off.
    assert_eq!(bench.see(&Observation::Declared { at: 1_100 }), []);
    assert_eq!(bench.see(&time(1_129)), []);
    let firing = bench.firing(&time(1_135));
    let scheduled = WindowRef { series: "schedule".to_owned(), from: 1_030, to: 1_130 };
    assert_eq!(firing.windows, [scheduled]);
    // The next is due while the run is in flight: one firing afterwards.
    assert_eq!(bench.see(&time(1_240)).len(), 1);
    assert_eq!(bench.see(&time(1_250)), []);
    bench.see(&ended(&firing.run, true, 1_260));
    let firing = bench.firing(&time(1_270));
    bench.see(&ended(&firing.run, false, 1_280));
    assert_eq!(bench.see(&time(1_369)), []);
    // A run that somebody else asks for puts the next one off.
    let run = "fraud.by-hand".to_owned();
    bench.see(&Observation::RunStarted { run: run.clone(), at: 1_369 });
    bench.see(&ended(&run, true, 1_400));
    assert_eq!(bench.see(&time(1_468)), []);
    bench.firing(&time(1_469));
}

#[test]
fn a_schedule_without_a_declaration_counts_from_the_first_observation() {
    let mut bench = Bench::new(&[rule("nightly", TriggerCondition::Schedule { every_us: 100 })]);
    let time = |at| Observation::Time { at };
    assert_eq!(bench.see(&time(777)), []);
    assert_eq!(bench.see(&time(876)), []);
    bench.firing(&time(877));
}

#[test]
fn rules_read_from_files_and_unknown_words_are_refused() {
    let text = r#"{"name":"d","on":"drift","minimum_share":0.3,"fire_after":3}"#;
    let rule: TriggerRule = serde_json::from_str(text).unwrap();
    assert_eq!((rule.fire_after, rule.clear_after), (3, 1));
    let wrong = r#"{"name":"d","on":"drift","minimum_share":0.3,"fire_afterr":3}"#;
    assert!(serde_json::from_str::<TriggerRule>(wrong).is_err());
}

fn any_observation() -> impl Strategy<Value = Observation> {
    let at = -50_i64..2_000;
    prop_oneof![
        6 => (at.clone(), 0.6_f64..0.8).prop_map(|(from, value)| auc(from, value)),
        3 => (at.clone(), 0_usize..5).prop_map(|(from, count)| {
            drift(from, &["a", "b", "c", "d"][..count])
        }),
        2 => (at.clone(), 1_u64..60).prop_map(|(at, count)| Observation::Labels { count, at }),
        2 => at.clone().prop_map(|at| Observation::Time { at }),
        1 => at.clone().prop_map(|at| Observation::Declared { at }),
        1 => at.clone().prop_map(|at| Observation::Manual {
            actor: Actor::Person("amal".to_owned()),
            reason: String::new(),
            at,
        }),
        2 => (at, any::<bool>()).prop_map(|(at, succeeded)| ended("", succeeded, at)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Never two runs in flight, never two firings of a rule within its cool-down, every firing
    /// cites windows, and state and decisions are the same after a store and a replay.
    #[test]
    fn triggers_keep_their_word(
        observations in prop::collection::vec(any_observation(), 1..150),
        cut in 0_usize..150,
    ) {
        let share = TriggerCondition::Drift {
            minimum_share: 0.5, calm_share: Some(0.25), columns: Vec::new(),
        };
        let rules = [
            TriggerRule { cooldown_us: 60, repeat_after_us: Some(90), ..auc_floor() },
            TriggerRule { cooldown_us: 40, fire_after: 2, ..rule("drift", share) },
            TriggerRule { cooldown_us: 25, ..rule("labels", TriggerCondition::Labels { count: 90 }) },
            rule("schedule", TriggerCondition::Schedule { every_us: 300 }),
        ];
        let mut bench = Bench::new(&rules);
        let mut stored = Bench::new(&rules);
        let mut last: BTreeMap<String, EventTime> = BTreeMap::new();
        for (index, observation) in observations.into_iter().enumerate() {
            let observation = match observation {
                Observation::RunEnded { succeeded, at, .. } => {
                    ended(bench.state.in_flight().unwrap_or(""), succeeded, at)
                }
                other => other,
            };
            let before = bench.state.in_flight().map(ToOwned::to_owned);
            let decisions = bench.see(&observation);
            prop_assert_eq!(&stored.see(&observation), &decisions);
            if index == cut {
                let text = serde_json::to_string(&stored.state).unwrap();
                stored.state = serde_json::from_str(&text).unwrap();
            }
            let fired: Vec<&Firing> = decisions.iter().filter_map(|decision| match decision {
                TriggerDecision::Fire(firing) => Some(firing),
                _ => None,
            }).collect();
            prop_assert!(fired.is_empty() || before.is_none());
            prop_assert!(fired.len() <= 1);
            for firing in fired {
                prop_assert_eq!(bench.state.in_flight(), Some(firing.run.as_str()));
                if firing.trigger == "manual" { continue }
                prop_assert!(!firing.windows.is_empty());
                let rule = rules.iter().find(|rule| rule.name == firing.trigger).unwrap();
                if let Some(earlier) = last.insert(firing.trigger.clone(), firing.at) {
                    prop_assert!(firing.at - earlier >= i64::try_from(rule.cooldown_us).unwrap());
                }
            }
        }
        prop_assert_eq!(stored.state, bench.state);
    }

    /// Without a run that ends, a latched trigger fires again only after enough calm windows.
    #[test]
    fn a_trigger_does_not_flap(values in prop::collection::vec(0.6_f64..0.8, 1..200)) {
        let mut bench = Bench::new(&[auc_floor()]);
        let (mut calm, mut best_calm, mut fired) = (0, 0, false);
        for (index, value) in (0_i64..).zip(values) {
            for decision in bench.see(&auc(index * 10, value)) {
                match decision {
                    TriggerDecision::Fire(_) => {
                        prop_assert!(!fired || best_calm >= 2);
                        (fired, best_calm) = (true, 0);
                        // The run is over at once, but the latch must hold without its end.
                        bench.state.in_flight = None;
                    }
                    TriggerDecision::Cleared { .. } => prop_assert!(fired),
                    TriggerDecision::Suppressed { .. } => {}
                }
            }
            calm = if value >= 0.72 { calm + 1 } else { 0 };
            best_calm = best_calm.max(calm);
        }
    }
}
