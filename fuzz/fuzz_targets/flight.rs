//! What arrives at the doors: Arrow IPC messages of a stream, and tickets.
#![no_main]

use bytes::Bytes;
use falaj_gateway::decode::IpcDecoder;
use falaj_gateway::wire::ReadTicket;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|messages: Vec<(Vec<u8>, Vec<u8>)>| {
    let mut decoder = IpcDecoder::new(1 << 20);
    for (header, body) in messages {
        let _ = ReadTicket::parse(&header);
        let _ = decoder.decode(&header, Bytes::from(body));
    }
});
