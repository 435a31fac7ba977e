//! What the binary says of configurations, right and wrong.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::os::unix::fs::PermissionsExt;

use common::{CONFIG, Place};

/// One wrong line for each: what to write instead of what, and what is said on standard error.
const WRONG: &[(&str, &str, &str)] = &[
    (
        "name = \"gateway.example.com/1\"",
        "name = \"gateway.example.com/1\"\nwokers = 2",
        "onrecord.toml:3: gateway.wokers: the key `wokers` is not known here\n  hint: known keys: name, data, workers",
    ),
    (
        "name = \"gateway.example.com/1\"",
        "name = \"https://gateway\"",
        "onrecord.toml:2: gateway.name: the name \"https://gateway\" has a scheme",
    ),
    ("data = \"data\"\n", "", "onrecord.toml:1: gateway: the key `data` is missing"),
    (
        "\"127.0.0.1:0\"",
        "\"localhost\"",
        "onrecord.toml:6: listen.postgres: \"localhost\" is not an IP address and a port\n  hint: write \"127.0.0.1:6432\"",
    ),
    (
        "\"127.0.0.1:5432\"",
        "\"127.0.0.1\"",
        "onrecord.toml:10: connections.app.address: the address \"127.0.0.1\" has no port\n  hint: write \"host:port\"",
    ),
    (
        "\"file:password\"",
        "\"hunter2\"",
        "onrecord.toml:13: connections.app.password: a secret does not belong in this file\n  hint: put it in a file of mode 0600",
    ),
    (
        "[\"agent:copilot-agent\"]",
        "[\"agent:copilot\"]",
        "onrecord.toml:14: connections.app.identities: there is no identity agent:copilot\n  hint: `onrecord identities add` makes one; known: agent:copilot-agent",
    ),
    ("[\"agent:copilot-agent\"]", "[\"human:copilot-agent\"]", "there is no identity human:copilot-agent"),
    (
        "kind = \"agent\"",
        "kind = \"robot\"",
        "onrecord.toml:17: identities.copilot-agent.kind: \"robot\" is not known here\n  hint: write \"agent\", \"human\", \"service\"",
    ),
    (
        "secret = \"SCRAM",
        "secret = \"hunter2SCRAM",
        "onrecord.toml:19: identities.copilot-agent.secret: this is not a SCRAM-SHA-256 verifier",
    ),
    (
        "password = ",
        "ca = \"file:ca.pem\"\npassword = ",
        "onrecord.toml:13: connections.app.ca: with tls = \"disable\" nothing is checked against this authority",
    ),
    (
        "password = ",
        "durability = \"maybe\"\npassword = ",
        "onrecord.toml:13: connections.app.durability: \"maybe\" is not known here\n  hint: write \"intent\"",
    ),
    (
        "[listen]",
        "[publish]\nlisten = []\n\n[listen]",
        "onrecord.toml:6: publish.listen: there is no address to listen on, or too many\n  hint: write at least one address",
    ),
    (
        "[listen]",
        "[witness]\npolicy = \"file:policy.tlog\"\ninterval_seconds = 0\n\n[listen]",
        "onrecord.toml:7: witness.interval_seconds: 0 seconds is out of range\n  hint: write 1 to 3600",
    ),
    (
        "[listen]",
        "[receipts]\nwebhook = \"https://user:hunter2@host/\"\n\n[listen]",
        "onrecord.toml:6: receipts.webhook: this is not a URL\n  hint: write \"https://host/path\"",
    ),
    ("password = ", "retention_days = 0\npassword = ", "onrecord.toml:13: connections.app.retention_days: "),
    ("[listen]", "[retention]\ndays = -1\n[listen]", "onrecord.toml:6: retention.days: "),
    (
        "[listen]",
        "[record]\nwrapping_key = \"hunter2\"\n[listen]",
        "onrecord.toml:6: record.wrapping_key: a secret does not belong in this file",
    ),
    ("[listen]", "[listen", "onrecord.toml:5: "),
];

