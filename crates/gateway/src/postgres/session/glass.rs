//! Break-glass as its opener's client sees it: each statement that runs under it comes with a notice.
//!
//! Not for: what it covers (that is `policy::break_glass`), what is open (that is `crate::break_glass`).

use model::BreakGlassId;
use wire::postgres::message;

use super::{Moved, Session};
use crate::break_glass::Covered;
use crate::words;

impl Session {
    /// Does what writes an intent, with the break-glass that the sender has open; nothing closes it meanwhile.
    pub(super) fn marked<T>(&mut self, write: impl FnOnce(&mut Self, Option<BreakGlassId>) -> T) -> T {
        let glasses = self.policing.break_glass();
        let covered = self.policing.covered_by(&glasses);
        write(self, covered.as_ref().map(Covered::id))
    }

    /// A statement runs under break-glass: its client is to be told. What comes in one read of the client's bytes has one
    /// notice, so that no more wait than that.
    pub(super) fn runs_under(&mut self, covered: &Covered<'_>) {
        let (text, hint) = words::runs_under(covered);
        self.glass_notice = Some(message::notice("NOTICE", "01000", &text, Some(&hint)));
    }

    /// Tells the client, where between two messages of the server there is a place for it.
    pub(super) fn tell_glass(&mut self) -> Moved {
        if !self.tap.between_messages() {
            return Moved::No;
        }
        match self.glass_notice.take() {
            Some(notice) => {
                self.client.push(&notice);
                Moved::Yes
            }
            None => Moved::No,
        }
    }
}
