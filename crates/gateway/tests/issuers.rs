//! The keys of real issuers: found, renewed, missed, kept while an issuer is away; and how often it is asked.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gateway::issuers::{IssuerSource, Issuers, IssuersError, KeysFrom, Timing};
use identity::{IssuerSettings, Preset, PresetSettings, Proven, Refusal, RuleSettings};
use model::{IssuerKey, RefusedReason};
use serde_json::{Value, json};
use testkit::issuer::{Issuer, Provider};
use testkit::process::{PATIENCE, poll};

const AUDIENCE: &str = "https://gateway.example";

/// As the product has it, but for tests that wait for it.
const QUICK: Timing = Timing {
    refresh: Duration::from_secs(600),
    unknown_key: Duration::from_millis(200),
    stale: Duration::from_secs(24 * 3600),
    wait: PATIENCE,
    request: Duration::from_secs(10),
};

/// What the hook was told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<IssuerKey>>>);

impl Told {
    fn kids(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|key| key.kid.clone().unwrap()).collect()
    }
}

fn rules() -> Vec<RuleSettings> {
    let delegated = RuleSettings {
        on_behalf_of: Some("human:{claims.sub}".to_owned()),
        ..RuleSettings::new("delegated", "size(act) == 1", "agent:{act[0]}")
    };
    vec![delegated, RuleSettings::new("all", "true", "agent:{claims.sub}")]
}

fn source(url: &str, keys: KeysFrom) -> IssuerSource {
    named("mock", url, keys)
}

fn named(name: &str, url: &str, keys: KeysFrom) -> IssuerSource {
    let issuer = identity::Issuer::new(IssuerSettings::new(name, url, &[AUDIENCE]), &rules()).unwrap();
    IssuerSource { issuer: Arc::new(issuer), keys, ca: None }
}

fn start(sources: Vec<IssuerSource>, timing: Timing) -> (Arc<Issuers>, Told) {
    let told = Told::default();
    let list = Arc::clone(&told.0);
    let hook = Arc::new(move |key| list.lock().unwrap().push(key));
    (Arc::new(Issuers::start(sources, timing, hook).unwrap()), told)
}

fn discovered(issuer: &Issuer) -> (Arc<Issuers>, Told) {
    start(vec![source(&issuer.url(), KeysFrom::Discovery)], QUICK)
}

fn prove(issuers: &Issuers, token: &str) -> Result<Proven, Refusal> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(issuers.prove(token))
}

fn claims(sub: &str) -> Value {
    json!({"sub": sub, "aud": AUDIENCE})
}

#[track_caller]
fn assert_reason(result: Result<Proven, Refusal>, reason: RefusedReason) {
    assert_eq!(result.map(|proven| proven.name).map_err(|refusal| refusal.reason()), Err(reason));
}

#[test]
fn keys_are_discovered_and_each_is_told_at_its_first_use() {
    let issuer = Issuer::start();
    let (issuers, told) = discovered(&issuer);
    let token = issuer.mint(claims("planner"));
    assert_eq!(prove(&issuers, &token).unwrap().name.as_str(), "agent:planner");
    assert_eq!(prove(&issuers, &issuer.mint(claims("other"))).unwrap().name.as_str(), "agent:other");
    assert_eq!(told.kids(), ["first"]);
    let key = told.0.lock().unwrap()[0].clone();
    assert_eq!(key.issuer, issuer.url());
    let jwk: Value = serde_json::from_str(&key.jwk).unwrap();
    assert_eq!((jwk["kty"].as_str(), jwk.get("d")), (Some("RSA"), None));
    assert_eq!(issuer.fetches(), 1);
    let standing = &issuers.standings()[0];
    assert_eq!((standing.name.as_str(), standing.keys, &standing.failure), ("mock", 1, &None));
}

