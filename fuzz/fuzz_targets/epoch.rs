//! Epoch records and entries: what decodes encodes to the same bytes.
#![no_main]

use falaj_log::{EpochEntry, EpochRecord};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(record) = EpochRecord::decode(bytes) {
        assert_eq!(record.encode(), bytes);
    }
    if let Ok(entry) = EpochEntry::decode(bytes) {
        assert_eq!(entry.encode(), bytes);
        let _ = entry.check();
    }
});
