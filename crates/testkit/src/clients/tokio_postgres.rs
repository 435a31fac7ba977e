//! The catalogue with tokio-postgres, in this process.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, Error, NoTls, SimpleQueryMessage, Socket};

use super::await_running;
use crate::agree::Told;
use crate::{MakeRustls, Postgres, Target, Tls, process};

/// Goes through the catalogue.
pub(super) fn run(target: &Target, server: &Postgres) -> Vec<Told> {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let all = catalogue(target, server);
        tokio::time::timeout(process::PATIENCE, all).await.expect("the catalogue in time")
    })
}

async fn catalogue(target: &Target, server: &Postgres) -> Vec<Told> {
    let mut log = Log(Vec::new());
    let (client, mut notifications) = connect(target).await;

    log.simple(&client, "select 1 as one").await;
    log.simple(&client, "select 1; select 2; select 3").await;

    let text = "select $1::int4 + $2::int4 as sum, $3::text as note";
    let note = "na\u{ef}ve \u{2713} 'quoted'";
    log.extended(&client, text, &[&7i32, &8i32, &note], &[Some("7"), Some("8"), Some(note)]).await;
    let text = "select $1::text is null as empty";
    log.extended(&client, text, &[&None::<String>], &[None]).await;

    let text = "select $1::int4 * 2 as double";
    let prepared = client.prepare(text).await.unwrap();
    for value in 1..=3i32 {
        let result = client.query(&prepared, &[&value]).await;
        log.told(text, &[Some(&value.to_string())], result.map(|rows| rows.len()));
    }

    log.simple(&client, "select * from missing_table").await;
    log.extended(&client, "select * from missing_table", &[], &[]).await;
    log.extended(&client, "select 1 / $1::int4 as quotient", &[&0i32], &[Some("0")]).await;
    for text in ["begin", "select 1 / 0", "select 1", "rollback"] {
        log.simple(&client, text).await;
    }

    log.simple(&client, "create temp table numbers (n int4 primary key, note text)").await;
    pipeline(&client, &mut log).await;
    copy(&client, &mut log).await;

    log.simple(&client, "listen news").await;
    log.simple(&client, "notify news, 'fresh'").await;
    let (pid, payload) = notifications.recv().await.expect("a notification");
    let text = "select pg_backend_pid()";
    let own: i32 = client.query_one(text, &[]).await.unwrap().get(0);
    log.told(text, &[], Ok(1));
    assert_eq!((pid, payload.as_str()), (own, "fresh"), "notified by this very backend");

    let text = "select repeat('x', 8000000) as big";
    let row = client.query_one(text, &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0).len(), 8_000_000);
    log.told(text, &[], Ok(1));

    cancel(&client, target, server, &mut log).await;
    log.0
}

/// Three executions sent together. Each has its own Sync in this driver, so that the error in the
/// middle takes nothing with it.
async fn pipeline(client: &Client, log: &mut Log) {
    let text = "insert into numbers values ($1, 'pipelined')";
    let insert = client.prepare(text).await.unwrap();
    let (first, second, third) = tokio::join!(
        client.execute(&insert, &[&1i32]),
        client.execute(&insert, &[&1i32]),
        client.execute(&insert, &[&2i32]),
    );
    for (value, result) in [("1", first), ("1", second), ("2", third)] {
        log.told(text, &[Some(value)], result.map(|_| 0));
    }
}

async fn copy(client: &Client, log: &mut Log) {
    let text = "copy numbers from stdin";
    let mut sink = Box::pin(client.copy_in::<_, Bytes>(text).await.unwrap());
    sink.send(Bytes::from_static(b"10\tten\n")).await.unwrap();
    sink.send(Bytes::from_static(b"11\televen\n")).await.unwrap();
    assert_eq!(sink.as_mut().finish().await.unwrap(), 2);
    log.told(text, &[], Ok(0));

    // Dropping the sink ends the COPY early, with CopyFail.
    let text = "copy numbers (n) from stdin";
    let mut sink = Box::pin(client.copy_in::<_, Bytes>(text).await.unwrap());
    sink.send(Bytes::from_static(b"12\n")).await.unwrap();
    drop(sink);
    log.failed(text, "57014", "cancelled");

    let text = "copy (select n from numbers order by n) to stdout";
    let mut stream = Box::pin(client.copy_out(text).await.unwrap());
    let mut received = Vec::new();
    while let Some(part) = stream.next().await {
        received.extend_from_slice(&part.unwrap());
    }
    assert_eq!(received, b"1\n2\n10\n11\n");
    log.told(text, &[], Ok(0));
}

