//! What an outpost says when it connects: it joins, it renews, or it brings a link.
//!
//! Nothing is believed before the handshake that the ALPN names is done, and each has a time limit.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use link::{
    ALPN_ENROL, ALPN_LINK, ALPN_RENEW, ALPN_WEB, CONNECTIONS_MAX, DEAD_AFTER, Frame, HANDSHAKE_MAX, LinkStream, Mux,
    Side, VERSION, websocket,
};
use model::OutpostAction;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use x509_cert::der::Decode as _;

use super::links::{Link, Why};
use super::registry::NotAdmitted;
use super::{Outposts, Said, now};
use crate::Shared;
use crate::hex;
use crate::refusals::Reason;

/// After the last word on a link: how long it may take to leave.
const PARTING: Duration = Duration::from_secs(1);

/// Serves what connected to the port for outposts, to its end.
pub(crate) async fn serve(shared: Arc<Shared>, tcp: TcpStream, peer: SocketAddr, closing: CancellationToken) {
    let Some(outposts) = shared.outposts.clone() else { return };
    let Ok(slot) = outposts.0.handshakes.clone().try_acquire_owned() else {
        return shared.refuse(Reason::Limit, peer);
    };
    if tcp.set_nodelay(true).is_err() {
        return;
    }
    crate::keepalive(&tcp);
    let accepting = TlsAcceptor::from(outposts.server()).accept(tcp);
    let accepted = tokio::time::timeout(HANDSHAKE_MAX, accepting).await;
    let Ok(Ok(tls)) = accepted else {
        return shared.refuse(Reason::AuthenticationFailed, peer);
    };
    let visit = Visit { shared: &shared, outposts: &outposts, peer, closing, _slot: slot };
    if tls.get_ref().1.alpn_protocol() != Some(ALPN_WEB) {
        return visit.greet(tls).await;
    }
    let inside = async {
        let web = websocket::accept_from(tls).await?;
        TlsAcceptor::from(outposts.server()).accept(web).await
    };
    match tokio::time::timeout(HANDSHAKE_MAX, inside).await {
        Ok(Ok(tls)) => visit.greet(tls).await,
        Ok(Err(_)) | Err(_) => shared.refuse(Reason::AuthenticationFailed, peer),
    }
}

/// Somebody at the port for outposts.
struct Visit<'a> {
    shared: &'a Arc<Shared>,
    outposts: &'a Outposts,
    peer: SocketAddr,
    closing: CancellationToken,
    _slot: tokio::sync::OwnedSemaphorePermit,
}

