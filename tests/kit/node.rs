//! Nodes in temporary directories, with definitions given as texts.
//!
//! Does not know what is done with them.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use falaj_definitions::catalog::Catalog;
use falaj_definitions::diagnostics::SourceFile;
use falaj_log::ClockMode;
use falaj_node::core::CoreOptions;
use falaj_node::serve::{Node, NodeOptions};

/// A catalog of texts: `(file name, text)`, `.sql` for views, `dataflows/….toml` for model pipelines
/// and any other `.toml` for topics.
///
/// # Errors
/// All findings.
pub fn catalog(texts: &[(&str, &str)]) -> Result<Arc<Catalog>> {
    let of = |extension: &str, dataflows: Option<bool>| -> Vec<SourceFile> {
        let wanted = texts.iter().filter(|(name, _)| {
            let found = name.starts_with("dataflows/");
            name.ends_with(extension) && dataflows.is_none_or(|wanted| wanted == found)
        });
        wanted.map(|(name, text)| SourceFile::new(*name, *text)).collect()
    };
    let (topics, pipelines) = (of(".toml", Some(false)), of(".toml", Some(true)));
    match Catalog::with_pipelines(&topics, &of(".sql", None), &pipelines) {
        Ok(catalog) => Ok(Arc::new(catalog)),
        Err(findings) => bail!("{findings}"),
    }
}

/// The catalog of this source tree's own definitions.
///
/// # Errors
/// All findings.
pub fn own_catalog() -> Result<Arc<Catalog>> {
    match Catalog::load(&crate::root()) {
        Ok(catalog) => Ok(Arc::new(catalog)),
        Err(findings) => bail!("{findings}"),
    }
}

/// Options of a node on `data` that listens on a free port, in event time.
pub fn options(data: &Path) -> NodeOptions {
    NodeOptions {
        core: CoreOptions::new(data, ClockMode::Event),
        listen: ([127, 0, 0, 1], 0).into(),
        names: Vec::new(),
    }
}

/// Starts a node on `data`.
///
/// # Errors
/// When it does not start.
pub async fn start(data: &Path, catalog: &Arc<Catalog>) -> Result<Node> {
    Node::start(options(data), Arc::clone(catalog)).await
}
