//! Any bytes as a first line: the invariants are beside the code, in `corelane_wire::dns::fuzz`.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| corelane_wire::dns::fuzz::fuzz_dns(bytes));
