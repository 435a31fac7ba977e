//! How entries were read at first: through a JSON tree, and written again to see whether the bytes were their own. Slow
//! and plain; what reads them now accepts exactly the same bytes.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::*;
use serde_json::{Map, Value};

/// Reads an entry.
pub(crate) fn decode(leaf: &[u8]) -> Result<Entry, DecodeError> {
    if leaf.len() > LEAF_BYTES_MAX {
        return Err(DecodeError::TooLong(leaf.len()));
    }
    let Ok(Value::Object(map)) = serde_json::from_slice(leaf) else {
        return Err(DecodeError::NotJson);
    };
    let version = map.get("v").and_then(Value::as_u64).ok_or(DecodeError::NotCanonical)?;
    if version != 1 {
        return Err(DecodeError::Version(version));
    }
    let kind = map.get("k").and_then(Value::as_str).unwrap_or_default();
    let kind = Kind::parse(kind).ok_or_else(|| DecodeError::Kind(kind.chars().take(64).collect()))?;
    let entry =
        Object { map: &map }.entry(kind).map_err(|Bad(key)| DecodeError::Malformed { kind: kind.as_str(), key })?;
    // Unknown keys, repeated keys, other orders, other escapes and spaces all end here.
    let mut again = Vec::with_capacity(leaf.len());
    entry.encode(&mut again);
    if again == leaf { Ok(entry) } else { Err(DecodeError::NotCanonical) }
}

