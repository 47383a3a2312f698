//! What is left out of what is written.

/// There are none of these.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
pub fn is_zero(count: &u32) -> bool {
    *count == 0
}
