//! `onrecord login` and `onrecord whoami`: to prove who one is, and to see it.

use clap::Args;
use serde_json::Value;

use super::Context;
use super::asking::text;
use crate::Failure;
use crate::agent::{Api, Device, GatewayPlace, Login, LoginProof, SourceArgs, ready};
use crate::output::{Format, Tone, single_line};

const EXAMPLES: &str = "\
Examples:
  onrecord login --gateway https://gateway.internal:6443 --ca gateway.pem          a person, in a browser
  onrecord login --gateway https://gateway.internal:6443 --token-file /var/run/secrets/tokens/onrecord
  onrecord login --gateway https://gateway.internal:6443 --token-command 'gcloud auth print-identity-token'
In a job of GitHub Actions with `permissions: id-token: write`, or where $ONRECORD_TOKEN is set, no login is needed:
$ONRECORD_GATEWAY is enough.";

/// Arguments of `login`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct LoginArgs {
    #[command(flatten)]
    place: GatewayPlace,
    #[command(flatten)]
    source: SourceArgs,
    /// The issuer to sign in with, where the gateway trusts several
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
}

impl LoginArgs {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        let Some(url) = self.place.gateway.clone() else {
            return Err(Failure::usage("which gateway?").hint("name its API: --gateway https://gateway.internal:6443"));
        };
        let ca = self.place.ca.clone().map(|ca| std::path::absolute(&ca).unwrap_or(ca));
        let api = Api::new(&url, ca.clone())?;
        let (proof, how) = match self.source.source() {
            Some(source) => {
                let how = source.described();
                (LoginProof::Source(source), how)
            }
            None => {
                let about = api.about()?;
                let login = of_issuer(&about, self.issuer.as_deref())?;
                let device = Device::sign_in(&crate::http::Client::new(), login)?;
                (LoginProof::Device(device), format!("a sign-in with {}", text(login, "name")))
            }
        };
        let mut login = Login { gateway: url, ca, proof };
        let token = login.proof(&api)?;
        let who = api.whoami(&token)?;
        let file = login.save()?;
        let console = &mut context.console;
        if console.format() != Format::Table {
            return Ok(console.json(&who)?);
        }
        console.line(&format!("{} by {how}, kept in {}", described(&who, console.look()), file.display()))?;
        let connections = connections(&who);
        Ok(console.line(&match connections.first() {
            None => "It may use no connection yet.".to_owned(),
            Some(first) => {
                format!("May use {}. Next: onrecord run --connection {first} -- psql", connections.join(", "))
            }
        })?)
    }
}

/// The way to log in that the gateway offers: the only one, or that of the named issuer.
fn of_issuer<'a>(about: &'a Value, named: Option<&str>) -> Result<&'a Value, Failure> {
    let all: Vec<&Value> = about.get("login").and_then(Value::as_array).into_iter().flatten().collect();
    let names = || all.iter().map(|one| text(one, "name")).collect::<Vec<_>>().join(", ");
    match (named, all.as_slice()) {
        (None, [one]) => Ok(one),
        (_, []) => Err(Failure::new("this gateway offers no way for people to log in")
            .hint("bring a token with --token-file or --token-command; or its operator adds `login` to an issuer")),
        (None, _) => Err(Failure::usage("this gateway trusts several issuers")
            .hint(format_args!("choose one with --issuer: {}", names()))),
        (Some(named), _) => all.iter().copied().find(|one| text(one, "name") == named).ok_or_else(|| {
            Failure::usage(format_args!("people do not log in with {named:?} here"))
                .hint(format_args!("known: {}", names()))
        }),
    }
}

/// Arguments of `whoami`.
#[derive(Debug, Args)]
pub struct Whoami {
    #[command(flatten)]
    place: GatewayPlace,
    #[command(flatten)]
    source: SourceArgs,
}

impl Whoami {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        let (api, proof) = ready(&self.place, self.source.source())?;
        let who = api.whoami(&proof)?;
        let console = &mut context.console;
        if console.format() != Format::Table {
            return Ok(console.json(&who)?);
        }
        console.line(&format!("{} by {}", described(&who, console.look()), text(&who, "proof")))?;
        for (key, heading) in [("groups", "groups"), ("connections", "may use")] {
            let all: Vec<_> = strings(&who, key).collect();
            if !all.is_empty() {
                console.line(&format!("{heading:<8} {}", single_line(&all.join(", "))))?;
            }
        }
        Ok(())
    }
}

/// Who someone is, on whose behalf and in which run.
fn described(who: &Value, look: crate::output::Look) -> String {
    let of = |key: &str| who.get(key).map(|one| text(one, "value")).filter(|text| !text.is_empty());
    let mut said = look.paint(Tone::Strong, &single_line(of("identity").unwrap_or_default()));
    for (key, words) in [("on_behalf_of", "on behalf of"), ("run", "in")] {
        if let Some(value) = of(key) {
            said.push_str(&format!(" {words} {}", single_line(value)));
        }
    }
    said
}

fn connections(who: &Value) -> Vec<&str> {
    strings(who, "connections").collect()
}

fn strings<'a>(who: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    who.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}
