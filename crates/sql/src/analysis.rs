//! From bytes to facts, in this process.
//!
//! The one place that knows the parser. Whatever happens to a text here, the answer is facts; only what the parser's C does
//! to the process is not contained here, which is why the gateway has texts analysed in others.

use std::panic::{AssertUnwindSafe, catch_unwind};

use model::{Facts, Opaque, Operation};
use pg_query::ParserOptions;

use crate::shape::Shape;
use crate::tree::{self, Tree};
use crate::{Encoding, Settings, Strings, fingerprint, union, walk};

/// The longest text that is analysed, bytes. Beyond it, the analysis would take longer than a command should wait.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// How deep a statement may be nested. It is the limit of the reader of the parser's answer (`prost`), which is there so
/// that no text can exhaust a stack; each level of a query takes two or more of these.
pub const NESTING_MAX: usize = 100;

/// Analyses a text in this process. A text may end the process it is analysed in; for tools, and for the worker.
#[must_use]
pub fn analyze(text: &[u8], settings: Settings) -> Facts {
    if let Some(reason) = refused(text, settings) {
        return Facts::unknown(reason);
    }
    let ascii = text.is_ascii();
    let Ok(text) = std::str::from_utf8(text) else { return Facts::unknown(Opaque::Encoding) };
    // Without a backslash, all readings of it are the same.
    let strings = if text.contains('\\') { settings.strings } else { Strings::Standard };
    let mut facts = match strings {
        Strings::Standard => read(text, ParserOptions::DEFAULT),
        Strings::Escapes => read(text, ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS),
        Strings::Either => {
            let standard = read(text, ParserOptions::DEFAULT);
            let escapes = read(text, ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS);
            if standard == escapes { standard } else { union::of(standard, escapes, Opaque::Settings) }
        }
    };
    // Letters beyond ASCII are others in another encoding: what a name is cannot be said.
    if !ascii && !plain_names(&facts) {
        union::add(&mut facts.opaque, Opaque::Encoding);
    }
    facts.within_an_entry()
}

/// What facts hold for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    /// The text that they were made from.
    Text,
    /// Every text of its [`Shape`]: none of its integers was looked at for them.
    Shape,
}

/// As [`analyze`], and says what the facts hold for.
pub(crate) fn analyze_shape(text: &[u8], settings: Settings) -> (Facts, Holds) {
    let Some((shape, own)) = Shape::of(text).zip(std::str::from_utf8(text).ok()) else {
        return (analyze(text, settings), Holds::Text);
    };
    // What has a shape is short, ASCII and without a backslash: it is read in one way, whatever the settings.
    match parse(own, ParserOptions::DEFAULT) {
        Ok(tree) => {
            let facts = facts_of(&tree).within_an_entry();
            let holds = if are_of_shape(&facts, &tree, &shape) { Holds::Shape } else { Holds::Text };
            (facts, holds)
        }
        Err(reason) => (Facts::unknown(reason).within_an_entry(), Holds::Text),
    }
}

/// Statements whose integers are constants in expressions, but for a few types that have one.
const WITH_SHAPES: [Operation; 5] =
    [Operation::Select, Operation::Insert, Operation::Update, Operation::Delete, Operation::Merge];

/// The least integer that a text with a shape can have; a negative one is a minus and an integer.
const LEAST: &str = "0";
/// The greatest.
const GREATEST: &str = "999999999";

/// Whether these facts of a tree are those of every text of its shape: facts are made from the tree alone, and the tree is
/// the same with the least integers and the greatest. The grammar's own look at an integer would show at one of these.
fn are_of_shape(facts: &Facts, own: &Tree, shape: &Shape) -> bool {
    let same = |integer| parse(&shape.with(integer), ParserOptions::DEFAULT).is_ok_and(|tree| tree == *own);
    facts.operations.iter().all(|operation| WITH_SHAPES.contains(operation)) && same(LEAST) && same(GREATEST)
}

/// Why a text is not analysed at all, if it is not.
pub(crate) fn refused(text: &[u8], settings: Settings) -> Option<Opaque> {
    if text.len() > TEXT_BYTES_MAX {
        return Some(Opaque::TooLong);
    }
    let unsure = settings.encoding == Encoding::Other && !text.is_ascii();
    (unsure || text.contains(&0) || std::str::from_utf8(text).is_err()).then_some(Opaque::Encoding)
}

fn plain_names(facts: &Facts) -> bool {
    let relations = facts
        .relations
        .iter()
        .all(|relation| relation.name.is_ascii() && relation.schema.as_ref().is_none_or(|schema| schema.is_ascii()));
    relations && facts.functions.iter().all(|name| name.is_ascii())
}

/// Analyses a text that is read in one way.
fn read(text: &str, options: ParserOptions) -> Facts {
    match parse(text, options) {
        Ok(parsed) => facts_of(&parsed),
        Err(reason) => Facts::unknown(reason),
    }
}

fn facts_of(parsed: &Tree) -> Facts {
    Facts { fingerprint: Some(fingerprint::of(parsed)), ..walk::facts(parsed) }
}

fn parse(text: &str, options: ParserOptions) -> Result<Tree, Opaque> {
    // The parser's own reading of its answer panics on trees that it did not expect.
    let parsed = catch_unwind(AssertUnwindSafe(|| pg_query::parse(text, options)));
    let parsed = parsed.map_err(|_| Opaque::Failed)?.map_err(|error| reason(&error))?;
    tree::of(&parsed.protobuf).map_err(|_| Opaque::Failed)
}

fn reason(error: &pg_query::Error) -> Opaque {
    match error {
        pg_query::Error::Decode(error) if error.to_string().contains("recursion limit") => Opaque::TooDeep,
        // What the parser says where PostgreSQL says the same.
        pg_query::Error::Parse(message)
            if message.starts_with("stack depth limit") || message == "memory exhausted" =>
        {
            Opaque::TooDeep
        }
        pg_query::Error::Parse(_) => Opaque::Unparsed,
        _ => Opaque::Failed,
    }
}
