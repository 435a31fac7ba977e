//! A small log in memory, and bundles of it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io::Write as _;

use evidence::{Disclosure, Draft, Erased};
use ledger::{Checkpoint, Nodes, SignedNote, SigningKey, leaf_hash, root};
use model::seal::{CHUNK_BYTES, ChunkSealer, Last, SessionKey, seal};
use model::*;
use sha2::Digest as _;

pub const ORIGIN: &str = "gateway.example.com/1";

pub struct Log {
    pub leaves: Vec<Vec<u8>>,
    pub key: SigningKey,
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    pub sessions: BTreeMap<SessionId, Session>,
}

pub struct Session {
    pub key: SessionKey,
    hashes: Vec<Digest>,
    fields: u64,
    intents: u32,
}

impl Nodes for &Log {
    type Error = Infallible;

    fn node(&mut self, level: u8, index: u64) -> Result<Digest, Infallible> {
        let first = (index as usize) << level;
        let hashes: Vec<_> = self.leaves[first..first + (1 << level)].iter().map(|leaf| leaf_hash(leaf)).collect();
        Ok(root(&hashes))
    }
}

pub fn id(n: u8) -> SessionId {
    SessionId::new(1_763_804_101_000, [n; 10])
}

impl Log {
    pub fn new() -> Self {
        let key = SigningKey::new(ORIGIN, &[1; 32]).unwrap();
        let mut log = Self { leaves: Vec::new(), key, blobs: BTreeMap::new(), sessions: BTreeMap::new() };
        log.push(Body::Genesis(Genesis {
            origin: ORIGIN.into(),
            vkey: log.key.verifier().to_string(),
            program: "onrecord 0.1.0".into(),
            previous: None,
        }));
        log.push(Body::Start(Start {
            boot_id: "b".into(),
            program: "onrecord 0.1.0".into(),
            configuration: None,
            clock: ClockState::Synchronized,
        }));
        log
    }

    /// The time of the next entry, microseconds since 1970.
    pub fn now_us(&self) -> i64 {
        1_763_804_101_000_000 + self.leaves.len() as i64 * 1000
    }

    pub fn push(&mut self, body: Body) -> Digest {
        let n = self.leaves.len() as u64;
        let entry = Entry { time: Time { wall_us: self.now_us(), boot_us: 5 + n * 1000 }, body };
        let mut leaf = Vec::new();
        entry.encode(&mut leaf);
        let hash = leaf_hash(&leaf);
        self.leaves.push(leaf);
        hash
    }

    fn link(&self, session: SessionId) -> Link {
        let hashes = &self.sessions[&session].hashes;
        Link { session, number: hashes.len() as u32, previous: hashes.last().copied() }
    }

    fn push_linked(&mut self, session: SessionId, body: Body) -> Digest {
        let hash = self.push(body);
        self.sessions.get_mut(&session).unwrap().hashes.push(hash);
        hash
    }

    pub fn open(&mut self, n: u8, connection: &str) -> SessionId {
        let session = id(n);
        let key = SessionKey::new([n; 32]);
        let key_commitment = key.commitment(session);
        self.sessions.insert(session, Session { key, hashes: Vec::new(), fields: 0, intents: 0 });
        let identity = Identity {
            name: "agent:copilot-agent".parse().unwrap(),
            known: Known::Verified,
            proof: Proof {
                method: ProofMethod::ScramSha256,
                channel: ChannelBinding::None,
                credential: "copilot-agent/1".into(),
                evidence: None,
            },
            on_behalf_of: None,
            groups: Vec::new(),
            run: None,
        };
        let open = SessionOpen {
            link: self.link(session),
            identity,
            connection: connection.into(),
            database: Some(Label::new(b"app")),
            upstream_user: "app_owner".into(),
            protocol: "postgres".into(),
            client: "127.0.0.1:50000".into(),
            tls: None,
            claims: vec![],
            durability: Durability::Intent,
            key_slot: n.into(),
            key_commitment,
            upstream: None,
            outpost: None,
        };
        self.push_linked(session, Body::SessionOpen(open));
        session
    }

