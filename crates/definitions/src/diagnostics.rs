//! What is wrong with a definition, and exactly where: file, line, column, the line itself, and
//! what to write instead.
//!
//! Why it exists: people meet Falaj first through its error messages, so all definition errors are
//! collected as data, and printed in one form. Does not know what the files mean.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The definition is refused.
    Error,
    /// It works, but probably not as meant.
    Warning,
    /// Something worth knowing.
    Note,
}

/// One finding in one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Line and column just after the marked text, when more than a point is marked.
    pub end: Option<(u32, u32)>,
    /// How bad it is.
    pub severity: Severity,
    /// A stable name of the kind of finding, e.g. `unknown-field`.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    /// The text of `line`, for display.
    pub excerpt: Option<String>,
}

impl Diagnostic {
    /// The same finding with advice.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same finding with advice, if there is any.
    #[must_use]
    pub fn with_help_if(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }

    /// The same finding, as bad as `severity`.
    #[must_use]
    pub fn with_severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    fn order(&self) -> (&Path, u32, u32, Severity, &str) {
        (&self.file, self.line, self.column, self.severity, self.message.as_str())
    }
}

/// As rustc prints: the finding, its place, the marked line and the advice.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        writeln!(f, "{severity}[{}]: {}", self.code, self.message)?;
        write!(f, "{gutter}--> {}:{}:{}", self.file.display(), self.line, self.column)?;
        if let Some(line) = &self.excerpt {
            let (padding, marks) = underline(line, self.line, self.column, self.end);
            write!(f, "\n{gutter} |\n{number} | {line}\n{gutter} | {padding}{marks}")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n{gutter} = help: {help}")?;
        }
        Ok(())
    }
}

/// White space up to `column` (tabs kept, so that marks stay below their text) and the marks.
fn underline(text: &str, line: u32, column: u32, end: Option<(u32, u32)>) -> (String, String) {
    let start = usize::try_from(column).unwrap_or(1).saturating_sub(1);
    let padding: String =
        text.chars().take(start).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    let rest = text.chars().count().saturating_sub(start).max(1);
    let width = match end {
        Some((end_line, end_column)) if end_line == line => {
            usize::try_from(end_column.saturating_sub(column)).unwrap_or(1).clamp(1, rest)
        }
        Some(_) => rest,
        None => 1,
    };
    (padding, "^".repeat(width))
}

/// A definition file in memory: turns byte spans into diagnostics.
#[derive(Clone, Debug)]
pub struct SourceFile {
    path: PathBuf,
    text: Arc<str>,
    line_starts: Vec<usize>,
}

impl SourceFile {
    /// A file called `path` that holds `text`.
    pub fn new(path: impl Into<PathBuf>, text: impl Into<Arc<str>>) -> Self {
        let text = text.into();
        let starts =
            text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { path: path.into(), line_starts: std::iter::once(0).chain(starts).collect(), text }
    }

    /// Its path as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its contents.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Line and column (characters), both from 1, of a byte offset; offsets beyond the end or
    /// inside a character are moved back to the nearest place that exists.
    pub fn position(&self, offset: usize) -> (u32, u32) {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.line_starts.partition_point(|start| *start <= offset).saturating_sub(1);
        let start = self.line_starts.get(line).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(0, |text| text.chars().count());
        (to_u32(line + 1), to_u32(column + 1))
    }

    /// The byte offset of a line and column (characters), both from 1; columns beyond the line's
    /// end and lines beyond the file's end give that end.
    pub fn offset(&self, line: u32, column: u32) -> usize {
        let index = usize::try_from(line).unwrap_or(1).saturating_sub(1);
        let Some(start) = self.line_starts.get(index).copied() else {
            return self.text.len();
        };
        let skip = usize::try_from(column).unwrap_or(1).saturating_sub(1);
        let text = self.line(line).unwrap_or_default();
        start + text.char_indices().nth(skip).map_or(text.len(), |(at, _)| at)
    }

    /// The text of a line (from 1) without its end.
    pub fn line(&self, line: u32) -> Option<&str> {
        let index = usize::try_from(line).ok()?.checked_sub(1)?;
        let start = *self.line_starts.get(index)?;
        let end = self.line_starts.get(index + 1).copied().unwrap_or(self.text.len());
        Some(self.text.get(start..end)?.trim_end_matches(['\n', '\r']))
    }

    /// An error about the bytes of `span`.
    pub fn error(
        &self,
        code: &'static str,
        span: Range<usize>,
        message: impl Into<String>,
    ) -> Diagnostic {
        let start = self.position(span.start);
        let end = (span.end > span.start).then(|| self.position(span.end));
        self.error_at(code, start, end, message)
    }

