//! Any bytes as a PROXY header: the invariants are beside the code, in `corelane_wire::proxy::fuzz`.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| corelane_wire::proxy::fuzz::fuzz_proxy(bytes));
