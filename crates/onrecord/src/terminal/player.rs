//! Plays a terminal: what is shown when. It has no clock and no terminal of its own; see [`super::stage`].

use std::time::Duration;

use model::transcript::{Frame, Stream};

use super::{Emulator, Mark, Tape, at_of};
use crate::Failure;
use crate::output::single_line;

/// A pause longer than this is cut to it.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How far the arrows go.
const SEEK_US: u64 = 10_000_000;
/// So much of a frame goes into the emulator at once, so that keys are looked at in between.
const PIECE_BYTES: usize = 4096;
/// The speeds there are.
const SPEEDS: std::ops::RangeInclusive<f64> = 0.01..=10_000.0;

/// What somebody wants of the player.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// Goes on, or stops.
    Pause,
    /// One piece of output more.
    Step,
    Back,
    Forward,
    /// To where the next line was given to the shell.
    NextLine,
    /// To where the one before was.
    PreviousLine,
    Faster,
    Slower,
    Quit,
}

/// What the player does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Playing,
    Paused,
    /// On its way to a time, as fast as can be; paused afterwards or not.
    Seeking {
        to_us: u64,
        paused: bool,
    },
}

/// Plays one.
pub(crate) struct Player<T> {
    tape: T,
    marks: Vec<Mark>,
    duration_us: u64,
    emulator: Emulator,
    /// What comes next, as far as it is not shown.
    next: Option<Frame>,
    at_us: u64,
    speed: f64,
    state: State,
}

impl<T: Tape> Player<T> {
    pub(crate) fn new(tape: T, marks: Vec<Mark>, duration_us: u64, speed: f64) -> Result<Self, Failure> {
        let emulator = Emulator::default();
        let state = State::Playing;
        let mut player = Self { tape, marks, duration_us, emulator, next: None, at_us: 0, speed, state };
        player.rewind()?;
        Ok(player)
    }

    pub(crate) fn emulator(&self) -> &Emulator {
        &self.emulator
    }

    /// Goes to the end at once, and stays there.
    pub(crate) fn skip_to_end(&mut self) {
        self.state = State::Seeking { to_us: u64::MAX, paused: true };
    }

    /// How long until [`Player::advance`] is due; none while nothing happens by itself.
    pub(crate) fn wait(&self) -> Option<Duration> {
        match (self.state, &self.next) {
            (State::Seeking { .. }, _) => Some(Duration::ZERO),
            (State::Paused, _) | (State::Playing, None) => None,
            (State::Playing, Some(next)) => {
                let gap = Duration::from_micros(at_of(next).saturating_sub(self.at_us));
                Some(gap.div_f64(self.speed).min(PAUSE_MAX))
            }
        }
    }

    /// Whether it is on its way, so that nothing need be drawn.
    pub(crate) fn is_seeking(&self) -> bool {
        matches!(self.state, State::Seeking { .. })
    }

    /// Whether all was shown.
    pub(crate) fn has_ended(&self) -> bool {
        self.next.is_none() && !self.is_seeking()
    }

    /// Shows what comes next, or a part of it.
    pub(crate) fn advance(&mut self) -> Result<(), Failure> {
        if let State::Seeking { to_us, paused } = self.state
            && self.next.as_ref().is_none_or(|next| at_of(next) > to_us)
        {
            self.at_us = self.at_us.max(to_us.min(self.duration_us));
            self.state = if paused { State::Paused } else { State::Playing };
            return Ok(());
        }
        match self.next.take() {
            None => return Ok(()),
            Some(Frame::Bytes { stream, at_us, mut bytes }) => {
                self.at_us = self.at_us.max(at_us);
                let rest = bytes.split_off(bytes.len().min(PIECE_BYTES));
                if stream != Stream::Stdin {
                    self.emulator.write(&bytes, ());
                }
                if !rest.is_empty() {
                    self.next = Some(Frame::Bytes { stream, at_us, bytes: rest });
                    return Ok(());
                }
            }
            Some(Frame::Size { at_us, columns, rows }) => {
                self.at_us = self.at_us.max(at_us);
                self.emulator.resize(columns, rows, ());
            }
            Some(Frame::End { at_us, .. }) => self.at_us = self.at_us.max(at_us),
        }
        self.next = self.tape.next()?;
        Ok(())
    }

