//! No secret lies about: neither what the gateway was given, nor what clients say, nor what
//! commands contain. What commands contain is sealed in the record.

use testkit::raw::{Raw, bind, execute, kinds, parse, query, sync};

use crate::start;

const IN_TEXT: &str = "text-Secret-8d1f";
const IN_PARAMETER: &str = "parameter-Secret-77c2";
const IN_ERROR: &str = "error-Secret-0b9e";
const IN_RESULT: &str = "RESULT-SECRET-5E3A";
const WRONG_KEY: &str = "onr_wrong-Secret-f00d";

#[test]
fn nowhere_in_clear() {
    let (_server, mut gateway) = start();
    let wrong = gateway.target().with_user("copilot-agent", WRONG_KEY);
    let refusal = Raw::connect(&wrong).authenticate(&wrong, 0x0003_0000, &[]).expect_err("refused");

    let mut raw = Raw::login(&gateway.target());
    let text = format!("create role leak login password '{IN_TEXT}'");
    assert_eq!(kinds(&raw.exchange(&query(&text), 1)), "CZ");
    let bound = [parse("", "select $1::text"), bind("", "", &[IN_PARAMETER]), execute("", 0), sync()];
    assert_eq!(kinds(&raw.exchange(&bound.concat(), 1)), "12DCZ");
    let failing = format!("do $$ begin raise exception '{IN_ERROR}'; end $$");
    assert_eq!(kinds(&raw.exchange(&query(&failing), 1)), "EZ");
    let shown = format!("select upper('{}')", IN_RESULT.to_lowercase());
    assert_eq!(kinds(&raw.exchange(&query(&shown), 1)), "TDCZ");
    // A text that goes to a file of its own.
    let long = format!("select length('{}'), '{IN_TEXT}'", "x".repeat(3 << 20));
    assert_eq!(kinds(&raw.exchange(&query(&long), 1)), "TDCZ");
    drop(raw);

    // The record knows them all the same.
    let record = gateway.settled("app");
    assert_eq!(record.commands.len(), 5);
    assert!(record.commands[0].text().contains(IN_TEXT));
    assert_eq!(record.commands[1].parameters(), Some(vec![Some(IN_PARAMETER.to_owned())]));
    assert!(record.commands[2].str("message").is_some_and(|m| m.contains(IN_ERROR)));

    let said = [IN_TEXT, IN_PARAMETER, IN_ERROR, IN_RESULT, WRONG_KEY];
    gateway.assert_no_secrets(&said);
    for secret in gateway.secrets().iter().map(String::as_str).chain(said) {
        assert!(!format!("{refusal:?}").contains(secret), "{refusal:?}");
    }
    let doctor = gateway.cli(&["doctor"]);
    let check = gateway.cli(&["config", "check"]);
    for (output, secret) in [&doctor, &check]
        .into_iter()
        .flat_map(|f| gateway.secrets().into_iter().map(move |s| (format!("{}{}", f.stdout, f.stderr), s)))
    {
        assert!(!output.contains(&secret), "{output}");
    }
    gateway.stop();
    gateway.assert_no_secrets(&said);
}
