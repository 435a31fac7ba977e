//! One stream: what the gateway asks to be dialled, and the list that decides whether it is.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use link::frame::plain;
use link::{Frame, HANDSHAKE_MAX, LinkStream, VERSION};
use tokio::net::TcpStream;

use crate::{Shared, carrier, pump, say};

/// The longest that a dial may take, whatever the gateway allows.
const DIAL_MAX: Duration = Duration::from_secs(30);

/// Serves a stream to its end.
pub(crate) async fn serve(shared: Arc<Shared>, mut stream: LinkStream) {
    let asked = tokio::time::timeout(HANDSHAKE_MAX, Frame::read(&mut stream)).await;
    let Ok(Ok(Frame::Open { version: VERSION, session, host, port, deadline_ms })) = asked else {
        return say("the gateway opened a stream without saying what for");
    };
    let session = if session.is_empty() { "a session".to_owned() } else { session };
    if !shared.options.allowed.iter().any(|allowed| allowed.host == host && allowed.port == port) {
        say(&format!("refused {host}:{port} for {session}: it is not on the list"));
        let _ = Frame::Refused.write(&mut stream).await;
        return;
    }
    let begun = Instant::now();
    let limit = Duration::from_millis(deadline_ms.into()).min(DIAL_MAX);
    let (answer, resource) = match tokio::time::timeout(limit, dial(&host, port)).await {
        Ok(Ok(tcp)) => {
            let connect_us = u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX);
            (Frame::Opened { connect_us }, Some(tcp))
        }
        Ok(Err(error)) => (Frame::Unreachable { why: plain(&error.to_string()) }, None),
        Err(_elapsed) => (Frame::TimedOut, None),
    };
    let answered = answer.write(&mut stream).await;
    let (Ok(()), Some(tcp)) = (answered, resource) else { return };
    let (up, down) = pump::both_ways(stream, tcp).await;
    say(&format!("{session} to {host}:{port} ended after {up} bytes there and {down} back"));
}

async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    carrier::keepalive(&tcp);
    Ok(tcp)
}
