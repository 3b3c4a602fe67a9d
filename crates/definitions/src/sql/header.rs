//! The comment header of a view's file, and durations as people write them.
//!
//! Does not know SQL beyond comments.

use datafusion::sql::sqlparser::tokenizer::{Location, Span};

use super::refusal::{Checked, Refusal};
use crate::plan::Description;

const KNOWN: [&str; 6] = ["owner", "description", "tags", "ttl", "hop", "retain"];
const DAY_US: u64 = 86_400_000_000;
const DEFAULT_RETAIN_US: u64 = 30 * DAY_US;

/// How finely events leave windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hop {
    /// To the microsecond.
    Exact,
    /// On a grid of this many microseconds.
    Every(u64),
    /// 5 minutes below 12 hours, 1 hour from 12 hours, 1 day from 12 days.
    Chronon,
}

impl Hop {
    /// The grid of a window, microseconds.
    pub fn of(self, preceding_us: u64) -> u64 {
        match self {
            Self::Exact => 1,
            Self::Every(us) => us,
            Self::Chronon if preceding_us >= 12 * DAY_US => DAY_US,
            Self::Chronon if preceding_us >= DAY_US / 2 => DAY_US / 24,
            Self::Chronon => DAY_US / 288,
        }
    }
}

/// What the header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub description: Description,
    pub ttl_us: Option<u64>,
    pub retain_us: u64,
    pub hop: Hop,
    /// Where `hop` is declared.
    pub hop_span: Span,
}

/// Reads the comment lines before the statement.
pub(crate) fn read(text: &str) -> Result<Header, Vec<Refusal>> {
    let mut header = Header {
        description: Description::default(),
        ttl_us: None,
        retain_us: DEFAULT_RETAIN_US,
        hop: Hop::Exact,
        hop_span: Span::empty(),
    };
    let mut seen: Vec<&str> = Vec::new();
    let mut refusals = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        let Some(comment) = trimmed.strip_prefix("--") else {
            if trimmed.is_empty() { continue } else { break }
        };
        let Some((word, value)) = comment.split_once(':') else { continue };
        let (name, value) = (word.trim(), value.trim());
        let span = value_span(index, line, value);
        let Some(known) = KNOWN.into_iter().find(|known| *known == name) else {
            refusals.extend(misspelt(name, word_span(index, line, name)));
            continue;
        };
        if seen.contains(&known) {
            let span = word_span(index, line, name);
            refusals.push(
                Refusal::new("header", span, format!("`{known}` is given twice"))
                    .help("keep one of them"),
            );
            continue;
        }
        seen.push(known);
        if let Err(refusal) = set(&mut header, known, value, span) {
            refusals.push(refusal);
        }
    }
    if refusals.is_empty() { Ok(header) } else { Err(refusals) }
}

fn set(header: &mut Header, name: &str, value: &str, span: Span) -> Checked<()> {
    if value.is_empty() {
        return Err(Refusal::new("header", span, format!("`{name}` has no value"))
            .help(format!("write `-- {name}: …` or leave the line out")));
    }
    match name {
        "owner" => header.description.owner = Some(value.to_owned()),
        "description" => header.description.text = Some(value.to_owned()),
        "tags" => {
            let tags = value.split(',').map(|tag| tag.trim().to_owned());
            header.description.tags = tags.filter(|tag| !tag.is_empty()).collect();
        }
        "ttl" => header.ttl_us = Some(duration(value, span)?),
        "retain" => header.retain_us = duration(value, span)?,
        _ => {
            header.hop_span = span;
            header.hop = match value.trim_matches('\'') {
                "chronon" => Hop::Chronon,
                text => Hop::Every(duration(text, span)?),
            };
        }
    }
    Ok(())
}

fn misspelt(name: &str, span: Span) -> Option<Refusal> {
    let nearest = crate::functions::nearest(&name.to_ascii_lowercase(), KNOWN)?;
    Some(
        Refusal::new("header", span, format!("unknown header field `{name}`"))
            .help(format!("write `{nearest}`")),
    )
}

