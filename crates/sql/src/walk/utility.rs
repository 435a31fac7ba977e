//! Statements that are no queries.
//!
//! What is not named here falls through to "not analysed": that is the default for what a later grammar brings.

use model::{Access, Effect, Opaque, Operation};
use pg_query::protobuf::{
    AlterTableType, DiscardMode, DropBehavior, GrantTargetType, ReindexObjectType, TransactionStmtKind, VariableSetKind,
};

use super::Walk;
use super::expression::dotted;
use super::names::{Names, is, names_of};
use crate::builtins;
use crate::tree::{Node, Tree};

impl Walk {
    pub(super) fn utility(&mut self, node: &Node) {
        if self.of_session(node) || self.around_queries(node) || self.of_privileges(node) || self.of_objects(node) {
            return;
        }
        self.operation(in_general(node.kind));
        // It may change what there is, and may run code or reach elsewhere to do so.
        self.effect(Effect::Ddl);
        self.unknown_statement();
        self.defining = true;
        self.parts(node);
    }

    /// Settings, transactions, cursors, names of statements, locks, messages.
    fn of_session(&mut self, node: &Node) -> bool {
        let operation = match node.kind {
            "TransactionStmt" | "ConstraintsSetStmt" => Operation::Transaction,
            "VariableSetStmt" | "DiscardStmt" => Operation::Set,
            "VariableShowStmt" => Operation::Show,
            "DeallocateStmt" => Operation::Deallocate,
            "ClosePortalStmt" => Operation::Close,
            "FetchStmt" => Operation::Fetch,
            "ListenStmt" | "UnlistenStmt" | "NotifyStmt" => Operation::Notify,
            "LockStmt" => Operation::Lock,
            _ => return false,
        };
        self.operation(operation);
        self.effect(if operation == Operation::Show { Effect::Read } else { Effect::Session });
        match node.kind {
            "VariableSetStmt" => self.set(node),
            "DiscardStmt" => self.discard(node),
            "TransactionStmt" => self.transaction(node),
            "FetchStmt" => self.opaque(Opaque::Cursor),
            "LockStmt" => {
                let relations = self.field(node, "relations");
                self.targets(relations, Access::Lock);
            }
            _ => {}
        }
        true
    }

    fn set(&mut self, set: &Node) {
        let name = self.field(set, "name").text().unwrap_or_default();
        let kind = self.field(set, "kind");
        // The mode of this transaction. SET SESSION CHARACTERISTICS is of all that come.
        let mode = is(kind, VariableSetKind::VarSetMulti) && name == "TRANSACTION";
        let all = is(kind, VariableSetKind::VarResetAll);
        if all || !(mode || builtins::harmless_setting(name)) {
            self.opaque(Opaque::Settings);
        }
    }

    /// What was prepared is another transaction's, and not in sight.
    fn transaction(&mut self, transaction: &Node) {
        let kind = self.field(transaction, "kind");
        let prepared = [TransactionStmtKind::TransStmtCommitPrepared, TransactionStmtKind::TransStmtRollbackPrepared];
        if prepared.into_iter().any(|member| is(kind, member)) {
            self.opaque(Opaque::Prepared);
        }
    }

    fn discard(&mut self, discard: &Node) {
        let what = self.field(discard, "target");
        let all = is(what, DiscardMode::DiscardAll);
        if all {
            self.opaque(Opaque::Settings);
        }
        if all || is(what, DiscardMode::DiscardTemp) {
            self.effect(Effect::Ddl);
        }
    }

