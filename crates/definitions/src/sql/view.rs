//! A checked statement over known topics and views as a [`ViewPlan`].
//!
//! Does not know files or how plans are executed.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::tokenizer::Span;
use falaj_event::{TopicKind, TopicSchema, ViewId, hash::domain_hash};

use super::build::{Columns, ProgramColumn, column, compile, named};
use super::joins;
use super::keyed::{Keyed, Mode, RowNames};
use super::keys::{calls, key_expressions, mode};
use super::refusal::{Checked, Refusal, mistyped, span_of, unknown, unsupported};
use super::scalar::Translator;
use super::scope::Scope;
use super::statement::{Item, Statement, fold};
use super::types::Family;
use crate::catalog::Topics;
use crate::functions::FUNCTION_SET_VERSION;
use crate::plan::{CostClass, Frame, Join, OutputColumn, Shape, Source, ViewPlan};
use crate::program::Program;

/// Version of the meaning of plans; part of every view's hash. Grows when the same plan over the
/// same events can give other rows.
pub const ENGINE_VERSION: u32 = 1;

/// Topics and views by name.
pub(crate) struct World<'a> {
    pub topics: &'a Topics,
    pub views: &'a BTreeMap<String, Arc<ViewPlan>>,
}

/// What all shapes of views have.
pub(super) struct Base<'a> {
    pub statement: &'a Statement,
    pub source: Source,
    joins: Vec<Join>,
    pub scope: Scope,
    input: String,
}

/// What is left of a plan once its shape is known.
struct Parts {
    prepare: Columns,
    predicate: Option<usize>,
    key: Vec<usize>,
    shape: Shape,
    finish: Program,
    having: Option<usize>,
    output: Vec<OutputColumn>,
    output_key: Vec<usize>,
    horizon_us: Option<u64>,
}

/// Plans a statement.
pub(crate) fn plan(statement: &Statement, world: &World<'_>) -> Result<ViewPlan, Vec<Refusal>> {
    let base = base(statement, world).map_err(one)?;
    unique_names(statement)?;
    let grouped = !statement.group_by.is_empty();
    let parts = match &base.source {
        Source::View(view) if !grouped => per_row(&base, view)?,
        Source::View(_) => keyed(&base, Mode::Groups)?,
        Source::Topic(_) => keyed(&base, mode(statement).map_err(one)?)?,
    };
    let prepare = parts.prepare.program(&base.scope.schema).map_err(one)?;
    let hash = hash(&base);
    Ok(ViewPlan {
        name: statement.name.clone(),
        hash,
        id: ViewId::of(&hash),
        source: base.source,
        joins: base.joins,
        prepare,
        predicate: parts.predicate,
        key: parts.key,
        shape: parts.shape,
        finish: parts.finish,
        having: parts.having,
        output: parts.output,
        output_key: parts.output_key,
        ttl_us: statement.header.ttl_us,
        retain_us: statement.header.retain_us,
        horizon_us: parts.horizon_us,
        description: statement.header.description.clone(),
    })
}

fn one(refusal: Refusal) -> Vec<Refusal> {
    vec![refusal]
}

fn base<'a>(statement: &'a Statement, world: &World<'_>) -> Checked<Base<'a>> {
    let relation = &statement.source;
    let (source, mut scope) = if let Some(topic) = world.topics.get(&relation.name) {
        (Source::Topic(Arc::clone(&topic.schema)), Scope::topic(relation, &topic.schema)?)
    } else if let Some(view) = world.views.get(&relation.name) {
        (Source::View(Arc::clone(view)), Scope::view(relation, view)?)
    } else {
        let there = world.topics.names().chain(world.views.keys().map(String::as_str));
        return Err(unknown(
            relation.span,
            format!("there is no topic or view `{}`", relation.name),
        )
        .help_nearest(&relation.name, there));
    };
    let mut joins = Vec::new();
    let mut inputs = vec![input_text(&source)];
    for clause in &statement.joins {
        let (join, joined) = joins::plan(clause, &scope, world)?;
        inputs.push(topic_text(&join.table));
        scope = joined;
        joins.push(join);
    }
    Ok(Base { statement, source, joins, scope, input: inputs.join("\n") })
}

fn input_text(source: &Source) -> String {
    match source {
        Source::Topic(topic) => topic_text(topic),
        Source::View(view) => view.hash.to_string(),
    }
}

fn topic_text(topic: &TopicSchema) -> String {
    serde_json::to_string(topic).unwrap_or_default()
}

fn hash(base: &Base<'_>) -> falaj_event::Hash256 {
    let header = &base.statement.header;
    let options =
        format!("ttl {:?} retain {} hop {:?}", header.ttl_us, header.retain_us, header.hop);
    domain_hash(
        b"falaj.view.v1",
        &[
            base.statement.normalised.as_bytes(),
            options.as_bytes(),
            base.input.as_bytes(),
            &ENGINE_VERSION.to_be_bytes(),
            &FUNCTION_SET_VERSION.to_be_bytes(),
        ],
    )
}

