//! The evidence verifier for browsers: `evidence::verify` behind four functions that JavaScript can call.
//!
//! The page asks for room ([`room`]), copies bytes there, calls [`verify`], reads the report where [`report_place`] and
//! [`report_bytes`] say it is. There is one caller, one thread and one call at a time, and whatever the page does wrong,
//! it does to itself: this memory is its own.
//!
//! Nothing here is `unsafe` but the attribute that exports a function by its name: the linker cannot know that the name is
//! taken once.

#![cfg_attr(not(target_family = "wasm"), allow(dead_code))]

use std::cell::RefCell;

use evidence::Trust;

/// The page lists at most this many commands.
const COMMANDS_MAX: usize = 2000;

thread_local! {
    /// What the page has written: the bundle, or the key.
    static ROOM: RefCell<[Vec<u8>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
    /// The report of the last call.
    static REPORT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Room for the bundle (`what` 0) or the key (`what` 1), zeroed. Gives its place, 0 if there is none.
// SAFETY: no other function of the module has this name.
#[unsafe(no_mangle)]
pub extern "C" fn room(what: usize, bytes: usize) -> *mut u8 {
    ROOM.with_borrow_mut(|rooms| {
        let Some(room) = rooms.get_mut(what) else {
            return std::ptr::null_mut();
        };
        *room = Vec::new();
        if bytes > evidence::BUNDLE_BYTES_MAX || room.try_reserve_exact(bytes).is_err() {
            return std::ptr::null_mut();
        }
        room.resize(bytes, 0);
        room.as_mut_ptr()
    })
}

/// Verifies what the page has written to the rooms; no key means the bundle's own. 1 if the key is one, else 0.
// SAFETY: no other function of the module has this name.
#[unsafe(no_mangle)]
pub extern "C" fn verify() -> u32 {
    let rooms = ROOM.take();
    let [bundle, key] = &rooms;
    let text = String::from_utf8_lossy(key);
    let key = match text.trim() {
        "" => Ok(None),
        text => text.parse().map(Some),
    };
    let Ok(key) = key else {
        ROOM.set(rooms);
        return 0;
    };
    let report = evidence::verify(bundle, &Trust { key, policy: None }).json(COMMANDS_MAX).to_string();
    REPORT.set(report);
    1
}

/// Where the report is: JSON in UTF-8.
// SAFETY: no other function of the module has this name.
#[unsafe(no_mangle)]
pub extern "C" fn report_place() -> *const u8 {
    REPORT.with_borrow(|report| report.as_ptr())
}

/// How long it is.
// SAFETY: no other function of the module has this name.
#[unsafe(no_mangle)]
pub extern "C" fn report_bytes() -> usize {
    REPORT.with_borrow(String::len)
}
