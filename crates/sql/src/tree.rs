//! A statement's parse tree as a plain tree: nodes with a kind and named fields.
//!
//! The parser's own types are 270 structs. A walk over those would have to name every field that can hold a relation, and
//! forget one. This form has every field of every node, so a walk reaches what it was not told of. It is made through
//! `serde`, which the parser's types offer.
//!
//! Two things of the parser's are not in it, so that nothing that is found out from a tree can depend on them: where in the
//! text something stands, and which integer a constant is ([`Tree::Integer`]).
//!
//! Not for printing statements or changing them: it cannot be turned back.

use std::fmt::Display;

use serde::Serialize;
use serde::ser::{self, Impossible};

/// A value in the tree.
#[derive(Debug, PartialEq)]
pub(crate) enum Tree {
    /// An optional value that is not there.
    Nothing,
    Bool(bool),
    Int(i64),
    /// The value of a constant in an expression that is an integer. Which one is not in the tree, unless it is what a `SET`
    /// sets.
    Integer,
    Text(String),
    List(Vec<Tree>),
    Node(Node),
}

/// A node: what kind it is, and all its fields.
#[derive(Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) kind: &'static str,
    pub(crate) fields: Vec<(&'static str, Tree)>,
}

impl Node {
    /// The field of this name. `None` only if such nodes have no such field.
    pub(crate) fn field(&self, name: &str) -> Option<&Tree> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, tree)| tree)
    }
}

impl Tree {
    pub(crate) fn node(&self) -> Option<&Node> {
        match self {
            Tree::Node(node) => Some(node),
            _ => None,
        }
    }

    /// The node, if it is of this kind.
    pub(crate) fn as_kind(&self, kind: &str) -> Option<&Node> {
        self.node().filter(|node| node.kind == kind)
    }

    /// The items of a list; of a node `List` too. Empty for all else.
    pub(crate) fn items(&self) -> &[Tree] {
        match self {
            Tree::List(items) => items,
            Tree::Node(node) if node.kind == "List" => node.field("items").map_or(&[], Tree::items),
            _ => &[],
        }
    }

    /// A text, or what a node `String` holds.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Tree::Text(text) => Some(text),
            Tree::Node(node) if node.kind == "String" => node.field("sval").and_then(Tree::text),
            _ => None,
        }
    }

    pub(crate) fn is_there(&self) -> bool {
        match self {
            Tree::Nothing => false,
            Tree::Text(text) => !text.is_empty(),
            Tree::List(items) => !items.is_empty(),
            _ => true,
        }
    }

    /// A literal text: `'...'`.
    pub(crate) fn literal(&self) -> Option<&str> {
        self.as_kind("AConst")?.field("val")?.text()
    }

    /// Whether a node of this kind is in here, at whatever depth.
    pub(crate) fn contains(&self, kind: &str) -> bool {
        match self {
            Tree::List(items) => items.iter().any(|item| item.contains(kind)),
            Tree::Node(node) => node.kind == kind || node.fields.iter().any(|(_, tree)| tree.contains(kind)),
            _ => false,
        }
    }
}

/// Makes the tree of a parser's value.
pub(crate) fn of(value: &impl Serialize) -> Result<Tree, Unexpected> {
    value.serialize(Planter { constants: Constants::Alike, within: Within::Other })
}

/// The parser's types have something that the tree has no place for.
#[derive(Debug, thiserror::Error)]
#[error("the parser's tree has something unexpected: {0}")]
pub(crate) struct Unexpected(String);

impl ser::Error for Unexpected {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// Whether constants are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Constants {
    Alike,
    /// In a `SET`: what is set is what the statement is.
    Apart,
}

impl Constants {
    /// The same within a node of this kind.
    pub(crate) fn within(self, kind: &str) -> Self {
        if kind == "VariableSetStmt" { Self::Apart } else { self }
    }
}

#[derive(Clone, Copy)]
struct Planter {
    constants: Constants,
    within: Within,
}

/// What an integer is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    /// The value of a constant in an expression.
    Constant,
    /// Anything else.
    Other,
}

impl Planter {
    fn hides_integers(self) -> bool {
        self.within == Within::Constant && self.constants == Constants::Alike
    }
}

