//! A certificate authority of the test's own and a certificate for loopback.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

/// A certificate authority with one server certificate for `localhost` and `127.0.0.1`.
#[derive(Debug)]
pub struct Authority {
    dir: tempfile::TempDir,
}

impl Authority {
    /// Makes a new authority and its server certificate, as files.
    pub fn new() -> Authority {
        let dir = tempfile::tempdir().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.distinguished_name.push(DnType::CommonName, "OnRecord test authority");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_key = KeyPair::generate().unwrap();
        let ca_certificate = ca.self_signed(&ca_key).unwrap();
        let issuer = Issuer::new(ca, ca_key);

        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut server = CertificateParams::new(names).unwrap();
        server.distinguished_name.push(DnType::CommonName, "localhost");
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let server_key = KeyPair::generate().unwrap();
        let certificate = server.signed_by(&server_key, &issuer).unwrap();

        let authority = Authority { dir };
        fs::write(authority.ca(), ca_certificate.pem()).unwrap();
        write_secret(&authority.dir.path().join("ca.key"), &issuer.key().serialize_pem());
        fs::write(authority.certificate(), certificate.pem()).unwrap();
        write_secret(&authority.key(), &server_key.serialize_pem());
        authority
    }

    /// The authority's certificate, PEM.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The server's certificate, PEM.
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("server.crt")
    }

    /// The server's private key, PEM, readable by its owner alone.
    pub fn key(&self) -> PathBuf {
        self.dir.path().join("server.key")
    }
}

impl Default for Authority {
    fn default() -> Self {
        Authority::new()
    }
}

/// A client certificate of this authority for a URI, and its key, as files in a directory.
pub fn client_certificate(authority: &Authority, dir: &Path, uri: &str) -> (PathBuf, PathBuf) {
    let ca_key = KeyPair::from_pem(&fs::read_to_string(authority.dir.path().join("ca.key")).unwrap()).unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.distinguished_name.push(DnType::CommonName, "OnRecord test authority");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = Issuer::new(ca, ca_key);
    let mut client = CertificateParams::new(Vec::new()).unwrap();
    client.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let (certificate_file, key_file) = (dir.join("client.crt"), dir.join("client.key"));
    fs::write(&certificate_file, client.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    write_secret(&key_file, &key.serialize_pem());
    (certificate_file, key_file)
}

/// Writes a file that its owner alone may read.
pub(crate) fn write_secret(path: &Path, content: &str) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all(content.as_bytes()).unwrap();
}
