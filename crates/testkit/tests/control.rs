//! The clients against PostgreSQL itself, no gateway between: what the scripts tell must be what
//! the server's log shows. When a test through the gateway fails, this one says whose fault it is.

use testkit::clients::Client;
use testkit::{Postgres, agree};

fn direct(client: Client) {
    let server = Postgres::start();
    for (database, tls) in [("plain", false), ("encrypted", true)] {
        server.create_database(database);
        let mut target = server.target().with_database(database);
        if tls {
            target = target.with_tls(server.authority().ca());
        }
        let told = client.run(&target, &server);
        assert!(told.len() > 10, "a catalogue has more than {} commands", told.len());
        agree::server_ran(&told, &server.log().ran(database));
    }
}

#[test]
fn asyncpg() {
    direct(Client::Asyncpg);
}

#[test]
fn node_postgres() {
    direct(Client::NodePostgres);
}

#[test]
fn pgbench() {
    direct(Client::Pgbench);
}

#[test]
fn pgjdbc() {
    direct(Client::Pgjdbc);
}

#[test]
fn psql() {
    direct(Client::Psql);
}

#[test]
fn psycopg() {
    direct(Client::Psycopg);
}

#[test]
fn tokio_postgres() {
    direct(Client::TokioPostgres);
}
