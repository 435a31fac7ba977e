//! An entry has exactly one encoding, and nothing else is read.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod oracle;

use model::seal::{ChunkOpener, ChunkSealer, Last, OpenError, SessionKey, open, seal};
use model::*;
use proptest::prelude::*;

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn session() -> impl Strategy<Value = SessionId> {
    any::<[u8; 16]>().prop_map(SessionId::from_bytes)
}

fn link() -> impl Strategy<Value = Link> {
    (session(), any::<u32>(), prop::option::of(any::<[u8; 32]>())).prop_map(|(session, number, previous)| Link {
        session,
        number,
        previous: previous.map(Digest),
    })
}

fn label() -> impl Strategy<Value = Label> {
    prop_oneof![
        any::<String>().prop_map(|text| Label::new(text.as_bytes())),
        any::<[u8; 300]>().prop_map(|b| Label::new(&b))
    ]
}

fn sealed() -> impl Strategy<Value = SealedField> {
    (any::<[u8; 32]>(), any::<u64>(), any::<Vec<u8>>(), session())
        .prop_map(|(key, number, text, id)| seal(id, &SessionKey::new(key).field(number), number, &text))
}

fn field() -> impl Strategy<Value = Field> {
    prop_oneof![
        prop::sample::select(AbsentReason::ALL).prop_map(Field::Absent),
        sealed().prop_map(Field::Sealed),
        (sealed(), any::<[u8; 32]>(), any::<u64>(), prop::sample::select(BlobForm::ALL), any::<bool>()).prop_map(
            |(head, sha256, bytes, form, packed)| Field::Blob(BlobField {
                number: head.number,
                length: bytes,
                commitment: head.commitment,
                sha256: Digest(sha256),
                bytes,
                form,
                packing: packed.then_some(Packing::Deflate),
                head,
            })
        ),
    ]
}

fn who() -> impl Strategy<Value = Who> {
    let name = ("[A-Za-z0-9._@+/-]{1,128}", prop::sample::select(IdentityKind::ALL))
        .prop_map(|(name, kind)| IdentityName::new(kind, &name).unwrap());
    let known = prop::sample::select(Known::ALL);
    let behalf = (name.clone(), known.clone()).prop_map(|(name, known)| OnBehalfOf { name, known });
    (name, known, prop::option::of(behalf)).prop_map(|(name, known, on_behalf_of)| Who { name, known, on_behalf_of })
}

fn effects() -> impl Strategy<Value = Effects> {
    let words = |max| 0..=max;
    let relation = (
        prop::option::of(any::<String>()),
        any::<String>(),
        prop::collection::vec(prop::sample::select(Access::ALL), words(3)),
    )
        .prop_map(|(schema, name, access)| Relation { schema, name, access });
    let facts = (
        prop::collection::vec(prop::sample::select(Operation::ALL), 1..3),
        prop::collection::vec(prop::sample::select(Effect::ALL), words(3)),
        prop::collection::vec(relation, words(3)),
        prop::collection::vec(any::<String>(), words(3)),
        any::<bool>(),
        prop::option::of(any::<[u8; 32]>()),
        prop::collection::vec(prop::sample::select(Opaque::ALL), words(3)),
    )
        .prop_map(|(operations, effects, relations, functions, bounded, fingerprint, opaque)| Facts {
            operation: operations[0],
            operations,
            effects,
            relations,
            functions,
            bounded,
            fingerprint: fingerprint.map(Digest),
            opaque,
        });
    prop_oneof![Just(Effects::NotEstablished), facts.prop_map(|facts| Effects::Established(facts.into()))]
}

fn command() -> impl Strategy<Value = CommandId> {
    (session(), 1..u32::MAX).prop_map(|(session, ordinal)| CommandId { session, ordinal })
}

