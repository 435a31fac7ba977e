//! The agents and their work: real clients on the real wire, through the gateway.
//!
//! What they do is chosen to show every way in which a command reaches PostgreSQL, and what fails too.

use std::net::SocketAddr;
use std::pin::pin;

use anyhow::{Context, Result, ensure};
use futures_util::{SinkExt, StreamExt};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// The name of the connection, which clients give as the database.
pub(crate) const CONNECTION: &str = "shop";
/// Where the demo's tables are, also in a database that somebody else lent.
pub(crate) const SCHEMA: &str = "onrecord_demo";

/// Who works in the demo.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Agent {
    /// The user name.
    pub(crate) user: &'static str,
    /// Agent or service.
    pub(crate) kind: &'static str,
    /// For whom.
    pub(crate) on_behalf_of: Option<&'static str>,
}

/// Makes the tables.
pub(crate) const SETUP: Agent = Agent { user: "shop-setup", kind: "service", on_behalf_of: None };
/// Reads, mostly.
pub(crate) const CLAUDE: Agent = Agent { user: "claude-code", kind: "agent", on_behalf_of: Some("human:ada") };
/// Writes, mostly.
pub(crate) const COPILOT: Agent = Agent { user: "copilot-agent", kind: "agent", on_behalf_of: Some("human:bea") };

impl Agent {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [SETUP, CLAUDE, COPILOT];

    /// The full name.
    pub(crate) fn name(self) -> String {
        format!("{}:{}", self.kind, self.user)
    }
}

/// A signed-in agent.
struct Session {
    client: Client,
    driver: JoinHandle<Result<(), tokio_postgres::Error>>,
}

impl Session {
    async fn open(agent: Agent, key: &str, gateway: SocketAddr) -> Result<Self> {
        let (client, connection) = Config::new()
            .host(gateway.ip().to_string())
            .port(gateway.port())
            .user(agent.user)
            .password(key)
            .dbname(CONNECTION)
            .application_name("onrecord-demo")
            .options(format!("-c search_path={SCHEMA}"))
            .connect(NoTls)
            .await
            .with_context(|| format!("{} cannot sign in at the gateway", agent.name()))?;
        Ok(Self { client, driver: tokio::spawn(connection) })
    }

    /// Says goodbye and waits until the wire is closed.
    async fn close(self) -> Result<()> {
        drop(self.client);
        Ok(self.driver.await??)
    }
}

/// Makes the shop: a few tables, and enough rows to be worth asking about.
pub(crate) async fn set_up(key: &str, gateway: SocketAddr) -> Result<()> {
    let session = Session::open(SETUP, key, gateway).await?;
    let made = session.client.batch_execute(include_str!("shop.sql")).await;
    made.context("cannot make the demo's tables")?;
    session.close().await
}

/// Both agents at work, at the same time.
pub(crate) async fn work(claude: &str, copilot: &str, gateway: SocketAddr) -> Result<()> {
    let (one, two) = tokio::join!(read_and_report(claude, gateway), take_orders(copilot, gateway));
    one.and(two)
}

/// claude-code answers questions: it reads, makes a mistake, and takes a copy.
async fn read_and_report(key: &str, gateway: SocketAddr) -> Result<()> {
    let session = Session::open(CLAUDE, key, gateway).await?;
    let client = &session.client;
    let open = client.simple_query("select count(*) from orders where status = 'open'").await?;
    ensure!(open.iter().any(|message| matches!(message, SimpleQueryMessage::Row(_))), "no count");

    // One prepared statement, executed thrice.
    let product = client.prepare("select name, price_cents from products where id = $1").await?;
    for id in [1_i32, 2, 3] {
        client.query_one(&product, &[&id]).await?;
    }

    // An agent's typo: refused by PostgreSQL, and on the record with its code.
    let typo = client.simple_query("select emial from customers limit 5").await;
    ensure!(typo.is_err(), "the misspelt column was found");

    let copy = "copy (select id, status from orders order by id) to stdout";
    let mut rows = pin!(client.copy_out(copy).await?);
    while let Some(row) = rows.next().await {
        row?;
    }
    session.close().await
}

/// copilot-agent takes orders: it writes, in a pipeline and in bulk, and is stopped by a constraint.
async fn take_orders(key: &str, gateway: SocketAddr) -> Result<()> {
    let session = Session::open(COPILOT, key, gateway).await?;
    let client = &session.client;
    let insert = "insert into orders (customer_id, product_id, quantity) values ($1, $2, $3) returning id";
    client.query_one(insert, &[&3_i32, &2_i32, &4_i32]).await?;

    // A pipeline: three commands on the wire before the first answer.
    let ship = client.prepare("update orders set status = 'shipped' where id = $1").await?;
    let (one, two, three) = tokio::join!(
        client.execute(&ship, &[&1_i32]),
        client.execute(&ship, &[&2_i32]),
        client.execute(&ship, &[&4_i32]),
    );
    ensure!(one? + two? + three? == 3, "an order is missing");

    let copy = "copy stock (product_id, quantity) from stdin";
    let mut sink = pin!(client.copy_in::<_, &[u8]>(copy).await?);
    sink.send(b"1\t120\n2\t48\n3\t7\n".as_slice()).await?;
    ensure!(sink.as_mut().finish().await? == 3, "a row of stock is missing");

    // A bad idea, stopped by a foreign key: the attempt stays on the record.
    let delete = client.simple_query("delete from customers").await;
    ensure!(delete.is_err(), "the customers are gone");

    // A change that is taken back.
    client.batch_execute("begin; update products set price_cents = price_cents / 2; rollback").await?;
    session.close().await
}
