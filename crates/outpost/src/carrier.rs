//! The way to the gateway: straight, through a proxy, inside a WebSocket. What is checked is always the innermost TLS.

use std::io;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};

use link::websocket::{self, WebSocket};
use link::{GATEWAY_NAME, HANDSHAKE_MAX, trust};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{Carrier, Options, random};

/// An HTTP proxy that is asked to CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    address: String,
}

impl FromStr for Proxy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "write http://HOST:PORT";
        let rest = text.strip_prefix("http://").ok_or(FORM)?;
        let address = rest.strip_suffix('/').unwrap_or(rest);
        let odd = |c: char| c.is_whitespace() || c.is_control() || "/@".contains(c);
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none() || address.contains(odd) { Err(FORM) } else { Ok(Self { address: address.to_owned() }) }
    }
}

/// What the TLS to the gateway runs over.
pub(crate) enum Way {
    Tcp(TcpStream),
    Web(Box<WebSocket<TlsStream<TcpStream>>>),
}

/// Connects to the gateway. Not cancel safe: dropping it closes the socket.
pub(crate) async fn dial(options: &Options, address: &str, tls: ClientConfig) -> io::Result<TlsStream<Way>> {
    let dialling = async {
        let way = reach(options, address).await?;
        let name = ServerName::try_from(GATEWAY_NAME).map_err(io::Error::other)?;
        TlsConnector::from(Arc::new(tls)).connect(name, way).await
    };
    match tokio::time::timeout(HANDSHAKE_MAX, dialling).await {
        Ok(dialled) => dialled,
        Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn reach(options: &Options, address: &str) -> io::Result<Way> {
    let mut tcp = match &options.proxy {
        None => TcpStream::connect(address).await?,
        Some(proxy) => TcpStream::connect(&proxy.address).await?,
    };
    tcp.set_nodelay(true)?;
    keepalive(&tcp);
    if options.proxy.is_some() {
        websocket::through_proxy(&mut tcp, address).await?;
    }
    match options.carrier {
        Carrier::Tls => Ok(Way::Tcp(tcp)),
        Carrier::WebSocket => {
            let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
            let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
            let outer = trust::outer().map_err(io::Error::other)?;
            let outer = TlsConnector::from(Arc::new(outer)).connect(name, tcp).await?;
            Ok(Way::Web(Box::new(websocket::connect(outer, address, random()).await?)))
        }
    }
}

/// Notices a dead peer within minutes, whatever is between.
pub(crate) fn keepalive(stream: &TcpStream) {
    use std::time::Duration;
    let _ = rustix::net::sockopt::set_socket_keepalive(stream, true);
    let _ = rustix::net::sockopt::set_tcp_keepidle(stream, Duration::from_secs(60));
    let _ = rustix::net::sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15));
    let _ = rustix::net::sockopt::set_tcp_keepcnt(stream, 4);
}

impl AsyncRead for Way {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Web(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Way {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Web(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Web(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Web(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