fn intent() -> impl Strategy<Value = Body> {
    let names = (any::<String>(), prop::option::of(label()), prop::option::of(label()), prop::option::of(label()));
    let sets = (
        prop::sample::select(Via::ALL),
        prop::option::of(prop::sample::select(Transaction::ALL)),
        prop::sample::select(Fidelity::ALL),
        prop::sample::select(Verdict::ALL),
        prop::sample::select(Durability::ALL),
        prop::option::of(prop::sample::select(UpstreamSecurity::ALL)),
        effects(),
        prop::option::of(prop::sample::select(Verdict::ALL)),
        prop::option::of(command()),
        break_glass_mark(),
    );
    let rest =
        (prop::collection::vec(any::<String>(), 0..3), prop::option::of(any::<[u8; 32]>()), any::<u64>(), 1..u32::MAX);
    (link(), who(), names, field(), field(), sets, rest).prop_map(|(link, who, names, text, parameters, sets, rest)| {
        Body::Intent(Intent {
            link,
            command: CommandId { session: link.session, ordinal: rest.3 },
            who,
            connection: names.0,
            database: names.1,
            via: sets.0,
            text,
            parameters,
            statement: names.2,
            portal: names.3,
            transaction: sets.1,
            effects: sets.6,
            fidelity: sets.2,
            verdict: sets.3,
            rules: rest.0,
            policy: rest.1.map(Digest),
            observed: sets.7,
            approval: sets.8,
            break_glass: sets.9,
            durability: sets.4,
            bytes: rest.2,
            upstream: sets.5,
        })
    })
}

fn outcome() -> impl Strategy<Value = Body> {
    let results = prop::collection::vec((any::<String>(), prop::option::of(any::<u64>())), 0..4);
    let copy = prop::option::of((prop::sample::select(CopyDirection::ALL), any::<u64>()));
    let sets = (
        prop::sample::select(Status::ALL),
        prop::option::of(prop::sample::select(Reason::ALL)),
        prop::sample::select(Effective::ALL),
        any::<bool>(),
        any::<bool>(),
    );
    let content = (prop::option::of((field(), any::<[u64; 4]>())), prop::option::of((field(), any::<[u64; 2]>())));
    (
        link(),
        sets,
        prop::option::of(any::<String>()),
        field(),
        results,
        any::<[u64; 5]>(),
        copy,
        any::<[u32; 2]>(),
        1..u32::MAX,
        content,
    )
        .prop_map(|(link, sets, code, message, results, n, copy, m, ordinal, (transcript, file))| {
            Body::Outcome(Outcome {
                link,
                of: CommandId { session: link.session, ordinal },
                status: sets.0,
                reason: sets.1,
                code,
                message,
                results: results.into_iter().map(|(tag, rows)| StatementResult { tag, rows }).collect(),
                results_count: n[0],
                rows: n[1],
                bytes_up: n[2],
                bytes_down: n[3],
                duration_us: n[4],
                copy: copy.map(|(direction, bytes)| Copy { direction, bytes }),
                fetches: m[0],
                suspended: sets.3,
                effective: sets.2,
                notices: m[1],
                executed: sets.4,
                transcript: transcript.map(|(content, n)| Transcript {
                    content,
                    stdin: n[0],
                    stdout: n[1],
                    stderr: n[2],
                    kept: n[3],
                }),
                file: file.map(|(sha256, n)| FileContent { read: n[0], written: n[1], sha256 }),
            })
        })
}

fn other() -> impl Strategy<Value = Body> {
    let root = prop::option::of(digest());
    let close = (link(), prop::sample::select(SessionEnd::ALL), any::<[u32; 2]>(), any::<[u64; 2]>(), root).prop_map(
        |(link, reason, n, m, root)| {
            Body::SessionClose(SessionClose {
                link,
                reason,
                intents: n[0],
                outcomes: n[1],
                bytes_up: m[0],
                bytes_down: m[1],
                root,
            })
        },
    );
    let refused = (
        prop::sample::select(RefusedReason::ALL),
        any::<String>(),
        any::<u64>(),
        0..4_000_000_000_000_000i64,
        prop::option::of(label()),
        prop::option::of(label()),
    )
        .prop_map(|(reason, source, count, first_us, user, connection)| {
            Body::Refused(Refused { reason, source, count, first_us, user, connection })
        });
    let cancel = (prop::option::of(session()), any::<String>(), prop::sample::select(CancelResult::ALL), any::<u64>())
        .prop_map(|(session, source, result, count)| Body::Cancel(Cancel { session, source, result, count }));
    let start =
        (any::<String>(), any::<String>(), prop::option::of(any::<[u8; 32]>()), prop::sample::select(ClockState::ALL))
            .prop_map(|(boot_id, program, digest, clock)| {
                Body::Start(Start { boot_id, program, configuration: digest.map(Digest), clock })
            });
    prop_oneof![close, refused, cancel, start, genesis_or_stop(), custody(), access(), session_open()]
}

