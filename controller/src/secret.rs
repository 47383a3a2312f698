//! Texts that must not be shown. Neutral ground: the reader of one hands it to an adapter, and neither can print it.

use std::{collections::BTreeMap, fmt};

use crate::api::secret_ref::SecretKeyRef;

/// A text that must not be shown. It never reaches a message or a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// For using it, never for showing it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What the keys of Secrets that a drain names hold, as far as they were found.
pub type SecretTexts = BTreeMap<SecretKeyRef, Secret>;
