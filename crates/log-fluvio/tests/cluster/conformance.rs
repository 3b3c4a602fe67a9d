//! The suite that every log passes.

use std::sync::Arc;
use std::time::Duration;

use falaj_log::conformance::{ReopenableLog, run};
use falaj_log::{Log, LogError};
use falaj_log_fluvio::{ClusterError, FluvioLog, Options, TopicDeclaration, remove};

use crate::local::{deployment, given, options};

struct OnCluster {
    options: Options,
    log: Option<Arc<FluvioLog>>,
}

impl OnCluster {
    fn new(controller: &str) -> Self {
        let options = options(controller);
        let log = Some(Arc::new(FluvioLog::open(options.clone()).unwrap()));
        Self { options, log }
    }
}

impl ReopenableLog for OnCluster {
    fn log(&self) -> Arc<dyn Log> {
        Arc::clone(self.log.as_ref().unwrap()) as Arc<dyn Log>
    }

    fn reopen(&mut self) -> bool {
        self.log = None;
        self.log = Some(Arc::new(FluvioLog::open(self.options.clone()).unwrap()));
        true
    }
}

impl Drop for OnCluster {
    fn drop(&mut self) {
        self.log = None;
        if !std::thread::panicking() {
            remove(&self.options).unwrap();
        }
    }
}

#[test]
fn the_log_on_fluvio_conforms() {
    let Some(controller) = given() else { return };
    run(|| Box::new(OnCluster::new(&controller)));
}

#[test]
fn errors_name_the_part_and_the_address() {
    // Nothing listens on port 1.
    let mut nowhere = Options::new("127.0.0.1:1", deployment(), vec![]);
    nowhere.patience = Duration::from_millis(300);
    let error = FluvioLog::open(nowhere).err().unwrap();
    let text = error.to_string();
    assert!(text.contains("127.0.0.1:1") && text.contains("controller"), "{text}");
    assert!(text.contains("fluvio-run sc"), "{text}");

    let named = Options::new("127.0.0.1:1", "Wrong_Name", vec![]);
    let text = FluvioLog::open(named).err().unwrap().to_string();
    assert!(text.contains("Wrong_Name"), "{text}");
}

#[test]
fn topics_are_what_was_declared() {
    let Some(controller) = given() else { return };
    let options = options(&controller);
    drop(FluvioLog::open(options.clone()).unwrap());
    drop(FluvioLog::open(options.clone()).unwrap());

    let mut other = options.clone();
    other.topics[0].partitions = 4;
    let text = FluvioLog::open(other).err().unwrap().to_string();
    assert!(text.contains("3 partitions") && text.contains("-a-log"), "{text}");

    let mut short = options.clone();
    let mut c = TopicDeclaration::new("c", 1);
    c.retention_s = Some(3600);
    short.topics.push(c.clone());
    drop(FluvioLog::open(short.clone()).unwrap());
    c.retention_s = None;
    *short.topics.last_mut().unwrap() = c;
    let text = FluvioLog::open(short.clone()).err().unwrap().to_string();
    assert!(text.contains("3600 s") && text.contains("-c-log"), "{text}");

    let log = FluvioLog::open(options.clone()).unwrap();
    let block = falaj_log::StagedBlock {
        topic: falaj_event::TopicId::of("undeclared"),
        partition: 0,
        id: falaj_log::BlockId([1; 16]),
        bytes: b"x"[..].into(),
    };
    let error = log.append(vec![block.clone()]).unwrap_err();
    let LogError::Storage { source, .. } = &error else { panic!("{error}") };
    assert!(matches!(source.downcast_ref(), Some(ClusterError::Undeclared { .. })), "{error}");
    let beyond = falaj_log::StagedBlock {
        topic: falaj_event::TopicId::of("a"),
        partition: 3,
        ..block.clone()
    };
    assert!(log.append(vec![beyond]).unwrap_err().to_string().contains("partition 3"));
    let large = falaj_log::StagedBlock {
        topic: falaj_event::TopicId::of("a"),
        bytes: vec![0; 33 << 20].into(),
        ..block
    };
    assert!(log.append(vec![large]).unwrap_err().to_string().contains("fewer rows"));
    drop(log);
    remove(&options).unwrap();
}
