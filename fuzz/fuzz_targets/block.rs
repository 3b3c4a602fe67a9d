//! Sealed blocks: a header of any bytes, and opening what no key of ours has sealed.
#![no_main]

use std::sync::{Arc, LazyLock};

use falaj_event::TopicId;
use falaj_log::BlockId;
use falaj_log::block::{BlockHeader, open_block};
use falaj_vault::Vault;
use libfuzzer_sys::fuzz_target;

static VAULT: LazyLock<Option<Arc<Vault>>> =
    LazyLock::new(|| Vault::ephemeral(1).ok().map(Arc::new));

fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = BlockHeader::decode(bytes) {
        // A header is read off a whole block: a key's name, a nonce and what is sealed follow.
        let mut again = header.encode().to_vec();
        again.extend_from_slice(&[0; 128]);
        assert_eq!(BlockHeader::decode(&again).ok().map(|it| it.encode()), Some(header.encode()));
    }
    if let Some(vault) = VAULT.as_ref() {
        let key = (TopicId([1; 16]), 0, BlockId([2; 16]));
        assert!(open_block(vault, key, bytes, |_| None).is_err());
    }
});
