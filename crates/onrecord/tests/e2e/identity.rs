//! Tokens of real issuers, connection tokens, client certificates: who is on the record, how that was proven, and what is
//! refused in which words.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use testkit::client_certificate;
use testkit::issuer::{Issuer, Provider};
use testkit::postgres::binary;
use testkit::process::{self, Finished, poll};
use testkit::{Gateway, Postgres, Target};

use crate::plan;

const RULES: &str = r#"
[[issuers.corp.rules]]
name = "agents"
when = 'size(act) == 1'
identity = "agent:{act[0]}"
on_behalf_of = "human:{claims.sub}"
groups = ["agents"]
run = "conversation:{claims.sid}"

[[issuers.corp.rules]]
name = "people"
when = 'has(claims.email)'
identity = "human:{claims.email}"
groups = ["{claims.groups}"]
"#;

fn trusting(issuer: &Issuer) -> String {
    format!(
        "[issuers.corp]\nissuer = \"{}\"\naudience = \"onrecord\"\nkeep_claims = [\"email\"]\n{RULES}",
        issuer.url()
    )
}

fn start(issuer: &Issuer) -> (Postgres, Gateway) {
    let server = Postgres::start();
    let gateway = plan().api().groups(&["agents", "dba"]).tables(&trusting(issuer)).start(&server);
    (server, gateway)
}

/// A token for an agent that acts for a person.
fn agent_token(issuer: &Issuer, agent: &str, person: &str) -> String {
    issuer.mint(json!({"aud": "onrecord", "sub": person, "act": {"sub": agent}, "sid": "c-17"}))
}

fn with_token(gateway: &Gateway, token: &str) -> Target {
    Target { user: "token".into(), password: token.into(), ..gateway.secure_target() }
}

fn psql(target: &Target, text: &str) -> Finished {
    let mut psql = Command::new(binary("psql"));
    process::run(target.libpq(&mut psql).args(["-XAtqc", text]), "")
}

/// A command of the client's side: no configuration, a home of its own.
fn onrecord(gateway: &Gateway, home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onrecord"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", home);
    command.env("ONRECORD_GATEWAY", gateway.api()).env("ONRECORD_CA", gateway.authority().ca());
    command
}

