//! What the doors count: requests, errors, rows and latency, per door.
//!
//! Why it exists: benches, the console and `/metrics` read it. Plain atomics, no locks; it knows no
//! request. Latencies are kept in buckets of at most 6.25 % width.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Linear steps per power of two.
const STEPS: usize = 16;
/// The first `STEPS` values, then 60 powers of two.
const BUCKETS: usize = STEPS * 61;

/// A histogram of durations that many threads write at once.
pub struct LatencyHistogram {
    buckets: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum_ns: AtomicU64::new(0),
            max_ns: AtomicU64::new(0),
        }
    }
}

fn bucket_of(value_ns: u64) -> usize {
    let value = value_ns as usize;
    if value < STEPS {
        return value;
    }
    let power = value.ilog2() as usize;
    let step = (value >> (power - 4)) - STEPS;
    (power - 3) * STEPS + step
}

/// Greatest value that falls into `bucket`.
fn upper_ns(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let (power, step) = (bucket / STEPS + 3, bucket % STEPS);
    let width = 1_u128 << (power - 4);
    u64::try_from((STEPS + step + 1) as u128 * width - 1).unwrap_or(u64::MAX)
}

impl LatencyHistogram {
    /// Counts one duration.
    pub fn record(&self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(ns).min(BUCKETS - 1)].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(ns, Relaxed);
        self.max_ns.fetch_max(ns, Relaxed);
    }

    /// Number of recorded durations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }

    /// Sum of all recorded durations (wraps after 584 years).
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_ns.load(Relaxed))
    }

    /// The longest recorded duration.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max_ns.load(Relaxed))
    }

    /// An upper bound, at most 6.25 % too high, of the duration below which the share `quantile`
    /// (0 to 1) of all recorded ones lie; zero when there are none.
    pub fn quantile(&self, quantile: f64) -> Duration {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        let wanted = ((total as f64 * quantile.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(upper_ns(bucket)).min(self.max());
            }
        }
        Duration::ZERO
    }
}

/// What one door counts.
#[derive(Default)]
pub struct DoorMetrics {
    /// Requests: lookups, produced batches, reads, other calls.
    pub requests: AtomicU64,
    /// Requests that were answered with an error.
    pub errors: AtomicU64,
    /// Rows in (produce) or out (reads).
    pub rows: AtomicU64,
    /// Streams that are open now.
    pub open_streams: AtomicU64,
    /// From the request's arrival to its whole answer (reads: to the first batch).
    pub latency: LatencyHistogram,
}

impl DoorMetrics {
    /// Counts one request that began at `started`.
    pub fn finish(&self, started: Instant, rows: usize, ok: bool) {
        self.requests.fetch_add(1, Relaxed);
        self.rows.fetch_add(rows as u64, Relaxed);
        if !ok {
            self.errors.fetch_add(1, Relaxed);
        }
        self.latency.record(started.elapsed());
    }
}

/// What all doors count.
#[derive(Default)]
pub struct Metrics {
    /// `DoExchange` on features.
    pub lookups: DoorMetrics,
    /// `DoExchange` on models.
    pub predictions: DoorMetrics,
    /// `DoPut` on topics.
    pub produce: DoorMetrics,
    /// `DoGet` of views.
    pub scans: DoorMetrics,
    /// `DoGet` of topics.
    pub topic_reads: DoorMetrics,
    /// Discovery and actions.
    pub calls: DoorMetrics,
    /// Calls without a valid token.
    pub unauthenticated: AtomicU64,
}

impl Metrics {
    /// The doors by name, for exporters.
    pub fn doors(&self) -> [(&'static str, &DoorMetrics); 6] {
        [
            ("lookups", &self.lookups),
            ("predictions", &self.predictions),
            ("produce", &self.produce),
            ("scans", &self.scans),
            ("topic_reads", &self.topic_reads),
            ("calls", &self.calls),
        ]
    }

    /// All counters and the quantiles of all latencies (microseconds) as a JSON object.
    pub fn to_json(&self) -> serde_json::Value {
        let doors = self.doors().into_iter().map(|(name, door)| {
            let us = |quantile| door.latency.quantile(quantile).as_nanos() as f64 / 1e3;
            let figures = serde_json::json!({
                "requests": door.requests.load(Relaxed),
                "errors": door.errors.load(Relaxed),
                "rows": door.rows.load(Relaxed),
                "open_streams": door.open_streams.load(Relaxed),
                "latency_p50_us": us(0.5),
                "latency_p99_us": us(0.99),
                "latency_max_us": us(1.0),
            });
            (name.to_owned(), figures)
        });
        let mut all: serde_json::Map<_, _> = doors.collect();
        all.insert("unauthenticated".to_owned(), self.unauthenticated.load(Relaxed).into());
        all.into()
    }
}

/// Counts a stream as open for as long as it lives.
pub(crate) struct OpenStream {
    metrics: Arc<Metrics>,
    door: fn(&Metrics) -> &DoorMetrics,
}

impl OpenStream {
    pub(crate) fn new(metrics: &Arc<Metrics>, door: fn(&Metrics) -> &DoorMetrics) -> Self {
        door(metrics).open_streams.fetch_add(1, Relaxed);
        Self { metrics: Arc::clone(metrics), door }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        (self.door)(&self.metrics).open_streams.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_contiguous_and_narrow() {
        let mut previous = None;
        for bucket in 0..BUCKETS {
            let upper = upper_ns(bucket);
            assert_eq!(bucket_of(upper), bucket);
            if let Some(previous) = previous {
                assert_eq!(bucket_of(previous + 1), bucket);
                let width = upper - previous;
                assert!(bucket < STEPS || width as f64 / upper as f64 <= 1.0 / 16.0);
            }
            previous = Some(upper);
            if upper == u64::MAX {
                break;
            }
        }
        assert_eq!(previous, Some(u64::MAX));
    }

    #[test]
    fn quantiles_bound_what_was_recorded() {
        let histogram = LatencyHistogram::default();
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
        for us in 1..=1000 {
            histogram.record(Duration::from_micros(us));
        }
        let p50 = histogram.quantile(0.5).as_secs_f64() * 1e6;
        let p99 = histogram.quantile(0.99).as_secs_f64() * 1e6;
        assert!((500.0..=532.0).contains(&p50), "{p50}");
        assert!((990.0..=1000.0).contains(&p99), "{p99}");
        assert_eq!(histogram.quantile(1.0), Duration::from_millis(1));
        assert_eq!(histogram.count(), 1000);
    }
}
