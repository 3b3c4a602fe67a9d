//! A model as bytes: manifest, tensors, content hash, signatures.
//!
//! ```text
//! "FALAJMOD" | version u32 | manifest length u64 | manifest (JSON) | tensors length u64 | safetensors
//! | signatures: count u32, each: name length u16, name, signature length u32, signature
//! ```
//!
//! Integers are little-endian. The model's id is the SHA-256 of everything before the signatures, and
//! is what is signed. Equal models have equal bytes: JSON fields have one order, maps are sorted,
//! floats are written so that they are read back exactly. Does not know where bytes are kept or who
//! holds keys.

pub mod card;
pub mod manifest;
pub mod svg;
mod tensors;

use sha2::{Digest, Sha256};

use crate::model::Model;
use crate::score::{ScoreError, Scorer};
use crate::spec::JobSpec;
use crate::train::Trained;
use manifest::{Manifest, Provenance, Signature};

const MAGIC: &[u8; 8] = b"FALAJMOD";
/// Version of the layout that is written, and the only one that is read.
pub const VERSION: u32 = 1;
const DOMAIN: &str = "falaj model artifact v1\n";

/// Why bytes are not a model that may be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ArtifactError {
    /// Something else.
    #[error("these bytes are not a model artifact")]
    Foreign,
    /// Written by another version.
    #[error("the artifact has layout version {found}; this version reads {VERSION}")]
    Version {
        /// Its version.
        found: u32,
    },
    /// Cut off, or lengths that lead beyond the end.
    #[error("the artifact ends too early: {part} is cut off")]
    Truncated {
        /// What is cut off.
        part: &'static str,
    },
    /// Bytes after the end.
    #[error("{bytes} bytes follow the end of the artifact")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// Not the bytes that were asked for.
    #[error("the artifact's id is {found}, not {expected}: it was altered or exchanged")]
    Id {
        /// The id of the bytes.
        found: String,
        /// The id that was asked for.
        expected: String,
    },
    /// The manifest cannot be read.
    #[error("the artifact's manifest cannot be read: {0}")]
    Manifest(String),
    /// Tensors are missing or do not fit.
    #[error("tensor `{name}` of the artifact: {why}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// Nobody who is trusted has signed it.
    #[error("the artifact has no signature of a trusted key")]
    Unsigned,
    /// A trusted key did not sign these bytes.
    #[error("the signature of `{name}` on the artifact is wrong: it was altered")]
    Signature {
        /// The key's name.
        name: String,
    },
    /// The model does not predict.
    #[error(transparent)]
    Model(#[from] ScoreError),
}

/// Signs artifacts.
pub trait Signer {
    /// Name of the key.
    fn name(&self) -> &str;
    /// The signature on `message`.
    fn sign(&self, message: &[u8]) -> Vec<u8>;
}

/// What a verifier says of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The key is trusted and has signed this.
    Valid,
    /// The key is trusted and has not signed this.
    Invalid,
    /// The key is not known.
    Unknown,
}

/// Knows whom to trust.
pub trait Verifier {
    /// Judges the signature of the key called `name` on `message`.
    fn verify(&self, name: &str, message: &[u8], signature: &[u8]) -> Verdict;
}

/// A signature on an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Name of the key.
    pub name: String,
    /// Its signature.
    pub signature: Vec<u8>,
}

/// A model with everything that is said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Artifact {
    manifest: Manifest,
    model: Model,
    content: Vec<u8>,
    id: String,
    seals: Vec<Seal>,
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let digits = b"0123456789abcdef";
    let pair = |byte: &u8| [digits[(byte >> 4) as usize], digits[(byte & 15) as usize]];
    bytes.iter().flat_map(pair).map(char::from).collect()
}

