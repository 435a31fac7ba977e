//! Content is erased through the running gateway, and the record still verifies and says what was erased.

use testkit::raw::{Raw, kinds, query};

use crate::start;

const ERASED: &str = "erased-Secret-3b1c";
const KEPT: &str = "kept-Secret-9f20";

#[test]
fn through_the_running_gateway() {
    let (_server, mut gateway) = start();
    let mut raw = Raw::login(&gateway.target());
    assert_eq!(kinds(&raw.exchange(&query(&format!("select '{ERASED}'")), 1)), "TDCZ");
    let long = format!("select length('{}'), '{ERASED}'", ERASED.repeat(40_000));
    assert_eq!(kinds(&raw.exchange(&query(&long), 1)), "TDCZ");
    let record = gateway.settled("app");
    let session = record.commands[0].str("session").unwrap().to_owned();

    let erase = ["erase", "--session", &session, "--reason", "asked for by the person"];
    let open = gateway.cli(&erase);
    assert!(!open.status.success() && open.stderr.contains("still open"), "{}{}", open.stdout, open.stderr);
    drop(raw);
    let mut raw = Raw::login(&gateway.target());
    assert_eq!(kinds(&raw.exchange(&query(&format!("select '{KEPT}'")), 1)), "TDCZ");

    // The gateway may still be closing the session.
    testkit::process::poll("the session's end", || {
        gateway.cli(&["show", &session]).stdout.contains("client_").then_some(())
    });
    let hold = gateway.cli(&["hold", "place", "--connection", "app", "--reason", "litigation"]);
    let hold = hold.expect_success("hold place").trim().to_owned();
    let held = gateway.cli(&erase);
    assert!(!held.status.success() && held.stderr.contains("litigation"), "{}", held.stderr);
    gateway.cli(&["hold", "release", &hold, "--reason", "settled"]).expect_success("hold release");
    gateway.cli(&erase).expect_success("erase");

    let show = gateway.cli(&["show", &session]).expect_success("show");
    assert!(show.contains("all content") && show.contains("because: asked for by the person"), "{show}");
    assert!(!show.contains(ERASED));
    let record = gateway.record().of_database("app");
    assert!(record.commands[..2].iter().all(|command| command.str("text").is_none()));
    assert!(record.commands[2].text().contains(KEPT));
    gateway.verify();
    assert!(gateway.cli(&["doctor"]).stdout.contains("control socket: answers"));

    // It goes on recording, also after a restart, where nothing comes back.
    assert_eq!(kinds(&raw.exchange(&query("select 1"), 1)), "TDCZ");
    drop(raw);
    gateway.stop();
    gateway.assert_no_secrets(&[ERASED, KEPT]);
    let mut gateway = gateway.restart();
    assert!(!gateway.cli(&["commands"]).stdout.contains(ERASED));
    gateway.verify();
    gateway.stop();
    // Without a gateway the command line does it itself.
    let kept = gateway.record().of_database("app").commands[2].str("session").unwrap().to_owned();
    gateway.cli(&["erase", "--session", &kept, "--reason", "all of it"]).expect_success("erase");
    assert!(!gateway.cli(&["commands"]).stdout.contains(KEPT));
    gateway.verify();
}