#[test]
fn wrong_configurations_are_refused_by_line_and_key() {
    for (right, wrong, said) in WRONG {
        let place = Place::new();
        assert!(CONFIG.contains(right), "{right}");
        place.write("onrecord.toml", &CONFIG.replacen(right, wrong, 1));
        place.write("password", "secret\n");
        let ran = place.run("config check");
        assert_eq!(ran.code, 2, "{wrong}: {}", ran.err);
        // The words of a list may come in any order of the record's own; its start is enough.
        assert!(ran.err.contains(said), "{wrong}:\n{}\ndoes not say\n{said}", ran.err);
        assert!(!ran.err.contains("hunter2"), "a secret was repeated:\n{}", ran.err);
    }
}

#[test]
fn several_wrong_things_are_said_at_once() {
    let place = Place::new();
    let text = CONFIG.replace("[\"agent:copilot-agent\"]", "[\"agent:a\", \"agent:b\"]\nmessage_bytes_max = 1");
    place.write("onrecord.toml", &text);
    let ran = place.run("config check");
    assert_eq!(ran.code, 2);
    for said in ["agent:a", "agent:b", "message_bytes_max: 1 bytes is out of range"] {
        assert!(ran.err.contains(said), "{}", ran.err);
    }
}

#[test]
fn check_reads_the_secrets() {
    let place = Place::new();
    place.write("onrecord.toml", CONFIG);
    let missing = place.run("config check");
    assert_eq!(missing.code, 2);
    assert!(missing.out.contains("connections.app.password: cannot read "), "{}", missing.out);

    place.write("password", "secret\n");
    let password = place.path().join("password");
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o644)).unwrap();
    let loose = place.run("config check");
    assert_eq!(loose.code, 0);
    assert!(loose.out.contains("(mode 0644)"), "{}", loose.out);

    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
    let good = place.run("config check");
    assert_eq!(good.code, 0);
    assert_eq!(good.out, "onrecord.toml: ok (1 connection, 1 identity, data in data)\n");
    let json: serde_json::Value = serde_json::from_str(&place.run("config check --output json").out).unwrap();
    assert_eq!(json["usable"], true);
}

#[test]
fn a_missing_configuration_says_how_to_get_one() {
    let place = Place::new();
    let ran = place.run("connections list --config nowhere.toml");
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("nowhere.toml: No such file"), "{}", ran.err);
    assert!(ran.err.contains("hint: `onrecord init`"), "{}", ran.err);
}

#[test]
fn the_environment_names_the_configuration() {
    let place = Place::new();
    place.write("elsewhere.toml", CONFIG);
    let listed = place.command().args(["identities", "list"]).env("ONRECORD_CONFIG", "elsewhere.toml").output();
    let listed = common::Ran::from(listed.unwrap());
    assert_eq!(
        listed.out,
        "IDENTITY             ON BEHALF OF  SESSIONS  TOKENS  CONNECTIONS  STATE\n\
         agent:copilot-agent  human:bea            0       0  app\n"
    );
}

#[test]
fn identities_are_added_and_everything_else_stays() {
    let place = Place::new();
    let commented = CONFIG.replace("[listen]", "# Listens.\n[listen]  # here");
    place.write("onrecord.toml", &commented);
    let added = place.run("identities add claude-code --on-behalf-of human:ada --connection app --output json");
    assert_eq!(added.code, 0, "{}", added.err);
    let added: serde_json::Value = serde_json::from_str(&added.out).unwrap();
    let key = added["key"].as_str().unwrap();
    assert!(key.starts_with("onr_") && key.len() == 47, "{key}");

    let text = place.read("onrecord.toml");
    assert!(!text.contains(key), "the key was kept");
    assert!(text.contains("# Listens.\n[listen]  # here"));
    assert!(text.contains("identities = [\"agent:copilot-agent\", \"agent:claude-code\"]"), "{text}");
    assert!(text.contains(added["secret"].as_str().unwrap()));
    let list = place.run("identities list").out;
    assert!(list.contains("agent:claude-code    human:ada            0       0  app\n"), "{list}");

    let again = place.run("identities add claude-code --kind human");
    assert_eq!(again.code, 1);
    assert!(again.err.contains("the user name claude-code is taken"), "{}", again.err);
    assert_eq!(place.read("onrecord.toml"), text, "a refused change changed something");
}

