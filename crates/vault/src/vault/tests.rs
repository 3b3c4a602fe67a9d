//! The vault through its own door: what is sealed opens, nothing else does, and files that were
//! torn, flipped or lost are told apart.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::SEALED_VALUE_OVERHEAD;

fn topic(name: &str) -> TopicId {
    TopicId::of(name)
}

fn open(vault: &Vault, of: &str, aad: &[u8], sealed: &Sealed) -> Result<Vec<u8>, VaultError> {
    vault.open_block(topic(of), aad, &sealed.key, &sealed.nonce, sealed.ciphertext.clone())
}

/// A closed vault with two topics' keys and `subjects` subjects, each sealed once.
struct Closed {
    home: TempDir,
    block: Sealed,
    values: Vec<Vec<u8>>,
}

fn name(index: usize) -> Vec<u8> {
    format!("subject-{index}").into_bytes()
}

fn closed(subjects: usize) -> Closed {
    let home = tempfile::tempdir().unwrap();
    let vault = Vault::open(&home.path().join("vault")).unwrap();
    let block = vault.seal_block(topic("payments"), b"header", b"body".to_vec()).unwrap();
    vault.seal_block(topic("customers"), b"header", b"body".to_vec()).unwrap();
    let values = (0..subjects)
        .map(|index| {
            vault.ensure_subjects(&[&name(index)]).unwrap();
            vault.seal_value(&name(index), b"column", format!("pii {index}").as_bytes()).unwrap()
        })
        .collect();
    Closed { home, block, values }
}

impl Closed {
    fn path(&self, file: &str) -> PathBuf {
        self.home.path().join("vault").join(file)
    }

    fn reopen(&self) -> Result<Vault, VaultError> {
        Vault::open(&self.home.path().join("vault"))
    }

    fn value(&self, vault: &Vault, index: usize) -> Result<Vec<u8>, VaultError> {
        vault.open_value(&name(index), b"column", &self.values[index])
    }
}

#[test]
fn blocks_open_with_their_topic_key_nonce_and_header_only() {
    let vault = Vault::ephemeral(1).unwrap();
    let sealed = vault.seal_block(topic("a"), b"header", b"body".to_vec()).unwrap();
    vault.seal_block(topic("b"), b"header", b"body".to_vec()).unwrap();
    assert_eq!(open(&vault, "a", b"header", &sealed).unwrap(), b"body");
    assert_eq!(sealed.ciphertext.len(), 4 + crate::TAG_BYTES);
    let refused = open(&vault, "a", b"Header", &sealed);
    assert!(matches!(refused, Err(VaultError::Authentication { topic: t, key })
        if t == topic("a") && key == sealed.key.id));
    assert!(matches!(open(&vault, "b", b"header", &sealed), Err(VaultError::UnknownKey { .. })));
    assert!(matches!(open(&vault, "c", b"header", &sealed), Err(VaultError::UnknownKey { .. })));
    let mut other = sealed.clone();
    other.key.commitment.0[31] ^= 1;
    assert!(matches!(
        open(&vault, "a", b"header", &other),
        Err(VaultError::CommitmentMismatch { .. })
    ));
    let mut other = sealed.clone();
    other.nonce[0] ^= 1;
    assert!(open(&vault, "a", b"header", &other).is_err());
    let mut other = sealed;
    other.ciphertext.clear();
    assert!(open(&vault, "a", b"header", &other).is_err());
}

#[test]
fn the_layout_of_what_is_authenticated_is_the_documented_one() {
    let key = KeyName { id: crate::KeyId([1; 16]), commitment: crate::KeyCommitment([2; 32]) };
    let mut documented = b"falaj.block.v1\0".to_vec();
    documented.extend(topic("t").0);
    documented.extend([1; 16]);
    documented.extend([2; 32]);
    documented.extend(b"header");
    assert_eq!(block_aad(topic("t"), &key, b"header"), documented);
}