/// Integers of all widths.
macro_rules! integers {
    ($($method:ident: $type:ty,)+) => {
        $(fn $method(self, value: $type) -> Result<Tree, Unexpected> { Ok(Tree::Int(i64::from(value))) })+
    };
}

/// What the parser's types do not have.
macro_rules! never {
    ($($method:ident($($argument:ty),*) -> $result:ty;)+) => {
        $(fn $method(self, $(_: $argument),*) -> Result<$result, Unexpected> {
            Err(Unexpected(stringify!($method).to_owned()))
        })+
    };
}

impl ser::Serializer for Planter {
    type Ok = Tree;
    type Error = Unexpected;
    type SerializeSeq = Items;
    type SerializeTuple = Impossible<Tree, Unexpected>;
    type SerializeTupleStruct = Impossible<Tree, Unexpected>;
    type SerializeTupleVariant = Impossible<Tree, Unexpected>;
    type SerializeMap = Impossible<Tree, Unexpected>;
    type SerializeStruct = Fields;
    type SerializeStructVariant = Impossible<Tree, Unexpected>;

    integers! {
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32,
    }

    never! {
        serialize_f32(f32) -> Tree;
        serialize_f64(f64) -> Tree;
        serialize_char(char) -> Tree;
        serialize_bytes(&[u8]) -> Tree;
        serialize_unit() -> Tree;
        serialize_unit_struct(&'static str) -> Tree;
        serialize_unit_variant(&'static str, u32, &'static str) -> Tree;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant;
    }

    fn serialize_bool(self, value: bool) -> Result<Tree, Unexpected> {
        Ok(Tree::Bool(value))
    }

    fn serialize_u64(self, value: u64) -> Result<Tree, Unexpected> {
        i64::try_from(value).map(Tree::Int).map_err(|error| Unexpected(error.to_string()))
    }

    fn serialize_str(self, value: &str) -> Result<Tree, Unexpected> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn serialize_none(self) -> Result<Tree, Unexpected> {
        Ok(Tree::Nothing)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Tree, Unexpected> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Tree, Unexpected> {
        value.serialize(self)
    }

    // The wrapper says which kind it holds; so does what it holds.
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<Tree, Unexpected> {
        value.serialize(self)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Items, Unexpected> {
        Ok(Items { items: Vec::with_capacity(length.unwrap_or(0)), planter: self })
    }

    fn serialize_struct(self, kind: &'static str, length: usize) -> Result<Fields, Unexpected> {
        let planter = Planter { constants: self.constants.within(kind), ..self };
        Ok(Fields { node: Node { kind, fields: Vec::with_capacity(length) }, planter })
    }
}

struct Items {
    items: Vec<Tree>,
    planter: Planter,
}

impl ser::SerializeSeq for Items {
    type Ok = Tree;
    type Error = Unexpected;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unexpected> {
        self.items.push(value.serialize(self.planter)?);
        Ok(())
    }

    fn end(self) -> Result<Tree, Unexpected> {
        Ok(Tree::List(self.items))
    }
}

struct Fields {
    node: Node,
    planter: Planter,
}

impl ser::SerializeStruct for Fields {
    type Ok = Tree;
    type Error = Unexpected;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Unexpected> {
        let tree = match (self.node.kind, name) {
            _ if is_place(name) => return Ok(()),
            ("Integer", "ival") if self.planter.hides_integers() => Tree::Integer,
            ("AConst", "val") => value.serialize(Planter { within: Within::Constant, ..self.planter })?,
            _ => value.serialize(self.planter)?,
        };
        self.node.fields.push((name, tree));
        Ok(())
    }

    fn end(mut self) -> Result<Tree, Unexpected> {
        // The wrapper around every node that can be one of several.
        if self.node.kind == "Node"
            && let Some((_, inner)) = self.node.fields.pop()
        {
            return Ok(inner);
        }
        Ok(Tree::Node(self.node))
    }
}

/// Whether a field of this name says where in the text something stands.
fn is_place(name: &str) -> bool {
    name.ends_with("location") || matches!(name, "stmt_len" | "rexpr_list_start" | "rexpr_list_end")
}
