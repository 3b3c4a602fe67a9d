//! The registry: the whole way of a version, every refusal, and what holds for any commands.

use proptest::prelude::*;

use super::*;
use crate::gates::{AbsoluteGate, Evidence, GateRules};

const PIPELINE: &str = "fraud";

fn command(actor: &Actor, at: u64, action: Action) -> Command {
    Command {
        pipeline: PIPELINE.to_owned(),
        actor: actor.clone(),
        at: LogTime(at),
        reason: "because".to_owned(),
        action,
    }
}

fn person(name: &str) -> Actor {
    Actor::Person(name.to_owned())
}

/// Decides and applies; the events.
fn act(state: &mut RegistryState, actor: &Actor, at: u64, action: Action) -> Vec<ModelEvent> {
    let events = state.decide(&command(actor, at, action)).unwrap();
    events.iter().for_each(|event| state.apply(event).unwrap());
    events
}

fn refused(state: &RegistryState, actor: &Actor, at: u64, action: Action) -> Refusal {
    state.decide(&command(actor, at, action)).unwrap_err()
}

fn rules() -> PipelineRules {
    let auc = AbsoluteGate { metric: "auc".to_owned(), minimum: Some(0.7), maximum: None };
    PipelineRules {
        gates: GateRules { absolute: vec![auc], ..GateRules::default() },
        approval: ApprovalRules { quorum: 2, self_approval: false },
        promotion: PromotionRules { minimum_shadow_us: 100, minimum_shadow_predictions: 10 },
    }
}

fn report(auc: f64) -> GateReport {
    let metrics = BTreeMap::from([("auc".to_owned(), auc)]);
    rules().gates.evaluate(&Evidence { metrics, ..Evidence::default() })
}

fn request(run: &str) -> Action {
    let cause = RequestCause { trigger: "manual".to_owned(), windows: Vec::new() };
    Action::Request { run: run.to_owned(), cause }
}

fn model() -> TrainedModel {
    TrainedModel { artifact_sha256: "ab".repeat(32), ..TrainedModel::default() }
}

fn warm(shadow_predictions: u64) -> PromotionEvidence {
    PromotionEvidence { ready: true, shadow_predictions }
}

fn declared(rules: PipelineRules) -> RegistryState {
    let mut state = RegistryState::default();
    act(&mut state, &Actor::Platform, 1, Action::Declare { rules });
    state
}

/// Brings the next version to `validated`, from `at` on.
fn validated(state: &mut RegistryState, at: u64) -> VersionNumber {
    let platform = Actor::Platform;
    let events = act(state, &person("amal"), at, request("run"));
    let version = events[0].version.unwrap();
    act(state, &platform, at, Action::StartTraining { version, hardware: "cpu".to_owned() });
    act(state, &platform, at, Action::FinishTraining { version, model: model() });
    act(state, &platform, at, Action::Evaluate { version, report: report(0.9) });
    version
}

/// Brings the next version to `serving` at `at + 100`.
fn serving(state: &mut RegistryState, at: u64) -> VersionNumber {
    let version = validated(state, at);
    act(state, &Actor::Platform, at, Action::Shadow { version });
    act(state, &person("badr"), at, Action::Approve { version });
    act(state, &person("cyra"), at, Action::Approve { version });
    let evidence = warm(10);
    act(state, &Actor::Platform, at + 100, Action::Promote { version, evidence });
    version
}

fn stage(state: &RegistryState, version: VersionNumber) -> Stage {
    state.pipeline(PIPELINE).unwrap().versions[&version].stage
}