fn genesis_or_stop() -> impl Strategy<Value = Body> {
    let reason = prop::sample::select(EpochReason::ALL);
    let previous = (any::<[String; 2]>(), any::<u64>(), digest(), prop::option::of(any::<u64>()), reason).prop_map(
        |([origin, vkey], size, root, witnessed, reason)| PreviousLog { origin, vkey, size, root, witnessed, reason },
    );
    let genesis = (any::<[String; 3]>(), prop::option::of(previous))
        .prop_map(|([origin, vkey, program], previous)| Body::Genesis(Genesis { origin, vkey, program, previous }));
    let stop = (prop::sample::select(StopReason::ALL), prop::option::of(any::<String>()))
        .prop_map(|(reason, next)| Body::Stop(Stop { reason, next }));
    prop_oneof![genesis, stop]
}

fn custody() -> impl Strategy<Value = Body> {
    let by = || (any::<String>(), prop::sample::select(Known::ALL)).prop_map(|(name, known)| Actor { name, known });
    let fields = prop::option::of(prop::collection::vec(any::<u64>(), 0..4));
    let of = (session(), any::<String>(), who());
    let erase = (of, fields, prop::sample::select(EraseCause::ALL), any::<String>(), by()).prop_map(
        |((session, connection, who), fields, cause, reason, by)| {
            let identity = who.name;
            Body::Erase(Erase { session, connection, identity, fields, cause, reason, by })
        },
    );
    let scope = (prop::option::of(session()), prop::option::of(any::<String>()), prop::option::of(who()));
    let hold = (any::<[String; 2]>(), prop::sample::select(HoldAction::ALL), scope, by()).prop_map(
        |([hold, reason], action, (session, connection, who), by)| {
            let identity = who.map(|who| who.name);
            Body::Hold(Hold { hold, action, session, connection, identity, reason, by })
        },
    );
    let standing = (any::<String>(), prop::sample::select(WitnessState::ALL), prop::option::of(any::<u64>()))
        .prop_map(|(name, state, size)| WitnessStanding { name, state, size });
    let witnesses = (any::<u64>(), prop::option::of(any::<u64>()), prop::collection::vec(standing, 0..4))
        .prop_map(|(size, enough, witnesses)| Body::Witnesses(Witnesses { size, enough, witnesses }));
    let export = (by(), any::<String>(), any::<[u64; 2]>(), digest()).prop_map(
        |(by, selection, [entries, disclosed], sha256)| {
            Body::Export(Export { by, selection, entries, disclosed, sha256 })
        },
    );
    prop_oneof![erase, hold, witnesses, export]
}

fn strings() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(any::<String>(), 0..3)
}

fn maybe() -> impl Strategy<Value = Option<String>> {
    prop::option::of(any::<String>())
}

fn evidence() -> impl Strategy<Value = Evidence> {
    let numbers = (any::<[Option<u64>; 3]>(), any::<[u64; 3]>());
    let lists = (strings(), strings(), strings(), prop::collection::vec(any::<(String, String)>(), 0..3));
    let token = (any::<[String; 4]>(), any::<[Option<String>; 5]>(), numbers, lists, any::<[[u8; 32]; 4]>()).prop_map(
        |(texts, maybes, (times, n), (audience, amr, actors, claims), digests)| {
            let [issuer, subject, algorithm, rule] = texts;
            let [client, jti, acr, confirmation, kid] = maybes;
            Evidence::Token(Box::new(TokenEvidence {
                issuer,
                subject,
                audience,
                client,
                jti,
                issued: times[0],
                not_before: times[1],
                expires: n[0],
                auth_time: times[2],
                acr,
                amr,
                actors,
                confirmation,
                kid,
                algorithm,
                key: Digest(digests[0]),
                keys: Digest(digests[1]),
                keys_fetched: n[1],
                token: Digest(digests[2]),
                rule,
                rules: Digest(digests[3]),
                claims,
                verified: n[2],
            }))
        },
    );
    let certificate = (any::<[String; 4]>(), strings(), any::<[u64; 2]>(), digest(), digest()).prop_map(
        |([subject, issuer, serial, rule], names, [not_before, not_after], sha256, rules)| {
            let evidence =
                CertificateEvidence { subject, names, issuer, serial, not_before, not_after, sha256, rule, rules };
            Evidence::Certificate(Box::new(evidence))
        },
    );
    prop_oneof![token, certificate]
}

