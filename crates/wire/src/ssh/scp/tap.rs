//! Both streams of one scp.

use super::command::Role;
use sha2::{Digest as _, Sha256};

/// Longest line of the source, longest message of either side; bytes.
pub const LINE_BYTES_MAX: usize = 4096;

/// How much of a stream may come before the other side has said what it belongs to; bytes.
pub const EARLY_BYTES_MAX: usize = 256 * 1024;

/// How many directories may be in each other.
pub const DEPTH_MAX: usize = 256;

/// Longest path that the names are joined to; bytes.
pub const PATH_BYTES_MAX: usize = 4096;

/// Something was learnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message that belongs to no file: what could not be read, what scp cannot do.
    Complaint {
        /// Who says it.
        by: Speaker,
        /// What.
        answer: Answer,
    },
    /// A directory was begun, or refused.
    Directory(Directory),
    /// A file ended, or was refused.
    File(File),
    /// The streams are not scp as it is known here. Nothing more is said.
    Lost {
        /// Why.
        why: &'static str,
    },
}

/// One of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// It receives files.
    Sink,
    /// It sends files.
    Source,
}

/// A file. Paths are the names that the source said, joined; where they begin is the command's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path.
    pub path: Vec<u8>,
    /// Permissions, up to 0o7777.
    pub mode: u32,
    /// Bytes that were announced.
    pub size: u64,
    /// Its times, if they were sent.
    pub times: Option<Times>,
    /// Bytes that came.
    pub bytes: u64,
    /// SHA-256 of all of them.
    pub sha256: Option<[u8; 32]>,
    /// What the source said after the last: whether it could read them.
    pub source: Option<Answer>,
    /// What the sink said: to the announcement if it refused that, or after the last byte. `None` if the channel ended.
    pub sink: Option<Answer>,
}

/// A directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Its path.
    pub path: Vec<u8>,
    /// Permissions, up to 0o7777.
    pub mode: u32,
    /// Its times, if they were sent.
    pub times: Option<Times>,
    /// What the sink said. `None` if the channel ended.
    pub sink: Option<Answer>,
}

/// Modification and access time, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Modification.
    pub modified: u64,
    /// Access.
    pub accessed: u64,
}

/// What a side answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 0 is yes, 1 an error, 2 an error after which scp ends.
    pub code: u8,
    /// The text of an error, at most [`LINE_BYTES_MAX`] bytes.
    pub message: Vec<u8>,
}

/// The streams of one exec channel that runs scp. Does no I/O.
#[derive(Debug)]
pub struct Tap {
    role: Role,
    state: State,
    source: Early,
    sink: Early,
    /// Of the next file or directory.
    times: Option<Times>,
    /// The directories that are open, joined, and how long that was before each of them.
    path: Vec<u8>,
    depths: Vec<usize>,
    /// What is under way, until the sink's last answer to it.
    file: Option<Box<File>>,
    hash: Sha256,
    directory: Option<Directory>,
}

/// What came of a stream and is not read yet.
#[derive(Debug, Default)]
struct Early {
    bytes: Vec<u8>,
    /// How many from the front are read. They are dropped only once they are half of it, so that no answer of one byte moves
    /// all that waits.
    read: usize,
}

impl Early {
    fn left(&self) -> &[u8] {
        self.bytes.get(self.read..).unwrap_or_default()
    }

    fn leave(&mut self, left: usize) {
        self.read = self.bytes.len().saturating_sub(left);
        if self.read > left {
            self.bytes.drain(..self.read);
            self.read = 0;
        }
    }
}

/// What is read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// From the sink: that it is ready.
    Ready,
    /// From the source: a line.
    Line,
    /// From the sink: its answer to times or to the end of a directory.
    Heard,
    /// From the sink: its answer to a directory.
    Entered,
    /// From the sink: its answer to a file's line.
    Wanted,
    /// From the source: content.
    Content,
    /// From the source: whether it could read all of it.
    Sent,
    /// From the sink: whether it could write all of it.
    Written,
    Lost,
}

enum Flow {
    On,
    /// Bytes must come first.
    Wait,
}

type Step = Result<Flow, &'static str>;

impl Tap {
    /// A tap of a channel on which nothing was said yet.
    pub fn new(role: Role) -> Self {
        Self {
            role,
            state: State::Ready,
            source: Early::default(),
            sink: Early::default(),
            times: None,
            path: Vec::new(),
            depths: Vec::new(),
            file: None,
            hash: Sha256::new(),
            directory: None,
        }
    }