impl Visit<'_> {
    async fn greet<S>(self, tls: TlsStream<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let state = tls.get_ref().1;
        let serial = state.peer_certificates().and_then(<[_]>::first).and_then(|certificate| serial_of(certificate));
        match (state.alpn_protocol(), serial) {
            (Some(ALPN_ENROL), None) => self.timed(self.enrol(tls)).await,
            (Some(ALPN_RENEW), Some(serial)) => self.timed(self.renew(tls, &serial)).await,
            (Some(ALPN_LINK), Some(serial)) => self.link(tls, &serial).await,
            _ => self.shared.refuse(Reason::AuthenticationFailed, self.peer),
        }
    }

    /// One question and one answer, in time.
    async fn timed(&self, asking: impl Future<Output = io::Result<()>>) {
        if !matches!(tokio::time::timeout(HANDSHAKE_MAX, asking).await, Ok(Ok(()))) {
            self.shared.refuse(Reason::ClosedEarly, self.peer);
        }
    }

    async fn enrol<S: AsyncRead + AsyncWrite + Unpin>(&self, mut tls: TlsStream<S>) -> io::Result<()> {
        let Frame::Enrol { token, request, mac } = Frame::read(&mut tls).await? else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let answer = match self.outposts.join(token, &request, &mac, self.peer) {
            Ok(Ok(issued)) => issued,
            Ok(Err(why)) => {
                self.refused(None, why);
                Frame::Denied { why: why.to_string() }
            }
            Err(error) => {
                tracing::warn!(%error, peer = %self.peer, "an outpost could not join");
                Frame::Denied { why: "the gateway could not issue a certificate; its log says why".into() }
            }
        };
        answer.write(&mut tls).await?;
        tls.shutdown().await
    }

    async fn renew<S: AsyncRead + AsyncWrite + Unpin>(&self, mut tls: TlsStream<S>, serial: &str) -> io::Result<()> {
        let Frame::Renew { request } = Frame::read(&mut tls).await? else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let admitted = self.outposts.0.registry.admit(serial, now());
        let answer = match admitted.map(|outpost| self.outposts.renew(&outpost, &request, self.peer)) {
            Ok(Ok(issued)) => issued,
            // Not `Denied`: what failed here may work later.
            Ok(Err(error)) => {
                tracing::warn!(%error, peer = %self.peer, "a certificate of an outpost was not renewed");
                return Ok(());
            }
            Err(why) => {
                self.refused(Some(serial), why);
                Frame::Denied { why: why.to_string() }
            }
        };
        answer.write(&mut tls).await?;
        tls.shutdown().await
    }

    /// Says that somebody was turned away, as an entry where it is not too often.
    fn refused(&self, serial: Option<&str>, why: NotAdmitted) {
        let reason = match why {
            NotAdmitted::Revoked => Reason::Revoked,
            NotAdmitted::Token | NotAdmitted::Unknown | NotAdmitted::Expired => Reason::AuthenticationFailed,
        };
        if !self.outposts.may_say_refused() {
            return self.shared.refuse(reason, self.peer);
        }
        let known = serial.and_then(|serial| self.outposts.of_serial(serial));
        let said = Said { address: Some(self.peer), serial, reason: Some(why.to_string()), by: None };
        self.outposts.note(OutpostAction::Refused, known.as_ref(), said);
    }

    /// A link, from its first word to its end.
    async fn link<S>(self, tls: TlsStream<S>, serial: &str)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mux, opener) = Mux::new(tls, Side::Gateway);
        let (control, first) = oneshot::channel();
        let (broken, mut broke) = mpsc::channel(1);
        let driving = tokio::spawn(async move {
            let _ = broken.send(drive(mux, control).await).await;
        });
        let hello = async {
            let mut control = first.await.map_err(io::Error::other)?;
            let hello = Frame::read(&mut control).await?;
            io::Result::Ok((control, hello))
        };
        let greeted = tokio::time::timeout(HANDSHAKE_MAX, hello).await;
        let Ok(Ok((mut control, Frame::Hello { version, instance, epoch, place, program }))) = greeted else {
            driving.abort();
            return self.shared.refuse(Reason::Malformed, self.peer);
        };
        let admitted = self.outposts.0.registry.admit(serial, now());
        let outpost = match admitted {
            Ok(outpost) if version == VERSION && place < CONNECTIONS_MAX => outpost,
            other => {
                let why = match other {
                    Ok(_) => format!("this gateway speaks version {VERSION} of the link, this outpost another"),
                    Err(why) => {
                        self.refused(Some(serial), why);
                        why.to_string()
                    }
                };
                part(&mut control, Frame::Denied { why }).await;
                return driving.abort();
            }
        };
        let link = Arc::new(Link::new(outpost, opener, self.peer, (instance, epoch, place), program));
        let lost = self.keep(&link, control, &mut broke, serial).await;
        driving.abort();
        tracing::info!(outpost = link.outpost.name, peer = %self.peer, place, "a link of an outpost ended: {lost}");
    }

    /// Keeps a link that was admitted; says why it ended.
    async fn keep(
        &self,
        link: &Arc<Link>,
        mut control: LinkStream,
        broke: &mut mpsc::Receiver<String>,
        serial: &str,
    ) -> String {
        let (outposts, outpost) = (self.outposts, &link.outpost);
        let said = |reason: Option<String>| Said { address: Some(self.peer), serial: Some(serial), reason, by: None };
        let was_up = outposts.0.links.count(&outpost.id) > 0;
        let (mut up, superseded) = outposts.0.links.add(link.clone());
        // Between the look at the registry and here it may have been revoked.
        if outposts.0.registry.stands(&outpost.id, now()).is_err() {
            outposts.0.links.end(&outpost.id, Why::Revoked);
        }
        if superseded > 0 {
            let reason = format!("{superseded} of its links took longer to end than to be replaced");
            outposts.note(OutpostAction::Superseded, Some(outpost), said(Some(reason)));
        }
        if !was_up {
            outposts.note(OutpostAction::Connected, Some(outpost), said(None));
        }
        let welcome = Frame::Welcome { version: VERSION, name: outpost.name.clone() };
        let listening = async {
            welcome.write(&mut control).await?;
            listen(&mut control, outposts, link).await
        };
        let (parting, why) = tokio::select! {
            ended = listening => (None, match ended {
                Ok(why) => why,
                Err(error) => error.to_string(),
            }),
            Some(why) = broke.recv() => (None, why),
            why = &mut up.end => match why {
                Ok(Why::Superseded) => {
                    let why = "a newer link took its place";
                    (Some(Frame::Goodbye { why: why.into() }), why.to_owned())
                }
                Ok(Why::Revoked) | Err(_) => {
                    let why = NotAdmitted::Revoked.to_string();
                    (Some(Frame::Denied { why: why.clone() }), why)
                }
            },
            () = self.closing.cancelled() => {
                let why = "the gateway is stopping";
                (Some(Frame::Goodbye { why: why.into() }), why.to_owned())
            }
        };
        drop(up);
        if outposts.0.links.count(&outpost.id) == 0 && outposts.0.registry.stands(&outpost.id, now()).is_ok() {
            outposts.note(OutpostAction::Lost, Some(outpost), said(Some(why.clone())));
        }
        if let Some(parting) = parting {
            part(&mut control, parting).await;
        }
        why
    }
}

