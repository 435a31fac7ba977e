//! What must hold of the facts of any bytes. For the fuzzer and for the replay of what it found.

use model::{Effect, Facts, OBJECT_NAME_BYTES_MAX, Opaque};

use crate::{Encoding, Settings, Strings, analyze, codec};

/// The first byte is the settings, the rest a text.
///
/// # Panics
/// Something does not hold.
pub fn text(data: &[u8]) {
    let Some((byte, text)) = data.split_first() else { return };
    let strings = match byte % 3 {
        0 => Strings::Standard,
        1 => Strings::Escapes,
        _ => Strings::Either,
    };
    let encoding = if byte % 2 == 0 { Encoding::AsciiSafe } else { Encoding::Other };
    let settings = Settings { strings, encoding };
    let facts = analyze(text, settings);
    holds(&facts);
    // The same twice, and over the pipe.
    assert_eq!(analyze(text, settings), facts);
    let frame = codec::answer(&facts).unwrap_or_default();
    assert_eq!(frame.get(codec::LENGTH_BYTES..).and_then(codec::answered).as_ref(), Some(&facts));
    if let Some(frame) = codec::question(text, settings) {
        assert_eq!(frame.get(codec::LENGTH_BYTES..).and_then(codec::asked), Some((settings, text)));
    }
    // What comes over the pipe may be anything.
    let _ = codec::answered(text);
    let _ = codec::asked(text);
    if strings == Strings::Either {
        // Not knowing never says less.
        for strings in [Strings::Standard, Strings::Escapes] {
            let known = analyze(text, Settings { strings, encoding });
            assert!(known.effects.iter().all(|effect| facts.effects.contains(effect)));
            assert!(known.complete() || !facts.complete());
        }
    }
}

fn holds(facts: &Facts) {
    assert!(!facts.operations.is_empty() && facts.operations.contains(&facts.operation));
    assert!(facts.operations.is_sorted_by(|one, other| one < other));
    assert!(facts.effects.is_sorted_by(|one, other| one < other));
    assert!(facts.opaque.is_sorted_by(|one, other| one < other));
    assert!(facts.relations.iter().all(|relation| relation.name.len() <= OBJECT_NAME_BYTES_MAX));
    assert!(!facts.complete() || !facts.effects.contains(&Effect::Unknown), "what may do anything is not complete");
    assert!(!facts.opaque.contains(&Opaque::Unparsed) || facts.effects.contains(&Effect::Unknown));
}
