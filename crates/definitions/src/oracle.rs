//! A view's answers by another way: portable SQL over exported events, evaluated from scratch.
//!
//! Why it exists: what the engine keeps up to date can be checked by any SQL engine. The SQL is
//! made from the view's text, never from its plan: per key, explicit bounds on event time and on
//! epochs. Does not know plans, state or sketches.
//!
//! # Exported events
//! One table per topic, called as the topic (`.` written `_`), with the topic's columns and
//!
//! | column | type | meaning |
//! | --- | --- | --- |
//! | `__t` | int64 | the epoch's `T`, microseconds |
//! | `__partition` | int64 | the log partition |
//! | `__offset` | int64 | the offset in the partition |
//! | `__op` | string | `insert`, `upsert` or `delete` |

mod aggregates;
mod floats;
mod rewrite;
pub mod run;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use datafusion::sql::sqlparser::ast;
use falaj_event::{ColumnType, LogTime, TopicKind, TopicSchema};

use crate::catalog::Topics;
use crate::sql::oracle_view::{self as parsed, Clause, Parsed};
use crate::text::date_from_days;
use aggregates::{Calls, Finished, Window};
use rewrite::{Scope, quoted};

#[cfg(test)]
mod tests;

/// How an oracle's column compares with the view's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Comparison {
    /// Equal values.
    Exact,
    /// Equal up to this relative difference (the oracle adds floats in some order).
    Numeric(f64),
    /// Not comparable: a sketch, whose oracle is its own naive recomputation.
    Skip,
}

/// Relative difference allowed where the oracle computes in floats.
pub const TOLERANCE: f64 = 1e-9;

/// Why there is no oracle for a view.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OracleError {
    /// Nothing has this name.
    #[error("`{0}` is neither a topic nor a view: pass the SQL of every view that is read")]
    Unknown(String),
    /// A view's text does not parse.
    #[error("view `{0}` does not parse: `falaj check` says why")]
    Unparsed(String),
    /// The SQL engine refused or failed.
    #[error("the oracle's SQL failed: {0}")]
    Engine(String),
}

/// A view's oracle.
#[derive(Clone, Debug, PartialEq)]
pub struct Oracle {
    /// One SELECT: one row per key, the view's columns in order.
    pub sql: String,
    /// How each column compares.
    pub columns: Vec<(String, Comparison)>,
    /// The topics whose exported events it reads.
    pub topics: Vec<String>,
}

/// The oracle of `view` at `t`. `views` holds the SQL text of the view and of all views that it
/// reads, by name.
///
/// # Errors
/// When a name is unknown or a text does not parse.
pub fn oracle(
    view: &str,
    views: &BTreeMap<String, String>,
    topics: &Topics,
    t: LogTime,
) -> Result<Oracle, OracleError> {
    let mut builder =
        Builder { views, topics, t, ctes: Vec::new(), done: BTreeMap::new(), read: Vec::new() };
    builder.view(view)?;
    let columns = builder.done.get(view).cloned().unwrap_or_default();
    let ctes: Vec<String> =
        builder.ctes.iter().map(|(name, sql)| format!("{} AS (\n{sql})", quoted(name))).collect();
    let names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).collect();
    let sql =
        format!("WITH {}\nSELECT {} FROM {}", ctes.join(",\n"), names.join(", "), quoted(view));
    builder.read.sort();
    builder.read.dedup();
    let columns = columns.into_iter().map(|column| (column.name, column.comparison)).collect();
    Ok(Oracle { sql, columns, topics: builder.read })
}

/// The SQL of [`oracle`] alone.
///
/// # Errors
/// As [`oracle`].
pub fn oracle_sql(
    view: &str,
    views: &BTreeMap<String, String>,
    topics: &Topics,
    t: LogTime,
) -> Result<String, OracleError> {
    oracle(view, views, topics, t).map(|oracle| oracle.sql)
}

/// A column of a relation: its name, its type where it is declared, how it compares.
#[derive(Clone, Debug)]
struct Known {
    name: String,
    column_type: Option<ColumnType>,
    /// Whether it is a float, declared or computed.
    is_float: bool,
    comparison: Comparison,
}

struct Builder<'a> {
    views: &'a BTreeMap<String, String>,
    topics: &'a Topics,
    t: LogTime,
    ctes: Vec<(String, String)>,
    done: BTreeMap<String, Vec<Known>>,
    read: Vec<String>,
}

/// Columns that order events, newest first.
const NEWEST: &str = "\"__et\" DESC, \"__t\" DESC, \"__partition\" DESC, \"__offset\" DESC";

