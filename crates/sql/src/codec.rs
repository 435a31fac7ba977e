//! What goes over the pipes between the gateway and the analysing process.
//!
//! A question is a length, the settings and the text; an answer is a length and the facts as JSON. Both sides bound both. The
//! process is not trusted by who asks it: facts that are no facts are an error.

use std::borrow::Cow;

use model::{
    Access, Digest, Effect, FUNCTIONS_MAX, Facts, OBJECT_NAME_BYTES_MAX, Opaque, Operation, RELATIONS_MAX, Relation,
};
use serde::{Deserialize, Serialize};

use crate::analysis::Holds;
use crate::{Encoding, Settings, Strings, TEXT_BYTES_MAX};

/// The longest question, bytes, without its length.
pub(crate) const QUESTION_BYTES_MAX: usize = TEXT_BYTES_MAX + 1;
/// The longest answer, bytes, without its length: as many names as facts hold, each character escaped, and some more.
pub(crate) const ANSWER_BYTES_MAX: usize = 512 * 1024;
/// The bytes of a length.
pub(crate) const LENGTH_BYTES: usize = 4;
/// The longest name of a function with what it is in, bytes.
const FUNCTION_BYTES_MAX: usize = 3 * OBJECT_NAME_BYTES_MAX + 2;

/// One byte for what of a session changes what a text means.
pub(crate) fn settings_byte(settings: Settings) -> u8 {
    let strings = match settings.strings {
        Strings::Standard => 0,
        Strings::Escapes => 1,
        Strings::Either => 2,
    };
    let encoding = match settings.encoding {
        Encoding::AsciiSafe => 0,
        Encoding::Other => 4,
    };
    strings | encoding
}

fn settings(byte: u8) -> Option<Settings> {
    let strings = match byte & 3 {
        0 => Strings::Standard,
        1 => Strings::Escapes,
        2 => Strings::Either,
        _ => return None,
    };
    match byte & !3 {
        0 => Some(Settings { strings, encoding: Encoding::AsciiSafe }),
        4 => Some(Settings { strings, encoding: Encoding::Other }),
        _ => None,
    }
}

/// A question with its length. `None` if the text is too long for one.
pub(crate) fn question(text: &[u8], settings: Settings) -> Option<Vec<u8>> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let mut frame = Vec::with_capacity(LENGTH_BYTES + 1 + text.len());
    frame.extend_from_slice(&u32::try_from(text.len() + 1).ok()?.to_le_bytes());
    frame.push(settings_byte(settings));
    frame.extend_from_slice(text);
    Some(frame)
}

/// What is asked.
pub(crate) fn asked(question: &[u8]) -> Option<(Settings, &[u8])> {
    let (byte, text) = question.split_first()?;
    Some((settings(*byte)?, text))
}

#[derive(Serialize, Deserialize)]
struct Answer<'a> {
    holds: Cow<'a, str>,
    operation: Cow<'a, str>,
    operations: Vec<Cow<'a, str>>,
    effects: Vec<Cow<'a, str>>,
    relations: Vec<Named<'a>>,
    functions: Cow<'a, [String]>,
    bounded: bool,
    fingerprint: Option<String>,
    opaque: Vec<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
struct Named<'a> {
    schema: Option<Cow<'a, str>>,
    name: Cow<'a, str>,
    access: Vec<Cow<'a, str>>,
}

/// Facts, and what they hold for, with their length.
pub(crate) fn answer(facts: &Facts, holds: Holds) -> std::io::Result<Vec<u8>> {
    let named = |relation: &'_ Relation| Named {
        schema: relation.schema.clone().map(Cow::Owned),
        name: Cow::Owned(relation.name.clone()),
        access: relation.access.iter().map(|access| Cow::Borrowed(access.as_str())).collect(),
    };
    let answer = Answer {
        holds: of_holds(holds).into(),
        operation: facts.operation.as_str().into(),
        operations: facts.operations.iter().map(|operation| operation.as_str().into()).collect(),
        effects: facts.effects.iter().map(|effect| effect.as_str().into()).collect(),
        relations: facts.relations.iter().map(named).collect(),
        functions: Cow::Borrowed(&facts.functions),
        bounded: facts.bounded,
        fingerprint: facts.fingerprint.map(|digest| digest.hex()),
        opaque: facts.opaque.iter().map(|reason| reason.as_str().into()).collect(),
    };
    let mut frame = vec![0; LENGTH_BYTES];
    serde_json::to_writer(&mut frame, &answer)?;
    let length = u32::try_from(frame.len() - LENGTH_BYTES).map_err(std::io::Error::other)?;
    if let Some(start) = frame.get_mut(..LENGTH_BYTES) {
        start.copy_from_slice(&length.to_le_bytes());
    }
    Ok(frame)
}

