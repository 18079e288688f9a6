//! DNS messages, as a stub resolver needs them (RFC 1035, RFC 3596, RFC 6891): one question for the addresses of a name, and
//! what a server answers. Owns the format and the rule of which records of an answer count; whom to ask, how often, and in
//! which order names are tried, is the resolver's.
//!
//! # What is refused
//!
//! An answer is believed as far as it answers what was asked. Anybody who can guess a port and an id can send one.
//!
//! | refused | why | error |
//! | --- | --- | --- |
//! | a query, another id, another question | it answers somebody else, or nobody | [`NotOurs`](DnsError::NotOurs): go on listening |
//! | a name that points forwards, at itself, or is too long | loops, and memory of one message | [`Malformed`](DnsError::Malformed) |
//! | counts of records that are not there | a message that was cut | [`Malformed`](DnsError::Malformed) |
//! | addresses of other names than the one asked for and its aliases | nobody asked for them | left out |

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod name;

pub use name::{BadName, Name};

use crate::reader::Reader;
use alloc::vec::Vec;
use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Bytes of an answer over UDP that are asked for (RFC 6891's EDNS). What fits into every path's packets: flag day 2020's 1232.
pub const UDP_BYTES: u16 = 1232;

/// Addresses that one answer may hold; more are left out. 256 of IPv6 alone are 7 KiB of message.
pub const ADDRESSES: usize = 256;

/// Aliases followed inside one answer. Real ones have a handful.
const ALIASES: usize = 16;

const CLASS_IN: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_OPT: u16 = 41;

/// Which kind of address is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4: A records.
    V4,
    /// IPv6: AAAA records.
    V6,
}

impl Family {
    const fn kind(self) -> u16 {
        match self {
            Family::V4 => 1,
            Family::V6 => 28,
        }
    }
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What the answer is known by; to be chosen at random.
    pub id: u16,
    /// The whole name.
    pub name: Name,
    /// Which addresses.
    pub family: Family,
}

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How it went.
    pub code: Code,
    /// The answer did not fit: ask again over TCP.
    pub truncated: bool,
    /// The addresses of the name, in the server's order.
    pub addresses: Vec<IpAddr>,
    /// Seconds for which they may be believed: the least along the aliases. Zero where there is no address.
    pub ttl: u32,
}

/// How a question was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The name exists, with or without addresses.
    NoError,
    /// There is no such name.
    NxDomain,
    /// The server could not say (SERVFAIL), would not (REFUSED), or did not understand: another one may.
    Failure(u8),
}

/// Why a message is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsError {
    /// It does not answer the question: somebody else's, late, or forged.
    NotOurs,
    /// It cannot be read.
    Malformed,
}

impl fmt::Display for DnsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DnsError::NotOurs => "not an answer to the question",
            DnsError::Malformed => "a malformed DNS message",
        })
    }
}

impl core::error::Error for DnsError {}

/// Writes a question: recursion desired, and larger answers over UDP understood.
pub fn write_question(out: &mut Vec<u8>, question: &Question) {
    out.extend_from_slice(&question.id.to_be_bytes());
    // RD; one question, no answers, no authorities, one additional record.
    out.extend_from_slice(&[0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 1]);
    question.name.write(out);
    out.extend_from_slice(&question.family.kind().to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    // OPT: the root's name, the type, what UDP may carry as its class, nothing in the rest.
    out.push(0);
    out.extend_from_slice(&TYPE_OPT.to_be_bytes());
    out.extend_from_slice(&UDP_BYTES.to_be_bytes());
    out.extend_from_slice(&[0; 6]);
}

/// Reads the answer to a question from one whole message.
///
/// # Errors
/// The message answers another question, or cannot be read.
pub fn read_answer(message: &[u8], question: &Question) -> Result<Answer, DnsError> {
    let mut reader = Reader::new(message);
    let header = reader.array::<12>().ok_or(DnsError::Malformed)?;
    let [id_high, id_low, flags, more_flags, counts @ ..] = header;
    let is_answer = flags & 0x80 != 0 && flags & 0x78 == 0;
    if [id_high, id_low] != question.id.to_be_bytes() || !is_answer {
        return Err(DnsError::NotOurs);
    }
    let [questions, answers] = [[counts[0], counts[1]], [counts[2], counts[3]]].map(u16::from_be_bytes);
    let code = match more_flags & 0x0f {
        0 => Code::NoError,
        3 => Code::NxDomain,
        code => Code::Failure(code),
    };
    let nothing = Answer { code, truncated: flags & 0x02 != 0, addresses: Vec::new(), ttl: 0 };
    // Some servers refuse without repeating the question.
    if questions == 0 && matches!(code, Code::Failure(_)) {
        return Ok(nothing);
    }
    if questions != 1 {
        return Err(DnsError::NotOurs);
    }
    let name = Name::read(&mut reader).ok_or(DnsError::Malformed)?;
    let (kind, class) = (reader.u16(), reader.u16());
    if name != question.name || kind != Some(question.family.kind()) || class != Some(CLASS_IN) {
        return Err(DnsError::NotOurs);
    }
    if nothing.truncated {
        return Ok(nothing);
    }
    let records = (0..answers).map(|_| Record::read(&mut reader)).collect::<Option<Vec<_>>>();
    Ok(follow(&records.ok_or(DnsError::Malformed)?, question, nothing))
}

/// One record of an answer, as far as it is understood.
struct Record {
    name: Name,
    ttl: u32,
    data: Data,
}

enum Data {
    Address(IpAddr),
    Alias(Name),
    Other,
}

impl Record {
    fn read(reader: &mut Reader<'_>) -> Option<Record> {
        let name = Name::read(reader)?;
        let (kind, class, ttl) = (reader.u16()?, reader.u16()?, reader.u32()?);
        let mut data = reader.vec16()?;
        let data = match kind {
            _ if class != CLASS_IN => Data::Other,
            1 => Data::Address(Ipv4Addr::from(whole::<4>(&mut data)?).into()),
            28 => Data::Address(Ipv6Addr::from(whole::<16>(&mut data)?).into()),
            TYPE_CNAME => Data::Alias(Name::read(&mut data)?),
            _ => Data::Other,
        };
        // RFC 2181 section 8: a number with the top bit set means zero.
        Some(Record { name, ttl: if ttl > i32::MAX as u32 { 0 } else { ttl }, data })
    }
}

fn whole<const N: usize>(data: &mut Reader<'_>) -> Option<[u8; N]> {
    let bytes = data.array()?;
    data.is_empty().then_some(bytes)
}

/// Collects the addresses of the name that was asked for, through its aliases.
fn follow(records: &[Record], question: &Question, mut answer: Answer) -> Answer {
    let mut name = &question.name;
    let mut ttl = u32::MAX;
    for _ in 0..ALIASES {
        let of_name = records.iter().filter(|record| record.name == *name);
        let mut alias = None;
        for record in of_name {
            match &record.data {
                Data::Address(ip)
                    if ip.is_ipv4() == (question.family == Family::V4)
                        && answer.addresses.len() < ADDRESSES =>
                {
                    answer.addresses.push(*ip);
                    ttl = ttl.min(record.ttl);
                }
                Data::Alias(to) if alias.is_none() => {
                    alias = Some(to);
                    ttl = ttl.min(record.ttl);
                }
                _ => {}
            }
        }
        match alias {
            Some(to) if answer.addresses.is_empty() => name = to,
            _ => break,
        }
    }
    if !answer.addresses.is_empty() {
        answer.ttl = ttl;
    }
    answer
}

#[cfg(test)]
mod tests;
