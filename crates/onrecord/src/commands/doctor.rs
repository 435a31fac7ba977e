//! stub
use clap::Args;
use super::Context;
use crate::Failure;
/// stub
#[derive(Debug, Args)]
pub struct Doctor {}
impl Doctor { /// stub
 pub fn run(self, _: &mut Context) -> Result<(), Failure> { Ok(()) } }