#[test]
fn nonces_and_keys_do_not_repeat() {
    let vault = Vault::ephemeral(2).unwrap();
    let seal = || vault.seal_block(topic("a"), b"", b"same".to_vec()).unwrap();
    let mut nonces: Vec<_> = (0..500).map(|_| seal().nonce).collect();
    nonces.sort_unstable();
    nonces.dedup();
    assert_eq!(nonces.len(), 500);
    let other = Vault::ephemeral(3).unwrap();
    assert_ne!(vault.log_public_key(), other.log_public_key());
    assert_ne!(seal().key, other.seal_block(topic("a"), b"", b"same".to_vec()).unwrap().key);
    assert_eq!(Vault::ephemeral(2).unwrap().log_public_key(), vault.log_public_key());
}

#[test]
fn keys_rotate_and_old_blocks_still_open() {
    let home = tempfile::tempdir().unwrap();
    let rotation = Rotation { seals_per_key: 10, seals_per_write: 4 };
    let random = || Arc::new(SystemRandom::default());
    let vault = Vault::open_with(home.path(), random(), rotation).unwrap();
    let mut sealed: Vec<Sealed> =
        (0..25).map(|_| vault.seal_block(topic("a"), b"", b"body".to_vec()).unwrap()).collect();
    let keys_of = |sealed: &[Sealed]| {
        let mut ids: Vec<_> = sealed.iter().map(|s| s.key.id).collect();
        ids.dedup();
        ids.len()
    };
    assert_eq!(keys_of(&sealed), 3);
    assert!(sealed[..10].iter().all(|s| s.key == sealed[0].key));
    drop(vault);
    // What was reserved before counts as used: 5 of 8 in the third key, so 2 are left after it.
    let vault = Vault::open_with(home.path(), random(), rotation).unwrap();
    sealed.extend((0..3).map(|_| vault.seal_block(topic("a"), b"", b"body".to_vec()).unwrap()));
    assert_eq!(sealed[26].key, sealed[24].key);
    assert_ne!(sealed[27].key, sealed[24].key);
    for block in &sealed {
        assert_eq!(open(&vault, "a", b"", block).unwrap(), b"body");
    }
}

#[test]
fn many_threads_stay_within_the_allowance() {
    let vault =
        Vault::ephemeral_with(4, Rotation { seals_per_key: 50, seals_per_write: 7 }).unwrap();
    let ids = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let sealed = vault.seal_block(topic("a"), b"", Vec::new()).unwrap();
                    ids.lock().unwrap().push(sealed.key.id);
                }
            });
        }
    });
    let mut ids = ids.into_inner().unwrap();
    ids.sort_unstable();
    assert_eq!(ids.chunk_by(|a, b| a == b).map(<[_]>::len).collect::<Vec<_>>(), [50; 8]);
}

