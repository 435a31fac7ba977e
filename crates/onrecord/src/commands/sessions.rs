//! stub
use clap::Args;
use super::Context;
use crate::Failure;
/// stub
#[derive(Debug, Args)]
pub struct Sessions {}
impl Sessions { /// stub
 pub fn run(self, _: &mut Context) -> Result<(), Failure> { Ok(()) } }
