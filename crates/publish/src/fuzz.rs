//! What the fuzz target `publish` runs on any bytes: everything of this crate that reads bytes from outside.
//!
//! Nothing may panic, and what is read must say the same when it is written again.

use crate::receipt::Receipt;
use crate::witness::parse_log;

/// Reads the bytes in every way.
pub fn everything(data: &[u8]) {
    if let Some(state) = parse_log(data) {
        assert!(!state.key.name().is_empty());
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(receipt) = text.parse::<Receipt>() else { return };
    let again: Result<Receipt, _> = receipt.to_string().parse();
    assert_eq!(again.ok().as_ref(), Some(&receipt));
    let key = ledger::SigningKey::new("log.example.com/1", &[1; 32]).map(|key| key.verifier());
    if let Ok(key) = key {
        let _ = receipt.check(&key);
    }
}
