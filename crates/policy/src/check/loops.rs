//! `all`, `exists`, `exists_one`, `filter` and `map`.

use cel::common::ast::{ComprehensionExpr, Expr, IdedExpr, LiteralValue, operators};

use super::{Checker, LOOPS_MAX, Part, Sense};
use crate::problem::shown;
use crate::vocabulary::{Type, VARIABLES};

/// What a loop gives, and the parts of it that were written.
enum Loop<'n> {
    All(&'n mut IdedExpr),
    Exists(&'n mut IdedExpr),
    ExistsOne(&'n mut IdedExpr),
    Filter(&'n mut IdedExpr),
    Map { condition: Option<&'n mut IdedExpr>, value: &'n mut IdedExpr },
}

impl Checker<'_> {
    pub(super) fn comprehension(&mut self, node: &mut IdedExpr, sense: Sense) -> Part {
        let Expr::Comprehension(comprehension) = &mut node.expr else { return Part::wrong() };
        let variable = comprehension.iter_var.clone();
        let kind = written(comprehension);
        let list_sense = match kind {
            // More elements: `exists` may become true, `all` false.
            Some(Loop::Exists(_)) => sense,
            Some(Loop::All(_)) => sense.inverse(),
            _ => Sense::Both,
        };
        let list = self.part(&mut comprehension.iter_range, list_sense);
        let (of, most) = match list.of {
            Type::List(of, most) => (of, most),
            Type::Wrong => return Part::wrong(),
            other => {
                let what = format!("{} is looked through, which is no list", other.name());
                return self.fault(what, "a list, such as `cmd.relations`, or `has(...)` for a map");
            }
        };
        let taken = VARIABLES.iter().any(|(name, _)| *name == variable);
        if taken || self.bound.iter().any(|(bound, _)| *bound == variable) {
            let what = format!("the name {} is taken", shown(&variable));
            return self.fault(what, "another name for the element");
        }
        if self.bound.len() >= LOOPS_MAX {
            let what = format!("more than {LOOPS_MAX} lists are looked through inside one another");
            return self.fault(what, "several rules");
        }
        self.bound.push((variable, *of.clone()));
        let part = self.body(written(comprehension), &of, most, sense);
        self.bound.pop();
        let each = part.cost.saturating_add(4);
        Part { cost: list.cost.saturating_add(each.saturating_mul(most)), ..part }
    }

    fn body(&mut self, kind: Option<Loop<'_>>, of: &Type, most: u64, sense: Sense) -> Part {
        match kind {
            None => {
                self.fault("a loop is not one of the known ones", "`all`, `exists`, `exists_one`, `filter` or `map`")
            }
            Some(Loop::All(condition) | Loop::Exists(condition)) => self.condition(condition, sense),
            Some(Loop::ExistsOne(condition)) => self.condition(condition, Sense::Both),
            Some(Loop::Filter(condition)) => {
                let part = self.condition(condition, Sense::Both);
                match part.of {
                    Type::Wrong => part,
                    _ => Part::new(Type::List(Box::new(of.clone()), most), part.cost),
                }
            }
            Some(Loop::Map { condition, value }) => {
                let first = condition.map_or(0, |condition| self.condition(condition, Sense::Both).cost);
                let part = self.part(value, Sense::Both);
                match part.of {
                    Type::Wrong => part,
                    of => Part::new(Type::List(Box::new(of), most), part.cost.saturating_add(first)),
                }
            }
        }
    }

    fn condition(&mut self, condition: &mut IdedExpr, sense: Sense) -> Part {
        let part = self.part(condition, sense);
        match part.of {
            Type::Bool => Part::new(Type::Bool, part.cost),
            Type::Wrong => part,
            other => {
                let what = format!("a loop's condition gives {}, not true or false", other.name());
                self.fault(what, "a condition, such as a comparison")
            }
        }
    }
}

/// What was written before the macro was expanded.
fn written(comprehension: &mut ComprehensionExpr) -> Option<Loop<'_>> {
    if comprehension.iter_var2.is_some() {
        return None;
    }
    let variable = &comprehension.iter_var;
    let appends = matches!(&comprehension.loop_step.expr, Expr::Call(step) if step.func_name == operators::ADD);
    if appends && matches!(comprehension.accu_init.expr, Expr::List(_)) {
        return added(&mut comprehension.loop_step).map(|value| Loop::Map { condition: None, value });
    }
    let Expr::Call(step) = &mut comprehension.loop_step.expr else { return None };
    match (&comprehension.accu_init.expr, step.func_name.as_str(), step.args.as_mut_slice()) {
        (Expr::Literal(LiteralValue::Boolean(_)), operators::LOGICAL_AND, [_, condition]) => Some(Loop::All(condition)),
        (Expr::Literal(LiteralValue::Boolean(_)), operators::LOGICAL_OR, [_, condition]) => {
            Some(Loop::Exists(condition))
        }
        (Expr::Literal(LiteralValue::Int(_)), operators::CONDITIONAL, [condition, _, _]) => {
            Some(Loop::ExistsOne(condition))
        }
        (Expr::List(_), operators::CONDITIONAL, [condition, add, _]) => {
            let value = added(add)?;
            match &value.expr {
                Expr::Ident(name) if name == variable => Some(Loop::Filter(condition)),
                _ => Some(Loop::Map { condition: Some(condition), value }),
            }
        }
        _ => None,
    }
}

/// The `x` of `@result + [x]`.
fn added(node: &mut IdedExpr) -> Option<&mut IdedExpr> {
    let Expr::Call(call) = &mut node.expr else { return None };
    let [_, list] = call.args.as_mut_slice() else { return None };
    match &mut list.expr {
        Expr::List(list) => list.elements.first_mut(),
        _ => None,
    }
}