#[test]
fn a_version_goes_all_the_way_and_the_past_is_known() {
    let mut state = declared(rules());
    let first = serving(&mut state, 1_000);
    let second = serving(&mut state, 2_000);
    assert_eq!((first, second), (1, 2));
    let pipeline = state.pipeline(PIPELINE).unwrap();
    assert_eq!(pipeline.alias(CHAMPION), Some(2));
    assert_eq!(pipeline.alias(CHALLENGER), None);
    assert_eq!(stage(&state, 1), Stage::Retired);
    let champion_at = |at| pipeline.served_at(LogTime(at)).and_then(|span| span.champion);
    assert_eq!(champion_at(999), None);
    assert_eq!(champion_at(1_100), Some(1));
    assert_eq!(champion_at(2_099), Some(1));
    assert_eq!(champion_at(2_100), Some(2));
    assert_eq!(pipeline.served_at(LogTime(2_050)).unwrap().challenger, Some(2));
    assert_eq!(pipeline.reigns(1).map(|span| span.from.0).collect::<Vec<_>>(), [1_100, 2_000]);
    let approvers: Vec<_> =
        pipeline.versions[&2].approvals.iter().map(|a| a.approver.as_str()).collect();
    assert_eq!(approvers, ["badr", "cyra"]);
    let kinds: Vec<_> = pipeline.history(1).map(|event| event.change.kind()).collect();
    assert_eq!(
        kinds,
        [
            "requested",
            "training_started",
            "trained",
            "validated",
            "shadow_started",
            "approved",
            "approved",
            "promoted",
            "promoted"
        ]
    );
    assert_eq!(pipeline.stage_at(1, LogTime(1_050)), Some(Stage::Shadow));
    assert_eq!(pipeline.stage_at(1, LogTime(999)), None);
}

#[test]
fn a_failed_gate_rejects_and_names_figure_and_rule() {
    let mut state = declared(rules());
    let platform = Actor::Platform;
    let version = act(&mut state, &person("amal"), 5, request("r"))[0].version.unwrap();
    act(&mut state, &platform, 5, Action::StartTraining { version, hardware: String::new() });
    act(&mut state, &platform, 5, Action::FinishTraining { version, model: model() });
    let events = act(&mut state, &platform, 5, Action::Evaluate { version, report: report(0.6) });
    assert_eq!(events[0].change.kind(), "rejected");
    assert!(events[0].reason.contains("auc = 0.6 fails \"at least 0.7\""), "{}", events[0].reason);
    assert_eq!(stage(&state, version), Stage::Rejected);
    let mut forged = events[0].clone();
    forged.change = ModelChange::Validated { report: report(0.6) };
    let mut other = RegistryState::replay(&state.pipeline(PIPELINE).unwrap().events[..4]).unwrap();
    assert!(matches!(other.apply(&forged), Err(Refusal::Malformed { .. })));
}

#[test]
fn one_run_per_pipeline() {
    let mut state = declared(rules());
    act(&mut state, &person("amal"), 5, request("a"));
    let in_flight = Refusal::RunInFlight { version: 1, stage: Stage::Requested };
    assert_eq!(refused(&state, &person("badr"), 6, request("b")), in_flight);
    let error = "cancelled".to_owned();
    act(&mut state, &person("amal"), 7, Action::Fail { version: 1, error });
    assert_eq!(act(&mut state, &person("badr"), 8, request("b"))[0].version, Some(2));
}

#[test]
fn a_run_resumes_with_another_attempt() {
    let mut state = declared(rules());
    act(&mut state, &person("amal"), 5, request("a"));
    for attempt in 1..=3 {
        let start = Action::StartTraining { version: 1, hardware: "cpu".to_owned() };
        let events = act(&mut state, &Actor::Platform, 6, start);
        assert!(
            matches!(events[0].change, ModelChange::TrainingStarted { attempt: found, .. } if found == attempt)
        );
    }
}

#[test]
fn approval_takes_distinct_persons_other_than_the_requester() {
    let mut state = declared(rules());
    let version = validated(&mut state, 10);
    let approve = Action::Approve { version };
    let own = Refusal::SelfApproval("amal".to_owned());
    assert_eq!(refused(&state, &person("amal"), 11, approve.clone()), own);
    let rule = Actor::Rule("gates".to_owned());
    let refusal = refused(&state, &rule, 11, approve.clone());
    assert!(matches!(refusal, Refusal::PersonRequired { .. }), "{refusal}");
    act(&mut state, &person("badr"), 11, approve.clone());
    let twice = Refusal::AlreadyApproved("badr".to_owned());
    assert_eq!(refused(&state, &person("badr"), 12, approve.clone()), twice);
    act(&mut state, &Actor::Platform, 12, Action::Shadow { version });
    let promote = Action::Promote { version, evidence: warm(99) };
    let missing = Refusal::ApprovalMissing { version, have: 1, need: 2 };
    assert_eq!(refused(&state, &Actor::Platform, 500, promote.clone()), missing);
    act(&mut state, &person("cyra"), 13, approve);
    act(&mut state, &person("badr"), 14, Action::WithdrawApproval { version });
    assert_eq!(refused(&state, &Actor::Platform, 500, promote), missing);
}