fn word_span(index: usize, line: &str, word: &str) -> Span {
    let at = line.find(word).unwrap_or(0);
    chars(index, line, at, word)
}

fn value_span(index: usize, line: &str, value: &str) -> Span {
    let colon = line.find(':').unwrap_or(0);
    let at = match value {
        "" => colon,
        value => line.get(colon..).and_then(|rest| rest.find(value)).map_or(colon, |at| colon + at),
    };
    chars(index, line, at, value)
}

fn chars(index: usize, line: &str, at: usize, text: &str) -> Span {
    let column = line.get(..at).map_or(0, |before| before.chars().count()) + 1;
    let location = |column: usize| Location::new(index as u64 + 1, column as u64);
    Span::new(location(column), location(column + text.chars().count()))
}

/// A duration as the header writes it: `7 days`, `1 hour 30 minutes`, `90s`; no months.
pub(crate) fn duration(text: &str, span: Span) -> Checked<u64> {
    let wrong = |message: String| {
        Refusal::new("duration", span, message)
            .help("write a whole number and a unit, e.g. `90 seconds`, `5 minutes`, `1 hour 30 minutes`, `7 days`")
    };
    let parts = Parts::read(text).map_err(wrong)?;
    if parts.months != 0 {
        return Err(wrong("months and years have no fixed length".to_owned()));
    }
    match u64::try_from(parts.micros_with_days()) {
        Ok(0) | Err(_) => Err(wrong(format!("`{text}` is not a positive duration"))),
        Ok(us) => Ok(us),
    }
}

/// An interval in its three incommensurable parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    pub months: i64,
    pub days: i64,
    pub micros: i64,
}

impl Parts {
    /// Reads `1 day 2 hours`, `-3 minutes`, `90s`, `01:30:00`.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut parts = Self::default();
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err("an empty interval".to_owned());
        }
        while !rest.is_empty() {
            let end = rest
                .find(|c: char| !(c.is_ascii_digit() || matches!(c, '-' | '+')))
                .unwrap_or(rest.len());
            let (number, after) = rest.split_at(end);
            let number: i64 = number
                .parse()
                .map_err(|_| format!("`{rest}` does not begin with a whole number"))?;
            let after = after.trim_start();
            let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(end);
            parts = parts.plus(number, unit)?;
            rest = after.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        }
        Ok(parts)
    }

    /// Adds `number` of `unit`.
    pub fn plus(mut self, number: i64, unit: &str) -> Result<Self, String> {
        let (field, scale): (&mut i64, i64) = match unit.to_ascii_lowercase().as_str() {
            "us" | "microsecond" | "microseconds" => (&mut self.micros, 1),
            "ms" | "millisecond" | "milliseconds" => (&mut self.micros, 1_000),
            "s" | "sec" | "secs" | "second" | "seconds" => (&mut self.micros, 1_000_000),
            "min" | "mins" | "minute" | "minutes" => (&mut self.micros, 60_000_000),
            "h" | "hr" | "hrs" | "hour" | "hours" => (&mut self.micros, 3_600_000_000),
            "d" | "day" | "days" => (&mut self.days, 1),
            "week" | "weeks" => (&mut self.days, 7),
            "mon" | "month" | "months" => (&mut self.months, 1),
            "y" | "year" | "years" => (&mut self.months, 12),
            "" => return Err(format!("`{number}` has no unit")),
            other => return Err(format!("`{other}` is not a unit of time")),
        };
        let added = number.checked_mul(scale).and_then(|us| field.checked_add(us));
        *field = added.ok_or_else(|| "the interval is too long".to_owned())?;
        Ok(self)
    }

    /// Days (24 hours: all time is UTC) and microseconds, as microseconds.
    pub fn micros_with_days(self) -> i128 {
        i128::from(self.days) * i128::from(DAY_US) + i128::from(self.micros)
    }
}
