//! The cluster behind TLS, with certificates on both sides.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use falaj_log_fluvio::{FluvioLog, Tls};

use crate::local::{Local, options};
use crate::workload::{Book, Running, check};

/// Certificates for `localhost`, made with the program `openssl`.
fn certificates(dir: &Path) -> Option<()> {
    let openssl = |arguments: &str| {
        let run = Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output();
        run.is_ok_and(|run| run.status.success()).then_some(())
    };
    std::fs::write(
        dir.join("names"),
        "subjectAltName=DNS:localhost,DNS:*.localhost,IP:127.0.0.1\n",
    )
    .ok()?;
    openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca")?;
    for name in ["server", "client"] {
        openssl(&format!(
            "req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN=localhost"
        ))?;
        openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem \
             -days 2 -extfile names"
        ))?;
    }
    Some(())
}

#[test]
fn the_log_goes_through_tls() {
    let certificate_dir = tempfile::tempdir().unwrap();
    let dir = certificate_dir.path();
    if certificates(dir).is_none() {
        println!("skipped: the program openssl is not there");
        return;
    }
    let Some(local) = Local::prepare(None) else { return };
    let path = |name: &str| dir.join(name).display().to_string();
    let arguments = |plain: u16| -> Vec<String> {
        let words = ["--tls", "--enable-client-cert", "--server-cert", &path("server.pem")]
            .map(str::to_owned)
            .into_iter();
        let more = [
            "--server-key".to_owned(),
            path("server.key"),
            "--ca-cert".to_owned(),
            path("ca.pem"),
            "--bind-non-tls-public".to_owned(),
            format!("127.0.0.1:{plain}"),
        ];
        words.chain(more).collect()
    };
    let plain = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (sc, spu) = (arguments(plain()), arguments(plain()));
    let mut local = local.with_arguments(&sc, &spu);
    local.start_sc();
    let mut options = options(&format!("localhost:{}", local.ports.sc_public));
    options.tls = Tls::Files {
        domain: "localhost".into(),
        ca: dir.join("ca.pem"),
        certificate: dir.join("client.pem"),
        key: dir.join("client.key"),
    };
    local.register(&options, "localhost", local.ports.spu_public);
    local.start_spu();

    let mut running = Running::start(&options);
    let mut book = Book::default();
    book.produce(&mut running, &options, 10, 3);
    drop(running);
    check(&book, &options);

    let mut bare = options.clone();
    bare.tls = Tls::Off;
    bare.patience = Duration::from_secs(3);
    let text = FluvioLog::open(bare).err().unwrap().to_string();
    assert!(text.contains("TLS settings"), "{text}");
}
