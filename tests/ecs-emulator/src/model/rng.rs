//! The model's only source of chance: small, fast, and the same on every machine and in every version.

use std::time::Duration;

/// `SplitMix64`. Written out here because a replayed seed must not depend on the version of a crate.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator that always yields the same sequence for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 128 random bits.
    pub fn next_u128(&mut self) -> u128 {
        (u128::from(self.next_u64()) << 64) | u128::from(self.next_u64())
    }

    /// A number below `bound`, which must not be zero.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u64;
        usize::try_from(self.next_u64() % bound).expect("below a usize")
    }

    /// A span between two others, both included, in whole milliseconds.
    pub fn between(&mut self, min: Duration, max: Duration) -> Duration {
        let (min, max) = (min.as_millis(), max.as_millis());
        let width = max.saturating_sub(min) + 1;
        let offset = u128::from(self.next_u64()) % width;
        Duration::from_millis(u64::try_from(min + offset).unwrap_or(u64::MAX))
    }
}
