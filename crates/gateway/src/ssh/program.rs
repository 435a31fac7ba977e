//! One channel of a session: what is asked for in it, whether that may run, and its way there and back.
//!
//! ```text
//! client ─▶ requests ─▶ policy ─▶ Permit ┐
//!                └────▶ record ─▶ Recorded┴▶ Upstream::forward ─▶ host
//! client ◀─ relay ◀─ transcript ◀─ host          └─▶ outcome ─▶ record
//! ```
//!
//! Invariant: the host gets a command only after its intent is where the connection's durability wants it, and the
//! client gets the end of one only after its outcome was written.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use model::{CommandId, Reason, Status, Via};
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use store::{OutcomeDraft, RecordError, Recorded};

use super::copies::Copies;
use super::entries::{self, Asked};
use super::files::Files;
use super::inbox::{Inbox, InputBefore};
use super::lines::Lines;
use super::managed;
use super::relay::{Began, InputFrom, Relay, Released, Taps};
use super::session::{Ruled, Session};
use super::shell::Nonce;
use super::transcript::{Input, Scribe};
use super::upstream::{HasTerminal, LoginError, Staged, Start, StartError, Terminal};
use super::waiting::{self, Waited};
use crate::config::{Shells, Terminals};

/// Environment variables that a client may set for a command.
const ENV_MAX: usize = 64;
/// Bytes of their names and values.
const ENV_BYTES_MAX: usize = 16 * 1024;
/// The longest name of a terminal, bytes.
const TERM_BYTES_MAX: usize = 64;
/// The longest command, bytes. Linux takes no longer one as an argument; SSH, at most 256 KiB in a packet, could not say of much
/// longer ones that they are refused.
pub(super) const COMMAND_BYTES_MAX: usize = 128 * 1024;
/// How long a client may take to take what it is told.
const SAYING_MAX: Duration = Duration::from_secs(2);
/// What the shell says where a command cannot be run.
const EXIT_REFUSED: u32 = 126;
/// What `ssh` says where something other than the command failed.
const EXIT_FAILED: u32 = 255;
/// Extended data of this kind is standard error; RFC 4254, 5.2.
pub(super) const STDERR: u32 = 1;

/// Serves one channel to its end.
pub(super) async fn run(session: Arc<Session>, channel: Channel<Msg>) {
    let (mut reader, writer) = channel.split();
    let client = Client { writer: Arc::new(writer), session };
    let ending = client.session.ending();
    let asked = tokio::select! {
        biased;
        _ = ending.wait() => None,
        asked = requests(&mut reader, &client) => asked,
    };
    let Some((staged, before)) = asked else { return };
    let mut inbox = Inbox::new(&client.session, reader, before);
    let done = match staged.start {
        Start::Shell(_) if client.session.shells() == Shells::Managed => {
            managed::serve(&client, &mut inbox, staged).await
        }
        _ => client.command(&mut inbox, InputFrom::Client, staged).await,
    };
    // What the client still sends is not waited for.
    drop(inbox);
    match done {
        Ok(Done { said, exit }) => {
            if let Some(text) = said {
                client.say(&text).await;
            }
            if let Some(exit) = exit {
                client.end(exit).await;
            }
        }
        Err(error) => {
            client.session.fail(&error);
            // Whether something runs already, the error does not know.
            let what = match error {
                RecordError::Blob { .. } => {
                    "what went over it could not be stored, and whether its command ended is not known"
                }
                _ => error.for_client(),
            };
            client.say(&format!("OnRecord ends this session because it cannot record it: {what}")).await;
            client.end(Exit::Status(EXIT_FAILED)).await;
        }
    }
}

