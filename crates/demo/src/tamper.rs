//! `demo tamper`: what happens when somebody changes the record.

use anyhow::{Context, Result, bail};
use onrecord::Exit;
use onrecord::commands::verify;
use serde_json::json;

use crate::place::Place;
use crate::run::again;
use crate::screen::Screen;

/// Changes one byte of the demo's record on disk, then verifies it.
pub(crate) fn tamper(place: &Place, screen: &mut Screen) -> Result<()> {
    let record = place.record();
    if !record.exists() {
        bail!("there is no record yet: `{}` makes one", again(""));
    }
    let changed = store::tamper(&record, None)
        .context("nothing was changed: is the record altered already?")?
        .context("there is no command on the record yet")?;
    let what = format!(
        "{} at byte {}: {:02x} became {:02x}, in the text of command {}",
        changed.file, changed.offset, changed.before, changed.after, changed.command
    );
    screen.heading("One byte of the record, changed on disk\n")?;
    screen.step("changed", &what, None, json!({"what": what}))?;
    screen.heading("Verified again\n")?;
    let verdict = verify::print(&mut screen.console, &record, 2)?;
    if verdict != Exit::Integrity {
        bail!("the change was not noticed, which must not happen: please report it");
    }
    screen.heading("")?;
    screen.close("The record stays altered. The demo's next start sets it aside and begins another.")
}
