//! The demo's simulation of card payments as arrivals on the payments topics.
//!
//! Leaves out what the gateway would reject. Does not know views.

use std::sync::Arc;

use anyhow::{Context, Result};
use falaj_definitions::catalog::Catalog;
use falaj_event::cells::Cells;
use falaj_event::{TopicSchema, Value};
use falaj_node::demo::rows::{TOPICS, batch, op_of, topic_of};
use falaj_node::demo::simulation::{Happening, Simulation, SimulationOptions};

use crate::history::{Arrival, event_time};

/// The arrivals of a simulation.
///
/// # Errors
/// When `catalog` lacks a payments topic or declares columns that the simulation does not know.
pub fn arrivals(catalog: &Catalog, options: SimulationOptions) -> Result<Vec<Arrival>> {
    let topics: Vec<Arc<TopicSchema>> = TOPICS
        .iter()
        .map(|name| catalog.topics.get(name).map(|topic| Arc::clone(&topic.schema)).context(*name))
        .collect::<Result<_>>()?;
    let happenings = Simulation::new(options).happenings();
    let mut cells: Vec<Vec<Vec<Value>>> = Vec::new();
    for (index, topic) in topics.iter().enumerate() {
        let own: Vec<&Happening> = happenings.iter().filter(|h| topic_of(h) == index).collect();
        cells.push(rows(topic, &own)?);
    }
    let mut cells: Vec<_> = cells.into_iter().map(Vec::into_iter).collect();
    let mut arrivals: Vec<Arrival> = Vec::new();
    for happening in &happenings {
        let index = topic_of(happening);
        let cells = cells[index].next().context("a row for every happening")?;
        let topic = Arc::clone(&topics[index]);
        let at = match happening {
            Happening::Payment(payment) if payment.flaw.is_some() => continue,
            Happening::Payment(payment) => payment.arrival,
            _ => event_time(&topic, &cells),
        };
        let at = at.max(arrivals.last().map_or(i64::MIN, |last| last.at));
        arrivals.push(Arrival { at, topic, op: op_of(happening), cells });
    }
    Ok(arrivals)
}

/// Rows as the log stores them: pii columns are bytes that nobody reads.
fn rows(topic: &TopicSchema, happenings: &[&Happening]) -> Result<Vec<Vec<Value>>> {
    let batch = batch(&topic.arrow_schema(), happenings)?;
    let columns =
        batch.columns().iter().map(|c| Cells::new(c.as_ref())).collect::<Result<Vec<_>, _>>()?;
    let stored = |column: usize, value: Value| match (topic.columns[column].pii, value) {
        (true, Value::String(text)) => Value::Binary(text.as_bytes().into()),
        (_, value) => value,
    };
    let row = |row: usize| -> Vec<Value> {
        columns.iter().enumerate().map(|(column, cells)| stored(column, cells.value(row))).collect()
    };
    Ok((0..batch.num_rows()).map(row).collect())
}
