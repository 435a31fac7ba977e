//! Entry to bytes. The order of keys is part of the format; `docs/format.md` has it.

use crate::access::*;
use crate::approval::*;
use crate::break_glass::*;
use crate::command::*;
use crate::custody::*;
use crate::entry::*;
use crate::json::{Json, decimal};
use crate::passkey::*;
use crate::{
    BlobField, CertificateEvidence, Claim, CommandId, Digest, Evidence, Field, Identity, Label, OnBehalfOf, Proof,
    SealedField, Time, TokenEvidence, write_wall,
};

impl Entry {
    /// Appends the entry's bytes: one JSON object without a newline. The caller checks the length against
    /// [`LEAF_BYTES_MAX`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut json = Json::new(out);
        let j = &mut json;
        j.raw(b"{\"v\":1,\"k\":\"").raw(self.body.kind().as_str().as_bytes()).raw(b"\"");
        match &self.body {
            Body::Genesis(b) => genesis(j, self.time, b),
            Body::Start(b) => start(j, self.time, b),
            Body::Stop(b) => stop(j, self.time, b),
            Body::Recovery(b) => recovery(j, self.time, b),
            Body::Heartbeat(b) => heartbeat(j, self.time, b),
            Body::SessionOpen(b) => session_open(j, self.time, b),
            Body::SessionClose(b) => session_close(j, self.time, b),
            Body::Intent(b) => intent(j, self.time, b),
            Body::Outcome(b) => outcome(j, self.time, b),
            Body::Refused(b) => refused(j, self.time, b),
            Body::Cancel(b) => cancel(j, self.time, b),
            Body::Erase(b) => erase(j, self.time, b),
            Body::Hold(b) => hold(j, self.time, b),
            Body::Witnesses(b) => witnesses(j, self.time, b),
            Body::Export(b) => export(j, self.time, b),
            Body::Configuration(b) => configuration(j, self.time, b),
            Body::IssuerKey(b) => issuer_key(j, self.time, b),
            Body::Token(b) => token(j, self.time, b),
            Body::Revocation(b) => revocation(j, self.time, b),
            Body::Shared(b) => shared(j, self.time, b),
            Body::Outpost(b) => outpost(j, self.time, b),
            Body::Approval(b) => approval(j, self.time, b),
            Body::Passkey(b) => passkey(j, self.time, b),
            Body::BreakGlass(b) => break_glass(j, self.time, b),
            Body::Oversight(b) => oversight(j, self.time, b),
        }
        j.raw(b"}");
    }
}

fn time(j: &mut Json<'_>, time: Time) {
    j.key("t").raw(b"\"");
    write_wall(time.wall_us, j.out());
    j.raw(b"\"").key("b").number(time.boot_us);
}

fn genesis(j: &mut Json<'_>, t: Time, b: &Genesis) {
    time(j, t);
    j.key("origin").string(&b.origin).key("vkey").string(&b.vkey).key("program").string(&b.program);
    if let Some(previous) = &b.previous {
        j.key("previous").raw(b"{").key("origin").string(&previous.origin).key("vkey").string(&previous.vkey);
        j.key("size").number(previous.size).key("root").base64(&previous.root.0);
        if let Some(witnessed) = previous.witnessed {
            j.key("witnessed").number(witnessed);
        }
        j.key("reason").plain(previous.reason.as_str().as_bytes()).raw(b"}");
    }
}

fn stop(j: &mut Json<'_>, t: Time, b: &Stop) {
    time(j, t);
    j.key("reason").string(b.reason.as_str());
    if let Some(next) = &b.next {
        j.key("next").string(next);
    }
}

fn start(j: &mut Json<'_>, t: Time, b: &Start) {
    time(j, t);
    j.key("boot_id").string(&b.boot_id).key("program").string(&b.program);
    digest(j, "configuration", b.configuration.as_ref());
    j.key("clock").string(b.clock.as_str());
}

