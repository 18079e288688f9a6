//! Any bytes as HTTP/1: the invariants are beside the code, in `corelane_wire::h1::fuzz`.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| corelane_wire::h1::fuzz::fuzz_request(bytes));
