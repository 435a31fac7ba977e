//! Nobody but a session makes a pending intent.
fn forge(command: model::CommandId, position: store::Position) -> store::Pending {
    store::Pending { command, position, boot_us: 0 }
}

fn main() {}
