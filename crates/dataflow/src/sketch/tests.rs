//! Sketches against their definitions and their stated error bounds.

use proptest::prelude::*;

use super::*;

fn hash(value: u64) -> u64 {
    falaj_event::key_hash(&value.to_be_bytes())
}

fn bytes_of(sketch: &HyperLogLog) -> Vec<u8> {
    let mut bytes = Vec::new();
    sketch.write(&mut bytes);
    bytes
}

/// Registers by their definition, one bit at a time.
fn naive_registers(hashes: &[u64]) -> Vec<u8> {
    let mut registers = vec![0u8; 4096];
    for hash in hashes {
        let mut zeros = 0;
        while zeros < 52 && hash >> (51 - zeros) & 1 == 0 {
            zeros += 1;
        }
        let register = &mut registers[(hash >> 52) as usize];
        *register = (*register).max(zeros + 1);
    }
    registers
}

fn registers_of(sketch: &HyperLogLog) -> Vec<u8> {
    let bytes = bytes_of(sketch);
    if bytes[0] == 1 {
        return bytes[1..].to_vec();
    }
    let mut registers = vec![0; 4096];
    for entry in bytes[3..].chunks(3) {
        registers[usize::from(entry[0]) << 8 | usize::from(entry[1])] = entry[2];
    }
    registers
}

#[test]
fn estimates_keep_within_four_standard_errors() {
    for count in [0u64, 1, 2, 10, 100, 500, 1_000, 5_000, 20_000, 100_000, 400_000] {
        for salt in 0..3 {
            let mut sketch = HyperLogLog::default();
            (0..count).for_each(|value| sketch.add(hash(value << 8 | salt)));
            let error = (sketch.estimate() as f64 - count as f64).abs();
            assert!(error <= 0.5 + 4.0 * 1.04 / 64.0 * count as f64, "{count}: off by {error}");
        }
    }
    let mut few = HyperLogLog::default();
    (0..10).for_each(|value| few.add(hash(value)));
    assert_eq!(few.estimate(), 10);
    assert_eq!(HyperLogLog::default().estimate(), 0);
}

#[test]
fn an_all_zero_tail_fills_the_register() {
    let mut sketch = HyperLogLog::default();
    sketch.add(7 << 52);
    assert_eq!(registers_of(&sketch)[7], 53);
    assert!(sketch.estimate() > 0);
}

proptest! {
    #[test]
    fn registers_are_the_definition(
        hashes in prop::collection::vec(any::<u64>(), 0..1200),
        cut in 0usize..1200,
    ) {
        let mut whole = HyperLogLog::default();
        hashes.iter().rev().for_each(|hash| whole.add(*hash));
        prop_assert_eq!(registers_of(&whole), naive_registers(&hashes));
        let (left, right) = hashes.split_at(cut.min(hashes.len()));
        let mut merged = HyperLogLog::default();
        let mut other = HyperLogLog::default();
        left.iter().for_each(|hash| merged.add(*hash));
        right.iter().for_each(|hash| other.add(*hash));
        merged.merge(&other);
        prop_assert_eq!(bytes_of(&merged), bytes_of(&whole));
        let mut rest = &bytes_of(&whole)[..];
        prop_assert_eq!(bytes_of(&HyperLogLog::read(&mut rest).unwrap()), bytes_of(&whole));
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = HyperLogLog::read(&mut bytes.as_slice());
        let _ = QuantileBuckets::read(&mut bytes.as_slice());
    }

    #[test]
    fn quantiles_keep_their_bound(
        values in prop::collection::vec(
            prop_oneof![
                3 => -1e6..1e6f64, 1 => any::<f64>(), 1 => Just(0.0), 1 => Just(-0.0),
                1 => Just(f64::INFINITY), 1 => Just(f64::NEG_INFINITY), 1 => Just(f64::NAN),
            ],
            1..200,
        ),
        q in 0.0..=1.0f64,
        gone in prop::collection::vec(any::<f64>(), 0..20),
    ) {
        let mut buckets = QuantileBuckets::default();
        gone.iter().for_each(|value| buckets.add(*value));
        values.iter().for_each(|value| buckets.add(*value));
        gone.iter().for_each(|value| buckets.subtract(*value));
        let mut plain = QuantileBuckets::default();
        values.iter().rev().for_each(|value| plain.add(*value));
        prop_assert_eq!(&buckets, &plain);
        let mut bytes = Vec::new();
        plain.write(&mut bytes);
        prop_assert_eq!(QuantileBuckets::read(&mut bytes.as_slice()).unwrap(), plain);

        let mut sorted = values.clone();
        sorted.sort_by_key(|value| falaj_event::value::canonical_f64_bits(*value));
        let expected = sorted[(q * (values.len() - 1) as f64) as usize];
        let answer = buckets.quantile(q).unwrap();
        if expected.is_nan() {
            prop_assert!(answer.is_nan());
        } else if expected.is_infinite() || expected == 0.0 {
            prop_assert_eq!(answer, expected);
        } else if expected.is_subnormal() {
            prop_assert!((answer - expected).abs() <= 2f64.powi(-1029));
        } else {
            prop_assert!((answer - expected).abs() <= expected.abs() / 128.0, "{} {}", answer, expected);
            prop_assert_eq!(answer.is_sign_negative(), expected.is_sign_negative());
        }
    }
}

#[test]
fn quantiles_merge_and_subtract() {
    let mut left = QuantileBuckets::default();
    let mut right = QuantileBuckets::default();
    (1..=50).for_each(|value| left.add(f64::from(value)));
    (51..=100).for_each(|value| right.add(f64::from(value)));
    let before = left.clone();
    left.merge(&right, false);
    let median = left.quantile(0.5).unwrap();
    assert!((median - 50.0).abs() <= 50.0 / 128.0);
    left.merge(&right, true);
    assert_eq!(left, before);
    left.merge(&before, true);
    assert_eq!(left.quantile(0.5), None);
}
