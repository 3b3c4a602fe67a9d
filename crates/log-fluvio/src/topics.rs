//! Makes a deployment's topics on the cluster, checks those that are there, and removes them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use falaj_log::{BlockId, LogError};
use fluvio::metadata::customspu::CustomSpuSpec;
use fluvio::metadata::topic::{CleanupPolicy, SegmentBasedPolicy, TopicSpec, TopicStorageConfig};
use fluvio::{Fluvio, FluvioAdmin};
use tokio::time::timeout;

use crate::cluster::{ATTEMPT, Backoff, Cluster};
use crate::error::ClusterError;
use crate::names::{epochs_name, inbox_name, log_name};
use crate::options::Options;
use crate::wire;
use crate::writer::{Outgoing, Writer};

/// "For ever", as Fluvio can say it: 136 years.
const FOR_EVER_S: u32 = u32::MAX;
/// JSON events in an inbox are of use only until the sequencer has taken them.
const INBOX_RETENTION_S: u32 = 7 * 24 * 3600;
/// No partition is cut because it is large.
const NO_LIMIT_BYTES: u64 = 1 << 62;

struct Wanted {
    name: String,
    partitions: u32,
    retention_s: u32,
}

fn wanted(options: &Options) -> Result<Vec<Wanted>, ClusterError> {
    let deployment = &options.deployment;
    let mut all =
        vec![Wanted { name: epochs_name(deployment), partitions: 1, retention_s: FOR_EVER_S }];
    for topic in &options.topics {
        let partitions = topic.partitions.max(1);
        let retention_s = topic.retention_s.unwrap_or(FOR_EVER_S);
        all.push(Wanted { name: log_name(deployment, &topic.name), partitions, retention_s });
        if topic.inbox {
            let name = inbox_name(deployment, &topic.name);
            all.push(Wanted { name, partitions, retention_s: INBOX_RETENTION_S });
        }
    }
    let mut seen = HashMap::new();
    for topic in &all {
        if seen.insert(topic.name.clone(), ()).is_some() {
            return Err(ClusterError::Topic {
                topic: topic.name.clone(),
                address: options.controller.clone(),
                why: "two topics would have this name; rename one of them".into(),
            });
        }
    }
    Ok(all)
}

fn spec(topic: &Wanted, replication: u32) -> TopicSpec {
    let mut spec = TopicSpec::new_computed(topic.partitions, replication, None);
    let policy = SegmentBasedPolicy { time_in_seconds: topic.retention_s };
    spec.set_cleanup_policy(CleanupPolicy::Segment(policy));
    spec.set_storage(TopicStorageConfig {
        segment_size: None,
        max_partition_size: Some(NO_LIMIT_BYTES),
    });
    spec
}

/// Makes what is missing and checks what is there.
pub(crate) async fn ensure(cluster: &Cluster, deadline: Instant) -> Result<(), ClusterError> {
    let wanted = wanted(&cluster.options)?;
    let mut backoff = Backoff::until(deadline);
    loop {
        let why = match cluster.client().await {
            Err(why) => why,
            Ok(client) => {
                let work = ensure_once(&client, &cluster.options, &wanted);
                let why = match timeout(ATTEMPT, work).await {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(Trouble::Final(error))) => return Err(error),
                    Ok(Err(Trouble::Transient(why))) => why,
                    Err(_) => "no answer".into(),
                };
                cluster.forget(&client).await;
                why
            }
        };
        if !backoff.wait().await {
            return Err(cluster.no_controller(why));
        }
    }
}

enum Trouble {
    Transient(String),
    Final(ClusterError),
}

async fn ensure_once(
    client: &Arc<Fluvio>,
    options: &Options,
    wanted: &[Wanted],
) -> Result<(), Trouble> {
    let admin = client.admin().await;
    let said = |error: &dyn std::fmt::Display| Trouble::Transient(format!("{error:#}"));
    let there = admin.all::<TopicSpec>().await.map_err(|error| said(&error))?;
    let there: HashMap<&str, &TopicSpec> =
        there.iter().map(|topic| (topic.name.as_str(), &topic.spec)).collect();
    for topic in wanted {
        match there.get(topic.name.as_str()) {
            Some(spec) => check(topic, spec, options).map_err(Trouble::Final)?,
            None => {
                let made =
                    admin.create(topic.name.clone(), false, spec(topic, options.replication));
                made.await.map_err(|error| said(&error))?;
            }
        }
    }
    Ok(())
}

