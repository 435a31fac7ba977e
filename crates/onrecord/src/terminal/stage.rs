//! Has the terminal of whoever looks while something is played, reads its keys, and gives it back as it was: at the end, on
//! an error, on a signal and on a panic.

use std::fs::File;
use std::future::pending;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use gateway::Shown;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::canvas::Canvas;
use super::player::{Key, Player, clock, keys};
use super::{Emulator, Tape, apply, at_of};
use crate::Failure;

/// The other screen, no wrapping at the end of a line.
const ENTER: &str = "\x1b[?1049h\x1b[?7l\x1b[0m\x1b[2J";
const LEAVE: &str = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";
/// Nothing is drawn more often than that.
const FRAME: Duration = Duration::from_millis(16);
/// So much of what was typed is read at once, in bytes.
const TYPED_BYTES: usize = 64;

/// Whether there is a terminal to play on.
pub(crate) fn is_there() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stdout().is_terminal() && !dumb && window(&io::stdout()).is_some()
}

/// How much can be seen: columns and rows.
pub(crate) fn window(terminal: &impl AsFd) -> Option<(usize, usize)> {
    let size = tcgetwinsize(terminal).ok()?;
    let size = (usize::from(size.ws_col), usize::from(size.ws_row));
    (size.0 > 0 && size.1 > 0).then_some(size)
}

/// Plays until somebody ends it; without a keyboard, until it ends.
///
/// # Errors
/// The transcript cannot be read, or the terminal be written to.
pub(crate) fn play(player: Player<impl Tape>, colour: bool) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::new)?;
    runtime.block_on(async { Stage::enter(colour)?.run(player).await })
}

/// How somebody stopped to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// They had seen enough.
    Left,
    /// The program is over.
    Over,
    /// Whoever showed it is gone, and whether the program is over is not known.
    Lost,
}

/// Shows what a running program writes, as it comes, until there is no more or somebody has seen enough.
///
/// # Errors
/// The terminal cannot be written to.
pub(crate) fn watch(shown: mpsc::Receiver<Shown>, colour: bool) -> Result<End, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::new)?;
    runtime.block_on(async { Stage::enter(colour)?.watch(shown).await })
}

struct Stage {
    screen: Screen,
    keyboard: Option<Keyboard>,
    canvas: Canvas,
    colour: bool,
    ends: Ends,
    resized: Signal,
}

/// The terminal that is drawn on. Gives it back when dropped.
struct Screen(File);

/// The terminal that is typed on. Gives it back when dropped.
struct Keyboard {
    terminal: OwnedFd,
    before: Termios,
    pressed: mpsc::Receiver<Key>,
}

/// What ends a program from outside.
struct Ends([Signal; 3]);

impl Stage {
    fn enter(colour: bool) -> Result<Self, Failure> {
        // The signals first: from here on none of them ends the process by itself.
        let listen = |kind| signal(kind).map_err(Failure::new);
        let ends = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(listen);
        let [interrupt, terminate, hangup] = ends;
        let ends = Ends([interrupt?, terminate?, hangup?]);
        let resized = listen(SignalKind::window_change())?;
        let keyboard = if io::stdin().is_terminal() { Some(Keyboard::take()?) } else { None };
        let terminal = io::stdout().as_fd().try_clone_to_owned()?;
        let mut screen = Screen(File::from(terminal));
        screen.write(ENTER)?;
        let canvas = canvas(&screen, colour);
        Ok(Self { screen, keyboard, canvas, colour, ends, resized })
    }