    /// The client's next bytes (the command's standard input).
    pub fn client(&mut self, bytes: &[u8], learnt: impl FnMut(Event)) {
        match self.role {
            Role::Sink => self.read(Speaker::Source, bytes, learnt),
            Role::Source => self.read(Speaker::Sink, bytes, learnt),
        }
    }

    /// The host's next bytes (the command's standard output).
    pub fn server(&mut self, bytes: &[u8], learnt: impl FnMut(Event)) {
        match self.role {
            Role::Sink => self.read(Speaker::Sink, bytes, learnt),
            Role::Source => self.read(Speaker::Source, bytes, learnt),
        }
    }

    /// The channel has ended: what was under way is said as far as it came.
    pub fn finish(&mut self, mut learnt: impl FnMut(Event)) {
        self.end(&mut learnt);
        self.state = State::Lost;
    }

    fn read(&mut self, by: Speaker, bytes: &[u8], mut learnt: impl FnMut(Event)) {
        if self.state == State::Lost {
            return;
        }
        let (mut source, mut sink) = (std::mem::take(&mut self.source), std::mem::take(&mut self.sink));
        match by {
            Speaker::Source => source.bytes.extend_from_slice(bytes),
            Speaker::Sink => sink.bytes.extend_from_slice(bytes),
        }
        let (mut of_source, mut of_sink) = (source.left(), sink.left());
        let read = loop {
            match self.step(&mut of_source, &mut of_sink, &mut learnt) {
                Ok(Flow::On) => {}
                Ok(Flow::Wait) if of_source.len().max(of_sink.len()) > EARLY_BYTES_MAX => {
                    break Err("one side went on without waiting for the other");
                }
                Ok(Flow::Wait) => break Ok((of_source.len(), of_sink.len())),
                Err(why) => break Err(why),
            }
        };
        match read {
            Ok((of_source, of_sink)) => {
                source.leave(of_source);
                sink.leave(of_sink);
                (self.source, self.sink) = (source, sink);
            }
            Err(why) => {
                self.end(&mut learnt);
                self.state = State::Lost;
                learnt(Event::Lost { why });
            }
        }
    }

    fn step(&mut self, source: &mut &[u8], sink: &mut &[u8], learnt: &mut impl FnMut(Event)) -> Step {
        match self.state {
            State::Line => match line(source)? {
                Some(line) => self.line(line, learnt),
                None => Ok(Flow::Wait),
            },
            State::Content => Ok(self.content(source)),
            State::Sent => match answer(source)? {
                Some(said) => {
                    if let Some(file) = &mut self.file {
                        file.source = Some(said);
                    }
                    self.to(State::Written)
                }
                None => Ok(Flow::Wait),
            },
            State::Ready | State::Heard | State::Entered | State::Wanted | State::Written => match answer(sink)? {
                Some(said) => self.answered(said, learnt),
                None => Ok(Flow::Wait),
            },
            State::Lost => Ok(Flow::Wait),
        }
    }

    #[allow(clippy::unnecessary_wraps, reason = "each step ends so")]
    fn to(&mut self, state: State) -> Step {
        self.state = state;
        Ok(Flow::On)
    }

    fn line(&mut self, line: &[u8], learnt: &mut impl FnMut(Event)) -> Step {
        match line.split_first() {
            Some((&code @ (1 | 2), message)) => {
                let answer = Answer { code, message: message.to_vec() };
                learnt(Event::Complaint { by: Speaker::Source, answer });
                Ok(Flow::On)
            }
            Some((b'T', rest)) => {
                self.times = Some(times(rest).ok_or("a line of times that scp would not send")?);
                self.to(State::Heard)
            }
            Some((b'E', b"")) => {
                self.path.truncate(self.depths.pop().ok_or("the end of a directory that was not begun")?);
                self.to(State::Heard)
            }
            Some((b'D', rest)) => {
                let (mode, _, path) = self.announced(rest)?;
                self.directory = Some(Directory { path, mode, times: self.times.take(), sink: None });
                self.to(State::Entered)
            }
            Some((b'C', rest)) => {
                let (mode, size, path) = self.announced(rest)?;
                let times = self.times.take();
                let file = File { path, mode, size, times, bytes: 0, sha256: None, source: None, sink: None };
                self.file = Some(Box::new(file));
                self.hash = Sha256::new();
                self.to(State::Wanted)
            }
            _ => Err("a line that scp would not send"),
        }
    }