fn check(wanted: &Wanted, there: &TopicSpec, options: &Options) -> Result<(), ClusterError> {
    let refuse = |why: String| {
        let (topic, address) = (wanted.name.clone(), options.controller.clone());
        Err(ClusterError::Topic { topic, address, why })
    };
    if there.partitions() != wanted.partitions {
        return refuse(format!(
            "it has {} partitions, but {} are declared; a topic's number of partitions never changes",
            there.partitions(),
            wanted.partitions
        ));
    }
    if there.retention_secs() < wanted.retention_s {
        return refuse(format!(
            "it keeps records for {} s, but {} s are declared: events would be lost. Copy the log \
             to another deployment",
            there.retention_secs(),
            wanted.retention_s
        ));
    }
    Ok(())
}

fn block_on<T>(
    what: impl Future<Output = Result<T, String>>,
    options: &Options,
) -> Result<T, LogError> {
    let doing = "administering the cluster";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| {
        let what = "starting threads for the cluster".into();
        ClusterError::Local { what, source }.while_doing(doing)
    })?;
    let outcome = runtime.block_on(async { timeout(options.patience, what).await });
    let outcome = outcome.unwrap_or_else(|_| Err("no answer".into()));
    let cluster = Cluster::new(Arc::new(options.clone()));
    outcome.map_err(|last| cluster.no_controller(last).while_doing(doing))
}

async fn admin(cluster: &Cluster) -> Result<FluvioAdmin, String> {
    Ok(cluster.client().await?.admin().await)
}

/// Removes every topic of a deployment from the cluster: the log is gone.
///
/// # Errors
/// When the controller does not answer or refuses.
pub fn remove(options: &Options) -> Result<(), LogError> {
    let cluster = Cluster::new(Arc::new(options.clone()));
    let prefix = format!("{}-", options.deployment);
    let work = async {
        let admin = admin(&cluster).await?;
        let all = admin.all::<TopicSpec>().await.map_err(|error| format!("{error:#}"))?;
        for topic in all.iter().filter(|topic| topic.name.starts_with(&prefix)) {
            let gone = admin.delete::<TopicSpec>(topic.name.clone()).await;
            gone.map_err(|error| format!("removing {}: {error:#}", topic.name))?;
        }
        Ok(())
    };
    block_on(work, options)
}

/// Writes records, each to its partition, to a Fluvio topic, as any producer would: to an inbox, say.
///
/// # Errors
/// When the topic is not there, or does not answer.
pub fn produce(options: &Options, topic: &str, records: &[(u32, Vec<u8>)]) -> Result<(), LogError> {
    let options = Arc::new(options.clone());
    let writer = Writer::new(Cluster::new(Arc::clone(&options)));
    let topic: Arc<str> = topic.into();
    let outgoing = records.iter().map(|(partition, value)| Outgoing {
        topic: Arc::clone(&topic),
        partition: *partition,
        key: wire::block_key(*partition, BlockId([0; 16])).to_vec(),
        value: value.as_slice().into(),
    });
    let outgoing: Vec<Outgoing> = outgoing.collect();
    let deadline = Instant::now() + options.patience;
    let work = async { writer.send(&outgoing, deadline).await.map_err(|error| error.to_string()) };
    block_on(work, &options).map(|_| ())
}

/// Tells the controller of an SPU, as `fluvio cluster spu register` does, for machines without that
/// program. `public` and `private` are `HOST:PORT`.
///
/// # Errors
/// When the controller does not answer or refuses, or an address is not one.
pub fn register_spu(
    options: &Options,
    id: i32,
    public: (&str, u16),
    private: (&str, u16),
) -> Result<(), LogError> {
    let cluster = Cluster::new(Arc::new(options.clone()));
    // The client library does not name the types of these fields.
    let mut spec = CustomSpuSpec { id, ..CustomSpuSpec::default() };
    spec.public_endpoint.port = public.1;
    spec.public_endpoint.ingress = vec![Default::default()];
    for ingress in &mut spec.public_endpoint.ingress {
        ingress.hostname = Some(public.0.to_owned());
    }
    spec.private_endpoint.port = private.1;
    spec.private_endpoint.host = private.0.to_owned();
    let work = async {
        let made = admin(&cluster).await?.create(format!("custom-spu-{id}"), false, spec).await;
        made.map_err(|error| format!("{error:#}"))
    };
    block_on(work, options)
}