#[test]
fn files_are_private_and_survive_a_restart() {
    let closed = closed(3);
    for file in ["keyring.json", "subjects.keys", "lock"] {
        let mode = fs::metadata(closed.path(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let mode = fs::metadata(closed.path("")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let vault = closed.reopen().unwrap();
    assert_eq!(open(&vault, "payments", b"header", &closed.block).unwrap(), b"body");
    for index in 0..3 {
        assert_eq!(closed.value(&vault, index).unwrap(), format!("pii {index}").as_bytes());
    }
    let message = vault.sign_for_log(b"message");
    let key = vault.log_public_key();
    drop(vault);
    let again = closed.reopen().unwrap();
    assert_eq!((again.log_public_key(), again.sign_for_log(b"message")), (key, message));
    ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key)
        .verify(b"message", &message)
        .unwrap();
    drop(again);
    fs::set_permissions(closed.path("keyring.json"), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(closed.reopen(), Err(VaultError::Permissions { mode: 0o640, .. })));
}

#[test]
fn a_second_process_is_refused() {
    let closed = closed(0);
    let first = closed.reopen().unwrap();
    assert!(matches!(closed.reopen(), Err(VaultError::InUse { .. })));
    drop(first);
    closed.reopen().unwrap();
}

#[test]
fn secrets_stay_out_of_debug_output_and_wrapped_keys_out_of_plain_sight() {
    let closed = closed(1);
    let vault = closed.reopen().unwrap();
    assert_eq!(format!("{vault:?}"), "Vault(..)");
    let text = fs::read_to_string(closed.path("keyring.json")).unwrap();
    assert!(text.contains(&falaj_event::ids::hex(&topic("payments").0)));
}

#[test]
fn every_flipped_byte_of_the_keyring_is_refused() {
    let closed = closed(1);
    let path = closed.path("keyring.json");
    let bytes = fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(&path, &flipped).unwrap();
        match closed.reopen() {
            Err(
                VaultError::Damaged { path: named, .. } | VaultError::Version { path: named, .. },
            ) => {
                assert_eq!(named, path);
            }
            other => panic!("byte {at}: {other:?}"),
        }
    }
    for end in (0..bytes.len()).step_by(7) {
        fs::write(&path, &bytes[..end]).unwrap();
        assert!(matches!(closed.reopen(), Err(VaultError::Damaged { .. })), "cut at {end}");
    }
    fs::write(&path, bytes).unwrap();
    closed.reopen().unwrap();
}

#[test]
fn a_newer_keyring_is_named_as_such() {
    let closed = closed(0);
    let path = closed.path("keyring.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"version\": 1", "\"version\": 2")).unwrap();
    assert!(matches!(closed.reopen(), Err(VaultError::Version { found: 2, supported: 1, .. })));
}

#[test]
fn a_lost_keyring_is_not_replaced_over_keys() {
    let closed = closed(1);
    fs::remove_file(closed.path("keyring.json")).unwrap();
    assert!(matches!(closed.reopen(), Err(VaultError::Damaged { .. })));
    assert!(fs::metadata(closed.path("subjects.keys")).unwrap().len() > 40);
}

#[test]
fn a_first_start_that_was_cut_short_starts_over() {
    let closed = closed(0);
    fs::remove_file(closed.path("keyring.json")).unwrap();
    closed.reopen().unwrap();
}

#[test]
fn lost_subjects_are_damage() {
    let closed = closed(1);
    fs::remove_file(closed.path("subjects.keys")).unwrap();
    assert!(matches!(closed.reopen(), Err(VaultError::Damaged { .. })));
}

#[test]
fn values_are_bound_to_subject_and_context() {
    let vault = Vault::ephemeral(5).unwrap();
    assert!(matches!(
        vault.seal_value(b"a", b"", b"x"),
        Err(VaultError::UnknownSubject { subject }) if subject.to_string() == "`a`"
    ));
    assert_eq!(vault.ensure_subjects(&[b"a", b"b", b"a"]).unwrap(), 2);
    assert_eq!(vault.ensure_subjects(&[b"a", b"b"]).unwrap(), 0);
    let sealed = vault.seal_value(b"a", b"column", b"x").unwrap();
    assert_eq!(sealed.len(), 1 + SEALED_VALUE_OVERHEAD);
    assert_eq!(sealed[0], 1);
    assert_eq!(vault.open_value(b"a", b"column", &sealed).unwrap(), b"x");
    assert!(matches!(
        vault.open_value(b"a", b"other", &sealed),
        Err(VaultError::SubjectAuthentication { .. })
    ));
    assert!(matches!(
        vault.open_value(b"b", b"column", &sealed),
        Err(VaultError::SubjectMismatch { .. })
    ));
    assert!(matches!(
        vault.open_value(b"c", b"column", &sealed),
        Err(VaultError::UnknownSubject { .. })
    ));
    assert!(matches!(
        vault.ensure_subjects(&[b"ok", b""]),
        Err(VaultError::SubjectLength { bytes: 0 })
    ));
    assert!(vault.ensure_subjects(&[&vec![1; 65_536]]).is_err());
    assert_eq!(vault.subject_state(b"ok"), SubjectState::Unknown);
}

#[test]
fn destruction_erases_one_subject_for_ever() {
    let closed = closed(4);
    let before = fs::read(closed.path("subjects.keys")).unwrap();
    let vault = closed.reopen().unwrap();
    assert!(vault.destroy_subject(&name(1)).unwrap());
    assert!(!vault.destroy_subject(&name(1)).unwrap());
    assert!(!vault.destroy_subject(b"never seen").unwrap());
    let check = |vault: &Vault| {
        for index in [0, 2, 3] {
            assert_eq!(closed.value(vault, index).unwrap(), format!("pii {index}").as_bytes());
        }
        assert!(matches!(closed.value(vault, 1), Err(VaultError::Erased { .. })));
    };
    check(&vault);
    assert_eq!(vault.subject_state(&name(1)), SubjectState::Erased);
    assert!(matches!(vault.seal_value(&name(1), b"", b""), Err(VaultError::Erased { .. })));
    drop(vault);
    let vault = closed.reopen().unwrap();
    check(&vault);
    // A new key for the same subject does not bring old values back.
    assert_eq!(vault.ensure_subjects(&[&name(1)]).unwrap(), 1);
    check(&vault);
    let fresh = vault.seal_value(&name(1), b"", b"new").unwrap();
    assert_eq!(vault.open_value(&name(1), b"", &fresh).unwrap(), b"new");
    assert!(vault.destroy_subject(&name(1)).unwrap());
    check(&vault);
    assert!(matches!(vault.open_value(&name(1), b"", &fresh), Err(VaultError::Erased { .. })));
    drop(vault);
    check(&closed.reopen().unwrap());
    // The old file's bytes are worthless: their key-encryption key is gone.
    fs::write(closed.path("subjects.keys"), before).unwrap();
    assert!(matches!(closed.reopen(), Err(VaultError::Damaged { why, .. })
        if why.contains("key-encryption key")));
}

#[test]
fn a_destruction_cut_short_is_finished_or_undone_at_the_next_open() {
    let closed = closed(2);
    let subjects = fs::read(closed.path("subjects.keys")).unwrap();
    let vault = closed.reopen().unwrap();
    // As after a crash between the new key-encryption key and the new file.
    vault.keyring.add_kek().unwrap();
    drop(vault);
    assert_eq!(fs::read(closed.path("subjects.keys")).unwrap(), subjects);
    let vault = closed.reopen().unwrap();
    assert_eq!(closed.value(&vault, 1).unwrap(), b"pii 1");
    assert!(vault.destroy_subject(&name(1)).unwrap());
    drop(vault);
    let vault = closed.reopen().unwrap();
    assert!(matches!(closed.value(&vault, 1), Err(VaultError::Erased { .. })));
}

#[test]
fn a_torn_tail_is_cut_off_at_every_length() {
    let closed = closed(3);
    let path = closed.path("subjects.keys");
    let bytes = fs::read(&path).unwrap();
    let batch = (bytes.len() - 40) / 3;
    for end in bytes.len() - batch..bytes.len() {
        for zeros in [0, bytes.len() - end] {
            let mut torn = bytes[..end].to_vec();
            torn.extend(vec![0; zeros]);
            // Zeros that begin inside the checksum of the length or of the batch are ambiguous,
            // hence damage, unless nothing of them was written.
            let written = end - (bytes.len() - batch);
            let clean = zeros == 0 || written == 0 || (20..=batch - 16).contains(&written);
            fs::write(&path, &torn).unwrap();
            match closed.reopen() {
                Ok(vault) => {
                    assert_eq!(closed.value(&vault, 1).unwrap(), b"pii 1");
                    if torn != bytes {
                        assert_eq!(vault.subject_state(&name(2)), SubjectState::Unknown);
                        // Appending goes on from the cut.
                        vault.ensure_subjects(&[b"later"]).unwrap();
                        drop(vault);
                        let vault = closed.reopen().unwrap();
                        assert_eq!(vault.subject_state(b"later"), SubjectState::Live);
                    }
                }
                Err(VaultError::Damaged { .. }) => assert!(!clean, "{end} {zeros}"),
                Err(other) => panic!("{end} {zeros}: {other:?}"),
            }
        }
    }
}

#[test]
fn every_flipped_byte_of_the_subjects_is_refused() {
    let closed = closed(3);
    let path = closed.path("subjects.keys");
    let bytes = fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(&path, &flipped).unwrap();
        match closed.reopen() {
            Err(VaultError::Damaged { path: named, .. }) => assert_eq!(named, path),
            other => panic!("byte {at}: {other:?}"),
        }
    }
}

