//! JSON taken apart without parsing its numbers: fields and items as the text that was written.
//!
//! Why it exists: a decimal or a 64-bit integer that passed through a float is not what the producer
//! sent. Everything here is called on text that a JSON parser has accepted. Does not know columns.

use serde::de::IgnoredAny;

/// The fields of one JSON object: names, and values as written.
///
/// # Errors
/// What is wrong with `text`, as a clause.
pub(super) fn object(text: &str) -> Result<Vec<(String, &str)>, String> {
    let inner = checked(text, '{', '}', "an object")?;
    let mut fields = Vec::new();
    for part in parts(inner) {
        let end = string_end(part.as_bytes());
        let (name, value) = part.split_at_checked(end).ok_or("its fields cannot be told apart")?;
        let name = serde_json::from_str(name).map_err(|error| error.to_string())?;
        let value =
            value.trim_start().strip_prefix(':').ok_or("its fields cannot be told apart")?;
        fields.push((name, value.trim()));
    }
    Ok(fields)
}

/// The items of one JSON array, as written.
///
/// # Errors
/// What is wrong with `text`, as a clause.
pub(super) fn array(text: &str) -> Result<Vec<&str>, String> {
    Ok(parts(checked(text, '[', ']', "an array")?))
}

/// What stands between the brackets of text that is valid JSON.
fn checked<'a>(text: &'a str, open: char, close: char, what: &str) -> Result<&'a str, String> {
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| format!("it is not JSON: {error}"))?;
    let inner = text.trim().strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
    inner.ok_or_else(|| format!("it is not {what}"))
}

/// The parts between top-level commas, trimmed.
fn parts(inner: &str) -> Vec<&str> {
    let bytes = inner.as_bytes();
    let (mut parts, mut start, mut at, mut depth) = (Vec::new(), 0, 0, 0usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at += string_end(&bytes[at..]);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(inner[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    let last = inner[start..].trim();
    if !last.is_empty() {
        parts.push(last);
    }
    parts
}

/// Length of the string that `bytes` begin with, quotes included.
fn string_end(bytes: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}