#[test]
fn wrong_tokens_of_a_real_issuer_are_refused() {
    let issuer = Issuer::start();
    issuer.hide("unpublished", "RS256");
    let (issuers, told) = start(
        vec![source(&issuer.url(), KeysFrom::Discovery)],
        Timing { unknown_key: Duration::from_secs(3600), ..QUICK },
    );
    let mint = |over: Value| {
        let mut all = claims("planner");
        all.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
        issuer.mint(all)
    };
    assert_reason(prove(&issuers, &mint(json!({"aud": "https://other.example"}))), RefusedReason::TokenAudience);
    assert_reason(prove(&issuers, &mint(json!({"exp": 1_000_000_000}))), RefusedReason::TokenExpired);
    assert_reason(
        prove(&issuers, &mint(json!({"nbf": 4_000_000_000_u64, "exp": 4_000_000_100_u64}))),
        RefusedReason::TokenNotYetValid,
    );
    assert_reason(prove(&issuers, &mint(json!({"iss": "https://other.example"}))), RefusedReason::TokenIssuer);
    assert_reason(prove(&issuers, &mint(json!({"padding": "x".repeat(16 * 1024)}))), RefusedReason::TokenTooLong);
    assert_reason(prove(&issuers, &mint(json!({"sub": "a b"}))), RefusedReason::TokenUnmapped);
    assert_reason(prove(&issuers, &mint(json!({"exp": null}))), RefusedReason::TokenClaims);
    let unknown = issuer.mint_with(claims("x"), json!({}), Some("unpublished"));
    assert_reason(prove(&issuers, &unknown), RefusedReason::TokenKey);
    let posing = issuer.mint_with(claims("x"), json!({"kid": "first"}), Some("unpublished"));
    assert_reason(prove(&issuers, &posing), RefusedReason::TokenSignature);
    let good = mint(json!({}));
    let unsigned = format!("{}.", &good[..good.rfind('.').unwrap()]);
    assert_reason(prove(&issuers, &unsigned), RefusedReason::TokenSignature);
    assert_eq!(told.kids(), Vec::<String>::new());
    let delegated = mint(json!({"sub": "ada", "act": {"sub": "planner"}}));
    let proven = prove(&issuers, &delegated).unwrap();
    assert_eq!((proven.name.as_str(), proven.on_behalf_of.unwrap().name.as_str()), ("agent:planner", "human:ada"));
}

#[test]
fn a_rotation_under_load_refuses_no_token() {
    let issuer = Issuer::start();
    let (issuers, told) = discovered(&issuer);
    let first = issuer.mint(claims("planner"));
    prove(&issuers, &first).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut proven = 0_u32;
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        prove(&issuers, &first).unwrap();
                        proven += 1;
                    }
                    proven
                })
            })
            .collect();
        for (kid, algorithm) in [("second", "ES256"), ("third", "PS256"), ("fourth", "EdDSA")] {
            // As issuers rotate: the new key is published, then used. The bound on asking may be in the way for a moment.
            issuer.publish(kid, algorithm);
            let token = issuer.mint_with(claims(kid), json!({}), Some(kid));
            let proven = poll("the new key to be known", || prove(&issuers, &token).ok());
            assert_eq!(proven.name.as_str(), format!("agent:{kid}"));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for thread in load {
            assert!(thread.join().unwrap() > 0);
        }
    });
    assert_eq!(told.kids(), ["first", "second", "third", "fourth"]);
    // A key that is withdrawn proves nothing once that is known.
    issuer.withdraw("first");
    issuer.publish("fifth", "RS256");
    let token = issuer.mint_with(claims("x"), json!({}), Some("fifth"));
    poll("the newest key to be known", || prove(&issuers, &token).ok());
    assert_reason(prove(&issuers, &first), RefusedReason::TokenKey);
}

#[test]
fn tokens_with_unknown_keys_do_not_make_it_ask_more() {
    let issuer = Issuer::start();
    issuer.hide("unpublished", "RS256");
    let timing = Timing { unknown_key: Duration::from_secs(3600), ..QUICK };
    let (issuers, _) = start(vec![source(&issuer.url(), KeysFrom::Discovery)], timing);
    let (good, unknown) = (issuer.mint(claims("x")), issuer.mint_with(claims("x"), json!({}), Some("unpublished")));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert_reason(prove(&issuers, &unknown), RefusedReason::TokenKey);
                    prove(&issuers, &good).unwrap();
                }
            });
        }
    });
    // The first fetch counts: none was due since.
    assert_eq!(issuer.fetches(), 1);
}

#[test]
fn many_who_wait_are_one_fetch() {
    let issuer = Issuer::start();
    let (issuers, _) = start(
        vec![source(&issuer.url(), KeysFrom::Discovery)],
        Timing { unknown_key: Duration::from_secs(1), ..QUICK },
    );
    prove(&issuers, &issuer.mint(claims("x"))).unwrap();
    issuer.publish("second", "ES256");
    let token = issuer.mint_with(claims("x"), json!({}), Some("second"));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| poll("the key", || prove(&issuers, &token).ok()));
        }
    });
    assert_eq!(issuer.fetches(), 2);
}

