//! Any bytes as a first line: the invariants are beside the code, in `corelane_wire::sniff::fuzz`.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| corelane_wire::sniff::fuzz::fuzz_sniff(bytes));