fn sessions(gateway: &Gateway) -> Vec<Value> {
    let listed = gateway.cli(&["sessions", "--output", "ndjson"]).expect_success("sessions");
    listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn two_agents_share_a_database_and_the_record_tells_them_apart() {
    let issuer = Issuer::start();
    let (_server, gateway) = start(&issuer);
    for (agent, person) in [("copilot", "bea"), ("claude", "carl")] {
        let token = agent_token(&issuer, agent, person);
        assert_eq!(
            psql(&with_token(&gateway, &token), "select current_user").expect_success(agent).trim(),
            "app_owner"
        );
    }
    let record = gateway.settled("app");
    let who: Vec<_> =
        record.commands.iter().map(|c| (c.str("identity").unwrap(), c.str("on_behalf_of").unwrap())).collect();
    assert_eq!(who, [("agent:copilot", "human:bea"), ("agent:claude", "human:carl")]);
    let sessions = sessions(&gateway);
    let first = &sessions[0];
    assert_eq!((first["proof"].as_str(), first["identity_known"].as_str()), (Some("jwt"), Some("verified")));
    assert_eq!(
        (first["on_behalf_of_known"].as_str(), first["run"].as_str()),
        (Some("verified"), Some("conversation:c-17"))
    );
    let evidence = &first["evidence"];
    assert_eq!(
        (evidence["issuer"].as_str().unwrap(), evidence["rule"].as_str()),
        (issuer.url().as_str(), Some("corp/agents"))
    );
    assert_eq!(evidence["actors"], json!(["copilot"]));
    let shown = gateway.cli(&["show", first["id"].as_str().unwrap()]).expect_success("show");
    assert!(shown.contains("corp/agents") && shown.contains("on behalf of  human:bea (verified)"), "{shown}");
    assert_eq!(gateway.entries("issuer-key"), 1, "one key, used twice");
    gateway.verify();
}

#[test]
fn a_token_that_proves_nothing_is_told_why_and_its_kind_is_on_the_record() {
    let issuer = Issuer::start();
    let (_server, mut gateway) = start(&issuer);
    let mint = |claims: Value| issuer.mint(claims);
    let good = json!({"aud": "onrecord", "sub": "bea", "act": {"sub": "copilot"}, "sid": "1"});
    let with = |key: &str, value: Value| {
        let mut claims = good.clone();
        claims[key] = value;
        claims
    };
    issuer.hide("unpublished", "RS256");
    let token = mint(good.clone());
    let unsigned = {
        use base64::Engine as _;
        let encode = |value: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
        let claims =
            json!({"iss": issuer.url(), "aud": "onrecord", "sub": "bea", "exp": now() + 60, "act": {"sub": "copilot"}});
        format!("{}.{}.", encode(json!({"alg": "none"})), encode(claims))
    };
    let cases: [(&str, String, &str); 9] = [
        ("token_expired", mint(with("exp", json!(now() - 120))), "expired"),
        ("token_audience", mint(with("aud", json!("elsewhere"))), "elsewhere"),
        ("token_not_yet_valid", mint(with("nbf", json!(now() + 300))), "nbf"),
        ("token_issuer", mint(with("iss", json!("https://evil.example"))), "evil.example"),
        ("token_algorithm", unsigned, "none"),
        ("token_key", issuer.mint_with(good.clone(), json!({}), Some("unpublished")), "does not publish"),
        ("token_too_long", mint(with("padding", json!("x".repeat(20_000)))), "at most 16384"),
        ("token_unmapped", mint(json!({"aud": "onrecord", "sub": "nobody"})), "rule"),
        ("token_malformed", "open sesame".to_owned(), "neither"),
    ];
    for (kind, token, words) in &cases {
        let refused = psql(&with_token(&gateway, token), "select 1");
        assert!(!refused.status.success(), "{kind}");
        let said = &refused.stderr;
        assert!(said.contains("OnRecord does not accept the token") && said.contains(words), "{kind}: {said}");
        assert!(!said.contains(token.as_str()), "{kind}: the token is repeated");
    }
    psql(&with_token(&gateway, &token), "select 1").expect_success("the good one");
    // Refusals are folded, and written at the latest when the gateway stops.
    gateway.stop();
    for (kind, ..) in &cases {
        assert!(gateway.mentions(&format!("\"reason\":\"{kind}\"")), "{kind}");
    }
    let tokens: Vec<&str> = cases.iter().map(|(_, token, _)| token.as_str()).filter(|t| t.len() > 40).collect();
    gateway.assert_no_secrets(&[&tokens[..], &[token.as_str()]].concat());
}

#[test]
fn a_token_is_not_taken_in_clear_text_nor_for_somebody_else() {
    let issuer = Issuer::start();
    let (_server, gateway) = start(&issuer);
    let token = agent_token(&issuer, "copilot", "bea");
    let plain = Target { user: "token".into(), password: token.clone(), ..gateway.target() };
    let refused = psql(&plain, "select 1");
    assert!(refused.stderr.contains("over TLS only"), "{}", refused.stderr);
    let named = |user: &str| Target { user: user.into(), ..with_token(&gateway, &token) };
    psql(&named("agent:copilot"), "select 1").expect_success("its own name");
    let other = psql(&named("agent:claude"), "select 1");
    assert!(other.stderr.contains("agent:copilot"), "{}", other.stderr);
    // Who is proven, and not permitted, learns no more than who asks for nothing that exists.
    let person = issuer.mint(json!({"aud": "onrecord", "sub": "eve", "email": "eve@example.com", "groups": ["staff"]}));
    for database in ["app", "nowhere"] {
        let refused = psql(&with_token(&gateway, &person).with_database(database), "select 1");
        let expected = format!("connection \"{database}\" does not exist, or human:eve@example.com may not use it");
        assert!(refused.stderr.contains(&expected), "{}", refused.stderr);
    }
}

#[test]
fn a_connection_token_opens_one_connection_for_some_time() {
    let issuer = Issuer::start();
    let (_server, gateway) = start(&issuer);
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("jwt");
    fs::write(&file, agent_token(&issuer, "copilot", "bea")).unwrap();
    let token = |connection: &str, ttl: &str| {
        let mut command = onrecord(&gateway, home.path());
        command.args(["token", "--connection", connection, "--ttl", ttl, "--token-file"]).arg(&file);
        process::run(&mut command, "")
    };
    let text = token("app", "15m").expect_success("token");
    let text = text.trim();
    assert!(text.starts_with("ort_") && text.len() < 80, "{text}");
    let target = with_token(&gateway, text);
    psql(&target, "select 1").expect_success("with the token");
    let elsewhere = psql(&target.with_database("md5"), "select 1");
    assert!(elsewhere.stderr.contains("may not use it"), "{}", elsewhere.stderr);
    assert!(token("nowhere", "15m").stderr.contains("does not exist, or agent:copilot may not use it"));
    assert!(token("app", "25h").stderr.contains("ttl_seconds is 1 to 3600"));
    let brief = token("app", "1s").expect_success("brief");
    poll("the end of a token", || {
        (!psql(&with_token(&gateway, brief.trim()), "select 1").status.success()).then_some(())
    });
    let session = sessions(&gateway).remove(0);
    assert_eq!(
        (session["proof"].as_str(), session["identity"].as_str()),
        (Some("connection-token"), Some("agent:copilot"))
    );
    assert_eq!(session["evidence"]["rule"], "corp/agents", "what proved it when it was handed out");
    assert_eq!(gateway.entries("token"), 2);

    // It outlives a restart, and a lock-out does not let it live.
    let text = text.to_owned();
    let mut gateway = gateway;
    gateway.stop();
    let gateway = gateway.restart();
    let target = with_token(&gateway, &text);
    psql(&target, "select 1").expect_success("after a restart");
    gateway.cli(&["identities", "revoke", "agent:copilot", "--reason", "test"]).expect_success("revoke");
    assert!(psql(&target, "select 1").stderr.contains("taken back"));
    let jwt = fs::read_to_string(&file).unwrap();
    assert!(psql(&with_token(&gateway, &jwt), "select 1").stderr.contains("was revoked"), "the issuer's token neither");
    gateway.assert_no_secrets(&[&text, &jwt]);
    gateway.verify();
}

#[test]
fn a_client_runs_with_a_token_that_it_does_not_see() {
    let issuer = Issuer::start();
    let (_server, gateway) = start(&issuer);
    let home = tempfile::tempdir().unwrap();
    let token = agent_token(&issuer, "copilot", "bea");
    let run = |command: &[&str]| {
        let mut run = onrecord(&gateway, home.path());
        run.env("ONRECORD_TOKEN", &token).args(["run", "--connection", "app", "--"]).args(command);
        process::run(&mut run, "")
    };
    let psql = binary("psql");
    let who = run(&[psql.to_str().unwrap(), "-XAtqc", "select current_user"]).expect_success("psql");
    assert_eq!(who.trim(), "app_owner");
    let environment = run(&["sh", "-c", "env; cat $PGPASSFILE; stat -c %a $PGPASSFILE; echo $PGPASSFILE >&2"]);
    let said = &environment.stdout;
    assert!(!said.contains(&token) && said.contains("PGUSER=token") && said.contains(":token:ort_"), "{said}");
    assert!(said.contains("\n600"), "{said}");
    assert!(!Path::new(environment.stderr.trim()).exists(), "the password file is gone");
    assert_eq!(run(&["sh", "-c", "exit 7"]).status.code(), Some(7));
    assert!(run(&["/nowhere/psql"]).stderr.contains("cannot be run"));
}

#[test]
fn a_person_logs_in_with_a_code() {
    let provider = Provider::start("https://onrecord.example/api");
    let server = Postgres::start();
    let login = format!(
        "[issuers.people]\nissuer = \"{url}\"\naudience = \"{client}\"\n\
         [[issuers.people.rules]]\nname = \"people\"\nwhen = 'has(claims.sub)'\nidentity = \"human:{{claims.sub}}\"\ngroups = [\"dba\"]\n\
         [issuers.people.login]\nclient_id = \"{client}\"\n",
        url = provider.url(),
        client = Provider::LOGIN_CLIENT,
    );
    let gateway = plan().api().groups(&["dba"]).tables(&login).start(&server);
    let home = tempfile::tempdir().unwrap();
    let said = home.path().join("said");
    let mut command = onrecord(&gateway, home.path());
    let mut signing_in =
        command.arg("login").stdout(Stdio::piped()).stderr(fs::File::create(&said).unwrap()).spawn().unwrap();
    let code = poll("a code", || {
        let said = fs::read_to_string(&said).unwrap();
        assert!(signing_in.try_wait().unwrap().is_none(), "{said}");
        Some(said.split_once("confirm the code  ")?.1.trim().to_owned()).filter(|code| code.len() > 5)
    });
    provider.approve(&code, "bea");
    let output = signing_in.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &fs::read_to_string(&said).unwrap();
    assert!(output.status.success() && said.contains("human:bea"), "{said}");
    let kept = home.path().join(".config/onrecord/login.json");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(kept).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let mut run = onrecord(&gateway, home.path());
    run.args(["run", "--connection", "app", "--"]).arg(binary("psql")).args(["-XAtqc", "select 42"]);
    assert_eq!(process::run(&mut run, "").expect_success("run").trim(), "42");
    let who = process::run(onrecord(&gateway, home.path()).arg("whoami"), "").expect_success("whoami");
    assert!(who.contains("human:bea") && who.contains("may use  app"), "{who}");
}

#[test]
fn a_program_proves_itself_by_its_client_credentials() {
    let provider = Provider::start("https://onrecord.example/api");
    let server = Postgres::start();
    let table = format!(
        "[issuers.machines]\nissuer = \"{}\"\naudience = \"https://onrecord.example/api\"\n\
         preset = \"client-credentials\"\nclients = [\"{}\"]\ngroups = [\"dba\"]\n",
        provider.url(),
        Provider::CLIENT,
    );
    let gateway = plan().api().groups(&["dba"]).tables(&table).start(&server);
    psql(&with_token(&gateway, &provider.client_credentials()), "select 1").expect_success("client credentials");
    assert_eq!(sessions(&gateway)[0]["identity"], "service:reporting");
}

#[test]
fn a_client_certificate_needs_no_password() {
    let server = Postgres::start();
    let authority = testkit::Authority::new();
    let table = format!(
        "[certificates]\nca = \"file:{}\"\ntrust_domain = \"prod.example.org\"\ngroups = [\"dba\"]\n",
        authority.ca().display()
    );
    let gateway = plan().groups(&["dba"]).tables(&table).start(&server);
    let home = tempfile::tempdir().unwrap();
    let run = |user: &str, uri: &str, by: &testkit::Authority| {
        let (certificate, key) = client_certificate(by, home.path(), uri);
        let target = Target { user: user.into(), password: String::new(), ..gateway.secure_target() };
        let mut psql = Command::new(binary("psql"));
        target.libpq(&mut psql).env("PGSSLCERT", certificate).env("PGSSLKEY", key);
        process::run(psql.args(["-wXAtqc", "select 1"]), "")
    };
    let name = "service:prod.example.org/ns/agents/sa/copilot";
    run(name, "spiffe://prod.example.org/ns/agents/sa/copilot", &authority).expect_success("a workload");
    let session = &sessions(&gateway)[0];
    assert_eq!((session["proof"].as_str(), session["identity"].as_str()), (Some("certificate"), Some(name)));
    let other = run(name, "spiffe://prod.example.org/ns/agents/sa/other", &authority);
    assert!(!other.status.success(), "another workload is not it");
    assert!(!run(name, "spiffe://elsewhere.example/ns/agents/sa/copilot", &authority).status.success());
    let forged = run(name, "spiffe://prod.example.org/ns/agents/sa/copilot", &testkit::Authority::new());
    assert!(!forged.status.success(), "another authority");
}

#[test]
fn claims_find_commands() {
    let (_server, gateway) = crate::start();
    let mut command = Command::new(binary("psql"));
    gateway.target().libpq(&mut command).env("PGAPPNAME", "migrate-7");
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    command
        .args(["-XAtq", "-c", "select 1"])
        .args(["-c", &format!("select 2 /*traceparent='{trace}',route='%2Forders'*/")]);
    process::run(&mut command, "").expect_success("psql");
    psql(&gateway.target(), "select 3").expect_success("another");
    let found = |claim: &str| {
        let listed = gateway.cli(&["commands", "--output", "ndjson", "--claim", claim]).expect_success("commands");
        listed.lines().count()
    };
    assert_eq!((found("application_name=migrate"), found("traceparent=4bf92f35"), found("route=/orders")), (2, 1, 1));
    assert_eq!(found("traceparent=ffff"), 0);
}