fn proof() -> impl Strategy<Value = Proof> {
    let sets = (prop::sample::select(ProofMethod::ALL), prop::sample::select(ChannelBinding::ALL));
    (sets, any::<String>(), prop::option::of(evidence())).prop_map(|((method, channel), credential, evidence)| Proof {
        method,
        channel,
        credential,
        evidence,
    })
}

fn identity() -> impl Strategy<Value = Identity> {
    let run = (any::<String>(), prop::sample::select(Known::ALL)).prop_map(|(id, known)| Run { id, known });
    (who(), proof(), strings(), prop::option::of(run)).prop_map(|(who, proof, groups, run)| {
        let Who { name, known, on_behalf_of } = who;
        Identity { name, known, proof, on_behalf_of, groups, run }
    })
}

fn session_open() -> impl Strategy<Value = Body> {
    let claims = prop::collection::vec((label(), label()).prop_map(|(name, value)| Claim { name, value }), 0..3);
    let way = (
        prop::option::of(prop::sample::select(UpstreamSecurity::ALL)),
        prop::option::of(any::<[String; 2]>()),
        prop::sample::select(Durability::ALL),
    );
    let rest = (any::<[String; 4]>(), maybe(), prop::option::of(label()), any::<u64>(), digest());
    (link(), identity(), claims, way, rest).prop_map(
        |(link, identity, claims, (upstream, outpost, durability), rest)| {
            let [connection, upstream_user, protocol, client] = rest.0;
            Body::SessionOpen(SessionOpen {
                link,
                identity,
                connection,
                database: rest.2,
                upstream_user,
                protocol,
                client,
                tls: rest.1,
                claims,
                durability,
                key_slot: rest.3,
                key_commitment: rest.4,
                upstream,
                outpost: outpost.map(|[id, name]| Carried { id, name }),
            })
        },
    )
}

fn access() -> impl Strategy<Value = Body> {
    let by = || (any::<String>(), prop::sample::select(Known::ALL)).prop_map(|(name, known)| Actor { name, known });
    let sets = (prop::sample::select(ConfigurationResult::ALL), prop::sample::select(ConfigurationCause::ALL));
    let configuration = (sets, digest(), prop::option::of(digest()), maybe(), any::<u64>()).prop_map(
        |((result, cause), configuration, refused, reason, sessions_ended)| {
            Body::Configuration(Configuration { result, cause, configuration, refused, reason, sessions_ended })
        },
    );
    let issuer_key = (any::<[String; 2]>(), maybe(), digest())
        .prop_map(|([issuer, jwk], kid, thumbprint)| Body::IssuerKey(IssuerKey { issuer, kid, thumbprint, jwk }));
    let opens = prop_oneof![
        any::<String>().prop_map(Opens::Connection),
        (strings(), any::<String>()).prop_map(|(connections, key)| Opens::Ssh { connections, key }),
    ];
    let token = (
        prop::sample::select(TokenAction::ALL),
        any::<String>(),
        opens,
        identity(),
        0..4_000_000_000_000_000i64,
        maybe(),
    )
        .prop_map(|(action, id, opens, identity, expires_us, client)| {
            Body::Token(Token { action, id, identity, opens, expires_us, client })
        });
    let revocation = (prop::sample::select(RevocationAction::ALL), who(), any::<[u64; 2]>(), any::<String>(), by())
        .prop_map(|(action, who, [sessions, tokens], reason, by)| {
            Body::Revocation(Revocation { action, identity: who.name, sessions, tokens, reason, by })
        });
    let shared = (who(), any::<String>(), strings(), strings(), any::<u64>()).prop_map(
        |(who, credential, sources, runs, sessions)| {
            Body::Shared(Shared { identity: who.name, credential, sources, runs, sessions })
        },
    );
    let outpost = (
        prop::sample::select(OutpostAction::ALL),
        any::<[String; 2]>(),
        strings(),
        any::<[Option<String>; 3]>(),
        prop::option::of(by()),
    )
        .prop_map(|(action, [id, name], labels, [address, serial, reason], by)| {
            Body::Outpost(Outpost { action, id, name, labels, address, serial, reason, by })
        });
    let watched = prop::option::of((session(), any::<u32>()));
    let oversight = (prop::sample::select(OversightAction::ALL), session(), watched, maybe(), by()).prop_map(
        |(action, session, watched, reason, by)| {
            let command = watched.map(|(session, ordinal)| CommandId { session, ordinal });
            Body::Oversight(Oversight { action, session, command, reason, by })
        },
    );
    prop_oneof![configuration, issuer_key, token, revocation, shared, outpost, oversight]
}

