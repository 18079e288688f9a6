//! Invariants of reading DNS messages, asserted on any bytes. Called by the target in `fuzz/` and, with mutated messages, by
//! the tests of this crate. Not part of the library's interface.

use super::{ADDRESSES, Code, Family, Name, Question, read_answer};

/// Any bytes as the answer to a question of the test's: whatever is believed is addresses of the asked family, not too many.
///
/// # Panics
/// Where an invariant does not hold.
pub fn fuzz_dns(bytes: &[u8]) {
    let [choice, message @ ..] = bytes else { return };
    let family = if choice & 1 == 0 { Family::V4 } else { Family::V6 };
    let Some(id) = message.first_chunk().map(|id| u16::from_be_bytes(*id)) else { return };
    let name = Name::new("www.example.org").expect("a name of the test's");
    let question = Question { id, name, family };
    let Ok(answer) = read_answer(message, &question) else { return };
    assert!(answer.addresses.len() <= ADDRESSES);
    assert!(answer.addresses.iter().all(|ip| ip.is_ipv4() == (family == Family::V4)));
    assert!(answer.ttl <= i32::MAX as u32 && (answer.ttl == 0 || !answer.addresses.is_empty()));
    assert!(!answer.truncated || answer.addresses.is_empty());
    assert!(answer.code != Code::Failure(0) && answer.code != Code::Failure(3));
    let other = Question { id: id.wrapping_add(1), ..question };
    assert!(read_answer(message, &other).is_err(), "the id is looked at");
}
