//! What in expressions runs code or names a relation: functions, operators, types.

use model::{Access, Opaque};
use pg_query::protobuf::AExprKind;

use super::Walk;
use super::names::is;
use crate::builtins::{self, Call};
use crate::tree::{Node, Tree};

impl Walk {
    /// Walks a node of this kind, and says whether it is one.
    pub(super) fn expression(&mut self, node: &Node) -> bool {
        match node.kind {
            "RangeVar" => self.range(node),
            "FuncCall" => self.call(node),
            "AExpr" => self.operation_of(node),
            "TypeCast" => self.cast(node),
            "TypeName" => {
                if !self.defining {
                    self.type_used(node);
                }
                self.parts(node);
            }
            "AIndirection" => self.indirection(node),
            "SubLink" => {
                let operator = self.field(node, "oper_name");
                self.operator(operator);
                self.unlocked(node);
            }
            "SortBy" => {
                let operator = self.field(node, "use_op");
                self.operator(operator);
                self.unlocked(node);
            }
            "RangeTableSample" => {
                let method = self.field(node, "method");
                self.sampled(method);
                self.other_parts(node, &["method"]);
            }
            "IndexElem" => {
                let class = self.field(node, "opclass").items();
                let parts: Vec<&str> = class.iter().filter_map(Tree::text).collect();
                // Its functions compare the rows.
                if !matches!(parts.as_slice(), [] | [_]) || !parts.iter().all(|name| builtins::operator_class(name)) {
                    self.opaque(Opaque::Function);
                }
                self.parts(node);
            }
            "AlterTableCmd" => self.alter_command(node),
            _ => return false,
        }
        true
    }

    /// A lock does not reach into expressions.
    fn unlocked(&mut self, node: &Node) {
        let locking = std::mem::take(&mut self.locking);
        self.parts(node);
        self.locking = locking;
    }

    fn call(&mut self, call: &Node) {
        let name = self.field(call, "funcname");
        let parts: Vec<&str> = name.items().iter().filter_map(Tree::text).collect();
        let name = self.called(&parts);
        let first = self.field(call, "args").items().first();
        self.named_by_argument(first, name);
        self.unlocked(call);
    }

    /// A field of an expression: `(x).f` is `f(x)` where there is no such field.
    fn indirection(&mut self, node: &Node) {
        let mut argument = Some(self.field(node, "arg"));
        for field in self.field(node, "indirection").items() {
            if let Some(field) = field.text() {
                let name = self.called(&[field]);
                self.named_by_argument(argument, name);
            }
            argument = None;
        }
        self.unlocked(node);
    }

    /// Notes the call of the function that is named so. Returns its name if it may be one of PostgreSQL's own.
    fn called<'t>(&mut self, parts: &[&'t str]) -> &'t str {
        self.functions.insert(dotted(parts));
        let (schema, name) = match parts {
            [name] | ["pg_catalog", name] => (true, *name),
            _ => (false, ""),
        };
        let what = if schema { builtins::function(name) } else { builtins::UNKNOWN };
        match what {
            Call::Pure => {}
            Call::Effects(effects) => effects.iter().for_each(|effect| self.effect(*effect)),
            Call::Opaque(effects, reasons) => {
                effects.iter().for_each(|effect| self.effect(*effect));
                reasons.iter().for_each(|reason| self.opaque(*reason));
            }
        }
        name
    }

    /// Functions whose first argument names a relation.
    fn named_by_argument(&mut self, first: Option<&Tree>, name: &str) {
        let access = match name {
            "nextval" | "setval" => Access::Write,
            "currval" | "table_to_xml" | "table_to_xmlschema" | "table_to_xml_and_xmlschema" => Access::Read,
            _ => return,
        };
        // A cast to regclass or text around it is no disguise.
        let mut argument = first;
        while let Some(cast) = argument.and_then(|argument| argument.as_kind("TypeCast")) {
            argument = cast.field("arg");
        }
        match argument.and_then(Tree::literal) {
            Some(literal) => self.named_by_literal(literal, access),
            // It changes something that is not named here.
            None if access == Access::Write => self.opaque(Opaque::Function),
            None => {}
        }
    }

    fn operation_of(&mut self, node: &Node) {
        let kind = self.field(node, "kind");
        let spelled = [
            AExprKind::AexprBetween,
            AExprKind::AexprNotBetween,
            AExprKind::AexprBetweenSym,
            AExprKind::AexprNotBetweenSym,
        ];
        // Of these, the name is a keyword, and the operators are those of the types.
        if !spelled.into_iter().any(|member| is(kind, member)) {
            let name = self.field(node, "name");
            self.operator(name);
        }
        self.unlocked(node);
    }

    /// An operator is a function by another name.
    fn operator(&mut self, name: &Tree) {
        let parts: Vec<&str> = name.items().iter().filter_map(Tree::text).collect();
        let known = match parts.as_slice() {
            [] => true,
            [name] | ["pg_catalog", name] => builtins::operator(name),
            _ => false,
        };
        if !known {
            self.functions.insert(dotted(&parts));
            self.opaque(Opaque::Function);
        }
    }

    fn cast(&mut self, cast: &Node) {
        if let Tree::Node(to) = self.field(cast, "type_name") {
            self.type_used(to);
            let names = self.field(to, "names").items();
            let literal = self.field(cast, "arg").literal();
            if let (Some("regclass"), Some(literal)) = (names.last().and_then(Tree::text), literal) {
                self.named_by_literal(literal, Access::Read);
            }
            self.parts(to);
        }
        let argument = self.field(cast, "arg");
        self.tree(argument);
    }

    /// A value becomes one of this type: that runs the type's input function, its casts, the checks of a domain.
    fn type_used(&mut self, name: &Node) {
        let names = self.field(name, "names");
        let parts: Vec<&str> = names.items().iter().filter_map(Tree::text).collect();
        let of_column = *self.field(name, "pct_type") == Tree::Bool(true);
        let known = match parts.as_slice() {
            [] => true,
            [name] | ["pg_catalog", name] => builtins::data_type(name),
            _ => false,
        };
        if !known || of_column {
            self.opaque(Opaque::Function);
        }
    }

    /// How a sample is taken is a function.
    fn sampled(&mut self, method: &Tree) {
        let parts: Vec<&str> = method.items().iter().filter_map(Tree::text).collect();
        if !matches!(parts.as_slice(), ["system" | "bernoulli"] | ["pg_catalog", "system" | "bernoulli"]) {
            self.functions.insert(dotted(&parts));
            self.opaque(Opaque::Function);
        }
    }
}

/// A name with its schema, if it has one. The server takes no more parts than three.
pub(super) fn dotted(parts: &[&str]) -> String {
    let last = parts.iter().skip(parts.len().saturating_sub(3));
    let clipped: Vec<String> = last.map(|part| super::names::clipped(part)).collect();
    clipped.join(".")
}
