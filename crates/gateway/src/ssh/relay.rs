//! Carries bytes both ways between a client and a running program, and writes them down.
//!
//! Both directions make progress independently, and neither waits in the library's own tasks: what a peer sends is taken
//! at once and queued here, within the limits of `valve`.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::transcript::Stream;
use model::{Reason, SessionEnd};
use policy::Permit;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, client};
use store::{RecordError, Recorded};
use tokio::time::Instant;
use wire::ssh::sftp::Held;

use super::copies::Copies;
use super::files::{Answers, Files, FilesError, Next};
use super::inbox::{Inbox, Up};
use super::lines::{Ends, Lines, Shown};
use super::program::{Client, Exit, STDERR};
use super::transcript::Scribe;
use super::upstream::{Link, Program, Upstream};
use super::valve::Starved;
use super::{entries, front};

/// How long bytes may wait for a peer's room before what it grants is read at any price.
pub(super) const STARVES_AFTER: Duration = Duration::from_millis(50);
/// How long a host may take to take note that a channel is closed.
const CLOSING_MAX: Duration = Duration::from_secs(1);

/// Whether the host runs the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Began {
    /// It has not said so yet.
    NotYet,
    Yes,
    Refused,
}

/// How the relay between a client and a program ended.
pub(super) struct Ended {
    pub(super) exit: Option<Exit>,
    /// Why there is no exit status.
    pub(super) reason: Option<Reason>,
    /// What the client is told of that.
    pub(super) text: Option<String>,
}

/// What follows a program's streams.
#[derive(Default)]
pub(super) struct Taps {
    /// What writes down what goes over the streams; none where files do.
    pub(super) scribe: Option<Scribe>,
    pub(super) files: Option<Files>,
    /// What says which files go over an old `scp`.
    pub(super) copies: Option<Copies>,
    /// What says which lines a shell runs.
    pub(super) lines: Option<Lines>,
}

/// Where a program's input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InputFrom {
    Client,
    /// It has none: what the client sends is for others.
    Nowhere,
    /// As [`InputFrom::Nowhere`], and the program knows.
    Ended,
}

/// What is left of a relay.
pub(super) struct Released {
    pub(super) taps: Taps,
    /// The connection to the host, if another program can use it.
    pub(super) link: Option<Link>,
    pub(super) began: Began,
    pub(super) bytes_up: u64,
    pub(super) bytes_down: u64,
}

/// Something on its way to the client.
enum Down {
    Out(Bytes),
    Err(Bytes),
}

type OnRecord = (Held<'static>, Permit, Recorded);
type Recording<'a> = Pin<Box<dyn Future<Output = Result<OnRecord, RecordError>> + Send + 'a>>;
type Passing = Pin<Box<dyn Future<Output = Result<(), russh::Error>> + Send>>;

/// A send that is on its way, and since when.
struct Sending {
    passing: Passing,
    bytes: usize,
    since: Instant,
    starved: Option<Starved>,
}

impl Sending {
    fn new(bytes: usize, passing: Passing) -> Self {
        Self { passing, bytes, since: Instant::now(), starved: None }
    }
}

/// What whoever sits at the client is told where its session ends under a program.
fn ends(why: SessionEnd) -> String {
    match front::goodbye(why) {
        "" => "OnRecord ends this session".to_owned(),
        why => format!("OnRecord ends this session: {why}"),
    }
}

/// Carries bytes both ways between a client and a running program, and writes them down.
pub(super) struct Relay<'a> {
    client: &'a Client,
    inbox: &'a mut Inbox,
    /// Whether what the client sends is the program's input.
    input: InputFrom,
    host_reader: ChannelReadHalf,
    host_writer: Arc<ChannelWriteHalf<client::Msg>>,
    link: Link,
    taps: Taps,
    /// An operation on files that waits until it is on the record.
    recording: Option<Recording<'a>>,
    bytes_up: u64,
    bytes_down: u64,
    down: VecDeque<Down>,
    down_bytes: usize,
    up_sending: Option<Sending>,
    down_sending: Option<Sending>,
    host_open: bool,
    /// The host has closed the channel itself: nothing of it runs.
    host_closed: bool,
    /// The host takes nothing more.
    up_dead: bool,
    began: Began,
    exit: Option<Exit>,
    /// Why the terminal must end, once it must.
    ends: Option<Ends>,
}