    /// Does what a key asks for; false if that is to end.
    pub(crate) fn press(&mut self, key: Key) -> Result<bool, Failure> {
        match key {
            Key::Quit => return Ok(false),
            Key::Pause => match self.state {
                State::Playing if self.next.is_none() => self.seek(0, false)?,
                State::Playing => self.state = State::Paused,
                State::Paused => self.state = State::Playing,
                State::Seeking { to_us, paused } => self.state = State::Seeking { to_us, paused: !paused },
            },
            Key::Step => {
                self.state = State::Paused;
                self.advance()?;
            }
            Key::Back => self.seek(self.heading().saturating_sub(SEEK_US), self.stays_paused())?,
            Key::Forward => self.seek(self.heading().saturating_add(SEEK_US), self.stays_paused())?,
            Key::NextLine => {
                let from = self.heading();
                let next = self.marks.iter().map(|mark| mark.at_us).find(|at| *at > from);
                self.seek(next.unwrap_or(self.duration_us), self.stays_paused())?;
            }
            Key::PreviousLine => {
                let from = self.heading();
                let before = self.marks.iter().rev().map(|mark| mark.at_us).find(|at| *at < from);
                self.seek(before.unwrap_or(0), self.stays_paused())?;
            }
            Key::Faster => self.speed = (self.speed * 2.0).min(*SPEEDS.end()),
            Key::Slower => self.speed = (self.speed / 2.0).max(*SPEEDS.start()),
        }
        Ok(true)
    }

    /// Where it is, or is on its way to.
    fn heading(&self) -> u64 {
        match self.state {
            State::Seeking { to_us, .. } => to_us.min(self.duration_us),
            State::Playing | State::Paused => self.at_us,
        }
    }

    fn stays_paused(&self) -> bool {
        matches!(self.state, State::Paused | State::Seeking { paused: true, .. })
    }

    fn seek(&mut self, to_us: u64, paused: bool) -> Result<(), Failure> {
        if to_us < self.at_us {
            self.rewind()?;
        }
        self.state = State::Seeking { to_us, paused };
        Ok(())
    }

    fn rewind(&mut self) -> Result<(), Failure> {
        self.tape.rewind()?;
        self.emulator = Emulator::default();
        self.at_us = 0;
        self.next = self.tape.next()?;
        Ok(())
    }

    /// One line about where it is. `window` is how much of the terminal can be seen: columns and rows.
    pub(crate) fn status(&self, window: (usize, usize)) -> String {
        let state = match (self.state, &self.next) {
            (State::Seeking { .. }, _) => "seeking",
            (_, None) => "the end",
            (State::Paused, _) => "paused",
            (State::Playing, _) => "playing",
        };
        let (columns, rows) = self.emulator.terminal().size();
        let cut = match columns > window.0 || rows > window.1 {
            true => format!("  {columns}x{rows}, cut to {}x{}", window.0, window.1),
            false => String::new(),
        };
        let mark = self.marks.iter().rev().find(|mark| mark.at_us <= self.at_us);
        let line = mark.map_or_else(String::new, |mark| format!("  {}", single_line(&mark.text)));
        let (at, of) = (clock(self.at_us), clock(self.duration_us));
        format!(" {state} {at} / {of}  x{}{cut}  [space . \u{2190} \u{2192} n p + - q]{line}", self.speed)
    }
}

/// A time in minutes and seconds.
pub(super) fn clock(us: u64) -> String {
    let seconds = us / 1_000_000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes:02}:{seconds:02}") }
}

