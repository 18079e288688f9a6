//! Any bytes as what a control plane and a network do to a session with its store: the invariants are beside the code, in `corelane_xds::session::fuzz`.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| corelane_xds::session::fuzz::fuzz_session(bytes));
