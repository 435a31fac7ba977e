//! What a statement does, as far as its text tells.
//!
//! Facts are of the text: what hides behind a view, a trigger or a function is not in them. Where even the text does not
//! tell, there is a reason in [`Facts::opaque`], and nothing else in them may be taken for the whole.

use crate::Digest;
use crate::closed::closed;

/// The most relations that facts name. A statement with more is [`Opaque::TooMany`].
pub const RELATIONS_MAX: usize = 64;
/// The most functions that facts name. A statement with more is [`Opaque::TooMany`].
pub const FUNCTIONS_MAX: usize = 64;
/// The longest name of a relation, a schema or a function, bytes (`NAMEDATALEN` - 1 of PostgreSQL).
pub const OBJECT_NAME_BYTES_MAX: usize = 63;
/// All names in facts together, bytes: an entry must hold them. A statement with more is [`Opaque::TooMany`].
pub const NAMES_BYTES_MAX: usize = 8 * 1024;

closed! {
    /// A kind of statement.
    Operation {
        /// `SELECT`, `VALUES`, `TABLE`.
        Select = "select",
        /// `INSERT`.
        Insert = "insert",
        /// `UPDATE`.
        Update = "update",
        /// `DELETE`.
        Delete = "delete",
        /// `MERGE`.
        Merge = "merge",
        /// `TRUNCATE`.
        Truncate = "truncate",
        /// `COPY`.
        Copy = "copy",
        /// `CREATE` of anything, `SELECT INTO`, `IMPORT FOREIGN SCHEMA`.
        Create = "create",
        /// `ALTER`, `COMMENT`, `SECURITY LABEL`, `REINDEX`, `CLUSTER`, `REFRESH MATERIALIZED VIEW` and the like.
        Alter = "alter",
        /// `DROP`.
        Drop = "drop",
        /// `GRANT` of privileges or roles.
        Grant = "grant",
        /// `REVOKE` of privileges or roles.
        Revoke = "revoke",
        /// `CALL`.
        Call = "call",
        /// `DO`.
        Do = "do",
        /// `PREPARE`.
        Prepare = "prepare",
        /// `EXECUTE`.
        Execute = "execute",
        /// `DEALLOCATE`.
        Deallocate = "deallocate",
        /// `DECLARE`.
        Declare = "declare",
        /// `FETCH`, `MOVE`.
        Fetch = "fetch",
        /// `CLOSE`.
        Close = "close",
        /// `EXPLAIN`.
        Explain = "explain",
        /// `SET`, `RESET`, `DISCARD`.
        Set = "set",
        /// `SHOW`.
        Show = "show",
        /// `BEGIN`, `COMMIT`, `ROLLBACK`, savepoints, two-phase commit, `SET CONSTRAINTS`.
        Transaction = "transaction",
        /// `LOCK`.
        Lock = "lock",
        /// `LISTEN`, `UNLISTEN`, `NOTIFY`.
        Notify = "notify",
        /// `ANALYZE`, `VACUUM`, `CHECKPOINT`.
        Maintain = "maintain",
        /// A call of a function by its number.
        Function = "function",
        /// A program is run on a host.
        Exec = "exec",
        /// A shell is started on a host.
        Shell = "shell",
        /// A line is given to a shell that runs.
        Line = "line",
        /// A subsystem is started on a host.
        Subsystem = "subsystem",
        /// A file's content or a directory is read.
        FileRead = "file_read",
        /// A file's content is changed.
        FileWrite = "file_write",
        /// A file or a directory is made, renamed, linked, or its attributes are changed.
        FileChange = "file_change",
        /// A file or a directory is removed.
        FileRemove = "file_remove",
        /// There is no statement.
        Empty = "empty",
        /// What is none of these, or was not understood.
        Other = "other",
    }
}

closed! {
    /// A kind of effect.
    Effect {
        /// Reads data.
        Read = "read",
        /// Changes data.
        Write = "write",
        /// Changes what there is: tables, views, functions.
        Ddl = "ddl",
        /// Changes who may do what.
        Privilege = "privilege",
        /// Changes the session: settings, roles, cursors, prepared statements, locks, transactions' modes.
        Session = "session",
        /// May do anything.
        Unknown = "unknown",
    }
}

closed! {
    /// What is done to a relation.
    Access {
        /// Its rows are read.
        Read = "read",
        /// Its rows are changed.
        Write = "write",
        /// It is made, changed or dropped.
        Define = "define",
        /// It is locked.
        Lock = "lock",
    }
}