/// Serves a channel of a client that has no session: says why, whatever it asks for.
pub(super) async fn turn_away(channel: Channel<Msg>, handle: &Handle, text: &str) {
    let (mut reader, writer) = channel.split();
    let id = writer.id();
    loop {
        match reader.wait().await {
            Some(ChannelMsg::Exec { .. } | ChannelMsg::RequestSubsystem { .. } | ChannelMsg::RequestShell { .. }) => {
                break;
            }
            Some(ChannelMsg::Close) | None => return,
            Some(_) => {}
        }
    }
    // A client that waits for something else takes no note of it.
    drop(reader);
    let parting = async {
        let _ = writer.extended_data_bytes(STDERR, format!("{text}\r\n").into_bytes()).await;
        let _ = handle.exit_status_request(id, EXIT_FAILED).await;
        let _ = writer.eof().await;
        let _ = writer.close().await;
    };
    let _ = tokio::time::timeout(SAYING_MAX, parting).await;
}

/// What the client asks for before something is started.
async fn requests(reader: &mut ChannelReadHalf, client: &Client) -> Option<(Staged, InputBefore)> {
    let mut input = InputBefore::Open;
    let mut env: Vec<(String, String)> = Vec::new();
    let mut env_bytes = 0;
    let mut terminal = None;
    let start = loop {
        match reader.wait().await? {
            ChannelMsg::SetEnv { variable_name, variable_value, .. } => {
                env_bytes += variable_name.len() + variable_value.len();
                let ends_early = variable_name.contains('\0') || variable_value.contains('\0');
                if env.len() < ENV_MAX && env_bytes <= ENV_BYTES_MAX && !ends_early {
                    // What is recorded has each name once, and so has what is sent.
                    env.retain(|(name, _)| *name != variable_name);
                    env.push((variable_name, variable_value));
                }
            }
            ChannelMsg::RequestPty { term, col_width, row_height, pix_width, pix_height, terminal_modes, .. }
                if client.session.terminals() == Terminals::Allowed =>
            {
                let term: String = term.chars().filter(char::is_ascii_graphic).take(TERM_BYTES_MAX).collect();
                let size = [col_width, row_height, pix_width, pix_height];
                terminal = Some(Terminal { term, size, modes: terminal_modes });
            }
            ChannelMsg::Exec { command, .. } => break Start::Exec(command),
            ChannelMsg::RequestSubsystem { name, .. } => break Start::Subsystem(name),
            ChannelMsg::RequestShell { .. } => break Start::Shell(None),
            ChannelMsg::Eof => input = InputBefore::Ended,
            ChannelMsg::Close => return None,
            _ => {}
        }
    };
    Some((Staged { start, env, terminal }, input))
}

/// What became of a command.
pub(super) struct Done {
    /// What its client is told.
    pub(super) said: Option<String>,
    /// How it ended, for the client; none where the client is gone.
    pub(super) exit: Option<Exit>,
}

impl Done {
    fn refused(text: String) -> Self {
        Self { said: Some(text), exit: Some(Exit::Status(EXIT_REFUSED)) }
    }

    fn gone() -> Self {
        Self { said: None, exit: None }
    }
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Exit {
    Status(u32),
    Signal { name: String, dumped: bool, message: String },
}

impl Exit {
    pub(super) fn status(&self) -> Status {
        match self {
            Self::Status(0) => Status::Ok,
            Self::Status(_) | Self::Signal { .. } => Status::Error,
        }
    }

    /// As the record has it: a number, or `SIG` and the name of a signal.
    pub(super) fn code(&self) -> String {
        match self {
            Self::Status(status) => status.to_string(),
            Self::Signal { name, .. } => format!("SIG{name}"),
        }
    }
}

/// The client's end of a channel.
pub(super) struct Client {
    writer: Arc<ChannelWriteHalf<Msg>>,
    session: Arc<Session>,
}

impl Client {
    pub(super) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    pub(super) fn writer(&self) -> &Arc<ChannelWriteHalf<Msg>> {
        &self.writer
    }

    /// Says something to whoever sits at the client, where a program would complain.
    pub(super) async fn say(&self, text: &str) {
        let saying = self.writer.extended_data_bytes(STDERR, format!("{text}\r\n").into_bytes());
        // A client that takes nothing does not hear it.
        let _ = tokio::time::timeout(SAYING_MAX, saying).await;
    }

