//! The plain two-way byte copy that the gateway is measured against.
//!
//! It accepts, dials the server, and moves bytes both ways, on one thread. It knows no protocol,
//! keeps no record and is never part of the product. `pump` is the form the comparison uses: one
//! task per session that polls both directions, with one scratch buffer for all sessions. The other
//! forms are there to show what they cost beside it.

use std::{
    cell::RefCell,
    env, future,
    io::{self, Write},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf},
    net::{TcpListener, TcpStream},
};

/// Bytes moved by one read at most.
const BUFFER_BYTES: usize = 64 * 1024;

/// How a session's bytes are moved.
#[derive(Clone, Copy)]
enum Form {
    /// One task, hand-written poll of both directions, scratch buffer shared by all sessions.
    Pump,
    /// One task, `tokio::io::copy_bidirectional_with_sizes`.
    Bidirectional,
    /// Two tasks, one direction each, with `tokio::io::copy_buf`.
    TwoTasks,
}

fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1);
    let upstream: SocketAddr = arguments
        .next()
        .context("usage: relay UPSTREAM [pump|bidirectional|two-tasks]")?
        .parse()
        .context("UPSTREAM is address:port")?;
    let form = match arguments.next().as_deref() {
        None | Some("pump") => Form::Pump,
        Some("bidirectional") => Form::Bidirectional,
        Some("two-tasks") => Form::TwoTasks,
        Some(other) => bail!("no such form: {other}"),
    };
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(serve(upstream, form))
}

async fn serve(upstream: SocketAddr, form: Form) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    writeln!(io::stderr(), "{}", listener.local_addr()?)?;
    loop {
        let (client, _) = listener.accept().await?;
        tokio::spawn(async move {
            // A session that ends in an error has ended; the one that measures sees it.
            let _ = session(client, upstream, form).await;
        });
    }
}

async fn session(mut client: TcpStream, upstream: SocketAddr, form: Form) -> io::Result<()> {
    let mut server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    match form {
        Form::Pump => pump(client, server).await,
        Form::Bidirectional => {
            tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER_BYTES, BUFFER_BYTES).await?;
            Ok(())
        }
        Form::TwoTasks => {
            let (client_read, client_write) = client.into_split();
            let (server_read, server_write) = server.into_split();
            let up = tokio::spawn(copy(client_read, server_write));
            copy(server_read, client_write).await?;
            up.await?
        }
    }
}

async fn copy(from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut from = BufReader::with_capacity(BUFFER_BYTES, from);
    tokio::io::copy_buf(&mut from, &mut to).await?;
    to.shutdown().await
}

async fn pump(mut client: TcpStream, mut server: TcpStream) -> io::Result<()> {
    let mut up = Direction::default();
    let mut down = Direction::default();
    future::poll_fn(|context| {
        let up = up.poll(&mut client, &mut server, context)?;
        let down = down.poll(&mut server, &mut client, context)?;
        match (up, down) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    })
    .await
}

/// One direction of a session. Owns memory only while its reader is slower than its writer.
#[derive(Default)]
struct Direction {
    rest: Vec<u8>,
    rest_written: usize,
    state: State,
}

#[derive(Default, Clone, Copy)]
enum State {
    #[default]
    Open,
    ShuttingDown,
    Done,
}

impl Direction {
    fn poll(&mut self, from: &mut TcpStream, to: &mut TcpStream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.state {
                State::Done => return Poll::Ready(Ok(())),
                State::ShuttingDown => {
                    ready!(Pin::new(&mut *to).poll_shutdown(context))?;
                    self.state = State::Done;
                }
                State::Open => {
                    ready!(self.poll_rest(to, context))?;
                    ready!(self.poll_move(from, to, context))?;
                }
            }
        }
    }

    /// Writes what an earlier turn could not.
    fn poll_rest(&mut self, to: &mut TcpStream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(bytes) = self.rest.get(self.rest_written..).filter(|b| !b.is_empty()) {
            self.rest_written += ready!(Pin::new(&mut *to).poll_write(context, bytes))?;
        }
        self.rest = Vec::new();
        self.rest_written = 0;
        Poll::Ready(Ok(()))
    }

    /// One read and, in the usual case, one write, through the shared scratch buffer.
    fn poll_move(
        &mut self,
        from: &mut TcpStream,
        to: &mut TcpStream,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(from).poll_read(context, &mut buffer))?;
            let bytes = buffer.filled();
            if bytes.is_empty() {
                self.state = State::ShuttingDown;
                return Poll::Ready(Ok(()));
            }
            let written = match Pin::new(to).poll_write(context, bytes)? {
                Poll::Ready(written) => written,
                Poll::Pending => 0,
            };
            self.rest.extend_from_slice(bytes.get(written..).unwrap_or_default());
            Poll::Ready(Ok(()))
        })
    }
}

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER_BYTES]);
}