impl Artifact {
    /// The artifact of a training run.
    ///
    /// # Errors
    /// [`ArtifactError::Manifest`] when a figure is not finite; [`ArtifactError::Model`].
    pub fn new(
        spec: &JobSpec,
        trained: Trained,
        provenance: Provenance,
    ) -> Result<Self, ArtifactError> {
        let Trained { model, report, hardware } = trained;
        let (body, tensors) = tensors::write(&model)?;
        let manifest = Manifest {
            model: spec.model.clone(),
            signature: Signature::of(&model),
            task: model.task,
            preprocessing: model.preprocessing.clone(),
            target: model.target.clone(),
            calibration: model.calibration.clone(),
            body,
            // Neither changes a bit of the result.
            job: JobSpec { threads: 0, bounds: Default::default(), ..spec.clone() },
            report,
            hardware: crate::backend::Hardware { threads: 0, free_bytes: None, ..hardware },
            provenance,
        };
        let text = serde_json::to_vec(&manifest)
            .map_err(|error| ArtifactError::Manifest(error.to_string()))?;
        let mut content = Vec::with_capacity(text.len() + tensors.len() + 28);
        content.extend_from_slice(MAGIC);
        content.extend_from_slice(&VERSION.to_le_bytes());
        for part in [&text, &tensors] {
            content.extend_from_slice(&(part.len() as u64).to_le_bytes());
            content.extend_from_slice(part);
        }
        // What cannot be read back exactly must not be written.
        let artifact = Self::from_content(content, Vec::new())?;
        if artifact.manifest != manifest || artifact.model != model {
            let why = "a figure in it is not a finite number".to_owned();
            return Err(ArtifactError::Manifest(why));
        }
        Ok(artifact)
    }

    /// The artifact of a model of another tool; `spec` names it, its task and its columns.
    ///
    /// # Errors
    /// [`ArtifactError::Model`] when it cannot be evaluated.
    pub fn registered(
        spec: &JobSpec,
        model: Model,
        provenance: Provenance,
    ) -> Result<Self, ArtifactError> {
        let trained = Trained { model, report: Default::default(), hardware: Default::default() };
        Self::new(spec, trained, provenance)
    }

    fn from_content(content: Vec<u8>, seals: Vec<Seal>) -> Result<Self, ArtifactError> {
        let mut rest = Reader { bytes: &content };
        if rest.take(MAGIC.len(), "the head").map_err(|_| ArtifactError::Foreign)? != MAGIC {
            return Err(ArtifactError::Foreign);
        }
        let version = rest.u32("the version")?;
        if version != VERSION {
            return Err(ArtifactError::Version { found: version });
        }
        let length = rest.u64("the manifest")?;
        let manifest: Manifest = serde_json::from_slice(rest.take(length, "the manifest")?)
            .map_err(|error| ArtifactError::Manifest(error.to_string()))?;
        let length = rest.u64("the tensors")?;
        let tensors = rest.take(length, "the tensors")?;
        let body = tensors::read(&manifest.body, tensors)?;
        let model = Model {
            task: manifest.task,
            preprocessing: manifest.preprocessing.clone(),
            target: manifest.target.clone(),
            body,
            calibration: manifest.calibration.clone(),
        };
        Scorer::new(&model)?;
        let id = hex(&Sha256::digest(&content));
        Ok(Self { manifest, model, content, id, seals })
    }

    /// Reads an artifact; with a verifier, only one that a trusted key has signed.
    ///
    /// # Errors
    /// [`ArtifactError`], by what is wrong.
    pub fn from_bytes(
        bytes: &[u8],
        verifier: Option<&dyn Verifier>,
    ) -> Result<Self, ArtifactError> {
        let mut rest = Reader { bytes };
        if !bytes.starts_with(MAGIC) {
            return Err(ArtifactError::Foreign);
        }
        rest.take(MAGIC.len() + 4, "the head")?;
        for part in ["the manifest", "the tensors"] {
            let length = rest.u64(part)?;
            rest.take(length, part)?;
        }
        let end = bytes.len() - rest.bytes.len();
        let mut seals = Vec::new();
        for _ in 0..rest.u32("the signatures")? {
            let length = rest.u16("a signature")?;
            let name = rest.take(length, "a signature")?.to_vec();
            let name = String::from_utf8(name).map_err(|_| ArtifactError::Foreign)?;
            let length = rest.u32("a signature")? as usize;
            seals.push(Seal { name, signature: rest.take(length, "a signature")?.to_vec() });
        }
        if !rest.bytes.is_empty() {
            return Err(ArtifactError::Trailing { bytes: rest.bytes.len() });
        }
        if let Some(verifier) = verifier {
            check_seals(&hex(&Sha256::digest(&bytes[..end])), &seals, verifier)?;
        }
        Self::from_content(bytes[..end].to_vec(), seals)
    }

