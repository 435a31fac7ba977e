//! CEL expressions and the templates around them: compiled once, checked for names that do not exist, then evaluated
//! for each token.

use cel::common::ast::{EntryExpr, Expr, IdedExpr};
use cel::{Context, Env, ExecutionError, Program, Value};

/// The longest expression or template, in bytes.
const SOURCE_BYTES_MAX: usize = 2048;
/// The longest text that a template may give, in bytes.
const TEXT_BYTES_MAX: usize = 512;
/// What expressions may name.
pub(crate) const VARIABLES: [&str; 3] = ["claims", "issuer", "act"];
/// The functions that expressions may call, beside operators.
const FUNCTIONS: [&str; 27] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "int",
    "uint",
    "double",
    "string",
    "bool",
    "type",
    "dyn",
    "charAt",
    "indexOf",
    "lastIndexOf",
    "join",
    "lowerAscii",
    "upperAscii",
    "replace",
    "split",
    "substring",
    "trim",
    "reverse",
    "has",
    "min",
    "max",
    "bytes",
];

/// A value that a template could not be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The token does not have what the expression asks for.
    Absent(String),
    /// Anything else.
    Other(String),
}

/// A compiled expression.
#[derive(Debug)]
pub(crate) struct Expression {
    program: Program,
    mentions_act: bool,
}

impl Expression {
    /// # Errors
    /// A text that says what is wrong with it.
    pub(crate) fn new(env: &Env, source: &str) -> Result<Self, String> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(format!("is longer than {SOURCE_BYTES_MAX} bytes"));
        }
        let program = env.compile(source).map_err(|errors| {
            let first = errors.errors.first().map(|error| error.msg.clone()).unwrap_or_default();
            format!("is no CEL expression: {first}")
        })?;
        let mut names = Names::default();
        names.walk(program.expression(), &mut Vec::new());
        if let Some(name) = names.unknown {
            return Err(format!("names {name:?}, which does not exist: there are {}", VARIABLES.join(", ")));
        }
        if let Some(name) = names.unknown_function {
            return Err(format!("calls {name:?}, which does not exist: there are {}", FUNCTIONS.join(", ")));
        }
        Ok(Self { program, mentions_act: names.act })
    }

    pub(crate) fn mentions_act(&self) -> bool {
        self.mentions_act
    }

    /// The value, which must be true or false.
    pub(crate) fn holds(&self, context: &Context<'_, '_>) -> Result<bool, Failure> {
        match self.value(context)? {
            Value::Bool(holds) => Ok(holds),
            _ => Err(Failure::Other("gives neither true nor false".to_owned())),
        }
    }

    fn value(&self, context: &Context<'_, '_>) -> Result<Value, Failure> {
        self.program.execute(context).map_err(failure)
    }
}

/// What a failed evaluation is called. Values are left out: they are the token's.
fn failure(error: ExecutionError) -> Failure {
    match error {
        ExecutionError::NoSuchKey(name) => Failure::Absent(format!("asks for {name:?}, which is not there")),
        ExecutionError::IndexOutOfBounds(_) => Failure::Absent("asks for more of a list than there is".to_owned()),
        ExecutionError::UndeclaredReference(name) => Failure::Other(format!("names {name:?}, which does not exist")),
        ExecutionError::NoSuchOverload(error) => {
            let types = error.argument_types().join(" and ");
            Failure::Other(format!("applies {} to {types}, which do not fit", error.function()))
        }
        ExecutionError::FunctionError { function, .. } => Failure::Other(format!("calls {function}, which fails")),
        _ => Failure::Other("has parts that do not fit each other".to_owned()),
    }
}

/// The names that an expression uses.
#[derive(Default)]
struct Names {
    act: bool,
    unknown: Option<String>,
    unknown_function: Option<String>,
}

