//! Decisions that a person signs with a passkey, in a real browser, and what the record proves of them.

use std::net::TcpListener;

use serde_json::Value;
use testkit::browser::Browser;
use testkit::process::poll;

use crate::approvals::{Place, ended, place_of};
use crate::plan;

/// A gateway whose page is at `https://localhost:PORT`: an origin is told beforehand, so the port has to be known.
fn place() -> (Place, String) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let origin = format!("https://localhost:{port}");
    let listen = format!("api = [\"127.0.0.1:{port}\"]\n");
    let place =
        place_of(plan().listen(&listen).tables(&format!("[passkeys]\norigin = \"{origin}\"\n")), "signed = true");
    (place, origin)
}

/// Clicks on what this selects, once the page is done with what was clicked on before.
fn click(page: &mut Browser, selector: &str) {
    page.wait_for("!document.body.classList.contains('busy')");
    page.evaluate(&format!("document.querySelector('{selector}').click()"));
}

#[test]
fn a_decision_is_signed_in_a_browser_and_the_record_proves_it() {
    let (place, origin) = place();
    let mut page = Browser::start(&place.gateway.authority().certificate());
    page.open(&format!("{origin}/approve#token={}", place.person("dora")));
    page.wait_for("!document.getElementById('main').hidden");
    assert_eq!(page.evaluate("location.hash"), "", "the token does not stay in the address");
    page.wait_for("document.getElementById('who').textContent === 'human:dora@example.com'");

    // Where signatures are asked for, nobody approves without; to deny, none is needed.
    let early = place.start_psql(&place.agent(), "UPDATE orders SET note = 'early' WHERE id = 1");
    let id = place.wait_for(1).remove(0);
    let refused = place.approvals("dora", &["approve", &id, "--yes"]);
    assert!(refused.stderr.contains("must be signed with a passkey, and you have none here"), "{}", refused.stderr);
    place.approvals("dora", &["deny", &id, "--yes"]).expect_success("deny");
    assert!(!ended(early).0);

    click(&mut page, "#enrol");
    page.wait_for("document.querySelectorAll('#keys li').length === 1");
    assert_eq!(place.gateway.entries("passkey"), 1);

    // Seen as what it is: the characters that would make it look like another statement, and markup.
    let update = "UPDATE orders SET note = 'signed' WHERE id = 3 /* \u{202e}<b>fine</b> */";
    let psql = place.start_psql(&place.agent(), update);
    let id = place.wait_for(1).remove(0);
    page.wait_for("document.querySelectorAll('#waiting button').length === 1");
    click(&mut page, "#waiting button");
    page.wait_for("!document.getElementById('one').hidden");
    let statement = page.evaluate("document.getElementById('statement').textContent");
    assert_eq!(statement, "UPDATE orders SET note = 'signed' WHERE id = 3 /* <U+202E><b>fine</b> */");
    let marks = page.evaluate("document.querySelector('#statement .odd').textContent");
    assert_eq!(marks, "<U+202E>");

    // The token alone decides nothing any more.
    let refused = place.approvals("dora", &["approve", &id, "--yes"]);
    assert!(!refused.status.success() && refused.stderr.contains("you have a passkey"), "{}", refused.stderr);
    assert_eq!(place.ran("note = 'signed'"), 0);

    page.evaluate("document.getElementById('comment').value = 'as agreed \\u{202e}'");
    click(&mut page, "#approve");
    page.wait_for("document.getElementById('said').textContent.includes('signed by your passkey')");
    let (success, stderr) = ended(psql);
    assert!(success, "{stderr}");
    assert_eq!(place.ran("note = 'signed'"), 1);

    let second = place.start_psql(&place.agent(), "UPDATE orders SET note = 'denied' WHERE id = 4");
    let denied = place.wait_for(1).remove(0);
    page.wait_for(&format!("document.querySelector('#waiting button')?.dataset.id === '{denied}'"));
    click(&mut page, "#waiting button");
    page.wait_for(&format!("document.getElementById('one-title').textContent === 'Command {denied}'"));
    click(&mut page, "#deny");
    assert!(!ended(second).0);
    assert_eq!(place.ran("note = 'denied'"), 0);

    place.gateway.settled("shop");
    let verdicts = place.gateway.cli(&["verify", "--output", "json"]).expect_success("verify");
    let verdicts: Value = serde_json::from_str(&verdicts).unwrap();
    assert_eq!(verdicts["integrity"]["signed_decisions"], 2, "{verdicts}");
    let story = place.gateway.cli(&["show", &id]).expect_success("show");
    assert!(story.contains(", signed by a passkey: as agreed"), "{story}");

    // Once what was decided is signed, too: a bundle has nothing beyond the newest checkpoint.
    let entries = verdicts["integrity"]["entries"].as_u64();
    poll("a checkpoint over the decisions", || {
        let verdicts = place.gateway.cli(&["verify", "--output", "json"]).expect_success("verify");
        let verdicts: Value = serde_json::from_str(&verdicts).unwrap();
        (verdicts["integrity"]["signed"].as_u64() >= entries).then_some(())
    });
    // A bundle of the one command proves it, too, with the key that was enrolled outside of its session.
    let bundle = place.gateway.data().with_file_name("signed.evidence");
    let (out, session) = (bundle.to_str().unwrap(), id.split_once('.').unwrap().0);
    let export = ["evidence", "export", "--session", session, "--out", out];
    place.gateway.cli(&export).expect_success("export");
    let verify = ["verify", out, "--vkey", &place.gateway.vkey(), "--output", "json"];
    let verdicts: Value = serde_json::from_str(&place.gateway.cli(&verify).expect_success("verify")).unwrap();
    assert_eq!(verdicts["integrity"]["signed_decisions_unchecked"], 0, "{verdicts}");
    assert!(verdicts["integrity"]["signed_decisions"].as_u64() >= Some(1), "{verdicts}");

    // Who is locked out has no passkey any more.
    let revoke = ["identities", "revoke", "human:dora@example.com", "--reason", "lost"];
    place.gateway.cli(&revoke).expect_success("revoke");
    assert_eq!(place.gateway.entries("passkey"), 2);
}

#[test]
fn the_page_runs_nothing_that_is_not_its_own() {
    let (place, origin) = place();
    let mut page = Browser::start(&place.gateway.authority().certificate());
    page.open(&format!("{origin}/approve"));
    let policy = "fetch('/approve').then(answer => answer.headers.get('content-security-policy'))";
    let policy = page.evaluate(policy);
    let policy = policy.as_str().unwrap();
    for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    let ran = "(() => { const script = document.createElement('script'); script.append('window.ran = 1'); \
               document.head.append(script); return window.ran === undefined; })()";
    // Either the text is refused before it is one, or it is not run.
    let tried = page.evaluate(&format!("(() => {{ try {{ return {ran}; }} catch {{ return true; }} }})()"));
    assert_eq!(tried, true);
    // A wrong token is told, and the page stays where it is.
    page.evaluate("document.getElementById('token').value = 'nonsense'");
    click(&mut page, "#login button");
    page.wait_for("document.getElementById('said').className === 'bad'");
    assert_eq!(page.evaluate("document.getElementById('main').hidden"), true);
}
