//! Chance, from a seed and nothing else: one stream for each purpose, so that one draw more here changes nothing there.

use std::time::Duration;

use ecs_emulator::model::Rng;

/// One stream of chance.
#[derive(Clone, Debug)]
pub struct Chance(Rng);

impl Chance {
    /// The stream of this seed for this purpose.
    pub fn new(seed: u64, purpose: &str) -> Self {
        // FNV-1a: the same on every machine and in every version.
        let hash = purpose
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let mut rng = Rng::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ hash);
        rng.next_u64();
        Self(rng)
    }

    /// A number below `bound`; zero if that is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.next_u64() % bound.max(1)
    }

    /// A number between these two, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// True so many times in a thousand.
    pub fn permille(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[usize::try_from(self.below(items.len() as u64)).unwrap_or(0)]
    }

    /// A time span between so many milliseconds.
    pub fn span(&mut self, low_ms: u64, high_ms: u64) -> Duration {
        Duration::from_millis(self.between(low_ms, high_ms))
    }
}
