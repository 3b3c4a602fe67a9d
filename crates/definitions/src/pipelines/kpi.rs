//! `[kpi]`: an SQL expression over judged predictions, checked by planning the view that would
//! maintain it; its errors stand where the expression stands in the file.
//!
//! Does not know SQL: the view's planner does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use falaj_event::{Classification, Column, ColumnType, Hash256, TopicKind, TopicSchema};
use toml::de::DeTable;

use super::read::{Context, section};
use super::settings::Kpi;
use super::types::{InputKind, Label, SignatureInput, Task};
use crate::catalog::Topics;
use crate::diagnostics::{Diagnostic, Diagnostics, SourceFile};
use crate::sql::plan_view;
use crate::topics::TopicDefinition;
use crate::topics::fields::Located;

const FIELDS: [&str; 3] = ["sql", "name", "unit"];

/// What stands before and after the expression in the view's text; the expression begins a line.
const BEFORE: &str = "CREATE VIEW kpi AS SELECT model,\n";
const AFTER: &str = "\nAS kpi FROM judged GROUP BY model";

/// Reads `[kpi]`.
pub(super) fn read(
    context: &Context<'_>,
    document: &DeTable<'_>,
    judged: &Judged<'_>,
    out: &mut Diagnostics,
) -> Option<Kpi> {
    let fields = section(context.source, document, "kpi", &FIELDS, out)?;
    let name = fields.text("name", out).unwrap_or_else(|| "kpi".to_owned());
    let unit = fields.text("unit", out);
    if fields.get("sql").is_none() {
        let help =
            "write an aggregate, e.g. sql = \"sum(CASE WHEN actual THEN amount ELSE 0 END)\"";
        fields.missing("sql", help, out);
    }
    let sql = fields.string("sql", out)?;
    let view_sql = format!("{BEFORE}{}{AFTER}", sql.value);
    let mut topics = Topics::new();
    topics.insert(Arc::new(judged.topic(context.task)?));
    match plan_view(context.source.path(), &view_sql, &topics, &BTreeMap::new()) {
        Ok(plan) => {
            let found = plan.output.get(1).map(|column| &column.column_type);
            if found.and_then(InputKind::of) != Some(InputKind::Numeric) {
                let of = found.map(ToString::to_string).unwrap_or_default();
                let message = format!("a KPI is a number, but this is of type {of}");
                out.push(context.source.error("wrong-type", sql.span, message));
                return None;
            }
        }
        Err(findings) => {
            out.extend(findings.into_iter().map(|finding| moved(context.source, &sql, &finding)));
            return None;
        }
    }
    Some(Kpi { name, unit, sql: sql.value, view_sql })
}

/// What a judged prediction's row is made of.
pub(super) struct Judged<'a> {
    pub keys: &'a [(String, ColumnType)],
    /// Unknown when a feature is wrong: then no expression is checked.
    pub inputs: Option<&'a [SignatureInput]>,
    pub topic: &'a TopicDefinition,
    pub label: &'a Label,
}

impl Judged<'_> {
    /// A topic of one row per judged prediction.
    fn topic(&self, task: Task) -> Option<TopicDefinition> {
        let schema = TopicSchema {
            name: "judged".to_owned(),
            version: 1,
            kind: TopicKind::Event,
            columns: self.columns(task)?,
            key: vec![0],
            event_time: 1,
            subject: None,
            partitions: 1,
            derived: true,
        };
        Some(TopicDefinition {
            schema: Arc::new(schema),
            description: String::new(),
            owner: None,
            column_descriptions: Vec::new(),
            expectations: Vec::new(),
            skew_us: 0,
            max_gap_us: None,
            retention_us: None,
            inbox: false,
            jurisdictions: Vec::new(),
            file: PathBuf::new(),
            text: "".into(),
            hash: Hash256::default(),
        })
    }

    fn columns(&self, task: Task) -> Option<Vec<Column>> {
        let label = &self.label.column_type;
        let scores = ColumnType::List(Box::new(ColumnType::Float64));
        let mut columns = vec![
            column("model", &ColumnType::String, false),
            column("predicted_at", &ColumnType::Timestamp, false),
            match task {
                Task::Binary => column("score", &ColumnType::Float64, false),
                Task::Multiclass => column("scores", &scores, false),
                Task::Regression => column("value", &ColumnType::Float64, false),
            },
            column("actual", label, true),
        ];
        if task != Task::Regression {
            columns.push(column("predicted", label, false));
        }
        columns.extend(self.keys.iter().map(|(name, of)| column(name, of, false)));
        let inputs = self.inputs?.iter();
        columns.extend(inputs.map(|input| column(&input.name, &input.column_type, true)));
        for declared in self.topic.schema.columns.iter().filter(|declared| !declared.pii) {
            if !columns.iter().any(|column| column.name == declared.name) {
                columns.push(column(&declared.name, &declared.column_type, true));
            }
        }
        Some(columns)
    }
}

fn column(name: &str, column_type: &ColumnType, nullable: bool) -> Column {
    Column {
        name: name.to_owned(),
        column_type: column_type.clone(),
        nullable,
        pii: false,
        classification: Classification::Internal,
        since_version: 1,
    }
}

/// A finding in the view's text as one in the pipeline's file.
fn moved(source: &SourceFile, sql: &Located<String>, finding: &Diagnostic) -> Diagnostic {
    let raw = source.text().get(sql.span.clone()).unwrap_or_default();
    let own = SourceFile::new(source.path(), sql.value.as_str());
    let at = |line: u32, column: u32| match line {
        0 | 1 => 0,
        line => own.offset(line - 1, column),
    };
    // With escapes in the string, its bytes are elsewhere: then the whole string is marked.
    let span = match raw.find(&sql.value) {
        Some(start) if finding.line > 1 => {
            let begin = sql.span.start + start + at(finding.line, finding.column);
            let end = finding
                .end
                .map_or(begin, |(line, column)| sql.span.start + start + at(line, column));
            begin..end.max(begin)
        }
        _ => sql.span.clone(),
    };
    let help = finding.help.clone();
    source.error(finding.code, span, finding.message.clone()).with_help_if(help)
}