    /// A person, as an issuer's token says.
    pub fn person(name: &str) -> Identity {
        let (method, channel) = (ProofMethod::Jwt, ChannelBinding::None);
        let proof = Proof { method, channel, credential: "sso".into(), evidence: None };
        let (name, known) = (name.parse().unwrap(), Known::Verified);
        Identity { name, known, proof, on_behalf_of: None, groups: Vec::new(), run: None }
    }

    pub fn sealed(&mut self, session: SessionId, content: &[u8]) -> Field {
        let of = self.sessions.get_mut(&session).unwrap();
        of.fields += 1;
        Field::Sealed(seal(session, &of.key.field(of.fields), of.fields, content))
    }

    /// A field whose content is in a blob.
    pub fn blob(&mut self, session: SessionId, content: &[u8], packing: Option<Packing>) -> Field {
        let of = self.sessions.get_mut(&session).unwrap();
        let number = of.fields + 1;
        of.fields += 2;
        let packed = match packing {
            None => content.to_vec(),
            Some(Packing::Deflate) => {
                let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(content).unwrap();
                encoder.finish().unwrap()
            }
        };
        let mut sealer = ChunkSealer::new(session, &of.key.field(number), number);
        let mut bytes = Vec::new();
        let mut chunks = packed.chunks(CHUNK_BYTES).peekable();
        while let Some(chunk) = chunks.next() {
            let mut chunk = chunk.to_vec();
            sealer.seal(&mut chunk, if chunks.peek().is_none() { Last::Yes } else { Last::No });
            bytes.extend(chunk);
        }
        let sha256 = Digest(sha2::Sha256::digest(&bytes).into());
        let head = &content[..content.len().min(100)];
        let field = BlobField {
            number,
            length: content.len() as u64,
            commitment: sealer.commitment(),
            sha256,
            bytes: bytes.len() as u64,
            form: BlobForm::Text,
            packing,
            head: seal(session, &of.key.field(number + 1), number + 1, head),
        };
        self.blobs.insert(sha256, bytes);
        Field::Blob(field)
    }

    pub fn intent(&mut self, session: SessionId, text: Field, parameters: Field) -> CommandId {
        self.intent_with(session, text, parameters, |_| {}).0
    }

    /// A command that waits for an approval, its own or another's, and the leaf hash of its intent.
    pub fn held(&mut self, session: SessionId, approval: Option<CommandId>) -> (CommandId, Digest) {
        let text = self.sealed(session, b"drop table users");
        self.intent_with(session, text, Field::NONE, |intent| {
            (intent.verdict, intent.approval) = (Verdict::Hold, approval);
        })
    }

    pub fn glass_step(&mut self, id: BreakGlassId, step: BreakGlassStep) {
        self.push(Body::BreakGlass(BreakGlass { id, step }));
    }

    /// A command of the human `cy`, who has broken this glass.
    pub fn under(&mut self, session: SessionId, id: BreakGlassId) -> CommandId {
        let text = self.sealed(session, b"drop table users");
        let (command, _) = self.intent_with(session, text, Field::NONE, |intent| {
            intent.who.name = "human:cy".parse().unwrap();
            (intent.observed, intent.break_glass) = (Some(Verdict::Hold), Some(id));
        });
        command
    }

    pub fn step(&mut self, of: CommandId, step: ApprovalStep) -> Digest {
        self.push(Body::Approval(Approval { of, step }))
    }