fn unique_names(statement: &Statement) -> Result<(), Vec<Refusal>> {
    let twice = statement.items.iter().enumerate().filter_map(|(index, item)| {
        let before = statement.items[..index].iter().any(|other| other.name == item.name);
        before.then(|| {
            Refusal::new("name", item.span, format!("two columns are called `{}`", item.name))
                .help("give one another name: … AS name")
        })
    });
    let refusals: Vec<Refusal> = twice.collect();
    if refusals.is_empty() { Ok(()) } else { Err(refusals) }
}

fn keyed(base: &Base<'_>, mode: Mode) -> Result<Parts, Vec<Refusal>> {
    let statement = base.statement;
    let key_exprs = key_expressions(base, mode).map_err(one)?;
    let mut state = Keyed {
        scope: &base.scope,
        statement,
        mode,
        prepare: Columns::default(),
        keys: Vec::new(),
        key_exprs: Vec::new(),
        bare: Vec::new(),
        aggregates: Vec::new(),
        class: CostClass::Plain,
        lifetime: false,
        over_view: matches!(base.source, Source::View(_)),
    };
    let mut key_spans = Vec::new();
    for (expr, span) in key_exprs {
        add_key(&mut state, expr, span).map_err(one)?;
        key_spans.push(span);
    }
    let mut refusals = Vec::new();
    let predicate = take(
        where_clause(statement, |expr, span| state.condition(expr, "WHERE", span)),
        &mut refusals,
    )
    .flatten();
    let mut columns = Vec::new();
    let mut output = Vec::new();
    for item in &statement.items {
        (state.class, state.lifetime) = (CostClass::Plain, false);
        if let Some(typed) = take(item_column(&mut state, item), &mut refusals) {
            output.push(OutputColumn {
                name: item.name.clone(),
                column_type: typed.column_type.clone(),
                class: state.class,
                lifetime: state.lifetime,
            });
            columns.push(typed);
        }
    }
    let having = take(having(&mut state), &mut refusals).flatten();
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let output_key = output_key(&columns, &state, &key_spans).map_err(one)?;
    let having_index = having.is_some().then_some(columns.len());
    columns.extend(having);
    let finish = compile(&columns, &state.finish_schema()).map_err(one)?;
    let horizon_us = horizon(&state, predicate);
    Ok(Parts {
        predicate,
        key: state.keys.clone(),
        shape: Shape::Keyed { bare: state.bare.clone(), aggregates: state.aggregates.clone() },
        finish,
        having: having_index,
        output,
        output_key,
        horizon_us,
        prepare: state.prepare,
    })
}

fn take<T>(result: Checked<T>, refusals: &mut Vec<Refusal>) -> Option<T> {
    result.map_err(|refusal| refusals.push(refusal)).ok()
}

fn where_clause(
    statement: &Statement,
    condition: impl FnOnce(&ast::Expr, Span) -> Checked<usize>,
) -> Checked<Option<usize>> {
    statement
        .selection
        .as_ref()
        .map(|expr| condition(expr, span_of(expr, statement.span)))
        .transpose()
}

fn add_key(state: &mut Keyed<'_>, expr: ast::Expr, span: Span) -> Checked<()> {
    let index = state.prepared(&expr, "a key", span)?;
    let item = &state.prepare.items[index];
    if !item.column_type.is_key_type() {
        return Err(mistyped(span, format!("a key cannot be {}", item.column_type))
            .help("use an integer, string, date or decimal column"));
    }
    let reactive = state
        .scope
        .reads(&item.expr)
        .find(|&column| state.scope.columns[column].joined == Some(crate::plan::JoinKind::Left));
    if let Some(column) = reactive {
        let name = &state.scope.columns[column].name;
        return Err(unsupported(
            span,
            format!("`{name}` changes with its table: as a key it would move events between rows"),
        )
        .help("take the key from the events, or ASOF LEFT JOIN the table"));
    }
    if state.keys.contains(&index) {
        return Err(unsupported(span, "the key names a column twice").help("name it once"));
    }
    state.keys.push(index);
    state.key_exprs.push(expr);
    Ok(())
}

fn item_column(state: &mut Keyed<'_>, item: &Item) -> Checked<ProgramColumn> {
    let typed = Translator { names: state }.translate(&item.expr, item.span)?;
    column(typed)
}

fn having(state: &mut Keyed<'_>) -> Checked<Option<ProgramColumn>> {
    let Some(expr) = &state.statement.having else { return Ok(None) };
    let span = span_of(expr, state.statement.span);
    if state.mode != Mode::Groups {
        return Err(unsupported(span, "HAVING needs GROUP BY")
            .help("write WHERE, or a view over this view"));
    }
    let typed = Translator { names: state }.translate(expr, span)?;
    if typed.family() != Family::Bool {
        return Err(mistyped(span, format!("HAVING needs a boolean, this is {}", typed.data_type)));
    }
    column(typed).map(Some)
}

