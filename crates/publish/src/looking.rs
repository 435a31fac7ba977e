//! Looks at what witnesses have seen of a log, without asking them for anything: how far behind they are, and whether one
//! of them proves that this data directory is not all that the log has signed.
//!
//! Not for: believing a witness. What counts is this log's own signature on what it shows.

use std::path::Path;
use std::time::Duration;

use ledger::{Checkpoint, NOTE_BYTES_MAX, PolicyWitness, SignedNote, VerifierKey, WitnessPolicy, root_of};
use store::Published;

use crate::tiles;
use crate::witness::origin_name;
use fetch::Client;

/// A proof that this log has signed what its data directory does not have: it was rolled back, or it was forked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the witness {witness} shows a checkpoint of {size} entries that this log has signed, and {}: an older copy was \
     restored, or a copy of it runs elsewhere",
    match had { Some(had) => format!("the data directory has only {had}"), None => "the first of them are others here".to_owned() }
)]
pub struct Contradiction {
    /// The witness, as the policy names it.
    pub witness: String,
    /// The size that it has seen.
    pub size: u64,
    /// How many entries are signed for here, if that is less.
    pub had: Option<u64>,
    /// The note, with this log's own signature.
    pub note: String,
}

/// What one witness shows of the log.
#[derive(Clone, Debug)]
pub struct Look {
    /// The witness, as the policy names it.
    pub witness: String,
    /// The size that it cosigned last, and when, in seconds since 1970; none if it never did. Else why nothing is known.
    pub cosigned: Result<Option<(u64, u64)>, String>,
    /// The proof that the log has signed something else than the data directory has.
    pub contradiction: Option<Contradiction>,
}

/// Looks at what every witness shows, at the same time: how far they are, and, before the log signs anything, whether one
/// has seen more of it than there is here, or something else. Takes at most a little longer than `timeout`.
#[must_use]
pub fn look(data: &Path, key: &VerifierKey, policy: &WitnessPolicy, timeout: Duration) -> Vec<Look> {
    let published = Published::open_dir(data);
    let ours = Ours { key: key.clone(), published, signed: signed_size(data, key) };
    let client = Client::of_system(timeout);
    let unasked = |name: &str| {
        let why = "the policy does not say where it is".to_owned();
        Look { witness: name.to_owned(), cosigned: Err(why), contradiction: None }
    };
    let look = |witness: &PolicyWitness| match &witness.url {
        Some(url) => ours.look(&client, witness, url),
        None => unasked(&witness.name),
    };
    let look = &look;
    std::thread::scope(|scope| {
        let witnesses = policy.witnesses().iter();
        let threads: Vec<_> = witnesses.map(|witness| scope.spawn(move || look(witness))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    })
}

/// The size of the last checkpoint that was signed here, published or not.
fn signed_size(data: &Path, key: &VerifierKey) -> u64 {
    let note = std::fs::read_to_string(data.join("checkpoint")).unwrap_or_default();
    Checkpoint::open(&note, key).map_or(0, |checkpoint| checkpoint.size)
}

/// This log, as far as it can be held against what a witness shows.
pub(crate) struct Ours {
    pub(crate) key: VerifierKey,
    pub(crate) published: Published,
    /// A size for which the log has signed; at least.
    pub(crate) signed: u64,
}

impl Ours {
    /// Looks at the last note that a witness has cosigned.
    pub(crate) fn look(&self, client: &Client, witness: &PolicyWitness, url: &str) -> Look {
        let look = |cosigned| Look { witness: witness.name.clone(), cosigned, contradiction: None };
        let (note, checkpoint) = match self.shown(client, url) {
            Ok(Some(shown)) => shown,
            Ok(None) => return look(Ok(None)),
            Err(why) => return look(Err(why)),
        };
        let time = SignedNote::parse(&note).and_then(|note| witness.verifier.verify(&note));
        let cosigned = match time {
            Ok(time) => Ok(Some((checkpoint.size, time))),
            Err(error) => Err(format!("what it shows is not cosigned by its key: {error}")),
        };
        // Whoever shows our own signature on another past is right, whatever else it says.
        let (size, witness) = (checkpoint.size, witness.name.clone());
        let contradiction = self.other(&checkpoint).map(|had| Contradiction { witness, size, had, note });
        Look { contradiction, ..look(cosigned) }
    }

    /// The note that it shows, with our own signature: without that, it is a story.
    fn shown(&self, client: &Client, url: &str) -> Result<Option<(String, Checkpoint)>, String> {
        let url = format!("{}/{}/checkpoint", url.trim_end_matches('/'), origin_name(self.key.name()));
        let reply = client.get(&url, &[], u64::try_from(NOTE_BYTES_MAX).unwrap_or(u64::MAX));
        let reply = reply.map_err(|error| error.to_string())?;
        match reply.status {
            200 => {}
            404 => return Ok(None),
            status => return Err(format!("its answer's status is {status}")),
        }
        let note = String::from_utf8(reply.body).map_err(|_| "its answer is not text".to_owned())?;
        let checkpoint = Checkpoint::open(&note, &self.key);
        let checkpoint = checkpoint.map_err(|error| format!("what it shows is not this log's: {error}"))?;
        Ok(Some((note, checkpoint)))
    }

    /// Whether a checkpoint that we signed is none of what is here: with the size that is signed for here, if that is
    /// less; without, if the entries are others. Nothing, if it is, or if that cannot be told.
    fn other(&self, seen: &Checkpoint) -> Option<Option<u64>> {
        let published = tiles::published_size(&self.published).ok()?;
        let newest = self.signed.max(published);
        if seen.size > newest {
            return Some(Some(newest));
        }
        if seen.size > published {
            // It cannot be told before the tiles are there again.
            return None;
        }
        let root = root_of(&mut tiles::nodes(&self.published, seen.size), seen.size).ok()?;
        (root != seen.root).then_some(None)
    }
}