    fn intent_with(
        &mut self,
        session: SessionId,
        text: Field,
        parameters: Field,
        change: impl FnOnce(&mut Intent),
    ) -> (CommandId, Digest) {
        let link = self.link(session);
        let of = self.sessions.get_mut(&session).unwrap();
        of.intents += 1;
        let command = CommandId { session, ordinal: of.intents };
        let mut intent = Intent {
            link,
            command,
            who: Who { name: "agent:copilot-agent".parse().unwrap(), known: Known::Verified, on_behalf_of: None },
            connection: "app".into(),
            database: Some(Label::new(b"app")),
            via: Via::Simple,
            text,
            parameters,
            statement: None,
            portal: None,
            transaction: Some(Transaction::Idle),
            effects: Effects::NotEstablished,
            fidelity: Fidelity::Exact,
            verdict: Verdict::Allow,
            rules: vec![],
            policy: None,
            observed: None,
            approval: None,
            break_glass: None,
            durability: Durability::Intent,
            bytes: 20,
            upstream: None,
        };
        change(&mut intent);
        let hash = self.push_linked(session, Body::Intent(intent));
        (command, hash)
    }

    pub fn outcome(&mut self, of: CommandId, status: Status, message: Field) {
        self.ended(of, status, message, true);
    }

    pub fn ended(&mut self, of: CommandId, status: Status, message: Field, executed: bool) {
        self.ended_with(of, status, message, executed, None);
    }

    /// The end of a program that wrote this.
    pub fn wrote(&mut self, of: CommandId, content: Field) {
        let transcript = Transcript { content, stdin: 0, stdout: 9, stderr: 0, kept: 9 };
        self.ended_with(of, Status::Ok, Field::NONE, true, Some(transcript));
    }

    fn ended_with(
        &mut self,
        of: CommandId,
        status: Status,
        message: Field,
        executed: bool,
        transcript: Option<Transcript>,
    ) {
        let outcome = Outcome {
            link: self.link(of.session),
            of,
            status,
            reason: None,
            code: (status == Status::Error).then(|| "42703".into()),
            message,
            results: vec![],
            results_count: 0,
            rows: 0,
            bytes_up: 20,
            bytes_down: 30,
            duration_us: 500,
            copy: None,
            fetches: 1,
            suspended: false,
            effective: Effective::Committed,
            notices: 0,
            executed,
            transcript,
            file: None,
        };
        self.push_linked(of.session, Body::Outcome(outcome));
    }

    pub fn close(&mut self, session: SessionId) {
        let of = &self.sessions[&session];
        let close = SessionClose {
            link: self.link(session),
            reason: SessionEnd::ClientClosed,
            intents: of.intents,
            outcomes: of.intents,
            bytes_up: 1,
            bytes_down: 2,
            root: Some(root(&of.hashes)),
        };
        self.push_linked(session, Body::SessionClose(close));
    }

    pub fn heartbeat(&mut self) {
        self.push(Body::Heartbeat(Heartbeat {
            clock: ClockState::Synchronized,
            sessions: 1,
            commands: 1,
            refused: 0,
            bytes_up: 0,
            bytes_down: 0,
        }));
    }

    pub fn erase(&mut self, session: SessionId, fields: Option<Vec<u64>>) {
        self.push(Body::Erase(Erase {
            session,
            connection: "app".into(),
            identity: "agent:copilot-agent".parse().unwrap(),
            fields,
            cause: EraseCause::Request,
            reason: "asked for".into(),
            by: Actor { name: "uid:1000".into(), known: Known::Verified },
        }));
    }

    pub fn note(&self) -> String {
        let hashes: Vec<_> = self.leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
        let checkpoint = Checkpoint { origin: ORIGIN.into(), size: hashes.len() as u64, root: root(&hashes) };
        checkpoint.sign(&self.key).unwrap()
    }

    pub fn cosigned(&self, witness: &ledger::CosignerKey) -> String {
        let mut note = SignedNote::parse(&self.note()).unwrap();
        let line = witness.cosign(note.text(), 1_763_804_200).unwrap();
        note.add(line);
        note.to_string()
    }

    pub fn entries(&self) -> Vec<Entry> {
        self.leaves.iter().map(|leaf| Entry::decode(leaf).unwrap()).collect()
    }