struct Bad(&'static str);

type Read<T> = Result<T, Bad>;

struct Object<'a> {
    map: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    fn entry(&self, kind: Kind) -> Read<Entry> {
        let time = Time { wall_us: self.wall("t")?, boot_us: self.number("b")? };
        let body = match kind {
            Kind::Genesis => Body::Genesis(Genesis {
                origin: self.string("origin")?,
                vkey: self.string("vkey")?,
                program: self.string("program")?,
                previous: self.optional("previous", |o, k| o.object(k)?.previous())?,
            }),
            Kind::Start => Body::Start(Start {
                boot_id: self.string("boot_id")?,
                program: self.string("program")?,
                configuration: self.digest("configuration")?,
                clock: self.word("clock", ClockState::parse)?,
            }),
            Kind::Stop => Body::Stop(Stop {
                reason: self.word("reason", StopReason::parse)?,
                next: self.optional("next", |o, k| o.string(k))?,
            }),
            Kind::Recovery => Body::Recovery(Recovery {
                entries: self.number("entries")?,
                loss: self.word("loss", Loss::parse)?,
                torn_bytes: self.number("torn_bytes")?,
                commands_unknown: self.number("commands_unknown")?,
                sessions_lost: self.number("sessions_lost")?,
            }),
            Kind::Heartbeat => Body::Heartbeat(Heartbeat {
                clock: self.word("clock", ClockState::parse)?,
                sessions: self.number("sessions")?,
                commands: self.number("commands")?,
                refused: self.number("refused")?,
                bytes_up: self.number("bytes_up")?,
                bytes_down: self.number("bytes_down")?,
            }),
            Kind::SessionOpen => Body::SessionOpen(self.session_open()?),
            Kind::SessionClose => Body::SessionClose(SessionClose {
                link: self.link()?,
                reason: self.word("reason", SessionEnd::parse)?,
                intents: self.small("intents")?,
                outcomes: self.small("outcomes")?,
                bytes_up: self.number("bytes_up")?,
                bytes_down: self.number("bytes_down")?,
                root: self.optional("root", |o, k| o.digest(k)?.ok_or(Bad(k)))?,
            }),
            Kind::Intent => Body::Intent(self.intent()?),
            Kind::Outcome => Body::Outcome(self.outcome()?),
            Kind::Refused => Body::Refused(Refused {
                reason: self.word("reason", RefusedReason::parse)?,
                source: self.string("source")?,
                count: self.number("count")?,
                first_us: self.wall("first")?,
                user: self.optional("user", |o, k| o.label(k))?,
                connection: self.optional("connection", |o, k| o.label(k))?,
            }),
            Kind::Cancel => Body::Cancel(Cancel {
                session: match self.value("session")? {
                    Value::Null => None,
                    _ => Some(self.session("session")?),
                },
                source: self.string("source")?,
                result: self.word("result", CancelResult::parse)?,
                count: self.number("count")?,
            }),
            Kind::Erase => Body::Erase(Erase {
                session: self.session("session")?,
                connection: self.string("connection")?,
                identity: self.name("identity")?,
                fields: self.optional("fields", |o, k| {
                    o.array(k)?.iter().map(|field| field.as_u64().ok_or(Bad(k))).collect()
                })?,
                cause: self.word("cause", EraseCause::parse)?,
                reason: self.string("reason")?,
                by: self.actor()?,
            }),
            Kind::Hold => Body::Hold(Hold {
                hold: self.string("hold")?,
                action: self.word("action", HoldAction::parse)?,
                session: self.optional("session", |o, k| o.session(k))?,
                connection: self.optional("connection", |o, k| o.string(k))?,
                identity: self.optional("identity", |o, k| o.name(k))?,
                reason: self.string("reason")?,
                by: self.actor()?,
            }),
            Kind::Witnesses => Body::Witnesses(Witnesses {
                size: self.number("size")?,
                enough: self.optional("enough", |o, k| o.number(k))?,
                witnesses: self.witnesses()?,
            }),
            Kind::Export => Body::Export(Export {
                by: self.actor()?,
                selection: self.string("selection")?,
                entries: self.number("entries")?,
                disclosed: self.number("disclosed")?,
                sha256: self.digest("sha256")?.ok_or(Bad("sha256"))?,
            }),
            Kind::Configuration => Body::Configuration(Configuration {
                result: self.word("result", ConfigurationResult::parse)?,
                cause: self.word("cause", ConfigurationCause::parse)?,
                configuration: self.some_digest("configuration")?,
                refused: self.optional("refused", |o, k| o.some_digest(k))?,
                reason: self.optional("reason", |o, k| o.string(k))?,
                sessions_ended: self.number("sessions_ended")?,
            }),
            Kind::IssuerKey => Body::IssuerKey(IssuerKey {
                issuer: self.string("iss")?,
                kid: self.optional("kid", |o, k| o.string(k))?,
                thumbprint: self.some_digest("thumbprint")?,
                jwk: self.string("jwk")?,
            }),
            Kind::Token => Body::Token(Token {
                action: self.word("action", TokenAction::parse)?,
                id: self.string("id")?,
                identity: self.object("identity")?.identity()?,
                opens: match self.optional("connection", |o, k| o.string(k))? {
                    Some(connection) => Opens::Connection(connection),
                    None => Opens::Ssh { connections: self.strings("connections")?, key: self.string("key")? },
                },
                expires_us: self.wall("expires")?,
                client: self.optional("client", |o, k| o.string(k))?,
            }),
            Kind::Revocation => Body::Revocation(Revocation {
                action: self.word("action", RevocationAction::parse)?,
                identity: self.name("identity")?,
                sessions: self.number("sessions")?,
                tokens: self.number("tokens")?,
                reason: self.string("reason")?,
                by: self.actor()?,
            }),
            Kind::Oversight => Body::Oversight(Oversight {
                action: self.word("action", OversightAction::parse)?,
                session: self.session("session")?,
                command: self.optional("command", |o, k| o.command(k))?,
                reason: self.optional("reason", |o, k| o.string(k))?,
                by: self.actor()?,
            }),
            Kind::Shared => Body::Shared(Shared {
                identity: self.name("identity")?,
                credential: self.string("credential")?,
                sources: self.strings("sources")?,
                runs: self.strings_or_none("runs")?,
                sessions: self.number("sessions")?,
            }),
            Kind::Outpost => Body::Outpost(Outpost {
                action: self.word("action", OutpostAction::parse)?,
                id: self.string("id")?,
                name: self.string("name")?,
                labels: self.strings_or_none("labels")?,
                address: self.optional("address", |o, k| o.string(k))?,
                serial: self.optional("serial", |o, k| o.string(k))?,
                reason: self.optional("reason", |o, k| o.string(k))?,
                by: self.optional("by", |o, _| o.actor())?,
            }),
            Kind::Approval => Body::Approval(Approval { of: self.command("of")?, step: self.approval_step()? }),
            Kind::BreakGlass => {
                Body::BreakGlass(BreakGlass { id: self.break_glass_id("id")?, step: self.break_glass_step()? })
            }
            Kind::Passkey => Body::Passkey(Passkey {
                action: self.word("action", PasskeyAction::parse)?,
                identity: self.object("identity")?.identity()?,
                credential: self.string("credential")?,
                algorithm: self.word("algorithm", PasskeyAlgorithm::parse)?,
                public_key: self.bytes("public_key")?,
                rp_id: self.string("rp_id")?,
                origin: self.string("origin")?,
                aaguid: self.string("aaguid")?,
            }),
        };
        Ok(Entry { time, body })
    }

    fn assertion(&self) -> Read<Assertion> {
        Ok(Assertion {
            credential: self.string("credential")?,
            authenticator_data: self.bytes("authenticator_data")?,
            client_data: self.bytes("client_data")?,
            signature: self.bytes("signature")?,
        })
    }

    fn bytes(&self, key: &'static str) -> Read<Vec<u8>> {
        STANDARD.decode(self.text(key)?).map_err(|_| Bad(key))
    }

    fn approval_step(&self) -> Read<ApprovalStep> {
        Ok(match self.text("step")? {
            "requested" => ApprovalStep::Requested(Box::new(ApprovalRequest {
                intent: self.digest("intent")?.ok_or(Bad("intent"))?,
                connection: self.string("connection")?,
                database: self.optional("database", |o, k| o.label(k))?,
                role: self.string("role")?,
                policy: self.digest("policy")?.ok_or(Bad("policy"))?,
                quorum: self.number("quorum")?,
                signed: self.truth("signed")?,
                expires_us: self.wall("expires")?,
                nonce: self.digest("nonce")?.ok_or(Bad("nonce"))?,
            })),
            "seen" => ApprovalStep::Seen { by: Box::new(self.object("identity")?.identity()?) },
            "decided" => ApprovalStep::Decided(Box::new(ApprovalVote {
                decision: self.word("decision", ApprovalDecision::parse)?,
                request: self.digest("request")?.ok_or(Bad("request"))?,
                by: self.object("identity")?.identity()?,
                comment: self.optional("comment", |o, k| o.string(k))?,
                signature: self.optional("signature", |o, k| o.object(k)?.assertion())?.map(Box::new),
            })),
            "used" => ApprovalStep::Used { command: self.command("command")? },
            "ended" => ApprovalStep::Ended { how: self.word("how", ApprovalEnd::parse)? },
            _ => return Err(Bad("step")),
        })
    }

    fn break_glass_step(&self) -> Read<BreakGlassStep> {
        let identity = |o: &Self, key| Ok(Box::new(o.object(key)?.identity()?));
        Ok(match self.text("step")? {
            "opened" => BreakGlassStep::Opened(Box::new(BreakGlassOpening {
                connection: self.string("connection")?,
                by: self.object("identity")?.identity()?,
                reason: self.string("reason")?,
                until_us: self.wall("until")?,
            })),
            "closed" => BreakGlassStep::Closed {
                how: self.word("how", BreakGlassEnd::parse)?,
                by: self.optional("identity", identity)?,
            },
            "reviewed" => BreakGlassStep::Reviewed(Box::new(BreakGlassReview {
                by: self.object("identity")?.identity()?,
                finding: self.word("finding", BreakGlassFinding::parse)?,
                comment: self.string("comment")?,
            })),
            _ => return Err(Bad("step")),
        })
    }

    fn break_glass_id(&self, key: &'static str) -> Read<BreakGlassId> {
        self.text(key)?.parse().map_err(|_| Bad(key))
    }

    fn previous(&self) -> Read<PreviousLog> {
        Ok(PreviousLog {
            origin: self.string("origin")?,
            vkey: self.string("vkey")?,
            size: self.number("size")?,
            root: self.digest("root")?.ok_or(Bad("root"))?,
            witnessed: self.optional("witnessed", |o, k| o.number(k))?,
            reason: self.word("reason", EpochReason::parse)?,
        })
    }

    fn actor(&self) -> Read<Actor> {
        let by = self.object("by")?;
        Ok(Actor { name: by.string("name")?, known: by.word("known", Known::parse)? })
    }

    fn witnesses(&self) -> Read<Vec<WitnessStanding>> {
        self.array("witnesses")?
            .iter()
            .map(|witness| {
                let witness = Object { map: witness.as_object().ok_or(Bad("witnesses"))? };
                Ok(WitnessStanding {
                    name: witness.string("name")?,
                    state: witness.word("state", WitnessState::parse)?,
                    size: witness.optional("size", |o, k| o.number(k))?,
                })
            })
            .collect()
    }

    fn session_open(&self) -> Read<SessionOpen> {
        Ok(SessionOpen {
            link: self.link()?,
            identity: self.object("identity")?.identity()?,
            connection: self.string("connection")?,
            database: self.optional("database", |o, k| o.label(k))?,
            upstream_user: self.string("upstream_user")?,
            protocol: self.string("protocol")?,
            client: self.string("client")?,
            tls: match self.value("tls")? {
                Value::Null => None,
                _ => Some(self.string("tls")?),
            },
            claims: self.claims()?,
            durability: self.word("durability", Durability::parse)?,
            key_slot: self.number("key_slot")?,
            key_commitment: self.digest("key_commitment")?.ok_or(Bad("key_commitment"))?,
            upstream: self.optional("upstream", |o, k| o.word(k, UpstreamSecurity::parse))?,
            outpost: self.optional("outpost", |o, k| {
                let outpost = o.object(k)?;
                Ok(Carried { id: outpost.string("id")?, name: outpost.string("name")? })
            })?,
        })
    }

    fn identity(&self) -> Read<Identity> {
        Ok(Identity {
            name: self.name("name")?,
            known: self.word("known", Known::parse)?,
            proof: self.object("proof")?.proof()?,
            on_behalf_of: self.on_behalf_of()?,
            groups: self.strings_or_none("groups")?,
            run: self.optional("run", |o, k| {
                let run = o.object(k)?;
                Ok(Run { id: run.string("id")?, known: run.word("known", Known::parse)? })
            })?,
        })
    }

    fn proof(&self) -> Read<Proof> {
        let token = self.optional("token", |o, k| o.object(k)?.token())?;
        let certificate = self.optional("certificate", |o, k| o.object(k)?.certificate())?;
        Ok(Proof {
            method: self.word("method", ProofMethod::parse)?,
            channel: self.word("channel", ChannelBinding::parse)?,
            credential: self.string("credential")?,
            evidence: match (token, certificate) {
                (None, None) => None,
                (Some(token), None) => Some(Evidence::Token(Box::new(token))),
                (None, Some(certificate)) => Some(Evidence::Certificate(Box::new(certificate))),
                (Some(_), Some(_)) => return Err(Bad("certificate")),
            },
        })
    }

    fn token(&self) -> Read<TokenEvidence> {
        let claim = |claim: &Value| match claim.as_array().map(Vec::as_slice) {
            Some([Value::String(name), Value::String(value)]) => Ok((name.clone(), value.clone())),
            _ => Err(Bad("claims")),
        };
        Ok(TokenEvidence {
            issuer: self.string("iss")?,
            subject: self.string("sub")?,
            audience: self.strings("aud")?,
            client: self.optional("client", |o, k| o.string(k))?,
            jti: self.optional("jti", |o, k| o.string(k))?,
            issued: self.optional("iat", |o, k| o.number(k))?,
            not_before: self.optional("nbf", |o, k| o.number(k))?,
            expires: self.number("exp")?,
            auth_time: self.optional("auth_time", |o, k| o.number(k))?,
            acr: self.optional("acr", |o, k| o.string(k))?,
            amr: self.strings_or_none("amr")?,
            actors: self.strings_or_none("act")?,
            confirmation: self.optional("cnf", |o, k| o.string(k))?,
            kid: self.optional("kid", |o, k| o.string(k))?,
            algorithm: self.string("alg")?,
            key: self.some_digest("key")?,
            keys: self.some_digest("keys")?,
            keys_fetched: self.number("keys_fetched")?,
            token: self.some_digest("sha256")?,
            rule: self.string("rule")?,
            rules: self.some_digest("rules")?,
            claims: self.optional("claims", |o, k| o.array(k)?.iter().map(claim).collect())?.unwrap_or_default(),
            verified: self.number("verified")?,
        })
    }

    fn certificate(&self) -> Read<CertificateEvidence> {
        Ok(CertificateEvidence {
            subject: self.string("subject")?,
            names: self.strings_or_none("names")?,
            issuer: self.string("issuer")?,
            serial: self.string("serial")?,
            not_before: self.number("not_before")?,
            not_after: self.number("not_after")?,
            sha256: self.some_digest("sha256")?,
            rule: self.string("rule")?,
            rules: self.some_digest("rules")?,
        })
    }

    fn strings(&self, key: &'static str) -> Read<Vec<String>> {
        self.array(key)?.iter().map(|value| value.as_str().map(str::to_owned).ok_or(Bad(key))).collect()
    }

    fn strings_or_none(&self, key: &'static str) -> Read<Vec<String>> {
        Ok(self.optional(key, |o, k| o.strings(k))?.unwrap_or_default())
    }

    fn some_digest(&self, key: &'static str) -> Read<Digest> {
        self.digest(key)?.ok_or(Bad(key))
    }

    fn claims(&self) -> Read<Vec<Claim>> {
        let bad = || Bad("claims");
        self.array("claims")?
            .iter()
            .map(|claim| match claim.as_array().map(Vec::as_slice) {
                Some([name, value]) => {
                    Ok(Claim { name: label(name).ok_or_else(bad)?, value: label(value).ok_or_else(bad)? })
                }
                _ => Err(bad()),
            })
            .collect()
    }

    fn intent(&self) -> Read<Intent> {
        let who = self.object("who")?;
        Ok(Intent {
            link: self.link()?,
            command: self.command("id")?,
            who: Who {
                name: who.name("name")?,
                known: who.word("known", Known::parse)?,
                on_behalf_of: who.on_behalf_of()?,
            },
            connection: self.string("connection")?,
            database: self.optional("database", |o, k| o.label(k))?,
            via: self.word("via", Via::parse)?,
            text: self.field("text")?,
            parameters: self.field("parameters")?,
            statement: self.optional("statement", |o, k| o.label(k))?,
            portal: self.optional("portal", |o, k| o.label(k))?,
            transaction: self.optional("transaction", |o, k| o.word(k, Transaction::parse))?,
            effects: self.object("effects")?.effects()?,
            fidelity: self.word("fidelity", Fidelity::parse)?,
            verdict: self.word("verdict", Verdict::parse)?,
            rules: self
                .array("rules")?
                .iter()
                .map(|rule| rule.as_str().map(str::to_owned).ok_or(Bad("rules")))
                .collect::<Read<_>>()?,
            policy: self.digest("policy")?,
            observed: self.optional("observed", |o, k| o.word(k, Verdict::parse))?,
            approval: self.optional("approval", |o, k| o.command(k))?,
            break_glass: self.optional("break_glass", |o, k| o.break_glass_id(k))?,
            durability: self.word("durability", Durability::parse)?,
            bytes: self.number("bytes")?,
            upstream: self.optional("upstream", |o, k| o.word(k, UpstreamSecurity::parse))?,
        })
    }

    fn effects(&self) -> Read<Effects> {
        match self.text("state")? {
            "not_established" => return Ok(Effects::NotEstablished),
            "established" => {}
            _ => return Err(Bad("state")),
        }
        let relations = self.array("relations")?.iter().map(|relation| {
            let relation = Object { map: relation.as_object().ok_or(Bad("relations"))? };
            Ok(Relation {
                schema: relation.optional("schema", |o, k| o.string(k))?,
                name: relation.string("name")?,
                access: relation.words("access", Access::parse)?,
            })
        });
        Ok(Effects::Established(Arc::new(Facts {
            operation: self.word("operation", Operation::parse)?,
            operations: self.words("operations", Operation::parse)?,
            effects: self.words("effects", Effect::parse)?,
            relations: relations.collect::<Read<_>>()?,
            functions: self.strings("functions")?,
            bounded: self.value("bounded")?.as_bool().ok_or(Bad("bounded"))?,
            fingerprint: self.optional("fingerprint", |o, k| o.some_digest(k))?,
            opaque: self.words("opaque", Opaque::parse)?,
        })))
    }

    fn words<T>(&self, key: &'static str, parse: fn(&str) -> Option<T>) -> Read<Vec<T>> {
        self.array(key)?.iter().map(|word| word.as_str().and_then(parse).ok_or(Bad(key))).collect()
    }

    fn outcome(&self) -> Read<Outcome> {
        Ok(Outcome {
            link: self.link()?,
            of: self.command("of")?,
            status: self.word("status", Status::parse)?,
            reason: self.optional("reason", |o, k| o.word(k, Reason::parse))?,
            code: self.optional("code", |o, k| o.string(k))?,
            message: self.field("message")?,
            results: self.results()?,
            results_count: self.number("results_count")?,
            rows: self.number("rows")?,
            bytes_up: self.number("bytes_up")?,
            bytes_down: self.number("bytes_down")?,
            duration_us: self.number("duration_us")?,
            copy: self.optional("copy", |o, k| {
                let copy = o.object(k)?;
                Ok(Copy { direction: copy.word("direction", CopyDirection::parse)?, bytes: copy.number("bytes")? })
            })?,
            fetches: self.small("fetches")?,
            suspended: self.truth("suspended")?,
            effective: self.word("effective", Effective::parse)?,
            notices: self.small("notices")?,
            executed: self.truth("executed")?,
            transcript: self.optional("transcript", |o, k| {
                let transcript = o.object(k)?;
                Ok(Transcript {
                    content: transcript.field("content")?,
                    stdin: transcript.number("stdin")?,
                    stdout: transcript.number("stdout")?,
                    stderr: transcript.number("stderr")?,
                    kept: transcript.number("kept")?,
                })
            })?,
            file: self.optional("file", |o, k| {
                let file = o.object(k)?;
                Ok(FileContent {
                    read: file.number("read")?,
                    written: file.number("written")?,
                    sha256: file.field("sha256")?,
                })
            })?,
        })
    }

    fn results(&self) -> Read<Vec<StatementResult>> {
        self.array("results")?
            .iter()
            .map(|result| {
                let result = Object { map: result.as_object().ok_or(Bad("results"))? };
                Ok(StatementResult { tag: result.string("tag")?, rows: result.optional("rows", |o, k| o.number(k))? })
            })
            .collect()
    }

    fn value(&self, key: &'static str) -> Read<&'a Value> {
        self.map.get(key).ok_or(Bad(key))
    }

    fn optional<T>(&self, key: &'static str, read: impl FnOnce(&Self, &'static str) -> Read<T>) -> Read<Option<T>> {
        self.map.contains_key(key).then(|| read(self, key)).transpose()
    }

    fn text(&self, key: &'static str) -> Read<&'a str> {
        self.value(key)?.as_str().ok_or(Bad(key))
    }

    fn string(&self, key: &'static str) -> Read<String> {
        self.text(key).map(str::to_owned)
    }

    fn number(&self, key: &'static str) -> Read<u64> {
        self.value(key)?.as_u64().ok_or(Bad(key))
    }

    fn small(&self, key: &'static str) -> Read<u32> {
        self.number(key)?.try_into().map_err(|_| Bad(key))
    }

    fn truth(&self, key: &'static str) -> Read<bool> {
        self.value(key)?.as_bool().ok_or(Bad(key))
    }

    fn word<T>(&self, key: &'static str, parse: impl FnOnce(&str) -> Option<T>) -> Read<T> {
        parse(self.text(key)?).ok_or(Bad(key))
    }

    fn wall(&self, key: &'static str) -> Read<i64> {
        parse_wall(self.text(key)?).map_err(|_| Bad(key))
    }

    fn name(&self, key: &'static str) -> Read<IdentityName> {
        self.text(key)?.parse().map_err(|_| Bad(key))
    }

    fn session(&self, key: &'static str) -> Read<SessionId> {
        self.text(key)?.parse().map_err(|_| Bad(key))
    }

    fn command(&self, key: &'static str) -> Read<CommandId> {
        self.text(key)?.parse().map_err(|_| Bad(key))
    }

    fn object(&self, key: &'static str) -> Read<Object<'a>> {
        Ok(Object { map: self.value(key)?.as_object().ok_or(Bad(key))? })
    }

    fn array(&self, key: &'static str) -> Read<&'a [Value]> {
        self.value(key)?.as_array().map(Vec::as_slice).ok_or(Bad(key))
    }

    fn digest(&self, key: &'static str) -> Read<Option<Digest>> {
        match self.value(key)? {
            Value::Null => Ok(None),
            value => value.as_str().and_then(Digest::from_base64).map(Some).ok_or(Bad(key)),
        }
    }

    fn label(&self, key: &'static str) -> Read<Label> {
        label(self.value(key)?).ok_or(Bad(key))
    }

    fn link(&self) -> Read<Link> {
        Ok(Link { session: self.session("s")?, number: self.small("n")?, previous: self.digest("prev")? })
    }

    fn on_behalf_of(&self) -> Read<Option<OnBehalfOf>> {
        match self.value("on_behalf_of")? {
            Value::Null => Ok(None),
            _ => {
                let o = self.object("on_behalf_of")?;
                Ok(Some(OnBehalfOf { name: o.name("name")?, known: o.word("known", Known::parse)? }))
            }
        }
    }

    fn field(&self, key: &'static str) -> Read<Field> {
        let field = self.object(key)?;
        if field.map.contains_key("absent") {
            Ok(Field::Absent(field.word("absent", AbsentReason::parse)?))
        } else if field.map.contains_key("sealed") {
            Ok(Field::Sealed(field.object("sealed")?.sealed()?))
        } else {
            let blob = field.object("blob").map_err(|_| Bad(key))?;
            Ok(Field::Blob(BlobField {
                number: blob.number("f")?,
                length: blob.number("l")?,
                commitment: blob.digest("c")?.ok_or(Bad("c"))?,
                sha256: Digest::from_hex(blob.text("sha256")?).ok_or(Bad("sha256"))?,
                bytes: blob.number("bytes")?,
                form: blob.word("form", BlobForm::parse)?,
                packing: blob.optional("packing", |o, k| o.word(k, Packing::parse))?,
                head: blob.object("head")?.sealed()?,
            }))
        }
    }

    fn sealed(&self) -> Read<SealedField> {
        Ok(SealedField {
            number: self.number("f")?,
            length: self.number("l")?,
            commitment: self.digest("c")?.ok_or(Bad("c"))?,
            ciphertext: Arc::from(STANDARD.decode(self.text("x")?).map_err(|_| Bad("x"))?),
        })
    }
}

fn label(value: &Value) -> Option<Label> {
    match value {
        Value::String(text) => Some(Label::Text(text.clone())),
        Value::Object(map) => {
            let object = Object { map };
            Some(Label::Digest {
                sha256: Digest::from_hex(object.text("sha256").ok()?)?,
                bytes: object.number("bytes").ok()?,
            })
        }
        _ => None,
    }
}
