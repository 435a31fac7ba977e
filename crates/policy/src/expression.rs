//! From the text of a condition to its tree, with bounds on both.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cel::Env;
use cel::common::ast::{EntryExpr, Expr, IdedExpr};

use crate::problem::Fault;

/// The longest condition, bytes.
pub(crate) const EXPRESSION_BYTES_MAX: usize = 4096;
/// How deep brackets may nest.
const BRACKETS_MAX: usize = 16;
/// The most words, numbers, texts and signs of a condition.
const TOKENS_MAX: usize = 800;
/// How deep expressions may nest for the parser, which has its own count.
const PARSER_DEPTH_MAX: u16 = 48;
/// How deep the tree may be. Looking through a list takes four levels, a chain of `&&` as many as its logarithm.
const DEPTH_MAX: usize = 40;
/// The most nodes of a tree.
const NODES_MAX: usize = 2_000;

/// Reads a condition. The line in a fault counts from 1 in this text.
pub(crate) fn parse(env: &Env, source: &str) -> Result<IdedExpr, (u32, Fault)> {
    let simpler = "several rules with simpler conditions";
    if source.len() > EXPRESSION_BYTES_MAX {
        let what = format!("`when` has {} bytes, and {EXPRESSION_BYTES_MAX} is the most", source.len());
        return Err((1, Fault::new(what, simpler)));
    }
    if source.trim().is_empty() {
        return Err((1, Fault::new("`when` is empty", "`when: \"true\"` for a rule that always matches")));
    }
    let size = Size::of(source);
    if size.brackets > BRACKETS_MAX {
        let what = format!("`when` has brackets nested deeper than {BRACKETS_MAX}");
        return Err((1, Fault::new(what, simpler)));
    }
    if size.tokens > TOKENS_MAX {
        let what = format!("`when` has more than {TOKENS_MAX} words and signs");
        return Err((1, Fault::new(what, "a label with the names under it, or several rules")));
    }
    let parser = env.parser().max_recursion_depth(PARSER_DEPTH_MAX);
    // The parser is not ours. Should it panic, the condition is wrong, and nobody ends for it.
    let parsed = catch_unwind(AssertUnwindSafe(|| parser.parse(source)));
    let unreadable = || Fault::new("`when` is no CEL expression", "a condition as docs/policy.md describes them");
    let tree = match parsed {
        Ok(Ok(tree)) => tree,
        Ok(Err(errors)) => {
            let Some(first) = errors.errors.first() else { return Err((1, unreadable())) };
            let line = u32::try_from(first.pos.0).unwrap_or(1).max(1);
            let message: String = first.msg.chars().filter(|c| !c.is_control()).take(160).collect();
            let what = format!("`when` is no CEL expression (at character {}): {message}", first.pos.1);
            return Err((line, Fault::new(what, "a condition as docs/policy.md describes them")));
        }
        Err(_) => return Err((1, unreadable())),
    };
    let mut nodes = 0;
    if depth(&tree, &mut nodes, 0) > DEPTH_MAX || nodes > NODES_MAX {
        return Err((1, Fault::new("`when` is nested too deep or has too many parts", simpler)));
    }
    Ok(tree)
}

/// How much there is in a text, before anything recursive looks at it.
struct Size {
    brackets: usize,
    tokens: usize,
}

impl Size {
    fn of(source: &str) -> Self {
        let (mut open, mut brackets, mut tokens) = (0_usize, 0, 0);
        let mut quote = None;
        let mut word = false;
        let mut chars = source.chars();
        while let Some(c) = chars.next() {
            if let Some(end) = quote {
                match c {
                    '\\' => drop(chars.next()),
                    c if c == end => quote = None,
                    _ => {}
                }
                continue;
            }
            let in_word = c.is_alphanumeric() || c == '_';
            if !(c.is_whitespace() || in_word && word) {
                tokens += 1;
            }
            word = in_word;
            match c {
                '"' | '\'' => quote = Some(c),
                '(' | '[' | '{' => {
                    open += 1;
                    brackets = brackets.max(open);
                }
                ')' | ']' | '}' => open = open.saturating_sub(1),
                _ => {}
            }
        }
        Self { brackets, tokens }
    }
}

/// How deep a tree is below a node, and how many nodes it has. It stops where it is too much.
fn depth(node: &IdedExpr, nodes: &mut usize, above: usize) -> usize {
    *nodes += 1;
    if above > DEPTH_MAX || *nodes > NODES_MAX {
        return above;
    }
    let mut deepest = above;
    let mut below = |child: &IdedExpr| deepest = deepest.max(depth(child, nodes, above + 1));
    match &node.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
        Expr::Select(select) => below(&select.operand),
        Expr::Call(call) => {
            call.target.iter().for_each(|target| below(target));
            call.args.iter().for_each(below);
        }
        Expr::List(list) => list.elements.iter().for_each(below),
        Expr::Map(map) => map.entries.iter().for_each(|entry| each(&entry.expr, &mut below)),
        Expr::Struct(fields) => fields.entries.iter().for_each(|entry| each(&entry.expr, &mut below)),
        Expr::Comprehension(comprehension) => {
            below(&comprehension.iter_range);
            below(&comprehension.accu_init);
            below(&comprehension.loop_cond);
            below(&comprehension.loop_step);
            below(&comprehension.result);
        }
    }
    deepest
}

fn each(entry: &EntryExpr, below: &mut impl FnMut(&IdedExpr)) {
    match entry {
        EntryExpr::StructField(field) => below(&field.value),
        EntryExpr::MapEntry(entry) => {
            below(&entry.key);
            below(&entry.value);
        }
    }
}
