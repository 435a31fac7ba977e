//! Bytes both ways, as they come. A direction at rest holds no memory: what is read goes through one buffer of the
//! process, and only what the other side does not take yet is kept.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is read at a time, bytes; also the most that a direction keeps.
const READ_BYTES: usize = 32 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// Copies until both sides have ended, or one of them broke; gives how many bytes went each way.
pub(crate) async fn both_ways<A, B>(mut a: A, mut b: B) -> (u64, u64)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut there, mut back) = (Direction::default(), Direction::default());
    let _ = poll_fn(|cx| {
        let one = there.poll(cx, &mut a, &mut b);
        let other = back.poll(cx, &mut b, &mut a);
        match (one, other) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    })
    .await;
    (there.moved, back.moved)
}

#[derive(Default)]
struct Direction {
    /// Read and not yet taken, from `at` on.
    kept: Vec<u8>,
    at: usize,
    moved: u64,
    /// The one side has ended.
    ended: bool,
    /// The other has been told.
    told: bool,
}

impl Direction {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        loop {
            while let Some(rest) = self.kept.get(self.at..)
                && !rest.is_empty()
            {
                self.at += ready!(write(cx, to, rest))?;
            }
            (self.kept, self.at) = (Vec::new(), 0);
            if self.told {
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.told = true;
                return Poll::Ready(Ok(()));
            }
            ready!(SCRATCH.with_borrow_mut(|scratch| {
                let mut into = ReadBuf::new(scratch);
                ready!(Pin::new(&mut *from).poll_read(cx, &mut into))?;
                let bytes = into.filled();
                self.ended = bytes.is_empty();
                self.moved += u64::try_from(bytes.len()).unwrap_or(0);
                let mut taken = 0;
                while let Some(rest) = bytes.get(taken..)
                    && !rest.is_empty()
                {
                    match write(cx, to, rest) {
                        Poll::Ready(count) => taken += count?,
                        Poll::Pending => {
                            self.kept = rest.to_vec();
                            break;
                        }
                    }
                }
                Poll::Ready(io::Result::Ok(()))
            }))?;
            if !self.kept.is_empty() {
                return Poll::Pending;
            }
        }
    }
}

fn write(cx: &mut Context<'_>, to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(to).poll_write(cx, bytes))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        count => Poll::Ready(Ok(count)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn all_bytes_arrive_and_each_end_is_told_of_the_others() {
        let (mut client, a) = tokio::io::duplex(100);
        let (b, mut server) = tokio::io::duplex(70);
        let pumping = tokio::spawn(both_ways(a, b));
        let sent: Vec<u8> = (0..100_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
            let mut back = Vec::new();
            client.read_to_end(&mut back).await.unwrap();
            back
        });
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, expected);
        server.write_all(b"done").await.unwrap();
        server.shutdown().await.unwrap();
        assert_eq!(writing.await.unwrap(), b"done");
        assert_eq!(pumping.await.unwrap(), (100_000, 4));
    }
}
