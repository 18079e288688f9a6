//! Settings (RFC 9113 section 6.5): ours from a [`Config`](crate::h2::Config), the peer's from its frames. Owns their values
//! and which values cannot be.

use super::error::{Cause, Fault, Reason};
use super::flow::WINDOW_MAX;
use super::frame::{SIZE_MAX, SIZE_MIN, kind, write_head};
use alloc::vec::Vec;

const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
const MAX_HEADER_LIST_SIZE: u16 = 6;
/// RFC 8441.
const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// The settings of one side, which the other has to keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of HPACK table.
    pub header_table_size: u32,
    /// Streams that the other side may have open at once; `u32::MAX` where nothing was said.
    pub max_concurrent_streams: u32,
    /// Bytes of data on a new stream before there is more credit.
    pub initial_window_size: u32,
    /// Bytes of a frame's payload.
    pub max_frame_size: u32,
    /// Bytes of a head, as RFC 9113 section 10.5.1 counts them; `u32::MAX` where nothing was said.
    pub max_header_list_size: u32,
    /// Extended CONNECT (RFC 8441).
    pub connect_protocol: bool,
}

impl Settings {
    /// What holds before anything was said.
    pub const fn initial() -> Settings {
        Settings {
            header_table_size: 4096,
            max_concurrent_streams: u32::MAX,
            initial_window_size: 65_535,
            max_frame_size: SIZE_MIN,
            max_header_list_size: u32::MAX,
            connect_protocol: false,
        }
    }

    /// Takes one setting of a frame from a peer, which is a server or a client. What is not known is passed over.
    pub(super) fn take(&mut self, id: u16, value: u32, from_server: bool) -> Result<(), Fault> {
        let bad = Err(Fault::protocol(Cause::Setting));
        match id {
            HEADER_TABLE_SIZE => self.header_table_size = value,
            // A server may not even allow what only it does.
            ENABLE_PUSH if value > 1 || (from_server && value == 1) => return bad,
            MAX_CONCURRENT_STREAMS => self.max_concurrent_streams = value,
            INITIAL_WINDOW_SIZE if value > WINDOW_MAX as u32 => {
                return Err(Fault::new(Reason::FLOW_CONTROL_ERROR, Cause::Setting));
            }
            INITIAL_WINDOW_SIZE => self.initial_window_size = value,
            MAX_FRAME_SIZE if !(SIZE_MIN..=SIZE_MAX).contains(&value) => return bad,
            MAX_FRAME_SIZE => self.max_frame_size = value,
            MAX_HEADER_LIST_SIZE => self.max_header_list_size = value,
            // What was allowed cannot be taken back (RFC 8441 section 3).
            ENABLE_CONNECT_PROTOCOL if value > 1 || (value == 0 && self.connect_protocol) => return bad,
            ENABLE_CONNECT_PROTOCOL => self.connect_protocol = value == 1,
            _ => {}
        }
        Ok(())
    }

    /// Appends the frame that says what differs from what holds without it.
    pub(super) fn write(&self, out: &mut Vec<u8>, client: bool) {
        let initial = Settings::initial();
        let all = [
            (HEADER_TABLE_SIZE, self.header_table_size, initial.header_table_size),
            // A client says that it takes no pushes; a server has nothing to say.
            (ENABLE_PUSH, 0, u32::from(client)),
            (MAX_CONCURRENT_STREAMS, self.max_concurrent_streams, initial.max_concurrent_streams),
            (INITIAL_WINDOW_SIZE, self.initial_window_size, initial.initial_window_size),
            (MAX_FRAME_SIZE, self.max_frame_size, initial.max_frame_size),
            (MAX_HEADER_LIST_SIZE, self.max_header_list_size, initial.max_header_list_size),
            (ENABLE_CONNECT_PROTOCOL, u32::from(self.connect_protocol), 0),
        ];
        let said = all.iter().filter(|(_, value, initial)| value != initial);
        write_head(out, kind::SETTINGS, 0, 0, said.clone().count() * 6);
        for (id, value, _) in said {
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

/// The settings in a payload, which holds whole ones.
pub(super) fn each(payload: &[u8]) -> impl Iterator<Item = (u16, u32)> {
    payload
        .as_chunks::<6>()
        .0
        .iter()
        .map(|[a, b, c, d, e, f]| (u16::from_be_bytes([*a, *b]), u32::from_be_bytes([*c, *d, *e, *f])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h2::frame::HEAD;

    /// RFC 9113 section 6.5.2, setting by setting.
    #[test]
    fn values_that_settings_cannot_have() {
        let protocol = Err(Fault::protocol(Cause::Setting));
        let flow = Err(Fault::new(Reason::FLOW_CONTROL_ERROR, Cause::Setting));
        for (id, value, from_server, expected) in [
            (1, u32::MAX, false, Ok(())),
            (2, 0, false, Ok(())),
            (2, 1, false, Ok(())),
            (2, 2, false, protocol),
            (2, 0, true, Ok(())),
            (2, 1, true, protocol),
            (3, 0, false, Ok(())),
            (4, 0x7fff_ffff, false, Ok(())),
            (4, 0x8000_0000, false, flow),
            (5, 16_383, false, protocol),
            (5, 16_384, false, Ok(())),
            (5, 16_777_215, false, Ok(())),
            (5, 16_777_216, false, protocol),
            (6, 0, false, Ok(())),
            (8, 1, false, Ok(())),
            (8, 2, false, protocol),
            (7, 9, false, Ok(())),
            (0xffff, u32::MAX, true, Ok(())),
        ] {
            assert_eq!(Settings::initial().take(id, value, from_server), expected, "{id} {value}");
        }
        let mut settings = Settings::initial();
        assert_eq!(settings.take(8, 0, true), Ok(()));
        assert_eq!(settings.take(8, 1, true), Ok(()));
        assert_eq!(settings.take(8, 0, true), protocol, "taken back");
    }

    #[test]
    fn settings_are_there_and_back() {
        let settings = Settings {
            header_table_size: 1,
            max_concurrent_streams: 2,
            initial_window_size: 3,
            max_frame_size: 20_000,
            max_header_list_size: 4,
            connect_protocol: true,
        };
        for (settings, client, len) in [
            (settings, true, 7),
            (settings, false, 6),
            (Settings::initial(), true, 1),
            (Settings::initial(), false, 0),
        ] {
            let mut out = Vec::new();
            settings.write(&mut out, client);
            assert_eq!(out.len(), HEAD + len * 6);
            let mut read = Settings::initial();
            for (id, value) in each(&out[HEAD..]) {
                read.take(id, value, !client).unwrap();
            }
            assert_eq!(read, settings);
        }
    }
}