fn recovery(j: &mut Json<'_>, t: Time, b: &Recovery) {
    time(j, t);
    j.key("entries").number(b.entries).key("loss").string(b.loss.as_str());
    j.key("torn_bytes").number(b.torn_bytes).key("commands_unknown").number(b.commands_unknown);
    j.key("sessions_lost").number(b.sessions_lost);
}

fn heartbeat(j: &mut Json<'_>, t: Time, b: &Heartbeat) {
    time(j, t);
    j.key("clock").string(b.clock.as_str()).key("sessions").number(b.sessions);
    j.key("commands").number(b.commands).key("refused").number(b.refused);
    j.key("bytes_up").number(b.bytes_up).key("bytes_down").number(b.bytes_down);
}

fn session_open(j: &mut Json<'_>, t: Time, b: &SessionOpen) {
    link(j, &b.link);
    time(j, t);
    identity(j, &b.identity);
    j.key("connection").string(&b.connection);
    optional_label(j, "database", b.database.as_ref());
    j.key("upstream_user").string(&b.upstream_user).key("protocol").string(&b.protocol);
    j.key("client").string(&b.client).key("tls");
    match &b.tls {
        Some(tls) => j.string(tls),
        None => j.null(),
    };
    j.key("claims").raw(b"[");
    for (i, Claim { name, value }) in b.claims.iter().enumerate() {
        j.raw(if i == 0 { b"[" } else { b",[" });
        label(j, name);
        j.raw(b",");
        label(j, value);
        j.raw(b"]");
    }
    j.raw(b"]").key("durability").string(b.durability.as_str());
    j.key("key_slot").number(b.key_slot).key("key_commitment").base64(&b.key_commitment.0);
    if let Some(upstream) = b.upstream {
        j.key("upstream").string(upstream.as_str());
    }
    if let Some(outpost) = &b.outpost {
        j.key("outpost").raw(b"{").key("id").string(&outpost.id).key("name").string(&outpost.name).raw(b"}");
    }
}

fn session_close(j: &mut Json<'_>, t: Time, b: &SessionClose) {
    link(j, &b.link);
    time(j, t);
    j.key("reason").string(b.reason.as_str()).key("intents").number(b.intents.into());
    j.key("outcomes").number(b.outcomes.into());
    j.key("bytes_up").number(b.bytes_up).key("bytes_down").number(b.bytes_down);
    if let Some(root) = &b.root {
        j.key("root").base64(&root.0);
    }
}

fn intent(j: &mut Json<'_>, t: Time, b: &Intent) {
    command(j, "id", b.command);
    link(j, &b.link);
    time(j, t);
    j.key("who").raw(b"{").key("name").plain(b.who.name.as_str().as_bytes());
    j.key("known").plain(b.who.known.as_str().as_bytes());
    on_behalf_of(j, b.who.on_behalf_of.as_ref());
    j.raw(b"}").key("connection").string(&b.connection);
    optional_label(j, "database", b.database.as_ref());
    j.key("via").plain(b.via.as_str().as_bytes());
    field(j, "text", &b.text);
    field(j, "parameters", &b.parameters);
    optional_label(j, "statement", b.statement.as_ref());
    optional_label(j, "portal", b.portal.as_ref());
    if let Some(transaction) = b.transaction {
        j.key("transaction").plain(transaction.as_str().as_bytes());
    }
    effects(j, &b.effects);
    j.key("fidelity").plain(b.fidelity.as_str().as_bytes()).key("verdict").plain(b.verdict.as_str().as_bytes());
    j.key("rules").raw(b"[");
    for (i, rule) in b.rules.iter().enumerate() {
        if i > 0 {
            j.raw(b",");
        }
        j.string(rule);
    }
    j.raw(b"]");
    digest(j, "policy", b.policy.as_ref());
    if let Some(observed) = b.observed {
        j.key("observed").plain(observed.as_str().as_bytes());
    }
    if let Some(approval) = b.approval {
        command(j, "approval", approval);
    }
    if let Some(id) = b.break_glass {
        j.key("break_glass").plain(id.text().as_ref());
    }
    j.key("durability").plain(b.durability.as_str().as_bytes()).key("bytes").number(b.bytes);
    if let Some(upstream) = b.upstream {
        j.key("upstream").plain(upstream.as_str().as_bytes());
    }
}

