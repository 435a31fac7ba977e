//! One token (a JWS in compact form, RFC 7515 and 7519): is it genuine, is it for this gateway, does it hold now.
//!
//! The checks follow RFC 8725. What is not understood is refused: headers that bring or point to a key, critical
//! extensions, other types of tokens, a token in a token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::{Digest, Evidence, Label, ProofMethod, TokenEvidence};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::Proven;
use crate::claims::Registered;
use crate::json;
use crate::keys::{KID_BYTES_MAX, Key, KeySet, Shape};
use crate::refusal::{Refusal, shown};
use crate::rules::{RuleError, Rules};
use crate::settings::{ALGORITHMS, ALGORITHMS_DEFAULT, IssuerSettings, RuleSettings};

/// The longest token that is read, in bytes.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// How many keys are tried for a token that does not name one.
const CANDIDATES_MAX: usize = 8;
/// The most audiences, algorithms or kept claims of one issuer.
const SETTINGS_MAX: usize = 32;
/// The longest `iss`, in bytes.
const ISSUER_BYTES_MAX: usize = 512;
/// Types that a token of ours may have (`typ`, RFC 8725 section 3.11): any other is a token for another purpose.
const TYPES: [&str; 5] = ["jwt", "at+jwt", "application/jwt", "application/at+jwt", "jose"];
/// Headers that bring a key, point to one, or change what is signed.
const HEADERS_REFUSED: [(&str, &str); 9] = [
    ("crit", "it has a critical extension (`crit`)"),
    ("b64", "it is signed over a payload that is not encoded (`b64`)"),
    ("jwk", "it brings its own key (`jwk`)"),
    ("jku", "it points to keys (`jku`)"),
    ("x5u", "it points to a certificate (`x5u`)"),
    ("cty", "it is a token in a token (`cty`)"),
    ("zip", "it is compressed (`zip`)"),
    ("enc", "it is encrypted (`enc`)"),
    ("epk", "it is encrypted (`epk`)"),
];

/// What a token says about itself before anything is verified: enough to find the issuer and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peeked {
    /// Its `iss`, as claimed.
    pub issuer: String,
    /// The key that it names, as claimed.
    pub kid: Option<String>,
    /// Its algorithm, as claimed.
    pub algorithm: String,
}

/// Reads who claims to have issued a token. Nothing of it is verified.
///
/// # Errors
/// It is no token.
pub fn peek(token: &str) -> Result<Peeked, Refusal> {
    let parts = Parts::split(token)?;
    let header = Header::read(parts.header)?;
    let claims = object(parts.payload, "its second part is no JSON object")?;
    match claims.get("iss") {
        Some(Value::String(issuer)) if (1..=ISSUER_BYTES_MAX).contains(&issuer.len()) => {
            Ok(Peeked { issuer: issuer.clone(), kid: header.kid, algorithm: header.algorithm })
        }
        Some(_) => Err(Refusal::Claims { claim: "iss", what: "is no text, or a long one" }),
        None => Err(Refusal::Claims { claim: "iss", what: "is missing" }),
    }
}

/// One trusted issuer, with its rules compiled.
#[derive(Debug)]
pub struct Issuer {
    settings: IssuerSettings,
    leeway: u64,
    token_max: Option<u64>,
    rules: Rules,
}

impl Issuer {
    /// Checks the settings of an issuer and compiles its rules.
    ///
    /// # Errors
    /// A setting or a rule is wrong; the text names it and says what to write.
    pub fn new(mut settings: IssuerSettings, rules: &[RuleSettings]) -> Result<Self, RuleError> {
        if settings.algorithms.is_empty() {
            settings.algorithms = ALGORITHMS_DEFAULT.iter().map(|name| (*name).to_owned()).collect();
        }
        check(&settings)?;
        let (leeway, token_max) = (settings.leeway.as_secs(), settings.token_max.map(|max| max.as_secs()));
        // A list, whose order no build changes.
        let decides = serde_json::json!([settings.issuer, settings.audiences, settings.algorithms, token_max, leeway,]);
        let rules = Rules::new(&settings.name, &decides.to_string(), rules)?;
        Ok(Self { settings, leeway, token_max, rules })
    }

