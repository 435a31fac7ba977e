//! What a decision is made from.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cel::common::types::{CelInt, CelList, CelMap, CelMapKey, CelString};
use cel::common::value::Val;
use model::{Evidence, Facts, Identity, IdentityName, Transaction};

use crate::value::Shared;

/// The most groups of an identity that conditions see. An identity has no more (crate `identity`).
pub(crate) const GROUPS_MAX: usize = 64;
/// The days of the week, as `time.weekday` has them, from the one of 1970-01-05.
pub(crate) const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Who sends a command. Made once per session.
#[derive(Clone, Debug)]
pub struct Subject {
    pub(crate) value: Shared<'static>,
}

/// What there is to say of a [`Subject`].
#[derive(Clone, Copy, Debug)]
pub struct SubjectParts<'a> {
    /// Its name; the kind is in it.
    pub name: &'a IdentityName,
    /// The groups it is proven to be in. Those after the 64th are not seen.
    pub groups: &'a [String],
    /// Whom it acts for.
    pub on_behalf_of: Option<&'a IdentityName>,
    /// Which run of it this is.
    pub run: Option<&'a str>,
    /// The claims of its token.
    pub claims: &'a BTreeMap<String, String>,
}

impl Subject {
    /// Who sends the commands of a session of this identity. Its claims are those of its token that the record keeps.
    #[must_use]
    pub fn of(identity: &Identity) -> Self {
        let claims = match &identity.proof.evidence {
            Some(Evidence::Token(token)) => token.claims.iter().cloned().collect(),
            Some(Evidence::Certificate(_)) | None => BTreeMap::new(),
        };
        Self::new(SubjectParts {
            name: &identity.name,
            groups: &identity.groups,
            on_behalf_of: identity.on_behalf_of.as_ref().map(|principal| &principal.name),
            run: identity.run.as_ref().map(|run| run.id.as_str()),
            claims: &claims,
        })
    }

    /// Who sends the commands of a session.
    #[must_use]
    pub fn new(parts: SubjectParts<'_>) -> Self {
        let mut fields = Fields::default();
        fields.text("kind", parts.name.kind().as_str());
        fields.text("name", parts.name.as_str());
        fields.texts("groups", parts.groups.iter().take(GROUPS_MAX).map(String::as_str));
        if let Some(name) = parts.on_behalf_of {
            fields.text("on_behalf_of", name.as_str());
        }
        if let Some(run) = parts.run {
            fields.text("run", run);
        }
        fields.map("claims", parts.claims);
        Self { value: fields.owned() }
    }
}

/// What a command is sent to. Made once per session.
#[derive(Clone, Debug)]
pub struct Target {
    pub(crate) value: Shared<'static>,
}

/// What there is to say of a [`Target`].
#[derive(Clone, Copy, Debug)]
pub struct TargetParts<'a> {
    /// The connection's name.
    pub name: &'a str,
    /// Its kind, such as `postgres`.
    pub kind: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// The database that the session uses.
    pub database: &'a str,
    /// The user that the gateway signs in as.
    pub role: &'a str,
}

impl Target {
    /// What the commands of a session are sent to.
    #[must_use]
    pub fn new(parts: TargetParts<'_>) -> Self {
        let mut fields = Fields::default();
        fields.text("name", parts.name);
        fields.text("kind", parts.kind);
        fields.text("database", parts.database);
        fields.text("role", parts.role);
        fields.map("labels", parts.labels);
        Self { value: fields.owned() }
    }
}

/// When a command is sent, in the policy's time zone. [`crate::PolicySet::moment`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Seconds since 1970 in UTC.
    pub unix: i64,
    /// The hour, 0 to 23.
    pub hour: u8,
    /// The day of the week: `mon` to `sun`.
    pub weekday: &'static str,
}

