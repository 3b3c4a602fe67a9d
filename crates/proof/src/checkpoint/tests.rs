//! Checkpoints: what is signed comes back, and nothing else is taken for one.

use proptest::prelude::*;

use super::*;
use crate::note::SeedSigner;
use crate::tree::{leaf_hash, root_of};

fn sample() -> Checkpoint {
    Checkpoint {
        origin: "falaj.example/log".to_owned(),
        size: 2,
        root: root_of(&[leaf_hash(b"a"), leaf_hash(b"b")]),
        extensions: Vec::new(),
    }
}

#[test]
fn a_signed_checkpoint_opens_with_its_key_only() {
    let signer = SeedSigner::new("falaj.example/log", &[5; 32]).unwrap();
    let trusted = [signer.verifier_key().clone()];
    let note = sample().sign(&[&signer]).unwrap();
    assert!(note.starts_with("falaj.example/log\n2\n"));
    let opened = Checkpoint::open(note.as_bytes(), "falaj.example/log", &trusted).unwrap();
    assert_eq!(opened, sample());
    assert!(matches!(
        Checkpoint::open(note.as_bytes(), "falaj.example/other", &trusted),
        Err(CheckpointError::Origin { .. })
    ));
    let stranger = [SeedSigner::new("falaj.example/log", &[6; 32]).unwrap().verifier_key().clone()];
    assert_eq!(
        Checkpoint::open(note.as_bytes(), "falaj.example/log", &stranger),
        Err(CheckpointError::Note(NoteError::Untrusted))
    );
    let altered = note.replacen("\n2\n", "\n3\n", 1);
    assert!(matches!(
        Checkpoint::open(altered.as_bytes(), "falaj.example/log", &trusted),
        Err(CheckpointError::Note(NoteError::BadSignature { .. }))
    ));
}

/// The published test log of Tessera: its words, its published test key, its last checkpoint.
#[test]
fn the_golden_log_of_tessera_is_reproduced_byte_for_byte() {
    let words =
        "one two three four five six seven eit nain ten ileven twelf threeten fourten fivten";
    let leaves: Vec<Hash> = words.split(' ').map(|word| leaf_hash(word.as_bytes())).collect();
    let name = "example.com/log/testdata";
    let published = base64::decode("AeymY/SZAX0jZcJ8enZ5FY1Dz+wTML2yWSkK+9DSF3eg").unwrap();
    let signer = SeedSigner::new(name, published[1..].try_into().unwrap()).unwrap();
    let checkpoint = Checkpoint {
        origin: name.to_owned(),
        size: 15,
        root: root_of(&leaves),
        extensions: Vec::new(),
    };
    let golden = "example.com/log/testdata\n15\nrKbDipCvhuX1GZ7g5BBe8sA6BbJ7ja/1nk427v383cs=\n\n\
                  \u{2014} example.com/log/testdata M9e0luh4jTG+UMBqOUo9/q+yAEvx1ilBEniMvjf1zfcBOhg\
                  +CKubMt53MvIt/uEWP6zdkdIQzd/fmwlM/dlPWF74ewI=\n";
    assert_eq!(checkpoint.sign(&[&signer]).unwrap(), golden);
    let key = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx";
    let trusted = [VerifierKey::parse(key).unwrap()];
    assert_eq!(Checkpoint::open(golden.as_bytes(), name, &trusted).unwrap(), checkpoint);
}

#[test]
fn malformed_texts_are_refused_by_line() {
    let root = base64::encode(&[7; 32]);
    let refused = [
        (String::new(), 1),
        (format!("\n1\n{root}\n"), 1),
        (format!("a b\n1\n{root}\n"), 1),
        ("o\n".to_owned(), 2),
        (format!("o\n01\n{root}\n"), 2),
        (format!("o\n+1\n{root}\n"), 2),
        (format!("o\n18446744073709551616\n{root}\n"), 2),
        ("o\n1\n".to_owned(), 3),
        ("o\n1\nAAAA\n".to_owned(), 3),
        (format!("o\n1\n{root}"), 3),
        (format!("o\n1\n{root}\n\n"), 4),
    ];
    for (text, line) in refused {
        match Checkpoint::parse(&text) {
            Err(CheckpointError::Line { line: got, .. }) => assert_eq!(got, line, "{text:?}"),
            other => panic!("{text:?} gave {other:?}"),
        }
    }
    let mut bad = sample();
    bad.origin = "a\nb".to_owned();
    assert!(bad.to_text().is_err());
    let mut bad = sample();
    bad.extensions.push(String::new());
    assert!(bad.to_text().is_err());
}

proptest! {
    #[test]
    fn texts_round_trip(
        size in any::<u64>(), root in any::<[u8; 32]>(),
        extensions in proptest::collection::vec("[a-z ]{1,9}", 0..3),
    ) {
        let checkpoint = Checkpoint { origin: "o/x".to_owned(), size, root, extensions };
        prop_assert_eq!(Checkpoint::parse(&checkpoint.to_text().unwrap()).unwrap(), checkpoint);
    }

    #[test]
    fn whatever_parses_is_canonical(text in "[a0-9\n=A]{0,70}") {
        if let Ok(checkpoint) = Checkpoint::parse(&text) {
            prop_assert_eq!(checkpoint.to_text().unwrap(), text);
        }
    }
}