    /// Its short name here.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// What its tokens have as `iss`.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.settings.issuer
    }

    /// SHA-256 of its settings and rules, as the evidence of each proof has it.
    #[must_use]
    pub fn stable_digest(&self) -> Digest {
        self.rules.digest()
    }

    /// Verifies a token by these keys of the issuer, at this time in seconds since 1970, and maps it to an identity.
    ///
    /// # Errors
    /// The token proves nothing; the text says why.
    pub fn verify(&self, token: &str, keys: &KeySet, now: u64) -> Result<Proven, Refusal> {
        let parts = Parts::split(token)?;
        let header = Header::read(parts.header)?;
        let key = self.verify_signature(&parts, &header, keys)?;
        let claims = object(parts.payload, "its second part is no JSON object")?;
        let registered = Registered::read(&claims)?;
        self.check_claims(&registered, now)?;
        let mapped = self.rules.map(&claims, &registered.actors)?;
        let token = Digest(Sha256::digest(token.as_bytes()).into());
        let evidence = TokenEvidence {
            issuer: registered.issuer,
            subject: registered.subject,
            audience: registered.audience,
            client: registered.client,
            jti: registered.jti,
            issued: registered.issued,
            not_before: registered.not_before,
            expires: registered.expires,
            auth_time: registered.auth_time,
            acr: registered.acr,
            amr: registered.amr,
            actors: registered.actors,
            confirmation: registered.confirmation,
            kid: header.kid,
            algorithm: header.algorithm,
            key: key.thumbprint(),
            keys: keys.document(),
            keys_fetched: keys.fetched(),
            token,
            rule: mapped.rule,
            rules: self.rules.digest(),
            claims: self.kept(&claims),
            verified: now,
        };
        Ok(Proven {
            name: mapped.name,
            groups: mapped.groups,
            on_behalf_of: mapped.on_behalf_of,
            run: mapped.run,
            method: ProofMethod::Jwt,
            credential: format!("jwt:{}", token.hex().get(..16).unwrap_or_default()),
            not_after: registered.expires.saturating_add(self.leeway),
            evidence: Evidence::Token(Box::new(evidence)),
        })
    }

    fn verify_signature<'k>(&self, parts: &Parts<'_>, header: &Header, keys: &'k KeySet) -> Result<&'k Key, Refusal> {
        let allowed = &self.settings.algorithms;
        let known = algorithm(&header.algorithm).filter(|_| allowed.contains(&header.algorithm));
        let Some((shape, algorithm)) = known else {
            return Err(Refusal::Algorithm { algorithm: shown(&header.algorithm), allowed: allowed.join(", ") });
        };
        let mut tried = false;
        for key in keys.candidates(header.kid.as_deref(), shape, &header.algorithm).take(CANDIDATES_MAX) {
            tried = true;
            let verified = jsonwebtoken::crypto::verify(parts.signature, parts.signed, key.decoding(), algorithm);
            if verified.is_ok_and(|genuine| genuine) {
                return Ok(key);
            }
        }
        match (tried, &header.kid) {
            (true, Some(_)) => Err(Refusal::Signature),
            // Without a name, a key that is not published yet looks like a wrong signature.
            (_, kid) => Err(Refusal::UnknownKey {
                issuer: self.name().to_owned(),
                kid: kid.as_deref().map_or_else(|| "without a name (`kid`)".to_owned(), shown),
            }),
        }
    }

    fn check_claims(&self, claims: &Registered, now: u64) -> Result<(), Refusal> {
        let settings = &self.settings;
        if claims.issuer != settings.issuer {
            return Err(Refusal::untrusted(&claims.issuer));
        }
        if !claims.audience.iter().any(|audience| settings.audiences.contains(audience)) {
            let audience: Vec<String> = claims.audience.iter().take(4).map(|audience| shown(audience)).collect();
            let expected: Vec<String> = settings.audiences.iter().map(|audience| shown(audience)).collect();
            return Err(Refusal::Audience { audience: audience.join(", "), expected: expected.join(" or ") });
        }
        // RFC 9449, 7.1 and RFC 8705, 3: who has such a token has to prove the key, too. Here it comes as a bearer's.
        if claims.confirmation.is_some() {
            let what = "binds it to a key, and whoever sends it cannot prove that key here; get one that is not bound";
            return Err(Refusal::Claims { claim: "cnf", what });
        }
        if claims.expires.saturating_add(self.leeway) <= now {
            return Err(Refusal::Expired { seconds_ago: now.saturating_sub(claims.expires) });
        }
        for (claim, time) in [("nbf", claims.not_before), ("iat", claims.issued)] {
            if let Some(time) = time
                && time > now.saturating_add(self.leeway)
            {
                return Err(Refusal::NotYetValid { seconds: time.saturating_sub(now), claim });
            }
        }
        if let Some(max) = self.token_max {
            let issued = claims.issued.ok_or(Refusal::Claims { claim: "iat", what: "is missing" })?;
            let seconds = claims.expires.saturating_sub(issued);
            if seconds > max {
                return Err(Refusal::Lifetime { issuer: self.name().to_owned(), seconds, max });
            }
        }
        Ok(())
    }

    /// The rules alone, for the fuzzer: it cannot sign.
    pub(crate) fn map_for_fuzzing(&self, claims: &Map<String, Value>) -> bool {
        self.rules.map(claims, &[]).is_ok()
    }

    /// The claims that the operator asked to be kept: texts as they are, others as JSON; long ones by digest and length.
    fn kept(&self, claims: &Map<String, Value>) -> Vec<(String, String)> {
        let kept = |name: &String| {
            let text = match claims.get(name)? {
                Value::String(text) => Label::new(text.as_bytes()),
                other => Label::new(other.to_string().as_bytes()),
            };
            Some((name.clone(), text.to_string()))
        };
        self.settings.kept_claims.iter().filter_map(kept).collect()
    }
}