impl<'a> Relay<'a> {
    pub(super) fn new(
        client: &'a Client,
        inbox: &'a mut Inbox,
        input: InputFrom,
        program: Program,
        taps: Taps,
    ) -> Self {
        let Program { channel, link, .. } = program;
        let (host_reader, host_writer) = channel.split();
        Self {
            client,
            inbox,
            input,
            host_reader,
            host_writer: Arc::new(host_writer),
            link,
            taps,
            recording: None,
            bytes_up: 0,
            bytes_down: 0,
            down: VecDeque::new(),
            down_bytes: 0,
            up_sending: None,
            down_sending: None,
            host_open: true,
            host_closed: false,
            up_dead: false,
            began: Began::NotYet,
            exit: None,
            ends: None,
        }
    }

    /// Until the host has closed the channel and all that it sent is with the client, or one of them is gone.
    pub(super) async fn run(&mut self) -> Result<Ended, RecordError> {
        let stop = self.client.session().ending();
        let mut gone_since: Option<Instant> = None;
        loop {
            if let Err(error) = self.send_up() {
                return self.cannot(error).await;
            }
            self.send_down()?;
            if let Some((reason, text)) = self.ends.take() {
                self.close_host().await;
                return Ok(Ended { exit: None, reason: Some(reason), text: Some(text) });
            }
            if !self.host_open && self.down.is_empty() && self.down_sending.is_none() {
                return Ok(self.ended());
            }
            if !self.inbox.is_open() && gone_since.is_none() {
                gone_since = Some(Instant::now());
                // Nobody is there to take what is on its way; what comes is written down all the same.
                self.sent_down(Ok(()));
            }
            if self.inbox.is_stuck() || self.client.session().valve().is_too_much(self.down_bytes) {
                self.close_host().await;
                return Ok(Ended {
                    exit: None,
                    reason: Some(Reason::Violation),
                    text: Some("OnRecord ends this command: its client sends on and reads nothing".to_owned()),
                });
            }
            let starving = self.starving();
            let outcome_wait = self.client.session().outcome_wait();
            let given_up = gone_since.map(|since| since + outcome_wait);
            tokio::select! {
                () = self.inbox.take(), if self.inbox.is_open() => {}
                message = self.host_reader.wait(), if self.host_open => {
                    if let Err(error) = self.take_host(message).await {
                        return self.cannot(error).await;
                    }
                }
                sent = passing(&mut self.up_sending), if self.up_sending.is_some() => {
                    self.sent_up(sent);
                }
                sent = passing(&mut self.down_sending), if self.down_sending.is_some() => {
                    self.sent_down(sent);
                }
                recorded = recording(&mut self.recording), if self.recording.is_some() => {
                    self.recording = None;
                    self.forward_file(recorded?);
                }
                () = until(starving) => self.starve(),
                () = until(given_up) => {
                    self.close_host().await;
                    return Ok(self.ended_for(Reason::ClientGone));
                }
                end = stop.wait() => {
                    self.close_host().await;
                    let ended = self.ended_for(end.unknown_because());
                    return Ok(Ended { text: Some(ends(end)), ..ended });
                }
            }
        }
    }

    /// Ends the channel to the host. What the host still sends is not waited for: it could hold up that this is said.
    async fn close_host(&mut self) {
        self.host_open = false;
        let _ = tokio::time::timeout(CLOSING_MAX, async {
            tokio::select! {
                _ = self.host_writer.close() => {}
                () = async { while self.host_reader.wait().await.is_some() {} } => {}
            }
        })
        .await;
    }

    /// An operation on files that waited for its place on the record when the channel ended: it never went.
    pub(super) async fn withdraw(&mut self) -> Result<(), RecordError> {
        if let (Some(recording), Some(files)) = (self.recording.take(), &mut self.taps.files) {
            let (held, _, recorded) = recording.await?;
            files.never_went(self.client.session(), &held, recorded)?;
        }
        Ok(())
    }

