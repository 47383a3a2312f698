//! Memory in a file, for `worker-drain run`.
