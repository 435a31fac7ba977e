//! What conditions say about presence, and conditions that contradict themselves.

use cel::common::ast::{CallExpr, Expr, IdedExpr, operators};

use super::text_of;

/// The path that a part spells: `conn.labels.env`, also as `conn.labels["env"]` and `has(conn.labels.env)`.
pub(super) fn path(node: &IdedExpr) -> Option<String> {
    match &node.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) => Some(format!("{}.{}", path(&select.operand)?, select.field)),
        Expr::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
            [of, key] => Some(format!("{}.{}", path(of)?, text_of(key)?)),
            _ => None,
        },
        _ => None,
    }
}

/// The paths that are there where this part is true.
pub(super) fn when_true(node: &IdedExpr, present: &mut Vec<String>) {
    match &node.expr {
        Expr::Select(select) if select.test => present.extend(path(node)),
        Expr::Call(call) => match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::LOGICAL_AND, args) => args.iter().for_each(|arg| when_true(arg, present)),
            (operators::LOGICAL_NOT, [arg]) => when_false(arg, present),
            (operators::IN, [key, of]) => {
                if let (Some(key), Some(of)) = (text_of(key), path(of)) {
                    present.push(format!("{of}.{key}"));
                }
            }
            _ => {}
        },
        _ => {}
    }
}

/// The paths that are there where this part is false.
pub(super) fn when_false(node: &IdedExpr, present: &mut Vec<String>) {
    if let Expr::Call(call) = &node.expr {
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::LOGICAL_OR, args) => args.iter().for_each(|arg| when_false(arg, present)),
            (operators::LOGICAL_NOT, [arg]) => when_true(arg, present),
            _ => {}
        }
    }
}

/// The parts between `&&`, or between `||`.
pub(super) fn operands<'n>(call: &'n mut CallExpr, operator: &str, found: &mut Vec<&'n mut IdedExpr>) {
    for arg in &mut call.args {
        let same = matches!(&arg.expr, Expr::Call(inner) if inner.func_name == operator);
        if !same {
            found.push(arg);
        } else if let Expr::Call(inner) = &mut arg.expr {
            operands(inner, operator, found);
        }
    }
}

/// Whether parts that must all hold ask one path for two different texts.
pub(super) fn contradict(parts: &[&mut IdedExpr]) -> bool {
    let mut wanted: Vec<(String, Vec<&str>)> = Vec::new();
    for part in parts {
        let Some((path, texts)) = wants(part) else { continue };
        match wanted.iter_mut().find(|(other, _)| *other == path) {
            Some((_, others)) => {
                others.retain(|other| texts.contains(other));
                if others.is_empty() {
                    return true;
                }
            }
            None => wanted.push((path, texts)),
        }
    }
    false
}

/// The texts that a path must be one of for this part to hold.
fn wants(node: &IdedExpr) -> Option<(String, Vec<&str>)> {
    let Expr::Call(call) = &node.expr else { return None };
    let [left, right] = call.args.as_slice() else { return None };
    match call.func_name.as_str() {
        operators::EQUALS => match (text_of(left), text_of(right)) {
            (None, Some(text)) => Some((path(left)?, vec![text])),
            (Some(text), None) => Some((path(right)?, vec![text])),
            _ => None,
        },
        operators::IN => match &right.expr {
            Expr::List(list) => {
                let texts: Option<Vec<&str>> = list.elements.iter().map(text_of).collect();
                Some((path(left)?, texts?))
            }
            _ => None,
        },
        _ => None,
    }
}
