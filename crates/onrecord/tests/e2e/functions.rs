//! The protocol's function call runs any function by number, without text: refused, but for the
//! large objects' own functions, which are recorded.

use testkit::raw::{Raw, function_call, kinds, query};

use crate::start;

const VERSION: u32 = 89;
const LO_CREATE: u32 = 715;

#[test]
fn refused_by_number() {
    let (_server, gateway) = start();
    let mut raw = Raw::login(&gateway.target());
    let bytes = [query("select 1"), function_call(VERSION, &[]), query("select 2")].concat();
    let answer = raw.exchange(&bytes, 3);
    assert_eq!(kinds(&answer), "TDCZEZTDCZ", "{answer:?}");
    assert_eq!(answer.iter().find_map(|m| m.field(b'C').filter(|_| m.kind == b'E')).as_deref(), Some("0A000"));
    let record = gateway.settled("app");
    let denied: Vec<_> = record.commands.iter().filter(|c| c.status() == "denied").collect();
    assert_eq!(denied.len(), 1, "{:?}", record.commands);
    assert_eq!(denied[0].str("via"), Some("function"));
}

#[test]
fn large_objects_are_recorded() {
    let (_server, gateway) = start();
    let mut raw = Raw::login(&gateway.target());
    let answer = raw.exchange(&function_call(LO_CREATE, &[&4711u32.to_be_bytes()]), 1);
    assert_eq!(kinds(&answer), "VZ", "{answer:?}");
    let record = gateway.settled("app");
    let call = record.commands.last().expect("a command");
    assert_eq!((call.str("via"), call.status()), (Some("function"), "ok"), "{call:?}");
}
