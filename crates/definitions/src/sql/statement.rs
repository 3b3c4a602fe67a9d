//! One file's text as one checked `CREATE VIEW … AS SELECT …`: the parts of a SELECT that feature
//! views have, and a refusal for every other part.
//!
//! Does not know topics, types or plans.

use datafusion::sql::sqlparser::ast::{
    self, CreateTableOptions, CreateView, GroupByExpr, Ident, NamedWindowDefinition, ObjectName,
    Query, Select, SelectFlavor, SelectItem, SetExpr, Spanned,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{
    Location, Span, Token, TokenWithSpan, Tokenizer, Whitespace,
};

mod from;

use from::check_from;

use super::header::{self, Header};
use super::nulls;
use super::refusal::{Checked, Refusal, Tokens, span_of, unsupported};

/// A view's statement, with nothing in it that has no meaning here (expressions are not looked
/// into yet).
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    pub header: Header,
    pub name: String,
    pub source: Relation,
    pub joins: Vec<JoinClause>,
    pub items: Vec<Item>,
    pub selection: Option<ast::Expr>,
    pub group_by: Vec<ast::Expr>,
    pub having: Option<ast::Expr>,
    pub windows: Vec<NamedWindowDefinition>,
    pub tokens: Tokens,
    /// The statement as the parser prints it: the same for all ways to lay it out.
    pub normalised: String,
    pub span: Span,
}

/// A named relation in FROM or JOIN.
#[derive(Clone, Debug)]
pub(crate) struct Relation {
    pub name: String,
    pub alias: String,
    pub span: Span,
}

/// A LEFT or ASOF LEFT join.
#[derive(Clone, Debug)]
pub(crate) struct JoinClause {
    pub as_of: bool,
    pub relation: Relation,
    pub on: ast::Expr,
}

/// One column of the SELECT list.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub name: String,
    pub expr: ast::Expr,
    pub span: Span,
}

/// Parses and checks a file's text.
pub(crate) fn parse(text: &str) -> Result<Statement, Vec<Refusal>> {
    let header = header::read(text);
    let statement = parse_view(text);
    match (header, statement) {
        (Ok(header), Ok(statement)) => Ok(Statement { header, ..statement }),
        (Err(mut first), Err(second)) => {
            first.push(second);
            Err(first)
        }
        (Err(refusals), Ok(_)) => Err(refusals),
        (Ok(_), Err(refusal)) => Err(vec![refusal]),
    }
}

/// An identifier as SQL compares it: lower case unless quoted.
pub(crate) fn fold(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

fn parse_view(text: &str) -> Checked<Statement> {
    let dialect = GenericDialect {};
    let mut tokens = Tokenizer::new(&dialect, text)
        .tokenize_with_location()
        .map_err(|error| at_location(error.message, error.location))?;
    let as_of = take_as_of(&mut tokens)?;
    let words = Tokens::new(&tokens);
    let end = tokens.last().map_or(Location::new(1, 1), |token| token.span.end);
    let mut statements = Parser::new(&dialect)
        .with_tokens_with_locations(tokens)
        .parse_statements()
        .map_err(|error| parser_refusal(&error, end))?;
    nulls::settle(&mut statements);
    let whole = Span::new(Location::new(1, 1), Location::new(1, 1));
    let view = match statements.as_slice() {
        [ast::Statement::CreateView(view)] => view,
        [] => {
            return Err(Refusal::new("syntax", whole, "the file holds no statement")
                .help("write one `CREATE VIEW name AS SELECT …`"));
        }
        [other] => {
            return Err(unsupported(span_of(other, whole), "only CREATE VIEW is a definition")
                .help("write one `CREATE VIEW name AS SELECT …` per file"));
        }
        [_, second, ..] => {
            return Err(unsupported(span_of(second, whole), "a file defines one view")
                .help("move the second statement to a file of its own"));
        }
    };
    check_view(view, words, &as_of)
}

fn at_location(message: String, location: Location) -> Refusal {
    Refusal::new("syntax", Span::new(location, location), message)
}

/// The parser writes its place into the message: ` at Line: 3, Column: 14`.
fn parser_refusal(error: &ParserError, end: Location) -> Refusal {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => {
            message.as_str()
        }
        ParserError::RecursionLimitExceeded => "the expression is nested too deeply",
    };
    let Some((text, place)) = message.rsplit_once(" at Line: ") else {
        return Refusal::new("syntax", Span::new(end, end), message);
    };
    let mut numbers = place.split(", Column: ").map(|n| n.trim().parse::<u64>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(line)), Some(Ok(column))) => {
            at_location(text.to_owned(), Location::new(line, column))
        }
        _ => Refusal::new("syntax", Span::new(end, end), text),
    }
}

