//! The joiner against cases worked out by hand and against a naive join of everything.

use proptest::prelude::*;

use super::*;

const RULE: JoinRule = JoinRule { within_us: 10, delay_us: 100 };

fn prediction(id: &str, key: &str, t: u64, version: u32) -> Prediction {
    Prediction {
        id: id.into(),
        key: key.as_bytes().into(),
        t: LogTime(t),
        version,
        served: version == 1,
        score: 0.5,
        scores: Arc::from([]),
        predicted: "a".into(),
        inputs: Arc::from([]),
        keys: Arc::from([]),
    }
}

fn label(name: &str, id: Option<&str>, key: &str, observed_at: u64) -> Label {
    Label {
        name: name.as_bytes().into(),
        op: Op::Insert,
        prediction_id: id.map(Into::into),
        key: key.as_bytes().into(),
        observed_at: LogTime(observed_at),
        row: Arc::from([]),
    }
}

fn told(joined: &[Joined]) -> Vec<(Op, String, u32, String)> {
    joined
        .iter()
        .map(|one| {
            let name = String::from_utf8_lossy(&one.label.name).into_owned();
            (one.op, one.prediction.id.to_string(), one.prediction.version, name)
        })
        .collect()
}

fn upsert(id: &str, version: u32, name: &str) -> (Op, String, u32, String) {
    (Op::Upsert, id.into(), version, name.into())
}

#[test]
fn a_label_with_an_id_judges_served_and_shadow_predictions_at_once() {
    let mut joiner = Joiner::new(RULE);
    let made = [prediction("p", "k", 5, 1), prediction("p", "k", 5, 2)];
    assert!(joiner.epoch(LogTime(6), made, []).is_empty());
    let out = joiner.epoch(LogTime(50), [], [label("l", Some("p"), "k", 5)]);
    assert_eq!(told(&out), [upsert("p", 1, "l"), upsert("p", 2, "l")]);
}

#[test]
fn a_label_that_comes_first_waits_for_its_prediction() {
    let mut joiner = Joiner::new(RULE);
    assert!(joiner.epoch(LogTime(1), [], [label("l", Some("p"), "k", 1)]).is_empty());
    assert_eq!(joiner.waiting_labels(), 1);
    let out = joiner.epoch(LogTime(2), [prediction("p", "k", 2, 1)], []);
    assert_eq!(told(&out), [upsert("p", 1, "l")]);
}

#[test]
fn by_key_the_nearest_is_judged_once_no_nearer_one_can_come() {
    let mut joiner = Joiner::new(RULE);
    joiner.epoch(LogTime(21), [prediction("a", "k", 15, 1), prediction("x", "other", 20, 1)], []);
    assert!(joiner.epoch(LogTime(25), [], [label("l", None, "k", 20)]).is_empty());
    assert!(joiner.epoch(LogTime(26), [prediction("b", "k", 22, 1)], []).is_empty());
    assert!(joiner.epoch(LogTime(30), [], []).is_empty());
    assert_eq!(told(&joiner.epoch(LogTime(31), [], [])), [upsert("b", 1, "l")]);
}

#[test]
fn of_two_as_near_the_later_is_judged() {
    let mut joiner = Joiner::new(RULE);
    joiner.epoch(LogTime(30), [prediction("a", "k", 18, 1), prediction("b", "k", 22, 1)], []);
    let out = joiner.epoch(LogTime(40), [], [label("l", None, "k", 20)]);
    assert_eq!(told(&out), [upsert("b", 1, "l")]);
}

#[test]
fn corrections_judge_again_and_deletions_take_back() {
    let mut joiner = Joiner::new(RULE);
    joiner.epoch(LogTime(6), [prediction("p", "k", 5, 1), prediction("q", "k", 5, 1)], []);
    joiner.epoch(LogTime(7), [], [label("l", Some("p"), "k", 5)]);
    let moved = joiner.epoch(LogTime(8), [], [label("l", Some("q"), "k", 5)]);
    assert_eq!(told(&moved), [(Op::Delete, "p".into(), 1, "l".into()), upsert("q", 1, "l")]);
    let gone = Label { op: Op::Delete, ..label("l", None, "k", 5) };
    let out = joiner.epoch(LogTime(9), [], [gone]);
    assert_eq!(told(&out), [(Op::Delete, "q".into(), 1, "l".into())]);
}

#[test]
fn of_two_labels_the_newest_holds() {
    let mut joiner = Joiner::new(RULE);
    joiner.epoch(LogTime(6), [prediction("p", "k", 5, 1)], []);
    joiner.epoch(LogTime(7), [], [label("one", Some("p"), "k", 5)]);
    let out = joiner.epoch(LogTime(8), [], [label("two", Some("p"), "k", 5)]);
    assert_eq!(told(&out), [upsert("p", 1, "two")]);
    let gone = Label { op: Op::Delete, ..label("one", None, "k", 5) };
    assert!(joiner.epoch(LogTime(9), [], [gone]).is_empty(), "the other label still holds");
}

