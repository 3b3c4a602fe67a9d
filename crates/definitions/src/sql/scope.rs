//! The columns that a view's expressions can name: those of its source and of each joined table.
//!
//! Does not know expressions.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::Expr;
use datafusion::sql::sqlparser::ast::Ident;
use datafusion::sql::sqlparser::tokenizer::Span;
use falaj_event::TopicSchema;

use super::refusal::{Checked, unknown, unsupported};
use super::statement::{Relation, fold};
use crate::functions;
use crate::plan::{JoinKind, ViewPlan};

/// One column of the joined row.
#[derive(Clone, Debug)]
pub(crate) struct ScopeColumn {
    pub relation: String,
    pub name: String,
    pub pii: bool,
    /// How its table is joined; `None` for the source's columns.
    pub joined: Option<JoinKind>,
}

/// The joined row.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub columns: Vec<ScopeColumn>,
    pub schema: SchemaRef,
    pub names: Arc<DFSchema>,
    /// The source's event time, when the source is a topic.
    pub event_time: Option<usize>,
}

impl Scope {
    /// The row of a topic.
    pub fn topic(relation: &Relation, topic: &TopicSchema) -> Checked<Self> {
        let columns = topic_columns(relation, topic, None);
        Self::new(columns, &topic.stored_schema(), false, Some(topic.event_time), relation.span)
    }

    /// The row of another view.
    pub fn view(relation: &Relation, view: &ViewPlan) -> Checked<Self> {
        let columns = view.output.iter().map(|column| ScopeColumn {
            relation: relation.alias.clone(),
            name: column.name.clone(),
            pii: false,
            joined: None,
        });
        let fields =
            view.output.iter().map(|c| Field::new(&c.name, c.column_type.to_arrow(), true));
        let schema = Schema::new(fields.collect::<Vec<_>>());
        Self::new(columns.collect(), &schema, true, None, relation.span)
    }

    /// This row with a table's columns after it.
    pub fn join(&self, relation: &Relation, table: &TopicSchema, kind: JoinKind) -> Checked<Self> {
        if self.columns.iter().any(|column| column.relation == relation.alias) {
            return Err(unsupported(relation.span, format!("`{}` is named twice", relation.alias))
                .help("give it another name: JOIN t AS u"));
        }
        let mut columns = self.columns.clone();
        columns.extend(topic_columns(relation, table, Some(kind)));
        let right = table.stored_schema();
        let fields: Vec<Field> = self
            .schema
            .fields()
            .iter()
            .map(|field| field.as_ref().clone())
            .chain(right.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)))
            .collect();
        Self::new(columns, &Schema::new(fields), false, self.event_time, relation.span)
    }

    fn new(
        columns: Vec<ScopeColumn>,
        schema: &Schema,
        nullable: bool,
        event_time: Option<usize>,
        span: Span,
    ) -> Checked<Self> {
        let named = columns.iter().zip(schema.fields()).map(|(column, field)| {
            let field = field.as_ref().clone().with_name(column.internal());
            if nullable { field.with_nullable(true) } else { field }
        });
        let schema = Arc::new(Schema::new(named.collect::<Vec<_>>()));
        let names = DFSchema::try_from(Arc::clone(&schema))
            .map_err(|error| unsupported(span, error.strip_backtrace()))?;
        Ok(Self { columns, schema, names: Arc::new(names), event_time })
    }

    /// The index of the column that a path names.
    pub fn find(&self, path: &[Ident], span: Span) -> Checked<usize> {
        let (relation, name) = match path {
            [] => return Err(unknown(span, "an empty name")),
            [name] => (None, fold(name)),
            [relation @ .., name] => {
                let parts: Vec<String> = relation.iter().map(fold).collect();
                (Some(parts.join(".")), fold(name))
            }
        };
        if let Some(relation) = &relation
            && !self.columns.iter().any(|column| column.relation == *relation)
        {
            return Err(unknown(span, format!("there is no `{relation}` in FROM")).help_nearest(
                relation,
                self.columns.iter().map(|column| column.relation.as_str()),
            ));
        }
        let matches: Vec<usize> = (0..self.columns.len())
            .filter(|&index| {
                let column = &self.columns[index];
                column.name == name
                    && relation.as_ref().is_none_or(|relation| column.relation == *relation)
            })
            .collect();
        match matches.as_slice() {
            [index] => self.readable(*index, span),
            [] => Err(unknown(span, format!("there is no column `{name}`"))
                .help_nearest(&name, self.columns.iter().map(|column| column.name.as_str()))),
            [first, ..] => {
                Err(unsupported(span, format!("`{name}` is a column of several relations"))
                    .help(format!("write {}.{name}", self.columns[*first].relation)))
            }
        }
    }

    fn readable(&self, index: usize, span: Span) -> Checked<usize> {
        let column = &self.columns[index];
        if !column.pii {
            return Ok(index);
        }
        Err(super::refusal::Refusal::new(
            "pii",
            span,
            format!("`{}` is personal data, sealed under its subject's key", column.name),
        )
        .help("views cannot read it: use the subject reference, or declare a non-personal column derived by the producer"))
    }

    /// The expression of a column.
    pub fn expr(&self, index: usize) -> Expr {
        Expr::Column(Column::new_unqualified(self.columns[index].internal()))
    }

    /// The joined columns that `expr` reads.
    pub fn reads<'a>(&'a self, expr: &'a Expr) -> impl Iterator<Item = usize> + 'a {
        expr.column_refs().into_iter().filter_map(|column| self.schema.index_of(&column.name).ok())
    }
}

impl ScopeColumn {
    fn internal(&self) -> String {
        format!("{}.{}", self.relation, self.name)
    }
}

fn topic_columns(
    relation: &Relation,
    topic: &TopicSchema,
    joined: Option<JoinKind>,
) -> Vec<ScopeColumn> {
    let column = |column: &falaj_event::Column| ScopeColumn {
        relation: relation.alias.clone(),
        name: column.name.clone(),
        pii: column.pii,
        joined,
    };
    topic.columns.iter().map(column).collect()
}

impl super::refusal::Refusal {
    /// Advice that names what is nearest to `name`, or lists what there is when it is little.
    pub(crate) fn help_nearest<'a>(self, name: &str, there: impl Iterator<Item = &'a str>) -> Self {
        let mut there: Vec<&str> = there.collect();
        there.sort_unstable();
        there.dedup();
        match functions::nearest(name, there.iter().copied()) {
            Some(nearest) => self.help(format!("did you mean `{nearest}`?")),
            None if there.len() <= 12 => self.help(format!("there are {}", there.join(", "))),
            None => self,
        }
    }
}