#[test]
fn promotion_waits_for_shadow_and_readiness() {
    let mut state = declared(PipelineRules { approval: ApprovalRules::default(), ..rules() });
    let version = validated(&mut state, 1_000);
    let promote = |ready, shadow_predictions| Action::Promote {
        version,
        evidence: PromotionEvidence { ready, shadow_predictions },
    };
    let platform = Actor::Platform;
    let early = refused(&state, &platform, 1_001, promote(true, 99));
    let (from, to) = (Stage::Validated, Stage::Serving);
    assert_eq!(early, Refusal::IllegalTransition { version, from, to });
    act(&mut state, &platform, 1_001, Action::Shadow { version });
    assert_eq!(
        refused(&state, &platform, 1_050, promote(true, 99)),
        Refusal::ShadowTooShort { version, have_us: 49, need_us: 100 }
    );
    assert_eq!(
        refused(&state, &platform, 1_200, promote(true, 9)),
        Refusal::ShadowTooFew { version, have: 9, need: 10 }
    );
    let cold = refused(&state, &platform, 1_200, promote(false, 10));
    assert_eq!(cold, Refusal::NotReady(version));
    act(&mut state, &platform, 1_200, promote(true, 10));
    assert_eq!(stage(&state, version), Stage::Serving);
}

#[test]
fn rollback_goes_back_along_the_line_of_champions() {
    let mut state = declared(rules());
    for at in [1_000, 2_000, 3_000] {
        serving(&mut state, at);
    }
    let back = |to| Action::Rollback { to, breach: None, evidence: warm(0) };
    let guard = Actor::Rule("error_rate".to_owned());
    let far = refused(&state, &guard, 4_000, back(Some(1)));
    assert!(matches!(far, Refusal::PersonRequired { .. }), "{far}");
    let events = act(&mut state, &guard, 4_000, back(None));
    assert!(matches!(events[0].change, ModelChange::RolledBack { to: 2, .. }));
    assert_eq!((stage(&state, 2), stage(&state, 3)), (Stage::Serving, Stage::Retired));
    act(&mut state, &guard, 4_001, back(None));
    assert_eq!(state.pipeline(PIPELINE).unwrap().champion, Some(1));
    let end = Refusal::NoPredecessor(PIPELINE.to_owned());
    assert_eq!(refused(&state, &guard, 4_002, back(None)), end);
    // A person may put a version back that was rolled back; the way on is then back to 1.
    act(&mut state, &person("amal"), 4_003, back(Some(3)));
    act(&mut state, &guard, 4_004, back(None));
    assert_eq!(state.pipeline(PIPELINE).unwrap().champion, Some(1));
    let cold = PromotionEvidence { ready: false, shadow_predictions: 0 };
    let rollback = Action::Rollback { to: Some(2), breach: None, evidence: cold };
    assert_eq!(refused(&state, &person("amal"), 4_005, rollback), Refusal::NotReady(2));
}

#[test]
fn a_new_challenger_retires_the_old_one() {
    let mut state = declared(rules());
    let first = validated(&mut state, 10);
    act(&mut state, &Actor::Platform, 11, Action::Shadow { version: first });
    let second = validated(&mut state, 20);
    let events = act(&mut state, &Actor::Platform, 21, Action::Shadow { version: second });
    let kinds: Vec<_> = events.iter().map(|event| event.change.kind()).collect();
    assert_eq!(kinds, ["retired", "shadow_started"]);
    assert!(events[0].reason.starts_with("superseded by version 2"));
    assert_eq!(stage(&state, first), Stage::Retired);
    let back = Action::Rollback { to: Some(first), breach: None, evidence: warm(0) };
    let none = Refusal::NoPredecessor(PIPELINE.to_owned());
    assert_eq!(refused(&state, &person("amal"), 22, back), none);
    let reject = Action::Reject { version: second };
    act(&mut state, &person("badr"), 23, reject);
    assert_eq!(state.pipeline(PIPELINE).unwrap().challenger, None);
}