/// Blanks the word ASOF of every `ASOF LEFT [OUTER] JOIN` and returns its places: the parser knows
/// other spellings only.
fn take_as_of(tokens: &mut [TokenWithSpan]) -> Checked<Vec<Span>> {
    let words: Vec<usize> = (0..tokens.len())
        .filter(|&index| !matches!(tokens[index].token, Token::Whitespace(_)))
        .collect();
    let mut places = Vec::new();
    for (position, &index) in words.iter().enumerate() {
        if !is_word(&tokens[index].token, "asof") {
            continue;
        }
        let next = |ahead: usize| words.get(position + ahead).map(|&index| &tokens[index].token);
        let after =
            |ahead: usize, word: &str| next(ahead).is_some_and(|token| is_word(token, word));
        let span = tokens[index].span;
        if after(1, "left") && (after(2, "join") || after(2, "outer") && after(3, "join")) {
            places.push(span);
            tokens[index].token = Token::Whitespace(Whitespace::Space);
        } else if ["join", "inner", "right", "full"].iter().any(|word| after(1, word)) {
            return Err(unsupported(span, "this ASOF join would drop or invent rows")
                .help("write `ASOF LEFT JOIN t ON l.k = t.k AND l.event_time >= t.event_time`"));
        }
    }
    Ok(places)
}

fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

fn check_view(view: &CreateView, tokens: Tokens, as_of: &[Span]) -> Checked<Statement> {
    let name_span = span_of(&view.name, Span::empty());
    let start = Location::new(1, 1);
    let refuse = |word: &str, message: &str, help: &str| {
        Err(unsupported(tokens.word(word, start), message).help(help))
    };
    if view.or_replace || view.or_alter {
        return refuse(
            "or",
            "a definition replaces its older version by itself",
            "write CREATE VIEW",
        );
    }
    if view.materialized {
        return refuse("materialized", "every feature view is materialised", "write CREATE VIEW");
    }
    if view.temporary || view.secure {
        return Err(unsupported(name_span, "a feature view is neither temporary nor secure")
            .help("write CREATE VIEW"));
    }
    if view.if_not_exists {
        return refuse("if", "a definition always exists", "leave IF NOT EXISTS out");
    }
    if !view.columns.is_empty() {
        return Err(unsupported(name_span, "columns are named in the SELECT list")
            .help("write AS after each"));
    }
    let plain = matches!(&view.options, CreateTableOptions::None)
        && view.cluster_by.is_empty()
        && view.comment.is_none()
        && !view.with_no_schema_binding
        && view.to.is_none()
        && view.params.is_none();
    if !plain {
        return Err(unsupported(name_span, "a feature view has no options in its statement")
            .help("options stand in the comment header: `-- ttl: 7 days`"));
    }
    let name = view_name(&view.name, name_span)?;
    let select = check_query(&view.query, &tokens)?;
    let statement = check_select(select, &tokens, as_of)?;
    Ok(Statement {
        name,
        normalised: format!(
            "{view} -- asof {:?}",
            statement.joins.iter().map(|j| j.as_of).collect::<Vec<_>>()
        ),
        ..statement
    })
}

fn view_name(name: &ObjectName, span: Span) -> Checked<String> {
    let refusal = || {
        Refusal::new("name", span, "a view's name is lower case letters, digits and `_`")
            .help("e.g. `card_velocity`")
    };
    match name.0.as_slice() {
        [part] => {
            let name = part.as_ident().map(fold).ok_or_else(refusal)?;
            if is_plain_name(&name) { Ok(name) } else { Err(refusal()) }
        }
        _ => Err(refusal()),
    }
}

fn is_plain_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_')
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !name.starts_with("__")
}

fn check_query<'a>(query: &'a Query, tokens: &Tokens) -> Checked<&'a Select> {
    let body = span_of(query.body.as_ref(), Span::empty());
    let place = |word: &str, from: Location| tokens.word(word, from);
    if let Some(with) = &query.with {
        return Err(unsupported(with.with_token.0.span, "a view has no WITH")
            .help("make the inner query a view of its own and select from it"));
    }
    let select = match query.body.as_ref() {
        SetExpr::Select(select) => select,
        SetExpr::SetOperation { op, left, .. } => {
            let from = left.span().end;
            let word = op.to_string().to_lowercase();
            return Err(unsupported(place(&word, from), format!("{op} has no key of its own"))
                .help("define one view per input, or one topic that both write to"));
        }
        _ => {
            return Err(unsupported(body, "a view is one SELECT")
                .help("write CREATE VIEW name AS SELECT …"));
        }
    };
    if query.order_by.is_some() {
        return Err(unsupported(place("order", body.end), "the rows of a view have no order")
            .help("leave ORDER BY out; readers sort"));
    }
    if query.limit_clause.is_some() || query.fetch.is_some() {
        let span = tokens
            .find("limit", body.end)
            .or_else(|| tokens.find("fetch", body.end))
            .or_else(|| tokens.find("offset", body.end));
        return Err(unsupported(span.unwrap_or(body), "a view keeps a row for every key")
            .help("leave LIMIT out; for the greatest values of a key use top_n(x, n)"));
    }
    let plain = query.locks.is_empty()
        && query.for_clause.is_none()
        && query.settings.is_none()
        && query.format_clause.is_none()
        && query.pipe_operators.is_empty();
    if plain {
        Ok(select)
    } else {
        Err(unsupported(body, "a view is one plain SELECT").help("leave the rest out"))
    }
}

