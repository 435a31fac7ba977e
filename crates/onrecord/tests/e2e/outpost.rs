//! A resource that is reached through an outpost: the real one, which dials out to the real gateway.

use std::net::TcpStream;
use std::time::Duration;

use testkit::process::poll;
use testkit::raw::{Raw, query};
use testkit::{Gateway, Namespace, Outpost, Postgres, Proxy, Target, Way};

use crate::plan;

/// A gateway whose connections `far` (through outpost `site-a`), `wide` (through each with label `eu`) and `open` (in
/// the clear, through `site-a`) lead to the server, which the gateway itself does not dial for them.
fn start_far(server: &Postgres, listen: &str) -> Gateway {
    let connection = |name: &str, outpost: &str, more: &str| {
        format!(
            "[connections.{name}]\nkind = \"postgres\"\naddress = \"127.0.0.1:{port}\"\ndatabase = \"app\"\n\
             user = \"app_owner\"\npassword = \"file:upstream.password\"\noutpost = \"{outpost}\"\n{more}\n\
             identities = [\"agent:copilot-agent\"]\n\n",
            port = server.port(),
        )
    };
    let ca = format!("ca = \"file:{}\"", server.authority().ca().display());
    let tables = connection("far", "site-a", &ca)
        + &connection("wide", "label:eu", &ca)
        + &connection("open", "site-a", "tls = \"disable\"\nallow_plaintext = true")
        + &connection("else", "site-a", &format!("{ca}\nserver_name = \"db.example.com\""));
    plan().listen(&format!("outposts = [\"{listen}:0\"]\n")).tables(&tables).start(server)
}

fn through(gateway: &Gateway, connection: &str) -> Target {
    gateway.target().with_database(connection)
}

fn allowed(server: &Postgres) -> String {
    format!("127.0.0.1:{}", server.port())
}

/// How often a text is in the log.
fn recorded(gateway: &Gateway, text: &str) -> usize {
    let mut grep = std::process::Command::new("grep");
    grep.args(["-rhaoF", text]).arg(gateway.data().join("log"));
    testkit::process::run(&mut grep, "").stdout.lines().count()
}

#[track_caller]
fn refused(target: &Target) -> (String, String) {
    let refusal = Raw::connect(target).authenticate(target, 0x0003_0000, &[]).expect_err("a refusal");
    (refusal.field(b'C').unwrap_or_default(), refusal.field(b'M').unwrap_or_default())
}

#[test]
fn a_server_that_nobody_can_dial_is_reached_through_its_outpost() {
    let Some(namespace) = Namespace::new() else {
        eprintln!("not root: no network namespace can be made, and this is not tested");
        return;
    };
    let server = Postgres::start_in(&namespace);
    let gateway = start_far(&server, namespace.outside());
    let way = Way { namespace: Some(namespace.name().to_owned()), ..Way::default() };
    let outpost = Outpost::join(&gateway, "site-a", &[], &[&allowed(&server)], way);

    // Nothing leads in: the server listens on the inside's loopback, and the outpost on nothing.
    assert_eq!(namespace.listeners(), [allowed(&server)]);
    for host in [namespace.inside(), "127.0.0.1"] {
        assert!(TcpStream::connect((host, server.port())).is_err(), "{host}");
    }
    let mut session = Raw::login(&through(&gateway, "far"));
    session.exchange(&query("select 1"), 1);
    drop(session);
    let record = gateway.settled("app");
    assert_eq!(record.commands.len(), 1);
    assert_eq!(recorded(&gateway, "\"upstream\":\"verified\",\"outpost\":{\"id\":\"op_"), 1, "in session-open");
    assert!(outpost.said().contains(&format!("to {} ended", allowed(&server))), "{}", outpost.said());
    gateway.verify();
}

#[test]
fn what_is_not_on_the_list_is_not_dialled_and_a_wrong_certificate_is_refused() {
    let server = Postgres::start();
    let gateway = start_far(&server, "127.0.0.1");
    let outpost = Outpost::join(&gateway, "site-a", &[], &["127.0.0.1:1"], Way::default());
    let (code, text) = refused(&through(&gateway, "far"));
    assert_eq!(code, "08001");
    assert!(text.contains("not on its own list"), "{text}");
    assert!(outpost.said().contains("it is not on the list"), "{}", outpost.said());
    drop(outpost);

    let _outpost = Outpost::join(&gateway, "site-a", &[], &[&allowed(&server)], Way::default());
    Raw::login(&through(&gateway, "far"));
    assert_eq!(refused(&through(&gateway, "else")).0, "08006", "the certificate has another name");
    gateway.verify();
}

#[test]
fn every_command_of_a_connection_in_the_clear_says_so() {
    let server = Postgres::start();
    let gateway = start_far(&server, "127.0.0.1");
    let _outpost = Outpost::join(&gateway, "site-a", &[], &[&allowed(&server)], Way::default());
    Raw::login(&through(&gateway, "open")).exchange(&query("select 1"), 1);
    Raw::login(&through(&gateway, "far")).exchange(&query("select 2"), 1);
    gateway.settled("app");
    // One session-open and one intent.
    assert_eq!(recorded(&gateway, "\"upstream\":\"plaintext\""), 2);
    gateway.verify();
}