#[test]
fn what_is_too_old_is_forgotten() {
    let mut joiner = Joiner::new(RULE);
    joiner.epoch(LogTime(5), [prediction("p", "k", 5, 1)], [label("w", Some("never"), "k", 5)]);
    joiner.epoch(LogTime(115), [], []);
    assert_eq!((joiner.open_predictions(), joiner.waiting_labels()), (1, 1));
    joiner.epoch(LogTime(116), [], []);
    assert_eq!((joiner.open_predictions(), joiner.waiting_labels()), (0, 0));
    assert!(joiner.epoch(LogTime(117), [], [label("l", Some("p"), "k", 5)]).is_empty());
    assert!(joiner.by_id.is_empty() && joiner.by_key.is_empty() && joiner.expiry.is_empty());
    assert!(joiner.labels_by_id.is_empty() && joiner.label_expiry.is_empty());
}

/// Ids by the naive rule: every label against every prediction.
fn naive(
    predictions: &[Prediction],
    labels: &[Label],
    end: u64,
) -> BTreeMap<(String, u32), String> {
    let mut held = BTreeMap::new();
    let mut ordered: Vec<(u64, &Label)> = labels
        .iter()
        .map(|label| {
            let settled = label.observed_at.0 + RULE.within_us + 1;
            (if label.prediction_id.is_some() { label.observed_at.0 } else { settled }, label)
        })
        .collect();
    ordered.retain(|(at, _)| *at <= end);
    // Judgements in the order in which they become known; labels here arrive at `observed_at`.
    let mut events: Vec<(u64, u8, usize, Vec<&Prediction>, &Label)> = Vec::new();
    for (number, (at, label)) in ordered.iter().enumerate() {
        match &label.prediction_id {
            Some(id) => {
                for one in predictions.iter().filter(|one| one.id == *id) {
                    let known = one.t.0.max(*at);
                    let place = if one.t.0 > *at { 0 } else { 1 };
                    events.push((known, place, number, vec![one], label));
                }
            }
            None => {
                let mut versions: BTreeMap<u32, &Prediction> = BTreeMap::new();
                for one in predictions.iter().filter(|one| one.key == label.key) {
                    let distance = one.t.0.abs_diff(label.observed_at.0);
                    if distance > RULE.within_us {
                        continue;
                    }
                    let best = versions.entry(one.version).or_insert(one);
                    let held = best.t.0.abs_diff(label.observed_at.0);
                    if distance < held || (distance == held && one.t >= best.t) {
                        *best = one;
                    }
                }
                events.push((*at, 2, number, versions.into_values().collect(), label));
            }
        }
    }
    events.sort_by_key(|(at, place, number, ..)| (*at, *place, *number));
    for (at, _, _, found, label) in events {
        if at > end {
            continue;
        }
        for one in found {
            let name = String::from_utf8_lossy(&label.name).into_owned();
            held.insert((one.id.to_string(), one.version), name);
        }
    }
    held
}

proptest! {
    /// One epoch per microsecond; ids are unique per (id, version), every event arrives at its time. At
    /// some moment the fold is written down and read back.
    #[test]
    fn the_fold_equals_the_naive_join(
        made in proptest::collection::btree_map((0_u64..60, 0_u32..2), 0_u8..3, 0..25),
        labels in proptest::collection::vec((0_u64..60, 0_u8..3, any::<bool>(), 0_u64..60), 0..12),
        stop in 0_u64..90,
    ) {
        let predictions: Vec<Prediction> = made
            .iter()
            .map(|((t, version), key)| prediction(&format!("p{t}"), &format!("k{key}"), *t, *version))
            .collect();
        let mut labels: Vec<Label> = labels
            .iter()
            .enumerate()
            .map(|(number, (at, key, by_id, of))| {
                let id = format!("p{of}");
                label(&format!("l{number}"), by_id.then_some(id.as_str()), &format!("k{key}"), *at)
            })
            .collect();
        labels.sort_by_key(|label| label.observed_at);
        let mut joiner = Joiner::new(JoinRule { delay_us: 1_000, ..RULE });
        let mut held = BTreeMap::new();
        for t in 0..90 {
            let now = LogTime(t);
            if t == stop {
                let mut bytes = Vec::new();
                joiner.save(&mut bytes);
                joiner = Joiner::restore(joiner.rule, &mut bytes.as_slice()).unwrap();
                let mut again = Vec::new();
                joiner.save(&mut again);
                prop_assert_eq!(again, bytes);
            }
            let made = predictions.iter().filter(|one| one.t == now).cloned();
            let came = labels.iter().filter(|one| one.observed_at == now).cloned();
            for one in joiner.epoch(now, made, came) {
                let name = String::from_utf8_lossy(&one.label.name).into_owned();
                held.insert((one.prediction.id.to_string(), one.prediction.version), name);
            }
        }
        prop_assert_eq!(held, naive(&predictions, &labels, 89));
    }
}