    /// What is queued for a program that is over holds up nobody: neither end of it is waited for any more.
    pub(super) fn release(self) -> Released {
        self.link.valve.passed(self.down_bytes);
        self.client.session().valve().paid(self.down_bytes);
        if let Some(send) = &self.up_sending {
            self.inbox.passed(send.bytes);
        }
        // Nothing runs over a connection whose channel the host itself has closed.
        let reusable = self.host_closed;
        let Self { taps, link, began, bytes_up, bytes_down, .. } = self;
        Released { taps, link: reusable.then_some(link), began, bytes_up, bytes_down }
    }

    fn ended(&mut self) -> Ended {
        let known = "Whether the command ended is not known.";
        let (reason, text) = match (self.host_closed, self.link.valve.outpost_lost()) {
            (true, _) => (Reason::UpstreamGone, "OnRecord: the host has not said how the command ended.".to_owned()),
            (false, true) => {
                (Reason::OutpostLost, format!("OnRecord: the outpost on the way to the host is gone. {known}"))
            }
            (false, false) => (Reason::UpstreamGone, format!("OnRecord: the connection to the host broke. {known}")),
        };
        Ended { text: Some(text), ..self.ended_for(reason) }
    }

    fn ended_for(&mut self, reason: Reason) -> Ended {
        match self.exit.take() {
            Some(exit) => Ended { exit: Some(exit), reason: None, text: None },
            None => Ended { exit: None, reason: Some(reason), text: None },
        }
    }

    /// What it asked for cannot be carried on.
    async fn cannot(&mut self, error: FilesError) -> Result<Ended, RecordError> {
        let violation = match error {
            FilesError::Record(error) => return Err(error),
            FilesError::Violation(violation) => violation,
        };
        tracing::warn!(connection = self.client.session().connection(), error = %violation, "a channel with files ends");
        self.close_host().await;
        Ok(Ended { exit: None, reason: Some(Reason::Violation), text: Some(violation.for_client()) })
    }

    fn push_down(&mut self, down: Down) {
        let bytes = match &down {
            Down::Out(data) | Down::Err(data) if data.is_empty() => return,
            Down::Out(data) | Down::Err(data) => data.len(),
        };
        self.link.valve.queue(bytes);
        self.client.session().valve().owe(bytes);
        self.down_bytes += bytes;
        self.down.push_back(down);
    }

    async fn take_host(&mut self, message: Option<ChannelMsg>) -> Result<(), FilesError> {
        match message {
            Some(ChannelMsg::Data { data }) => {
                let data = match &mut self.taps.files {
                    Some(files) => files.server(self.client.session(), &data)?,
                    None => self.write_down(Stream::Stdout, data)?,
                };
                self.push_down(Down::Out(data));
            }
            Some(ChannelMsg::ExtendedData { data, .. }) => {
                let data = self.write_down(Stream::Stderr, data)?;
                self.push_down(Down::Err(data));
            }
            Some(ChannelMsg::Success) if self.began == Began::NotYet => self.began = Began::Yes,
            Some(ChannelMsg::Failure) if self.began == Began::NotYet => {
                self.began = Began::Refused;
                self.close_host().await;
            }
            Some(ChannelMsg::ExitStatus { exit_status }) => self.exit = Some(Exit::Status(exit_status)),
            Some(ChannelMsg::ExitSignal { signal_name, core_dumped, error_message, .. }) => {
                let name = entries::signal_name(&signal_name);
                self.exit = Some(Exit::Signal { name, dumped: core_dumped, message: error_message });
            }
            // The end of its output; its exit status may still come.
            Some(ChannelMsg::Eof) => {}
            Some(ChannelMsg::Close) => (self.host_open, self.host_closed) = (false, true),
            None => self.host_open = false,
            Some(_) => {}
        }
        Ok(())
    }

