//! The machine's time zone, as the C library knows it (`TZ`, `/etc/localtime`). For whoever writes local times: not for lanes,
//! which may not wait for the files that are read for it.

use std::{ffi::CStr, mem::MaybeUninit};

/// What local time differs from UTC by, at some point in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Seconds east of Greenwich.
    pub east: i32,
    /// Its abbreviation there and then, such as `CEST`.
    pub name: String,
}

/// The zone at a point in time, in seconds since the epoch. UTC where the C library does not know.
pub fn local_zone(unix: u64) -> Zone {
    let utc = Zone { east: 0, name: "UTC".into() };
    let Ok(unix) = libc::time_t::try_from(unix) else { return utc };
    let mut broken = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are to memory of their types that outlives the call, which keeps neither.
    if unsafe { libc::localtime_r(&unix, broken.as_mut_ptr()) }.is_null() {
        return utc;
    }
    // SAFETY: the call filled it; all zeroes would be a value as well.
    let broken = unsafe { broken.assume_init() };
    if broken.tm_zone.is_null() {
        return utc;
    }
    // SAFETY: a zone's name ends with a zero byte, and the C library keeps those it gave away.
    let name = unsafe { CStr::from_ptr(broken.tm_zone) };
    // No zone is more than a day from Greenwich.
    Zone { east: broken.tm_gmtoff as i32, name: name.to_string_lossy().into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_within_a_day_and_has_a_name() {
        // Whatever zone this machine is in.
        for unix in [0, 951_782_400, 1_795_582_553, u64::MAX] {
            let Zone { east, name } = local_zone(unix);
            assert!(east.abs() < 86_400 && !name.is_empty(), "{unix}: {east} {name:?}");
        }
        assert_eq!(local_zone(u64::MAX).name, "UTC");
    }
}