    /// Statements around others, and those whose other is not in sight.
    fn around_queries(&mut self, node: &Node) -> bool {
        match node.kind {
            "ExplainStmt" => self.explain(node),
            "PrepareStmt" => {
                self.operation(Operation::Prepare);
                self.effect(Effect::Session);
                self.parts(node);
            }
            "ExecuteStmt" => {
                self.operation(Operation::Execute);
                self.opaque(Opaque::Prepared);
                self.parts(node);
            }
            "DeclareCursorStmt" => {
                self.operation(Operation::Declare);
                self.effect(Effect::Session);
                self.parts(node);
            }
            "CopyStmt" => self.copy(node),
            "DoStmt" => {
                self.operation(Operation::Do);
                self.opaque(Opaque::Block);
            }
            "CallStmt" => {
                self.operation(Operation::Call);
                self.opaque(Opaque::Procedure);
                self.parts(node);
            }
            "CreateTableAsStmt" => {
                self.operation(Operation::Create);
                let into = self.field(node, "into");
                if let Tree::Node(into) = into {
                    self.into(into);
                }
                self.other_parts(node, &["into"]);
            }
            "RefreshMatViewStmt" => {
                self.operation(Operation::Alter);
                self.effect(Effect::Ddl);
                let relation = self.field(node, "relation");
                self.target(relation, Access::Define);
                self.target(relation, Access::Write);
            }
            "TruncateStmt" => {
                self.operation(Operation::Truncate);
                self.effect(Effect::Write);
                let relations = self.field(node, "relations");
                self.targets(relations, Access::Write);
                self.cascade(node);
            }
            "VacuumStmt" => self.vacuum(node),
            "CheckPointStmt" => {
                self.operation(Operation::Maintain);
                self.effect(Effect::Write);
            }
            // In the bodies of functions.
            "ReturnStmt" => self.parts(node),
            _ => return false,
        }
        true
    }

    fn explain(&mut self, explain: &Node) {
        self.operation(Operation::Explain);
        self.effect(Effect::Read);
        // The last one counts for the server; here any one that may say so.
        let executes = self.field(explain, "options").items().iter().any(|option| {
            let Some(option) = option.as_kind("DefElem") else { return true };
            let named = option.field("defname").and_then(Tree::text) == Some("analyze");
            named && !option.field("arg").is_some_and(is_false)
        });
        let planning = self.planning;
        self.planning = planning || !executes;
        let query = self.field(explain, "query");
        self.tree(query);
        self.planning = planning;
    }

    fn copy(&mut self, copy: &Node) {
        self.operation(Operation::Copy);
        let from = *self.field(copy, "is_from") == Tree::Bool(true);
        let relation = self.field(copy, "relation");
        self.target(relation, if from { Access::Write } else { Access::Read });
        self.effect(if from { Effect::Write } else { Effect::Read });
        if *self.field(copy, "is_program") == Tree::Bool(true) {
            self.opaque(Opaque::Program);
        } else if self.field(copy, "filename").is_there() {
            self.opaque(Opaque::File);
        }
        self.other_parts(copy, &["relation"]);
    }

    fn vacuum(&mut self, vacuum: &Node) {
        self.operation(Operation::Maintain);
        self.effect(Effect::Write);
        let relations = self.field(vacuum, "rels").items();
        if relations.is_empty() {
            // All of them.
            self.opaque(Opaque::Statement);
        }
        for relation in relations {
            let Some(relation) = relation.as_kind("VacuumRelation") else { continue };
            let relation = self.field(relation, "relation");
            // Analysing reads; VACUUM can analyse.
            self.target(relation, Access::Read);
            self.target(relation, Access::Write);
        }
    }

    /// Who may do what.
    fn of_privileges(&mut self, node: &Node) -> bool {
        let (operation, also) = match node.kind {
            "GrantStmt" | "GrantRoleStmt" => {
                let grants = *self.field(node, "is_grant") == Tree::Bool(true);
                (if grants { Operation::Grant } else { Operation::Revoke }, None)
            }
            "AlterDefaultPrivilegesStmt" | "AlterRoleStmt" | "AlterRoleSetStmt" | "SecLabelStmt" => {
                (Operation::Alter, None)
            }
            "CreateRoleStmt" => (Operation::Create, None),
            "DropRoleStmt" => (Operation::Drop, None),
            "ReassignOwnedStmt" => (Operation::Alter, Some(Effect::Ddl)),
            "DropOwnedStmt" => (Operation::Drop, Some(Effect::Ddl)),
            "CreatePolicyStmt" => (Operation::Create, Some(Effect::Ddl)),
            "AlterPolicyStmt" | "AlterOwnerStmt" => (Operation::Alter, Some(Effect::Ddl)),
            _ => return false,
        };
        self.operation(operation);
        self.effect(Effect::Privilege);
        also.into_iter().for_each(|effect| self.effect(effect));
        self.defining = true;
        match node.kind {
            "GrantStmt" => {
                let objects = self.field(node, "objects");
                self.targets(objects, Access::Define);
                if !is(self.field(node, "targtype"), GrantTargetType::AclTargetObject) {
                    // All in a schema, or what is yet to be made.
                    self.opaque(Opaque::Statement);
                }
                self.other_parts(node, &["objects"]);
            }
            // What they are of is not named.
            "ReassignOwnedStmt" | "DropOwnedStmt" => self.opaque(Opaque::Statement),
            "SecLabelStmt" => self.named_object(node, "objtype"),
            "AlterOwnerStmt" => {
                let relation = self.field(node, "relation");
                self.target(relation, Access::Define);
                self.named_object(node, "object_type");
            }
            "CreatePolicyStmt" | "AlterPolicyStmt" => {
                let table = self.field(node, "table");
                self.target(table, Access::Define);
                self.other_parts(node, &["table"]);
            }
            // The settings that the role's sessions begin with.
            "AlterRoleSetStmt" => self.opaque(Opaque::Settings),
            _ => self.parts(node),
        }
        true
    }

