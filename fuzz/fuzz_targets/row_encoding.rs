//! The canonical encoding of rows: what decodes is what encodes to the same bytes.
#![no_main]

use falaj_event::encoding::{decode_row, encode_row};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(values) = decode_row(bytes) {
        assert_eq!(encode_row(&values), bytes);
    }
});