    /// As [`Artifact::from_bytes`], for the artifact that is known by `id`.
    ///
    /// # Errors
    /// [`ArtifactError::Id`] when the bytes are other ones.
    pub fn load(
        id: &str,
        bytes: &[u8],
        verifier: Option<&dyn Verifier>,
    ) -> Result<Self, ArtifactError> {
        let artifact = Self::from_bytes(bytes, verifier)?;
        if artifact.id != id {
            return Err(ArtifactError::Id { found: artifact.id, expected: id.to_owned() });
        }
        Ok(artifact)
    }

    /// All bytes, signatures included.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.content.clone();
        bytes.extend_from_slice(&(self.seals.len() as u32).to_le_bytes());
        for seal in &self.seals {
            bytes.extend_from_slice(&(seal.name.len() as u16).to_le_bytes());
            bytes.extend_from_slice(seal.name.as_bytes());
            bytes.extend_from_slice(&(seal.signature.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&seal.signature);
        }
        bytes
    }

    /// Adds a signature; the id stays. A name longer than 65535 bytes is cut off.
    pub fn sign(&mut self, signer: &dyn Signer) {
        let mut name = signer.name().to_owned();
        while name.len() > usize::from(u16::MAX) {
            name.pop();
        }
        let signature = signer.sign(&message(&self.id));
        self.seals.push(Seal { name, signature });
    }

    /// SHA-256 of its content, lower-case hexadecimal: what a prediction names.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What is said of the model.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Its signatures, as claims.
    pub fn seals(&self) -> &[Seal] {
        &self.seals
    }

    /// The model, laid out for prediction.
    ///
    /// # Errors
    /// [`ScoreError::Model`].
    pub fn scorer(&self) -> Result<Scorer, ScoreError> {
        Scorer::new(&self.model)
    }
}

/// What is signed for the artifact `id`.
pub fn message(id: &str) -> Vec<u8> {
    format!("{DOMAIN}{id}\n").into_bytes()
}

fn check_seals(id: &str, seals: &[Seal], verifier: &dyn Verifier) -> Result<(), ArtifactError> {
    let message = message(id);
    let mut trusted = false;
    for seal in seals {
        match verifier.verify(&seal.name, &message, &seal.signature) {
            Verdict::Valid => trusted = true,
            Verdict::Invalid => {
                return Err(ArtifactError::Signature { name: seal.name.clone() });
            }
            Verdict::Unknown => {}
        }
    }
    if trusted { Ok(()) } else { Err(ArtifactError::Unsigned) }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize, part: &'static str) -> Result<&'a [u8], ArtifactError> {
        let (head, rest) =
            self.bytes.split_at_checked(length).ok_or(ArtifactError::Truncated { part })?;
        self.bytes = rest;
        Ok(head)
    }

    fn u16(&mut self, part: &'static str) -> Result<usize, ArtifactError> {
        let bytes = self.take(2, part)?;
        Ok(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])))
    }

    fn u32(&mut self, part: &'static str) -> Result<u32, ArtifactError> {
        let bytes = self.take(4, part)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn u64(&mut self, part: &'static str) -> Result<usize, ArtifactError> {
        let low = self.u32(part)?;
        let high = self.u32(part)?;
        usize::try_from(u64::from(high) << 32 | u64::from(low))
            .map_err(|_| ArtifactError::Truncated { part })
    }
}

#[cfg(test)]
mod tests;