    /// An error at a line and column (characters), both from 1; `end` is just after the marked text.
    pub fn error_at(
        &self,
        code: &'static str,
        start: (u32, u32),
        end: Option<(u32, u32)>,
        message: impl Into<String>,
    ) -> Diagnostic {
        Diagnostic {
            file: self.path.clone(),
            line: start.0,
            column: start.1,
            end,
            severity: Severity::Error,
            code,
            message: message.into(),
            help: None,
            excerpt: self.line(start.0).map(str::to_owned),
        }
    }
}

/// All findings of one run, kept until everything has been looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics {
    items: Vec<Diagnostic>,
}

impl Diagnostics {
    /// No findings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a finding.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.items.push(diagnostic);
    }

    /// Whether any finding is an error.
    pub fn has_errors(&self) -> bool {
        self.items.iter().any(|item| item.severity == Severity::Error)
    }

    /// Whether there are no findings at all.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Number of findings.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// The findings in the order in which they were added (or sorted, after [`Self::sort`]).
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.items.iter()
    }

    /// Orders findings by file, line and column, and drops repeats.
    pub fn sort(&mut self) {
        self.items.sort_by(|a, b| a.order().cmp(&b.order()));
        self.items.dedup();
    }

    /// `Ok` with the value unless a finding is an error.
    ///
    /// # Errors
    /// All findings, sorted.
    pub fn into_result<V>(mut self, value: V) -> Result<V, Self> {
        if self.has_errors() {
            self.sort();
            return Err(self);
        }
        Ok(value)
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self { items: vec![diagnostic] }
    }
}

impl Extend<Diagnostic> for Diagnostics {
    fn extend<I: IntoIterator<Item = Diagnostic>>(&mut self, items: I) {
        self.items.extend(items);
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

/// Every finding, a blank line between them.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, item) in self.items.iter().enumerate() {
            if at > 0 {
                f.write_str("\n\n")?;
            }
            item.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// The candidate nearest to a misspelt name, if one is near enough to be meant.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (edit_distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let replaced = last[j] + usize::from(from != to);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i - 1] == *to && b[j - 1] == *from {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

fn to_u32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> SourceFile {
        SourceFile::new("topics/p.toml", "name = \"péage\"\r\nkind = \"evnt\"\n\tx = 1")
    }

    #[test]
    fn positions_count_characters_and_lines_from_one() {
        let file = file();
        assert_eq!(file.position(0), (1, 1));
        assert_eq!(file.position(11), (1, 11), "é is one column and two bytes");
        assert_eq!(file.position(10), (1, 10), "inside é is moved back to it");
        assert_eq!(file.position(17), (2, 1));
        assert_eq!(file.position(usize::MAX), (3, 7));
        assert_eq!(file.line(1), Some("name = \"péage\""));
        assert_eq!(file.line(3), Some("\tx = 1"));
        assert_eq!(file.line(4), None);
        assert_eq!(file.line(0), None);
        for offset in [0, 5, 11, 17, 25] {
            let (line, column) = file.position(offset);
            assert_eq!(file.offset(line, column), offset);
        }
        assert_eq!(file.offset(9, 1), file.text().len());
    }

    #[test]
    fn prints_like_rustc() {
        let error = file()
            .error("unknown-kind", 24..30, "there is no kind `evnt`")
            .with_help("did you mean `event`?");
        assert_eq!(
            error.to_string(),
            "error[unknown-kind]: there is no kind `evnt`\n \
             --> topics/p.toml:2:8\n  |\n\
             2 | kind = \"evnt\"\n  |        ^^^^^^\n  = help: did you mean `event`?"
        );
        let tabbed = file().error("x", 32..36, "y").to_string();
        assert!(tabbed.ends_with("3 | \tx = 1\n  | \t^^^^"), "{tabbed}");
    }

    #[test]
    fn a_span_over_several_lines_marks_the_first() {
        let text = file().error("x", 0..30, "y").to_string();
        assert!(text.contains("\n  | ^^^^^^^^^^^^^^"), "{text}");
    }

    #[test]
    fn findings_sort_by_place_and_warnings_pass() {
        let file = file();
        let mut all = Diagnostics::new();
        all.push(file.error("b", 20..21, "second"));
        all.push(file.error("a", 2..3, "first"));
        all.push(file.error("a", 2..3, "first"));
        let sorted = all.clone().into_result(()).unwrap_err();
        assert_eq!(
            sorted.iter().map(|d| d.message.as_str()).collect::<Vec<_>>(),
            ["first", "second"]
        );
        assert_eq!(sorted.to_string().matches("error[").count(), 2);
        let warning = file.error("w", 0..1, "hm").with_severity(Severity::Warning);
        assert_eq!(Diagnostics::from(warning).into_result(7).unwrap(), 7);
    }

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let fields = ["name", "kind", "event_time", "partitions"];
        assert_eq!(nearest("evnet_time", fields), Some("event_time"));
        assert_eq!(nearest("partition", fields), Some("partitions"));
        assert_eq!(nearest("colour", fields), None);
        assert_eq!(edit_distance("ab", "ba"), 1);
        assert_eq!(edit_distance("", "abc"), 3);
    }
}
