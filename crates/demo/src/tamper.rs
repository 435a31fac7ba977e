//! `demo tamper`: what happens when somebody changes the record.

use anyhow::{Context, Result, bail};
use onrecord::Exit;
use onrecord::commands::verify;
use serde_json::json;

use crate::place::Place;
use crate::run::cargo_run;
use crate::screen::Screen;

/// Changes one byte of the demo's record on disk, then verifies it.
pub(crate) fn tamper(place: &Place, screen: &mut Screen) -> Result<()> {
    let record = place.record();
    if !record.exists() {
        bail!("there is no record yet: `{}` makes one", cargo_run("demo").trim_end_matches(" --"));
    }
    let changed = store::tamper(&record).context("nothing was changed")?;
    screen.heading("One byte of the record, changed on disk\n")?;
    screen.step("changed", &changed.to_string(), None, json!({"what": changed.to_string()}))?;
    screen.heading("Verified again\n")?;
    let verdict = verify::print(&mut screen.console, &record, None, 2)?;
    if verdict != Exit::Integrity {
        bail!("the change was not noticed, which must not happen: please report it");
    }
    screen.heading("")?;
    screen.close("The record stays altered. The demo's next start sets it aside and begins another.")
}
