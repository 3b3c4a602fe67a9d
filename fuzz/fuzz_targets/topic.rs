//! Topics declared in TOML: any text gives a topic or findings with places.
#![no_main]

use falaj_definitions::diagnostics::SourceFile;
use falaj_definitions::topics::parse_topic;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(findings) = parse_topic(&SourceFile::new("fuzz.toml", text)) {
        assert!(!findings.to_string().is_empty());
    }
});