closed! {
    /// Why facts are not the whole.
    Opaque {
        /// It is not in the grammar that is known here.
        Unparsed = "unparsed",
        /// It is longer than is analysed.
        TooLong = "too_long",
        /// It is nested deeper than is analysed.
        TooDeep = "too_deep",
        /// It names more than facts hold.
        TooMany = "too_many",
        /// It took too long.
        Timeout = "timeout",
        /// The analysis failed.
        Failed = "failed",
        /// Its bytes are no UTF-8, or the session's encoding is not known to be.
        Encoding = "encoding",
        /// It is several statements: an earlier one may change what a later one means.
        Several = "several",
        /// A `DO` block.
        Block = "block",
        /// A procedure is called.
        Procedure = "procedure",
        /// A function is called that is not known to do nothing but compute or read.
        Function = "function",
        /// A prepared statement is executed whose text is not in sight.
        Prepared = "prepared",
        /// A cursor is read whose statement is not in sight.
        Cursor = "cursor",
        /// The server's shell is used.
        Program = "program",
        /// The server's files are used.
        File = "file",
        /// The session's settings may have changed what the text means.
        Settings = "settings",
        /// A kind of statement whose effects are not analysed.
        Statement = "statement",
        /// A program does what it does.
        Exec = "exec",
    }
}

/// A relation that a statement names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Relation {
    /// Its schema, if the statement names one.
    pub schema: Option<String>,
    /// Its name, as the server folds it.
    pub name: String,
    /// What is done to it: sorted, without repetition, not empty.
    pub access: Vec<Access>,
}

/// What a statement does, as far as its text tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Facts {
    /// The kind of the statement; of the first, if there are several.
    pub operation: Operation,
    /// The kinds of all statements in it, those in others included: sorted, without repetition.
    pub operations: Vec<Operation>,
    /// Its effects: sorted, without repetition.
    pub effects: Vec<Effect>,
    /// The relations it names, at most [`RELATIONS_MAX`]: sorted, each once.
    pub relations: Vec<Relation>,
    /// The functions it calls, at most [`FUNCTIONS_MAX`], with their schema and a dot where one is named: sorted, each once.
    pub functions: Vec<String>,
    /// Whether each `UPDATE` and `DELETE` in it has a `WHERE` that names a column. True where there is none of them.
    pub bounded: bool,
    /// Groups statements that differ in their constants only. Not for anything that must hold: it can collide.
    pub fingerprint: Option<Digest>,
    /// Why these facts are not the whole: sorted, without repetition; empty when they are.
    pub opaque: Vec<Opaque>,
}

impl Facts {
    /// Facts of a statement of which nothing is known, for this reason.
    #[must_use]
    pub fn unknown(reason: Opaque) -> Self {
        Self {
            operation: Operation::Other,
            operations: vec![Operation::Other],
            effects: vec![Effect::Unknown],
            relations: Vec::new(),
            functions: Vec::new(),
            bounded: false,
            fingerprint: None,
            opaque: vec![reason],
        }
    }

    /// These facts, also where the session's settings may have changed what the text means.
    #[must_use]
    pub fn doubted(mut self, reason: Opaque) -> Self {
        if let Err(at) = self.opaque.binary_search(&reason) {
            self.opaque.insert(at, reason);
        }
        self
    }

    /// These facts with no more names than an entry holds; where some are left out, they are not the whole.
    #[must_use]
    pub fn within_an_entry(mut self) -> Self {
        let mut left = NAMES_BYTES_MAX;
        let mut fits = |bytes: usize| {
            let enough = left >= bytes;
            left = left.saturating_sub(bytes);
            enough
        };
        let relations = self
            .relations
            .iter()
            .take_while(|relation| fits(relation.name.len() + relation.schema.as_ref().map_or(0, String::len)));
        let relations = relations.count().min(RELATIONS_MAX);
        let functions = self.functions.iter().take_while(|function| fits(function.len())).count().min(FUNCTIONS_MAX);
        if relations == self.relations.len() && functions == self.functions.len() {
            return self;
        }
        self.relations.truncate(relations);
        self.functions.truncate(functions);
        self.doubted(Opaque::TooMany)
    }

    /// Whether these facts are the whole of what the text does.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.opaque.is_empty()
    }
}