    /// Shows something on the client's terminal.
    pub(super) async fn show(&self, bytes: Vec<u8>) {
        let _ = tokio::time::timeout(SAYING_MAX, self.writer.data_bytes(bytes)).await;
    }

    async fn end(&self, exit: Exit) {
        let (handle, id) = (self.session.handle(), self.writer.id());
        let ending = async {
            let _ = match exit {
                Exit::Status(status) => handle.exit_status_request(id, status).await,
                Exit::Signal { name, dumped, message } => {
                    let signal = Sig::Custom(name);
                    handle.exit_signal_request(id, signal, dumped, message, String::new()).await
                }
            };
            let _ = self.writer.eof().await;
            let _ = self.writer.close().await;
        };
        let _ = tokio::time::timeout(SAYING_MAX, ending).await;
    }

    /// One command, from what was asked for to its outcome.
    pub(super) async fn command(
        &self,
        inbox: &mut Inbox,
        input: InputFrom,
        staged: Staged,
    ) -> Result<Done, RecordError> {
        let session = &self.session;
        if session.is_ending() {
            return Ok(Done::gone());
        }
        let asked = &Asked::start(&staged);
        if let Some(rule) = asked.refused_by(COMMAND_BYTES_MAX, session.shells()) {
            let text = session.refuse_by(asked, rule, &asked.refusal(rule))?;
            return Ok(Done::refused(text));
        }
        let (permit, pending, ready) = match session.decide(asked)? {
            Ruled::Goes(permit, pending, told) => {
                if let Some(told) = told {
                    self.say(&told).await;
                }
                let ready = pending.position();
                (permit, pending, ready)
            }
            Ruled::Refused(text) => return Ok(Done::refused(text)),
            Ruled::Held(denial, said) => match waiting::hold(self, inbox, asked, &said, &denial).await? {
                Waited::Goes(permit, pending, ready) => (permit, pending, ready),
                Waited::Refused(text) => return Ok(Done::refused(text)),
                Waited::Gone => return Ok(Done::gone()),
            },
        };
        let recorded = session.recorded(pending, ready).await?;
        let Staged { start, env, terminal } = staged;
        let size = terminal.as_ref().map(|terminal| [terminal.size[0], terminal.size[1]]);
        let upstream = session.upstream();
        let preparing = async {
            let mut program = upstream.open().await?;
            upstream.equip(&mut program, env, terminal).await?;
            Ok(program)
        };
        let program = match self.in_time(inbox, preparing).await {
            Ok(program) => program,
            Err(error) => return self.not_started(recorded, Left::No, &error),
        };
        let size = size.filter(|_| program.terminal == HasTerminal::Yes);
        let (start, lines) = lines_of(start, recorded.command(), size, session.shells());
        // From here on the host may have it.
        let forwarding = upstream.forward(&program, start, &permit, &recorded);
        if let Err(error) = self.in_time(inbox, forwarding).await {
            return self.not_started(recorded, Left::Perhaps, &error);
        }
        let taps = match asked.via {
            Via::Subsystem => Taps { files: Some(Files::new()), ..Taps::default() },
            _ => {
                let kept = if size.is_some() { Input::Counted } else { Input::Kept };
                let mut scribe =
                    Scribe::new(session.kept_bytes_max(), kept, session.show(recorded.command(), size.is_some()));
                if let Some(size) = size {
                    scribe.size(size, || session.log().blob())?;
                }
                Taps { scribe: Some(scribe), files: None, copies: Copies::of(asked), lines }
            }
        };
        let mut relay = Relay::new(self, inbox, input, program, taps);
        let ended = relay.run().await?;
        relay.withdraw().await?;
        let Released { mut taps, link, began, bytes_up, bytes_down } = relay.release();
        session.count(bytes_up, bytes_down);
        let counted = match &mut taps {
            Taps { files: Some(files), .. } => files.finish(session)?,
            Taps { copies: Some(copies), .. } => copies.finish(session)?,
            Taps { lines: Some(lines), .. } => {
                let (counted, held) = lines.finish(session, ended.exit.as_ref(), ended.reason)?;
                if !held.is_empty() {
                    self.show(held).await;
                }
                counted
            }
            Taps { .. } => Vec::new(),
        };
        let transcript = match taps.scribe {
            Some(scribe) => Some(scribe.finish(|content| session.log().seal(content)).await?),
            None => None,
        };
        let code = ended.exit.as_ref().map(Exit::code);
        let draft = OutcomeDraft {
            reason: ended.reason.filter(|_| began != Began::Refused),
            code: code.as_deref(),
            bytes_up,
            bytes_down,
            executed: began != Began::Refused,
            results: &counted,
            transcript,
            ..OutcomeDraft::new(match (&ended.exit, began) {
                (_, Began::Refused) => Status::Error,
                (Some(exit), _) => exit.status(),
                (None, _) => Status::Unknown,
            })
        };
        session.log().outcome(recorded, &draft)?;
        if let Some(link) = link {
            session.upstream().give_back(link);
        }
        if ended.reason == Some(Reason::ClientGone) {
            return Ok(Done::gone());
        }
        let refused = (began == Began::Refused).then(|| "OnRecord: the host refuses to start it".to_owned());
        Ok(match ended.exit {
            Some(exit) => Done { said: None, exit: Some(exit) },
            None => Done { said: refused.or(ended.text), exit: Some(Exit::Status(EXIT_FAILED)) },
        })
    }

