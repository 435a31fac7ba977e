//! The walk over a statement's tree that gives its facts.
//!
//! It keeps one invariant: what it does not know, it says. Every field of every node is reached, a node whose kind is on no
//! list makes the facts opaque, and so does a field that is not where it is looked for. Names are hidden by a `WITH` only
//! where PostgreSQL lets it hide them.
//!
//! Not for what the text does not say: views, triggers, rules and functions of the server are behind their names.

mod expression;
mod names;
mod query;
mod utility;

use std::collections::{BTreeMap, BTreeSet};

use model::{Access, Effect, Facts, Opaque, Operation, Relation};

use crate::tree::{Node, Tree};

/// The facts of what was parsed: a `ParseResult` of the parser.
pub(crate) fn facts(parsed: &Tree) -> Facts {
    let mut walk = Walk::default();
    let statements = match parsed.as_kind("ParseResult") {
        Some(result) => walk.field(result, "stmts").items(),
        None => return Facts::unknown(Opaque::Failed),
    };
    if statements.len() > 1 {
        walk.opaque.insert(Opaque::Several);
    }
    for statement in statements {
        match statement.as_kind("RawStmt") {
            Some(raw) => {
                let statement = walk.field(raw, "stmt");
                walk.tree(statement);
            }
            None => walk.unknown_statement(),
        }
    }
    walk.end()
}

static NOTHING: Tree = Tree::Nothing;

#[derive(Default)]
struct Walk {
    first: Option<Operation>,
    operations: BTreeSet<Operation>,
    effects: BTreeSet<Effect>,
    relations: BTreeMap<(Option<String>, String), BTreeSet<Access>>,
    functions: BTreeSet<String>,
    opaque: BTreeSet<Opaque>,
    /// An `UPDATE` or `DELETE` was met whose `WHERE` names no column.
    unbounded: bool,
    /// The names that the enclosing `WITH`s hide relations by.
    hidden: Vec<String>,
    /// In an `EXPLAIN` that does not execute: what is in there is planned only.
    planning: bool,
    /// In a statement that defines: types in it are named, not used.
    defining: bool,
    /// In what a `FOR UPDATE` locks.
    locking: bool,
}

impl Walk {
    fn end(self) -> Facts {
        let opaque = self.opaque;
        let relation = |((schema, name), access): ((Option<String>, String), BTreeSet<Access>)| Relation {
            schema,
            name,
            access: access.into_iter().collect(),
        };
        let relations = self.relations.into_iter().map(relation).collect();
        let mut operations = self.operations;
        let operation = self.first.unwrap_or(Operation::Empty);
        operations.insert(operation);
        let blind = [Opaque::Block, Opaque::Procedure, Opaque::Prepared, Opaque::Statement, Opaque::Failed];
        Facts {
            operation,
            operations: operations.into_iter().collect(),
            effects: self.effects.into_iter().collect(),
            relations,
            functions: self.functions.into_iter().collect(),
            bounded: !self.unbounded && !blind.iter().any(|reason| opaque.contains(reason)),
            fingerprint: None,
            opaque: opaque.into_iter().collect(),
        }
    }

