//! Client certificates: from the names in one to an identity, by the same rules as tokens.
//!
//! TLS has checked the chain, the signature and that the client has the key before a certificate comes here. It is read
//! again here for its names, its times, and what the record keeps of it.

use model::{CertificateEvidence, Digest, Evidence, ProofMethod};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::Proven;
use crate::refusal::Refusal;
use crate::rules::{RuleError, Rules};
use crate::settings::RuleSettings;

/// The longest certificate that is read, in bytes.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;
/// The most alternative names of one certificate.
const NAMES_MAX: usize = 32;
/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 512;
/// The common name (RFC 4519, `cn`).
const COMMON_NAME: &str = "2.5.4.3";

/// The rules for client certificates of one authority.
#[derive(Debug)]
pub struct Certificates {
    rules: Rules,
}

impl Certificates {
    /// Compiles the rules for the certificates of the authority with this short name. In them, `claims` has `cn` (if
    /// there is exactly one), `subject`, `uris`, `dns`, `emails`, `serial`, `issuer` and `sha256`.
    ///
    /// # Errors
    /// A rule is wrong; the text names it and says what to write.
    pub fn new(name: &str, rules: &[RuleSettings]) -> Result<Self, RuleError> {
        Ok(Self { rules: Rules::new(name, "certificates", rules)? })
    }

    /// The short name of the authority.
    #[must_use]
    pub fn name(&self) -> &str {
        self.rules.issuer()
    }

    /// SHA-256 of the rules, as the evidence of each proof has it.
    #[must_use]
    pub fn stable_digest(&self) -> Digest {
        self.rules.digest()
    }

    /// Whom a certificate proves, whose chain TLS has verified, at this time in seconds since 1970.
    ///
    /// # Errors
    /// It cannot be read, does not hold now, or no rule gives it an identity.
    pub fn prove(&self, der: &[u8], now: u64) -> Result<Proven, Refusal> {
        let read = Read::new(der)?;
        // TLS checked this too; a session may be opened long after the handshake.
        if now < read.not_before {
            let seconds = read.not_before - now;
            return Err(Refusal::NotYetValid { seconds, claim: "notBefore" });
        }
        if now > read.not_after {
            return Err(Refusal::Expired { seconds_ago: now - read.not_after });
        }
        let mapped = self.rules.map(&read.claims(), &[])?;
        let credential = format!("certificate:{}", read.sha256.hex().get(..16).unwrap_or_default());
        let not_after = read.not_after;
        let tagged = |tag: &str, names: &[String]| names.iter().map(|name| format!("{tag}:{name}")).collect::<Vec<_>>();
        let evidence = CertificateEvidence {
            names: [tagged("uri", &read.uris), tagged("dns", &read.dns), tagged("email", &read.emails)].concat(),
            subject: read.subject,
            issuer: read.issuer,
            serial: read.serial,
            not_before: read.not_before,
            not_after: read.not_after,
            sha256: read.sha256,
            rule: mapped.rule,
            rules: self.rules.digest(),
        };
        Ok(Proven {
            name: mapped.name,
            groups: mapped.groups,
            on_behalf_of: mapped.on_behalf_of,
            run: mapped.run,
            method: ProofMethod::Certificate,
            credential,
            evidence: Evidence::Certificate(Box::new(evidence)),
            not_after,
        })
    }
}

/// What a certificate says.
struct Read {
    common_name: Option<String>,
    subject: String,
    issuer: String,
    serial: String,
    uris: Vec<String>,
    dns: Vec<String>,
    emails: Vec<String>,
    not_before: u64,
    not_after: u64,
    sha256: Digest,
}

impl Read {
    fn new(der: &[u8]) -> Result<Self, Refusal> {
        let malformed = |what| Refusal::Malformed { what };
        if der.len() > CERTIFICATE_BYTES_MAX {
            return Err(Refusal::TooLong { bytes: der.len() });
        }
        let certificate = Certificate::from_der(der).map_err(|_| malformed("the certificate cannot be read"))?;
        let fields = &certificate.tbs_certificate;
        let mut read = Self {
            common_name: common_name(&certificate),
            subject: fields.subject.to_string(),
            issuer: fields.issuer.to_string(),
            serial: fields.serial_number.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect(),
            uris: Vec::new(),
            dns: Vec::new(),
            emails: Vec::new(),
            not_before: fields.validity.not_before.to_unix_duration().as_secs(),
            not_after: fields.validity.not_after.to_unix_duration().as_secs(),
            sha256: Digest(Sha256::digest(der).into()),
        };
        let names =
            fields.get::<SubjectAltName>().map_err(|_| malformed("the names of the certificate cannot be read"))?;
        let names = names.map(|(_, names)| names.0).unwrap_or_default();
        let long = |text: &str| text.len() > NAME_BYTES_MAX;
        if names.len() > NAMES_MAX || long(&read.subject) || long(&read.issuer) {
            return Err(malformed("the certificate has too many names, or too long ones"));
        }
        for name in names {
            let (list, name) = match name {
                GeneralName::UniformResourceIdentifier(name) => (&mut read.uris, name),
                GeneralName::DnsName(name) => (&mut read.dns, name),
                GeneralName::Rfc822Name(name) => (&mut read.emails, name),
                _ => continue,
            };
            if long(name.as_str()) {
                return Err(malformed("the certificate has too many names, or too long ones"));
            }
            list.push(name.as_str().to_owned());
        }
        Ok(read)
    }

    fn claims(&self) -> Map<String, Value> {
        let mut claims = Map::new();
        let mut add = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        add("subject", json!(self.subject));
        add("issuer", json!(self.issuer));
        add("serial", json!(self.serial));
        add("uris", json!(self.uris));
        add("dns", json!(self.dns));
        add("emails", json!(self.emails));
        add("sha256", json!(self.sha256.hex()));
        if let Some(name) = &self.common_name {
            add("cn", json!(name));
        }
        claims
    }
}

/// The common name, if there is exactly one that can be read: of two, none is the name.
fn common_name(certificate: &Certificate) -> Option<String> {
    let subject = &certificate.tbs_certificate.subject;
    let mut names = subject.0.iter().flat_map(|relative| relative.0.iter());
    let mut names = names.by_ref().filter(|name| name.oid.to_string() == COMMON_NAME);
    let (name, more) = (names.next()?, names.next());
    if more.is_some() {
        return None;
    }
    let value = &name.value;
    let text = Utf8StringRef::try_from(value).map(|text| text.as_str().to_owned());
    let text = text.or_else(|_| PrintableStringRef::try_from(value).map(|text| text.as_str().to_owned()));
    let text = text.or_else(|_| Ia5StringRef::try_from(value).map(|text| text.as_str().to_owned()));
    text.ok().filter(|text| !text.is_empty())
}
