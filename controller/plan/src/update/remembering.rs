//! What could not be written down beside the fleet, until it is there or no longer needed.

use super::view::View;
use crate::memory::Memory;

/// Forgets that it failed once there is nothing to write.
pub fn follow(view: &View<'_>, memory: &mut Memory) {
    let known = view.fleet.remembered.as_ref();
    if known.is_none_or(|known| known.says(&memory.to_remember(view.policy, view.fleet))) {
        memory.remembering = None;
    }
}
