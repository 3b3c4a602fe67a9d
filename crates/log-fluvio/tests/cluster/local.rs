//! A cluster of one controller and one SPU on this machine, whose processes a test may kill.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use falaj_log_fluvio::{Options, TopicDeclaration, register_spu};

const SPU: i32 = 5001;
const START: Duration = Duration::from_secs(60);

/// Only one test at a time has a cluster of its own: they are about time.
static TURN: Mutex<()> = Mutex::new(());
static DEPLOYMENTS: AtomicU32 = AtomicU32::new(0);

/// A name that no other test uses, in this run or another.
pub fn deployment() -> String {
    let number = DEPLOYMENTS.fetch_add(1, Ordering::SeqCst);
    format!("t{:x}-{number}", std::process::id())
}

/// Options on a cluster, for topics `a` and `b` with three partitions each and `payments` with two.
pub fn options(controller: &str) -> Options {
    let topics = vec![
        TopicDeclaration::new("a", 3),
        TopicDeclaration::new("b", 3),
        TopicDeclaration::new("payments", 2),
    ];
    let mut options = Options::new(controller, deployment(), topics);
    options.patience = Duration::from_secs(60);
    options
}

/// The cluster that `FALAJ_FLUVIO` names.
pub fn given() -> Option<String> {
    let address = std::env::var("FALAJ_FLUVIO").ok().filter(|address| !address.is_empty());
    if address.is_none() {
        println!("skipped: FALAJ_FLUVIO does not name a cluster's controller");
    }
    address
}

fn program() -> Option<PathBuf> {
    if let Ok(named) = std::env::var("FALAJ_FLUVIO_RUN") {
        return Some(PathBuf::from(named));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("fluvio-run")).find(|file| file.is_file())
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Ports of one cluster.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub sc_public: u16,
    pub sc_private: u16,
    pub spu_public: u16,
    pub spu_private: u16,
}

/// The cluster.
pub struct Local {
    _turn: MutexGuard<'static, ()>,
    program: PathBuf,
    dir: tempfile::TempDir,
    data: PathBuf,
    pub ports: Ports,
    sc: Option<Child>,
    spu: Option<Child>,
    sc_arguments: Vec<String>,
    spu_arguments: Vec<String>,
}

impl Local {
    /// Starts a cluster; `None` (and a word about it) where `fluvio-run` is not there.
    pub fn start() -> Option<Self> {
        Self::start_with(None, None)
    }

    /// As [`Self::start`], with the SPU's data in `data` and its clients sent to the port `front`.
    pub fn start_with(data: Option<&Path>, front: Option<u16>) -> Option<Self> {
        let mut local = Self::prepare(data)?;
        local.start_sc();
        let public = front.unwrap_or(local.ports.spu_public);
        local.register(&Options::new(local.controller(), "any", vec![]), "127.0.0.1", public);
        local.start_spu();
        Some(local)
    }

    /// A cluster that is not started yet.
    pub fn prepare(data: Option<&Path>) -> Option<Self> {
        let Some(program) = program() else {
            println!("skipped: fluvio-run is not there (see FALAJ_FLUVIO_RUN)");
            return None;
        };
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let data = data.map_or_else(|| dir.path().join("spu"), Path::to_owned);
        let ports = Ports {
            sc_public: free_port(),
            sc_private: free_port(),
            spu_public: free_port(),
            spu_private: free_port(),
        };
        Some(Self {
            _turn: turn,
            program,
            data,
            dir,
            ports,
            sc: None,
            spu: None,
            sc_arguments: Vec::new(),
            spu_arguments: Vec::new(),
        })
    }

    /// Further arguments of both programs.
    pub fn with_arguments(mut self, sc: &[String], spu: &[String]) -> Self {
        self.sc_arguments = sc.to_vec();
        self.spu_arguments = spu.to_vec();
        self
    }

    /// The controller's public address.
    pub fn controller(&self) -> String {
        format!("127.0.0.1:{}", self.ports.sc_public)
    }

    fn spawn(&self, name: &str, arguments: &[String]) -> Child {
        let log = |end: &str| {
            let path = self.dir.path().join(format!("{name}.{end}"));
            Stdio::from(File::options().append(true).create(true).open(path).unwrap())
        };
        Command::new(&self.program)
            .arg(name)
            .args(arguments)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(log("out"))
            .stderr(log("err"))
            .spawn()
            .unwrap()
    }

    /// Starts the controller and waits until it listens.
    pub fn start_sc(&mut self) {
        let Ports { sc_public, sc_private, .. } = self.ports;
        let mut arguments = vec![
            "--local".to_owned(),
            self.dir.path().join("sc").display().to_string(),
            "--bind-public".to_owned(),
            format!("127.0.0.1:{sc_public}"),
            "--bind-private".to_owned(),
            format!("127.0.0.1:{sc_private}"),
        ];
        arguments.extend(self.sc_arguments.iter().cloned());
        self.sc = Some(self.spawn("sc", &arguments));
        listens(sc_public);
        listens(sc_private);
    }

    /// Tells the controller of the SPU, at this public address.
    pub fn register(&self, options: &Options, host: &str, public: u16) {
        let private = ("127.0.0.1", self.ports.spu_private);
        register_spu(options, SPU, (host, public), private).unwrap();
    }

    /// Starts the SPU and waits until it listens.
    pub fn start_spu(&mut self) {
        let Ports { sc_private, spu_public, spu_private, .. } = self.ports;
        std::fs::create_dir_all(&self.data).unwrap();
        let mut arguments = vec![
            "-i".to_owned(),
            SPU.to_string(),
            "-p".to_owned(),
            format!("127.0.0.1:{spu_public}"),
            "-v".to_owned(),
            format!("127.0.0.1:{spu_private}"),
            "--sc-addr".to_owned(),
            format!("127.0.0.1:{sc_private}"),
            "--log-base-dir".to_owned(),
            self.data.display().to_string(),
        ];
        arguments.extend(self.spu_arguments.iter().cloned());
        self.spu = Some(self.spawn("spu", &arguments));
        listens(spu_public);
    }

    /// `kill -9` of the controller.
    pub fn kill_sc(&mut self) {
        kill(&mut self.sc);
    }

    /// `kill -9` of the SPU.
    pub fn kill_spu(&mut self) {
        kill(&mut self.spu);
    }

    /// SIGSTOP or SIGCONT to the SPU.
    pub fn signal_spu(&self, signal: &str) {
        let id = self.spu.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["sc.out", "sc.err", "spu.out", "spu.err"] {
                let text = std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
                let from = text.len().saturating_sub(2_000);
                println!("--- {name}\n{}", text.get(from..).unwrap_or_default());
            }
        }
        kill(&mut self.spu);
        kill(&mut self.sc);
    }
}

fn kill(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

fn listens(port: u16) {
    let deadline = Instant::now() + START;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "nothing listens on port {port}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