impl Moment {
    /// The moment where clocks are so many seconds ahead of UTC.
    pub(crate) fn at(unix: i64, ahead: i64) -> Self {
        let local = unix.saturating_add(ahead);
        let hour = local.div_euclid(3600).rem_euclid(24);
        // 1970-01-01 was a Thursday.
        let day = local.div_euclid(86_400).saturating_add(3).rem_euclid(7);
        let weekday = usize::try_from(day).ok().and_then(|day| WEEKDAYS.get(day)).copied().unwrap_or("mon");
        Self { unix, hour: u8::try_from(hour).unwrap_or(0), weekday }
    }
}

/// Where a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionState {
    /// How long it has been open, seconds.
    pub age: u64,
    /// How many commands it has sent before this one.
    pub count: u64,
    /// The state of its transaction.
    pub transaction: Transaction,
}

/// All that a decision is made from.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Who sends the command.
    pub who: &'a Subject,
    /// To what.
    pub target: &'a Target,
    /// What the command does, as far as its text tells.
    pub facts: &'a Facts,
    /// Its text, if it is UTF-8 and at hand. A rule that asks for one that is not there fails, and the command is denied.
    pub text: Option<&'a str>,
    /// When.
    pub moment: Moment,
    /// Where the session is.
    pub session: SessionState,
}

/// The fields of a value that is being made.
#[derive(Default)]
pub(crate) struct Fields<'v>(HashMap<CelMapKey<'v>, Box<dyn Val + 'v>>);

impl<'v> Fields<'v> {
    pub(crate) fn with_capacity(fields: usize) -> Self {
        Self(HashMap::with_capacity(fields))
    }

    pub(crate) fn value(&mut self, name: &'static str, value: Box<dyn Val + 'v>) {
        self.0.insert(CelMapKey::from(name), value);
    }

    pub(crate) fn number(&mut self, name: &'static str, number: u64) {
        self.value(name, Box::new(CelInt::from(i64::try_from(number).unwrap_or(i64::MAX))));
    }

    pub(crate) fn borrowed(&mut self, name: &'static str, text: &'v str) {
        self.value(name, Box::new(CelString::from(text)));
    }

    pub(crate) fn words(&mut self, name: &'static str, words: impl Iterator<Item = &'v str>) {
        let words: Vec<Box<dyn Val + 'v>> =
            words.map(|word| Box::new(CelString::from(word)) as Box<dyn Val + 'v>).collect();
        self.value(name, Box::new(CelList::from(words)));
    }

    pub(crate) fn done(self) -> Shared<'v> {
        Shared(Arc::new(CelMap::from(self.0)))
    }
}

impl Fields<'static> {
    fn text(&mut self, name: &'static str, text: &str) {
        self.value(name, Box::new(CelString::from(text.to_owned())));
    }

    fn texts<'a>(&mut self, name: &'static str, texts: impl Iterator<Item = &'a str>) {
        let texts: Vec<Box<dyn Val>> =
            texts.map(|text| Box::new(CelString::from(text.to_owned())) as Box<dyn Val>).collect();
        self.value(name, Box::new(CelList::from(texts)));
    }

    fn map(&mut self, name: &'static str, map: &BTreeMap<String, String>) {
        let entry = |(key, value): (&String, &String)| {
            (CelMapKey::from(key.clone()), Box::new(CelString::from(value.clone())) as Box<dyn Val>)
        };
        self.value(name, Box::new(CelMap::from(map.iter().map(entry).collect::<HashMap<_, _>>())));
    }

    fn owned(self) -> Shared<'static> {
        self.done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_in_the_zone_of_the_policy() {
        // 2026-11-23T23:30:00Z, a Monday.
        let unix = 1_795_476_600;
        assert_eq!(Moment::at(unix, 0), Moment { unix, hour: 23, weekday: "mon" });
        assert_eq!(Moment::at(unix, 3600), Moment { unix, hour: 0, weekday: "tue" });
        assert_eq!(Moment::at(unix, -86_400), Moment { unix, hour: 23, weekday: "sun" });
        assert_eq!(Moment::at(0, 0).weekday, "thu");
        assert_eq!(Moment::at(-1, 0), Moment { unix: -1, hour: 23, weekday: "wed" });
        let _ = Moment::at(i64::MAX, 50_000);
        let _ = Moment::at(i64::MIN, -50_000);
    }
}