fn effects(j: &mut Json<'_>, b: &Effects) {
    let Effects::Established(facts) = b else {
        j.key("effects").raw(b"{").key("state").plain(b"not_established").raw(b"}");
        return;
    };
    j.key("effects").raw(b"{").key("state").plain(b"established");
    j.key("operation").plain(facts.operation.as_str().as_bytes());
    words(j, "operations", facts.operations.iter().map(|word| word.as_str()));
    words(j, "effects", facts.effects.iter().map(|word| word.as_str()));
    j.key("relations").raw(b"[");
    for (i, relation) in facts.relations.iter().enumerate() {
        if i > 0 {
            j.raw(b",");
        }
        j.raw(b"{");
        if let Some(schema) = &relation.schema {
            j.key("schema").string(schema);
        }
        j.key("name").string(&relation.name);
        words(j, "access", relation.access.iter().map(|word| word.as_str()));
        j.raw(b"}");
    }
    j.raw(b"]").key("functions").raw(b"[");
    for (i, function) in facts.functions.iter().enumerate() {
        if i > 0 {
            j.raw(b",");
        }
        j.string(function);
    }
    j.raw(b"]").key("bounded").truth(facts.bounded);
    if let Some(fingerprint) = &facts.fingerprint {
        j.key("fingerprint").base64(&fingerprint.0);
    }
    words(j, "opaque", facts.opaque.iter().map(|word| word.as_str()));
    j.raw(b"}");
}

/// A list of words of closed sets.
fn words<'a>(j: &mut Json<'_>, key: &str, list: impl Iterator<Item = &'a str>) {
    j.key(key).raw(b"[");
    for (i, word) in list.enumerate() {
        if i > 0 {
            j.raw(b",");
        }
        j.plain(word.as_bytes());
    }
    j.raw(b"]");
}

fn outcome(j: &mut Json<'_>, t: Time, b: &Outcome) {
    command(j, "of", b.of);
    link(j, &b.link);
    time(j, t);
    j.key("status").plain(b.status.as_str().as_bytes());
    if let Some(reason) = b.reason {
        j.key("reason").plain(reason.as_str().as_bytes());
    }
    if let Some(code) = &b.code {
        j.key("code").string(code);
    }
    field(j, "message", &b.message);
    j.key("results").raw(b"[");
    for (i, result) in b.results.iter().enumerate() {
        j.raw(if i == 0 { b"{" } else { b",{" }).key("tag").string(&result.tag);
        if let Some(rows) = result.rows {
            j.key("rows").number(rows);
        }
        j.raw(b"}");
    }
    j.raw(b"]").key("results_count").number(b.results_count).key("rows").number(b.rows);
    j.key("bytes_up").number(b.bytes_up).key("bytes_down").number(b.bytes_down);
    j.key("duration_us").number(b.duration_us);
    if let Some(copy) = &b.copy {
        j.key("copy").raw(b"{").key("direction").plain(copy.direction.as_str().as_bytes());
        j.key("bytes").number(copy.bytes).raw(b"}");
    }
    j.key("fetches").number(b.fetches.into()).key("suspended").truth(b.suspended);
    j.key("effective").plain(b.effective.as_str().as_bytes()).key("notices").number(b.notices.into());
    j.key("executed").truth(b.executed);
    if let Some(transcript) = &b.transcript {
        j.key("transcript").raw(b"{");
        field(j, "content", &transcript.content);
        j.key("stdin").number(transcript.stdin).key("stdout").number(transcript.stdout);
        j.key("stderr").number(transcript.stderr).key("kept").number(transcript.kept).raw(b"}");
    }
    if let Some(file) = &b.file {
        j.key("file").raw(b"{").key("read").number(file.read).key("written").number(file.written);
        field(j, "sha256", &file.sha256);
        j.raw(b"}");
    }
}