#[test]
fn an_issuer_that_is_away_is_missed_only_by_new_keys() {
    let mut issuer = Issuer::start();
    let timing = Timing { refresh: Duration::from_millis(100), ..QUICK };
    let (issuers, _) = start(vec![source(&issuer.url(), KeysFrom::Discovery)], timing);
    issuer.hide("later", "RS256");
    let (token, later) = (issuer.mint(claims("planner")), issuer.mint_with(claims("x"), json!({}), Some("later")));
    prove(&issuers, &token).unwrap();
    issuer.stop();
    let failure = poll("the failure to be noticed", || issuers.standings()[0].failure.clone());
    assert!(failure.contains(&issuer.url()), "{failure}");
    prove(&issuers, &token).unwrap();
    assert_reason(prove(&issuers, &later), RefusedReason::TokenKey);
    issuer.restart();
    issuer.publish("later", "RS256");
    poll("the issuer to be back", || prove(&issuers, &later).ok());
    assert_eq!(issuers.standings()[0].failure, None);
}

#[test]
fn answers_that_are_none_change_no_keys() {
    let issuer = Issuer::start();
    let timing = Timing { refresh: Duration::from_millis(100), request: Duration::from_millis(500), ..QUICK };
    let (issuers, _) = start(vec![source(&issuer.url(), KeysFrom::Discovery)], timing);
    let token = issuer.mint(claims("planner"));
    prove(&issuers, &token).unwrap();
    for (how, says) in [
        ("error", "status 500"),
        ("garbage", "no discovery document"),
        ("other-issuer", "configure exactly that"),
        ("redirect", "redirect"),
        ("huge", "limit"),
        ("hang", "timeout"),
    ] {
        issuer.behave(how);
        poll(says, || issuers.standings()[0].failure.clone().filter(|failure| failure.contains(says)));
        prove(&issuers, &token).unwrap();
        issuer.behave("well");
        poll("a good answer", || issuers.standings()[0].failure.is_none().then_some(()));
    }
    let place = KeysFrom::Url(format!("{}/jwks", issuer.url()));
    let (issuers, _) = start(vec![source(&issuer.url(), place)], timing);
    prove(&issuers, &token).unwrap();
    issuer.behave("private");
    poll("the private key to be seen", || {
        issuers.standings()[0].failure.clone().filter(|what| what.contains("private"))
    });
    prove(&issuers, &token).unwrap();
}

#[test]
fn keys_that_were_never_there_refuse_with_the_reason() {
    let mut issuer = Issuer::start();
    let token = issuer.mint(claims("planner"));
    issuer.stop();
    let timing = Timing { wait: Duration::from_millis(300), ..QUICK };
    let (issuers, told) = start(vec![source(&issuer.url(), KeysFrom::Discovery)], timing);
    assert_reason(prove(&issuers, &token), RefusedReason::IssuerUnreachable);
    issuer.restart();
    poll("the issuer to be there", || prove(&issuers, &token).ok());
    assert_eq!(told.kids(), ["first"]);
}

#[test]
fn keys_that_cannot_be_renewed_do_not_hold_for_ever() {
    let mut issuer = Issuer::start();
    let timing = Timing {
        stale: Duration::from_secs(1),
        refresh: Duration::from_millis(100),
        wait: Duration::from_millis(100),
        ..QUICK
    };
    let (issuers, _) = start(vec![source(&issuer.url(), KeysFrom::Discovery)], timing);
    let token = issuer.mint(claims("planner"));
    poll("the keys", || prove(&issuers, &token).ok());
    issuer.stop();
    let refusal = poll("the keys to have been kept long enough", || prove(&issuers, &token).err());
    assert_eq!(refusal.reason(), RefusedReason::IssuerUnreachable);
}

