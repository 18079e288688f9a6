//! Any bytes as operations on the store: the invariants are beside the code, in `corelane_xds::store::fuzz`.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| corelane_xds::store::fuzz::fuzz_store(bytes));