fn optional_label(j: &mut Json<'_>, key: &str, it: Option<&Label>) {
    if let Some(it) = it {
        label(j.key(key), it);
    }
}

fn refused(j: &mut Json<'_>, t: Time, b: &Refused) {
    time(j, t);
    j.key("reason").string(b.reason.as_str()).key("source").string(&b.source).key("count").number(b.count);
    j.key("first").raw(b"\"");
    write_wall(b.first_us, j.out());
    j.raw(b"\"");
    optional_label(j, "user", b.user.as_ref());
    optional_label(j, "connection", b.connection.as_ref());
}

fn cancel(j: &mut Json<'_>, t: Time, b: &Cancel) {
    time(j, t);
    j.key("session");
    match b.session {
        Some(session) => j.plain(&session.text()),
        None => j.null(),
    };
    j.key("source").string(&b.source).key("result").string(b.result.as_str()).key("count").number(b.count);
}

fn erase(j: &mut Json<'_>, t: Time, b: &Erase) {
    time(j, t);
    j.key("session").plain(&b.session.text()).key("connection").string(&b.connection);
    j.key("identity").string(b.identity.as_str());
    if let Some(fields) = &b.fields {
        j.key("fields").raw(b"[");
        for (i, field) in fields.iter().enumerate() {
            j.raw(if i == 0 { b"" } else { b"," });
            decimal(*field, j.out());
        }
        j.raw(b"]");
    }
    j.key("cause").string(b.cause.as_str()).key("reason").string(&b.reason);
    actor(j, &b.by);
}

fn hold(j: &mut Json<'_>, t: Time, b: &Hold) {
    time(j, t);
    j.key("hold").string(&b.hold).key("action").string(b.action.as_str());
    if let Some(session) = b.session {
        j.key("session").plain(&session.text());
    }
    if let Some(connection) = &b.connection {
        j.key("connection").string(connection);
    }
    if let Some(identity) = &b.identity {
        j.key("identity").string(identity.as_str());
    }
    j.key("reason").string(&b.reason);
    actor(j, &b.by);
}

fn witnesses(j: &mut Json<'_>, t: Time, b: &Witnesses) {
    time(j, t);
    j.key("size").number(b.size);
    if let Some(enough) = b.enough {
        j.key("enough").number(enough);
    }
    j.key("witnesses").raw(b"[");
    for (i, witness) in b.witnesses.iter().enumerate() {
        j.raw(if i == 0 { b"{" } else { b",{" }).key("name").string(&witness.name);
        j.key("state").string(witness.state.as_str());
        if let Some(size) = witness.size {
            j.key("size").number(size);
        }
        j.raw(b"}");
    }
    j.raw(b"]");
}

fn export(j: &mut Json<'_>, t: Time, b: &Export) {
    time(j, t);
    actor(j, &b.by);
    j.key("selection").string(&b.selection).key("entries").number(b.entries);
    j.key("disclosed").number(b.disclosed).key("sha256").base64(&b.sha256.0);
}

fn actor(j: &mut Json<'_>, by: &Actor) {
    j.key("by").raw(b"{").key("name").string(&by.name).key("known").string(by.known.as_str()).raw(b"}");
}

fn command(j: &mut Json<'_>, key: &str, id: CommandId) {
    j.key(key).raw(b"\"").raw(&id.session.text()).raw(b".");
    decimal(id.ordinal.into(), j.out());
    j.raw(b"\"");
}

fn link(j: &mut Json<'_>, link: &Link) {
    j.key("s").plain(&link.session.text()).key("n").number(link.number.into());
    digest(j, "prev", link.previous.as_ref());
}

fn digest(j: &mut Json<'_>, key: &str, digest: Option<&Digest>) {
    j.key(key);
    match digest {
        Some(digest) => j.base64(&digest.0),
        None => j.null(),
    };
}

