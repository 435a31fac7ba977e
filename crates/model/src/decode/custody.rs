//! Reading entries about the record itself.

use std::borrow::Cow;

use crate::cursor::{Cursor, Read};
use crate::custody::*;

impl Cursor<'_> {
    pub(super) fn erase(&mut self) -> Read<Erase> {
        Ok(Erase {
            session: self.at("session", Self::session_value)?,
            connection: self.string("connection")?,
            identity: self.name("identity")?,
            fields: self.optional("fields", |c| c.array(Self::decimal))?,
            cause: self.word("cause", EraseCause::parse_bytes)?,
            reason: self.string("reason")?,
            by: self.actor()?,
        })
    }

    pub(super) fn hold(&mut self) -> Read<Hold> {
        Ok(Hold {
            hold: self.string("hold")?,
            action: self.word("action", HoldAction::parse_bytes)?,
            session: self.optional("session", Self::session_value)?,
            connection: self.optional("connection", |c| c.text().map(Cow::into_owned))?,
            identity: self.optional("identity", Self::name_value)?,
            reason: self.string("reason")?,
            by: self.actor()?,
        })
    }

    pub(super) fn witnesses(&mut self) -> Read<Witnesses> {
        Ok(Witnesses {
            size: self.number("size")?,
            enough: self.optional("enough", Self::decimal)?,
            witnesses: self.at("witnesses", |c| {
                c.array(|c| {
                    c.object(|c| {
                        Ok(WitnessStanding {
                            name: c.string("name")?,
                            state: c.word("state", WitnessState::parse_bytes)?,
                            size: c.optional("size", Self::decimal)?,
                        })
                    })
                })
            })?,
        })
    }

    pub(super) fn export(&mut self) -> Read<Export> {
        Ok(Export {
            by: self.actor()?,
            selection: self.string("selection")?,
            entries: self.number("entries")?,
            disclosed: self.number("disclosed")?,
            sha256: self.digest("sha256")?,
        })
    }
}