impl Builder<'_> {
    fn view(&mut self, name: &str) -> Result<(), OracleError> {
        if self.done.contains_key(name) {
            return Ok(());
        }
        let text = self.views.get(name).ok_or_else(|| OracleError::Unknown(name.to_owned()))?;
        let view = parsed::parse(text).ok_or_else(|| OracleError::Unparsed(name.to_owned()))?;
        let mut scope = self.source(name, &view)?;
        for (index, clause) in view.joins.iter().enumerate() {
            self.join(name, index + 1, clause, &mut scope)?;
        }
        let joined = format!("{name}__{}", view.joins.len());
        let columns = match (scope.over_view, view.group_by.is_empty()) {
            (true, true) => self.per_row(name, &joined, &view, &scope),
            _ => self.keyed(name, &joined, &view, &scope),
        };
        self.done.insert(name.to_owned(), columns);
        Ok(())
    }

    fn cte(&mut self, name: String, sql: String) {
        self.ctes.push((name, sql));
    }

    fn topic(&mut self, name: &str) -> Option<std::sync::Arc<TopicSchema>> {
        let schema = std::sync::Arc::clone(&self.topics.get(name)?.schema);
        self.read.push(name.to_owned());
        Some(schema)
    }

    /// `name__0`: the source's rows known and dated at or before `t`.
    fn source(&mut self, name: &str, view: &Parsed) -> Result<Scope, OracleError> {
        let (relation, alias) = (&view.source.0, &view.source.1);
        let mut scope = Scope::default();
        let sql = if let Some(topic) = self.topic(relation) {
            let columns = scope.add_topic(alias, &topic);
            let table = self.rows(&topic);
            let time = quoted(&topic.columns[topic.event_time].name);
            scope.event_time =
                Some(rewrite::internal(alias, &topic.columns[topic.event_time].name));
            scope.key = topic.key.iter().map(|&key| topic.columns[key].name.clone()).collect();
            format!(
                "  SELECT {}, {time} AS \"__et\", \"__t\", \"__partition\", \"__offset\"\n  FROM {table}\n  WHERE {time} <= {}",
                select(&columns, ""),
                instant(self.t.0),
            )
        } else {
            self.view(relation)?;
            let known = self.done.get(relation).cloned().unwrap_or_default();
            let columns = scope.add_view(alias, &known);
            format!("  SELECT {} FROM {}", select(&columns, ""), quoted(relation))
        };
        self.cte(format!("{name}__0"), sql);
        Ok(scope)
    }

    /// Events known at `t`; of a table topic, the newest row of every key that is not deleted.
    fn rows(&self, topic: &TopicSchema) -> String {
        let known = format!(
            "SELECT * FROM {} WHERE \"__t\" <= {}",
            quoted(&table_name(&topic.name)),
            self.t.0
        );
        match topic.kind {
            TopicKind::Event => format!("({known}) AS events"),
            TopicKind::Table => {
                let key: Vec<String> =
                    topic.key.iter().map(|&key| quoted(&topic.columns[key].name)).collect();
                format!(
                    "(SELECT * FROM (SELECT versions.*, row_number() OVER (PARTITION BY {} ORDER BY \"__t\" DESC, \"__partition\" DESC, \"__offset\" DESC) AS \"__newest\" FROM ({known}) AS versions) AS numbered WHERE \"__newest\" = 1 AND \"__op\" <> 'delete') AS current_rows",
                    key.join(", ")
                )
            }
        }
    }

    fn join(
        &mut self,
        name: &str,
        index: usize,
        clause: &Clause,
        scope: &mut Scope,
    ) -> Result<(), OracleError> {
        let topic = self
            .topic(&clause.relation)
            .ok_or_else(|| OracleError::Unknown(clause.relation.clone()))?;
        let before = scope.clone();
        let columns = scope.add_topic(&clause.alias, &topic);
        let left = quoted(&format!("{name}__{}", index - 1));
        let on = rewrite::join_condition(&clause.on, scope, &before, &clause.alias);
        let sql = if clause.as_of {
            let versions = format!(
                "(SELECT * FROM {} WHERE \"__t\" <= {}) AS r",
                quoted(&table_name(&topic.name)),
                self.t.0
            );
            let kept: Vec<String> = columns
                .iter()
                .map(|(from, to)| {
                    format!(
                        "CASE WHEN r.\"__op\" <> 'delete' THEN r.{} END AS {}",
                        quoted(from),
                        quoted(to)
                    )
                })
                .collect();
            let time = quoted(&topic.columns[topic.event_time].name);
            format!(
                "  SELECT * FROM (SELECT l.*, {}, row_number() OVER (PARTITION BY l.\"__t\", l.\"__partition\", l.\"__offset\" ORDER BY r.{time} DESC NULLS LAST, r.\"__t\" DESC, r.\"__partition\" DESC, r.\"__offset\" DESC) AS \"__version{index}\"\n  FROM {left} AS l LEFT JOIN {versions} ON {on}) AS matched WHERE \"__version{index}\" = 1",
                kept.join(", ")
            )
        } else {
            let rows = self.rows(&topic).replace(" AS current_rows", " AS r");
            format!(
                "  SELECT l.*, {}\n  FROM {left} AS l LEFT JOIN {rows} ON {on}",
                select(&columns, "r.")
            )
        };
        self.cte(format!("{name}__{index}"), sql);
        Ok(())
    }

    fn per_row(&mut self, name: &str, joined: &str, view: &Parsed, scope: &Scope) -> Vec<Known> {
        let mut items = Vec::new();
        let mut columns = Vec::new();
        for (column, expr) in &view.items {
            items.push(format!("{} AS {}", rewrite::row(expr, scope), quoted(column)));
            columns.push(Known {
                name: column.clone(),
                column_type: None,
                is_float: floats::is_float(expr, &|column| scope.is_float(column)),
                comparison: rewrite::comparison(expr, scope),
            });
        }
        let mut sql = format!("  SELECT {}\n  FROM {}", items.join(",\n    "), quoted(joined));
        if let Some(selection) = &view.selection {
            let _ = write!(sql, "\n  WHERE {}", rewrite::row(selection, scope));
        }
        self.cte(name.to_owned(), sql);
        columns
    }

    fn keyed(&mut self, name: &str, joined: &str, view: &Parsed, scope: &Scope) -> Vec<Known> {
        let keys: Vec<ast::Expr> = view.keys(&scope.key, &view.source.1);
        let numbered: Vec<String> =
            (0..keys.len()).map(|position| quoted(&format!("__k{position}"))).collect();
        let mut sql = String::from("  SELECT filtered.*");
        if !scope.over_view {
            let _ = write!(
                sql,
                ", row_number() OVER (PARTITION BY {} ORDER BY {NEWEST}) AS \"__rank\"",
                numbered.join(", ")
            );
        }
        let _ = write!(sql, "\n  FROM (SELECT joined.*");
        for (key, column) in keys.iter().zip(&numbered) {
            let _ = write!(sql, ", {} AS {column}", rewrite::row(key, scope));
        }
        let _ = write!(sql, " FROM {} AS joined", quoted(joined));
        if let Some(selection) = &view.selection {
            let _ = write!(sql, " WHERE {}", rewrite::row(selection, scope));
        }
        self.cte(format!("{name}__rows"), format!("{sql}) AS filtered"));

        let mut calls = Calls::new(scope, self.t);
        let items: Vec<(String, Finished)> = view
            .items
            .iter()
            .map(|(column, expr)| (column.clone(), calls.finish(expr, &keys, view)))
            .collect();
        let having = view.having.as_ref().map(|having| calls.finish(having, &keys, view).sql);
        let results: String =
            calls.results().iter().enumerate().fold(String::new(), |mut text, (position, call)| {
                let _ = write!(text, ",\n    {call} AS \"__a{position}\"");
                text
            });
        let group = numbered.join(", ");
        self.cte(
            format!("{name}__groups"),
            format!(
                "  SELECT {group}{results}\n  FROM {} GROUP BY {group}",
                quoted(&format!("{name}__rows"))
            ),
        );
        self.finish(name, &numbered, &items, having.as_deref(), scope.over_view);
        let known = |(name, finished): (String, Finished)| Known {
            name,
            column_type: None,
            is_float: finished.is_float,
            comparison: finished.comparison,
        };
        items.into_iter().map(known).collect()
    }

    fn finish(
        &mut self,
        name: &str,
        keys: &[String],
        items: &[(String, Finished)],
        having: Option<&str>,
        over_view: bool,
    ) {
        let columns: Vec<String> = items
            .iter()
            .map(|(column, finished)| format!("{} AS {}", finished.sql, quoted(column)))
            .collect();
        let mut sql = format!(
            "  SELECT {}\n  FROM {} AS g",
            columns.join(",\n    "),
            quoted(&format!("{name}__groups"))
        );
        if !over_view {
            let on: Vec<String> =
                keys.iter().map(|key| format!("(g.{key} IS NOT DISTINCT FROM e.{key})")).collect();
            let _ = write!(
                sql,
                "\n  JOIN (SELECT * FROM {} WHERE \"__rank\" = 1) AS e ON {}",
                quoted(&format!("{name}__rows")),
                on.join(" AND ")
            );
        }
        if let Some(having) = having {
            let _ = write!(sql, "\n  WHERE {having}");
        }
        self.cte(name.to_owned(), sql);
    }
}

fn select(columns: &[(String, String)], prefix: &str) -> String {
    let columns: Vec<String> = columns
        .iter()
        .map(|(from, to)| format!("{prefix}{} AS {}", quoted(from), quoted(to)))
        .collect();
    columns.join(", ")
}

/// The exported table of a topic.
pub fn table_name(topic: &str) -> String {
    topic.replace('.', "_")
}

/// A point in time as SQL, from microseconds since 1970.
fn instant(micros: u64) -> String {
    instant_signed(i128::from(micros))
}

fn instant_signed(micros: i128) -> String {
    let bound = i64::MAX / 1_000;
    let micros = i64::try_from(micros).unwrap_or(if micros < 0 { -bound } else { bound });
    let micros = micros.clamp(-bound, bound);
    let (seconds, fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date_from_days(days);
    format!(
        "CAST('{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{fraction:06}+00:00' AS TIMESTAMP WITH TIME ZONE)",
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

/// The earliest event time in a window at `t`.
fn window_start(t: LogTime, window: Window) -> String {
    let start = i128::from(t.0) - i128::from(window.preceding_us);
    let hop = i128::from(window.hop_us.max(1));
    instant_signed(start.div_euclid(hop) * hop)
}