fn label(j: &mut Json<'_>, label: &Label) {
    match label {
        Label::Text(text) => j.string(text),
        Label::Digest { sha256, bytes } => {
            j.raw(b"{").key("sha256").plain(sha256.hex().as_bytes()).key("bytes").number(*bytes).raw(b"}")
        }
    };
}

fn identity(j: &mut Json<'_>, b: &Identity) {
    j.key("identity").raw(b"{").key("name").string(b.name.as_str()).key("known").string(b.known.as_str());
    proof(j, &b.proof);
    on_behalf_of(j, b.on_behalf_of.as_ref());
    strings_unless_empty(j, "groups", &b.groups);
    if let Some(run) = &b.run {
        j.key("run").raw(b"{").key("id").string(&run.id).key("known").string(run.known.as_str()).raw(b"}");
    }
    j.raw(b"}");
}

fn proof(j: &mut Json<'_>, b: &Proof) {
    j.key("proof").raw(b"{").key("method").string(b.method.as_str());
    j.key("channel").string(b.channel.as_str()).key("credential").string(&b.credential);
    match &b.evidence {
        Some(Evidence::Token(token)) => token_evidence(j, token),
        Some(Evidence::Certificate(certificate)) => certificate_evidence(j, certificate),
        None => {}
    }
    j.raw(b"}");
}

fn token_evidence(j: &mut Json<'_>, b: &TokenEvidence) {
    j.key("token").raw(b"{").key("iss").string(&b.issuer).key("sub").string(&b.subject);
    strings(j, "aud", &b.audience);
    optional_string(j, "client", b.client.as_deref());
    optional_string(j, "jti", b.jti.as_deref());
    optional_number(j, "iat", b.issued);
    optional_number(j, "nbf", b.not_before);
    j.key("exp").number(b.expires);
    optional_number(j, "auth_time", b.auth_time);
    optional_string(j, "acr", b.acr.as_deref());
    strings_unless_empty(j, "amr", &b.amr);
    strings_unless_empty(j, "act", &b.actors);
    optional_string(j, "cnf", b.confirmation.as_deref());
    optional_string(j, "kid", b.kid.as_deref());
    j.key("alg").string(&b.algorithm).key("key").base64(&b.key.0).key("keys").base64(&b.keys.0);
    j.key("keys_fetched").number(b.keys_fetched).key("sha256").base64(&b.token.0);
    j.key("rule").string(&b.rule).key("rules").base64(&b.rules.0);
    if !b.claims.is_empty() {
        j.key("claims").raw(b"[");
        for (i, (name, value)) in b.claims.iter().enumerate() {
            j.raw(if i == 0 { b"[" } else { b",[" }).string(name).raw(b",").string(value).raw(b"]");
        }
        j.raw(b"]");
    }
    j.key("verified").number(b.verified).raw(b"}");
}

fn certificate_evidence(j: &mut Json<'_>, b: &CertificateEvidence) {
    j.key("certificate").raw(b"{").key("subject").string(&b.subject);
    strings_unless_empty(j, "names", &b.names);
    j.key("issuer").string(&b.issuer).key("serial").string(&b.serial);
    j.key("not_before").number(b.not_before).key("not_after").number(b.not_after).key("sha256").base64(&b.sha256.0);
    j.key("rule").string(&b.rule).key("rules").base64(&b.rules.0).raw(b"}");
}

fn configuration(j: &mut Json<'_>, t: Time, b: &Configuration) {
    time(j, t);
    j.key("result").string(b.result.as_str()).key("cause").string(b.cause.as_str());
    j.key("configuration").base64(&b.configuration.0);
    if let Some(refused) = &b.refused {
        j.key("refused").base64(&refused.0);
    }
    optional_string(j, "reason", b.reason.as_deref());
    j.key("sessions_ended").number(b.sessions_ended);
}

