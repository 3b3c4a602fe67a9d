//! A certificate authority of one's own, so that TLS is on from the first start.
//!
//! Why it exists: a node on a laptop has no certificate, and plain text is no default. The authority
//! is made once and lives as long as the directory; the server's certificate is renewed from it.
//! The clock is passed in. It knows no transport.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use serde::{Deserialize, Serialize};

use crate::files::{FileError, read_if_there, read_secret_if_there, write_whole};
use crate::token::{TokenError, hex, random};

/// Has all TLS of this process done by `ring`. Where another part of the program brings a second
/// library, nobody chooses for us. Does nothing the second time.
pub fn use_ring() {
    // An error says that a library was chosen before, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

const DAY: Duration = Duration::from_secs(86_400);
const AUTHORITY_DAYS: u32 = 20 * 365;
/// Some clients refuse server certificates that are valid for more than 825 days.
const SERVER_DAYS: u32 = 800;
/// Renewed at a start with less than this left, so that a node may run a year between starts.
const RENEW_DAYS: u32 = 400;
/// Certificates are valid from this long ago on, for clients whose clocks are behind.
const BACKDATED: Duration = Duration::from_secs(3600);

/// Names that every server certificate has.
pub const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// TLS that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] TokenError),
    /// A key or name that makes no certificate.
    #[error("{what}: {source}")]
    Certificate {
        /// What was being made or read.
        what: String,
        /// The cause.
        source: rcgen::Error,
    },
    /// The clock is off.
    #[error("the clock stands before 1970; set it")]
    Clock,
}

fn certificate_error(what: impl Into<String>) -> impl FnOnce(rcgen::Error) -> TlsError {
    let what = what.into();
    move |source| TlsError::Certificate { what, source }
}

/// A server's certificate and the authority that clients must trust, all PEM.
#[derive(Clone)]
pub struct ServerIdentity {
    /// The authority's certificate.
    pub ca_pem: String,
    /// The server's certificate.
    pub certificate_pem: String,
    /// The server's private key.
    pub key_pem: String,
}

/// What is known of the certificates without parsing them.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Validity {
    authority_until_s: u64,
    server_until_s: u64,
    names: BTreeSet<String>,
}

/// The files of a TLS directory: `ca.pem` for clients; `ca-key.pem` and `server-key.pem` for the
/// owner only; `server.pem`; `validity.json`.
#[derive(Clone, Debug)]
pub struct TlsDirectory(PathBuf);