    /// Mode, size and joined path of a line such as `0644 5 name`.
    fn announced(&self, line: &[u8]) -> Result<(u32, u64, Vec<u8>), &'static str> {
        const ODD: &str = "a file or directory that scp would not announce so";
        let mut words = line.splitn(3, |byte| *byte == b' ');
        let (mode, size) = words.next().zip(words.next()).ok_or(ODD)?;
        let name = words.next().ok_or(ODD)?;
        if mode.len() != 4 || !mode.iter().all(|digit| matches!(digit, b'0'..=b'7')) {
            return Err(ODD);
        }
        let mode = mode.iter().fold(0, |mode, digit| mode * 8 + u32::from(digit - b'0'));
        let size = decimal(size).ok_or(ODD)?;
        if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') || name.contains(&0) {
            return Err("a name that is none");
        }
        let mut path = self.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        if path.len() > PATH_BYTES_MAX {
            return Err("a path that is too long");
        }
        Ok((mode, size, path))
    }

    fn content(&mut self, source: &mut &[u8]) -> Flow {
        let Some(file) = &mut self.file else {
            return Flow::Wait;
        };
        let left = usize::try_from(file.size - file.bytes).unwrap_or(usize::MAX);
        let (now, rest) = source.split_at(left.min(source.len()));
        *source = rest;
        self.hash.update(now);
        file.bytes += u64::try_from(now.len()).unwrap_or(0);
        if file.bytes < file.size {
            return Flow::Wait;
        }
        file.sha256 = Some(std::mem::take(&mut self.hash).finalize().into());
        self.state = State::Sent;
        Flow::On
    }

    fn answered(&mut self, said: Answer, learnt: &mut impl FnMut(Event)) -> Step {
        let yes = said.code == 0;
        match (self.state, self.file.take(), self.directory.take()) {
            (State::Wanted, file @ Some(_), _) if yes => {
                self.file = file;
                return self.to(State::Content);
            }
            (_, Some(mut file), _) => {
                file.sink = Some(said);
                learnt(Event::File(*file));
            }
            (_, None, Some(mut directory)) => {
                if yes {
                    if self.depths.len() == DEPTH_MAX {
                        self.directory = Some(directory);
                        return Err("too many directories in each other");
                    }
                    self.depths.push(self.path.len());
                    self.path.clone_from(&directory.path);
                }
                directory.sink = Some(said);
                learnt(Event::Directory(directory));
            }
            (_, None, None) if !yes => {
                // What the times belonged to does not come.
                self.times = None;
                learnt(Event::Complaint { by: Speaker::Sink, answer: said });
            }
            (_, None, None) => {}
        }
        self.to(State::Line)
    }

    /// What is under way, as far as it came.
    fn end(&mut self, learnt: &mut impl FnMut(Event)) {
        let file = self.file.take().map(|file| Event::File(*file));
        file.into_iter().chain(self.directory.take().map(Event::Directory)).for_each(learnt);
        (self.source, self.sink) = (Early::default(), Early::default());
    }
}

/// A line off the front, without its end.
fn line<'b>(bytes: &mut &'b [u8]) -> Result<Option<&'b [u8]>, &'static str> {
    const LONG: &str = "a line that is too long";
    match bytes.iter().take(LINE_BYTES_MAX + 1).position(|byte| *byte == b'\n') {
        Some(at) => {
            let line = bytes.get(..at).ok_or(LONG)?;
            *bytes = bytes.get(at + 1..).ok_or(LONG)?;
            Ok(Some(line))
        }
        None if bytes.len() > LINE_BYTES_MAX => Err(LONG),
        None => Ok(None),
    }
}

/// An answer off the front.
fn answer(bytes: &mut &[u8]) -> Result<Option<Answer>, &'static str> {
    match bytes.split_first() {
        None => Ok(None),
        Some((0, rest)) => {
            *bytes = rest;
            Ok(Some(Answer { code: 0, message: Vec::new() }))
        }
        Some((&code @ (1 | 2), mut rest)) => {
            let message = line(&mut rest)?;
            if message.is_some() {
                *bytes = rest;
            }
            Ok(message.map(|message| Answer { code, message: message.to_vec() }))
        }
        Some(_) => Err("an answer that scp would not give"),
    }
}

/// `1700000000 0 1700000000 0`: seconds and microseconds, twice.
fn times(line: &[u8]) -> Option<Times> {
    let mut numbers = line.split(|byte| *byte == b' ').map(decimal);
    let (modified, _, accessed, _) = (numbers.next()??, numbers.next()??, numbers.next()??, numbers.next()??);
    numbers.next().is_none().then_some(Times { modified, accessed })
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let digits = Some(digits).filter(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}
