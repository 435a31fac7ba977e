//! One command, one outcome.
fn twice(session: &mut store::SessionLog, recorded: store::Recorded, draft: &store::OutcomeDraft<'_>) {
    let _ = session.outcome(recorded, draft);
    let _ = session.outcome(recorded, draft);
}

fn main() {}
