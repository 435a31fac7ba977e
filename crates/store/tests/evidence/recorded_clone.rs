//! One command, one piece of evidence.
fn copy(recorded: &store::Recorded) -> store::Recorded {
    recorded.clone()
}

fn copy_pending(pending: &store::Pending) -> store::Pending {
    pending.clone()
}

fn main() {}
