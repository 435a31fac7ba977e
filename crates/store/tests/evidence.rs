//! The evidence types cannot be made up, copied or used twice: that would not compile.

#[test]
fn evidence_cannot_be_forged() {
    trybuild::TestCases::new().compile_fail("tests/evidence/*.rs");
}