/// Moves the streams of a link; the first that the outpost opens is its control stream, and there is no other.
async fn drive<T: AsyncRead + AsyncWrite + Unpin>(mut mux: Mux<T>, control: oneshot::Sender<LinkStream>) -> String {
    let mut control = Some(control);
    loop {
        match poll_fn(|cx| mux.poll_next(cx)).await {
            Some(Ok(stream)) => match control.take() {
                Some(control) => drop(control.send(stream)),
                None => return "the outpost opened a stream, which it may not".into(),
            },
            Some(Err(error)) => return error.to_string(),
            None => return "the connection was closed".into(),
        }
    }
}

/// Answers pings until the outpost says goodbye, is silent for too long, or is no longer welcome.
async fn listen(control: &mut LinkStream, outposts: &Outposts, link: &Link) -> io::Result<String> {
    loop {
        let heard = tokio::time::timeout(DEAD_AFTER, Frame::read(control)).await;
        match heard {
            Err(_elapsed) => return Ok("the outpost is silent".into()),
            Ok(frame) => match frame? {
                Frame::Ping { number } => {
                    link.heard();
                    Frame::Pong { number }.write(control).await?;
                }
                Frame::Goodbye { why } => return Ok(why),
                _ => return Ok("the outpost sent what it should not".into()),
            },
        }
        if let Err(why) = outposts.0.registry.stands(&link.outpost.id, now()) {
            return Ok(why.to_string());
        }
    }
}

/// Says the last word, and gives it a moment to leave.
async fn part(control: &mut LinkStream, frame: Frame) {
    let parting = async {
        frame.write(control).await?;
        // The other end closes when it has read it.
        while Frame::read(control).await.is_ok() {}
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(PARTING, parting).await;
}

/// The serial number of a certificate, hexadecimal.
fn serial_of(certificate: &[u8]) -> Option<String> {
    let parsed = x509_cert::Certificate::from_der(certificate).ok()?;
    Some(hex(parsed.tbs_certificate.serial_number.as_bytes()))
}