fn approval() -> impl Strategy<Value = Body> {
    let requested = (
        any::<[[u8; 32]; 3]>(),
        any::<[String; 2]>(),
        prop::option::of(label()),
        any::<(u64, bool)>(),
        0..4_000_000_000_000_000i64,
    )
        .prop_map(|([intent, policy, nonce], [connection, role], database, (quorum, signed), expires_us)| {
            let [intent, policy, nonce] = [intent, policy, nonce].map(Digest);
            let request =
                ApprovalRequest { intent, connection, database, role, policy, quorum, signed, expires_us, nonce };
            ApprovalStep::Requested(Box::new(request))
        });
    let seen = identity().prop_map(|by| ApprovalStep::Seen { by: Box::new(by) });
    let signature = (any::<String>(), any::<[Vec<u8>; 3]>()).prop_map(
        |(credential, [authenticator_data, client_data, signature])| {
            Box::new(Assertion { credential, authenticator_data, client_data, signature })
        },
    );
    let signature = prop::option::of(signature);
    let decided = (prop::sample::select(ApprovalDecision::ALL), digest(), identity(), maybe(), signature).prop_map(
        |(decision, request, by, comment, signature)| {
            ApprovalStep::Decided(Box::new(ApprovalVote { decision, request, by, comment, signature }))
        },
    );
    let used = command().prop_map(|command| ApprovalStep::Used { command });
    let ended = prop::sample::select(ApprovalEnd::ALL).prop_map(|how| ApprovalStep::Ended { how });
    let step = prop_oneof![requested, seen, decided, used, ended];
    (command(), step).prop_map(|(of, step)| Body::Approval(Approval { of, step }))
}

fn passkey() -> impl Strategy<Value = Body> {
    let sets = (prop::sample::select(PasskeyAction::ALL), prop::sample::select(PasskeyAlgorithm::ALL));
    (sets, identity(), any::<[String; 4]>(), any::<Vec<u8>>()).prop_map(
        |((action, algorithm), identity, [credential, rp_id, origin, aaguid], public_key)| {
            Body::Passkey(Passkey { action, identity, credential, algorithm, public_key, rp_id, origin, aaguid })
        },
    )
}

fn break_glass_mark() -> impl Strategy<Value = Option<BreakGlassId>> {
    prop::option::of(any::<[u8; 16]>().prop_map(BreakGlassId::from_bytes))
}

fn glass() -> impl Strategy<Value = Body> {
    let opened = (any::<[String; 2]>(), identity(), 0..4_000_000_000_000_000i64).prop_map(
        |([connection, reason], by, until_us)| {
            BreakGlassStep::Opened(Box::new(BreakGlassOpening { connection, by, reason, until_us }))
        },
    );
    let closed = (prop::sample::select(BreakGlassEnd::ALL), prop::option::of(identity().prop_map(Box::new)))
        .prop_map(|(how, by)| BreakGlassStep::Closed { how, by });
    let reviewed = (identity(), prop::sample::select(BreakGlassFinding::ALL), any::<String>()).prop_map(
        |(by, finding, comment)| BreakGlassStep::Reviewed(Box::new(BreakGlassReview { by, finding, comment })),
    );
    (any::<[u8; 16]>(), prop_oneof![opened, closed, reviewed])
        .prop_map(|(id, step)| Body::BreakGlass(BreakGlass { id: BreakGlassId::from_bytes(id), step }))
}

