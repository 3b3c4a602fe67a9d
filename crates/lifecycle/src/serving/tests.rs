//! Routes: shares are kept, keys stay where they are, propensities are what happens.

use proptest::prelude::*;

use super::*;

fn split(challenger_share: f64, salt: &str) -> ServingPolicy {
    ServingPolicy::Split { challenger_share, salt: salt.to_owned() }
}

#[test]
fn a_position_is_the_documented_hash() {
    // SHA-256("falaj.route.v1" ‖ 0 ‖ len ‖ "salt" ‖ len ‖ "key"), first 53 bits; computed with
    // hashlib.
    assert_eq!(position("salt", b"key"), POSITION);
}

const POSITION: f64 = 0.6563467947495246;

#[test]
fn policies_route() {
    let route = |policy: ServingPolicy, challenger| policy.route(Some(4), challenger, b"k");
    let alone = Some(Route { serve: 4, propensity: 1.0, shadow: None });
    assert_eq!(route(ServingPolicy::ChampionOnly, Some(5)), alone);
    assert_eq!(route(ServingPolicy::ShadowChallenger, None), alone);
    assert_eq!(route(split(0.5, "a"), None), alone);
    let shadowed = Some(Route { serve: 4, propensity: 1.0, shadow: Some(5) });
    assert_eq!(route(ServingPolicy::ShadowChallenger, Some(5)), shadowed);
    assert_eq!(ServingPolicy::ChampionOnly.route(None, Some(5), b"k"), None);
    for (share, valid) in [(0.0, false), (0.3, true), (1.0, false), (f64::NAN, false)] {
        assert_eq!(split(share, "a").check().is_ok(), valid, "{share}");
    }
    assert!(split(0.3, "").check().is_err());
}

#[test]
fn a_split_keeps_its_share_and_salts_are_independent() {
    let keys = 20_000_u32;
    let takes = |share, salt: &str| {
        let policy = split(share, salt);
        (0..keys)
            .map(|key| policy.route(Some(1), Some(2), &key.to_be_bytes()).unwrap().serve == 2)
            .collect::<Vec<_>>()
    };
    let count = |taken: &[bool]| taken.iter().filter(|taken| **taken).count();
    // Within five standard deviations of 2,000 and, for both salts at once, of 200.
    let (one, two) = (takes(0.1, "one"), takes(0.1, "two"));
    assert!((1_788..=2_212).contains(&count(&one)), "{}", count(&one));
    let both: Vec<bool> = one.iter().zip(&two).map(|(a, b)| *a && *b).collect();
    assert!((130..=270).contains(&count(&both)), "{}", count(&both));
    // A larger share keeps every key of the smaller one.
    let larger = takes(0.3, "one");
    assert!(one.iter().zip(&larger).all(|(small, large)| !small || *large));
}

proptest! {
    #[test]
    fn a_key_stays_and_its_propensity_is_its_side_of_the_split(
        key in prop::collection::vec(any::<u8>(), 0..20),
        share in 0.01_f64..0.99,
    ) {
        let policy = split(share, "s");
        let route = policy.route(Some(1), Some(2), &key).unwrap();
        prop_assert_eq!(policy.route(Some(1), Some(2), &key), Some(route));
        prop_assert_eq!(route.serve == 2, position("s", &key) < share);
        let expected = if route.serve == 2 { share } else { 1.0 - share };
        prop_assert_eq!(route.propensity, expected);
        prop_assert_eq!(route.shadow, Some(3 - route.serve));
    }
}
