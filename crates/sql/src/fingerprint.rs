//! A digest that groups statements which differ in their constants only.
//!
//! For grouping, not for anything that must hold: statements that do different things can have the same one.

use model::Digest;
use sha2::{Digest as _, Sha256};

use crate::tree::{Constants, Node, Tree};

/// The fingerprint of what was parsed.
pub(crate) fn of(parsed: &Tree) -> Digest {
    let mut form = Vec::with_capacity(1024);
    write(parsed, Constants::Alike, &mut form);
    Digest(Sha256::digest(&form).into())
}

fn write(tree: &Tree, constants: Constants, form: &mut Vec<u8>) {
    match tree {
        // Absent and empty are not told apart: that keeps the form small.
        Tree::Nothing => {}
        Tree::Bool(value) => form.push(if *value { b'+' } else { b'-' }),
        Tree::Integer => form.push(b'?'),
        Tree::Int(value) => form.extend_from_slice(&value.to_le_bytes()),
        Tree::Text(text) => {
            form.extend_from_slice(text.as_bytes());
            form.push(0);
        }
        Tree::List(items) => list(items, constants, form),
        Tree::Node(node) => match (node.kind, constants) {
            ("AConst" | "ParamRef", Constants::Alike) => form.push(b'?'),
            _ => fields(node, constants.within(node.kind), form),
        },
    }
}

/// Equal neighbours count once: lists of constants group whatever their length.
fn list(items: &[Tree], constants: Constants, form: &mut Vec<u8>) {
    form.push(b'[');
    let mut before = form.len()..form.len();
    for item in items {
        let start = form.len();
        write(item, constants, form);
        if form.get(start..) == form.get(before.clone()) && !before.is_empty() {
            form.truncate(start);
        } else {
            before = start..form.len();
        }
    }
    form.push(b']');
}

fn fields(node: &Node, constants: Constants, form: &mut Vec<u8>) {
    form.push(b'(');
    form.extend_from_slice(node.kind.as_bytes());
    for (name, tree) in &node.fields {
        let there = match tree {
            Tree::Bool(value) => *value,
            Tree::Int(value) => *value != 0,
            other => other.is_there(),
        };
        if there {
            form.push(b':');
            form.extend_from_slice(name.as_bytes());
            form.push(b'=');
            write(tree, constants, form);
        }
    }
    form.push(b')');
}