impl Names {
    /// Walks an expression in which these names were bound by the macros around it.
    fn walk<'e>(&mut self, node: &'e IdedExpr, bound: &mut Vec<&'e str>) {
        match &node.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(name) => self.name(name, bound),
            Expr::Select(select) => self.walk(&select.operand, bound),
            Expr::Call(call) => {
                // Operators have names such as `_==_`, which nobody can write.
                let written = call.func_name.starts_with(|first: char| first.is_ascii_alphabetic());
                if written && !FUNCTIONS.contains(&call.func_name.as_str()) {
                    self.unknown_function.get_or_insert_with(|| call.func_name.clone());
                }
                call.target.iter().for_each(|target| self.walk(target, bound));
                call.args.iter().for_each(|arg| self.walk(arg, bound));
            }
            Expr::List(list) => list.elements.iter().for_each(|element| self.walk(element, bound)),
            Expr::Map(map) => map.entries.iter().for_each(|entry| self.entry(&entry.expr, bound)),
            Expr::Struct(fields) => fields.entries.iter().for_each(|entry| self.entry(&entry.expr, bound)),
            Expr::Comprehension(comprehension) => {
                self.walk(&comprehension.iter_range, bound);
                self.walk(&comprehension.accu_init, bound);
                let outside = bound.len();
                bound.push(&comprehension.iter_var);
                bound.extend(comprehension.iter_var2.as_deref());
                bound.push(&comprehension.accu_var);
                self.walk(&comprehension.loop_cond, bound);
                self.walk(&comprehension.loop_step, bound);
                self.walk(&comprehension.result, bound);
                bound.truncate(outside);
            }
        }
    }

    fn entry<'e>(&mut self, entry: &'e EntryExpr, bound: &mut Vec<&'e str>) {
        match entry {
            EntryExpr::StructField(field) => self.walk(&field.value, bound),
            EntryExpr::MapEntry(entry) => {
                self.walk(&entry.key, bound);
                self.walk(&entry.value, bound);
            }
        }
    }

    fn name(&mut self, name: &str, bound: &[&str]) {
        if name.starts_with('@') || bound.contains(&name) {
            return;
        }
        self.act |= name == "act";
        if !VARIABLES.contains(&name) {
            self.unknown.get_or_insert_with(|| name.to_owned());
        }
    }
}

/// Text with expressions in braces.
#[derive(Debug)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Value(Expression),
}

impl Template {
    /// # Errors
    /// A text that says what is wrong with it.
    pub(crate) fn new(env: &Env, source: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = source;
        while let Some((text, after)) = rest.split_once('{') {
            let end = end_of(after).ok_or("has a brace { that no } ends")?;
            let (expression, after) = after.split_at(end);
            if !text.is_empty() {
                parts.push(Part::Text(text.to_owned()));
            }
            parts.push(Part::Value(Expression::new(env, expression)?));
            rest = after.strip_prefix('}').unwrap_or(after);
        }
        if rest.contains('}') {
            return Err("has a brace } that no { begins".to_owned());
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        if parts.is_empty() { Err("is empty".to_owned()) } else { Ok(Self { parts }) }
    }

    /// The text before the first expression.
    pub(crate) fn prefix(&self) -> &str {
        match self.parts.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }

    pub(crate) fn mentions_act(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Value(expression) if expression.mentions_act()))
    }

    /// The text. No expression in it may give an empty text: two tokens that differ would become one.
    pub(crate) fn text(&self, context: &Context<'_, '_>) -> Result<String, Failure> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Value(expression) => text.push_str(&scalar(&expression.value(context)?)?),
            }
            if text.len() > TEXT_BYTES_MAX {
                return Err(Failure::Other(format!("gives a text of more than {TEXT_BYTES_MAX} bytes")));
            }
        }
        Ok(text)
    }

    /// The texts: many if the template is one expression that gives a list.
    pub(crate) fn texts(&self, context: &Context<'_, '_>) -> Result<Vec<String>, Failure> {
        let [Part::Value(expression)] = self.parts.as_slice() else {
            return self.text(context).map(|text| vec![text]);
        };
        match expression.value(context)? {
            Value::List(list) => list.iter().map(scalar).collect(),
            value => scalar(&value).map(|text| vec![text]),
        }
    }
}

/// Where the expression ends that these bytes begin with: at the brace that is neither in a string nor paired.
fn end_of(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None => match c {
                '"' | '\'' => quote = Some(c),
                '{' => depth += 1,
                '}' if depth == 0 => return Some(at),
                '}' => depth -= 1,
                _ => {}
            },
        }
    }
    None
}

/// A value as text: of a text, a whole number, true or false. Others have more than one spelling.
fn scalar(value: &Value) -> Result<String, Failure> {
    let text = match value {
        Value::String(text) => text.as_str().to_owned(),
        Value::Int(number) => number.to_string(),
        Value::UInt(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        _ => return Err(Failure::Other("gives neither a text, nor a whole number, nor true or false".to_owned())),
    };
    if text.is_empty() { Err(Failure::Other("gives an empty text".to_owned())) } else { Ok(text) }
}