/// The keys in what a terminal sent, and how many bytes of it they are: a sequence may be cut.
pub(crate) fn keys(typed: &[u8]) -> (Vec<Key>, usize) {
    let mut keys = Vec::new();
    let mut rest = typed;
    while let Some((first, after)) = rest.split_first() {
        let (key, after) = match (first, after) {
            (0x1b, []) | (0x1b, [b'[' | b'O']) => break,
            (0x1b, [b'[' | b'O', end, after @ ..]) => match end {
                b'C' => (Some(Key::Forward), after),
                b'D' => (Some(Key::Back), after),
                _ => (None, after),
            },
            (b' ', _) => (Some(Key::Pause), after),
            (b'.', _) => (Some(Key::Step), after),
            (b'n', _) => (Some(Key::NextLine), after),
            (b'p', _) => (Some(Key::PreviousLine), after),
            (b'+' | b'=', _) => (Some(Key::Faster), after),
            (b'-', _) => (Some(Key::Slower), after),
            // Ctrl-C and Ctrl-D are keys while the player has the terminal.
            (b'q' | 0x03 | 0x04, _) => (Some(Key::Quit), after),
            _ => (None, after),
        };
        keys.extend(key);
        rest = after;
    }
    (keys, typed.len() - rest.len())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Frames;
    use super::*;

    fn player() -> Player<Frames> {
        let written: [(u64, &[u8]); 4] =
            [(0, b"a"), (2_000_000, b"b"), (30_000_000, b"c\x1b]633;E\x07"), (31_000_000, b"d")];
        let marks = [1_000_000, 30_000_000].map(|at_us| Mark { at_us, text: format!("line at {at_us}") });
        Player::new(Frames::of(&written), marks.into(), 32_000_000, 2.0).unwrap()
    }

    fn shown(player: &Player<Frames>) -> String {
        player.emulator().terminal().screen().line(0).unwrap().text().trim_end().to_owned()
    }

    fn arrive(player: &mut Player<Frames>) -> String {
        while player.is_seeking() {
            player.advance().unwrap();
        }
        shown(player)
    }

    #[test]
    fn it_plays_in_its_own_time_and_cuts_long_pauses() {
        let mut player = player();
        let mut waits = Vec::new();
        while let Some(wait) = player.wait() {
            waits.push(wait.as_millis());
            player.advance().unwrap();
        }
        assert_eq!(waits, [0, 1000, 5000, 500]);
        assert!(player.has_ended());
        assert_eq!(shown(&player), "abcd");
    }

    #[test]
    fn keys_go_back_and_forth() {
        let mut player = player();
        player.skip_to_end();
        assert_eq!(arrive(&mut player), "abcd");
        let mut press = |key: Key| {
            assert!(player.press(key).unwrap());
            (arrive(&mut player), player.at_us)
        };
        assert_eq!(press(Key::PreviousLine), ("abc".to_owned(), 30_000_000));
        assert_eq!(press(Key::PreviousLine), ("a".to_owned(), 1_000_000));
        assert_eq!(press(Key::PreviousLine), ("a".to_owned(), 0));
        assert_eq!(press(Key::NextLine), ("a".to_owned(), 1_000_000));
        assert_eq!(press(Key::Forward), ("ab".to_owned(), 11_000_000));
        assert_eq!(press(Key::Back), ("a".to_owned(), 1_000_000));
        assert_eq!(press(Key::Step), ("ab".to_owned(), 2_000_000));
        assert_eq!(press(Key::NextLine), ("abc".to_owned(), 30_000_000));
        assert_eq!(press(Key::NextLine), ("abcd".to_owned(), 32_000_000));
        assert!(!player.press(Key::Quit).unwrap());
    }

    #[test]
    fn a_pause_stops_it_and_speed_is_bounded() {
        let mut player = player();
        player.advance().unwrap();
        player.press(Key::Pause).unwrap();
        assert_eq!(player.wait(), None);
        assert!(player.status((80, 24)).contains("paused"), "{}", player.status((80, 24)));
        player.press(Key::Pause).unwrap();
        player.press(Key::Faster).unwrap();
        assert_eq!(player.wait(), Some(Duration::from_millis(500)));
        for _ in 0..100 {
            player.press(Key::Slower).unwrap();
        }
        assert_eq!(player.wait(), Some(PAUSE_MAX));
        assert!(player.status((40, 10)).contains("80x24, cut to 40x10"), "{}", player.status((40, 10)));
    }

    #[test]
    fn a_long_frame_goes_in_pieces_and_comes_to_the_same() {
        let long = [b"\xe6\x97\xa5".repeat(5000), b"\r\nend".to_vec()].concat();
        let mut player = Player::new(Frames::of(&[(0, &long)]), Vec::new(), 0, 1.0).unwrap();
        let mut steps = 0;
        while player.wait().is_some() {
            player.advance().unwrap();
            steps += 1;
        }
        assert!(steps > 3);
        let screen: Vec<String> = player
            .emulator()
            .terminal()
            .screen()
            .visible_lines()
            .map(|line| line.text().trim_end().to_owned())
            .collect();
        assert!(!screen.concat().contains('\u{fffd}') && screen.concat().ends_with("end"), "{screen:?}");
    }

    #[test]
    fn keys_are_read_whole() {
        use Key::{Back, Faster, Forward, NextLine, Pause, Quit, Step};
        assert_eq!(keys(b" .x\x1b[Dn\x1bOC+q"), (vec![Pause, Step, Back, NextLine, Forward, Faster, Quit], 12));
        assert_eq!(keys(b"n\x1b["), (vec![NextLine], 1));
        assert_eq!(keys(b"\x1b[A\x1bq\x03"), (vec![Quit, Quit], 6));
    }
}
