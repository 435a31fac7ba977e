//! Facts of a text that can be read in two ways: all of both.

use model::{Access, Facts, Opaque, Relation};

/// What either reading does, for this reason not the whole.
pub(crate) fn of(one: Facts, other: Facts, reason: Opaque) -> Facts {
    let mut facts = one;
    for operation in other.operations {
        add(&mut facts.operations, operation);
    }
    for effect in other.effects {
        add(&mut facts.effects, effect);
    }
    for function in other.functions {
        add(&mut facts.functions, function);
    }
    for opaque in other.opaque {
        add(&mut facts.opaque, opaque);
    }
    for relation in other.relations {
        merge(&mut facts.relations, relation);
    }
    facts.bounded = facts.bounded && other.bounded;
    facts.fingerprint = None;
    add(&mut facts.opaque, reason);
    facts
}

/// Adds to a sorted list without repetition.
pub(crate) fn add<T: Ord>(list: &mut Vec<T>, item: T) {
    if let Err(place) = list.binary_search(&item) {
        list.insert(place, item);
    }
}

fn merge(relations: &mut Vec<Relation>, relation: Relation) {
    let key = |relation: &Relation| (relation.schema.clone(), relation.name.clone());
    match relations.binary_search_by_key(&key(&relation), key) {
        Err(place) => relations.insert(place, relation),
        Ok(place) => {
            let access: Vec<Access> = relation.access;
            if let Some(known) = relations.get_mut(place) {
                access.into_iter().for_each(|access| add(&mut known.access, access));
            }
        }
    }
}