fn issuer_key(j: &mut Json<'_>, t: Time, b: &IssuerKey) {
    time(j, t);
    j.key("iss").string(&b.issuer);
    optional_string(j, "kid", b.kid.as_deref());
    j.key("thumbprint").base64(&b.thumbprint.0).key("jwk").string(&b.jwk);
}

fn token(j: &mut Json<'_>, t: Time, b: &Token) {
    time(j, t);
    j.key("action").string(b.action.as_str()).key("id").string(&b.id);
    identity(j, &b.identity);
    match &b.opens {
        Opens::Connection(connection) => {
            j.key("connection").string(connection);
        }
        Opens::Ssh { connections, key } => {
            strings(j, "connections", connections);
            j.key("key").string(key);
        }
    }
    j.key("expires").raw(b"\"");
    write_wall(b.expires_us, j.out());
    j.raw(b"\"");
    optional_string(j, "client", b.client.as_deref());
}

fn revocation(j: &mut Json<'_>, t: Time, b: &Revocation) {
    time(j, t);
    j.key("action").string(b.action.as_str()).key("identity").string(b.identity.as_str());
    j.key("sessions").number(b.sessions).key("tokens").number(b.tokens).key("reason").string(&b.reason);
    actor(j, &b.by);
}

fn oversight(j: &mut Json<'_>, t: Time, b: &Oversight) {
    time(j, t);
    j.key("action").string(b.action.as_str()).key("session").plain(&b.session.text());
    if let Some(watched) = b.command {
        command(j, "command", watched);
    }
    optional_string(j, "reason", b.reason.as_deref());
    actor(j, &b.by);
}

fn shared(j: &mut Json<'_>, t: Time, b: &Shared) {
    time(j, t);
    j.key("identity").string(b.identity.as_str()).key("credential").string(&b.credential);
    strings(j, "sources", &b.sources);
    strings_unless_empty(j, "runs", &b.runs);
    j.key("sessions").number(b.sessions);
}

fn outpost(j: &mut Json<'_>, t: Time, b: &Outpost) {
    time(j, t);
    j.key("action").string(b.action.as_str()).key("id").string(&b.id).key("name").string(&b.name);
    strings_unless_empty(j, "labels", &b.labels);
    optional_string(j, "address", b.address.as_deref());
    optional_string(j, "serial", b.serial.as_deref());
    optional_string(j, "reason", b.reason.as_deref());
    if let Some(by) = &b.by {
        actor(j, by);
    }
}

fn approval(j: &mut Json<'_>, t: Time, b: &Approval) {
    command(j, "of", b.of);
    time(j, t);
    j.key("step").string(b.step.word().as_str());
    match &b.step {
        ApprovalStep::Requested(request) => {
            j.key("intent").base64(&request.intent.0).key("connection").string(&request.connection);
            optional_label(j, "database", request.database.as_ref());
            j.key("role").string(&request.role).key("policy").base64(&request.policy.0);
            j.key("quorum").number(request.quorum).key("signed").truth(request.signed).key("expires").raw(b"\"");
            write_wall(request.expires_us, j.out());
            j.raw(b"\"").key("nonce").base64(&request.nonce.0);
        }
        ApprovalStep::Seen { by } => identity(j, by),
        ApprovalStep::Decided(vote) => {
            j.key("decision").string(vote.decision.as_str()).key("request").base64(&vote.request.0);
            identity(j, &vote.by);
            optional_string(j, "comment", vote.comment.as_deref());
            if let Some(signature) = &vote.signature {
                j.key("signature");
                assertion(j, signature);
            }
        }
        ApprovalStep::Used { command: used } => command(j, "command", *used),
        ApprovalStep::Ended { how } => {
            j.key("how").string(how.as_str());
        }
    }
}

fn assertion(j: &mut Json<'_>, b: &Assertion) {
    j.raw(b"{").key("credential").string(&b.credential).key("authenticator_data").base64(&b.authenticator_data);
    j.key("client_data").base64(&b.client_data).key("signature").base64(&b.signature).raw(b"}");
}