    /// A draft of these commands: what an exporter would put together.
    pub fn draft(&self, commands: &[CommandId], withheld: &[ContentKind]) -> Draft {
        let mut selected: BTreeMap<SessionId, BTreeSet<u32>> = BTreeMap::new();
        for command in commands {
            selected.entry(command.session).or_default().insert(command.ordinal);
        }
        let withheld: BTreeSet<ContentKind> = withheld.iter().copied().collect();
        let mut sessions: BTreeSet<SessionId> = selected.keys().copied().collect();
        for entry in self.entries() {
            if let Body::Approval(Approval { of, step: ApprovalStep::Used { command } }) = entry.body
                && sessions.contains(&command.session)
            {
                sessions.insert(of.session);
            }
        }
        let mut entries = BTreeMap::new();
        for (index, (leaf, entry)) in self.leaves.iter().zip(self.entries()).enumerate() {
            let wanted = match entry.body.link() {
                Some(link) => sessions.contains(&link.session),
                None => entry.body.kind() != Kind::Heartbeat,
            };
            if wanted {
                entries.insert(index as u64, leaf.clone());
            }
        }
        let plain: Vec<Entry> = entries.values().map(|leaf| Entry::decode(leaf).unwrap()).collect();
        let disclosure = Disclosure::new(plain.iter(), &selected, &withheld);
        let erased = Erased::new(plain.iter());
        let whole = |session: SessionId| erased.has(session, &Field::Absent(AbsentReason::None));
        let keys = disclosure.fields.iter().filter(|(session, _)| !whole(*session));
        let blobs = disclosure.blobs.iter().filter(|(_, (session, _))| !whole(*session));
        Draft {
            program: "onrecord 0.1.0".into(),
            key: self.key.verifier(),
            checkpoint: self.note(),
            selection: "--session X".into(),
            withheld,
            commands: selected.clone(),
            keys: keys.map(|(session, n)| ((*session, *n), self.sessions[session].key.field(*n))).collect(),
            blobs: blobs.map(|(sha256, _)| (*sha256, self.blobs[sha256].clone())).collect(),
            entries,
            policy: None,
            page: b"<!doctype html>".to_vec(),
        }
    }

    pub fn build(&self, draft: &Draft) -> Vec<u8> {
        draft.build(&mut &*self).unwrap()
    }
}

/// Two sessions whose entries are mixed, with long content, packed and not, an error, and parameters.
pub fn log() -> (Log, Vec<CommandId>) {
    let mut log = Log::new();
    let (a, b) = (log.open(1, "app"), log.open(2, "app"));
    let mut commands = Vec::new();
    let text = log.sealed(a, b"select count(*) from orders");
    let one = log.intent(a, text, Field::NONE);
    log.heartbeat();
    let text = log.sealed(b, b"update orders set status = $1");
    let parameters = log.sealed(b, br#"[{"type":"text","value":"shipped"}]"#);
    let two = log.intent(b, text.clone(), parameters);
    log.outcome(one, Status::Ok, Field::NONE);
    let message = log.sealed(b, b"permission denied for orders");
    log.outcome(two, Status::Error, message);
    // The same sealed text again, as a prepared statement has it.
    let parameters = log.sealed(b, br#"[{"type":"text","value":"open"}]"#);
    let three = log.intent(b, text, parameters);
    log.outcome(three, Status::Ok, Field::NONE);
    let long = log.blob(a, &b"insert into t values (1); ".repeat(20), Some(Packing::Deflate));
    let four = log.intent(a, long, Field::NONE);
    let output = log.sealed(a, b"\x01\x00\x09INSERT 20");
    log.wrote(four, output);
    let long = log.blob(a, &b"select 'x' ".repeat(12), None);
    let five = log.intent(a, long, Field::NONE);
    log.outcome(five, Status::Ok, Field::NONE);
    log.close(a);
    log.close(b);
    commands.extend([one, two, three, four, five]);
    log.heartbeat();
    (log, commands)
}
