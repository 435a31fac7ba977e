//! An intent that is not known to be safe is no evidence, and a session's opening is none for a command.
fn early(session: &mut store::SessionLog, pending: store::Pending, draft: &store::OutcomeDraft<'_>) {
    let _ = session.outcome(pending, draft);
}

fn opening(gate: &store::Gate, opening: store::Opening) {
    let _ = gate.admit(opening, store::Level::Durable);
}

fn main() {}