#[test]
fn aliases_and_policies() {
    let mut state = declared(rules());
    let version = validated(&mut state, 10);
    let set = |alias: &str, version| Action::SetAlias { alias: alias.to_owned(), version };
    let amal = person("amal");
    let reserved = refused(&state, &amal, 11, set(CHAMPION, Some(version)));
    assert_eq!(reserved, Refusal::ReservedAlias(CHAMPION.to_owned()));
    act(&mut state, &amal, 11, set("audited", Some(version)));
    assert_eq!(state.pipeline(PIPELINE).unwrap().alias("audited"), Some(version));
    assert_eq!(act(&mut state, &amal, 12, set("audited", Some(version))), []);
    act(&mut state, &amal, 12, set("audited", None));
    assert_eq!(state.pipeline(PIPELINE).unwrap().alias("audited"), None);
    let unknown = refused(&state, &amal, 12, set("audited", Some(9)));
    assert!(matches!(unknown, Refusal::UnknownVersion { version: 9, .. }));
    let split = |challenger_share| Action::SetPolicy {
        policy: ServingPolicy::Split { challenger_share, salt: "s1".to_owned() },
    };
    let wrong = refused(&state, &amal, 13, split(1.0));
    assert!(matches!(wrong, Refusal::BadValue { .. }), "{wrong}");
    act(&mut state, &amal, 13, split(0.1));
    assert_eq!(act(&mut state, &amal, 14, split(0.1)), []);
    let undeclared = Command { pipeline: "x".to_owned(), ..command(&amal, 1, split(0.1)) };
    assert_eq!(state.decide(&undeclared), Err(Refusal::UnknownPipeline("x".to_owned())));
    act(&mut state, &amal, 15, Action::Declare { rules: PipelineRules::default() });
    let again = Action::Declare { rules: PipelineRules::default() };
    assert_eq!(act(&mut state, &amal, 16, again), []);
}

#[test]
fn damaged_histories_are_refused_and_change_nothing() {
    let mut state = declared(rules());
    serving(&mut state, 1_000);
    let events = state.pipeline(PIPELINE).unwrap().events.clone();
    for missing in 0..events.len() - 1 {
        // Without any one event but an approval too many, the rest does not follow.
        let rest = events.iter().enumerate().filter(|(index, _)| *index != missing);
        assert!(RegistryState::replay(rest.map(|(_, event)| event)).is_err(), "{missing}");
    }
    let before = state.clone();
    let mut old = events[1].clone();
    old.at = LogTime(1);
    assert!(matches!(state.apply(&old), Err(Refusal::OutOfOrder { at: 1, .. })));
    let mut gap = events[1].clone();
    (gap.at, gap.version) = (LogTime(9_000), Some(7));
    assert_eq!(state.apply(&gap), Err(Refusal::VersionGap { named: 7, next: 2 }));
    gap.version = None;
    assert!(matches!(state.apply(&gap), Err(Refusal::Malformed { .. })));
    assert_eq!(state, before);
}

#[test]
fn digests_are_checked() {
    let mut state = declared(rules());
    act(&mut state, &person("amal"), 5, request("a"));
    let start = Action::StartTraining { version: 1, hardware: String::new() };
    act(&mut state, &Actor::Platform, 5, start);
    let bad = TrainedModel { artifact_sha256: "XY".repeat(32), ..TrainedModel::default() };
    let finish = Action::FinishTraining { version: 1, model: bad };
    let refusal = refused(&state, &Actor::Platform, 6, finish);
    assert!(matches!(refusal, Refusal::BadValue { .. }), "{refusal}");
}

#[test]
fn events_read_back_from_json_with_kind_and_detail() {
    let mut state = declared(rules());
    serving(&mut state, 1_000);
    let json = serde_json::to_value(&state.pipeline(PIPELINE).unwrap().events).unwrap();
    assert_eq!(json[1]["kind"], "requested");
    assert_eq!(json[1]["actor"], "person:amal");
    assert_eq!(json[1]["detail"]["run"], "run");
    let back: Vec<ModelEvent> = serde_json::from_value(json).unwrap();
    assert_eq!(RegistryState::replay(&back).unwrap(), state);
    let snapshot = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<RegistryState>(&snapshot).unwrap(), state);
    assert!(serde_json::from_str::<Actor>("\"person:\"").is_err());
    assert!(serde_json::from_str::<Actor>("\"robot\"").is_err());
}

