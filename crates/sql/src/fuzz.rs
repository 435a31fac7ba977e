//! What must hold of the facts of any bytes. For the fuzzer and for the replay of what it found.

use model::{Effect, Facts, OBJECT_NAME_BYTES_MAX, Opaque};

use crate::analysis::{Holds, analyze_shape};
use crate::shape::Shape;
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
    let (again, holds) = analyze_shape(text, settings);
    assert_eq!(again, facts);
    let frame = codec::answer(&facts, holds).unwrap_or_default();
    assert_eq!(frame.get(codec::LENGTH_BYTES..).and_then(codec::answered), Some((again, holds)));
    if holds == Holds::Shape {
        shape(text, settings, &facts);
    }
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

/// Facts that hold for a shape are those of every text of it.
fn shape(text: &[u8], settings: Settings, facts: &Facts) {
    let shape = Shape::of(text).expect("facts that hold for a shape are of a text that has one");
    for integer in ["0", "1", "7", "00", "24", "25", "53", "54", "32768", "65536", "000000001", "2147483", "999999998"]
    {
        let other = shape.with(integer);
        assert!(Shape::of(other.as_bytes()).as_ref() == Some(&shape));
        assert_eq!(&analyze(other.as_bytes(), settings), facts, "{other}");
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