fn check_select(select: &Select, tokens: &Tokens, as_of: &[Span]) -> Checked<Statement> {
    let start = select.select_token.0.span;
    refuse_clauses(select, tokens, start)?;
    let (source, joins) = check_from(select, tokens, start, as_of)?;
    let group_by = match &select.group_by {
        GroupByExpr::Expressions(exprs, modifiers) if modifiers.is_empty() => exprs.clone(),
        GroupByExpr::Expressions(..) => {
            return Err(unsupported(
                tokens.word("group", start.start),
                "GROUP BY modifiers make rows of several keys",
            )
            .help("list the key columns only"));
        }
        GroupByExpr::All(_) => {
            return Err(unsupported(
                tokens.word("group", start.start),
                "GROUP BY ALL hides the key",
            )
            .help("name the key columns: GROUP BY card_id"));
        }
    };
    let items = select
        .projection
        .iter()
        .map(|item| check_item(item, start))
        .collect::<Checked<Vec<_>>>()?;
    Ok(Statement {
        header: empty_header(),
        name: String::new(),
        source,
        joins,
        items,
        selection: select.selection.clone(),
        group_by,
        having: select.having.clone(),
        windows: select.named_window.clone(),
        tokens: tokens.clone(),
        normalised: String::new(),
        span: start,
    })
}

fn empty_header() -> Header {
    Header {
        description: crate::plan::Description::default(),
        ttl_us: None,
        retain_us: 0,
        hop: header::Hop::Exact,
        hop_span: Span::empty(),
    }
}

fn refuse_clauses(select: &Select, tokens: &Tokens, start: Span) -> Checked<()> {
    let word = |word: &str| tokens.word(word, start.start);
    if select.distinct.is_some() {
        return Err(unsupported(word("distinct"), "SELECT DISTINCT has no key")
            .help("write GROUP BY with the key columns"));
    }
    if let Some(qualify) = &select.qualify {
        return Err(unsupported(span_of(qualify, start), "a view keeps a row for every key")
            .help("leave QUALIFY out: a view's row is already the one of the key's latest event"));
    }
    if select.top.is_some() {
        return Err(
            unsupported(word("top"), "a view keeps a row for every key").help("leave TOP out")
        );
    }
    let plain = select.optimizer_hints.is_empty()
        && select.select_modifiers.is_none()
        && select.exclude.is_none()
        && select.into.is_none()
        && select.lateral_views.is_empty()
        && select.prewhere.is_none()
        && select.connect_by.is_empty()
        && select.cluster_by.is_empty()
        && select.distribute_by.is_empty()
        && select.sort_by.is_empty()
        && select.value_table_mode.is_none()
        && select.flavor == SelectFlavor::Standard;
    if plain {
        return Ok(());
    }
    Err(unsupported(start, "this SELECT has a clause that feature views do not have").help(
        "a view is SELECT … FROM … [LEFT JOIN …] [WHERE …] [GROUP BY … [HAVING …]] [WINDOW …]",
    ))
}

fn check_item(item: &SelectItem, outer: Span) -> Checked<Item> {
    let (name, expr, span) = match item {
        SelectItem::ExprWithAlias { expr, alias } => (fold(alias), expr, alias.span),
        SelectItem::UnnamedExpr(expr) => match expr {
            ast::Expr::Identifier(ident) => (fold(ident), expr, ident.span),
            ast::Expr::CompoundIdentifier(parts) => {
                let last = parts.last().map(fold).unwrap_or_default();
                (last, expr, span_of(expr, outer))
            }
            other => {
                return Err(Refusal::new("name", span_of(other, outer), "this column has no name")
                    .help("write … AS name"));
            }
        },
        SelectItem::ExprWithAliases { expr, .. } => {
            return Err(unsupported(span_of(expr, outer), "one expression is one column")
                .help("write … AS name"));
        }
        SelectItem::QualifiedWildcard(..) | SelectItem::Wildcard(_) => {
            return Err(unsupported(
                span_of(item, outer),
                "`*` would change the view with every new column",
            )
            .help("name the columns"));
        }
    };
    if !is_plain_name(&name) {
        return Err(Refusal::new("name", span, format!("`{name}` is not a column name"))
            .help("use lower case letters, digits and `_`, not beginning with `__`"));
    }
    Ok(Item { name, expr: expr.clone(), span: span_of(expr, span) })
}