    async fn run(mut self, mut player: Player<impl Tape>) -> Result<(), Failure> {
        let mut drawn = Instant::now();
        self.draw(&player)?;
        let mut due = player.wait().map(|wait| Instant::now() + wait);
        loop {
            if player.has_ended() && self.keyboard.is_none() {
                return self.draw(&player);
            }
            let now = Instant::now();
            let late = due.is_some_and(|due| due <= now);
            if !late || (!player.is_seeking() && now - drawn >= FRAME) {
                self.draw(&player)?;
                drawn = now;
            }
            tokio::select! {
                biased;
                () = self.ends.wait() => return Ok(()),
                _ = self.resized.recv() => self.canvas = canvas(&self.screen, self.colour),
                key = key_of(&mut self.keyboard) => {
                    if !player.press(key)? {
                        return Ok(());
                    }
                    due = player.wait().map(|wait| Instant::now() + wait);
                }
                () = at(due) => {
                    player.advance()?;
                    // From when it was due, not from when it was done: what is late catches up.
                    due = player.wait().map(|wait| due.unwrap_or(now) + wait);
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    async fn watch(mut self, mut shown: mpsc::Receiver<Shown>) -> Result<End, Failure> {
        let mut emulator = Emulator::default();
        let (mut at_us, mut missed) = (0, 0);
        let mut drawn = Instant::now();
        let mut stale = true;
        loop {
            if stale && drawn.elapsed() >= FRAME {
                let (columns, rows) = self.canvas.size();
                let size = emulator.terminal().size();
                let status = (size.1 < rows).then(|| live(at_us, missed, size, (columns, rows)));
                let drawing = self.canvas.draw(&emulator, status.as_deref());
                self.screen.write(&drawing)?;
                (drawn, stale) = (Instant::now(), false);
            }
            tokio::select! {
                biased;
                () = self.ends.wait() => return Ok(End::Left),
                _ = self.resized.recv() => (self.canvas, stale) = (canvas(&self.screen, self.colour), true),
                key = key_of(&mut self.keyboard) => {
                    if key == Key::Quit {
                        return Ok(End::Left);
                    }
                }
                next = shown.recv() => match next {
                    Some(Shown::Frame(frame)) => {
                        at_us = at_of(&frame);
                        apply(&mut emulator, &frame, ());
                        stale = true;
                    }
                    Some(Shown::Missed(bytes)) => (missed, stale) = (missed + bytes, true),
                    Some(Shown::Nothing) => {}
                    Some(Shown::Over) => return Ok(End::Over),
                    None => return Ok(End::Lost),
                },
                () = sleep_until(drawn + FRAME), if stale => {}
            }
        }
    }

    fn draw(&mut self, player: &Player<impl Tape>) -> Result<(), Failure> {
        let (columns, rows) = self.canvas.size();
        let spare = player.emulator().terminal().size().1 < rows;
        let shown = spare || player.wait().is_none() || player.is_seeking();
        let status = shown.then(|| player.status((columns, rows)));
        let drawn = self.canvas.draw(player.emulator(), status.as_deref());
        Ok(self.screen.write(&drawn)?)
    }
}

/// One line about what is watched, of a size in a window: columns and rows.
fn live(at_us: u64, missed: u64, size: (usize, usize), window: (usize, usize)) -> String {
    let cut = match size.0 > window.0 {
        true => format!("  {}x{}, cut to {}x{}", size.0, size.1, window.0, window.1),
        false => String::new(),
    };
    let missed = match missed {
        0 => String::new(),
        missed => format!("  {missed} bytes came too fast and are not shown"),
    };
    format!(" live {}{cut}{missed}  [q]", clock(at_us))
}

fn canvas(screen: &Screen, colour: bool) -> Canvas {
    let (columns, rows) = window(&screen.0).unwrap_or(super::SIZE_DEFAULT);
    Canvas::new(columns, rows, colour)
}

impl Screen {
    fn write(&mut self, text: &str) -> io::Result<()> {
        self.0.write_all(text.as_bytes())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.write(LEAVE);
    }
}

impl Keyboard {
    fn take() -> Result<Self, Failure> {
        let terminal = io::stdin().as_fd().try_clone_to_owned()?;
        let before = tcgetattr(&terminal).map_err(io::Error::from)?;
        let mut raw = before.clone();
        raw.make_raw();
        let (typed, pressed) = mpsc::channel(TYPED_BYTES);
        let reads = File::from(terminal.try_clone()?);
        let keyboard = Self { terminal, before, pressed };
        tcsetattr(&keyboard.terminal, OptionalActions::Flush, &raw).map_err(io::Error::from)?;
        // It waits for a key that nobody presses, and ends with the process.
        std::thread::Builder::new().name("keys".to_owned()).spawn(move || read(reads, &typed))?;
        Ok(keyboard)
    }
}

/// Reads keys until nobody wants them any more, or the terminal is gone.
fn read(mut terminal: File, pressed: &mpsc::Sender<Key>) {
    let (mut typed, mut bytes) = (Vec::new(), [0; TYPED_BYTES]);
    loop {
        let read = terminal.read(&mut bytes).unwrap_or(0);
        if read == 0 {
            let _ = pressed.blocking_send(Key::Quit);
            return;
        }
        typed.extend(bytes.iter().take(read));
        let (found, taken) = keys(&typed);
        typed.drain(..taken);
        for key in found {
            if pressed.blocking_send(key).is_err() {
                return;
            }
        }
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
    }
}

impl Ends {
    async fn wait(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

async fn key_of(keyboard: &mut Option<Keyboard>) -> Key {
    match keyboard {
        Some(keyboard) => keyboard.pressed.recv().await.unwrap_or(Key::Quit),
        None => pending().await,
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}
