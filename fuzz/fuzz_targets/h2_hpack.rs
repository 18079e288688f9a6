//! Any bytes as HTTP/2: the invariants are beside the code, in `corelane_wire::h2::fuzz`.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| corelane_wire::h2::fuzz::fuzz_hpack(bytes));