    /// A field of a node. That it is not there is an error in this walk, and makes the facts opaque.
    fn field<'t>(&mut self, node: &'t Node, name: &str) -> &'t Tree {
        match node.field(name) {
            Some(tree) => tree,
            None => {
                debug_assert!(false, "{} has no {name}", node.kind);
                self.opaque.insert(Opaque::Failed);
                self.effects.insert(Effect::Unknown);
                &NOTHING
            }
        }
    }

    fn operation(&mut self, operation: Operation) {
        self.first.get_or_insert(operation);
        self.operations.insert(operation);
    }

    fn effect(&mut self, effect: Effect) {
        // Planning reads. What plans may call could still do anything.
        let planned = if effect == Effect::Unknown { effect } else { Effect::Read };
        self.effects.insert(if self.planning { planned } else { effect });
    }

    fn opaque(&mut self, reason: Opaque) {
        self.opaque.insert(reason);
        if matches!(
            reason,
            Opaque::Block
                | Opaque::Procedure
                | Opaque::Function
                | Opaque::Prepared
                | Opaque::Cursor
                | Opaque::Program
                | Opaque::File
        ) {
            self.effects.insert(Effect::Unknown);
        }
    }

    /// A statement whose effects are not analysed.
    fn unknown_statement(&mut self) {
        self.opaque.insert(Opaque::Statement);
        self.effects.insert(Effect::Unknown);
    }

    /// Walks whatever this is.
    fn tree(&mut self, tree: &Tree) {
        match tree {
            Tree::List(items) => items.iter().for_each(|item| self.tree(item)),
            Tree::Node(node) => self.node(node),
            Tree::Nothing | Tree::Bool(_) | Tree::Int(_) | Tree::Integer | Tree::Text(_) => {}
        }
    }

    fn node(&mut self, node: &Node) {
        if self.query(node) || self.expression(node) {
            return;
        }
        if is_statement(node.kind) {
            // A statement inside is no part of what is around it.
            let hidden = std::mem::take(&mut self.hidden);
            let defining = self.defining;
            self.utility(node);
            self.defining = defining;
            self.hidden = hidden;
            return;
        }
        if PARTS.binary_search(&node.kind).is_err() {
            self.unknown_statement();
        }
        self.parts(node);
    }

    /// Walks every field of a node.
    fn parts(&mut self, node: &Node) {
        node.fields.iter().for_each(|(_, tree)| self.tree(tree));
    }

    /// Walks the fields of a node but for these, which were dealt with.
    fn other_parts(&mut self, node: &Node, done: &[&str]) {
        let others = node.fields.iter().filter(|(name, _)| !done.contains(name));
        others.for_each(|(_, tree)| self.tree(tree));
    }
}

/// Whether nodes of this kind are statements. Some are not, whatever they are called.
fn is_statement(kind: &str) -> bool {
    kind.ends_with("Stmt") && kind != "ReplicaIdentityStmt"
}

/// Kinds of nodes that are parts of statements and do nothing themselves. Sorted.
const PARTS: &[&str] = &[
    "AArrayExpr",
    "AConst",
    "AIndices",
    "AIndirection",
    "AStar",
    "AccessPriv",
    "Alias",
    "AlterTableCmd",
    "AtAlterConstraint",
    "BitString",
    "BoolExpr",
    "Boolean",
    "BooleanTest",
    "CaseExpr",
    "CaseWhen",
    "CoalesceExpr",
    "CollateClause",
    "ColumnDef",
    "ColumnRef",
    "CommonTableExpr",
    "Constraint",
    "CreateOpClassItem",
    "CteCycleClause",
    "CteSearchClause",
    "CurrentOfExpr",
    "DefElem",
    "Float",
    "FunctionParameter",
    "GroupingFunc",
    "GroupingSet",
    "IndexElem",
    "InferClause",
    "Integer",
    "IntoClause",
    "JoinExpr",
    "JsonAggConstructor",
    "JsonArgument",
    "JsonArrayAgg",
    "JsonArrayConstructor",
    "JsonArrayQueryConstructor",
    "JsonBehavior",
    "JsonFormat",
    "JsonFuncExpr",
    "JsonIsPredicate",
    "JsonKeyValue",
    "JsonObjectAgg",
    "JsonObjectConstructor",
    "JsonOutput",
    "JsonParseExpr",
    "JsonReturning",
    "JsonScalarExpr",
    "JsonSerializeExpr",
    "JsonTable",
    "JsonTableColumn",
    "JsonTablePathSpec",
    "JsonValueExpr",
    "List",
    "LockingClause",
    "MergeSupportFunc",
    "MergeWhenClause",
    "MinMaxExpr",
    "MultiAssignRef",
    "NamedArgExpr",
    "NullTest",
    "ObjectWithArgs",
    "OnConflictClause",
    "ParamRef",
    "PartitionBoundSpec",
    "PartitionCmd",
    "PartitionElem",
    "PartitionRangeDatum",
    "PartitionSpec",
    "PublicationObjSpec",
    "PublicationTable",
    "RangeFunction",
    "RangeSubselect",
    "RangeTableFunc",
    "RangeTableFuncCol",
    "ReplicaIdentityStmt",
    "ResTarget",
    "ReturningClause",
    "ReturningOption",
    "RoleSpec",
    "RowExpr",
    "SetToDefault",
    "SqlValueFunction",
    "StatsElem",
    "String",
    "TableLikeClause",
    "TriggerTransition",
    "VacuumRelation",
    "WindowDef",
    "WithClause",
    "XmlExpr",
    "XmlSerialize",
];

#[cfg(test)]
mod tests {
    use super::PARTS;

    #[test]
    fn the_parts_are_sorted() {
        assert!(PARTS.is_sorted());
    }
}