fn check(settings: &IssuerSettings) -> Result<(), RuleError> {
    let fault = |setting, what: String| Err(RuleError::Issuer { issuer: settings.name.clone(), setting, what });
    if !(1..=ISSUER_BYTES_MAX).contains(&settings.issuer.len()) {
        return fault("issuer", format!("must be what its tokens have as `iss`, of at most {ISSUER_BYTES_MAX} bytes"));
    }
    if settings.audiences.is_empty() || settings.audiences.iter().any(String::is_empty) {
        return fault(
            "audiences",
            "must name what its tokens have as `aud` for this gateway; a token for another \
             service would be let in else"
                .to_owned(),
        );
    }
    for (setting, list) in [
        ("audiences", &settings.audiences),
        ("algorithms", &settings.algorithms),
        ("kept_claims", &settings.kept_claims),
    ] {
        if list.len() > SETTINGS_MAX {
            return fault(setting, format!("has more than {SETTINGS_MAX} members"));
        }
    }
    if let Some(name) = settings.algorithms.iter().find(|name| !ALGORITHMS.contains(&name.as_str())) {
        let what = format!("has {}; there are {}", shown(name), ALGORITHMS.join(", "));
        return fault("algorithms", what);
    }
    Ok(())
}

/// What verifies signatures of this name.
fn algorithm(name: &str) -> Option<(Shape, jsonwebtoken::Algorithm)> {
    use jsonwebtoken::Algorithm;
    Some(match name {
        "RS256" => (Shape::Rsa, Algorithm::RS256),
        "RS384" => (Shape::Rsa, Algorithm::RS384),
        "RS512" => (Shape::Rsa, Algorithm::RS512),
        "PS256" => (Shape::Rsa, Algorithm::PS256),
        "PS384" => (Shape::Rsa, Algorithm::PS384),
        "PS512" => (Shape::Rsa, Algorithm::PS512),
        "ES256" => (Shape::P256, Algorithm::ES256),
        "ES384" => (Shape::P384, Algorithm::ES384),
        "EdDSA" | "Ed25519" => (Shape::Ed25519, Algorithm::EdDSA),
        _ => return None,
    })
}

/// The three parts of a token, still encoded.
struct Parts<'t> {
    header: &'t str,
    payload: &'t str,
    signature: &'t str,
    /// What is signed: the first two.
    signed: &'t [u8],
}

impl<'t> Parts<'t> {
    fn split(token: &'t str) -> Result<Self, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::TooLong { bytes: token.len() });
        }
        let malformed = |what| Refusal::Malformed { what };
        let not_three = || malformed("it does not have three parts with dots between them");
        let (signed, signature) = token.rsplit_once('.').ok_or_else(not_three)?;
        let (header, payload) = signed.split_once('.').ok_or_else(not_three)?;
        if payload.contains('.') || header.is_empty() || payload.is_empty() {
            return Err(not_three());
        }
        Ok(Self { header, payload, signature, signed: signed.as_bytes() })
    }
}

/// What a token's header says.
struct Header {
    algorithm: String,
    kid: Option<String>,
}

impl Header {
    fn read(encoded: &str) -> Result<Self, Refusal> {
        let malformed = |what| Refusal::Malformed { what };
        let header = object(encoded, "its first part is no JSON object")?;
        if let Some((_, what)) = HEADERS_REFUSED.iter().find(|(name, _)| header.contains_key(*name)) {
            return Err(malformed(what));
        }
        match header.get("typ") {
            None => {}
            Some(Value::String(kind)) if TYPES.contains(&kind.to_ascii_lowercase().as_str()) => {}
            Some(_) => return Err(malformed("it is a token for another purpose (`typ`)")),
        }
        let Some(Value::String(algorithm)) = header.get("alg") else {
            return Err(malformed("it does not say by which algorithm it is signed (`alg`)"));
        };
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) if kid.len() <= KID_BYTES_MAX => Some(kid.clone()),
            Some(_) => return Err(malformed("the name of its key (`kid`) is no text, or a long one")),
        };
        Ok(Self { algorithm: algorithm.clone(), kid })
    }
}

/// The JSON object in a part of a token.
fn object(encoded: &str, what: &'static str) -> Result<Map<String, Value>, Refusal> {
    let malformed = || Refusal::Malformed { what };
    let text = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| malformed())?;
    json::object(&text).map_err(|_| malformed())
}
