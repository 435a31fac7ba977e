//! `onrecord login` and `onrecord whoami`: to prove who one is, and to see it.

use std::path::PathBuf;

use clap::Args;
use gateway::SshPrivateKey;
use serde_json::{Value, json};

use super::Context;
use super::asking::text;
use super::token::duration;
use crate::Failure;
use crate::agent::ssh::{Certificate, Keeper, beside};
use crate::agent::{Api, Device, GatewayPlace, Login, LoginProof, Source, SourceArgs, ready};
use crate::output::{Format, Tone, single_line};

const EXAMPLES: &str = "\
Examples:
  onrecord login --gateway https://gateway.internal:6443 --ca gateway.pem          a person, in a browser
  onrecord login --gateway https://gateway.internal:6443 --token-file /var/run/secrets/tokens/onrecord
  onrecord login --gateway https://gateway.internal:6443 --token-command 'gcloud auth print-identity-token'
  onrecord login --ssh                       a key for ssh with a certificate, into the ssh-agent
  onrecord login --ssh --out ~/.ssh/onrecord --connection web1     the same in files, for one connection
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
    /// Makes a key for SSH and gets a short-lived certificate for it; whoever has logged in need not again
    #[arg(long)]
    ssh: bool,
    /// Where the key goes, and the certificate beside it [default: into the ssh-agent]
    #[arg(long, value_name = "FILE", requires = "ssh")]
    out: Option<PathBuf>,
    /// The connections that the certificate opens [default: all that one may use]
    #[arg(long, value_name = "NAME", requires = "ssh")]
    connection: Vec<String>,
    /// How long the certificate holds, such as 15m or 1h [default: 15m, or what the gateway allows]
    #[arg(long, value_name = "TIME", requires = "ssh", value_parser = duration)]
    ttl: Option<u64>,
}

impl LoginArgs {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        if self.ssh {
            return self.certify(context);
        }
        let (who, how, file) = self.sign_in()?;
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

    /// Gets a key of SSH certified.
    fn certify(self, context: &mut Context) -> Result<(), Failure> {
        let keeper = Keeper::of(self.out.clone())?;
        let same = |kept: &Login| {
            self.place
                .gateway
                .as_ref()
                .is_none_or(|url| url.trim_end_matches('/') == kept.gateway.trim_end_matches('/'))
        };
        let source = self.source.clone().source().or_else(Source::of_environment);
        if source.is_none() && !Login::load()?.as_ref().is_some_and(same) {
            self.sign_in()?;
        }
        let (api, proof) = ready(&self.place, source)?;
        let key = SshPrivateKey::generate();
        let certificate = api.certify(&proof, &key.public().to_openssh(), &self.connection, self.ttl)?;
        let about = api.about()?;
        keeper.keep(&key, &certificate)?;
        Issued { api: &api, about: about.get("ssh"), certificate: &certificate, keeper: &keeper }.print(context)
    }

    /// Proves who one is, and keeps how. Says who that is, how that was proven, and where it is kept.
    fn sign_in(&self) -> Result<(Value, String, PathBuf), Failure> {
        let Some(url) = self.place.gateway.clone() else {
            return Err(Failure::usage("which gateway?").hint("name its API: --gateway https://gateway.internal:6443"));
        };
        let ca = self.place.ca.clone().map(|ca| std::path::absolute(&ca).unwrap_or(ca));
        let api = Api::new(&url, ca.clone())?;
        let (proof, how) = match self.source.clone().source() {
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
        Ok((who, how, file))
    }
}

/// A certificate that was got, and how it is used.
struct Issued<'a> {
    api: &'a Api,
    /// What the gateway tells everybody of its SSH.
    about: Option<&'a Value>,
    certificate: &'a Certificate,
    keeper: &'a Keeper,
}

impl Issued<'_> {
    fn print(&self, context: &mut Context) -> Result<(), Failure> {
        let console = &mut context.console;
        let told = &self.certificate.about;
        let host = self.api.host();
        let port = self.about.and_then(|ssh| ssh.get("port")).and_then(Value::as_u64).unwrap_or(22);
        let known = self.about.map(|ssh| format!("[{host}]:{port} {}", text(ssh, "host_key")));
        if console.format() != Format::Table {
            let mut all = told.clone();
            if let (Some(fields), Some(line)) = (all.as_object_mut(), &known) {
                fields.insert("known_hosts".to_owned(), json!(line));
                fields.insert("certificate".to_owned(), json!(self.certificate.line));
            }
            return Ok(console.json(&all)?);
        }
        let open: Vec<_> = strings(told, "connections").collect();
        let who = console.look().paint(Tone::Strong, &single_line(text(told, "identity")));
        let what = format!("until {}: {}", text(told, "expires"), open.join(", "));
        console.line(&format!("{who} has a certificate {}", single_line(&what)))?;
        let databases: Vec<_> = strings(told, "databases").collect();
        let to = match (open.iter().find(|name| !databases.contains(name)), databases.first()) {
            (Some(first), _) => format!("{}@{host}", single_line(first)),
            (None, Some(first)) => format!("-N -L 5432:{}:5432 {host}", single_line(first)),
            (None, None) => host.to_owned(),
        };
        let with = match self.keeper {
            Keeper::Agent(_) => {
                console.line("The ssh-agent keeps it with its key for as long.")?;
                String::new()
            }
            Keeper::File(file) => {
                let beside = beside(file);
                console.line(&format!("Its key is in {}, it is in {}.", file.display(), beside.display()))?;
                format!("-i {} ", file.display())
            }
        };
        console.line(&format!("Next: ssh {with}-p {port} {to}"))?;
        if let Some(line) = &known {
            console.line(&format!("The gateway's line for known_hosts: {}", single_line(line)))?;
        }
        Ok(())
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
