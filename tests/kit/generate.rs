//! Generated definitions and logs: one event topic, two table topics, views at random over them.
//!
//! Everything follows from a seed. Does not know what is done with it.

pub mod arrivals;
pub mod views;

use std::sync::Arc;

use anyhow::{Context, Result};
use falaj_definitions::catalog::Catalog;
use falaj_event::TopicSchema;

use crate::node;

/// The event topic.
pub const SALES: &str = "sales";
/// A table topic that sales name by `shop`.
pub const SHOPS: &str = "shops";
/// A table topic that sales name by `account`.
pub const ACCOUNTS: &str = "accounts";

type Columns = &'static [(&'static str, &'static str)];

/// `?` after a type: NULL is allowed.
const SALES_COLUMNS: Columns = &[
    ("account", "string"),
    ("at", "timestamp"),
    ("shop", "string?"),
    ("region", "string"),
    ("amount", "int64"),
    ("units", "int16?"),
    ("price", "decimal(12,2)?"),
    ("score", "float64?"),
    ("ratio", "float32"),
    ("paid", "bool"),
    ("due", "date?"),
];
const SHOPS_COLUMNS: Columns = &[
    ("shop", "string"),
    ("changed_at", "timestamp"),
    ("tier", "string?"),
    ("ceiling", "int64?"),
    ("weight", "float64"),
];
const ACCOUNTS_COLUMNS: Columns = &[
    ("account", "string"),
    ("since", "timestamp"),
    ("segment", "string"),
    ("allowance", "decimal(10,2)?"),
];

fn declaration(
    name: &str,
    columns: Columns,
    key: &str,
    event_time: &str,
    partitions: u32,
) -> String {
    let (kind, key_field) = if name == SALES { ("event", "key") } else { ("table", "primary_key") };
    let mut text = format!(
        "name = \"{name}\"\nkind = \"{kind}\"\ndescription = \"Generated.\"\n{key_field} = [\"{key}\"]\n\
         event_time = \"{event_time}\"\npartitions = {partitions}\n"
    );
    for (column, spelled) in columns {
        let nullable = if spelled.ends_with('?') { "nullable = true\n" } else { "" };
        let column_type = spelled.trim_end_matches('?');
        text += &format!(
            "\n[[columns]]\nname = \"{column}\"\ntype = \"{column_type}\"\n{nullable}description = \"Generated.\"\n"
        );
    }
    text
}

/// The catalog of the generated topics and these views (name, SQL).
///
/// # Errors
/// What `falaj check` would say.
pub fn catalog(views: &[(String, String)]) -> Result<Arc<Catalog>> {
    let topics = [
        declaration(SALES, SALES_COLUMNS, "account", "at", 3),
        declaration(SHOPS, SHOPS_COLUMNS, "shop", "changed_at", 2),
        declaration(ACCOUNTS, ACCOUNTS_COLUMNS, "account", "since", 1),
    ];
    let files: Vec<(String, &str)> = ["sales.toml", "shops.toml", "accounts.toml"]
        .into_iter()
        .map(str::to_owned)
        .zip(topics.iter().map(String::as_str))
        .chain(views.iter().map(|(name, text)| (format!("{name}.sql"), text.as_str())))
        .collect();
    let files: Vec<(&str, &str)> =
        files.iter().map(|(name, text)| (name.as_str(), *text)).collect();
    node::catalog(&files)
}

/// The schema of a generated topic.
///
/// # Errors
/// When `catalog` has none of that name.
pub fn schema(catalog: &Catalog, topic: &str) -> Result<Arc<TopicSchema>> {
    let found = catalog.topics.get(topic).with_context(|| format!("no topic {topic}"))?;
    Ok(Arc::clone(&found.schema))
}
