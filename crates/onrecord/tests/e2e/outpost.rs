//! A resource that is reached through an outpost: the real one, which dials out to the real gateway.

use std::net::TcpStream;
use std::time::Duration;

use testkit::issuer::Issuer;
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

/// Writes into the outpost's file that its certificate was made long ago, so that the next is due.
fn age(outpost: &Outpost, hours: i64) {
    let path = outpost.state().join("identity");
    let text = std::fs::read_to_string(&path).unwrap();
    let valid = text.lines().find(|line| line.starts_with("valid ")).unwrap();
    let times: Vec<i64> = valid.split(' ').skip(1).map(|time| time.parse().unwrap()).collect();
    let aged = format!("valid {} {}", times[0] - hours * 3600, times[1] - hours * 3600);
    std::fs::write(&path, text.replace(valid, &aged)).unwrap();
}

fn certificate(outpost: &Outpost) -> (String, usize) {
    let text = std::fs::read_to_string(outpost.state().join("identity")).unwrap();
    let own = text.lines().find(|line| line.starts_with("certificate ")).unwrap().to_owned();
    (own, text.lines().filter(|line| line.starts_with("authority ")).count())
}

#[test]
fn a_certificate_is_renewed_when_it_is_due_and_another_authority_is_learnt_with_it() {
    let server = Postgres::start();
    let mut gateway = start_far(&server, "127.0.0.1");
    let address = gateway.outpost_address();
    let mut outpost = Outpost::join(&gateway, "site-a", &[], &[&allowed(&server)], Way::default());
    let (first, authorities) = certificate(&outpost);
    assert_eq!(authorities, 1);
    gateway.cli(&["outpost", "rotate-authority"]).expect_success("rotate");
    assert!(!gateway.cli(&["outpost", "rotate-authority"]).status.success(), "one at a time");
    outpost.kill9();
    age(&outpost, 17);
    outpost.restart();
    outpost.wait_connected();
    poll("the next certificate", || (certificate(&outpost).0 != first).then_some(()));
    assert_eq!(certificate(&outpost).1, 2, "it trusts both");
    // Who joins in between is told both, too.
    let late = Outpost::join(&gateway, "site-b", &["eu"], &[&allowed(&server)], Way::default());
    assert_eq!(certificate(&late).1, 2);

    // A day later the gateway shows a certificate of the new one, and drops the old.
    gateway.stop();
    let registry = gateway.data().join("outposts/registry.json");
    let text = std::fs::read_to_string(&registry).unwrap();
    let mut content: serde_json::Value = serde_json::from_str(&text).unwrap();
    for authority in content["authorities"].as_array_mut().unwrap() {
        authority["since"] = (authority["since"].as_i64().unwrap() - 26 * 3600).into();
    }
    std::fs::write(&registry, content.to_string()).unwrap();
    let config = std::fs::read_to_string(gateway.config()).unwrap();
    std::fs::write(
        gateway.config(),
        config.replace("outposts = [\"127.0.0.1:0\"]", &format!("outposts = [\"{address}\"]")),
    )
    .unwrap();
    let gateway = gateway.restart();
    poll("the outposts to be back", || {
        let listed = gateway.cli(&["outpost", "list"]).expect_success("list");
        (!listed.contains("not connected")).then_some(())
    });
    Raw::login(&through(&gateway, "wide")).exchange(&query("select 1"), 1);

    // One that was off for longer than a day has to join again.
    outpost.kill9();
    age(&outpost, 30);
    std::fs::remove_file(outpost.state().join("../join")).unwrap();
    std::fs::write(outpost.state().join("../join"), "").unwrap();
    outpost.restart();
    assert!(outpost.wait_ended().contains("it has to join again"), "{}", outpost.said());
    gateway.verify();
}

#[test]
fn a_client_that_does_not_read_slows_nobody_else() {
    let server = Postgres::start();
    let gateway = start_far(&server, "127.0.0.1");
    let outpost = Outpost::join(&gateway, "site-a", &[], &[&allowed(&server)], Way::default());
    let before = outpost.memory_kib();
    let mut slow = Raw::login(&through(&gateway, "far"));
    slow.send(&query("select repeat('x', 1000) from generate_series(1, 200000)"));
    poll("the statement to be stuck", || {
        let stuck = "select count(*) from pg_stat_activity where wait_event = 'ClientWrite'";
        (server.sql(stuck) == "1").then_some(())
    });
    // Both links are as good as ever for the others.
    let mut others: Vec<Raw> = (0..4).map(|_| Raw::login(&through(&gateway, "far"))).collect();
    for _ in 0..50 {
        for other in &mut others {
            other.exchange(&query("select repeat('y', 10000)"), 1);
        }
    }
    // 200 MB did not come to rest in the outpost.
    assert!(outpost.memory_kib() < before + 16 * 1024, "{} KiB, then {}", before, outpost.memory_kib());
    drop(slow);
    gateway.settled("app");
    gateway.verify();
}

#[test]
fn a_cancellation_goes_through_the_outpost() {
    let server = Postgres::start();
    let gateway = start_far(&server, "127.0.0.1");
    let _outpost = Outpost::join(&gateway, "site-a", &[], &[&allowed(&server)], Way::default());
    let mut session = Raw::login(&through(&gateway, "far"));
    session.send(&query("select pg_sleep(60)"));
    poll("the statement to run", || {
        let running = "select count(*) from pg_stat_activity where query like 'select pg_sleep(60)%'";
        (server.sql(running) == "1").then_some(())
    });
    // The client goes; what it left running is cancelled by the way it came.
    drop(session);
    poll("the statement to be cancelled", || {
        let running =
            "select count(*) from pg_stat_activity where query like 'select pg_sleep(60)%' and state = 'active'";
        (server.sql(running) == "0").then_some(())
    });
    let record = gateway.settled("app");
    assert_eq!(record.commands[0].status(), "cancelled");
    gateway.verify();
}

