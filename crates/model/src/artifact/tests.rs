//! Artifacts are read back exactly, and nothing damaged is.

use std::sync::atomic::AtomicBool;

use super::card::Card;
use super::manifest::ViewReference;
use super::*;
use crate::spec::{Task, Trainer};
use crate::train::tests::{job, payments};
use crate::train::train;

fn provenance() -> Provenance {
    Provenance {
        run: "run-1".to_owned(),
        epochs: Some((5, 9)),
        mode: "as corrected".to_owned(),
        views: vec![ViewReference {
            name: "card | features".to_owned(),
            definition: "abc".to_owned(),
        }],
        ..Provenance::default()
    }
}

fn artifact(task: Task, trainer: Trainer) -> Artifact {
    let mut job = job(task, trainer);
    job.epochs = 2;
    job.slices = vec!["country".to_owned(), "night".to_owned()];
    let folder = tempfile::tempdir().expect("a folder");
    let rows = [payments(400, 3)];
    let trained = train(&job, &rows, folder.path(), &AtomicBool::new(false), &mut |_| {});
    Artifact::new(&job, trained.expect("a model"), provenance()).expect("an artifact")
}

/// A stand-in for a key: its "signature" is a hash with a secret.
struct Key(&'static str);

impl Signer for Key {
    fn name(&self) -> &str {
        self.0
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let mut hasher = Sha256::new();
        hasher.update(format!("secret of {}", self.0));
        hasher.update(message);
        hasher.finalize().to_vec()
    }
}

impl Verifier for Key {
    fn verify(&self, name: &str, message: &[u8], signature: &[u8]) -> Verdict {
        match name == self.0 {
            false => Verdict::Unknown,
            true if self.sign(message) == signature => Verdict::Valid,
            true => Verdict::Invalid,
        }
    }
}

#[test]
fn what_is_written_is_read_back() {
    for task in [Task::Binary, Task::Multiclass, Task::Regression] {
        for trainer in [Trainer::Linear {}, Trainer::mlp(), Trainer::resnet(), Trainer::trees()] {
            let mut artifact = artifact(task, trainer);
            let id = artifact.id().to_owned();
            artifact.sign(&Key("k"));
            assert_eq!(artifact.id(), id);
            let read = Artifact::load(&id, &artifact.to_bytes(), Some(&Key("k"))).expect("sound");
            assert_eq!(read, artifact);
            assert_eq!(read.manifest().signature.inputs[1].name, "country");
        }
    }
}

#[test]
fn only_what_a_trusted_key_signed_is_taken() {
    let mut artifact = artifact(Task::Binary, Trainer::Linear {});
    let verify = |artifact: &Artifact, key: &'static str| {
        Artifact::from_bytes(&artifact.to_bytes(), Some(&Key(key))).map(|_| ())
    };
    assert_eq!(verify(&artifact, "k"), Err(ArtifactError::Unsigned));
    artifact.sign(&Key("other"));
    assert_eq!(verify(&artifact, "k"), Err(ArtifactError::Unsigned));
    artifact.sign(&Key("k"));
    assert_eq!(verify(&artifact, "k"), Ok(()));
    artifact.seals[1].signature[0] ^= 1;
    let name = "k".to_owned();
    assert_eq!(verify(&artifact, "k"), Err(ArtifactError::Signature { name }));
}

#[test]
fn no_flipped_or_missing_byte_goes_unnoticed() {
    for trainer in [Trainer::Linear {}, Trainer::trees()] {
        let mut artifact = artifact(Task::Binary, trainer);
        artifact.sign(&Key("k"));
        let (id, bytes) = (artifact.id().to_owned(), artifact.to_bytes());
        for at in (0..bytes.len()).step_by(97) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(Artifact::load(&id, &damaged, Some(&Key("k"))).is_err(), "byte {at}");
            // Without a verifier nothing panics, whatever is read.
            let _ = Artifact::from_bytes(&damaged, None);
        }
        for length in (0..bytes.len()).step_by(61) {
            assert!(Artifact::from_bytes(&bytes[..length], None).is_err(), "{length} bytes");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        let trailing = Artifact::from_bytes(&longer, None).expect_err("longer");
        assert_eq!(trailing, ArtifactError::Trailing { bytes: 1 });
    }
    assert_eq!(Artifact::from_bytes(b"PK\x03\x04", None), Err(ArtifactError::Foreign));
    let other = artifact(Task::Binary, Trainer::Linear {});
    let exchanged = Artifact::load("00", &other.to_bytes(), None).expect_err("another");
    assert!(matches!(exchanged, ArtifactError::Id { .. }));
}

#[test]
fn cards_are_complete_and_deterministic() {
    for task in [Task::Binary, Task::Multiclass, Task::Regression] {
        let artifact = artifact(task, Trainer::mlp());
        let card = Card::of(&artifact);
        assert_eq!(card, Card::of(&artifact));
        let names: Vec<&str> = card.plots.iter().map(|(name, _)| name.as_str()).collect();
        let expected: &[&str] = match task {
            Task::Binary => &["loss.svg", "roc.svg", "calibration.svg", "slices.svg"],
            _ => &["loss.svg", "slices.svg"],
        };
        assert_eq!(names, expected);
        for part in
            [artifact.id(), "## Slices", "country = AE", "night = true", "card \\| features"]
        {
            assert!(card.markdown.contains(part), "{part} is missing in\n{}", card.markdown);
        }
        for (_, drawing) in &card.plots {
            assert!(drawing.starts_with("<svg") && drawing.ends_with("</svg>\n"));
            assert!(!drawing.contains("NaN"));
        }
    }
}

#[test]
fn models_of_other_tools_are_registered_and_scored() {
    use crate::onnx::tests::{answers, stump};
    use prost::Message;

    let file = stump("BRANCH_LT", 0, vec![]);
    let columns = vec![("amount".to_owned(), true)];
    let job = JobSpec::new("m", Task::Regression, "y", vec![], Trainer::Onnx {});
    let model = |columns: &[(String, bool)], file: Vec<u8>| {
        Artifact::registered(
            &job,
            Model::onnx(Task::Regression, columns, vec![], file),
            provenance(),
        )
    };
    let artifact = model(&columns, file.encode_to_vec()).expect("an artifact");
    let read = Artifact::load(artifact.id(), &artifact.to_bytes(), None).expect("sound");
    assert_eq!(read, artifact);
    let scorer = read.scorer().expect("a scorer");
    let mut out = [0.0];
    for value in [0.25f32, 0.75] {
        let inputs = [crate::Input::Number(f64::from(value))];
        scorer.score_into(&inputs, &mut scorer.scratch(), &mut out).expect("a score");
        assert_eq!(out[0], f64::from(answers(&file, &[value])[0]));
    }
    assert!(Card::of(&artifact).markdown.contains("`onnx`"));
    let two = [columns[0].clone(), ("other".to_owned(), false)];
    assert!(
        model(&two, file.encode_to_vec()).expect_err("columns").to_string().contains("1 columns")
    );
    assert!(model(&columns, b"no model".to_vec()).is_err());
}
