//! NDJSON rows of a topic: every line is a row or a rejection with reasons, its neighbours untouched.
#![no_main]

use std::sync::{Arc, LazyLock};

use falaj_definitions::diagnostics::SourceFile;
use falaj_definitions::rows::RowParser;
use falaj_definitions::topics::{TopicDefinition, parse_topic};
use libfuzzer_sys::fuzz_target;

const TOPIC: &str = r#"
name = "t"
key = "k"
event_time = "at"
columns = [
  { name = "k", type = "string" },
  { name = "at", type = "timestamp" },
  { name = "n", type = "uint8", nullable = true },
  { name = "x", type = "float32", nullable = true },
  { name = "d", type = "decimal(9,3)", nullable = true },
  { name = "b", type = "binary", nullable = true },
  { name = "o", type = "date", nullable = true },
  { name = "l", type = "list<int16>", nullable = true },
]
"#;
const GOOD: &str = r#"{"k":"a","at":"2026-01-01T00:00:00Z"}"#;

static PARSED: LazyLock<Option<Arc<TopicDefinition>>> =
    LazyLock::new(|| parse_topic(&SourceFile::new("t.toml", TOPIC)).ok().map(Arc::new));

fuzz_target!(|text: &str| {
    let Some(topic) = PARSED.as_ref() else { panic!("the topic is right") };
    let mut parser = RowParser::new(Arc::clone(topic));
    parser.push_json(GOOD);
    text.lines().for_each(|line| parser.push_json(line));
    parser.push_json(GOOD);
    let pushed = parser.len();
    match parser.finish() {
        Ok(checked) => {
            assert_eq!(checked.positions.len() + checked.rejected.len(), pushed);
            assert!(checked.positions.len() >= 2, "good neighbours pass");
            assert!(checked.rejected.iter().all(|row| !row.reasons.is_empty()));
        }
        Err(error) => panic!("{error}"),
    }
});