    /// What the host has to do for a command to start, unless the session ends, the client leaves or the host takes too long.
    async fn in_time<T>(
        &self,
        inbox: &mut Inbox,
        starting: impl Future<Output = Result<T, StartError>>,
    ) -> Result<T, StartError> {
        let session = &self.session;
        let ending = session.ending();
        let starting = tokio::time::timeout(session.connect_max(), starting);
        tokio::pin!(starting);
        loop {
            tokio::select! {
                biased;
                end = ending.wait() => return Err(StartError::Ending(end.unknown_because())),
                started = &mut starting => return started.unwrap_or(Err(StartError::Login(LoginError::TimedOut))),
                () = inbox.take(), if inbox.is_open() => {
                    if !inbox.is_open() || inbox.is_stuck() {
                        return Err(StartError::ClientGone);
                    }
                }
            }
        }
    }

    /// What was recorded did not reach the host, or not surely.
    fn not_started(&self, recorded: Recorded, left: Left, error: &StartError) -> Result<Done, RecordError> {
        let session = &self.session;
        tracing::warn!(connection = session.connection(), %error, "a command was not started");
        let why = match error {
            StartError::Login(error) => error.for_client(session.connection()),
            StartError::Channel(_) => "OnRecord: the host opens no more channels for this session.".to_owned(),
            StartError::Broken(_) => "OnRecord: the connection to the host broke.".to_owned(),
            StartError::Ending(_) => "OnRecord ends this session.".to_owned(),
            StartError::ClientGone => "OnRecord: the client left or reads nothing.".to_owned(),
        };
        let (text, draft) = match left {
            Left::No => {
                let text = format!("{why} The command was not sent to the host.");
                let message = session.log().seal(text.as_bytes());
                (text, OutcomeDraft { message, ..entries::not_forwarded() })
            }
            Left::Perhaps => (format!("{why} Whether the command ran is not known."), entries::unknown(error.reason())),
        };
        session.log().outcome(recorded, &draft)?;
        Ok(Done { said: Some(text), exit: Some(Exit::Status(EXIT_FAILED)) })
    }
}

/// What follows the lines of a shell that gets a terminal, and how that shell is started.
fn lines_of(start: Start, shell: CommandId, size: Option<[u32; 2]>, shells: Shells) -> (Start, Option<Lines>) {
    match (start, size) {
        (Start::Shell(_), Some(size)) => {
            let nonce = (shells == Shells::Marked).then(Nonce::new).flatten();
            let lines = Lines::new(shell, nonce.as_ref().map_or(&[], Nonce::as_bytes), size);
            (Start::Shell(nonce), Some(lines))
        }
        (start, _) => (start, None),
    }
}

/// Whether a command can have reached the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    No,
    Perhaps,
}
