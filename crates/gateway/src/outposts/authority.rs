//! The authority that outposts and the gateway know each other by.
//!
//! It is made at the first start and has no other use. When it is replaced, both hold for [`OVERLAP`]: outposts get
//! certificates of the new one from then on, and with each the list of both; the gateway shows a certificate of the old
//! one until every outpost has renewed. One that has not by then has a certificate that is expired, too.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use link::trust::{pin_of, provider};
use link::{ALPN_ENROL, ALPN_LINK, ALPN_RENEW, ALPN_WEB, GATEWAY_NAME, OUTPOST_URI};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::OutpostsError;
use super::registry::{Generation, Registry};
use crate::{files, hex, random};

/// How long an outpost's certificate is valid.
pub(super) const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How long two authorities hold: each certificate of an outpost ends within it.
const OVERLAP: Duration = Duration::from_secs(25 * 3600);
/// How long an authority is valid.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// How long the gateway's certificate is valid; a new one is made at every start and once a day.
const GATEWAY_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
/// Certificates are valid from a moment before they are made: clocks differ.
const SKEW: Duration = Duration::from_secs(300);

/// All authorities that hold.
pub(super) struct Authorities {
    /// Oldest first; the last signs, the first that is not past is shown.
    all: Vec<Authority>,
}

struct Authority {
    generation: Generation,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate for an outpost.
pub(super) struct Issued {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) serial: String,
    pub(super) not_before: i64,
    pub(super) not_after: i64,
}

impl Authorities {
    /// Reads them, or makes the first.
    pub(super) fn open(registry: &Registry, now: i64) -> Result<Self, OutpostsError> {
        let generations = registry.generations();
        if generations.is_empty() {
            let first = Authority::make(registry, Generation { number: 1, since: now })?;
            registry.set_generations(vec![first.generation])?;
            return Ok(Self { all: vec![first] });
        }
        let all = generations.into_iter().map(|generation| Authority::read(registry, generation));
        Ok(Self { all: all.collect::<Result<_, _>>()? })
    }

    /// Makes another one, which takes over after the overlap.
    pub(super) fn rotate(&mut self, registry: &Registry, now: i64) -> Result<(), OutpostsError> {
        self.retire(registry, now)?;
        if self.all.len() > 1 {
            return Err(OutpostsError::Rotating);
        }
        let number = self.all.last().map_or(1, |last| last.generation.number + 1);
        let new = Authority::make(registry, Generation { number, since: now })?;
        let generations = self.all.iter().map(|one| one.generation).chain([new.generation]).collect();
        registry.set_generations(generations)?;
        self.all.push(new);
        Ok(())
    }

    /// Drops the one before, once the overlap is over; says whether it did.
    pub(super) fn retire(&mut self, registry: &Registry, now: i64) -> Result<bool, OutpostsError> {
        let overlap = seconds(OVERLAP);
        let over = self.all.get(1).is_some_and(|next| now >= next.generation.since.saturating_add(overlap));
        if over {
            let rest: Vec<_> = self.all.iter().skip(1).map(|one| one.generation).collect();
            registry.set_generations(rest)?;
            let old = self.all.remove(0);
            let _ = fs::remove_file(registry.directory().join(old.generation.file()));
        }
        Ok(over)
    }

    /// The certificates that outposts are to trust.
    pub(super) fn certificates(&self) -> Vec<CertificateDer<'static>> {
        self.all.iter().map(|one| one.certificate.clone()).collect()
    }

    /// The pin of the authority that the gateway's certificate comes from.
    pub(super) fn pin(&self) -> Option<[u8; 32]> {
        pin_of(&self.all.first()?.certificate)
    }

    /// Makes a certificate for whoever has the key of the request, which must be properly signed.
    pub(super) fn issue(&self, request: &[u8], id: &str, now: i64) -> Result<Issued, OutpostsError> {
        let authority = self.all.last().ok_or(OutpostsError::NoAuthority)?;
        let mut request = CertificateSigningRequestParams::from_der(&request.to_vec().into())?;
        let serial = serial();
        let mut params = CertificateParams::default();
        params.distinguished_name = name_of(&format!("OnRecord outpost {id}"));
        params.subject_alt_names = vec![SanType::URI(format!("{OUTPOST_URI}{id}").try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        valid(&mut params, now, LIFETIME);
        // Nothing of what the request asks for is taken but its key.
        request.params = params;
        let certificate = request.signed_by(&authority.issuer)?.der().clone();
        let not_after = now.saturating_add(seconds(LIFETIME));
        Ok(Issued { certificate, serial: hex(&serial), not_before: now, not_after })
    }

    /// The gateway's side of TLS towards outposts, with a certificate that is made for it.
    pub(super) fn server(&self, now: i64) -> Result<Arc<ServerConfig>, OutpostsError> {
        let authority = self.all.first().ok_or(OutpostsError::NoAuthority)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![GATEWAY_NAME.to_owned()])?;
        params.distinguished_name = name_of("OnRecord gateway");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.serial_number = Some(SerialNumber::from_slice(&serial()));
        valid(&mut params, now, GATEWAY_LIFETIME);
        let certificate = params.signed_by(&key, &authority.issuer)?.der().clone();
        let mut roots = RootCertStore::empty();
        for one in &self.all {
            roots.add(one.certificate.clone())?;
        }
        // A newcomer has no certificate; whoever wants more than to join is asked for it afterwards.
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .allow_unauthenticated()
            .build()
            .map_err(|error| OutpostsError::Tls(rustls::Error::General(error.to_string())))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(clients)
            .with_single_cert(
                vec![certificate, authority.certificate.clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )?;
        config.alpn_protocols = [ALPN_LINK, ALPN_ENROL, ALPN_RENEW, ALPN_WEB].map(<[u8]>::to_vec).to_vec();
        // Every connection shows its certificate anew.
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

impl Generation {
    fn file(self) -> String {
        format!("authority-{}.pem", self.number)
    }
}

impl Authority {
    fn make(registry: &Registry, generation: Generation) -> Result<Self, OutpostsError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name_of(&format!("OnRecord outposts {}", generation.number));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(SerialNumber::from_slice(&serial()));
        valid(&mut params, generation.since, AUTHORITY_LIFETIME);
        let certificate = params.self_signed(&key)?;
        let text = format!("{}{}", certificate.pem(), key.serialize_pem());
        files::replace(&registry.directory().join(generation.file()), text.as_bytes())?;
        Ok(Self { generation, certificate: certificate.der().clone(), issuer: Issuer::new(params, key) })
    }

    fn read(registry: &Registry, generation: Generation) -> Result<Self, OutpostsError> {
        let path = registry.directory().join(generation.file());
        let text = fs::read(&path)?;
        let damaged = || OutpostsError::Damaged(path.clone());
        let certificate = CertificateDer::from_pem_slice(&text).map_err(|_| damaged())?;
        let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| damaged())?;
        let key = KeyPair::try_from(&key)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { generation, certificate, issuer })
    }
}