    /// What there is: tables and all else.
    fn of_objects(&mut self, node: &Node) -> bool {
        // What it is, and the field of the relation that it makes, changes or drops.
        let (operation, relation) = match node.kind {
            "CreateStmt" | "IndexStmt" | "RuleStmt" | "CreateTrigStmt" => (Operation::Create, Some("relation")),
            "ViewStmt" => (Operation::Create, Some("view")),
            "CreateSeqStmt" => (Operation::Create, Some("sequence")),
            "CreateSchemaStmt" | "CreateStatsStmt" | "CreateEnumStmt" | "CompositeTypeStmt" | "CreateDomainStmt"
            | "CreateFunctionStmt" => (Operation::Create, None),
            "AlterTableStmt" | "RenameStmt" | "AlterObjectSchemaStmt" => (Operation::Alter, Some("relation")),
            "AlterSeqStmt" => (Operation::Alter, Some("sequence")),
            "ReindexStmt" | "ClusterStmt" => (Operation::Alter, Some("relation")),
            "CommentStmt" | "AlterDomainStmt" | "AlterEnumStmt" | "AlterTypeStmt" | "AlterStatsStmt"
            | "AlterFunctionStmt" => (Operation::Alter, None),
            "DropStmt" => (Operation::Drop, None),
            _ => return false,
        };
        self.operation(operation);
        self.effect(Effect::Ddl);
        self.defining = true;
        if let Some(name) = relation {
            let relation = self.field(node, name);
            self.target(relation, Access::Define);
        }
        self.of_object(node);
        true
    }

    fn of_object(&mut self, node: &Node) {
        match node.kind {
            "CreateStmt" => {
                let parents = self.field(node, "inh_relations");
                self.targets(parents, Access::Define);
                self.other_parts(node, &["relation", "inh_relations"]);
            }
            // The rows are read, and expressions evaluated.
            "IndexStmt" => {
                let relation = self.field(node, "relation");
                self.target(relation, Access::Read);
                let (index, table) = (self.field(node, "idxname"), relation.as_kind("RangeVar"));
                if let (Some(index), Some(table)) = (index.text().filter(|name| !name.is_empty()), table) {
                    let schema = self.field(table, "schemaname");
                    self.note(schema.text(), index, Access::Define);
                }
                self.other_parts(node, &["relation"]);
            }
            "ViewStmt" => self.other_parts(node, &["view"]),
            "CreateTrigStmt" => {
                let function = self.field(node, "funcname");
                let parts: Vec<&str> = function.items().iter().filter_map(Tree::text).collect();
                self.functions.insert(dotted(&parts));
                // From now on changes of the table run it.
                self.opaque(Opaque::Function);
                self.other_parts(node, &["relation"]);
            }
            "CreateStatsStmt" => {
                let relations = self.field(node, "relations");
                self.targets(relations, Access::Define);
                self.other_parts(node, &["relations"]);
            }
            "CreateFunctionStmt" => {
                // A body that is SQL is walked; one that is text is not, and neither is what it is called later as.
                if !self.field(node, "sql_body").is_there() {
                    self.opaque(Opaque::Statement);
                }
                self.parts(node);
            }
            "AlterFunctionStmt" => {
                self.effect(Effect::Privilege);
                self.parts(node);
            }
            "RenameStmt" => self.rename(node),
            "AlterObjectSchemaStmt" => self.move_object(node),
            "ReindexStmt" => {
                let kind = self.field(node, "kind");
                let whole = [
                    ReindexObjectType::ReindexObjectSchema,
                    ReindexObjectType::ReindexObjectSystem,
                    ReindexObjectType::ReindexObjectDatabase,
                ];
                if whole.into_iter().any(|member| is(kind, member)) {
                    self.opaque(Opaque::Statement);
                }
            }
            "ClusterStmt" => {
                if !self.field(node, "relation").is_there() {
                    self.opaque(Opaque::Statement);
                }
            }
            "CommentStmt" => self.named_object(node, "objtype"),
            "DropStmt" => self.drop(node),
            _ => self.other_parts(node, &["relation", "sequence"]),
        }
    }