#[test]
fn keys_come_from_a_url_or_a_file_too() {
    let issuer = Issuer::start();
    let url = format!("{}/jwks", issuer.url());
    let token = issuer.mint(claims("planner"));
    let (by_url, _) = start(vec![source(&issuer.url(), KeysFrom::Url(url.clone()))], QUICK);
    prove(&by_url, &token).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), testkit::http::get(&url).text()).unwrap();
    let timing = Timing { refresh: Duration::from_millis(50), ..QUICK };
    let (by_file, _) = start(vec![source("https://never.asked", KeysFrom::File(file.path().to_owned()))], timing);
    let of_file = issuer.mint(json!({"iss": "https://never.asked", "sub": "planner", "aud": AUDIENCE}));
    prove(&by_file, &of_file).unwrap();
    std::fs::write(file.path(), "{}").unwrap();
    poll("the file to be read again", || by_file.standings()[0].failure.clone());
    prove(&by_file, &of_file).unwrap();
}

#[test]
fn the_issuers_certificate_is_checked() {
    let issuer = Issuer::start_tls();
    let ca = std::fs::read(issuer.ca()).unwrap();
    let with = |ca: Option<Vec<u8>>| IssuerSource { ca, ..source(&issuer.url(), KeysFrom::Discovery) };
    let (trusting, _) = start(vec![with(Some(ca))], QUICK);
    poll("the keys", || (trusting.standings()[0].keys == 1).then_some(()));
    let (strict, _) = start(vec![with(None)], QUICK);
    poll("the certificate to be refused", || strict.standings()[0].failure.clone());
    assert_eq!(strict.standings()[0].keys, 0);
    let start = |source| Issuers::start(vec![source], QUICK, Arc::new(|_| {}));
    assert!(matches!(start(with(Some(b"no pem".to_vec()))), Err(IssuersError::Place { .. })));
    assert!(matches!(start(source("http://issuer.example", KeysFrom::Discovery)), Err(IssuersError::Place { .. })));
}

#[test]
fn a_change_of_the_configuration_keeps_the_keys_of_what_stays() {
    let (one, two) = (Issuer::start(), Issuer::start());
    let (issuers, told) = start(vec![source(&one.url(), KeysFrom::Discovery)], QUICK);
    let (token_one, token_two) = (one.mint(claims("x")), two.mint(claims("y")));
    prove(&issuers, &token_one).unwrap();
    assert_reason(prove(&issuers, &token_two), RefusedReason::TokenIssuer);
    let both = vec![source(&one.url(), KeysFrom::Discovery), named("two", &two.url(), KeysFrom::Discovery)];
    let changed = issuers.replaced(both).unwrap();
    drop(issuers);
    prove(&changed, &token_one).unwrap();
    prove(&changed, &token_two).unwrap();
    assert_eq!((one.fetches(), two.fetches()), (1, 1));
    assert_eq!(told.kids(), ["first", "first"]);
    let twice = vec![source(&one.url(), KeysFrom::Discovery), named("b", &one.url(), KeysFrom::Discovery)];
    assert!(matches!(changed.replaced(twice), Err(IssuersError::Twice(..))));
    let less = changed.replaced(vec![named("two", &two.url(), KeysFrom::Discovery)]).unwrap();
    assert_reason(prove(&less, &token_one), RefusedReason::TokenIssuer);
    prove(&less, &token_two).unwrap();
}

#[test]
fn an_openid_provider_proves_programs_and_people() {
    let provider = Provider::start(AUDIENCE);
    let mut rules = Preset::ClientCredentials.rules("corp", &PresetSettings::default()).unwrap();
    rules.push(RuleSettings {
        groups: vec!["{claims.groups}".to_owned()],
        ..RuleSettings::new(
            "people",
            "claims.client_id == \"onrecord\" || claims.aud == \"onrecord\"",
            "human:{claims.sub}",
        )
    });
    let settings = IssuerSettings::new("corp", &provider.url(), &[AUDIENCE, Provider::LOGIN_CLIENT]);
    let issuer = Arc::new(identity::Issuer::new(settings, &rules).unwrap());
    let (issuers, _) = start(vec![IssuerSource { issuer, keys: KeysFrom::Discovery, ca: None }], QUICK);
    let program = prove(&issuers, &provider.client_credentials()).unwrap();
    assert_eq!(program.name.as_str(), "service:reporting");
    let (id, access) = provider.device_login("ada");
    let person = prove(&issuers, &access).unwrap();
    assert_eq!((person.name.as_str(), person.groups.as_slice()), ("human:ada", &["people".to_owned()][..]));
    assert_eq!(prove(&issuers, &id).unwrap().name.as_str(), "human:ada");
}
