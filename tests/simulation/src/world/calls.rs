//! How many calls ECS gets from each process, reckoned apart from the token buckets that are to keep them few.

use worker_drain::fleet::ecs::Row;

use super::World;

/// Calls that one process may make of each row: half of what AWS documents (burst, and for each second).
const ROWS: [(Row, i64, i64); 3] = [(Row::ClusterRead, 50, 10), (Row::ServiceRead, 50, 10), (Row::Protection, 100, 40)];

/// What a process may still call, in thousandths; by row.
#[derive(Clone, Copy, Debug)]
pub struct Allowance([(i64, u64); 3]);

impl Default for Allowance {
    fn default() -> Self {
        Self(ROWS.map(|(_, burst, _)| (burst * 1000, 0)))
    }
}

impl Allowance {
    fn take(&mut self, row: Row, now: u64) -> i64 {
        let place = ROWS.iter().position(|(other, ..)| *other == row).unwrap_or(0);
        let ((left, at), (_, burst, rate)) = (&mut self.0[place], ROWS[place]);
        let passed = i64::try_from(now.saturating_sub(*at)).unwrap_or(i64::MAX);
        *left = left.saturating_add(passed.saturating_mul(rate)).min(burst * 1000) - 1000;
        *at = now;
        *left
    }
}

impl World {
    /// A process calls ECS.
    pub fn count_call(&mut self, who: usize, row: Row) {
        self.tally.rule("11: calls stay inside the token bucket");
        // One call may be a moment early, because moments are whole milliseconds.
        if self.allowances[who].take(row, self.now) < -1000 {
            self.broken("11: calls stay inside the token bucket", || format!("operator {who} calls {row:?} too often"));
        }
    }

    /// Another drain of the same process does, when its turn comes.
    pub fn count_foreign(&mut self, who: usize, row: Row) {
        self.allowances[who].take(row, self.now);
    }
}
