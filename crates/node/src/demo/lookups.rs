//! Lookups beside the stream: latency on one open Flight stream, and samples to be read again later.
//!
//! Knows the views by their keys only.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use arrow::array::{ArrayRef, StringArray};
use arrow::record_batch::RecordBatch;
use falaj_gateway::Client;
use falaj_gateway::wire::LookupOptions;
use hdrhistogram::Histogram;
use serde_json::Value as Json;

use super::random::Random;
use super::rows::customer_id;
use super::simulation::Happening;

/// An answer that was given at some `T`.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The view.
    pub view: String,
    /// The customer.
    pub customer: String,
    /// `T_r` of the answer.
    pub t: u64,
    /// The answer.
    pub batch: RecordBatch,
}

/// A running task that looks customers up.
pub struct Looker {
    stop: Arc<AtomicBool>,
    histogram: Arc<Mutex<Histogram<u64>>>,
    task: tokio::task::JoinHandle<Vec<Sample>>,
}

const SAMPLES: usize = 200;
const PAUSE: Duration = Duration::from_millis(2);

impl Looker {
    /// Starts looking up customers of the simulation.
    ///
    /// # Errors
    /// When no histogram can be made.
    pub fn start(client: Client, happenings: &[Happening]) -> Result<Self> {
        let customers = happenings.iter().filter(|h| matches!(h, Happening::Customer(_))).count();
        let stop = Arc::new(AtomicBool::new(false));
        let histogram = Arc::new(Mutex::new(Histogram::new(3)?));
        let task =
            tokio::spawn(look(client, customers as u64, Arc::clone(&stop), Arc::clone(&histogram)));
        Ok(Self { stop, histogram, task })
    }

    /// Latencies so far, microseconds.
    pub fn histogram(&self) -> Arc<Mutex<Histogram<u64>>> {
        Arc::clone(&self.histogram)
    }

    /// Stops, adds the latencies to `all` and gives the samples.
    pub async fn stop(self, all: &mut Histogram<u64>) -> Vec<Sample> {
        self.stop.store(true, Ordering::Relaxed);
        let samples = self.task.await.unwrap_or_default();
        let latencies = self.histogram.lock().unwrap_or_else(PoisonError::into_inner);
        // Both grow as they must, so adding cannot fail.
        let _ = all.add(&*latencies);
        samples
    }
}

/// The first view whose key is the customer alone.
///
/// # Errors
/// When there is none.
pub async fn customer_view(client: &Client) -> Result<String> {
    let catalog: Vec<Json> = serde_json::from_str(&client.action("catalog").await?)?;
    let view = catalog.iter().find(|entry| {
        entry["kind"] == "view" && entry["key"] == serde_json::json!(["customer_id"])
    });
    let name = view.and_then(|view| view["name"].as_str());
    Ok(name.context("no view has the key customer_id")?.to_owned())
}

/// A batch with one customer's key.
///
/// # Errors
/// Never; Arrow's constructors are fallible.
pub fn key(customer: &str) -> Result<RecordBatch> {
    let column: ArrayRef = Arc::new(StringArray::from(vec![customer]));
    Ok(RecordBatch::try_from_iter([("customer_id", column)])?)
}

async fn look(
    client: Client,
    customers: u64,
    stop: Arc<AtomicBool>,
    histogram: Arc<Mutex<Histogram<u64>>>,
) -> Vec<Sample> {
    let mut samples = Vec::new();
    // A node that is killed ends the stream: the samples so far are what there is.
    let _ = look_until(&client, customers, &stop, &histogram, &mut samples).await;
    samples
}

async fn look_until(
    client: &Client,
    customers: u64,
    stop: &AtomicBool,
    histogram: &Mutex<Histogram<u64>>,
    samples: &mut Vec<Sample>,
) -> Result<()> {
    let view = customer_view(client).await?;
    let mut stream = client.features(&[&view], key("")?.schema().as_ref()).await?;
    let mut random = Random::new(99, 1);
    let mut asked = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let customer = customer_id(u32::try_from(random.below(customers))?);
        let started = Instant::now();
        let answer = stream.lookup(&key(&customer)?, &LookupOptions::default()).await?;
        let elapsed = u64::try_from(started.elapsed().as_micros())?;
        histogram.lock().unwrap_or_else(PoisonError::into_inner).record(elapsed)?;
        asked += 1;
        if asked.is_multiple_of(7) && samples.len() < SAMPLES && answer.counts.present > 0 {
            samples.push(Sample { view: view.clone(), customer, t: answer.t, batch: answer.batch });
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