fn name_of(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn valid(params: &mut CertificateParams, now: i64, lifetime: Duration) {
    let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(now.unsigned_abs());
    params.not_before = now - SKEW;
    params.not_after = now + lifetime;
}

fn serial() -> [u8; 16] {
    let mut serial = random::bytes::<16>();
    // Positive, and without leading zeros: RFC 5280, 4.1.2.2.
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    serial
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_survives_a_restart_and_a_rotation_overlaps() {
        let place = tempfile::tempdir().unwrap();
        let registry = Registry::open(place.path()).unwrap();
        let first = Authorities::open(&registry, 1_000_000_000).unwrap().pin().unwrap();
        let registry = Registry::open(place.path()).unwrap();
        let mut authorities = Authorities::open(&registry, 1_000_000_001).unwrap();
        assert_eq!(authorities.pin().unwrap(), first);
        authorities.rotate(&registry, 1_000_000_010).unwrap();
        assert_eq!(authorities.pin().unwrap(), first, "outposts know no other yet");
        assert_eq!(authorities.certificates().len(), 2);
        assert!(matches!(authorities.rotate(&registry, 1_000_000_020), Err(OutpostsError::Rotating)));
        assert!(!authorities.retire(&registry, 1_000_000_020).unwrap());
        assert!(authorities.retire(&registry, 1_000_000_010 + seconds(OVERLAP)).unwrap());
        assert_ne!(authorities.pin().unwrap(), first);
        let registry = Registry::open(place.path()).unwrap();
        assert_eq!(Authorities::open(&registry, 0).unwrap().pin(), authorities.pin());
        authorities.server(1_000_000_010).unwrap();
    }

    #[test]
    fn only_a_request_that_is_signed_gets_a_certificate() {
        let place = tempfile::tempdir().unwrap();
        let registry = Registry::open(place.path()).unwrap();
        let authorities = Authorities::open(&registry, 1_000_000_000).unwrap();
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
        let issued = authorities.issue(&request, "op_1", 1_000_000_000).unwrap();
        assert_eq!(issued.serial.len(), 32);
        let mut forged = request.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert!(authorities.issue(&forged, "op_1", 1_000_000_000).is_err());
        assert!(authorities.issue(b"hello", "op_1", 1_000_000_000).is_err());
    }

    /// Whether an outpost's side of TLS and the gateway's come to terms.
    async fn agree(client: rustls::ClientConfig, server: Arc<ServerConfig>) -> bool {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let name = rustls::pki_types::ServerName::try_from(GATEWAY_NAME).unwrap();
        let connecting = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, near);
        let (ours, theirs) = tokio::join!(tokio_rustls::TlsAcceptor::from(server).accept(far), connecting);
        ours.is_ok() && theirs.is_ok()
    }

    #[tokio::test]
    async fn a_newcomer_believes_the_pinned_authority_and_a_member_those_it_was_told() {
        let now = super::super::now();
        let (here, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let registry = Registry::open(here.path()).unwrap();
        let ours = Authorities::open(&registry, now).unwrap();
        let other = Authorities::open(&Registry::open(elsewhere.path()).unwrap(), now).unwrap();
        let pin = ours.pin().unwrap();
        assert!(agree(link::trust::newcomer(pin).unwrap(), ours.server(now).unwrap()).await);
        assert!(!agree(link::trust::newcomer(pin).unwrap(), other.server(now).unwrap()).await, "another gateway");

        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
        let member = |authorities: &Authorities, signer: &Authorities| {
            let certificate = signer.issue(&request, "op_1", now).unwrap().certificate;
            let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
            link::trust::member(&authorities.certificates(), certificate, key, ALPN_LINK).unwrap()
        };
        assert!(agree(member(&ours, &ours), ours.server(now).unwrap()).await);
        assert!(!agree(member(&other, &ours), ours.server(now).unwrap()).await, "it believes another authority");
        assert!(!agree(member(&ours, &other), ours.server(now).unwrap()).await, "its certificate is another's");
    }
}
