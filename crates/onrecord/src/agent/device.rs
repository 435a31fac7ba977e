//! Signing in of a person with the device flow: a code on this screen, a browser anywhere (RFC 8628).

use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::Failure;
use crate::http::Client;
use crate::output::single_line;

/// RFC 8628, 3.4.
const GRANT_DEVICE: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// Between two looks, when the issuer does not say (RFC 8628, 3.2), and what is added when it is too often (3.5).
const INTERVAL: Duration = Duration::from_secs(5);
/// The longest that anybody is waited for.
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);
/// A token that holds for less than this is renewed.
const RENEW_BEFORE: u64 = 30;

/// What an issuer gave a person who signed in.
#[derive(Debug, Serialize, Deserialize)]
pub struct Device {
    /// The issuer, for people.
    issuer: String,
    client_id: String,
    token_endpoint: String,
    /// Which of the issuer's tokens the gateway wants.
    wanted: Wanted,
    token: Secret,
    refresh: Option<Secret>,
    /// Until when the token holds, seconds since 1970.
    expires: u64,
}

/// Which of an issuer's tokens says who one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Wanted {
    IdToken,
    AccessToken,
}

/// A text that is not shown.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

impl Device {
    /// Signs in with the issuer that `login` describes: an element of `login` in what the gateway tells everybody.
    ///
    /// # Errors
    /// The issuer cannot be reached or does not do device flows, or the person did not sign in.
    pub fn sign_in(client: &Client, login: &Value) -> Result<Self, Failure> {
        let of = |key: &str| login.get(key).and_then(Value::as_str);
        let missing = || Failure::new("the gateway does not say how people log in");
        let (issuer, client_id) = (of("issuer").ok_or_else(missing)?, of("client_id").ok_or_else(missing)?);
        let failed = |what: &dyn std::fmt::Display| Failure::new(format_args!("{issuer}: {what}"));
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let (_, metadata) = client.get_json(&url, None).map_err(|error| failed(&error))?;
        let endpoint = |key: &str| metadata.get(key).and_then(Value::as_str).map(str::to_owned);
        let (Some(device), Some(token_endpoint)) =
            (endpoint("device_authorization_endpoint"), endpoint("token_endpoint"))
        else {
            return Err(failed(&"this issuer does not offer the device flow")
                .hint("bring a token with --token-file or --token-command instead"));
        };
        // The issuer's own document, and places as safe as the issuer's (OpenID Connect Discovery, 4.3).
        let safe = |url: &str| url.starts_with("https://") || !issuer.starts_with("https://");
        if endpoint("issuer").as_deref() != Some(issuer) || !safe(&device) || !safe(&token_endpoint) {
            return Err(failed(&"what it says of itself is not its own, or names places without TLS"));
        }
        let mut form = vec![("client_id", client_id), ("scope", of("scope").unwrap_or("openid"))];
        form.extend(of("resource").map(|resource| ("resource", resource)));
        let (status, asked) = client.post_form(&device, &form).map_err(|error| failed(&error))?;
        let of_asked = |key: &str| asked.get(key).and_then(Value::as_str);
        let (Some(code), Some(user_code), Some(uri)) =
            (of_asked("device_code"), of_asked("user_code"), of_asked("verification_uri"))
        else {
            return Err(failed(&format_args!("it refused to let anybody sign in (status {status}): {}", said(&asked))));
        };
        show(of_asked("verification_uri_complete"), uri, user_code);
        let wanted = if of("token") == Some("access_token") { Wanted::AccessToken } else { Wanted::IdToken };
        let form = [("grant_type", GRANT_DEVICE), ("device_code", code), ("client_id", client_id)];
        let seconds = |key: &str| asked.get(key).and_then(Value::as_u64).map(Duration::from_secs);
        let deadline = Instant::now() + seconds("expires_in").unwrap_or(WAIT_MAX).min(WAIT_MAX);
        let mut interval = seconds("interval").unwrap_or(INTERVAL).max(Duration::from_millis(200));
        let mut signed_in = Self {
            issuer: issuer.to_owned(),
            client_id: client_id.to_owned(),
            token_endpoint,
            wanted,
            token: Secret(String::new()),
            refresh: None,
            expires: 0,
        };
        loop {
            std::thread::sleep(interval);
            if Instant::now() > deadline {
                return Err(failed(&"nobody signed in in time"));
            }
            let (status, answer) =
                client.post_form(&signed_in.token_endpoint, &form).map_err(|error| failed(&error))?;
            match (status, answer.get("error").and_then(Value::as_str)) {
                (200, None) => {
                    signed_in.take(answer)?;
                    return Ok(signed_in);
                }
                (_, Some("authorization_pending")) => {}
                (_, Some("slow_down")) => interval += INTERVAL,
                (_, Some("access_denied")) => return Err(failed(&"signing in was refused")),
                (_, Some("expired_token")) => return Err(failed(&"nobody signed in in time")),
                _ => return Err(failed(&format_args!("it gave no token (status {status}): {}", said(&answer)))),
            }
        }
    }

    /// The token.
    pub(super) fn token(&self) -> Zeroizing<String> {
        Zeroizing::new(self.token.0.clone())
    }

    /// Gets another token if this one holds no more. Says whether it did.
    pub(super) fn renew(&mut self) -> Result<bool, Failure> {
        if self.expires > now() + RENEW_BEFORE {
            return Ok(false);
        }
        let expired = || {
            Failure::new(format_args!("the sign-in with {} has expired", self.issuer))
                .hint("use `onrecord login` again")
        };
        let refresh = self.refresh.as_ref().ok_or_else(expired)?;
        let form = [("grant_type", "refresh_token"), ("refresh_token", &refresh.0), ("client_id", &self.client_id)];
        let asked = Client::new().post_form(&self.token_endpoint, &form);
        let (status, answer) = asked.map_err(|error| Failure::new(format_args!("{}: {error}", self.issuer)))?;
        if status != 200 {
            return Err(expired());
        }
        self.take(answer)?;
        Ok(true)
    }

    fn take(&mut self, mut answer: Value) -> Result<(), Failure> {
        let mut of = |key: &str| match answer.as_object_mut().and_then(|fields| fields.remove(key)) {
            Some(Value::String(text)) => Some(Secret(text)),
            _ => None,
        };
        let (id, access) = (of("id_token"), of("access_token"));
        if let Some(refresh) = of("refresh_token") {
            self.refresh = Some(refresh);
        }
        let token = match self.wanted {
            Wanted::IdToken => id,
            Wanted::AccessToken => access,
        };
        self.token = token.ok_or_else(|| {
            Failure::new(format_args!("{} gave no token of the kind that the gateway wants", self.issuer))
                .hint("the gateway's operator sets `login.token` and `login.scope` of the issuer")
        })?;
        let holds = answer.get("expires_in").and_then(Value::as_u64).unwrap_or(300);
        self.expires = now() + holds;
        Ok(())
    }
}

/// Tells the person what to do, where results do not go.
fn show(complete: Option<&str>, uri: &str, code: &str) {
    let mut out = std::io::stderr().lock();
    let _ = writeln!(out, "Open {} in a browser", single_line(complete.unwrap_or(uri)));
    let _ = writeln!(out, "and confirm the code  {}", single_line(code));
}

fn said(answer: &Value) -> String {
    let of = |key: &str| answer.get(key).and_then(Value::as_str);
    single_line(of("error_description").or(of("error")).unwrap_or("no reason given")).into_owned()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