fn any_action() -> impl Strategy<Value = Action> {
    let version = 1_u32..5;
    let evidence = (any::<bool>(), 0_u64..20)
        .prop_map(|(ready, shadow_predictions)| PromotionEvidence { ready, shadow_predictions });
    let target = prop_oneof![Just(None), (1_u32..5).prop_map(Some)];
    prop_oneof![
        2 => Just(request("r")),
        2 => version.clone().prop_map(|version| Action::StartTraining {
            version,
            hardware: "cpu".to_owned()
        }),
        2 => version.clone().prop_map(|version| Action::FinishTraining { version, model: model() }),
        2 => (version.clone(), 0.5_f64..1.0)
            .prop_map(|(version, auc)| Action::Evaluate { version, report: report(auc) }),
        1 => version.clone().prop_map(|version| Action::Fail { version, error: String::new() }),
        2 => version.clone().prop_map(|version| Action::Approve { version }),
        1 => version.clone().prop_map(|version| Action::WithdrawApproval { version }),
        1 => version.clone().prop_map(|version| Action::Reject { version }),
        3 => version.clone().prop_map(|version| Action::Shadow { version }),
        3 => (version.clone(), evidence.clone())
            .prop_map(|(version, evidence)| Action::Promote { version, evidence }),
        1 => (target, evidence)
            .prop_map(|(to, evidence)| Action::Rollback { to, breach: None, evidence }),
        1 => version.prop_map(|version| Action::Retire { version }),
    ]
}

fn check_invariants(state: &RegistryState) {
    let pipeline = state.pipeline(PIPELINE).unwrap();
    let at_stage = |stage| {
        let found = pipeline.versions.iter().filter(move |(_, v)| v.stage == stage);
        found.map(|(number, _)| *number).collect::<Vec<_>>()
    };
    assert_eq!(at_stage(Stage::Serving), Vec::from_iter(pipeline.champion));
    assert_eq!(at_stage(Stage::Shadow), Vec::from_iter(pipeline.challenger));
    assert!(pipeline.versions.values().filter(|v| v.stage.in_flight()).count() <= 1);
    for version in pipeline.versions.values() {
        assert!(version.stages.windows(2).all(|w| w[0].stage.may_become(w[1].stage)));
        if version.has_served {
            assert!(version.report.as_ref().is_some_and(GateReport::passed));
            assert!(version.stages.iter().any(|change| change.stage == Stage::Shadow));
        }
    }
    for pair in pipeline.served.windows(2) {
        assert_eq!(pair[0].until, Some(pair[1].from));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever is commanded: decisions apply, no illegal state is reached, nothing serves that
    /// has not passed its gates and its shadow, and a replay of the events is the same state.
    #[test]
    fn nothing_illegal_is_reached_and_replay_is_equal(
        steps in prop::collection::vec((any_action(), 0_usize..4, 0_u64..200), 1..120),
    ) {
        let actors = [person("amal"), person("badr"), person("cyra"), Actor::Platform];
        let mut state = declared(rules());
        let (mut log, mut at) = (state.pipeline(PIPELINE).unwrap().events.clone(), 10);
        for (action, actor, later) in steps {
            at += later;
            let Ok(events) = state.decide(&command(&actors[actor], at, action)) else { continue };
            for event in events {
                state.apply(&event).unwrap();
                log.push(event);
            }
            check_invariants(&state);
        }
        prop_assert_eq!(RegistryState::replay(&log).unwrap(), state);
    }

    /// An event that the table of transitions does not allow is refused and changes nothing.
    #[test]
    fn a_refused_event_changes_nothing(
        steps in prop::collection::vec((any_action(), 0_usize..4), 1..60),
        stray in any_action(),
    ) {
        let actors = [person("amal"), person("badr"), person("cyra"), Actor::Platform];
        let (mut state, mut other) = (declared(rules()), declared(rules()));
        for (at, (action, actor)) in (10_u64..).zip(steps) {
            let command = command(&actors[actor], at * 60, action);
            if let Ok(events) = state.decide(&command) {
                events.iter().for_each(|event| state.apply(event).unwrap());
            }
        }
        // Events decided for a fresh pipeline mostly do not fit this one.
        let mut strays = Vec::new();
        for action in [request("x"), stray] {
            if let Ok(events) = other.decide(&command(&person("amal"), 90_000, action)) {
                events.iter().for_each(|event| other.apply(event).unwrap());
                strays.extend(events);
            }
        }
        for event in strays {
            let before = state.clone();
            if state.apply(&event).is_err() {
                prop_assert_eq!(&before, &state);
            } else {
                check_invariants(&state);
            }
        }
    }
}
