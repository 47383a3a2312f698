//! The short forms of host names.

/// How much of a container's id Docker makes its host name.
pub(super) const DOCKER_HOST_LENGTH: usize = 12;

/// The host's own name, without its domain.
pub(super) fn first_label(host: &str) -> &str {
    host.split_once('.').map_or(host, |(label, _)| label)
}