impl TlsDirectory {
    /// The directory at `path`, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where the authority's certificate is, which clients need.
    pub fn ca_path(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The server's identity for [`LOCAL_NAMES`] and `names`, made or renewed where needed: when
    /// there is none, when it lacks a name, when it is near its end, or when the authority is.
    ///
    /// # Errors
    /// When files cannot be read or written, a key is damaged, or a name is no host name.
    pub fn identity(&self, names: &[String], now: SystemTime) -> Result<ServerIdentity, TlsError> {
        let now_s = now.duration_since(UNIX_EPOCH).map_err(|_| TlsError::Clock)?.as_secs();
        let names: BTreeSet<String> = LOCAL_NAMES
            .iter()
            .map(|name| (*name).to_owned())
            .chain(names.iter().cloned())
            .collect();
        let validity = self.validity()?;
        let (ca_pem, ca_key, authority_until_s) = self.authority(validity.as_ref(), now_s)?;
        if let Some(validity) = validity {
            let lasts = validity.server_until_s > now_s + u64::from(RENEW_DAYS) * DAY.as_secs();
            let same_authority = validity.authority_until_s == authority_until_s;
            if lasts && same_authority && names.is_subset(&validity.names) {
                let certificate_pem = read_if_there(&self.path("server.pem"))?;
                let key_pem = read_secret_if_there(&self.path("server-key.pem"))?;
                if let Some((certificate_pem, key_pem)) = certificate_pem.zip(key_pem) {
                    return Ok(ServerIdentity { ca_pem, certificate_pem, key_pem });
                }
            }
        }
        self.renew(ca_pem, ca_key, authority_until_s, names, now_s)
    }

    fn validity(&self) -> Result<Option<Validity>, TlsError> {
        let text = read_if_there(&self.path("validity.json"))?;
        // A damaged record only means that certificates are made anew.
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// The authority's certificate, key and end.
    fn authority(
        &self,
        validity: Option<&Validity>,
        now_s: u64,
    ) -> Result<(String, KeyPair, u64), TlsError> {
        let (certificate, key) = (self.ca_path(), self.path("ca-key.pem"));
        let stored = read_if_there(&certificate)?.zip(read_secret_if_there(&key)?);
        if let Some(((pem, key_pem), validity)) = stored.zip(validity) {
            let needed_s = now_s + u64::from(SERVER_DAYS) * DAY.as_secs();
            if validity.authority_until_s > needed_s {
                let key_pair = KeyPair::from_pem(&key_pem)
                    .map_err(certificate_error(format!("reading {}", key.display())))?;
                return Ok((pem, key_pair, validity.authority_until_s));
            }
        }
        let key_pair = KeyPair::generate().map_err(certificate_error("making a key"))?;
        let until_s = now_s + u64::from(AUTHORITY_DAYS) * DAY.as_secs();
        let mut params = authority_params(&key_pair);
        set_validity(&mut params, now_s, until_s);
        params.serial_number = Some(serial()?);
        let pem = params
            .self_signed(&key_pair)
            .map_err(certificate_error("signing the authority's certificate"))?
            .pem();
        write_whole(&key, key_pair.serialize_pem().as_bytes(), true)?;
        write_whole(&certificate, pem.as_bytes(), false)?;
        Ok((pem, key_pair, until_s))
    }

    fn renew(
        &self,
        ca_pem: String,
        ca_key: KeyPair,
        authority_until_s: u64,
        names: BTreeSet<String>,
        now_s: u64,
    ) -> Result<ServerIdentity, TlsError> {
        let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())
            .map_err(certificate_error(format!("making a certificate for {names:?}")))?;
        let server_until_s = now_s + u64::from(SERVER_DAYS) * DAY.as_secs();
        set_validity(&mut params, now_s, server_until_s);
        params.serial_number = Some(serial()?);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Falaj node");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(certificate_error("making a key"))?;
        let issuer = Issuer::new(authority_params(&ca_key), ca_key);
        let certificate_pem = params
            .signed_by(&key, &issuer)
            .map_err(certificate_error("signing the server's certificate"))?
            .pem();
        let key_pem = key.serialize_pem();
        let validity = Validity { authority_until_s, server_until_s, names };
        let record = serde_json::to_vec_pretty(&validity).unwrap_or_default();
        write_whole(&self.path("server-key.pem"), key_pem.as_bytes(), true)?;
        write_whole(&self.path("server.pem"), certificate_pem.as_bytes(), false)?;
        write_whole(&self.path("validity.json"), &record, false)?;
        Ok(ServerIdentity { ca_pem, certificate_pem, key_pem })
    }
}

/// A function of the key alone, so that the authority can sign again after a restart.
fn authority_params(key: &KeyPair) -> CertificateParams {
    let fingerprint = falaj_event::hash::domain_hash(b"falaj.ca.v1", &[key.public_key_raw()]);
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let name = format!("Falaj local authority {}", hex(&fingerprint.0[..4]));
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn set_validity(params: &mut CertificateParams, now_s: u64, until_s: u64) {
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(now_s.saturating_sub(BACKDATED.as_secs()));
    params.not_after = epoch + Duration::from_secs(until_s);
}

fn serial() -> Result<SerialNumber, TlsError> {
    let mut bytes = random::<16>()?;
    // Serial numbers are positive and must not begin with a zero byte.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Reads a CA certificate for a client.
///
/// # Errors
/// When the file is not there or cannot be read.
pub fn read_ca(path: &Path) -> Result<Vec<u8>, FileError> {
    match read_if_there(path)? {
        Some(text) => Ok(text.into_bytes()),
        None => Err(FileError::Io {
            doing: "reading",
            path: path.to_owned(),
            source: std::io::ErrorKind::NotFound.into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn days(days: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs((20_000 + days) * 86_400)
    }

    #[test]
    fn the_authority_stays_and_the_certificate_is_renewed_in_time() {
        let directory = tempfile::tempdir().unwrap();
        let tls = TlsDirectory::new(directory.path().join("tls"));
        let first = tls.identity(&[], days(0)).unwrap();
        let same = tls.identity(&[], days(300)).unwrap();
        assert_eq!(same.certificate_pem, first.certificate_pem);
        assert_eq!(same.key_pem, first.key_pem);
        let renewed = tls.identity(&[], days(401)).unwrap();
        assert_ne!(renewed.certificate_pem, first.certificate_pem);
        assert_eq!(renewed.ca_pem, first.ca_pem);
        for (name, mode) in [("ca-key.pem", 0o600), ("server-key.pem", 0o600), ("ca.pem", 0o644)] {
            let metadata = std::fs::metadata(tls.path(name)).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o777, mode, "{name}");
        }
        let much_later = tls.identity(&[], days(19 * 365)).unwrap();
        assert_ne!(much_later.ca_pem, first.ca_pem, "a dying authority is replaced");
    }

    #[test]
    fn a_new_name_makes_a_new_certificate() {
        let directory = tempfile::tempdir().unwrap();
        let tls = TlsDirectory::new(directory.path());
        let first = tls.identity(&[], days(0)).unwrap();
        let named = tls.identity(&["falaj.example".to_owned()], days(0)).unwrap();
        assert_ne!(named.certificate_pem, first.certificate_pem);
        let fewer = tls.identity(&[], days(0)).unwrap();
        assert_eq!(fewer.certificate_pem, named.certificate_pem);
        assert!(tls.identity(&["no\u{e9}".to_owned()], days(0)).is_err());
    }

    #[test]
    fn an_exposed_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let tls = TlsDirectory::new(directory.path());
        tls.identity(&[], days(0)).unwrap();
        let key = tls.path("ca-key.pem");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(tls.identity(&[], days(1)).is_err());
    }
}
