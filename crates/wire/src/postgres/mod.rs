//! PostgreSQL's frontend/backend protocol, versions 3.0 to 3.2.
//!
//! [`startup`] reads what comes before a session, [`message`] builds the few messages that the gateway says
//! itself, and [`tap`] follows an authenticated session in both directions.

mod decode;
mod fields;
mod lexer;
pub mod message;
pub mod parameters;
pub mod startup;
pub mod tap;
