//! Real servers on loopback, wire transcripts and a simulated disk, for the tests only.

pub mod sim_disk;
