//! A refusal: what a view's SQL says that has no meaning here, where, and what to write instead.
//!
//! Does not know files: spans become diagnostics at the edge.

use datafusion::sql::sqlparser::ast::Spanned;
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan};

use crate::diagnostics::{Diagnostic, SourceFile};

/// One reason why a view is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub code: &'static str,
    pub span: Span,
    pub message: String,
    pub help: Option<String>,
}

/// The result of reading a piece of SQL.
pub(crate) type Checked<T> = Result<T, Refusal>;

impl Refusal {
    pub fn new(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self { code, span, message: message.into(), help: None }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub fn into_diagnostic(self, file: &SourceFile) -> Diagnostic {
        let start = place(self.span.start);
        let end = (self.span.end > self.span.start).then(|| place(self.span.end));
        file.error_at(self.code, start, end, self.message).with_help_if(self.help)
    }
}

fn place(location: Location) -> (u32, u32) {
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).max(1);
    (number(location.line), number(location.column))
}

/// SQL that is valid and is not supported.
pub(crate) fn unsupported(span: Span, message: impl Into<String>) -> Refusal {
    Refusal::new("unsupported-sql", span, message)
}

/// An expression whose types do not fit.
pub(crate) fn mistyped(span: Span, message: impl Into<String>) -> Refusal {
    Refusal::new("type", span, message)
}

/// A name that nothing has.
pub(crate) fn unknown(span: Span, message: impl Into<String>) -> Refusal {
    Refusal::new("unknown-name", span, message)
}

/// The span of `node`, or `outer` when the parser did not keep one.
pub(crate) fn span_of(node: &impl Spanned, outer: Span) -> Span {
    match node.span() {
        span if span == Span::empty() => outer,
        span => span,
    }
}

/// The tokens of one statement, for the places of keywords that the parser does not keep.
#[derive(Clone, Debug)]
pub(crate) struct Tokens(Vec<TokenWithSpan>);

impl Tokens {
    pub fn new(tokens: &[TokenWithSpan]) -> Self {
        let kept = tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_)));
        Self(kept.cloned().collect())
    }

    /// The first occurrence of a keyword at or after `from`; `from` itself when there is none.
    pub fn word(&self, word: &str, from: Location) -> Span {
        self.find(word, from).unwrap_or_else(|| Span::new(from, from))
    }

    /// The first occurrence of a keyword at or after `from`.
    pub fn find(&self, word: &str, from: Location) -> Option<Span> {
        self.0
            .iter()
            .find(|token| {
                token.span.start >= from
                    && matches!(&token.token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
            })
            .map(|token| token.span)
    }
}