fn of_holds(holds: Holds) -> &'static str {
    match holds {
        Holds::Text => "text",
        Holds::Shape => "shape",
    }
}

/// The facts of an answer, if they are such.
pub(crate) fn answered(answer: &[u8]) -> Option<(Facts, Holds)> {
    let answer: Answer<'_> = serde_json::from_slice(answer).ok()?;
    let holds = [Holds::Text, Holds::Shape].into_iter().find(|holds| of_holds(*holds) == answer.holds)?;
    let relation = |named: &Named<'_>| {
        let access = set(&named.access, Access::parse)?;
        let fits = |name: &str| name.len() <= OBJECT_NAME_BYTES_MAX;
        let schema = named.schema.as_ref().map(|schema| schema.to_string());
        let relation = Relation { schema, name: named.name.to_string(), access };
        let sound = fits(&relation.name) && relation.schema.as_deref().is_none_or(fits) && !relation.access.is_empty();
        sound.then_some(relation)
    };
    let facts = Facts {
        operation: Operation::parse(&answer.operation)?,
        operations: set(&answer.operations, Operation::parse)?,
        effects: set(&answer.effects, Effect::parse)?,
        relations: answer.relations.iter().map(relation).collect::<Option<_>>()?,
        functions: answer.functions.into_owned(),
        bounded: answer.bounded,
        fingerprint: match answer.fingerprint {
            Some(hex) => Some(Digest::from_hex(&hex)?),
            None => None,
        },
        opaque: set(&answer.opaque, Opaque::parse)?,
    };
    let names = |one: &Relation, other: &Relation| (&one.schema, &one.name) < (&other.schema, &other.name);
    let sorted = facts.relations.is_sorted_by(names) && facts.functions.is_sorted_by(|one, other| one < other);
    let few = facts.relations.len() <= RELATIONS_MAX && facts.functions.len() <= FUNCTIONS_MAX;
    let short = facts.functions.iter().all(|name| name.len() <= FUNCTION_BYTES_MAX);
    (sorted && few && short).then_some((facts, holds))
}

/// A sorted list without repetition of members of a closed set.
fn set<T: Ord>(texts: &[Cow<'_, str>], parse: fn(&str) -> Option<T>) -> Option<Vec<T>> {
    let members: Vec<T> = texts.iter().map(|text| parse(text)).collect::<Option<_>>()?;
    members.is_sorted_by(|one, other| one < other).then_some(members)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let mut facts = Facts::unknown(Opaque::Function);
        facts.relations = vec![
            Relation { schema: None, name: "a\"\u{1}é".into(), access: vec![Access::Read, Access::Lock] },
            Relation { schema: Some("s".into()), name: "a".into(), access: vec![Access::Define] },
        ];
        facts.functions = vec!["f".into(), "s.g".into()];
        facts.fingerprint = Some(Digest([7; 32]));
        facts
    }

    #[test]
    fn facts_come_back_as_they_went() {
        for holds in [Holds::Text, Holds::Shape] {
            let frame = answer(&facts(), holds).unwrap();
            assert_eq!(answered(&frame[LENGTH_BYTES..]), Some((facts(), holds)));
        }
    }

    #[test]
    fn what_are_no_facts_is_refused() {
        let frame = answer(&facts(), Holds::Text).unwrap();
        let text = String::from_utf8(frame[LENGTH_BYTES..].to_vec()).unwrap();
        for (from, to) in [
            ("\"read\",\"lock\"", "\"lock\",\"read\""),
            ("\"read\",\"lock\"", ""),
            ("\"function\"", "\"nonsense\""),
            ("\"other\"", "\"none\""),
            ("\"text\"", "\"all\""),
            ("\"f\",\"s.g\"", "\"s.g\",\"f\""),
        ] {
            assert!(text.contains(from));
            assert_eq!(answered(text.replace(from, to).as_bytes()), None, "{from} {to}");
        }
        assert_eq!(answered(b"{}"), None);
        assert_eq!(answered(text.replace("\"s.g\"", &format!("\"{}\"", "s".repeat(200))).as_bytes()), None);
    }

    #[test]
    fn settings_come_back_as_they_went() {
        for strings in [Strings::Standard, Strings::Escapes, Strings::Either] {
            for encoding in [Encoding::AsciiSafe, Encoding::Other] {
                let settings = Settings { strings, encoding };
                let frame = question(b"x", settings).unwrap();
                assert_eq!(asked(&frame[LENGTH_BYTES..]), Some((settings, &b"x"[..])));
            }
        }
        assert_eq!(asked(&[3]), None);
        assert_eq!(asked(&[]), None);
    }
}