fn output_key(columns: &[ProgramColumn], state: &Keyed<'_>, spans: &[Span]) -> Checked<Vec<usize>> {
    (0..state.keys.len())
        .map(|position| {
            let wanted = named(&format!("k{position}"));
            columns.iter().position(|column| column.expr == wanted).ok_or_else(|| {
                let expr = &state.key_exprs[position];
                let name = match expr {
                    ast::Expr::CompoundIdentifier(path) => {
                        path.last().map(fold).unwrap_or_default()
                    }
                    other => other.to_string(),
                };
                let span = spans.get(position).copied().unwrap_or(state.statement.span);
                Refusal::new("key", span, format!("the key column `{name}` is not selected"))
                    .help(format!("add {name} to the SELECT list"))
            })
        })
        .collect()
}

fn horizon(state: &Keyed<'_>, predicate: Option<usize>) -> Option<u64> {
    let reads_join = |&index: &usize| {
        let expr = &state.prepare.items[index].expr;
        state.scope.reads(expr).any(|column| state.scope.columns[column].joined.is_some())
    };
    if state.over_view
        || !state.bare.is_empty()
        || state.keys.iter().chain(&predicate).any(reads_join)
    {
        return None;
    }
    let lengths = state.aggregates.iter().map(|call| match call.frame {
        Frame::Range { preceding_us, hop_us } => preceding_us.checked_add(hop_us),
        Frame::Rows { .. } | Frame::Lifetime => None,
    });
    lengths.collect::<Option<Vec<u64>>>()?.into_iter().max()
}

/// Projection, filter and joins over the rows of a view.
fn per_row(base: &Base<'_>, view: &ViewPlan) -> Result<Parts, Vec<Refusal>> {
    let statement = base.statement;
    let scope = &base.scope;
    let mut prepare = Columns::default();
    let mut refusals = Vec::new();
    if let Some(having) = &statement.having {
        refusals.push(
            unsupported(span_of(having, statement.span), "HAVING needs GROUP BY")
                .help("write WHERE"),
        );
    }
    let mut translate = |expr: &ast::Expr, place: &'static str, span: Span| {
        let mut names = RowNames { scope, place };
        windowless(expr, span)?;
        let typed = Translator { names: &mut names }.translate(expr, span)?;
        if place == "WHERE" && typed.family() != Family::Bool {
            return Err(mistyped(
                typed.span,
                format!("WHERE needs a boolean, this is {}", typed.data_type),
            ));
        }
        prepare.add(typed)
    };
    let predicate =
        take(where_clause(statement, |expr, span| translate(expr, "WHERE", span)), &mut refusals)
            .flatten();
    let mut outputs = Vec::new();
    for item in &statement.items {
        outputs.extend(take(translate(&item.expr, "a view over a view", item.span), &mut refusals));
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let key: Vec<usize> = view
        .output_key
        .iter()
        .map(|&index| key_column(&prepare, scope, index, statement))
        .collect::<Checked<_>>()
        .map_err(one)?;
    let output_key =
        key.iter().filter_map(|key| outputs.iter().position(|output| output == key)).collect();
    let missing = key.iter().find(|key| !outputs.contains(key));
    if missing.is_some() {
        return Err(one(Refusal::new(
            "key",
            statement.source.span,
            "a key column is only read, not selected",
        )
        .help("select it")));
    }
    let output = statement.items.iter().zip(&outputs).map(|(item, &index)| OutputColumn {
        name: item.name.clone(),
        column_type: prepare.items[index].column_type.clone(),
        class: CostClass::Plain,
        lifetime: false,
    });
    let output = output.collect();
    let finish = Program::columns(prepare.schema("p"), &outputs)
        .ok_or_else(|| one(mistyped(statement.span, "a column has no column type")))?;
    Ok(Parts {
        prepare,
        predicate,
        key,
        shape: Shape::PerRow,
        finish,
        having: None,
        output,
        output_key,
        horizon_us: None,
    })
}

fn key_column(
    prepare: &Columns,
    scope: &Scope,
    index: usize,
    statement: &Statement,
) -> Checked<usize> {
    let wanted = scope.expr(index);
    prepare.items.iter().position(|item| item.expr == wanted).ok_or_else(|| {
        let name = &scope.columns[index].name;
        Refusal::new(
            "key",
            statement.source.span,
            format!("the key column `{name}` is not selected"),
        )
        .help(format!(
            "add {name} to the SELECT list: rows keep the key of the view that they come from"
        ))
    })
}

fn windowless(expr: &ast::Expr, outer: Span) -> Checked<()> {
    match calls(expr).iter().find(|call| call.over.is_some()) {
        Some(call) => Err(unsupported(
            span_of(&call.name, outer),
            "windows over a view are not supported: a view has one row per key",
        )
        .help("put the window into the view that reads the topic")),
        None => Ok(()),
    }
}

/// Whether a topic is a table.
pub(crate) fn is_table(topic: &TopicSchema) -> bool {
    topic.kind == TopicKind::Table
}
