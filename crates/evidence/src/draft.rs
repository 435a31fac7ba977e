//! Puts a bundle together. The same draft gives the same bytes, always and everywhere.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use ledger::{Checkpoint, CheckpointError, Nodes, TlogProof, VerifierKey, prove_inclusion, prove_leaves};
use model::seal::FieldKey;
use model::{ContentKind, Digest, Peek, SessionId};
use sha2::{Digest as _, Sha256};

use crate::archive::{TooLarge, Writer};
use crate::entries::{write_entry, write_hashes, write_keys};
use crate::fields::FieldId;
use crate::manifest::{Listed, Manifest};
use crate::{names, readme};

/// Files by their names.
type Contents<'a> = BTreeMap<String, Cow<'a, [u8]>>;

/// What goes into a bundle.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The program that writes it.
    pub program: String,
    /// The log's public key.
    pub key: VerifierKey,
    /// The signed checkpoint, with its cosignatures, under which everything is proven.
    pub checkpoint: String,
    /// What was asked for, as a command line would say it.
    pub selection: String,
    /// Kinds of content that are left out on purpose.
    pub withheld: BTreeSet<ContentKind>,
    /// The selected commands.
    pub commands: BTreeMap<SessionId, BTreeSet<u32>>,
    /// The entries by their indexes: the log's first one, all of the selected commands' sessions, and others.
    pub entries: BTreeMap<u64, Vec<u8>>,
    /// The keys of what is disclosed.
    pub keys: BTreeMap<FieldId, FieldKey>,
    /// The blobs of what is disclosed.
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    /// The witness policy that was configured.
    pub policy: Option<String>,
    /// The page that verifies it in a browser.
    pub page: Vec<u8>,
}

/// Why a bundle could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum DraftError<E> {
    /// The checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// No session of the selection is among the entries.
    #[error("nothing is selected")]
    Empty,
    /// More than a bundle can have.
    #[error("a bundle has at most 1 GiB and 65,534 files, and this one would have more: select less")]
    TooLarge,
    /// The hashes of the tree could not be had.
    #[error("{0}")]
    Nodes(E),
}

impl<E> From<TooLarge> for DraftError<E> {
    fn from(_: TooLarge) -> Self {
        Self::TooLarge
    }
}

impl Draft {
    /// The bundle's bytes. `nodes` has the hashes of the log's tree.
    ///
    /// # Errors
    /// See [`DraftError`].
    pub fn build<N: Nodes>(&self, nodes: &mut N) -> Result<Vec<u8>, DraftError<N::Error>> {
        let checkpoint = Checkpoint::open(&self.checkpoint, &self.key)?;
        let sessions = self.sessions();
        let range = sessions.values().fold(None, |range: Option<(u64, u64)>, (first, last)| {
            let (begin, end) = range.unwrap_or((*first, *last));
            Some((begin.min(*first), end.max(*last)))
        });
        let files = self.files(&checkpoint, &sessions, nodes)?;
        let mut manifest = Manifest {
            program: self.program.clone(),
            origin: checkpoint.origin,
            size: checkpoint.size,
            selection: self.selection.clone(),
            range: range.ok_or(DraftError::Empty)?,
            withheld: self.withheld.clone(),
            commands: self.commands.clone(),
            files: Vec::new(),
        };
        let readme = readme::text(&manifest);
        manifest.files = std::iter::once((names::README, readme.as_bytes()))
            .chain(files.iter().map(|(name, content)| (name.as_str(), &**content)))
            .map(|(name, content)| Listed {
                name: name.to_owned(),
                bytes: u64::try_from(content.len()).unwrap_or(u64::MAX),
                sha256: Digest(Sha256::digest(content).into()),
            })
            .collect();
        let mut writer = Writer::default();
        writer.add(names::README, readme.as_bytes())?;
        writer.add(names::MANIFEST, manifest.text().as_bytes())?;
        for (name, content) in &files {
            writer.add(name, content)?;
        }
        Ok(writer.finish())
    }

    /// The first and the last entry of each session.
    fn sessions(&self) -> BTreeMap<SessionId, (u64, u64)> {
        let mut sessions = BTreeMap::new();
        for (index, leaf) in &self.entries {
            if let Some((session, _)) = Peek::new(leaf).and_then(|peek| peek.place) {
                sessions.entry(session).or_insert((*index, *index)).1 = *index;
            }
        }
        sessions
    }

    /// Every file but the readme and the manifest, in order.
    fn files<N: Nodes>(
        &self,
        checkpoint: &Checkpoint,
        sessions: &BTreeMap<SessionId, (u64, u64)>,
        nodes: &mut N,
    ) -> Result<Contents<'_>, DraftError<N::Error>> {
        let mut files = Contents::new();
        let mut entries = Vec::new();
        for (index, leaf) in &self.entries {
            write_entry(*index, leaf, &mut entries);
        }
        let indexes: Vec<u64> = self.entries.keys().copied().collect();
        let proof = prove_leaves(nodes, &indexes, checkpoint.size).map_err(DraftError::Nodes)?;
        files.insert(names::ENTRIES.to_owned(), entries.into());
        files.insert(names::PROOF.to_owned(), write_hashes(&proof).into_bytes().into());
        files.insert(names::CHECKPOINT.to_owned(), self.checkpoint.as_bytes().into());
        files.insert(names::VKEY.to_owned(), format!("{}\n", self.key).into_bytes().into());
        files.insert(names::PAGE.to_owned(), self.page.as_slice().into());
        if !self.keys.is_empty() {
            files.insert(names::KEYS.to_owned(), write_keys(&self.keys).into_bytes().into());
        }
        if let Some(policy) = &self.policy {
            files.insert(names::POLICY.to_owned(), policy.as_bytes().into());
        }
        for (sha256, blob) in &self.blobs {
            files.insert(format!("{}{}", names::BLOBS, sha256.hex()), blob.as_slice().into());
        }
        for (session, (_, last)) in sessions {
            let hashes = prove_inclusion(nodes, *last, checkpoint.size).map_err(DraftError::Nodes)?;
            let proof = TlogProof { index: *last, hashes, checkpoint: self.checkpoint.clone(), extra: None };
            files.insert(names::session_proof(*session), proof.to_string().into_bytes().into());
        }
        Ok(files)
    }
}