#[test]
fn a_key_can_be_kept_in_a_file_and_taken_from_it() {
    let place = Place::new();
    place.write("onrecord.toml", CONFIG);
    let made = place.run("identities add one --secret-file one.key");
    assert_eq!(made.code, 0, "{}", made.err);
    let key = place.read("one.key");
    assert!(!made.out.contains(key.trim()), "{}", made.out);
    let mode = std::fs::metadata(place.path().join("one.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(place.run("identities add two --secret-file one.key --print").code, 0);
    assert_eq!(place.read("one.key"), key);

    place.write("weak.key", "hunter2\n");
    let weak = place.run("identities add three --secret-file weak.key");
    assert_eq!(weak.code, 2);
    assert!(weak.err.contains("shorter than 20 characters"), "{}", weak.err);
    assert!(!weak.err.contains("hunter2"));
}

#[test]
fn printing_leaves_the_configuration_alone() {
    let place = Place::new();
    let ran = place.run("identities add one --kind service --print");
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("[identities.one]\nkind = \"service\"\nsecret = \"SCRAM-SHA-256$4096:"), "{}", ran.out);
    assert!(!place.path().join("onrecord.toml").exists());
}

/// What approvals need beside their own table.
const AROUND: &str = r#"
[issuers.people]
issuer = "https://id.example.com"
audience = "onrecord"

[[issuers.people.rules]]
name = "people"
when = 'has(claims.email) && claims.email_verified'
identity = "human:{claims.email}"

"#;

/// A configuration with these lines about approvals, and with a policy.
fn with_approvals(place: &Place, lines: &str) {
    let text = CONFIG.replace("[\"127.0.0.1:0\"]", "[\"127.0.0.1:0\"]\napi = [\"127.0.0.1:0\"]");
    let text = text.replace("password = ", "policy = [\"rules.yaml\"]\npassword = ");
    place.write("onrecord.toml", &format!("{text}{AROUND}{lines}"));
    place.write("password", "secret\n");
    std::fs::set_permissions(place.path().join("password"), std::fs::Permissions::from_mode(0o600)).unwrap();
    place.write("rules.yaml", "version: 1\nrules:\n- {id: ask, when: 'true', then: require_approval}\n");
}

const TABLE: &str = "[connections.app.approvals]\n";

#[test]
fn approvals_are_checked_by_themselves() {
    let place = Place::new();
    for (lines, said) in [
        ("", "approvals: nobody could approve\n  hint: write approvers = [\"human:NAME\"]"),
        ("approvers = [\"bea\"]", "approvals.approvers: \"bea\" is not an identity"),
        ("approvers = [\"agent:x\"]", "approvals.approvers: agent:x is no person, and only people approve"),
        ("groups = [\"dba\"]\nquorum = 0", "approvals.quorum: 0 people is out of range\n  hint: write 1 to 10"),
        ("groups = [\"dba\"]\nquorum = 11", "approvals.quorum: 11 people is out of range"),
        ("approvers = [\"human:bea\", \"human:bea\"]\nquorum = 2", "approvals.quorum: 2 must approve, and only 1 may"),
        ("groups = [\"dba\"]\nexpires_seconds = 59", "approvals.expires_seconds: 59 seconds is out of range"),
        ("groups = [\"dba\"]\nexpires_seconds = 86401", "86401 seconds is out of range"),
        ("groups = [\"dba\"]\nwait_seconds = 3601", "approvals.wait_seconds: 3601 seconds is out of range"),
        ("groups = [\"dba\"]\nwait_in_transaction_seconds = 601", "601 seconds is out of range"),
        ("groups = [\"dba\"]\nexpires = \"15m\"", "approvals.expires: the key `expires` is not known here"),
    ] {
        with_approvals(&place, &format!("{TABLE}{lines}\n"));
        let ran = place.run("config check");
        assert_eq!(ran.code, 2, "{lines}: {}", ran.err);
        assert!(ran.err.contains(said), "{lines}:\n{}\ndoes not say\n{said}", ran.err);
    }
    for lines in [
        "groups = [\"dba\"]\nquorum = 3\nwait_seconds = 0\nwait_in_transaction_seconds = 600\nexpires_seconds = 86400",
        "approvers = [\"human:bea\", \"human:cy\"]\nquorum = 2",
    ] {
        with_approvals(&place, &format!("{TABLE}{lines}\n"));
        let ran = place.run("config check");
        assert_eq!(ran.code, 0, "{lines}: {}{}", ran.out, ran.err);
    }
}

#[test]
fn approvals_need_a_way_to_decide() {
    let place = Place::new();
    place.write("onrecord.toml", &format!("{CONFIG}\n{TABLE}groups = [\"dba\"]\n"));
    let ran = place.run("config check");
    assert_eq!(ran.code, 2);
    for said in ["there is no address where people could decide", "a token of an issuer, and none is trusted"] {
        assert!(ran.err.contains(said), "{}", ran.err);
    }
}

#[test]
fn a_database_needs_an_address_where_its_clients_come() {
    let place = Place::new();
    let no_address = "there is no address where clients could speak postgres";
    for (listens, wrong) in [("ssh", false), ("api", true)] {
        place.write("onrecord.toml", &CONFIG.replace("postgres = [\"127", &format!("{listens} = [\"127")));
        let ran = place.run("config check");
        assert_eq!(ran.err.contains(no_address), wrong, "{listens}: {}{}", ran.out, ran.err);
    }
}

#[test]
fn a_policy_that_holds_needs_somebody_who_approves() {
    let place = Place::new();
    with_approvals(&place, "");
    let ran = place.run("config check");
    assert_eq!(ran.code, 2, "{}", ran.err);
    for said in [
        "connections.app.policy: ",
        "rules.yaml:3: rule ask requires an approval, and nobody may approve on this connection\n  hint: add \
         [connections.app.approvals] with approvers = [\"human:NAME\"] or groups = [\"GROUP\"], or write `then: deny`",
    ] {
        assert!(ran.err.contains(said), "{}", ran.err);
    }
    // What is only observed asks nobody.
    let text = place.read("onrecord.toml").replace("password = ", "policy_mode = \"observe\"\npassword = ");
    place.write("onrecord.toml", &text);
    assert_eq!(place.run("config check").code, 0);
}

const GLASS: &str = "[connections.app.break_glass]\n";
const TOLD: &str = "[notifications]\nwebhook = \"file:password\"\n";

#[test]
fn break_glass_is_checked_by_itself() {
    let place = Place::new();
    let approvers = format!("{TABLE}approvers = [\"human:bea\"]\n");
    for (lines, said) in [
        ("", "break_glass: nobody could open it\n  hint: write openers = [\"human:NAME\"]"),
        ("openers = [\"agent:x\"]", "break_glass.openers: agent:x is no person, and break-glass is for people"),
        ("groups = [\"ops\"]\nreviewers = [\"service:x\"]", "break_glass.reviewers: service:x is no person"),
        (
            "groups = [\"ops\"]\nminutes_max = 0",
            "break_glass.minutes_max: 0 minutes is out of range\n  hint: write 1 to 60",
        ),
        ("groups = [\"ops\"]\nminutes_max = 61", "break_glass.minutes_max: 61 minutes is out of range"),
        ("openers = [\"human:bea\"]", "nobody but human:bea could review what human:bea opens"),
        ("openers = [\"human:bea\"]\nminutes = 5", "break_glass.minutes: the key `minutes` is not known here"),
    ] {
        with_approvals(&place, &format!("{approvers}{GLASS}{lines}\n{TOLD}"));
        let ran = place.run("config check");
        assert_eq!(ran.code, 2, "{lines}: {}", ran.err);
        assert!(ran.err.contains(said), "{lines}:\n{}\ndoes not say\n{said}", ran.err);
    }
    for lines in [
        "openers = [\"human:cy\"]",
        "openers = [\"human:bea\"]\nreviewers = [\"human:cy\"]\nminutes_max = 1",
        "groups = [\"ops\"]\nreviewer_groups = [\"leads\"]\nminutes_max = 60",
    ] {
        with_approvals(&place, &format!("{approvers}{GLASS}{lines}\n{TOLD}"));
        let ran = place.run("config check");
        assert_eq!(ran.code, 0, "{lines}: {}{}", ran.out, ran.err);
    }
}

#[test]
fn break_glass_is_not_silent_nor_a_way_around_signatures_and_needs_a_way_to_open_it() {
    let place = Place::new();
    let table = format!("{GLASS}openers = [\"human:cy\"]\n");
    let refused = |said: &str| {
        let ran = place.run("config check");
        assert_eq!(ran.code, 2, "{said}");
        assert!(ran.err.contains(said), "{}\ndoes not say\n{said}", ran.err);
    };
    with_approvals(&place, &format!("{TABLE}approvers = [\"human:bea\"]\n{table}"));
    refused("break_glass: nobody would be told that the glass is broken\n  hint: add [notifications]");
    let signed = format!("{TABLE}approvers = [\"human:bea\"]\nsigned = true\n");
    let passkeys = "[passkeys]\norigin = \"https://gateway.example:8443\"\n";
    with_approvals(&place, &format!("{signed}{table}{TOLD}{passkeys}"));
    refused("break_glass: approvals of this connection must be signed, and break-glass is not");
    place.write("onrecord.toml", &format!("{CONFIG}\n{table}{TOLD}"));
    for said in [
        "there is no address where people could open it",
        "people open it with a token of an issuer, and none is trusted",
        "nobody could review it\n  hint: write reviewers",
        "nothing is held on this connection, because it has no policy",
    ] {
        refused(said);
    }
    with_approvals(&place, &format!("{TABLE}approvers = [\"human:bea\"]\n{table}{TOLD}"));
    assert_eq!(place.run("config check").code, 0);
    let text = place.read("onrecord.toml").replace("password = ", "policy_mode = \"observe\"\npassword = ");
    place.write("onrecord.toml", &text);
    refused("nothing is held on this connection, because its policy only observes");
}

/// The parser names the keys that it knows when it meets one that it does not; the schema must know the same.
#[test]
fn the_schema_knows_the_keys_that_the_parser_knows() {
    let place = Place::new();
    let schema: serde_json::Value = serde_json::from_str(&place.run("config schema").out).unwrap();
    let tables = [
        ("gateway", "/properties/gateway"),
        ("listen", "/properties/listen"),
        ("tls", "/properties/tls"),
        ("record", "/properties/record"),
        ("retention", "/properties/retention"),
        ("limits", "/properties/limits"),
        ("publish", "/properties/publish"),
        ("witness", "/properties/witness"),
        ("receipts", "/properties/receipts"),
        ("connections.app", "/$defs/connection"),
        ("connections.app.approvals", "/$defs/approvals"),
        ("connections.app.break_glass", "/$defs/break_glass"),
        ("identities.copilot-agent", "/$defs/identity"),
    ];
    for (table, pointer) in tables {
        let mut text = CONFIG.to_owned();
        let heading = format!("[{table}]\n");
        if !text.contains(&heading) {
            text.push_str(&heading);
        }
        place.write("onrecord.toml", &text.replace(&heading, &format!("{heading}nonsense = 1\n")));
        let err = place.run("config check").err;
        let known = err.split("known keys: ").nth(1).unwrap_or_else(|| panic!("{table}: {err}"));
        let mut known: Vec<&str> = known.trim().split(", ").collect();
        known.sort_unstable();
        let properties = schema.pointer(pointer).unwrap()["properties"].as_object().unwrap();
        let mut described: Vec<&str> = properties.keys().map(String::as_str).collect();
        described.sort_unstable();
        assert_eq!(known, described, "{table}");
    }
}

#[test]
fn completions_know_the_commands() {
    let ran = Place::new().run("completions bash");
    assert_eq!(ran.code, 0);
    for word in ["verify", "replay", "identities"] {
        assert!(ran.out.contains(word));
    }
}