#[test]
fn a_killed_outpost_ends_what_ran_as_unknown_and_another_takes_over() {
    let server = Postgres::start();
    let gateway = start_far(&server, "127.0.0.1");
    assert_eq!(refused(&through(&gateway, "wide")).0, "08001", "none is connected yet");
    let mut one = Outpost::join(&gateway, "site-a", &["eu"], &[&allowed(&server)], Way::default());
    let mut session = Raw::login(&through(&gateway, "wide"));
    session.send(&query("select pg_sleep(60)"));
    poll("the statement to run", || {
        let running = "select count(*) from pg_stat_activity where query like 'select pg_sleep(60)%'";
        (server.sql(running) == "1").then_some(())
    });
    let _two = Outpost::join(&gateway, "site-b", &["eu"], &[&allowed(&server)], Way::default());
    one.kill9();
    let last = session.read().expect("the reason of the end");
    assert_eq!(last.field(b'C').as_deref(), Some("08006"), "{last:?}");
    let record = gateway.settled("app");
    assert_eq!(record.commands[0].status(), "unknown");
    let shown = gateway.cli(&["commands", "--output", "ndjson"]).expect_success("commands");
    assert!(shown.contains("outpost_lost"), "{shown}");

    Raw::login(&through(&gateway, "wide")).exchange(&query("select 1"), 1);
    let (code, text) = refused(&through(&gateway, "far"));
    assert_eq!(code, "08001");
    assert!(text.contains("no outpost site-a is connected"), "{text}");
    one.restart();
    one.wait_connected();
    Raw::login(&through(&gateway, "far")).exchange(&query("select 1"), 1);
    gateway.verify();
}

#[test]
fn an_outpost_comes_back_when_the_gateway_does() {
    let server = Postgres::start();
    let mut gateway = start_far(&server, "127.0.0.1");
    let address = gateway.outpost_address();
    let _outpost = Outpost::join(&gateway, "site-a", &[], &[&allowed(&server)], Way::default());
    for clean in [true, false] {
        if clean {
            gateway.stop()
        } else {
            gateway.kill9()
        }
        let config = std::fs::read_to_string(gateway.config()).unwrap();
        std::fs::write(
            gateway.config(),
            config.replace("outposts = [\"127.0.0.1:0\"]", &format!("outposts = [\"{address}\"]")),
        )
        .unwrap();
        gateway = gateway.restart();
        poll("the outpost to be back", || {
            let target = through(&gateway, "far");
            Raw::connect(&target).authenticate(&target, 0x0003_0000, &[]).ok()
        });
    }
    gateway.verify();
}

#[test]
fn a_revoked_outpost_is_out_at_once() {
    let server = Postgres::start();
    let gateway = start_far(&server, "127.0.0.1");
    let mut outpost = Outpost::join(&gateway, "site-a", &[], &[&allowed(&server)], Way::default());
    let mut session = Raw::login(&through(&gateway, "far"));
    session.exchange(&query("select 1"), 1);
    gateway.cli(&["outpost", "revoke", "site-a"]).expect_success("revoke");
    assert_eq!(session.read().expect("the reason").field(b'C').as_deref(), Some("08006"));
    assert!(outpost.wait_ended().contains("this outpost was revoked"), "{}", outpost.said());
    outpost.restart();
    assert!(outpost.wait_ended().contains("this outpost was revoked"));
    assert_eq!(refused(&through(&gateway, "far")).0, "08001");
    let listed = gateway.cli(&["outpost", "list"]).expect_success("list");
    assert!(listed.contains("revoked"), "{listed}");
    assert_eq!(gateway.cli(&["outpost", "revoke", "site-a"]).status.code(), Some(5));
    gateway.verify();
}

#[test]
fn a_join_token_works_once_and_not_for_ever() {
    let server = Postgres::start();
    let gateway = start_far(&server, "127.0.0.1");
    let token = Outpost::token(&gateway, "site-a", &[]);
    let first = Outpost::start(&token, &[&allowed(&server)], Way::default());
    first.wait_connected();
    let mut second = Outpost::start(&token, &[&allowed(&server)], Way::default());
    assert!(second.wait_ended().contains("not known, was used already, or has expired"), "{}", second.said());

    let short = gateway.cli(&["outpost", "token", "--name", "late", "--ttl", "1s"]).expect_success("token");
    std::thread::sleep(Duration::from_millis(2100));
    let mut late = Outpost::start(short.trim(), &[&allowed(&server)], Way::default());
    assert!(late.wait_ended().contains("has expired"), "{}", late.said());
    assert!(gateway.entries("outpost") >= 5, "invited twice, enrolled, connected, refused");
    // Neither the token nor the keys are where they should not be.
    gateway.assert_no_secrets(&[&token]);
    assert!(!first.said().contains(&token));
    gateway.verify();
}

#[test]
fn links_run_inside_a_websocket_through_a_proxy() {
    let server = Postgres::start();
    let gateway = start_far(&server, "127.0.0.1");
    let proxy = Proxy::start();
    let way = Way { proxy: Some(proxy.url()), websocket: true, ..Way::default() };
    let _outpost = Outpost::join(&gateway, "site-a", &[], &[&allowed(&server)], way);
    assert!(proxy.connects() >= 3, "one to join, two links");
    let mut session = Raw::login(&through(&gateway, "far"));
    session.exchange(&query("select repeat('x', 100) from generate_series(1, 50000)"), 1);
    gateway.verify();
}
