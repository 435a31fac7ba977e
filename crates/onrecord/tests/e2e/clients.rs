//! Unmodified clients: the record holds exactly what each of them did, and what the server ran.

use testkit::clients::Client;
use testkit::{Gateway, Postgres, Target, agree};

use crate::start;

/// Once in plain text and once with TLS on both sides.
#[track_caller]
fn recorded(client: Client) {
    let (server, gateway) = start();
    let plain = gateway.target().with_database("app/plain");
    check(client, &server, &gateway, "plain", &plain, &[]);
    let encrypted = gateway.secure_target().with_database("secure/encrypted");
    check(client, &server, &gateway, "encrypted", &encrypted, &[]);
    gateway.verify();
    gateway.assert_no_secrets(&[]);
}

#[track_caller]
fn check(client: Client, server: &Postgres, gateway: &Gateway, database: &str, target: &Target, env: &[(&str, &str)]) {
    server.create_database(database);
    let told = client.run_with(target, server, env);
    let log = server.log();
    // First of all, the script itself must tell the truth.
    agree::server_ran(&told, &log.ran(database));
    agree::record_holds(&told, &gateway.settled(database));
}

#[test]
fn asyncpg() {
    recorded(Client::Asyncpg);
}

#[test]
fn node_postgres() {
    recorded(Client::NodePostgres);
}

#[test]
fn pgbench() {
    recorded(Client::Pgbench);
}

#[test]
fn pgjdbc() {
    recorded(Client::Pgjdbc);
}

#[test]
fn psql() {
    recorded(Client::Psql);
}

#[test]
fn psycopg() {
    recorded(Client::Psycopg);
}

#[test]
fn tokio_postgres() {
    recorded(Client::TokioPostgres);
}

/// libpq 18 asks for protocol 3.2 (longer cancel keys), though the server speaks 3.0.
#[test]
fn protocol_3_2() {
    let (server, gateway) = start();
    let env = [("PGMAXPROTOCOLVERSION", "latest")];
    let target = gateway.secure_target().with_database("app/newest");
    check(Client::Psycopg, &server, &gateway, "newest", &target, &env);
}

/// libpq 18 begins with TLS at once, without asking.
#[test]
fn direct_tls() {
    let (server, gateway) = start();
    let env = [("PGSSLNEGOTIATION", "direct")];
    let target = gateway.secure_target().with_database("app/direct");
    check(Client::Psycopg, &server, &gateway, "direct", &target, &env);
}

/// The agent's key is bound to the TLS channel where the client insists.
#[test]
fn channel_binding() {
    let (server, gateway) = start();
    let env = [("PGCHANNELBINDING", "require")];
    let target = gateway.secure_target().with_database("app/bound");
    check(Client::Psql, &server, &gateway, "bound", &target, &env);
}

/// Each durability records the same.
#[test]
fn durabilities() {
    for durability in ["both", "held", "written"] {
        let server = Postgres::start();
        let gateway = crate::plan().durability(durability).start(&server);
        let target = gateway.target().with_database("app/durable");
        check(Client::Psycopg, &server, &gateway, "durable", &target, &[]);
    }
}