    /// Writes down what the host sent, and tells what it shows, before the client gets any of it and though the client may
    /// take none. Gives what is for the client.
    fn write_down(&mut self, stream: Stream, data: Bytes) -> Result<Bytes, RecordError> {
        let session = self.client.session();
        if let Some(scribe) = &mut self.taps.scribe {
            scribe.write(stream, &data, || session.log().blob())?;
        }
        if stream != Stream::Stdout {
            return Ok(data);
        }
        if let Some(copies) = &mut self.taps.copies {
            copies.server(session, &data)?;
        }
        let Some(lines) = &mut self.taps.lines else { return Ok(data) };
        let Shown { bytes, ends } = lines.host(session, &data)?;
        self.ends = self.ends.take().or(ends);
        Ok(bytes)
    }

    /// Takes what the client sent into the tap of files, as far as there is room.
    fn take_files(&mut self) -> Result<(), FilesError> {
        let session = self.client.session();
        let Some(files) = &mut self.taps.files else { return Ok(()) };
        let mut all = Answers::default();
        // Once without new bytes: an answer of the host may have made room for what is there already.
        let mut data = Some(Bytes::new());
        while let Some(bytes) = data.take() {
            let Answers { packets, said } = files.client(session, &bytes)?;
            all.packets.extend(packets);
            all.said.extend(said);
            if files.has_room()
                && let Some(Up::Data(_)) = self.inbox.next()
                && let Some(next) = self.inbox.pop()
            {
                self.inbox.passed(next.cost());
                data = next.data();
            }
        }
        for packet in all.packets {
            self.push_down(Down::Out(packet));
        }
        for text in all.said {
            self.push_down(Down::Err(format!("{text}\r\n").into_bytes().into()));
        }
        Ok(())
    }

    /// As [`Relay::send_up`], of what files have for the host.
    fn send_file(&mut self) -> Option<Sending> {
        let files = self.taps.files.as_mut()?;
        let writer = Arc::clone(&self.host_writer);
        match files.next() {
            Next::Nothing => None,
            Next::Pass(bytes) => {
                self.bytes_up += bytes.len() as u64;
                Some(Sending::new(0, Box::pin(async move { writer.data_bytes(bytes).await })))
            }
            Next::Wait(waiting) => {
                self.recording = Some(Box::pin(waiting.recorded(self.client.session())));
                None
            }
        }
    }

    /// An operation on files is on the record: it goes.
    fn forward_file(&mut self, (held, permit, recorded): OnRecord) {
        let Some(files) = &mut self.taps.files else { return };
        let bytes = Bytes::copy_from_slice(held.frame());
        self.bytes_up += bytes.len() as u64;
        let passing = Upstream::forward_file(Arc::clone(&self.host_writer), bytes, &permit, &recorded);
        files.forward(held, recorded);
        self.up_sending = Some(Sending::new(0, Box::pin(passing)));
    }

    /// Begins to pass on what is next for the host.
    fn send_up(&mut self) -> Result<(), FilesError> {
        self.take_files()?;
        if self.up_sending.is_some() || !self.host_open || self.up_dead || self.recording.is_some() {
            return Ok(());
        }
        self.up_sending = self.send_file();
        if self.up_sending.is_some() || self.recording.is_some() {
            return Ok(());
        }
        // What the client sends to files goes by the tap and by nothing else, and its end comes behind all of it.
        if let Some(files) = &self.taps.files
            && (matches!(self.inbox.next(), Some(Up::Data(_))) || !files.is_drained())
        {
            return Ok(());
        }
        let Some(next) = self.next_up() else { return Ok(()) };
        // The end of an input that there is not was never queued.
        let cost = if self.input == InputFrom::Client { next.cost() } else { 0 };
        let writer = Arc::clone(&self.host_writer);
        self.up_sending = Some(match next {
            Up::Data(data) => {
                let session = &self.client.session();
                if let Some(scribe) = &mut self.taps.scribe {
                    scribe.write(Stream::Stdin, &data, || session.log().blob())?;
                }
                if let Some(copies) = &mut self.taps.copies {
                    copies.client(session, &data)?;
                }
                if let Some(lines) = &mut self.taps.lines {
                    lines.client(&data);
                }
                self.bytes_up += data.len() as u64;
                Sending::new(cost, Box::pin(async move { writer.data_bytes(data).await }))
            }
            Up::Resize([columns, rows, width, height]) => {
                let (size, session) = ([columns, rows], &self.client.session());
                if let Some(scribe) = &mut self.taps.scribe {
                    scribe.size(size, || session.log().blob())?;
                }
                if let Some(lines) = &mut self.taps.lines {
                    lines.resize(size);
                }
                let passing = async move { writer.window_change(columns, rows, width, height).await };
                Sending::new(cost, Box::pin(passing))
            }
            Up::Signal(signal) => Sending::new(cost, Box::pin(async move { writer.signal(signal).await })),
            Up::Eof => Sending::new(cost, Box::pin(async move { writer.eof().await })),
        });
        Ok(())
    }

