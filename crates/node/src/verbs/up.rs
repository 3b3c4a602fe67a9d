//! `falaj up`: a node until Ctrl-C or SIGTERM.

use anyhow::Result;
use serde_json::json;

use super::load;
use crate::cli::Up;
use crate::core::CoreOptions;
use crate::serve::{Node, NodeOptions};

/// Runs a node.
///
/// # Errors
/// When it does not start, or stops badly.
pub async fn run(options: Up, json: bool) -> Result<()> {
    let catalog = load(&options.definitions)?;
    let mut core = CoreOptions::new(&options.data, options.clock.into());
    core.pump.workers = options.workers.max(1);
    let node_options = NodeOptions { core, listen: options.listen, names: options.names };
    let node = Node::start(node_options, catalog).await?;
    announce(&node, json);
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        outcome = tokio::signal::ctrl_c() => outcome?,
        _ = terminate.recv() => {}
        failure = watch(&node) => {
            eprintln!("falaj: {failure}");
        }
    }
    if !json {
        eprintln!("stopping: what was sent is being appended");
    }
    node.stop().await
}

/// Resolves with the reason when a part of the node stops on its own.
async fn watch(node: &Node) -> String {
    loop {
        let core = node.core();
        if let Some(stopped) = core.sequencer.stopped() {
            return stopped.to_string();
        }
        if let Some(failure) = core.with_pump(|pump| pump.and_then(|pump| pump.state().failure())) {
            return format!("the views stopped: {failure}");
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

fn announce(node: &Node, json: bool) {
    let core = node.core();
    let tail = core.log.tail();
    let epochs = tail.as_ref().map_or(0, |tail| tail.record.epoch + 1);
    let (topics, views) = (core.catalog.topics.len(), core.catalog.views.len());
    let data = core.options.data.0.display().to_string();
    if json {
        println!(
            "{}",
            json!({
                "url": node.server().url(), "data": data, "topics": topics, "views": views,
                "epochs": epochs, "rebuilding": core.rebuilding,
            })
        );
        return;
    }
    println!("falaj is up on {}", node.server().url());
    println!("  {topics} topics, {views} views, {epochs} epochs in {data}");
    println!("  authority {data}/tls/ca.pem, token in {data}/token");
    if let Some(reason) = &core.rebuilding {
        println!("  the state is rebuilt from the log: {reason}");
    }
    println!("  Ctrl-C stops it; nothing acknowledged is lost by a kill");
}
