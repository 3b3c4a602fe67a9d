//! Guardrails: hysteresis, silence without data, rollback while young, replay.

use proptest::prelude::*;

use super::*;

const PROMOTED: LogTime = LogTime(1_000);

fn rule() -> GuardrailRule {
    GuardrailRule {
        name: "errors".to_owned(),
        figure: "error_rate".to_owned(),
        minimum: None,
        maximum: Some(0.02),
        minimum_support: 10,
        break_after: 2,
        mend_after: 2,
        rollback_within_us: Some(500),
    }
}

fn window(from: i64, value: Option<f64>, support: u64) -> GuardrailWindow {
    GuardrailWindow {
        window: WindowRef { series: "errors".to_owned(), from, to: from + 100 },
        version: 7,
        figure: "error_rate".to_owned(),
        value,
        support,
        at: LogTime(u64::try_from(from).unwrap() + 100),
    }
}

fn observe(state: &mut GuardrailState, window: &GuardrailWindow) -> Vec<GuardrailDecision> {
    state.observe(&[rule()], PROMOTED, window)
}

#[test]
fn a_break_while_young_rolls_back_and_cites_its_windows() {
    let mut state = GuardrailState::default();
    assert_eq!(observe(&mut state, &window(1_000, Some(0.05), 50)), []);
    assert_eq!(observe(&mut state, &window(1_100, None, 50)), []);
    assert_eq!(observe(&mut state, &window(1_200, Some(0.9), 9)), []);
    let decisions = observe(&mut state, &window(1_300, Some(0.06), 50));
    let [GuardrailDecision::RollBack { version: 7, breach }] = decisions.as_slice() else {
        panic!("{decisions:?}")
    };
    let cited: Vec<_> = breach.windows.iter().map(|window| window.from).collect();
    assert_eq!(cited, [1_000, 1_300]);
    let text = "guardrail errors broke: error_rate = 0.06, not at most 0.02, 2 windows in a row";
    assert_eq!(breach.to_string(), text);
    assert_eq!(state.broken(7).collect::<Vec<_>>(), ["errors"]);
    assert_eq!(observe(&mut state, &window(1_400, Some(0.07), 50)), []);
    state.forget(7);
    assert_eq!(state, GuardrailState::default());
}

#[test]
fn a_break_in_age_is_reported_and_mends() {
    let mut state = GuardrailState::default();
    observe(&mut state, &window(5_000, Some(0.05), 50));
    let decisions = observe(&mut state, &window(5_100, Some(f64::NAN), 50));
    assert!(matches!(decisions.as_slice(), [GuardrailDecision::Report { version: 7, .. }]));
    assert_eq!(observe(&mut state, &window(5_200, Some(0.0), 50)), []);
    let mended = GuardrailDecision::Mended { version: 7, guardrail: "errors".to_owned() };
    assert_eq!(observe(&mut state, &window(5_300, Some(0.0), 50)), [mended]);
}

#[test]
fn windows_from_before_the_promotion_are_another_versions() {
    let mut state = GuardrailState::default();
    for from in [900, 999] {
        assert_eq!(observe(&mut state, &window(from, Some(1.0), 50)), []);
    }
    assert_eq!(state, GuardrailState::default());
}

proptest! {
    /// Breaks and mends alternate, each no sooner than its number of windows.
    #[test]
    fn guardrails_do_not_flap(values in prop::collection::vec(0.0_f64..0.04, 1..200)) {
        let mut state = GuardrailState::default();
        let (mut broken, mut since) = (false, 0);
        for (index, value) in (0_i64..).zip(values) {
            since += 1;
            for decision in observe(&mut state, &window(1_000 + index, Some(value), 50)) {
                let breaks = !matches!(decision, GuardrailDecision::Mended { .. });
                prop_assert_ne!(breaks, broken);
                prop_assert!(since >= 2);
                (broken, since) = (breaks, 0);
            }
        }
        let text = serde_json::to_string(&state).unwrap();
        prop_assert_eq!(serde_json::from_str::<GuardrailState>(&text).unwrap(), state);
    }
}