    /// What is next for the host.
    fn next_up(&mut self) -> Option<Up> {
        match self.input {
            InputFrom::Client => self.inbox.pop(),
            InputFrom::Nowhere => {
                // Once: the end of it.
                self.input = InputFrom::Ended;
                Some(Up::Eof)
            }
            InputFrom::Ended => None,
        }
    }

    /// As [`Relay::send_up`], for the client.
    fn send_down(&mut self) -> Result<(), RecordError> {
        if self.down_sending.is_some() {
            return Ok(());
        }
        let Some(next) = self.down.pop_front() else { return Ok(()) };
        let writer = Arc::clone(self.client.writer());
        let (stream, data) = match next {
            Down::Out(data) => (Stream::Stdout, data),
            Down::Err(data) => (Stream::Stderr, data),
        };
        let bytes = data.len();
        self.bytes_down += bytes as u64;
        let client_open = self.inbox.is_open();
        self.down_sending = Some(Sending::new(
            bytes,
            Box::pin(async move {
                match (client_open, stream) {
                    (false, _) => Ok(()),
                    (true, Stream::Stderr) => writer.extended_data_bytes(STDERR, data).await,
                    (true, Stream::Stdin | Stream::Stdout) => writer.data_bytes(data).await,
                }
            }),
        ));
        Ok(())
    }

    fn sent_up(&mut self, sent: Result<(), russh::Error>) {
        let Some(send) = self.up_sending.take() else { return };
        self.inbox.passed(send.bytes);
        // What the host has said before is still to come.
        self.up_dead |= sent.is_err();
    }

    fn sent_down(&mut self, sent: Result<(), russh::Error>) {
        let Some(send) = self.down_sending.take() else { return };
        self.link.valve.passed(send.bytes);
        self.client.session().valve().paid(send.bytes);
        self.down_bytes = self.down_bytes.saturating_sub(send.bytes);
        if sent.is_err() {
            self.inbox.close();
        }
    }

    /// When something that is on its way has waited for too long.
    fn starving(&self) -> Option<Instant> {
        let waits = |send: &Option<Sending>| {
            let send = send.as_ref().filter(|send| send.bytes > 0 && send.starved.is_none())?;
            Some(send.since + STARVES_AFTER)
        };
        match (waits(&self.up_sending), waits(&self.down_sending)) {
            (Some(up), Some(down)) => Some(up.min(down)),
            (up, down) => up.or(down),
        }
    }

    fn starve(&mut self) {
        let long = |send: &&mut Sending| send.bytes > 0 && send.since.elapsed() >= STARVES_AFTER;
        if let Some(send) = self.up_sending.as_mut().filter(long) {
            send.starved.get_or_insert_with(|| self.link.valve.starve());
        }
        if let Some(send) = self.down_sending.as_mut().filter(long) {
            send.starved.get_or_insert_with(|| self.client.session().valve().starve());
        }
    }
}

async fn passing(sending: &mut Option<Sending>) -> Result<(), russh::Error> {
    match sending {
        Some(sending) => sending.passing.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn recording(recording: &mut Option<Recording<'_>>) -> Result<OnRecord, RecordError> {
    match recording {
        Some(recording) => recording.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}