    fn rename(&mut self, node: &Node) {
        let kind = self.field(node, "rename_type");
        let relation = self.field(node, "relation");
        // Under its new name it is found from now on.
        if let (Names::Relation, Some(range)) = (names_of(kind), relation.as_kind("RangeVar")) {
            let (schema, name) = (self.field(range, "schemaname"), self.field(node, "newname"));
            if let Some(name) = name.text() {
                self.note(schema.text(), name, Access::Define);
            }
        }
        self.named_object(node, "rename_type");
    }

    fn move_object(&mut self, node: &Node) {
        let kind = self.field(node, "object_type");
        let relation = self.field(node, "relation");
        if let (Names::Relation, Some(range)) = (names_of(kind), relation.as_kind("RangeVar")) {
            let (schema, name) = (self.field(node, "newschema"), self.field(range, "relname"));
            if let Some(name) = name.text() {
                self.note(schema.text(), name, Access::Define);
            }
        }
        self.named_object(node, "object_type");
    }

    /// The object that a statement is about, where it names it by a list.
    fn named_object(&mut self, node: &Node, kind: &str) {
        let names = names_of(self.field(node, kind));
        let object = self.field(node, "object");
        self.object(object, names, Access::Define);
    }

    fn drop(&mut self, drop: &Node) {
        let kind = self.field(drop, "remove_type");
        let names = names_of(kind);
        for object in self.field(drop, "objects").items() {
            self.object(object, names, Access::Define);
        }
        if is(kind, pg_query::protobuf::ObjectType::ObjectPolicy) {
            self.effect(Effect::Privilege);
        }
        self.cascade(drop);
    }

    /// CASCADE reaches what is not named.
    fn cascade(&mut self, node: &Node) {
        if is(self.field(node, "behavior"), DropBehavior::DropCascade) {
            self.opaque(Opaque::Statement);
        }
    }

    /// One of the changes of an `ALTER TABLE`.
    pub(super) fn alter_command(&mut self, command: &Node) {
        let kind = self.field(command, "subtype");
        let privileges = [
            AlterTableType::AtChangeOwner,
            AlterTableType::AtEnableRowSecurity,
            AlterTableType::AtDisableRowSecurity,
            AlterTableType::AtForceRowSecurity,
            AlterTableType::AtNoForceRowSecurity,
        ];
        if privileges.into_iter().any(|member| is(kind, member)) {
            self.effect(Effect::Privilege);
        }
        self.cascade(command);
        let definition = self.field(command, "def");
        // The other table of an inheritance.
        self.target(definition, Access::Define);
        match definition.as_kind("PartitionCmd") {
            Some(partition) => {
                let other = self.field(partition, "name");
                self.target(other, Access::Define);
                self.other_parts(partition, &["name"]);
            }
            None if definition.as_kind("RangeVar").is_some() => {}
            None => {
                // Rows that are there become values of its type now.
                self.defining = false;
                self.tree(definition);
                self.defining = true;
            }
        }
        self.other_parts(command, &["def"]);
    }
}

/// Whether an option's value is false for sure, as the server reads it.
fn is_false(value: &Tree) -> bool {
    let Some(node) = value.node() else { return false };
    match node.kind {
        "Integer" => node.field("ival") == Some(&Tree::Int(0)),
        "Boolean" => node.field("boolval") == Some(&Tree::Bool(false)),
        "String" => value.text().is_some_and(|text| ["false", "off"].iter().any(|no| text.eq_ignore_ascii_case(no))),
        _ => false,
    }
}

/// The operation of a statement that is not analysed, by what it is called.
fn in_general(kind: &str) -> Operation {
    if kind.starts_with("Create") || matches!(kind, "DefineStmt" | "ImportForeignSchemaStmt") {
        Operation::Create
    } else if kind.starts_with("Alter") {
        Operation::Alter
    } else if kind.starts_with("Drop") {
        Operation::Drop
    } else {
        Operation::Other
    }
}