#[test]
fn an_outpost_that_falls_silent_is_given_up_and_comes_back() {
    let server = Postgres::start();
    let gateway = start_far(&server, "127.0.0.1");
    let mut outpost = Outpost::join(&gateway, "site-a", &[], &[&allowed(&server)], Way::default());
    let mut session = Raw::login(&through(&gateway, "far"));
    session.send(&query("select pg_sleep(600)"));
    // Its sockets stay open, as those of a machine that lost its network.
    outpost.process().signal(rustix::process::Signal::STOP);
    let last = session.read().expect("the reason of the end");
    assert_eq!(last.field(b'C').as_deref(), Some("08006"));
    assert_eq!(refused(&through(&gateway, "far")).0, "08001");
    outpost.process().signal(rustix::process::Signal::CONT);
    poll("the outpost to be back", || {
        let target = through(&gateway, "far");
        Raw::connect(&target).authenticate(&target, 0x0003_0000, &[]).ok()
    });
    gateway.verify();
}

/// Agents with tokens of an issuer insert rows through the outpost while the outpost, the issuer and the gateway are killed
/// in turn. Whatever a client was told had happened is in the table and on the record, and nothing else is in the table.
#[test]
fn everything_is_killed_in_turn_under_load() {
    let server = Postgres::start();
    server.sql("create table done (agent int, n int)");
    server.sql("grant insert on done to app_owner");
    let mut issuer = Issuer::start();
    let tables = format!(
        "[issuers.corp]\nissuer = \"{}\"\naudience = \"onrecord\"\n\
         [[issuers.corp.rules]]\nname = \"agents\"\nwhen = \"true\"\nidentity = \"agent:{{claims.sub}}\"\ngroups = [\"agents\"]\n\
         [connections.far]\nkind = \"postgres\"\naddress = \"127.0.0.1:{}\"\ndatabase = \"app\"\nuser = \"app_owner\"\n\
         password = \"file:upstream.password\"\noutpost = \"site-a\"\nca = \"file:{}\"\ngroups = [\"agents\"]\n",
        issuer.url(),
        server.port(),
        server.authority().ca().display(),
    );
    let mut gateway = plan().listen("outposts = [\"127.0.0.1:0\"]\n").tables(&tables).start(&server);
    let mut outpost = Outpost::join(&gateway, "site-a", &[], &[&allowed(&server)], Way::default());
    // Ports stay what they were, as they do outside of tests.
    let config = std::fs::read_to_string(gateway.config()).unwrap();
    let listen = |port: u16| format!("postgres = [\"127.0.0.1:{port}\"]");
    let config = config.replace(&listen(0), &listen(gateway.target().port));
    let config = config.replace("[\"127.0.0.1:0\"]", &format!("[\"{}\"]", gateway.outpost_address()));
    std::fs::write(gateway.config(), config).unwrap();

    let stop = std::sync::atomic::AtomicBool::new(false);
    let tokens: Vec<String> =
        (0..4).map(|agent| issuer.mint(serde_json::json!({"aud": "onrecord", "sub": format!("a{agent}")}))).collect();
    let target = gateway.secure_target();
    let (acknowledged, gateway) = std::thread::scope(|scope| {
        let agents: Vec<_> = tokens
            .iter()
            .enumerate()
            .map(|(agent, token)| {
                let target = Target { user: "token".into(), password: token.clone(), ..target.with_database("far") };
                let stop = &stop;
                scope.spawn(move || {
                    let mut told = Vec::new();
                    for n in 0.. {
                        if stop.load(std::sync::atomic::Ordering::Relaxed) {
                            break;
                        }
                        let mut psql = std::process::Command::new(testkit::postgres::binary("psql"));
                        let text = format!("insert into done values ({agent}, {n})");
                        let ran = testkit::process::run(target.libpq(&mut psql).args(["-wXqc", &text]), "");
                        if ran.status.success() {
                            told.push(text);
                        }
                    }
                    told
                })
            })
            .collect();
        let work = || std::thread::sleep(Duration::from_millis(700));
        for _ in 0..2 {
            work();
            outpost.kill9();
            work();
            outpost.restart();
            outpost.wait_connected();
            work();
            issuer.stop();
            work();
            gateway.kill9();
            gateway = gateway.restart();
            work();
            issuer.restart();
            work();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let acknowledged: Vec<String> = agents.into_iter().flat_map(|agent| agent.join().unwrap()).collect();
        (acknowledged, gateway)
    });
    let record = gateway.settled("app");
    let texts: std::collections::HashSet<&str> = record.texts().into_iter().collect();
    assert!(acknowledged.len() > 20, "{}", acknowledged.len());
    for text in &acknowledged {
        assert!(texts.contains(text.as_str()), "{text} is not on the record");
    }
    let rows = server.sql("select 'insert into done values (' || agent || ', ' || n || ')' from done");
    let rows: std::collections::HashSet<&str> = rows.lines().collect();
    assert!(rows.is_subset(&texts), "a row without a command");
    assert!(acknowledged.iter().all(|text| rows.contains(text.as_str())), "a command without its row");
    gateway.verify();
}
