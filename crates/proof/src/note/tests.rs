//! Notes against the specification's own vector, and against every kind of alteration.

use proptest::prelude::*;

use super::*;

/// The self-test vector of the signed-note specification.
const KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const NOTE: &str = "This is an example message.\n\n\u{2014} example.com/foo \
Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

fn signer(name: &str, seed: u8) -> SeedSigner {
    SeedSigner::new(name, &[seed; 32]).unwrap()
}

#[test]
fn verifies_the_vector_of_the_specification() {
    let key = VerifierKey::parse(KEY).unwrap();
    assert_eq!(key.to_string(), KEY);
    assert_eq!(key.key_id(), [0x53, 0x0d, 0x90, 0x3a]);
    let note = Note::parse(NOTE.as_bytes()).unwrap();
    assert_eq!(note.text(), "This is an example message.\n");
    assert_eq!(note.verify(std::slice::from_ref(&key)).unwrap(), [&key]);
}

#[test]
fn the_golden_key_of_tessera_is_read() {
    let text = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx";
    assert_eq!(VerifierKey::parse(text).unwrap().to_string(), text);
}

#[test]
fn what_is_signed_verifies_and_unknown_keys_are_ignored() {
    let (ours, theirs) = (signer("falaj/one", 1), signer("witness", 2));
    let text = "first\n\nafter an empty line\n";
    let note = sign_note(text, &[&ours, &theirs]).unwrap();
    let parsed = Note::parse(note.as_bytes()).unwrap();
    assert_eq!(parsed.text(), text);
    assert_eq!(parsed.signatures().len(), 2);
    let trusted = [theirs.verifier_key().clone(), signer("other", 3).verifier_key().clone()];
    assert_eq!(parsed.verify(&trusted).unwrap(), [&trusted[0]]);
    assert_eq!(parsed.verify(&trusted[1..]), Err(NoteError::Untrusted));
    // The same name with another key is another key.
    let namesake = [signer("witness", 9).verifier_key().clone()];
    assert_eq!(parsed.verify(&namesake), Err(NoteError::Untrusted));
}

#[test]
fn a_known_key_with_a_wrong_signature_spoils_the_note() {
    let (ours, theirs) = (signer("a", 1), signer("b", 2));
    let note = sign_note("text\n", &[&ours, &theirs]).unwrap();
    let altered = note.replace("text", "test");
    let keys = [ours.verifier_key().clone(), theirs.verifier_key().clone()];
    assert_eq!(
        Note::parse(altered.as_bytes()).unwrap().verify(&keys),
        Err(NoteError::BadSignature { name: "a".to_owned() })
    );
    // One right signature does not make up for a wrong one.
    let other = sign_note("other\n", &[&theirs]).unwrap();
    let foreign_line = other.lines().last().unwrap();
    let mixed = format!("{}{foreign_line}\n", sign_note("text\n", &[&ours]).unwrap());
    assert_eq!(
        Note::parse(mixed.as_bytes()).unwrap().verify(&keys),
        Err(NoteError::BadSignature { name: "b".to_owned() })
    );
}

#[test]
fn malformed_notes_are_refused() {
    let refused = [
        ("", NoteError::NoSignatures),
        ("text\n", NoteError::NoSignatures),
        ("text\n\n", NoteError::NoSignatures),
        ("text\n\n\u{2014} a AAAAAAA=", NoteError::NoSignatures),
        ("text\n\nbad line\n", NoteError::SignatureLine { line: 1 }),
        ("text\n\n\u{2014} a AAAAAA==\n", NoteError::SignatureLine { line: 1 }),
        ("text\n\n\u{2014} a+b AAAAAAA=\n", NoteError::SignatureLine { line: 1 }),
        ("text\n\n\u{2014} a AAAAAAA=\nx\n", NoteError::SignatureLine { line: 2 }),
        ("te\txt\n\n\u{2014} a AAAAAAA=\n", NoteError::NotText { at: 2 }),
    ];
    for (note, error) in refused {
        assert_eq!(Note::parse(note.as_bytes()), Err(error), "{note:?}");
    }
    assert!(matches!(Note::parse(b"a\xff\n\n"), Err(NoteError::NotText { at: 1 })));
    assert!(matches!(Note::parse(&vec![b'a'; MAX_NOTE_BYTES + 1]), Err(NoteError::TooLong { .. })));
}

#[test]
fn malformed_keys_and_texts_are_refused() {
    for key in [
        "",
        "name",
        "name+530d903a",
        "example.com/foo+530d903b+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/bar+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530D903A+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530d903a+AukyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
    ] {
        assert!(VerifierKey::parse(key).is_err(), "{key}");
    }
    for name in ["", "a b", "a+b", "a\n", "a\u{a0}b"] {
        assert!(matches!(SeedSigner::new(name, &[1; 32]), Err(NoteError::KeyName { .. })));
    }
    let ours = signer("a", 1);
    assert_eq!(sign_note("no newline", &[&ours]), Err(NoteError::NotText { at: 10 }));
    assert_eq!(sign_note("tab\t\n", &[&ours]), Err(NoteError::NotText { at: 3 }));
    assert_eq!(sign_note("text\n", &[]), Err(NoteError::NoSignatures));
    assert!(!format!("{ours:?}").contains("0101"));
}

proptest! {
    #[test]
    fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(note) = Note::parse(&bytes) {
            prop_assert!(note.text().ends_with('\n'));
        }
    }

    #[test]
    fn note_like_text_never_panics(text in "[a\n \u{2014}+=A/]{0,60}") {
        let _ = Note::parse(text.as_bytes());
        let _ = VerifierKey::parse(&text);
    }

    #[test]
    fn any_flipped_bit_is_refused(at in 0usize..2000, bit in 0u8..8) {
        let key = [VerifierKey::parse(KEY).unwrap()];
        let mut bytes = NOTE.as_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let verdict = Note::parse(&bytes).and_then(|note| note.verify(&key).map(|_| ()));
        prop_assert!(verdict.is_err());
    }
}