/// In boxes: what makes them up does not fit on the stack of a test's thread together.
fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        intent().boxed(),
        outcome().boxed(),
        other().boxed(),
        approval().boxed(),
        passkey().boxed(),
        glass().boxed()
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    (0..4_000_000_000_000_000i64, any::<u64>(), body())
        .prop_map(|(wall_us, boot_us, body)| Entry { time: Time { wall_us, boot_us }, body })
}

/// The fields in an entry's JSON, wherever they are: how many, and of how many bytes if they are sealed.
fn fields(json: &serde_json::Value, found: &mut Vec<Option<u64>>) {
    match json {
        serde_json::Value::Object(object) => match (object.get("absent"), object.get("sealed"), object.get("blob")) {
            (Some(_), None, None) => found.push(None),
            (None, Some(field), None) | (None, None, Some(field)) => found.push(field["l"].as_u64()),
            _ => object.values().for_each(|value| fields(value, found)),
        },
        serde_json::Value::Array(items) => items.iter().for_each(|item| fields(item, found)),
        _ => {}
    }
}

proptest! {
    #[test]
    fn entries_round_trip(entry in entry()) {
        let mut leaf = Vec::new();
        entry.encode(&mut leaf);
        let begins = leaf.starts_with(br#"{"v":1,"k":""#);
        prop_assert!(begins && !leaf.contains(&b'\n'));
        prop_assert_eq!(&Entry::decode(&leaf).unwrap(), &entry);
        prop_assert_eq!(&oracle::decode(&leaf).unwrap(), &entry);
        prop_assert_eq!(Skim::read(&leaf).unwrap(), Skim::from(entry.clone()));
        // Every field that is written is content that is known of.
        let mut written = Vec::new();
        fields(&serde_json::from_slice(&leaf).unwrap(), &mut written);
        let mut known: Vec<_> = entry.body.contents().map(|(_, _, field)| match field {
            Field::Absent(_) => None,
            Field::Sealed(sealed) => Some(sealed.length),
            Field::Blob(blob) => Some(blob.length),
        }).collect();
        written.sort();
        known.sort();
        prop_assert_eq!(written, known);
        let peek = Peek::new(&leaf).unwrap();
        prop_assert_eq!(peek.kind, entry.body.kind());
        prop_assert_eq!(peek.place, entry.body.link().map(|link| (link.session, link.number)));
    }

    /// What is read is what would be written: with the round trip above, exactly the encodings are entries.
    #[test]
    fn other_bytes_are_refused(entry in entry(), at in any::<prop::sample::Index>(), other in any::<prop::sample::Index>(), byte in any::<u8>(), change in 0..6u8) {
        let mut leaf = Vec::new();
        entry.encode(&mut leaf);
        let mut changed = leaf.clone();
        let (at, other) = (at.index(leaf.len()), other.index(leaf.len()));
        match change {
            0 => changed.insert(at, byte),
            1 => changed[at] = byte,
            2 => drop(changed.remove(at)),
            3 => changed.truncate(at),
            // A part written twice: keys that come again, among others.
            4 => drop(changed.splice(at..at, leaf[at.min(other)..at.max(other)].iter().copied())),
            _ => changed.swap(at, other),
        }
        let decoded = Entry::decode(&changed);
        prop_assert_eq!(decoded.clone().ok(), oracle::decode(&changed).ok());
        prop_assert_eq!(Skim::read(&changed), decoded.clone().map(Skim::from));
        if let Ok(decoded) = decoded {
            let mut again = Vec::new();
            decoded.encode(&mut again);
            prop_assert_eq!(&again, &changed, "read from other bytes");
            prop_assert!(changed == leaf || decoded != entry);
        }
    }

    #[test]
    fn sealed_content_opens_with_its_key_only(key in any::<[u8; 32]>(), number in any::<u64>(), text in any::<Vec<u8>>(), id in session(), at in any::<prop::sample::Index>()) {
        let session_key = SessionKey::new(key);
        let mut sealed = seal(id, &session_key.field(number), number, &text);
        prop_assert_eq!(open(id, &session_key.field(number), &sealed).unwrap(), text);
        prop_assert_eq!(open(id, &session_key.field(number ^ 1), &sealed), Err(OpenError::WrongKey));
        let other = SessionId::from_bytes([0x5a; 16]);
        prop_assert_eq!(open(other, &session_key.field(number), &sealed), Err(OpenError::Altered));
        let mut bytes = sealed.ciphertext.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1;
        sealed.ciphertext = bytes.into();
        prop_assert_eq!(open(id, &session_key.field(number), &sealed), Err(OpenError::Altered));
    }
}

#[test]
fn chunks_open_in_their_order_and_to_their_end() {
    let (id, key) = (SessionId::from_bytes([1; 16]), SessionKey::new([2; 32]).field(3));
    let mut sealer = ChunkSealer::new(id, &key, 3);
    let (mut a, mut b) = (b"first".to_vec(), b"second".to_vec());
    sealer.seal(&mut a, Last::No);
    sealer.seal(&mut b, Last::Yes);
    let opener = || ChunkOpener::new(id, &key, 3, sealer.commitment()).unwrap();
    let mut right = opener();
    let (mut x, mut y) = (a.clone(), b.clone());
    right.open(&mut x, Last::No).unwrap();
    right.open(&mut y, Last::Yes).unwrap();
    assert_eq!((x.as_slice(), y.as_slice()), (&b"first"[..], &b"second"[..]));
    assert!(opener().open(&mut a.clone(), Last::Yes).is_err(), "cut after the first chunk");
    assert!(opener().open(&mut b.clone(), Last::No).is_err(), "out of order");
}

#[test]
fn later_versions_and_unknown_kinds_are_named() {
    assert_eq!(Entry::decode(br#"{"v":2,"k":"intent"}"#), Err(DecodeError::Version(2)));
    assert_eq!(Entry::decode(br#"{"v":1,"k":"future"}"#), Err(DecodeError::Kind("future".into())));
    let stop = br#"{"v":1,"k":"stop","t":"2026-11-22T09:35:01.123456Z","b":7,"reason":"requested"}"#;
    assert!(Entry::decode(stop).is_ok());
    for other in [
        r#"{"v":1,"k":"stop","b":7,"t":"2026-11-22T09:35:01.123456Z","reason":"requested"}"#,
        r#"{"v":1,"k":"stop","t":"2026-11-22T09:35:01.123456Z","b":7,"reason":"requested","more":1}"#,
        r#"{"v":1,"k":"stop","t":"2026-11-22T09:35:01.123456Z","b":7,"b":7,"reason":"requested"}"#,
        r#"{"v":1, "k":"stop","t":"2026-11-22T09:35:01.123456Z","b":7,"reason":"requested"}"#,
        r#"{"v":1,"k":"stop","t":"2026-11-22T09:35:01.123456Z","b":7,"reason":"\u0072equested"}"#,
    ] {
        assert_eq!(Entry::decode(other.as_bytes()), Err(DecodeError::NotCanonical), "{other}");
    }
    let malformed = |text: &str| match Entry::decode(text.as_bytes()) {
        Err(DecodeError::Malformed { kind: "stop", key }) => key,
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(malformed(r#"{"v":1,"k":"stop","t":"2026-11-22T09:35:01.12345Z","b":7,"reason":"requested"}"#), "t");
    assert_eq!(malformed(r#"{"v":1,"k":"stop","t":"2026-11-22T09:35:01.123456Z","b":7,"reason":"whim"}"#), "reason");
    for none in ["", "{", "[]", "stop", r#"{"v":1,"k":"stop","t":"2026-11-22T09:35:01.123456Z","b":7,"reason":"#] {
        assert_eq!(Entry::decode(none.as_bytes()), Err(DecodeError::NotJson), "{none}");
    }
}
