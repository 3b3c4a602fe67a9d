//! Views in SQL with their header, over one topic: any text gives a plan or findings.
#![no_main]

use falaj_definitions::catalog::Catalog;
use falaj_definitions::diagnostics::SourceFile;
use libfuzzer_sys::fuzz_target;

const TOPIC: &str = r#"
name = "t"
key = "k"
event_time = "at"
columns = [
  { name = "k", type = "string" },
  { name = "at", type = "timestamp" },
  { name = "n", type = "int64" },
  { name = "x", type = "float64", nullable = true },
]
"#;

fuzz_target!(|text: &str| {
    let topic = SourceFile::new("t.toml", TOPIC);
    let view = SourceFile::new("v.sql", text);
    if let Err(findings) = Catalog::from_sources(&[topic], &[view]) {
        assert!(!findings.to_string().is_empty());
    }
});
