//! stub
use super::Context;
use crate::Failure;
/// stub
pub fn run(_: &mut Context) -> Result<(), Failure> { Ok(()) }
/// stub
pub fn create_record(config: &crate::config::Config) -> Result<(), Failure> { std::fs::create_dir_all(&config.gateway.data).map_err(Failure::new) }
