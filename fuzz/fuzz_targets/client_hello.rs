//! Any bytes as a ClientHello: the invariants are beside the code, in `corelane_wire::client_hello::fuzz`.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| corelane_wire::client_hello::fuzz::fuzz_client_hello(bytes));
