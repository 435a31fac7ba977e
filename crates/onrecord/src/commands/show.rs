//! stub
use clap::Args;
use super::Context;
use crate::Failure;
/// stub
#[derive(Debug, Args)]
pub struct Show {}
impl Show { /// stub
 pub fn run(self, _: &mut Context) -> Result<(), Failure> { Ok(()) } }
