//! `falaj tail`: events as they are committed.

use anyhow::Result;
use falaj_gateway::wire::ReadTicket;

use super::Session;
use super::text::{batch_json, log_time};
use crate::cli::Tail;

/// Prints events, one JSON object per line.
///
/// # Errors
/// When the node cannot be asked, or there is no such topic.
pub async fn run(options: Tail, _json: bool) -> Result<()> {
    let session = Session::open_existing(&options.connection).await?;
    let outcome = print(&session, &options).await;
    session.close().await?;
    outcome
}

async fn print(session: &Session, options: &Tail) -> Result<()> {
    let from_t = match &options.from {
        Some(text) => log_time(text)?.0,
        None => {
            let status: serde_json::Value =
                serde_json::from_str(&session.client.action("status").await?)?;
            match options.no_follow {
                true => 0,
                false => status["t"].as_u64().unwrap_or(0) + 1,
            }
        }
    };
    let ticket = ReadTicket {
        from_t: Some(from_t),
        limit: options.limit,
        follow: !options.no_follow,
        ..ReadTicket::topic(&options.topic)
    };
    let mut reading = session.client.read(&ticket).await?;
    loop {
        let batch = tokio::select! {
            batch = reading.next() => batch?,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let Some(batch) = batch else { return Ok(()) };
        for row in batch_json(&batch)? {
            println!("{row}");
        }
    }
}