#[test]
fn a_failed_write_stops_further_keys() {
    let closed = closed(1);
    let vault = closed.reopen().unwrap();
    vault.subjects.fail_next_append();
    assert!(matches!(vault.ensure_subjects(&[b"x"]), Err(VaultError::Io { .. })));
    assert_eq!(vault.subject_state(b"x"), SubjectState::Unknown);
    assert!(matches!(vault.ensure_subjects(&[b"y"]), Err(VaultError::Poisoned { .. })));
    assert!(matches!(vault.destroy_subject(&name(0)), Err(VaultError::Poisoned { .. })));
    assert_eq!(closed.value(&vault, 0).unwrap(), b"pii 0");
    drop(vault);
    closed.reopen().unwrap().ensure_subjects(&[b"y"]).unwrap();
}

#[test]
fn threads_may_ensure_the_same_subjects() {
    let home = tempfile::tempdir().unwrap();
    let vault = Vault::open(home.path()).unwrap();
    let names: Vec<Vec<u8>> = (0..200).map(name).collect();
    let refs: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
    let made: usize = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| vault.ensure_subjects(&refs).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(made, 200);
    let sealed = vault.seal_value(&names[7], b"", b"x").unwrap();
    drop(vault);
    assert_eq!(
        Vault::open(home.path()).unwrap().open_value(&names[7], b"", &sealed).unwrap(),
        b"x"
    );
}

