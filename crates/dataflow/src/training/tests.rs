//! Slices, threads and moments of the sweep; equality with references stands in the integration tests.

use super::gather::Slice;

#[test]
fn halves_cover_a_slice_once() {
    let whole = Slice { modulus: 1, remainder: 0 };
    let quarters: Vec<Slice> = whole.halves().into_iter().flat_map(Slice::halves).collect();
    let mut remainders: Vec<u64> = quarters.iter().map(|slice| slice.remainder).collect();
    remainders.sort_unstable();
    assert_eq!(remainders, [0, 1, 2, 3]);
    assert!(quarters.iter().all(|slice| slice.modulus == 4));
}
