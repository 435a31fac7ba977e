//! x
mod agents; mod place; mod postgres;
fn main() {}
