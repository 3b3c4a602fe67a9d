//! `falaj up`: a node until Ctrl-C or SIGTERM.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use falaj_definitions::text::parse_duration;
use serde_json::json;

use super::load;
use crate::cli::Up;
use crate::compact;
use crate::core::{Core, CoreOptions};
use crate::serve::{Node, NodeOptions};

/// Runs a node.
///
/// # Errors
/// When it does not start, or stops badly.
pub async fn run(options: Up, json: bool) -> Result<()> {
    let compact_every = interval(&options.compact_every)?;
    let catalog = load(&options.definitions)?;
    let mut core = CoreOptions::new(&options.data, options.clock.into());
    core.pump.workers = options.workers.max(1);
    core.pump.skip_cut = options.accept_cut;
    core.log = options.log.place();
    let node_options = NodeOptions { core, listen: options.listen, names: options.names };
    let node = Node::start(node_options, catalog).await?;
    announce(&node, json);
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        outcome = tokio::signal::ctrl_c() => outcome?,
        _ = terminate.recv() => {}
        () = maintain(node.core(), compact_every) => {}
        failure = watch(&node) => {
            eprintln!("falaj: {failure}");
        }
    }
    if !json {
        eprintln!("stopping: what was sent is being appended");
    }
    node.stop().await
}

/// The time between two compactions; `None`: never.
fn interval(text: &str) -> Result<Option<Duration>> {
    if text.trim() == "never" {
        return Ok(None);
    }
    match parse_duration(text) {
        Ok(us) if us > 0 => Ok(Some(Duration::from_micros(us))),
        Ok(_) => bail!("--compact-every {text}: write a time, or `never`"),
        Err(why) => bail!("--compact-every {text}: {why}; or write `never`"),
    }
}

/// Compacts now and then; a failure is told and tried again. Never resolves.
async fn maintain(core: &Arc<Core>, every: Option<Duration>) {
    let Some(every) = every else { return std::future::pending().await };
    loop {
        tokio::time::sleep(every).await;
        let core = Arc::clone(core);
        let outcome = tokio::task::spawn_blocking(move || compact::run(&core, false)).await;
        match outcome {
            Ok(Ok(answer)) if answer["cut"].as_array().is_some_and(|cut| !cut.is_empty()) => {
                eprintln!("falaj: retention: {}", answer["cut"]);
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => eprintln!("falaj: retention: {error:#}"),
            Err(error) => eprintln!("falaj: retention: {error}"),
        }
    }
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
