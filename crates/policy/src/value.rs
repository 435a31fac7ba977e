//! The values of ours that conditions see: groups of fields that are not copied, and patterns that are compiled once.

use std::any::Any;
use std::sync::Arc;

use cel::common::traits::Indexer;
use cel::common::types::{CelBool, CelMap, CelString, MAP_TYPE, STRING_TYPE, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{Env, ExecutionError};
use regex::{Regex, RegexBuilder};

/// The longest pattern, bytes.
const PATTERN_BYTES_MAX: usize = 512;
/// How large a compiled pattern may be, bytes. What it costs to match is at most this times the length of the text.
const PATTERN_PROGRAM_BYTES_MAX: usize = 256 << 10;
/// How much a pattern may remember while it matches, bytes.
const PATTERN_CACHE_BYTES_MAX: usize = 1 << 20;
/// How deep the groups of a pattern may nest.
const PATTERN_NEST_MAX: u32 = 16;

const PATTERN_TYPE: &str = "pattern";
static PATTERN: Type = Type::new_unspecified_type(PATTERN_TYPE);

/// A group of fields: copying it does not copy them. The engine copies each element of a list that a rule looks through.
#[derive(Clone, Debug)]
pub(crate) struct Shared<'v>(pub(crate) Arc<CelMap<'v>>);

impl<'s> Val for Shared<'s> {
    fn get_type(&self) -> &Type {
        Self::cel_type()
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }
}

impl Indexer for Shared<'_> {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.0.get(index)
    }

    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(index).map(CowVal::into_owned)
    }
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) struct Pattern(Arc<Regex>);

impl Pattern {
    /// Compiles a pattern.
    pub(crate) fn new(source: &str) -> Result<Self, String> {
        if source.len() > PATTERN_BYTES_MAX {
            return Err(format!("has more than {PATTERN_BYTES_MAX} bytes"));
        }
        let built = RegexBuilder::new(source)
            .size_limit(PATTERN_PROGRAM_BYTES_MAX)
            .dfa_size_limit(PATTERN_CACHE_BYTES_MAX)
            .nest_limit(PATTERN_NEST_MAX)
            .build();
        match built {
            Ok(regex) => Ok(Self(Arc::new(regex))),
            Err(regex::Error::CompiledTooBig(_)) => Err("is too large once compiled".to_owned()),
            Err(error) => {
                // The last line says what is wrong; those before repeat the pattern.
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                Err(format!("is no regular expression: {last}"))
            }
        }
    }
}

impl Val for Pattern {
    fn get_type(&self) -> &Type {
        Self::cel_type()
    }

    fn cel_type() -> &'static Type {
        &PATTERN
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Pattern {}

/// `text.matches(PATTERN)` with a compiled pattern. The engine's own compiles it each time.
fn matches<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let found = match args.as_slice() {
        [text, pattern] => match (text.downcast_ref::<CelString<'_>>(), pattern.downcast_ref::<Pattern>()) {
            (Some(text), Some(pattern)) => Some(pattern.0.is_match(text.inner())),
            _ => None,
        },
        _ => None,
    };
    let found = found.ok_or_else(|| ExecutionError::function_error("matches", "wants a text and a pattern"))?;
    Ok(CowVal::owned(CelBool::from(found)))
}

/// The functions of conditions.
///
/// # Errors
/// The engine has a function of these names already.
pub(crate) fn environment() -> Result<Env, cel::DeclarationError> {
    let mut env = Env::stdlib().with_optional_support(true);
    env.add_extension(cel::extensions::strings)?;
    env.add_member_overload(
        "matches",
        "matches_pattern",
        STRING_TYPE,
        vec![Type::new_unspecified_type(PATTERN_TYPE)],
        matches,
    )?;
    Ok(env)
}
