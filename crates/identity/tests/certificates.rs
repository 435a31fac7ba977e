//! Client certificates, made as an authority makes them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use identity::{Certificates, Preset, PresetSettings, Proven, Refusal, RuleSettings};
use model::{Evidence, ProofMethod, RefusedReason};
use rcgen::{CertificateParams, DnType, Issuer, KeyPair, SanType, SerialNumber};

/// 2026-09-22, as `rcgen` and as seconds since 1970.
const NOW: u64 = 1_790_035_200;

fn certificate(names: &[&str], sans: Vec<SanType>) -> Vec<u8> {
    let mut authority = CertificateParams::default();
    authority.distinguished_name = rcgen::DistinguishedName::new();
    authority.distinguished_name.push(DnType::CommonName, "Test authority");
    let authority = Issuer::new(authority, KeyPair::generate().unwrap());
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for (at, name) in names.iter().enumerate() {
        let kind = if at == 0 { DnType::CommonName } else { DnType::CustomDnType(vec![2, 5, 4, 3, at as u64]) };
        params.distinguished_name.push(kind, *name);
    }
    params.subject_alt_names = sans;
    params.serial_number = Some(SerialNumber::from(vec![1, 0xab, 0x10]));
    params.not_before = rcgen::date_time_ymd(2026, 9, 21);
    params.not_after = rcgen::date_time_ymd(2026, 9, 23);
    params.signed_by(&KeyPair::generate().unwrap(), &authority).unwrap().der().to_vec()
}

fn prove(rule: RuleSettings, der: &[u8]) -> Result<Proven, Refusal> {
    Certificates::new("mesh", &[rule]).unwrap().prove(der, NOW)
}

#[test]
fn a_common_name_becomes_an_identity_with_its_evidence() {
    let der = certificate(
        &["planner"],
        vec![
            SanType::DnsName("planner.example.org".try_into().unwrap()),
            SanType::Rfc822Name("planner@example.org".try_into().unwrap()),
            SanType::URI("spiffe://example.org/planner".try_into().unwrap()),
        ],
    );
    let rule =
        RuleSettings { groups: vec!["{claims.dns}".into()], ..RuleSettings::new("cn", "true", "agent:{claims.cn}") };
    let proven = prove(rule, &der).unwrap();
    assert_eq!((proven.name.as_str(), proven.method), ("agent:planner", ProofMethod::Certificate));
    assert_eq!(proven.groups, ["planner.example.org"]);
    assert_eq!(proven.not_after, NOW + 86_400 - NOW % 86_400);
    let Evidence::Certificate(evidence) = proven.evidence else { panic!("a certificate proved it") };
    assert_eq!((evidence.subject.as_str(), evidence.issuer.as_str()), ("CN=planner", "CN=Test authority"));
    assert_eq!((evidence.serial.as_str(), evidence.rule.as_str()), ("01ab10", "mesh/cn"));
    assert_eq!(
        evidence.names,
        ["uri:spiffe://example.org/planner", "dns:planner.example.org", "email:planner@example.org"]
    );
}

#[test]
fn a_svid_is_mapped_by_its_only_uri() {
    let settings = PresetSettings { trust_domain: Some("example.org".into()), ..PresetSettings::default() };
    let rules = Preset::Spiffe.certificate_rules("mesh", &settings).unwrap();
    let uri = |uri: &str| SanType::URI(uri.try_into().unwrap());
    let svid = certificate(&["x"], vec![uri("spiffe://example.org/ns/a")]);
    assert_eq!(prove(rules[0].clone(), &svid).unwrap().name.as_str(), "service:example.org/ns/a");
    let two = certificate(&["x"], vec![uri("spiffe://example.org/ns/a"), uri("spiffe://example.org/ns/b")]);
    assert!(matches!(prove(rules[0].clone(), &two), Err(Refusal::Unmapped { .. })));
    assert!(matches!(prove(rules[0].clone(), &certificate(&["x"], vec![])), Err(Refusal::Unmapped { .. })));
    assert!(
        Preset::Kubernetes
            .certificate_rules("mesh", &PresetSettings { namespaces: vec!["a".into()], ..PresetSettings::default() })
            .is_err()
    );
}

#[test]
fn certificates_that_do_not_hold_or_cannot_be_read_are_refused() {
    let rule = RuleSettings::new("cn", "true", "agent:{claims.cn}");
    let certificates = Certificates::new("mesh", &[rule]).unwrap();
    let der = certificate(&["planner"], vec![]);
    assert_eq!(certificates.prove(&der, NOW - 3 * 86_400).unwrap_err().reason(), RefusedReason::TokenNotYetValid);
    assert_eq!(certificates.prove(&der, NOW + 3 * 86_400).unwrap_err().reason(), RefusedReason::TokenExpired);
    for cut in 0..der.len() {
        assert!(certificates.prove(&der[..cut], NOW).is_err());
    }
    let nameless = certificate(&[], vec![]);
    assert_eq!(certificates.prove(&nameless, NOW).unwrap_err().reason(), RefusedReason::TokenUnmapped);
    let odd = certificate(&["a b"], vec![]);
    assert_eq!(certificates.prove(&odd, NOW).unwrap_err().reason(), RefusedReason::TokenUnmapped);
}