fn passkey(j: &mut Json<'_>, t: Time, b: &Passkey) {
    time(j, t);
    j.key("action").string(b.action.as_str());
    identity(j, &b.identity);
    j.key("credential").string(&b.credential).key("algorithm").string(b.algorithm.as_str());
    j.key("public_key").base64(&b.public_key).key("rp_id").string(&b.rp_id).key("origin").string(&b.origin);
    j.key("aaguid").string(&b.aaguid);
}

fn break_glass(j: &mut Json<'_>, t: Time, b: &BreakGlass) {
    j.key("id").plain(b.id.text().as_ref());
    time(j, t);
    j.key("step").string(b.step.word().as_str());
    match &b.step {
        BreakGlassStep::Opened(opening) => {
            j.key("connection").string(&opening.connection);
            identity(j, &opening.by);
            j.key("reason").string(&opening.reason).key("until").raw(b"\"");
            write_wall(opening.until_us, j.out());
            j.raw(b"\"");
        }
        BreakGlassStep::Closed { how, by } => {
            j.key("how").string(how.as_str());
            if let Some(by) = by {
                identity(j, by);
            }
        }
        BreakGlassStep::Reviewed(review) => {
            identity(j, &review.by);
            j.key("finding").string(review.finding.as_str()).key("comment").string(&review.comment);
        }
    }
}

fn optional_string(j: &mut Json<'_>, key: &str, value: Option<&str>) {
    if let Some(value) = value {
        j.key(key).string(value);
    }
}

fn optional_number(j: &mut Json<'_>, key: &str, value: Option<u64>) {
    if let Some(value) = value {
        j.key(key).number(value);
    }
}

fn strings(j: &mut Json<'_>, key: &str, values: &[String]) {
    j.key(key).raw(b"[");
    for (i, value) in values.iter().enumerate() {
        j.raw(if i == 0 { b"" } else { b"," }).string(value);
    }
    j.raw(b"]");
}

/// Lists that entries of versions before 0.3 did not have: nothing is written where nothing is said.
fn strings_unless_empty(j: &mut Json<'_>, key: &str, values: &[String]) {
    if !values.is_empty() {
        strings(j, key, values);
    }
}

fn on_behalf_of(j: &mut Json<'_>, b: Option<&OnBehalfOf>) {
    j.key("on_behalf_of");
    match b {
        Some(b) => j
            .raw(b"{")
            .key("name")
            .plain(b.name.as_str().as_bytes())
            .key("known")
            .plain(b.known.as_str().as_bytes())
            .raw(b"}"),
        None => j.null(),
    };
}

fn field(j: &mut Json<'_>, key: &str, field: &Field) {
    j.key(key).raw(b"{");
    match field {
        Field::Absent(reason) => {
            j.key("absent").plain(reason.as_str().as_bytes());
        }
        Field::Sealed(sealed) => {
            j.key("sealed");
            sealed_field(j, sealed);
        }
        Field::Blob(blob) => {
            j.key("blob");
            blob_field(j, blob);
        }
    }
    j.raw(b"}");
}

fn sealed_field(j: &mut Json<'_>, b: &SealedField) {
    j.raw(b"{").key("f").number(b.number).key("l").number(b.length);
    j.key("c").base64(&b.commitment.0).key("x").base64(&b.ciphertext).raw(b"}");
}

fn blob_field(j: &mut Json<'_>, b: &BlobField) {
    j.raw(b"{").key("f").number(b.number).key("l").number(b.length).key("c").base64(&b.commitment.0);
    j.key("sha256").plain(b.sha256.hex().as_bytes()).key("bytes").number(b.bytes);
    j.key("form").plain(b.form.as_str().as_bytes());
    if let Some(packing) = b.packing {
        j.key("packing").plain(packing.as_str().as_bytes());
    }
    j.key("head");
    sealed_field(j, &b.head);
    j.raw(b"}");
}