proptest! {
    #[test]
    fn opening_values_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        let vault = Vault::ephemeral(6).unwrap();
        vault.ensure_subjects(&[b"a"]).unwrap();
        prop_assert!(vault.open_value(b"a", b"", &bytes).is_err());
        let mut versioned = bytes;
        if let Some(first) = versioned.first_mut() {
            *first = 1;
        }
        prop_assert!(vault.open_value(b"a", b"", &versioned).is_err());
    }

    #[test]
    fn values_round_trip_and_flips_fail(
        plain in proptest::collection::vec(any::<u8>(), 0..60), at in any::<usize>(), bit in 0u8..8,
    ) {
        let vault = Vault::ephemeral(7).unwrap();
        vault.ensure_subjects(&[b"a"]).unwrap();
        let mut sealed = vault.seal_value(b"a", b"aad", &plain).unwrap();
        prop_assert_eq!(vault.open_value(b"a", b"aad", &sealed).unwrap(), plain);
        let at = at % sealed.len();
        sealed[at] ^= 1 << bit;
        prop_assert!(vault.open_value(b"a", b"aad", &sealed).is_err());
    }

    #[test]
    fn arbitrary_subject_files_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let home = tempfile::tempdir().unwrap();
        drop(Vault::open(home.path()).unwrap());
        let path = home.path().join("subjects.keys");
        let header = fs::read(&path).unwrap();
        fs::write(&path, [header.as_slice(), &bytes].concat()).unwrap();
        match Vault::open(home.path()) {
            Ok(_) | Err(VaultError::Damaged { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
}
