//! Statements that read and change rows, and what hides names in them.

use model::{Access, Effect, Operation};
use pg_query::protobuf::{CmdType, MergeMatchKind, OnConflictAction};

use super::Walk;
use super::names::is;
use crate::tree::{Node, Tree};

impl Walk {
    /// Walks a statement of this kind, and says whether it is one.
    pub(super) fn query(&mut self, node: &Node) -> bool {
        match node.kind {
            "SelectStmt" => self.with(node, Self::select),
            "InsertStmt" => self.with(node, Self::insert),
            "UpdateStmt" => self.with(node, Self::update),
            "DeleteStmt" => self.with(node, Self::delete),
            "MergeStmt" => self.with(node, Self::merge),
            _ => return false,
        }
        true
    }

    /// Walks the statement's `WITH`, then the statement, from which the names of the `WITH` hide relations.
    fn with(&mut self, node: &Node, statement: fn(&mut Self, &Node)) {
        let outer = self.hidden.len();
        // What a lock of the statement around reaches ends at a statement in a WITH.
        if let Tree::Node(with) = self.field(node, "with_clause") {
            // The first operation is that of the statement, not of what it begins with.
            self.first.get_or_insert(operation_of(node.kind));
            let recursive = *self.field(with, "recursive") == Tree::Bool(true);
            let ctes = self.field(with, "ctes").items();
            let locking = std::mem::take(&mut self.locking);
            if recursive {
                ctes.iter().for_each(|cte| self.hide(cte));
            }
            for cte in ctes {
                self.tree(cte);
                if !recursive {
                    self.hide(cte);
                }
            }
            self.locking = locking;
        }
        statement(self, node);
        self.hidden.truncate(outer);
    }

    fn hide(&mut self, cte: &Tree) {
        let name = cte.as_kind("CommonTableExpr").map(|cte| self.field(cte, "ctename"));
        self.hidden.extend(name.and_then(Tree::text).map(str::to_owned));
    }

    fn select(&mut self, select: &Node) {
        self.operation(Operation::Select);
        self.effect(Effect::Read);
        if let Tree::Node(into) = self.field(select, "into_clause") {
            self.operation(Operation::Create);
            self.into(into);
        }
        let around = self.locking;
        if self.field(select, "locking_clause").is_there() {
            // Over-reported: with OF, only some are locked.
            self.locking = true;
            self.effect(Effect::Session);
        }
        let from = self.field(select, "from_clause");
        self.tree(from);
        self.locking = around;
        // In a set operation both sides are in what is locked; elsewhere nothing but FROM is.
        let (left, right) = (self.field(select, "larg"), self.field(select, "rarg"));
        self.tree(left);
        self.tree(right);
        self.locking = false;
        // What is locked is named by its alias.
        self.other_parts(select, &["into_clause", "with_clause", "from_clause", "larg", "rarg", "locking_clause"]);
        self.locking = around;
    }

    /// The table that a query makes.
    pub(super) fn into(&mut self, into: &Node) {
        self.effect(Effect::Ddl);
        let relation = self.field(into, "rel");
        self.target(relation, Access::Define);
        self.target(relation, Access::Write);
        self.other_parts(into, &["rel"]);
    }

    fn insert(&mut self, insert: &Node) {
        self.operation(Operation::Insert);
        let target = self.field(insert, "relation");
        self.target(target, Access::Write);
        let source = self.field(insert, "select_stmt");
        match source.as_kind("SelectStmt") {
            // Rows that are written out are no query.
            Some(values) if values.field("values_lists").is_some_and(Tree::is_there) => {
                self.with(values, |walk, values| {
                    walk.other_parts(values, &["with_clause"]);
                })
            }
            _ => self.tree(source),
        }
        if let Tree::Node(conflict) = self.field(insert, "on_conflict_clause")
            && is(self.field(conflict, "action"), OnConflictAction::OnconflictUpdate)
        {
            self.operation(Operation::Update);
            // The rows that are there are compared, and can come back.
            self.target(target, Access::Read);
        }
        self.returning(insert, target);
        self.other_parts(insert, &["relation", "select_stmt", "with_clause"]);
    }

    fn update(&mut self, update: &Node) {
        self.operation(Operation::Update);
        self.change(update);
    }

    fn delete(&mut self, delete: &Node) {
        self.operation(Operation::Delete);
        self.change(delete);
    }

    fn change(&mut self, node: &Node) {
        let target = self.field(node, "relation");
        self.target(target, Access::Write);
        self.bound(node, "where_clause");
        let values = node.field("target_list").is_some_and(|targets| targets.contains("ColumnRef"));
        if values || self.field(node, "where_clause").contains("ColumnRef") {
            self.target(target, Access::Read);
        }
        self.returning(node, target);
        self.other_parts(node, &["relation", "with_clause"]);
    }

    fn merge(&mut self, merge: &Node) {
        self.operation(Operation::Merge);
        let target = self.field(merge, "relation");
        self.target(target, Access::Write);
        self.target(target, Access::Read);
        let joined = self.field(merge, "join_condition").contains("ColumnRef");
        for clause in self.field(merge, "merge_when_clauses").items() {
            let Some(clause) = clause.as_kind("MergeWhenClause") else { continue };
            let command = self.field(clause, "command_type");
            let changes = if is(command, CmdType::CmdInsert) {
                self.operation(Operation::Insert);
                false
            } else if is(command, CmdType::CmdUpdate) {
                self.operation(Operation::Update);
                true
            } else if is(command, CmdType::CmdDelete) {
                self.operation(Operation::Delete);
                true
            } else {
                false
            };
            // What is not matched is not bound by what matches.
            let unmatched = is(self.field(clause, "match_kind"), MergeMatchKind::MergeWhenNotMatchedBySource);
            if changes && (unmatched || !joined) {
                self.bound(clause, "condition");
            }
        }
        self.returning(merge, target);
        self.other_parts(merge, &["relation", "with_clause"]);
    }

    /// Notes whether a condition names a column.
    fn bound(&mut self, node: &Node, condition: &str) {
        let condition = self.field(node, condition);
        if !condition.contains("ColumnRef") && !condition.contains("CurrentOfExpr") {
            self.unbounded = true;
        }
    }

    fn returning(&mut self, node: &Node, target: &Tree) {
        if self.field(node, "returning_clause").is_there() {
            self.target(target, Access::Read);
        }
    }
}

fn operation_of(kind: &str) -> Operation {
    match kind {
        "InsertStmt" => Operation::Insert,
        "UpdateStmt" => Operation::Update,
        "DeleteStmt" => Operation::Delete,
        "MergeStmt" => Operation::Merge,
        _ => Operation::Select,
    }
}