async fn cancel(client: &Client, target: &Target, server: &Postgres, log: &mut Log) {
    let text = "select pg_sleep(60), 'tokio'";
    let token = client.cancel_token();
    let statement = client.simple_query(text);
    let canceller = async {
        // Lets the other arm send its statement before this thread blocks.
        tokio::time::sleep(Duration::from_millis(1)).await;
        await_running(server, "pg_sleep(60), 'tokio'");
        match &target.tls {
            Tls::Off => token.cancel_query(NoTls).await.unwrap(),
            Tls::VerifyFull(ca) => token.cancel_query(MakeRustls::new(ca)).await.unwrap(),
        }
    };
    let (result, ()) = tokio::join!(statement, canceller);
    assert_eq!(result.err().as_ref().and_then(code), Some("57014"));
    log.failed(text, "57014", "cancelled");
}

type Notifications = mpsc::UnboundedReceiver<(i32, String)>;

async fn connect(target: &Target) -> (Client, Notifications) {
    let mut config = Config::new();
    config.host(&target.host).port(target.port).user(&target.user).password(&target.password);
    config.dbname(&target.database);
    match &target.tls {
        Tls::Off => connect_with(config.ssl_mode(SslMode::Disable), NoTls).await,
        Tls::VerifyFull(ca) => connect_with(config.ssl_mode(SslMode::Require), MakeRustls::new(ca)).await,
    }
}

async fn connect_with<T>(config: &Config, tls: T) -> (Client, Notifications)
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let (client, mut connection) = config.connect(tls).await.unwrap_or_else(|e| panic!("{e:?}"));
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(n) = message {
                let _ = sender.send((n.process_id(), n.payload().to_owned()));
            }
        }
    });
    (client, receiver)
}

struct Log(Vec<Told>);

impl Log {
    async fn simple(&mut self, client: &Client, text: &str) {
        let result = client.simple_query(text).await;
        let rows = |messages: Vec<SimpleQueryMessage>| {
            messages.iter().filter(|m| matches!(m, SimpleQueryMessage::Row(_))).count()
        };
        self.told_via("simple", text, &[], result.map(rows));
    }

    async fn extended(&mut self, client: &Client, text: &str, values: &[&(dyn ToSql + Sync)], shown: &[Option<&str>]) {
        let result = client.query(text, values).await;
        // tokio-postgres prepares first: where the server refuses the text, nothing was bound.
        let refused = result.as_ref().err().and_then(code) == Some("42P01");
        let via = if refused { "parse" } else { "extended" };
        self.told_via(via, text, shown, result.map(|rows| rows.len()));
    }

    fn told(&mut self, text: &str, parameters: &[Option<&str>], result: Result<usize, Error>) {
        self.told_via("extended", text, parameters, result);
    }

    fn told_via(&mut self, via: &str, text: &str, parameters: &[Option<&str>], result: Result<usize, Error>) {
        let code = result.as_ref().err().map(|e| code(e).unwrap_or_else(|| panic!("{e:?}")));
        let status = if code.is_some() { "error" } else { "ok" };
        let parameters = (via == "extended").then_some(parameters);
        self.0.push(Told::from_json(serde_json::json!({
            "text": text, "via": via, "params": parameters, "status": status, "code": code,
            "rows": result.ok(),
        })));
    }

    fn failed(&mut self, text: &str, code: &str, status: &str) {
        self.0.push(Told::new(text, status, Some(code)));
    }
}

fn code(error: &Error) -> Option<&str> {
    error.code().map(|state| state.code())
}
